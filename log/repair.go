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

// DamagePolicy says what Open does when acknowledged records are damaged or
// missing.
type DamagePolicy uint8

const (
	// RefuseDamage fails Open with a CorruptError and changes nothing.
	RefuseDamage DamagePolicy = iota
	// CutAtDamage ends the log before the first damaged record, and drops all
	// that follow it: entries, votes and commit indexes that had been
	// acknowledged are lost, which Options.OnCut is told of. A Raft node must
	// then not vote or lead until it has caught up with the others as a new
	// one would. Damage to what stands for compacted records is refused all the
	// same.
	CutAtDamage
)

// lost collects what is behind the damage, as far as it can be read.
func (s *logScan) lost() *messages.LogCut {
	path, offset := s.end()
	cut := &messages.LogCut{Path: path, Offset: offset, Err: s.damage, Records: s.acknowledged - min(s.last, s.acknowledged)}
	last := map[uint64]uint64{}
	see := func(c *change) {
		if n := len(c.entries); n > 0 && c.kind == kindAppend {
			last[c.group] = max(last[c.group], c.last())
		}
	}
	next := s.last + 1
	if n := len(s.found); n > 0 && s.found[n-1].size < s.found[n-1].logSize {
		f := s.found[n-1]
		cut.Bytes += f.logSize - f.size
		if data, err := readFile(nil, f.segment.logPath(), f.logSize); err == nil {
			// The damaged record's length may still lead to the next.
			if _, size, reason := cutFrame(data[f.size:]); reason == "" {
				next = s.survey(data[int(f.size)+size:], next+1, f.segment.ordinal, see)
			}
		}
	}
	for _, f := range s.dropped {
		cut.Segments++
		cut.Bytes += max(0, f.logSize)
		if data, err := readFile(nil, f.segment.logPath(), max(0, f.logSize)); err == nil {
			next = s.survey(data, firstIndex(data, next, s.seed, f.segment.ordinal), f.segment.ordinal, see)
		}
	}
	cut.Records = max(cut.Records, next-1-s.last)
	for _, id := range slices.Sorted(maps.Keys(last)) {
		from := uint64(1)
		if g := s.groups[id]; g != nil {
			from = g.last + 1
		}
		if last[id] >= from {
			cut.Lost = append(cut.Lost, messages.LostEntries{Group: id, First: from, Last: last[id]})
		}
	}
	return cut
}

// survey reads the good records from at on, and returns the index after them.
func (s *logScan) survey(data []byte, at uint64, ordinal uint32, see func(c *change)) uint64 {
	return scanSegment(data, at, s.seed, ordinal, func(_ uint64, _, _ int, rec []byte) error {
		c, _, err := decodeRecord(rec, nil, false)
		if err == nil {
			see(&c)
		}
		return err
	}).next
}

// Repair reads every record of the log in dir, and cuts the log at the first
// damage, as Open does with CutAtDamage. With dryRun it changes nothing. It
// returns nil if there is no damage; a write that a crash has cut short is
// none, Open repairs that by itself. The log must not be open; Repair takes
// its lock unless the options say NoLock.
//
// A mark that is missing, or of another log, is made anew, and what is returned
// says that nothing else was lost, as far as the records tell: without it, the
// loss of what was synced last cannot be seen. If records are damaged beside a
// mark of another log, or if there is no good one at all, it may be the manifest
// that is not of this log, and the log is left alone.
//
// The error matches messages.ErrCorrupt if the log cannot be ended before the
// damage, because the manifest or a record that stands for those that were
// compacted is damaged or missing: no state is known there to end it in.
func Repair(dir string, dryRun bool, options Options) (*messages.LogCut, error) {
	s := &logScan{dir: filepath.Clean(dir), full: true, salvage: true}
	err := s.load()
	if errors.Is(err, fs.ErrNotExist) {
		if fresh, e := unborn(s.dir, s.found); e == nil && !fresh {
			err = &messages.CorruptError{Path: filepath.Join(dir, manifestName), Offset: -1, Reason: "the file is missing", Err: err}
		}
	}
	mark := s.markDamage(err)
	if mark != nil {
		err = nil
	}
	if err == nil {
		if err = s.verify(nil); err != nil && mark != nil {
			err = fmt.Errorf("%w; and %w", mark, err)
		}
	}
	if err == nil && mark != nil && mark.Offset >= 0 && s.damage != nil {
		err = fmt.Errorf("%w; and %w", mark, s.damage)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("log: repair %s: %w", dir, err)
	case s.damage == nil && mark == nil:
		return nil, nil
	}
	var cut *messages.LogCut
	if s.damage == nil {
		cut = &messages.LogCut{Err: mark}
		cut.Path, cut.Offset = s.end()
	}
	if dryRun {
		if cut == nil {
			cut = s.lost()
		}
		return cut, nil
	}
	if mark != nil {
		if err := remark(dir, s.manifest.identity, options); err != nil {
			return nil, fmt.Errorf("log: repair %s: %w", dir, err)
		}
	}
	options.VerifyAll, options.Damage = true, CutAtDamage
	options.OnCut = func(c messages.LogCut) { cut = &c }
	w, err := Open(dir, options)
	if err != nil {
		return nil, err
	}
	return cut, w.Close()
}

// remark replaces the mark by one that says nothing: the next open moves it to
// the end.
func remark(dir string, identity [16]byte, options Options) (err error) {
	options = options.withDefaults()
	if !options.NoLock {
		lock, e := durable.LockDir(dir)
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, lock.Release()) }()
	}
	m, err := durable.CreateMark(options.Disk, filepath.Join(dir, markName), identity, durable.Position{})
	if err != nil {
		return err
	}
	return m.Close()
}
