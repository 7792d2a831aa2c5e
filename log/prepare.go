package log

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// dataFactor is how much larger than the engine's file a DATA file is made: a
// segment is left when either is full.
const dataFactor = 8

// prepare makes the next segment: its directory, the engine on an empty file,
// zeros in that file as far as fill says, and DATA if data is set. All of it is
// durable when it returns. What it has made is removed after an error.
//
// An append into a growing file has the journal write its size and its blocks
// too: filled with zeros before, it is 1.3 to 1.5 times as fast at 128 bytes. The
// zeros go through the page cache, so that a small append need not read the
// rest of its page first.
func (w *WAL) prepare(ordinal uint32, fill int64, data bool) (t *writer, err error) {
	dir := segmentDir(w.dir, uint64(ordinal))
	defer func() {
		if err != nil {
			if t != nil && t.engine != nil {
				err = errors.Join(err, t.close(w.disk, false))
			}
			err = fmt.Errorf("prepare segment: %w", errors.Join(durable.Wrap(err), removeSegment(w.disk, dir)))
			t = nil
		}
	}()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return w.start(ordinal, fill, data)
}

// start makes a writer of a segment's directory without a record in it.
func (w *WAL) start(ordinal uint32, fill int64, data bool) (*writer, error) {
	dir := segmentDir(w.dir, uint64(ordinal))
	engine, err := openEngine(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	t := &writer{segment: &segment{ordinal: ordinal, dir: dir, fold: newFold()}, engine: engine, next: 1}
	if t.log, err = os.OpenFile(t.logPath(), os.O_RDWR, 0); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	if err := t.fill(fill); err != nil {
		return t, err
	}
	if err := w.disk.Sync(t.log); err != nil {
		return t, err
	}
	if data {
		if err := w.addData(t); err != nil {
			return t, err
		}
	}
	if err := w.disk.SyncDir(dir); err != nil {
		return t, err
	}
	return t, w.disk.SyncDir(w.walDir())
}

// addData gives a segment its DATA file: one that an older segment has left,
// because overwriting blocks costs no journal, or else a new one with its space
// set aside. The caller syncs the segment's directory.
func (w *WAL) addData(t *writer) (err error) {
	path := t.dataPath()
	if spare := w.takeSpare(); spare != "" {
		if err := w.disk.Rename(spare, path); err != nil {
			return err
		}
		t.data, err = os.OpenFile(path, os.O_RDWR, 0)
		return err
	}
	if t.data, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	err = syscall.Fallocate(int(t.data.Fd()), 0, 0, w.dataLimit())
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		err = nil // it grows as it is written
	}
	if err != nil {
		return &fs.PathError{Op: "fallocate", Path: path, Err: err}
	}
	return w.disk.Sync(t.data)
}

func (w *WAL) dataLimit() int64 { return dataFactor * int64(w.options.SegmentBytes) }

// maxSpares is how many DATA files of removed segments are kept for new ones.
const maxSpares = 2

func (w *WAL) takeSpare() string {
	w.handover.Lock()
	defer w.handover.Unlock()
	n := len(w.spares)
	if n == 0 {
		return ""
	}
	path := w.spares[n-1]
	w.spares = w.spares[:n-1]
	return path
}

// keepSpare moves the DATA file of a segment that is being removed to where a
// new segment will find it, if it is worth it.
func (w *WAL) keepSpare(s *segment) error {
	w.handover.Lock()
	n := len(w.spares)
	w.handover.Unlock()
	info, err := os.Stat(s.dataPath())
	if errors.Is(err, fs.ErrNotExist) || err == nil && (info.Size() < w.dataLimit() || info.Size() > 2*w.dataLimit()) || n >= maxSpares {
		return nil
	}
	if err != nil {
		return err
	}
	path := filepath.Join(w.walDir(), fmt.Sprintf("%s%08d", spareName, s.ordinal))
	if err := w.disk.Rename(s.dataPath(), path); err != nil {
		return err
	}
	w.handover.Lock()
	defer w.handover.Unlock()
	w.spares = append(w.spares, path)
	return nil
}

// prepareNext makes the segment that follows the tail, if there is none yet
// and there is room for it.
func (w *WAL) prepareNext() (did bool, err error) {
	w.handover.Lock()
	need := w.ready == nil && w.tailUsed
	ordinal := w.tailOrdinal + 1
	large := w.large
	w.handover.Unlock()
	if !need {
		return false, nil
	}
	room := int64(w.options.SegmentBytes)
	if large {
		room += w.dataLimit()
	}
	free, err := durable.Free(w.dir)
	if err != nil {
		return false, err
	}
	if free < room+2*w.options.ReserveBytes {
		return false, nil // the tail goes on growing
	}
	t, err := w.prepare(ordinal, w.fillSize(), large)
	if errors.Is(err, messages.ErrDiskFull) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.handover.Lock()
	w.ready = t
	w.handover.Unlock()
	return true, nil
}

// fillSize is how far a new segment is filled with zeros: to its full size and
// a batch that goes beyond it.
func (w *WAL) fillSize() int64 {
	n := int64(w.options.SegmentBytes)
	return n + n/8
}
