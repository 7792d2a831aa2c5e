package kv

import (
	"fmt"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// contest is that a transaction gives a pair what another one has, and only one
// may have in a unique index. It is no failure yet: the other may give it up, as
// when two pairs swap their values. What counts is how the transaction ends.
type contest struct {
	operation         int
	index, key, tuple string
}

// vacant returns a NotUniqueError if another pair has what an entry of key must
// have alone. In a transaction it is noted, for settleContests; in one that is open
// it is not asked at all: its writes are all carried out when it is committed.
func (b *batch) vacant(x *index, e entry, key string) error {
	if e.tuple == 0 || b.open() {
		return nil
	}
	tuple := e.key[:e.tuple]
	other, claimed := b.claims[tuple]
	if !claimed {
		b.src.walk(tuple, successor(tuple), false, func(stored, _ string) bool {
			other = stored[len(tuple):]
			return false
		})
	}
	if other == "" || other == key {
		return nil
	}
	if b.inTxn {
		if b.rivals == nil {
			b.rivals = map[string][]string{}
		}
		b.rivals[tuple] = append(b.rivals[tuple], other)
		b.contests = append(b.contests, contest{b.operation, x.Name, key, tuple})
		return nil
	}
	return &messages.NotUniqueError{Index: x.Name, Key: []byte(key), Other: []byte(other)}
}

// claim notes who has what only one may have; "" is nobody.
func (b *batch) claim(e entry, key string) {
	if e.tuple == 0 || b.open() {
		return
	}
	if b.claims == nil {
		b.claims = map[string]string{}
	}
	tuple := e.key[:e.tuple]
	if b.inTxn {
		before, had := b.claims[tuple]
		b.undo = append(b.undo, func() {
			if had {
				b.claims[tuple] = before
			} else {
				delete(b.claims, tuple)
			}
		})
	}
	b.claims[tuple] = key
}

// disclaim notes that the pair of an entry gives up what only one may have. In the
// middle of a transaction there may be others that have it: the latest of them has
// it now.
func (b *batch) disclaim(e entry) {
	tuple, key := e.key[:e.tuple], e.key[e.tuple:]
	rivals := b.rivals[tuple]
	if len(rivals) == 0 {
		b.claim(e, "")
		return
	}
	last := len(rivals) - 1
	if at := slices.Index(rivals, key); at >= 0 {
		b.rivals[tuple] = slices.Delete(rivals, at, at+1)
		return
	}
	b.claim(e, rivals[last])
	b.rivals[tuple] = rivals[:last]
}

// settleContests fails a transaction at whose end two pairs have what only one may
// have, with the first of its operations that gave it to one of them. That depends
// on the state and the transaction alone: a unique index is always whole.
func (b *batch) settleContests() (operation int, err error) {
	for _, c := range b.contests {
		rivals := b.rivals[c.tuple]
		if len(rivals) == 0 {
			continue
		}
		other := b.claims[c.tuple]
		if other == c.key {
			other = rivals[0]
		} else if !slices.Contains(rivals, c.key) {
			continue // it was given another value since
		}
		return c.operation, fmt.Errorf("kv: %w", &messages.NotUniqueError{Index: c.index, Key: []byte(c.key), Other: []byte(other)})
	}
	return 0, nil
}
