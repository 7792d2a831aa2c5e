package log

import "github.com/ballast-raft/ballast/messages"

// Store is a durable log of Raft entries for any number of groups.
//
// The methods that change the log only check and stage: they do no I/O, and
// what they staged becomes durable, and visible to reads, at the next Sync
// that begins after they return (visible, but not durable, at the next Write). Changes are checked against everything staged
// before them, so a caller can stage the next batch while a Sync is under way;
// that is group commit. Each staged change is atomic by itself: after a crash
// it is there whole or not at all, and never without those staged before it.
//
// Every method is safe for concurrent use. No method but Sync, Maintain and
// Close waits for the disk to write, and reads wait for none of them.
//
// The positions that changes return number them in the order of staging,
// across all groups; Durable tells up to which position they are on disk, also
// after a restart. The errors are those that package messages documents at the
// reply to the command of the same name.
type Store interface {
	// Append stages entries, a hard state, or both, as one atomic change. If
	// the first entry's Index is zero, it sets the indexes of all of them. The
	// store keeps entries' Data until it is durable; the caller must not
	// change it.
	Append(group uint64, entries []messages.Entry, hs *messages.HardState) (position uint64, err error)
	// TruncateFrom stages the removal of the entries with an index ≥ index.
	// It returns position 0 if there is nothing to remove.
	TruncateFrom(group, index uint64) (position uint64, err error)
	// TruncateBefore stages the removal of the entries with an index < index.
	// It returns position 0 if there is nothing to remove.
	TruncateBefore(group, index uint64) (position uint64, err error)
	// Reset stages that the group's log is empty and goes on at index+1, after
	// an entry of the given term.
	Reset(group, index, term uint64) (position uint64, err error)
	// SetStable stages a named value; nil removes the name.
	SetStable(group uint64, name string, value []byte) (position uint64, err error)

	// Staged returns the position of the last change that was staged, and the
	// bytes that are staged and not being synced yet.
	Staged() (position uint64, bytes int)
	// Sync makes everything durable that was staged before it was called, and
	// returns how many changes that were. Calls do not overlap; a second one
	// waits for the first.
	//
	// If the error matches messages.ErrDiskFull and Poisoned is false, nothing
	// was written: all staged changes are dropped, changes says how many, and
	// the store goes on, with positions that follow Durable again. After
	// any other error the store is poisoned: it is not known what reached the
	// disk, every further change fails, reads of durable entries go on, and
	// only Close and a new Open, whose Durable tells the truth, help.
	Sync() (changes int, err error)
	// Write hands to the operating system what Sync would make durable, and leaves
	// the disk to a later Sync, a later Write that finds its segment full, or
	// Close. What was written reads see, and it survives the end of the process,
	// but not the loss of power: that may take back a suffix of the changes beyond
	// Durable, never a part of one and never one of those before it. Errors are as
	// those of Sync. It costs no sync but for one in Options.SegmentBytes.
	Write() (changes int, err error)
	// Written returns the position up to which all changes are written; Durable
	// that up to which they are on disk, which is the same after every Sync.
	Written() (position uint64)
	Durable() (position uint64)
	// Poisoned reports whether an earlier Sync failed in a way that only
	// reopening mends.
	Poisoned() bool

	// Due reports whether Maintain has something to do. It is meant to be asked
	// after every Sync, and costs next to nothing.
	Due() bool
	// Maintain does what need not be on the way of an append: it prepares the
	// next segment, closes and summarises the last, removes what compaction has
	// left, and moves the entries of groups that lag behind. It may run beside
	// everything, one at a time; it blocks no Sync and no read, but takes its
	// share of the disk. If sync is true it has staged changes of its own: call
	// Sync, also if nothing else is staged, and then look at Due again.
	//
	// Who never calls it gets the same work done by Sync now and then, and no
	// space back. After an error that leaves Poisoned false, because the process
	// has no descriptor or no memory left, appends go on, sync means what it says,
	// and what could not be done is done by a later call.
	Maintain() (sync bool, err error)
	// Damaged returns the entries that Maintain has found damaged since it was
	// asked last, when they had to be moved; 64 at most. What was left of their
	// bytes has moved with them, and reading them is an error as before.
	Damaged() []Damage
	// Scrub verifies the next part of what is closed, in turn, and returns how
	// many bytes it has read, so that the caller can keep to a rate, and which
	// entries are damaged. Zero bytes mean that it has been once around.
	Scrub() (read int64, damage []Damage, err error)

	// Entry returns one durable entry. Its Data belongs to the caller.
	Entry(group, index uint64) (messages.Entry, error)
	// Entries returns durable entries with from ≤ index < to, as many as fit
	// into maxBytes of payload but at least one. Zero means 1 MiB.
	Entries(group, from, to uint64, maxBytes int) ([]messages.Entry, error)
	// Term returns the term of a durable entry, or of the one before First.
	Term(group, index uint64) (uint64, error)
	// Bounds describes a group's durable log. An unknown group is empty.
	Bounds(group uint64) messages.LogBounds
	// Groups lists the groups that have ever been written, in order.
	Groups() []uint64
	// Stable returns a durable named value, or messages.ErrNotFound.
	Stable(group uint64, name string) ([]byte, error)

	// Close releases the files. What is staged and not synced is dropped.
	Close() error
}
