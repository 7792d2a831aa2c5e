package kv_test

import (
	"errors"
	"testing"

	"github.com/ballast-raft/ballast/messages"
)

// One condition at a time, over a (version 2, value "m"), b (version 3) and no c.
func TestConditions(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	mustWrite(t, db, 0, put("c", "gone"), put("a", "m"), put("b", ""), del("c"))
	a, c := []byte("a"), []byte("c")
	relations := []messages.Relation{messages.Equal, messages.NotEqual, messages.Less, messages.Greater}
	type condition struct {
		messages.Compare
		holds bool
	}
	var table []condition
	add := func(holds [4]bool, compare func(r messages.Relation) messages.Compare) {
		for i, r := range relations {
			table = append(table, condition{compare(r), holds[i]})
		}
	}
	for value, holds := range map[string][4]bool{"m": {true, false, false, false}, "z": {false, true, true, false}, "": {false, true, false, true}, "mm": {false, true, true, false}} {
		add(holds, func(r messages.Relation) messages.Compare { return messages.ValueIs(a, r, []byte(value)) })
		// No value is related to one that is not there.
		add([4]bool{}, func(r messages.Relation) messages.Compare { return messages.ValueIs(c, r, []byte(value)) })
	}
	for version, holds := range map[uint64][4]bool{2: {true, false, false, false}, 3: {false, true, true, false}, 0: {false, true, false, true}} {
		add(holds, func(r messages.Relation) messages.Compare { return messages.VersionIs(a, r, version) })
	}
	add([4]bool{true, false, false, false}, func(r messages.Relation) messages.Compare { return messages.VersionIs(c, r, 0) })
	table = append(table, []condition{
		{messages.Exists(a), true}, {messages.Exists(c), false}, {messages.Missing(a), false}, {messages.Missing(c), true},
		{messages.RangeUnchanged(nil, nil, 2, 3), true}, {messages.RangeUnchanged(nil, nil, 2, 4), true},
		{messages.RangeUnchanged(nil, nil, 2, 2), false}, {messages.RangeUnchanged(nil, nil, 1, 3), false},
		{messages.RangeUnchanged(nil, nil, 3, 3), false}, {messages.RangeUnchanged(a, []byte("b"), 1, 2), true},
		{messages.RangeUnchanged([]byte("a\x00"), []byte("b"), 0, 0), true}, {messages.RangeUnchanged(c, nil, 0, 0), true},
		{messages.RangeUnchanged(a, a, 0, 0), true}, {messages.RangeUnchanged(a, []byte("b\x00"), 2, 3), true},
	}...)
	for _, row := range table {
		res := write(t, db, 0, messages.TxnOperation(messages.Transaction{If: []messages.Compare{messages.Exists([]byte("b")), row.Compare},
			Then: []messages.Operation{messages.GetOperation(a)}}))[0]
		if res.Succeeded != row.holds || len(res.Results) == 1 != row.holds || res.Version != 0 || res.Err != nil {
			t.Errorf("%+v: %+v, want %t", row.Compare, res, row.holds)
		}
		if row.holds && (string(res.Results[0].Value) != "m" || res.Results[0].Version != 2) {
			t.Errorf("%+v: %+v", row.Compare, res)
		}
	}
	if db.Revision(0) != 4 {
		t.Error("reading has changed something")
	}
}

// All of a transaction or nothing, beside others in the same change.
func TestTransactionIsAtomic(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n"), Prefix: "j"}), put("j1", `{"n":1}`), put("j2", `{"n":2}`), put("k", "0"))
	txn := func(then ...messages.Operation) messages.Operation {
		return messages.TxnOperation(messages.Transaction{Then: then})
	}
	one := "1"
	results := write(t, db, 0,
		put("k", "1"),
		// Fails at its end, after changes of what is there, new, changed in this call, gone and there again.
		txn(put("j1", `{"n":7}`), del("j2"), put("j3", `{"n":3}`), put("k", "2"), del("k"), put("k", "3"), cas("none", &one, "x"), put("j4", "no JSON")),
		txn(messages.GetOperation([]byte("k")), put("k", "4"), messages.GetOperation([]byte("k")), cas("k", &one, "x"), put("j3", `{"n":4}`), del("j1")),
	)
	if err := results[1].Err; !errors.Is(err, messages.ErrNotJSON) || results[1].Version != 0 || results[1].Results != nil {
		t.Errorf("%+v", results[1])
	}
	third := results[2]
	if third.Err != nil || third.Version != 6 || string(third.Results[0].Value) != "1" || third.Results[0].Version != 5 || string(third.Results[2].Value) != "4" || third.Results[2].Version != 6 || third.Results[3].Swapped {
		t.Errorf("%+v", third)
	}
	for range 2 {
		if got := scanAll(t, db, messages.Scan{}); len(got) != 3 || string(got[0].Value) != `{"n":2}` || string(got[1].Value) != `{"n":4}` || string(got[2].Value) != "4" || got[1].Version != 6 {
			t.Errorf("%v", got)
		}
		if got := keys(queryAll(t, db, messages.QueryIndex{Name: "n"})); got != "j2 j3" {
			t.Errorf("index: %s", got)
		}
		if db.Keys(0) != 3 || db.Revision(0) != 6 {
			t.Error(db.Keys(0), db.Revision(0))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, lazy)
	}
	// In a log.
	applied, err := db.Apply(0, []messages.Entry{entry(1, txn(put("k", "5"))), entry(2, txn(put("j1", "no JSON"), put("k", "6"))), entry(3, txn(messages.GetOperation([]byte("k"))))})
	if err != nil || applied[0].Version != 7 || !errors.Is(applied[1].Err, messages.ErrNotJSON) || string(applied[2].Results[0].Value) != "5" || applied[2].Version != 0 {
		t.Errorf("%+v, %v", applied, err)
	}
	// What its gets return is bounded.
	mustWrite(t, db, 0, messages.PutOperation([]byte("big"), make([]byte, messages.MaxValue)))
	get := messages.GetOperation([]byte("big"))
	if r := write(t, db, 0, txn(get))[0]; r.Err != nil || len(r.Results[0].Value) != messages.MaxValue {
		t.Error(r.Err)
	}
	if r := write(t, db, 0, txn(put("k", "7"), get, messages.GetOperation([]byte("k"))))[0]; !errors.Is(r.Err, messages.ErrTooLarge) {
		t.Error(r.Err)
	}
	if value, _, err := db.Get(0, []byte("k")); string(value) != "5" || err != nil {
		t.Errorf("%q %v", value, err)
	}
}
