package log

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"

	"github.com/ballast-raft/ballast/messages"
)

// cursor is what a change to a group is checked against: everything that is
// known of the group but where its entries are. There is one for what is
// staged and one for what is written.
type cursor struct {
	first, last uint64
	prevTerm    uint64
	terms       runs
	hard        messages.HardState
	// cuts counts the truncations from the back, and the resets.
	cuts uint64
}

func newCursor() cursor { return cursor{first: 1} }

func (c *cursor) empty() bool { return c.last < c.first }

// term of an index from first-1 to last.
func (c *cursor) term(index uint64) uint64 {
	if index < c.first {
		return c.prevTerm
	}
	return c.terms.at(index)
}

func (c *cursor) lastTerm() uint64 { return c.term(c.last) }

func (c *cursor) append(entries []entryRef) {
	for i := range entries {
		c.terms.push(c.last+1, entries[i].term)
		c.last++
	}
}

func (c *cursor) truncateFrom(index uint64) {
	c.terms.cutFrom(index)
	c.last = index - 1
	c.cuts++
}

func (c *cursor) truncateBefore(index, prevTerm uint64) {
	if c.terms.cutBefore(index); index > c.last {
		c.terms = nil
	}
	c.first, c.prevTerm = index, prevTerm
}

func (c *cursor) reset(index, term uint64) {
	c.first, c.last, c.prevTerm, c.terms = index+1, index, term, nil
	c.hard.Commit = index
	c.cuts++
}

func (c *cursor) clone() *cursor {
	d := *c
	d.terms = slices.Clone(c.terms)
	return &d
}

func (c *cursor) bounds() messages.LogBounds {
	return messages.LogBounds{First: c.first, Last: c.last, PrevTerm: c.prevTerm, LastTerm: c.lastTerm(), HardState: c.hard}
}

// span says that the entries from first on, up to the next span, lie in a
// segment.
type span struct {
	first   uint64
	segment *segment
	entries *stretch
}

// group is the written state of one group.
type group struct {
	cursor
	types  runs
	spans  []span
	stable map[string][]byte
}

// cutSpans drops what says where entries ≥ index lie.
func (g *group) cutSpans(index uint64) {
	n := len(g.spans)
	for n > 0 && g.spans[n-1].first >= index {
		n--
	}
	clear(g.spans[n:])
	g.spans = g.spans[:n]
}

// dropSpans drops what says where entries < index lie.
func (g *group) dropSpans(index uint64) {
	i := sort.Search(len(g.spans), func(i int) bool { return g.spans[i].first > index }) - 1
	if i > 0 {
		g.spans = slices.Delete(g.spans, 0, i)
	}
	if i >= 0 && g.spans[0].first < index {
		g.spans[0].first = index
	}
}

// push adds a span at the end, unless the last one goes on in the same place.
// What a move has left there of an older one is gone.
func (g *group) push(first uint64, seg *segment, s *stretch) {
	if n := len(g.spans); n > 0 && g.spans[n-1].entries == s && g.spans[n-1].segment == seg {
		return
	}
	g.cutSpans(first)
	g.spans = append(g.spans, span{first, seg, s})
}

// move says that from ≤ index < to lie in a stretch, and no longer where they
// lay before. The last span ends before last, MaxUint64 if that is not known.
func (g *group) move(seg *segment, s *stretch, from, to, last uint64) {
	spans := make([]span, 0, len(g.spans)+2)
	placed := false
	for i, p := range g.spans {
		end := last
		if i+1 < len(g.spans) {
			end = g.spans[i+1].first
		}
		if p.first < from {
			spans = append(spans, p)
		}
		if !placed && end > from {
			spans = append(spans, span{from, seg, s})
			placed = true
		}
		if end > to {
			p.first = max(p.first, to)
			spans = append(spans, p)
		}
	}
	if !placed {
		spans = append(spans, span{from, seg, s})
	}
	g.spans = spans
}

// at returns the span of an index from first to last.
func (g *group) at(index uint64) *span {
	if n := len(g.spans); g.spans[n-1].first <= index {
		return &g.spans[n-1]
	}
	i := sort.Search(len(g.spans), func(i int) bool { return g.spans[i].first > index })
	return &g.spans[i-1]
}

// oldest is the ordinal of the oldest segment that holds an entry of the
// group. The caller knows that there is one.
func (g *group) oldest() uint32 {
	oldest := uint32(math.MaxUint32)
	for i := range g.spans {
		oldest = min(oldest, g.spans[i].segment.ordinal)
	}
	return oldest
}

// index is the state of all groups that reads see, as the records up to upTo have
// made it: those that were written, and synced unless the caller of Write has left
// that for later.
type index struct {
	groups map[uint64]*group
	upTo   uint64
}

func newIndex() *index { return &index{groups: map[uint64]*group{}} }

func (x *index) group(id uint64) *group {
	g := x.groups[id]
	if g == nil {
		g = &group{cursor: newCursor()}
		x.groups[id] = g
	}
	return g
}

// apply carries out a change whose record starts at body in a segment, and
// folds it into what the segment does.
func (x *index) apply(c *change, seg *segment, body uint32) error {
	if err := seg.fold.add(c, body); err != nil {
		return err
	}
	if c.kind == kindCheckpoint {
		return nil // it says what is known
	}
	g := x.group(c.group)
	switch c.kind {
	case kindAppend:
		if c.hasHard {
			g.hard = c.hard
		}
		if len(c.entries) == 0 {
			break
		}
		g.push(c.index, seg, &seg.fold.groups[c.group].tail)
		for i := range c.entries {
			g.types.push(c.index+uint64(i), uint64(c.entries[i].typ))
		}
		g.append(c.entries)
	case kindRelocated:
		moved := seg.fold.groups[c.group].moved
		s := moved[len(moved)-1]
		if from, to := max(s.base, g.first), min(s.end(), g.last+1); from < to {
			g.move(seg, s, from, to, g.last+1)
		}
	case kindTruncateFrom:
		g.cutSpans(c.index)
		g.types.cutFrom(c.index)
		g.truncateFrom(c.index)
	case kindTruncateBefore:
		g.cutBefore(c.index, c.term)
	case kindReset:
		g.spans, g.types = nil, nil
		g.reset(c.index, c.term)
	case kindStable:
		if c.removed {
			delete(g.stable, c.name)
			break
		}
		if g.stable == nil {
			g.stable = map[string][]byte{}
		}
		g.stable[c.name] = bytes.Clone(c.value)
	}
	return nil
}

func (g *group) cutBefore(index, prevTerm uint64) {
	if index > g.last {
		g.types, g.spans = nil, nil
	} else {
		g.types.cutBefore(index)
		g.dropSpans(index)
	}
	g.truncateBefore(index, prevTerm)
}

// rebuild collects the folds of all segments, in order, into an index.
type rebuild struct {
	*index
	// partial: there are records before the floor, and the checkpoint that
	// stands for them lies in a later segment, so it is not known where a group
	// begins and ends.
	partial bool
	near    uint64
}

// add takes in the next segment. whole is set if it holds the checkpoint that
// the manifest names.
func (r *rebuild) add(seg *segment, whole bool) error {
	if whole {
		r.partial = false
	}
	for _, id := range slices.Sorted(maps.Keys(seg.fold.groups)) {
		f := seg.fold.groups[id]
		g := r.group(id)
		if f.cut != math.MaxUint64 {
			if !r.partial && !whole && f.cut != 0 && (f.cut > g.last+1 || f.cut < g.first) {
				return fmt.Errorf("entries from %d on contradict a log of %d to %d in group %d", f.cut, g.first, g.last, id)
			}
			g.cutSpans(f.cut)
		}
		for _, s := range f.moved {
			g.move(seg, s, s.base, s.end(), math.MaxUint64)
		}
		if f.tail.count > 0 {
			g.push(f.tail.base, seg, &f.tail)
		}
		if f.hasFirst {
			g.first, g.prevTerm = f.first, f.prevTerm
		}
		if f.hasLast {
			g.last = f.last
		}
		if f.hasHard {
			g.hard = f.hard
		} else if f.hasCommit {
			g.hard.Commit = f.hard.Commit
		}
		if f.whole {
			g.stable = nil
		}
		for name, value := range f.stable {
			if value == nil {
				delete(g.stable, name)
				continue
			}
			if g.stable == nil {
				g.stable = map[string][]byte{}
			}
			g.stable[name] = value
		}
	}
	if seg.fold.near != 0 {
		r.near = seg.fold.near
	}
	return nil
}

// finish verifies that every entry is there, and collects their terms.
func (r *rebuild) finish() error {
	for _, id := range slices.Sorted(maps.Keys(r.groups)) {
		g := r.groups[id]
		if g.last+1 < g.first {
			return fmt.Errorf("group %d begins at %d and ends at %d", id, g.first, g.last)
		}
		g.cutSpans(g.last + 1)
		if g.empty() {
			g.spans = nil
			continue
		}
		g.dropSpans(g.first)
		next := g.first
		for i, s := range g.spans {
			end := g.last + 1
			if i+1 < len(g.spans) {
				end = g.spans[i+1].first
			}
			if s.first != next || s.entries.base > s.first || s.entries.end() < end {
				return fmt.Errorf("entries %d to %d of group %d are missing", next, g.last, id)
			}
			g.terms.copyRange(s.entries.terms, s.first, end)
			g.types.copyRange(s.entries.types, s.first, end)
			next = end
		}
		if next != g.last+1 {
			return fmt.Errorf("entries %d to %d of group %d are missing", next, g.last, id)
		}
	}
	return nil
}

// checkpointSize is the most that a checkpoint may take.
func (x *index) checkpointSize() int64 {
	n := int64(64)
	for _, g := range x.groups {
		n += 9 * binary.MaxVarintLen64
		for name, value := range g.stable {
			n += int64(2*binary.MaxVarintLen32 + len(name) + len(value))
		}
	}
	return n
}

// oldest is the ordinal of the oldest segment that holds a live entry, or
// MaxUint32 if none does.
func (x *index) oldest() uint32 {
	oldest := uint32(math.MaxUint32)
	for _, g := range x.groups {
		if !g.empty() {
			oldest = min(oldest, g.oldest())
		}
	}
	return oldest
}
