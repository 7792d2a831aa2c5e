package snapshot_test

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/klauspost/compress/zstd"
)

// benchState is 128 MiB of key-value state, made once.
var benchState = sync.OnceValue(func() []byte { return records(1, 128<<20) })

const benchPiece = 256 << 10 // as the snapshot actor's chunks

func feed(b *testing.B, w io.Writer, state []byte) {
	for rest := state; len(rest) > 0; rest = rest[min(benchPiece, len(rest)):] {
		if _, err := w.Write(rest[:min(benchPiece, len(rest))]); err != nil {
			b.Fatal(err)
		}
	}
}

func drain(b *testing.B, r io.Reader, want int) {
	n, buf := 0, make([]byte, benchPiece)
	for {
		k, err := r.Read(buf)
		n += k
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if n != want {
		b.Fatalf("%d bytes of %d", n, want)
	}
}

func must(b *testing.B, err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

// BenchmarkWrite: Create to Finish, everything durable, against the same bytes
// written plainly with a sync, and against the compressor alone.
func BenchmarkWrite(b *testing.B) {
	state := benchState()
	run := func(o snapshot.Options) func(b *testing.B) {
		return func(b *testing.B) {
			d := open(b, b.TempDir(), o)
			b.SetBytes(int64(len(state)))
			var info messages.SnapshotInfo
			for b.Loop() {
				w, err := d.Create(0, 1, 1, nil)
				must(b, err)
				feed(b, w, state)
				info, err = w.Finish()
				must(b, err)
				b.StopTimer()
				_, err = d.Cleanup(0, messages.Retention{Keep: 1})
				must(b, err)
				b.StartTimer()
			}
			b.ReportMetric(100*(1-float64(info.FileBytes)/float64(info.RawBytes)), "%saved")
		}
	}
	b.Run("snapshot", run(snapshot.Options{}))
	b.Run("snapshot/one-core", run(snapshot.Options{Concurrency: 1}))
	b.Run("snapshot/level-1", run(snapshot.Options{Level: 1}))
	b.Run("snapshot/level-7", run(snapshot.Options{Level: 7}))
	b.Run("snapshot/block-256K", run(snapshot.Options{BlockBytes: 256 << 10}))
	b.Run("snapshot/block-4M", run(snapshot.Options{BlockBytes: 4 << 20}))
	b.Run("baseline/plain-file", func(b *testing.B) {
		name := filepath.Join(b.TempDir(), "plain")
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			f, err := os.Create(name)
			must(b, err)
			feed(b, f, state)
			must(b, durable.OS.Sync(f))
			must(b, f.Close())
			b.StopTimer()
			must(b, os.Remove(name))
			b.StartTimer()
		}
	})
	b.Run("baseline/zstd-stream", func(b *testing.B) {
		var n counter
		enc, err := zstd.NewWriter(&n, zstd.WithEncoderConcurrency(2))
		must(b, err)
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			n = 0
			enc.Reset(&n)
			feed(b, enc, state)
			must(b, enc.Close())
		}
		b.ReportMetric(100*(1-float64(n)/float64(len(state))), "%saved")
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// BenchmarkRead: from Open, which verifies everything, to the end of the
// stream, which checks it again, against a plain file and the decompressor
// alone.
func BenchmarkRead(b *testing.B) {
	state := benchState()
	path := b.TempDir()
	d := open(b, path, snapshot.Options{})
	info := save(b, d, 0, 1, 1, nil, state)
	b.Run("snapshot/verify", func(b *testing.B) {
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			_, err := d.Verify(info.ID)
			must(b, err)
		}
	})
	b.Run("snapshot/open-and-stream", func(b *testing.B) {
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			r, err := d.Open(info.ID)
			must(b, err)
			drain(b, r, len(state))
			must(b, r.Close())
		}
	})
	b.Run("snapshot/stream", func(b *testing.B) {
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			b.StopTimer()
			r, err := d.Open(info.ID)
			must(b, err)
			b.StartTimer()
			drain(b, r, len(state))
			must(b, r.Close())
		}
	})
	b.Run("baseline/plain-file", func(b *testing.B) {
		name := filepath.Join(b.TempDir(), "plain")
		must(b, os.WriteFile(name, state, 0o644))
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			f, err := os.Open(name)
			must(b, err)
			drain(b, f, len(state))
			must(b, f.Close())
		}
	})
	b.Run("baseline/zstd-stream", func(b *testing.B) {
		name := filepath.Join(b.TempDir(), "zstd")
		f, err := os.Create(name)
		must(b, err)
		enc, err := zstd.NewWriter(f)
		must(b, err)
		feed(b, enc, state)
		must(b, enc.Close())
		must(b, f.Close())
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2))
		must(b, err)
		defer dec.Close()
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			f, err := os.Open(name)
			must(b, err)
			must(b, dec.Reset(f))
			drain(b, dec, len(state))
			must(b, f.Close())
		}
	})
}

// BenchmarkGigabyte: a state of 1 GiB, from Create until it is durable, and from
// Open to the last byte.
func BenchmarkGigabyte(b *testing.B) {
	const times = 8
	state := benchState()
	d := open(b, b.TempDir(), snapshot.Options{})
	var id string
	b.Run("write", func(b *testing.B) {
		b.SetBytes(times * int64(len(state)))
		for b.Loop() {
			w, err := d.Create(0, 1, 1, nil)
			must(b, err)
			for range times {
				feed(b, w, state)
			}
			info, err := w.Finish()
			must(b, err)
			id = info.ID
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(times * int64(len(state)))
		for b.Loop() {
			r, err := d.Open(id)
			must(b, err)
			drain(b, r, times*len(state))
			must(b, r.Close())
		}
	})
}

// BenchmarkSmall: what a snapshot costs that holds next to nothing.
func BenchmarkSmall(b *testing.B) {
	path := b.TempDir()
	d := open(b, path, snapshot.Options{})
	i := uint64(0)
	for b.Loop() {
		i++
		save(b, d, i, 1, 1, nil, []byte("state"))
	}
}
