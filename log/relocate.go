package log

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

const (
	// The segments from the first live entry on take up at most spaceFactor
	// times what is live in them, and spaceSlack segments; beyond that the live
	// entries of the oldest one move to the tail. With a factor of 2 at least
	// as much is freed as is written again.
	spaceFactor = 2
	spaceSlack  = 8
	// relocateBytes is how much moves at a time.
	relocateBytes = 4 << 20
)

// relocate stages copies of the live entries of the oldest segment, if too
// much of what follows it is dead: a group that lags behind must not pin the
// log. It reports whether anything was staged.
func (w *WAL) relocate() (staged bool, err error) {
	victim, err := w.victim()
	if victim == nil || err != nil {
		return false, err
	}
	moved := 0
	for _, id := range w.Groups() {
		for after := uint64(0); moved < relocateBytes; {
			var n int
			n, after, err = w.move(id, victim, after, relocateBytes-moved)
			if err != nil {
				return staged, fmt.Errorf("relocate: %w", err)
			}
			if after == 0 {
				break
			}
			staged = staged || n > 0
			moved += n
		}
	}
	return staged, nil
}

// victim returns the segment to be emptied, or nil.
func (w *WAL) victim() (*segment, error) {
	w.state.RLock()
	defer w.state.RUnlock()
	tail := w.segments[len(w.segments)-1].ordinal
	oldest := w.index.oldest()
	if oldest >= tail {
		return nil, nil
	}
	// By size, not by number: a group with many small entries may lag behind
	// one with few large ones, or the other way round.
	live := make([]int64, tail-oldest+1)
	for _, g := range w.index.groups {
		for i := range g.spans {
			p := &g.spans[i]
			live[p.segment.ordinal-oldest] += p.entries.cost(g.endOf(i) - p.first)
		}
	}
	var total, used int64
	for i, s := range w.segments[oldest-w.base:] {
		total += s.size
		used += min(s.size, live[i])
	}
	if total <= spaceFactor*used+spaceSlack*int64(w.options.SegmentBytes) {
		return nil, nil
	}
	free, err := durable.Free(w.dir)
	if err != nil || free < 2*w.options.ReserveBytes+2*relocateBytes {
		return nil, err
	}
	return w.segments[oldest-w.base], nil
}

// endOf is the index after the last entry of a span.
func (g *group) endOf(i int) uint64 {
	if i+1 < len(g.spans) {
		return g.spans[i+1].first
	}
	return g.last + 1
}

// move stages copies of a group's live entries in a segment, from an index on
// and up to a size. It returns the size of what it has staged, and
// the index to go on from, or 0 if there are no more.
func (w *WAL) move(id uint64, victim *segment, after uint64, limit int) (size int, next uint64, err error) {
	w.staging.Lock()
	w.state.RLock()
	var from, to, cuts uint64
	if g, c := w.index.groups[id], w.staged[id]; g != nil && c != nil && c.cuts == g.cuts {
		for i := range g.spans {
			if end := g.endOf(i); g.spans[i].segment == victim && end > after {
				from, to, cuts = max(after, g.spans[i].first), end, g.cuts
				break
			}
		}
	}
	w.state.RUnlock()
	w.staging.Unlock()
	if from == to {
		return 0, 0, nil
	}
	entries, err := w.Entries(id, from, to, limit)
	switch {
	case errors.Is(err, messages.ErrCompacted), errors.Is(err, messages.ErrNotFound):
		return 0, 0, nil // meanwhile
	case errors.Is(err, messages.ErrCorrupt):
		return 0, to, nil // damage stays where it is, and is found by whoever reads it
	case err != nil:
		return 0, 0, err
	}
	next = entries[len(entries)-1].Index + 1
	w.staging.Lock()
	defer w.staging.Unlock()
	if err := w.usable(); err != nil {
		return 0, 0, err
	}
	c := w.staged[id]
	if c == nil || c.cuts != cuts {
		return 0, 0, nil // they may be others now
	}
	entries = slices.DeleteFunc(entries, func(e messages.Entry) bool { return e.Index < c.first })
	if len(entries) == 0 {
		return 0, next, nil
	}
	ch := change{kind: kindRelocated, group: id, index: entries[0].Index}
	size = w.encode(&ch, entries)
	w.open.inner++
	w.open.grows, w.open.shrinks = true, true
	w.stage(&ch)
	return size, next, nil
}
