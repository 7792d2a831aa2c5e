package kv_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

func createIndex(def messages.IndexDefinition) messages.Operation {
	return messages.CreateIndexOperation(def)
}

// What a query means, over an index of a folded string, a descending number and
// a time.
func TestQueryOfSeveralFields(t *testing.T) {
	db := open(t, memDir(t), lazy)
	mustWrite(t, db, 0, createIndex(messages.IndexDefinition{Name: "x", Fields: []messages.IndexField{
		{Path: "city", Type: messages.IndexString, Fold: true}, {Path: "size", Type: messages.IndexNumber, Descending: true}, {Path: "at", Type: messages.IndexTime}}}))
	for key, doc := range map[string]string{
		"a": `{"city":"Ulm","size":3,"at":"2024-05-01T12:00:00Z"}`,
		"b": `{"city":"ULM","size":3,"at":"2024-05-01T13:00:00+02:00"}`,
		"c": `{"city":"ulm","size":10}`,
		"d": `{"city":"Ulmen","size":"3"}`,
		"e": `{"size":7}`,
		"f": `{"city":null,"size":true,"at":"yesterday"}`,
		"g": `{"city":"Zürich","size":-1}`,
		"h": `{"at":"2024-05-01T12:00:00Z"}`,
	} {
		mustWrite(t, db, 0, put(key, doc))
	}
	for _, c := range []struct {
		q    messages.QueryIndex
		want string
	}{
		{messages.QueryIndex{}, "e h c b a d g"},
		{messages.QueryIndex{Reverse: true}, "g d a b c h e"},
		{messages.QueryIndex{Equal: `"uLm"`}, "c b a"},
		{messages.QueryIndex{Equal: `["ulm",3]`}, "b a"},
		{messages.QueryIndex{Equal: `["ulm",3,"2024-05-01T14:00:00+02:00"]`}, "a"},
		{messages.QueryIndex{Prefix: "UL"}, "c b a d"},
		{messages.QueryIndex{Min: `"ulm"`, MinExclusive: true}, "d g"},
		{messages.QueryIndex{Max: `"ulm"`, MaxExclusive: true}, "e h"},
		{messages.QueryIndex{Min: `["ulm",9]`, Max: `"ulm"`}, "b a"},
		{messages.QueryIndex{Min: `["ulm",10]`, Max: `["ulm",4]`}, "c"},
		{messages.QueryIndex{Min: `["ulm",10]`, MinExclusive: true, Max: `"ulmen"`, MaxExclusive: true}, "b a"},
		{messages.QueryIndex{Min: `"ulm"`, Max: `"ulm"`, MinExclusive: true, MaxExclusive: true}, ""},
	} {
		for _, limit := range []int{0, 1} {
			c.q.Name, c.q.Limit = "x", limit
			if got := keys(queryAll(t, db, c.q)); got != c.want {
				t.Errorf("%+v: %q, want %q", c.q, got, c.want)
			}
		}
	}
	for _, q := range []messages.QueryIndex{{Equal: "3"}, {Equal: `["ulm","3"]`}, {Equal: `["ulm",3,"today"]`}, {Equal: `"ulm"`, Prefix: "3"},
		{Min: `["ulm",3]`, Max: `["ulm",4]`}, {Equal: `["ulm",3,"2024-05-01T12:00:00Z",1]`}} {
		q.Name = "x"
		_, _, err := db.Query(q)
		want(t, fmt.Sprintf("%+v", q), err, messages.ErrInvalid)
	}
	n, next, err := db.Count(messages.QueryIndex{Name: "x", Limit: 5})
	if n != 5 || next == nil || err != nil {
		t.Errorf("counted %d, %v", n, err)
	}
	if n, next, err = db.Count(messages.QueryIndex{Name: "x", Cursor: next}); n != 2 || next != nil || err != nil {
		t.Errorf("counted %d more, %v", n, err)
	}
	_, _, err = db.Count(messages.QueryIndex{Name: "x", Limit: -1})
	want(t, "count", err, messages.ErrInvalid)
	pairs, _, err := db.Query(messages.QueryIndex{Name: "x", KeysOnly: true, Limit: 1})
	if err != nil || len(pairs) != 1 || pairs[0].Value != nil || pairs[0].Version == 0 {
		t.Errorf("%+v, %v", pairs, err)
	}
}

func TestUniqueIndex(t *testing.T) {
	db := open(t, memDir(t), kv.Options{Disk: lazyDisk{}, Funcs: testFuncs})
	def := messages.IndexDefinition{Name: "mail", Prefix: "u/", Unique: true, Fields: []messages.IndexField{{Path: "mail", Fold: true}, {Path: "of"}}}
	doc := func(mail string) string { return `{"of":1,"mail":"` + mail + `"}` }
	type step struct {
		op  messages.Operation
		dup string // "key other"
	}
	for i, s := range []step{
		{put("u/1", doc("a")), ""},
		{put("u/2", doc("b")), ""},
		{put("u/3", doc("A")), ""},
		{put("v/1", doc("a")), ""},
		{createIndex(def), "u/3 u/1"},
		{del("u/1"), ""},
		{createIndex(def), ""},
		{put("u/1", doc("B")), "u/1 u/2"},
		{put("u/3", doc("a")), ""},
		{put("u/3", doc("b")), "u/3 u/2"},
		{put("u/2", doc("c")), ""},
		{cas("u/4", nil, doc("C")), "u/4 u/2"},
		{put("u/3", doc("b")), ""},
		{put("u/4", `{"mail":"b"}`), ""}, // one without a field is not compared
		{put("u/5", `{"mail":"b"}`), ""},
		{put("u/6", `{"mail":null,"of":null}`), ""},
		{put("u/7", `{"mail":null,"of":null}`), "u/7 u/6"},
		{put("u/8", "x"), ""},
		{createIndex(messages.IndexDefinition{Name: "word", Func: "words", Unique: true}), "u/5 u/4"},
	} {
		res := write(t, db, 0, s.op)[0]
		var dup *messages.NotUniqueError
		switch {
		case s.dup == "":
			if errors.Is(res.Err, messages.ErrNotUnique) {
				t.Errorf("step %d: %v", i, res.Err)
			}
		case !errors.As(res.Err, &dup) || !errors.Is(res.Err, messages.ErrNotUnique):
			t.Errorf("step %d: %v", i, res.Err)
		case fmt.Sprintf("%s %s", dup.Key, dup.Other) != s.dup:
			t.Errorf("step %d: %v, want %s", i, dup, s.dup)
		case !strings.Contains(res.Err.Error(), dup.Index) || !strings.Contains(res.Err.Error(), string(dup.Other)):
			t.Errorf("step %d: %q says too little", i, res.Err)
		}
	}
	if got := keys(queryAll(t, db, messages.QueryIndex{Name: "mail", Equal: `"b"`})); got != "u/4 u/5 u/3" {
		t.Errorf("%q", got)
	}
	// The operations of one call see each other.
	r := write(t, db, 0, put("u/a", doc("x")), put("u/b", doc("x")), del("u/a"), put("u/b", doc("X")), put("u/a", doc("x")),
		messages.DropIndexOperation("mail"), put("u/a", doc("x")), createIndex(def), del("u/a"), createIndex(def), put("u/a", doc("x")))
	for i, err := range []error{nil, messages.ErrNotUnique, nil, nil, messages.ErrNotUnique, nil, nil, messages.ErrNotUnique, nil, nil, messages.ErrNotUnique} {
		if !errors.Is(r[i].Err, err) {
			t.Errorf("operation %d: %v, want %v", i, r[i].Err, err)
		}
	}
	finish(t, db)
	if got := len(db.Indexes(0)); got != 1 {
		t.Errorf("%d indexes", got)
	}
	// A state in which a unique index is none was not exported by a store.
	state := export(t, db, 0)
	dups := []byte(strings.Replace(string(state), `"mail":"c"`, `"mail":"B"`, 1))
	sealTrailer(dups)
	im, err := db.BeginImport(7, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.Write(dups); err != nil {
		t.Fatal(err)
	}
	_, err = im.Finish()
	want(t, "finish", err, messages.ErrMalformed)
	if len(db.Indexes(7)) != 0 || db.Keys(7) != 0 {
		t.Error("it was imported all the same")
	}
}

func TestIndexOfAFunction(t *testing.T) {
	dir := memDir(t)
	opt := kv.Options{Disk: lazyDisk{}, Funcs: testFuncs}
	db := open(t, dir, opt)
	mustWrite(t, db, 3, put("a", "two words"), put("b", "stop!"), put("c", ""))
	mustWrite(t, db, 3, createIndex(messages.IndexDefinition{Name: "w", Func: "words"}), put("d", "words and words"))
	for _, c := range []struct {
		q    messages.QueryIndex
		want string
	}{
		{messages.QueryIndex{}, "d a a d"}, {messages.QueryIndex{Equal: "words"}, "a d"}, {messages.QueryIndex{Prefix: "w"}, "a d"},
		{messages.QueryIndex{Min: "b"}, "a a d"}, {messages.QueryIndex{Max: "two"}, "d a"},
	} {
		c.q.Group, c.q.Name, c.q.Limit = 3, "w", 1
		if got := keys(queryAll(t, db, c.q)); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
	for value, want := range map[string]error{"ouch!": messages.ErrInvalid, strings.Repeat("x", messages.MaxIndexKey+1): messages.ErrTooLarge} {
		if r := write(t, db, 3, put("a", value))[0]; !errors.Is(r.Err, want) || !strings.Contains(r.Err.Error(), `"w"`) {
			t.Errorf("%v", r.Err)
		}
	}
	if x := db.Indexes(3)[0]; x.Entries != 4 || x.Skipped != 1 {
		t.Errorf("%+v", x)
	}
	state := export(t, db, 3)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	// Without the function neither this store nor the state can be opened.
	_, err := kv.Open(dir, lazy)
	for _, part := range []string{"group 3", `"w"`, `"words"`} {
		if !errors.Is(err, messages.ErrIncompatible) || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %s", err, part)
		}
	}
	other := open(t, memDir(t), lazy)
	im, err := other.BeginImport(1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = im.Write(state)
	want(t, "import", err, messages.ErrIncompatible)
	db = open(t, dir, opt)
	if got := keys(queryAll(t, db, messages.QueryIndex{Group: 3, Name: "w", Equal: "words"})); got != "a d" {
		t.Errorf("%q after a start", got)
	}
}

// Nothing of an earlier index is seen under its name, and of one that is being
// built nothing at all.
func TestIndexIsBuiltInSlices(t *testing.T) {
	db := open(t, memDir(t), lazy)
	for i := range 1000 {
		mustWrite(t, db, 0, put(fmt.Sprintf("k%04d", i), fmt.Sprintf(`{"u":%d,"v":"%d"}`, i, i)))
	}
	def := messages.IndexDefinition{Name: "x", Fields: messages.Paths("u")}
	mustWrite(t, db, 0, createIndex(def))
	_, _, err := db.Query(messages.QueryIndex{Name: "x"})
	want(t, "query", err, messages.ErrNotReady)
	if !strings.Contains(err.Error(), "128") {
		t.Errorf("%v does not say how far it is", err)
	}
	if x := db.Indexes(0)[0]; !x.Building || x.Examined != 128 || x.Keys != 1000 || x.Entries != 128 {
		t.Errorf("%+v", x)
	}
	finish(t, db)
	def.Fields = messages.Paths("v")
	mustWrite(t, db, 0, messages.DropIndexOperation("x"), createIndex(def))
	_, _, err = db.Query(messages.QueryIndex{Name: "x"})
	want(t, "query", err, messages.ErrNotReady)
	for db.Indexes(0)[0].Building {
		if err := db.MaintainIndexes(); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, err := db.Count(messages.QueryIndex{Name: "x", Min: `""`}); n != 1000 || err != nil {
		t.Errorf("%d strings, %v", n, err)
	}
	// One that must be unique is nothing before it is whole, and then all.
	def = messages.IndexDefinition{Name: "y", Fields: messages.Paths("u"), Unique: true}
	slices := 0
	for ready := false; !ready; slices++ {
		if ready, err = db.Prepare(0, createIndex(def)); err != nil {
			t.Fatal(err)
		}
		if err := db.MaintainIndexes(); err != nil { // of the index that is gone; it takes nothing away
			t.Fatal(err)
		}
		_, _, err = db.Query(messages.QueryIndex{Name: "y"})
		want(t, "query", err, messages.ErrNotFound)
		if x := db.Indexes(0); len(x) != 2 || !x[1].Building || x[1].Name != "y" {
			t.Fatalf("%+v", x)
		}
	}
	if slices != 8 {
		t.Errorf("%d slices", slices)
	}
	mustWrite(t, db, 0, createIndex(def))
	if n, _, err := db.Count(messages.QueryIndex{Name: "y"}); n != 1000 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
}

// A full disk stops the work on indexes, and what is there is served.
func TestIndexesOnAFullDisk(t *testing.T) {
	free := int64(1 << 40)
	db := open(t, memDir(t), kv.Options{Disk: lazyDisk{}, Free: func(string) (int64, error) { return free, nil }})
	for i := range 300 {
		mustWrite(t, db, 0, put(fmt.Sprint("k", i), fmt.Sprintf(`{"u":%d}`, i)))
	}
	unique := createIndex(messages.IndexDefinition{Name: "y", Fields: messages.Paths("u"), Unique: true})
	mustWrite(t, db, 0, createIndex(messages.IndexDefinition{Name: "x", Fields: messages.Paths("u")}))
	free = 0
	want(t, "maintain", db.MaintainIndexes(), messages.ErrDiskFull)
	_, err := db.Prepare(0, unique)
	want(t, "prepare", err, messages.ErrDiskFull)
	_, err = db.Apply(0, []messages.Entry{entry(1, unique)})
	want(t, "apply", err, messages.ErrDiskFull)
	if index, _ := db.Applied(0); index != 0 || db.Poisoned() || !db.IndexesDue() {
		t.Error(index, db.Poisoned(), db.IndexesDue())
	}
	free = 1 << 40
	if r, err := db.Apply(0, []messages.Entry{entry(1, unique)}); err != nil || r[0].Err != nil {
		t.Fatal(r, err)
	}
	finish(t, db)
	for _, name := range []string{"x", "y"} {
		if n, _, err := db.Count(messages.QueryIndex{Name: name}); n != 300 || err != nil {
			t.Errorf("%d entries in %s, %v", n, name, err)
		}
	}
}
