// Package exits tests the five ways in which a worker leaves a project: it is idle,
// it is told to end, it is killed, it freezes, its network is cut. Work arrives
// before, while and after it leaves, sent as the platform's orchestrator does, and
// one more worker lives: no work may be left in a queue that nobody reads.
package exits
