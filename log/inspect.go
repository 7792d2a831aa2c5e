package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"maps"
	"path/filepath"
	"slices"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Report is what Inspect finds in a directory.
type Report struct {
	Dir string
	// Identity and Floor are those of the manifest.
	Identity [16]byte
	Floor    uint64
	// Mark is how far the log is known to be durable; MarkOK is false if nothing
	// is known. If the mark is missing or of another log, that is Damage as well;
	// otherwise it fails its checksum, or is older than the manifest, and the
	// next Open writes it again.
	Mark   durable.Position
	MarkOK bool
	// Last is the wal index of the last good record.
	Last uint64
	// Segments in ascending order; Leftover are files below the floor and
	// unfinished ones, which the next Open removes.
	Segments []SegmentReport
	Leftover []string
	// Prepared are segments that were made ready and never used.
	Prepared []string
	// Groups as the records up to the first damage make them.
	Groups []GroupReport
	// Torn is what the next Open will remove as a write that a crash cut
	// short; nil if there is nothing.
	Torn *messages.TailRepaired
	// Damage is why the next Open will fail: at most one for each segment,
	// and at most one for the log as a whole. Empty if it will succeed.
	Damage []*messages.CorruptError
	// Lost are live entries that were damaged when they were relocated. The next
	// Open succeeds, and reading them fails. 64 at most; empty if there is Damage.
	Lost []Damage
}

// SegmentReport is one segment.
type SegmentReport struct {
	Path string
	// First and Last are the wal indexes of its good records; Last is First-1
	// if there is none.
	First, Last uint64
	// Size of the file; Good is how much of it good records take up, and
	// Ahead how much follows them that is not in use yet.
	Size, Good, Ahead int64
	// Recycled: the file has been a segment before, so what lies ahead are older
	// records, and not zeros.
	Recycled bool
	// Summary says whether the segment is closed and has a good summary, which
	// the next Open reads instead of its records.
	Summary bool
	// Entries and PayloadBytes count the entries, live or not.
	Entries, PayloadBytes int64
	// Kinds counts the records of each kind by name.
	Kinds map[string]int
}

// GroupReport is one group.
type GroupReport struct {
	Group  uint64
	Bounds messages.LogBounds
	// Stable holds the sizes of the named values.
	Stable map[string]int
	// OldestSegment is where its first entry lies: the group holds that and
	// every later segment. Empty if the group has no entries.
	OldestSegment string
}

// RecordReport is one good record.
type RecordReport struct {
	WALIndex uint64
	Path     string
	// Offset of the record with its length, and the Size of both.
	Offset, Size int64
	// Kind is the name of the record's kind, or "damaged": entries that were
	// found damaged when they were relocated, with the bytes that were left.
	Kind  string
	Group uint64
	// First and Last are Raft indexes: of an append's entries, or both that of
	// a truncation or reset. Term is the first entry's or the one recorded.
	First, Last, Term uint64
	Entries           int
	HardState         *messages.HardState
	// Name of a stable value.
	Name string
	// DurableBefore: everything before it was durable when it was written.
	DurableBefore bool

	refs []entryRef
	rec  []byte
}

// AllEntries yields the entries of an append or a relocation. It must be used
// before the call that handed out the report returns, and so must their Data.
func (r RecordReport) AllEntries() iter.Seq[messages.Entry] {
	return func(yield func(messages.Entry) bool) {
		for i, e := range r.refs {
			if !yield(messages.Entry{Index: r.First + uint64(i), Term: e.term, Type: e.typ, Data: r.rec[e.off : e.off+e.size]}) {
				return
			}
		}
	}
}

// Inspect reads and verifies every record of a log without changing anything
// and without taking its lock. The log should not be open: what is being
// written meanwhile looks torn. The error is nil whenever a report could be
// made, also if it tells of damage.
func Inspect(dir string) (Report, error) { return InspectRecords(dir, nil) }

// InspectRecords is Inspect, and calls visit for every good record in order.
func InspectRecords(dir string, visit func(RecordReport)) (Report, error) {
	r := Report{Dir: dir}
	s := &logScan{dir: filepath.Clean(dir), full: true}
	err := s.load()
	if errors.Is(err, fs.ErrNotExist) {
		if fresh, e := unborn(s.dir, s.found); e == nil && !fresh {
			err = &messages.CorruptError{Path: filepath.Join(s.dir, manifestName), Offset: -1, Reason: "the file is missing"}
		}
	}
	if !r.damaged(err) && err != nil {
		return r, fmt.Errorf("log: inspect %s: %w", dir, err)
	}
	r.Identity, r.Floor, r.Mark, r.MarkOK = s.manifest.identity, s.manifest.floor, s.mark, s.markOK
	r.Leftover = s.leftover
	if err != nil && s.markDamage(err) == nil {
		return r, nil // without a manifest no record can be judged
	}

	var moved []movedDamage
	see := func(i int, at uint64, offset int, c *change, rec []byte) {
		size := uvarintLen(uint64(len(rec))) + len(rec)
		seg := r.segment(s, i)
		if seg.Last < seg.First {
			seg.First = at
		}
		seg.Last, seg.Good = at, int64(offset+size)
		seg.Kinds[c.kindName()]++
		seg.Entries += int64(len(c.entries))
		for k := range c.entries {
			e := &c.entries[k]
			seg.PayloadBytes += int64(e.size)
			if c.damaged {
				moved = append(moved, movedDamage{c.group, c.index + uint64(k), i, uint32(offset+size-len(rec)) + e.off})
			}
		}
		if visit != nil {
			visit(c.report(at, seg.Path, int64(offset), int64(size), rec))
		}
	}
	err = s.verify(see)
	if !r.damaged(err) && err != nil {
		return r, fmt.Errorf("log: inspect %s: %w", dir, err)
	}
	r.Last = s.last
	next := s.manifest.floor
	for i, f := range s.found {
		seg := r.segment(s, i)
		if f.segment.first != 0 {
			next = f.segment.first
		} else if err != nil {
			// What comes after the damage is not part of any state, but whether
			// it is good by itself is worth knowing.
			if err := r.rest(s, i, see); err != nil && !r.damaged(err) {
				return r, fmt.Errorf("log: inspect %s: %w", dir, err)
			}
			seg = r.segment(s, i)
		}
		seg.Recycled = f.fenced
		if seg.Last < seg.First {
			seg.First, seg.Last = next, next-1
		}
		next = seg.Last + 1
		if sum, e := readSummary(f.summaryPath(), s.manifest.identity, f.segment.ordinal); e == nil {
			seg.Summary = sum.first == seg.First && sum.size == f.logSize
		}
		if i < len(s.found)-1 || err == nil && s.torn == "" {
			seg.Ahead = max(0, f.logSize-f.segment.size)
		}
	}
	if err == nil {
		r.Lost = s.stillDamaged(moved)
	}
	for _, f := range s.blank {
		r.Prepared = append(r.Prepared, f.segment.dir)
	}
	if n := len(s.found) - 1; err == nil && s.torn != "" {
		f := s.found[n]
		r.Torn = &messages.TailRepaired{Path: f.segment.logPath(), Offset: f.size, Bytes: f.logSize - f.size, Reason: s.torn}
	}
	for _, id := range slices.Sorted(maps.Keys(s.groups)) {
		g := s.groups[id]
		gr := GroupReport{Group: id, Stable: map[string]int{}}
		if err == nil {
			gr.Bounds = g.bounds()
			if !g.empty() {
				gr.OldestSegment = segmentDir(s.dir, uint64(g.oldest()))
			}
		}
		for name, value := range g.stable {
			gr.Stable[name] = len(value)
		}
		r.Groups = append(r.Groups, gr)
	}
	return r, nil
}

// movedDamage is where an entry lies that was damaged when it was moved.
type movedDamage struct {
	group, index uint64
	segment      int
	offset       uint32
}

// stillDamaged finds those that are live, and were not moved on.
func (s *logScan) stillDamaged(moved []movedDamage) (lost []Damage) {
	for _, m := range moved {
		g := s.groups[m.group]
		if len(lost) == maxDamage {
			break
		}
		if g == nil || m.index < g.first || m.index > g.last {
			continue
		}
		p, seg := g.at(m.index), s.found[m.segment].segment
		if l := p.entries.locator(m.index); p.segment == seg && l.offset == m.offset {
			f := found{locator: l, segment: seg, index: m.index}
			lost = append(lost, Damage{m.group, m.index, f.damage(knownDamage)})
		}
	}
	return lost
}

// segment returns the report of a segment, and begins those up to it.
func (r *Report) segment(s *logScan, i int) *SegmentReport {
	for n := len(r.Segments); n <= i; n++ {
		f := s.found[n]
		r.Segments = append(r.Segments, SegmentReport{Path: f.segment.logPath(), First: 1, Size: max(0, f.logSize), Kinds: map[string]int{}})
	}
	return &r.Segments[i]
}

// damaged takes damage over into the report.
func (r *Report) damaged(err error) bool {
	var c *messages.CorruptError
	if !errors.As(err, &c) {
		return false
	}
	r.Damage = append(r.Damage, c)
	return true
}

// rest reads a segment that lies after damage. The wal index of its first
// record is known only from its summary, or else from that record.
func (r *Report) rest(s *logScan, i int, see seer) error {
	f := s.found[i]
	if f.logSize < 0 {
		return s.corrupt(f.segment.logPath(), -1, "the segment is missing")
	}
	data, err := readFile(nil, f.segment.logPath(), f.logSize)
	if err != nil {
		return err
	}
	start := firstIndex(data, s.last+1, s.seed, f.segment.ordinal)
	got := scanSegment(data, start, s.seed, f.segment.ordinal, func(at uint64, offset, body int, rec []byte) error {
		c, _, err := decodeRecord(rec, nil, false)
		if err != nil {
			return err
		}
		see(i, at, offset, &c, rec)
		return nil
	})
	f.size = int64(got.end)
	if got.reason != "" {
		return s.corrupt(f.segment.logPath(), int64(got.end), got.reason)
	}
	s.last = max(s.last, got.next-1)
	return nil
}

// firstIndex is the wal index of the first record of a segment, as its check
// implies, if that is no less than the one that would follow the last good one.
func firstIndex(data []byte, least uint64, seed, ordinal uint32) uint64 {
	fence := newFence(seed, ordinal)
	if first, ok := fence.cut(data); ok && first == 0 {
		if first, ok = fence.cut(data[fenceFramed:]); ok {
			return max(first, least)
		}
		return least
	}
	rec, _, reason := cutFrame(data)
	if reason != "" {
		return least
	}
	low := recoverIndex(crc32.Checksum(rec[4:], castagnoli), binary.LittleEndian.Uint32(rec), seed)
	return least + uint64(low-uint32(least))
}

// kindName tells entries that were damaged when they were moved from others.
func (c *change) kindName() string {
	if c.damaged {
		return "damaged"
	}
	return c.kind.String()
}

func (c *change) report(at uint64, path string, offset, size int64, rec []byte) RecordReport {
	r := RecordReport{WALIndex: at, Path: path, Offset: offset, Size: size, Kind: c.kindName(), Group: c.group,
		First: c.index, Last: c.index, Term: c.term, Entries: len(c.entries), Name: c.name, DurableBefore: c.durableBefore, refs: c.entries, rec: rec}
	if len(c.entries) > 0 {
		r.Last = c.last()
	}
	if c.hasHard {
		hs := c.hard
		r.HardState = &hs
	}
	return r
}
