package snapshot

import (
	"io"

	"github.com/ballast-raft/ballast/messages"
)

// Store holds snapshots: rare, large, immutable, compressed, checked.
//
// Every method is safe for concurrent use; each Writer and Reader is for one
// goroutine at a time, and any number may be open at once. Errors are those
// that package messages documents at the command of the same name.
type Store interface {
	// Create begins a snapshot. It does not exist, for any other method, until
	// the writer's Finish has returned nil.
	Create(group, index, term uint64, meta []byte) (Writer, error)
	// Open opens a snapshot after it has read every byte of the file and checked
	// it by a CRC. The content is checked further as it is read. The snapshot
	// cannot be deleted until the Reader is closed.
	Open(id string) (Reader, error)
	// Latest returns the group's newest snapshot that verifies. Damaged ones
	// before it are returned too, so that they can be reported.
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
	// Close releases the store. Writers that are still open are aborted.
	Close() error
}

// Writer takes the state of a new snapshot as a stream. Memory is bounded
// whatever the length. After an error from Write or Finish the snapshot is
// gone, its temporary file too.
type Writer interface {
	io.Writer
	// Finish completes the file, syncs it, gives it its final name and syncs
	// the directory. With a nil error the snapshot survives power loss.
	Finish() (messages.SnapshotInfo, error)
	// Abort gives the snapshot up. After Finish it does nothing.
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
