package kv

import (
	"container/heap"
	"fmt"
	"sort"
	"sync"

	"github.com/ballast-raft/ballast/messages"
)

// Mutation is what one revision did to one key. Its strings are those of the store,
// not copies.
type Mutation struct {
	Revision uint64
	Key      string
	set, was string // stored: with their versions; empty if there is nothing
}

// Value is what the key has now. It is false if the key was removed.
func (c *Mutation) Value() (value string, ok bool) {
	_, value = valueOf(c.set)
	return value, c.set != ""
}

// Previous is what the key had before, and its version; zero if it had nothing.
func (c *Mutation) Previous() (value string, version uint64) {
	version, value = valueOf(c.was)
	return value, version
}

// changeBytes is about what a change takes beside its strings.
const changeBytes = 56

func (c *Mutation) bytes() int64 { return int64(len(c.Key)+len(c.set)+len(c.was)) + changeBytes }

// changes remembers what happened since the store was opened, within bounds. It
// is one memory for all groups: when it is full, the group that takes the most
// gives up its oldest revision, so that a busy group cannot push out what little
// happens in the others.
type changes struct {
	mu        sync.Mutex
	maxBytes  int64
	revisions int // the most that are kept of each group
	bytes     int64
	groups    map[uint64]*groupChanges
	largest   largest
}

// groupChanges are those of one group, oldest first.
type groupChanges struct {
	// after: what came after this revision is in list, up to revision.
	after, revision uint64
	list            []Mutation // from head on
	head            int
	revisions       int // in list
	bytes           int64
	place           int // in the heap
}

func newChanges(o Options) *changes {
	return &changes{maxBytes: o.HistoryBytes, revisions: o.HistoryRevisions, groups: map[uint64]*groupChanges{}}
}

// note adds the changes of a batch, which are in order and go from one revision to
// another.
func (cs *changes) note(group, before, revision uint64, batch []Mutation) {
	if revision == before {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	g := cs.groups[group]
	if g == nil {
		g = cs.reset(group, before)
	}
	g.revision = revision
	bytes := g.bytes
	for len(batch) > 0 {
		n := 1
		for n < len(batch) && batch[n].Revision == batch[0].Revision {
			n++
		}
		from := len(g.list)
		g.list = appendRevision(g.list, batch[:n])
		if len(g.list) > from {
			g.revisions++
		}
		for i := range g.list[from:] {
			g.bytes += g.list[from+i].bytes()
		}
		batch = batch[n:]
	}
	cs.bytes += g.bytes - bytes
	heap.Fix(&cs.largest, g.place)
}

// appendRevision adds the changes of one revision, of several to one key the
// outcome.
func appendRevision(list, revision []Mutation) []Mutation {
	if len(revision) == 1 {
		return append(list, revision...)
	}
	from := len(list)
	at := make(map[string]int, len(revision))
	for _, c := range revision {
		if i, ok := at[c.Key]; ok {
			list[i].set = c.set
			continue
		}
		at[c.Key] = len(list)
		list = append(list, c)
	}
	kept := list[:from]
	for _, c := range list[from:] {
		if c.set != "" || c.was != "" {
			kept = append(kept, c)
		}
	}
	clear(list[len(kept):])
	return kept
}

// reset forgets what is known of a group, which is at a revision.
func (cs *changes) reset(group, revision uint64) *groupChanges {
	if g := cs.groups[group]; g != nil {
		cs.bytes -= g.bytes
		heap.Remove(&cs.largest, g.place)
	}
	g := &groupChanges{after: revision, revision: revision}
	cs.groups[group] = g
	heap.Push(&cs.largest, g)
	return g
}

// replaced is called when a group has got other data.
func (cs *changes) replaced(group, revision uint64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.reset(group, revision)
}

// trim forgets the oldest changes, down to the bounds. It is called before a call
// changes a group: what the latest call has changed is always there to be told.
func (cs *changes) trim(group uint64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for cs.bytes > cs.maxBytes {
		cs.forget(cs.largest[0])
	}
	if g := cs.groups[group]; g != nil && cs.revisions > 0 {
		for g.revisions > cs.revisions {
			cs.forget(g)
		}
	}
}

// forget gives up the oldest revision of a group.
func (cs *changes) forget(g *groupChanges) {
	bytes := g.bytes
	g.after = g.list[g.head].Revision
	for g.head < len(g.list) && g.list[g.head].Revision == g.after {
		g.bytes -= g.list[g.head].bytes()
		g.list[g.head] = Mutation{}
		g.head++
	}
	g.revisions--
	if g.head > len(g.list)/2 {
		n := copy(g.list, g.list[g.head:])
		clear(g.list[n:])
		if g.list, g.head = g.list[:n], 0; cap(g.list) > 4*n+64 {
			g.list = append(make([]Mutation, 0, 2*n), g.list...) // a burst is over
		}
	}
	cs.bytes += g.bytes - bytes
	heap.Fix(&cs.largest, g.place)
}

// Changes returns what changed in a group after a revision, in the order in which
// it happened, and up to which revision that is. It looks at no more than limit
// changes, but for the rest of the revision in which it stops. If nothing is known
// to have happened since, upTo is the group's revision, which may be below after.
//
// Changes are known from when the store was opened, or the group imported, within
// Options.HistoryBytes and HistoryRevisions; those of the latest Apply or Write of
// any group in any case. They are told as soon as they can be read, which is
// before they are durable.
//
// The slice is valid until the next Apply or Write, and is not to be changed.
//
// Errors: ErrCompacted (a messages.HistoryError), ErrStopped.
func (s *DB) Changes(group, after uint64, limit int) (list []Mutation, upTo uint64, err error) {
	s.mu.RLock()
	closed := s.closed
	if g := s.groups[group]; g != nil {
		upTo = g.revision
	}
	s.mu.RUnlock()
	if closed {
		return nil, 0, fmt.Errorf("kv: changes: %w", messages.ErrStopped)
	}
	cs := s.changes
	cs.mu.Lock()
	defer cs.mu.Unlock()
	oldest := upTo
	g := cs.groups[group]
	if g != nil {
		oldest, upTo = g.after, g.revision
	}
	if after < oldest {
		return nil, 0, fmt.Errorf("kv: changes: %w", &messages.HistoryError{After: after, Oldest: oldest})
	}
	if g == nil {
		return nil, upTo, nil
	}
	live := g.list[g.head:]
	live = live[sort.Search(len(live), func(i int) bool { return live[i].Revision > after }):]
	n := min(max(limit, 1), len(live))
	for n > 0 && n < len(live) && live[n].Revision == live[n-1].Revision {
		n++
	}
	if n > 0 && n < len(live) {
		upTo = live[n-1].Revision
	}
	return live[:n:n], upTo, nil
}

// largest is a heap of groups, with the one that takes the most bytes first.
type largest []*groupChanges

func (h largest) Len() int           { return len(h) }
func (h largest) Less(i, j int) bool { return h[i].bytes > h[j].bytes }
func (h largest) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *largest) Push(x any) {
	g := x.(*groupChanges)
	g.place = len(*h)
	*h = append(*h, g)
}

// Pop implements heap.Interface.
func (h *largest) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return g
}
