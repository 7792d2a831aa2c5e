package log

import (
	"errors"
	"fmt"
	"io/fs"
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
	// Mark is how far the log is known to be durable; MarkOK is false if the
	// mark fails its checksum, and nothing is known.
	Mark   durable.Position
	MarkOK bool
	// Last is the wal index of the last good record.
	Last uint64
	// Segments in ascending order; Leftover are files below the floor and
	// unfinished ones, which the next Open removes.
	Segments []SegmentReport
	Leftover []string
	// Groups as the records up to the first damage make them.
	Groups []GroupReport
	// Torn is what the next Open will remove as a write that a crash cut
	// short; nil if there is nothing.
	Torn *messages.TailRepaired
	// Damage is why the next Open will fail: at most one for each segment,
	// and at most one for the log as a whole. Empty if it will succeed.
	Damage []*messages.CorruptError
}

// SegmentReport is one segment.
type SegmentReport struct {
	Path string
	// First and Last are the wal indexes of its good records; Last is First-1
	// if there is none.
	First, Last uint64
	// Size of the file; Good is how much of it good records take up, and
	// Zeros how much is zeros after them.
	Size, Good, Zeros int64
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
	Kind         string
	Group        uint64
	// First and Last are Raft indexes: of an append's entries, or both that of
	// a truncation or reset. Term is the first entry's or the one recorded.
	First, Last, Term uint64
	Entries           int
	HardState         *messages.HardState
	// Name of a stable value.
	Name string
	// DurableBefore: everything before it was durable when it was written.
	DurableBefore bool
}

// Inspect reads and verifies every record of a log without changing anything
// and without taking its lock. The log should not be open: what is being
// written meanwhile looks torn. The error is nil whenever a report could be
// made, also if it tells of damage.
func Inspect(dir string) (Report, error) { return InspectRecords(dir, nil) }

// InspectRecords is Inspect, and calls visit for every good record in order.
func InspectRecords(dir string, visit func(RecordReport)) (Report, error) {
	r := Report{Dir: dir}
	s := &logScan{dir: filepath.Clean(dir)}
	err := s.load()
	if errors.Is(err, fs.ErrNotExist) {
		if fresh, e := unborn(s.dir, s.segments); e == nil && !fresh {
			err = &messages.CorruptError{Path: filepath.Join(s.dir, manifestName), Offset: -1, Reason: "the file is missing"}
		}
	}
	if !r.damaged(err) && err != nil {
		return r, fmt.Errorf("log: inspect %s: %w", dir, err)
	}
	r.Identity, r.Floor, r.Mark, r.MarkOK = s.manifest.identity, s.manifest.floor, s.mark, s.markOK
	for _, f := range s.leftover {
		r.Leftover = append(r.Leftover, f.path)
	}
	r.Leftover = append(r.Leftover, s.temps...)
	if err != nil {
		return r, nil // without manifest and mark no record can be judged
	}

	r.Segments = make([]SegmentReport, len(s.segments))
	for i, f := range s.segments {
		r.Segments[i] = SegmentReport{Path: f.path, First: f.start, Last: f.start - 1, Size: f.size, Kinds: map[string]int{}}
	}
	see := func(i int, at uint64, offset int, c *change, size int) {
		seg := &r.Segments[i]
		seg.Last, seg.Good = at, int64(offset+size)
		seg.Kinds[c.kind.String()]++
		seg.Entries += int64(len(c.entries))
		for k := range c.entries {
			seg.PayloadBytes += int64(c.entries[k].size)
		}
		if visit != nil {
			visit(c.report(at, s.segments[i].path, int64(offset), int64(size)))
		}
	}
	err = s.verify(see)
	if !r.damaged(err) && err != nil {
		return r, fmt.Errorf("log: inspect %s: %w", dir, err)
	}
	r.Last = s.last
	if err != nil {
		// What comes after the damage is not part of any state, but whether
		// it is good by itself is worth knowing.
		for i := len(s.ends); i < len(s.segments); i++ {
			if err := r.rest(s, i, see); err != nil && !r.damaged(err) {
				return r, fmt.Errorf("log: inspect %s: %w", dir, err)
			}
		}
	}
	for i, end := range s.ends {
		if i < len(s.ends)-1 || err == nil && s.torn == "" {
			r.Segments[i].Zeros = s.segments[i].size - int64(end)
		}
	}
	if n := len(s.segments) - 1; err == nil && s.torn != "" {
		r.Torn = &messages.TailRepaired{Path: s.segments[n].path, Offset: int64(s.ends[n]),
			Bytes: s.segments[n].size - int64(s.ends[n]), Reason: s.torn}
	}
	for _, id := range slices.Sorted(maps.Keys(s.index.groups)) {
		g := s.index.groups[id]
		gr := GroupReport{Group: id, Bounds: g.bounds(), Stable: map[string]int{}}
		for name, value := range g.stable {
			gr.Stable[name] = len(value)
		}
		if !g.empty() {
			gr.OldestSegment = s.segments[g.data.at(g.first).ordinal].path
		}
		r.Groups = append(r.Groups, gr)
	}
	return r, nil
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

// rest reads a segment that lies after damage.
func (r *Report) rest(s *logScan, i int, see func(int, uint64, int, *change, int)) error {
	data, err := readSegment(nil, s.segments[i])
	if err != nil {
		return err
	}
	got := scanSegment(data, s.segments[i].start, s.seed, func(at uint64, offset, body int, rec []byte) error {
		c, _, err := decodeRecord(rec, nil, false)
		if err != nil {
			return err
		}
		see(i, at, offset, &c, body+len(rec)-offset)
		return nil
	})
	if got.reason != "" {
		return s.corrupt(s.segments[i].path, int64(got.end), got.reason)
	}
	return nil
}

func (c *change) report(at uint64, path string, offset, size int64) RecordReport {
	r := RecordReport{WALIndex: at, Path: path, Offset: offset, Size: size, Kind: c.kind.String(), Group: c.group,
		First: c.index, Last: c.index, Term: c.term, Entries: len(c.entries), Name: c.name, DurableBefore: c.durableBefore}
	if len(c.entries) > 0 {
		r.Last = c.last()
	}
	if c.hasHard {
		hs := c.hard
		r.HardState = &hs
	}
	return r
}
