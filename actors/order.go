package actors

import (
	"cmp"
	"maps"
	"slices"
)

// sortedKeys lists a map's keys in order: Go's own order is random, and would
// make two runs of the same seed differ.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
