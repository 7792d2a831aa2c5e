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

// run says that all indexes from from on have a value, up to the next run.
type run struct{ from, value uint64 }

// runs maps indexes to terms, or to types: both hardly ever change, so a run
// of 16 bytes stands for thousands of entries.
type runs []run

func (r runs) at(index uint64) uint64 {
	i := sort.Search(len(r), func(i int) bool { return r[i].from > index })
	return r[i-1].value
}

func (r *runs) push(index, value uint64) {
	if n := len(*r); n == 0 || (*r)[n-1].value != value {
		*r = append(*r, run{index, value})
	}
}

func (r *runs) cutFrom(index uint64) {
	n := len(*r)
	for n > 0 && (*r)[n-1].from >= index {
		n--
	}
	*r = (*r)[:n]
}

func (r *runs) cutBefore(index uint64) {
	i := sort.Search(len(*r), func(i int) bool { return (*r)[i].from > index })
	if i > 1 {
		*r = slices.Delete(*r, 0, i-1)
	}
	if i > 0 {
		(*r)[0].from = index
	}
}

// locator is where the data of one entry lies: 16 bytes of memory per entry.
type locator struct {
	ordinal uint32 // of the segment, counted since the open
	offset  uint32
	size    uint32
	crc     uint32
}

// pageEntries locators make a page of 8 KiB. Memory is given back a page at a
// time; the last page of a group grows as a slice does, so that ten thousand
// small groups do not hold ten thousand pages.
const pageEntries = 512

// pages holds the locators of consecutive indexes from base on.
type pages struct {
	base  uint64
	pages [][]locator
}

func (p *pages) at(index uint64) locator {
	i := index - p.base
	return p.pages[i/pageEntries][i%pageEntries]
}

func (p *pages) push(l locator) {
	n := len(p.pages)
	if n == 0 || len(p.pages[n-1]) == pageEntries {
		p.pages = append(p.pages, nil)
		n++
	}
	p.pages[n-1] = append(p.pages[n-1], l)
}

func (p *pages) cutFrom(index uint64) {
	i := index - p.base
	n := int((i + pageEntries - 1) / pageEntries)
	clear(p.pages[n:])
	p.pages = p.pages[:n]
	if i%pageEntries != 0 {
		p.pages[n-1] = p.pages[n-1][:i%pageEntries]
	}
}

func (p *pages) cutBefore(index uint64) {
	n := (index - p.base) / pageEntries
	p.pages = slices.Delete(p.pages, 0, int(n))
	p.base += n * pageEntries
}

func (p *pages) reset(base uint64) { *p = pages{base: base} }

// cursor is what a change to a group is checked against: everything that is
// known of the group but where its entries are. There is one for what is
// staged and one for what is durable.
type cursor struct {
	first, last uint64
	prevTerm    uint64
	terms       runs
	hard        messages.HardState
	// overwritten is the lowest index that the open batch has written or
	// removed, in a cursor of what is staged: from there on the durable index
	// does not say where the entries are.
	overwritten uint64
}

func newCursor() cursor { return cursor{first: 1, overwritten: math.MaxUint64} }

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
	c.overwritten = min(c.overwritten, c.last+1)
	for i := range entries {
		c.terms.push(c.last+1, entries[i].term)
		c.last++
	}
}

func (c *cursor) truncateFrom(index uint64) {
	c.overwritten = min(c.overwritten, index)
	c.terms.cutFrom(index)
	c.last = index - 1
}

func (c *cursor) truncateBefore(index, prevTerm uint64) {
	if c.terms.cutBefore(index); index > c.last {
		c.terms = nil
	}
	c.first, c.prevTerm = index, prevTerm
}

func (c *cursor) reset(index, term uint64) {
	c.overwritten = 0
	c.first, c.last, c.prevTerm, c.terms = index+1, index, term, nil
	c.hard.Commit = index
}

func (c *cursor) clone() *cursor {
	d := *c
	d.terms = slices.Clone(c.terms)
	d.overwritten = math.MaxUint64
	return &d
}

func (c *cursor) bounds() messages.LogBounds {
	return messages.LogBounds{First: c.first, Last: c.last, PrevTerm: c.prevTerm, LastTerm: c.lastTerm(), HardState: c.hard}
}

// group is the durable state of one group.
type group struct {
	cursor
	types  runs
	data   pages
	stable map[string][]byte
	// partial: the log's front is gone and no checkpoint has been read yet, so
	// it is not known where this group begins and ends. Only while a log is
	// being recovered.
	partial bool
}

// index is the durable state of all groups, as the records up to durable have
// made it.
type index struct {
	groups  map[uint64]*group
	durable uint64
	// partial: see group. It ends with the record at whole, which must be a
	// checkpoint. Those before it speak of entries that were removed after it.
	partial bool
	whole   uint64
	// near is the Raft index that was appended last, to say what damage is
	// near to.
	near uint64
}

func newIndex(whole uint64) *index {
	return &index{groups: map[uint64]*group{}, partial: whole != 0, whole: whole}
}

func (x *index) group(id uint64) *group {
	g := x.groups[id]
	if g == nil {
		g = &group{cursor: newCursor(), partial: x.partial}
		g.data.reset(1)
		x.groups[id] = g
	}
	return g
}

// apply carries out the change in the record at a wal index, which starts at
// an offset of a segment. An error means that the record contradicts those
// before it.
func (x *index) apply(c *change, at uint64, ordinal, offset uint32) error {
	if at == x.whole && c.kind != kindCheckpoint {
		return fmt.Errorf("%s where the manifest says that a checkpoint is", c.kind)
	}
	if c.kind == kindCheckpoint {
		if !x.partial || at == x.whole {
			if err := x.checkpoint(c); err != nil {
				return err
			}
		}
		x.durable = at
		return nil
	}
	g := x.group(c.group)
	contradiction := func() error {
		return fmt.Errorf("%s %d contradicts a log of %d to %d in group %d", c.kind, c.index, g.first, g.last, c.group)
	}
	switch c.kind {
	case kindAppend:
		if c.hasHard {
			g.hard = c.hard
		}
		if len(c.entries) == 0 {
			break
		}
		if g.partial {
			g.partial = false
			g.restart(c.index)
		}
		if c.index != g.last+1 || c.entries[0].term < g.lastTerm() {
			return contradiction()
		}
		i := c.index
		for k := range c.entries {
			e := &c.entries[k]
			g.types.push(i, uint64(e.typ))
			g.data.push(locator{ordinal: ordinal, offset: offset + e.off, size: e.size, crc: e.crc})
			i++
		}
		g.append(c.entries)
		x.near = g.last
	case kindTruncateFrom:
		if g.partial || x.partial && c.index < g.first {
			g.partial = false
			g.restart(c.index)
			break
		}
		if c.index < g.first || c.index > g.last {
			return contradiction()
		}
		g.types.cutFrom(c.index)
		g.data.cutFrom(c.index)
		g.truncateFrom(c.index)
	case kindTruncateBefore:
		if g.partial || x.partial && c.index <= g.first {
			break // the checkpoint that follows says where the group begins
		}
		if c.index <= g.first || c.index > g.last+1 || !x.partial && g.term(c.index-1) != c.term {
			return contradiction()
		}
		g.cutBefore(c.index, c.term)
	case kindReset:
		g.partial = false
		g.reset(c.index, c.term)
		g.types = nil
		g.data.reset(c.index + 1)
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
	x.durable = at
	return nil
}

// restart makes an empty log that goes on at first.
func (g *group) restart(first uint64) {
	g.first, g.last, g.prevTerm, g.terms, g.types = first, first-1, 0, nil, nil
	g.data.reset(first)
}

func (g *group) cutBefore(index, prevTerm uint64) {
	if index > g.last {
		g.types = nil
		g.data.reset(index)
	} else {
		g.types.cutBefore(index)
		g.data.cutBefore(index)
	}
	g.truncateBefore(index, prevTerm)
}

// checkpoint compares the state with a checkpoint, or takes over from it what
// was in records that are gone.
func (x *index) checkpoint(c *change) error {
	if !x.partial {
		if have := x.metadata(); !slices.EqualFunc(have, c.groups, sameMeta) {
			return fmt.Errorf("checkpoint contradicts the records before it")
		}
		return nil
	}
	known := make(map[uint64]bool, len(c.groups))
	for i := range c.groups {
		m := &c.groups[i]
		known[m.group] = true
		g := x.group(m.group)
		last := m.first + m.count - 1
		switch {
		case g.partial && m.count == 0:
			g.restart(m.first)
		case g.partial, g.last != last, g.first > m.first:
			return fmt.Errorf("entries %d to %d of group %d are missing before the checkpoint", m.first, last, m.group)
		case g.first < m.first:
			g.cutBefore(m.first, m.prevTerm)
		}
		g.partial = false
		g.prevTerm, g.hard = m.prevTerm, m.hard
		if g.lastTerm() != m.lastTerm {
			return fmt.Errorf("checkpoint has term %d at the end of group %d, which has %d", m.lastTerm, m.group, g.lastTerm())
		}
		g.stable = make(map[string][]byte, len(m.stableNames))
		for j, name := range m.stableNames {
			g.stable[name] = bytes.Clone(m.stableValues[j])
		}
	}
	for id := range x.groups {
		if !known[id] {
			return fmt.Errorf("checkpoint lacks group %d", id)
		}
	}
	x.partial = false
	return nil
}

// metadata is what a checkpoint holds.
func (x *index) metadata() []groupMeta {
	ids := slices.Sorted(maps.Keys(x.groups))
	metas := make([]groupMeta, 0, len(ids))
	for _, id := range ids {
		g := x.groups[id]
		m := groupMeta{group: id, first: g.first, count: g.last + 1 - g.first, prevTerm: g.prevTerm,
			lastTerm: g.lastTerm(), hard: g.hard, stableNames: slices.Sorted(maps.Keys(g.stable))}
		for _, name := range m.stableNames {
			m.stableValues = append(m.stableValues, g.stable[name])
		}
		metas = append(metas, m)
	}
	return metas
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

func sameMeta(a, b groupMeta) bool {
	return a.group == b.group && a.first == b.first && a.count == b.count && a.prevTerm == b.prevTerm &&
		a.lastTerm == b.lastTerm && a.hard == b.hard && slices.Equal(a.stableNames, b.stableNames) &&
		slices.EqualFunc(a.stableValues, b.stableValues, func(p, q []byte) bool { return string(p) == string(q) })
}

// oldest is the ordinal of the first segment that holds a live entry, or
// MaxUint32 if none does. Entries lie in the order of their indexes, so the
// first one of each group decides.
func (x *index) oldest() uint32 {
	oldest := uint32(math.MaxUint32)
	for _, g := range x.groups {
		if !g.empty() {
			oldest = min(oldest, g.data.at(g.first).ordinal)
		}
	}
	return oldest
}
