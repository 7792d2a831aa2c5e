package messages

import "time"

// SnapshotInfo describes a finished snapshot.
type SnapshotInfo struct {
	// ID names the snapshot: group, term, index and creation time, so that
	// ids of one group sort from old to new. It is also the file's name.
	ID string
	// Group whose state it holds.
	Group uint64
	// Index and Term of the last entry that the state includes.
	Index, Term uint64
	// Created is when the snapshot was begun, to the millisecond.
	Created time.Time
	// RawBytes is the length of the state, FileBytes that of the file.
	RawBytes, FileBytes int64
	// ContentHash is the SHA-256 tree hash of the state alone: two replicas
	// with the same state have the same hash. See the snapshot package.
	ContentHash [32]byte
	// Meta is what BeginSave was given, for example a cluster configuration.
	Meta []byte
}

// Limits of a snapshot's metadata and chunks, in bytes.
const (
	MaxSnapshotMeta  = 1 << 20
	MaxSnapshotChunk = 1 << 20
)

// BeginSave opens a stream into a new snapshot. The stream is given up, and
// its temporary file removed, when it has been idle for its lease.
type BeginSave struct {
	Tag, Group  uint64
	Index, Term uint64
	// Meta is kept in the file's header, at most MaxSnapshotMeta bytes.
	Meta []byte
}

// SaveBegun answers BeginSave. Nothing exists yet that List would show.
//
// Errors: ErrInvalid (Index is zero), ErrTooLarge (Meta), ErrDiskFull.
type SaveBegun struct {
	Tag, Group uint64
	// Stream names the stream in SaveChunk, FinishSave and AbortSave.
	Stream uint64
	// Credit is how many chunks may be under way unanswered at any time.
	Credit int
	Err    error
}

// SaveChunk adds the next piece of the state to a stream. Chunks are numbered
// from 1 by Seq, so that a lost or repeated one is noticed.
type SaveChunk struct {
	Tag, Group uint64
	Stream     uint64
	Seq        uint64
	// Data has at most MaxSnapshotChunk bytes. Owned by the receiver.
	Data []byte
}

// ChunkSaved answers SaveChunk and gives back one credit. Nothing is durable
// before FinishSave is answered.
//
// Errors: ErrNotFound (no such stream), ErrOutOfOrder (Seq), ErrTooLarge,
// ErrExpired, ErrDiskFull. After any of these the stream is gone.
type ChunkSaved struct {
	Tag, Group uint64
	Stream     uint64
	Seq        uint64
	Err        error
}

// FinishSave ends a stream: the file is completed, synced, renamed into place
// and its directory synced.
type FinishSave struct {
	Tag, Group uint64
	Stream     uint64
}

// AbortSave gives a stream up and removes its temporary file.
type AbortSave struct {
	Tag, Group uint64
	Stream     uint64
}

// SaveAborted answers AbortSave.
//
// Errors: ErrNotFound (no such stream).
type SaveAborted struct {
	Tag, Group uint64
	Err        error
}

// Save writes a whole snapshot that is small enough for one message: Data has
// at most MaxSnapshotChunk bytes.
type Save struct {
	Tag, Group  uint64
	Index, Term uint64
	Meta        []byte
	Data        []byte
}

// Saved answers Save and FinishSave. With a nil Err the snapshot is on disk
// under its final name and survives power loss. Otherwise it does not exist.
//
// Errors: those of BeginSave and SaveChunk.
type Saved struct {
	Tag, Group uint64
	Info       SnapshotInfo
	Err        error
}

// OpenSnapshot opens a snapshot for reading. An empty ID means the group's
// newest one that verifies whole. Of any other every stored byte is checked
// before SnapshotOpened is sent, and what it decompresses to as it is read: what
// was read should take effect only when ChunkRead has said EOF.
type OpenSnapshot struct {
	Tag, Group uint64
	ID         string
}

// SnapshotOpened answers OpenSnapshot. The snapshot cannot be deleted while it
// is open; it is closed by CloseSnapshot or when its lease runs out.
//
// Errors: ErrNotFound, ErrInvalid (ID is not a snapshot id), ErrCorrupt.
type SnapshotOpened struct {
	Tag, Group uint64
	// Stream names the open snapshot in ReadChunk and CloseSnapshot.
	Stream uint64
	Info   SnapshotInfo
	Err    error
}

// ReadChunk asks for the next piece of an open snapshot.
type ReadChunk struct {
	Tag, Group uint64
	Stream     uint64
	// MaxBytes bounds the piece; zero means 256 KiB, and MaxSnapshotChunk is
	// the most.
	MaxBytes int
}

// ChunkRead answers ReadChunk. Every byte has been verified; EOF proves the
// content hash of the whole.
//
// Errors: ErrNotFound (no such stream), ErrExpired, ErrCorrupt.
type ChunkRead struct {
	Tag, Group uint64
	Stream     uint64
	Data       []byte
	// EOF: this was the last piece. Data may be empty then.
	EOF bool
	Err error
}

// CloseSnapshot closes an open snapshot.
type CloseSnapshot struct {
	Tag, Group uint64
	Stream     uint64
}

// SnapshotClosed answers CloseSnapshot.
//
// Errors: ErrNotFound (no such stream).
type SnapshotClosed struct {
	Tag, Group uint64
	Err        error
}

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

// SnapshotsCleanedUp answers CleanupSnapshots.
type SnapshotsCleanedUp struct {
	Tag, Group uint64
	// Removed are the ids that are gone, or would be.
	Removed []string
	Err     error
}

// VerifySnapshot reads a snapshot whole, decompresses it and checks every
// checksum.
type VerifySnapshot struct {
	Tag, Group uint64
	ID         string
}

// SnapshotVerified answers VerifySnapshot.
//
// Errors: ErrNotFound, ErrInvalid, ErrCorrupt (says where; with a store on disk
// a *snapshot.DamageError lists every damaged block).
type SnapshotVerified struct {
	Tag, Group uint64
	Info       SnapshotInfo
	Err        error
}
