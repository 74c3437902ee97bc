// Package gateway stands between the worker's children and the network: an agent
// reaches the model's service through it, without ever holding the service's
// credentials, and agent and npm reach the hosts that are listed, and no others.
//
// For each job it opens a proxy on a loopback address, with a random token that
// takes the place of the credentials and is worth nothing once the job is closed.
//
// To the model it speaks one of two protocols: the Anthropic API's, of which POST
// /v1/messages and /v1/messages/count_tokens get through, or Bedrock's, of which
// POST /model/{id}/invoke and /model/{id}/invoke-with-response-stream do. A Signer
// adds the real credentials on the way out. Answers are streamed as they come.
//
// A call of the model must be for a configured model and must not ask the service to act by
// itself: tools other than the caller's own, MCP servers and containers are
// refused. How many calls run at once, how large they are, and how many tokens a
// job uses is bounded: a call counts with what it may come to until it has ended, so
// that only the last one to begin can be too much. Tokens are counted from what the service says in its
// answers, as JSON, server-sent events or AWS's event stream.
//
// To others it is a forward proxy: CONNECT, and requests with an absolute http
// address. A host must be listed. Its addresses are looked up and looked at here,
// and the one that was looked at is dialled, so that no name leads to the worker's
// own machine, its networks or its cloud's services. A build's job has this alone.
//
// Neither bodies nor keys are logged.
package gateway
