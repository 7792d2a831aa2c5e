package log

import (
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// smallReserve is the free space below which nothing at all is written, so
// that a truncation is refused cleanly instead of failing half-way: room for
// the manifest, a directory block and a small checkpoint.
const smallReserve = 64 << 10

// Sync implements Store. With messages.ErrDiskFull and Poisoned false, changes
// is the number of changes that were dropped: all that had been staged.
//
// A batch of nothing but truncations, resets and removals of stable values may
// use Options.ReserveBytes, so after ErrDiskFull stage those by themselves.
func (w *WAL) Sync() (changes int, err error) {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	b, checkpoint, changes, err := w.seal()
	if err != nil {
		return changes, fmt.Errorf("log: sync: %w", err)
	}
	if b != nil {
		if err := w.commit(b, b.first); err != nil {
			w.fail(err)
			return 0, fmt.Errorf("log: sync: %w", err)
		}
		w.recycle(b)
	}
	if checkpoint != 0 {
		if err := w.checkpoint(checkpoint); err != nil {
			w.fail(err)
			return changes, fmt.Errorf("log: sync: %w", err)
		}
	}
	if err := w.remove(); err != nil {
		w.fail(err)
		return changes, fmt.Errorf("log: sync: %w", err)
	}
	return changes, nil
}

// seal takes the open batch. If segments will be superfluous after it, it also
// takes the wal index after the batch for a checkpoint.
func (w *WAL) seal() (b *batch, checkpoint uint64, changes int, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	if err := w.usable(); err != nil {
		return nil, 0, 0, err
	}
	if len(w.open.changes) == 0 {
		return nil, 0, 0, nil
	}
	// statfs takes a microsecond and does not touch the disk.
	free, err := durable.Free(w.dir)
	if err != nil {
		w.poison = err
		return nil, 0, 0, err
	}
	b = w.open
	need := int64(b.bytes) + smallReserve
	if b.grows {
		need = int64(b.bytes) + w.options.ReserveBytes + w.metadataBytes
		if free < need { // what SetStable has replaced takes no room
			need -= w.metadataBytes
			w.metadataBytes = w.index.checkpointSize() + int64(b.bytes)
			need += w.metadataBytes
		}
	}
	if free < need {
		changes = w.drop()
		return nil, 0, changes, fmt.Errorf("%d bytes free, %d needed: %w", free, need, messages.ErrDiskFull)
	}
	if b.shrinks {
		w.metadataBytes = w.index.checkpointSize() + int64(b.bytes)
	}
	if b.shrinks && free >= need+w.metadataBytes && w.checkpointDue() {
		checkpoint = w.next
		w.next++
	}
	for id := range b.dirty {
		w.staged[id].overwritten = math.MaxUint64
	}
	b.first = w.newest - uint64(len(b.changes)) + 1
	w.open = w.spare
	w.spare = nil
	return b, checkpoint, len(b.changes), nil
}

func (w *WAL) recycle(b *batch) {
	b.clear()
	w.staging.Lock()
	defer w.staging.Unlock()
	w.spare = b
}

// placement is where a record lies.
type placement struct {
	ordinal uint32
	body    uint32 // offset of the record proper, after its length
}

// commit writes a batch whose first record has the wal index first, makes it
// durable, moves the mark, and only then publishes it. After an error it is not
// known what is on disk. The caller holds syncing.
//
// Where each record will lie follows from the engine's rule: it leaves a
// segment after the record with which it reaches SegmentSize, or before a batch
// if it is larger than that already. It syncs the segment that it leaves, but
// not the directory.
func (w *WAL) commit(b *batch, first uint64) error {
	limit := int64(w.options.SegmentBytes)
	tail := w.segments[len(w.segments)-1]
	start, size, ordinal := w.tailStart, w.tailSize, tail.ordinal
	var left []int64 // sizes of the segments that are left, the tail first
	var made []*segment
	roll := func(next uint64) {
		left = append(left, size)
		start, size, ordinal = next, 0, ordinal+1
		made = append(made, &segment{ordinal: ordinal, start: start, path: segmentPath(w.dir, start)})
	}
	if size > limit {
		roll(first)
	}
	places := make([]placement, len(b.changes))
	for i, n := range b.sizes {
		places[i] = placement{ordinal, uint32(size) + uint32(prefixLen(n))}
		if size += int64(n); size >= limit {
			roll(first + uint64(i) + 1)
		}
	}

	if err := w.engine.WriteBatch(&b.wal); err != nil {
		return fmt.Errorf("write %d records from %d: %w", len(b.changes), first, durable.Wrap(err))
	}
	if len(made) == 0 {
		if err := w.disk.Sync(w.tail); err != nil {
			return durable.Wrap(err)
		}
	} else if err := w.leave(left, made, size); err != nil {
		return durable.Wrap(err)
	}

	last := first + uint64(len(b.changes)) - 1
	if err := w.mark.Set(w.manifest.identity, durable.Position{Sequence: last, File: start, Offset: size}); err != nil {
		return err
	}
	if len(made) > 0 {
		if err := w.mark.Sync(); err != nil {
			return err
		}
	}
	w.tailStart, w.tailSize = start, size

	w.state.Lock()
	defer w.state.Unlock()
	for i, n := range left {
		w.segments[len(w.segments)-1].size = n
		w.segments = append(w.segments, made[i])
	}
	w.segments[len(w.segments)-1].size = size
	for i := range b.changes {
		if err := w.index.apply(&b.changes[i], first+uint64(i), places[i].ordinal, places[i].body); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// leave makes durable what a batch wrote that filled one or more segments, and
// goes over to the newest of them. The engine has synced those that it left;
// they are synced again through the Disk, which costs little when there is
// nothing to write, so that whoever counts or fails syncs sees them all.
func (w *WAL) leave(left []int64, made []*segment, size int64) error {
	f := w.tail
	for i := range left {
		if err := w.settle(f, left[i]); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		var err error
		if f, err = os.OpenFile(made[i].path, os.O_RDWR, 0); err != nil {
			return fmt.Errorf("the engine did not make the segment it should have: %w", err)
		}
		w.tail = f
	}
	if err := w.settle(f, size); err != nil {
		return err
	}
	// The engine would keep the segments it left in memory.
	if err := w.engine.ClearCache(); err != nil {
		return err
	}
	return w.disk.SyncDir(w.walDir())
}

// settle makes a segment durable and verifies that it ends where the placement
// of its records says.
func (w *WAL) settle(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return fmt.Errorf("%s has %d bytes, want %d", f.Name(), info.Size(), size)
	}
	return w.disk.Sync(f)
}

// prefixLen is the length of the length of a record that takes n bytes with it.
func prefixLen(n int) int {
	p := 1
	for uvarintLen(uint64(n-p)) != p {
		p++
	}
	return p
}

func (w *WAL) walDir() string { return filepath.Join(w.dir, walName) }
