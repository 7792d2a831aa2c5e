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
	free, err := durable.FreeOn(w.options.Disk, w.dir)
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
// and up to a size. It returns the size of what it has staged, and the index to
// go on from, or 0 if there are no more.
//
// An entry that is damaged must not keep its segment, and with it all that come
// after it, for as long as its group lags behind. It moves like the others, with
// the bytes that are left of it and the flag that they are damaged: whoever
// reads it finds damage there as well, and the rest of the log goes on.
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
	entries, damaged, err := w.salvage(id, from, to, limit)
	switch {
	case err == errRemoved, errors.Is(err, messages.ErrCompacted), errors.Is(err, messages.ErrNotFound):
		return 0, 0, nil // meanwhile
	case errors.Is(err, messages.ErrCorrupt) && !durable.Transient(err):
		// Where they lie is lost, in the summary and in the records: they stay
		// where they are, and are found by whoever reads them, and by Scrub.
		return 0, to, nil
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
	for len(entries) > 0 {
		// As many as are damaged alike: they get a record of their own.
		bad := damaged[entries[0].Index]
		n := 1
		for n < len(entries) && (damaged[entries[n].Index] == nil) == (bad == nil) {
			n++
		}
		part := slices.DeleteFunc(entries[:n:n], func(e messages.Entry) bool { return e.Index < c.first })
		entries = entries[n:]
		if len(part) == 0 {
			continue
		}
		ch := change{kind: kindRelocated, group: id, index: part[0].Index, damaged: bad != nil}
		size += w.encode(&ch, part)
		w.open.inner++
		w.open.grows, w.open.shrinks = true, true
		w.stage(&ch)
		for i := range part {
			if err := damaged[part[i].Index]; err != nil && err.Reason != knownDamage {
				w.report(Damage{id, part[i].Index, err})
			}
		}
	}
	return size, next, nil
}

// salvage reads the entries of a group in a segment, from an index on and up to
// a size, at least one. Those that are damaged come with the bytes that could be
// read, if any.
func (w *WAL) salvage(id, from, to uint64, limit int) (entries []messages.Entry, damaged map[uint64]*messages.CorruptError, err error) {
	entries, err = w.Entries(id, from, to, limit)
	if err == nil || !errors.Is(err, messages.ErrCorrupt) {
		return entries, nil, err
	}
	entries, locators, pieces, missing, err := w.findRange(id, from, to, limit)
	if err == errNotLoaded {
		if err = w.load(missing); err == nil {
			entries, locators, pieces, _, err = w.findRange(id, from, to, limit)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	damaged = map[uint64]*messages.CorruptError{}
	k, left := 0, pieces[0].n
	for i := range entries {
		for ; left == 0; left = pieces[k].n {
			k++
		}
		left--
		e := &entries[i]
		f := found{locator: locators[i], segment: pieces[k].segment, index: e.Index}
		data := make([]byte, f.size)
		if err = w.read(f.segment, data, int64(f.offset)); err == nil {
			e.Data, err = data, f.verify(data)
		} else if err != errRemoved {
			err = f.unreadable(err)
		}
		if c := (*messages.CorruptError)(nil); errors.As(err, &c) {
			damaged[e.Index] = c
		} else if err != nil {
			return nil, nil, err
		}
	}
	return entries, damaged, nil
}

// report keeps damage for Damaged to tell.
func (w *WAL) report(d Damage) {
	w.handover.Lock()
	defer w.handover.Unlock()
	if len(w.damage) < maxDamage {
		w.damage = append(w.damage, d)
	}
}

// Damaged implements Store.
func (w *WAL) Damaged() []Damage {
	w.handover.Lock()
	defer w.handover.Unlock()
	d := w.damage
	w.damage = nil
	return d
}
