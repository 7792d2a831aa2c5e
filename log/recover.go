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
	"github.com/tidwall/wal"
)

// Open opens the log in dir, or creates it. Before it returns, every record of
// every segment has been verified, what a crash left unfinished has been
// removed, and all that is left is on disk; DESIGN.md lists the steps. It reads
// the whole log, at 0.5 to 2 GB/s from the page cache.
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
	if w.engine != nil {
		errs = append(errs, w.engine.Close())
	}
	if w.tail != nil {
		errs = append(errs, w.tail.Close())
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
	s := &logScan{dir: w.dir}
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
	w.manifest, w.seed = s.manifest, s.seed
	// 3. Verify every record, rebuild the index, judge the end.
	if err := s.verify(nil); err != nil {
		return err
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
	if w.engine, err = wal.Open(w.walDir(), &wal.Options{
		NoSync:           true,
		SegmentSize:      w.options.SegmentBytes,
		SegmentCacheSize: 1,
		NoCopy:           true,
		AllowEmpty:       true,
		DirPerms:         0o755,
		FilePerms:        0o644,
	}); err != nil {
		return fmt.Errorf("engine: %w", durable.Wrap(err))
	}
	last, err := w.engine.LastIndex()
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if last != s.last {
		return fmt.Errorf("the engine found %d records, and recovery %d", last, s.last)
	}

	w.index = s.index
	w.metadataBytes = w.index.checkpointSize()
	w.segments = make([]*segment, len(s.segments))
	for i, f := range s.segments {
		w.segments[i] = &segment{ordinal: uint32(i), start: f.start, path: f.path, size: int64(s.ends[i])}
	}
	w.staged = make(map[uint64]*cursor, len(w.index.groups))
	for id, g := range w.index.groups {
		w.staged[id] = g.clone()
	}
	w.open, w.spare = &batch{}, &batch{}
	w.newest, w.next = s.last, s.last+1
	w.readers = newReaders(w.options.MaxOpenFiles)
	return nil
}

// create makes an empty log. The manifest comes last, so that a directory
// without one has never held anything.
func (w *WAL) create(s *logScan) error {
	fresh, err := unborn(w.dir, s.segments)
	if err != nil {
		return err
	}
	if !fresh {
		return &messages.CorruptError{Path: filepath.Join(w.dir, manifestName), Offset: -1, Reason: "the file is missing"}
	}
	if err := durable.MkdirAll(w.disk, w.walDir()); err != nil {
		return durable.Wrap(err)
	}
	for _, f := range s.segments {
		if err := w.disk.Remove(f.path); err != nil {
			return durable.Wrap(err)
		}
	}
	f, err := os.OpenFile(segmentPath(w.dir, 1), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return durable.Wrap(err)
	}
	if err := errors.Join(w.disk.Sync(f), f.Close(), w.disk.SyncDir(w.walDir())); err != nil {
		return durable.Wrap(err)
	}
	m := manifest{floor: 1}
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
	paths := s.temps
	for _, f := range s.leftover {
		paths = append(paths, f.path)
	}
	if len(paths) == 0 {
		return nil
	}
	for _, path := range paths {
		if err := w.disk.Remove(path); err != nil {
			return durable.Wrap(err)
		}
	}
	return durable.Wrap(w.disk.SyncDir(w.walDir()))
}

// cut shortens every segment to its last good record, and leaves w.tail open.
// Segments before the last may have zeros at their end, of a crash between the
// making of the next one and the cutting of this.
func (w *WAL) cut(s *logScan) (changed bool, err error) {
	for i, f := range s.segments {
		tail := i == len(s.segments)-1
		end := int64(s.ends[i])
		if f.size == end && !tail {
			continue
		}
		file, err := os.OpenFile(f.path, os.O_RDWR, 0)
		if err != nil {
			return false, fmt.Errorf("open segment: %w", err)
		}
		if tail {
			w.tail, w.tailStart, w.tailSize = file, f.start, end
		}
		if f.size != end {
			changed = true
			if err = file.Truncate(end); err == nil {
				err = w.disk.Sync(file)
			}
		}
		if !tail {
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			return false, fmt.Errorf("cut segment: %w", durable.Wrap(err))
		}
		if tail && s.torn != "" {
			w.options.OnRepair(messages.TailRepaired{Path: f.path, Offset: end, Bytes: f.size - end, Reason: s.torn})
		}
	}
	return changed, nil
}

// confirm makes durable what lies beyond the mark. It was read from the page
// cache, and whether it ever reached the disk is not known: after a failed sync
// the kernel marks the pages clean, and a later sync would do nothing. So the
// same bytes are written again first.
func (w *WAL) confirm(s *logScan, changed bool) (err error) {
	tail := len(s.segments) - 1
	end := durable.Position{Sequence: s.last, File: w.tailStart, Offset: w.tailSize}
	if w.mark, _, _, err = durable.OpenMark(w.disk, filepath.Join(w.dir, markName), w.manifest.identity); err != nil {
		return err
	}
	if s.markOK && s.mark == end && !changed {
		return nil
	}
	// Two things say that a record is durable: the mark, and a later record
	// that was written only after it was.
	from, offset := s.flaggedSegment, int64(s.flaggedOffset)
	for i, f := range s.segments {
		if s.markOK && f.start == s.mark.File && (i > from || i == from && s.mark.Offset > offset) {
			from, offset = i, s.mark.Offset
		}
	}
	for i := from; i <= tail; i++ {
		if err := w.rewrite(s.segments[i].path, offset, int64(s.ends[i])); err != nil {
			return fmt.Errorf("confirm segment: %w", durable.Wrap(err))
		}
		offset = 0
	}
	if err := w.disk.SyncDir(w.walDir()); err != nil {
		return durable.Wrap(err)
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
	buf := make([]byte, min(1<<20, to-from))
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
