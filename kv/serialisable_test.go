package kv_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/kv/serialcheck"
	"github.com/ballast-raft/ballast/messages"
)

// keysOfHistories are few, so that transactions meet.
const keysOfHistories = 6

// serialise runs transactions beside each other, whose steps chance mixes, and
// returns the history of those that were committed. A kind of read in blind is made
// in a view of the same state instead, so that the transaction does not know of it.
func serialise(t *testing.T, seed uint64, blind string) (history []serialcheck.Txn, conflicts, refused int) {
	r := rand.New(rand.NewPCG(seed, 0))
	dir := memDir(t)
	db := open(t, dir, lazy)
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}),
		messages.CreateIndexOperation(messages.IndexDefinition{Name: "u", Fields: messages.Paths("u"), Unique: true}))
	logged := seed%2 == 1
	type client struct {
		kv.Txn
		view kv.View
		ran  serialcheck.Txn
	}
	var open []*client
	key := func() string { return fmt.Sprint("k", r.IntN(keysOfHistories)) }
	// seen notes that a range was read: the keys that are not in pairs are not there.
	seen := func(c *client, from, to string, pairs []messages.Pair) {
		for i := range keysOfHistories {
			if k := fmt.Sprint("k", i); k >= from && k < to {
				if _, own := c.ran.Writes[k]; !own {
					c.ran.Reads[k] = 0
				}
			}
		}
		for _, p := range pairs {
			if _, own := c.ran.Writes[string(p.Key)]; !own {
				c.ran.Reads[string(p.Key)] = p.Version
			}
		}
	}
	finish := func(i int) {
		c := open[i]
		open = slices.Delete(open, i, i+1)
		if len(c.ran.Writes) == 0 {
			history = append(history, c.ran)
			if err := errors.Join(c.Close(), c.view.Close()); err != nil {
				t.Fatal(err)
			}
			return
		}
		for k, exists := range c.ran.Writes {
			if _, version, err := db.Get(0, []byte(k)); err != nil {
				t.Fatal(err)
			} else if version == 0 && !exists {
				delete(c.ran.Writes, k) // removes nothing, so nobody can tell
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
			c.ran.Version = db.Revision(0)
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
			open = append(open, &client{txn, view, serialcheck.Txn{Reads: map[string]uint64{}, Writes: map[string]bool{}, Revision: txn.Revision()}})
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
			if _, own := c.ran.Writes[k]; !own {
				c.ran.Reads[k] = version
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
				if _, own := c.ran.Writes[string(p.Key)]; !own {
					c.ran.Reads[string(p.Key)] = p.Version
				}
			}
		case 4, 5, 6:
			k := key()
			if c.ran.Writes[k] = r.IntN(4) > 0; c.ran.Writes[k] {
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
		if circle := serialcheck.Cycle(history); circle != nil {
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
			if history, _, _ := serialise(t, seed, blind); serialcheck.Cycle(history) != nil {
				found++
			}
		}
		if found == 0 {
			t.Errorf("%s: the check finds nothing", blind)
		}
		t.Logf("%s: found in %d of 60", blind, found)
	}
}
