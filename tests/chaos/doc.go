// Package chaos breaks workers while they work. Three worker processes carry out
// commands of several threads and projects; from a seed, which is printed, they are
// killed, frozen past the lease, terminated, replaced, cut off and slowed down, at
// random moments and at every boundary of a command in turn, while messages are
// doubled and delayed. Then the platform must be at rest, and its history right:
// see platform.Check.
//
//	make chaos                     several rounds, at least 200 faults
//	CHAOS_SEED=7 make chaos        the same faults and commands again, as far as time allows
//	CHAOS_ROUNDS=1 CHAOS_FAULTS=40 how much of it
//
// What may run twice is the agent's step, if a fault hit it: each further run is
// explained by a fault on the worker of the run before. A tree that is frozen
// together with its worker is not dead: it holds the lock on its checkout while
// others go on beside it, in a fresh one, and what it writes when it thaws, nobody
// looks at. Such runs are counted (Beside), and not wrong.
//
// No message ends in a dead-letter queue, however often its receivers die.
package chaos
