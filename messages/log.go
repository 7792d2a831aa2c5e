package messages

// Append adds entries, a hard state, or both to a group's log, atomically:
// after a crash all of it is there or none.
//
// Entries must be consecutive and continue the log: the first one's Index is
// Last+1. If the first entry's Index is zero the log assigns the indexes;
// Appended says which. To replace entries, send TruncateFrom before.
type Append struct {
	Tag, Group uint64
	// Entries to add, in order. Owned by the receiver once sent.
	Entries []Entry
	// HardState replaces the group's hard state if it is not nil. It may not
	// go back to an earlier term, and a zero Vote in the same term keeps the
	// vote there is: votes are never taken back (Raft §5.2).
	HardState *HardState
}

// Appended answers Append. With a nil Err, entries and hard state are on disk
// and survive power loss. Otherwise nothing was appended, unless Err matches
// ErrInDoubt. (A log actor whose SyncPolicy is a lazy one answers when the kernel
// has them: here and below, "durable" then means what that policy says.)
//
// Errors: ErrEmptyAppend, ErrOutOfOrder (a gap), ErrConflict (the index is
// taken), ErrStaleTerm, ErrCompacted, ErrTooLarge, ErrDiskFull.
type Appended struct {
	Tag, Group uint64
	// First and Last are the indexes of the entries; both are zero when the
	// command held only a hard state.
	First, Last uint64
	Err         error
}

// ReadEntry asks for one entry.
type ReadEntry struct {
	Tag, Group uint64
	Index      uint64
}

// EntryRead answers ReadEntry. Only durable entries are served, and only if
// their checksum holds.
//
// Errors: ErrCompacted (before First), ErrNotFound (beyond Last), ErrCorrupt.
type EntryRead struct {
	Tag, Group uint64
	Entry      Entry
	Err        error
}

// ReadRange asks for the entries From ≤ index < To.
type ReadRange struct {
	Tag, Group uint64
	From, To   uint64
	// MaxBytes bounds the sum of the payloads returned; at least one entry is
	// returned whatever its size (as etcd-raft's Storage.Entries has it). Zero
	// means the store's default, 1 MiB.
	MaxBytes int
}

// RangeRead answers ReadRange with the longest prefix of the range that fits
// into MaxBytes. An empty range (From = To) gives no entries and no error.
//
// Errors: ErrCompacted (From is before First), ErrNotFound (To is beyond
// Last+1), ErrInvalid (From > To), ErrCorrupt.
type RangeRead struct {
	Tag, Group uint64
	Entries    []Entry
	Err        error
}

// TruncateFrom removes every entry with an index ≥ Index: the follower's half
// of a conflict (Raft §5.3).
type TruncateFrom struct {
	Tag, Group uint64
	Index      uint64
}

// Truncated answers TruncateFrom. With a nil Err the entries are gone for
// good, also after power loss. An Index beyond Last+1 removes nothing and is
// not an error.
//
// Errors: ErrCompacted (Index is before First), ErrInvalid (Index is zero),
// ErrDiskFull.
type Truncated struct {
	Tag, Group uint64
	// Last is the index of the last entry that is left.
	Last uint64
	Err  error
}

// TruncateBefore removes every entry with an index < Index, because a snapshot
// covers them. Afterwards the log's First is Index.
type TruncateBefore struct {
	Tag, Group uint64
	Index      uint64
}

// Compacted answers TruncateBefore. With a nil Err the log begins at First,
// durably; the space is given back a whole segment at a time. An Index at or
// before First removes nothing and is not an error.
//
// Errors: ErrNotFound (Index is beyond Last+1).
type Compacted struct {
	Tag, Group uint64
	First      uint64
	Err        error
}

// ResetLog empties a group's log and has it go on at Index+1, because a
// snapshot at Index and Term was installed (Raft §7). Commit becomes Index; the
// rest of the hard state and the stable values stay.
type ResetLog struct {
	Tag, Group  uint64
	Index, Term uint64
}

// LogReset answers ResetLog. With a nil Err the log's First is Index+1,
// durably.
//
// Errors: ErrDiskFull.
type LogReset struct {
	Tag, Group uint64
	Err        error
}

// ReadBounds asks where a group's log begins and ends.
type ReadBounds struct {
	Tag, Group uint64
}

// BoundsRead answers ReadBounds. Only what is durable counts.
type BoundsRead struct {
	Tag, Group uint64
	Bounds     LogBounds
	Err        error
}

// ListGroups asks the log, or the application data, for every group that it
// knows. Its Group is ignored.
type ListGroups struct {
	Tag, Group uint64
}

// GroupsListed answers ListGroups, in ascending order.
type GroupsListed struct {
	Tag, Group uint64
	Groups     []uint64
	Err        error
}

// SetStable stores a small named value beside the log (what hashicorp/raft
// calls a StableStore). A nil Value removes the name. Names have at most
// MaxStableName bytes and values at most MaxStableValue. Names that begin with
// "ballast/" belong to the supervisor.
type SetStable struct {
	Tag, Group uint64
	Name       string
	Value      []byte
}

// Limits of SetStable, in bytes: every value is copied forward when the front
// of the log is removed, so they must stay small.
const (
	MaxStableName  = 255
	MaxStableValue = 64 << 10
)

// StableSet answers SetStable. With a nil Err the value is durable.
//
// Errors: ErrTooLarge, ErrInvalid (an empty name), ErrDiskFull.
type StableSet struct {
	Tag, Group uint64
	Err        error
}

// GetStable asks for a named value.
type GetStable struct {
	Tag, Group uint64
	Name       string
}

// StableGot answers GetStable.
//
// Errors: ErrNotFound.
type StableGot struct {
	Tag, Group uint64
	Value      []byte
	Err        error
}
