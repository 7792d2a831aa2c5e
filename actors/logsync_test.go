package actors_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// firstSegment passes the syncs of a log's first segment to a disk of a test, and
// those of the segment that is being prepared past it.
type firstSegment struct {
	durable.Disk
	disk *disk
}

func (d firstSegment) Sync(f *os.File) error {
	if strings.Contains(f.Name(), "/wal/00000001/") {
		return d.disk.Sync(f)
	}
	return d.Disk.Sync(f)
}

func newLogWith(t *testing.T, cfg actors.LogConfig) *actorRig {
	return newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		cfg.Name, cfg.ID = "test", "log"
		cfg.Open = func() (raftlog.Store, error) {
			return raftlog.Open(r.dir, raftlog.Options{Disk: firstSegment{r.disk, r.disk}})
		}
		l, err := actors.SpawnLog(engine, cfg)
		return l.Host, err
	})
}

// What is answered before it is synced can be read, survives a failure, and is
// synced within the interval, or when the actor is stopped.
func TestLazyLog(t *testing.T) {
	for _, mode := range []actors.SyncMode{actors.SyncInterval, actors.SyncNever} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			var clock timers
			cfg := actors.LogConfig{Sync: actors.SyncPolicy{Mode: mode}}
			if mode == actors.SyncInterval {
				cfg.Sync.Every = interval
			}
			cfg.Env.After = clock.after
			r := newLogWith(t, cfg)
			before := r.disk.syncs.Load()
			synced := func() int64 { return r.disk.syncs.Load() - before }
			for i := range uint64(20) {
				must[messages.Appended](r, messages.Append{Entries: entries(i+1, "data")})
				must[messages.EntryRead](r, messages.ReadEntry{Index: i + 1})
			}
			if n := synced(); n > 0 {
				t.Errorf("%d syncs for answers that promise none", n)
			}
			set := clock.take()
			if mode == actors.SyncInterval {
				if len(set) != 1 {
					t.Fatalf("%d timers are set", len(set))
				}
				set[0]()
				until(t, "what was written is not synced", func() bool { return synced() == 1 })
				// A sync that fails is a failure of the actor, which goes on.
				r.disk.failNext(syscall.EIO)
				must[messages.Appended](r, messages.Append{Entries: entries(21, "data")})
				clock.take()[0]()
				until(t, "the failure was not noticed", func() bool { return r.host.Status().Failures > 0 })
			} else {
				if len(set) > 0 {
					t.Errorf("%d timers are set", len(set))
				}
				must[messages.Appended](r, messages.Append{Entries: entries(21, "data")})
				r.host.Crash(errors.New("by the test"))
			}
			if b := must[messages.BoundsRead](r, messages.ReadBounds{}); b.Bounds.Last != 21 {
				t.Errorf("the log ends at %d", b.Bounds.Last)
			}
			must[messages.Appended](r, messages.Append{Entries: entries(22, "data")})
			n := r.disk.syncs.Load()
			r.close()
			if r.disk.syncs.Load() == n {
				t.Error("stopped without a sync")
			}
		})
	}
	if _, err := actors.SpawnLog(nil, actors.LogConfig{Sync: actors.SyncPolicy{Mode: 3}}); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
}

// BenchmarkLogSyncPolicy is what each policy costs: 64 goroutines that append.
func BenchmarkLogSyncPolicy(b *testing.B) {
	for name, policy := range map[string]actors.SyncPolicy{"always": {}, "interval": {Mode: actors.SyncInterval}, "never": {Mode: actors.SyncNever}} {
		b.Run(name, func(b *testing.B) {
			engine, err := actor.NewEngine(actor.NewEngineConfig())
			if err != nil {
				b.Fatal(err)
			}
			dir := b.TempDir()
			l, err := actors.SpawnLog(engine, actors.LogConfig{Config: actors.Config{Name: "bench", ID: "log"}, Sync: policy,
				Open: func() (raftlog.Store, error) { return raftlog.Open(dir, raftlog.Options{}) }})
			if err != nil {
				b.Fatal(err)
			}
			asker := actors.NewAsker(engine)
			defer asker.Close()
			var group atomic.Uint64
			data := make([]byte, 128)
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				g := group.Add(1)
				for pb.Next() {
					c := messages.Append{Group: g, Entries: []messages.Entry{{Term: 1, Data: data}}}
					if _, err := actors.Ask[messages.Appended](context.Background(), asker, l.PID(), c); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			if err := l.Stop(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
}
