package actors_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"go.uber.org/goleak"
)

// scripted is a Behavior whose answers the keys of Get commands choose.
type scripted struct {
	h     *actors.Host
	world *scriptedWorld
	held  []*actors.Request
}

// scriptedWorld outlives the behaviors, as a disk does.
type scriptedWorld struct {
	mu       sync.Mutex
	openErr  error
	opened   int
	closed   int
	resolved []string
	messages []any
	release  chan struct{} // "wait" waits for it on a worker
}

func (w *scriptedWorld) setOpenErr(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.openErr = err
}

func (w *scriptedWorld) counts() (opened, closed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened, w.closed
}

func (b *scripted) Open() error {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	b.world.opened++
	return b.world.openErr
}

func (b *scripted) Close() error {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	b.world.closed++
	return nil
}

func (b *scripted) Ready()          {}
func (b *scripted) Message(msg any) { b.world.messages = append(b.world.messages, msg) }
func (b *scripted) Drain() {
	for _, r := range b.held {
		reply(r, "drained")
	}
}

func reply(r *actors.Request, value string) {
	g := r.Command.(messages.Get)
	r.Reply(messages.Got{Tag: g.Tag, Value: []byte(value), Found: true})
}

func (b *scripted) Handle(r *actors.Request) {
	switch key := string(r.Command.(messages.Get).Key); key {
	case "panic":
		panic("on purpose")
	case "panic error":
		panic(errors.New("an error"))
	case "hold":
		b.held = append(b.held, r)
	case "release":
		for _, h := range b.held {
			reply(h, "released")
		}
		b.held = nil
		reply(r, "ok")
	case "job":
		b.h.Run(1, func() func() { return func() { reply(r, "done") } })
	case "wait":
		b.h.Run(0, func() func() { <-b.world.release; return func() { reply(r, "done") } })
	case "job panic":
		b.h.Run(1, func() func() { panic("in a worker") })
	case "timer":
		b.h.After(time.Hour, func() { reply(r, "rang") })
	case "twice":
		reply(r, "first")
		reply(r, "second")
	default:
		reply(r, key)
	}
}

func (b *scripted) Resolve(r *actors.Request, cause error) {
	key := string(r.Command.(messages.Get).Key)
	b.world.resolved = append(b.world.resolved, key)
	switch key {
	case "hold":
		r.Fail(fmt.Errorf("%w: %w", messages.ErrCrashed, cause))
	case "wait":
		r.Keep()
		b.held = append(b.held, r)
	}
}

type rig struct {
	engine *actor.Engine
	host   *actors.Host
	asker  *actors.Asker
	world  *scriptedWorld
	events *events
}

// events is the one subscriber of a test, which lives as long as the engine.
type events struct {
	mu  sync.Mutex
	all []any
}

func (e *events) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case messages.ActorFailed, messages.ActorRecovered, actor.ActorRestartedEvent, actor.DeadLetterEvent:
		e.mu.Lock()
		e.all = append(e.all, m)
		e.mu.Unlock()
	}
}

func count[T any](e *events) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.all {
		if _, ok := m.(T); ok {
			n++
		}
	}
	return n
}

// bubble runs f with a host in a bubble of virtual time, stops the host, and
// checks that nothing is left of it.
func bubble(t *testing.T, cfg actors.Config, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cfg)
		f(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if !r.host.Stopped() {
			if err := r.host.Stop(ctx); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if s := r.host.Status(); s.Requests != s.Replies || s.Queued != 0 || s.QueuedBytes != 0 {
			t.Errorf("the ledger does not balance: %+v", s)
		}
		if n := count[actor.ActorRestartedEvent](r.events); n != 0 {
			t.Errorf("%d panics reached hollywood", n)
		}
		synctest.Wait()
	})
}

func newRig(t *testing.T, cfg actors.Config) *rig {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{engine: engine, asker: actors.NewAsker(engine), world: &scriptedWorld{release: make(chan struct{})}, events: &events{}}
	engine.Subscribe(engine.Spawn(func() actor.Receiver { return r.events }, "events", actor.WithID("1")))
	cfg.Name, cfg.ID = "test", "scripted"
	cfg.New = func(h *actors.Host) actors.Behavior { return &scripted{h: h, world: r.world} }
	if r.host, err = actors.Spawn(engine, cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) get(ctx context.Context, key string) (string, error) {
	g, err := actors.Ask[messages.Got](ctx, r.asker, r.host.PID(), messages.Get{Key: []byte(key)})
	return string(g.Value), err
}

// start asks in the background and returns where the outcome will be.
func (r *rig) start(ctx context.Context, key string) func() (string, error) {
	var v string
	var err error
	done := make(chan struct{})
	go func() {
		v, err = r.get(ctx, key)
		close(done)
	}()
	synctest.Wait()
	return func() (string, error) { <-done; return v, err }
}

// pass lets virtual time go by.
func pass(d time.Duration) { <-time.After(d) }

// The failures on purpose would fill the screen.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

func TestAskIsAnswered(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		for _, c := range []struct{ key, want string }{{"hello", "hello"}, {"job", "done"}, {"twice", "first"}, {"timer", "rang"}, {"after", "after"}} {
			if v, err := r.get(t.Context(), c.key); err != nil || v != c.want {
				t.Errorf("%s: %q, %v; want %q", c.key, v, err, c.want)
			}
		}
	})
}

func TestPanicIsContained(t *testing.T) {
	for _, key := range []string{"panic", "panic error", "job panic"} {
		t.Run(key, func(t *testing.T) {
			bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
				hold := r.start(t.Context(), "hold")
				pid := r.host.PID()
				_, err := r.get(t.Context(), key)
				if !errors.Is(err, messages.ErrInDoubt) {
					t.Errorf("the request that panicked: %v, want ErrInDoubt", err)
				}
				var p *actors.PanicError
				if !errors.As(err, &p) || !strings.Contains(string(p.Stack), "host_test.go") {
					t.Errorf("%v does not carry the panic and its stack", err)
				}
				if _, err := hold(); !errors.Is(err, messages.ErrCrashed) {
					t.Errorf("the request under way: %v, want what Resolve says", err)
				}
				if v, err := r.get(t.Context(), "again"); err != nil || v != "again" || r.host.PID() != pid {
					t.Errorf("afterwards: %q, %v", v, err)
				}
				if opened, closed := r.world.counts(); opened != 2 || closed != 1 {
					t.Errorf("opened %d times and closed %d times", opened, closed)
				}
				synctest.Wait()
				if f, rec := count[messages.ActorFailed](r.events), count[messages.ActorRecovered](r.events); f != 1 || rec != 1 {
					t.Errorf("%d failures and %d recoveries were reported", f, rec)
				}
			})
		})
	}
}

// What is sent while the actor is down waits, in order, and is answered by the
// next behavior.
func TestRequestsWaitWhileDown(t *testing.T) {
	bubble(t, actors.Config{Restart: actors.RestartPolicy{MinBackoff: time.Second, MaxBackoff: time.Second}}, func(t *testing.T, r *rig) {
		crashed := r.start(t.Context(), "panic")
		began := time.Now()
		var answers []func() (string, error)
		for i := range 100 {
			answers = append(answers, r.start(t.Context(), fmt.Sprint(i)))
		}
		if s := r.host.Status(); s.State != messages.StateBackoff || s.Queued != 101 {
			t.Fatalf("while down: %+v", s)
		}
		for i, a := range answers {
			if v, err := a(); err != nil || v != fmt.Sprint(i) {
				t.Errorf("%d: %q, %v", i, v, err)
			}
		}
		if _, err := crashed(); !errors.Is(err, messages.ErrInDoubt) {
			t.Errorf("the one that panicked: %v", err)
		}
		if d := time.Since(began); d < 800*time.Millisecond || d > time.Second {
			t.Errorf("it was down for %v, want 1 s less a jitter of up to a fifth", d)
		}
	})
}

// A job of a behavior that has been replaced can do no harm when it comes back.
func TestLateJobIsFenced(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		waiting := r.start(t.Context(), "wait")
		r.host.Crash(errors.New("on purpose"))
		synctest.Wait()
		pass(time.Minute) // the new Open waits behind the job
		if s := r.host.Status(); s.State != messages.StateOpening {
			t.Fatalf("the new behavior opened beside the old one's job: %+v", s)
		}
		close(r.world.release)
		synctest.Wait()
		if _, err := r.get(t.Context(), "release"); err != nil {
			t.Fatal(err)
		}
		if v, err := waiting(); err != nil || v != "released" {
			t.Errorf("%q, %v: the old job has answered", v, err)
		}
	})
}

func TestUnavailableAndBack(t *testing.T) {
	policy := actors.RestartPolicy{MaxFailures: 3, MinBackoff: time.Millisecond, MaxBackoff: 8 * time.Millisecond, Retry: time.Minute}
	bubble(t, actors.Config{Restart: policy}, func(t *testing.T, r *rig) {
		hold := r.start(t.Context(), "hold")
		r.world.setOpenErr(errors.New("the disk is gone"))
		r.host.Crash(errors.New("first"))
		synctest.Wait()
		queued := r.start(t.Context(), "queued")
		pass(time.Second)
		if _, err := hold(); !errors.Is(err, messages.ErrInDoubt) {
			t.Errorf("a request under way when the actor gave up: %v, want ErrInDoubt", err)
		}
		if _, err := queued(); !errors.Is(err, messages.ErrUnavailable) {
			t.Errorf("a queued request: %v, want ErrUnavailable", err)
		}
		began := time.Now()
		if _, err := r.get(t.Context(), "x"); !errors.Is(err, messages.ErrUnavailable) || time.Since(began) != 0 {
			t.Errorf("a new request: %v after %v, want ErrUnavailable at once", err, time.Since(began))
		}
		if opened, _ := r.world.counts(); opened != 1+3 {
			t.Errorf("opened %d times, want 1 and 3 attempts", opened)
		}
		r.world.setOpenErr(nil)
		pass(time.Minute)
		if v, err := r.get(t.Context(), "back"); err != nil || v != "back" {
			t.Errorf("after the cause is gone: %q, %v", v, err)
		}
	})
}

// Damage is not tried ten times before it is called what it is.
func TestPermanentErrorGivesUpAtOnce(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		r.world.setOpenErr(&messages.CorruptError{Path: "f", Offset: 1})
		r.host.Crash(errors.New("first"))
		pass(time.Second)
		if _, err := r.get(t.Context(), "x"); !errors.Is(err, messages.ErrUnavailable) || !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
		if opened, _ := r.world.counts(); opened != 2 {
			t.Errorf("opened %d times", opened)
		}
	})
}

func TestOverload(t *testing.T) {
	bubble(t, actors.Config{Limits: actors.Limits{Requests: 3, Bytes: 100}}, func(t *testing.T, r *rig) {
		a, b := r.start(t.Context(), "hold"), r.start(t.Context(), "hold")
		if _, err := r.get(t.Context(), strings.Repeat("x", 100)); !errors.Is(err, messages.ErrOverloaded) {
			t.Errorf("over the bytes: %v", err)
		}
		c := r.start(t.Context(), "hold")
		if _, err := r.get(t.Context(), "x"); !errors.Is(err, messages.ErrOverloaded) {
			t.Errorf("over the requests: %v", err)
		}
		if err := r.host.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, f := range []func() (string, error){a, b, c} {
			if v, err := f(); err != nil || v != "drained" {
				t.Errorf("%q, %v", v, err)
			}
		}
	})
	bubble(t, actors.Config{Limits: actors.Limits{Bytes: 10}}, func(t *testing.T, r *rig) {
		if _, err := r.get(t.Context(), strings.Repeat("x", 100)); err != nil {
			t.Errorf("a large command alone: %v", err)
		}
	})
}

func TestStop(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		hold := r.start(t.Context(), "hold")
		if err := r.host.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, err := hold(); err != nil || v != "drained" {
			t.Errorf("under way: %q, %v", v, err)
		}
		if _, err := r.get(t.Context(), "x"); !errors.Is(err, messages.ErrStopped) {
			t.Errorf("afterwards: %v, want ErrStopped", err)
		}
		if opened, closed := r.world.counts(); opened != 1 || closed != 1 {
			t.Errorf("opened %d, closed %d", opened, closed)
		}
		// The name can be used again at once, in the same engine.
		again, err := actors.Spawn(r.engine, actors.Config{Name: "test", ID: "scripted",
			New: func(h *actors.Host) actors.Behavior { return &scripted{h: h, world: r.world} }})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := r.get(t.Context(), "y"); err != nil || v != "y" {
			t.Errorf("after Spawn: %q, %v", v, err)
		}
		if _, err := actors.Spawn(r.engine, actors.Config{Name: "test", ID: "scripted"}); !errors.Is(err, messages.ErrConflict) {
			t.Errorf("a name that is taken: %v", err)
		}
		if err := again.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A deadline on Stop answers what is left.
func TestStopWithDeadline(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		wait := r.start(t.Context(), "wait")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { <-ctx.Done(); pass(time.Second); close(r.world.release) }()
		if err := r.host.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if _, err := wait(); !errors.Is(err, messages.ErrInDoubt) {
			t.Errorf("under way: %v, want ErrInDoubt", err)
		}
		if !r.host.Stopped() {
			t.Error("the disk came back within the grace, and the store is still open")
		}
	})
}

func TestStopWhileDown(t *testing.T) {
	bubble(t, actors.Config{Restart: actors.RestartPolicy{MinBackoff: time.Hour, MaxBackoff: time.Hour}}, func(t *testing.T, r *rig) {
		hold := r.start(t.Context(), "hold")
		r.host.Crash(errors.New("on purpose"))
		synctest.Wait()
		queued := r.start(t.Context(), "queued")
		if err := r.host.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := hold(); !errors.Is(err, messages.ErrInDoubt) {
			t.Errorf("under way: %v", err)
		}
		if _, err := queued(); !errors.Is(err, messages.ErrUnavailable) && !errors.Is(err, messages.ErrStopped) {
			t.Errorf("queued: %v", err)
		}
	})
}

// Somebody who poisons an actor takes nothing away: what was in its inbox is
// answered, and its pid goes on.
func TestPoisonedActorComesBack(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		hold := r.start(t.Context(), "hold")
		<-r.engine.Poison(r.host.PID()).Done()
		var answers []func() (string, error)
		for i := range 100 {
			answers = append(answers, r.start(t.Context(), fmt.Sprint(i)))
		}
		for i, a := range answers {
			if v, err := a(); err != nil || v != fmt.Sprint(i) {
				t.Errorf("%d: %q, %v", i, v, err)
			}
		}
		if _, err := hold(); !errors.Is(err, messages.ErrCrashed) {
			t.Errorf("under way: %v", err)
		}
	})
}

// A recovering actor serves its coordinator alone.
func TestRecovering(t *testing.T) {
	coordinator := actor.NewPID(actor.LocalLookupAddr, "coordinator/1")
	bubble(t, actors.Config{Recover: true, Coordinator: coordinator}, func(t *testing.T, r *rig) {
		var got []any
		r.engine.Spawn(func() actor.Receiver { return receiver(func(c *actor.Context) { got = append(got, c.Message()) }) }, "coordinator", actor.WithID("1"))
		other := r.start(t.Context(), "other")
		r.engine.SendWithSender(r.host.PID(), messages.Get{Tag: 5, Key: []byte("mine")}, coordinator)
		synctest.Wait()
		if g, ok := got[len(got)-1].(messages.Got); !ok || g.Tag != 5 || string(g.Value) != "mine" {
			t.Fatalf("the coordinator got %+v", got)
		}
		r.host.Serve(99) // another incarnation: ignored
		synctest.Wait()
		if s := r.host.Status(); s.State != messages.StateRecovering || s.Queued != 1 {
			t.Fatalf("%+v", s)
		}
		r.host.Serve(1)
		if v, err := other(); err != nil || v != "other" {
			t.Errorf("%q, %v", v, err)
		}
		r.host.Hold()
		synctest.Wait()
		if n, ok := got[len(got)-1].(actors.Notice); !ok || n.State != messages.StateRecovering {
			t.Errorf("after Hold the coordinator got %+v", got[len(got)-1])
		}
	})
}

type receiver func(*actor.Context)

func (f receiver) Receive(c *actor.Context) { f(c) }

func TestAskErrors(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		if _, err := actors.Ask[messages.Got](t.Context(), r.asker, actor.NewPID("local", "no/such"), messages.Get{}); !errors.Is(err, messages.ErrUnavailable) {
			t.Errorf("no such process: %v", err)
		}
		if _, err := actors.Ask[messages.Got](t.Context(), r.asker, nil, messages.Get{}); !errors.Is(err, messages.ErrUnavailable) {
			t.Errorf("nil pid: %v", err)
		}
		if _, err := actors.Ask[messages.PutDone](t.Context(), r.asker, r.host.PID(), messages.Get{Key: []byte("x")}); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("the wrong reply type: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.get(ctx, "hold"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline: %v", err)
		}
	})
}

// A mailbox of the asker's own engine answers an Ask without the registry, across
// failures. A stopped one is asked through the engine, where its name may have a
// new owner.
func TestAskGoesStraightToTheMailbox(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		r.engine.Registry.Remove(r.asker.PID()) // no reply finds it any more
		for range 2 {
			if v, err := r.get(t.Context(), "hello"); err != nil || v != "hello" {
				t.Fatalf("%q, %v", v, err)
			}
			if _, err := r.get(t.Context(), "panic"); !errors.Is(err, messages.ErrInDoubt) {
				t.Fatalf("a panic: %v", err)
			}
		}
		r.engine.SpawnProc(r.asker)
		old := r.host.PID()
		if err := r.host.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.get(t.Context(), "hello"); !errors.Is(err, messages.ErrStopped) {
			t.Errorf("stopped: %v", err)
		}
		cfg := actors.Config{Name: "test", ID: "scripted", New: func(h *actors.Host) actors.Behavior { return &scripted{h: h, world: r.world} }}
		var err error
		if r.host, err = actors.Spawn(r.engine, cfg); err != nil {
			t.Fatal(err)
		}
		if g, err := actors.Ask[messages.Got](t.Context(), r.asker, old, messages.Get{Key: []byte("heir")}); err != nil || string(g.Value) != "heir" {
			t.Errorf("the new owner of the name: %q, %v", g.Value, err)
		}
	})
}

// While a name gets new owners, one after the other, every command to it is
// answered: by one of them, or with ErrStopped.
func TestNoCommandIsLostBetweenTwoOwners(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		name := actor.NewPID(r.host.PID().Address, r.host.PID().ID)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // passes when nothing else is left to do
		defer cancel()
		var asking sync.WaitGroup
		var over atomic.Bool
		for range 4 {
			asking.Go(func() {
				for !over.Load() {
					if _, err := actors.Ask[messages.Got](ctx, r.asker, name, messages.Get{Key: []byte("x")}); err != nil && !errors.Is(err, messages.ErrStopped) {
						t.Error(err)
						return
					}
				}
			})
		}
		cfg := actors.Config{Name: "test", ID: "scripted", New: func(h *actors.Host) actors.Behavior { return &scripted{h: h, world: r.world} }}
		for range 5000 {
			err := r.host.Stop(t.Context())
			if err == nil {
				r.host, err = actors.Spawn(r.engine, cfg)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		over.Store(true)
		asking.Wait()
	})
}

// An asker outlives many owners of a name, and holds none of those that have gone.
func TestAskerHoldsNoStoppedActor(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		var gone []weak.Pointer[scripted]
		for i := range 8 {
			cfg := actors.Config{Name: "test", ID: "heir", New: func(h *actors.Host) actors.Behavior {
				b := &scripted{h: h, world: r.world}
				gone = append(gone, weak.Make(b))
				return b
			}}
			h, err := actors.Spawn(r.engine, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if g, err := actors.Ask[messages.Got](t.Context(), r.asker, h.PID(), messages.Get{Key: []byte("x")}); err != nil {
				t.Fatalf("%d: %v, %v", i, g, err)
			}
			if err := h.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		held := gone[:len(gone)-1] // the last one still answers that it is stopped
		for try := 0; try < 100 && len(held) > 0; try++ {
			runtime.GC()
			held = slices.DeleteFunc(held, func(p weak.Pointer[scripted]) bool { return p.Value() == nil })
		}
		if len(held) > 0 {
			t.Errorf("%d stopped actors are held", len(held))
		}
		runtime.KeepAlive(r.asker)
	})
}

// What is left of a call that gave up is nobody else's reply.
func TestAskGivesUp(t *testing.T) {
	bubble(t, actors.Config{}, func(t *testing.T, r *rig) {
		var late sync.WaitGroup
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			late.Go(func() {
				if _, err := r.get(ctx, "hold"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("held: %v", err)
				}
			})
		}
		late.Wait()
		close(r.world.release) // all of them are answered now
		for i := range 200 {
			key := fmt.Sprint("key ", i)
			if v, err := r.get(t.Context(), key); err != nil || v != key {
				t.Fatalf("%q, %v; want %q", v, err, key)
			}
		}
		r.asker.Close()
		if _, err := r.get(t.Context(), "closed"); !errors.Is(err, messages.ErrStopped) {
			t.Errorf("closed: %v", err)
		}
	})
}

// A million messages from eight senders: every one is answered, what waits
// never exceeds the limit, and nothing is left.
func TestStampede(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("github.com/anthdm/hollywood/actor.(*Inbox).process"))
	r := newRig(t, actors.Config{Limits: actors.Limits{Requests: 1000}})
	const senders, each = 8, 125_000
	var replies, overloaded atomic.Int64
	done := make(chan struct{})
	collector := r.engine.Spawn(func() actor.Receiver {
		return receiver(func(c *actor.Context) {
			if g, ok := c.Message().(messages.Got); ok {
				if errors.Is(g.Err, messages.ErrOverloaded) {
					overloaded.Add(1)
				}
				if replies.Add(1) == senders*each {
					close(done)
				}
			}
		})
	}, "collector", actor.WithID("1"))
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for i := range each {
				r.engine.SendWithSender(r.host.PID(), messages.Get{Tag: uint64(i), Key: []byte("k")}, collector)
				if i%1000 == 0 {
					if s := r.host.Status(); s.Queued > 1000 {
						t.Errorf("%d wait", s.Queued)
					}
				}
			}
		})
	}
	wg.Wait()
	<-done
	if err := r.host.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := r.host.Status()
	if s.Requests != s.Replies || s.Requests+s.Refused != senders*each || s.Refused != uint64(overloaded.Load()) {
		t.Errorf("%d sent, %d refused as overloaded; %+v", senders*each, overloaded.Load(), s)
	}
}

func TestRestartPolicyValidate(t *testing.T) {
	err := actors.RestartPolicy{Window: -1, MaxFailures: -1, MinBackoff: time.Minute, MaxBackoff: time.Second}.Validate()
	for _, want := range []string{"Window", "MaxFailures", "MaxBackoff"} {
		if !errors.Is(err, messages.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if err := (actors.RestartPolicy{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}
