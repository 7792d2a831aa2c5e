package kv

import (
	"maps"
	"slices"

	"github.com/tidwall/buntdb"
)

// source is where stored keys are read: the store as it is, as it was when a view
// was opened, or as a batch leaves it.
type source interface {
	get(key string) (stored string, found bool)
	// walk calls fn for the stored keys in [lower, upper), in order, until it
	// returns false.
	walk(lower, upper string, reverse bool, fn func(key, stored string) bool)
}

// now is the store as it is.
type now struct{ tx *buntdb.Tx }

func (s now) get(key string) (stored string, found bool) {
	stored, err := s.tx.Get(key)
	return stored, err == nil
}

func (s now) walk(lower, upper string, reverse bool, fn func(key, stored string) bool) {
	walk(s.tx, lower, upper, reverse, fn)
}

// replaced is a stored key that has another value than the source below has, or
// none.
type replaced struct {
	key, stored string
	exists      bool
}

// merge walks a source with what next yields put in its place. fn is told of keys
// that do not exist as well.
func merge(base source, lower, upper string, reverse bool, next func() (replaced, bool), fn func(replaced) bool) {
	r, ok := next()
	full := false
	take := func() {
		full = !fn(r)
		r, ok = next()
	}
	base.walk(lower, upper, reverse, func(key, stored string) bool {
		for ok && !full && r.key != key && (r.key < key) != reverse {
			take()
		}
		switch {
		case full:
		case ok && r.key == key:
			take()
		default:
			full = !fn(replaced{key, stored, true})
		}
		return !full
	})
	for ok && !full {
		take()
	}
}

// existing has fn told only of keys that exist.
func existing(fn func(key, stored string) bool) func(replaced) bool {
	return func(r replaced) bool { return !r.exists || fn(r.key, r.stored) }
}

// then is the store as it was at a time.
type then struct {
	now
	history *history
	time    uint64
}

func (s then) get(key string) (stored string, found bool) {
	if p, ok := s.history.find(key, s.time); ok {
		return p.stored, p.existed
	}
	return s.now.get(key)
}

func (s then) walk(lower, upper string, reverse bool, fn func(key, stored string) bool) {
	each := s.history.keys.each(lower, upper, reverse)
	merge(s.now, lower, upper, reverse, func() (r replaced, ok bool) {
		for n := each(); n != nil; n = each() {
			if p, ok := since(n.value, s.time); ok {
				return replaced{n.key, p.stored, p.existed}, true
			}
		}
		return r, false
	}, existing(fn))
}

// get and walk make a batch a source: what it was made over, with its changes.
func (b *batch) get(key string) (stored string, found bool) { return b.lookup(key) }

func (b *batch) walk(lower, upper string, reverse bool, fn func(key, stored string) bool) {
	if len(b.changes) == 0 {
		b.src.walk(lower, upper, reverse, fn)
		return
	}
	if b.sorted == nil {
		b.sorted = slices.Sorted(maps.Keys(b.changes))
	}
	i, _ := slices.BinarySearch(b.sorted, lower)
	j, _ := slices.BinarySearch(b.sorted, upper)
	keys := b.sorted[i:max(i, j)]
	merge(b.src, lower, upper, reverse, func() (r replaced, ok bool) {
		if len(keys) == 0 {
			return r, false
		}
		at := 0
		if reverse {
			at = len(keys) - 1
		}
		key := keys[at]
		if reverse {
			keys = keys[:at]
		} else {
			keys = keys[1:]
		}
		c := b.changes[key]
		return replaced{key, c.value, c.set}, true
	}, existing(fn))
}
