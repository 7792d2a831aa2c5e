package log

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// fold is what the records of one segment do, taken together: it needs nothing
// but those records, so a summary can always be rebuilt from its segment, byte
// for byte. All values are absolute.
type fold struct {
	groups map[uint64]*groupFold
	// near is the Raft index that was appended last, to say what damage is
	// near to.
	near uint64
	// damaged: there are entries that were damaged when they were moved here.
	// Known only where the records were read.
	damaged bool
}

// groupFold is what the records of one segment do to one group.
type groupFold struct {
	// cut: entries of earlier segments with an index ≥ cut are gone.
	// MaxUint64 if none are.
	cut uint64
	// hasFirst: the log begins at first, after an entry of prevTerm.
	hasFirst        bool
	first, prevTerm uint64
	// hasLast: it ends at last, of lastTerm unless that is zero.
	hasLast bool
	last    uint64
	// hasHard: the hard state is hard; otherwise, with hasCommit, its Commit
	// is hard.Commit.
	hasHard, hasCommit bool
	hard               messages.HardState
	// tail are the entries of this segment at the end of the log, moved those
	// that were copied here from older ones.
	tail  stretch
	moved []*stretch
	// whole: stable is all there is, not only what was changed. A nil value
	// removes a name.
	whole  bool
	stable map[string][]byte
}

func newFold() *fold { return &fold{groups: map[uint64]*groupFold{}} }

func (f *fold) group(id uint64) *groupFold {
	g := f.groups[id]
	if g == nil {
		g = &groupFold{cut: math.MaxUint64}
		f.groups[id] = g
	}
	return g
}

// add folds a change in whose record starts at body in the segment. An error
// means that it contradicts those before it.
func (f *fold) add(c *change, body uint32) error {
	if c.kind == kindCheckpoint {
		return f.checkpoint(c)
	}
	g := f.group(c.group)
	contradiction := func() error {
		return fmt.Errorf("%s %d contradicts the records before it in group %d", c.kind, c.index, c.group)
	}
	switch c.kind {
	case kindAppend:
		if c.hasHard {
			g.hasHard, g.hard = true, c.hard
		}
		if len(c.entries) == 0 {
			break
		}
		if g.hasLast && c.index != g.last+1 {
			return contradiction()
		}
		if g.tail.count == 0 {
			g.tail.restart(c.index)
			g.cut = min(g.cut, c.index)
		}
		g.tail.add(c, body)
		g.hasLast, g.last = true, c.last()
		f.near = g.last
	case kindRelocated:
		f.damaged = f.damaged || c.damaged
		s := &stretch{base: c.index}
		s.add(c, body)
		g.moved = append(g.moved, s)
	case kindTruncateFrom:
		if g.hasLast && c.index > g.last || g.hasFirst && c.index < g.first {
			return contradiction()
		}
		g.cutFrom(c.index)
		g.hasLast, g.last = true, c.index-1
	case kindTruncateBefore:
		if g.hasFirst && c.index <= g.first || g.hasLast && c.index > g.last+1 {
			return contradiction()
		}
		g.hasFirst, g.first, g.prevTerm = true, c.index, c.term
	case kindReset:
		g.cutFrom(0)
		g.hasFirst, g.first, g.prevTerm = true, c.index+1, c.term
		g.hasLast, g.last = true, c.index
		g.hasCommit, g.hard.Commit = true, c.index
	case kindStable:
		if g.stable == nil {
			g.stable = map[string][]byte{}
		}
		if g.stable[c.name] = nil; !c.removed {
			g.stable[c.name] = append([]byte{}, c.value...)
		} else if g.whole {
			delete(g.stable, c.name)
		}
	}
	return nil
}

func (s *stretch) add(c *change, body uint32) {
	for i := range c.entries {
		e := &c.entries[i]
		s.push(locator{offset: body + e.off, size: e.size, crc: e.crc}, e.term, uint64(e.typ))
		s.around -= uint64(e.size)
	}
	last := &c.entries[len(c.entries)-1]
	s.around += uint64(last.off) + uint64(last.size)
}

func (g *groupFold) cutFrom(index uint64) {
	g.cut = min(g.cut, index)
	g.tail.cutFrom(index)
	g.moved = slices.DeleteFunc(g.moved, func(s *stretch) bool {
		s.cutFrom(index)
		return s.count == 0
	})
}

// checkpoint takes over the state of every group.
func (f *fold) checkpoint(c *change) error {
	for i := range c.groups {
		m := &c.groups[i]
		g := f.group(m.group)
		last := m.first + m.count - 1
		if g.hasFirst && g.first > m.first || g.hasLast && g.last != last {
			return fmt.Errorf("checkpoint contradicts the records before it in group %d", m.group)
		}
		g.hasFirst, g.first, g.prevTerm = true, m.first, m.prevTerm
		g.hasLast, g.last = true, last
		g.hasHard, g.hard = true, m.hard
		g.whole, g.stable = true, make(map[string][]byte, len(m.stableNames))
		for j, name := range m.stableNames {
			g.stable[name] = bytes.Clone(m.stableValues[j])
		}
	}
	return nil
}

// stretches lists the entries in the order of a summary.
func (g *groupFold) stretches() []*stretch {
	var all []*stretch
	if g.tail.count > 0 {
		all = append(all, &g.tail)
	}
	return append(all, g.moved...)
}
