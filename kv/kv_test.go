package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// lazyDisk does not wait for the hardware: these tests are about what the
// store does, and crashes of the process keep the page cache.
type lazyDisk struct{}

func (lazyDisk) Sync(*os.File) error          { return nil }
func (lazyDisk) SyncDir(string) error         { return nil }
func (lazyDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (lazyDisk) Remove(path string) error     { return os.Remove(path) }

var lazy = kv.Options{Disk: lazyDisk{}}

func open(t testing.TB, dir string, opt kv.Options) *kv.DB {
	t.Helper()
	if opt.Disk == nil {
		opt.Disk = lazyDisk{}
	}
	db, err := kv.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil && !db.Poisoned() {
			t.Error(err)
		}
	})
	return db
}

func put(key, value string) messages.Operation {
	return messages.PutOperation([]byte(key), []byte(value))
}

func del(key string) messages.Operation { return messages.DeleteOperation([]byte(key)) }

func cas(key string, expect *string, value string) messages.Operation {
	var e []byte
	if expect != nil {
		e = append([]byte{}, *expect...)
	}
	return messages.CompareAndSwapOperation([]byte(key), e, []byte(value))
}

func entry(index uint64, op messages.Operation) messages.Entry {
	return messages.Entry{Index: index, Term: 1 + index/100, Data: op.Encode(nil)}
}

func write(t testing.TB, db *kv.DB, group uint64, ops ...messages.Operation) []messages.Result {
	t.Helper()
	results, err := db.Write(group, ops)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func mustWrite(t testing.TB, db *kv.DB, group uint64, ops ...messages.Operation) {
	t.Helper()
	for i, r := range write(t, db, group, ops...) {
		if r.Err != nil {
			t.Fatalf("operation %d: %v", i, r.Err)
		}
	}
}

func export(t rapid.TB, db *kv.DB, group uint64) []byte {
	t.Helper()
	v, err := db.OpenExport(group)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	b, err := io.ReadAll(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t testing.TB, db *kv.DB, group, index uint64, state []byte) {
	t.Helper()
	im, err := db.BeginImport(group, index, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.Write(state); err != nil {
		t.Fatal(err)
	}
	if _, err := im.Finish(); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("%s: error %v, want %v", what, err, target)
	}
	if err != nil && !strings.HasPrefix(err.Error(), "kv: ") {
		t.Fatalf("%s: error %q does not begin with the package", what, err)
	}
}

// queries are what a store and a view answer.
type queries interface {
	Scan(q messages.Scan) (pairs []messages.Pair, next []byte, err error)
	CountKeys(q messages.Scan) (n int, next []byte, err error)
	Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error)
	Count(q messages.QueryIndex) (n int, next []byte, err error)
}

// reader is a store or a view with the lookups of one group.
type reader struct {
	queries
	get      func(key []byte) (value []byte, version uint64, err error)
	multiGet func(keys [][]byte) (values [][]byte, versions []uint64, err error)
}

func countAll(t rapid.TB, db queries, q messages.Scan) (count int) {
	t.Helper()
	for {
		n, next, err := db.CountKeys(q)
		if err != nil {
			t.Fatal(err)
		}
		count += n
		if next == nil {
			return count
		}
		q.Cursor = next
	}
}

func scanAll(t rapid.TB, db queries, q messages.Scan) (pairs []messages.Pair) {
	t.Helper()
	for {
		p, next, err := db.Scan(q)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p...)
		if next == nil {
			return pairs
		}
		q.Cursor = next
	}
}

func queryAll(t rapid.TB, db queries, q messages.QueryIndex) (pairs []messages.Pair) {
	t.Helper()
	for {
		p, next, err := db.Query(q)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p...)
		if next == nil {
			return pairs
		}
		q.Cursor = next
	}
}

func keys(pairs []messages.Pair) string {
	var s []string
	for _, p := range pairs {
		s = append(s, string(p.Key))
	}
	return strings.Join(s, " ")
}

func TestOptionsReportEveryBadField(t *testing.T) {
	_, err := kv.Open(t.TempDir(), kv.Options{MaxViewBytes: -1, CommitBytes: -2, ReserveBytes: -3, MaxTxnBytes: -4})
	want(t, "open", err, messages.ErrInvalid)
	for _, name := range []string{"MaxViewBytes", "CommitBytes", "ReserveBytes", "MaxTxnBytes"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	empty := ""
	one := "1"
	two := "2"
	for i, c := range []struct {
		op      messages.Operation
		existed bool
		swapped bool
		err     error
	}{
		{op: put("a", "1")},
		{op: put("a", "1"), existed: true},
		{op: cas("a", nil, "x"), existed: true},
		{op: cas("a", &two, "x"), existed: true},
		{op: cas("a", &one, ""), existed: true, swapped: true},
		{op: cas("a", nil, "x"), existed: true},
		{op: cas("a", &empty, "2"), existed: true, swapped: true},
		{op: cas("b", &empty, "x")},
		{op: cas("b", nil, ""), swapped: true},
		{op: del("c")},
		{op: put("c", "3")},
		{op: del("c"), existed: true},
		{op: put("", "x"), err: messages.ErrInvalid},
		{op: put(strings.Repeat("k", messages.MaxKey+1), "x"), err: messages.ErrTooLarge},
		{op: messages.PutOperation([]byte("v"), make([]byte, messages.MaxValue+1)), err: messages.ErrTooLarge},
		{op: messages.Operation{Kind: 99, Key: []byte("x")}, err: messages.ErrInvalid},
		{op: put(strings.Repeat("k", messages.MaxKey), strings.Repeat("v", 1<<20))},
	} {
		r := write(t, db, 0, c.op)[0]
		if r.Existed != c.existed || r.Swapped != c.swapped || !errors.Is(r.Err, c.err) {
			t.Errorf("%d: %v gave %+v", i, c.op.Kind, r)
		}
		if r.Err != nil {
			want(t, "result", r.Err, c.err)
		}
	}
	check := func(db *kv.DB) {
		t.Helper()
		if got := keys(scanAll(t, db, messages.Scan{To: []byte("k")})); got != "a b" {
			t.Errorf("keys %q", got)
		}
		v, version, err := db.Get(0, []byte("b"))
		if err != nil || version != 5 || v == nil || len(v) != 0 {
			t.Errorf("b is %q %v %v", v, version, err)
		}
		vs, versions, err := db.MultiGet(0, [][]byte{[]byte("c"), []byte("b"), []byte("a")})
		if err != nil || vs[0] != nil || vs[1] == nil || string(vs[2]) != "2" || versions[0] != 0 || versions[2] != 4 {
			t.Errorf("multi-get: %q %v", vs, err)
		}
		if n := db.Keys(0); n != 3 {
			t.Errorf("%d keys", n)
		}
		if n := db.Keys(7); n != 0 {
			t.Errorf("%d keys in another group", n)
		}
		if g := db.Groups(); !reflect.DeepEqual(g, []uint64{0}) {
			t.Errorf("groups %v", g)
		}
	}
	check(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir, lazy))
}

func TestOperationsOfOneCallSeeEachOther(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	one := "1"
	results := write(t, db, 3, put("a", "1"), cas("a", &one, "2"), del("a"), put("b", "x"), del("b"), cas("a", nil, "3"))
	if !results[1].Swapped || !results[2].Existed || !results[4].Existed || !results[5].Swapped {
		t.Fatalf("%+v", results)
	}
	if got := scanAll(t, db, messages.Scan{Group: 3}); len(got) != 1 || string(got[0].Value) != "3" || db.Keys(3) != 1 {
		t.Fatalf("%q, %d keys", got, db.Keys(3))
	}
}

func TestBadInput(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	for group := range uint64(2) {
		mustWrite(t, db, group, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}))
	}
	for i := range 20 {
		mustWrite(t, db, 0, put(fmt.Sprintf("k%02d", i), fmt.Sprintf(`{"n":%d}`, i)))
	}
	long := make([]byte, messages.MaxKey+1)
	b := func(s string) []byte { return []byte(s) }

	for _, k := range [][]byte{nil, {}} {
		_, _, err := db.Get(0, k)
		want(t, "get", err, messages.ErrInvalid)
		_, _, err = db.MultiGet(0, [][]byte{b("x"), k})
		want(t, "multi-get", err, messages.ErrInvalid)
	}
	_, _, err := db.Get(0, long)
	want(t, "get", err, messages.ErrTooLarge)
	_, _, err = db.MultiGet(0, [][]byte{long})
	want(t, "multi-get", err, messages.ErrTooLarge)

	_, cursor, err := db.Scan(messages.Scan{Limit: 3})
	if err != nil || cursor == nil {
		t.Fatal(cursor, err)
	}
	_, queryCursor, err := db.Query(messages.QueryIndex{Name: "n", Limit: 3})
	if err != nil || queryCursor == nil {
		t.Fatal(queryCursor, err)
	}
	flipped := bytes.Clone(cursor)
	flipped[2] ^= 1
	for i, q := range []messages.Scan{
		{Limit: -1}, {MaxBytes: -1},
		{Prefix: b("a"), From: b("a")}, {Prefix: b("a"), To: b("b")}, {Prefix: b("a"), To: b("")},
		{From: b("b"), To: b("a")}, {From: b("b"), To: b("")},
		{Cursor: b("x")}, {Cursor: flipped}, {Cursor: cursor[:len(cursor)-1]}, {Cursor: append(bytes.Clone(cursor), 0)},
		{Cursor: cursor, Reverse: true}, {Cursor: cursor, Prefix: b("k")}, {Cursor: cursor, From: b("a")},
		{Cursor: cursor, To: b("z")}, {Cursor: cursor, Group: 1}, {Cursor: queryCursor},
	} {
		_, _, err := db.Scan(q)
		want(t, fmt.Sprint("scan ", i), err, messages.ErrInvalid)
	}
	if p, next, err := db.Scan(messages.Scan{To: b("")}); len(p) > 0 || next != nil || err != nil {
		t.Errorf("an empty range: %v %v %v", p, next, err)
	}
	for i, q := range []messages.QueryIndex{
		{Limit: -1}, {MaxBytes: -1}, {Equal: "1", Min: "1"}, {Equal: "1", Max: "1"},
		{Prefix: "1", Min: "1"}, {MinExclusive: true}, {Max: "1", MinExclusive: true},
		{Equal: "x"}, {Equal: "{}"}, {Equal: "[]"}, {Equal: "[[1]]"}, {Equal: "[1,2]"}, {Equal: "1", Prefix: "a"}, {Min: "nul"}, {Max: `"a`}, {Max: "1 2"}, {Equal: " "},
		{Min: "2", Max: "1"}, {Min: `"a"`, Max: "1"},
		{Cursor: queryCursor, Reverse: true}, {Cursor: queryCursor, Min: "0"}, {Cursor: cursor}, {Cursor: b("q")},
		{Cursor: queryCursor, Group: 1},
	} {
		q.Name = "n"
		_, _, err := db.Query(q)
		want(t, fmt.Sprint("query ", i), err, messages.ErrInvalid)
	}
	_, _, err = db.Query(messages.QueryIndex{Name: "other"})
	want(t, "query", err, messages.ErrNotFound)
	_, _, err = db.Query(messages.QueryIndex{Group: 9, Name: "n"})
	want(t, "query", err, messages.ErrNotFound)

	def := func(name, path, prefix string) messages.Operation {
		return messages.CreateIndexOperation(messages.IndexDefinition{Name: name, Fields: messages.Paths(path), Prefix: prefix})
	}
	for _, c := range []struct {
		op  messages.Operation
		err error
	}{
		{def("", "p", ""), messages.ErrInvalid}, {def("x", "", ""), messages.ErrInvalid},
		{def(strings.Repeat("x", 256), "p", ""), messages.ErrTooLarge},
		{def("x", strings.Repeat("p", 1025), ""), messages.ErrTooLarge},
		{def("x", "p", string(long)), messages.ErrTooLarge},
		{def("x", "a..b", ""), messages.ErrInvalid}, {def("x", ".a", ""), messages.ErrInvalid}, {def("x", "a.", ""), messages.ErrInvalid},
		{def("x", "a*", ""), messages.ErrInvalid}, {def("x", "a.#", ""), messages.ErrInvalid}, {def("x", "@this", ""), messages.ErrInvalid},
		{def("x", "a|b", ""), messages.ErrInvalid}, {def("x", `a\`, ""), messages.ErrInvalid}, {def("x", "a\xff", ""), messages.ErrInvalid},
		{def("n", "other", ""), messages.ErrConflict},
		{messages.CreateIndexOperation(messages.IndexDefinition{Name: "x", Func: "unknown"}), messages.ErrInvalid},
		{messages.DropIndexOperation("other"), messages.ErrNotFound},
	} {
		r := write(t, db, 0, c.op)[0]
		want(t, fmt.Sprintf("%+v", c.op.Index), r.Err, c.err)
	}
	if got := len(db.Indexes(0)); got != 1 {
		t.Errorf("%d indexes", got)
	}
}

func TestAnyBytesInKeysAndValues(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	model := map[string]string{}
	groups := []uint64{0, 1, 'd', 0x7f, 0x80, 0x3fff, 1 << 63, 1<<64 - 1}
	for i, g := range groups {
		for _, k := range []string{"\x00", "\x00\x00", "\x00\xff", "\x00\x01", "\xff", "\xff\xff", "h", "m", "d", "x", "i", "d\x00", "d\x00a", "m\r\n",
			"*3\r\n$3\r\nset\r\n$1\r\nm\r\n$1\r\nx\r\n", "\r\n", "a", "a\x00", "a\x00b", "a\xff", "d\x80\x01x"} {
			v := k + fmt.Sprint(i)
			mustWrite(t, db, g, put(k, v))
			model[fmt.Sprint(g, "/", k)] = v
		}
	}
	for range 2 {
		n := 0
		for _, g := range groups {
			var last []byte
			for _, p := range scanAll(t, db, messages.Scan{Group: g, Limit: 7}) {
				n++
				if v := model[fmt.Sprint(g, "/", string(p.Key))]; v != string(p.Value) {
					t.Errorf("group %d key %q: %q, want %q", g, p.Key, p.Value, v)
				}
				if last != nil && bytes.Compare(last, p.Key) >= 0 {
					t.Errorf("%q follows %q", p.Key, last)
				}
				last = p.Key
			}
		}
		if n != len(model) {
			t.Errorf("%d pairs, want %d", n, len(model))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, lazy)
		if g := db.Groups(); !reflect.DeepEqual(g, groups) {
			t.Errorf("groups %v", g)
		}
	}
}

func TestApplyIsIdempotentAndOrdered(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	apply := func(entries ...messages.Entry) []messages.Result {
		t.Helper()
		r, err := db.Apply(5, entries)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := apply(); r != nil {
		t.Fatal(r)
	}
	apply(entry(1, put("a", "1")), entry(2, put("b", "1")))
	r := apply(entry(1, put("a", "x")), entry(2, put("b", "x")), entry(3, put("c", "1")))
	if !errors.Is(r[0].Err, messages.ErrResultLost) || !errors.Is(r[1].Err, messages.ErrResultLost) || r[2].Err != nil {
		t.Fatalf("%+v", r)
	}
	for _, bad := range [][]messages.Entry{
		{entry(5, put("a", "x"))},
		{entry(4, put("a", "x")), entry(6, put("a", "x"))},
		{entry(4, put("a", "x")), entry(4, put("a", "x"))},
		{entry(0, put("a", "x"))},
		{entry(1<<64-1, put("a", "x")), entry(0, put("a", "x"))},
		{entry(3, put("a", "x")), entry(2, put("a", "x"))},
	} {
		_, err := db.Apply(5, bad)
		want(t, "apply", err, messages.ErrOutOfOrder)
	}
	r = apply(messages.Entry{Index: 4, Term: 9}, messages.Entry{Index: 5, Term: 9, Type: 3, Data: []byte("conf")},
		messages.Entry{Index: 6, Term: 9, Data: []byte{0x7f}}, messages.Entry{Index: 7, Term: 9, Data: put("", "x").Encode(nil)}, entry(8, del("a")))
	if r[0].Err != nil || r[1].Err != nil || !errors.Is(r[2].Err, messages.ErrMalformed) || !errors.Is(r[3].Err, messages.ErrInvalid) || !r[4].Existed {
		t.Fatalf("%+v", r)
	}
	apply(messages.Entry{Index: 9, Term: 12})
	for range 2 {
		if i, term := db.Applied(5); i != 9 || term != 12 {
			t.Fatalf("applied %d, term %d", i, term)
		}
		if got := keys(scanAll(t, db, messages.Scan{Group: 5})); got != "b c" {
			t.Fatalf("keys %q", got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, lazy)
	}
}

func TestLargeApplyIsCommittedInSteps(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, kv.Options{CommitBytes: 1000})
	var entries []messages.Entry
	for i := range uint64(100) {
		entries = append(entries, entry(i+1, put(fmt.Sprintf("k%d", i%10), strings.Repeat("v", 300))))
	}
	r, err := db.Apply(0, entries)
	if err != nil || len(r) != 100 || r[9].Existed || !r[10].Existed {
		t.Fatal(r, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	rep, err := kv.Inspect(dir)
	if err != nil || rep.Markers != 26 || rep.Damage != nil {
		t.Fatalf("%+v %v", rep, err)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, lazy)
	_, err := kv.Open(dir, lazy)
	want(t, "open", err, messages.ErrLocked)
}

func TestClosed(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	mustWrite(t, db, 0, put("a", "1"))
	v, err := db.OpenExport(0)
	if err != nil {
		t.Fatal(err)
	}
	im, err := db.BeginImport(0, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = db.Write(0, []messages.Operation{put("a", "2")})
	want(t, "write", err, messages.ErrStopped)
	_, err = db.Apply(0, []messages.Entry{entry(1, put("a", "2"))})
	want(t, "apply", err, messages.ErrStopped)
	_, _, err = db.Get(0, []byte("a"))
	want(t, "get", err, messages.ErrStopped)
	_, _, err = db.MultiGet(0, [][]byte{[]byte("a")})
	want(t, "multi-get", err, messages.ErrStopped)
	_, _, err = db.Scan(messages.Scan{})
	want(t, "scan", err, messages.ErrStopped)
	_, _, err = db.Query(messages.QueryIndex{Name: "x"})
	want(t, "query", err, messages.ErrStopped)
	want(t, "sync", db.Sync(), messages.ErrStopped)
	_, err = db.OpenExport(0)
	want(t, "open view", err, messages.ErrStopped)
	_, err = db.BeginImport(0, 1, 1)
	want(t, "begin import", err, messages.ErrStopped)
	_, err = io.ReadAll(v)
	if err != nil {
		want(t, "read", err, messages.ErrStopped)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	_, err = im.Write([]byte("x"))
	want(t, "import", err, messages.ErrNotFound)
	_, err = im.Finish()
	want(t, "finish", err, messages.ErrNotFound)
}

func TestFullDisk(t *testing.T) {
	free := int64(1 << 40)
	dir := t.TempDir()
	db := open(t, dir, kv.Options{ReserveBytes: 1000, CommitBytes: 500, Free: func(d string) (int64, error) {
		if d != dir {
			t.Errorf("asked about %s", d)
		}
		return free, nil
	}})
	mustWrite(t, db, 0, put("a", "1"))
	free = 1100
	_, err := db.Write(0, []messages.Operation{put("a", "2")})
	want(t, "write", err, messages.ErrDiskFull)
	_, err = db.Apply(0, []messages.Entry{entry(1, put("a", "2"))})
	want(t, "apply", err, messages.ErrDiskFull)
	if v, _, err := db.Get(0, []byte("a")); err != nil || string(v) != "1" {
		t.Fatalf("%q %v", v, err)
	}
	if err := db.Sync(); err != nil || db.Poisoned() {
		t.Fatal(err)
	}
	free = 999
	_, err = db.BeginImport(0, 1, 1)
	want(t, "import", err, messages.ErrDiskFull)
	free = 4 << 20
	state := export(t, db, 0)
	im, err := db.BeginImport(0, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	free = 0
	_, err = im.Write(state)
	want(t, "import", err, messages.ErrDiskFull)
	free = 4 << 20
	load(t, db, 0, 1, state)
	mustWrite(t, db, 0, put("a", "3"))

	// Space runs out in the middle of an Apply: what was applied stays.
	var entries []messages.Entry
	for i := range uint64(10) {
		entries = append(entries, entry(i+2, put("k", strings.Repeat("v", 400))))
	}
	n := 0
	db2 := open(t, t.TempDir(), kv.Options{ReserveBytes: 1, CommitBytes: 500, Free: func(string) (int64, error) {
		if n++; n > 4 {
			return 10, nil
		}
		return 1 << 20, nil
	}})
	entries[0].Index = 1
	for i := range entries {
		entries[i].Index = uint64(i + 1)
	}
	r, err := db2.Apply(0, entries)
	want(t, "apply", err, messages.ErrDiskFull)
	if i, _ := db2.Applied(0); i != uint64(len(r)) || i != 6 {
		t.Errorf("applied %d, %d results", i, len(r))
	}
}

func TestInspectChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if rep, err := kv.Inspect(dir); err != nil || rep.Exists || rep.Damage != nil {
		t.Fatalf("%+v %v", rep, err)
	}
	if _, err := kv.Inspect(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	db := open(t, dir, lazy)
	mustWrite(t, db, 1, put("a", `{"v":1}`), put("b", `{}`), messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v")}))
	if _, err := db.Apply(2, []messages.Entry{entry(1, put("x", "1"))}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "DATA")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, "*3\r\n$3\r\nse"...), 0o644); err != nil {
		t.Fatal(err)
	}
	rep, err := kv.Inspect(dir)
	if err != nil || rep.Damage != nil {
		t.Fatal(rep.Damage, err)
	}
	groups := []kv.GroupReport{{Group: 1, Keys: 2, Revision: 3, Indexes: []string{"v"}, Entries: 1}, {Group: 2, Index: 1, Term: 1, Keys: 1, Revision: 1}}
	if !reflect.DeepEqual(rep.Groups, groups) || rep.Markers != 3 || rep.Good != int64(len(data)) || rep.Bytes != rep.Good+10 || rep.Synced != rep.Good || rep.Reason == "" {
		t.Errorf("%+v", rep)
	}
	if now, err := os.ReadFile(path); err != nil || len(now) != len(data)+10 {
		t.Error("the file was changed", err)
	}
	data[len(data)-3] ^= 4
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	rep, err = kv.Inspect(dir)
	if err != nil || !errors.Is(rep.Damage, messages.ErrCorrupt) {
		t.Errorf("%+v %v", rep, err)
	}
}
