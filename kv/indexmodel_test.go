package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// testFuncs are registered in the stores of these tests.
var testFuncs = map[string]kv.IndexFunc{
	// words of a value that need not be JSON; "!" is no value for it.
	"words": func(_, value []byte) [][]byte {
		if bytes.Contains(value, []byte("!")) {
			panic("an exclamation")
		}
		return bytes.Fields(value)
	},
	// tail is the last byte of the key.
	"tail": func(key, _ []byte) [][]byte { return [][]byte{key[len(key)-1:]} },
}

var (
	indexScalars = []string{"null", "true", "false", "0", "-1", "1.5", "10", `""`, `"a"`, `"A"`, `"ab"`, `"Ab\u0000c"`, `"b"`, `"é"`, `"É"`,
		`"2024-01-01T00:00:00Z"`, `"2024-01-01T02:00:00+02:00"`, `"2023-12-31T23:59:59.5Z"`}
	indexKey   = rapid.SampledFrom([]string{"a", "a1", "a2", "a3", "a4", "b", "b1", "b2", "b3", "\x00", "\xff", "a\x00", "a\xff", "c1", "c2", "c3"})
	indexValue = rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			var b strings.Builder
			for _, field := range []string{"u", "v", "w"} {
				switch rapid.IntRange(0, 5).Draw(t, field+" kind") {
				case 0:
				case 1:
					fmt.Fprintf(&b, `,"%s":[1]`, field)
				default:
					fmt.Fprintf(&b, `,"%s":%s`, field, rapid.SampledFrom(indexScalars).Draw(t, field))
				}
			}
			return "{" + strings.TrimPrefix(b.String(), ",") + "}"
		}),
		rapid.SampledFrom([]string{"", "no JSON", "stop!", "1", "[]", "a b c", "b a b", "c"}),
	)
	indexName       = rapid.SampledFrom([]string{"x", "y", "z"})
	indexDefinition = rapid.Custom(func(t *rapid.T) messages.IndexDefinition {
		def := messages.IndexDefinition{Name: indexName.Draw(t, "name"), Prefix: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "prefix"),
			Unique: rapid.IntRange(0, 3).Draw(t, "unique") == 0}
		if f := rapid.SampledFrom([]string{"", "", "words", "tail"}).Draw(t, "func"); f != "" {
			def.Func = f
			return def
		}
		for _, path := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"u", "v", "w"}), 1, 3, rapid.ID[string]).Draw(t, "paths") {
			f := messages.IndexField{Path: path, Descending: rapid.Bool().Draw(t, "descending"),
				Type: rapid.SampledFrom([]messages.IndexType{"", "", "string", "number", "bool", "time"}).Draw(t, "type")}
			f.Fold = (f.Type == "" || f.Type == "string") && rapid.Bool().Draw(t, "fold")
			def.Fields = append(def.Fields, f)
		}
		return def
	})
)

// drawQuery asks for something that may or may not make sense.
func drawQuery(t *rapid.T, def messages.IndexDefinition) messages.QueryIndex {
	bound := func(name string) string {
		if def.Func != "" {
			return rapid.SampledFrom([]string{"", "a", "b", "c", "JSON", "1", "2"}).Draw(t, name)
		}
		list := rapid.SliceOfN(rapid.SampledFrom(indexScalars), 0, len(def.Fields)).Draw(t, name)
		switch {
		case len(list) == 0:
			return ""
		case len(list) == 1 && rapid.Bool().Draw(t, name+" alone"):
			return list[0]
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	q := messages.QueryIndex{Name: def.Name, Limit: rapid.IntRange(0, 4).Draw(t, "limit"), Reverse: rapid.Bool().Draw(t, "reverse"), KeysOnly: rapid.Bool().Draw(t, "keys only")}
	if rapid.Bool().Draw(t, "range") {
		q.Min, q.Max = bound("min"), bound("max")
		q.MinExclusive = q.Min != "" && rapid.Bool().Draw(t, "min exclusive")
		q.MaxExclusive = q.Max != "" && rapid.Bool().Draw(t, "max exclusive")
		return q
	}
	q.Equal = bound("equal")
	if rapid.Bool().Draw(t, "with prefix") {
		q.Prefix = rapid.SampledFrom([]string{"a", "A", "b", "É", "Ab\x00", "J"}).Draw(t, "prefix")
	}
	return q
}

// checkQuery compares a query, page by page, and its count with the reference.
func checkQuery(t *rapid.T, db queries, def messages.IndexDefinition, pairs []messages.Pair, q messages.QueryIndex) {
	want, ok := refQuery(def, pairs, q)
	if !ok {
		if _, _, err := db.Query(q); !errors.Is(err, messages.ErrInvalid) {
			t.Fatalf("%+v of %+v: %v", q, def, err)
		}
		return
	}
	if q.KeysOnly {
		want = slices.Clone(want)
		for i := range want {
			want[i].Value = nil
		}
	}
	if got := queryAll(t, db, q); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v of %+v:\n%q, want\n%q", q, def, got, want)
	}
	n := 0
	for q.Cursor = nil; ; {
		m, next, err := db.Count(q)
		if err != nil {
			t.Fatal(err)
		}
		n += m
		if q.Cursor = next; next == nil {
			break
		}
	}
	if n != len(want) {
		t.Fatalf("%+v counts %d, want %d", q, n, len(want))
	}
}

// indexRun is a store beside what it should hold.
type indexRun struct {
	db      *kv.DB
	data    map[string]string
	version map[string]uint64
	indexes map[string]messages.IndexDefinition
	applied uint64
	inTxn   bool // what is unique is looked at when it ends
}

func (r *indexRun) pairs() (pairs []messages.Pair) {
	for _, k := range slices.Sorted(maps.Keys(r.data)) {
		pairs = append(pairs, messages.Pair{Key: []byte(k), Value: []byte(r.data[k]), Version: r.version[k]})
	}
	return pairs
}

// expect does to the reference what the operation should do, and returns the
// key that a duplicate is of, and the error that it should have.
func (r *indexRun) expect(op messages.Operation, version uint64) (other string, err error) {
	key, value := string(op.Key), string(op.Value)
	switch op.Kind {
	case messages.OpDelete:
		delete(r.data, key)
	case messages.OpPut:
		for _, name := range slices.Sorted(maps.Keys(r.indexes)) {
			def := r.indexes[name]
			if !strings.HasPrefix(key, def.Prefix) {
				continue
			}
			if _, err := refEntries(def, key, value); err != nil {
				return "", err
			}
			if other := refDuplicate(def, r.pairs(), key, value); other != "" && !r.inTxn {
				return other, messages.ErrNotUnique
			}
		}
		r.data[key], r.version[key] = value, version
	case messages.OpCreateIndex:
		if old, found := r.indexes[op.Index.Name]; found {
			if !old.Equal(op.Index) {
				return "", messages.ErrConflict
			}
			return "", nil
		}
		for _, p := range r.pairs() {
			if strings.HasPrefix(string(p.Key), op.Index.Prefix) {
				if other := refDuplicate(op.Index, r.pairs(), string(p.Key), string(p.Value)); other != "" {
					return other, messages.ErrNotUnique
				}
			}
		}
		r.indexes[op.Index.Name] = op.Index
	case messages.OpDropIndex:
		if _, found := r.indexes[op.Index.Name]; !found {
			return "", messages.ErrNotFound
		}
		delete(r.indexes, op.Index.Name)
	}
	return "", nil
}

// checkTxn is check for a transaction: with one operation that fails, or a
// duplicate at its end, nothing is done.
func (r *indexRun) checkTxn(t *rapid.T, ops []messages.Operation, res messages.Result) {
	t.Helper()
	data, version := maps.Clone(r.data), maps.Clone(r.version)
	r.inTxn = true
	defer func() { r.inTxn = false }()
	var failed error
	for _, op := range ops {
		if _, failed = r.expect(op, res.Version); failed != nil {
			break
		}
	}
	if failed == nil && r.duplicates() {
		failed = messages.ErrNotUnique
	}
	if failed != nil {
		r.data, r.version = data, version
		if !errors.Is(res.Err, failed) || res.Results != nil {
			t.Fatalf("%v: %+v, want %v", ops, res, failed)
		}
		return
	}
	if res.Err != nil {
		t.Fatalf("%v: %+v", ops, res)
	}
}

// duplicates reports whether a unique index of the data would be none.
func (r *indexRun) duplicates() bool {
	for _, def := range r.indexes {
		for _, p := range r.pairs() {
			if strings.HasPrefix(string(p.Key), def.Prefix) && refDuplicate(def, r.pairs(), string(p.Key), string(p.Value)) != "" {
				return true
			}
		}
	}
	return false
}

func (r *indexRun) check(t *rapid.T, op messages.Operation, res messages.Result) {
	t.Helper()
	if op.Kind == messages.OpTxn {
		r.checkTxn(t, op.Txn.Then, res)
		return
	}
	other, err := r.expect(op, res.Version)
	if !errors.Is(res.Err, err) || (err == nil) != (res.Err == nil) {
		t.Fatalf("%v: %v, want %v", op.Kind, res.Err, err)
	}
	var dup *messages.NotUniqueError
	if other != "" && (!errors.As(res.Err, &dup) || op.Kind == messages.OpPut && (string(dup.Key) != string(op.Key) || string(dup.Other) == string(op.Key))) {
		t.Fatalf("%v: %v", op.Kind, res.Err)
	}
}

// indexView is a view beside what there was when it was opened.
type indexView struct {
	kv.View
	pairs   []messages.Pair
	indexes []messages.IndexStatus
}

// check queries an index that the view has, and one that was being built.
func (v *indexView) check(t *rapid.T) {
	for _, x := range v.indexes {
		q := drawQuery(t, x.IndexDefinition)
		if !x.Building {
			checkQuery(t, v, x.IndexDefinition, v.pairs, q)
		} else if _, _, err := v.Query(q); !errors.Is(err, messages.ErrNotReady) {
			t.Fatal(err)
		}
	}
}

// Random definitions, documents, transactions and queries, also in views, with
// slices of the work on indexes, of compactions, and reopening in between, against
// plain sorting.
func TestIndexesBehaveAsTheirModel(t *testing.T) {
	root := memDir(t)
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		opt := kv.Options{Disk: lazyDisk{}, Funcs: testFuncs, IndexSliceKeys: int64(rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "slice")),
			MaxGarbagePercent: 1, MinGarbageBytes: 1, MaintainBytes: 1}
		r := &indexRun{data: map[string]string{}, version: map[string]uint64{}, indexes: map[string]messages.IndexDefinition{}}
		if r.db, err = kv.Open(dir, opt); err != nil {
			t.Fatal(err)
		}
		defer func() { r.db.Close() }()
		var operation func(t *rapid.T) messages.Operation
		operation = func(t *rapid.T) messages.Operation {
			switch rapid.IntRange(0, 12).Draw(t, "kind") {
			case 12: // two pairs swap their values, or one gives the other its own
				if len(r.data) < 2 {
					break
				}
				all := slices.Sorted(maps.Keys(r.data))
				at := rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 2, 2, rapid.ID[int]).Draw(t, "pairs")
				a, b := all[at[0]], all[at[1]]
				then := []messages.Operation{put(a, r.data[b]), put(b, r.data[a])}
				if rapid.Bool().Draw(t, "move") {
					then[1] = del(b)
				}
				return messages.TxnOperation(messages.Transaction{Then: then})
			case 10, 11:
				var then []messages.Operation
				for range rapid.IntRange(1, 4).Draw(t, "operations") {
					if op := operation(t); op.Kind == messages.OpPut || op.Kind == messages.OpDelete {
						then = append(then, op)
					}
				}
				return messages.TxnOperation(messages.Transaction{Then: then})
			case 0:
				return del(indexKey.Draw(t, "key"))
			case 1, 2:
				return messages.CreateIndexOperation(indexDefinition.Draw(t, "definition"))
			case 3:
				return messages.DropIndexOperation(indexName.Draw(t, "name"))
			}
			return put(indexKey.Draw(t, "key"), indexValue.Draw(t, "value"))
		}
		status := func(name string) (x messages.IndexStatus, found bool) {
			for _, x := range r.db.Indexes(0) {
				if _, created := r.indexes[x.Name]; x.Name == name && created {
					return x, true
				}
			}
			return x, false
		}
		var view *indexView
		closeView := func(t *rapid.T) {
			if view == nil {
				return
			}
			if err := view.Close(); err != nil {
				t.Fatal(err)
			}
			view = nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				ops := rapid.SliceOfN(rapid.Custom(operation), 1, 5).Draw(t, "operations")
				results, err := r.db.Write(0, ops)
				if err != nil {
					t.Fatal(err)
				}
				for i, op := range ops {
					r.check(t, op, results[i])
				}
			},
			"apply": func(t *rapid.T) {
				ops := rapid.SliceOfN(rapid.Custom(operation), 1, 5).Draw(t, "operations")
				var entries []messages.Entry
				for _, op := range ops {
					r.applied++
					entries = append(entries, entry(r.applied, op))
				}
				results, err := r.db.Apply(0, entries)
				if err != nil {
					t.Fatal(err)
				}
				for i, op := range ops {
					r.check(t, op, results[i])
				}
			},
			"transaction": func(t *rapid.T) {
				list := rapid.SliceOfN(rapid.Custom(operation), 1, 4).Draw(t, "operations")
				txn := begin(t, r.db)
				var ops []messages.Operation // those that it has taken
				for _, op := range list {
					for _, op := range append([]messages.Operation{op}, then(op)...) {
						if op.Kind != messages.OpPut && op.Kind != messages.OpDelete {
							continue
						}
						res, err := txn.Run(op)
						if err != nil || errors.Is(res.Err, messages.ErrNotUnique) {
							t.Fatal(res.Err, err)
						}
						if res.Err == nil {
							ops = append(ops, op)
						}
					}
				}
				if len(ops) == 0 {
					if err := txn.Close(); err != nil {
						t.Fatal(err)
					}
					return
				}
				var err error
				if rapid.Bool().Draw(t, "logged") {
					err = commitLogged(t, r.db, txn)
					r.applied++
				} else {
					err = commitDirect(t, r.db, txn)
				}
				r.checkTxn(t, ops, messages.Result{Err: err, Version: r.db.Revision(0)})
			},
			"view": func(t *rapid.T) {
				closeView(t)
				v, err := r.db.OpenView(0)
				if err != nil {
					t.Fatal(err)
				}
				view = &indexView{View: v, pairs: r.pairs()}
				for _, x := range r.db.Indexes(0) {
					if _, created := r.indexes[x.Name]; created {
						view.indexes = append(view.indexes, x)
					}
				}
			},
			"query the view": func(t *rapid.T) {
				if view != nil {
					view.check(t)
				}
			},
			"compact": func(t *rapid.T) {
				if _, err := r.db.Maintain(); err != nil {
					t.Fatal(err)
				}
			},
			"maintain": func(t *rapid.T) {
				if err := r.db.MaintainIndexes(); err != nil {
					t.Fatal(err)
				}
			},
			"prepare": func(t *rapid.T) {
				if _, err := r.db.Prepare(0, operation(t)); err != nil {
					t.Fatal(err)
				}
			},
			"query": func(t *rapid.T) {
				for _, name := range slices.Sorted(maps.Keys(r.indexes)) {
					def := r.indexes[name]
					q := drawQuery(t, def)
					if x, found := status(name); !found || !x.Equal(def) {
						t.Fatalf("%+v is not in the list", def)
					} else if x.Building {
						if _, _, err := r.db.Query(q); !errors.Is(err, messages.ErrNotReady) {
							t.Fatal(err)
						}
						continue
					}
					checkQuery(t, r.db, def, r.pairs(), q)
				}
			},
			"reopen": func(t *rapid.T) {
				closeView(t)
				bytes, live := r.db.Size()
				if err := r.db.Close(); err != nil {
					t.Fatal(err)
				}
				if r.db, err = kv.Open(dir, opt); err != nil {
					t.Fatal(err)
				}
				if b, l := r.db.Size(); b != bytes || l != live {
					t.Fatalf("%d of %d bytes are live, they were %d of %d", l, b, live, bytes)
				}
			},
			"export and import": func(t *rapid.T) {
				closeView(t)
				state := export(t, r.db, 0)
				im, err := r.db.BeginImport(0, r.applied, 1)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := im.Write(state); err != nil {
					t.Fatal(err)
				}
				if _, err := im.Finish(); err != nil {
					t.Fatal(err)
				}
				for _, x := range r.db.Indexes(0) {
					if x.Building {
						t.Fatalf("%+v is not complete after an import", x)
					}
				}
			},
			"finish": func(t *rapid.T) { finishIndexes(t, r) },
		})
		closeView(t)
		// What was prepared is garbage after a start.
		if err := r.db.Close(); err != nil {
			t.Fatal(err)
		}
		if r.db, err = kv.Open(dir, opt); err != nil {
			t.Fatal(err)
		}
		finishIndexes(t, r)
		if err := r.db.Close(); err != nil {
			t.Fatal(err)
		}
		entries := 0
		for _, def := range r.indexes {
			all, _ := refIndex(def, r.pairs())
			entries += len(all)
		}
		rep, err := kv.Inspect(dir)
		if err != nil || rep.Damage != nil {
			t.Fatal(rep.Damage, err)
		}
		for _, g := range rep.Groups {
			if g.Entries != entries {
				t.Fatalf("%d entries on disk, want %d", g.Entries, entries)
			}
		}
	})
}

// then are the operations of a transaction.
func then(op messages.Operation) []messages.Operation {
	if op.Txn == nil {
		return nil
	}
	return op.Txn.Then
}

// finishIndexes has the store do what there is to do, and looks at everything.
func finishIndexes(t *rapid.T, r *indexRun) {
	for n := 0; r.db.IndexesDue(); n++ {
		if err := r.db.MaintainIndexes(); err != nil || n > 10_000 {
			t.Fatalf("%d %v %+v", n, err, r.db.Indexes(0))
		}
	}
	statuses := map[string]messages.IndexStatus{}
	for _, x := range r.db.Indexes(0) {
		if _, found := r.indexes[x.Name]; found || !x.Building { // or it is being prepared
			statuses[x.Name] = x
		}
	}
	if len(statuses) != len(r.indexes) {
		t.Fatalf("%+v, want %+v", statuses, r.indexes)
	}
	for name, def := range r.indexes {
		all, skipped := refIndex(def, r.pairs())
		x := statuses[name]
		if !x.Equal(def) || x.Building || x.Entries != len(all) || x.Skipped != skipped {
			t.Fatalf("%+v, want %+v with %d entries, %d skipped", x, def, len(all), skipped)
		}
		checkQuery(t, r.db, def, r.pairs(), messages.QueryIndex{Name: name, Limit: 3})
	}
}
