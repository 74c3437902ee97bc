// Package bench measures the worker on the emulators: `make bench` runs it, and
// writes its table into docs/benchmarks.md, where the method is, too. No test asserts
// a figure; the tests here are of the table.
//
//	go test -run '^$' -bench . -benchtime 1x ./tests/bench           print the table
//	go test -run '^$' -bench . -benchtime 1x ./tests/bench -update   write it, too
//
// Each benchmark runs once, and repeats by itself what it measures.
package bench
