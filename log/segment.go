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
	"strings"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/tidwall/wal"
)

const (
	walName = "wal"
	// logName is the only file of the engine in a segment.
	logName  = "00000000000000000001"
	dataName = "DATA"
	// spareName begins the names of DATA files that wait to be used again.
	spareName = "spare-"
)

// segment is one directory below wal: a log of the engine that never rolls,
// the data of large appends beside it, and, once it is closed, a summary.
type segment struct {
	ordinal uint32
	dir     string
	first   uint64 // wal index of the first record
	// What is durable of its files. Guarded by WAL.state.
	size     int64
	dataSize int64
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
func (s *segment) dataPath() string    { return filepath.Join(s.dir, dataName) }
func (s *segment) summaryPath() string { return filepath.Join(s.dir, summaryName) }

// path is where an entry lies.
func (s *segment) path(beside bool) string {
	if beside {
		return s.dataPath()
	}
	return s.logPath()
}

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

// segmentFiles is a segment as the directory lists it. A size is -1 if there is
// no such file.
type segmentFiles struct {
	ordinal  uint32
	dir      string
	logSize  int64
	dataSize int64
}

func (f *segmentFiles) logPath() string { return filepath.Join(f.dir, logName) }

// listSegments lists the segments in ascending order, and the spare files.
func listSegments(dir string) (segments []segmentFiles, spares []string, err error) {
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
		if strings.HasPrefix(name, spareName) && !e.IsDir() {
			spares = append(spares, path)
			continue
		}
		ordinal, err := strconv.ParseUint(name, 10, 32)
		if err != nil || !e.IsDir() || ordinal == 0 || segmentDir(dir, ordinal) != path {
			continue
		}
		f := segmentFiles{ordinal: uint32(ordinal), dir: path}
		for name, size := range map[string]*int64{logName: &f.logSize, dataName: &f.dataSize} {
			info, err := os.Stat(filepath.Join(path, name))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				*size = -1
			case err != nil:
				return nil, nil, fmt.Errorf("list segments: %w", err)
			case info.Size() > math.MaxUint32:
				return nil, nil, &messages.CorruptError{Path: filepath.Join(path, name), Offset: math.MaxUint32, Reason: "larger than any segment"}
			default:
				*size = info.Size()
			}
		}
		segments = append(segments, f)
	}
	slices.SortFunc(segments, func(a, b segmentFiles) int { return int(int64(a.ordinal) - int64(b.ordinal)) })
	return segments, spares, nil
}

// removeSegment removes a segment's directory. What keep names is left for the
// caller to move away first.
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
	engine *wal.Log
	log    *os.File // our descriptor of the engine's file
	data   *os.File // nil: there is no DATA yet
	next   uint64   // the engine's index of the next record
	// end and dataEnd are where the next record and its data will go.
	end     int64
	dataEnd int64
	// filled is the size of the engine's file: from end on it holds zeros.
	filled int64
}

// openEngine opens the engine in a segment. It reads the file that is there, so
// there must be no zeros at its end.
func openEngine(dir string) (*wal.Log, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		// The engine would delete segments on seeing one of these, and this
		// package never truncates by it.
		if name := e.Name(); strings.HasSuffix(name, ".START") || strings.HasSuffix(name, ".END") {
			return nil, &messages.CorruptError{Path: filepath.Join(dir, name), Offset: 0, Reason: "a truncation that this log never does"}
		}
	}
	return wal.Open(dir, &wal.Options{
		NoSync:           true,
		SegmentSize:      math.MaxInt, // it never rolls
		SegmentCacheSize: 1,
		NoCopy:           true,
		AllowEmpty:       true,
		DirPerms:         0o755,
		FilePerms:        0o644,
	})
}

// close closes the files, after cutting off the zeros if cut is set.
func (t *writer) close(d durable.Disk, cut bool) error {
	var errs []error
	if cut && t.filled > t.end {
		err := t.log.Truncate(t.end)
		if err == nil {
			err = d.Sync(t.log)
		}
		errs = append(errs, err)
	}
	errs = append(errs, t.engine.Close(), t.log.Close())
	if t.data != nil {
		errs = append(errs, t.data.Close())
	}
	return durable.Wrap(errors.Join(errs...))
}

var zeros [256 << 10]byte

// fill writes zeros ahead of the end of the engine's file, up to size. They
// become durable with the next sync.
func (t *writer) fill(size int64) error {
	for t.filled < size {
		n, err := t.log.WriteAt(zeros[:min(size-t.filled, int64(len(zeros)))], t.filled)
		t.filled += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
