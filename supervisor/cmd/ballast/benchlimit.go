package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/ballast-raft/ballast/messages/durable"
)

// limit is what the disk can do at all: a file that was filled with zeros, in
// which every write and sync overwrites what is there, so that nothing but data
// goes to the disk.
type limit struct {
	f        *os.File
	size, at int
	buf      []byte
	from     int64 // where the next read begins
}

// limitPiece is how much is read at once, and written to fill the file.
const limitPiece = 1 << 20

func newLimit(path string, size int) (*limit, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	l := &limit{f: f, size: size, buf: make([]byte, limitPiece)}
	for at := 0; at < size && err == nil; at += limitPiece {
		_, err = f.WriteAt(l.buf[:min(limitPiece, size-at)], int64(at))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(durable.Wrap(err), f.Close())
	}
	copy(l.buf, payload(limitPiece))
	return l, nil
}

func (l *limit) close() error { return l.f.Close() }

// write makes n bytes durable, those of buf, in a place that follows the last.
func (l *limit) write(n int) error {
	if l.at+n > l.size {
		l.at = 0
	}
	if _, err := l.f.WriteAt(l.buf[:n], int64(l.at)); err != nil {
		return durable.Wrap(err)
	}
	l.at += n
	return durable.OS.Sync(l.f)
}

// read reads the next piece of the file, which is in the page cache.
func (l *limit) read() (n int, err error) {
	if l.from+limitPiece > int64(l.size) {
		l.from = 0
	}
	n, err = l.f.ReadAt(l.buf[:min(limitPiece, l.size)], l.from)
	l.from += int64(n)
	return n, err
}

// readRate is how many bytes a second read gives.
func (l *limit) readRate(ctx context.Context, d time.Duration) (float64, error) {
	total := 0
	took, err := repeat(ctx, d, nil, func() error {
		n, err := l.read()
		total += n
		return err
	}, func() { total = 0 })
	return rate(total, took), err
}

// payload is n bytes that are not all the same.
func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

// newLatency makes a histogram of nanoseconds up to a minute, to 1 %. It takes 31
// kB, so that each of 256 clients can have one.
func newLatency() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute), 2) }

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), 1), int64(time.Minute))) // it is in range
}

// quantile is in microseconds.
func quantile(h *hdrhistogram.Histogram, q float64) float64 {
	return float64(h.ValueAtQuantile(q)) / 1e3
}

// repeat calls op over and over for d, at least once, after as long as a tenth of
// that to warm up. Then it calls warm, so that op's own counters begin again. h
// takes how long each call was; it may be nil.
func repeat(ctx context.Context, d time.Duration, h *hdrhistogram.Histogram, op func() error, warm func()) (took time.Duration, err error) {
	for _, span := range []time.Duration{d / 10, d} {
		began := time.Now()
		for last := began; ; {
			if err := op(); err != nil {
				return 0, err
			}
			now := time.Now()
			if h != nil {
				record(h, now.Sub(last))
			}
			last = now
			if took = now.Sub(began); took >= span || ctx.Err() != nil {
				break
			}
		}
		if span != d {
			if h != nil {
				h.Reset()
			}
			warm()
		}
	}
	return took, ctx.Err()
}

// window measures clients that run beside each other: between their beginning
// and their end there is a time in which all of them are at work, and only that
// counts.
type window struct {
	phase   atomic.Int32
	acked   atomic.Int64 // entries
	running sync.WaitGroup
	mu      sync.Mutex
	err     error
	failed  chan struct{}
}

// The phases of a window.
const (
	warming = iota
	measuring
	ending
)

func (w *window) measuring() bool { return w.phase.Load() == measuring }
func (w *window) ending() bool    { return w.phase.Load() == ending }

// fail ends the window.
func (w *window) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		close(w.failed)
	}
}

// run starts n clients, each of which calls running.Done when it has seen the
// end, and returns how many entries a second were acknowledged during the
// measurement: d, or as long as during takes if that is not nil.
func (w *window) run(ctx context.Context, d time.Duration, n int, start func(), during func() error) (perSecond float64, err error) {
	w.err, w.failed = nil, make(chan struct{})
	w.acked.Store(0)
	w.phase.Store(warming)
	w.running.Add(n)
	start()
	w.pause(ctx, d/10)
	first, began := w.acked.Load(), time.Now()
	w.phase.Store(measuring)
	if during == nil {
		w.pause(ctx, d)
	} else {
		err = during()
	}
	for w.acked.Load() == first && w.pause(ctx, time.Millisecond) { // a very short d
	}
	last, took := w.acked.Load(), time.Since(began)
	w.phase.Store(ending)
	w.running.Wait()
	return rate(last-first, took), errors.Join(w.err, err, ctx.Err())
}

// pause waits, and reports whether there is any sense in going on.
func (w *window) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-w.failed:
	}
	return false
}

// front is the limit of many clients: one goroutine makes durable what the
// others have queued, once the queue has stopped growing.
type front struct {
	limit *limit
	mu    sync.Mutex
	queue []*frontClient
	batch []*frontClient
	wake  chan struct{}
}

type frontClient struct {
	data []byte
	done chan error
}

func newFront(l *limit) *front { return &front{limit: l, wake: make(chan struct{}, 1)} }

// put makes the client's data durable.
func (f *front) put(c *frontClient) error {
	f.mu.Lock()
	f.queue = append(f.queue, c)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default: // it will look anyway
	}
	return <-c.done
}

func (f *front) queued() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

// serve goes on until wake is closed.
func (f *front) serve() {
	for range f.wake {
		for n := f.queued(); ; {
			runtime.Gosched()
			now := f.queued()
			if now == n {
				break
			}
			n = now
		}
		f.mu.Lock()
		f.queue, f.batch = f.batch[:0], f.queue
		f.mu.Unlock()
		if len(f.batch) == 0 {
			continue
		}
		n := 0
		for _, c := range f.batch {
			n += copy(f.limit.buf[n:], c.data)
		}
		err := f.limit.write(n)
		for _, c := range f.batch {
			c.done <- err
		}
	}
}

// measure runs a number of clients, each of which queues again as soon as its
// data is durable.
func (f *front) measure(ctx context.Context, w *window, d time.Duration, size int, latencies []*hdrhistogram.Histogram) (float64, error) {
	served := make(chan struct{})
	go func() { defer close(served); f.serve() }()
	defer func() {
		close(f.wake)
		<-served
	}()
	data := payload(size)
	return w.run(ctx, d, len(latencies), func() {
		for _, h := range latencies {
			h.Reset()
			go func() {
				defer w.running.Done()
				c := &frontClient{data, make(chan error, 1)}
				for !w.ending() {
					began := time.Now()
					if err := f.put(c); err != nil {
						w.fail(err)
						return
					}
					if w.measuring() {
						record(h, time.Since(began))
					}
					w.acked.Add(1)
				}
			}()
		}
	}, nil)
}

// merged is the histogram of all of them.
func merged(all []*hdrhistogram.Histogram) *hdrhistogram.Histogram {
	sum := newLatency()
	for _, h := range all {
		sum.Merge(h)
	}
	return sum
}
