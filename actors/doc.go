// Package actors gives each store a mailbox inside a hollywood application: a
// log actor, a snapshot actor and an application-data actor.
//
// What a client addresses is a Mailbox, a process whose pid stays valid for as
// long as the engine lives. It admits or refuses a command in the sender's own
// goroutine, so what waits is bounded however fast the senders are, and it
// keeps every admitted Request until it has been answered, once. Behind it runs
// the actor proper:
//
//	sender ──command──▶ Mailbox ──Request──▶ Host ──▶ Behavior ──job──▶ worker ──▶ store
//	       ◀───────────────────reply (once)────────────────────────────────┘
//
// A Host guards a Behavior: it opens it, dispatches requests to it, catches its
// panics, and rebuilds it from disk in place. Requests that had been dispatched
// are then resolved from what is on disk; those that had not are dispatched to
// the new one. Neither hollywood nor the siblings see any of it. The calls that
// wait for the disk run on worker actors, so that no mailbox ever does.
//
// Ask is the one typed call for code outside of actors. For the streams of
// snapshots there are io.Writer, io.Reader and io.ReaderAt: SnapshotWriter,
// SnapshotReader, SnapshotReaderAt; SaveSnapshot and ImportSnapshot go on by
// themselves when the actor crashes. Watch follows what changes in the application
// data, and goes on by itself as well.
package actors
