package messages

import "time"

// ApplyEntry appends one operation to the log and then applies it to the
// application data: what a single-node service, or a leader that has already
// won agreement, does for every proposal.
type ApplyEntry struct {
	Tag, Group uint64
	// Term of the entry. Zero means the term of the last entry, or 1.
	Term      uint64
	Operation Operation
}

// EntryApplied answers ApplyEntry. With a nil Err the entry is in the log on
// disk and the application data reflects it. If Err matches ErrInDoubt the
// entry may be in the log, and is applied then; otherwise a non-nil Err means
// that nothing was done.
//
// What the operation itself had to say, for example that a compare-and-swap
// did not match, is in Result.
type EntryApplied struct {
	Tag, Group  uint64
	Index, Term uint64
	Result      Result
	Err         error
}

// CreateSnapshot exports the application data, writes it as a compressed
// snapshot, verifies the file, applies the retention and removes from the log
// what the oldest retained snapshot covers. Damaged snapshots, those that the
// log does not go on from, and those of something else, neither count as retained nor are removed for
// their number until enough good ones are there. Writes go on meanwhile.
type CreateSnapshot struct {
	Tag, Group uint64
	// UpTo is the index that the snapshot must include. The snapshot is taken
	// of the latest applied state, which may be later; zero asks for that
	// alone.
	UpTo uint64
	// Meta is kept in the snapshot, for example a cluster configuration.
	Meta []byte
}

// SnapshotCreated answers CreateSnapshot. With a nil Err the snapshot is on
// disk, has been verified, and the log begins at LogFirst. If Err is set but
// Info.ID is not empty, the snapshot is good and the log was not compacted.
//
// Errors: ErrNotApplied (UpTo is beyond the applied index), ErrConflict
// (another snapshot of the group is being taken), ErrDiskFull, ErrNotFound (the
// snapshot was deleted before the log was compacted), ErrCorrupt (the data does
// not agree with the log).
type SnapshotCreated struct {
	Tag, Group uint64
	Info       SnapshotInfo
	LogFirst   uint64
	Err        error
}

// Restore rebuilds the application data from a snapshot and the log: the
// snapshot is verified and swapped in, then the entries after it are applied
// up to the commit index. An empty ID means the newest good snapshot.
//
// With Discard the log is reset to go on after the snapshot instead, which
// gives up every later entry: that is a return to a point in time, not
// something that a member of a Raft group may do.
type Restore struct {
	Tag, Group uint64
	ID         string
	Discard    bool
}

// Restored answers Restore. With a nil Err the state is that of the snapshot
// plus Replayed entries. If the snapshot cannot be verified nothing is
// changed.
//
// Errors: ErrNotFound, ErrInvalid, ErrCorrupt (damaged, or contradicted by the
// log), ErrCompacted (the log no longer reaches back to the snapshot), ErrConflict
// (another restore, or a snapshot of what would be discarded, is under way; or the
// log contradicts the snapshot by what is not known to be committed), ErrTooLarge
// (too many snapshots would be removed). If Err matches ErrInDoubt, the recovery
// that follows takes the old state or finishes a Discard.
type Restored struct {
	Tag, Group uint64
	Info       SnapshotInfo
	// Applied is the index up to which the state has been brought.
	Applied uint64
	// Replayed is the number of entries applied after the snapshot.
	Replayed uint64
	Err      error
}

// ReadStatus asks for the state of the service.
type ReadStatus struct {
	Tag, Group uint64
}

// ActorState is where an actor is in its life.
type ActorState string

// The states of an actor.
const (
	StateOpening     ActorState = "opening"     // reading its files
	StateRecovering  ActorState = "recovering"  // catching up with the log
	StateServing     ActorState = "serving"     // answering commands
	StateBackoff     ActorState = "backoff"     // failed, waiting to try again
	StateUnavailable ActorState = "unavailable" // failed too often, tried at long intervals
	StateStopped     ActorState = "stopped"
)

// ActorStatus is the state of one actor.
type ActorStatus struct {
	Name  string
	State ActorState
	// Failures since the start; LastFailure is the text of the latest one.
	Failures    uint64
	LastFailure string
	// Queued and QueuedBytes are what has been accepted and not answered yet.
	Queued      int
	QueuedBytes int64
	// DiskFull: the last change that needed space found none.
	DiskFull bool
	// Stalled names the calls to the disk that hang now, Stalls counts those that
	// ever did: see the event Stalled.
	Stalled string
	Stalls  uint64
	// Requests accepted, replies sent and requests refused since the start.
	Requests, Replies, Refused uint64
}

// LogStatistics are counted by the log actor since the start.
type LogStatistics struct {
	Appends uint64 // commands made durable, or written if the SyncPolicy is a lazy one
	Entries uint64
	Bytes   uint64 // payload bytes
	// Syncs is the number of batches, synced or written; Appends/Syncs is the mean
	// batch.
	Syncs uint64
	// SyncTime is the time spent writing and syncing; LastSync the latest.
	SyncTime, LastSync time.Duration
	LastBatch          int
	// BatchSizes counts the batches by their commands, SyncTimes by the
	// microseconds that writing and syncing took.
	BatchSizes, SyncTimes Histogram
	// Stalls counts the syncs that did not return in time; Stalled says that
	// one is late now.
	Stalls  uint64
	Stalled bool
	// Damage counts what DamageFound has told of. The verification of what is
	// closed tells of the same damage each time around.
	Damage uint64
}

// GroupFailure is a group whose application data is not served, and why.
type GroupFailure struct {
	Group uint64
	Err   error
}

// Status answers ReadStatus with the state of every actor and the positions of
// one group. What an actor that is down would have said is zero; Err says what
// those that are up could not say, and which snapshots are damaged.
type Status struct {
	Tag, Group uint64
	Actors     []ActorStatus
	Log        LogBounds
	Applied    uint64
	Keys       int
	Snapshots  []SnapshotInfo
	Statistics LogStatistics
	Data       KVStatistics
	Saves      SnapshotStatistics
	// Events counts what has happened since the service began, by the name of the
	// event: "ActorFailed", "TailRepaired", ….
	Events map[string]uint64
	// Withheld are the groups whose application data could not be brought up to
	// their logs, in ascending order: commands for it are refused, those of all
	// other groups are served. See GroupWithheld.
	Withheld []GroupFailure
	Err      error
}
