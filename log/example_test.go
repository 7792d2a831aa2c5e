package log_test

import (
	"fmt"
	"os"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// A log is opened, written in two steps (stage, then sync) and read back. After
// a snapshot at index 2 the front goes; after a conflict, the back.
func Example() {
	dir, err := os.MkdirTemp("", "raftlog")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	log, err := raftlog.Open(dir, raftlog.Options{})
	if err != nil {
		panic(err)
	}
	defer log.Close()

	const group = 0
	if _, err := log.Append(group, []messages.Entry{
		{Term: 1, Data: []byte("x=1")},
		{Term: 1, Data: []byte("y=2")},
		{Term: 2, Data: []byte("x=3")},
	}, &messages.HardState{Term: 2, Vote: 1, Commit: 2}); err != nil {
		panic(err)
	}
	if changes, err := log.Sync(); err == nil {
		fmt.Println("durable:", changes, "change")
	}
	entries, err := log.Entries(group, 1, 4, 0)
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		fmt.Printf("%d/%d %s\n", e.Index, e.Term, e.Data)
	}

	if _, err := log.TruncateBefore(group, 3); err != nil {
		panic(err)
	}
	if _, err := log.TruncateFrom(group, 3); err != nil {
		panic(err)
	}
	if _, err := log.Append(group, []messages.Entry{{Term: 3, Data: []byte("x=4")}}, nil); err != nil {
		panic(err)
	}
	if _, err := log.Sync(); err != nil {
		panic(err)
	}
	b := log.Bounds(group)
	fmt.Println("from", b.First, "to", b.Last, "after term", b.PrevTerm, "up to term", b.LastTerm)
	// Output:
	// durable: 1 change
	// 1/1 x=1
	// 2/1 y=2
	// 3/2 x=3
	// from 3 to 3 after term 1 up to term 3
}
