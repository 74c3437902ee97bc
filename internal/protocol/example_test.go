package protocol_test

import (
	"errors"
	"fmt"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

func ExampleDecodeInput() {
	body := []byte(`{"projectId":"amelia","userId":"scott","threadId":"t1","sessionId":"s1","instruction":"make the header blue"}`)
	in, err := protocol.DecodeInput(body, protocol.Delivery{MessageID: "42"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(in.Command.CommandID, in.Command.Instruction)
	// Output: sqs-42 make the header blue
}

func ExampleDecodeInput_interrupt() {
	in, err := protocol.DecodeInput([]byte(`{"type":"INTERRUPT","reason":"the user wrote again"}`), protocol.Delivery{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(in.Command == nil, in.Interrupt.Reason)
	// Output: true the user wrote again
}

func ExampleDecodeUnclaimed() {
	c, err := protocol.DecodeUnclaimed([]byte(`{"type":"CLAIM_REQUEST","projectId":"amelia","userId":"scott"}`), protocol.Delivery{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Pair().Key(), c.Work == nil)
	// Output: amelia#scott true
}

func ExampleInputMessage_Validate() {
	m := protocol.InputMessage{
		ProjectID: "amelia", UserID: "scott", ThreadID: "t1", SessionID: "s1", CommandID: "c1",
		Instruction: "make the header blue", RepoURL: "https://evil.example/o/r",
	}
	var invalid *protocol.InvalidError
	if err := m.Validate(protocol.Rules{AllowedRepoHosts: []string{"github.com"}}); errors.As(err, &invalid) {
		fmt.Printf("%s: %s\n", invalid.Code, invalid.Reason)
	}
	// Output: repo_not_allowed: the host of repoUrl is not one of github.com
}

func ExampleOutputMessage_Encode() {
	o := protocol.NewOutput(protocol.InputMessage{ProjectID: "amelia", UserID: "scott", SessionID: "s1", CommandID: "c1"})
	o.Success, o.Summary = true, "Nothing had to be changed."
	body, err := o.Encode()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(protocol.Answer{Body: body, Attributes: o.Attributes("corr-1")}.Attributes)
	// Output: map[commandId:c1 correlation_id:corr-1 sessionId:s1]
}

func ExampleNames() {
	var n protocol.Names
	p := protocol.Pair{ProjectID: "amelia", UserID: "scott"}
	fmt.Println(n.Input(p))
	fmt.Println(n.SiteURL(n.Bucket(p.ProjectID)))
	// Output:
	// webordinary-input-amelia-scott
	// https://edit.amelia.webordinary.com
}

func ExampleBranch() {
	fmt.Println(protocol.Branch("2024-11-03"))
	// Output: thread-2024-11-03
}
