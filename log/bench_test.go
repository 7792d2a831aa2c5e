package log_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// The sizes of the append benchmarks: entries of a batch × bytes of each.
var shapes = []shape{{1, 128}, {1, 1024}, {1, 16 << 10}, {64, 128}, {512, 128}, {64, 1024}, {512, 1024}}

type shape struct{ entries, bytes int }

func (s shape) String() string { return fmt.Sprintf("%dx%d", s.entries, s.bytes) }

// limit is what the disk can do at all: write and fdatasync of the payload
// alone, into a file that was filled with zeros before.
type limit struct {
	f    *os.File
	data []byte
	at   int64
}

const limitBytes = 64 << 20

func newLimit(b *testing.B, s shape) *limit {
	f, err := os.Create(filepath.Join(b.TempDir(), "limit"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	fill := make([]byte, 1<<20)
	for at := int64(0); at < limitBytes; at += 1 << 20 {
		if _, err := f.WriteAt(fill, at); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return &limit{f: f, data: payload(s.entries * s.bytes)}
}

func (l *limit) append(b *testing.B) {
	if l.at+int64(len(l.data)) > limitBytes {
		l.at = 0
	}
	if _, err := l.f.WriteAt(l.data, l.at); err != nil {
		b.Fatal(err)
	}
	if err := syscall.Fdatasync(int(l.f.Fd())); err != nil {
		b.Fatal(err)
	}
	l.at += int64(len(l.data))
}

// maintainer does what the log actor has a lane for: it maintains the log
// beside the appends.
type maintainer struct {
	w    *raftlog.WAL
	wake chan struct{}
	done chan error
}

func startMaintainer(w *raftlog.WAL) *maintainer {
	m := &maintainer{w, make(chan struct{}, 1), make(chan error, 1)}
	go func() {
		for range m.wake {
			if err := maintain(w); err != nil {
				m.done <- err
				return
			}
		}
		m.done <- nil
	}()
	m.look()
	return m
}

func (m *maintainer) look() {
	if m.w.Due() {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

func (m *maintainer) stop(b *testing.B) {
	close(m.wake)
	if err := <-m.done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAppend appends one batch and syncs it, over and over, in turns with
// the limit: 32 of one, 32 of the other, so that both see the same disk. The
// front is truncated as it goes, so that segments are removed too.
func BenchmarkAppend(b *testing.B) {
	for _, s := range shapes {
		b.Run(s.String(), func(b *testing.B) {
			w := mustOpen(b, b.TempDir(), raftlog.Options{})
			defer mustClose(b, w)
			l := newLimit(b, s)
			m := startMaintainer(w)
			defer m.stop(b)
			es := make([]messages.Entry, s.entries)
			data := payload(s.bytes)
			next, cut := uint64(1), uint64(1)
			keep := uint64(64 << 20 / s.bytes)
			latency := newLatency()
			var ours, theirs time.Duration
			b.SetBytes(int64(s.entries * s.bytes))
			b.ReportAllocs()
			for b.Loop() {
				// As many as make a turn count as one.
				began := time.Now()
				for range turn {
					start := nanotime()
					for i := range es {
						es[i] = messages.Entry{Index: next, Term: 7, Data: data}
						next++
					}
					if _, err := w.Append(0, es, nil); err != nil {
						b.Fatal(err)
					}
					if next-cut > 2*keep {
						cut = next - keep
						if _, err := w.TruncateBefore(0, cut); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := w.Sync(); err != nil {
						b.Fatal(err)
					}
					m.look()
					latency.add(nanotime() - start)
				}
				half := time.Now()
				for range turn {
					l.append(b)
				}
				ours += half.Sub(began)
				theirs += time.Since(half)
			}
			n := float64(b.N * turn)
			b.ReportMetric(n*float64(s.entries)/ours.Seconds(), "entries/s")
			b.ReportMetric(float64(theirs)/float64(ours), "of-limit")
			latency.report(b)
		})
	}
}

// turn is how many appends are made before it is the other's turn.
const turn = 32

// payload returns bytes that are not all the same.
func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

var block = payload(64 << 10)

// filled makes a log of n entries of 1 KiB.
func filled(b *testing.B, dir string, n int) *raftlog.WAL {
	w := mustOpen(b, dir, raftlog.Options{})
	for n > 0 {
		es := make([]messages.Entry, min(n, 1024))
		for i := range es {
			es[i] = messages.Entry{Term: 1, Data: block[:1024]}
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
					if _, err := w.Append(1, []messages.Entry{{Term: 1, Data: block[:128]}}, nil); err != nil {
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
						es[i] = messages.Entry{Term: 1, Data: block[:s.bytes]}
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
