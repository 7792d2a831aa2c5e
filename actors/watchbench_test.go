package actors_test

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// reader is a watcher that takes what it is told and asks for more.
type reader struct {
	kv    *actor.PID
	watch messages.Watch
	ready chan<- struct{}
	told  *atomic.Int64
}

func (w *reader) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case actor.Started:
		c.Send(w.kv, w.watch)
	case messages.Watching:
		for range m.Credit {
			c.Send(w.kv, messages.ReadChanges{Watch: m.Watch})
		}
		w.ready <- struct{}{}
	case messages.Changes:
		w.told.Add(int64(len(m.Events)))
		if m.Err == nil {
			c.Send(w.kv, messages.ReadChanges{Watch: m.Watch})
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWatch applies entries in calls of 64 under 1000 keys, with watchers of
// other keys, of ranges around one key each, and of all of them.
func BenchmarkWatch(b *testing.B) {
	for _, kind := range []string{"other keys", "one key each", "one range each", "everything"} {
		for _, n := range []int{0, 1, 100, 10_000} {
			if n == 0 && kind != "other keys" || n == 10_000 && kind == "everything" {
				continue
			}
			b.Run(fmt.Sprintf("%d of %s", n, kind), func(b *testing.B) {
				engine, err := actor.NewEngine(actor.NewEngineConfig())
				if err != nil {
					b.Fatal(err)
				}
				dir := b.TempDir()
				k, err := actors.SpawnKV(engine, actors.KVConfig{Replicated: true, Config: actors.Config{Name: "bench", ID: "kv"},
					Open: func() (kv.Store, error) { return kv.Open(dir, kv.Options{}) }})
				if err != nil {
					b.Fatal(err)
				}
				ready := make(chan struct{})
				var told atomic.Int64
				for i := range n {
					w := &reader{kv: k.PID(), ready: ready, told: &told, watch: messages.Watch{Now: true}}
					switch kind {
					case "other keys":
						w.watch.Key = fmt.Appendf(nil, "other %d", i)
					case "one key each":
						w.watch.Key = fmt.Appendf(nil, "key %08d", i)
					case "one range each":
						w.watch.From, w.watch.To = fmt.Appendf(nil, "key %08d", i), fmt.Appendf(nil, "key %08d~", i)
					}
					engine.Spawn(func() actor.Receiver { return w }, "reader", actor.WithID(fmt.Sprint(i)))
					<-ready
				}
				a := actors.NewAsker(engine)
				value := make([]byte, 100)
				index := uint64(0)
				began := cpu()
				b.ResetTimer()
				for range b.N {
					es := make([]messages.Entry, 64)
					for j := range es {
						index++
						key := fmt.Appendf(nil, "key %08d", index%1000)
						es[j] = messages.Entry{Index: index, Term: 1, Data: messages.PutOperation(key, value).Encode(nil)}
					}
					if _, err := actors.Ask[messages.Applied](b.Context(), a, k.PID(), messages.Apply{Entries: es}); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N*64), "cpu-ns/entry")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*64), "ns/entry")
				b.ReportMetric(float64(told.Load())/b.Elapsed().Seconds(), "events/s")
				if err := k.Stop(b.Context()); err != nil {
					b.Fatal(err)
				}
				a.Close()
			})
		}
	}
}
