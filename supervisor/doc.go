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
// # Snapshots and the log
//
// CreateSnapshot compacts the log to the oldest snapshot that stays, and only
// those count as staying that were read whole, that hold application data, and
// that the log goes on from. So
// when the newest is damaged and the data is lost, the one before it and the log
// bring back everything.
//
// A good snapshot that reaches beyond the end of the log holds what was
// committed and the log has lost (its files, or what was cut at damage): the next
// start imports it, unless the data has applied more than the log holds, and the
// log goes on behind it. That also holds for a group that neither log nor data
// know. The node has then lost its vote as well, and must catch up as a new one
// would before it votes or leads.
//
// A snapshot whose last entry the log has in another term, or that ends in an
// earlier term than a log that is shorter, is of another history, such as a file
// of another cluster, or of a time before the log was cut. Replaying the log on
// top of it would give a state that never was: it is reported at every start, as
// damage if the log is known to be committed there, is not used, and counts for
// nothing. What cannot be told is a snapshot
// of other entries of the same term. Recovery leaves none behind, because no log
// goes on before a good snapshot; but one that could not be read at that start,
// or is put back by hand, and whose index the log then reaches in the same term,
// looks good. Remove damaged snapshots after a log was cut.
//
// A group whose data cannot be brought up to its log is withheld, with a reason
// that says what helps; the others are served. A service none of whose groups can
// be served does not start. DESIGN.md lists what can be found and what is done.
//
// Pids stay valid across restarts of the actors behind them, and every command
// gets exactly one reply, also from a service that was stopped.
package supervisor
