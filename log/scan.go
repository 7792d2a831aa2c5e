package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// segmentFile is a segment as the directory lists it.
type segmentFile struct {
	start uint64
	path  string
	size  int64
}

func segmentPath(dir string, start uint64) string {
	return filepath.Join(dir, walName, fmt.Sprintf("%020d", start))
}

// listSegments lists the segments in ascending order, and the files that the
// engine's own truncation leaves when it is interrupted: temps are unfinished
// and may go; a .START or .END file is one that this package never makes, and
// that would have the engine delete segments when it opens.
func listSegments(dir string) (segments []segmentFile, temps []string, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, walName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list segments: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, walName, name)
		if e.IsDir() || len(name) < 20 {
			continue
		}
		start, err := strconv.ParseUint(name[:20], 10, 64)
		if err != nil || start == 0 {
			continue
		}
		switch suffix := name[20:]; {
		case suffix == "":
			info, err := e.Info()
			if err != nil {
				return nil, nil, fmt.Errorf("list segments: %w", err)
			}
			if info.Size() > math.MaxUint32 {
				return nil, nil, &messages.CorruptError{Path: path, Offset: math.MaxUint32, Reason: "larger than any segment"}
			}
			segments = append(segments, segmentFile{start: start, path: path, size: info.Size()})
		case suffix == ".START", suffix == ".END":
			return nil, nil, &messages.CorruptError{Path: path, Offset: 0, Reason: "a truncation that this log never does"}
		case strings.HasSuffix(suffix, ".TEMP"):
			temps = append(temps, path)
		}
	}
	return segments, temps, nil
}

// scanned is what one segment holds.
type scanned struct {
	// next is the wal index after the last good record, end where that one
	// ends.
	next uint64
	end  int
	// reason says what is wrong at end; empty if nothing is.
	reason string
	// refused is set if the record at end has a good checksum, and contents
	// that contradict what came before or that this version does not know. No
	// crash does that.
	refused error
}

// visitor sees each good record: its wal index, its offset (that of its
// length), the offset of the record proper, and the record. An error says that
// it contradicts what came before.
type visitor func(at uint64, offset, body int, rec []byte) error

// scanSegment reads the records of a segment up to the first that is not good.
func scanSegment(data []byte, start uint64, seed uint32, visit visitor) scanned {
	s := scanned{next: start}
	for s.end < len(data) {
		if data[s.end] == 0 {
			if i := firstNonZero(data[s.end:]); i >= 0 {
				s.reason = fmt.Sprintf("zeros where a record should be, and something after %d of them", i)
			}
			return s
		}
		rec, size, reason := cutFrame(data[s.end:])
		if reason != "" {
			s.reason = reason
			return s
		}
		if !goodCheck(rec, s.next, seed) {
			s.reason = "bad checksum"
			return s
		}
		if err := visit(s.next, s.end, s.end+size-len(rec), rec); err != nil {
			s.reason, s.refused = err.Error(), err
			return s
		}
		s.end += size
		s.next++
	}
	return s
}

func firstNonZero(b []byte) int {
	for i, v := range b {
		if v != 0 {
			return i
		}
	}
	return -1
}

// findWitness looks behind the bad record at data[bad:], which should have had
// the wal index at, for a good one that says that everything before it was
// durable. If there is one, the bad record had been acknowledged, and is
// damage; if there is none, it is the torn end of the last sync. It returns
// the witness's offset, or -1.
//
// First it follows the lengths, where the index of each record is known. Then
// it tries every offset. Three filters keep that bounded: the length must fit,
// the flag must be set and the flags legal (43 of 256 values), and the index
// that the check implies must be one that fits between the bad record and the
// candidate. The CRC of a candidate of any length costs four multiplications,
// because CRCs are linear and those of all prefixes are at hand (see
// prefixSums). A candidate must also be well-formed and be followed by a good
// record, the end, or nothing but zeros. 4 MiB of random bytes, the
// worst there is, cost 270 ms, 64 MiB a few seconds; zeros cost 1 ns each.
func findWitness(data []byte, bad int, at uint64, seed uint32) int {
	for off, i := bad, at; ; i++ {
		rec, size, reason := cutFrame(data[off:])
		if reason != "" {
			break
		}
		if i > at && rec[4]&flagDurableBefore != 0 && goodCheck(rec, i, seed) {
			return off
		}
		off += size
	}
	sums := newPrefixSums(data[bad:])
	for off := bad + 1; off < len(data)-minFramed+1; off++ {
		if data[off] == 0 {
			continue
		}
		n, width := binary.Uvarint(data[off:])
		if width <= 0 || n < minRecord || n > uint64(len(data)-off-width) {
			continue
		}
		start := off + width
		flags := data[start+4]
		if flags&flagDurableBefore == 0 || flags&^(kindMask|flagDurableBefore)&^legalFlags[flags&kindMask] != 0 {
			continue
		}
		end := start + int(n)
		crc := sums.sum(start+4-bad, end-bad)
		ahead := recoverIndex(crc, binary.LittleEndian.Uint32(data[start:]), seed) - uint32(at)
		if ahead == 0 || uint64(ahead) > uint64(off-bad)/minFramed+1 {
			continue
		}
		if _, _, err := decodeRecord(data[start:end], nil, false); err != nil && !errors.Is(err, messages.ErrIncompatible) {
			continue
		}
		if end == len(data) || data[end] == 0 && firstNonZero(data[end:]) < 0 {
			return off
		}
		if rec, _, reason := cutFrame(data[end:]); reason == "" && goodCheck(rec, at+uint64(ahead)+1, seed) {
			return off
		}
	}
	return -1
}

// prefixSums gives the CRC32C of any part of some data in constant time:
//
//	crc(a..b) = crc(0..b) XOR crc(0..a) * x^(8(b-a))  mod the polynomial
//
// It keeps the CRC of every prefix whose length is a multiple of 64, one
// sixteenth of the size of the data.
type prefixSums struct {
	data []byte
	sums []uint32
}

const prefixStep = 64

func newPrefixSums(data []byte) *prefixSums {
	p := &prefixSums{data: data, sums: make([]uint32, 1, len(data)/prefixStep+1)}
	for crc := uint32(0); len(data) >= prefixStep; data = data[prefixStep:] {
		crc = crc32.Update(crc, castagnoli, data[:prefixStep])
		p.sums = append(p.sums, crc)
	}
	return p
}

func (p *prefixSums) prefix(n int) uint32 {
	k := n / prefixStep
	return crc32.Update(p.sums[k], castagnoli, p.data[k*prefixStep:n])
}

func (p *prefixSums) sum(from, to int) uint32 {
	crc := p.prefix(from)
	for i, n := 0, uint32(to-from); n != 0; i, n = i+1, n>>8 {
		if b := n & 0xFF; b != 0 {
			crc = multiply(crcShifts()[i][b], crc)
		}
	}
	return p.prefix(to) ^ crc
}

// crcShifts[i][b] is x^(8 * b * 256^i) mod the polynomial.
var crcShifts = sync.OnceValue(func() *[4][256]uint32 {
	var t [4][256]uint32
	step := uint32(1) << (31 - 8) // x^8: bit 31 is x^0
	for i := range t {
		t[i][0] = 1 << 31
		for b := 1; b < 256; b++ {
			t[i][b] = multiply(t[i][b-1], step)
		}
		step = multiply(t[i][255], step)
	}
	return &t
})

// multiply is the product of two polynomials over GF(2) mod the Castagnoli
// polynomial, bits reflected as in a CRC.
func multiply(a, b uint32) uint32 {
	var p uint32
	for m := uint32(1) << 31; a != 0; m >>= 1 {
		if a&m != 0 {
			p ^= b
			a ^= m
		}
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return p
}

// logScan is the verification of a whole log directory. Open and Inspect share
// it; it changes nothing.
type logScan struct {
	dir      string
	manifest manifest
	seed     uint32
	mark     durable.Position
	markOK   bool
	// acknowledged: up to this wal index everything is known to have been
	// durable, from the mark and the manifest.
	acknowledged uint64

	segments []segmentFile // those from the floor on
	leftover []segmentFile // those before it
	temps    []string

	index *index
	last  uint64 // wal index of the last good record
	ends  []int  // per segment: where its last good record ends
	torn  string // why the last segment is to be cut at its end, or empty
	// flagged is the last record that says that all before it was durable:
	// number of its segment and offset. Zero values: there is none.
	flaggedSegment int
	flaggedOffset  int
}

// load reads everything but the segments. An error matches fs.ErrNotExist if
// there is no manifest.
func (s *logScan) load() (err error) {
	all, temps, err := listSegments(s.dir)
	if err != nil {
		return err
	}
	s.temps = temps
	s.segments = all
	if s.manifest, err = readManifest(s.dir); err != nil {
		return err
	}
	s.seed = s.manifest.seed()
	n := 0
	for n < len(all) && all[n].start < s.manifest.floor {
		n++
	}
	s.leftover, s.segments = all[:n], all[n:]
	s.mark, s.markOK, err = readMark(s.dir, s.manifest.identity)
	if s.mark.Sequence < s.manifest.checkpoint {
		// The mark is always on disk before the floor is raised, so this one
		// is an older copy and says nothing.
		s.mark, s.markOK = durable.Position{}, false
	}
	s.acknowledged = max(s.mark.Sequence, s.manifest.checkpoint)
	return err
}

func (s *logScan) corrupt(path string, offset int64, reason string) error {
	near := uint64(1)
	if s.index != nil {
		near = s.index.near + 1
	}
	return &messages.CorruptError{Path: path, Offset: offset, Index: near, Reason: reason}
}

// verify reads every record of every segment, in order, rebuilds the index,
// and decides about the end. visit, if not nil, sees each good record.
func (s *logScan) verify(visit func(segment int, at uint64, offset int, c *change, size int)) error {
	floor := s.manifest.floor
	s.index = newIndex(s.manifest.checkpoint)
	s.last = floor - 1
	if len(s.segments) == 0 || s.segments[0].start != floor {
		return s.corrupt(segmentPath(s.dir, floor), -1, "the segment is missing")
	}
	var data []byte
	var refs []entryRef
	markSeen := !s.markOK
	if s.mark == (durable.Position{Sequence: floor - 1, File: floor}) {
		markSeen = true
	}
	for i, f := range s.segments {
		if f.start != s.last+1 {
			if unnamed, err := s.unnamed(i); err != nil {
				return err
			} else if unnamed {
				s.leftover = slices.Concat(s.leftover, s.segments[i:])
				s.segments = s.segments[:i]
				break
			}
			return s.corrupt(segmentPath(s.dir, s.last+1), -1, "the segment is missing")
		}
		var err error
		if data, err = readSegment(data, f); err != nil {
			return err
		}
		got := scanSegment(data, f.start, s.seed, func(at uint64, offset, body int, rec []byte) error {
			c, r, err := decodeRecord(rec, refs[:0], true)
			if err != nil {
				return err
			}
			refs = r
			if err := s.index.apply(&c, at, uint32(i), uint32(body)); err != nil {
				return err
			}
			end := body + len(rec)
			if c.durableBefore {
				s.flaggedSegment, s.flaggedOffset = i, offset
			}
			if at == s.mark.Sequence && (s.mark == durable.Position{Sequence: at, File: f.start, Offset: int64(end)} ||
				s.mark == durable.Position{Sequence: at, File: at + 1}) {
				markSeen = true
			}
			if visit != nil {
				visit(i, at, offset, &c, end-offset)
			}
			return nil
		})
		s.last = got.next - 1
		s.ends = append(s.ends, got.end)
		if got.reason == "" {
			continue
		}
		switch {
		case errors.Is(got.refused, messages.ErrIncompatible):
			return fmt.Errorf("%s at offset %d: %w", f.path, got.end, got.refused)
		case got.refused != nil, i < len(s.segments)-1:
			// No crash writes nonsense under a good checksum, and the engine
			// syncs a segment before it makes the next one.
			return s.corrupt(f.path, int64(got.end), got.reason)
		case got.next <= s.acknowledged:
			return s.corrupt(f.path, int64(got.end), got.reason+", and it had been acknowledged")
		}
		if w := findWitness(data, got.end, got.next, s.seed); w >= 0 {
			return s.corrupt(f.path, int64(got.end), fmt.Sprintf("%s, and the record at offset %d shows that it had been acknowledged", got.reason, w))
		}
		s.torn = got.reason
	}
	tail := len(s.segments) - 1
	switch {
	case s.mark.File > s.segments[tail].start:
		return s.corrupt(segmentPath(s.dir, s.last+1), -1, "the segment is missing")
	case s.last < s.acknowledged:
		return s.corrupt(s.segments[tail].path, int64(s.ends[tail]),
			fmt.Sprintf("the log ends at record %d, and %d had been acknowledged", s.last, s.acknowledged))
	case !markSeen:
		return s.corrupt(filepath.Join(s.dir, markName), 32, fmt.Sprintf("record %d does not end where the mark says", s.mark.Sequence))
	case s.index.partial:
		return s.corrupt(s.segments[tail].path, int64(s.ends[tail]), fmt.Sprintf("the log ends before the checkpoint at record %d", s.manifest.checkpoint))
	}
	return nil
}

// unnamed reports whether the segments from i on are those of a sync that was
// never acknowledged: it filled several, and the power cut took the name of one
// and left later ones. The mark is on disk before a record in a new segment is
// acknowledged.
func (s *logScan) unnamed(i int) (bool, error) {
	if i == 0 || !s.markOK || s.last < s.acknowledged || s.mark.File > s.segments[i-1].start {
		return false, nil
	}
	for _, f := range s.segments[i:] {
		data, err := readSegment(nil, f)
		if err != nil {
			return false, err
		}
		witness := false
		got := scanSegment(data, f.start, s.seed, func(_ uint64, _, _ int, rec []byte) error {
			witness = witness || rec[4]&flagDurableBefore != 0
			return nil
		})
		if witness || got.reason != "" && findWitness(data, got.end, got.next, s.seed) >= 0 {
			return false, nil
		}
	}
	return true, nil
}

// readSegment reads a segment whole into buf, which it may replace.
func readSegment(buf []byte, f segmentFile) ([]byte, error) {
	if int64(cap(buf)) < f.size {
		buf = make([]byte, f.size)
	}
	buf = buf[:f.size]
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	defer file.Close()
	if n, err := file.ReadAt(buf, 0); int64(n) < f.size {
		return nil, &messages.CorruptError{Path: f.path, Offset: int64(n), Reason: "unreadable", Err: err}
	}
	return buf, nil
}
