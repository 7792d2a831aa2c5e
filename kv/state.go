package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"

	"github.com/ballast-raft/ballast/messages"
)

// State reads single keys and ranges out of an exported state without reading
// the rest. It keeps one page of the sparse index in memory; a Get reads one
// more page for each further level and one block of pairs, about 100 KiB in a
// state of 1 GiB.
//
// Every page of the sparse index and the trailer are verified when they are
// read, and what is read must fit together. The pairs have no checksums of
// their own: that of the stream covers them and takes a Verify, which reads it
// all. So a State is as good as what it is read from; the content of a snapshot
// is covered by the snapshot's own checksums.
//
// The methods may be called from several goroutines at a time, as ReadAt may.
type State struct {
	r     io.ReaderAt
	size  int64
	end   int64 // where the end record begins
	root  loadedPage
	stats StateStats
}

// StateStats is what the trailer of a state says.
type StateStats struct {
	// Version of the stream.
	Version int
	// Pairs is how many there are, and Bytes what keys and values amount to.
	Pairs, Bytes int64
	// Revision is the version of the latest change.
	Revision uint64
}

// loadedPage is a verified page of the sparse index.
type loadedPage struct {
	off     int64
	level   int
	entries []byte
}

const (
	// A walk begins with small reads, for one key, and goes on with larger
	// ones.
	minWalkRead = 16 << 10
	maxWalkRead = 256 << 10
	// maxPairHead is a record up to its value.
	maxPairHead = 1 + binary.MaxVarintLen64 + messages.MaxKey + 2*binary.MaxVarintLen64
)

// OpenState reads the ends of an exported state of the given length, and a page
// of its sparse index.
//
// Errors: ErrMalformed (it is not a state, or not a whole one), ErrCorrupt (a
// checksum fails), ErrIncompatible (a later version), and those of r.
func OpenState(r io.ReaderAt, size int64) (*State, error) {
	s := &State{r: r, size: size}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("kv: open state: %w", err)
	}
	return s, nil
}

func (s *State) open() error {
	if s.size < int64(stateHead) {
		return malformed("%d bytes", s.size)
	}
	var head [stateHead]byte
	if err := s.read(head[:], 0); err != nil {
		return err
	}
	if string(head[:len(stateMagic)]) != stateMagic {
		return malformed("it does not begin with %q", stateMagic)
	}
	if err := checkVersion(head[:]); err != nil {
		return err
	}
	if s.end = s.size - trailerEnd; s.end < int64(stateHead) {
		return malformed("%d bytes", s.size)
	}
	var b [trailerEnd]byte
	if err := s.read(b[:], s.end); err != nil {
		return err
	}
	t, err := decodeTrailer(b[:], uint64(s.end))
	if err != nil {
		return err
	}
	// A pair is five bytes at least, and of a key and a value one.
	if t.pairs > uint64(s.size)/5 || t.bytes > uint64(s.size) {
		return malformed("%d pairs of %d bytes in a stream of %d bytes", t.pairs, t.bytes, s.size)
	}
	s.stats = StateStats{Version: stateVersion, Pairs: int64(t.pairs), Bytes: int64(t.bytes), Revision: t.revision}
	if t.root != 0 {
		s.root, err = s.load(int64(t.root), s.end)
	}
	return err
}

// Stats returns the figures of the trailer, which nothing but Verify compares
// with the pairs.
func (s *State) Stats() StateStats { return s.stats }

// read fills p. A stream that is shorter than it should be is malformed.
func (s *State) read(p []byte, off int64) error {
	n, err := s.r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return malformed("it ends at %d, not at %d", off+int64(n), s.size)
	}
	return fmt.Errorf("state stream: read at %d: %w", off, err)
}

// load reads and verifies the page at off; limit is at or after its end.
func (s *State) load(off, limit int64) (p loadedPage, err error) {
	b := make([]byte, min(maxPageRecord, limit-off))
	if err := s.read(b, off); err != nil {
		return p, err
	}
	n, w := 0, 0
	if b[0] == pageRecord {
		if n, w, err = uvarint(b, 1, maxPage); err != nil {
			return p, err
		}
	}
	sum := 1 + w + n
	if w == 0 || n == 0 || sum+4 > len(b) {
		return p, malformed("there is no page of the sparse index at %d", off)
	}
	if binary.LittleEndian.Uint32(b[sum:]) != crc32.Checksum(b[:sum], castagnoli) {
		return p, damagedState(uint64(off), "a page of the sparse index fails its checksum")
	}
	p = loadedPage{off: off, level: int(b[1+w]), entries: b[2+w : sum]}
	if len(p.entries) == 0 {
		return p, malformed("the page at %d has no entries", off)
	}
	last, lastOff := []byte(nil), int64(stateHead)-1
	for e := (entries{rest: p.entries}); ; last, lastOff = e.key, e.off {
		switch ok, err := e.next(); {
		case err != nil:
			return p, err
		case !ok:
			return p, nil
		case bytes.Compare(e.key, last) <= 0 || e.off <= lastOff || e.off >= off:
			return p, malformed("the page at %d is not in order", off)
		}
	}
}

// find returns the last entry at or below the key, or the first one of all, and
// where what it stands for ends.
func (p *loadedPage) find(key []byte) (found entries, end int64) {
	e := entries{rest: p.entries}
	for first := true; ; first = false {
		ok, err := e.next()
		if !ok || err != nil { // load has seen that there is no error
			return found, p.off
		}
		if !first && bytes.Compare(e.key, key) > 0 {
			return found, e.off
		}
		found = e
	}
}

// seek returns a walk over the block that has the key, if there is one.
func (s *State) seek(key []byte) (*stateWalk, error) {
	w := &stateWalk{state: s, limit: s.end, size: minWalkRead}
	if s.root.off == 0 {
		w.off = s.end
		return w, nil
	}
	for p := s.root; ; {
		e, end := p.find(key)
		if p.level == 0 {
			w.off, w.limit, w.first = e.off, end, e.key
			return w, nil
		}
		level := p.level - 1
		var err error
		if p, err = s.load(e.off, end); err != nil {
			return nil, err
		}
		first := entries{rest: p.entries}
		if _, err := first.next(); err != nil {
			return nil, err
		}
		if p.level != level || !bytes.Equal(first.key, e.key) {
			return nil, malformed("the page at %d is not the one that its parent says", e.off)
		}
	}
}

// Get returns the value and the version of a key, nil and zero if there is no such
// key. The value of a key that exists is not nil.
//
// Errors: ErrInvalid and ErrTooLarge (the key), and those of OpenState.
func (s *State) Get(key []byte) (value []byte, version uint64, err error) {
	if err := validKey(key); err != nil {
		return nil, 0, fmt.Errorf("kv: state: get: %w", err)
	}
	w, err := s.seek(key)
	for err == nil {
		var ok bool
		if ok, err = w.next(); err != nil || !ok {
			break
		}
		c := bytes.Compare(w.key, key)
		if c == 0 {
			if value, err = w.value(); err != nil {
				break
			}
			return value, w.version, nil
		}
		if c > 0 {
			return nil, 0, nil
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("kv: state: get: %w", err)
	}
	return nil, 0, nil
}

// Range yields the pairs from a key on and before another, in order; an empty
// from is the beginning and a nil to the end. A pair belongs to the receiver.
// It reads at most 256 KiB ahead, and holds one pair at a time. An error is the
// last that is yielded.
//
// Errors: ErrInvalid (from > to), and those of OpenState.
func (s *State) Range(from, to []byte) iter.Seq2[messages.Pair, error] {
	return func(yield func(messages.Pair, error) bool) {
		if err := s.scan(from, to, func(p messages.Pair) bool { return yield(p, nil) }); err != nil {
			yield(messages.Pair{}, fmt.Errorf("kv: state: range: %w", err))
		}
	}
}

func (s *State) scan(from, to []byte, yield func(messages.Pair) bool) error {
	if to != nil && bytes.Compare(from, to) > 0 {
		return fmt.Errorf("from %q is after to %q: %w", from, to, messages.ErrInvalid)
	}
	w, err := s.seek(from)
	if err != nil {
		return err
	}
	w.limit = s.end
	for {
		ok, err := w.next()
		if err != nil || !ok || to != nil && bytes.Compare(w.key, to) >= 0 {
			return err
		}
		if bytes.Compare(w.key, from) < 0 {
			continue
		}
		p := messages.Pair{Key: bytes.Clone(w.key), Version: w.version}
		if p.Value, err = w.value(); err != nil {
			return err
		}
		if !yield(p) {
			return nil
		}
	}
}

// Indexes returns the definitions of the secondary indexes, in order of their
// names. They have no checksums of their own, as pairs have none.
//
// Errors: ErrTooLarge (definitions of more than MaxBytes), and those of
// OpenState.
func (s *State) Indexes() ([]messages.IndexDefinition, error) {
	var defs []messages.IndexDefinition
	w := &stateWalk{state: s, off: int64(stateHead), limit: s.end, size: minWalkRead}
	last, total := "", 0
	for {
		b, err := w.peek(maxDefinitionRecord)
		if err != nil {
			return nil, fmt.Errorf("kv: state: indexes: %w", err)
		}
		if len(b) == 0 || b[0] != definitionRecord {
			return defs, nil
		}
		def, n, err := parseDefinition(b)
		switch {
		case err != nil:
		case n == 0:
			err = malformed("a record at %d is cut short", w.off)
		case def.Name <= last:
			err = malformed("%q is not in order", def.Name)
		default:
			if total += n; total > MaxBytes {
				err = fmt.Errorf("more than %d bytes of definitions: %w", MaxBytes, messages.ErrTooLarge)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("kv: state: indexes: %w", err)
		}
		defs = append(defs, def)
		last = def.Name
		w.off += int64(n)
	}
}

// Verify reads the whole state and checks it as an import does, but not whether
// values under an index are JSON.
//
// Errors: those of OpenState.
func (s *State) Verify() error {
	r := stateReader{
		definition: func(messages.IndexDefinition) error { return nil },
		pair:       func(string, uint64, string) error { return nil },
	}
	p := make([]byte, min(maxWalkRead, s.size))
	var err error
	for off := int64(0); off < s.size && err == nil; {
		p = p[:min(int64(len(p)), s.size-off)]
		if err = s.read(p, off); err == nil {
			err = r.Write(p)
		}
		off += int64(len(p))
	}
	if err == nil && !r.ended {
		err = malformed("it is not complete")
	}
	if err != nil {
		return fmt.Errorf("kv: verify state: %w", err)
	}
	return nil
}

// stateWalk goes over records one after the other.
type stateWalk struct {
	state *State
	// off is where the next record begins and limit where the last one ends.
	off, limit int64
	// first is the entry that led here: the first key begins with it.
	first []byte
	// buf are the bytes at the offset at; the next read is of size.
	buf  []byte
	at   int64
	size int

	// The pair: its key until the next call, and where its value is.
	key      []byte
	version  uint64
	valueAt  int64
	valueLen int
}

// peek returns the bytes at off: n, or as many as there are before limit.
func (w *stateWalk) peek(n int) ([]byte, error) {
	n = int(min(int64(n), w.limit-w.off))
	skip := w.off - w.at
	if skip+int64(n) > int64(len(w.buf)) {
		kept := 0
		if skip < int64(len(w.buf)) {
			kept = copy(w.buf, w.buf[skip:])
		}
		want := int(min(int64(max(n, w.size)), w.limit-w.off))
		w.size = min(2*w.size, maxWalkRead)
		if cap(w.buf) < want {
			w.buf = append(make([]byte, 0, want), w.buf[:kept]...)
		}
		w.buf = w.buf[:want]
		w.at, skip = w.off, 0
		if err := w.state.read(w.buf[kept:], w.off+int64(kept)); err != nil {
			w.buf = w.buf[:kept]
			return nil, err
		}
	}
	return w.buf[skip : skip+int64(n)], nil
}

// next moves to the next pair, or reports that there is none before limit.
func (w *stateWalk) next() (ok bool, err error) {
	for w.off < w.limit {
		b, err := w.peek(maxPairHead)
		if err != nil {
			return false, err
		}
		switch kind := b[0]; {
		case kind == pairRecord:
			return true, w.pair(b)
		case kind == pageRecord:
			n, v, err := uvarint(b, 1, maxPage)
			if err != nil {
				return false, err
			}
			w.off += int64(1 + v + n + 4)
			if v == 0 || w.off > w.limit {
				return false, w.cut()
			}
		default:
			return false, malformed("a record of kind %#x at %d", kind, w.off)
		}
	}
	return false, nil
}

func (w *stateWalk) cut() error { return malformed("a record at %d is cut short", w.off) }

// pair reads the record of a pair up to its value.
func (w *stateWalk) pair(b []byte) error {
	n, v, err := uvarint(b, 1, messages.MaxKey)
	if err != nil {
		return err
	}
	at := 1 + v
	if v == 0 || n > len(b)-at {
		return w.cut()
	}
	key := b[at : at+n]
	at += n
	if w.version, v, err = pairVersion(b, at); err != nil {
		return err
	}
	if v == 0 {
		return w.cut()
	}
	at += v
	if w.valueLen, v, err = uvarint(b, at, messages.MaxValue); err != nil {
		return err
	}
	w.valueAt = w.off + int64(at+v)
	if v == 0 || int64(w.valueLen) > w.limit-w.valueAt {
		return w.cut()
	}
	if bytes.Compare(key, w.key) <= 0 || w.key == nil && !bytes.HasPrefix(key, w.first) {
		return malformed("%q at %d is not in order", key, w.off)
	}
	w.key = append(w.key[:0], key...)
	w.off = w.valueAt + int64(w.valueLen)
	return nil
}

// value reads the value of the pair; the caller may keep it.
func (w *stateWalk) value() ([]byte, error) {
	value := make([]byte, w.valueLen)
	n := 0
	if skip := w.valueAt - w.at; skip < int64(len(w.buf)) {
		n = copy(value, w.buf[skip:])
	}
	if n == len(value) {
		return value, nil
	}
	return value, w.state.read(value[n:], w.valueAt+int64(n))
}
