package log

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/tidwall/wal"
)

// WAL is the Store on disk. Open makes it.
//
// Locks are taken in this order: syncing, staging, state. Only syncing is held
// during I/O, and only Sync and Close take it.
type WAL struct {
	dir      string
	options  Options
	disk     durable.Disk
	manifest manifest
	seed     uint32
	lock     *durable.Lock

	// syncing makes Sync and Close exclude each other. It guards what is only
	// used there: the files that are written, and where they end.
	syncing   sync.Mutex
	engine    *wal.Log
	mark      *durable.Mark
	tail      *os.File // our descriptor of the segment that is being written
	tailStart uint64   // wal index of the first record in it
	tailSize  int64
	// doomed are segments below the floor whose files are still there.
	doomed []*segment
	// checkpointBytes is the size of the latest checkpoint.
	checkpointBytes int64

	// staging guards what has been checked and encoded and is not being
	// written yet.
	staging sync.Mutex
	staged  map[uint64]*cursor
	open    *batch
	spare   *batch
	next    uint64 // wal index of the next change
	newest  uint64 // wal index of the latest change
	scratch []byte
	// metadataBytes is at most what a checkpoint would take. Appends leave room
	// for it, so that a truncation can free segments on a full disk.
	metadataBytes int64
	closed        bool
	poison        error

	// state guards what is durable, which is what reads see.
	state    sync.RWMutex
	index    *index
	segments []*segment // ascending; the last is the one being written
	base     uint32     // ordinal of segments[0]
	shut     bool       // closed, for those that read

	readers *readers
}

var _ Store = (*WAL)(nil)

// usable says why the log takes no changes. The caller holds staging.
func (w *WAL) usable() error {
	switch {
	case w.closed:
		return messages.ErrStopped
	case w.poison != nil:
		return fmt.Errorf("%w: %w", ErrPoisoned, w.poison)
	}
	return nil
}

// fail poisons the log.
func (w *WAL) fail(err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	if w.poison == nil {
		w.poison = err
	}
}

// Poisoned implements Store.
func (w *WAL) Poisoned() bool {
	w.staging.Lock()
	defer w.staging.Unlock()
	return w.poison != nil
}

// Durable implements Store.
func (w *WAL) Durable() uint64 {
	w.state.RLock()
	defer w.state.RUnlock()
	return w.index.durable
}

// Staged implements Store.
func (w *WAL) Staged() (position uint64, bytes int) {
	w.staging.Lock()
	defer w.staging.Unlock()
	return w.newest, w.open.bytes
}

// Close implements Store. Reads that are under way finish.
func (w *WAL) Close() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.staging.Lock()
	if w.closed {
		w.staging.Unlock()
		return fmt.Errorf("log: close: %w", messages.ErrStopped)
	}
	w.closed = true
	poisoned := w.poison != nil
	w.open, w.spare, w.scratch = &batch{}, nil, nil
	w.staging.Unlock()

	w.state.Lock()
	w.shut = true
	w.state.Unlock()
	var errs []error
	if !poisoned {
		// The next open then need not rewrite anything.
		errs = append(errs, w.mark.Sync())
	}
	errs = append(errs, w.engine.Close(), w.tail.Close(), w.mark.Close(), w.readers.close())
	if w.lock != nil {
		errs = append(errs, w.lock.Release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("log: close: %w", err)
	}
	return nil
}
