package log

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ballast-raft/ballast/messages/durable"
)

// maxSpares is how many files of removed segments are kept to be written again.
const maxSpares = 8

// spare is the file of a segment that was removed. Its blocks are written, so
// writing them again is all that a sync has to do: no size, no blocks and no
// zeros go to the disk. It has a temporary name, so an open removes it.
type spare struct {
	path string
	size int64
}

// recycles reports whether batches are so large that spares are worth having.
func (w *WAL) recycles() bool {
	return w.movable && w.meanBatch.Load() >= int64(w.options.RecycleBytes)
}

// keep makes a spare of the file of a segment that is being removed, if there is
// use for it. Nobody reads it any more but those who look afterwards whether the
// segment was removed. The caller holds maintaining.
func (w *WAL) keep(s *segment) error {
	limit := int64(w.options.SegmentBytes)
	if s.size < limit-limit/8 || !w.recycles() || int(w.spareCount.Load()) >= maxSpares {
		return nil
	}
	free, err := durable.FreeOn(w.options.Disk, w.dir)
	if err != nil {
		return err
	}
	if free < w.ampleSpace() {
		return nil
	}
	w.handover.Lock()
	left := slices.Clone(w.left)
	w.handover.Unlock()
	for _, l := range left {
		if l.segment == s && l.engine != nil { // it goes before it was closed
			err := l.writer.close(true)
			if l.engine = nil; err != nil {
				return fmt.Errorf("close segment: %w", err)
			}
		}
	}
	p := spare{filepath.Join(w.dir, fmt.Sprintf("segment-%08d%s", s.ordinal, durable.TempSuffix)), s.size}
	if err := w.disk.Rename(s.logPath(), p.path); errors.Is(err, fs.ErrNotExist) {
		return nil // the removal was cut short after it was kept
	} else if err != nil {
		return err
	}
	w.preparing.Lock()
	defer w.preparing.Unlock()
	w.spares = append(w.spares, p)
	w.spareCount.Store(int32(len(w.spares)))
	return nil
}

// ampleSpace is the free space below which spares are given back.
func (w *WAL) ampleSpace() int64 {
	return 4*(w.fillSize()+w.options.ReserveBytes) + int64(w.options.MaxBatchBytes)
}

// takeSpare returns a spare, or an empty path. The caller holds preparing.
func (w *WAL) takeSpare() (p spare) {
	if n := len(w.spares); n > 0 {
		p, w.spares = w.spares[0], w.spares[1:]
		w.spareCount.Store(int32(n - 1))
	}
	return p
}

// dropSpares removes all spares.
func (w *WAL) dropSpares() error {
	w.preparing.Lock()
	defer w.preparing.Unlock()
	for len(w.spares) > 0 {
		if err := w.disk.Remove(w.spares[0].path); err != nil {
			return fmt.Errorf("remove spare segment: %w", err)
		}
		w.takeSpare()
	}
	return nil
}

// makeRoom gives spares back before the space that they take is missed. The
// caller holds syncing.
func (w *WAL) makeRoom() error {
	if w.spareCount.Load() == 0 {
		return nil
	}
	free, err := durable.FreeBesideOn(w.options.Disk, w.tail.log)
	if err != nil || free >= w.ampleSpace() {
		return err
	}
	return w.dropSpares()
}

// reuse makes a writer of a segment's directory out of a spare: its file begins
// with a fence and a zero, which are durable before it gets its name. The caller
// holds preparing.
func (w *WAL) reuse(p spare, ordinal uint32) (t *writer, err error) {
	dir := segmentDir(w.dir, uint64(ordinal))
	engine, err := openEngine(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	t = &writer{segment: &segment{ordinal: ordinal, dir: dir, fold: newFold()}, engine: engine, next: 2, end: fenceFramed, filled: p.size,
		fence: newFence(w.seed, ordinal), fenced: true}
	if t.log, err = os.OpenFile(p.path, os.O_RDWR, 0); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	if err := engine.moveTo(p.path); err != nil {
		return t, err
	}
	if err := engine.Write(1, t.fence.record(0)); err != nil {
		return t, err
	}
	engine.forget()
	if err := t.terminate(t.end); err != nil {
		return t, err
	}
	if err := w.disk.Sync(t.log); err != nil {
		return t, err
	}
	if err := w.disk.Rename(p.path, t.logPath()); err != nil {
		return t, err
	}
	renamed, err := os.OpenFile(t.logPath(), os.O_RDWR, 0)
	if err != nil {
		return t, err
	}
	if err := t.log.Close(); err != nil {
		return t, errors.Join(err, renamed.Close())
	}
	t.log = renamed
	if err := w.disk.SyncDir(dir); err != nil {
		return t, err
	}
	return t, w.disk.SyncDir(w.walDir())
}
