package kv

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/ballast-raft/ballast/messages"
)

// Anybody can make a cursor with the right checksum. Whatever is in it, it leads
// to nowhere outside of its query.
func FuzzQueryCursor(f *testing.F) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		f.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := Open(dir, Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer db.Close()
	ops := []messages.Operation{messages.CreateIndexOperation(messages.IndexDefinition{Name: "x",
		Fields: []messages.IndexField{{Path: "u"}, {Path: "v", Descending: true}}})}
	for i := range 20 {
		ops = append(ops, messages.PutOperation(fmt.Append(nil, "k", i), fmt.Appendf(nil, `{"u":%d,"v":"%d"}`, i%3, i)))
	}
	if _, err := db.Write(0, ops); err != nil {
		f.Fatal(err)
	}
	q := messages.QueryIndex{Name: "x", Equal: "1", Limit: 3}
	in := map[string]bool{}
	for q.Cursor = nil; ; {
		pairs, next, err := db.Query(q)
		if err != nil {
			f.Fatal(err)
		}
		for _, p := range pairs {
			in[string(p.Key)] = true
		}
		if next == nil {
			break
		}
		f.Add(next[1:len(next)-4], true)
		f.Add(next[1:len(next)-4], false)
		q.Cursor = next
	}
	for _, at := range []string{"", "\x40", "\x08\xf7k", "\x40\xc0\x00\x00\x00\x00\x00\x00\x00\xaf\xff\xfek0", "\xff", "\x40\xbf\xf0\x00\x00\x00\x00\x00\x00\xf7"} {
		f.Add([]byte(at), true)
		f.Add([]byte(at), false)
	}
	if len(in) != 7 {
		f.Fatal(in)
	}
	f.Fuzz(func(t *testing.T, at []byte, reverse bool) {
		q := q
		q.Reverse = reverse
		q.Cursor = encodeCursor(queryCursor, string(at), db.groups[0].indexes[0].identity(q), reverse)
		pairs, _, err := db.Query(q)
		if err != nil {
			if !errors.Is(err, messages.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, p := range pairs {
			if !in[string(p.Key)] {
				t.Fatalf("%x leads to %q", at, p.Key)
			}
		}
	})
}
