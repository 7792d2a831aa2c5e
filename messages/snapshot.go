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

// A stream of chunks towards the snapshot actor, from BeginSave or
// ImportSnapshot, holds at most Credit chunks in the actor's mailbox, each of at
// most MaxSnapshotChunk bytes, and what the store's writer holds besides: as
// many blocks as it compresses at a time and two more, raw and compressed, and
// 48 bytes for every block written. A chunk beyond the credit is refused with
// ErrOverloaded.

// BeginSave opens a stream into a new snapshot. A stream that has been idle for
// its lease is given up: what was written is removed, or kept with Resume.
type BeginSave struct {
	Tag, Group  uint64
	Index, Term uint64
	// Meta is kept in the file's header, at most MaxSnapshotMeta bytes.
	Meta []byte
	// Resume keeps what is written if the stream breaks off: when it is
	// suspended, its lease runs out, the actor crashes, or the process ends. A
	// later BeginSave with Resume and the same group, index, term and meta goes
	// on with it from SaveBegun.Offset. The state must be the same bytes each
	// time; who cannot be sure of that names its ContentHash.
	//
	// A group has at most one unfinished save: a BeginSave with Resume takes it
	// over from the stream that has it, whose further commands get ErrExpired,
	// or replaces it if it is of another snapshot.
	Resume bool
	// ContentHash is what SnapshotInfo.ContentHash must be; zero means that
	// anything will do. If the hash is another one FinishSave fails with
	// ErrCorrupt, and nothing is kept.
	ContentHash [32]byte
}

// SaveBegun answers BeginSave and ImportSnapshot. Nothing exists yet that
// ListSnapshots would show.
//
// Errors: ErrInvalid (Index is zero, ID is not a snapshot id), ErrTooLarge
// (Meta), ErrDiskFull, ErrOverloaded (too many streams are open).
type SaveBegun struct {
	Tag, Group uint64
	// Stream names the stream in SaveChunk, FinishSave, SuspendSave and
	// AbortSave.
	Stream uint64
	// ID is what the snapshot will be called; empty for an ImportSnapshot
	// without one.
	ID string
	// Offset is from where the caller goes on: how many bytes of the state are
	// there already, or in an import, from which offset the other side has to
	// export. Zero if there is nothing.
	Offset int64
	// Credit is how many chunks may be under way unanswered at any time.
	Credit int
	Err    error
}

// SaveChunk adds the next piece of the state, or of the exported file, to a
// stream. Chunks are numbered from 1 by Seq, so that a lost or repeated one is
// noticed.
type SaveChunk struct {
	Tag, Group uint64
	Stream     uint64
	Seq        uint64
	// Data has at most MaxSnapshotChunk bytes. Owned by the receiver.
	Data []byte
}

// ChunkSaved answers SaveChunk and gives back one credit. Nothing is durable
// before FinishSave or SuspendSave is answered.
//
// Errors: ErrNotFound (no such stream), ErrOutOfOrder (Seq), ErrTooLarge,
// ErrExpired, ErrDiskFull; in an import also ErrMalformed (not an export),
// ErrCorrupt, ErrIncompatible, ErrInvalid (of another snapshot, or from another
// offset) and ErrConflict (a different snapshot has the id). After any of these
// the stream is gone; what was written stays if the stream can be resumed and
// the error does not say that it is of no use. ErrOverloaded: more chunks than
// the credit are under way; this one was not taken, and the stream goes on.
type ChunkSaved struct {
	Tag, Group uint64
	Stream     uint64
	Seq        uint64
	// Data is the chunk's memory, given back to the requester for the next one.
	// It may be ignored. Nil after an error.
	Data []byte
	Err  error
}

// FinishSave ends a stream: the file is completed, synced, renamed into place
// and its directory synced. An imported file is read whole before.
type FinishSave struct {
	Tag, Group uint64
	Stream     uint64
}

// SuspendSave ends a stream that can be resumed and keeps what was written.
type SuspendSave struct {
	Tag, Group uint64
	Stream     uint64
}

// SaveSuspended answers SuspendSave. With a nil Err everything that the stream
// has taken survives power loss, but for the last block of a save if it was not
// complete: that much has to be sent again.
//
// Errors: ErrNotFound (no such stream), ErrExpired (it was suspended before),
// ErrInvalid (it cannot be resumed: nothing was done), ErrDiskFull. ErrInDoubt
// after a crash: what there is is kept, and BeginSave will tell how much.
type SaveSuspended struct {
	Tag, Group uint64
	Err        error
}

// AbortSave gives a stream up and removes what was written.
type AbortSave struct {
	Tag, Group uint64
	Stream     uint64
}

// SaveAborted answers AbortSave.
//
// Errors: ErrNotFound (no such stream), ErrExpired.
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
// under its final name and survives power loss. Otherwise it does not exist;
// what a stream that can be resumed has written stays, unless the error is
// ErrCorrupt, ErrConflict, ErrMalformed or ErrTooLarge.
//
// Errors: those of BeginSave and SaveChunk; ErrCorrupt (the content hash is not
// the expected one, or what was imported is damaged); io.ErrUnexpectedEOF (what
// was imported is not complete); ErrInDoubt (after a crash, if the disk could
// not be read).
type Saved struct {
	Tag, Group uint64
	Info       SnapshotInfo
	Err        error
}

// ImportSnapshot opens a stream for the copy of a snapshot that another actor
// exports: the chunks that ExportSnapshot yields, cut in any way, go into
// SaveChunk. It is ended as a save is, and can always be resumed. FinishSave
// checks every byte, decompressed as well.
//
// A group has at most one unfinished import, as it has one unfinished save.
type ImportSnapshot struct {
	Tag, Group uint64
	// ID is the snapshot that must come. If an import of it broke off,
	// SaveBegun.Offset is from where it goes on: the export may begin there, or
	// at 0. Without an ID the export says what it is and must begin at 0.
	ID string
}
