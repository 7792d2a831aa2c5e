package kv_test

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

func Example() {
	dir, err := os.MkdirTemp("", "kv")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		panic(err)
	}
	defer db.Close()

	// Committed entries change the data; an index keeps it sorted by a field.
	const group = 0
	ops := []messages.Operation{
		messages.CreateIndexOperation(messages.IndexDefinition{Name: "age", Prefix: "user/", Fields: messages.Paths("age")}),
		messages.PutOperation([]byte("user/ann"), []byte(`{"age":34}`)),
		messages.PutOperation([]byte("user/bob"), []byte(`{"age":27}`)),
	}
	var entries []messages.Entry
	for i, op := range ops {
		entries = append(entries, messages.Entry{Index: uint64(i + 1), Term: 1, Data: op.Encode(nil)})
	}
	if _, err := db.Apply(group, entries); err != nil {
		panic(err)
	}
	if err := db.Sync(); err != nil { // from here on it survives power loss
		panic(err)
	}
	pairs, _, err := db.Query(messages.QueryIndex{Group: group, Name: "age", Max: "40"})
	if err != nil {
		panic(err)
	}
	for _, p := range pairs {
		fmt.Printf("%s %s\n", p.Key, p.Value)
	}

	// A view is the state at one point in time, and another group's start.
	view, err := db.OpenExport(group)
	if err != nil {
		panic(err)
	}
	defer view.Close()
	if _, err := db.Write(group, []messages.Operation{messages.DeleteOperation([]byte("user/ann"))}); err != nil {
		panic(err)
	}
	var state bytes.Buffer
	if _, err := io.Copy(&state, view); err != nil {
		panic(err)
	}
	index, term := view.Index()
	im, err := db.BeginImport(7, index, term)
	if err != nil {
		panic(err)
	}
	if _, err := io.Copy(im, &state); err != nil {
		panic(err)
	}
	n, err := im.Finish()
	fmt.Println(n, "keys imported,", db.Keys(group), "left,", err)
	// Output:
	// user/bob {"age":27}
	// user/ann {"age":34}
	// 2 keys imported, 1 left, <nil>
}

// One key of an exported state, which may be far larger than memory: only the
// end, a page or two of its sparse index and the block with the key are read.
func ExampleOpenState() {
	dir, err := os.MkdirTemp("", "kv")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	for _, name := range []string{"ann", "bob", "eve"} {
		op := messages.PutOperation([]byte("user/"+name), []byte("hello "+name))
		if _, err := db.Write(0, []messages.Operation{op}); err != nil {
			panic(err)
		}
	}
	view, err := db.OpenExport(0)
	if err != nil {
		panic(err)
	}
	defer view.Close()
	exported, err := io.ReadAll(view) // in a snapshot, as a rule
	if err != nil {
		panic(err)
	}

	state, err := kv.OpenState(bytes.NewReader(exported), int64(len(exported)))
	if err != nil {
		panic(err)
	}
	value, version, err := state.Get([]byte("user/bob"))
	fmt.Printf("%s, version %d, %v\n", value, version, err)
	for pair, err := range state.Range([]byte("user/b"), nil) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", pair.Key)
	}
	// Output:
	// hello bob, version 2, <nil>
	// user/bob
	// user/eve
}
