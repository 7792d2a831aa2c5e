package kv_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ballast-raft/ballast/messages"
)

// The version of a pair is the index of the entry that wrote it, however the
// entries come together; direct writes count on from there.
func TestVersions(t *testing.T) {
	one := "1"
	entries := []messages.Entry{
		entry(1, put("a", "1")),
		{Index: 2, Term: 1},
		entry(3, put("b", "1")),
		entry(4, cas("b", &one, "2")),
		entry(5, cas("b", &one, "3")),
		entry(6, del("none")),
		{Index: 7, Term: 1, Data: []byte{0xff}},
		entry(8, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v")})),
		entry(9, put("c", "1")),
		entry(10, del("c")),
		{Index: 11, Term: 1, Type: 3},
	}
	versions := []uint64{1, 0, 3, 4, 0, 0, 0, 8, 9, 10, 0}
	var first []byte
	for size := 1; size <= len(entries); size++ {
		dir := t.TempDir()
		opt := lazy
		opt.CommitBytes = int64(1 + size*10)
		db := open(t, dir, opt)
		for i := 0; i < len(entries); i += size {
			results, err := db.Apply(0, entries[i:min(i+size, len(entries))])
			if err != nil {
				t.Fatal(err)
			}
			for j, r := range results {
				if r.Version != versions[i+j] {
					t.Errorf("steps of %d: entry %d has version %d, want %d", size, i+j+1, r.Version, versions[i+j])
				}
			}
			if got := db.Revision(0); got != entries[min(i+size, len(entries))-1].Index {
				t.Errorf("steps of %d: revision %d after %d entries", size, got, i+size)
			}
		}
		state := export(t, db, 0)
		if first == nil {
			first = state
		}
		if !bytes.Equal(state, first) {
			t.Errorf("steps of %d give another state", size)
		}
		check := func(want map[string]uint64, revision uint64) {
			t.Helper()
			if got := db.Revision(0); got != revision {
				t.Errorf("revision %d, want %d", got, revision)
			}
			for _, p := range scanAll(t, db, messages.Scan{}) {
				if p.Version != want[string(p.Key)] {
					t.Errorf("%v, want version %d", p, want[string(p.Key)])
				}
			}
			for key, version := range want {
				if _, got, err := db.Get(0, []byte(key)); err != nil || got != version {
					t.Errorf("%s: version %d, want %d: %v", key, got, version, err)
				}
			}
		}
		reopen := func() {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = open(t, dir, opt)
		}
		want := map[string]uint64{"a": 1, "b": 4, "c": 0}
		check(want, 11)
		reopen()
		check(want, 11)
		// Direct writes go on from there, those that change nothing do not count.
		if got := fmt.Sprint(revisions(write(t, db, 0, del("c"), put("d", "1"), cas("d", nil, "2"), put("", ""), del("d")))); got != "[0 12 0 0 13]" {
			t.Errorf("direct writes have versions %s", got)
		}
		check(want, 13)
		reopen()
		check(want, 13)
		// An entry behind them does not take the revision back.
		results, err := db.Apply(0, []messages.Entry{entry(12, put("e", "1"))})
		if err != nil || results[0].Version != 14 {
			t.Error(results, err)
		}
		load(t, db, 0, 11, state)
		check(map[string]uint64{"a": 1, "b": 4, "d": 0, "e": 0}, 11)
		if results, err = db.Apply(0, []messages.Entry{entry(12, put("e", "1"))}); err != nil || results[0].Version != 12 {
			t.Error(results, err)
		}
		// Direct writes were fewer than entries elsewhere.
		load(t, db, 0, 50, state)
		if results, err = db.Apply(0, []messages.Entry{entry(51, put("e", "1"))}); err != nil || results[0].Version != 51 {
			t.Error(results, err)
		}
	}
}

func revisions(results []messages.Result) (list []uint64) {
	for _, r := range results {
		list = append(list, r.Version)
	}
	return list
}
