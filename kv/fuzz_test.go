package kv_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// refusal reports whether the error is one that bad files may cause.
func refusal(err error) bool {
	return errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrIncompatible)
}

// Open of any bytes: an error that says so, or a store that works and says the
// same when it is opened again.
func FuzzOpen(f *testing.F) {
	dir := memDir(f)
	db, err := kv.Open(dir, lazy)
	if err != nil {
		f.Fatal(err)
	}
	mustWrite(f, db, 1, put("a", `{"v":1}`))
	mustWrite(f, db, 1, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v")}))
	mustWrite(f, db, 1, del("a"))
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	data, mark := fileOf(f, dir, "DATA"), fileOf(f, dir, "MARK")
	f.Add(data, mark)
	f.Add(data[:len(data)-1], mark)
	f.Add(data, mark[:10])
	f.Add(data, []byte{})
	f.Add([]byte{}, mark)
	f.Add([]byte("*3\r\n$3\r\nset\r\n$1\r\nh\r\n$999999999\r\n"), []byte{})
	f.Add([]byte("*2\r\n$3\r\ndel\r\n$67000000\r\n"), []byte{})
	f.Add(bytes.Replace(data, []byte("del"), []byte("set"), 1), make([]byte, 64))
	f.Fuzz(func(t *testing.T, data, mark []byte) {
		dir := memDir(t)
		if err := os.WriteFile(filepath.Join(dir, "DATA"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if len(mark) > 0 {
			if err := os.WriteFile(filepath.Join(dir, "MARK"), mark, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		rep, err := kv.Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		db, err := kv.Open(dir, lazy)
		if (err != nil) != (rep.Damage != nil) {
			t.Fatalf("inspect: %v, open: %v", rep.Damage, err)
		}
		if err != nil {
			if !refusal(err) {
				t.Fatal(err)
			}
			return
		}
		state := fingerprint(t, db)
		mustWrite(t, db, 3, put("k", "v"))
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, lazy)
		if got := fingerprint(t, db); got != state || db.Keys(3) != 1 {
			t.Fatalf("%s\nthen\n%s", state, got)
		}
	})
}

// Import of any bytes: refused, or a state that is exported as the same bytes.
func FuzzImport(f *testing.F) {
	db, err := kv.Open(memDir(f), lazy)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := db.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Add(export(f, db, 1), 1)
	mustWrite(f, db, 1, put("a", `{"v":1}`), put("b", `{"v":"\u0000"}`))
	f.Add(export(f, db, 1), 3)
	mustWrite(f, db, 1, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v"), Prefix: "\xff"}))
	f.Add(export(f, db, 1), 1000)
	f.Add([]byte("BLSTKVST\x03\x00\x00\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 5)
	f.Add([]byte("BLSTKVST\x03\x00\x00\x00\x02\x01a\x01\xff\xff\xff\x0f"), 5)
	f.Fuzz(func(t *testing.T, state []byte, size int) {
		im, err := db.BeginImport(2, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer im.Abort()
		if size <= 0 {
			size = 1
		}
		for rest := state; len(rest) > 0 && err == nil; {
			n := min(size, len(rest))
			_, err = im.Write(rest[:n])
			rest = rest[n:]
		}
		if err == nil {
			_, err = im.Finish()
		}
		if err != nil {
			if !badState(err) {
				t.Fatal(err)
			}
			return
		}
		got := export(t, db, 2)
		if !bytes.Equal(got, state) {
			t.Fatalf("imported %x, exported %x", state, got)
		}
	})
}

func openState(t testing.TB, b []byte) *kv.State {
	t.Helper()
	s, err := kv.OpenState(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reseal makes the checksums of the last page and of the trailer good, so that
// what lies behind them is reached.
func reseal(b []byte) []byte {
	if len(b) < 12+trailerBytes || b[8] != 3 {
		return b
	}
	le, table := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	b = bytes.Clone(b)
	end := len(b) - trailerBytes
	if root := int(le.Uint32(b[end+25:])); root >= 12 && root < end-4 {
		n, w := binary.Uvarint(b[root+1 : end])
		if stop := root + 1 + w + int(n&0xffff); w > 0 && stop <= end-4 {
			le.PutUint32(b[stop:], crc32.Checksum(b[root:stop], table))
		}
	}
	sealTrailer(b)
	return b
}

// sealTrailer makes the checksums of the stream and of its trailer good.
func sealTrailer(b []byte) {
	le, table := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	le.PutUint32(b[len(b)-8:], crc32.Checksum(b[:len(b)-8], table))
	le.PutUint32(b[len(b)-4:], crc32.Checksum(b[len(b)-trailerBytes:len(b)-4], table))
}

const trailerBytes = 49

// A State of any bytes: errors that say so, or, if Verify finds nothing, what
// is in it.
func FuzzState(f *testing.F) {
	db, err := kv.Open(memDir(f), lazy)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := db.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Add(export(f, db, 1), []byte("a"))
	mustWrite(f, db, 1, put("a", `{"v":1}`), put("b", `{"v":"\u0000"}`))
	f.Add(export(f, db, 1), []byte("b"))
	mustWrite(f, db, 1, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v"), Prefix: "\xff"}))
	f.Add(export(f, db, 1), []byte("c"))
	f.Add(newTree().stream(), []byte("c"))
	f.Fuzz(func(t *testing.T, state, key []byte) {
		state = reseal(state)
		s, err := kv.OpenState(bytes.NewReader(state), int64(len(state)))
		if err != nil {
			if !badState(err) {
				t.Fatal(err)
			}
			return
		}
		defs, pairs, broken := answers(t, s)
		value, version, err := s.Get(key)
		if err != nil && !badState(err) && !errors.Is(err, messages.ErrInvalid) && !errors.Is(err, messages.ErrTooLarge) {
			t.Fatal(err)
		}
		if bad := s.Verify(); bad != nil {
			if !badState(bad) {
				t.Fatal(bad)
			}
			return
		}
		if broken != nil || int64(len(pairs)) != s.Stats().Pairs {
			t.Fatal(len(pairs), len(defs), broken)
		}
		i, ok := slices.BinarySearchFunc(pairs, key, func(p messages.Pair, key []byte) int { return bytes.Compare(p.Key, key) })
		if version > 0 != ok || ok && (!bytes.Equal(value, pairs[i].Value) || version != pairs[i].Version) {
			t.Fatal(version, ok, err)
		}
		for _, p := range pairs {
			if value, version, err := s.Get(p.Key); err != nil || version != p.Version || !bytes.Equal(value, p.Value) {
				t.Fatal(version, err)
			}
		}
	})
}

// A cursor of any bytes: refused, or it goes on within the bounds.
func FuzzCursor(f *testing.F) {
	db, err := kv.Open(memDir(f), lazy)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := db.Close(); err != nil {
			f.Error(err)
		}
	})
	for _, k := range []string{"a", "b", "c", "d"} {
		mustWrite(f, db, 1, put(k, `{"v":"`+k+`"}`))
	}
	mustWrite(f, db, 1, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v")}))
	_, cursor, err := db.Scan(messages.Scan{Group: 1, Limit: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cursor, false)
	_, cursor, err = db.Query(messages.QueryIndex{Group: 1, Name: "v", Limit: 2, Reverse: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cursor, true)
	f.Fuzz(func(t *testing.T, cursor []byte, reverse bool) {
		pairs, _, err := db.Scan(messages.Scan{Group: 1, Cursor: cursor, Reverse: reverse})
		if err != nil && !errors.Is(err, messages.ErrInvalid) || len(pairs) > 4 {
			t.Fatal(len(pairs), err)
		}
		pairs, _, err = db.Query(messages.QueryIndex{Group: 1, Name: "v", Cursor: cursor, Reverse: reverse})
		if err != nil && !errors.Is(err, messages.ErrInvalid) || len(pairs) > 4 {
			t.Fatal(len(pairs), err)
		}
	})
}

// A document of any bytes under an index: refused, or found by its value.
func FuzzDocument(f *testing.F) {
	db, err := kv.Open(memDir(f), lazy)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := db.Close(); err != nil {
			f.Error(err)
		}
	})
	for _, s := range []string{`{"v":1}`, `{"v":"\ud800"}`, `{"v":{"w":[null,"x"]}}`, `[1,{"v":2}]`, `{"v\\":1e5}`, `{"a":"}","v":-0}`} {
		f.Add([]byte(s), "v")
		f.Add([]byte(s), "v.w.1")
		f.Add([]byte(s), `1.v\\`)
	}
	f.Fuzz(func(t *testing.T, doc []byte, path string) {
		def := messages.IndexDefinition{Name: "i", Fields: messages.Paths(path)}
		results, err := db.Write(1, []messages.Operation{
			messages.DropIndexOperation("i"), del("k"),
			messages.CreateIndexOperation(def), messages.PutOperation([]byte("k"), doc),
		})
		if err != nil {
			t.Fatal(err)
		}
		if results[2].Err != nil || results[3].Err != nil {
			return
		}
		pairs, _, err := db.Query(messages.QueryIndex{Group: 1, Name: "i"})
		if err != nil || len(pairs) > 1 {
			t.Fatal(pairs, err)
		}
		v, err := db.OpenExport(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, v); err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
