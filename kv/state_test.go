package kv_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

func TestStateStreamIsTheSameForTheSameState(t *testing.T) {
	a, b := open(t, t.TempDir(), lazy), open(t, t.TempDir(), lazy)
	x := messages.CreateIndexOperation(messages.IndexDefinition{Name: "x", Fields: messages.Paths("v"), Prefix: "j\xff"})
	y := messages.CreateIndexOperation(messages.IndexDefinition{Name: "y", Fields: messages.Paths("w")})
	// The same operations, one by one and together.
	var ops []messages.Operation
	for i := range 300 {
		ops = append(ops, put(fmt.Sprintf("k%d", i), fmt.Sprintf(`{"w":%d}`, i)))
	}
	big := `"` + strings.Repeat("x", 700_000) + `"`
	ops = append(ops, put("gone", "1"), del("never"), x, y, x, cas("gone", nil, "2"), del("gone"), put("big", "no JSON"), put("big", big))
	for i, op := range ops {
		write(t, a, 0, op)
		if i%7 == 6 || i == len(ops)-1 {
			write(t, b, 9, ops[i-i%7:i+1]...)
		}
	}
	sa, sb := export(t, a, 0), export(t, b, 9)
	if !bytes.Equal(sa, sb) {
		t.Fatalf("%d and %d bytes differ", len(sa), len(sb))
	}
	for _, size := range []int{1, 7, 4096, 1 << 20} {
		v, err := a.OpenExport(0)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for p := make([]byte, size); ; {
			n, err := v.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if !bytes.Equal(got, sa) {
			t.Errorf("reads of %d bytes give another stream", size)
		}
		if err := errors.Join(v.Close(), v.Close()); err != nil {
			t.Error(err)
		}
		_, err = v.Read(make([]byte, 1))
		want(t, "read", err, messages.ErrExpired)
	}
	// The other way.
	for _, size := range []int{1, 3, 1000, 1 << 20} {
		dir := t.TempDir()
		c := open(t, dir, lazy)
		mustWrite(t, c, 4, put("old", "1"))
		mustWrite(t, c, 8, put("kept", `"1"`), messages.CreateIndexOperation(messages.IndexDefinition{Name: "k", Fields: messages.Paths("v")}))
		if _, err := c.Apply(8, []messages.Entry{entry(1, put("kept2", `{"v":1}`))}); err != nil {
			t.Fatal(err)
		}
		im, err := c.BeginImport(4, 77, 6)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.BeginImport(5, 1, 1)
		want(t, "begin", err, messages.ErrConflict)
		for rest := sa; len(rest) > 0; {
			n := min(size, len(rest))
			if m, err := im.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		mustWrite(t, c, 8, put("kept3", `{"v":2}`))
		if n, err := im.Finish(); n != 301 || err != nil {
			t.Fatal(n, err)
		}
		if err := im.Abort(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if !bytes.Equal(export(t, c, 4), sa) {
				t.Fatal("the imported state differs")
			}
			if i, term := c.Applied(4); i != 77 || term != 6 || c.Keys(4) != 301 {
				t.Fatal(i, term, c.Keys(4))
			}
			if i, _ := c.Applied(8); i != 1 || keys(scanAll(t, c, messages.Scan{Group: 8})) != "kept kept2 kept3" || c.Keys(8) != 3 {
				t.Fatal("the other group has changed")
			}
			if got := keys(queryAll(t, c, messages.QueryIndex{Group: 8, Name: "k"})); got != "kept2 kept3" {
				t.Fatal(got)
			}
			if got := keys(queryAll(t, c, messages.QueryIndex{Group: 4, Name: "y", Min: "297"})); got != "k297 k298 k299" {
				t.Fatal(got)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			c = open(t, dir, lazy)
		}
		mustWrite(t, c, 4, put("new", "1"))
	}
}

func TestMalformedImport(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	mustWrite(t, db, 0, put("a", `{"v":1}`), put("b", `{"v":2}`), messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v")}))
	state := export(t, db, 0)
	try := func(b []byte) error {
		im, err := db.BeginImport(0, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := im.Write(b); err != nil {
			_, again := im.Write(nil)
			if again == nil || errors.Is(again, messages.ErrMalformed) != errors.Is(err, messages.ErrMalformed) {
				t.Fatalf("%v, then %v", err, again)
			}
			return err
		}
		_, err = im.Finish()
		return err
	}
	rec := func(kind byte, k, v string) []byte {
		b := binary.AppendUvarint([]byte{kind}, uint64(len(k)))
		b = append(b, k...)
		if kind == 2 {
			b = append(b, 1)
		}
		b = binary.AppendUvarint(b, uint64(len(v)))
		return append(b, v...)
	}
	for i := range state {
		if err := try(state[:i]); !errors.Is(err, messages.ErrMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		for bit := range 8 {
			c := bytes.Clone(state)
			c[i] ^= 1 << bit
			if err := try(c); !badState(err) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	head := append([]byte("BLSTKVST"), 3, 0, 0, 0)
	for name, tail := range map[string][]byte{
		"after the end":     append(bytes.Clone(state[12:]), 0),
		"not in order":      append(rec(2, "b", ""), rec(2, "a", "")...),
		"twice":             append(rec(2, "b", ""), rec(2, "b", "")...),
		"empty key":         rec(2, "", ""),
		"unknown kind":      rec(9, "a", "a"),
		"long key":          append([]byte{2}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"no version":        append(rec(2, "b", "")[:3], 0, 0),
		"overlong version":  append(rec(2, "b", "")[:3], 0x81, 0, 0),
		"endless version":   append(rec(2, "b", "")[:3], bytes.Repeat([]byte{0x80}, 12)...),
		"overlong varint":   append([]byte{2}, 0x81, 0x00, 'a', 0),
		"endless varint":    append([]byte{2}, bytes.Repeat([]byte{0x80}, 12)...),
		"long value":        append(rec(2, "a", "")[:4], 0xff, 0xff, 0xff, 0xff, 1),
		"long page":         {4, 0xff, 0xff, 0x03},
		"index after pair":  append(rec(2, "a", ""), rec(1, "x", `{"path":"p"}`)...),
		"index: no json":    rec(1, "x", `path`),
		"index: other json": rec(1, "x", `{"path": "p"}`),
		"index: no path":    rec(1, "x", `{"path":""}`),
		"index: bad path":   rec(1, "x", `{"path":"a*"}`),
		"index: null":       rec(1, "x", `null`),
		"not json":          append(rec(1, "x", `{"path":"p"}`), rec(2, "a", "x")...),
	} {
		b := append(bytes.Clone(head), tail...)
		if err := try(b); !errors.Is(err, messages.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A page where none belongs is damage.
	page := append([]byte{4, 5, 0, 1, 'a', 12, 0}, 0, 0, 0, 0)
	early := append(append([]byte("BLSTKVST"), 3, 0, 0, 0), append(page, rec(2, "a", "")...)...)
	want(t, "an early page", try(early), messages.ErrCorrupt)
	for _, version := range []byte{0, 1, 2, 4} {
		later := bytes.Clone(state)
		later[8] = version
		want(t, "another version", try(later), messages.ErrIncompatible)
		_, err := kv.OpenState(bytes.NewReader(later), int64(len(later)))
		want(t, "another version", err, messages.ErrIncompatible)
	}
	if !bytes.Equal(export(t, db, 0), state) {
		t.Error("the old state has changed")
	}
	if n, err := filepath.Glob(filepath.Join(dir, "*"+durable.TempSuffix)); len(n) > 0 || err != nil {
		t.Error(n, err)
	}
}

// badState reports whether the error is one that bad bytes of a state cause.
func badState(err error) bool {
	return errors.Is(err, messages.ErrMalformed) || errors.Is(err, messages.ErrIncompatible) || errors.Is(err, messages.ErrCorrupt)
}

// answers is all that a State says; errors must be those of bad bytes.
func answers(t testing.TB, s *kv.State, keys ...string) (defs []messages.IndexDefinition, pairs []messages.Pair, err error) {
	t.Helper()
	for _, key := range keys {
		if _, _, e := s.Get([]byte(key)); e != nil {
			err = errors.Join(err, e)
		}
	}
	defs, e := s.Indexes()
	err = errors.Join(err, e)
	for p, e := range s.Range(nil, nil) {
		if e != nil {
			err = errors.Join(err, e)
			break
		}
		pairs = append(pairs, p)
	}
	if err != nil && !badState(err) {
		t.Fatal(err)
	}
	return defs, pairs, err
}

// Every cut and every bit flip is found by Verify, and nothing else goes wrong
// before it.
func TestDamagedState(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	mustWrite(t, db, 0, put("a", `{"v":1}`), put("b", ""), put("c", "x"))
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v"), Prefix: "a"}))
	state := export(t, db, 0)
	check := func(what string, b []byte) {
		s, err := kv.OpenState(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			answers(t, s, "a", "b", "c")
			err = s.Verify()
		}
		if !badState(err) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range state {
		check(fmt.Sprint("cut at ", i), state[:i])
		for bit := range 8 {
			c := bytes.Clone(state)
			c[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d", bit, i), c)
		}
	}
	check("one byte more", append(bytes.Clone(state), 0))
	// A size that is not that of the bytes.
	_, err := kv.OpenState(bytes.NewReader(state), int64(len(state)+1))
	want(t, "a larger size", err, messages.ErrMalformed)
	_, err = kv.OpenState(bytes.NewReader(state), -1)
	want(t, "a negative size", err, messages.ErrMalformed)
}

// tree is a stream with a sparse index of two levels, by hand: pairs a and b, a
// page, pair c, a page, the root.
type tree struct {
	first, second, root []byte
	rootAt              uint64 // zero means where it is
}

const (
	treePair       = 6          // bytes of each pair
	treeA          = 12         // where pairs and pages are
	treeFirst      = treeA + 12 // after two pairs
	treeC          = treeFirst + treeLeaf
	treeSecond     = treeC + treePair
	treeRoot       = treeSecond + treeLeaf
	treeLeaf       = 1 + 1 + 1 + 3 + 4
	treeRootLength = treeLeaf + 3
)

// statePage is a page with good checksum: a level, then keys and offsets.
func statePage(level byte, entries ...any) []byte {
	content := []byte{level}
	for i := 0; i < len(entries); i += 2 {
		key := entries[i].(string)
		content = append(binary.AppendUvarint(content, uint64(len(key))), key...)
		content = binary.AppendUvarint(content, uint64(entries[i+1].(int)))
	}
	b := append(binary.AppendUvarint([]byte{4}, uint64(len(content))), content...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func newTree() tree {
	return tree{first: statePage(0, "a", treeA), second: statePage(0, "c", treeC), root: statePage(1, "a", treeFirst, "c", treeSecond)}
}

func (tr tree) stream() []byte {
	b := append([]byte("BLSTKVST"), 3, 0, 0, 0)
	pair := func(key string) { b = append(b, 2, 1, key[0], 1, 1, '=') }
	pair("a")
	pair("b")
	b = append(b, tr.first...)
	pair("c")
	b = append(b, tr.second...)
	root := tr.rootAt
	if root == 0 {
		root = uint64(len(b))
	}
	b = append(b, tr.root...)
	end := uint64(len(b))
	b = append(b, 3)
	for _, n := range []uint64{3, 6, 1, root, end} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return reseal(append(b, make([]byte, 8)...))
}

// Pages whose checksums are good and which make no sense.
func TestHostileTree(t *testing.T) {
	get := func(tr tree) (found string, opened bool, err error) {
		b := tr.stream()
		s, err := kv.OpenState(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return "", false, err
		}
		for _, key := range []string{"a", "b", "c", "d"} {
			value, version, e := s.Get([]byte(key))
			if version > 0 {
				found += key + string(value)
			}
			err = errors.Join(err, e)
		}
		answers(t, s)
		return found, true, err
	}
	good := newTree()
	if found, _, err := get(good); err != nil || found != "a=b=c=" || len(good.first) != treeLeaf || len(good.root) != treeRootLength {
		t.Fatal(found, err)
	}
	for name, spoil := range map[string]func(*tree){
		"a child of the same level":        func(tr *tree) { tr.second = statePage(1, "c", treeFirst) },
		"a child of a lower level":         func(tr *tree) { tr.root = statePage(2, "a", treeFirst, "c", treeSecond) },
		"a level above all":                func(tr *tree) { tr.root = statePage(25, "a", treeFirst, "c", treeSecond) },
		"root: its own child":              func(tr *tree) { tr.root = statePage(1, "a", treeFirst, "c", treeRoot) },
		"a child in another place":         func(tr *tree) { tr.root = statePage(1, "a", treeFirst, "c", treeSecond+1) },
		"a child that is a pair":           func(tr *tree) { tr.root = statePage(1, "a", treeFirst, "c", treeC) },
		"root: a child in the header":      func(tr *tree) { tr.root = statePage(1, "a", 11, "c", treeSecond) },
		"a child with another key":         func(tr *tree) { tr.root = statePage(1, "a", treeFirst, "b", treeSecond) },
		"root: keys not in order":          func(tr *tree) { tr.root = statePage(1, "c", treeFirst, "a", treeSecond) },
		"root: offsets not in order":       func(tr *tree) { tr.root = statePage(1, "a", treeSecond, "c", treeFirst) },
		"root: an offset behind":           func(tr *tree) { tr.root = statePage(1, "a", treeFirst, "c", 1<<40) },
		"root: an offset that has no sign": func(tr *tree) { tr.root = statePage(1, "a", treeFirst, "c", -1) },
		"root: no entries":                 func(tr *tree) { tr.root = statePage(1) },
		"root: an empty key":               func(tr *tree) { tr.root = statePage(1, "", treeFirst, "c", treeSecond) },
		"root: a long key":                 func(tr *tree) { tr.root = statePage(1, strings.Repeat("a", messages.MaxKey+1), treeFirst) },
		"root: a page of one byte":         func(tr *tree) { tr.root = append([]byte{4, 0}, statePage(1)[:4]...) },
		"a block that is not a pair":       func(tr *tree) { tr.second = statePage(0, "c", treeC+1) },
		"a block with another key":         func(tr *tree) { tr.second = statePage(0, "c", treeA) },
		"a block that is in the header":    func(tr *tree) { tr.first = statePage(0, "a", 2) },
		"root: that is a pair":             func(tr *tree) { tr.rootAt = treeA },
		"root: in the header":              func(tr *tree) { tr.rootAt = 3 },
		"root: behind":                     func(tr *tree) { tr.rootAt = 1 << 40 },
		"root: of no sign":                 func(tr *tree) { tr.rootAt = 1<<64 - 1 },
	} {
		tr := newTree()
		spoil(&tr)
		found, opened, err := get(tr)
		if !errors.Is(err, messages.ErrMalformed) || opened == strings.HasPrefix(name, "root: ") {
			t.Errorf("%s: %q, opened %t, %v", name, found, opened, err)
		}
	}
	// Damage is told from nonsense.
	tr := newTree()
	tr.second[4] ^= 1
	_, _, err := get(tr)
	want(t, "a bit flip in a page", err, messages.ErrCorrupt)
	if errors.Is(err, messages.ErrMalformed) {
		t.Error(err)
	}
}

// Records that do not fit together, where a lookup has no checksum to tell it.
func TestRecordsThatDoNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		at    int
		value byte
		get   string
	}{
		"a value that reaches into a page":      {treeA + treePair + 4, 2, "b"},
		"a value that reaches beyond the end":   {treeC + 4, 100, "c"},
		"a value with a long length":            {treeC + 4, 0xff, "c"},
		"a version of zero":                     {treeC + 3, 0, "c"},
		"a version that is cut short":           {treeC + 3, 0x80, "c"},
		"a key that reaches beyond the block":   {treeC + 1, 100, "c"},
		"a key twice":                           {treeA + treePair + 2, 'a', "b"},
		"root: an empty key":                    {treeA + treePair + 1, 0, "b"},
		"a page that reaches beyond the end":    {treeSecond + 1, 100, ""},
		"a page with a length over the maximum": {treeFirst + 1, 0xff, ""},
		"a record of no kind":                   {treeA + treePair, 7, "b"},
		"a definition after a pair":             {treeA + treePair, 1, "b"},
		"an end record before the end":          {treeA + treePair, 3, "b"},
	} {
		b := newTree().stream()
		b[c.at] = c.value
		s := openState(t, b)
		if c.get != "" {
			value, _, err := s.Get([]byte(c.get))
			if !errors.Is(err, messages.ErrMalformed) {
				t.Errorf("%s: get %q, %v", name, value, err)
			}
		}
		if _, pairs, err := answers(t, s); !errors.Is(err, messages.ErrMalformed) {
			t.Errorf("%s: a range of %d pairs, %v", name, len(pairs), err)
		}
	}
	// Definitions.
	for _, names := range []string{"xy", "yx", "xx"} {
		b := append([]byte("BLSTKVST"), 3, 0, 0, 0)
		for _, name := range names {
			b = append(b, 1, 1, byte(name), 12)
			b = append(b, `{"func":"f"}`...)
		}
		end := len(b)
		b = append(b, 3)
		b = append(b, make([]byte, trailerBytes-1)...)
		binary.LittleEndian.PutUint64(b[end+33:], uint64(end))
		sealTrailer(b)
		s := openState(t, b)
		defs, err := s.Indexes()
		if names == "xy" {
			if err != nil || len(defs) != 2 || s.Verify() != nil {
				t.Errorf("%v, %v, %v", defs, err, s.Verify())
			}
			continue
		}
		want(t, "indexes", err, messages.ErrMalformed)
	}
}

// A trailer whose checksum is good and which is not true.
func TestTrailerMustBeTrue(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	mustWrite(t, db, 0, put("a", "1"), put("b", "2"))
	state := export(t, db, 0)
	const fields = trailerBytes - 1
	for name, c := range map[string]struct {
		at     int // of a field
		target error
	}{
		"pairs": {0, messages.ErrMalformed}, "bytes": {8, messages.ErrMalformed},
		"revision": {16, messages.ErrMalformed}, "root": {24, messages.ErrCorrupt}, "offset": {32, messages.ErrMalformed},
	} {
		b := bytes.Clone(state)
		b[len(b)-fields+c.at]--
		sealTrailer(b)
		im, err := db.BeginImport(1, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = im.Write(b)
		want(t, name, err, c.target)
		s, err := kv.OpenState(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			err = s.Verify()
			want(t, name, err, c.target)
		} else {
			want(t, name, err, messages.ErrMalformed)
		}
	}
	for _, n := range []uint64{1 << 40, 1<<64 - 1} { // more than the stream can hold
		for _, at := range []int{0, 8} {
			b := bytes.Clone(state)
			binary.LittleEndian.PutUint64(b[len(b)-fields+at:], n)
			sealTrailer(b)
			_, err := kv.OpenState(bytes.NewReader(b), int64(len(b)))
			want(t, "a large number", err, messages.ErrMalformed)
		}
	}
}

// failingAt fails the n-th read.
type failingAt struct {
	io.ReaderAt
	n   int
	err error
}

func (f *failingAt) ReadAt(p []byte, off int64) (int, error) {
	if f.n--; f.n == 0 {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

// What a State is read from says itself what is wrong with it.
func TestStateReportsErrorsOfItsReader(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	big := strings.Repeat("x", 600_000)
	mustWrite(t, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v"), Prefix: "j"}))
	mustWrite(t, db, 0, put("a", big), put("b", big), put("c", "1"))
	state := export(t, db, 0)
	damage := &messages.CorruptError{Path: "some.snap", Offset: 7}
	f := &failingAt{bytes.NewReader(state), 0, damage}
	s, err := kv.OpenState(f, int64(len(state)))
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"open":    func() error { _, err := kv.OpenState(f, int64(len(state))); return err },
		"get":     func() error { _, _, err := s.Get([]byte("b")); return err },
		"indexes": func() error { _, err := s.Indexes(); return err },
		"verify":  s.Verify,
		"range": func() (err error) {
			for _, e := range s.Range(nil, nil) {
				if err != nil {
					t.Error("an error is not the last")
				}
				err = e
			}
			return err
		},
	} {
		reads := 0
		for {
			f.n = reads + 1
			err := do()
			if f.n > 0 {
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
				break
			}
			var got *messages.CorruptError
			if !errors.As(err, &got) || got != damage {
				t.Fatalf("%s: read %d fails: %v", what, reads+1, err)
			}
			reads++
		}
		if reads == 0 {
			t.Errorf("%s has read nothing", what)
		}
	}
	f.n = 0
	_, _, err = s.Get(nil)
	want(t, "get without a key", err, messages.ErrInvalid)
	_, _, err = s.Get(make([]byte, messages.MaxKey+1))
	want(t, "get with a long key", err, messages.ErrTooLarge)
	for _, err := range s.Range([]byte("b"), []byte("a")) {
		want(t, "range", err, messages.ErrInvalid)
	}
}

// A State serves several goroutines.
func TestStateIsConcurrent(t *testing.T) {
	db := open(t, memDir(t), lazy)
	fill(t, db, 0, 2000, 500)
	state := export(t, db, 0)
	s, err := kv.OpenState(bytes.NewReader(state), int64(len(state)))
	if err != nil {
		t.Fatal(err)
	}
	pairs := scanAll(t, db, messages.Scan{})
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := n; i < len(pairs); i += 7 {
				value, version, err := s.Get(pairs[i].Key)
				if err != nil || version != pairs[i].Version || !bytes.Equal(value, pairs[i].Value) {
					t.Error(i, version, err)
					return
				}
			}
			i := n * 100
			for p, err := range s.Range(pairs[i].Key, nil) {
				if err != nil || !bytes.Equal(p.Key, pairs[i].Key) || !bytes.Equal(p.Value, pairs[i].Value) {
					t.Error(i, err)
					return
				}
				i++
			}
			if i != len(pairs) {
				t.Error(i)
			}
		})
	}
	wg.Wait()
}
