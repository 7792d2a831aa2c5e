package kv_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// ran is a committed transaction in a history: what it has read, as versions, and
// the version of what it wrote.
type ran struct {
	reads    map[string]uint64 // zero: not there
	writes   map[string]bool   // false: removed
	revision uint64            // of the state it saw
	version  uint64            // of its writes, or zero
}

// cycle builds the dependencies between the transactions of a history (who wrote
// what somebody read, who wrote the next version of what somebody read, who wrote
// the next version of what somebody wrote) and returns some that depend on each
// other in a circle: then there is no serial order that explains the history.
func cycle(history []ran) []int {
	type written struct {
		version uint64
		by      int
		exists  bool
	}
	versions := map[string][]written{}
	for i, r := range history {
		for key, exists := range r.writes {
			versions[key] = append(versions[key], written{r.version, i, exists})
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
		for key, version := range r.reads {
			list := versions[key]
			// The place of what was read among the versions of the key. That it was
			// not there is as old as the state that was seen.
			at, found := slices.BinarySearchFunc(list, version, func(w written, v uint64) int { return int(w.version) - int(v) })
			if version == 0 {
				for at = len(list) - 1; at >= 0 && list[at].version > r.revision; at-- {
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

// keysOfHistories are few, so that transactions meet.
const keysOfHistories = 6

// serialise runs transactions beside each other, whose steps chance mixes, and
// returns the history of those that were committed. A kind of read in blind is made
// in a view of the same state instead, so that the transaction does not know of it.
func serialise(t *testing.T, seed uint64, blind string) (history []ran, conflicts, refused int) {
	r := rand.New(rand.NewPCG(seed, 0))
	dir := memDir(t)
	db := open(t, dir, lazy)
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}),
		messages.CreateIndexOperation(messages.IndexDefinition{Name: "u", Fields: messages.Paths("u"), Unique: true}))
	logged := seed%2 == 1
	type client struct {
		kv.Txn
		view kv.View
		ran
	}
	var open []*client
	key := func() string { return fmt.Sprint("k", r.IntN(keysOfHistories)) }
	// seen notes that a range was read: the keys that are not in pairs are not there.
	seen := func(c *client, from, to string, pairs []messages.Pair) {
		for i := range keysOfHistories {
			if k := fmt.Sprint("k", i); k >= from && k < to {
				if _, own := c.writes[k]; !own {
					c.reads[k] = 0
				}
			}
		}
		for _, p := range pairs {
			if _, own := c.writes[string(p.Key)]; !own {
				c.reads[string(p.Key)] = p.Version
			}
		}
	}
	finish := func(i int) {
		c := open[i]
		open = slices.Delete(open, i, i+1)
		if len(c.writes) == 0 {
			history = append(history, c.ran)
			if err := errors.Join(c.Close(), c.view.Close()); err != nil {
				t.Fatal(err)
			}
			return
		}
		for k, exists := range c.writes {
			if _, version, err := db.Get(0, []byte(k)); err != nil {
				t.Fatal(err)
			} else if version == 0 && !exists {
				delete(c.writes, k) // removes nothing, so nobody can tell
			}
		}
		var err error
		if logged {
			err = commitLogged(t, db, c.Txn)
		} else {
			err = commitDirect(t, db, c.Txn)
		}
		if closed := c.view.Close(); closed != nil {
			t.Fatal(closed)
		}
		switch {
		case errors.Is(err, messages.ErrConflict):
			conflicts++
		case errors.Is(err, messages.ErrNotUnique):
			refused++
		case err != nil:
			t.Fatal(err)
		default:
			c.version = db.Revision(0)
			history = append(history, c.ran)
		}
		for u := range keysOfHistories {
			if same := queryAll(t, db, messages.QueryIndex{Name: "u", Equal: fmt.Sprint(u)}); len(same) > 1 {
				t.Fatalf("seed %d: %q have one value", seed, same)
			}
		}
	}
	for step := range 400 {
		if len(open) < 4 && r.IntN(3) == 0 {
			txn := begin(t, db)
			view, err := db.OpenView(0)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, &client{txn, view, ran{reads: map[string]uint64{}, writes: map[string]bool{}, revision: txn.Revision()}})
			continue
		}
		if len(open) == 0 {
			continue
		}
		i := r.IntN(len(open))
		c := open[i]
		from := func(kind string) queries {
			if kind == blind {
				return c.view
			}
			return c.Txn
		}
		switch r.IntN(9) {
		case 0, 1:
			k := key()
			get := c.Get
			if blind == "get" {
				get = c.view.Get
			}
			_, version, err := get([]byte(k))
			if err != nil {
				t.Fatal(err)
			}
			if _, own := c.writes[k]; !own {
				c.reads[k] = version
			}
		case 2:
			a, b := key(), key()
			pairs, next, err := from("scan").Scan(messages.Scan{From: []byte(min(a, b)), To: []byte(max(a, b)), Limit: 2})
			if err != nil {
				t.Fatal(err)
			}
			to := max(a, b)
			if next != nil {
				to = string(pairs[len(pairs)-1].Key) + "\x00"
			}
			seen(c, min(a, b), to, pairs)
		case 3:
			// Those whose number is 1: what is not there may have another.
			pairs, _, err := from("query").Query(messages.QueryIndex{Name: "n", Equal: "1"})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pairs {
				if _, own := c.writes[string(p.Key)]; !own {
					c.reads[string(p.Key)] = p.Version
				}
			}
		case 4, 5, 6:
			k := key()
			if c.writes[k] = r.IntN(4) > 0; c.writes[k] {
				run(t, c, put(k, fmt.Sprintf(`{"n":%d,"u":%d,"step":%d}`, r.IntN(3), r.IntN(keysOfHistories), step)))
			} else {
				run(t, c, del(k))
			}
		default:
			finish(i)
		}
	}
	for len(open) > 0 {
		finish(0)
	}
	return history, conflicts, refused
}

// What transactions did beside each other can be explained by an order in which
// each runs alone, by their dependencies.
func TestSerialisable(t *testing.T) {
	committed, conflicts, refused := 0, 0, 0
	for seed := range uint64(60) {
		history, n, m := serialise(t, seed, "")
		committed, conflicts, refused = committed+len(history), conflicts+n, refused+m
		if circle := cycle(history); circle != nil {
			for _, i := range circle {
				t.Logf("%d: %+v", i, history[i])
			}
			t.Fatalf("seed %d: %v depend on each other", seed, circle)
		}
	}
	if committed < 1000 || conflicts < 100 || refused < 50 {
		t.Errorf("%d committed, %d conflicts and %d refused are too few to tell", committed, conflicts, refused)
	}
	t.Logf("%d committed, %d conflicts, %d refused", committed, conflicts, refused)
}

// The check finds what it is for: with reads of one kind that transactions do not
// know of, some histories cannot be explained.
func TestSerialisableFindsPlantedBugs(t *testing.T) {
	for _, blind := range []string{"get", "scan", "query"} {
		found := 0
		for seed := range uint64(60) {
			if history, _, _ := serialise(t, seed, blind); cycle(history) != nil {
				found++
			}
		}
		if found == 0 {
			t.Errorf("%s: the check finds nothing", blind)
		}
		t.Logf("%s: found in %d of 60", blind, found)
	}
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
		history []ran
		bad     bool
	}{
		"one after the other":  {[]ran{{reads("a", 0), writes("a"), 0, 1}, {reads("a", 1), writes("b"), 1, 2}}, false},
		"write skew":           {[]ran{{nil, writes("a", "b"), 0, 1}, {reads("a", 1), writes("b"), 1, 2}, {reads("b", 1), writes("a"), 1, 3}}, true},
		"a lost update":        {[]ran{{nil, writes("a"), 0, 1}, {reads("a", 1), writes("a"), 1, 2}, {reads("a", 1), writes("a"), 1, 3}}, true},
		"a phantom":            {[]ran{{reads("a", 0), writes("b"), 0, 1}, {reads("b", 0), writes("a"), 0, 2}}, true},
		"a read of nothing":    {[]ran{{reads("a", 7), writes("b"), 0, 1}}, true},
		"not there, though":    {[]ran{{nil, writes("a"), 0, 1}, {reads("a", 0), writes("b"), 1, 2}}, true},
		"a reader in the past": {[]ran{{nil, writes("a"), 0, 1}, {nil, writes("a"), 1, 2}, {reads("a", 1), nil, 1, 0}}, false},
	} {
		if circle := cycle(c.history); (circle != nil) != c.bad {
			t.Errorf("%s: %v", name, circle)
		}
	}
}
