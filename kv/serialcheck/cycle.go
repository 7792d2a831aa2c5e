// Package serialcheck tells whether what transactions did beside each other can be
// explained by an order in which each runs alone. It is for tests.
package serialcheck

import "slices"

// Txn is a committed transaction in a history: what it has read, as versions, and
// the version of what it wrote.
type Txn struct {
	Reads    map[string]uint64 // zero: not there
	Writes   map[string]bool   // false: removed
	Revision uint64            // of the state it saw
	Version  uint64            // of its writes, or zero
}

// Cycle builds the dependencies between the transactions of a history (who wrote
// what somebody read, who wrote the next version of what somebody read, who wrote
// the next version of what somebody wrote) and returns some that depend on each
// other in a circle: then there is no serial order that explains the history. A removal
// counts as a write only if there was something to remove.
func Cycle(history []Txn) []int {
	type written struct {
		version uint64
		by      int
		exists  bool
	}
	versions := map[string][]written{}
	for i, r := range history {
		for key, exists := range r.Writes {
			versions[key] = append(versions[key], written{r.Version, i, exists})
		}
	}
	after := make([]map[int]bool, len(history))
	edge := func(from, to int) {
		if from != to {
			if after[from] == nil {
				after[from] = map[int]bool{}
			}
			after[from][to] = true
		}
	}
	for _, list := range versions {
		slices.SortFunc(list, func(a, b written) int { return int(a.version) - int(b.version) })
		for i := 1; i < len(list); i++ {
			edge(list[i-1].by, list[i].by)
		}
	}
	for i, r := range history {
		for key, version := range r.Reads {
			list := versions[key]
			// The place of what was read among the versions of the key. That it was
			// not there is as old as the state that was seen.
			at, found := slices.BinarySearchFunc(list, version, func(w written, v uint64) int { return int(w.version) - int(v) })
			if version == 0 {
				for at = len(list) - 1; at >= 0 && list[at].version > r.Revision; at-- {
				}
				found = at >= 0
				if found && list[at].exists {
					return []int{i} // it was there
				}
			}
			if found {
				edge(list[at].by, i)
				at++
			} else if version == 0 {
				at = 0
			} else {
				return []int{i} // nobody wrote this
			}
			if at < len(list) {
				edge(i, list[at].by)
			}
		}
	}
	state := make([]int, len(history)) // 1 under way, 2 done
	var path, circle []int
	var visit func(i int) bool
	visit = func(i int) bool {
		state[i] = 1
		path = append(path, i)
		for j := range after[i] {
			if state[j] == 1 {
				circle = slices.Clone(path[slices.Index(path, j):])
				return true
			}
			if state[j] == 0 && visit(j) {
				return true
			}
		}
		path = path[:len(path)-1]
		state[i] = 2
		return false
	}
	for i := range history {
		if state[i] == 0 && visit(i) {
			return circle
		}
	}
	return nil
}
