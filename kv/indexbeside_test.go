package kv_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// A view has the indexes that were whole when it was opened, as they were, while
// their entries go, slice by slice, and others come; one that was being built is
// refused for good.
func TestViewSeesIndexesAsTheyWere(t *testing.T) {
	db := open(t, memDir(t), kv.Options{Disk: lazyDisk{}, IndexSliceKeys: 2})
	for i := range 20 {
		mustWrite(t, db, 0, put(fmt.Sprintf("k%02d", i), fmt.Sprintf(`{"n":%d}`, 100-i)))
	}
	whole := messages.IndexDefinition{Name: "whole", Fields: messages.Paths("n"), Unique: true}
	mustWrite(t, db, 0, createIndex(whole), createIndex(messages.IndexDefinition{Name: "built", Fields: messages.Paths("n")}))
	v, err := db.OpenView(0)
	if err != nil {
		t.Fatal(err)
	}
	before := keys(queryAll(t, db, messages.QueryIndex{Name: "whole"}))
	look := func(when string) {
		t.Helper()
		if got := keys(queryAll(t, v, messages.QueryIndex{Name: "whole", Limit: 7})); got != before {
			t.Fatalf("%s: %s, want %s", when, got, before)
		}
		if n, _, err := v.Count(messages.QueryIndex{Name: "whole", Min: "90"}); n != 11 || err != nil {
			t.Fatal(when, n, err)
		}
		_, _, err := v.Query(messages.QueryIndex{Name: "built"})
		want(t, when, err, messages.ErrNotReady)
		_, _, err = v.Count(messages.QueryIndex{Name: "built"})
		want(t, when, err, messages.ErrNotReady)
	}
	look("at once")
	mustWrite(t, db, 0, put("k03", `{"n":1}`), del("k04"), put("new", `{"n":2}`))
	look("after changes")
	mustWrite(t, db, 0, messages.DropIndexOperation("whole"), createIndex(messages.IndexDefinition{Name: "whole", Fields: messages.Paths("m")}))
	slices := 0
	for ; db.IndexesDue(); slices++ {
		if err := db.MaintainIndexes(); err != nil {
			t.Fatal(err)
		}
		look(fmt.Sprint("after slice ", slices))
	}
	if slices < 10 {
		t.Errorf("only %d slices", slices)
	}
	mustWrite(t, db, 0, put("k05", `{"n":3}`))
	look("after all of it")
	if got := keys(queryAll(t, db, messages.QueryIndex{Name: "whole"})); got != "" {
		t.Errorf("now: %s", got)
	}
	later, err := db.OpenView(0)
	if err != nil {
		t.Fatal(err)
	}
	if n, _, err := later.Count(messages.QueryIndex{Name: "built"}); n != 20 || err != nil {
		t.Error(n, err)
	}
	if err := errors.Join(v.Close(), later.Close()); err != nil {
		t.Fatal(err)
	}
}

// A transaction that fails takes back what it has claimed in a unique index, what
// it has given free there, and what it has counted.
func TestTransactionsAndUniqueIndexes(t *testing.T) {
	db := open(t, memDir(t), lazy)
	mustWrite(t, db, 0, put("old", "no JSON"), put("a", `{"n":1}`), createIndex(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n"), Unique: true}))
	txn := func(then ...messages.Operation) messages.Operation {
		return messages.TxnOperation(messages.Transaction{Then: then})
	}
	results := write(t, db, 0,
		txn(put("b", `{"n":2}`), put("c", `{"n":1}`)), // of a
		put("d", `{"n":2}`),                           // free again
		txn(del("a"), put("old", `{"n":3}`), put("b", `{"n":1}`), put("c", "no JSON")),
		put("e", `{"n":1}`), // still of a
		put("f", `{"n":3}`), // free again
		txn(del("a"), put("c", `{"n":1}`), put("d", `{"n":4}`)), // moved
		put("a", `{"n":2}`), // of nobody
		put("e", `{"n":1}`), // of c
	)
	for i, want := range []error{messages.ErrNotUnique, nil, messages.ErrNotJSON, messages.ErrNotUnique, nil, nil, nil, messages.ErrNotUnique} {
		if !errors.Is(results[i].Err, want) || (want == nil) != (results[i].Err == nil) {
			t.Errorf("operation %d: %v, want %v", i, results[i].Err, want)
		}
	}
	var dup *messages.NotUniqueError
	if !errors.As(results[0].Err, &dup) || string(dup.Key) != "c" || string(dup.Other) != "a" {
		t.Errorf("%v", results[0].Err)
	}
	if got := keys(queryAll(t, db, messages.QueryIndex{Name: "n"})); got != "c a f d" {
		t.Error(got)
	}
	if x := db.Indexes(0)[0]; x.Skipped != 1 || x.Entries != 4 {
		t.Errorf("%+v", x)
	}
	mustWrite(t, db, 0, txn(put("old", `{"n":5}`)))
	if x := db.Indexes(0)[0]; x.Skipped != 0 || x.Entries != 5 {
		t.Errorf("%+v", x)
	}
}

// Whoever only reads needs no functions; who may write must have them.
func TestReadOnlyNeedsNoFunctions(t *testing.T) {
	dir := memDir(t)
	db := open(t, dir, kv.Options{Funcs: testFuncs, IndexSliceKeys: 1})
	mustWrite(t, db, 0, put("a", "x y"), put("b", "y"), createIndex(messages.IndexDefinition{Name: "words", Func: "words", Unique: false}))
	finish(t, db)
	mustWrite(t, db, 0, createIndex(messages.IndexDefinition{Name: "tail", Func: "tail"}))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := kv.Open(dir, lazy)
	want(t, "open", err, messages.ErrIncompatible)
	db, err = kv.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := keys(queryAll(t, db, messages.QueryIndex{Name: "words", Equal: "y"})); got != "a b" {
		t.Error(got)
	}
	_, _, err = db.Query(messages.QueryIndex{Name: "tail"})
	want(t, "query", err, messages.ErrNotReady)
	if db.IndexesDue() {
		t.Error("there is something to do")
	}
}
