package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// told is a group of the model with all that ever happened in it.
type told struct {
	*model
	changes []string // as text, with their revisions in at
	at      []uint64
	opened  uint64 // the revision at which the history begins
}

func text(c *kv.Mutation) string {
	value, ok := c.Value()
	was, version := c.Previous()
	return fmt.Sprintf("%d %q %v %q was %q@%d", c.Revision, c.Key, ok, value, was, version)
}

// do carries an operation out and notes how the data differs from before.
func (m *told) do(op messages.Operation, run func(messages.Operation) messages.Result) {
	before := m.clone()
	if res := run(op); res.Version == 0 {
		return
	}
	key := string(op.Key)
	if op.Kind == messages.OpCreateIndex || m.versions[key] == before.versions[key] {
		return
	}
	value, ok := m.data[key]
	m.changes = append(m.changes, fmt.Sprintf("%d %q %v %q was %q@%d", m.revision, key, ok, value, before.data[key], before.versions[key]))
	m.at = append(m.at, m.revision)
}

// expect compares Changes with the model, from every revision on.
func (m *told) expect(t *rapid.T, db *kv.DB, group uint64, max int) (oldest uint64) {
	for after := uint64(0); after <= m.revision+1; after++ {
		list, upTo, err := db.Changes(group, after, max)
		var gone *messages.HistoryError
		if errors.As(err, &gone) {
			if !errors.Is(err, messages.ErrCompacted) || gone.After != after || gone.Oldest <= after || gone.Oldest > m.revision {
				t.Fatalf("group %d at revision %d, after %d: %v", group, m.revision, after, err)
			}
			oldest = gone.Oldest
			continue
		}
		if err != nil || after < oldest || after < m.opened {
			t.Fatalf("group %d: changes after %d: %v; the history begins at %d, and the store was opened at %d", group, after, err, oldest, m.opened)
		}
		if upTo > m.revision || upTo < after && after <= m.revision || len(list) < max && upTo != m.revision {
			t.Fatalf("group %d at revision %d: %d changes after %d reach up to %d", group, m.revision, len(list), after, upTo)
		}
		var want, got []string
		for i, at := range m.at {
			if at > after && at <= upTo {
				want = append(want, m.changes[i])
			}
		}
		for i := range list {
			got = append(got, text(&list[i]))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("group %d: changes after %d, up to %d:\n%s\nwant\n%s", group, after, upTo, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	return oldest
}

// Whatever is done, the history tells all of it from some revision on, and says
// which; it never tells less than what the latest call has changed.
func TestChangesAreTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "changes")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		opt := lazy
		opt.HistoryBytes = rapid.SampledFrom([]int64{0, 1, 500, 2000}).Draw(t, "bytes")
		opt.HistoryRevisions = rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, "revisions")
		opt.CommitBytes = rapid.SampledFrom([]int64{0, 30}).Draw(t, "commit")
		db := openRapid(t, dir, opt)
		defer func() { _ = db.Close() }()
		groups := []*told{{model: newModel()}, {model: newModel()}}
		key := rapid.SampledFrom([]string{"a", "b", "c", "\x00", "\xff"})
		operation := rapid.Custom(func(t *rapid.T) messages.Operation {
			k, v := key.Draw(t, "key"), rapid.StringN(0, 40, -1).Draw(t, "value")
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0, 1:
				return del(k)
			case 2:
				return cas(k, nil, v)
			case 3:
				return messages.CreateIndexOperation(messages.IndexDefinition{Name: k, Prefix: "none", Fields: messages.Paths("p")})
			}
			return put(k, v)
		})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			group := rapid.IntRange(0, 1).Draw(t, "group")
			m := groups[group]
			before := m.revision
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0:
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				db = openRapid(t, dir, opt)
				for _, m := range groups {
					m.opened = m.revision
				}
			case 1:
				im, err := db.BeginImport(uint64(group), m.index, m.term)
				if err == nil {
					_, err = im.Write(export(t, db, uint64(group)))
				}
				if err == nil {
					_, err = im.Finish()
				}
				if err != nil {
					t.Fatal(err)
				}
				m.opened = m.revision
			case 2, 3, 4:
				var ops []messages.Operation
				for range rapid.IntRange(1, 8).Draw(t, "operations") {
					ops = append(ops, operation.Draw(t, "operation"))
					m.do(ops[len(ops)-1], m.write)
				}
				if _, err := db.Write(uint64(group), ops); err != nil {
					t.Fatal(err)
				}
			default:
				var entries []messages.Entry
				for range rapid.IntRange(1, 8).Draw(t, "entries") {
					op := operation.Draw(t, "operation")
					m.do(op, m.apply)
					m.term = 1
					entries = append(entries, entry(m.index, op))
				}
				if _, err := db.Apply(uint64(group), entries); err != nil {
					t.Fatal(err)
				}
			}
			if oldest := m.expect(t, db, uint64(group), rapid.SampledFrom([]int{1, 3, math.MaxInt}).Draw(t, "max")); oldest > max(before, m.opened) {
				t.Fatalf("group %d: a call that began at revision %d is told after %d only", group, before, oldest)
			}
			if opt.HistoryBytes == 0 && opt.HistoryRevisions == 0 {
				if oldest := m.expect(t, db, uint64(group), 1); oldest > m.opened {
					t.Fatalf("group %d is told after %d, and the store was opened at %d", group, oldest, m.opened)
				}
			}
		}
	})
}

func openRapid(t *rapid.T, dir string, opt kv.Options) *kv.DB {
	db, err := kv.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// known is how many changes of a group the history holds.
func known(t *testing.T, db *kv.DB, group uint64) int {
	t.Helper()
	list, _, err := db.Changes(group, 0, math.MaxInt)
	var gone *messages.HistoryError
	if errors.As(err, &gone) {
		list, _, err = db.Changes(group, gone.Oldest, math.MaxInt)
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestHistoryIsBoundedAndFair(t *testing.T) {
	opt := lazy
	opt.HistoryBytes = 64 << 10
	db := open(t, t.TempDir(), opt)
	for i := range 10 {
		mustWrite(t, db, 1, put(fmt.Sprint("quiet", i), "v"))
	}
	value := strings.Repeat("v", 1000)
	for i := range 1000 {
		mustWrite(t, db, 2, put(fmt.Sprint("busy", i), value))
		mustWrite(t, db, 3, put(fmt.Sprint("busy", i), value))
	}
	if n := known(t, db, 1); n != 10 {
		t.Errorf("two busy groups have left %d of 10 changes of a quiet one", n)
	}
	a, b := known(t, db, 2), known(t, db, 3)
	if a < 20 || b < 20 || a+b > 65 {
		t.Errorf("two busy groups have %d and %d changes of 1 KiB in 64 KiB", a, b)
	}
	// One change that is larger than the history is told, and makes room when
	// something follows.
	mustWrite(t, db, 1, put("large", strings.Repeat("v", 1<<20)))
	if n := known(t, db, 1); n != 11 {
		t.Errorf("after a large change %d are known, want 11", n)
	}
	mustWrite(t, db, 2, put("next", "v"))
	if a, b := known(t, db, 1), known(t, db, 2); a != 0 || b < 20 {
		t.Errorf("after the next one %d of the large one's group are known, and %d of another", a, b)
	}

	opt.HistoryRevisions = 5
	db = open(t, t.TempDir(), opt)
	for i := range 20 {
		mustWrite(t, db, 1, put(fmt.Sprint(i), "v"))
	}
	if n := known(t, db, 1); n != 6 { // with the latest
		t.Errorf("%d revisions are known, want 6", n)
	}
}

// An import ends the history of its group and of no other.
func TestHistoryOfAnImport(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	mustWrite(t, db, 1, put("a", "1"), put("a", "2"))
	mustWrite(t, db, 2, put("b", "1"))
	load(t, db, 1, 9, export(t, db, 2))
	_, _, err := db.Changes(1, 0, 10)
	want(t, "after an import", err, messages.ErrCompacted)
	if _, upTo, err := db.Changes(1, 1, 10); err != nil || upTo != 1 {
		t.Errorf("after the import's revision: up to %d, %v", upTo, err)
	}
	if n := known(t, db, 2); n != 1 {
		t.Errorf("%d changes of another group", n)
	}
	if _, _, err := db.Changes(7, 0, 10); err != nil {
		t.Errorf("of a group without anything: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = db.Changes(2, 0, 10)
	want(t, "closed", err, messages.ErrStopped)
}

// A failed change is not told.
func TestFailedChangeIsNotTold(t *testing.T) {
	full := false
	opt := lazy
	opt.Free = func(string) (int64, error) {
		if full {
			return 0, nil
		}
		return 1 << 40, nil
	}
	db := open(t, t.TempDir(), opt)
	mustWrite(t, db, 0, put("a", "1"))
	full = true
	_, err := db.Write(0, []messages.Operation{put("a", "2")})
	want(t, "full", err, messages.ErrDiskFull)
	full = false
	mustWrite(t, db, 0, put("a", "3"))
	list, _, err := db.Changes(0, 0, 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d changes, %v", len(list), err)
	}
	if got := text(&list[1]); !bytes.Contains([]byte(got), []byte(`"3" was "1"@1`)) {
		t.Error(got)
	}
}

// A transaction is one revision with the outcome for each key, by each way in which
// it may come; of one that fails nothing is told, also not of those beside it.
func TestTransactionsAreTold(t *testing.T) {
	txn := func(ops ...messages.Operation) messages.Operation {
		return messages.TxnOperation(messages.Transaction{Then: ops})
	}
	ops := []messages.Operation{
		put("a", "1"),
		txn(put("a", "lost"), put("b", "lost"), del("a"), put("j", "not JSON")),
		put("c", "1"),
		txn(put("a", "2"), put("b", "2"), put("a", "3"), del("c"), put("d", "4"), del("d")),
	}
	said := []string{`"a" true "1" was ""@0`, `"c" true "1" was ""@0`,
		`"a" true "3" was "1"`, `"b" true "2" was ""@0`, `"c" false "" was "1"`}
	index := messages.CreateIndexOperation(messages.IndexDefinition{Name: "i", Prefix: "j", Fields: messages.Paths("p")})
	ways := map[string]func(db *kv.DB) ([]messages.Result, error){
		"written": func(db *kv.DB) ([]messages.Result, error) { return db.Write(0, ops) },
		"committed": func(db *kv.DB) ([]messages.Result, error) {
			open := begin(t, db)
			run(t, open, put("a", "2"), put("b", "2"), put("a", "3"), del("c"), put("d", "4"), del("d"))
			changes := []kv.Change{{Operation: ops[0]}, {Operation: ops[1]}, {Operation: ops[2]}, {Txn: open}}
			results, err := db.Commit(0, changes)
			return results, errors.Join(err, open.Close())
		},
		"applied": func(db *kv.DB) ([]messages.Result, error) {
			var entries []messages.Entry
			for i, op := range ops {
				entries = append(entries, entry(uint64(i+1), op))
			}
			return db.Apply(0, entries)
		},
	}
	for way, carryOut := range ways {
		t.Run(way, func(t *testing.T) {
			db := open(t, t.TempDir(), lazy)
			mustWrite(t, db, 0, index)
			results, err := carryOut(db)
			if err != nil || results[0].Err != nil || !errors.Is(results[1].Err, messages.ErrNotJSON) || results[2].Err != nil || results[3].Err != nil {
				t.Fatalf("%v, %+v", err, results)
			}
			list, upTo, err := db.Changes(0, 0, 3) // in the middle of the last one
			if err != nil || len(list) != len(said) || upTo != db.Revision(0) {
				t.Fatalf("%d changes up to %d, %v", len(list), upTo, err)
			}
			for i := range list {
				c := &list[i]
				if got := text(c); !strings.Contains(got, said[i]) {
					t.Errorf("%d: %s, want %s", i, got, said[i])
				}
				if i >= 2 && c.Revision != upTo || i < 2 && c.Revision >= upTo {
					t.Errorf("%s, and the last revision is %d", text(c), upTo)
				}
			}
		})
	}
}

// A store that was opened for reading has nothing to tell, and says so.
func TestHistoryOfAReadOnlyStore(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	mustWrite(t, db, 0, put("a", "1"))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := kv.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, _, err = db.Changes(0, 0, 10)
	want(t, "opened for reading", err, messages.ErrCompacted)
	if list, upTo, err := db.Changes(0, 1, 10); err != nil || len(list) != 0 || upTo != 1 {
		t.Errorf("%v up to %d, %v", list, upTo, err)
	}
}
