package log

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// WAL is the Store on disk. Open makes it.
//
// Locks are taken in this order: maintaining, syncing, preparing, staging,
// state, handover. Only the first three are held during I/O: syncing by Sync
// and Close, maintaining by Maintain, Scrub and Close, and preparing by who
// makes the next segment, Maintain or else Sync.
type WAL struct {
	dir      string
	options  Options
	disk     durable.Disk
	identity [16]byte
	seed     uint32
	lock     *durable.Lock

	// syncing guards the segment that is being written.
	syncing sync.Mutex
	tail    *writer
	mark    *durable.Mark
	// remindAt is the size of the tail at which Maintain is asked for the next
	// segment once more.
	remindAt int64
	// meanBatch is the size of the latest batches.
	meanBatch atomic.Int64

	preparing  sync.Mutex
	unfinished uint32 // ordinal of a segment that could not be prepared, and not be removed
	movable    bool   // the engine can be made to write to a spare
	spares     []spare
	spareCount atomic.Int32 // of spares

	// maintaining guards what only Maintain uses.
	maintaining sync.Mutex
	manifest    manifest
	doomed      []*segment // below the floor, their files still there
	scrub       scrubber
	raiseLater  bool        // there was no space to replace the manifest, or no descriptor
	postponed   []error     // why steps of this Maintain are tried again later
	due         atomic.Bool // Maintain has something to do
	wanted      atomic.Bool // the next Sync writes a checkpoint

	// staging guards what has been checked and encoded and is not being
	// written yet.
	staging sync.Mutex
	staged  map[uint64]*cursor
	open    *batch
	spare   *batch
	next    uint64 // wal index of the next change
	newest  uint64 // wal index of the latest change
	// metadataBytes is at most what a checkpoint would take. Appends leave room
	// for it, so that a truncation can free segments on a full disk.
	metadataBytes int64
	closed        bool
	poison        error

	// state guards what is written, which is what reads see, and durable, up to
	// where it is that.
	state    sync.RWMutex
	index    *index
	durable  uint64
	segments []*segment // ascending; the last is the one being written
	base     uint32     // ordinal of segments[0]
	shut     bool       // closed, for those that read
	// checkpointAt is the wal index of the latest checkpoint, checkpointBytes
	// at most its size.
	checkpointAt    uint64
	checkpointBytes int64

	// handover guards what Sync and Maintain hand to each other.
	handover    sync.Mutex
	ready       *writer        // the next segment
	left        []*leftSegment // segments that are complete
	stale       []*segment     // segments whose summary was found damaged
	damage      []Damage       // what Maintain has found and Damaged has not told
	tailOrdinal uint32
	tailUsed    bool // there is a record in the tail

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
	return w.durable
}

// Written implements Store.
func (w *WAL) Written() uint64 {
	w.state.RLock()
	defer w.state.RUnlock()
	return w.index.upTo
}

// Staged implements Store.
func (w *WAL) Staged() (position uint64, bytes int) {
	w.staging.Lock()
	defer w.staging.Unlock()
	return w.newest, len(w.open.records)
}

// Close implements Store. Reads that are under way finish.
func (w *WAL) Close() error {
	w.maintaining.Lock()
	defer w.maintaining.Unlock()
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.staging.Lock()
	if w.closed {
		w.staging.Unlock()
		return fmt.Errorf("log: close: %w", messages.ErrStopped)
	}
	w.closed = true
	poisoned := w.poison != nil
	w.open, w.spare = &batch{}, nil
	w.staging.Unlock()

	w.state.Lock()
	w.shut = true
	w.state.Unlock()
	var errs []error
	if !poisoned {
		err := w.flush()
		poisoned = err != nil
		errs = append(errs, err)
	}
	if !poisoned {
		// The next open then need not rewrite anything.
		errs = append(errs, w.mark.Sync())
	}
	errs = append(errs, w.tail.close(!poisoned))
	if t := w.tail; !poisoned && t.end >= int64(w.options.SegmentBytes)/16 {
		// Worth a summary: the next open begins a new segment.
		errs = append(errs, t.summarise(w.identity, w.index.upTo+1-t.first).write(t.summaryPath()))
	}
	if t := w.takeReady(); t != nil {
		if poisoned {
			errs = append(errs, t.close(false))
		} else {
			errs = append(errs, w.discard(t))
		}
	}
	errs = append(errs, w.dropSpares())
	for _, l := range w.left {
		if l.engine != nil {
			errs = append(errs, l.writer.close(!poisoned && !l.removed.Load()))
		}
		if !poisoned && !l.removed.Load() && l.fold != nil {
			errs = append(errs, l.summarise(w.identity, l.records).write(l.summaryPath()))
		}
	}
	errs = append(errs, w.mark.Close(), w.readers.close())
	if w.lock != nil {
		errs = append(errs, w.lock.Release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("log: close: %w", err)
	}
	return nil
}
