package snapshot_test

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ballast-raft/ballast/snapshot"
)

func Example() {
	path, err := os.MkdirTemp("", "snapshots")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(path)
	var store snapshot.Store
	store, err = snapshot.OpenDir(path, snapshot.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	// The state of group 0 after the entry with index 1000 and term 3.
	w, err := store.Create(0, 1000, 3, []byte("voters: a b c"))
	if err != nil {
		panic(err)
	}
	if _, err := io.Copy(w, strings.NewReader(strings.Repeat("key=value\n", 1000))); err != nil {
		panic(err) // the snapshot is gone already
	}
	if _, err := w.Finish(); err != nil {
		panic(err)
	}

	latest, damaged, err := store.Latest(0)
	if err != nil {
		panic(err)
	}
	for _, d := range damaged {
		fmt.Println("passed over:", d)
	}
	r, err := store.Open(latest.ID)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	state, err := io.ReadAll(r)
	fmt.Println(latest.Index, latest.Term, string(latest.Meta), len(state), err)
	// Output: 1000 3 voters: a b c 10000 <nil>
}
