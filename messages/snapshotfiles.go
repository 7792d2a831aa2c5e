package messages

import "time"

// UnfinishedSnapshot is a file that a save or an import has left and that can be
// gone on with.
type UnfinishedSnapshot struct {
	// Name is the file's name in the snapshots' directory.
	Name string
	// ID is what the snapshot will be called when it is finished.
	ID          string
	Group       uint64
	Index, Term uint64
	// Import: it is the copy of a file, not a save.
	Import bool
	// FileBytes is the length of the file, of which a part may turn out to be
	// torn. Changed is when it was written to last.
	FileBytes int64
	Changed   time.Time
	// Active: somebody is writing it at the moment.
	Active bool
}

// AsideSnapshot is a damaged snapshot that was set aside: its file is kept for
// an operator to look at, and is no snapshot for any other purpose.
type AsideSnapshot struct {
	// Name is the file's name in the snapshots' directory.
	Name string
	// ID is what the snapshot was called.
	ID          string
	Group       uint64
	Index, Term uint64
	FileBytes   int64
	// Damage is what is wrong with it, or nil if that is not known any more: a
	// bad block is remembered until the store is closed, anything else is found
	// again.
	Damage *CorruptError
}

// Fate says whether a snapshot stays and why.
type Fate uint8

// The fates of a snapshot. Those from GoesByCount on go.
const (
	// StaysWithinBounds: no bound of the retention says that it should go.
	StaysWithinBounds Fate = iota
	// StaysNewestGood: it is the newest that verifies, and was read whole.
	StaysNewestGood
	// StaysOpen: somebody is reading it.
	StaysOpen
	// StaysDamaged: it fails a check. SetAside or Delete is for an operator or
	// a supervisor.
	StaysDamaged
	// StaysUnreadable: the disk could not read it.
	StaysUnreadable
	// StaysIncompatible: a newer version of Ballast wrote it.
	StaysIncompatible
	// GoesByCount, GoesByAge and GoesByBytes: the first bound that says so.
	GoesByCount
	GoesByAge
	GoesByBytes
)

// Goes reports whether the snapshot goes.
func (f Fate) Goes() bool { return f >= GoesByCount }

// String says it in words.
func (f Fate) String() string {
	switch f {
	case StaysWithinBounds:
		return "stays: within bounds"
	case StaysNewestGood:
		return "stays: newest good one"
	case StaysOpen:
		return "stays: being read"
	case StaysDamaged:
		return "stays: damaged"
	case StaysUnreadable:
		return "stays: cannot be read"
	case StaysIncompatible:
		return "stays: of a newer version"
	case GoesByCount:
		return "goes: count"
	case GoesByAge:
		return "goes: age"
	case GoesByBytes:
		return "goes: bytes"
	}
	return "unknown"
}

// PlannedSnapshot is what a retention means for one snapshot.
type PlannedSnapshot struct {
	ID        string
	Index     uint64
	Created   time.Time
	FileBytes int64
	Fate      Fate
	// Err is the damage, or why it could not be read.
	Err error
}
