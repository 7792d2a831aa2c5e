package messages

// EntryNormal is the type of an entry whose Data is an encoded Operation, or
// empty. Every other type is opaque to Ballast: it is stored and returned, and
// the application-data actor steps over it when it applies.
const EntryNormal uint8 = 0

// Entry is one entry of a replicated log (Raft, figure 2).
type Entry struct {
	// Index is the position in the group's log. The first entry has index 1
	// and there are no gaps.
	Index uint64
	// Term is the leader's term when the entry was proposed. Terms never
	// decrease along a log.
	Term uint64
	// Type tells a normal entry from those of a consensus engine, for example
	// etcd-raft's configuration changes. Zero is EntryNormal.
	Type uint8
	// Data is the payload, of any content. An empty one is legal: leaders
	// append them at the start of a term.
	Data []byte
}

// HardState is the state that Raft must have on disk before it answers a
// message (Raft, figure 2, "Persistent state"; etcd-raft's HardState).
type HardState struct {
	Term   uint64 // latest term seen
	Vote   uint64 // candidate voted for in Term, or zero
	Commit uint64 // highest index known to be committed
}

// LogBounds describes one group's log.
//
// A log that has never been written has all fields zero but First, which is 1.
// A log that is empty behind a snapshot at index N has First N+1, Last N and
// PrevTerm = LastTerm = the term of N.
type LogBounds struct {
	// First is the index of the first entry that can be read.
	First uint64
	// Last is the index of the last entry, or First-1 if there is none.
	Last uint64
	// PrevTerm is the term of the entry at First-1, which is what Raft's
	// consistency check asks for. Zero if First is 1.
	PrevTerm uint64
	// LastTerm is the term of the entry at Last.
	LastTerm uint64
	// HardState is the latest hard state that was appended.
	HardState HardState
}

// Empty reports whether the log holds no entries.
func (b LogBounds) Empty() bool { return b.Last < b.First }
