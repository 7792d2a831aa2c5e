package log_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
)

// crashRun drives a log through everything that it does, while a recorder
// follows.
type crashRun struct {
	t       *testing.T
	rng     *rand.Rand
	dir     string
	rec     *crashtest.Recorder
	options raftlog.Options
	w       *raftlog.WAL
	m       *model
	seen    map[string]int // what the runs have had
	lazy    bool           // most batches are written, and not synced
	promise
}

// change carries a change out on the log and on the model.
func (c *crashRun) change(what string, position uint64, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	if position != 0 {
		c.positions = append(c.positions, position)
		c.states = append(c.states, c.m.state())
	}
}

func (c *crashRun) append(id uint64, hs bool, sizes ...int) {
	c.t.Helper()
	g := c.m.get(id)
	es := make([]messages.Entry, len(sizes))
	for i, n := range sizes {
		data := make([]byte, n)
		for k := range data {
			data[k] = byte(c.rng.Uint32()>>8) | 1 // never mistaken for what is not there
		}
		es[i] = messages.Entry{Index: g.last() + 1 + uint64(i), Term: g.lastTerm() + uint64(c.rng.IntN(2)), Data: data}
		if i > 0 {
			es[i].Term = es[0].Term
		}
		if c.rng.IntN(4) == 0 {
			es[i].Type = uint8(c.rng.IntN(3))
		}
	}
	var h *messages.HardState
	if hs {
		h = &messages.HardState{Term: g.hard.Term + uint64(c.rng.IntN(2)), Vote: uint64(c.rng.IntN(3)), Commit: g.last()}
	}
	if err := c.m.append(id, es, h); err != nil {
		c.t.Fatal(err)
	}
	position, err := c.w.Append(id, es, h)
	c.change("append", position, err)
}

func (c *crashRun) truncateFrom(id, index uint64) {
	c.t.Helper()
	if changed, err := c.m.truncateFrom(id, index); err != nil || !changed {
		return
	}
	position, err := c.w.TruncateFrom(id, index)
	c.change("truncateFrom", position, err)
}

func (c *crashRun) truncateBefore(id, index uint64) {
	c.t.Helper()
	if changed, err := c.m.truncateBefore(id, index); err != nil || !changed {
		return
	}
	position, err := c.w.TruncateBefore(id, index)
	c.change("truncateBefore", position, err)
}

func (c *crashRun) reset(id, index, term uint64) {
	c.t.Helper()
	c.m.reset(id, index, term)
	position, err := c.w.Reset(id, index, term)
	c.change("reset", position, err)
}

func (c *crashRun) set(id uint64, name string, value []byte) {
	c.t.Helper()
	c.m.set(id, name, value)
	position, err := c.w.SetStable(id, name, value)
	c.change("set", position, err)
}

// sync carries out what is staged.
func (c *crashRun) sync() {
	c.t.Helper()
	carryOut, what := c.w.Sync, "sync returned"
	if c.lazy && c.rng.IntN(3) > 0 {
		carryOut, what = c.w.Write, "write returned"
	}
	if _, err := carryOut(); err != nil {
		c.t.Fatal(err)
	}
	if c.acknowledged = c.w.Durable(); c.acknowledged < c.w.Written() {
		c.seen["lazy"]++
	}
	c.rec.Look(what)
}

// stage stages a few random changes. Group 0 is busy and compacted, group 1
// lags behind with a few entries, group 2 is cut back, reset and written anew.
func (c *crashRun) stage() {
	for range 1 + c.rng.IntN(3) {
		switch k := c.rng.IntN(16); {
		case k < 7:
			sizes := make([]int, 1+c.rng.IntN(3))
			for i := range sizes {
				sizes[i] = c.rng.IntN(60)
			}
			c.append(0, k == 0, sizes...)
		case k < 10:
			g := c.m.get(0)
			c.truncateBefore(0, g.last()+1-uint64(c.rng.IntN(2)))
		case k == 10:
			c.append(1, c.rng.IntN(2) == 0, c.rng.IntN(30))
			if g := c.m.get(1); len(g.entries) > 6 {
				c.truncateBefore(1, g.first()+2)
			}
		case k == 11:
			g := c.m.get(2)
			if c.append(2, false, 20, 0, 30); len(g.entries) > 4 {
				c.truncateFrom(2, g.last()-3)
				c.append(2, false, 10)
			}
		case k == 12:
			g := c.m.get(2)
			switch c.rng.IntN(3) {
			case 0:
				c.reset(2, g.last()+2, g.lastTerm()+1)
			case 1:
				c.reset(2, 1, g.lastTerm()) // backwards
			default:
				c.truncateBefore(2, g.last()+1)
			}
		case k == 13:
			c.append(0, true, 300+c.rng.IntN(500)) // more than a segment
		default:
			id := uint64(c.rng.IntN(3))
			var value []byte
			if c.rng.IntN(3) > 0 {
				value = make([]byte, c.rng.IntN(20))
			}
			c.set(id, stableNames[c.rng.IntN(2)], value)
		}
	}
}

// maintain maintains the log; while it is about it, more is staged, and synced
// in the midst of it.
func (c *crashRun) maintain() {
	c.t.Helper()
	busy := false
	c.rec.Inside = func(_, path string) {
		if busy || c.rng.IntN(4) != 0 {
			return
		}
		busy = true
		defer func() { busy = false }()
		c.stage()
		// A Sync that overflows the tail waits for whoever prepares the next
		// segment, which may be this very call.
		if filepath.Base(path) == "MARK" || strings.HasPrefix(filepath.Base(path), "MANIFEST") || filepath.Base(path) == "SUMMARY" {
			c.sync()
		}
	}
	defer func() { c.rec.Inside = nil }()
	for c.w.Due() {
		sync, err := c.w.Maintain()
		if err != nil {
			c.t.Fatal(err)
		}
		c.rec.Look("maintain returned")
		// What has been moved may be cut away before it is durable.
		if sync {
			if c.rng.IntN(2) == 0 {
				g := c.m.get(1 + uint64(c.rng.IntN(2)))
				if len(g.entries) > 1 {
					if c.rng.IntN(2) == 0 {
						c.truncateFrom(1, c.m.get(1).last())
					} else {
						c.truncateBefore(2, c.m.get(2).first()+1)
					}
				}
			}
			c.sync()
		}
	}
}

func (c *crashRun) reopen() {
	c.t.Helper()
	c.sync() // what was staged beside the maintenance
	if err := c.w.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.acknowledged = c.w.Written()
	c.rec.Look("closed")
	c.count()
	c.options.VerifyAll = c.rng.IntN(3) == 0
	c.open()
}

// count notes what there is in a log that was closed.
func (c *crashRun) count() {
	c.t.Helper()
	r, err := raftlog.Inspect(c.dir)
	if err != nil || len(r.Damage) > 0 {
		c.t.Fatal(err, r.Damage)
	}
	for _, s := range r.Segments {
		for kind, n := range s.Kinds {
			c.seen[kind] += n
		}
		if s.Recycled {
			c.seen["recycled"]++
		}
	}
}

func (c *crashRun) open() {
	c.t.Helper()
	o := c.options
	o.Disk = c.rec
	w, err := raftlog.Open(c.dir, o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.w = w
	c.rec.Look("opened")
}

// TestEveryCrash records runs with everything that a log does, and rebuilds
// what a power cut could leave after each operation on the file system: what
// was not synced is lost, or torn, or there in any subset of its blocks and of
// its names. Each of these images must open and hold what was acknowledged, and
// go on from there; some are cut off once more while they are recovered.
func TestEveryCrash(t *testing.T) {
	root := memory(t)
	pool := crashtest.NewPool(root)
	pool.Every = crashtest.UnderRace
	var twice, torn atomic.Int64
	// try checks an image. wait says to do it here, and not on a worker.
	var try func(c *crashed, wait bool) error
	try = func(c *crashed, wait bool) error {
		check := func(dir string) error {
			if c.twice {
				twice.Add(1)
			}
			o := raftlog.Options{SegmentBytes: 200, NoLock: true, MaxOpenFiles: 4}
			repaired, err := c.check(dir, o, func(c *crashed) error { return try(c, true) })
			if repaired {
				torn.Add(1)
			}
			if err != nil {
				return fmt.Errorf("image %d, acknowledged %d: %w", c.number, c.acknowledged, err)
			}
			return nil
		}
		if wait {
			return pool.Do(c.Image, c.acknowledged, check)
		}
		pool.Go(c.Image, c.acknowledged, check)
		return nil
	}
	events := 0
	seen := map[string]int{}
	for run := *crashFirst; run < *crashFirst+*crashRuns; run++ {
		c := &crashRun{t: t, rng: rand.New(rand.NewPCG(run, 1)), dir: filepath.Join(root, fmt.Sprint("run-", run)), seen: seen,
			m: &model{groups: map[uint64]*modelGroup{}}, promise: promise{states: []string{""}},
			options: raftlog.Options{SegmentBytes: 120 + 60*int(run%4), NoLock: true, MaxOpenFiles: 4}}
		if run%2 == 1 {
			c.options.RecycleBytes = 1
		}
		c.lazy = run%4 >= 2
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if c.rec, err = crashtest.Record(c.dir); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(run, 2))
		number := 0
		c.rec.Event = func(what string) {
			seen[strings.Fields(what)[0]]++
			events++
			c.rec.Images(fmt.Sprintf("run %d, event %d, %s", run, events, what), rng, 1, func(m *crashtest.Image) {
				number++
				if err := try(&crashed{Image: m, promise: c.promise, number: number, twice: number%401 == 0}, false); err != nil {
					t.Error(err)
				}
			})
		}
		c.open()
		for round := range *crashRounds {
			c.stage()
			if c.rng.IntN(3) == 0 {
				c.maintain() // with changes staged and not synced
				c.stage()
			}
			c.sync()
			if c.rng.IntN(2) == 0 {
				c.maintain()
			}
			if round%9 == 8 {
				c.reopen()
			}
			if pool.Failed() {
				break
			}
		}
		c.sync()
		if err := c.w.Close(); err != nil {
			t.Error(err)
		}
		c.count()
		if err := c.rec.Err(); err != nil {
			t.Error(err)
		}
	}
	if err := pool.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d images after %d operations, %d cut off again, %d torn writes repaired; %v", pool.Checked(), events, twice.Load(), torn.Load(), seen)
	for _, what := range []string{"sync", "rename", "remove", "relocated", "checkpoint", "recycled", "lazy"} {
		if seen[what] == 0 {
			t.Errorf("no %s in any run", what)
		}
	}
	if torn.Load() == 0 {
		t.Error("nothing was torn")
	}
}

// For a longer search: go test ./log -run TestEveryCrash -crash.runs 50 -crash.rounds 60
var (
	crashFirst  = flag.Uint64("crash.first", 0, "seed of the first run that TestEveryCrash records")
	crashRuns   = flag.Uint64("crash.runs", 4, "how many runs TestEveryCrash records")
	crashRounds = flag.Int("crash.rounds", 12, "how many syncs each of them has")
)
