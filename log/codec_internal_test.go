package log

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"unsafe"

	"github.com/ballast-raft/ballast/messages"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var goldenIdentity = [16]byte{0xB0, 0xA1, 0x92, 0x83, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}

type sample struct {
	name    string
	change  change
	entries []messages.Entry
}

func samples() []sample {
	one := []messages.Entry{{Index: 300, Term: 5, Data: []byte("payload")}}
	return []sample{
		{"append", change{kind: kindAppend, index: 300}, one},
		{"append-group", change{kind: kindAppend, index: 300, group: 70000, durableBefore: true}, one},
		{"append-hardstate", change{kind: kindAppend, index: 300, hasHard: true, hard: messages.HardState{Term: 5, Vote: 2, Commit: 299}}, one},
		{"append-only-hardstate", change{kind: kindAppend, group: 1, hasHard: true, hard: messages.HardState{Term: 5, Vote: 2, Commit: 299}}, nil},
		{"append-empty-entry", change{kind: kindAppend, index: 1}, []messages.Entry{{Index: 1, Term: 1}}},
		{"append-three", change{kind: kindAppend, index: 1}, []messages.Entry{
			{Index: 1, Term: 1, Data: []byte("a")}, {Index: 2, Term: 1}, {Index: 3, Term: 1, Data: []byte("ccc")}}},
		{"append-terms-types", change{kind: kindAppend, index: 1}, []messages.Entry{
			{Index: 1, Term: 1, Data: []byte("a")}, {Index: 2, Term: 200, Type: 9}, {Index: 3, Term: 200, Data: []byte("ccc")}}},
		{"truncate-from", change{kind: kindTruncateFrom, index: 1 << 40, group: 3}, nil},
		{"truncate-before", change{kind: kindTruncateBefore, index: 200, term: 7}, nil},
		{"reset", change{kind: kindReset, index: 0, term: 0, group: 9}, nil},
		{"stable", change{kind: kindStable, name: "CurrentTerm", value: []byte{0, 1, 2}}, nil},
		{"stable-empty", change{kind: kindStable, name: "x", value: []byte{}}, nil},
		{"stable-removed", change{kind: kindStable, name: "CurrentTerm", removed: true, group: 8}, nil},
		{"relocated", change{kind: kindRelocated, index: 300, group: 3}, one},
		{"checkpoint", change{kind: kindCheckpoint, durableBefore: true, groups: []groupMeta{
			{group: 0, first: 1},
			{group: 7, first: 101, count: 900, prevTerm: 3, lastTerm: 9, hard: messages.HardState{Term: 9, Vote: 1, Commit: 1000},
				stableNames: []string{"a", "b"}, stableValues: [][]byte{{}, []byte("value")}},
		}}, nil},
		{"checkpoint-empty", change{kind: kindCheckpoint}, nil},
		{"relocated-damaged", change{kind: kindRelocated, damaged: true, index: 300}, one},
	}
}

// golden compares with a file of hex, 16 bytes a line.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".hex")
	text := hex.Dump(got)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s:\n%swant\n%s", name, text, want)
	}
}

func TestGoldenRecords(t *testing.T) {
	m := manifest{identity: goldenIdentity, floor: 1}
	for i, s := range samples() {
		index := uint64(1)<<33 + uint64(i)
		rec, _ := encodeRecord(nil, &s.change, s.entries, nil)
		putCheck(rec, index, m.seed())
		golden(t, "record-"+s.name, rec)
		got, _, err := decodeRecord(rec, nil, true)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		want := s.change
		if len(s.entries) > 0 {
			want.term = s.entries[0].Term
		}
		if want.kind == kindCheckpoint && want.groups == nil {
			want.groups = []groupMeta{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: decoded\n%+v, want\n%+v", s.name, got, want)
		}
		for k, ref := range got.entries {
			e := s.entries[k]
			if string(rec[ref.off:ref.off+ref.size]) != string(e.Data) || ref.size != uint32(len(e.Data)) || (ref.crc == crc32.Checksum(e.Data, castagnoli)) == s.change.damaged {
				t.Errorf("%s: entry %d at %+v", s.name, k, ref)
			}
		}
	}
	fence := newFence(m.seed(), 77).record(1<<33 + 99)
	golden(t, "fence", fence)
	if first, ok := newFence(m.seed(), 77).read(fence); !ok || first != 1<<33+99 {
		t.Errorf("fence: read as %d, %v", first, ok)
	}
	golden(t, "manifest", (&manifest{identity: goldenIdentity, floor: 12345, checkpoint: 23456, ordinal: 77}).encode())
}

func TestReservedKinds(t *testing.T) {
	for _, k := range []byte{0, 1, 7, 9, 255} {
		_, _, err := decodeRecord([]byte{0, 0, 0, 0, byte(kindExtended) | flagDurableBefore, k, 2, 3}, nil, true)
		if !errors.Is(err, messages.ErrIncompatible) {
			t.Errorf("extended kind %d: %v", k, err)
		}
	}
}

// What decodes is what would be encoded, byte for byte.
func reencode(rec []byte) ([]byte, error) {
	c, _, err := decodeRecord(rec, nil, true)
	if err != nil {
		return nil, err
	}
	entries := make([]messages.Entry, len(c.entries))
	for i, e := range c.entries {
		entries[i] = messages.Entry{Index: c.index + uint64(i), Term: e.term, Type: e.typ}
		entries[i].Data = rec[e.off : e.off+e.size]
	}
	again, _ := encodeRecord(nil, &c, entries, nil)
	copy(again, rec[:4])
	return again, nil
}

func FuzzDecodeRecord(f *testing.F) {
	for _, s := range samples() {
		rec, _ := encodeRecord(nil, &s.change, s.entries, nil)
		f.Add(rec)
		f.Add(rec[:len(rec)-1])
		f.Add(append(rec, 0x80))
	}
	f.Add([]byte{0, 0, 0, 0, 1, 1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01})
	f.Fuzz(func(t *testing.T, rec []byte) {
		again, err := reencode(rec)
		if err == nil && !bytes.Equal(again, rec) {
			t.Errorf("%x decodes, and encodes as %x", rec, again)
		}
	})
}

// A good record is good at its own place in its own log only, and the check
// gives the index back.
func TestCheckMixing(t *testing.T) {
	if m := uint32(mixFactor); m*mixInverse != 1 {
		t.Fatalf("%#x is not the inverse of %#x", uint32(mixInverse), m)
	}
	rec, _ := encodeRecord(nil, &change{kind: kindTruncateFrom, index: 9}, nil, nil)
	crc := crc32.Checksum(rec[4:], castagnoli)
	for _, index := range []uint64{1, 2, 77, 1<<32 - 1, 1 << 32, 1<<40 + 5} {
		putCheck(rec, index, 42)
		if !goodCheck(rec, index, 42) || goodCheck(rec, index+1, 42) || goodCheck(rec, index-1, 42) || goodCheck(rec, index, 43) {
			t.Errorf("index %d", index)
		}
		if got := recoverIndex(crc, sealCheck(crc, index, 42), 42); got != uint32(index) {
			t.Errorf("recovered %d of %d", got, index)
		}
	}
}

func TestPrefixSums(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	data := make([]byte, 70000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	p := newPrefixSums(data)
	check := func(from, to int) {
		if got, want := p.sum(from, to), crc32.Checksum(data[from:to], castagnoli); got != want {
			t.Fatalf("%d to %d: %#x, want %#x", from, to, got, want)
		}
	}
	check(0, len(data))
	check(len(data), len(data))
	check(1, 65537)
	for range 2000 {
		from := r.IntN(len(data) + 1)
		check(from, from+r.IntN(len(data)+1-from))
	}
}

// The promise in the requirements is < 20 %; this is what the format gives.
func TestOverhead(t *testing.T) {
	for _, tc := range []struct {
		entries, payload int
		index            uint64
		most             int
	}{
		{1, 64, 1 << 27, 12},
		{1, 128, 1 << 27, 15},
		{64, 64, 1 << 40, 64 * 64 / 20},
		{64, 128, 1 << 40, 64 * 128 / 20},
		{64, 1024, 1 << 40, 64 * 1024 / 20},
	} {
		entries := make([]messages.Entry, tc.entries)
		for i := range entries {
			entries[i] = messages.Entry{Index: tc.index + uint64(i), Term: 100, Data: make([]byte, tc.payload)}
		}
		rec, _ := encodeRecord(nil, &change{kind: kindAppend}, entries, nil)
		over := uvarintLen(uint64(len(rec))) + len(rec) - tc.entries*tc.payload
		t.Logf("%d × %d bytes: %d bytes, %.1f %%", tc.entries, tc.payload, over, 100*float64(over)/float64(tc.entries*tc.payload))
		if over > tc.most {
			t.Errorf("%d × %d bytes: overhead %d, at most %d", tc.entries, tc.payload, over, tc.most)
		}
	}
}

// The index is 12 bytes an entry, and truncation gives it back.
func TestIndexMemory(t *testing.T) {
	x := newIndex()
	seg := &segment{ordinal: 1, fold: newFold()}
	refs := make([]entryRef, 1000)
	for i := range refs {
		refs[i].term = 1
	}
	next := uint64(1)
	for range 100 {
		if err := x.apply(&change{kind: kindAppend, index: next, entries: refs}, seg, 0); err != nil {
			t.Fatal(err)
		}
		next += 1000
	}
	g, tail := x.groups[0], &seg.fold.groups[0].tail
	if n := len(tail.pages); n != (100000+pageEntries-1)/pageEntries {
		t.Errorf("%d pages for 100000 entries", n)
	}
	if len(g.terms) != 1 || len(g.types) != 1 || len(g.spans) != 1 || len(tail.terms) != 1 {
		t.Errorf("%d runs of terms, %d of types, %d spans", len(g.terms), len(g.types), len(g.spans))
	}
	if n := unsafe.Sizeof(locator{}); n != 12 {
		t.Errorf("a locator takes %d bytes", n)
	}
	if err := x.apply(&change{kind: kindTruncateFrom, index: 502}, seg, 0); err != nil {
		t.Fatal(err)
	}
	if n := len(tail.pages); n != 1 {
		t.Errorf("%d pages for 501 entries", n)
	}
	if err := x.apply(&change{kind: kindTruncateBefore, index: 502, term: 1}, seg, 0); err != nil {
		t.Fatal(err)
	}
	if len(g.spans) != 0 || len(g.terms) != 0 || len(g.types) != 0 {
		t.Errorf("left %v, %v, %v", g.spans, g.terms, g.types)
	}
}

// BenchmarkIndexMemory measures the heap of the index of ten million entries, in
// appends of 64 by 16 groups, over segments of 16 MiB.
func BenchmarkIndexMemory(b *testing.B) {
	const entries, batch = 10_000_000, 64
	for b.Loop() {
		before := heap()
		x := newIndex()
		refs := make([]entryRef, batch)
		for i := range refs {
			refs[i] = entryRef{term: 1, size: 128}
		}
		var segments []*segment
		for n := 0; n < entries; n += batch {
			if n%(128*batch*16) == 0 {
				segments = append(segments, &segment{ordinal: uint32(len(segments)), fold: newFold()})
			}
			group := uint64(n / batch % 16)
			c := change{kind: kindAppend, group: group, index: x.group(group).last + 1, entries: refs}
			if err := x.apply(&c, segments[len(segments)-1], 0); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/entries, "B/entry")
		runtime.KeepAlive(x)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The search for a witness finds a flagged record at any distance behind a bad
// one, by its length or without, and nothing in random bytes.
func TestFindWitness(t *testing.T) {
	const seed, first = 99, 1 << 34
	record := func(index uint64, flagged bool, payload int) []byte {
		c := change{kind: kindAppend, durableBefore: flagged}
		rec, _ := encodeRecord(nil, &c, []messages.Entry{{Index: 5, Term: 2, Data: bytes.Repeat([]byte{0xA5}, payload)}}, nil)
		putCheck(rec, index, seed)
		n := uvarintLen(uint64(len(rec)))
		framed := make([]byte, n, n+len(rec))
		for v, i := len(rec), 0; i < n; i++ {
			framed[i] = byte(v)
			if v >>= 7; v > 0 {
				framed[i] = byte(framed[i] | 0x80)
			}
		}
		return append(framed, rec...)
	}
	for _, payload := range []int{1, 100, 5000, 300000} {
		for _, flagged := range []bool{true, false} {
			for _, tail := range []string{"end", "zeros", "record", "garbage"} {
				var data []byte
				data = append(data, record(first, true, payload)...)
				data = append(data, record(first+1, false, 10)...)
				at := len(data)
				data = append(data, record(first+2, flagged, payload)...)
				switch tail {
				case "zeros":
					data = append(data, make([]byte, 5000)...)
				case "record":
					data = append(data, record(first+3, false, 10)...)
				case "garbage":
					data = append(data, 0xFF, 0xFF, 0xFF)
				}
				want := -1
				if flagged {
					want = at
				}
				name := fmt.Sprintf("payload %d, flagged %v, then %s", payload, flagged, tail)
				body := bytes.Clone(data)
				body[9+30%payload] ^= 4 // inside the first record: its length still leads on
				if got := findWitness(body, 0, first, seed, 1); got != want {
					t.Errorf("%s, body bad: %d, want %d", name, got, want)
				}
				length := bytes.Clone(data)
				length[0] ^= 2
				length[1] |= 0x80
				if tail == "garbage" {
					continue // without lengths a witness needs something whole behind it
				}
				if got := findWitness(length, 0, first, seed, 1); got != want {
					t.Errorf("%s, length bad: %d, want %d", name, got, want)
				}
			}
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	if got := findWitness(noise, 0, first, seed, 1); got >= 0 {
		t.Errorf("a witness in noise at %d", got)
	}
}

func BenchmarkFindWitnessInNoise(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 4<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	b.SetBytes(int64(len(noise)))
	for b.Loop() {
		findWitness(noise, 0, 1000, 7, 1)
	}
}
