package kv

import (
	"cmp"
	"slices"
)

// history is what stored keys of a group were before they changed, for all views
// that are open: each change is noted once, however many there are. It is changed
// under DB.mu by writers, and when a view ends.
type history struct {
	// time counts the changes that were noted.
	time uint64
	keys ordered[[]past]
	// changes has as many places for a node as that has pasts, about in order of
	// their times; the first ones are gone already.
	changes []noted
	gone    int
	bytes   int64
	// views, oldest first. entries begin the keys of the index entries that any
	// of them may ask for; those of other indexes are not noted.
	views   []*view
	entries []string
}

// past is what a key was until a change.
type past struct {
	until   uint64
	stored  string
	existed bool
}

type noted struct {
	until uint64
	node  *node[[]past]
}

// pastBytes is about what a past takes beside its string, with its place in the
// order.
const pastBytes = 56

func (p *past) bytes() int64 { return int64(len(p.stored)) + pastBytes }

// since finds what a key was at a time, if it has changed since.
func since(pasts []past, time uint64) (past, bool) {
	for _, p := range pasts { // there is hardly ever a second one
		if p.until > time {
			return p, true
		}
	}
	return past{}, false
}

func (h *history) find(key string, time uint64) (past, bool) {
	if n := h.keys.seek(key, nil); n != nil && n.key == key {
		return since(n.value, time)
	}
	return past{}, false
}

// changed reports whether a key in [lower, upper) has changed since a time.
func (h *history) changed(lower, upper string, time uint64) bool {
	each := h.keys.each(lower, upper, false)
	for n := each(); n != nil; n = each() {
		if n.value[len(n.value)-1].until > time {
			return true
		}
	}
	return false
}

// note keeps what the keys of a batch are before it.
func (h *history) note(b *batch) {
	if len(h.views) == 0 {
		return
	}
	h.time++
	newest := h.views[len(h.views)-1].time
	for key, c := range b.changes {
		if key[0] != dataSpace && !h.knows(key) {
			continue
		}
		n, added := h.keys.at(key)
		if added {
			h.bytes += nodeBytes + int64(len(key))
		}
		p := past{h.time, c.old, c.existed}
		if i := len(n.value) - 1; i >= 0 {
			if n.value[i].until > newest {
				continue // no view sees what it is now
			}
			if !h.seen(n.value, i) {
				h.bytes += p.bytes() - n.value[i].bytes()
				n.value[i] = p
				continue
			}
		}
		n.value = append(n.value, p)
		h.changes = append(h.changes, noted{h.time, n})
		h.bytes += p.bytes()
	}
}

// seen reports whether a view sees one of the pasts of a key. One that was for a
// view that has ended gives way to the next: else a view that stays open would
// pay for each change made while others come and go, not for each key.
func (h *history) seen(pasts []past, i int) bool {
	from := uint64(0)
	if i > 0 {
		from = pasts[i-1].until
	}
	at, _ := slices.BinarySearchFunc(h.views, from, func(v *view, time uint64) int { return cmp.Compare(v.time, time) })
	return at < len(h.views) && h.views[at].time < pasts[i].until
}

func (h *history) knows(key string) bool {
	for _, prefix := range h.entries {
		if len(key) > len(prefix) && key[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}

// open adds a view of how things are now.
func (h *history) open(v *view) {
	v.time = h.time
	h.views = append(h.views, v)
	for i := range v.indexes {
		x := &v.indexes[i] // one that is being built is not read in the view
		if !x.building && !slices.Contains(h.entries, x.entries) {
			h.entries = append(h.entries, x.entries)
		}
	}
}

// end takes a view out, and forgets what nobody can ask for any more.
func (h *history) end(v *view) {
	for i, o := range h.views {
		if o == v {
			h.views = append(h.views[:i], h.views[i+1:]...)
			break
		}
	}
	if len(h.views) == 0 {
		*h = history{time: h.time}
		return
	}
	for oldest := h.views[0].time; h.gone < len(h.changes) && h.changes[h.gone].until <= oldest; h.gone++ {
		n := h.changes[h.gone].node
		h.changes[h.gone].node = nil
		if until := n.value[0].until; until > oldest { // it has given way
			h.changes = append(h.changes, noted{until, n})
			continue
		}
		h.bytes -= n.value[0].bytes()
		if n.value = n.value[1:]; len(n.value) == 0 {
			h.bytes -= nodeBytes + int64(len(n.key))
			h.keys.remove(n)
		}
	}
	if h.gone > len(h.changes)/2 {
		h.changes = h.changes[:copy(h.changes, h.changes[h.gone:])]
		h.gone = 0
	}
}
