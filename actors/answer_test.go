package actors_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// refuser answers every command with nothing.
type refuser struct{ *recorder }

func (refuser) Handle(r *actors.Request) { r.Fail(nil) }

// Requests are allocated several at a time; one of them must not hold the
// payload of the others when they have been answered.
func TestAnsweredPayloadIsFree(t *testing.T) {
	engine, _ := actor.NewEngine(actor.NewEngineConfig())
	asker := actors.NewAsker(engine)
	defer asker.Close()
	r := &recorder{seen: map[uint64][]uint64{}, left: 1 << 30, done: make(chan struct{})}
	h, err := actors.Spawn(engine, actors.Config{Name: "slab", ID: "1", Limits: actors.Limits{Bytes: 16 << 20},
		New: func(h *actors.Host) actors.Behavior { r.h = h; return refuser{r} }})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		for range 3 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for range 15 {
		_, _ = actors.Ask[messages.Appended](t.Context(), asker, h.PID(), messages.Append{Entries: []messages.Entry{{Term: 1, Data: make([]byte, 16<<20)}}})
	}
	st := h.Status()
	if grown := int64(heap()) - int64(before); grown > 32<<20 {
		t.Errorf("%d bytes are held by an idle actor whose limit is 16 MiB: %+v", grown, st)
	}
	_ = h.Stop(t.Context())
}

// panicky is a store whose bounds panic once, which is when a truncation is
// answered.
type panicky struct {
	raftlog.Store
	armed *atomic.Bool
}

func (s panicky) Bounds(group uint64) messages.LogBounds {
	if s.armed.CompareAndSwap(true, false) {
		panic("bounds")
	}
	return s.Store.Bounds(group)
}

// A panic while a batch is being answered leaves nobody without an answer.
func TestPanicWhileAnswering(t *testing.T) {
	var armed atomic.Bool
	r := newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		l, err := actors.SpawnLog(engine, actors.LogConfig{Config: actors.Config{Name: "panicky", ID: "log"}, Open: func() (raftlog.Store, error) {
			w, err := raftlog.Open(r.dir, raftlog.Options{Disk: r.disk})
			return panicky{w, &armed}, err
		}})
		if err != nil {
			return nil, err
		}
		return l.Host, nil
	})
	must[messages.Appended](r, messages.Append{Entries: entries(1, "a", "b", "c")})
	armed.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := actors.Ask[messages.Truncated](ctx, r.asker, r.host.PID(), messages.TruncateFrom{Index: 3})
	if errors.Is(err, context.DeadlineExceeded) || armed.Load() {
		t.Fatalf("never answered: %+v", r.host.Status())
	}
	if err != nil || m.Last != 2 {
		t.Errorf("%+v, %v, and it is durable", m, err)
	}
	r.close()
}
