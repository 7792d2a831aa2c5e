package snapshot

import (
	"io"

	"github.com/ballast-raft/ballast/messages"
)

// Store holds snapshots: rare, large, immutable, compressed, checked.
//
// Every method is safe for concurrent use; each Writer, Reader, Exporter and
// Importer is for one goroutine at a time, and any number may be open at once.
// Errors are those that package messages documents at the command of the same
// name.
type Store interface {
	// Create begins a snapshot. It does not exist, for any other method, until
	// the writer's Finish has returned nil.
	Create(group, index, term uint64, meta []byte) (Writer, error)
	// Open opens a snapshot after it has read every byte of the file and checked
	// it by a CRC. The content is checked further as it is read. The snapshot
	// cannot be deleted until the Reader is closed.
	Open(id string) (Reader, error)
	// OpenAt opens a snapshot for random access after it has checked header,
	// index and footer: each block is checked when it is read. The snapshot
	// cannot be deleted until the Reader is closed.
	OpenAt(id string) (Reader, error)
	// Latest returns the group's newest snapshot that verifies. Damaged ones
	// before it are returned too, so that they can be reported, and set aside.
	// messages.ErrNotFound if there is no good one.
	Latest(group uint64) (messages.SnapshotInfo, []*messages.CorruptError, error)
	// List returns the group's snapshots, newest first, as their headers and
	// footers describe them, and the files whose header or footer is damaged.
	List(group uint64) ([]messages.SnapshotInfo, []*messages.CorruptError, error)
	// ListAll is List for every group.
	ListAll() ([]messages.SnapshotInfo, []*messages.CorruptError, error)
	// Verify reads a snapshot whole, decompresses it and checks every checksum.
	Verify(id string) (messages.SnapshotInfo, error)
	// Delete removes a snapshot, durably.
	Delete(id string) error
	// Cleanup removes a group's older snapshots and returns their ids.
	Cleanup(group uint64, r messages.Retention) ([]string, error)

	// Resume begins a snapshot like Create, or goes on with one that broke off.
	// What its Writer has written is kept when the process ends, the store is
	// closed, a Write or Finish fails or Suspend is called. A later Resume for
	// the same group, index, term and meta, with the same codec, level and
	// block size, checks what there is, keeps it up to the last good block, and
	// returns the offset in the state from which the caller must go on: a
	// multiple of the block size, 0 if there is nothing.
	//
	// A group has at most one unfinished save. Resume ends the Writer that has
	// it at the moment, whose further calls fail with messages.ErrExpired, and
	// replaces a save that it cannot go on with.
	Resume(group, index, term uint64, meta []byte) (w Writer, offset int64, err error)

	// Export opens a snapshot to be copied as it is, compressed: a stream of an
	// envelope of EnvelopeBytes, which names it, and its file from the given
	// offset on: 0, or what Import has returned on the other side. The snapshot
	// cannot be deleted until the Exporter is closed.
	Export(id string, offset int64) (Exporter, error)
	// Import takes the stream of an Export. With an id it takes that of no
	// other snapshot, and may go on with an import of it that broke off: the
	// stream may then begin at the offset that is returned, or at 0. With an
	// empty id it begins at 0 and its envelope says what it is. A group has at
	// most one unfinished import; a later one ends and replaces it, as Resume
	// does.
	Import(id string) (w Importer, offset int64, err error)

	// Unfinished lists what Resume and Import could go on with, by name.
	Unfinished() ([]messages.UnfinishedSnapshot, error)

	// SetAside renames a damaged snapshot, durably, so that it is kept and no
	// snapshot any more. It reads the file first: messages.ErrConflict if it
	// verifies or is open. A file that could not be read (out of descriptors,
	// no permission, EIO) is not known to be damaged and stays: the error is
	// that of reading it. Setting aside again what was set aside syncs the name
	// once more.
	//
	// Nothing else calls it: Latest reports what it has passed over, and
	// whoever asked decides.
	SetAside(id string) (messages.AsideSnapshot, error)
	// Aside lists what was set aside, by name.
	Aside() ([]messages.AsideSnapshot, error)
	// Discard removes, durably, a file that Unfinished or Aside lists, by its
	// Name. messages.ErrConflict if somebody is writing it.
	Discard(name string) error

	// Plan says what Cleanup would do to each snapshot of a group, newest
	// first, and why. It reads what Cleanup would read and removes nothing.
	Plan(group uint64, r messages.Retention) ([]messages.PlannedSnapshot, error)

	// Close releases the store. Writers from Create are aborted; those from
	// Resume, and Importers, are suspended.
	Close() error
}

// Writer takes the state of a new snapshot as a stream. Memory is bounded
// whatever the length. After an error from Write or Finish no further call but
// Abort does anything; what a Writer from Create has written is gone, its
// temporary file too, and that of one from Resume is kept unless it can be of
// no use.
type Writer interface {
	io.Writer
	// ID is what the snapshot will be called.
	ID() string
	// Expect makes Finish fail with messages.ErrCorrupt, and what was written
	// go, if the content hash of the state is another.
	Expect(contentHash [32]byte)
	// Finish completes the file, syncs it, gives it its final name and syncs
	// the directory. With a nil error the snapshot survives power loss.
	Finish() (messages.SnapshotInfo, error)
	// Suspend ends a Writer from Resume and keeps all whole blocks of what it
	// was given, durably: up to a block less one byte must be written again.
	// messages.ErrInvalid, and nothing is done, if it is from Create.
	Suspend() error
	// Abort gives the snapshot up and removes what was written, also that of a
	// Writer from Resume that has failed or was suspended, unless a later
	// Resume has taken it. After Finish it does nothing.
	Abort() error
}

// Reader yields the state of a snapshot, as a stream or from any place. The
// SHA-256 of each block is checked before any of its bytes are returned; so a
// Read from beginning to end that reaches io.EOF has proved the content hash,
// and only then should what was read take effect.
type Reader interface {
	io.ReadSeekCloser
	// ReadAt may be called by several goroutines at once, beside the others.
	io.ReaderAt
	Info() messages.SnapshotInfo
}

// Exporter yields a snapshot as a stream for an Importer. Every byte has been
// checked before it is handed out; damage ends the stream with an error that
// matches messages.ErrCorrupt.
type Exporter interface {
	io.ReadCloser
	Info() messages.SnapshotInfo
	// Size is the length of the whole stream from offset 0: EnvelopeBytes and
	// those of the file.
	Size() int64
}

// Importer takes the stream of an Exporter in pieces of any length. It refuses
// a stream that is none, or is of a version that it cannot read, as soon as it
// has seen the first bytes. Memory is bounded.
type Importer interface {
	io.Writer
	// ID is what the snapshot is called; empty until the stream has said it.
	ID() string
	// Finish checks every byte of the file, decompressed as well, and makes the
	// snapshot durable under its id. If a snapshot with the same id and content
	// is there already that is what is returned. messages.ErrConflict if
	// another has the id. io.ErrUnexpectedEOF if the stream is not complete:
	// what has come is kept. messages.ErrCorrupt if it is damaged: it is gone.
	Finish() (messages.SnapshotInfo, error)
	// Suspend ends the import and keeps what has come, durably.
	Suspend() error
	// Abort ends the import and removes what has come. After Finish it does
	// nothing.
	Abort() error
}
