package kv

// scratch is what a batch needs besides what it leaves behind. It is kept from one
// batch to the next: with 256 small changes to a batch, growing it anew was half of
// what a change allocates.
type scratch struct {
	changes  map[string]*change
	slab     []change // of the changes
	used     int
	told     []Mutation
	outcomes []outcome
}

// maxScratch is how many changes a batch may have for its scratch to be kept: a
// larger one takes longer to clear than to make, for a small batch that follows.
const maxScratch = 1024

// newBatch begins a batch, which is to be released. The caller holds writing.
func (s *DB) newBatch(g *machine) *batch {
	k := s.scratch
	if s.scratch = nil; k == nil {
		k = &scratch{changes: map[string]*change{}}
	}
	return &batch{store: s, group: g, indexes: g.indexes, revision: g.revision, changes: k.changes, scratch: k, told: k.told[:0], claims: map[string]string{}, numbers: g.numbers}
}

// release gives the scratch back, which holds on to nothing.
func (b *batch) release() {
	k := b.scratch
	if k == nil || len(b.changes) > maxScratch || k.used > maxScratch || cap(b.told) > maxScratch {
		return
	}
	clear(k.changes)
	clear(k.slab[:min(k.used, len(k.slab))])
	clear(k.outcomes)
	clear(b.told[:cap(b.told)]) // what was undone is behind its end
	k.used, k.told = 0, b.told
	b.store.scratch, b.scratch, b.changes, b.told = k, nil, nil, nil
}

// place returns memory for a change.
func (k *scratch) place() *change {
	if k.used == len(k.slab) { // those before stay where they are
		k.slab, k.used = make([]change, min(max(1, 2*len(k.slab)), maxScratch)), 0
	}
	k.used++
	return &k.slab[k.used-1]
}
