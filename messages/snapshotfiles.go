package messages

import "time"

// ListSnapshots asks for a group's snapshots, or with All for those of every
// group.
type ListSnapshots struct {
	Tag, Group uint64
	All        bool
}

// SnapshotsListed answers ListSnapshots, newest first. A file whose header
// cannot be trusted is not in Snapshots but in Damaged.
type SnapshotsListed struct {
	Tag, Group uint64
	Snapshots  []SnapshotInfo
	Damaged    []*CorruptError
	Err        error
}

// DeleteSnapshot removes a snapshot.
type DeleteSnapshot struct {
	Tag, Group uint64
	ID         string
}

// SnapshotDeleted answers DeleteSnapshot. With a nil Err the file is gone for
// good, also after power loss.
//
// Errors: ErrNotFound, ErrInvalid (ID is not a snapshot id), ErrConflict (it
// is open, or it is the group's last good one).
type SnapshotDeleted struct {
	Tag, Group uint64
	Err        error
}

// CleanupSnapshots removes a group's older snapshots.
type CleanupSnapshots struct {
	Tag, Group uint64
	Retention  Retention
}

// Retention says which snapshots of a group stay. A snapshot goes when any of
// the bounds says so; the newest good one and those that are open always stay.
// The zero value keeps everything.
type Retention struct {
	// Keep is the number of snapshots to keep; zero sets no bound.
	Keep int
	// MaxAge removes those created longer ago; zero sets no bound.
	MaxAge time.Duration
	// MaxBytes bounds the sum of the file sizes, newest first; zero sets no
	// bound.
	MaxBytes int64
	// DryRun removes nothing and reports what would be removed.
	DryRun bool
}

// SnapshotsCleanedUp answers CleanupSnapshots. Damaged snapshots are left alone;
// without DryRun the error joins the CorruptError of each, and what is Removed
// is gone nevertheless.
type SnapshotsCleanedUp struct {
	Tag, Group uint64
	// Removed are the ids that are gone, or would be.
	Removed []string
	// Plan is, with DryRun, what would become of each snapshot of the group and
	// why, newest first; the damage of each is in it and not in Err.
	Plan []PlannedSnapshot
	Err  error
}

// VerifySnapshot reads a snapshot whole and checks every checksum.
type VerifySnapshot struct {
	Tag, Group uint64
	ID         string
}

// SnapshotVerified answers VerifySnapshot.
//
// Errors: ErrNotFound, ErrInvalid, ErrCorrupt (says where the first damage is),
// ErrIncompatible.
type SnapshotVerified struct {
	Tag, Group uint64
	// Info is set also if blocks are damaged.
	Info SnapshotInfo
	// Damage is all that is wrong with the blocks, or nil. Damage to header,
	// index or footer is in Err alone: nothing else can be said of the file.
	Damage *SnapshotDamage
	Err    error
}

// MaxDamagedBlocks is how many blocks a SnapshotDamage lists.
const MaxDamagedBlocks = 1024

// SnapshotDamage is what is wrong with the blocks of a snapshot whose header,
// index and footer are good.
type SnapshotDamage struct {
	// Blocks are the damaged ones in order, the first MaxDamagedBlocks of them.
	Blocks []DamagedBlock
	// Damaged is how many there are, of Total.
	Damaged, Total int64
	// RawBytes is how much of the state they hold.
	RawBytes int64
}

// DamagedBlock is one block that cannot be served.
type DamagedBlock struct {
	// Number counts the blocks of the file from zero.
	Number int64
	// Offset and Length say where the block is stored in the file, in bytes.
	Offset, Length int64
	// From and To are the range of the state that it holds: [From, To).
	From, To int64
	// Reason says what is wrong, in a few words; Err is its cause, if there is
	// one.
	Reason string
	Err    error
}

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

// ListSnapshotFiles asks for the files beside a group's snapshots, or with All
// beside those of every group: unfinished ones and those set aside.
type ListSnapshotFiles struct {
	Tag, Group uint64
	All        bool
}

// SnapshotFilesListed answers ListSnapshotFiles, by name.
type SnapshotFilesListed struct {
	Tag, Group uint64
	Unfinished []UnfinishedSnapshot
	Aside      []AsideSnapshot
	Err        error
}

// SetAsideSnapshot renames a damaged snapshot, so that it is kept for an
// operator to look at and is no snapshot any more. The file is read first.
type SetAsideSnapshot struct {
	Tag, Group uint64
	ID         string
}

// SnapshotSetAside answers SetAsideSnapshot. With a nil Err the new name
// survives power loss. What was set aside before is set aside.
//
// Errors: ErrNotFound, ErrInvalid (ID is not a snapshot id), ErrConflict (it is
// whole, or open), ErrIncompatible; and the error of the disk if the file could
// not be read: it is not known to be damaged then and stays.
type SnapshotSetAside struct {
	Tag, Group uint64
	File       AsideSnapshot
	Err        error
}

// DiscardSnapshotFile removes a file that SnapshotFilesListed has named: an
// unfinished one or one set aside.
type DiscardSnapshotFile struct {
	Tag, Group uint64
	Name       string
}

// SnapshotFileDiscarded answers DiscardSnapshotFile. With a nil Err the file is
// gone for good, also after power loss.
//
// Errors: ErrNotFound, ErrInvalid (not such a name), ErrConflict (somebody is
// writing it).
type SnapshotFileDiscarded struct {
	Tag, Group uint64
	Err        error
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
