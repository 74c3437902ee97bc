// Package attack attacks the worker: by what a hostile instruction, model, repository,
// package or sender could do. The worker is the built program, of an unprivileged user
// and process 1 of its namespace, as in the image; git server, model and whatever else
// can be reached are the test's, in a network of its own.
//
// Each attack is tried behind each wall, and shown to succeed where its defence is taken
// away: without a wall, or on who does plainly what the worker does. The table in
// docs/security.md is made from the rows in table_test.go.
package attack
