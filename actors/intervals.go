package actors

import "slices"

// intervals finds what is interested in a key, among ranges of keys: a treap by
// the beginnings of the ranges, in which each node knows how far those below it
// reach. Finding k of n costs O(log n + k), adding and removing O(log n). Ranges
// that are equal share a node; single keys are in a map. Values of one range are
// visited in the order in which they were added, ranges in order.
type intervals[T comparable] struct {
	keys map[string][]T
	root *interval[T]
	seed uint64
}

// bound is the end of a range; endless is beyond every key.
type bound struct {
	key     string
	endless bool
}

func (b bound) beyond(key string) bool { return b.endless || key < b.key }

func (b bound) compare(c bound) int {
	switch {
	case b.endless && c.endless:
		return 0
	case b.endless:
		return 1
	case c.endless:
		return -1
	case b.key < c.key:
		return -1
	case b.key > c.key:
		return 1
	}
	return 0
}

// keyRange is from ≤ key < to.
type keyRange struct {
	from string
	to   bound
}

// single is the range of one key.
func single(key string) keyRange { return keyRange{key, bound{key: key + "\x00"}} }

func (r keyRange) isSingle() bool {
	return !r.to.endless && len(r.to.key) == len(r.from)+1 && r.to.key == r.from+"\x00"
}

func (r keyRange) contains(key string) bool { return key >= r.from && r.to.beyond(key) }

func (r keyRange) empty() bool { return !r.to.beyond(r.from) }

func (r keyRange) compare(o keyRange) int {
	switch {
	case r.from < o.from:
		return -1
	case r.from > o.from:
		return 1
	}
	return r.to.compare(o.to)
}

type interval[T comparable] struct {
	keyRange
	values      []T
	priority    uint64 // not below those of its children
	reach       bound  // the farthest end in this tree
	left, right *interval[T]
}

// add puts a value to a range.
func (x *intervals[T]) add(r keyRange, v T) {
	if r.isSingle() {
		if x.keys == nil {
			x.keys = make(map[string][]T)
		}
		x.keys[r.from] = append(x.keys[r.from], v)
		return
	}
	if n := x.find(r); n != nil {
		n.values = append(n.values, v)
		return
	}
	// splitmix64: the shape needs no better randomness, and is the same in every
	// run.
	x.seed += 0x9e3779b97f4a7c15
	p := x.seed
	p = (p ^ p>>30) * 0xbf58476d1ce4e5b9
	p = (p ^ p>>27) * 0x94d049bb133111eb
	x.root = x.root.insert(&interval[T]{keyRange: r, values: []T{v}, priority: p ^ p>>31})
}

// remove takes a value from a range.
func (x *intervals[T]) remove(r keyRange, v T) {
	without := func(values []T) []T {
		if i := slices.Index(values, v); i >= 0 {
			return slices.Delete(values, i, i+1)
		}
		return values
	}
	if r.isSingle() {
		if x.keys[r.from] = without(x.keys[r.from]); len(x.keys[r.from]) == 0 {
			delete(x.keys, r.from)
		}
		return
	}
	n := x.find(r)
	if n == nil {
		return
	}
	if n.values = without(n.values); len(n.values) == 0 {
		x.root = x.root.remove(r)
	}
}

func (x *intervals[T]) find(r keyRange) *interval[T] {
	n := x.root
	for n != nil {
		switch c := r.compare(n.keyRange); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// at calls visit with every value whose range contains key, and returns how many
// ranges it has looked at. visit must not change the intervals.
func (x *intervals[T]) at(key string, visit func(T)) (looked int) {
	for _, v := range x.keys[key] {
		visit(v)
	}
	return x.root.at(key, visit)
}

func (n *interval[T]) at(key string, visit func(T)) (looked int) {
	for ; n != nil && n.reach.beyond(key); n = n.right {
		looked += 1 + n.left.at(key, visit)
		if n.from > key {
			break // and so do all to the right
		}
		if n.to.beyond(key) {
			for _, v := range n.values {
				visit(v)
			}
		}
	}
	return looked
}

// update finds out how far the tree reaches.
func (n *interval[T]) update() *interval[T] {
	n.reach = n.to
	for _, c := range []*interval[T]{n.left, n.right} {
		if c != nil && c.reach.compare(n.reach) > 0 {
			n.reach = c.reach
		}
	}
	return n
}

func (n *interval[T]) insert(m *interval[T]) *interval[T] {
	if n == nil {
		return m.update()
	}
	if m.priority > n.priority {
		m.left, m.right = n.split(m.keyRange)
		return m.update()
	}
	if m.compare(n.keyRange) < 0 {
		n.left = n.left.insert(m)
	} else {
		n.right = n.right.insert(m)
	}
	return n.update()
}

// split divides a tree that does not have r into what is before it and after it.
func (n *interval[T]) split(r keyRange) (before, after *interval[T]) {
	if n == nil {
		return nil, nil
	}
	if n.compare(r) < 0 {
		n.right, after = n.right.split(r)
		return n.update(), after
	}
	before, n.left = n.left.split(r)
	return before, n.update()
}

// remove takes the node of r, which must be there, out of a tree.
func (n *interval[T]) remove(r keyRange) *interval[T] {
	switch c := r.compare(n.keyRange); {
	case c < 0:
		n.left = n.left.remove(r)
	case c > 0:
		n.right = n.right.remove(r)
	default:
		return n.left.join(n.right)
	}
	return n.update()
}

// join makes one tree of two, of which the second is after the first.
func (n *interval[T]) join(m *interval[T]) *interval[T] {
	switch {
	case n == nil:
		return m
	case m == nil:
		return n
	case n.priority > m.priority:
		n.right = n.right.join(m)
		return n.update()
	}
	m.left = n.join(m.left)
	return m.update()
}
