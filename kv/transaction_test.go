package kv_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

func begin(t rapid.TB, db *kv.DB) kv.Txn {
	t.Helper()
	txn, err := db.Begin(0, false)
	if err != nil {
		t.Fatal(err)
	}
	return txn
}

func run(t rapid.TB, txn kv.Txn, ops ...messages.Operation) {
	t.Helper()
	for _, op := range ops {
		if res, err := txn.Run(op); err != nil || res.Err != nil {
			t.Fatal(res.Err, err)
		}
	}
}

// commitDirect and commitLogged are the two ways of a commit.
func commitDirect(t rapid.TB, db *kv.DB, txn kv.Txn) error {
	t.Helper()
	results, err := db.Commit(0, []kv.Change{{Txn: txn}})
	if err != nil {
		t.Fatal(err)
	}
	if err := txn.Close(); err != nil {
		t.Fatal(err)
	}
	return results[0].Err
}

func commitLogged(t rapid.TB, db *kv.DB, txn kv.Txn) error {
	t.Helper()
	op, err := txn.Prepare()
	if err := txn.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		return err
	}
	return applyPrepared(t, db, op)
}

func applyPrepared(t rapid.TB, db *kv.DB, op messages.Operation) error {
	t.Helper()
	index, _ := db.Applied(0)
	results, err := db.Apply(0, []messages.Entry{{Index: index + 1, Term: 1, Data: op.Encode(nil)}})
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Err == nil && !results[0].Succeeded {
		return messages.ErrConflict
	}
	return results[0].Err
}

// What a transaction has read, and what then happens beside it.
func TestConflicts(t *testing.T) {
	get := func(key string) func(kv.Txn) error {
		return func(x kv.Txn) error { _, _, err := x.Get([]byte(key)); return err }
	}
	scan := func(q messages.Scan) func(kv.Txn) error {
		return func(x kv.Txn) error { _, _, err := x.Scan(q); return err }
	}
	query := func(q messages.QueryIndex) func(kv.Txn) error {
		q.Name = "n"
		return func(x kv.Txn) error { _, _, err := x.Query(q); return err }
	}
	doc := func(key string, n int) messages.Operation { return put(key, fmt.Sprintf(`{"n":%d}`, n)) }
	b := func(s string) []byte { return []byte(s) }
	for name, c := range map[string]struct {
		read   func(kv.Txn) error
		beside messages.Operation
		direct bool // a conflict
		logged bool // also where a log drives the data
	}{
		"nothing read":                    {func(kv.Txn) error { return nil }, doc("w", 1), false, false},
		"a key, another changed":          {get("ja"), doc("jb", 9), false, false},
		"a key, changed":                  {get("ja"), doc("ja", 9), true, true},
		"a key, written as it was":        {get("ja"), doc("ja", 1), true, true},
		"a key, removed":                  {get("ja"), del("ja"), true, true},
		"no key, there now":               {get("jaa"), doc("jaa", 9), true, true},
		"no key, removed in vain":         {get("jaa"), del("jaa"), false, false},
		"several keys":                    {func(x kv.Txn) error { _, _, err := x.MultiGet([][]byte{b("jb"), b("ja")}); return err }, del("ja"), true, true},
		"a range, one changed":            {scan(messages.Scan{}), doc("jc", 9), true, true},
		"a range, one more":               {scan(messages.Scan{}), doc("jbb", 9), true, true},
		"a range, one removed":            {scan(messages.Scan{}), del("jc"), true, true},
		"a range, beyond it":              {scan(messages.Scan{To: b("jc")}), doc("jc", 9), false, false},
		"a range, keys only, changed":     {scan(messages.Scan{KeysOnly: true}), doc("jb", 9), true, true},
		"an empty range, one more":        {scan(messages.Scan{Prefix: b("jx")}), doc("jxa", 9), true, true},
		"a page, before its end":          {scan(messages.Scan{Limit: 2}), doc("jaa", 9), true, true},
		"a page, its last":                {scan(messages.Scan{Limit: 2}), del("jb"), true, true},
		"a page, after it":                {scan(messages.Scan{Limit: 2}), doc("jba", 9), false, false},
		"a page from the end, before it":  {scan(messages.Scan{Limit: 2, Reverse: true}), doc("jbb", 9), false, false},
		"a page from the end, in it":      {scan(messages.Scan{Limit: 2, Reverse: true}), doc("jcc", 9), true, true},
		"a count":                         {func(x kv.Txn) error { _, _, err := x.CountKeys(messages.Scan{}); return err }, doc("jzz", 9), true, true},
		"an index, one moves into it":     {query(messages.QueryIndex{Min: "3", Max: "4"}), doc("ja", 3), true, true},
		"an index, one moves out of it":   {query(messages.QueryIndex{Min: "3", Max: "4"}), doc("jc", 9), true, true},
		"an index, one changes in it":     {query(messages.QueryIndex{Equal: "3"}), put("jc", `{"n":3,"x":1}`), true, true},
		"an index, one changes beside it": {query(messages.QueryIndex{Equal: "3"}), doc("ja", 9), false, true}, // all that it is about
		"an index, beyond its prefix":     {query(messages.QueryIndex{Equal: "3"}), doc("w2", 3), false, false},
		"overlapping ranges, in the later one": {func(x kv.Txn) error {
			return errors.Join(scan(messages.Scan{From: b("jb")})(x), scan(messages.Scan{To: b("jc")})(x))
		}, doc("jz", 9), true, true},
		"what it wrote itself":       {func(x kv.Txn) error { _, err := x.Run(doc("ja", 5)); return errors.Join(err, get("ja")(x)) }, doc("ja", 9), false, false},
		"a compare-and-swap":         {func(x kv.Txn) error { one := `{"n":1}`; _, err := x.Run(cas("ja", &one, "{}")); return err }, doc("ja", 9), true, true},
		"a compare-and-swap in vain": {func(x kv.Txn) error { _, err := x.Run(cas("ja", nil, "{}")); return err }, del("ja"), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, mode := range []string{"direct", "in the same change", "prepared before", "prepared behind"} {
				db := open(t, memDir(t), lazy)
				mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n"), Prefix: "j"}), doc("ja", 1), doc("jb", 2), doc("jc", 3), doc("jd", 4))
				txn := begin(t, db)
				if err := c.read(txn); err != nil {
					t.Fatal(err)
				}
				run(t, txn, put("mine", "1"))
				conflict := c.logged
				var err error
				switch mode {
				case "in the same change":
					conflict = c.direct
					results, e := db.Commit(0, []kv.Change{{Operation: c.beside}, {Txn: txn}})
					if e != nil {
						t.Fatal(e)
					}
					err = results[1].Err
				case "prepared before":
					op, e := txn.Prepare()
					if e != nil {
						t.Fatal(e)
					}
					mustWrite(t, db, 0, c.beside)
					err = applyPrepared(t, db, op)
				case "prepared behind":
					mustWrite(t, db, 0, c.beside)
					err = commitLogged(t, db, txn)
				default:
					mustWrite(t, db, 0, c.beside)
					conflict = c.direct
					err = commitDirect(t, db, txn)
				}
				if err := txn.Close(); err != nil {
					t.Fatal(err)
				}
				if err != nil && !errors.Is(err, messages.ErrConflict) || (err != nil) != conflict {
					t.Errorf("%s: %v, want a conflict: %t", mode, err, conflict)
				}
				if _, version, err := db.Get(0, []byte("mine")); err != nil || (version > 0) == conflict {
					t.Errorf("%s: written at %d: %v", mode, version, err)
				}
			}
		})
	}
}

// What a transaction sees and writes, its limits and its end.
func TestTransaction(t *testing.T) {
	for name, commit := range map[string]func(rapid.TB, *kv.DB, kv.Txn) error{"direct": commitDirect, "logged": commitLogged} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := open(t, dir, kv.Options{MaxTxnBytes: 100_000, MaxViewBytes: 200_000})
			mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n"), Prefix: "j"}))
			mustWrite(t, db, 0, put("j1", `{"n":1}`), put("j2", `{"n":2}`), put("j3", `{"n":3}`), put("k", "0"))
			txn := begin(t, db)
			if txn.Writes() {
				t.Error("it has written nothing")
			}
			run(t, txn, put("j1", `{"n":9}`), del("j2"), put("j0", `{"n":0}`), put("new", "1"), del("new"), del("none"))
			if got := keys(scanAll(t, txn, messages.Scan{Limit: 2})); got != "j0 j1 j3 k" {
				t.Errorf("it sees %s", got)
			}
			if got := keys(scanAll(t, txn, messages.Scan{Limit: 1, Reverse: true})); got != "k j3 j1 j0" {
				t.Errorf("from the end: %s", got)
			}
			if got := keys(queryAll(t, txn, messages.QueryIndex{Name: "n", Limit: 1})); got != "j0 j3 j1" {
				t.Errorf("by the index: %s", got)
			}
			if v, version, err := txn.Get([]byte("j1")); err != nil || string(v) != `{"n":9}` || version != 1<<64-1 {
				t.Error(string(v), version, err)
			}
			if v, version, err := txn.Get([]byte("j2")); err != nil || v != nil || version != 0 {
				t.Error(string(v), version, err)
			}
			if res, err := txn.Run(put("j3", `{"n":3}`)); err != nil || res.Existed || res.Version != 0 {
				t.Error(res, err)
			}
			if res, err := txn.Run(put("j1", "no JSON")); err != nil || !errors.Is(res.Err, messages.ErrNotJSON) {
				t.Error(res, err)
			}
			if got := keys(scanAll(t, db, messages.Scan{})); got != "j1 j2 j3 k" {
				t.Errorf("others see %s", got)
			}
			before := db.Revision(0)
			if err := commit(t, db, txn); err != nil {
				t.Fatal(err)
			}
			pairs := scanAll(t, db, messages.Scan{})
			if keys(pairs) != "j0 j1 j3 k" || pairs[0].Version != before+1 || pairs[1].Version != before+1 || db.Revision(0) != before+1 {
				t.Errorf("%v", pairs)
			}
			if got := keys(queryAll(t, db, messages.QueryIndex{Name: "n"})); got != "j0 j3 j1" {
				t.Errorf("by the index: %s", got)
			}

			// Two that write blindly do not meet; two that read what the other writes do.
			blind, other := begin(t, db), begin(t, db)
			run(t, blind, put("k", "1"), del("gone"))
			run(t, other, put("k", "2"), put("gone", "1"))
			if err := errors.Join(commit(t, db, other), commit(t, db, blind)); err != nil {
				t.Error(err)
			}
			if got := keys(scanAll(t, db, messages.Scan{From: []byte("g")})); got != "j0 j1 j3 k" {
				t.Errorf("the second has removed it: %s", got)
			}
			left, right := begin(t, db), begin(t, db) // write skew
			for x, names := range map[kv.Txn][2]string{left: {"j0", "j1"}, right: {"j1", "j0"}} {
				if _, _, err := x.Get([]byte(names[0])); err != nil {
					t.Fatal(err)
				}
				run(t, x, put(names[1], "{}"))
			}
			if err := commit(t, db, left); err != nil {
				t.Error(err)
			}
			if err := commit(t, db, right); !errors.Is(err, messages.ErrConflict) {
				t.Error(err)
			}

			// An index that came after it began: the writes do not fit it, all fail.
			txn = begin(t, db)
			run(t, txn, put("a", "1"), put("z", "no JSON"))
			mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "z", Fields: messages.Paths("n"), Prefix: "z"}))
			if err := commit(t, db, txn); !errors.Is(err, messages.ErrNotJSON) {
				t.Error(err)
			}
			if _, version, err := db.Get(0, []byte("a")); version > 0 || err != nil {
				t.Error(version, err)
			}

			// Limits.
			for what, fill := range map[string]func(x kv.Txn, i int) error{
				"bytes written": func(x kv.Txn, i int) error { _, err := x.Run(put("big", string(make([]byte, 9000)))); return err },
				"keys written":  func(x kv.Txn, i int) error { _, err := x.Run(put(fmt.Sprint(i), "")); return err },
				"keys read":     func(x kv.Txn, i int) error { _, _, err := x.Get([]byte(fmt.Sprint(i))); return err },
				"ranges read": func(x kv.Txn, i int) error {
					_, _, err := x.Scan(messages.Scan{Prefix: []byte(fmt.Sprintf("x%d/", i))})
					return err
				},
			} {
				x := begin(t, db)
				var err error
				for i := 0; i <= messages.MaxTxnOperations && err == nil; i++ {
					err = fill(x, i)
				}
				want(t, what, err, messages.ErrTooLarge)
				if err := x.Close(); err != nil {
					t.Fatal(err)
				}
			}
			x := begin(t, db)
			for i := range 20_000 { // the same again costs nothing
				if _, _, err := x.Get([]byte("k")); err != nil {
					t.Fatal(i, err)
				}
			}
			for _, op := range []messages.Operation{messages.DropIndexOperation("n"), messages.GetOperation([]byte("k")), put("", ""), {}} {
				_, err := x.Run(op)
				want(t, "run", err, messages.ErrInvalid)
			}

			// One that is expired, closed, of another group, or only reads.
			fill(t, db, 0, 2000, 200)
			_, err := x.Run(put("k", "1"))
			want(t, "an expired one", err, messages.ErrExpired)
			y := begin(t, db)
			run(t, y, put("k", "1"))
			if err := y.Close(); err != nil {
				t.Fatal(err)
			}
			if err := commit(t, db, y); !errors.Is(err, messages.ErrExpired) {
				t.Error(err)
			}
			y = begin(t, db)
			run(t, y, put("k", "1"))
			results, err := db.Commit(1, []kv.Change{{Txn: y}})
			if err != nil || !errors.Is(results[0].Err, messages.ErrInvalid) {
				t.Error(results, err)
			}
			reader, err := db.Begin(0, true)
			if err != nil {
				t.Fatal(err)
			}
			mustWrite(t, db, 0, put("k", "changed"))
			if v, _, err := reader.Get([]byte("k")); err != nil || string(v) == "changed" || reader.Writes() {
				t.Error(string(v), err)
			}
			_, err = reader.Run(put("k", "1"))
			want(t, "a reader writes", err, messages.ErrInvalid)
			if err := errors.Join(reader.Close(), y.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The pages of a scan are one range.
func TestPagesAreOneRange(t *testing.T) {
	db := open(t, memDir(t), lazy)
	fill(t, db, 0, messages.MaxTxnOperations+10, 20)
	for _, reverse := range []bool{false, true} {
		txn := begin(t, db)
		if got := scanAll(t, txn, messages.Scan{Limit: 1, Reverse: reverse, KeysOnly: true}); len(got) != db.Keys(0) {
			t.Error(len(got))
		}
		run(t, txn, put("x", "1"))
		op, err := txn.Prepare()
		if err != nil || len(op.Txn.If) != 1 || op.Txn.If[0].Count != uint64(db.Keys(0)) || op.Txn.If[0].To != nil {
			t.Error(op.Txn.If, err)
		}
		if err := txn.Close(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, db, 0, put("x", "0"))
	}
	// Beyond the bound of conditions.
	fill(t, db, 0, messages.MaxTxnRange, 20)
	txn := begin(t, db)
	if _, _, err := txn.CountKeys(messages.Scan{Limit: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	run(t, txn, put("x", "1"))
	_, err := txn.Prepare()
	want(t, "prepare", err, messages.ErrTooLarge)
	if err := commitDirect(t, db, txn); err != nil { // which has no conditions to apply
		t.Error(err)
	}
}

// An index that was read and dropped since cannot tell of a phantom any more.
func TestDroppedIndexConflicts(t *testing.T) {
	db := open(t, memDir(t), lazy)
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}), put("a", `{"n":1}`))
	txn := begin(t, db)
	if _, _, err := txn.Query(messages.QueryIndex{Name: "n", Equal: "2"}); err != nil {
		t.Fatal(err)
	}
	run(t, txn, put("mine", "1"))
	mustWrite(t, db, 0, messages.DropIndexOperation("n"))
	mustWrite(t, db, 0, put("phantom", `{"n":2}`))
	results, err := db.Commit(0, []kv.Change{{Txn: txn}})
	if err == nil {
		err = results[0].Err
	}
	if !errors.Is(err, messages.ErrConflict) {
		t.Errorf("committed beside a phantom: %v", err)
	}
}

// What was asked of an index depends, in a log, on all pairs that the index is
// about: a transaction that could not hold there is a conflict at once, and no
// entry.
func TestPreparedIndexReadConflictsAtOnce(t *testing.T) {
	db := open(t, memDir(t), lazy)
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}), put("a", `{"n":1}`))
	for _, changed := range []bool{false, true} {
		txn := begin(t, db)
		if _, _, err := txn.Query(messages.QueryIndex{Name: "n", Equal: "2"}); err != nil {
			t.Fatal(err)
		}
		run(t, txn, put("mine", "1"))
		if changed {
			mustWrite(t, db, 0, put("b", `{"n":3}`)) // in another part of the index
		}
		op, err := txn.Prepare()
		if err := txn.Close(); err != nil {
			t.Fatal(err)
		}
		if changed {
			want(t, "prepare", err, messages.ErrConflict)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if results, err := db.Write(0, []messages.Operation{op}); err != nil || !results[0].Succeeded {
			t.Errorf("%+v %v", results, err)
		}
	}
}
