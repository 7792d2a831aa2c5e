package kv

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// ordered behaves as a map whose keys are sorted when they are wanted.
func TestOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var o ordered[int]
		want := map[string]int{}
		anyKey := func() string { return fmt.Sprint(r.IntN(60)) }
		for i := range rapid.IntRange(1, 300).Draw(t, "steps") {
			key := anyKey()
			switch _, had := want[key]; {
			case had && r.IntN(2) == 0:
				n, _ := o.at(key)
				o.remove(n)
				delete(want, key)
			case len(want) > 0 && r.IntN(20) == 0:
				o.removeFirst()
				delete(want, slices.Min(slices.Collect(maps.Keys(want))))
			default:
				n, added := o.at(key)
				if added == had {
					t.Fatal(key, added, had)
				}
				n.value, want[key] = i, i
			}
			lower, upper := anyKey(), anyKey()
			reverse := r.IntN(2) == 0
			keys := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(k string) bool { return k < lower || k >= upper })
			if reverse {
				slices.Reverse(keys)
			}
			var got []string
			each := o.each(lower, upper, reverse)
			for n := each(); n != nil; n = each() {
				if n.value != want[n.key] {
					t.Fatal(n.key, n.value)
				}
				got = append(got, n.key)
			}
			if !slices.Equal(got, keys) {
				t.Fatalf("from %s to %s: %q, want %q", lower, upper, got, keys)
			}
		}
	})
}

// What views need is kept once, and nothing else; the oldest views go when it is
// too much.
func TestHistoryIsBounded(t *testing.T) {
	db, err := Open(t.TempDir(), Options{MaxViewBytes: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(1, 0))
	g := func() *machine { return db.groups[0] }
	write := func() {
		var ops []messages.Operation
		for range 1 + r.IntN(5) {
			ops = append(ops, messages.PutOperation(fmt.Appendf(nil, "key-%d", r.IntN(300)), make([]byte, r.IntN(400))))
		}
		if _, err := db.Write(0, ops); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		h := &g().history
		bytes, pasts := int64(0), 0
		each := h.keys.each("", "\xff", false)
		for n := each(); n != nil; n = each() {
			bytes += nodeBytes + int64(len(n.key))
			if !slices.IsSortedFunc(n.value, func(a, b past) int { return cmp.Compare(a.until, b.until) }) {
				t.Fatalf("%q: %v", n.key, n.value)
			}
			for i := range n.value {
				bytes += n.value[i].bytes()
				pasts++
			}
		}
		if bytes != h.bytes || pasts != len(h.changes)-h.gone || h.bytes > 20_000 {
			t.Fatalf("%d bytes and %d pasts, counted %d and %d", bytes, pasts, h.bytes, len(h.changes)-h.gone)
		}
		if len(h.views) == 0 && (h.bytes > 0 || len(h.changes) > 0) {
			t.Fatal("something is left")
		}
	}
	write()
	var views []*view
	expired := 0
	for range 3000 {
		switch n := r.IntN(10); {
		case n < 2:
			v, err := db.openView(0)
			if err != nil {
				t.Fatal(err)
			}
			views = append(views, v)
		case n < 5 && len(views) > 0:
			i := r.IntN(len(views))
			if errors.Is(views[i].over, messages.ErrExpired) {
				expired++
				for j := range i {
					if views[j].over == nil && views[j].time < views[i].time {
						t.Fatal("a younger view has expired")
					}
				}
			}
			if err := views[i].Close(); err != nil {
				t.Fatal(err)
			}
			views = slices.Delete(views, i, i+1)
		default:
			write()
		}
		check()
	}
	if expired == 0 {
		t.Error("no view has expired")
	}
	for _, v := range views {
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check()
	// One view stays while others come and go beside a key that changes.
	stays, err := db.openView(0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		v, err := db.openView(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Write(0, []messages.Operation{messages.PutOperation([]byte("hot"), []byte("x"))}); err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check()
	if h := &g().history; h.bytes > 1000 || cap(h.changes) > 100 || stays.over != nil {
		t.Errorf("%d bytes, %d changes, %v", h.bytes, cap(h.changes), stays.over)
	}
	for range 2000 {
		if _, err := db.Write(0, []messages.Operation{messages.PutOperation([]byte("hot"), []byte("x"))}); err != nil {
			t.Fatal(err)
		}
	}
	check()
	if h := &g().history; h.bytes > 1000 {
		t.Errorf("%d bytes", h.bytes)
	}
	if err := stays.Close(); err != nil {
		t.Fatal(err)
	}
	// Without views nothing is noted.
	write()
	check()
	if len(g().history.changes) > 0 {
		t.Error("noted for nobody")
	}
}
