package log

import (
	"fmt"
	"math"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// TruncateFrom implements Store. On disk it is one small record, whatever the
// number of entries.
func (w *WAL) TruncateFrom(group, index uint64) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	c := w.cursor(group)
	err = w.usable()
	switch {
	case err != nil:
	case index == 0:
		err = messages.ErrInvalid
	case index < c.first:
		err = fmt.Errorf("the log begins at %d: %w", c.first, messages.ErrCompacted)
	case index > c.last:
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("log: truncate from %d in group %d: %w", index, group, err)
	}
	ch := change{kind: kindTruncateFrom, group: group, index: index}
	w.encode(&ch, nil)
	c.truncateFrom(index)
	w.open.shrinks = true
	return w.stage(&ch), nil
}

// TruncateBefore implements Store. On disk it is one small record; the Sync
// that makes it durable then removes segments that hold nothing live.
func (w *WAL) TruncateBefore(group, index uint64) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	c := w.cursor(group)
	err = w.usable()
	switch {
	case err != nil:
	case index <= c.first:
		return 0, nil
	case index > c.last+1:
		err = fmt.Errorf("the log ends at %d: %w", c.last, messages.ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("log: truncate before %d in group %d: %w", index, group, err)
	}
	ch := change{kind: kindTruncateBefore, group: group, index: index, term: c.term(index - 1)}
	w.encode(&ch, nil)
	c.truncateBefore(index, ch.term)
	w.open.shrinks = true
	return w.stage(&ch), nil
}

// Reset implements Store.
func (w *WAL) Reset(group, index, term uint64) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	err = w.usable()
	if err == nil && index >= maxIndex {
		err = fmt.Errorf("index over %d: %w", uint64(maxIndex), messages.ErrInvalid)
	}
	if err != nil {
		return 0, fmt.Errorf("log: reset group %d to %d: %w", group, index, err)
	}
	c := w.cursor(group)
	ch := change{kind: kindReset, group: group, index: index, term: term}
	w.encode(&ch, nil)
	c.reset(index, term)
	w.open.shrinks = true
	w.staged[group] = c
	return w.stage(&ch), nil
}

// checkpointDue reports whether the open batch, once durable, leaves segments
// at the front without a live entry that are worth a checkpoint: at least four
// times its size, so that many groups, each compacted on its own, do not write
// more than they free. The caller holds syncing and staging.
func (w *WAL) checkpointDue() bool {
	w.state.RLock()
	defer w.state.RUnlock()
	oldest := w.base + uint32(len(w.segments)) - 1 // the tail stays
	for id, c := range w.staged {
		if c.empty() || c.first >= c.overwritten {
			continue // no entry, or the first will lie in the tail
		}
		g := w.index.groups[id]
		if g == nil || c.first > g.last {
			continue
		}
		oldest = min(oldest, g.data.at(c.first).ordinal)
	}
	var freed int64
	for _, s := range w.segments[:oldest-w.base] {
		freed += s.size
	}
	return freed > 4*w.checkpointBytes
}

// checkpoint writes what every group is at this moment, but for its entries,
// so that nothing in the segments that lie before the first live entry is
// needed any more; then it raises the floor over them. The caller holds
// syncing, so the state does not change meanwhile.
func (w *WAL) checkpoint(at uint64) error {
	b := &batch{}
	c := change{kind: kindCheckpoint, durableBefore: true, groups: w.index.metadata()}
	rec, _ := encodeRecord(nil, &c, nil, nil)
	putCheck(rec, at, w.seed)
	b.wal.Write(at, rec)
	b.changes = []change{c}
	b.sizes = []int{uvarintLen(uint64(len(rec))) + len(rec)}
	if err := w.commit(b, at); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	w.checkpointBytes = int64(len(rec))

	oldest := min(w.index.oldest(), w.base+uint32(len(w.segments))-1)
	if oldest == w.base {
		return nil
	}
	// Below the tail there may be segments younger than the checkpoint only if
	// it filled its own, and then it is in the one before the tail.
	for oldest > w.base && w.segments[oldest-w.base].start > at {
		oldest--
	}
	// If the floor were on disk and the mark were not, a power cut would leave
	// a mark that knows nothing of the records above the floor.
	if err := w.mark.Sync(); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	m := w.manifest
	m.floor, m.checkpoint = w.segments[oldest-w.base].start, at
	if err := m.write(w.disk, w.dir); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	w.manifest = m

	w.state.Lock()
	n := int(oldest - w.base)
	w.doomed = append(w.doomed, w.segments[:n]...)
	w.segments = append([]*segment(nil), w.segments[n:]...)
	w.base = oldest
	w.state.Unlock()
	return nil
}

// removeAtOnce is how many segments are removed before new work is looked for:
// to unlink 4 MiB takes some 200 µs, and an append should not wait for 500.
const removeAtOnce = 4

// remove deletes segments below the floor, until something is staged. What is
// left goes at a later Sync, or at the next Open.
func (w *WAL) remove() error {
	for len(w.doomed) > 0 {
		n := min(removeAtOnce, len(w.doomed))
		for _, s := range w.doomed[:n] {
			s.removed.Store(true)
			if err := w.readers.forget(s.ordinal); err != nil {
				return fmt.Errorf("remove segment: %w", err)
			}
			if err := w.disk.Remove(s.path); err != nil {
				return fmt.Errorf("remove segment: %w", durable.Wrap(err))
			}
		}
		if w.doomed = w.doomed[n:]; len(w.doomed) == 0 {
			w.doomed = nil
		}
		if err := w.disk.SyncDir(w.walDir()); err != nil {
			return fmt.Errorf("remove segment: %w", durable.Wrap(err))
		}
		if w.busy() {
			return nil
		}
	}
	return nil
}

func (w *WAL) busy() bool {
	w.staging.Lock()
	defer w.staging.Unlock()
	return len(w.open.changes) > 0
}

// drop gives up what is staged: nothing of it has been written. The caller
// holds staging.
func (w *WAL) drop() int {
	w.state.RLock()
	defer w.state.RUnlock()
	n := len(w.open.changes)
	for id := range w.open.dirty {
		if g := w.index.groups[id]; g != nil {
			w.staged[id] = g.clone()
		} else {
			delete(w.staged, id)
		}
	}
	for _, c := range w.staged {
		c.overwritten = math.MaxUint64
	}
	w.newest = w.index.durable
	w.next = w.index.durable + 1
	w.open.clear()
	return n
}
