package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// fill makes a log of n entries that were appended one by one, and returns its
// directory. It is made once, and stays to the end of the run.
func (b *bench) fill(ctx context.Context, name string, n, size int) (dir string, err error) {
	dir = filepath.Join(b.dir, "filled-"+name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	w, err := raftlog.Open(dir, raftlog.Options{})
	if err != nil {
		return "", err
	}
	data, es := payload(size), make([]messages.Entry, 1)
	for i := 0; i < n && err == nil; {
		for range min(1024, n-i) {
			es[0] = messages.Entry{Term: 1, Data: data}
			if _, err = w.Append(0, es, nil); err != nil {
				break
			}
			i++
		}
		if err == nil {
			_, err = w.Sync()
		}
		b.say("filling a log with %s of %s entries of %s", countText(i), countText(n), binaryText(size))
		err = errors.Join(err, ctx.Err())
	}
	return dir, errors.Join(err, w.Close())
}

// filled is a log that fill has made, open for the rest of the run.
func (b *bench) filled(ctx context.Context, name string, n, size int) (*measuredLog, error) {
	if l := b.readable[name]; l != nil {
		return l, nil
	}
	dir, err := b.fill(ctx, name, n, size)
	if err != nil {
		return nil, err
	}
	l, err := b.openLog(ctx, dir)
	if err == nil {
		b.readable[name] = l
	}
	return l, err
}

const (
	smallLog  = "128"
	mediumLog = "1KiB"
	largeLog  = "large"
)

func (b *bench) openSection() *benchSection {
	s := &benchSection{title: "open", columns: []benchColumn{
		{"ms", "ms", tenths}, {"MB/s", "mb_per_second", countFigure}, {"limit MB/s", "limit_mb_per_second", countFigure}, {"share", "share", hundredths}}}
	s.rows = append(s.rows, b.openRow("open/1Mx128", "a million entries of 128 B", smallLog, b.options.sizes.small, 128))
	if b.options.large {
		s.rows = append(s.rows, b.openRow("open/2Mx1KiB", "2 GiB of entries of 1 KiB", largeLog, b.options.sizes.large, 1024))
	}
	return s
}

func (b *bench) openRow(name, title, log string, n, size int) *benchRow {
	return &benchRow{name: name, title: title, measure: func(ctx context.Context, round int) (figures, error) {
		dir, err := b.fill(ctx, log, n, size)
		if err != nil {
			return nil, err
		}
		bytes, err := sizeOf(dir)
		if err != nil {
			return nil, err
		}
		b.say("%s, round %d of %d", name, round+1, b.options.rounds)
		var reading float64
		var opening time.Duration
		opened := 0
		err = inTurn(round, func() (err error) {
			reading, err = b.limit.readRate(ctx, b.options.slice())
			return err
		}, func() error {
			for opening < b.options.slice() && ctx.Err() == nil {
				began := time.Now()
				w, err := raftlog.Open(dir, raftlog.Options{})
				if err != nil {
					return err
				}
				opening += time.Since(began)
				opened++
				if err := w.Close(); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
		perSecond := rate(int64(opened)*bytes, opening)
		return figures{"ms": opening.Seconds() * 1e3 / float64(max(opened, 1)), "mb_per_second": perSecond / 1e6,
			"limit_mb_per_second": reading / 1e6, "share": share(perSecond, reading)}, err
	}}
}

func (b *bench) readSection() *benchSection {
	s := &benchSection{title: "one entry of 128 B at random", columns: []benchColumn{
		{"reads/s", "reads_per_second", countFigure}, {"p50 µs", "p50_us", micro}, {"p99 µs", "p99_us", micro}, {"p99.9 µs", "p999_us", micro},
		{"appends/s", "appender_entries_per_second", countFigure}, {"alone", "appender_alone_entries_per_second", countFigure}, {"ratio", "appender_ratio", hundredths}, {"limit", "limit_ratio", hundredths}}}
	for _, r := range []struct {
		name, title string
		ask, busy   bool
	}{
		{"store", "from the store", false, false},
		{"ask", "asking the log actor", true, false},
		{"store-busy", "from the store, beside an appender", false, true},
		{"ask-busy", "asking the log actor, beside an appender", true, true},
	} {
		s.rows = append(s.rows, b.readRow(s, "read/"+r.name, r.title, r.ask, r.busy))
	}
	return s
}

// appenderGroup is the group of the appender that is at work beside reads.
const appenderGroup = 1

// readRow reads without pause, and if busy, an appender appends without pause
// beside it: to the store, or through the log actor if that is asked. A reader
// that never pauses takes a processor, which slows whatever waits for the disk:
// so the limit of an append is measured beside the same reader.
func (b *bench) readRow(s *benchSection, name, title string, ask, busy bool) *benchRow {
	h, random, appender := newLatency(), rand.New(rand.NewPCG(1, 2)), newCrew(b, s)
	return &benchRow{name: name, title: title, measure: func(ctx context.Context, round int) (figures, error) {
		n := uint64(b.options.sizes.small)
		l, err := b.filled(ctx, smallLog, int(n), 128)
		if err != nil {
			return nil, err
		}
		b.say("%s, round %d of %d", name, round+1, b.options.rounds)
		read := func() error {
			_, err := l.store.Entry(0, 1+random.Uint64N(n))
			return err
		}
		if ask {
			pid := l.actor.PID()
			read = func() error {
				_, err := actors.Ask[messages.EntryRead](ctx, b.asker, pid, messages.ReadEntry{Index: 1 + random.Uint64N(n)})
				return err
			}
		}
		f := figures{}
		reads := func() error { return f.reads(ctx, b.options.slice(), h, read) }
		if !busy {
			return f, reads()
		}
		appends := func(ctx context.Context, during func() error) (float64, error) {
			var w window
			return w.run(ctx, b.options.slice(), 1, func() { go appendOn(&w, l) }, during)
		}
		if ask {
			if appender.members == nil {
				appender.spawn(l.actor.PID(), 1, 1, func(int) uint64 { return appenderGroup })
			}
			appends = func(ctx context.Context, during func() error) (float64, error) {
				return appender.measure(ctx, b.options.slice(), during)
			}
		}
		err = inTurn(round, func() (err error) {
			f["appender_alone_entries_per_second"], err = appends(ctx, nil)
			return err
		}, func() (err error) {
			f["appender_entries_per_second"], err = appends(ctx, reads)
			return err
		})
		if err != nil {
			return nil, err
		}
		f["appender_ratio"] = share(f["appender_entries_per_second"], f["appender_alone_entries_per_second"])
		var alone, beside float64
		limit := func(during func() error) (float64, error) {
			var w window
			return w.run(ctx, b.options.slice(), 1, func() { go b.limit.writeOn(&w, clientBytes) }, during)
		}
		err = inTurn(round, func() (err error) {
			alone, err = limit(nil)
			return err
		}, func() (err error) {
			beside, err = limit(func() error { return figures{}.reads(ctx, b.options.slice(), newLatency(), read) })
			return err
		})
		f["limit_ratio"] = share(beside, alone)
		return f, err
	}}
}

// reads measures one kind of read.
func (f figures) reads(ctx context.Context, d time.Duration, h *hdrhistogram.Histogram, read func() error) error {
	h.Reset()
	n := 0
	took, err := repeat(ctx, d, h, func() error { n++; return read() }, func() { n = 0 })
	f["reads_per_second"] = rate(n, took)
	f["p50_us"], f["p99_us"], f["p999_us"] = quantile(h, 50), quantile(h, 99), quantile(h, 99.9)
	return err
}

// writeOn writes n bytes durably, over and over, until the window ends.
func (l *limit) writeOn(w *window, n int) {
	defer w.running.Done()
	for !w.ending() {
		if err := l.write(n); err != nil {
			w.fail(err)
			return
		}
		w.acked.Add(1)
	}
}

// appendOn appends and syncs until the window ends.
func appendOn(w *window, l *measuredLog) {
	defer w.running.Done()
	data, es := payload(clientBytes), make([]messages.Entry, 1)
	for !w.ending() {
		es[0] = messages.Entry{Term: 1, Data: data}
		_, err := l.store.Append(appenderGroup, es, nil)
		if err == nil {
			err = l.sync()
		}
		if err != nil {
			w.fail(err)
			return
		}
		w.acked.Add(1)
	}
}

func (b *bench) scanSection() *benchSection {
	s := &benchSection{title: "in sequence, ranges of 1 MiB", columns: []benchColumn{
		{"MB/s", "mb_per_second", countFigure}, {"limit MB/s", "limit_mb_per_second", countFigure}, {"share", "share", hundredths}, {"entries/s", "entries_per_second", countFigure}}}
	s.rows = append(s.rows, b.scanRow(smallLog, b.options.sizes.small, 128), b.scanRow(mediumLog, b.options.sizes.medium, 1024))
	return s
}

func (b *bench) scanRow(log string, n, size int) *benchRow {
	from := uint64(1)
	return &benchRow{name: "scan/" + log, title: "entries of " + binaryText(size), measure: func(ctx context.Context, round int) (figures, error) {
		l, err := b.filled(ctx, log, n, size)
		if err != nil {
			return nil, err
		}
		b.say("scan/%s, round %d of %d", log, round+1, b.options.rounds)
		var reading, entries float64
		err = inTurn(round, func() (err error) {
			reading, err = b.limit.readRate(ctx, b.options.slice())
			return err
		}, func() error {
			count := 0
			took, err := repeat(ctx, b.options.slice(), nil, func() error {
				es, err := l.store.Entries(0, from, uint64(n)+1, 1<<20)
				if err != nil {
					return err
				}
				count += len(es)
				if from += uint64(len(es)); from > uint64(n) {
					from = 1
				}
				return nil
			}, func() { count = 0 })
			entries = rate(count, took)
			return err
		})
		perSecond := entries * float64(size)
		return figures{"mb_per_second": perSecond / 1e6, "limit_mb_per_second": reading / 1e6, "share": share(perSecond, reading),
			"entries_per_second": entries}, err
	}}
}

func (b *bench) sizeSection() *benchSection {
	s := &benchSection{title: "bytes on disk", columns: []benchColumn{
		{"beyond the payload, an entry", "bytes_beyond_payload_per_entry", hundredths}, {"of the payload", "share_beyond_payload", percent},
		{"all files", "directory_bytes", bytesText[float64]}, {"payload", "payload_bytes", bytesText[float64]}}}
	for _, r := range []struct{ batch, size int }{{1, 64}, {1, 128}, {64, 64}, {64, 128}} {
		title := fmt.Sprintf("one by one, %d B", r.size)
		if r.batch > 1 {
			title = fmt.Sprintf("batches of %d × %d B", r.batch, r.size)
		}
		s.rows = append(s.rows, &benchRow{name: fmt.Sprintf("size/%dx%d", r.batch, r.size), title: title, once: true,
			measure: func(ctx context.Context, _ int) (figures, error) { return b.sizes(ctx, r.batch, r.size) }})
	}
	return s
}

// farIndex is where the entries begin whose size is counted: far enough for
// their indexes to take as many bytes as in a log that has been in use.
const farIndex = 1 << 27

// sizes counts what entries take on disk that were synced batch by batch.
func (b *bench) sizes(ctx context.Context, batch, size int) (figures, error) {
	b.logs++
	dir := filepath.Join(b.dir, fmt.Sprintf("log-%d", b.logs))
	w, err := raftlog.Open(dir, raftlog.Options{})
	if err != nil {
		return nil, err
	}
	n := max(b.options.sizes.overhead/batch, 1) * batch
	write := func() error {
		if _, err := w.Reset(0, farIndex, 1); err != nil {
			return err
		}
		data, es := payload(size), make([]messages.Entry, batch)
		for i := 0; i < n && ctx.Err() == nil; i += batch {
			for k := range es {
				es[k] = messages.Entry{Term: 1, Data: data}
			}
			if _, err := w.Append(0, es, nil); err != nil {
				return err
			}
			if _, err := w.Sync(); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	if err := errors.Join(write(), w.Close()); err != nil {
		return nil, err
	}
	all, err := sizeOf(dir)
	if err != nil {
		return nil, err
	}
	r, err := raftlog.Inspect(dir)
	if err != nil {
		return nil, err
	}
	good, payload := int64(0), int64(0)
	for _, s := range r.Segments {
		good, payload = good+s.Good, payload+s.PayloadBytes
	}
	beyond := float64(good - payload)
	return figures{"bytes_beyond_payload_per_entry": beyond / float64(n), "share_beyond_payload": share(beyond, float64(payload)),
		"directory_bytes": float64(all), "payload_bytes": float64(payload)}, os.RemoveAll(dir)
}
