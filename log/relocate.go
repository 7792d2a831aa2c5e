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
		n, err := w.move(id, victim, relocateBytes-moved)
		if errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrOverloaded) {
			continue // damage stays where it is, and is found by whoever reads it
		}
		if err != nil {
			return staged, fmt.Errorf("relocate: %w", err)
		}
		staged = staged || n > 0
		if moved += n; moved >= relocateBytes {
			break
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
	live := make([]uint64, tail-oldest+1) // entries, by segment
	for _, g := range w.index.groups {
		for i := range g.spans {
			live[g.spans[i].segment.ordinal-oldest] += g.endOf(i) - g.spans[i].first
		}
	}
	var total, used float64
	for _, s := range w.segments[oldest-w.base:] {
		size := float64(s.size)
		total += size
		if n := s.entries(); n > 0 {
			used += size * float64(live[s.ordinal-oldest]) / float64(n)
		}
	}
	if total <= spaceFactor*used+spaceSlack*float64(w.options.SegmentBytes) {
		return nil, nil
	}
	free, err := durable.Free(w.dir)
	if err != nil || free < 2*w.options.ReserveBytes+2*relocateBytes {
		return nil, err
	}
	return w.segments[oldest-w.base], nil
}

// entries counts the entries in a segment, dead or alive. The caller holds
// state.
func (s *segment) entries() uint64 {
	if s.summary != nil {
		return s.summary.count
	}
	n := uint64(0)
	for _, g := range s.fold.groups {
		n += g.tail.count
		for _, m := range g.moved {
			n += m.count
		}
	}
	return n
}

// endOf is the index after the last entry of a span.
func (g *group) endOf(i int) uint64 {
	if i+1 < len(g.spans) {
		return g.spans[i+1].first
	}
	return g.last + 1
}

// move stages copies of a group's live entries in a segment, up to a size, and
// returns theirs.
func (w *WAL) move(id uint64, victim *segment, limit int) (int, error) {
	w.staging.Lock()
	w.state.RLock()
	var from, to, cuts uint64
	if g, c := w.index.groups[id], w.staged[id]; g != nil && c != nil && c.cuts == g.cuts {
		for i := range g.spans {
			if g.spans[i].segment == victim {
				from, to, cuts = g.spans[i].first, g.endOf(i), g.cuts
				break
			}
		}
	}
	w.state.RUnlock()
	w.staging.Unlock()
	if from == to {
		return 0, nil
	}
	entries, err := w.Entries(id, from, to, limit)
	if errors.Is(err, messages.ErrCompacted) || errors.Is(err, messages.ErrNotFound) {
		return 0, nil // meanwhile
	}
	if err != nil {
		return 0, err
	}
	w.staging.Lock()
	defer w.staging.Unlock()
	if err := w.usable(); err != nil {
		return 0, err
	}
	c := w.staged[id]
	if c == nil || c.cuts != cuts {
		return 0, nil // they may be others now
	}
	entries = slices.DeleteFunc(entries, func(e messages.Entry) bool { return e.Index < c.first })
	if len(entries) == 0 {
		return 0, nil
	}
	ch := change{kind: kindRelocated, group: id, index: entries[0].Index}
	n := w.encode(&ch, entries)
	w.open.inner++
	w.open.grows, w.open.shrinks = true, true
	w.stage(&ch)
	return n, nil
}
