// Package gateway stands between an agent and the model's service, so that the
// agent never holds the service's credentials.
//
// For each job it opens a reverse proxy on a loopback address, with a random
// token that takes the place of the credentials and is worth nothing once the job
// is closed. It speaks one of two protocols: the Anthropic API's, of which POST
// /v1/messages and /v1/messages/count_tokens get through, or Bedrock's, of which
// POST /model/{id}/invoke and /model/{id}/invoke-with-response-stream do. A Signer
// adds the real credentials on the way out. Answers are streamed as they come.
//
// A call must be for a configured model and must not ask the service to act by
// itself: tools other than the caller's own, MCP servers and containers are
// refused. How many calls run at once, how large they are, and how many tokens a
// job uses is bounded. Tokens are counted from what the service says in its
// answers, as JSON, server-sent events or AWS's event stream.
//
// Neither bodies nor keys are logged.
package gateway
