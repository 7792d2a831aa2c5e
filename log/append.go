package log

import (
	"fmt"

	"github.com/ballast-raft/ballast/messages"
)

// batch is what one sync makes durable.
type batch struct {
	records []byte // one after the other, as they are encoded
	ends    []int  // where each ends
	framed  int64  // their size with the lengths that the engine puts before them
	changes []change
	refs    []entryRef
	dirty   map[uint64]struct{} // groups that were changed
	first   uint64              // wal index of the first change, once sealed
	inner   int                 // how many changes are the log's own
	// grows is set if there is anything but truncations, resets and removals
	// in it, which may use the reserve of a full disk.
	grows bool
	// roomy is set if there was space to spare when it was sealed.
	roomy bool
	// shrinks is set if a change may have made a segment superfluous.
	shrinks bool

	// For the time of the write.
	sizes  []int    // of the records
	bodies []uint32 // where each record lies in its segment
}

// maxKeptBatch is how much of a batch's memory is kept for the next: most are
// far smaller, and one large append should not cost memory for ever.
const maxKeptBatch = 8 << 20

func (b *batch) clear() {
	if cap(b.records) > maxKeptBatch || cap(b.refs) > maxKeptBatch/32 {
		*b = batch{}
		return
	}
	clear(b.changes)
	clear(b.dirty)
	*b = batch{records: b.records[:0], ends: b.ends[:0], changes: b.changes[:0], refs: b.refs[:0],
		dirty: b.dirty, sizes: b.sizes[:0], bodies: b.bodies[:0]}
}

// Append implements Store. The limits are Options.MaxAppendBytes and an index
// below 2^63.
func (w *WAL) Append(group uint64, entries []messages.Entry, hs *messages.HardState) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	c := w.cursor(group)
	first := c.last + 1
	if len(entries) > 0 && entries[0].Index != 0 {
		first = entries[0].Index
	}
	fail := func(err error) (uint64, error) {
		return 0, fmt.Errorf("log: append %d to group %d: %w", first, group, err)
	}
	if err := w.usable(); err != nil {
		return fail(err)
	}
	if len(entries) == 0 && hs == nil {
		return fail(messages.ErrEmptyAppend)
	}
	bytes := 0
	if len(w.open.records) >= w.options.MaxBatchBytes {
		return fail(fmt.Errorf("%d bytes are staged: %w", len(w.open.records), messages.ErrOverloaded))
	}
	if len(entries) > 0 {
		switch {
		case first < c.first:
			return fail(fmt.Errorf("the log begins at %d: %w", c.first, messages.ErrCompacted))
		case first <= c.last:
			return fail(fmt.Errorf("the log ends at %d: %w", c.last, messages.ErrConflict))
		case first > c.last+1:
			return fail(fmt.Errorf("the log ends at %d: %w", c.last, messages.ErrOutOfOrder))
		case uint64(len(entries)) > maxIndex-first:
			return fail(fmt.Errorf("index over %d: %w", uint64(maxIndex), messages.ErrInvalid))
		}
		term := c.lastTerm()
		for i := range entries {
			e := &entries[i]
			if entries[0].Index != 0 && e.Index != first+uint64(i) {
				return fail(fmt.Errorf("entry %d of the append has index %d: %w", i, e.Index, messages.ErrOutOfOrder))
			}
			if e.Term < term {
				return fail(fmt.Errorf("term %d at index %d after term %d: %w", e.Term, first+uint64(i), term, messages.ErrStaleTerm))
			}
			term = e.Term
			if bytes += len(e.Data); bytes > w.options.MaxAppendBytes {
				return fail(fmt.Errorf("over %d bytes: %w", w.options.MaxAppendBytes, messages.ErrTooLarge))
			}
		}
	}
	if hs != nil && hs.Term < c.hard.Term {
		return fail(fmt.Errorf("hard state of term %d after term %d: %w", hs.Term, c.hard.Term, messages.ErrStaleTerm))
	}

	assign := len(entries) > 0 && entries[0].Index == 0
	if assign {
		for i := range entries {
			entries[i].Index = first + uint64(i)
		}
	}
	ch := change{kind: kindAppend, group: group, index: first}
	if hs != nil {
		h := *hs
		if h.Term == c.hard.Term && h.Vote == 0 {
			h.Vote = c.hard.Vote // a vote is never taken back within its term
		}
		hs = &h
		ch.hasHard, ch.hard = true, h
	}
	if n := w.encode(&ch, entries); n > w.options.MaxAppendBytes {
		w.forget(&ch)
		if assign {
			for i := range entries {
				entries[i].Index = 0
			}
		}
		return fail(fmt.Errorf("%d bytes, limit %d: %w", n, w.options.MaxAppendBytes, messages.ErrTooLarge))
	}
	w.open.grows = true
	position = w.stage(&ch)
	w.newest = position
	c.append(ch.entries)
	if hs != nil {
		c.hard = *hs
	}
	w.staged[group] = c
	return position, nil
}

// SetStable implements Store.
func (w *WAL) SetStable(group uint64, name string, value []byte) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	err = w.usable()
	switch {
	case err != nil:
	case name == "":
		err = fmt.Errorf("an empty name: %w", messages.ErrInvalid)
	case len(name) > messages.MaxStableName:
		err = fmt.Errorf("a name of %d bytes: %w", len(name), messages.ErrTooLarge)
	case len(value) > messages.MaxStableValue:
		err = fmt.Errorf("a value of %d bytes: %w", len(value), messages.ErrTooLarge)
	}
	if err != nil {
		return 0, fmt.Errorf("log: set %.32q of group %d: %w", name, group, err)
	}
	c := w.cursor(group)
	// The value is copied: the batch is published only after the sync.
	ch := change{kind: kindStable, group: group, name: name, value: append([]byte{}, value...), removed: value == nil}
	w.metadataBytes += int64(w.encode(&ch, nil))
	w.open.grows = w.open.grows || value != nil
	w.staged[group] = c
	w.newest = w.stage(&ch)
	return w.newest, nil
}

// cursor returns what is staged of a group, which the caller puts into
// w.staged once a change to it is accepted.
func (w *WAL) cursor(group uint64) *cursor {
	if c := w.staged[group]; c != nil {
		return c
	}
	c := newCursor()
	return &c
}

// encode adds the record of a change to the open batch, and returns its size.
func (w *WAL) encode(c *change, entries []messages.Entry) int {
	b := w.open
	// Syncs do not overlap, so whatever is ahead of the open batch is durable
	// by the time the first record of it is written; unless it was only written:
	// commit takes the flag back then.
	c.durableBefore = len(b.changes) == 0
	start := len(b.records)
	b.records, b.refs = encodeRecord(b.records, c, entries, b.refs)
	return len(b.records) - start
}

// forget takes back what encode has just added.
func (w *WAL) forget(c *change) {
	b := w.open
	start := 0
	if n := len(b.ends); n > 0 {
		start = b.ends[n-1]
	}
	b.records = b.records[:start]
	b.refs = b.refs[:len(b.refs)-len(c.entries)]
}

// stage makes the record that was encoded last part of the open batch, and
// returns its wal index.
func (w *WAL) stage(c *change) uint64 {
	b := w.open
	start := 0
	if n := len(b.ends); n > 0 {
		start = b.ends[n-1]
	}
	n := len(b.records) - start
	b.ends = append(b.ends, len(b.records))
	b.framed += int64(uvarintLen(uint64(n)) + n)
	b.changes = append(b.changes, *c)
	if b.dirty == nil {
		b.dirty = map[uint64]struct{}{}
	}
	b.dirty[c.group] = struct{}{}
	position := w.next
	w.next++
	return position
}
