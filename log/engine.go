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
	data  *[]byte
	ends  reflect.Value // a slice, settable
	file  **os.File     // what it writes to
	batch wal.Batch
	// entries and payload are those of batch: the positions of a write, and its
	// records without a copy of their own. Nil if the engine has other fields.
	entries *[]batchEntry
	payload *[]byte
}

// batchEntry has the layout of the engine's own.
type batchEntry struct {
	index uint64
	size  int
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
	if e.data, e.ends, e.file, err = engineFields(l); err != nil {
		e.data, e.file = nil, nil
	}
	e.entries, e.payload = batchFields(&e.batch)
	return e, nil
}

// batchFields finds what Batch.Write would fill.
func batchFields(b *wal.Batch) (entries *[]batchEntry, payload *[]byte) {
	v := reflect.ValueOf(b).Elem()
	e, p := v.FieldByName("entries"), v.FieldByName("datas")
	if v.NumField() != 2 || !e.IsValid() || e.Kind() != reflect.Slice || !p.IsValid() || p.Type() != reflect.TypeFor[[]byte]() {
		return nil, nil
	}
	if t, want := e.Type().Elem(), reflect.TypeFor[batchEntry](); t.Kind() != reflect.Struct || !sameFields(t, want) {
		return nil, nil
	}
	return (*[]batchEntry)(unsafe.Pointer(e.UnsafeAddr())), (*[]byte)(unsafe.Pointer(p.UnsafeAddr()))
}

// sameFields compares the names, the types and the order of fields.
func sameFields(a, b reflect.Type) bool {
	if a.NumField() != b.NumField() {
		return false
	}
	for i := range a.NumField() {
		if x, y := a.Field(i), b.Field(i); x.Name != y.Name || x.Type != y.Type {
			return false
		}
	}
	return true
}

// write appends records, which lie one after the other, from the engine's index
// first on.
func (e *engine) write(first uint64, records []byte, sizes []int) error {
	e.batch.Clear()
	if e.entries == nil {
		for i, n := range sizes {
			e.batch.Write(first+uint64(i), records[:n])
			records = records[n:]
		}
		return e.WriteBatch(&e.batch)
	}
	for i, n := range sizes {
		*e.entries = append(*e.entries, batchEntry{first + uint64(i), n})
	}
	*e.payload = records
	err := e.WriteBatch(&e.batch)
	*e.payload = nil // it goes on to belong to the caller
	return err
}

// moveTo has an engine that has written nothing yet write to another file, from
// its beginning: it would take what that holds for its own records if it opened
// it.
func (e *engine) moveTo(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = (*e.file).Close()
	*e.file = f
	return err
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

// engineFields finds the tail segment's copy of its file, the positions of the
// records in it, and the file.
func engineFields(l *wal.Log) (data *[]byte, ends reflect.Value, file **os.File, err error) {
	unknown := errors.New("the engine has other fields")
	segments := reflect.ValueOf(l).Elem().FieldByName("segments")
	if !segments.IsValid() || segments.Kind() != reflect.Slice || segments.Len() == 0 {
		return nil, ends, nil, unknown
	}
	tail := segments.Index(segments.Len() - 1)
	if tail.Kind() != reflect.Pointer || tail.Type().Elem().Kind() != reflect.Struct {
		return nil, ends, nil, unknown
	}
	b, p := tail.Elem().FieldByName("ebuf"), tail.Elem().FieldByName("epos")
	if !b.IsValid() || b.Type() != reflect.TypeFor[[]byte]() || !p.IsValid() || p.Kind() != reflect.Slice {
		return nil, ends, nil, unknown
	}
	f := reflect.ValueOf(l).Elem().FieldByName("sfile")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*os.File]() || f.IsNil() {
		return nil, ends, nil, unknown
	}
	return (*[]byte)(unsafe.Pointer(b.UnsafeAddr())), reflect.NewAt(p.Type(), unsafe.Pointer(p.UnsafeAddr())).Elem(),
		(**os.File)(unsafe.Pointer(f.UnsafeAddr())), nil
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
