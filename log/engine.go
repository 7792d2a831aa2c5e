package log

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"unsafe"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/wal"
)

// engine is the engine on the one file of a segment, and access to the copy
// that it keeps of that file in memory.
//
// The engine appends everything it writes to a buffer of its own first, which
// holds the whole segment, to serve reads that this package does by itself. The
// buffer is copied whenever it grows, by a quarter each time: at 16 KiB that
// took 60 to 130 µs of an append's 300. There is no call that empties it, so
// forget does, by way of the fields; engineFields finds them by name and type,
// and if another version of the engine has none such, nothing is forgotten and
// all that is lost is speed (TestEngineForgets tells).
type engine struct {
	*wal.Log
	data *[]byte
	ends reflect.Value // a slice, settable
}

// openEngine opens the engine in a segment. It reads the file that is there, so
// there must be no zeros at its end.
func openEngine(dir string) (*engine, error) {
	if err := foreign(dir); err != nil {
		return nil, err
	}
	l, err := wal.Open(dir, &wal.Options{
		NoSync:           true,
		SegmentSize:      math.MaxInt, // it never rolls
		SegmentCacheSize: 1,
		NoCopy:           true,
		AllowEmpty:       true,
		DirPerms:         0o755,
		FilePerms:        0o644,
	})
	if err != nil {
		return nil, err
	}
	e := &engine{Log: l}
	if e.data, e.ends, err = engineFields(l); err != nil {
		e.data = nil
	}
	return e, nil
}

// foreign reports an error if there is a file in a segment that the engine
// would take for its own, and this package has not made: it would write there,
// or delete segments, if it is one of a truncation.
func foreign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if len(name) < len(logName) || name == logName {
			continue
		}
		switch name[len(logName):] {
		case "", ".START", ".END":
			if n, err := strconv.ParseUint(name[:len(logName)], 10, 64); err == nil && n > 0 {
				return &messages.CorruptError{Path: filepath.Join(dir, name), Offset: 0, Reason: "a file that this log has never made"}
			}
		}
	}
	return nil
}

// engineFields finds the tail segment's copy of its file, and the positions of
// the records in it.
func engineFields(l *wal.Log) (data *[]byte, ends reflect.Value, err error) {
	unknown := errors.New("the engine has other fields")
	segments := reflect.ValueOf(l).Elem().FieldByName("segments")
	if !segments.IsValid() || segments.Kind() != reflect.Slice || segments.Len() == 0 {
		return nil, ends, unknown
	}
	tail := segments.Index(segments.Len() - 1)
	if tail.Kind() != reflect.Pointer || tail.Type().Elem().Kind() != reflect.Struct {
		return nil, ends, unknown
	}
	b, p := tail.Elem().FieldByName("ebuf"), tail.Elem().FieldByName("epos")
	if !b.IsValid() || b.Type() != reflect.TypeFor[[]byte]() || !p.IsValid() || p.Kind() != reflect.Slice {
		return nil, ends, unknown
	}
	return (*[]byte)(unsafe.Pointer(b.UnsafeAddr())), reflect.NewAt(p.Type(), unsafe.Pointer(p.UnsafeAddr())).Elem(), nil
}

// forget empties the engine's copy of what it has written; a write appends to
// it and writes what it has appended. The caller excludes other calls.
func (e *engine) forget() {
	if e.data == nil {
		return
	}
	if cap(*e.data) > maxKeptBatch {
		*e.data = nil
	}
	*e.data = (*e.data)[:0]
	e.ends.SetLen(0)
}
