package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// manyBlocks saves a state of 64 Ki blocks of 512 bytes, all different: an index
// of 3 MiB in 64 pieces.
func manyBlocks(t testing.TB) (d *snapshot.Dir, path string, info messages.SnapshotInfo, state []byte) {
	t.Helper()
	path = t.TempDir()
	d = open(t, path, snapshot.Options{BlockBytes: 512, Codec: snapshot.CodecNone, PartialSyncBytes: 1 << 30})
	state = noise(7, 32<<20)
	return d, path, save(t, d, 0, 5, 1, nil, state), state
}

// A snapshot of very many small blocks, as a hostile import may be one, is open,
// verified, exported and imported without its index in memory: 32 of them would
// be 96 MiB.
func TestManyBlocks(t *testing.T) {
	d, _, info, state := manyBlocks(t)
	var readers []snapshot.Reader
	heap := newHeapPeak()
	for range 16 {
		r, err := d.OpenAt(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
		x, err := d.Export(info.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(r.Close(), x.Close()); err != nil {
				t.Error(err)
			}
		}()
	}
	runtime.GC()
	heap.look()
	if grown := heap.grown(); grown > 8<<20 && !raceDetector {
		t.Errorf("%d bytes for 16 readers and 16 exporters", grown)
	}
	// All pieces at once, at their borders and elsewhere.
	var all sync.WaitGroup
	for k, r := range readers {
		all.Go(func() {
			b := make([]byte, 1000)
			for i := range 128 {
				at := (i*k%64)<<19 - 500 + i
				at = max(at, 0)
				if _, err := r.ReadAt(b, int64(at)); err != nil || !bytes.Equal(b, state[at:at+len(b)]) {
					t.Errorf("at %d: %v", at, err)
				}
			}
		})
	}
	all.Wait()
	if _, err := d.Verify(info.ID); err != nil {
		t.Error(err)
	}
	got, _ := load(t, d, info.ID)
	if !bytes.Equal(got, state) {
		t.Error("another state")
	}
}

// A copy and a save of many blocks go on where they broke off, beyond the first
// pieces of the index too, and end in the same file.
func TestManyBlocksResumed(t *testing.T) {
	d, _, info, state := manyBlocks(t)
	want := exported(t, d, info.ID, 0)
	to := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Codec: snapshot.CodecNone, PartialSyncBytes: 1 << 30})
	const block = 512 + 16
	for _, blocks := range []int64{1023, 1024, 1025, 40 << 10} {
		at := int64(52) + blocks*block
		m, offset, err := to.Import(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Write(exported(t, d, info.ID, offset)[:snapshot.EnvelopeBytes+at+100-offset]); err != nil {
			t.Fatal(err)
		}
		if err := m.Suspend(); err != nil {
			t.Fatal(err)
		}
		if m, offset, err = to.Import(info.ID); err != nil || offset != at {
			t.Fatalf("goes on at %d, not %d: %v", offset, at, err)
		}
		if err := m.Suspend(); err != nil {
			t.Fatal(err)
		}
	}
	m, offset, err := to.Import(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write(exported(t, d, info.ID, offset)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Finish(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(exported(t, to, info.ID, 0), want) {
		t.Error("the copy is another file")
	}

	w, _, err := to.Resume(1, 5, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(state[:20<<20]); err != nil {
		t.Fatal(err)
	}
	if err := w.Suspend(); err != nil {
		t.Fatal(err)
	}
	w, offset, err = to.Resume(1, 5, 1, nil)
	if err != nil || offset != 20<<20 {
		t.Fatal(offset, err)
	}
	if _, err := w.Write(state[offset:]); err != nil {
		t.Fatal(err)
	}
	saved, err := w.Finish()
	if err != nil || saved.ContentHash != info.ContentHash {
		t.Errorf("hash %x, not %x: %v", saved.ContentHash, info.ContentHash, err)
	}
}

// An index that changes while the file is open is found, also in a piece that
// has to be read again.
func TestIndexChangesUnderReader(t *testing.T) {
	d, path, info, state := manyBlocks(t)
	r, err := d.OpenAt(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	const piece = 1024 * 48
	index := info.FileBytes - 80 - 4 - 64*piece
	f, err := os.OpenFile(filepath.Join(path, info.ID+".snap"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	at := index + 3*piece + 17 // the hash of block 3072
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	var damage *messages.CorruptError
	if _, err := r.ReadAt(got, 4000*512); !errors.As(err, &damage) || damage.Offset != index+3*piece {
		t.Errorf("%v", err)
	}
	if _, err := r.ReadAt(got, 2000*512); err != nil || !bytes.Equal(got, state[2000*512:][:512]) {
		t.Errorf("another piece: %v", err)
	}
	if n, err := io.Copy(io.Discard, r); n != 3072*512 || !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
