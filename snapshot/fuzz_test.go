package snapshot_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// FuzzRead puts any bytes under a snapshot's name. Whatever they are: no panic,
// either an error or exactly the state whose hash the footer has. With sealed
// the checksums are made right first, as far as the file can be taken apart, so
// that the mutations get behind them. Run it with -fuzzminimizetime=10x: the
// default spends a minute on each new input.
func FuzzRead(f *testing.F) {
	state, info, file := small(f, snapshot.Options{})
	f.Add([]byte(nil), false)
	f.Add(file, false)
	f.Add(file, true)
	f.Add(file[:len(file)/2], false)
	f.Add(append(bytes.Clone(file), file...), false)
	f.Add(make([]byte, 4096), false)
	for _, at := range []int{8, 10, 12, 40, 70, 90, 300, len(file) - 300, len(file) - 64, len(file) - 56, len(file) - 48} {
		bad := bytes.Clone(file)
		bad[at] ^= 0xff
		f.Add(bad, true)
	}
	for _, codec := range codecs {
		_, _, file := small(f, snapshot.Options{Codec: codec})
		f.Add(file, true)
		for _, at := range []int{80, 90, 200, 300} {
			bad := bytes.Clone(file)
			bad[at] ^= 0xff
			f.Add(bad, true)
		}
	}
	path := f.TempDir()
	name := filepath.Join(path, info.ID+".snap")
	// One at a time, or the coverage that guides the fuzzer changes by itself.
	d := open(f, path, snapshot.Options{Concurrency: 1})
	f.Fuzz(func(t *testing.T, file []byte, sealed bool) {
		if sealed {
			file = sealAny(file)
		}
		if err := os.WriteFile(name, file, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(d, info.ID)
		_, verify := d.Verify(info.ID)
		if (err == nil) != (verify == nil) {
			t.Fatalf("read: %v, verified: %v", err, verify)
		}
		if err != nil {
			if !errors.Is(err, messages.ErrCorrupt) && !errors.Is(err, messages.ErrIncompatible) {
				t.Fatalf("neither damaged nor of another version: %v", err)
			}
			return
		}
		block := int(le.Uint32(file[12:]))
		sum := tree(got, block)
		if !bytes.Equal(sum[:], file[len(file)-80+40:][:32]) {
			t.Fatal("the state is not that of the content hash")
		}
		if !sealed && !bytes.Equal(got, state) {
			t.Fatal("another state, and the checksums are right")
		}
	})
}

// sealAny is seal for a file that may make no sense.
func sealAny(file []byte) (sealed []byte) {
	defer func() {
		if recover() != nil {
			sealed = file
		}
	}()
	return parse(file).seal()
}

func FuzzParseID(f *testing.F) {
	for _, id := range badIDs {
		f.Add(id)
	}
	f.Add("0000000000000002-0000000000000005-000000000000004d-000123456789")
	f.Add("ffffffffffffffff-ffffffffffffffff-ffffffffffffffff-ffffffffffff")
	d := open(f, f.TempDir(), snapshot.Options{})
	f.Fuzz(func(t *testing.T, id string) {
		info, err := snapshot.ParseID(id)
		_, opened := d.Open(id)
		if err != nil {
			if !errors.Is(err, messages.ErrInvalid) || !errors.Is(opened, messages.ErrInvalid) {
				t.Fatalf("%v, %v", err, opened)
			}
			return
		}
		if !errors.Is(opened, messages.ErrNotFound) {
			t.Fatal(opened)
		}
		if again := idOf(info); again != id || info.ID != id || filepath.Base(id) != id {
			t.Fatalf("%q became %q", id, again)
		}
	})
}
