package actors_test

import (
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

// The benchmarks compare with two limits that know no actors, on the same disk
// and in turns with what is measured, because the disk and the neighbours on it
// change from second to second:
//
//   - raw: write and fdatasync of one block of N appends, over and over;
//   - the front: N goroutines that wait for their answers, behind one that
//     writes what is queued once the queue has stopped growing.
//
// And with a floor: the client actors before that same front, which is a bare
// process of hollywood's and answers with nothing but a Send.
//
// Each benchmark takes the medians of benchRounds rounds.
const (
	benchRounds = 7
	benchRound  = 250 * time.Millisecond // for each of the things compared
	benchSize   = 128
)

// zeroFile is a file that was filled with zeros before and is overwritten round
// and round: no write to it changes its length or its extents.
type zeroFile struct {
	f      *os.File
	at     int64
	length int64
}

func newZeroFile(tb testing.TB) *zeroFile {
	tb.Helper()
	z := &zeroFile{length: 32 << 20}
	f, err := os.Create(filepath.Join(tb.TempDir(), "zeros"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < z.length; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			tb.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		tb.Fatal(err)
	}
	z.f = f
	return z
}

// write makes data durable and returns where it is.
func (z *zeroFile) write(data []byte) (at int64, err error) {
	if z.at+int64(len(data)) > z.length {
		z.at = 0
	}
	at = z.at
	z.at += int64(len(data))
	if _, err := z.f.WriteAt(data, at); err != nil {
		return 0, err
	}
	return at, durable.OS.Sync(z.f)
}

// raw returns how many appends a second write and fdatasync alone can do, n of
// them at a time.
func raw(tb testing.TB, z *zeroFile, n int) float64 {
	block := make([]byte, n*benchSize)
	began, i := time.Now(), 0
	for ; time.Since(began) < benchRound; i++ {
		if _, err := z.write(block); err != nil {
			tb.Fatal(err)
		}
	}
	return float64(n*i) / time.Since(began).Seconds()
}

// front is the group commit that an actor competes with.
type front struct {
	mu    sync.Mutex
	queue []frontRequest
	wake  chan struct{}
	// answer replies to a client that is an actor.
	answer func(*actor.PID)
}

func (f *front) add(r frontRequest) {
	f.mu.Lock()
	f.queue = append(f.queue, r)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

type frontRequest struct {
	data []byte
	done chan struct{} // nil: answer sends the reply
	pid  *actor.PID
}

func (f *front) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

func (f *front) run(tb testing.TB, z *zeroFile) {
	var batch []frontRequest
	var block []byte
	for range f.wake {
		for seen := 0; ; runtime.Gosched() {
			n := f.len()
			if n == seen {
				break
			}
			seen = n
		}
		f.mu.Lock()
		batch, f.queue = f.queue, batch[:0]
		f.mu.Unlock()
		block = block[:0]
		for _, r := range batch {
			block = append(block, r.data...)
		}
		if _, err := z.write(block); err != nil {
			tb.Error(err)
		}
		for _, r := range batch {
			if r.done != nil {
				r.done <- struct{}{}
			} else {
				f.answer(r.pid)
			}
		}
	}
}

// behindFront returns how many appends a second n goroutines get done that wait
// for each.
func behindFront(tb testing.TB, z *zeroFile, n int) float64 {
	f := &front{wake: make(chan struct{}, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(tb, z)
	}()
	var total atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	for range n {
		clients.Go(func() {
			r := frontRequest{data: make([]byte, benchSize), done: make(chan struct{}, 1)}
			count := int64(0)
			for ; time.Since(began) < benchRound; count++ {
				f.add(r)
				<-r.done
			}
			total.Add(count)
		})
	}
	clients.Wait()
	rate := float64(total.Load()) / time.Since(began).Seconds()
	close(f.wake)
	<-ended
	return rate
}

// process is the front as a process of hollywood's.
type process struct {
	*front
	pid *actor.PID
}

func (p process) PID() *actor.PID         { return p.pid }
func (p process) Start()                  {}
func (p process) Invoke([]actor.Envelope) {}
func (p process) Shutdown()               {}
func (p process) Send(_ *actor.PID, msg any, sender *actor.PID) {
	p.add(frontRequest{data: msg.(messages.Append).Entries[0].Data, pid: sender})
}

// behindProcess returns how many appends a second n client actors get done
// before the front.
func behindProcess(b *testing.B, engine *actor.Engine, z *zeroFile, n int) float64 {
	p := process{&front{wake: make(chan struct{}, 1)}, actor.NewPID(engine.Address(), fmt.Sprintf("front/%d", crowds.Add(1)))}
	var reply any = messages.Appended{}
	p.answer = func(to *actor.PID) { engine.SendWithSender(to, reply, p.pid) }
	engine.SpawnProc(p)
	defer engine.Registry.Remove(p.pid)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.run(b, z)
	}()
	o := crowd(engine, p.pid, load{clients: n, depth: 1})
	close(p.wake)
	<-ended
	return o.rate
}

// rawStore is a log store that is nothing but write and fdatasync: what the
// actor costs shows best in front of it. It keeps the last rawKept entries of
// each group.
type rawStore struct {
	raftlog.Store // what it does not have panics
	z             *zeroFile

	mu      sync.Mutex
	groups  map[uint64]*rawGroup
	block   []byte
	spare   []byte
	index   []rawEntry // what is in block
	indexed []rawEntry
	staged  uint64
	durable atomic.Uint64
}

const rawKept = 1 << 14

type rawGroup struct {
	last    uint64
	durable uint64
	at      [rawKept]int64
}

type rawEntry struct {
	group *rawGroup
	index uint64
	at    int
}

func newRawStore(z *zeroFile) *rawStore {
	return &rawStore{z: z, groups: make(map[uint64]*rawGroup)}
}

func (s *rawStore) Append(group uint64, es []messages.Entry, _ *messages.HardState) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[group]
	if g == nil {
		g = &rawGroup{}
		s.groups[group] = g
	}
	for i := range es {
		g.last++
		es[i].Index = g.last
		s.index = append(s.index, rawEntry{g, g.last, len(s.block)})
		s.block = append(s.block, es[i].Data...)
	}
	s.staged++
	return s.staged, nil
}

func (s *rawStore) Sync() (int, error) {
	s.mu.Lock()
	block, index, staged := s.block, s.index, s.staged
	s.block, s.index = s.spare[:0], s.indexed[:0]
	s.mu.Unlock()
	at, err := s.z.write(block)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range index {
		e.group.at[e.index%rawKept] = at + int64(e.at)
		e.group.durable = e.index
	}
	s.spare, s.indexed = block, index
	return int(staged - s.durable.Swap(staged)), err
}

func (s *rawStore) Staged() (uint64, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.staged, len(s.block)
}

func (s *rawStore) Durable() uint64 { return s.durable.Load() }
func (s *rawStore) Poisoned() bool  { return false }
func (s *rawStore) Due() bool       { return false }
func (s *rawStore) Close() error    { return nil }

func (s *rawStore) Entry(group, index uint64) (messages.Entry, error) {
	s.mu.Lock()
	g := s.groups[group]
	if g == nil || index > g.durable || index+rawKept <= g.durable {
		s.mu.Unlock()
		return messages.Entry{}, messages.ErrNotFound
	}
	at := g.at[index%rawKept]
	s.mu.Unlock()
	e := messages.Entry{Index: index, Term: 1, Data: make([]byte, benchSize)}
	_, err := s.z.f.ReadAt(e.Data, at)
	return e, err
}

// appender is a client actor that keeps depth appends under way until it is
// told to stop.
type appender struct {
	log      *actor.PID
	group    uint64
	depth    int
	underWay int
	data     []byte
	stop     *atomic.Bool
	count    int64
	total    *atomic.Int64
	done     *sync.WaitGroup
}

func (a *appender) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case messages.Appended:
		if m.Err != nil {
			panic(m.Err)
		}
		a.count++
		if !a.stop.Load() {
			a.next(c)
		} else if a.underWay--; a.underWay == 0 {
			a.total.Add(a.count)
			a.done.Done()
		}
	case actor.Started:
		a.underWay = a.depth
		for range a.depth {
			a.next(c)
		}
	}
}

func (a *appender) next(c *actor.Context) {
	c.Send(a.log, messages.Append{Group: a.group, Entries: []messages.Entry{{Term: 1, Data: a.data}}})
}

// load is a crowd of client actors.
type load struct {
	first   uint64 // group
	groups  int    // 0: all write to group 0
	clients int
	depth   int // appends that each has under way
}

// outcome is what a load has done.
type outcome struct {
	rate          float64 // appends a second
	allocs, bytes float64 // per append, the clients' own included
	batch         float64
	sync          float64 // mean, microseconds
}

var crowds atomic.Int64

// behindActor has a load of client actors append to a log actor for a round.
func behindActor(engine *actor.Engine, l *actors.Log, with load) outcome {
	first := l.Statistics()
	o := crowd(engine, l.PID(), with)
	last := l.Statistics()
	o.batch = float64(last.Appends-first.Appends) / float64(last.Syncs-first.Syncs)
	o.sync = float64((last.SyncTime - first.SyncTime).Microseconds()) / float64(last.Syncs-first.Syncs)
	return o
}

// crowd has a load of client actors append for a round.
func crowd(engine *actor.Engine, log *actor.PID, with load) (o outcome) {
	var (
		stop          atomic.Bool
		total         atomic.Int64
		done          sync.WaitGroup
		before, after runtime.MemStats
		pids          []*actor.PID
	)
	done.Add(with.clients)
	runtime.ReadMemStats(&before)
	began := time.Now()
	kind := fmt.Sprintf("client%d", crowds.Add(1))
	for i := range with.clients {
		a := &appender{log: log, depth: with.depth, data: make([]byte, benchSize), stop: &stop, total: &total, done: &done}
		if with.groups > 0 {
			a.group = with.first + uint64(i%with.groups)
		}
		pids = append(pids, engine.Spawn(func() actor.Receiver { return a }, kind, actor.WithID(fmt.Sprint(i))))
	}
	<-time.After(benchRound)
	stop.Store(true)
	done.Wait()
	n := float64(total.Load())
	o.rate = n / time.Since(began).Seconds()
	runtime.ReadMemStats(&after)
	o.allocs = float64(after.Mallocs-before.Mallocs) / n
	o.bytes = float64(after.TotalAlloc-before.TotalAlloc) / n
	for _, pid := range pids {
		<-engine.Poison(pid).Done()
	}
	return o
}

var benchStores = []struct {
	name string
	open func(b *testing.B) func() (raftlog.Store, error)
}{
	{"raw", func(b *testing.B) func() (raftlog.Store, error) {
		z := newZeroFile(b)
		return func() (raftlog.Store, error) { return newRawStore(z), nil }
	}},
	{"real", func(b *testing.B) func() (raftlog.Store, error) {
		dir := b.TempDir()
		return func() (raftlog.Store, error) { return raftlog.Open(dir, raftlog.Options{}) }
	}},
}

func benchLog(b *testing.B, open func() (raftlog.Store, error)) (*actor.Engine, *actors.Log) {
	b.Helper()
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		b.Fatal(err)
	}
	l, err := actors.SpawnLog(engine, actors.LogConfig{Config: actors.Config{Name: "bench", ID: "log"}, Open: open})
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Opened(b.Context()); err != nil {
		b.Fatal(err)
	}
	return engine, l
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

func medianOf(os []outcome, f func(outcome) float64) float64 {
	v := make([]float64, len(os))
	for i, o := range os {
		v[i] = f(o)
	}
	return median(v)
}

func (o outcome) String() string {
	return fmt.Sprintf("%.0f/s batch %.0f", o.rate, o.batch)
}

// asking has n goroutines ask the log actor for a round, and returns how many
// appends a second they got.
func asking(tb testing.TB, asker *actors.Asker, log *actor.PID, n int) float64 {
	var total atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	for range n {
		clients.Go(func() {
			data, count := make([]byte, benchSize), int64(0)
			for ; time.Since(began) < benchRound; count++ {
				if _, err := actors.Ask[messages.Appended](tb.Context(), asker, log, messages.Append{Entries: []messages.Entry{{Term: 1, Data: data}}}); err != nil {
					tb.Error(err)
					return
				}
			}
			total.Add(count)
		})
	}
	clients.Wait()
	return float64(total.Load()) / time.Since(began).Seconds()
}

// BenchmarkLogAppend measures durable appends of 128 B through the actor and
// its mailbox from client actors that wait for each. of-limit is the share of
// what goroutines behind the front get, of-raw that of write and fdatasync
// alone. asked and asked-of-limit are those of goroutines that use Ask. allocs/op and B/op hold what the clients themselves allocate: the
// command, its entry, and what their inboxes need.
func BenchmarkLogAppend(b *testing.B) {
	for _, store := range benchStores {
		for _, clients := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("store=%s/clients=%d", store.name, clients), func(b *testing.B) {
				engine, l := benchLog(b, store.open(b))
				z := newZeroFile(b)
				with := load{clients: clients, depth: 1}
				behindActor(engine, l, with) // warm
				var os []outcome
				asker := actors.NewAsker(engine)
				defer asker.Close()
				var ofLimit, ofRaw, floors, asked, askedOfLimit []float64
				for b.Loop() {
					for range benchRounds {
						f := behindFront(b, z, clients)
						o := behindActor(engine, l, with)
						r := raw(b, z, clients)
						f = (f + behindFront(b, z, clients)) / 2
						os, ofLimit, ofRaw = append(os, o), append(ofLimit, o.rate/f), append(ofRaw, o.rate/r)
						floors = append(floors, behindProcess(b, engine, z, clients)/f)
						f = behindFront(b, z, clients)
						a := asking(b, asker, l.PID(), clients)
						f = (f + behindFront(b, z, clients)) / 2
						asked, askedOfLimit = append(asked, a), append(askedOfLimit, a/f)
					}
				}
				report(b, os)
				b.ReportMetric(median(ofLimit), "of-limit")
				b.ReportMetric(median(ofRaw), "of-raw")
				b.ReportMetric(median(floors), "floor-of-limit")
				b.ReportMetric(median(asked), "asked/s")
				b.ReportMetric(median(askedOfLimit), "asked-of-limit")
				if err := l.Stop(b.Context()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

func report(b *testing.B, os []outcome) {
	b.ReportAllocs()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(medianOf(os, func(o outcome) float64 { return o.rate }), "appends/s")
	b.ReportMetric(medianOf(os, func(o outcome) float64 { return o.batch }), "batch")
	b.ReportMetric(medianOf(os, func(o outcome) float64 { return o.sync }), "sync-us")
	b.ReportMetric(medianOf(os, func(o outcome) float64 { return o.allocs }), "allocs/op")
	b.ReportMetric(medianOf(os, func(o outcome) float64 { return o.bytes }), "B/op")
}

// BenchmarkLogGroups measures 256 appends under way, of one group, of 16 and of
// 256, each with one pipelined client. of-one is the share of what one group
// gets with as many under way.
func BenchmarkLogGroups(b *testing.B) {
	for _, store := range benchStores {
		b.Run("store="+store.name, func(b *testing.B) {
			engine, l := benchLog(b, store.open(b))
			groups := []int{1, 16, 256}
			os := make([][]outcome, len(groups))
			ratios := make([][]float64, len(groups))
			for b.Loop() {
				for range benchRounds {
					for i, n := range groups {
						o := behindActor(engine, l, load{groups: n, clients: n, depth: 256 / n})
						os[i] = append(os[i], o)
						ratios[i] = append(ratios[i], o.rate/os[0][len(os[0])-1].rate)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			for i, n := range groups {
				b.ReportMetric(medianOf(os[i], func(o outcome) float64 { return o.rate }), fmt.Sprintf("appends/s@%d", n))
				b.ReportMetric(medianOf(os[i], func(o outcome) float64 { return o.batch }), fmt.Sprintf("batch@%d", n))
				b.ReportMetric(median(ratios[i]), fmt.Sprintf("of-one@%d", n))
			}
			if err := l.Stop(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkLogRead measures reads of single entries, at random, one after the
// other, while one client appends without pause. appending is the share of the
// appends that the client gets done without readers.
func BenchmarkLogRead(b *testing.B) {
	for _, store := range benchStores {
		for _, readers := range []int{1, 64} {
			b.Run(fmt.Sprintf("store=%s/readers=%d", store.name, readers), func(b *testing.B) {
				engine, l := benchLog(b, store.open(b))
				asker := actors.NewAsker(engine)
				defer asker.Close()
				const kept = rawKept / 4
				fill := load{clients: 64, depth: 1}
				behindActor(engine, l, fill)
				last := l.Statistics().Appends // all to group 0
				one := load{first: 1, groups: 1, clients: 1, depth: 1}
				var p50, p99, rates, ratios []float64
				for b.Loop() {
					for range benchRounds {
						idle := behindActor(engine, l, one)
						var stop atomic.Bool
						var wg sync.WaitGroup
						var mu sync.Mutex
						var took []time.Duration
						for range readers {
							wg.Go(func() {
								var mine []time.Duration
								for !stop.Load() {
									index := last - rand.Uint64N(min(kept, last))
									began := time.Now()
									if _, err := actors.Ask[messages.EntryRead](b.Context(), asker, l.PID(), messages.ReadEntry{Index: index}); err != nil {
										b.Error(err)
										return
									}
									mine = append(mine, time.Since(began))
								}
								mu.Lock()
								defer mu.Unlock()
								took = append(took, mine...)
							})
						}
						busy := behindActor(engine, l, one)
						stop.Store(true)
						wg.Wait()
						slices.Sort(took)
						p50 = append(p50, float64(took[len(took)/2])/1e3)
						p99 = append(p99, float64(took[len(took)*99/100])/1e3)
						rates = append(rates, float64(len(took))/benchRound.Seconds())
						ratios = append(ratios, busy.rate/idle.rate)
					}
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(p50), "p50-us")
				b.ReportMetric(median(p99), "p99-us")
				b.ReportMetric(median(rates), "reads/s")
				b.ReportMetric(median(ratios), "appending")
				if err := l.Stop(b.Context()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
