package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/ballast-raft/ballast/snapshot"
)

// heapPeak follows how much memory objects take.
type heapPeak struct {
	sample     []metrics.Sample
	base, peak uint64
}

func newHeapPeak() *heapPeak {
	runtime.GC()
	h := &heapPeak{sample: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}}
	h.look()
	h.base, h.peak = h.peak, 0
	return h
}

func (h *heapPeak) look() {
	metrics.Read(h.sample)
	h.peak = max(h.peak, h.sample[0].Value.Uint64())
}

func (h *heapPeak) grown() uint64 { return h.peak - min(h.base, h.peak) }

// A state much larger than what may be held goes in and comes out.
func TestStreamsInBoundedMemory(t *testing.T) {
	const (
		piece  = 1 << 20
		pieces = 256
		bound  = 48 << 20
	)
	d := open(t, t.TempDir(), snapshot.Options{Concurrency: 2})
	data := records(1, piece)
	// Every piece is another: its number runs through it.
	next := func(i int) []byte {
		for at := 0; at+1 < len(data); at += 4096 {
			data[at], data[at+1] = byte(i), byte(i>>8)
		}
		return data
	}
	heap := newHeapPeak()
	w, err := d.Create(0, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range pieces {
		if _, err := w.Write(next(i)); err != nil {
			t.Fatal(err)
		}
		heap.look()
	}
	info, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("writing %d MiB took %d MiB of heap", pieces, heap.grown()>>20)
	if heap.grown() > bound {
		t.Errorf("more than %d MiB", bound>>20)
	}
	heap = newHeapPeak()
	r, err := d.Open(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	heap.look()
	got := make([]byte, piece)
	for i := range pieces {
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, next(i)) {
			t.Fatalf("piece %d: other bytes", i)
		}
		heap.look()
	}
	if n, err := r.Read(got); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("reading them took %d MiB", heap.grown()>>20)
	if heap.grown() > bound {
		t.Errorf("more than %d MiB", bound>>20)
	}
	if saved := 1 - float64(info.FileBytes)/float64(info.RawBytes); saved < 0.6 {
		t.Errorf("saved %.0f%%", 100*saved)
	}
}

// A small snapshot does not take the memory of a large one.
func TestSmallOnesAreSmall(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{})
	save(t, d, 0, 1, 1, nil, records(1, 2<<20)) // the compressor's own tables
	runtime.GC()
	var writers []snapshot.Writer
	heap := newHeapPeak()
	for i := range uint64(64) {
		w, err := d.Create(0, i+2, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("a few bytes")); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, w)
	}
	heap.look()
	// A block each would be 64 MiB.
	if heap.grown() > 4<<20 {
		t.Errorf("%d writers took %d KiB", len(writers), heap.grown()>>10)
	}
	for _, w := range writers {
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	}
}

// failingReader fails in the middle of a copy into a Writer.
type failingReader struct{ left int }

var errSource = errors.New("the source failed")

func (r *failingReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, errSource
	}
	n := min(r.left, len(p))
	r.left -= n
	return n, nil
}

func TestSourceFails(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	for _, left := range []int{0, 1, 511, 512, 100_000} {
		w, err := d.Create(0, 1, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, &failingReader{left}); !errors.Is(err, errSource) {
			t.Fatal(err)
		}
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
		if names := files(t, path); len(names) != 0 {
			t.Errorf("left %v", names)
		}
	}
}
