// Package supervisor is what an application spawns: the three storage actors
// of Ballast under one supervisor, on one directory.
//
//	storage, err := supervisor.Spawn(engine, supervisor.Config{Dir: dir})
//
// The supervisor coordinates what takes more than one actor: ApplyEntry
// (append to the log, then apply), CreateSnapshot (export, write, verify,
// compact the log), Restore (verify, swap in, replay), and the recovery of the
// application data after every start and every failure. The storage actors can
// be addressed directly for everything else, which is what the binding of a
// consensus engine does.
//
// Pids stay valid across restarts of the actors behind them, and every command
// gets exactly one reply, also from a service that was stopped.
package supervisor
