package messages

// A stream of chunks from the snapshot actor holds at most Credit chunks that
// were asked for and not taken, and what the store's reader holds besides: as
// many blocks as it decompresses at a time and two more, and 48 bytes for every
// block of the file. An export holds one block. ReadChunk beyond the credit is
// refused with ErrOverloaded.

// OpenSnapshot opens a snapshot for reading. An empty ID means the group's
// newest good one: damaged ones before it are told of by DamageFound and, unless
// the actor is configured otherwise, set aside and told of by DamageSetAside.
//
// The newest has been read and verified whole, content and all, before
// SnapshotOpened is sent. Of any other every stored byte is checked before, and
// what it decompresses to as it is read: what was read should take effect only
// when ChunkRead has said EOF, which proves the content hash of the whole.
type OpenSnapshot struct {
	Tag, Group uint64
	ID         string
	// Offset is where in the state the stream begins, at most its length: to go
	// on with a transfer that broke off.
	Offset int64
	// Random opens the snapshot for reads at any place, and reads no more of
	// the file than its header, index and footer: each ReadChunk says where it
	// reads, and each block is checked when it is read. An empty ID means the
	// newest whose header, index and footer are good; nothing is set aside.
	Random bool
}

// SnapshotOpened answers OpenSnapshot and ExportSnapshot. The snapshot cannot be
// deleted while it is open; it is closed by CloseSnapshot or when its lease runs
// out.
//
// Errors: ErrNotFound, ErrInvalid (ID is not a snapshot id, Offset is not in the
// state or file), ErrCorrupt, ErrIncompatible, ErrOverloaded (too many streams
// are open).
type SnapshotOpened struct {
	Tag, Group uint64
	// Stream names the open snapshot in ReadChunk and CloseSnapshot.
	Stream uint64
	Info   SnapshotInfo
	// Size is how many bytes the stream will yield, or with Random, the length
	// of the state.
	Size int64
	// Credit is how many ReadChunk may be under way unanswered at any time.
	Credit int
	Err    error
}

// ReadChunk asks for the next piece of an open snapshot, or with Random for the
// one at Offset. All pieces but the last are of full length.
type ReadChunk struct {
	Tag, Group uint64
	Stream     uint64
	// Offset is where in the state the piece begins, if the snapshot was opened
	// with Random. Otherwise it must be zero.
	Offset int64
	// MaxBytes bounds the piece; zero means 256 KiB, and MaxSnapshotChunk is
	// the most.
	MaxBytes int
	// Buffer is used for ChunkRead.Data if it is large enough, so that nothing
	// has to be allocated for a long transfer. Owned by the receiver; after an
	// error it may still be in use. May be nil.
	Buffer []byte
}

// ChunkRead answers ReadChunk. Every byte has been verified again.
//
// Errors: ErrNotFound (no such stream), ErrExpired, ErrCorrupt. After any of
// these the stream is gone, but for a snapshot opened with Random, which stays
// open after ErrCorrupt: other blocks may be good. ErrInvalid (Offset) and
// ErrOverloaded (more than the credit are under way): nothing was done, and the
// stream goes on.
type ChunkRead struct {
	Tag, Group uint64
	Stream     uint64
	// Offset is where Data begins: in the state, or in an export, in the stream
	// from its envelope on.
	Offset int64
	// Data is owned by the requester.
	Data []byte
	// EOF: this was the last piece. Data may be empty then.
	EOF bool
	Err error
}

// CloseSnapshot closes an open snapshot, or ends an export.
type CloseSnapshot struct {
	Tag, Group uint64
	Stream     uint64
}

// SnapshotClosed answers CloseSnapshot.
//
// Errors: ErrNotFound (no such stream), ErrExpired.
type SnapshotClosed struct {
	Tag, Group uint64
	Err        error
}

// ExportSnapshot opens a snapshot to be copied as it is, compressed: a stream of
// an envelope and the file's bytes from Offset on, in chunks by ReadChunk, ended
// by CloseSnapshot. Every byte is checked by its checksum before it is handed
// out; nothing is decompressed. An empty ID means the group's newest good one,
// as for OpenSnapshot.
type ExportSnapshot struct {
	Tag, Group uint64
	ID         string
	// Offset is 0, or the SaveBegun.Offset of the other side's ImportSnapshot.
	Offset int64
}
