package log

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// scanned is what one segment holds.
type scanned struct {
	// next is the wal index after the last good record, end where that one
	// ends.
	next uint64
	end  int
	// frames is how many records the engine counts up to end: fences too.
	frames uint64
	// fenced: the file had been a segment before, so that behind the end there
	// may be what is left of it.
	fenced bool
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
func scanSegment(data []byte, start uint64, seed, ordinal uint32, visit visitor) (s scanned) {
	s.next = start
	fence := newFence(seed, ordinal)
	if first, ok := fence.cut(data); ok && first == 0 {
		s.fenced, s.end, s.frames = true, fenceFramed, 1
	}
	var end int // of the last record
	var frames uint64
	open := false // a fence was read, and no record behind it
	defer func() { s.end, s.frames = end, frames }()
	for s.end < len(data) {
		if first, ok := fence.cut(data[s.end:]); ok && !open && first == s.next {
			open = true
			s.end += fenceFramed
			s.frames++
			continue
		}
		if data[s.end] == 0 && s.fenced && !open {
			return s
		}
		if data[s.end] == 0 {
			if i := firstNonZero(data[s.end:]); i >= 0 {
				s.reason = fmt.Sprintf("zeros where a record should be, and something after %d of them", i)
			} else if open {
				s.reason = "zeros behind a fence"
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
		s.frames++
		end, frames, open = s.end, s.frames, false
	}
	if open {
		s.reason = "the file ends behind a fence"
	}
	return s
}

// firstNonZero returns where the zeros end, or -1.
func firstNonZero(b []byte) int {
	at := 0
	for ; len(b)-at >= 4096 && [4096]byte(b[at:]) == [4096]byte{}; at += 4096 {
	}
	for i, v := range b[at:] {
		if v != 0 {
			return at + i
		}
	}
	return -1
}

func allZero(b []byte) bool { return firstNonZero(b) < 0 }

// foundSegment is a segment as the verification has found it.
type foundSegment struct {
	segmentFiles
	*segment
	records uint64
	frames  uint64 // as the engine counts them
	fenced  bool
	// blank: nothing was ever written to it.
	blank bool
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
	// full: read every record, whatever the summaries say.
	full bool
	// salvage: do not fail on damage, but end the log before it, if the state
	// there is known. Then damage is what was found, and dropped are the
	// segments behind it.
	salvage bool
	damage  *messages.CorruptError
	dropped []*foundSegment

	found    []*foundSegment // from the floor on, in order, those in use
	blank    []*foundSegment // prepared ones behind them
	leftover []string        // directories below the floor

	rebuild
	last uint64 // wal index of the last good record
	torn string // why the last segment is to be cut at its end, or empty
	// flagged is the last record that says that all before it was durable:
	// number of its segment and offset. Zero values: there is none.
	flaggedSegment int
	flaggedOffset  int
}

// load reads everything but the segments. An error matches fs.ErrNotExist if
// there is no manifest.
func (s *logScan) load() (err error) {
	all, err := listSegments(s.dir)
	if err != nil {
		return err
	}
	for _, f := range all {
		seg := &segment{ordinal: f.ordinal, dir: f.dir, fold: newFold()}
		s.found = append(s.found, &foundSegment{segmentFiles: f, segment: seg})
	}
	if s.manifest, err = readManifest(s.dir); err != nil {
		return err
	}
	s.seed = s.manifest.seed()
	for len(s.found) > 0 && s.found[0].segment.ordinal < s.manifest.ordinal {
		s.leftover = append(s.leftover, s.found[0].segment.dir)
		s.found = s.found[1:]
	}
	s.mark, s.markOK, err = readMark(s.dir, s.manifest.identity)
	if s.mark.Sequence < s.manifest.checkpoint {
		// The mark is always on disk before the floor is raised, so this one
		// is an older copy and says nothing.
		s.mark, s.markOK = durable.Position{}, false
	}
	s.acknowledged = max(s.mark.Sequence, s.manifest.checkpoint)
	return err
}

// markDamage returns the damage that an error of load tells of, if only the mark
// is damaged: missing, or of another log. The records can be judged without it,
// as with one that fails its checksum.
func (s *logScan) markDamage(err error) *messages.CorruptError {
	var c *messages.CorruptError
	if !errors.As(err, &c) || c.Path != filepath.Join(s.dir, markName) {
		return nil
	}
	return c
}

func (s *logScan) corrupt(path string, offset int64, reason string) error {
	return &messages.CorruptError{Path: path, Offset: offset, Index: s.near + 1, Reason: reason}
}

// sift takes the blank segments at the end out of those in use.
func (s *logScan) sift() error {
	for n := len(s.found); n > 0; n-- {
		f := s.found[n-1]
		if _, err := os.Stat(f.summaryPath()); err == nil {
			return nil
		}
		if f.logSize > 0 {
			data, err := readFile(nil, f.segment.logPath(), f.logSize)
			if err != nil {
				return err
			}
			if !allZero(data) && !s.unused(f.segment, data) {
				return nil
			}
		}
		f.blank = true
		s.blank = append([]*foundSegment{f}, s.blank...)
		s.found = s.found[:n-1]
	}
	return nil
}

// usable returns the blank segment that the log goes on in, or nil: there is
// none, or it goes on in the last one in use.
func (s *logScan) usable() *foundSegment {
	n := len(s.found)
	if len(s.blank) == 0 || n > 0 && s.found[n-1].summary == nil || s.blank[0].segment.ordinal != s.manifest.ordinal+uint32(n) {
		return nil
	}
	return s.blank[0]
}

// seer sees each good record that is read: the number of its segment, its wal
// index, its offset with its length, what it says, and its bytes.
type seer func(segment int, at uint64, offset int, c *change, rec []byte)

// verify makes an index of all segments, in order: from the summary of a
// closed one, from its records if there is no good one or if full is set. It
// decides about the end. visit, if not nil, sees each good record that is read.
func (s *logScan) verify(visit seer) error {
	s.rebuild = rebuild{index: newIndex(), partial: s.manifest.checkpoint != 0}
	s.last = s.manifest.floor - 1
	if err := s.sift(); err != nil {
		return err
	}
	markSeen, err := s.collect(visit)
	if err == nil {
		err = s.judge(markSeen)
	}
	if err != nil && !s.saved(err) {
		return err
	}
	end, offset := s.end()
	if !s.markOK && s.last < s.manifest.floor && (s.damage != nil || s.torn != "") {
		// Not a torn first write: a mark is only written over when what it says
		// is durable, so one that a crash has torn has a good record beside it.
		// To cut here would be to take a log for an empty one because the
		// manifest is of another.
		reason := s.torn
		if s.damage != nil {
			reason = s.damage.Reason
		}
		return s.corrupt(end, offset, reason+": no record here is of the log that the manifest names, and the mark does not say whether there should be one")
	}
	if s.partial {
		c := &messages.CorruptError{Path: end, Offset: offset, Index: s.near + 1,
			Reason: fmt.Sprintf("the log ends before the checkpoint at record %d, which stands for what was compacted", s.manifest.checkpoint)}
		if s.damage != nil {
			c.Err = s.damage
		}
		return c
	}
	if err := s.finish(); err != nil {
		return s.corrupt(end, offset, err.Error())
	}
	s.upTo = s.last
	return nil
}

// collect reads all segments, and reports whether it has seen the end that the
// mark names.
func (s *logScan) collect(visit seer) (markSeen bool, err error) {
	first := s.found
	if len(first) == 0 {
		first = s.blank
	}
	missing := func(i int) error {
		return s.corrupt(filepath.Join(segmentDir(s.dir, uint64(s.manifest.ordinal)+uint64(i)), logName), -1, "the segment is missing")
	}
	if len(first) == 0 || first[0].segment.ordinal != s.manifest.ordinal {
		return false, missing(0)
	}
	markSeen = !s.markOK || s.mark.Sequence < s.manifest.floor
	var data []byte
	for i, f := range s.found {
		// end makes a part of the segment the end of the log.
		end := func(n int, err error) (bool, error) {
			if s.saved(err) {
				s.dropped, s.found = s.found[n:], s.found[:n]
			}
			return markSeen, err
		}
		seg := f.segment
		if seg.ordinal != s.manifest.ordinal+uint32(i) || f.logSize < 0 {
			return end(i, missing(i))
		}
		before := s.last
		seg.first = before + 1
		sum, err := readSummary(seg.summaryPath(), s.manifest.identity, seg.ordinal)
		if err != nil && !errors.Is(err, errStale) {
			return markSeen, err
		}
		if err == nil {
			if i > 0 && sum.first > seg.first {
				before := s.found[i-1]
				return end(i, s.corrupt(before.segment.logPath(), before.size, fmt.Sprintf("the log goes on at record %d in the next segment, and ends at %d in this", sum.first, s.last)))
			}
			// A summary is written when all of its segment is durable.
			s.acknowledged = max(s.acknowledged, sum.first+sum.records-1)
		}
		if err == nil && !s.full && sum.first == seg.first && sum.size == f.logSize {
			seg.fold, seg.summary = sum.fold, sum
			seg.size, f.records = sum.size, sum.records
			s.last += sum.records
			markSeen = markSeen || s.mark.File == uint64(seg.ordinal) && s.mark.Sequence <= s.last
			s.flaggedSegment, s.flaggedOffset = i+1, 0
			err = nil
		} else {
			if data, err = readFile(data, seg.logPath(), f.logSize); err != nil {
				return end(i, err)
			}
			err = s.scan(i, data, &markSeen, visit)
			if err == nil && sum != nil && s.last+1 < sum.first+sum.records {
				err = s.corrupt(seg.logPath(), seg.size, fmt.Sprintf("it ends at record %d, and its summary at %d", s.last, sum.first+sum.records-1))
			}
		}
		if err != nil && !s.saved(err) {
			return markSeen, err
		}
		at := s.manifest.checkpoint
		if err := s.add(seg, at > before && at <= s.last); err != nil {
			return markSeen, s.corrupt(seg.logPath(), 0, err.Error())
		}
		if err != nil {
			return end(i+1, err)
		}
	}
	if n := len(s.found); n > 0 && s.found[n-1].summary == nil {
		return markSeen, foreign(s.found[n-1].segment.dir)
	}
	return markSeen, nil
}

// judge compares the end with what had been acknowledged.
func (s *logScan) judge(markSeen bool) error {
	end, offset := s.end()
	next := uint64(s.manifest.ordinal) + uint64(len(s.found))
	switch {
	case s.mark.File > next || s.mark.File == next && s.mark.Sequence > s.last:
		return s.corrupt(filepath.Join(segmentDir(s.dir, s.mark.File), logName), -1, "the segment is missing")
	case s.last < s.acknowledged:
		return s.corrupt(end, offset, fmt.Sprintf("the log ends at record %d, and %d had been acknowledged", s.last, s.acknowledged))
	case !markSeen && s.mark != durable.Position{Sequence: s.last, File: next}:
		return s.corrupt(filepath.Join(s.dir, markName), 32, fmt.Sprintf("record %d does not end where the mark says", s.mark.Sequence))
	}
	return nil
}

// end is where the last good record ends.
func (s *logScan) end() (path string, offset int64) {
	if n := len(s.found); n > 0 {
		return s.found[n-1].segment.logPath(), s.found[n-1].size
	}
	return filepath.Join(segmentDir(s.dir, uint64(s.manifest.ordinal)), logName), 0
}

// saved reports whether an error is damage that the log may be cut at.
func (s *logScan) saved(err error) bool {
	var damage *messages.CorruptError
	if !s.salvage || !errors.As(err, &damage) {
		return false
	}
	if s.damage == nil {
		s.damage = damage
	}
	return true
}

// scan reads the records of a segment.
func (s *logScan) scan(i int, data []byte, markSeen *bool, visit seer) error {
	f := s.found[i]
	seg := f.segment
	if (s.mark == durable.Position{Sequence: s.last, File: uint64(seg.ordinal)}) {
		*markSeen = true // nothing of this segment had been acknowledged
	}
	var refs []entryRef
	got := scanSegment(data, seg.first, s.seed, seg.ordinal, func(at uint64, offset, body int, rec []byte) error {
		c, r, err := decodeRecord(rec, refs[:0], true)
		if err != nil {
			return err
		}
		refs = r
		if at == s.manifest.checkpoint && c.kind != kindCheckpoint {
			return fmt.Errorf("%s where the manifest says that a checkpoint is", c.kind)
		}
		if err := seg.fold.add(&c, uint32(body)); err != nil {
			return err
		}
		end := body + len(rec)
		if c.durableBefore {
			s.flaggedSegment, s.flaggedOffset = i, offset
		}
		if (s.mark == durable.Position{Sequence: at, File: uint64(seg.ordinal), Offset: int64(end)}) {
			*markSeen = true
		}
		if visit != nil {
			visit(i, at, offset, &c, rec)
		}
		return nil
	})
	s.near = max(s.near, seg.fold.near)
	s.last = got.next - 1
	seg.size, f.records = int64(got.end), got.next-seg.first
	f.frames, f.fenced = got.frames, got.fenced
	witness := -1
	if got.fenced && i == len(s.found)-1 {
		witness = newFence(s.seed, seg.ordinal).after(data, got.end, got.next)
	}
	if got.reason == "" && witness >= 0 {
		got.reason = "zeros where a record should be"
	}
	if got.reason == "" {
		if got.end == 0 && i < len(s.found)-1 {
			// A segment is left only once there is a record in it.
			return s.corrupt(seg.logPath(), 0, "no record, and the log goes on in the next segment")
		}
		return nil
	}
	switch {
	case errors.Is(got.refused, messages.ErrIncompatible):
		return fmt.Errorf("%s at offset %d: %w", seg.logPath(), got.end, got.refused)
	case got.refused != nil, i < len(s.found)-1:
		// No crash writes nonsense under a good checksum, and a segment is left
		// only when all of it is durable.
		return s.corrupt(seg.logPath(), int64(got.end), got.reason)
	case got.next <= s.acknowledged:
		return s.corrupt(seg.logPath(), int64(got.end), got.reason+", and it had been acknowledged")
	}
	if got.fenced {
		if witness >= 0 {
			return s.corrupt(seg.logPath(), int64(got.end), fmt.Sprintf("%s, and the fence at offset %d shows that it had been acknowledged", got.reason, witness))
		}
		s.torn = got.reason
		return nil
	}
	missing := 1
	if i > 0 && got.end == 0 {
		// Records may be missing at the end of the segment before, which may
		// have been cut short itself.
		missing = max(int(s.found[i-1].logSize), leastMissing) / minFramed
	}
	if w := findWitness(data, got.end, got.next, s.seed, missing); w >= 0 {
		return s.corrupt(seg.logPath(), int64(got.end), fmt.Sprintf("%s, and the record at offset %d shows that it had been acknowledged", got.reason, w))
	}
	s.torn = got.reason
	return nil
}

// leastMissing is the size that a segment is taken to have had at least, when
// it ends before the next one begins. More: a torn record passes for a witness
// more often, here one time in 30,000.
const leastMissing = 1 << 20

// readFile reads a file of a known size whole into buf, which it may replace.
func readFile(buf []byte, path string, size int64) ([]byte, error) {
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	defer file.Close()
	if n, err := file.ReadAt(buf, 0); int64(n) < size {
		return nil, &messages.CorruptError{Path: path, Offset: int64(n), Reason: "unreadable", Err: err}
	}
	return buf, nil
}
