// Package soak lets workers run for long, and looks that nothing grows. Three worker
// processes carry out commands of many projects, which come and go: each is visited by a
// few commands in a row, then left until its worker has let go of it. Meanwhile two more
// projects get what should have been trimmed long ago.
//
//	make soak                                    5,000 commands over 50 projects
//	SOAK_COMMANDS=300 SOAK_PROJECTS=10 make soak fewer
//	SOAK_SANDBOX=bubblewrap make soak            behind a wall (or landlock); else without one
//
// Without a wall it is faster, and the agent can note its runs outside of the checkout: it
// is seen if one ran twice.
//
// Memory, threads and descriptors are looked at all the time, and those of the first part
// after the warm-up are compared with those of the last. A worker has no way to tell its
// goroutines while it runs, and needs none: at the end SIGQUIT makes the runtime print
// them, and those of a worker that did all the work are compared with those of one that
// was just started.
//
// Every command has one answer, and nothing of a directory exceeds its bound.
package soak
