package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// virtualState is a state that is computed where it is read, so that it may be
// larger than memory. Its stream has no good checksum, which a State does not
// look at.
type virtualState struct {
	key  func(i int) string
	size func(i int) int
	offs []int64 // where each pair begins, with the pages before it, and the end
	// pages come before a pair, or after the last one.
	pages map[int][]byte
	tail  []byte
	index sparseIndex
	// read is how many bytes were read.
	read int64
}

func newVirtualState(n int, key func(int) string, size func(int) int) *virtualState {
	v := &virtualState{key: key, size: size, pages: map[int][]byte{}}
	w := stateWriter{}
	w.begin()
	head := w.buf
	w.buf = nil
	for i := range n {
		v.offs = append(v.offs, int64(w.index.off))
		if pages := w.index.next(nil, key(i)); len(pages) > 0 {
			v.pages[i] = pages
		}
		w.index.off += uint64(len(v.head(i)) + size(i))
		w.pairs++
	}
	v.index = w.index
	v.index.levels = slices.Clone(w.index.levels)
	v.offs = append(v.offs, int64(w.index.off))
	w.end(1)
	v.tail = binary.LittleEndian.AppendUint32(w.buf, 0)
	sealed := v.tail[len(v.tail)-trailerEnd+4:]
	v.tail = binary.LittleEndian.AppendUint32(v.tail, crc32.Checksum(sealed, castagnoli))
	v.pages[-1] = head
	return v
}

func (v *virtualState) head(i int) []byte {
	key := v.key(i)
	b := append([]byte{pairRecord}, binary.AppendUvarint(nil, uint64(len(key)))...)
	return binary.AppendUvarint(append(append(b, key...), 1), uint64(v.size(i)))
}

func (v *virtualState) value(i int) []byte { return bytes.Repeat([]byte{byte(i)}, v.size(i)) }

func (v *virtualState) total() int64 { return v.offs[len(v.offs)-1] + int64(len(v.tail)) }

func (v *virtualState) ReadAt(p []byte, off int64) (n int, err error) {
	v.read += int64(len(p))
	last := len(v.offs) - 1
	i := sort.Search(len(v.offs), func(i int) bool { return v.offs[i] > off }) - 1
	for ; n < len(p) && i <= last; i++ {
		b, at, value := v.pages[-1], int64(0), 0
		switch {
		case i == last:
			b, at = v.tail, v.offs[i]
		case i >= 0:
			b, at, value = slices.Concat(v.pages[i], v.head(i)), v.offs[i], v.size(i)
		}
		skip := int(off + int64(n) - at)
		if skip < len(b) {
			n += copy(p[n:], b[skip:])
			skip = len(b)
		}
		rest := p[n:]
		for j := range rest[:min(len(rest), len(b)+value-skip)] {
			rest[j] = byte(i)
			n++
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// One key or a short range is found in a state of any size by reading little of
// it, and the index takes little room.
func TestLookupReadsLittle(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	long := strings.Repeat("p", messages.MaxKey-21)
	for _, c := range []struct {
		name      string
		pairs     int
		key       string
		size      func(i int) int
		bytes     int64 // of the state, at least
		levels    int
		mostRead  int64 // by one Get beside its value
		mostIndex float64
		// sum is the CRC32C of the index and the trailer: they do not change.
		sum uint32
	}{
		{"1 GiB of values of 1 KiB", 1 << 20, "user/%012d", func(int) int { return kib }, 1 << 30, 2, 96 * kib, 0.0006, 0x09812638},
		{"1 GiB of values of 100 bytes and 16 KiB", 1 << 17, "user/%012d", func(i int) int { return 100 + i%2*16*kib }, 1 << 30, 2, 96 * kib, 0.0006, 0xddfd82b9},
		{"100 GiB", 820_000, "user/%012d", func(int) int { return 128 * kib }, 100 << 30, 3, 384 * kib, 0.0006, 0x3840bb50},
		{"1 TiB", 1 << 19, "user/%012d", func(int) int { return 2 * mib }, 1 << 40, 3, 3 * mib, 0.0001, 0xf3def3b2},
		{"long keys", 60_000, long + "%020d", func(i int) int { return 64 * kib }, 3 << 30, 6, 3 * mib, 0.003, 0xa5659767},
		{"one pair", 1, "%d", func(int) int { return 0 }, 0, 1, 256, 20, 0x2aec068e},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVirtualState(c.pairs, func(i int) string { return fmt.Sprintf(c.key, i) }, c.size)
			if v.total() < c.bytes || len(v.index.levels) != c.levels {
				t.Fatalf("%d bytes, %d levels", v.total(), len(v.index.levels))
			}
			held := 0
			for _, p := range v.index.levels {
				held += cap(p.entries)
			}
			if most := c.levels * 2 * maxPage; held > most {
				t.Errorf("the index holds %d bytes, at most %d", held, most)
			}
			index, sum := len(v.tail), uint32(0)
			for i := range c.pairs {
				index += len(v.pages[i])
				sum = crc32.Update(sum, castagnoli, v.pages[i])
			}
			if sum = crc32.Update(sum, castagnoli, v.tail); sum != c.sum {
				t.Errorf("the format has changed: %#08x", sum)
			}
			ratio := float64(index) / max(1, float64(v.total()-int64(index)))
			if ratio > c.mostIndex {
				t.Errorf("the index is %.4f %% of the pairs", 100*ratio)
			}
			s, err := OpenState(v, v.total())
			if err != nil {
				t.Fatal(err)
			}
			if v.read > 64*kib {
				t.Errorf("opening has read %d bytes", v.read)
			}
			if got := s.Stats().Pairs; got != int64(c.pairs) {
				t.Errorf("%d pairs", got)
			}
			r := rand.New(rand.NewPCG(1, 2))
			most, bytesRead := int64(0), int64(0)
			const gets = 100
			for n := range gets {
				i := r.IntN(c.pairs)
				switch n {
				case 0:
					i = 0
				case 1:
					i = c.pairs - 1
				}
				v.read = 0
				value, version, err := s.Get([]byte(v.key(i)))
				if err != nil || version != 1 || value == nil || !bytes.Equal(value, v.value(i)) {
					t.Fatal(i, version, err)
				}
				most, bytesRead = max(most, v.read-int64(v.size(i))), bytesRead+v.read
				v.read = 0
				if _, version, err := s.Get([]byte(v.key(i) + "\x00")); version > 0 || err != nil {
					t.Fatal(i, version, err)
				}
				most = max(most, v.read)
			}
			t.Logf("%d MiB, index %.4f %%, a Get reads %d KiB, at most %d KiB beside the value", v.total()>>20, 100*ratio, bytesRead/gets>>10, most>>10)
			if most > c.mostRead {
				t.Errorf("one lookup has read %d bytes", most)
			}
			for _, key := range []string{"\x00", "zzz"} {
				if _, version, err := s.Get([]byte(key)); version > 0 || err != nil {
					t.Fatal(key, version, err)
				}
			}
			from := r.IntN(c.pairs)
			to := min(from+5, c.pairs)
			var upper []byte
			if to < c.pairs {
				upper = []byte(v.key(to))
			}
			v.read = 0
			for p, err := range s.Range([]byte(v.key(from)), upper) {
				if err != nil || string(p.Key) != v.key(from) || !bytes.Equal(p.Value, v.value(from)) {
					t.Fatal(from, err)
				}
				from++
			}
			if from != to {
				t.Errorf("the range ends at %d, not at %d", from, to)
			}
			if most := c.mostRead + maxWalkRead + 6*int64(c.size(from-1)+c.size(0)+kib); v.read > most {
				t.Errorf("a range of 5 has read %d bytes, at most %d", v.read, most)
			}
		})
	}
}

// encode makes the stream of a state. The index may be spoilt before a pair and
// before the end.
func encode(t rapid.TB, defs []messages.IndexDefinition, pairs []messages.Pair, spoil func(x *sparseIndex, i int)) []byte {
	var w stateWriter
	var out bytes.Buffer
	drain := func() {
		for p := make([]byte, 8192); ; {
			n, err := w.Read(p)
			out.Write(p[:n])
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if n == 0 {
				return
			}
		}
	}
	w.begin()
	for _, d := range defs {
		w.definition(d)
	}
	for i, p := range pairs {
		if spoil != nil {
			spoil(&w.index, i)
		}
		w.pair(string(p.Key), p.Version, string(p.Value))
		drain()
	}
	if spoil != nil {
		spoil(&w.index, len(pairs))
	}
	w.end(uint64(len(pairs)) + 7)
	drain()
	return out.Bytes()
}

// parseState reads a stream in pieces, as an import does.
func parseState(b []byte, size int) (pairs []messages.Pair, err error) {
	r := stateReader{
		definition: func(messages.IndexDefinition) error { return nil },
		pair: func(key string, version uint64, value string) error {
			pairs = append(pairs, messages.Pair{Key: []byte(key), Value: []byte(value), Version: version})
			return nil
		},
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if err := r.Write(b[:n]); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	if !r.ended {
		return nil, io.ErrUnexpectedEOF
	}
	return pairs, nil
}

func samePairs(a, b []messages.Pair) bool {
	return slices.EqualFunc(a, b, func(a, b messages.Pair) bool {
		return a.Version == b.Version && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
	})
}

// Lookups and ranges find what a search through all pairs finds.
func TestStateBehavesAsItsPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		prefix := strings.Repeat("p", rapid.SampledFrom([]int{0, 3, 600, messages.MaxKey - 6}).Draw(t, "prefix"))
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 100, 3000, largeValue - 1, largeValue, 70_000}), 1, 4).Draw(t, "sizes")
		set := map[string]bool{}
		var pairs []messages.Pair
		for range rapid.IntRange(0, 300).Draw(t, "pairs") {
			key := fmt.Appendf([]byte(prefix), "%x", r.IntN(1<<16))
			if !set[string(key)] {
				set[string(key)] = true
				value := bytes.Repeat([]byte{byte(r.IntN(256))}, sizes[r.IntN(len(sizes))])
				pairs = append(pairs, messages.Pair{Key: key, Value: value, Version: 1 + uint64(len(pairs))})
			}
		}
		slices.SortFunc(pairs, func(a, b messages.Pair) int { return bytes.Compare(a.Key, b.Key) })
		var defs []messages.IndexDefinition
		for i := range rapid.IntRange(0, 3).Draw(t, "indexes") {
			defs = append(defs, messages.IndexDefinition{Name: fmt.Sprint("x", i), Fields: messages.Paths(strings.Repeat("p", 1+i*500)), Prefix: "\xff"})
		}
		b := encode(t, defs, pairs, nil)
		got, err := parseState(b, rapid.SampledFrom([]int{1000, 1 << 20}).Draw(t, "size"))
		if err != nil || !samePairs(got, pairs) {
			t.Fatal(len(got), len(pairs), err)
		}
		s, err := OpenState(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Indexes(); err != nil || !slices.EqualFunc(got, defs, messages.IndexDefinition.Equal) {
			t.Fatal(got, err)
		}
		total := int64(0)
		for _, p := range pairs {
			total += int64(len(p.Key) + len(p.Value))
		}
		if got := s.Stats(); got != (StateStats{Version: 3, Pairs: int64(len(pairs)), Bytes: total, Revision: uint64(len(pairs)) + 7}) {
			t.Fatal(got)
		}
		anyKey := func() []byte { return fmt.Appendf([]byte(prefix), "%x", r.IntN(1<<16)) }
		find := func(key []byte) (int, bool) {
			return slices.BinarySearchFunc(pairs, key, func(p messages.Pair, key []byte) int { return bytes.Compare(p.Key, key) })
		}
		for n := range 2 * len(pairs) {
			key := anyKey()
			if n < len(pairs) {
				key = pairs[n].Key
			}
			value, version, err := s.Get(key)
			i, want := find(key)
			if err != nil || version > 0 != want || want && (!bytes.Equal(value, pairs[i].Value) || version != pairs[i].Version) {
				t.Fatal(i, version, want, err)
			}
		}
		for range 10 {
			from, to := anyKey(), anyKey()
			if bytes.Compare(from, to) > 0 {
				from, to = to, from
			}
			switch r.IntN(5) {
			case 0:
				from = nil
			case 1:
				to = nil
			}
			i, _ := find(from)
			j := len(pairs)
			if to != nil {
				j, _ = find(to)
			}
			var got []messages.Pair
			limit := 1 + r.IntN(100)
			for p, err := range s.Range(from, to) {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, p); len(got) == limit {
					break
				}
			}
			if want := pairs[i:min(j, i+limit)]; !samePairs(got, want) {
				t.Fatalf("from %q to %q: %d pairs, want %d", from, to, len(got), len(want))
			}
		}
	})
}

// manyPairs have an index of two levels if their keys are long.
func manyPairs(n, key, value int) (pairs []messages.Pair) {
	for i := range n {
		pairs = append(pairs, messages.Pair{
			Key:   fmt.Appendf(bytes.Repeat([]byte{'k'}, key), "%06d", i),
			Value: bytes.Repeat([]byte{byte(i)}, value), Version: uint64(n - i)})
	}
	return pairs
}

// A sparse index whose checksums are good but which is not that of the pairs is
// damage at an import, and no answer at a lookup is anything but a pair or an
// error.
func TestSparseIndexMustBeThatOfThePairs(t *testing.T) {
	pairs := manyPairs(240, 4000, 60_000)
	good := encode(t, nil, pairs, nil)
	if got, err := parseState(good, 1<<20); err != nil || !samePairs(got, pairs) {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(x *sparseIndex, i int){
		"no index": func(x *sparseIndex, i int) { x.levels = nil },
		"no levels at the end": func(x *sparseIndex, i int) {
			if i == len(pairs) {
				x.levels = x.levels[:1]
			}
		},
		"a block more": func(x *sparseIndex, i int) {
			if i == 40 {
				x.block = 0
			}
		},
		"a block less": func(x *sparseIndex, i int) {
			if i == 200 {
				x.block = x.off
			}
		},
		"another key": func(x *sparseIndex, i int) {
			if i == len(pairs) {
				x.levels[0].entries[4000] ^= 1
			}
		},
		"another offset": func(x *sparseIndex, i int) {
			if i == len(pairs) {
				e := x.levels[0].entries
				e[len(e)-1] ^= 1
			}
		},
		"an early page": func(x *sparseIndex, i int) {
			if i == 60 {
				x.levels[0].entries = slices.Repeat(x.levels[0].entries, 5)
				x.block = 0
			}
		},
		"another key of a page": func(x *sparseIndex, i int) {
			if i == len(pairs) {
				x.levels[1].entries[1] ^= 1
			}
		},
		"another offset of a page": func(x *sparseIndex, i int) {
			if i == len(pairs) {
				e := x.levels[1].entries
				e[len(e)-1] ^= 1
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := encode(t, nil, pairs, spoil)
			if bytes.Equal(b, good) {
				t.Fatal("the stream is as it should be")
			}
			if _, err := parseState(b, 1<<16); !errors.Is(err, messages.ErrCorrupt) {
				t.Errorf("import: %v", err)
			}
			s, err := OpenState(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				if !errors.Is(err, messages.ErrMalformed) {
					t.Error(err)
				}
				return
			}
			if err := s.Verify(); !errors.Is(err, messages.ErrCorrupt) {
				t.Errorf("verify: %v", err)
			}
			for _, p := range pairs {
				value, version, err := s.Get(p.Key)
				if err != nil && !errors.Is(err, messages.ErrMalformed) || version > 0 && !bytes.Equal(value, p.Value) {
					t.Fatal(version, err)
				}
			}
		})
	}
	var damage *messages.CorruptError
	b := encode(t, nil, pairs, func(x *sparseIndex, i int) { x.levels = nil })
	if _, err := parseState(b, 1<<16); !errors.As(err, &damage) || damage.Offset <= int64(stateHead) || damage.Offset >= int64(len(b)) {
		t.Errorf("%+v", damage)
	}
}

// A stream of nothing but pages is refused before it has filled the memory.
func TestEndlessPages(t *testing.T) {
	b := encode(t, nil, manyPairs(1, 1, 1), nil)
	var x sparseIndex
	x.next(nil, "k")
	x.levels[0].entries = make([]byte, pageBytes)
	record := x.put(nil, 0)
	r := stateReader{pair: func(string, uint64, string) error { return nil }}
	if err := r.Write(b[:stateHead+12]); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n += len(record) {
		err := r.Write(record)
		if err == nil && n < 1<<20 {
			continue
		}
		if !errors.Is(err, messages.ErrCorrupt) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		return
	}
}
