package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

const (
	summaryName    = "SUMMARY"
	summaryMagic   = "BLSTSUM1"
	summaryVersion = 1
	summaryHeader  = 88
	locatorSize    = 12
)

// summary is what is kept of a closed segment, so that its records need not be
// read again: what they do, and where their entries lie. It is a function of
// the segment's records alone.
type summary struct {
	identity [16]byte
	ordinal  uint32
	first    uint64 // wal index of the first record
	records  uint64
	size     int64 // where the last record ends
	fold     *fold
	// stretches are those of the fold in the order of their locators, which
	// are count in number, at locatorsAt in the file.
	stretches    []*stretch
	count        uint64
	locatorsAt   int64
	locatorsSum  uint32
	locatorsSize int64
}

const (
	foldHasCut = 1 << iota
	foldHasFirst
	foldHasLast
	foldHasHard
	foldHasCommit
	foldWhole
	foldHasTail
	foldUnknown
)

// encode returns the bytes of the summary. The locators must be in memory.
func (s *summary) encode() []byte {
	meta := binary.AppendUvarint(nil, uint64(len(s.fold.groups)))
	var locators []byte
	add := func(t *stretch) {
		meta = binary.AppendUvarint(meta, t.base)
		meta = binary.AppendUvarint(meta, t.count)
		meta = binary.AppendUvarint(meta, t.bytes)
		meta = binary.AppendUvarint(meta, t.around)
		meta = appendRuns(meta, t.terms, t.base)
		meta = appendRuns(meta, t.types, t.base)
		for _, page := range t.pages {
			for _, l := range page {
				locators = binary.LittleEndian.AppendUint32(locators, l.offset)
				locators = binary.LittleEndian.AppendUint32(locators, l.size)
				locators = binary.LittleEndian.AppendUint32(locators, l.crc)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.fold.groups)) {
		g := s.fold.groups[id]
		meta = binary.AppendUvarint(meta, id)
		flags := byte(0)
		set := func(flag byte, on bool) bool {
			if on {
				flags |= flag
			}
			return on
		}
		at := len(meta)
		meta = append(meta, 0)
		if set(foldHasCut, g.cut != math.MaxUint64) {
			meta = binary.AppendUvarint(meta, g.cut)
		}
		if set(foldHasFirst, g.hasFirst) {
			meta = binary.AppendUvarint(meta, g.first)
			meta = binary.AppendUvarint(meta, g.prevTerm)
		}
		if set(foldHasLast, g.hasLast) {
			meta = binary.AppendUvarint(meta, g.last)
		}
		if set(foldHasHard, g.hasHard) {
			meta = appendHardState(meta, g.hard)
		} else if set(foldHasCommit, g.hasCommit) {
			meta = binary.AppendUvarint(meta, g.hard.Commit)
		}
		set(foldWhole, g.whole)
		set(foldHasTail, g.tail.count > 0)
		meta[at] = flags
		meta = binary.AppendUvarint(meta, uint64(len(g.moved)))
		for _, t := range g.stretches() {
			add(t)
		}
		meta = binary.AppendUvarint(meta, uint64(len(g.stable)))
		for _, name := range slices.Sorted(maps.Keys(g.stable)) {
			meta = binary.AppendUvarint(meta, uint64(len(name)))
			meta = append(meta, name...)
			value := g.stable[name]
			if value == nil {
				meta = binary.AppendUvarint(meta, 0)
				continue
			}
			meta = binary.AppendUvarint(meta, uint64(len(value))+1)
			meta = append(meta, value...)
		}
	}
	b := make([]byte, summaryHeader, summaryHeader+len(meta)+len(locators))
	copy(b, summaryMagic)
	binary.LittleEndian.PutUint32(b[8:], summaryVersion)
	copy(b[16:], s.identity[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(s.ordinal))
	binary.LittleEndian.PutUint64(b[40:], s.first)
	binary.LittleEndian.PutUint64(b[48:], s.records)
	binary.LittleEndian.PutUint64(b[56:], uint64(s.size))
	binary.LittleEndian.PutUint64(b[64:], s.fold.near)
	binary.LittleEndian.PutUint32(b[72:], uint32(len(meta)))
	binary.LittleEndian.PutUint32(b[76:], crc32.Checksum(locators, castagnoli))
	binary.LittleEndian.PutUint64(b[80:], uint64(len(locators)))
	b = append(b, meta...)
	binary.LittleEndian.PutUint32(b[12:], summarySum(b))
	return append(b, locators...)
}

// summarySum is the check of a header and the metadata behind it.
func summarySum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

func appendRuns(b []byte, r runs, base uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(r)))
	for _, x := range r {
		b = binary.AppendUvarint(b, x.from-base)
		b = binary.AppendUvarint(b, x.value)
		base = x.from
	}
	return b
}

// errStale is a summary that is missing, damaged or not that of its segment:
// the segment itself must be read.
var errStale = errors.New("no good summary")

// readSummary reads the summary of a segment, but for the locators. An error
// matches errStale if there is no good one.
func readSummary(path string, identity [16]byte, ordinal uint32) (*summary, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errStale
	}
	if err != nil {
		return nil, fmt.Errorf("open summary: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open summary: %w", err)
	}
	var guess [4096]byte
	b := guess[:min(int64(len(guess)), info.Size())]
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	if len(b) < summaryHeader {
		return nil, fmt.Errorf("%w: %d bytes", errStale, len(b))
	}
	n := summaryHeader + int64(binary.LittleEndian.Uint32(b[72:]))
	if n > info.Size() {
		return nil, fmt.Errorf("%w: cut short", errStale)
	}
	if n > int64(len(b)) {
		b = make([]byte, n)
		if _, err := f.ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("%w: %w", errStale, err)
		}
	}
	s, err := decodeSummary(b[:n])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	if s.identity != identity || s.ordinal != ordinal || s.locatorsAt+s.locatorsSize != info.Size() {
		return nil, fmt.Errorf("%w: it belongs to another segment", errStale)
	}
	return s, nil
}

// decodeSummary decodes a header and the metadata behind it. It accepts exactly
// what encode produces.
func decodeSummary(b []byte) (*summary, error) {
	bad := func(what string) (*summary, error) { return nil, fmt.Errorf("summary: %s", what) }
	if len(b) < summaryHeader || string(b[:8]) != summaryMagic {
		return bad("not a summary")
	}
	if binary.LittleEndian.Uint32(b[12:]) != summarySum(b) {
		return bad("bad checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != summaryVersion {
		return bad(fmt.Sprintf("version %d", v))
	}
	ordinal := binary.LittleEndian.Uint64(b[32:])
	s := &summary{
		identity:     [16]byte(b[16:32]),
		ordinal:      uint32(ordinal),
		first:        binary.LittleEndian.Uint64(b[40:]),
		records:      binary.LittleEndian.Uint64(b[48:]),
		size:         int64(binary.LittleEndian.Uint64(b[56:])),
		fold:         newFold(),
		locatorsAt:   int64(len(b)),
		locatorsSum:  binary.LittleEndian.Uint32(b[76:]),
		locatorsSize: int64(binary.LittleEndian.Uint64(b[80:])),
	}
	s.fold.near = binary.LittleEndian.Uint64(b[64:])
	if ordinal > math.MaxUint32 || s.first == 0 || s.size < 0 || s.size > math.MaxUint32 || s.locatorsSize < 0 || s.locatorsSize%locatorSize != 0 ||
		s.records > uint64(s.size) {
		return bad("header")
	}
	r := body{b: b, pos: summaryHeader}
	take := func(t *stretch) bool {
		t.base, t.count = r.uvarint(), r.uvarint()
		t.bytes, t.around = r.uvarint(), r.uvarint()
		t.at = s.locatorsAt + int64(s.count)*locatorSize
		if r.failed || t.base == 0 || t.base > maxIndex || t.count == 0 || t.bytes > uint64(s.size) || t.around > uint64(s.size) || t.count > uint64(s.locatorsSize)/locatorSize-s.count {
			return false
		}
		s.count += t.count
		s.stretches = append(s.stretches, t)
		var ok bool
		if t.terms, ok = r.runs(t); !ok {
			return false
		}
		t.types, ok = r.runs(t)
		return ok
	}
	groups, before := r.uvarint(), uint64(0)
	for i := uint64(0); i < groups; i++ {
		id := r.uvarint()
		flags := r.byte()
		if r.failed || i > 0 && id <= before || flags&foldUnknown != 0 || flags&foldHasHard != 0 && flags&foldHasCommit != 0 {
			return bad("group")
		}
		before = id
		g := s.fold.group(id)
		if flags&foldHasCut != 0 {
			if g.cut = r.uvarint(); g.cut == math.MaxUint64 {
				return bad("cut")
			}
		}
		if g.hasFirst = flags&foldHasFirst != 0; g.hasFirst {
			g.first, g.prevTerm = r.uvarint(), r.uvarint()
			if g.first == 0 || g.first > maxIndex {
				return bad("first")
			}
		}
		if g.hasLast = flags&foldHasLast != 0; g.hasLast {
			if g.last = r.uvarint(); g.last > maxIndex {
				return bad("last")
			}
		}
		if g.hasHard = flags&foldHasHard != 0; g.hasHard {
			g.hard = r.hardState()
		} else if g.hasCommit = flags&foldHasCommit != 0; g.hasCommit {
			g.hard.Commit = r.uvarint()
		}
		g.whole = flags&foldWhole != 0
		moved := r.uvarint()
		if flags&foldHasTail != 0 && !take(&g.tail) {
			return bad("entries")
		}
		for j := uint64(0); j < moved; j++ {
			g.moved = append(g.moved, &stretch{})
			if !take(g.moved[j]) {
				return bad("moved entries")
			}
		}
		names, last := r.uvarint(), ""
		for j := uint64(0); j < names && !r.failed; j++ {
			if g.stable == nil {
				g.stable = map[string][]byte{}
			}
			name := string(r.bytes(r.uvarint()))
			if j > 0 && name <= last {
				return bad("names")
			}
			last = name
			n := r.uvarint()
			g.stable[name] = nil
			if n > 0 {
				g.stable[name] = append([]byte{}, r.bytes(n-1)...)
			}
		}
		if r.failed {
			return bad("group")
		}
	}
	if r.failed || r.left() != 0 || int64(s.count)*locatorSize != s.locatorsSize {
		return bad("length")
	}
	return s, nil
}

// runs reads the terms or the types of a stretch.
func (r *body) runs(t *stretch) (runs, bool) {
	n := r.uvarint()
	if n == 0 || n > t.count || n > uint64(r.left()) {
		return nil, false
	}
	rs := make(runs, n)
	from := t.base
	for i := range rs {
		d := r.uvarint()
		if (d == 0) != (i == 0) || d >= t.end()-from {
			return nil, false
		}
		from += d
		rs[i] = run{from, r.uvarint()}
	}
	return rs, !r.failed
}

// loadLocators reads the locators of a summarised segment.
func loadLocators(path string, s *summary) ([]locator, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, s.locatorsSize)
	if _, err := f.ReadAt(b, s.locatorsAt); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if err != nil || crc32.Checksum(b, castagnoli) != s.locatorsSum {
		return nil, &messages.CorruptError{Path: path, Offset: s.locatorsAt, Reason: "bad checksum", Err: err}
	}
	locators := make([]locator, len(b)/locatorSize)
	for i := range locators {
		p := b[i*locatorSize:]
		locators[i] = locator{binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:]), binary.LittleEndian.Uint32(p[8:])}
	}
	return locators, nil
}

// write puts the summary beside its segment. It is not synced: a summary that
// is missing or fails its checksum is made again from the records, and the
// syncs would be paid for by the appends beside them.
func (s *summary) write(path string) error {
	if err := os.WriteFile(path, s.encode(), 0o644); err != nil {
		return fmt.Errorf("write summary: %w", durable.Wrap(err))
	}
	return nil
}
