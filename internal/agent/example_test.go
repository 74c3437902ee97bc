package agent_test

import (
	"context"
	"fmt"
	"time"

	"github.com/webordinary/claude-code-container/internal/agent"
	"github.com/webordinary/claude-code-container/internal/process"
)

func ExampleConversationID() {
	fmt.Println(agent.ConversationID("amelia", "scott", "t1", 0))
	// Output: e981b35f-d2b3-5257-a05d-8353d3927694
}

// ExampleClaude shows what a caller has to give; it is not run, for want of a
// model.
func ExampleClaude() {
	c := &agent.Claude{
		Path: "claude", Runner: &process.Runner{Keeper: []string{"keeper"}},
		Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}, Timeout: 10 * time.Minute,
		Model: func(context.Context, int64) (agent.ModelSession, error) {
			return agent.ModelSession{BaseURL: "http://127.0.0.1:8080", Token: "token"}, nil
		},
	}
	result, err := c.Run(context.Background(), agent.Request{
		ProjectID: "amelia", UserID: "scott", ThreadID: "t1", Instruction: "Make the title blue.",
		Pair: "amelia#scott", Site: "/mnt/efs/amelia-scott/site", Job: "/mnt/efs/amelia-scott/job",
		Conversations: "/mnt/efs/amelia-scott/worker/conversations",
	})
	fmt.Println(result.Summary, err)
}
