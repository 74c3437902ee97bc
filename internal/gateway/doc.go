// Package gateway stands between an agent and the model's service, so that the
// agent never holds the service's credentials.
//
// For each job it opens a reverse proxy on a loopback address, with a random
// token that takes the place of the key and is worth nothing once the job is
// closed. Only the calls an agent needs get through: POST /v1/messages and
// POST /v1/messages/count_tokens. A Signer adds the real credentials on the way
// out. Answers are streamed as they come. Neither bodies nor keys are logged.
package gateway
