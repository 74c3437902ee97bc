// Package modelserver is a loopback stand-in for the Anthropic API, and for
// Amazon Bedrock, that plays scripts: what the model would say and which tools it
// would use. It serves POST /v1/messages, streaming and not, and POST
// /v1/messages/count_tokens, and Bedrock's POST /model/{id}/invoke and
// /model/{id}/invoke-with-response-stream, well enough for the real Claude Code
// CLI, and records every request. Signatures are not checked.
//
//	s := modelserver.Start(t)
//	s.Play("make the title blue",
//		modelserver.Use("Read", modelserver.Input{"file_path": "index.html"}),
//		modelserver.Use("Edit", modelserver.Input{"file_path": "index.html", "old_string": "red", "new_string": "blue"}),
//		modelserver.Say("The title is blue now."))
//
// A script is chosen by a text that the newest instruction of the conversation
// contains, and the turn to play is counted from the conversation itself. So the
// server keeps no state for a conversation: a client that is killed and resumed,
// or another server with the same scripts, goes on at the right place.
//
// Relative paths in a tool's input are resolved by the CLI against its working
// directory.
package modelserver
