package sim

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
)

// Config of a run.
type Config struct {
	// Seed chooses the run.
	Seed uint64
	// MaxSteps fails a run that takes more deliveries. Default 1,000,000.
	MaxSteps int
	// MaxIdle is the virtual time after which a run in which nothing can be
	// delivered, and the driver has not returned, has deadlocked. Default 10
	// minutes, which is longer than any timeout of Ballast.
	MaxIdle time.Duration
	// Observe is called before every delivery, in the scheduler. It must not
	// block.
	Observe func(Delivery)
}

// Delivery is one message that an actor is about to handle.
type Delivery struct {
	Step    int
	Time    time.Duration // since the start of the run
	To      *actor.PID
	Message any
}

// Result of a run.
type Result struct {
	Steps int
	// Time is the virtual time that has passed.
	Time time.Duration
	// Trace is the SHA-256 of the sequence of deliveries, in hex.
	Trace string
}

// World is a run in progress.
type World struct {
	t      *testing.T
	cfg    Config
	engine *actor.Engine
	rand   *rand.Rand
	began  time.Time

	mu     sync.Mutex
	gates  []*gate
	timers []*timer
	seq    uint64
	asked  uint64
	frozen []string

	steps  int
	trace  hash.Hash
	recent []string // the last deliveries, for a failure
	faults []fault
	over   bool
}

// gate is an actor that waits to handle a message.
type gate struct {
	pid  *actor.PID
	msg  any
	seq  uint64
	open chan struct{}
}

type timer struct {
	at  time.Time
	seq uint64
	f   func()
}

type fault struct {
	chance float64
	f      func()
}

// Run runs driver in a World. The driver sets the actors up, waits for what it
// wants to see and stops what it has started; it runs in a goroutine of its own
// while the scheduler delivers. Use t's Errorf in it, or panic.
func Run(t *testing.T, cfg Config, driver func(w *World)) (res Result) {
	t.Helper()
	if cfg.MaxSteps == 0 {
		cfg.MaxSteps = 1_000_000
	}
	if cfg.MaxIdle == 0 {
		cfg.MaxIdle = 10 * time.Minute
	}
	synctest.Test(t, func(t *testing.T) {
		engine, err := actor.NewEngine(actor.NewEngineConfig())
		if err != nil {
			t.Fatal(err)
		}
		w := &World{t: t, cfg: cfg, engine: engine, began: time.Now(), trace: sha256.New(),
			rand: rand.New(rand.NewPCG(cfg.Seed, 0x62616c6c617374))}
		done := make(chan any, 1)
		go func() {
			defer func() { done <- recover() }()
			driver(w)
		}()
		w.run(done)
		res = Result{w.steps, time.Since(w.began), hex.EncodeToString(w.trace.Sum(nil))}
	})
	return res
}

// Engine is the engine that the actors are spawned in.
func (w *World) Engine() *actor.Engine { return w.engine }

// Rand is the run's source of chance, for the driver before the first delivery
// and for faults and observers. It is not safe for concurrent use.
func (w *World) Rand() *rand.Rand { return w.rand }

// Env is the environment for Ballast's actors.
func (w *World) Env() actors.Env {
	return actors.Env{
		Now:        time.Now,
		After:      w.after,
		Chance:     w.chance,
		Middleware: []actor.MiddlewareFunc{w.middleware},
		Burst:      1,
	}
}

func (w *World) chance() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.Float64()
}

// Spawn starts an actor of the user's in the World. The id must be fixed: one
// that hollywood makes up differs from run to run.
func (w *World) Spawn(r actor.Receiver, kind, id string) *actor.PID {
	return w.engine.Spawn(func() actor.Receiver { return r }, kind, actor.WithID(id), actor.WithMiddleware(w.middleware))
}

// Every calls f between deliveries, before each with the given chance.
func (w *World) Every(chance float64, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fault{chance, f})
}

// Calm ends the faults.
func (w *World) Calm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = nil
}

// Freeze stops every actor whose pid begins with name and a slash, as if its
// process had been killed: what is under way ends, and nothing more is handled
// until Thaw.
func (w *World) Freeze(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = append(w.frozen, name+"/")
}

// Thaw lets the actors go on, so that they can be stopped properly.
func (w *World) Thaw(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = slices.DeleteFunc(w.frozen, func(s string) bool { return s == name+"/" })
}

// middleware is the gate in front of every actor.
func (w *World) middleware(next actor.ReceiveFunc) actor.ReceiveFunc {
	return func(c *actor.Context) {
		g := &gate{pid: c.PID(), msg: c.Message(), open: make(chan struct{})}
		w.mu.Lock()
		w.seq++
		g.seq = w.seq
		if w.over {
			close(g.open)
		} else {
			w.gates = append(w.gates, g)
		}
		w.mu.Unlock()
		<-g.open
		next(c)
	}
}

// after is the timer service: timers fire one at a time, in the order of their
// times and then of their setting. Go's own fire in any order when their times
// are equal.
func (w *World) after(d time.Duration, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	w.timers = append(w.timers, &timer{time.Now().Add(d), w.seq, f})
}

// run is the scheduler. It returns when the driver has.
func (w *World) run(done <-chan any) {
	idleSince := time.Now()
	for {
		synctest.Wait()
		select {
		case v := <-done:
			w.end()
			if v != nil {
				w.t.Errorf("the driver panicked: %v\n%s", v, w.story())
			}
			return
		default:
		}
		switch {
		case len(w.ready()) > 0:
			idleSince = time.Now()
			w.inject()
			if ready := w.ready(); len(ready) > 0 { // unless a fault has frozen it
				w.deliver(ready[w.Rand().IntN(len(ready))])
			}
		case time.Since(idleSince) > w.cfg.MaxIdle:
			w.t.Errorf("deadlock: nothing was delivered for %v of virtual time\n%s", w.cfg.MaxIdle, w.story())
			w.end()
			w.t.FailNow()
		default:
			w.pass()
		}
		if w.steps > w.cfg.MaxSteps {
			w.t.Errorf("more than %d steps\n%s", w.cfg.MaxSteps, w.story())
			w.end()
			w.t.FailNow()
		}
	}
}

func (w *World) inject() {
	w.mu.Lock()
	faults := slices.Clone(w.faults)
	w.mu.Unlock()
	for _, f := range faults {
		if w.chance() < f.chance {
			f.f()
			synctest.Wait()
		}
	}
}

// ready lists the actors at a gate. Which of them came first is not known to be
// the same in two runs, so they are put in the order of their pids.
func (w *World) ready() (ready []*gate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.gates {
		if !slices.ContainsFunc(w.frozen, func(name string) bool { return strings.HasPrefix(g.pid.ID, name) }) {
			ready = append(ready, g)
		}
	}
	slices.SortFunc(ready, func(a, b *gate) int {
		return cmp.Or(cmp.Compare(a.pid.ID, b.pid.ID), cmp.Compare(a.seq, b.seq))
	})
	return ready
}

func (w *World) deliver(g *gate) {
	w.mu.Lock()
	w.gates = slices.DeleteFunc(w.gates, func(o *gate) bool { return o == g })
	w.mu.Unlock()
	w.steps++
	d := Delivery{w.steps, time.Since(w.began), g.pid, g.msg}
	line := fmt.Sprintf("%6d %12v %-28s %s", d.Step, d.Time, d.To.ID, actors.Describe(d.Message))
	fmt.Fprintln(w.trace, line)
	if len(w.recent) == 60 {
		w.recent = w.recent[1:]
	}
	w.recent = append(w.recent, line)
	if w.cfg.Observe != nil {
		w.cfg.Observe(d)
	}
	close(g.open)
}

// pass lets time go on to the next timer, or by a second for timers that are
// not the World's.
func (w *World) pass() {
	w.mu.Lock()
	slices.SortFunc(w.timers, func(a, b *timer) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.seq, b.seq)) })
	var due *timer
	if len(w.timers) > 0 && time.Until(w.timers[0].at) <= time.Second {
		due = w.timers[0]
		w.timers = w.timers[1:]
	}
	w.mu.Unlock()
	if due == nil {
		time.Sleep(time.Second)
		return
	}
	time.Sleep(time.Until(due.at))
	due.f()
}

// end opens every gate for good: what is left ends by itself, within the
// second that buntdb's background goroutine takes to notice that it is closed.
func (w *World) end() {
	w.mu.Lock()
	w.over = true
	gates := w.gates
	w.gates, w.timers = nil, nil
	w.mu.Unlock()
	for _, g := range gates {
		close(g.open)
	}
	time.Sleep(3 * time.Second)
	synctest.Wait()
}

// story is what a failure needs: the seed and the last deliveries.
func (w *World) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, step %d; the last deliveries:\n%s\n", w.cfg.Seed, w.steps, strings.Join(w.recent, "\n"))
	for _, g := range w.gates {
		fmt.Fprintf(&b, "waiting at its gate: %s %s\n", g.pid.ID, actors.Describe(g.msg))
	}
	return b.String()
}

// Fail fails the run with the seed and the last deliveries.
func (w *World) Fail(format string, args ...any) {
	w.t.Errorf("%s\n%s", fmt.Sprintf(format, args...), w.story())
}
