package kv

import "math/bits"

// overlay holds what keys were before they changed: an ordered map (a skip
// list) that is filled by the writer and emptied from the front by its reader.
type overlay struct {
	head  [overlayLevels]*overlayNode
	seed  uint64
	bytes int64
}

type overlayNode struct {
	key, old string
	existed  bool
	next     []*overlayNode
}

const (
	overlayLevels = 20
	// overlayNodeBytes is about what a node takes beside its strings.
	overlayNodeBytes = 112
)

func (n *overlayNode) bytes() int64 { return int64(len(n.key)+len(n.old)) + overlayNodeBytes }

// seek fills before with the links that lead to the first node whose key is at
// least key, and returns that node.
func (o *overlay) seek(key string, before *[overlayLevels]*[]*overlayNode) *overlayNode {
	head := o.head[:]
	links := &head
	for level := overlayLevels - 1; level >= 0; level-- {
		for n := (*links)[level]; n != nil && n.key < key; n = (*links)[level] {
			links = &n.next
		}
		if before != nil {
			before[level] = links
		}
	}
	return (*links)[0]
}

// keep notes what key was, unless that is known already.
func (o *overlay) keep(key, old string, existed bool) {
	var before [overlayLevels]*[]*overlayNode
	if n := o.seek(key, &before); n != nil && n.key == key {
		return
	}
	// splitmix64: the height needs no better randomness, and is the same in
	// every run.
	o.seed += 0x9e3779b97f4a7c15
	r := o.seed
	r = (r ^ r>>30) * 0xbf58476d1ce4e5b9
	r = (r ^ r>>27) * 0x94d049bb133111eb
	height := min(1+bits.TrailingZeros64(r^r>>31)/2, overlayLevels)
	n := &overlayNode{key: key, old: old, existed: existed, next: make([]*overlayNode, height)}
	for level := range n.next {
		n.next[level] = (*before[level])[level]
		(*before[level])[level] = n
	}
	o.bytes += n.bytes()
}

// dropBefore forgets the keys before key.
func (o *overlay) dropBefore(key string) {
	for n := o.head[0]; n != nil && n.key < key; n = o.head[0] {
		copy(o.head[:], n.next)
		o.bytes -= n.bytes()
	}
}
