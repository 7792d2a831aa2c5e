package kv

import "slices"

// upkeep is what a change of one pair means for the indexes, before any of it
// is done.
type upkeep struct {
	removes, sets []entry
	// freed are the indexes in which the old value was skipped.
	freed []int
}

// reindex changes the entries of a pair whose value changes from old to new; nil
// is none. If the new value is refused, nothing is changed.
func (b *batch) reindex(key string, old, new *string) error {
	if len(b.indexes) == 0 {
		return nil
	}
	var was, is value
	if old != nil {
		was.text = *old
	}
	if new != nil {
		is.text = *new
	}
	var (
		u                      upkeep
		setsBuffer, wereBuffer [4]entry
	)
	for i := range b.indexes {
		x := &b.indexes[i]
		if !x.covers(key) {
			continue
		}
		sets := setsBuffer[:0]
		if new != nil {
			var err error
			// The refusal must not depend on how far the index is.
			if sets, err = x.appendEntries(sets, key, &is); err != nil {
				return err
			}
		}
		if !x.reached(key) {
			continue
		}
		removes := wereBuffer[:0]
		if old != nil {
			if x.skipped == 0 && x.Func == "" {
				was.validated, was.document = true, true // or it would be counted
			}
			var err error
			if removes, err = x.appendEntries(removes, key, &was); err != nil {
				u.freed = append(u.freed, i)
			}
		}
		for _, e := range removes {
			if !slices.Contains(sets, e) {
				u.removes = append(u.removes, e)
			}
		}
		for _, e := range sets {
			if slices.Contains(removes, e) {
				continue
			}
			if err := b.vacant(x, e, key); err != nil {
				return err
			}
			u.sets = append(u.sets, e)
		}
	}
	for _, e := range u.removes {
		b.removeEntry(e)
	}
	for _, e := range u.sets {
		b.setEntry(e, key)
	}
	if len(u.freed) > 0 {
		b.indexes = slices.Clone(b.indexes)
		for _, i := range u.freed {
			b.indexes[i].skipped -= min(1, b.indexes[i].skipped)
			b.describe(&b.indexes[i])
		}
	}
	return nil
}

// setEntry and removeEntry change index entries. An entry is in the store
// exactly if its pair is, so there is nothing to look up.
func (b *batch) setEntry(e entry, key string) {
	b.claim(e, key)
	if c, ok := b.changes[e.key]; ok && !c.set {
		b.touch(e.key)
		b.sorted = nil
		delete(b.changes, e.key)
		return
	}
	b.set(e.key, "", "", false)
}

func (b *batch) removeEntry(e entry) {
	b.disclaim(e)
	b.remove(e.key, "", true)
}

// describe notes the state of an index.
func (b *batch) describe(x *index) {
	stored := b.group.definitions + x.Name
	old, had := b.lookup(stored)
	b.set(stored, x.stored(), old, had)
}
