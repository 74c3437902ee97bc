package protocol_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

func valid() protocol.InputMessage {
	return protocol.InputMessage{
		ProjectID: "amelia", UserID: "scott", ThreadID: "t1", SessionID: "s1", CommandID: "c1",
		Instruction: "make the header blue", RepoURL: "https://github.com/o/r.git",
	}
}

// check validates a message and compares the code; none means valid.
func check(t *testing.T, m protocol.InputMessage, rules protocol.Rules, code protocol.ErrorCode) {
	t.Helper()
	err := m.Validate(rules)
	var invalid *protocol.InvalidError
	switch {
	case code == "" && err != nil:
		t.Errorf("refused: %v", err)
	case code != "" && (!errors.As(err, &invalid) || invalid.Code != code):
		t.Errorf("error = %v; want %s", err, code)
	case code != "" && (m.Instruction != "" && strings.Contains(err.Error(), m.Instruction) || strings.Contains(err.Error(), "hunter2")):
		t.Errorf("the error shows what it should not: %v", err)
	}
}

func TestValidateRepoURL(t *testing.T) {
	rules := protocol.Rules{AllowedRepoHosts: []string{"github.com", "git.example:8443", "127.0.0.1:3000", "[::1]:3000", "localhost", "10.0.0.1:80"}}
	file := rules
	file.AllowFile = true
	for _, tt := range []struct {
		url   string
		rules protocol.Rules
		ok    bool
	}{
		{"", rules, true},
		{"https://github.com/o/r.git", rules, true},
		{"https://github.com/o/r.git", protocol.Rules{}, true},
		{"https://GitHub.com/o/r/", rules, true},
		{"https://git.example:8443/o/r", rules, true},
		{"http://127.0.0.1:3000/o/r", rules, true},
		{"http://[::1]:3000/o/r", rules, true},
		{"file:///srv/r.git", file, true},
		{"file:///srv/my%20sites/r.git", file, true},
		{"https://github.com/o/" + strings.Repeat("r", 2000), rules, true},

		{"https://git.example:8443/o/r", protocol.Rules{}, false},
		{"file:///etc", rules, false},
		{"file://host/srv", file, false},
		{"file:///srv/../etc", file, false},
		{"file:/srv", file, true},
		{"file:srv", file, false},
		{"/etc", file, false},
		{"o/r", file, false},
		{"ssh://github.com/o/r", rules, false},
		{"git://github.com/o/r", rules, false},
		{"ext::sh -c id", rules, false},
		{"git@github.com:o/r", rules, false},
		{"//github.com/o/r", rules, false},
		{"https:github.com/o/r", rules, false},
		{"https:///o/r", rules, false},
		{"http://github.com/o/r", rules, false},
		{"http://localhost/o/r", rules, false},
		{"http://127.0.0.1:3001/o/r", rules, false},
		{"http://10.0.0.1:80/o/r", rules, false},
		{"http://127.0.0.1:3000/o/r", protocol.Rules{}, false},
		{"https://evil.example/o/r", rules, false},
		{"https://github.com.evil.example/o/r", rules, false},
		{"https://evil.example/github.com/r", rules, false},
		{"https://github.com:444/o/r", rules, false},
		{"https://github.com:/o/r", rules, false},
		{"https://git.example/o/r", rules, false},
		{"https://hunter2@github.com/o/r", rules, false},
		{"https://x:hunter2@github.com/o/r", rules, false},
		{"https://@github.com/o/r", rules, false},
		{"https://github.com\\@evil.example/o/r", rules, false},
		{"https://github.com/o/r?x=1", rules, false},
		{"https://github.com/o/r?", rules, false},
		{"https://github.com/o/r#main", rules, false},
		{"https://github.com/o/r#", rules, false},
		{"https://github.com/o/../r", rules, false},
		{"https://github.com/o/./r", rules, false},
		{"https://github.com//o/r", rules, false},
		{"https://github.com/o/%2e%2e/r", rules, false},
		{"https://github.com/o%2f..%2fr", rules, false},
		{"https://github.com/o%00/r", rules, false},
		{"https://github.com/o%0a/r", rules, false},
		{"https://github.com/o%5c..%5cr", rules, false},
		{"https://github.com/o%ff/r", rules, false},
		{"https://github.com/o%zz/r", rules, false},
		{"https://github.com", rules, false},
		{"https://github.com/", rules, false},
		{"https://github.com/o\n/r", rules, false},
		{"https://github.com/o/r\x00", rules, false},
		{" https://github.com/o/r", rules, false},
		{"https://gіthub.com/o/r", rules, false}, // a Cyrillic i
		{"--upload-pack=id", rules, false},
		{"https://github.com/" + strings.Repeat("r", 2048), rules, false},
	} {
		t.Run(tt.url[:min(len(tt.url), 40)], func(t *testing.T) {
			m := valid()
			m.RepoURL = tt.url
			code := protocol.RepoNotAllowed
			if tt.ok {
				code = ""
			}
			check(t, m, tt.rules, code)
		})
	}
}

func TestValidateIDsAndInstruction(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*protocol.InputMessage)
		ok   bool
	}{
		{"mail ids", func(m *protocol.InputMessage) { m.ThreadID, m.CommandID = "<CAF=é+1@mail.example>", "a b#/\\" }, true},
		{"256 characters", func(m *protocol.InputMessage) { m.SessionID = strings.Repeat("é", 256) }, true},
		{"one byte", func(m *protocol.InputMessage) { m.Instruction = "x" }, true},
		{"200 KB", func(m *protocol.InputMessage) { m.Instruction = strings.Repeat("é", 100*1024) }, true},
		{"digit first", func(m *protocol.InputMessage) { m.UserID = "1._@+-" }, true},
		{"project with dots", func(m *protocol.InputMessage) { m.ProjectID = "a.b-c" }, true},

		{"no instruction", func(m *protocol.InputMessage) { m.Instruction = "" }, false},
		{"blank instruction", func(m *protocol.InputMessage) { m.Instruction = " \n\u00a0" }, false},
		{"long instruction", func(m *protocol.InputMessage) { m.Instruction = strings.Repeat("x", 200*1024+1) }, false},
		{"invalid UTF-8", func(m *protocol.InputMessage) { m.Instruction = "a\xffb" }, false},
		{"defect", func(m *protocol.InputMessage) { m.Defect = "type is not one that is known" }, false},
		{"no thread", func(m *protocol.InputMessage) { m.ThreadID = "" }, false},
		{"no session", func(m *protocol.InputMessage) { m.SessionID = "" }, false},
		{"no command", func(m *protocol.InputMessage) { m.CommandID = "" }, false},
		{"newline in thread", func(m *protocol.InputMessage) { m.ThreadID = "a\nb" }, false},
		{"escape in session", func(m *protocol.InputMessage) { m.SessionID = "a\x1bb" }, false},
		{"right to left", func(m *protocol.InputMessage) { m.ThreadID = "a\u202eb" }, false},
		{"damaged command id", func(m *protocol.InputMessage) { m.CommandID = "a\xff" }, false},
		{"long command id", func(m *protocol.InputMessage) { m.CommandID = strings.Repeat("é", 257) }, false},
		{"no project", func(m *protocol.InputMessage) { m.ProjectID = "" }, false},
		{"no user", func(m *protocol.InputMessage) { m.UserID = "" }, false},
		{"long user", func(m *protocol.InputMessage) { m.UserID = strings.Repeat("u", 65) }, false},
		{"path in project", func(m *protocol.InputMessage) { m.ProjectID = "a/b" }, false},
		{"dots in project", func(m *protocol.InputMessage) { m.ProjectID = "a..b" }, false},
		{"dot first", func(m *protocol.InputMessage) { m.UserID = ".ssh" }, false},
		{"option as user", func(m *protocol.InputMessage) { m.UserID = "-rf" }, false},
		{"hash in user", func(m *protocol.InputMessage) { m.UserID = "a#b" }, false},
		{"letter beyond ASCII", func(m *protocol.InputMessage) { m.UserID = "zoé" }, false},
		{"pattern in user", func(m *protocol.InputMessage) { m.UserID = "a{projectId}" }, false},
		{"NUL in user", func(m *protocol.InputMessage) { m.UserID = "a\x00" }, false},
		{"large letter in the bucket", func(m *protocol.InputMessage) { m.ProjectID = "Amelia" }, false},
		{"underscore in the bucket", func(m *protocol.InputMessage) { m.ProjectID = "a_b" }, false},
		{"hyphen beside the bucket's dot", func(m *protocol.InputMessage) { m.ProjectID = "a-" }, false},
		{"dot beside the bucket's dot", func(m *protocol.InputMessage) { m.ProjectID = "a." }, false},
		{"long bucket", func(m *protocol.InputMessage) { m.ProjectID = strings.Repeat("p", 43) }, false},
		{"long queue", func(m *protocol.InputMessage) { m.UserID = strings.Repeat("u", 60) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := valid()
			tt.edit(&m)
			code := protocol.InvalidMessage
			if tt.ok {
				code = ""
			}
			check(t, m, protocol.Rules{}, code)
		})
	}
}

func TestCheckRepoHost(t *testing.T) {
	for _, h := range []string{"github.com", "git.example:8443", "127.0.0.1:3000", "[::1]:3000", "localhost"} {
		if err := protocol.CheckRepoHost(h); err != nil {
			t.Error(err)
		}
	}
	for _, h := range []string{"", ":80", "a:", "a b", "https://a", "a/b", "u@a", "a:x", "::1", "a?b", "a#b"} {
		if protocol.CheckRepoHost(h) == nil {
			t.Errorf("%q was accepted", h)
		}
	}
}

func TestErrorCodesAreAClosedList(t *testing.T) {
	const contract = "invalid_message wrong_project command_id_reused repo_missing repo_not_allowed repo_unreachable repo_auth merge_conflict " +
		"agent_failed agent_timeout agent_stalled agent_turn_limit agent_cost_limit agent_refused agent_prompt_too_long agent_missing " +
		"model_overloaded model_auth model_credit build_failed build_timeout build_out_of_memory install_failed " +
		"deploy_failed deploy_refused push_failed file_too_large interrupted internal"
	var got []string
	for _, c := range protocol.ErrorCodes() {
		if !c.Valid() {
			t.Errorf("%s is not valid", c)
		}
		got = append(got, string(c))
	}
	if list := strings.Join(got, " "); list != contract {
		t.Errorf("codes = %s; want %s", list, contract)
	}
	if protocol.ErrorCode("oops").Valid() || protocol.ErrorCode("").Valid() {
		t.Error("the list is open")
	}
}
