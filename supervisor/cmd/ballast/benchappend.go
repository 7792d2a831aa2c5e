package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// measuredLog is a log of the run, in an actor of its own.
type measuredLog struct {
	dir   string
	store raftlog.Store
	actor *actors.Log
	// wake and done are those of the goroutine that maintains the store beside
	// the appends, as the actor does for those that it syncs itself.
	wake chan struct{}
	done chan error
}

// newLog makes an empty log.
func (b *bench) newLog(ctx context.Context) (*measuredLog, error) {
	b.logs++
	return b.openLog(ctx, filepath.Join(b.dir, fmt.Sprintf("log-%d", b.logs)))
}

// openLog opens the log in dir. The actor gets the store that is open already,
// so that both can be measured.
func (b *bench) openLog(ctx context.Context, dir string) (*measuredLog, error) {
	w, err := raftlog.Open(dir, raftlog.Options{})
	if err != nil {
		return nil, err
	}
	l := &measuredLog{dir: dir, store: w, wake: make(chan struct{}, 1), done: make(chan error, 1)}
	go l.maintain()
	cfg := actors.LogConfig{Config: actors.Config{Name: "bench", ID: filepath.Base(dir)}, Open: func() (raftlog.Store, error) { return w, nil }}
	if l.actor, err = actors.SpawnLog(b.engine, cfg); err != nil {
		close(l.wake)
		return nil, errors.Join(err, <-l.done, w.Close())
	}
	if err := l.actor.Opened(ctx); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// close closes the log, also when the user does not want to wait.
func (l *measuredLog) close() error {
	close(l.wake)
	err := <-l.done
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return errors.Join(err, l.actor.Stop(ctx))
}

func (l *measuredLog) maintain() {
	var err error
	for range l.wake {
		for err == nil && l.store.Due() {
			var again bool
			if again, err = l.store.Maintain(); err == nil && again {
				_, err = l.store.Sync()
			}
		}
	}
	l.done <- err
}

// sync syncs, and has the store maintained if that is due.
func (l *measuredLog) sync() error {
	_, err := l.store.Sync()
	if l.store.Due() {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return err
}

// remove closes the log and gives the room back.
func (l *measuredLog) remove() error { return errors.Join(l.close(), os.RemoveAll(l.dir)) }

// trimBytes is how much payload a log may hold between two slices. Between them
// it is truncated: no row needs what it has appended.
const trimBytes = 64 << 20

func (l *measuredLog) trim(entryBytes int) error {
	b := l.store.Bounds(0)
	if b.Empty() || int64(b.Last-b.First)*int64(entryBytes) < trimBytes {
		return nil
	}
	if _, err := l.store.TruncateBefore(0, b.Last); err != nil {
		return err
	}
	return l.sync()
}

// own makes an empty log when it is first used. The section removes it.
func (b *bench) own(s *benchSection) func(ctx context.Context) (*measuredLog, error) {
	var l *measuredLog
	s.close = append(s.close, func() error {
		if l == nil {
			return nil
		}
		return l.remove()
	})
	return func(ctx context.Context) (_ *measuredLog, err error) {
		if l == nil {
			l, err = b.newLog(ctx)
		}
		return l, err
	}
}

func (b *bench) appendSection() *benchSection {
	s := &benchSection{title: "durable appends", columns: []benchColumn{
		{"entries/s", "entries_per_second", countFigure}, {"MB/s", "mb_per_second", tenths}, {"limit", "limit_entries_per_second", countFigure},
		{"share", "share", hundredths}, {"p50 µs", "p50_us", micro}, {"p99 µs", "p99_us", micro}, {"limit p50", "limit_p50_us", micro}, {"limit p99", "limit_p99_us", micro}}}
	for _, r := range []struct {
		name           string
		entries, bytes int
	}{{"1x128", 1, 128}, {"1x1KiB", 1, 1 << 10}, {"1x16KiB", 1, 16 << 10}, {"64x128", 64, 128}, {"512x128", 512, 128}, {"512x1KiB", 512, 1 << 10}} {
		title := "one by one, " + binaryText(r.bytes)
		if r.entries > 1 {
			title = fmt.Sprintf("batches of %d × %s", r.entries, binaryText(r.bytes))
		}
		s.rows = append(s.rows, b.storeRow(s, "append/"+r.name, title, r.entries, r.bytes))
	}
	for _, n := range []int{1, 64, 256} {
		s.rows = append(s.rows, b.clientsRow(s, n))
	}
	for _, n := range []int{1, 64, 256} {
		s.rows = append(s.rows, b.actorsRow(s, n))
	}
	return s
}

// binaryText is a number of bytes that is a power of two, or small.
func binaryText(n int) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// storeRow is one appender that uses the store and syncs after each batch.
func (b *bench) storeRow(s *benchSection, name, title string, entries, size int) *benchRow {
	open := b.own(s)
	data, es := payload(size), make([]messages.Entry, entries)
	ours, limits := newLatency(), newLatency()
	return &benchRow{name: name, title: title, measure: func(ctx context.Context, round int) (figures, error) {
		l, err := open(ctx)
		if err != nil {
			return nil, err
		}
		n, f := 0, figures{}
		none := func() { n = 0 }
		err = inTurn(round, func() error {
			limits.Reset()
			took, err := repeat(ctx, b.options.slice(), limits, func() error { n++; return b.limit.write(entries * size) }, none)
			f["limit_entries_per_second"] = rate(n*entries, took)
			return err
		}, func() error {
			ours.Reset()
			took, err := repeat(ctx, b.options.slice(), ours, func() error {
				n++
				for i := range es {
					es[i] = messages.Entry{Term: 1, Data: data} // the log assigns the indexes
				}
				if _, err := l.store.Append(0, es, nil); err != nil {
					return err
				}
				return l.sync()
			}, none)
			f["entries_per_second"] = rate(n*entries, took)
			return err
		})
		f.appends(size, ours, limits)
		return f, errors.Join(err, l.trim(size))
	}}
}

// appends adds what follows from the two rates.
func (f figures) appends(size int, ours, limits *hdrhistogram.Histogram) {
	f["share"] = share(f["entries_per_second"], f["limit_entries_per_second"])
	f["mb_per_second"] = f["entries_per_second"] * float64(size) / 1e6
	f["p50_us"], f["p99_us"] = quantile(ours, 50), quantile(ours, 99)
	f["limit_p50_us"], f["limit_p99_us"] = quantile(limits, 50), quantile(limits, 99)
}

// share is a part of a whole, and zero if there is no whole.
func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

const clientBytes = 128

// clientsRow is goroutines that ask the log actor, each of which waits for each
// append, as those of the limit do.
func (b *bench) clientsRow(s *benchSection, n int) *benchRow {
	ours := make([]*hdrhistogram.Histogram, n)
	for i := range ours {
		ours[i] = newLatency()
	}
	return b.sharedRow(s, n, "clients", "client", func(ctx context.Context, l *measuredLog) (float64, *hdrhistogram.Histogram, error) {
		var w window
		rate, err := w.run(ctx, b.options.slice(), n, func() {
			for _, h := range ours {
				h.Reset()
				go b.askOn(&w, l, h)
			}
		}, nil)
		return rate, merged(ours), err
	})
}

// askOn appends through the log actor until the window ends.
func (b *bench) askOn(w *window, l *measuredLog, h *hdrhistogram.Histogram) {
	defer w.running.Done()
	data, pid := payload(clientBytes), l.actor.PID()
	for !w.ending() {
		began := time.Now()
		_, err := actors.Ask[messages.Appended](context.Background(), b.asker, pid, messages.Append{Entries: []messages.Entry{{Term: 1, Data: data}}})
		if err != nil {
			w.fail(err)
			return
		}
		if w.measuring() {
			record(h, time.Since(began))
		}
		w.acked.Add(1)
	}
}

// actorsRow is clients that are actors themselves, each of which waits for each
// append.
func (b *bench) actorsRow(s *benchSection, n int) *benchRow {
	crew := newCrew(b, s)
	return b.sharedRow(s, n, "actors", "client actor", func(ctx context.Context, l *measuredLog) (float64, *hdrhistogram.Histogram, error) {
		if crew.members == nil {
			crew.spawn(l.actor.PID(), n, 1, func(int) uint64 { return 0 })
		}
		rate, err := crew.measure(ctx, b.options.slice(), nil)
		return rate, crew.latency(), err
	})
}

// sharedRow compares n clients of one log with as many goroutines behind a front.
func (b *bench) sharedRow(s *benchSection, n int, kind, what string,
	measure func(context.Context, *measuredLog) (float64, *hdrhistogram.Histogram, error)) *benchRow {
	open, limits := b.own(s), make([]*hdrhistogram.Histogram, n)
	for i := range limits {
		limits[i] = newLatency()
	}
	title := fmt.Sprintf("%s, %d B", plural(n, what), clientBytes)
	return &benchRow{name: fmt.Sprintf("%s/%d", kind, n), title: title, measure: func(ctx context.Context, round int) (figures, error) {
		l, err := open(ctx)
		if err != nil {
			return nil, err
		}
		f := figures{}
		var latency *hdrhistogram.Histogram
		err = inTurn(round, func() error {
			var w window
			f["limit_entries_per_second"], err = newFront(b.limit).measure(ctx, &w, b.options.slice(), clientBytes, limits)
			return err
		}, func() error {
			f["entries_per_second"], latency, err = measure(ctx, l)
			return err
		})
		if err != nil {
			return nil, err
		}
		f.appends(clientBytes, latency, merged(limits))
		return f, l.trim(clientBytes)
	}}
}

// crew is client actors that append through a log actor.
type crew struct {
	bench   *bench
	window  window
	members []*member
	pids    []*actor.PID
}

func newCrew(b *bench, s *benchSection) *crew {
	c := &crew{bench: b}
	s.close = append(s.close, c.end)
	return c
}

// member is one of them. It has a number of appends under way, which all are of
// one group.
type member struct {
	window  *window
	log     *actor.PID
	group   uint64
	data    []byte
	sent    []time.Time // of each append under way; its Tag is the place
	flying  int
	latency *hdrhistogram.Histogram
}

// begin tells a member that the window has begun.
type begin struct{}

// spawn starts n members with a number of appends under way each.
func (c *crew) spawn(log *actor.PID, n, outstanding int, group func(i int) uint64) {
	data := payload(clientBytes)
	for i := range n {
		m := &member{&c.window, log, group(i), data, make([]time.Time, outstanding), 0, newLatency()}
		c.members = append(c.members, m)
		c.pids = append(c.pids, c.bench.engine.Spawn(func() actor.Receiver { return m }, "bench-client",
			actor.WithID(log.ID+"/"+strconv.Itoa(i)), actor.WithMaxRestarts(1<<30)))
	}
}

// end takes the members out of the engine.
func (c *crew) end() error {
	for _, pid := range c.pids {
		<-c.bench.engine.Poison(pid).Done()
	}
	return nil
}

func (c *crew) measure(ctx context.Context, d time.Duration, during func() error) (float64, error) {
	return c.window.run(ctx, d, len(c.members), func() {
		for i, m := range c.members {
			m.latency.Reset()
			c.bench.engine.Send(c.pids[i], begin{})
		}
	}, during)
}

// latency is that of all members in the last window.
func (c *crew) latency() *hdrhistogram.Histogram {
	all := make([]*hdrhistogram.Histogram, len(c.members))
	for i, m := range c.members {
		all[i] = m.latency
	}
	return merged(all)
}

// Receive implements hollywood's Receiver.
func (m *member) Receive(x *actor.Context) {
	switch r := x.Message().(type) {
	case begin:
		m.flying = len(m.sent)
		for i := range m.sent {
			m.send(x, uint64(i))
		}
	case messages.Appended:
		if r.Err != nil {
			m.window.fail(r.Err)
		} else {
			if m.window.measuring() {
				record(m.latency, time.Since(m.sent[r.Tag]))
			}
			m.window.acked.Add(1)
		}
		if r.Err == nil && !m.window.ending() {
			m.send(x, r.Tag)
			return
		}
		if m.flying--; m.flying == 0 {
			m.window.running.Done()
		}
	}
}

func (m *member) send(x *actor.Context, tag uint64) {
	m.sent[tag] = time.Now()
	x.Send(m.log, messages.Append{Tag: tag, Group: m.group, Entries: []messages.Entry{{Term: 1, Data: m.data}}})
}

// groupAppends is how many appends are under way in every row of groups.
const groupAppends = 256

// groupSection has one pipelining appender for each group, and the same number of
// appends under way however many groups there are. More groups are more actors
// as well, which alone costs: so each row is also compared with as many
// appenders of one group.
func (b *bench) groupSection() *benchSection {
	s := &benchSection{title: fmt.Sprintf("%d appends of 128 B under way", groupAppends), columns: []benchColumn{
		{"entries/s", "entries_per_second", countFigure}, {"one appender", "one_group_entries_per_second", countFigure}, {"ratio", "ratio", hundredths},
		{"in one group", "same_appenders_entries_per_second", countFigure}, {"ratio", "same_appenders_ratio", hundredths},
		{"p50 µs", "p50_us", micro}, {"p99 µs", "p99_us", micro}}}
	one := b.appenders(s, 1, false)
	measured, base := -1, figures{} // the round in which one group was measured, and what it gave
	for _, n := range []int{1, 16, 256} {
		title := "1 group"
		var own, same func(context.Context) (figures, error)
		if n > 1 {
			title = fmt.Sprintf("%d groups, an appender each", n)
			own, same = b.appenders(s, n, true), b.appenders(s, n, false)
		}
		s.rows = append(s.rows, &benchRow{name: fmt.Sprintf("groups/%d", n), title: title, measure: func(ctx context.Context, round int) (figures, error) {
			if measured != round {
				f, err := one(ctx)
				if err != nil {
					return nil, err
				}
				measured, base = round, f
			}
			f, g := base, base
			err := error(nil)
			if n > 1 {
				err = inTurn(round, func() (err error) { g, err = same(ctx); return err }, func() (err error) { f, err = own(ctx); return err })
			}
			const rate = "entries_per_second"
			return figures{rate: f[rate], "p50_us": f["p50_us"], "p99_us": f["p99_us"],
				"one_group_entries_per_second": base[rate], "ratio": share(f[rate], base[rate]),
				"same_appenders_entries_per_second": g[rate], "same_appenders_ratio": share(f[rate], g[rate])}, err
		}})
	}
	return s
}

// appenders measures n appenders, each of a group of its own or all of one.
func (b *bench) appenders(s *benchSection, n int, apart bool) func(context.Context) (figures, error) {
	open, crew := b.own(s), newCrew(b, s)
	return func(ctx context.Context) (figures, error) {
		l, err := open(ctx)
		if err != nil {
			return nil, err
		}
		if crew.members == nil {
			crew.spawn(l.actor.PID(), n, groupAppends/n, func(i int) uint64 {
				if apart {
					return uint64(i)
				}
				return 0
			})
		}
		rate, err := crew.measure(ctx, b.options.slice(), nil)
		h := crew.latency()
		return figures{"entries_per_second": rate, "p50_us": quantile(h, 50), "p99_us": quantile(h, 99)}, err
	}
}
