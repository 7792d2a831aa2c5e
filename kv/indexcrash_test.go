package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// anyIndexEntries are entries of a group in which much happens to indexes.
func anyIndexEntries(r *rand.Rand, n int) (entries []messages.Entry) {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	for i := range n {
		var op messages.Operation
		switch r.IntN(12) {
		case 0:
			op = del(fmt.Sprint(pick("a", "b"), r.IntN(20)))
		case 1, 2:
			def := messages.IndexDefinition{Name: pick("x", "y"), Prefix: pick("", "a"), Unique: r.IntN(2) == 0}
			if r.IntN(3) == 0 {
				def.Func = pick("words", "tail")
			} else {
				def.Fields = []messages.IndexField{{Path: "u", Fold: true}, {Path: pick("v", "w"), Descending: true}}
			}
			op = messages.CreateIndexOperation(def)
		case 3:
			op = messages.DropIndexOperation(pick("x", "y"))
		default:
			op = put(fmt.Sprint(pick("a", "b"), r.IntN(20)), pick("no JSON", "stop!", `{"u":"A"}`, `{"w":null}`,
				fmt.Sprintf(`{"u":%d,"v":%d}`, r.IntN(20), r.IntN(20)), fmt.Sprintf(`{"u":%d,"w":%d}`, r.IntN(50), r.IntN(50))))
		}
		entries = append(entries, entry(uint64(i+1), op))
	}
	return entries
}

// described is everything that replicas must agree on.
func described(results []messages.Result) (list []string) {
	for _, r := range results {
		list = append(list, fmt.Sprintf("%+v", r))
	}
	return list
}

func finish(t *testing.T, db *kv.DB) {
	t.Helper()
	for n := 0; db.IndexesDue(); n++ {
		if err := db.MaintainIndexes(); err != nil || n > 10_000 {
			t.Fatal(n, err)
		}
	}
}

// content is what a client can learn of a group's indexes.
func content(t *testing.T, db *kv.DB) string {
	t.Helper()
	var b strings.Builder
	for _, x := range db.Indexes(0) {
		fmt.Fprintf(&b, "%+v: %q\n", x, queryAll(t, db, messages.QueryIndex{Name: x.Name, Limit: 7}))
	}
	return b.String()
}

// The same entries have the same results and make the same state, however they
// are batched, however far indexes are, and wherever a crash takes back what was
// not synced.
func TestIndexesAreDeterministic(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		entries := anyIndexEntries(r, 150)

		// One by one, every index at once.
		plain := open(t, memDir(t), kv.Options{Disk: lazyDisk{}, Funcs: testFuncs, IndexSliceKeys: 1 << 20})
		var want []string
		for _, e := range entries {
			results, err := plain.Apply(0, []messages.Entry{e})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, described(results)...)
		}

		root := memDir(t)
		opt := kv.Options{Disk: lazyDisk{}, Funcs: testFuncs, IndexSliceKeys: int64(1 + r.IntN(4)), CommitBytes: int64(1 + r.IntN(500))}
		lives := 0
		db, err := kv.Open(filepath.Join(root, "0"), opt)
		if err != nil {
			t.Fatal(err)
		}
		synced := len(fileOf(t, root, "0/DATA")) // by Open
		for {
			applied, _ := db.Applied(0)
			if int(applied) == len(entries) {
				break
			}
			switch r.IntN(8) {
			case 0, 1:
				if err := db.MaintainIndexes(); err != nil {
					t.Fatal(err)
				}
			case 2, 3:
				if op, needs := kv.NeedsPreparation(entries[applied]); needs {
					if _, err := db.Prepare(0, op); err != nil {
						t.Fatal(err)
					}
				}
			case 4:
				if lives > 30 {
					continue
				}
				// A part of what was not synced is lost.
				lives++
				from, to := filepath.Join(root, fmt.Sprint(lives-1)), filepath.Join(root, fmt.Sprint(lives))
				if err := os.CopyFS(to, os.DirFS(from)); err != nil {
					t.Fatal(err)
				}
				data := fileOf(t, to, "DATA")
				if err := os.Truncate(filepath.Join(to, "DATA"), int64(synced+r.IntN(len(data)-synced+1))); err != nil {
					t.Fatal(err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				if db, err = kv.Open(to, opt); err != nil {
					t.Fatal(err)
				}
				synced = len(fileOf(t, to, "DATA"))
			default:
				batch := entries[applied:min(int(applied)+1+r.IntN(12), len(entries))]
				results, err := db.Apply(0, batch)
				if err != nil {
					t.Fatal(err)
				}
				if got := described(results); !reflect.DeepEqual(got, want[applied:int(applied)+len(batch)]) {
					t.Fatalf("seed %d: entries from %d on:\n%s\nwant\n%s", seed, applied+1, got, want[applied:int(applied)+len(batch)])
				}
			}
		}
		if !bytes.Equal(export(t, db, 0), export(t, plain, 0)) {
			t.Fatalf("seed %d: the states differ", seed)
		}
		finish(t, db)
		finish(t, plain)
		if got, want := content(t, db), content(t, plain); got != want {
			t.Fatalf("seed %d:\n%s\nwant\n%s", seed, got, want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever a crash leaves of the file while indexes are built and dropped: what
// was complete is complete, the rest goes on, and nothing is left over.
func TestIndexesAtEveryCut(t *testing.T) {
	dir := memDir(t)
	opt := kv.Options{Disk: lazyDisk{}, Funcs: testFuncs, IndexSliceKeys: 3}
	db := open(t, dir, opt)
	for i := range 20 {
		mustWrite(t, db, 0, put(fmt.Sprintf("k%02d", i), fmt.Sprintf(`{"u":%d,"v":%d}`, i%5, i)))
	}
	size := func() int64 { return int64(len(fileOf(t, dir, "DATA"))) }
	// complete has, by the length of the file, the indexes that are complete.
	type moment struct {
		end      int64
		complete []string
	}
	began := size()
	var story []moment
	note := func() {
		var names []string
		for _, x := range db.Indexes(0) {
			if !x.Building {
				names = append(names, x.Name)
			}
		}
		story = append(story, moment{size(), names})
	}
	work := func() {
		for db.IndexesDue() {
			if err := db.MaintainIndexes(); err != nil {
				t.Fatal(err)
			}
			note()
		}
	}
	do := func(op messages.Operation) {
		for ready := false; !ready; {
			var err error
			if ready, err = db.Prepare(0, op); err != nil {
				t.Fatal(err)
			}
			note()
		}
		mustWrite(t, db, 0, op)
		note()
	}
	do(messages.CreateIndexOperation(messages.IndexDefinition{Name: "x", Fields: messages.Paths("u", "v")}))
	do(put("k05", `{"u":9}`))
	do(put("k15", `{"u":9}`))
	work()
	do(messages.CreateIndexOperation(messages.IndexDefinition{Name: "y", Fields: messages.Paths("v"), Unique: true}))
	do(messages.DropIndexOperation("x"))
	do(messages.CreateIndexOperation(messages.IndexDefinition{Name: "x", Func: "words"}))
	work()
	data := fileOf(t, dir, "DATA")
	mark := fileOf(t, dir, "MARK")

	root := memDir(t)
	last := []string(nil)
	for end := began; end <= int64(len(data)); end++ {
		near := end%5 == 0
		for len(story) > 0 && story[0].end <= end {
			last, story = story[0].complete, story[1:]
			near = true
		}
		if near = near || len(story) > 0 && story[0].end == end+1; !near {
			continue
		}
		cut := filepath.Join(root, fmt.Sprint(end))
		err := errors.Join(os.Mkdir(cut, 0o755), os.WriteFile(filepath.Join(cut, "DATA"), data[:end], 0o644), os.WriteFile(filepath.Join(cut, "MARK"), mark, 0o644))
		if err != nil {
			t.Fatal(err)
		}
		db, err := kv.Open(cut, opt)
		if err != nil {
			t.Fatalf("cut at %d: %v", end, err)
		}
		var complete []string
		for _, x := range db.Indexes(0) {
			if !x.Building {
				complete = append(complete, x.Name)
			}
		}
		if !reflect.DeepEqual(complete, last) {
			t.Fatalf("cut at %d: %v are complete, want %v", end, complete, last)
		}
		finish(t, db)
		entries := 0
		pairs := scanAll(t, db, messages.Scan{})
		for _, x := range db.Indexes(0) {
			want, skipped := refQuery(x.IndexDefinition, pairs, messages.QueryIndex{})
			if got := queryAll(t, db, messages.QueryIndex{Name: x.Name}); x.Building || x.Skipped != 0 || !skipped || !reflect.DeepEqual(got, want) {
				t.Fatalf("cut at %d: %+v has %q, want %q", end, x, got, want)
			}
			entries += x.Entries
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		rep, err := kv.Inspect(cut)
		if err != nil || rep.Damage != nil || rep.Groups[0].Entries != entries {
			t.Fatalf("cut at %d: %+v, want %d entries, %v", end, rep.Groups, entries, err)
		}
		if err := os.RemoveAll(cut); err != nil {
			t.Fatal(err)
		}
	}
}
