package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// fill writes n keys with values of about size bytes.
func fill(t testing.TB, db *kv.DB, group uint64, n, size int) {
	t.Helper()
	for from := 0; from < n; from += 1000 {
		var ops []messages.Operation
		for i := from; i < min(n, from+1000); i++ {
			ops = append(ops, put(fmt.Sprintf("key-%07d", i*2), string(document(i, size))))
		}
		mustWrite(t, db, group, ops...)
	}
}

// document is a JSON value of about size bytes.
func document(i, size int) []byte {
	b := fmt.Appendf(nil, `{"n":%d,"pad":"`, i)
	for len(b) < size-2 {
		b = append(b, 'a'+byte((i+len(b))%26))
	}
	return append(b, '"', '}')
}

// scramble changes random keys: overwrites, removals, new keys before, behind
// and between.
func scramble(t testing.TB, db *kv.DB, group uint64, r *rand.Rand, n, count int) {
	t.Helper()
	var ops []messages.Operation
	for range count {
		key := fmt.Sprintf("key-%07d", r.IntN(2*n+100))
		switch r.IntN(4) {
		case 0:
			ops = append(ops, del(key))
		case 1:
			ops = append(ops, put(fmt.Sprint(r.IntN(1000), key), "{}"))
		default:
			ops = append(ops, put(key, string(document(r.IntN(n), 60))))
		}
	}
	mustWrite(t, db, group, ops...)
}

func TestViewWhileWriting(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	db := open(t, memDir(t), lazy)
	const n = 5000
	def := messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}
	fill(t, db, 1, n, 200)
	mustWrite(t, db, 1, messages.CreateIndexOperation(def), put("key-0000003", `{"n":"`+string(bytes.Repeat([]byte("x"), 60_000))+`","m":"`+strings.Repeat("y", 300_000)+`"}`))
	for round := range 4 {
		if _, err := db.Apply(1, []messages.Entry{{Index: uint64(round + 1), Term: 3}}); err != nil {
			t.Fatal(err)
		}
		want := export(t, db, 1)
		v, err := db.OpenExport(1)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		p := make([]byte, 50_000)
		for {
			scramble(t, db, 1, r, n, 300)
			if r.IntN(3) == 0 {
				write(t, db, 1, messages.DropIndexOperation("n"), messages.CreateIndexOperation(messages.IndexDefinition{Name: "m", Fields: messages.Paths("n")}))
			}
			mustWrite(t, db, 2, put("key-0000000", "other group"))
			m, err := v.Read(p)
			got = append(got, p[:m]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: the view is not the state at open: %d and %d bytes", round, len(got), len(want))
		}
		if i, term := v.Index(); i != uint64(round+1) || term != 3 {
			t.Fatal(i, term)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestViewExpiresBeyondItsLimit(t *testing.T) {
	db := open(t, memDir(t), kv.Options{MaxViewBytes: 20_000})
	fill(t, db, 0, 3000, 200)
	want0 := export(t, db, 0)
	read := func(v kv.Export) ([]byte, error) { return io.ReadAll(v) }
	slow, err := db.OpenExport(0)
	if err != nil {
		t.Fatal(err)
	}
	other, err := db.OpenExport(1)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, 0, 20, 100)
	fill(t, db, 1, 20, 100)
	if got, err := read(slow); err != nil || !bytes.Equal(got, want0) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// Overwriting what was read already costs nothing.
	fill(t, db, 0, 3000, 100)
	if got, err := read(other); err != nil || len(got) != 12+trailerBytes {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	expiring, err := db.OpenExport(0)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, 0, 3000, 100)
	_, err = read(expiring)
	want(t, "read", err, messages.ErrExpired)
	if err := errors.Join(slow.Close(), other.Close(), expiring.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestViewsExpireWhenTheirGroupIsReplaced(t *testing.T) {
	db := open(t, memDir(t), lazy)
	fill(t, db, 1, 5000, 200)
	fill(t, db, 2, 5000, 200)
	state := export(t, db, 2)
	mine, err := db.OpenExport(1)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := db.OpenExport(2)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1000)
	if _, err := io.ReadFull(kept, first); err != nil {
		t.Fatal(err)
	}
	load(t, db, 1, 1, state)
	fill(t, db, 2, 100, 50)
	_, err = io.ReadAll(mine)
	want(t, "read", err, messages.ErrExpired)
	rest, err := io.ReadAll(kept)
	if err != nil || !bytes.Equal(append(first, rest...), state) {
		t.Fatalf("the view of the other group: %d bytes, %v", len(rest), err)
	}
}

// Readers, exporters, a syncer and a writer at once; an import in between.
func TestConcurrency(t *testing.T) {
	db := open(t, memDir(t), lazy)
	const n, rounds = 2000, 150
	fill(t, db, 1, n, 100)
	fill(t, db, 2, n, 100)
	mustWrite(t, db, 1, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}))
	state := export(t, db, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(step func() error) {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := step(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	loop(func() error {
		_, _, err := db.Get(1, []byte("key-0000010"))
		_, _ = db.Applied(1)
		_, _, _ = db.Keys(1), db.Groups(), db.Indexes(1)
		return err
	})
	loop(func() error {
		pairs, _, err := db.Query(messages.QueryIndex{Group: 1, Name: "n", Min: "5", Max: "50"})
		if errors.Is(err, messages.ErrNotReady) {
			return db.MaintainIndexes()
		}
		if err == nil {
			for _, p := range pairs {
				if len(p.Value) == 0 {
					return fmt.Errorf("an index entry of %q without a document", p.Key)
				}
			}
		}
		return err
	})
	loop(func() error {
		pairs, _, err := db.Scan(messages.Scan{Group: 2, Prefix: []byte("pair-")})
		if err == nil && len(pairs) > 0 && (len(pairs) != 2 || !bytes.Equal(pairs[0].Value, pairs[1].Value)) {
			return fmt.Errorf("half of a change is seen: %q", pairs)
		}
		return err
	})
	loop(db.Sync)
	loop(func() error {
		v, err := db.OpenExport(2)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(v)
		if err == nil {
			// Both keys have the same value in every state.
			s := openState(t, b)
			a, _, errA := s.Get([]byte("pair-1"))
			b, _, errB := s.Get([]byte("pair-2"))
			if err = errors.Join(errA, errB); !bytes.Equal(a, b) {
				err = fmt.Errorf("half of a change is in a view: %q %q", a, b)
			}
		}
		return errors.Join(err, v.Close())
	})
	r := rand.New(rand.NewPCG(2, 0))
	index := uint64(0)
	for round := range rounds {
		var entries []messages.Entry
		for range 20 {
			index++
			entries = append(entries, entry(index, put(fmt.Sprintf("key-%07d", r.IntN(2*n)), string(document(r.IntN(n), 60)))))
		}
		if _, err := db.Apply(1, entries); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, db, 2, put("pair-1", fmt.Sprintf("%02d", round%100)), put("pair-2", fmt.Sprintf("%02d", round%100)))
		scramble(t, db, 2, r, n, 20)
		if round%50 == 25 {
			index = uint64(round)
			load(t, db, 1, index, state)
		}
	}
	close(done)
	wg.Wait()
}

// Many views of a few keys that change all the time: each sees its own time.
func TestManyViews(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 0))
	db := open(t, memDir(t), lazy)
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}))
	type seen struct {
		kv.View
		pairs   []messages.Pair
		byIndex []messages.Pair
	}
	var views []seen
	for step := range 1500 {
		if len(views) < 2 || len(views) < 12 && r.IntN(3) == 0 {
			v, err := db.OpenView(0)
			if err != nil {
				t.Fatal(err)
			}
			views = append(views, seen{v, scanAll(t, db, messages.Scan{}), queryAll(t, db, messages.QueryIndex{Name: "n"})})
		} else if r.IntN(3) == 0 {
			i := r.IntN(len(views))
			if err := views[i].Close(); err != nil {
				t.Fatal(err)
			}
			views = slices.Delete(views, i, i+1)
		}
		var ops []messages.Operation
		for range r.IntN(4) {
			key := fmt.Sprint("key-", r.IntN(6))
			if r.IntN(3) == 0 {
				ops = append(ops, del(key))
			} else {
				ops = append(ops, put(key, fmt.Sprintf(`{"n":%d,"step":%d}`, r.IntN(4), step)))
			}
		}
		write(t, db, 0, ops...)
		for _, v := range views {
			for _, reverse := range []bool{false, true} {
				pairs := scanAll(t, v, messages.Scan{Limit: 1 + r.IntN(4), Reverse: reverse})
				byIndex := queryAll(t, v, messages.QueryIndex{Name: "n", Limit: 1 + r.IntN(4), Reverse: reverse})
				if reverse {
					slices.Reverse(pairs)
					slices.Reverse(byIndex)
				}
				if !reflect.DeepEqual(pairs, v.pairs) || !reflect.DeepEqual(byIndex, v.byIndex) {
					t.Fatalf("step %d: %q and %q, want %q and %q", step, pairs, byIndex, v.pairs, v.byIndex)
				}
			}
			for _, p := range v.pairs {
				if value, version, err := v.Get(p.Key); err != nil || version != p.Version || !bytes.Equal(value, p.Value) {
					t.Fatalf("%q at %d, want %q: %v", value, version, p, err)
				}
			}
		}
	}
}

// A dropped index stays in views, and a new one of its name is not in them; what is
// read of a view that has ended says why.
func TestViewsAndIndexes(t *testing.T) {
	db := open(t, memDir(t), kv.Options{MaxViewBytes: 50_000})
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}), put("a", `{"n":1,"m":9}`), put("b", `{"n":2,"m":8}`))
	v, err := db.OpenView(0)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, db, 0, messages.DropIndexOperation("n"), messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("m")}), put("c", `{"n":0,"m":0}`),
		messages.CreateIndexOperation(messages.IndexDefinition{Name: "later", Fields: messages.Paths("n")}))
	if got := keys(queryAll(t, v, messages.QueryIndex{Name: "n"})); got != "a b" {
		t.Errorf("in the view: %s", got)
	}
	if got := keys(queryAll(t, db, messages.QueryIndex{Name: "n"})); got != "c b a" {
		t.Errorf("now: %s", got)
	}
	_, _, err = v.Query(messages.QueryIndex{Name: "later"})
	want(t, "query", err, messages.ErrNotFound)
	// Of another group nothing is kept.
	fill(t, db, 1, 1000, 200)
	fill(t, db, 0, 1000, 200) // new keys cost their names alone, and it is too much
	for range 2 {
		_, _, err = v.Get([]byte("a"))
		want(t, "get", err, messages.ErrExpired)
		_, _, err = v.MultiGet([][]byte{[]byte("a")})
		want(t, "multi-get", err, messages.ErrExpired)
		_, _, err = v.Scan(messages.Scan{})
		want(t, "scan", err, messages.ErrExpired)
		_, _, err = v.CountKeys(messages.Scan{})
		want(t, "count", err, messages.ErrExpired)
		_, _, err = v.Query(messages.QueryIndex{Name: "n"})
		want(t, "query", err, messages.ErrExpired)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = db.CountKeys(messages.Scan{Limit: -1})
	want(t, "count", err, messages.ErrInvalid)
	// A group is there for a view alone, and gone with it.
	v, err = db.OpenView(7)
	if err != nil {
		t.Fatal(err)
	}
	if n, _, err := v.CountKeys(messages.Scan{}); n != 0 || err != nil {
		t.Error(n, err)
	}
	mustWrite(t, db, 7, put("x", "1"))
	if n, _, err := v.CountKeys(messages.Scan{}); n != 0 || err != nil {
		t.Error(n, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
