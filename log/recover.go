package log

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Open opens the log in dir, or creates it. Before it returns, what a crash
// left unfinished has been removed, and all that is left is on disk; DESIGN.md
// lists the steps. Of a segment that has a good summary nothing else is read;
// the records of the others, usually the last one or two, are verified. The
// entries behind a summary are verified when they are read, and by Scrub.
//
// The error matches messages.ErrCorrupt if acknowledged records are damaged or
// a file is missing, messages.ErrIncompatible if a newer version wrote here,
// and messages.ErrLocked if another process has the directory. Nothing has been
// repaired then.
func Open(dir string, options Options) (*WAL, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	w := &WAL{dir: filepath.Clean(dir), options: options.withDefaults()}
	w.disk = w.options.Disk
	if err := w.recover(); err != nil {
		err = errors.Join(err, w.abandon())
		return nil, fmt.Errorf("log: open %s: %w", dir, err)
	}
	return w, nil
}

// abandon closes what a failed open has opened.
func (w *WAL) abandon() error {
	var errs []error
	if w.tail != nil {
		errs = append(errs, w.tail.close(false))
	}
	if w.mark != nil {
		errs = append(errs, w.mark.Close())
	}
	if w.lock != nil {
		errs = append(errs, w.lock.Release())
	}
	return errors.Join(errs...)
}

// recover carries out the steps of DESIGN.md, "Opening".
func (w *WAL) recover() (err error) {
	// 1. Take the directory.
	if err := durable.MkdirAll(w.disk, w.dir); err != nil {
		return durable.Wrap(err)
	}
	if !w.options.NoLock {
		if w.lock, err = durable.LockDir(w.dir); err != nil {
			return err
		}
	}
	// 2. Read manifest, mark and directory; create what is not there yet.
	s := &logScan{dir: w.dir, full: w.options.VerifyAll, salvage: w.options.Damage == CutAtDamage}
	err = s.load()
	if errors.Is(err, fs.ErrNotExist) {
		if err = w.create(s); err == nil {
			*s = logScan{dir: w.dir}
			err = s.load()
		}
	}
	if err != nil {
		return err
	}
	w.manifest, w.identity, w.seed = s.manifest, s.manifest.identity, s.seed
	// 3. Rebuild the index from summaries and records, judge the end.
	if err := s.verify(nil); err != nil {
		return err
	}
	var lost *messages.LogCut
	if s.damage != nil {
		lost = s.lost()
	}
	// From here on nothing is known to be damaged, and files are changed.
	// 4. Remove what interrupted removals and replacements left.
	if err := w.sweep(s); err != nil {
		return err
	}
	// 5. Cut the torn end and the zeros.
	cut, err := w.cut(s)
	if err != nil {
		return err
	}
	// 6. Make durable what was found beyond the mark.
	if err := w.confirm(s, cut); err != nil {
		return err
	}
	// 7. Hand over to the engine, and see that it reads the same.
	if w.tail, err = w.openTail(s); err != nil {
		return durable.Wrap(err)
	}

	w.index, w.durable = s.index, s.last
	w.metadataBytes = w.index.checkpointSize()
	w.checkpointAt = w.manifest.checkpoint
	for _, f := range s.found {
		w.segments = append(w.segments, f.segment)
		if f.summary != nil {
			f.summary.fold, f.fold = nil, nil
		} else if f.segment != w.tail.segment {
			w.left = append(w.left, &leftSegment{&writer{segment: f.segment}, f.records})
		}
	}
	if n := len(s.found); n == 0 || s.found[n-1].segment != w.tail.segment {
		w.tail.first = s.last + 1
		w.segments = append(w.segments, w.tail.segment)
	}
	w.base = w.segments[0].ordinal
	w.movable = w.tail.engine.file != nil
	w.tailOrdinal, w.tailUsed = w.tail.ordinal, w.tail.next > 1
	w.staged = make(map[uint64]*cursor, len(w.index.groups))
	for id, g := range w.index.groups {
		w.staged[id] = g.clone()
	}
	w.open, w.spare = &batch{}, &batch{}
	w.newest, w.next = s.last, s.last+1
	w.readers = newReaders(w.options.MaxOpenFiles)
	w.due.Store(true)
	if lost != nil {
		w.options.OnCut(*lost)
	}
	return nil
}

// openTail opens the segment that goes on being written: the last one, or, if
// that has a summary already, the next.
func (w *WAL) openTail(s *logScan) (*writer, error) {
	n := len(s.found)
	if n > 0 && s.found[n-1].summary == nil {
		f := s.found[n-1]
		// With VerifyAll there may be one, which would not tell of what is
		// appended now.
		err := w.disk.Remove(f.summaryPath())
		if err == nil {
			err = w.disk.SyncDir(f.segment.dir)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		t := &writer{segment: f.segment, next: f.frames + 1, end: f.size, filled: f.size,
			fenced: f.fenced && f.frames > 0, fence: newFence(s.seed, f.segment.ordinal)}
		if t.engine, err = openEngine(t.dir); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		if t.log, err = os.OpenFile(t.logPath(), os.O_RDWR, 0); err != nil {
			return nil, errors.Join(err, t.engine.Close())
		}
		last, err := t.engine.LastIndex()
		if err == nil && last != f.frames {
			err = fmt.Errorf("the engine found %d records, and recovery %d", last, f.frames)
		}
		if err != nil {
			return nil, errors.Join(err, t.close(false))
		}
		return t, nil
	}
	ordinal := s.manifest.ordinal + uint32(n)
	blank := s.usable()
	if blank == nil {
		return w.prepare(ordinal, 0)
	}
	// The engine takes each zero for a record.
	err := os.Truncate(blank.segment.logPath(), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t, err := w.start(ordinal, 0)
	if err != nil && t != nil {
		err = errors.Join(err, t.close(false))
		t = nil
	}
	return t, err
}

// create makes an empty log. The manifest comes last, so that a directory
// without one has never held anything.
func (w *WAL) create(s *logScan) error {
	fresh, err := unborn(w.dir, s.found)
	if err != nil {
		return err
	}
	if !fresh {
		return &messages.CorruptError{Path: filepath.Join(w.dir, manifestName), Offset: -1, Reason: "the file is missing"}
	}
	if err := durable.MkdirAll(w.disk, w.walDir()); err != nil {
		return durable.Wrap(err)
	}
	for _, f := range s.found {
		if err := removeSegment(w.disk, f.segment.dir); err != nil {
			return durable.Wrap(err)
		}
	}
	if err := durable.MkdirAll(w.disk, segmentDir(w.dir, 1)); err != nil {
		return durable.Wrap(err)
	}
	m := manifest{floor: 1, ordinal: 1}
	rand.Read(m.identity[:])
	mark, err := durable.CreateMark(w.disk, filepath.Join(w.dir, markName), m.identity, durable.Position{File: 1})
	if err != nil {
		return err
	}
	if err := mark.Close(); err != nil {
		return err
	}
	return m.write(w.disk, w.dir)
}

func (w *WAL) sweep(s *logScan) error {
	if _, err := durable.RemoveTemps(w.disk, w.dir); err != nil {
		return durable.Wrap(err)
	}
	dirs := s.leftover
	for i := len(s.dropped) - 1; i >= 0; i-- {
		dirs = append(dirs, s.dropped[i].segment.dir)
	}
	for _, f := range s.blank {
		if f != s.usable() {
			dirs = append(dirs, f.segment.dir)
		}
	}
	for _, dir := range dirs {
		if err := removeSegment(w.disk, dir); err != nil {
			return durable.Wrap(err)
		}
	}
	// Also if nothing was removed: whoever was here before may have been killed
	// between a change of names and the sync.
	return durable.Wrap(w.disk.SyncDir(w.walDir()))
}

// cut shortens every segment that was scanned to its last good record.
// Segments before the last may have zeros at their end, of a crash between the
// begin of the next one and the cutting of this.
func (w *WAL) cut(s *logScan) (changed bool, err error) {
	for i, f := range s.found {
		if f.summary != nil || f.logSize == f.size {
			continue
		}
		changed = true
		file, err := os.OpenFile(f.segment.logPath(), os.O_RDWR, 0)
		if err != nil {
			return false, fmt.Errorf("open segment: %w", err)
		}
		if err = file.Truncate(f.size); err == nil {
			err = w.disk.Sync(file)
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return false, fmt.Errorf("cut segment: %w", durable.Wrap(err))
		}
		if i == len(s.found)-1 && s.torn != "" {
			w.options.OnRepair(messages.TailRepaired{Path: f.segment.logPath(), Offset: f.size, Bytes: f.logSize - f.size, Reason: s.torn})
		}
	}
	return changed, nil
}

// confirm makes durable what lies beyond the mark. It was read from the page
// cache, and whether it ever reached the disk is not known: after a failed sync
// the kernel marks the pages clean, and a later sync would do nothing. So the
// same bytes are written again first.
func (w *WAL) confirm(s *logScan, changed bool) (err error) {
	if w.mark, _, _, err = durable.OpenMark(w.disk, filepath.Join(w.dir, markName), w.manifest.identity); err != nil {
		return err
	}
	n := len(s.found)
	if n == 0 {
		return nil
	}
	tail := s.found[n-1]
	end := durable.Position{Sequence: s.last, File: uint64(tail.segment.ordinal), Offset: tail.size}
	if s.markOK && s.mark == end && !changed {
		return nil
	}
	// Three things say that a record is durable: the mark, a later record that
	// was written only after it was, and a summary of its segment.
	from, offset := s.flaggedSegment, int64(s.flaggedOffset)
	for i, f := range s.found {
		if s.markOK && uint64(f.segment.ordinal) == s.mark.File && (i > from || i == from && s.mark.Offset > offset) {
			from, offset = i, s.mark.Offset
		}
	}
	for ; from < n; from++ {
		f := s.found[from]
		if err := w.rewrite(f.segment.logPath(), offset, f.size); err != nil {
			return fmt.Errorf("confirm segment: %w", durable.Wrap(err))
		}
		offset = 0
		if err := w.disk.SyncDir(f.segment.dir); err != nil {
			return durable.Wrap(err)
		}
	}
	if err := w.mark.Set(w.manifest.identity, end); err != nil {
		return err
	}
	return w.mark.Sync()
}

// rewrite writes a part of a file over itself and syncs it.
func (w *WAL) rewrite(path string, from, to int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, max(0, min(1<<20, to-from)))
	for from < to && err == nil {
		n := min(int64(len(buf)), to-from)
		if _, err = f.ReadAt(buf[:n], from); err == nil {
			_, err = f.WriteAt(buf[:n], from)
		}
		from += n
	}
	if err == nil {
		err = w.disk.Sync(f)
	}
	return errors.Join(err, f.Close())
}
