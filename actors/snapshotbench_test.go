package actors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// jsonRecords is a state as applications have them, 64 MiB, made once.
var jsonRecords = sync.OnceValue(func() []byte { return jsonLines(64 << 20) })

func jsonLines(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, size+1024)
	words := []string{"pending", "shipped", "harbour", "anchor", "manifest", "ballast", "returned", "north"}
	for i := 0; len(b) < size; i++ {
		b = fmt.Appendf(b, `{"id":%d,"user":"u%06d","state":%q,"amount":%d.%02d,"tags":[%q,%q],"seen":"2026-%02d-%02dT%02d:00:00Z","note":"%x"}`+"\n",
			i, r.IntN(100_000), words[r.IntN(8)], r.IntN(10_000), r.IntN(100), words[r.IntN(8)], words[r.IntN(8)], 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.Uint64())
	}
	return b[:size]
}

// pieces yields a state in pieces of 256 KiB, as a view of the application data
// does, and keeps io.Copy from taking a shorter way.
type pieces struct{ rest []byte }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 256<<10)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// counted is where a state goes: it is looked at, and copied once, as an import
// does.
type counted struct {
	buf [256 << 10]byte
	n   int
}

func (c *counted) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		rest = rest[copy(c.buf[:], rest):]
	}
	c.n += len(p)
	return len(p), nil
}

// A stream through the bridges and the actor, against the store alone, in turns
// in the same run. What is reported is MB/s of state, and of each bridge its
// share: the median of those of the single rounds, of the rate and of the work
// done in a second of processor time, which depends less on who else is using
// the machine.
func BenchmarkSnapshotStream(b *testing.B) {
	for _, codec := range []snapshot.Codec{snapshot.CodecZstd, snapshot.CodecLZ4, snapshot.CodecNone} {
		b.Run(string(codec), func(b *testing.B) { benchStream(b, codec) })
	}
}

func benchStream(b *testing.B, codec snapshot.Codec) {
	state := jsonRecords()
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	store, err := snapshot.OpenDir(b.TempDir(), snapshot.Options{Codec: codec})
	check(err)
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	check(err)
	asker := actors.NewAsker(engine)
	served, err := actors.SpawnSnapshot(engine, actors.SnapshotConfig{Config: actors.Config{Name: "bench", ID: "snapshot"},
		Open: func() (snapshot.Store, error) { return store, nil }})
	check(err)
	check(served.Opened(ctx))
	pid := served.PID()

	save := func() {
		w, err := store.Create(0, 1, 1, nil)
		check(err)
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, &pieces{state}, make([]byte, 256<<10))
		check(err)
		_, err = w.Finish()
		check(err)
	}
	saveThrough := func() {
		w, err := actors.NewSnapshotWriter(ctx, asker, pid, messages.BeginSave{Index: 1, Term: 1})
		check(err)
		_, err = io.Copy(w, &pieces{state})
		check(err)
		_, err = w.Finish(ctx)
		check(err)
	}
	saveResumable := func() {
		_, err := actors.SaveSnapshot(ctx, asker, pid, messages.BeginSave{Index: 1, Term: 1}, bytes.NewReader(state))
		check(err)
	}
	newest := func() string {
		l, err := actors.Ask[messages.SnapshotsListed](ctx, asker, pid, messages.ListSnapshots{})
		check(err)
		return l.Snapshots[0].ID
	}
	into := &counted{}
	restore := func() {
		rd, err := store.Open(newest())
		check(err)
		_, err = io.Copy(into, rd)
		check(errors.Join(err, rd.Close()))
	}
	restoreThrough := func() {
		rd, err := actors.NewSnapshotReader(ctx, asker, pid, messages.OpenSnapshot{ID: newest()})
		check(err)
		_, err = io.Copy(into, rd)
		check(errors.Join(err, rd.Close()))
	}
	names := []string{"save", "save-actor", "save-resumable", "restore", "restore-actor"}
	rates, work := map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		for i, f := range []func(){save, saveThrough, saveResumable, restore, restoreThrough} {
			runtime.GC()
			began, used := time.Now(), processorTime(b)
			f()
			rates[names[i]] = append(rates[names[i]], float64(len(state))/1e6/time.Since(began).Seconds())
			work[names[i]] = append(work[names[i]], 1/(processorTime(b)-used).Seconds())
		}
		_, err := actors.Ask[messages.SnapshotsCleanedUp](ctx, asker, pid, messages.CleanupSnapshots{Retention: messages.Retention{Keep: 1}})
		check(err)
	}
	if want := 2 * b.N * len(state); into.n != want {
		b.Fatalf("%d bytes were read of %d", into.n, want)
	}
	for _, name := range names {
		b.ReportMetric(median(rates[name]), name+"-MB/s")
	}
	share := func(name, of string) {
		for unit, figures := range map[string]map[string][]float64{"-share": rates, "-cpu-share": work} {
			var shares []float64
			for i := range figures[name] {
				shares = append(shares, figures[name][i]/figures[of][i])
			}
			b.ReportMetric(median(shares), name+unit)
		}
	}
	share("save-actor", "save")
	share("save-resumable", "save")
	share("restore-actor", "restore")
	check(served.Stop(ctx))
	asker.Close()
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
