package log_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// The sizes of the append benchmarks: entries of a batch × bytes of each.
var shapes = []struct{ entries, bytes int }{{1, 128}, {64, 128}, {512, 1024}}

type shape = struct{ entries, bytes int }

// BenchmarkBaseline is what the disk can do at all: write and fdatasync of as
// many bytes, into a file that was filled with zeros before.
func BenchmarkBaseline(b *testing.B) {
	for _, s := range shapes {
		b.Run(fmt.Sprintf("%dx%d", s.entries, s.bytes), func(b *testing.B) {
			const size = 64 << 20
			f, err := os.Create(filepath.Join(b.TempDir(), "baseline"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			data := make([]byte, s.entries*s.bytes)
			zeros := make([]byte, 1<<20)
			for at := int64(0); at < size; at += 1 << 20 {
				if _, err := f.WriteAt(zeros, at); err != nil {
					b.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			for i := range data {
				data[i] = byte(i)
			}
			at := int64(0)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if at+int64(len(data)) > size {
					at = 0
				}
				if _, err := f.WriteAt(data, at); err != nil {
					b.Fatal(err)
				}
				if err := syscall.Fdatasync(int(f.Fd())); err != nil {
					b.Fatal(err)
				}
				at += int64(len(data))
			}
			report(b, s.entries)
		})
	}
}

func report(b *testing.B, entries int) {
	b.ReportMetric(float64(b.N*entries)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkAppend appends one batch and syncs it, over and over. The front is
// truncated as it goes, so that segments are removed too.
func BenchmarkAppend(b *testing.B) {
	for _, s := range shapes {
		b.Run(fmt.Sprintf("%dx%d", s.entries, s.bytes), func(b *testing.B) {
			w := mustOpen(b, b.TempDir(), raftlog.Options{})
			defer mustClose(b, w)
			es := make([]messages.Entry, s.entries)
			next := uint64(1)
			b.SetBytes(int64(s.entries * s.bytes))
			b.ReportAllocs()
			for b.Loop() {
				for i := range es {
					es[i] = messages.Entry{Index: next, Term: 7, Data: payload[:s.bytes]}
					next++
				}
				if _, err := w.Append(0, es, nil); err != nil {
					b.Fatal(err)
				}
				if next%(1<<18) < uint64(s.entries) && next > 1<<17 {
					if _, err := w.TruncateBefore(0, next-1<<17); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := w.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			report(b, s.entries)
		})
	}
}

var payload = func() []byte {
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}()

// filled makes a log of n entries of 1 KiB.
func filled(b *testing.B, dir string, n int) *raftlog.WAL {
	w := mustOpen(b, dir, raftlog.Options{})
	for n > 0 {
		es := make([]messages.Entry, min(n, 1024))
		for i := range es {
			es[i] = messages.Entry{Term: 1, Data: payload[:1024]}
		}
		if _, err := w.Append(0, es, nil); err != nil {
			b.Fatal(err)
		}
		mustSync(b, w)
		n -= len(es)
	}
	return w
}

// BenchmarkReadEntry reads single entries at random, idle and while another
// goroutine appends and syncs at full speed.
func BenchmarkReadEntry(b *testing.B) {
	for _, name := range []string{"idle", "appending"} {
		b.Run(name, func(b *testing.B) {
			const n = 64 << 10
			w := filled(b, b.TempDir(), n)
			defer mustClose(b, w)
			var stop atomic.Bool
			done := make(chan error, 1)
			go func() {
				for name == "appending" && !stop.Load() {
					if _, err := w.Append(1, []messages.Entry{{Term: 1, Data: payload[:128]}}, nil); err != nil {
						done <- err
						return
					}
					if _, err := w.Sync(); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			latency := newLatency()
			i := uint64(1)
			for b.Loop() {
				i = (i*6364136223846793005 + 1442695040888963407)
				start := nanotime()
				if _, err := w.Entry(0, 1+(i>>33)%n); err != nil {
					b.Fatal(err)
				}
				latency.add(nanotime() - start)
			}
			stop.Store(true)
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			latency.report(b)
		})
	}
}

// BenchmarkReadRange reads a log of 64 MiB from front to back in pieces.
func BenchmarkReadRange(b *testing.B) {
	const n = 64 << 10
	w := filled(b, b.TempDir(), n)
	defer mustClose(b, w)
	b.SetBytes(n * 1024)
	b.ReportAllocs()
	for b.Loop() {
		for from := uint64(1); from <= n; {
			es, err := w.Entries(0, from, n+1, 0)
			if err != nil {
				b.Fatal(err)
			}
			from += uint64(len(es))
		}
	}
}

// BenchmarkOpen opens a log of 64 MiB, from the page cache.
func BenchmarkOpen(b *testing.B) {
	for _, s := range []shape{{64 << 10, 1024}, {512 << 10, 128}} {
		b.Run(fmt.Sprintf("%dx%d", s.entries, s.bytes), func(b *testing.B) {
			dir := b.TempDir()
			w := mustOpen(b, dir, raftlog.Options{})
			for n := 0; n < s.entries; {
				for range 64 {
					es := make([]messages.Entry, 16)
					for i := range es {
						es[i] = messages.Entry{Term: 1, Data: payload[:s.bytes]}
					}
					if _, err := w.Append(0, es, nil); err != nil {
						b.Fatal(err)
					}
					n += len(es)
				}
				mustSync(b, w)
			}
			mustClose(b, w)
			b.SetBytes(int64(s.entries * s.bytes))
			for b.Loop() {
				mustClose(b, mustOpen(b, dir, raftlog.Options{}))
			}
		})
	}
}
