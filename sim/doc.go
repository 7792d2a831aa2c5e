// Package sim runs actors deterministically: real hollywood, real actors, real
// stores on real files, in virtual time, with every delivery chosen by a seeded
// scheduler. The same seed gives the same run.
//
// Run puts a World into a testing/synctest bubble. Actors take part by being
// spawned with the World's middleware (Env for those of Ballast, Spawn for
// others): each of them then waits at a gate before it handles a message, and
// the World opens one gate at a time. Time passes only when nobody is at a gate.
//
//	sim.Run(t, sim.Config{Seed: 7}, func(w *sim.World) {
//		storage, err := supervisor.Spawn(w.Engine(), supervisor.Config{Dir: dir, Env: w.Env()})
//		…
//	})
//
// The driver asks with Ask of this package, which goes through the World.
//
// A World fails a run in which nothing can happen any more: a lost reply or a
// deadlock ends the run at once, and does not hang it.
//
// Faults are the user's to inject between deliveries: Every calls a function
// with a given chance, with the World's own source of randomness. Freeze stops
// all actors of a node as kill -9 does, and CopyDir makes the directory that
// the next process finds, so that a node can be killed at any step and started
// again beside its frozen predecessor. PowerDisk goes further: it knows what
// was synced, and Image makes a directory that a power cut could have left.
//
// DESIGN.md says what is needed for two runs to be the same, and what is not
// covered.
package sim
