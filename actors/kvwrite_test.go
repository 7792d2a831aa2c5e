package actors_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

func newKVWith(t *testing.T, cfg actors.KVConfig, opt kv.Options, wrap func(kv.Store) kv.Store) *actorRig {
	return newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		cfg.Name, cfg.ID, opt.Disk = "test", "kv", r.disk
		cfg.Open = func() (kv.Store, error) {
			s, err := kv.Open(r.dir, opt)
			if wrap == nil {
				return s, err
			}
			return wrap(s), err
		}
		a, err := actors.SpawnKV(engine, cfg)
		return a.Host, err
	})
}

// startPut asks in a goroutine of its own, and waits until it has
// been admitted. The returned function waits for the answer.
func startPut(r *actorRig, c messages.Command) (wait func() (messages.Reply, error)) {
	before := r.host.Status().Queued
	type answer struct {
		reply messages.Reply
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		reply, err := do[messages.Reply](r, c)
		done <- answer{reply, err}
	}()
	for r.host.Status().Queued == before {
		runtime.Gosched()
	}
	return func() (messages.Reply, error) { a := <-done; return a.reply, a.err }
}

// Each write of a batch gets its own result, and one that cannot be done touches
// no other.
func TestWritesOfABatchAreOnTheirOwn(t *testing.T) {
	const room = 300 << 10
	r := newKVWith(t, actors.KVConfig{}, kv.Options{Free: func(string) (int64, error) { return 1<<20 + room, nil }}, nil)
	defer r.close()
	must[messages.PutDone](r, messages.Put{Key: []byte("there"), Value: []byte("1")})
	release := r.disk.hold()
	first := startPut(r, messages.Put{Key: []byte("first")}) // its sync waits, and what follows is one batch
	syncs := r.disk.syncs.Load()
	large := []byte(strings.Repeat("x", 2*room))
	waits := []struct {
		what string
		wait func() (messages.Reply, error)
		ok   func(messages.Reply, error) bool
	}{
		{"put", startPut(r, messages.Put{Key: []byte("a"), Value: []byte("1")}),
			func(p messages.Reply, err error) bool { return err == nil && !p.(messages.PutDone).Existed }},
		{"a key that is too long", startPut(r, messages.Put{Key: make([]byte, messages.MaxKey+1)}),
			func(_ messages.Reply, err error) bool { return errors.Is(err, messages.ErrTooLarge) }},
		{"more than fits on the disk", startPut(r, messages.Put{Key: []byte("b"), Value: large}),
			func(_ messages.Reply, err error) bool { return errors.Is(err, messages.ErrDiskFull) }},
		{"another group", startPut(r, messages.Put{Group: 7, Key: []byte("a")}),
			func(p messages.Reply, err error) bool { return err == nil && p.(messages.PutDone).Group == 7 }},
		{"swap", startPut(r, messages.CompareAndSwap{Key: []byte("a"), Expect: []byte("1"), Value: []byte("2")}),
			func(p messages.Reply, err error) bool { return err == nil && p.(messages.ComparedAndSwapped).Swapped }},
		{"a swap of something else", startPut(r, messages.CompareAndSwap{Key: []byte("a"), Expect: []byte("1"), Value: []byte("3")}),
			func(p messages.Reply, err error) bool { return err == nil && !p.(messages.ComparedAndSwapped).Swapped }},
		{"delete", startPut(r, messages.Delete{Key: []byte("there")}),
			func(p messages.Reply, err error) bool { return err == nil && p.(messages.Deleted).Existed }},
		{"no such index", startPut(r, messages.DropIndex{Name: "none"}),
			func(_ messages.Reply, err error) bool { return errors.Is(err, messages.ErrNotFound) }},
	}
	release()
	if _, err := first(); err != nil {
		t.Error(err)
	}
	for _, w := range waits {
		if reply, err := w.wait(); !w.ok(reply, err) {
			t.Errorf("%s: %+v %v", w.what, reply, err)
		}
	}
	if n := r.disk.syncs.Load() - syncs; n > 3 {
		t.Errorf("the batch took %d syncs", n)
	}
	if g := must[messages.Got](r, messages.Get{Key: []byte("a")}); string(g.Value) != "2" {
		t.Errorf("%+v", g)
	}
}

// A batch is bounded by its payload, and one that is larger goes by itself.
func TestBatchOfWritesIsBounded(t *testing.T) {
	r := newKVWith(t, actors.KVConfig{MaxBatchBytes: 200}, kv.Options{}, nil)
	defer r.close()
	release := r.disk.hold()
	waits := []func() (messages.Reply, error){startPut(r, messages.Put{Key: []byte("first")})}
	for i := range 20 {
		waits = append(waits, startPut(r, messages.Put{Key: fmt.Append(nil, i), Value: make([]byte, 90+i/19*1000)}))
	}
	before := r.disk.syncs.Load()
	release()
	for _, wait := range waits {
		if _, err := wait(); err != nil {
			t.Error(err)
		}
	}
	if n := r.disk.syncs.Load() - before; n < 11 || n > 21 { // two in a batch at most
		t.Errorf("21 writes took %d syncs", n)
	}
}

// busy is a store whose Apply waits.
type busy struct {
	kv.Store
	entered, release chan struct{}
}

func (b busy) Apply(group uint64, es []messages.Entry) ([]messages.Result, error) {
	b.entered <- struct{}{}
	<-b.release
	return b.Store.Apply(group, es)
}

// Ask reads data while the actor is busy; what is not a read of data waits.
func TestReadsDoNotWaitForTheActor(t *testing.T) {
	b := busy{entered: make(chan struct{}, 1), release: make(chan struct{}, 1)}
	r := newKVWith(t, actors.KVConfig{Replicated: true}, kv.Options{}, func(s kv.Store) kv.Store { b.Store = s; return b })
	defer r.close()
	apply := func(index uint64) func() (messages.Reply, error) {
		wait := startPut(r, messages.Apply{Entries: []messages.Entry{{Index: index, Term: 1, Data: messages.PutOperation([]byte("k"), fmt.Append(nil, index)).Encode(nil)}}})
		<-b.entered
		return wait
	}
	first := apply(1)
	b.release <- struct{}{}
	if _, err := first(); err != nil {
		t.Fatal(err)
	}
	second := apply(2)
	if g := must[messages.Got](r, messages.Get{Key: []byte("k")}); string(g.Value) != "1" {
		t.Errorf("%+v", g)
	}
	if g := must[messages.MultiGot](r, messages.MultiGet{Keys: [][]byte{[]byte("k")}}); string(g.Values[0]) != "1" {
		t.Errorf("%+v", g)
	}
	if g := must[messages.Scanned](r, messages.Scan{}); len(g.Pairs) != 1 {
		t.Errorf("%+v", g)
	}
	if _, err := do[messages.IndexQueried](r, messages.QueryIndex{Name: "none"}); !errors.Is(err, messages.ErrNotFound) {
		t.Error(err)
	}
	if _, err := do[messages.Scanned](r, messages.Get{Key: []byte("k")}); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("a reply of another type: %v", err)
	}
	applied := startPut(r, messages.ReadApplied{})
	b.release <- struct{}{}
	if _, err := second(); err != nil {
		t.Fatal(err)
	}
	if a, err := applied(); err != nil || a.(messages.AppliedRead).Index != 2 {
		t.Errorf("%+v %v", a, err)
	}
}

// timers are those of a policy's interval, which the test lets run.
type timers struct {
	mu  sync.Mutex
	set []func()
}

func (c *timers) after(d time.Duration, f func()) {
	if d != interval {
		time.AfterFunc(d, f)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set = append(c.set, f)
}

const interval = 123 * time.Millisecond

// take returns the timers that were set since the last time.
func (c *timers) take() (set []func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set, c.set = c.set, nil
	return set
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); runtime.Gosched() {
		if time.Since(began) > time.Minute {
			t.Fatal(what)
		}
	}
}

// What is answered before it is synced is synced within the interval, or when the
// actor is stopped.
func TestLazySyncPolicies(t *testing.T) {
	for _, mode := range []actors.SyncMode{actors.SyncInterval, actors.SyncNever} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			var clock timers
			cfg := actors.KVConfig{Sync: actors.SyncPolicy{Mode: mode}}
			if mode == actors.SyncInterval {
				cfg.Sync.Every = interval
			}
			cfg.Env.After = clock.after
			r := newKVWith(t, cfg, kv.Options{}, nil)
			before := r.disk.syncs.Load()
			for i := range 20 {
				key := fmt.Append(nil, i)
				must[messages.PutDone](r, messages.Put{Key: key, Value: []byte("v")})
				if g := must[messages.Got](r, messages.Get{Key: key}); !g.Found {
					t.Error("not to be read")
				}
			}
			synced := func() int64 { return r.disk.syncs.Load() - before }
			if n := synced(); n > 0 {
				t.Errorf("%d syncs for answers that promise none", n)
			}
			set := clock.take()
			if mode == actors.SyncInterval {
				if len(set) != 1 {
					t.Fatalf("%d timers are set", len(set))
				}
				// A write while its sync is under way is in time for the next.
				release := r.disk.hold()
				set[0]()
				<-r.disk.holding()
				must[messages.PutDone](r, messages.Put{Key: []byte("later")})
				set = clock.take()
				if len(set) != 1 {
					t.Fatalf("%d timers are set by a write beside a sync", len(set))
				}
				set[0]()
				must[messages.AppliedRead](r, messages.ReadApplied{})
				release()
				until(t, "what was written is not synced", func() bool { return synced() == 2 })
				// A sync that fails is a failure of the actor, which goes on.
				r.disk.failNext(syscall.EIO)
				must[messages.PutDone](r, messages.Put{Key: []byte("again")})
				clock.take()[0]()
				until(t, "the failure was not noticed", func() bool { return r.host.Status().Failures > 0 })
				must[messages.PutDone](r, messages.Put{Key: []byte("again")})
			} else if len(set) > 0 {
				t.Errorf("%d timers are set", len(set))
			}
			n := r.disk.syncs.Load()
			r.close()
			if r.disk.syncs.Load() == n {
				t.Error("stopped without a sync")
			}
		})
	}
}

func TestSyncPolicyValidate(t *testing.T) {
	for _, p := range []actors.SyncPolicy{{Mode: 3}, {Mode: actors.SyncInterval, Every: -1}, {Every: time.Second}, {Mode: actors.SyncNever, Every: time.Second}} {
		if err := p.Validate(); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
		if _, err := actors.SpawnKV(nil, actors.KVConfig{Sync: p}); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("spawn with %+v: %v", p, err)
		}
	}
	if _, err := actors.SpawnKV(nil, actors.KVConfig{MaxBatchBytes: -1}); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
}
