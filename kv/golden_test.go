package kv_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/ballast-raft/ballast/messages"
)

var update = flag.Bool("update", false, "write testdata/format.txt anew")

// The bytes on disk do not change.
func TestFormat(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	dir := t.TempDir()
	db := open(t, dir, lazy)
	var out strings.Builder
	at := int64(0)
	note := func(what string) {
		b := withoutZeros(fileOf(t, dir, "DATA"))
		fmt.Fprintf(&out, "%s, offset %d\n%s\n", what, at, hex.Dump(b[at:]))
		at = int64(len(b))
	}
	note("a new store: header and seal")
	mustWrite(t, db, 0, put("key", "value"))
	note("group 0: put key")
	if _, err := db.Apply(300, []messages.Entry{{Index: 1, Term: 7, Data: put("\x00\xff", "").Encode(nil)}, {Index: 2, Term: 8}}); err != nil {
		t.Fatal(err)
	}
	note("group 300: put 00 ff, applied to index 2 in term 8")
	mustWrite(t, db, 0, del("key"))
	note("group 0: delete key")
	mustWrite(t, db, 1, messages.CreateIndexOperation(messages.IndexDefinition{Name: "by\x00v", Fields: messages.Paths(`a\.b.c`), Prefix: "p\xff"}))
	note("group 1: create an index")
	for i, v := range []string{`null`, `false`, `true`, `1.5`, `-1.5`, `"s\u0000t"`} {
		key := fmt.Sprint("p\xff", i)
		mustWrite(t, db, 1, put(key, `{"a.b":{"c":`+v+`}}`))
	}
	if err := db.Sync(); err != nil {
		t.Fatal(err)
	}
	state := export(t, db, 1)
	fmt.Fprintf(&out, "the state of group 1\n%s\n", hex.Dump(state))

	at = int64(len(withoutZeros(fileOf(t, dir, "DATA"))))
	load(t, db, 1, 5, state)
	note("group 1: an import, staged and adopted")
	if _, _, err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	at = 0
	note("the whole file after a compaction")
	fmt.Fprintf(&out, "MARK\n%s\n", hex.Dump(fileOf(t, dir, "MARK")))
	_, cursor, err := db.Scan(messages.Scan{Group: 1, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "a cursor\n%s\n", hex.Dump(cursor))

	path := filepath.Join("testdata", "format.txt")
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(golden) != out.String() {
		t.Errorf("the format has changed:\n%s", out.String())
	}
}
