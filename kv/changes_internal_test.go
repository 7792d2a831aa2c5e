package kv

import (
	"fmt"
	"testing"
)

// Of several changes to one key in one revision the outcome is told, and nothing
// of a key that ends as it began: without a pair.
func TestOneRevision(t *testing.T) {
	cs := newChanges(Options{HistoryBytes: 1 << 20})
	cs.note(1, 0, 2, []Mutation{
		{1, "a", "a1", ""},
		{2, "b", "b1", ""}, {2, "a", "", "a1"}, {2, "c", "c1", ""}, {2, "b", "b2", "b1"}, {2, "c", "", "c1"}, {2, "a", "a2", ""},
	})
	cs.note(1, 2, 3, []Mutation{{3, "x", "x", ""}, {3, "x", "", "x"}})
	g := cs.groups[1]
	if got, want := fmt.Sprint(g.list), "[{1 a a1 } {2 b b2 } {2 a a2 a1}]"; got != want || g.revisions != 2 || g.revision != 3 {
		t.Errorf("%s with %d revisions up to %d, want %s", got, g.revisions, g.revision, want)
	}
	db := &DB{changes: cs}
	for limit, want := range []struct {
		changes int
		upTo    uint64
	}{{1, 1}, {1, 1}, {3, 3}, {3, 3}} {
		if list, upTo, err := db.Changes(1, 0, limit); err != nil || len(list) != want.changes || upTo != want.upTo {
			t.Errorf("with a limit of %d: %d changes up to %d, %v", limit, len(list), upTo, err)
		}
	}
	for range 2 {
		cs.forget(g)
	}
	if cs.bytes != 0 || g.revisions != 0 || g.after != 2 {
		t.Errorf("with everything forgotten: %d bytes, %d revisions, after %d", cs.bytes, g.revisions, g.after)
	}
}
