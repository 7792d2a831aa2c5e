package kv

import "math/bits"

// ordered is a map from keys to values in the order of its keys: a skip list,
// because what views remember is filled and emptied all the time.
type ordered[V any] struct {
	head [orderedLevels]*node[V]
	seed uint64
}

type node[V any] struct {
	key   string
	value V
	next  []*node[V]
}

const (
	orderedLevels = 20
	// nodeBytes is about what a node takes beside its strings: key, value and
	// links, with what the allocator adds.
	nodeBytes = 112
)

// seek fills before with the links that lead to the first node whose key is at
// least key, and returns that node.
func (o *ordered[V]) seek(key string, before *[orderedLevels]*[]*node[V]) *node[V] {
	head := o.head[:]
	links := &head
	for level := orderedLevels - 1; level >= 0; level-- {
		for n := (*links)[level]; n != nil && n.key < key; n = (*links)[level] {
			links = &n.next
		}
		if before != nil {
			before[level] = links
		}
	}
	return (*links)[0]
}

// below returns the last node whose key is below key.
func (o *ordered[V]) below(key string) (last *node[V]) {
	links := o.head[:]
	for level := orderedLevels - 1; level >= 0; level-- {
		for n := links[level]; n != nil && n.key < key; n = links[level] {
			links, last = n.next, n
		}
	}
	return last
}

// at returns the node of a key, which is added if there is none.
func (o *ordered[V]) at(key string) (n *node[V], added bool) {
	var before [orderedLevels]*[]*node[V]
	if n := o.seek(key, &before); n != nil && n.key == key {
		return n, false
	}
	// splitmix64: the height needs no better randomness, and is the same in
	// every run.
	o.seed += 0x9e3779b97f4a7c15
	r := o.seed
	r = (r ^ r>>30) * 0xbf58476d1ce4e5b9
	r = (r ^ r>>27) * 0x94d049bb133111eb
	height := min(1+bits.TrailingZeros64(r^r>>31)/2, orderedLevels)
	n = &node[V]{key: key, next: make([]*node[V], height)}
	for level := range n.next {
		n.next[level] = (*before[level])[level]
		(*before[level])[level] = n
	}
	return n, true
}

// remove takes a node out.
func (o *ordered[V]) remove(n *node[V]) {
	var before [orderedLevels]*[]*node[V]
	o.seek(n.key, &before)
	for level := range n.next {
		(*before[level])[level] = n.next[level]
	}
}

// removeFirst takes the first node out.
func (o *ordered[V]) removeFirst() { copy(o.head[:], o.head[0].next) }

// each returns the nodes with keys in [lower, upper) one by one, then nil.
func (o *ordered[V]) each(lower, upper string, reverse bool) func() *node[V] {
	if reverse {
		key := upper
		return func() *node[V] {
			n := o.below(key)
			if n == nil || n.key < lower {
				return nil
			}
			key = n.key
			return n
		}
	}
	next := o.seek(lower, nil)
	return func() *node[V] {
		n := next
		if n == nil || n.key >= upper {
			return nil
		}
		next = n.next[0]
		return n
	}
}
