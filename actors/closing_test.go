package actors_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// gated is a log whose Sync, Maintain and Close a test carries out in part.
type gated struct {
	*raftlog.WAL
	due      atomic.Bool // Maintain is due whatever the log says
	sync     func() (int, error)
	maintain func() (bool, error)
	close    func() error
	poisoned atomic.Bool
	refuses  atomic.Bool // truncations, as a poisoned log does
	damage   []raftlog.Damage
}

func (g *gated) Due() bool { return g.due.Load() || g.maintain == nil && g.WAL.Due() }

func (g *gated) Sync() (int, error) {
	if g.sync != nil {
		return g.sync()
	}
	return g.WAL.Sync()
}

func (g *gated) Maintain() (bool, error) {
	if g.due.Store(false); g.maintain != nil {
		return g.maintain()
	}
	return g.WAL.Maintain()
}

func (g *gated) Damaged() []raftlog.Damage {
	d := g.damage
	g.damage = nil
	return append(d, g.WAL.Damaged()...)
}

func (g *gated) Close() error {
	if g.close != nil {
		if err := g.close(); err != nil {
			return err
		}
	}
	return g.WAL.Close()
}

func (g *gated) TruncateBefore(group, index uint64) (uint64, error) {
	if g.poisoned.Load() || g.refuses.Load() {
		return 0, fmt.Errorf("%w: %w", raftlog.ErrPoisoned, syscall.EIO)
	}
	return g.WAL.TruncateBefore(group, index)
}

func (g *gated) Poisoned() bool { return g.poisoned.Load() || g.WAL.Poisoned() }

// gatedRig is a log actor in a bubble, over stores that prepare has made ready:
// it gets each one before it is opened, and how many there were before.
type gatedRig struct {
	log    *actors.Log
	asker  *actors.Asker
	mu     sync.Mutex
	events []any
}

// f gets what starts it, because channels must be made in the bubble.
func inBubble(t *testing.T, f func(t *testing.T, start func(prepare prepare) *gatedRig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var r *gatedRig
		f(t, func(prepare prepare) *gatedRig {
			r = newGatedRig(t, filepath.Join(dir, "log"), prepare)
			return r
		})
		if !r.log.Stopped() {
			if err := r.log.Stop(t.Context()); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if s := r.log.Status(); s.Requests != s.Replies || s.Queued != 0 {
			t.Errorf("the ledger does not balance: %+v", s)
		}
		r.asker.Close()
		synctest.Wait()
	})
}

type prepare func(n int, o *raftlog.Options, g *gated)

func newGatedRig(t *testing.T, dir string, prepare prepare) *gatedRig {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	r := &gatedRig{asker: actors.NewAsker(engine)}
	engine.Subscribe(engine.SpawnFunc(func(c *actor.Context) {
		if strings.HasPrefix(fmt.Sprintf("%T", c.Message()), "messages.") {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, c.Message())
		}
	}, "events", actor.WithID("1")))
	opened := 0
	r.log, err = actors.SpawnLog(engine, actors.LogConfig{
		Config: actors.Config{Name: "gated", ID: "log"},
		Scrub:  actors.ScrubPolicy{BytesPerSecond: -1},
		Open: func() (raftlog.Store, error) {
			g := &gated{}
			var o raftlog.Options
			prepare(opened, &o, g)
			opened++
			var err error
			if g.WAL, err = raftlog.Open(dir, o); err != nil {
				return nil, err
			}
			return g, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.log.Opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// told returns the events of one type so far.
func told[E any](r *gatedRig) (all []E) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e, ok := e.(E); ok {
			all = append(all, e)
		}
	}
	return all
}

func (r *gatedRig) append(data ...string) error {
	es := make([]messages.Entry, len(data))
	for i, d := range data {
		es[i] = messages.Entry{Term: 1, Data: []byte(d)}
	}
	_, err := actors.Ask[messages.Appended](context.Background(), r.asker, r.log.PID(), messages.Append{Entries: es})
	return err
}

// A Maintain that fails or panics while the store is being closed is told of,
// and ends the actor no earlier: whoever waits for Stop may take it that the
// files are closed.
func TestMaintainEndsBesideClose(t *testing.T) {
	failure := errors.New("maintenance failed")
	for name, end := range map[string]func(g *gated) (bool, error){
		"fails":  func(g *gated) (bool, error) { g.poisoned.Store(true); return false, failure },
		"panics": func(*gated) (bool, error) { panic(failure) },
		"works":  func(*gated) (bool, error) { return true, nil },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, start func(prepare) *gatedRig) {
				maintaining, closing := make(chan struct{}), make(chan struct{})
				var closed atomic.Bool
				r := start(func(_ int, _ *raftlog.Options, g *gated) {
					g.due.Store(true)
					g.maintain = func() (bool, error) { <-maintaining; return end(g) }
					g.close = func() error { <-closing; closed.Store(true); return nil }
				})
				synctest.Wait() // Maintain is under way
				stopped := make(chan error, 1)
				go func() { stopped <- r.log.Stop(context.Background()) }()
				synctest.Wait() // and so is Close
				close(maintaining)
				failed := told[messages.ActorFailed](r)
				if r.log.Stopped() || closed.Load() {
					t.Fatal("stopped before the store was closed")
				}
				switch {
				case name == "works" && len(failed) != 0:
					t.Errorf("%v", failed)
				case name != "works" && (len(failed) != 1 || !errors.Is(failed[0].Err, failure)):
					t.Errorf("%v", failed)
				}
				close(closing)
				if err := <-stopped; err != nil || !closed.Load() || !r.log.Stopped() {
					t.Errorf("%v, closed %v", err, closed.Load())
				}
			})
		})
	}
}

// A Close that panics ends the actor all the same.
func TestClosePanics(t *testing.T) {
	inBubble(t, func(t *testing.T, start func(prepare) *gatedRig) {
		r := start(func(_ int, _ *raftlog.Options, g *gated) {
			g.close = func() error {
				if err := g.WAL.Close(); err != nil {
					return err
				}
				panic("close")
			}
		})
		if err := r.log.Stop(t.Context()); err != nil || !r.log.Stopped() {
			t.Error(err)
		}
		if failed := told[messages.ActorFailed](r); len(failed) != 1 {
			t.Errorf("%v", failed)
		}
	})
}

// A sync that was reported as stalled ends with its actor: the actor that is
// rebuilt behind it says so, once, when that sync has returned and it can open.
func TestStallEndsWithACrash(t *testing.T) {
	inBubble(t, func(t *testing.T, start func(prepare) *gatedRig) {
		release := make(chan struct{})
		r := start(func(n int, _ *raftlog.Options, g *gated) {
			if n == 0 {
				g.sync = func() (int, error) { <-release; return g.WAL.Sync() }
			}
		})
		outcome := make(chan error, 1)
		go func() { outcome <- r.append("stalled") }()
		pass(10 * time.Second)
		if s := told[messages.Stalled](r); len(s) == 0 || s[0].Call != "sync" || s[0].For < 2*time.Second {
			t.Fatalf("%+v", s)
		}
		r.log.Crash(errors.New("while it was stalled"))
		pass(time.Minute)
		if s := r.log.Statistics(); !s.Stalled || s.Stalls != 1 || len(told[messages.StallEnded](r)) != 0 {
			t.Errorf("the sync has not returned: %+v", s)
		}
		close(release)
		if err := <-outcome; err != nil {
			t.Errorf("the append that was durable in the end: %v", err)
		}
		pass(time.Minute)
		ended := told[messages.StallEnded](r)
		if len(ended) != 1 || ended[0] != (messages.StallEnded{Actor: r.log.PID().ID, Call: "sync", For: 70 * time.Second}) {
			t.Errorf("%+v", ended)
		}
		if s := r.log.Statistics(); s.Stalled || s.Stalls != 1 {
			t.Errorf("%+v", s)
		}
		if err := r.append("after"); err != nil {
			t.Error(err)
		}
	})
}

// A store that is poisoned while truncations wait answers each of them once, and
// the actor fails once: when the sync that they wait for fails, when it succeeds
// and something else has poisoned the store, and when they are tried by
// themselves because the disk was full.
func TestPoisonedBesideWaitingTruncations(t *testing.T) {
	for _, c := range []struct {
		name    string
		waiting int // more than 64 are handled while a sync is under way
		full    bool
		end     func(g *gated) (int, error) // of the sync
	}{
		{"the sync fails", 100, true, func(g *gated) (int, error) { g.poisoned.Store(true); return 0, syscall.EIO }},
		{"the sync succeeds", 100, true, func(g *gated) (int, error) {
			n, err := g.WAL.Sync()
			g.poisoned.Store(true)
			return n, err
		}},
		{"the disk is full", 30, false, func(g *gated) (int, error) {
			n, err := g.WAL.Sync()
			if errors.Is(err, messages.ErrDiskFull) {
				g.refuses.Store(true)
			}
			return n, err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, start func(prepare) *gatedRig) {
				gate := make(chan struct{})
				armed := false
				r := start(func(n int, o *raftlog.Options, g *gated) {
					if n != 1 {
						return
					}
					o.ReserveBytes = 1 << 60 // no disk has that much left
					g.sync = func() (changes int, err error) {
						if !armed {
							return g.WAL.Sync()
						}
						<-gate
						return c.end(g)
					}
				})
				if err := r.append(make([]string, 2*c.waiting)...); err != nil {
					t.Fatal(err)
				}
				r.log.Crash(errors.New("to open it again"))
				if c.full {
					if err := r.append("too much"); !errors.Is(err, messages.ErrDiskFull) {
						t.Fatal(err)
					}
				}
				pass(time.Minute)
				armed = true
				var mu sync.Mutex
				replies := map[int]error{}
				var wg sync.WaitGroup
				for i := range 1 + c.waiting { // the first is under way, the others are behind it
					wg.Go(func() {
						m, err := actors.Ask[messages.Compacted](context.Background(), r.asker, r.log.PID(), messages.TruncateBefore{Index: uint64(i + 2)})
						if err == nil && m.First < uint64(i+2) {
							err = fmt.Errorf("the log begins at %d", m.First)
						}
						mu.Lock()
						defer mu.Unlock()
						if _, ok := replies[i]; ok {
							t.Errorf("truncation %d was answered twice", i)
						}
						replies[i] = err
					})
					synctest.Wait()
				}
				if !c.full {
					wg.Go(func() {
						if err := r.append("too much"); !errors.Is(err, messages.ErrDiskFull) {
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				close(gate)
				wg.Wait()
				lost := 0
				for i, err := range replies {
					if errors.Is(err, messages.ErrCrashed) || errors.Is(err, messages.ErrInDoubt) {
						lost++
					} else if err != nil { // handled after the failure
						t.Errorf("truncation %d: %v", i, err)
					}
				}
				if len(replies) != 1+c.waiting || lost < 30 {
					t.Errorf("%d replies, %d of them errors", len(replies), lost)
				}
				if s := r.log.Status(); s.Requests != s.Replies || s.Failures != 2 || s.State != messages.StateServing {
					t.Errorf("%+v", s)
				}
				if n := len(told[messages.ActorFailed](r)); n != 2 {
					t.Errorf("failed %d times", n)
				}
				if err := r.append("after"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What Maintain has found damaged is told and counted, and a Maintain that is to
// be tried again is told as well.
func TestMaintainTells(t *testing.T) {
	damage := &messages.CorruptError{Path: "segment", Offset: 7, Index: 5, Reason: "rot"}
	inBubble(t, func(t *testing.T, start func(prepare) *gatedRig) {
		r := start(func(_ int, _ *raftlog.Options, g *gated) {
			g.due.Store(true)
			g.maintain = func() (bool, error) {
				g.damage = []raftlog.Damage{{Group: 3, Index: 5, Err: damage}}
				return false, syscall.EMFILE
			}
		})
		if d := told[messages.DamageFound](r); len(d) != 1 || d[0] != (messages.DamageFound{Actor: r.log.PID().ID, Group: 3, Index: 5, Err: damage}) {
			t.Errorf("%v", d)
		}
		if d := told[messages.MaintenanceDelayed](r); len(d) != 1 || !errors.Is(d[0].Err, syscall.EMFILE) {
			t.Errorf("%v", d)
		}
		if n := r.log.Statistics().Damage; n != 1 {
			t.Errorf("%d were counted", n)
		}
		if err := r.append("it goes on"); err != nil {
			t.Error(err)
		}
	})
}
