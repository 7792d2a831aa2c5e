package actors_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// Durable transactions through the actor, each of which reads a key of 100,000 and
// writes it, from 64 clients. The baseline is a direct put of the same key.
func BenchmarkUpdate(b *testing.B) {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	h, err := actors.SpawnKV(engine, actors.KVConfig{Config: actors.Config{Name: "bench", ID: "kv"},
		Open: func() (kv.Store, error) { return kv.Open(dir, kv.Options{}) }})
	if err != nil {
		b.Fatal(err)
	}
	if err := h.Opened(b.Context()); err != nil {
		b.Fatal(err)
	}
	asker := actors.NewAsker(engine)
	defer asker.Close()
	defer func() {
		if err := h.Stop(b.Context()); err != nil {
			b.Error(err)
		}
	}()
	value := make([]byte, 100)
	d := actors.Data{KV: h.PID()}
	key := func() []byte { return fmt.Appendf(nil, "key-%06d", rand.IntN(100_000)) }
	for _, clients := range []int{1, 64} {
		for name, do := range map[string]func() error{
			"put": func() error {
				_, err := actors.Ask[messages.PutDone](b.Context(), asker, h.PID(), messages.Put{Key: key(), Value: value})
				return err
			},
			"update": func() error {
				k := key()
				_, err := actors.Update(b.Context(), asker, d, func(x *actors.Txn) error {
					if _, _, err := x.Get(k); err != nil {
						return err
					}
					return x.Put(k, value)
				})
				return err
			},
		} {
			b.Run(fmt.Sprintf("clients=%d/%s", clients, name), func(b *testing.B) {
				var left atomic.Int64
				left.Store(int64(b.N))
				done := make(chan error, clients)
				for range clients {
					go func() {
						var err error
						for err == nil && left.Add(-1) >= 0 {
							err = do()
						}
						done <- err
					}()
				}
				for range clients {
					if err := <-done; err != nil {
						b.Error(err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			})
		}
	}
}
