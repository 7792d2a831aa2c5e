package peers

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Everything that is compared gets a turn in each round; what is reported are
// the medians of the rounds, because the disk and the neighbours on it change
// from second to second. The processor's time is that of the whole process.
const (
	rounds = 7
	turn   = 250 * time.Millisecond

	keys      = 200_000
	valueSize = 100
)

func key(i int) []byte { return fmt.Appendf(nil, "key-%09d", i) }

var value = bytes.Repeat([]byte("v"), valueSize)

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// contest gives each contender its turn in each round, from another one on each
// time, and reports the medians, their shares of the first, and the processor's
// time for one.
func contest(b *testing.B, unit string, names []string, measure func(i int) float64) {
	rates, shares, costs := make([][]float64, len(names)), make([][]float64, len(names)), make([][]float64, len(names))
	for b.Loop() {
		for round := range rounds {
			now := make([]float64, len(names))
			for k := range names {
				i := (k + round) % len(names)
				from, began := processorTime(), time.Now()
				now[i] = measure(i)
				spent := float64(processorTime()-from) / float64(time.Since(began)) * 1e6
				costs[i] = append(costs[i], spent/now[i])
			}
			for i, v := range now {
				rates[i], shares[i] = append(rates[i], v), append(shares[i], v/now[0])
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range names {
		b.Logf("%-14s %12.0f %s %6.2f of the %s %8.2f us of processor each", name, median(rates[i]), unit, median(shares[i]), names[0], median(costs[i]))
		b.ReportMetric(median(shares[i]), name+"-of-"+names[0])
	}
}

// crowd has n goroutines call what client returns for a turn.
func crowd(tb testing.TB, n int, client func(r *rand.Rand) func() error) float64 {
	var total atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range n {
		all.Go(func() {
			f, count := client(rand.New(rand.NewPCG(uint64(i), 1))), int64(0)
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

// limit is a file that was filled with zeros and is overwritten round and round
// with what the pairs are.
type limit struct {
	peer
	f   *os.File
	at  int64
	buf []byte
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

func (l *limit) put(pairs []pair) error {
	l.buf = l.buf[:0]
	for _, p := range pairs {
		l.buf = append(append(l.buf, p.key...), p.value...)
	}
	if l.at+int64(len(l.buf)) > limitBytes {
		l.at = 0
	}
	if _, err := l.f.WriteAt(l.buf, l.at); err != nil {
		return err
	}
	l.at += int64(len(l.buf))
	return durable.OS.Sync(l.f)
}

// service is a running application-data actor.
type service struct {
	asker *actors.Asker
	kv    *actors.KV
}

func newService(b *testing.B, dir string) service {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		b.Fatal(err)
	}
	k, err := actors.SpawnKV(engine, actors.KVConfig{Config: actors.Config{Name: "peers", ID: "kv"},
		Open: func() (kv.Store, error) { return kv.Open(dir, kv.Options{}) }})
	if err == nil {
		err = k.Opened(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	s := service{actors.NewAsker(engine), k}
	b.Cleanup(func() {
		s.asker.Close()
		if err := k.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return s
}

func (s service) put(key, value []byte) error {
	_, err := actors.Ask[messages.PutDone](context.Background(), s.asker, s.kv.PID(), messages.Put{Key: key, Value: value})
	return err
}

// BenchmarkPut is goroutines that wait for each durable put of 100 B: through the
// actor and its mailbox for Ballast, by its own group commit for pebble, and
// behind one that takes the queue once it has stopped growing for the limit and
// the others.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names, all := []string{"limit"}, []peer{newLimit(b)}
			for _, p := range peers {
				names = append(names, p.name)
				if p.name == "ballast" {
					all = append(all, nil)
					continue
				}
				db, err := p.open(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					if err := db.close(); err != nil {
						b.Error(err)
					}
				})
				all = append(all, db)
			}
			s := newService(b, b.TempDir())
			contest(b, "puts/s", names, func(i int) float64 {
				if names[i] == "ballast" {
					return crowd(b, n, func(r *rand.Rand) func() error {
						return func() error { return s.put(key(r.IntN(keys)), value) }
					})
				}
				if n == 1 || names[i] == "pebble" {
					return crowd(b, n, func(r *rand.Rand) func() error {
						return func() error { return all[i].put([]pair{{key(r.IntN(keys)), value}}) }
					})
				}
				f := newFront(all[i])
				rate := crowd(b, n, func(r *rand.Rand) func() error {
					c := &client{done: make(chan error, 1)}
					return func() error {
						c.pair = pair{key(r.IntN(keys)), value}
						return f.put(c)
					}
				})
				f.stop()
				return rate
			})
		})
	}
}

type client struct {
	pair
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
	var pairs []pair
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
		pairs = pairs[:0]
		for _, c := range batch {
			pairs = append(pairs, c.pair)
		}
		err := f.peer.put(pairs)
		for _, c := range batch {
			c.done <- err
		}
	}
}

// fill writes all keys.
func fill(b *testing.B, n int, put func(pairs []pair) error) {
	var pairs []pair
	for i := range n {
		if pairs = append(pairs, pair{key(i), value}); len(pairs) == 10_000 || i == n-1 {
			if err := put(pairs); err != nil {
				b.Fatal(err)
			}
			pairs = pairs[:0]
		}
	}
}

// filled opens every peer with all keys in it.
func filled(b *testing.B) (names []string, all []peer) {
	for _, p := range peers {
		db, err := p.open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := db.close(); err != nil {
				b.Error(err)
			}
		})
		fill(b, keys, db.put)
		names, all = append(names, p.name), append(all, db)
	}
	return names, all
}

// BenchmarkGet is 64 goroutines that read one value of 100 B after the other, at
// random out of 200,000: at the stores, and through the actor.
func BenchmarkGet(b *testing.B) {
	names, all := filled(b)
	dir := b.TempDir()
	db, err := openBallast(dir)
	if err != nil {
		b.Fatal(err)
	}
	fill(b, keys, db.put)
	if err := db.close(); err != nil {
		b.Fatal(err)
	}
	s := newService(b, dir)
	names, all = append(names, "actor"), append(all, nil)
	contest(b, "gets/s", names, func(i int) float64 {
		return crowd(b, 64, func(r *rand.Rand) func() error {
			if names[i] == "actor" {
				return func() error {
					got, err := actors.Ask[messages.Got](context.Background(), s.asker, s.kv.PID(), messages.Get{Key: key(r.IntN(keys))})
					if err == nil && !got.Found {
						err = errNotThere
					}
					return err
				}
			}
			return func() error {
				_, err := all[i].get(key(r.IntN(keys)))
				return err
			}
		})
	})
}

// BenchmarkScan is 1000 pairs of 100 B in one call, at the stores.
func BenchmarkScan(b *testing.B) {
	const pairs = 1000
	names, all := filled(b)
	contest(b, "MB/s", names, func(i int) float64 {
		return pairs * float64(valueSize+len(key(0))) / 1e6 * crowd(b, 1, func(r *rand.Rand) func() error {
			return func() error {
				found, err := all[i].scan(key(r.IntN(keys-pairs)), pairs)
				if err == nil && len(found) != pairs {
					err = errNotThere
				}
				return err
			}
		})
	})
}

// BenchmarkPutBesideExport is how long durable puts of 16 clients take while
// nothing else goes on and while a view of a million keys is exported again and
// again, in turns.
func BenchmarkPutBesideExport(b *testing.B) {
	dir := b.TempDir()
	db, err := openBallast(dir)
	if err != nil {
		b.Fatal(err)
	}
	const million = 1_000_000
	fill(b, million, db.put)
	if err := db.close(); err != nil {
		b.Fatal(err)
	}
	s := newService(b, dir)
	export := func(stop *atomic.Bool) (n int64) {
		for !stop.Load() {
			v, err := actors.Ask[messages.ViewOpened](context.Background(), s.asker, s.kv.PID(), messages.OpenView{Export: true})
			for err == nil && !stop.Load() {
				var chunk messages.ChunkExported
				chunk, err = actors.Ask[messages.ChunkExported](context.Background(), s.asker, s.kv.PID(), messages.ExportChunk{View: v.View})
				if n += int64(len(chunk.Data)); chunk.EOF {
					break
				}
			}
			if err == nil {
				_, err = actors.Ask[messages.ViewClosed](context.Background(), s.asker, s.kv.PID(), messages.CloseView{View: v.View})
			}
			if err != nil {
				b.Error(err)
				return n
			}
		}
		return n
	}
	took := map[bool][]float64{}
	p99, ratio := map[bool][]float64{}, []float64{}
	exported, began := int64(0), time.Duration(0)
	for b.Loop() {
		for range 2 * rounds {
			for _, busy := range []bool{false, true} {
				var stop atomic.Bool
				var export1 sync.WaitGroup
				if busy {
					export1.Go(func() { exported += export(&stop) })
				}
				var mu sync.Mutex
				took[busy] = took[busy][:0]
				from := time.Now()
				crowd(b, 16, func(r *rand.Rand) func() error {
					return func() error {
						from := time.Now()
						err := s.put(key(r.IntN(million)), value)
						mu.Lock()
						took[busy] = append(took[busy], float64(time.Since(from).Microseconds()))
						mu.Unlock()
						return err
					}
				})
				stop.Store(true)
				export1.Wait()
				if busy {
					began += time.Since(from)
				}
				slices.Sort(took[busy])
				p99[busy] = append(p99[busy], took[busy][len(took[busy])*99/100])
			}
			ratio = append(ratio, p99[true][len(p99[true])-1]/p99[false][len(p99[false])-1])
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratio), "p99-with-by-without")
	b.Logf("p99 %0.f us, with an export %0.f us: %.2f; exported %.0f MB/s", median(p99[false]), median(p99[true]), median(ratio), float64(exported)/1e6/began.Seconds())
}
