package serialcheck

import (
	"maps"
	"testing"
)

// Histories that an order explains, and such that none does.
func TestCycle(t *testing.T) {
	reads := func(pairs ...any) map[string]uint64 {
		m := map[string]uint64{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = uint64(pairs[i+1].(int))
		}
		return m
	}
	writes := func(keys ...string) map[string]bool {
		return maps.Collect(func(yield func(string, bool) bool) {
			for _, k := range keys {
				yield(k, true)
			}
		})
	}
	for name, c := range map[string]struct {
		history []Txn
		bad     bool
	}{
		"one after the other":  {[]Txn{{reads("a", 0), writes("a"), 0, 1}, {reads("a", 1), writes("b"), 1, 2}}, false},
		"write skew":           {[]Txn{{nil, writes("a", "b"), 0, 1}, {reads("a", 1), writes("b"), 1, 2}, {reads("b", 1), writes("a"), 1, 3}}, true},
		"a lost update":        {[]Txn{{nil, writes("a"), 0, 1}, {reads("a", 1), writes("a"), 1, 2}, {reads("a", 1), writes("a"), 1, 3}}, true},
		"a phantom":            {[]Txn{{reads("a", 0), writes("b"), 0, 1}, {reads("b", 0), writes("a"), 0, 2}}, true},
		"a read of nothing":    {[]Txn{{reads("a", 7), writes("b"), 0, 1}}, true},
		"not there, though":    {[]Txn{{nil, writes("a"), 0, 1}, {reads("a", 0), writes("b"), 1, 2}}, true},
		"a reader in the past": {[]Txn{{nil, writes("a"), 0, 1}, {nil, writes("a"), 1, 2}, {reads("a", 1), nil, 1, 0}}, false},
	} {
		if circle := Cycle(c.history); (circle != nil) != c.bad {
			t.Errorf("%s: %v", name, circle)
		}
	}
}
