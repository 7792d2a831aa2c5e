package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Dir is a Store that keeps its snapshots as files in one directory.
type Dir struct {
	path    string
	options Options
	coder   *coder
	lock    *durable.Lock // nil with NoLock

	closed atomic.Bool

	// maintenance of a group is held by whoever removes its snapshots, from the
	// decision to the removal, so that two of them cannot each rely on the
	// other's victim.
	maintenance keyed[uint64]
	// claims is held by whoever decides which unfinished file of a slot belongs
	// to whom, until that is so. It comes before the mutex of any writer or
	// importer that owns one, and before mu.
	claims keyed[slot]
	// publishing of an id is held from the look whether its name is free to the
	// rename.
	publishing keyed[string]

	// mu is never held while the disk is asked to change something, or to sync.
	mu        sync.Mutex
	writers   map[string]*writer // by id
	readers   map[stopper]struct{}
	importers []*importer                       // in the order of Import
	open      map[string]int                    // readers of a snapshot, by id, from the start of Open
	owners    map[string]owner                  // of unfinished files, by name
	kept      map[string]owner                  // who left them, until somebody else has them
	aside     map[string]*messages.CorruptError // what was found wrong, by name
	// hidden are the ids under which there may be a file whose name is not
	// known to be durable: until that is synced, and for good if it cannot be.
	// Nobody may rely on such a snapshot; it may be taken back.
	hidden map[string]struct{}
	// leaving are the ids of snapshots that are being removed or renamed; the
	// channel is closed when that is over.
	leaving map[string]chan struct{}
	changes int           // under way without mu
	quiet   chan struct{} // closed when there are none any more
}

// stopper is a reader or an exporter.
type stopper interface{ stop(reason error) error }

var _ Store = (*Dir)(nil)

// OpenDir opens the directory, which is made if it is missing, and removes the
// unfinished files that a crash has left in it, but those that Resume or Import
// may still go on with. It reads no snapshot.
//
// Errors: messages.ErrInvalid (the options), messages.ErrLocked,
// messages.ErrDiskFull.
func OpenDir(path string, o Options) (*Dir, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	d := &Dir{
		path:    filepath.Clean(path),
		options: o.withDefaults(),
		writers: map[string]*writer{},
		readers: map[stopper]struct{}{},
		open:    map[string]int{},
		owners:  map[string]owner{},
		kept:    map[string]owner{},
		aside:   map[string]*messages.CorruptError{},
		hidden:  map[string]struct{}{},
		leaving: map[string]chan struct{}{},
	}
	if err := d.start(); err != nil {
		if d.lock != nil {
			err = errors.Join(err, d.lock.Release())
		}
		return nil, fmt.Errorf("snapshot: open %s: %w", d.path, durable.Wrap(err))
	}
	return d, nil
}

func (d *Dir) start() (err error) {
	if err = durable.MkdirAll(d.options.Disk, d.path); err != nil {
		return err
	}
	if !d.options.NoLock {
		if d.lock, err = durable.LockDir(d.path); err != nil {
			return err
		}
	}
	if _, err = durable.RemoveTemps(d.options.Disk, d.path); err != nil {
		return err
	}
	d.expire()
	d.coder = newCoder(d.options)
	return nil
}

// Close implements Store. Readers that are still open are closed as well. Every
// later call, and those that are reading files at the moment, fail with an
// error that matches messages.ErrStopped. A second Close does nothing.
func (d *Dir) Close() error {
	d.mu.Lock()
	if d.closed.Swap(true) {
		d.mu.Unlock()
		return nil
	}
	var writers []*writer
	for _, w := range d.writers {
		writers = append(writers, w)
	}
	var readers []stopper
	for r := range d.readers {
		readers = append(readers, r)
	}
	importers := slices.Clone(d.importers)
	d.mu.Unlock()
	// By id, so that a test that counts disk operations sees one order.
	slices.SortFunc(writers, func(a, b *writer) int { return strings.Compare(a.info.ID, b.info.ID) })

	var errs []error
	for _, w := range writers {
		errs = append(errs, w.stop(messages.ErrStopped))
	}
	for _, m := range importers {
		errs = append(errs, m.stop(messages.ErrStopped))
	}
	for _, r := range readers {
		errs = append(errs, r.stop(messages.ErrStopped))
	}
	d.settle()
	if d.lock != nil {
		errs = append(errs, d.lock.Release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("snapshot: close %s: %w", d.path, err)
	}
	return nil
}

// filePath is where the snapshot with a valid id is kept.
func (d *Dir) filePath(id string) string { return filepath.Join(d.path, id+fileSuffix) }

// isHidden reports whether the name of a snapshot may not be durable. Who asks
// after he has opened it, or seen its name, misses none.
func (d *Dir) isHidden(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, hidden := d.hidden[id]
	return hidden
}

// running returns an error after Close.
func (d *Dir) running() error {
	if d.closed.Load() {
		return messages.ErrStopped
	}
	return nil
}
