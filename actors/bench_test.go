package actors_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// limit is the baseline of the append benchmarks: write and fdatasync of n
// times size bytes into a file that was filled with zeros before, in appends of
// size bytes a second.
func limit(b *testing.B, n, size int) float64 {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "limit"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, n*size)
	const rounds = 200
	for range rounds {
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	// For 300 ms, which is what the medians of several runs need to agree
	// within 5 %.
	began, i := time.Now(), 0
	for ; time.Since(began) < 300*time.Millisecond; i++ {
		if _, err := f.WriteAt(buf, int64(i%rounds*len(buf))); err != nil {
			b.Fatal(err)
		}
		if err := durable.OS.Sync(f); err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) * float64(i) / time.Since(began).Seconds()
}

// appender sends the next append when the last one is durable.
type appender struct {
	log     *actor.PID
	data    []byte
	left    *atomic.Int64
	pending *atomic.Int64
	done    chan struct{}
}

func (a *appender) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case messages.Appended:
		if m.Err != nil {
			panic(m.Err)
		}
		if a.pending.Add(-1) == 0 {
			close(a.done)
			return
		}
		a.next(c)
	case actor.Started:
		a.next(c)
	}
}

func (a *appender) next(c *actor.Context) {
	if a.left.Add(-1) >= 0 {
		c.Send(a.log, messages.Append{Entries: []messages.Entry{{Term: 1, Data: a.data}}})
	}
}

// BenchmarkLogAppend measures durable appends through the actor and its
// mailbox from client actors that wait for each, as a share of the limit.
func BenchmarkLogAppend(b *testing.B) {
	for _, clients := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d/size=128", clients), func(b *testing.B) {
			base := limit(b, clients, 128)
			engine, err := actor.NewEngine(actor.NewEngineConfig())
			if err != nil {
				b.Fatal(err)
			}
			dir := b.TempDir()
			l, err := actors.SpawnLog(engine, actors.LogConfig{
				Config: actors.Config{Name: "bench", ID: "log"},
				Open:   func() (raftlog.Store, error) { return raftlog.Open(dir, raftlog.Options{}) },
			})
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Opened(b.Context()); err != nil {
				b.Fatal(err)
			}
			var left, pending atomic.Int64
			left.Store(int64(b.N))
			pending.Store(int64(b.N))
			done := make(chan struct{})
			b.ResetTimer()
			for i := range clients {
				a := &appender{l.PID(), make([]byte, 128), &left, &pending, done}
				engine.Spawn(func() actor.Receiver { return a }, "client", actor.WithID(fmt.Sprint(i)))
			}
			<-done
			b.StopTimer()
			rate := float64(b.N) / b.Elapsed().Seconds()
			s := l.Statistics()
			b.ReportMetric(rate, "appends/s")
			b.ReportMetric(rate/base, "of-limit")
			b.ReportMetric(float64(s.Appends)/float64(s.Syncs), "batch")
			if err := l.Stop(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
