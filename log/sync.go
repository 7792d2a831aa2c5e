package log

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"syscall"

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
	if changes, err = w.carryOut(true); err != nil {
		err = fmt.Errorf("log: sync: %w", err)
	}
	return changes, err
}

// Write implements Store. It syncs when the tail is full, and with a checkpoint,
// so what is not durable is in one segment, and nothing is removed on account of
// it.
func (w *WAL) Write() (changes int, err error) {
	if changes, err = w.carryOut(false); err != nil {
		err = fmt.Errorf("log: write: %w", err)
	}
	return changes, err
}

// carryOut writes what is staged, and makes it durable if that is wanted.
func (w *WAL) carryOut(sync bool) (changes int, err error) {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	if err := w.makeRoom(); err != nil {
		w.fail(err)
		return 0, err
	}
	b, changes, err := w.seal()
	if err != nil {
		return changes, err
	}
	if b != nil {
		err = w.commit(b, sync)
	} else if sync {
		err = w.flush()
	}
	if err != nil {
		w.fail(err)
		return 0, err
	}
	if b != nil {
		w.recycle(b)
	}
	return changes, nil
}

// flush makes durable what was only written. The caller holds syncing.
func (w *WAL) flush() error {
	if !w.tail.unsynced {
		return nil
	}
	last := w.Written()
	if err := w.settle(w.tail, last); err != nil {
		return err
	}
	w.state.Lock()
	defer w.state.Unlock()
	w.durable = last
	return nil
}

// seal takes the open batch, and adds a checkpoint if one is wanted.
func (w *WAL) seal() (b *batch, changes int, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	if err := w.usable(); err != nil {
		return nil, 0, err
	}
	b = w.open
	wanted := w.wanted.Load()
	if len(b.changes) == 0 && !wanted {
		return nil, 0, nil
	}
	// statfs takes a microsecond and does not touch the disk.
	free, err := durable.FreeBesideOn(w.options.Disk, w.tail.log)
	if err != nil {
		w.poison = err
		return nil, 0, err
	}
	size := b.framed
	need := size + smallReserve
	if b.grows {
		need = size + w.options.ReserveBytes + w.metadataBytes
		if free < need { // what SetStable has replaced takes no room
			need -= w.metadataBytes
			w.metadataBytes = w.index.checkpointSize() + size
			need += w.metadataBytes
		}
	}
	if free < need {
		changes = w.drop()
		return nil, changes, fmt.Errorf("%d bytes free, %d needed: %w", free, need, messages.ErrDiskFull)
	}
	b.roomy = free >= need+w.options.ReserveBytes+w.fillSize()
	changes = len(b.changes) - b.inner
	if b.shrinks {
		w.metadataBytes = w.index.checkpointSize() + size
	}
	if wanted && free >= need+w.metadataBytes {
		w.wanted.Store(false)
		w.addCheckpoint()
	}
	if len(b.changes) == 0 {
		return nil, 0, nil
	}
	b.first = w.next - uint64(len(b.changes))
	w.open = w.spare
	w.spare = nil
	return b, changes, nil
}

// addCheckpoint adds to the open batch what every group is after it, but for
// its entries. The caller holds syncing and staging, so nothing else is on its
// way.
func (w *WAL) addCheckpoint() {
	w.state.RLock()
	defer w.state.RUnlock()
	stable := map[uint64]map[string][]byte{}
	for i := range w.open.changes {
		if c := &w.open.changes[i]; c.kind == kindStable {
			m := stable[c.group]
			if m == nil {
				m = map[string][]byte{}
				if g := w.index.groups[c.group]; g != nil {
					maps.Copy(m, g.stable)
				}
				stable[c.group] = m
			}
			if m[c.name] = c.value; c.removed {
				delete(m, c.name)
			}
		}
	}
	c := change{kind: kindCheckpoint}
	for _, id := range slices.Sorted(maps.Keys(w.staged)) {
		s := w.staged[id]
		m := groupMeta{group: id, first: s.first, count: s.last + 1 - s.first, prevTerm: s.prevTerm, lastTerm: s.lastTerm(), hard: s.hard}
		values, changed := stable[id]
		if g := w.index.groups[id]; !changed && g != nil {
			values = g.stable
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			m.stableNames = append(m.stableNames, name)
			m.stableValues = append(m.stableValues, values[name])
		}
		c.groups = append(c.groups, m)
	}
	w.encode(&c, nil)
	w.open.inner++
	w.stage(&c)
}

func (w *WAL) recycle(b *batch) {
	b.clear()
	w.staging.Lock()
	defer w.staging.Unlock()
	w.spare = b
}

// commit writes a batch, makes it durable if that is wanted or needed, moves the
// mark then, and only then publishes it. After an error it is not known what is on
// disk. The caller holds syncing.
//
// A batch goes into one segment whole, and a segment is left only when all of
// it is durable.
func (w *WAL) commit(b *batch, sync bool) error {
	t, err := w.room(b)
	if err != nil {
		return err
	}
	// Checkpoints and copies let segments go.
	sync = sync || b.inner > 0
	w.meanBatch.Store((7*w.meanBatch.Load() + b.framed) / 8)
	at := t.end
	// A fence, and durableBefore, say that all records before are durable.
	fenced := t.fenced && !t.unsynced
	if fenced {
		at += fenceFramed
	}
	if t.unsynced {
		b.records[4] &^= flagDurableBefore
	}
	// Zeros are for the next sync, and must not take the last of the space.
	if size := at + b.framed; sync && size > t.filled && b.roomy {
		if w.meanBatch.Load() >= reserveFrom {
			t.reserve(max(size, w.fillSize()))
		} else if err := durable.Wrap(t.fill(size+min(fillStep, w.fillSize()), false)); err != nil && !errors.Is(err, messages.ErrDiskFull) {
			return err
		}
	}
	if t.fenced {
		if err := t.terminate(at + b.framed); err != nil {
			return durable.Wrap(err)
		}
	}
	if fenced {
		if err := t.engine.Write(t.next, t.fence.record(b.first)); err != nil {
			return fmt.Errorf("write the fence before %d: %w", b.first, durable.Wrap(err))
		}
		t.next++
	}
	b.bodies = b.bodies[:0]
	start := 0
	b.sizes = b.sizes[:0]
	for i, end := range b.ends {
		rec := b.records[start:end]
		putCheck(rec, b.first+uint64(i), w.seed)
		b.sizes = append(b.sizes, len(rec))
		at += int64(uvarintLen(uint64(len(rec))))
		b.bodies = append(b.bodies, uint32(at))
		at += int64(len(rec))
		start = end
	}
	if err := t.engine.write(t.next, b.records, b.sizes); err != nil {
		return fmt.Errorf("write %d records from %d: %w", len(b.changes), b.first, durable.Wrap(err))
	}
	t.engine.forget()
	t.next += uint64(len(b.changes))
	t.end = at
	t.filled = max(t.filled, at)
	last := b.first + uint64(len(b.changes)) - 1
	t.unsynced = true
	if sync {
		err = w.settle(t, last)
	} else {
		err = present(t.log.Name())
	}
	if err != nil {
		return err
	}
	return w.publish(t, b, last)
}

// settle makes the tail durable, up to the record last, and moves the mark.
func (w *WAL) settle(t *writer, last uint64) error {
	if err := w.disk.Sync(t.log); err != nil {
		return durable.Wrap(err)
	}
	if err := present(t.log.Name()); err != nil {
		return err
	}
	t.unsynced = false
	return w.mark.Set(w.identity, durable.Position{Sequence: last, File: uint64(t.ordinal), Offset: t.end})
}

// fillStep is how far the tail is filled with zeros when it was not prepared:
// after an open, and when the next segment is late.
const fillStep = 256 << 10

// room returns the segment that the batch goes into: the tail, or the next one
// if it is full.
func (w *WAL) room(b *batch) (*writer, error) {
	t := w.tail
	limit := int64(w.options.SegmentBytes)
	after := t.end + b.framed
	// A spare is left before it has to grow.
	full := t.end >= limit || t.fenced && t.end >= limit-limit/8 && after+fenceFramed > t.filled
	if t.next == 1 || !full && after <= math.MaxUint32 {
		return t, nil
	}
	next := w.takeReady()
	if next == nil && (t.end >= 4*limit || after > math.MaxUint32/2) {
		// Nobody has prepared one, or is still about it, so it costs some syncs
		// here.
		w.preparing.Lock()
		defer w.preparing.Unlock()
		free, err := durable.FreeBesideOn(w.options.Disk, t.log)
		if next = w.takeReady(); next == nil && err == nil {
			if free < w.fillSize()+w.options.ReserveBytes {
				err = messages.ErrDiskFull // rather than fill what is left with zeros
			} else {
				next, err = w.prepare(t.ordinal+1, w.fillSize())
			}
		}
		if err != nil {
			if after > math.MaxUint32 || !errors.Is(err, messages.ErrDiskFull) && !durable.Transient(err) {
				return nil, err
			}
			next = nil
		}
	}
	if next == nil {
		if t.end >= max(limit, w.remindAt) { // Maintain may have been unable to prepare one
			w.due.Store(true)
			w.remindAt = t.end + limit/4
		}
		return t, nil
	}
	if err := w.flush(); err != nil {
		return nil, err
	}
	w.remindAt = 0
	next.first = b.first
	w.handover.Lock()
	w.left = append(w.left, &leftSegment{writer: t, records: b.first - t.first})
	w.tailOrdinal, w.tailUsed = next.ordinal, false
	w.handover.Unlock()
	w.tail = next
	w.state.Lock()
	w.segments = append(w.segments, next.segment)
	w.state.Unlock()
	w.due.Store(true)
	return next, nil
}

// present reports an error if a file that is being written has no name any
// more: a sync of it succeeds, and all of it is lost when it is closed. Not by
// fstat: whoever asks for a file's times has the next write record new ones in
// the journal (Linux 6.13, multigrain timestamps), and at 128 bytes that costs
// a quarter of the throughput.
func present(path string) error {
	if err := syscall.Access(path, 0); err != nil {
		return &messages.CorruptError{Path: path, Offset: -1, Reason: "the file was removed while it was being written", Err: err}
	}
	return nil
}

// publish lets reads see a batch.
func (w *WAL) publish(t *writer, b *batch, last uint64) error {
	w.lockState()
	defer w.state.Unlock()
	for i := range b.changes {
		if err := w.index.apply(&b.changes[i], t.segment, b.bodies[i]); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if b.changes[i].kind == kindCheckpoint {
			w.checkpointAt = b.first + uint64(i)
			w.checkpointBytes = int64(b.ends[i])
			if i > 0 {
				w.checkpointBytes -= int64(b.ends[i-1])
			}
			w.due.Store(true)
		}
	}
	w.index.upTo = last
	if !t.unsynced {
		w.durable = last
	}
	t.size = t.end
	if b.shrinks {
		w.due.Store(true)
	}
	if !w.tailUsed {
		w.handover.Lock()
		w.tailUsed = true
		w.handover.Unlock()
		w.due.Store(true)
	}
	return nil
}

// drop gives up what is staged: nothing of it has been written. The caller
// holds staging.
func (w *WAL) drop() int {
	w.state.RLock()
	defer w.state.RUnlock()
	n := len(w.open.changes) - w.open.inner
	for id := range w.open.dirty {
		if g := w.index.groups[id]; g != nil {
			w.staged[id] = g.clone()
		} else {
			delete(w.staged, id)
		}
	}
	w.newest = w.index.upTo
	w.next = w.index.upTo + 1
	w.open.clear()
	return n
}

func (w *WAL) walDir() string { return filepath.Join(w.dir, walName) }
