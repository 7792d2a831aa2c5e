package log

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"golang.org/x/sys/unix"
)

const (
	walName = "wal"
	// logName is the only file of the engine in a segment.
	logName = "00000000000000000001"
)

// segment is one directory below wal: a log of the engine that never rolls,
// and, once it is closed, a summary.
type segment struct {
	ordinal uint32
	dir     string
	first   uint64 // wal index of the first record
	size    int64  // what is written of its file; guarded by WAL.state
	// fold is what its records do; nil once that is in the summary.
	fold    *fold
	summary *summary
	// removed is set before the files go, so that a reader that finds one
	// missing knows why.
	removed atomic.Bool
}

func segmentDir(dir string, ordinal uint64) string {
	return filepath.Join(dir, walName, fmt.Sprintf("%08d", ordinal))
}

func (s *segment) logPath() string     { return filepath.Join(s.dir, logName) }
func (s *segment) summaryPath() string { return filepath.Join(s.dir, summaryName) }

// summarise makes the summary of a segment whose records are all in its fold.
func (s *segment) summarise(identity [16]byte, records uint64) *summary {
	sum := &summary{identity: identity, ordinal: s.ordinal, first: s.first, records: records, size: s.size, fold: s.fold}
	for _, id := range slices.Sorted(maps.Keys(s.fold.groups)) {
		for _, t := range s.fold.groups[id].stretches() {
			sum.stretches = append(sum.stretches, t)
			sum.count += t.count
		}
	}
	return sum
}

// segmentFiles is a segment as the directory lists it.
type segmentFiles struct {
	ordinal uint32
	dir     string
	logSize int64 // -1: there is no such file
}

// listSegments lists the segments in ascending order.
func listSegments(dir string) (segments []segmentFiles, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, walName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, walName, name)
		ordinal, err := strconv.ParseUint(name, 10, 32)
		if err != nil || !e.IsDir() || ordinal == 0 || segmentDir(dir, ordinal) != path {
			continue
		}
		f := segmentFiles{ordinal: uint32(ordinal), dir: path}
		path = filepath.Join(path, logName)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.logSize = -1
		case err != nil:
			return nil, fmt.Errorf("list segments: %w", err)
		case info.Size() > math.MaxUint32:
			return nil, &messages.CorruptError{Path: path, Offset: math.MaxUint32, Reason: "larger than any segment"}
		default:
			f.logSize = info.Size()
		}
		segments = append(segments, f)
	}
	slices.SortFunc(segments, func(a, b segmentFiles) int { return int(int64(a.ordinal) - int64(b.ordinal)) })
	return segments, nil
}

// removeSegment removes a segment's directory, if it is there.
func removeSegment(d durable.Disk, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return d.Remove(dir)
}

// writer is a segment that is being written, or is ready to be.
type writer struct {
	*segment
	engine *engine
	log    *os.File // our descriptor of the engine's file
	next   uint64   // the engine's index of the next record
	end    int64    // where it will go
	// unsynced: it holds records that were written and not synced.
	unsynced bool
	// filled is the size of the file: from end on it holds zeros, or, if it is
	// fenced, a zero and then older records.
	filled int64
	// fenced: the file was a spare, and each batch is preceded by a fence.
	fenced bool
	fence  fence
}

// terminate ends what a fenced segment holds at an offset.
func (t *writer) terminate(at int64) error {
	if at >= t.filled {
		return nil
	}
	_, err := t.log.WriteAt(zeros[:1], at)
	return err
}

// close closes the files, after cutting off the zeros if cut is set. The engine
// syncs its file when it closes it.
func (t *writer) close(cut bool) error {
	var errs []error
	if cut && t.filled > t.end {
		errs = append(errs, t.log.Truncate(t.end))
	}
	return durable.Wrap(errors.Join(append(errs, t.engine.Close(), t.log.Close())...))
}

var zeros [256 << 10]byte

// fill writes zeros ahead of the end of the engine's file, up to size. They
// become durable with the next sync. With gently, each piece is on its way to
// the disk before the next is written: 4 MiB at once would hold up an append
// beside it for 5 ms.
func (t *writer) fill(size int64, gently bool) error {
	for t.filled < size {
		n, err := t.log.WriteAt(zeros[:min(size-t.filled, int64(len(zeros)))], t.filled)
		if err == nil && gently {
			err = flushRange(t.log, t.filled, int64(n))
		}
		t.filled += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// reserve sets blocks aside ahead of the end of the engine's file, up to size;
// they read as zeros. Where that cannot be done the file grows as it is
// written.
func (t *writer) reserve(size int64) {
	if size > t.filled && unix.Fallocate(int(t.log.Fd()), 0, t.filled, size-t.filled) == nil {
		t.filled = size
	}
}

// flushRange has the kernel write a part of a file, and waits. It makes nothing
// durable; where the file system cannot do it, the next sync has more to do.
func flushRange(f *os.File, at, n int64) error {
	err := unix.SyncFileRange(int(f.Fd()), at, n,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	if err == unix.ENOSYS || err == unix.EINVAL || err == unix.ESPIPE || err == unix.EINTR {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
	}
	return nil
}
