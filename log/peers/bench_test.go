package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Everything that is compared gets a turn in each round; what is reported are
// the medians of the rounds, because the disk and the neighbours on it change
// from second to second.
const (
	rounds = 7
	turn   = 250 * time.Millisecond
)

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// limit is a file that was filled with zeros and is overwritten round and round.
type limit struct {
	f  *os.File
	at int64
}

const limitBytes = 64 << 20

func newLimit(tb testing.TB) *limit {
	f, err := os.Create(filepath.Join(tb.TempDir(), "zeros"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < limitBytes; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			tb.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		tb.Fatal(err)
	}
	return &limit{f: f}
}

func (l *limit) write(b []byte) error {
	if l.at+int64(len(b)) > limitBytes {
		l.at = 0
	}
	if _, err := l.f.WriteAt(b, l.at); err != nil {
		return err
	}
	l.at += int64(len(b))
	return durable.OS.Sync(l.f)
}

// append and the others make the limit a peer.
func (l *limit) append(data [][]byte) error  { return l.write(slices.Concat(data...)) }
func (l *limit) read(uint64) ([]byte, error) { return nil, errNoRead }
func (l *limit) close() error                { return nil }

// perSecond calls f over and over for a turn, and returns how often it was.
func perSecond(tb testing.TB, f func() error) float64 {
	began, n := time.Now(), 0
	for ; time.Since(began) < turn; n++ {
		if err := f(); err != nil {
			tb.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// contest gives each contender its turn in each round, from another one on each
// time, and reports the medians and their shares of the first.
func contest(b *testing.B, unit string, names []string, measure func(i int) float64) {
	rates, shares := make([][]float64, len(names)), make([][]float64, len(names))
	for b.Loop() {
		for round := range rounds {
			now := make([]float64, len(names))
			for k := range names {
				i := (k + round) % len(names)
				now[i] = measure(i)
			}
			for i, v := range now {
				rates[i], shares[i] = append(rates[i], v), append(shares[i], v/now[0])
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range names {
		b.Logf("%-14s %12.0f %s %6.2f of the %s", name, median(rates[i]), unit, median(shares[i]), names[0])
		b.ReportMetric(median(shares[i]), name+"-of-"+names[0])
	}
}

// openAll opens every peer in a directory of its own, behind the limit.
func openAll(b *testing.B) (names []string, all []peer) {
	names, all = []string{"limit"}, []peer{newLimit(b)}
	for _, p := range peers {
		l, err := p.open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := l.close(); err != nil {
				b.Error(err)
			}
		})
		names, all = append(names, p.name), append(all, l)
	}
	return names, all
}

func payload(n, size int) [][]byte {
	data := make([][]byte, n)
	for i := range data {
		data[i] = make([]byte, size)
		for k := range data[i] {
			data[i][k] = byte(i + 7*k)
		}
	}
	return data
}

// BenchmarkAppend is one appender that waits for each append.
func BenchmarkAppend(b *testing.B) {
	for _, row := range []struct{ n, size int }{{1, 128}, {1, 16 << 10}, {64, 128}, {512, 1 << 10}} {
		b.Run(fmt.Sprintf("%dx%d", row.n, row.size), func(b *testing.B) {
			names, all := openAll(b)
			data := payload(row.n, row.size)
			contest(b, "appends/s", names, func(i int) float64 {
				return perSecond(b, func() error { return all[i].append(data) })
			})
		})
	}
}

// BenchmarkClients is goroutines that wait for each append of 128 B: behind a
// group commit that takes the queue once it has stopped growing, for the limit
// and the peers, and through the log actor and its mailbox for Ballast.
func BenchmarkClients(b *testing.B) {
	for _, n := range []int{64, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names, all := openAll(b)
			engine, err := actor.NewEngine(actor.NewEngineConfig())
			if err != nil {
				b.Fatal(err)
			}
			dir := b.TempDir()
			l, err := actors.SpawnLog(engine, actors.LogConfig{Config: actors.Config{Name: "peers", ID: "log"},
				Open: func() (raftlog.Store, error) { return raftlog.Open(dir, raftlog.Options{}) }})
			if err == nil {
				err = l.Opened(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
			asker := actors.NewAsker(engine)
			contest(b, "appends/s", names, func(i int) float64 {
				if names[i] == "ballast" {
					return crowd(b, n, func() func() error {
						data := payload(1, 128)[0]
						return func() error {
							_, err := actors.Ask[messages.Appended](context.Background(), asker, l.PID(), messages.Append{Entries: []messages.Entry{{Term: 1, Data: data}}})
							return err
						}
					})
				}
				f := newFront(all[i])
				rate := crowd(b, n, func() func() error {
					c := &client{payload(1, 128)[0], make(chan error, 1)}
					return func() error { return f.put(c) }
				})
				f.stop()
				return rate
			})
			asker.Close()
			if err := l.Stop(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// crowd has n goroutines call what client returns for a turn.
func crowd(tb testing.TB, n int, client func() func() error) float64 {
	var total atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range n {
		all.Go(func() {
			f, count := client(), int64(0)
			for ; time.Since(began) < turn; count++ {
				if err := f(); err != nil {
					tb.Error(err)
					return
				}
			}
			total.Add(count)
		})
	}
	all.Wait()
	return float64(total.Load()) / time.Since(began).Seconds()
}

type client struct {
	data []byte
	done chan error
}

// front is the group commit.
type front struct {
	peer  peer
	mu    sync.Mutex
	queue []*client
	wake  chan struct{}
	ended chan struct{}
}

func newFront(p peer) *front {
	f := &front{peer: p, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go f.run()
	return f
}

func (f *front) stop() {
	close(f.wake)
	<-f.ended
}

func (f *front) put(c *client) error {
	f.mu.Lock()
	f.queue = append(f.queue, c)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return <-c.done
}

func (f *front) queued() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

func (f *front) run() {
	defer close(f.ended)
	var batch []*client
	var data [][]byte
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
		f.queue, batch = batch[:0], f.queue
		f.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		data = data[:0]
		for _, c := range batch {
			data = append(data, c.data)
		}
		err := f.peer.append(data)
		for _, c := range batch {
			c.done <- err
		}
	}
}

const many = 1 << 20

// fill writes a million entries of 128 B.
func fill(b *testing.B, p peer) {
	data := payload(4096, 128)
	for range many / len(data) {
		if err := p.append(data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead is one entry of 128 B at random, of a million, while an appender
// syncs without pause.
func BenchmarkRead(b *testing.B) {
	for _, p := range peers {
		b.Run(p.name, func(b *testing.B) {
			l, err := p.open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			fill(b, l)
			if _, err := l.read(1); errors.Is(err, errNoRead) {
				b.Logf("%s: %v", p.name, err)
			} else {
				readBeside(b, l)
			}
			if err := l.close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func readBeside(b *testing.B, l peer) {
	var stop atomic.Bool
	appended := make(chan error, 1)
	go func() {
		data := payload(1, 128)
		for !stop.Load() {
			if err := l.append(data); err != nil {
				appended <- err
				return
			}
		}
		appended <- nil
	}()
	random := rand.New(rand.NewPCG(1, 2))
	var took []float64
	for b.Loop() {
		for began := time.Now(); time.Since(began) < rounds*turn; {
			from := time.Now()
			if _, err := l.read(1 + random.Uint64N(many)); err != nil {
				b.Fatal(err)
			}
			took = append(took, float64(time.Since(from).Nanoseconds())/1e3)
		}
	}
	stop.Store(true)
	if err := <-appended; err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took[len(took)/2], "p50-us")
	b.ReportMetric(took[len(took)*99/100], "p99-us")
}

// BenchmarkOpen is opening a log of a million entries of 128 B.
func BenchmarkOpen(b *testing.B) {
	names, dirs := make([]string, len(peers)), make([]string, len(peers))
	for i, p := range peers {
		names[i], dirs[i] = p.name, b.TempDir()
		l, err := p.open(dirs[i])
		if err != nil {
			b.Fatal(err)
		}
		fill(b, l)
		if err := l.close(); err != nil {
			b.Fatal(err)
		}
	}
	contest(b, "opens/s", names, func(i int) float64 {
		return perSecond(b, func() error {
			l, err := peers[i].open(dirs[i])
			if err != nil {
				return err
			}
			return l.close()
		})
	})
}
