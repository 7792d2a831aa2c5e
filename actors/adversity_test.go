package actors_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// script is a Behavior made of functions; nil ones do nothing.
type script struct {
	open    func() error
	handle  func(r *actors.Request)
	resolve func(r *actors.Request)
	close   func()
}

func (b *script) Ready()      {}
func (b *script) Message(any) {}
func (b *script) Drain()      {}

func (b *script) Open() error {
	if b.open != nil {
		return b.open()
	}
	return nil
}

func (b *script) Handle(r *actors.Request) {
	if b.handle != nil {
		b.handle(r)
	}
}

func (b *script) Resolve(r *actors.Request, _ error) {
	if b.resolve != nil {
		b.resolve(r)
	}
}

func (b *script) Close() error {
	if b.close != nil {
		b.close()
	}
	return nil
}

func spawnScript(t *testing.T, cfg actors.Config, f func(h *actors.Host) *script) (*actor.Engine, *actors.Host, *actors.Asker) {
	t.Helper()
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Name, cfg.ID = "test", "script"
	cfg.New = func(h *actors.Host) actors.Behavior { return f(h) }
	h, err := actors.Spawn(engine, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return engine, h, actors.NewAsker(engine)
}

func getKey(ctx context.Context, a *actors.Asker, pid *actor.PID, key string) error {
	_, err := actors.Ask[messages.Got](ctx, a, pid, messages.Get{Key: []byte(key)})
	return err
}

// A Stop that comes while an unavailable actor is being tried again closes what
// that attempt has opened.
func TestStopWhileTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened, closed atomic.Int32
		var slow atomic.Bool
		release := make(chan struct{})
		_, h, _ := spawnScript(t, actors.Config{}, func(*actors.Host) *script {
			return &script{
				open: func() error {
					if slow.Load() {
						<-release
					}
					opened.Add(1)
					return nil
				},
				close: func() { closed.Add(1) },
			}
		})
		if err := h.Opened(t.Context()); err != nil {
			t.Fatal(err)
		}
		slow.Store(true)
		h.GiveUp(errors.New("given up"))
		pass(time.Minute) // past Retry: Open is under way
		stopped := make(chan error, 1)
		go func() { stopped <- h.Stop(context.Background()) }()
		synctest.Wait()
		close(release)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if opened.Load() != 2 || closed.Load() != 2 {
			t.Errorf("opened %d times and closed %d times", opened.Load(), closed.Load())
		}
	})
}

// An actor that fails again while it resolves what was under way is down, and
// serves nobody until it has been opened once more.
func TestResolveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resolved := 0
		_, h, a := spawnScript(t, actors.Config{Restart: actors.RestartPolicy{MinBackoff: time.Second}}, func(h *actors.Host) *script {
			return &script{
				handle: func(r *actors.Request) {
					if string(r.Command.(messages.Get).Key) != "slow" {
						reply(r, "ok")
					}
				},
				resolve: func(r *actors.Request) {
					if resolved++; resolved == 1 {
						r.Keep()
						h.Fail(errors.New("the disk is gone again"))
						return
					}
					reply(r, "resolved")
				},
			}
		})
		slow := make(chan error, 1)
		go func() { slow <- getKey(t.Context(), a, h.PID(), "slow") }()
		synctest.Wait()
		h.Crash(errors.New("first"))
		pass(1100 * time.Millisecond)
		if s := h.Status(); s.State != messages.StateBackoff {
			t.Errorf("%+v", s)
		}
		if err := getKey(t.Context(), a, h.PID(), "good"); err != nil {
			t.Error(err)
		}
		if err := <-slow; err != nil {
			t.Error(err)
		}
		if err := h.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// An Open that panics is an error of the first Open as well.
func TestOpenPanics(t *testing.T) {
	_, h, _ := spawnScript(t, actors.Config{}, func(*actors.Host) *script {
		return &script{open: func() error { panic("in Open") }}
	})
	var p *actors.PanicError
	if err := h.Opened(t.Context()); !errors.As(err, &p) {
		t.Errorf("got %v", err)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// poisonous is a store in which reading one key panics.
type poisonous struct{ kv.Store }

func (p poisonous) Get(g uint64, key []byte) ([]byte, uint64, error) {
	if string(key) == "poison" {
		panic("a bug that one key finds")
	}
	return p.Store.Get(g, key)
}

// A request that fails the actor each time it is done again is given up before
// it takes the actor from everybody.
func TestPoisonousRead(t *testing.T) {
	r := newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		a, err := actors.SpawnKV(engine, actors.KVConfig{
			Config: actors.Config{Name: "test", ID: "kv"},
			Open: func() (kv.Store, error) {
				s, err := kv.Open(r.dir, kv.Options{})
				return poisonous{s}, err
			},
		})
		return a.Host, err
	})
	defer r.close()
	if _, err := do[messages.Got](r, messages.Get{Key: []byte("poison")}); !errors.Is(err, messages.ErrInDoubt) {
		t.Errorf("got %v", err)
	}
	must[messages.Got](r, messages.Get{Key: []byte("good")})
}

// Somebody else's pill beside Stop does not keep it from ending.
func TestPoisonBesideStop(t *testing.T) {
	for i := range 100 {
		engine, h, _ := spawnScript(t, actors.Config{}, func(*actors.Host) *script { return &script{} })
		if err := h.Opened(t.Context()); err != nil {
			t.Fatal(err)
		}
		go engine.Poison(h.PID())
		for range i % 7 {
			runtime.Gosched()
		}
		if err := h.Stop(t.Context()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

// A Stop whose context has ended already tells those that had begun from those
// that had not: ErrStopped means that nothing was done.
func TestStopTellsWhatHadBegun(t *testing.T) {
	const n = 1000
	for range 10 {
		var handled [n]atomic.Bool
		_, h, a := spawnScript(t, actors.Config{}, func(h *actors.Host) *script {
			return &script{handle: func(r *actors.Request) {
				i, err := strconv.Atoi(string(r.Command.(messages.Get).Key))
				if err != nil {
					panic(err)
				}
				handled[i].Store(true)
				h.Run(1, func() func() { return func() { reply(r, "ok") } })
			}}
		})
		if err := h.Opened(t.Context()); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				err := getKey(t.Context(), a, h.PID(), fmt.Sprint(i))
				if errors.Is(err, messages.ErrStopped) && !errors.Is(err, messages.ErrInDoubt) && handled[i].Load() {
					t.Errorf("%d had begun, and was answered %v", i, err)
				}
			})
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		// Stop may end in the same instant as its context has: both are true.
		if err := h.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("stop: %v", err)
		}
		wg.Wait()
	}
}
