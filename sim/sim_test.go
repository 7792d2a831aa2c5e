package sim_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/sim"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/ballast-raft/ballast/supervisor"
)

var (
	seeds = flag.Int("sim.seeds", 80, "how many seeds TestSeeds runs")
	seed  = flag.Uint64("sim.seed", 0, "run this seed alone")
)

func TestMain(m *testing.M) {
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	os.Exit(m.Run())
}

// TestSeeds runs a service under clients that never stop, while its actors
// crash, its process is killed and the power is cut, and checks the promises:
// what was acknowledged is there; the application data is the log applied;
// entries never change; every request is answered once; the service comes back.
func TestSeeds(t *testing.T) {
	if *seed != 0 {
		res := scenario(t, *seed)
		t.Logf("seed %d: %d steps, %v of virtual time, trace=%s", *seed, res.Steps, res.Time, res.Trace)
		return
	}
	var steps int
	var virtual time.Duration
	total := &tally{}
	began := time.Now()
	for s := range uint64(*seeds) {
		res := scenarioInto(t, s+1, total)
		steps += res.Steps
		virtual += res.Time
		if t.Failed() {
			t.Fatalf("replay with: go test ./sim -run TestSeeds -sim.seed=%d", s+1)
		}
	}
	t.Logf("%d seeds, %d steps (%.0f a second), %v of virtual time, %+v",
		*seeds, steps, float64(steps)/time.Since(began).Seconds(), virtual, *total)
	if *seeds >= 80 && (total.Crashes == 0 || total.Kills == 0 || total.PowerCuts == 0 || total.Torn == 0 || total.Indexes == 0 || total.Snapshots == 0 || total.Restores == 0 || total.Resumed == 0 || total.Compacted == 0 || total.Told < 10**seeds || total.Rescans == 0 || total.Committed < *seeds || total.Conflicts == 0 || total.Held == 0 || total.NotHeld == 0) {
		t.Errorf("something was never injected or never felt: %+v", *total)
	}
}

// The same seed gives the same run, step by step.
func TestDeterminism(t *testing.T) {
	for s := uint64(1000); s < 1005; s++ {
		a, b := scenario(t, s), scenario(t, s)
		if a.Trace != b.Trace || a.Steps != b.Steps {
			t.Errorf("seed %d: %d steps with trace %s, then %d with %s", s, a.Steps, a.Trace, b.Steps, b.Trace)
		}
	}
	if scenario(t, 1).Trace == scenario(t, 2).Trace {
		t.Error("two seeds gave the same trace")
	}
}

// tally counts what happened in the runs.
type tally struct {
	Acknowledged, Indexes, Snapshots, Restores, Resumed, Compacted, Crashes, Kills, PowerCuts, Torn int
	// Told is how many events a watcher has seen, Rescans how often it had to read
	// the data again.
	Told, Rescans int
	// Committed and Conflicts are interactive transactions, Held and NotHeld those of
	// one message by their conditions.
	Committed, Conflicts, Held, NotHeld int
}

func scenario(t *testing.T, seed uint64) sim.Result { return scenarioInto(t, seed, &tally{}) }

// history is what the oracles know of a run, across all lives of the service.
type history struct {
	w *sim.World
	// applied are the entries that were ever handed to the application data.
	applied map[uint64]messages.Entry
	// acked are the operations that were acknowledged, by index.
	acked map[uint64][]byte
	// saved are the snapshots that a saver was told of, and their indexes.
	saved map[string]uint64
	// state is what a watcher knows of the data at revision known.
	state map[string]string
	known uint64
	tally *tally
	// states are the data by index, as far as anybody has asked.
	states []*folded
	// ghosts: the run is over, and what was frozen goes on only to end.
	ghosts bool
}

// observe sees every delivery: entries are immutable once they are applied.
func (h *history) observe(d sim.Delivery) {
	r, ok := d.Message.(*actors.Request)
	if !ok || h.ghosts {
		return
	}
	a, ok := r.Command.(messages.Apply)
	if !ok {
		return
	}
	for _, e := range a.Entries {
		if old, ok := h.applied[e.Index]; ok && (old.Term != e.Term || !bytes.Equal(old.Data, e.Data)) {
			h.w.Fail("entry %d was applied as %q and now as %q", e.Index, old.Data, e.Data)
		}
		h.applied[e.Index] = e
	}
}

// maxCrashes is about how often each actor is crashed at most in one life.
const maxCrashes = 40

// client proposes one operation after the other.
type client struct {
	h    *history
	id   int
	sup  *actor.PID
	rand func(n int) int
	left int
	tag  uint64
	op   messages.Operation
	done chan struct{}
}

type proceed struct{}

func (c *client) Receive(ctx *actor.Context) {
	switch m := ctx.Message().(type) {
	case proceed:
		c.propose(ctx)
	case messages.EntryApplied:
		if c.h.ghosts {
			return
		}
		if m.Tag != c.tag {
			c.h.w.Fail("client %d got a reply to #%d and waits for #%d: a second reply?", c.id, m.Tag, c.tag)
			return
		}
		switch {
		case m.Err == nil:
			c.h.acked[m.Index] = c.op.Encode(nil)
			c.h.tally.Acknowledged++
			c.transacted(m)
		case errors.Is(m.Err, messages.ErrCrashed), errors.Is(m.Err, messages.ErrInDoubt),
			errors.Is(m.Err, messages.ErrUnavailable), errors.Is(m.Err, messages.ErrStopped):
		default:
			c.h.w.Fail("client %d: %v", c.id, m.Err)
		}
		if c.left--; c.left == 0 {
			close(c.done)
			return
		}
		c.propose(ctx)
	}
}

func (c *client) propose(ctx *actor.Context) {
	key := fmt.Appendf(nil, "k%d", c.rand(12))
	switch c.rand(10) {
	case 0:
		c.op = messages.DeleteOperation(key)
	case 1:
		c.op = messages.CompareAndSwapOperation(key, nil, fmt.Appendf(nil, "cas %d/%d", c.id, c.left))
	case 2:
		c.op = indexOperation(c.rand)
	case 3, 4:
		c.op = txnOperation(c.rand, fmt.Appendf(nil, "%d/%d", c.id, c.left))
	default:
		c.op = messages.PutOperation(key, bytes.Repeat(fmt.Appendf(nil, "%d/%d ", c.id, c.left), 1+c.rand(60)))
	}
	c.tag++
	ctx.Send(c.sup, messages.ApplyEntry{Tag: c.tag, Operation: c.op})
}

// transacted compares the outcome of a transaction with what it should be.
func (c *client) transacted(m messages.EntryApplied) {
	if c.op.Kind != messages.OpTxn || m.Result.Err != nil {
		return
	}
	if s := c.h.at(m.Index); s == nil || s.succeeded != m.Result.Succeeded {
		c.h.w.Fail("client %d: the conditions of index %d held: %t, and should: %+v", c.id, m.Index, m.Result.Succeeded, s)
	}
	if m.Result.Succeeded {
		c.h.tally.Held++
	} else {
		c.h.tally.NotHeld++
	}
}

// life is one process of the service: from a directory to its end.
type life struct {
	t       *testing.T
	w       *sim.World
	h       *history
	n       int
	dir     string
	disk    *sim.PowerDisk
	storage *supervisor.Storage
}

func begin(t *testing.T, w *sim.World, h *history, n int, dir string) *life {
	disk, err := sim.NewPowerDisk(dir)
	if err != nil {
		panic(err)
	}
	l := &life{t: t, w: w, h: h, n: n, dir: dir, disk: disk}
	repaired := func(messages.TailRepaired) { h.tally.Torn++ }
	compacted := func(messages.DataFileReplaced) { h.tally.Compacted++ }
	l.storage, err = supervisor.Spawn(w.Engine(), supervisor.Config{
		Dir: dir, Name: fmt.Sprintf("n%d", n), Env: w.Env(),
		Scrub:    actors.ScrubPolicy{BytesPerSecond: -1}, // an endless timer would never be calm
		Log:      raftlog.Options{Disk: disk, SegmentBytes: 4 << 10, OnRepair: repaired},
		Snapshot: snapshot.Options{Disk: disk, BlockBytes: 1 << 10, Concurrency: 1},
		// A compaction takes several deliveries, and there are some in each run.
		KV:      kv.Options{Disk: disk, OnRepair: repaired, OnCompact: compacted, MinGarbageBytes: 2 << 10, MaintainBytes: 256, HistoryBytes: 16 << 10, Funcs: indexFuncs, IndexSliceKeys: 2},
		Restart: actors.RestartPolicy{MaxFailures: 1000},
	})
	if err != nil {
		w.Fail("life %d does not begin: %v", n, err)
		panic(err)
	}
	return l
}

// check compares what the service has with what it should have.
func (l *life) check() {
	// A status waits for nobody; these wait for actors that are just down.
	for _, x := range []struct {
		pid *actor.PID
		c   messages.Command
	}{{l.storage.KV, messages.ReadApplied{}}, {l.storage.Log, messages.ReadBounds{}}, {l.storage.Snapshot, messages.ListSnapshots{}}} {
		if _, err := sim.Ask[messages.Reply](l.w, x.pid, x.c); err != nil {
			l.w.Fail("life %d: %T: %v", l.n, x.c, err)
			return
		}
	}
	st, err := sim.Ask[messages.Status](l.w, l.storage.Supervisor, messages.ReadStatus{})
	if err != nil {
		l.w.Fail("life %d: status: %v", l.n, err)
		return
	}
	// Of the data as clients see it: the supervisor may look at it in the middle
	// of a Restore.
	applied, err := sim.Ask[messages.AppliedRead](l.w, l.storage.KV, messages.ReadApplied{})
	if err != nil {
		l.w.Fail("life %d: applied: %v", l.n, err)
		return
	}
	st.Applied = applied.Index
	for index, op := range l.h.acked {
		if index > st.Applied {
			l.w.Fail("life %d: index %d was acknowledged and %d are applied", l.n, index, st.Applied)
		} else if e, ok := l.h.applied[index]; !ok || !bytes.Equal(e.Data, op) {
			l.w.Fail("life %d: index %d was acknowledged as %q and applied as %q", l.n, index, op, e.Data)
		}
	}
	state := l.h.at(st.Applied)
	if state == nil {
		l.w.Fail("life %d: nobody has seen all entries up to %d applied", l.n, st.Applied)
		return
	}
	want := state.data
	got := map[string]string{}
	s, err := sim.Ask[messages.Scanned](l.w, l.storage.KV, messages.Scan{})
	if err != nil {
		l.w.Fail("life %d: scan: %v", l.n, err)
		return
	}
	for _, p := range s.Pairs {
		got[string(p.Key)] = string(p.Value)
	}
	if !maps.Equal(got, want) {
		l.w.Fail("life %d: the data at index %d is %q, and should be %q", l.n, st.Applied, got, want)
	}
	l.checkIndexes(got)
	var b messages.BoundsRead
	var es messages.RangeRead
	for { // a snapshot that is still being taken may compact the log in between
		b, err = sim.Ask[messages.BoundsRead](l.w, l.storage.Log, messages.ReadBounds{})
		if err == nil {
			es, err = sim.Ask[messages.RangeRead](l.w, l.storage.Log, messages.ReadRange{From: b.Bounds.First, To: b.Bounds.Last + 1, MaxBytes: 1 << 30})
		}
		if !errors.Is(err, messages.ErrCompacted) {
			break
		}
	}
	if err != nil || uint64(len(es.Entries)) != b.Bounds.Last+1-b.Bounds.First {
		l.w.Fail("life %d: read the log: %d entries of %+v, %v", l.n, len(es.Entries), b.Bounds, err)
		return
	}
	for i, e := range es.Entries {
		if want := b.Bounds.First + uint64(i); e.Index != want {
			l.w.Fail("life %d: the log has index %d at %d", l.n, e.Index, want)
		}
	}
	for _, info := range st.Snapshots {
		if info.Index+1 < st.Log.First {
			l.w.Fail("life %d: the log begins at %d, after the snapshot at %d", l.n, st.Log.First, info.Index)
		}
	}
	l.checkSaves()
	for _, a := range st.Actors {
		if a.Requests != a.Replies+uint64(a.Queued) {
			l.w.Fail("life %d: the ledger of %s does not balance: %+v", l.n, a.Name, a)
		}
	}
}

func scenarioInto(t *testing.T, seed uint64, total *tally) sim.Result {
	root := t.TempDir()
	if shm := "/dev/shm"; durable.MkdirAll(durable.OS, shm) == nil {
		// fsync costs nothing there, and what is durable is PowerDisk's to say.
		if dir, err := os.MkdirTemp(shm, "ballast-sim-"); err == nil {
			t.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			root = dir
		}
	}
	h := &history{applied: make(map[uint64]messages.Entry), acked: make(map[uint64][]byte), saved: make(map[string]uint64), state: make(map[string]string), tally: total}
	cfg := sim.Config{Seed: seed, Observe: h.observe}
	return sim.Run(t, cfg, func(w *sim.World) {
		h.w = w
		dir := filepath.Join(root, "0")
		if err := os.Mkdir(dir, 0o755); err != nil {
			panic(err)
		}
		var old []*life
		lives := 2 + w.Rand().IntN(3)
		for n := range lives {
			l := begin(t, w, h, n, dir)
			l.check()
			last := n == lives-1
			l.work(last)
			if last {
				w.Calm()
				l.check()
				old = append(old, l)
				break
			}
			// The process ends in the middle of things.
			w.Calm()
			w.Freeze(fmt.Sprintf("n%d", n))
			old = append(old, l)
			dir = filepath.Join(root, fmt.Sprint(n+1))
			var err error
			if w.Rand().IntN(2) == 0 {
				h.tally.Kills++
				err = sim.CopyDir(l.dir, dir)
			} else {
				h.tally.PowerCuts++
				err = l.disk.Image(dir, w.Rand())
			}
			if err != nil {
				panic(err)
			}
		}
		h.ghosts = true
		for _, l := range old {
			w.Thaw(fmt.Sprintf("n%d", l.n))
			if err := l.storage.Stop(context.Background()); err != nil {
				w.Fail("life %d: stop: %v", l.n, err)
			}
		}
	})
}

// work has clients propose until they are through, or in the middle of it for
// a life that is not the last, while actors crash and snapshots are taken.
func (l *life) work(toTheEnd bool) {
	w := l.w
	clients := 1 + w.Rand().IntN(4)
	each := 5 + w.Rand().IntN(40)
	var all []*client
	for i := range clients {
		c := &client{h: l.h, id: l.n*10 + i, sup: l.storage.Supervisor, left: each, done: make(chan struct{}), rand: w.Rand().IntN}
		all = append(all, c)
		pid := w.Spawn(c, "client", fmt.Sprintf("%d-%d", l.n, i))
		w.Engine().Send(pid, proceed{})
	}
	done := make([]<-chan struct{}, 0, len(all)+1)
	for _, c := range all {
		done = append(done, c.done)
	}
	if w.Rand().IntN(3) > 0 {
		x := &transactor{l: l, left: 3 + w.Rand().IntN(20), done: make(chan struct{}), rand: w.Rand().IntN}
		w.Engine().Send(w.Spawn(x, "transactor", fmt.Sprint(l.n)), proceed{})
		done = append(done, x.done)
	}
	// Swarm: each life has its own mixture of faults. They come to an end, or where
	// all four actors crash every few deliveries one life takes longer than all the
	// others and is always down.
	for _, name := range []string{"log", "kv", "snapshot", "supervisor"} {
		if w.Rand().IntN(2) == 0 {
			rate := 0.002 * float64(1+w.Rand().IntN(10))
			left := 5 + w.Rand().IntN(maxCrashes)
			w.Every(rate, func() {
				if left == 0 {
					return
				}
				left--
				l.h.tally.Crashes++
				if err := l.storage.Crash(name); err != nil {
					panic(err)
				}
			})
		}
	}
	op := w.Spawn(&operator{l: l}, "operator", fmt.Sprint(l.n))
	if w.Rand().IntN(4) > 0 {
		w.Every(0.01, func() { w.Engine().SendWithSender(l.storage.Supervisor, messages.CreateSnapshot{}, op) })
	}
	if w.Rand().IntN(4) == 0 {
		w.Every(0.003, func() { w.Engine().SendWithSender(l.storage.Supervisor, messages.Restore{}, op) })
	}
	if w.Rand().IntN(2) == 0 {
		pid := w.Spawn(&saver{l: l}, "saver", fmt.Sprint(l.n))
		w.Every(0.1, func() { w.Engine().Send(pid, proceed{}) })
	}
	if kind := w.Rand().IntN(4); kind > 0 {
		pid := w.Spawn(&watcher{l: l, state: maps.Clone(l.h.state), known: l.h.known, waits: kind > 1}, "watcher", fmt.Sprint(l.n))
		rate := []float64{0.005, 0.05}[w.Rand().IntN(2)] // slow, and not so slow
		w.Every(rate, func() { w.Engine().Send(pid, proceed{}) })
	}
	stop := make(chan struct{})
	if !toTheEnd { // but at some delivery in the middle
		left := 20 + w.Rand().IntN(1500)
		w.Every(1, func() {
			if left--; left == 0 {
				close(stop)
			}
		})
	}
	for _, d := range done {
		select {
		case <-d:
		case <-stop:
			return
		}
	}
}

// operator takes the replies to snapshots and restores.
type operator struct{ l *life }

func (o *operator) Receive(c *actor.Context) {
	ok := func(err error) bool {
		for _, normal := range []error{messages.ErrNotApplied, messages.ErrConflict, messages.ErrNotFound, messages.ErrCrashed,
			messages.ErrInDoubt, messages.ErrUnavailable, messages.ErrStopped, messages.ErrOverloaded, messages.ErrExpired} {
			if errors.Is(err, normal) {
				return true
			}
		}
		return err == nil
	}
	switch m := c.Message().(type) {
	case messages.SnapshotCreated:
		if m.Err == nil {
			o.l.h.tally.Snapshots++
		}
		if !ok(m.Err) {
			o.l.w.Fail("snapshot: %v", m.Err)
		}
	case messages.Restored:
		if m.Err == nil {
			o.l.h.tally.Restores++
		}
		if !ok(m.Err) {
			o.l.w.Fail("restore: %v", m.Err)
		}
	}
}

// A World tells a run that hangs from one that waits.
func TestDeadlockIsFound(t *testing.T) {
	if os.Getenv("BALLAST_SIM_DEADLOCK") == "" {
		out, err := rerun("TestDeadlockIsFound", "BALLAST_SIM_DEADLOCK=1")
		if err == nil || !strings.Contains(out, "deadlock: nothing was delivered") {
			t.Errorf("a lost reply went unnoticed: %v\n%s", err, out)
		}
		return
	}
	sim.Run(t, sim.Config{Seed: 1}, func(w *sim.World) {
		never := make(chan struct{})
		w.Spawn(&client{h: &history{w: w}}, "client", "1")
		<-never
	})
}

func TestPowerDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := sim.NewPowerDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, s string, sync, syncDir bool) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
		if sync {
			err = d.Sync(f)
		}
		if err = errors.Join(err, f.Close()); err == nil && syncDir {
			err = d.SyncDir(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("kept", "durable", true, true)
	write("nameless", "durable", true, false)
	write("kept", strings.Repeat("not synced ", 200), false, false)
	seen := map[string]bool{}
	for s := range uint64(200) {
		to := t.TempDir()
		if err := d.Image(to, newRand(s)); err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(filepath.Join(to, "kept"))
		if err != nil || !bytes.HasPrefix(kept, []byte("durable")) {
			t.Fatalf("what was synced is gone: %q, %v", kept, err)
		}
		seen[fmt.Sprint("length ", len(kept))] = true
		nameless, err := os.ReadFile(filepath.Join(to, "nameless"))
		seen[fmt.Sprint("name ", err == nil)] = true
		if err == nil && string(nameless) != "durable" {
			t.Fatalf("a synced file holds %q", nameless)
		}
	}
	if len(seen) < 20 || !seen["name true"] || !seen["name false"] {
		t.Errorf("too little variety: %q", slices.Sorted(maps.Keys(seen)))
	}
}
