package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/supervisor"
)

// gate is a disk of which the next matching call is held up until it is let go.
type gate struct {
	t *testing.T
	durable.Disk
	mu    sync.Mutex
	match func(op, path string) bool
	hit   chan struct{}
	open  chan struct{}
}

func newGate(t *testing.T) *gate { return &gate{t: t, Disk: durable.OS} }

// close holds up the next call that matches; hit tells that it has come. The end
// of the test opens it as well, or a test that fails would hang in Stop.
func (g *gate) close(match func(op, path string) bool) (hit <-chan struct{}, open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.match, g.hit, g.open = match, make(chan struct{}), make(chan struct{})
	ch := g.open
	open = sync.OnceFunc(func() { close(ch) })
	g.t.Cleanup(open)
	return g.hit, open
}

func (g *gate) pass(op, path string) {
	g.mu.Lock()
	if g.match == nil || !g.match(op, path) {
		g.mu.Unlock()
		return
	}
	g.match = nil
	hit, open := g.hit, g.open
	g.mu.Unlock()
	close(hit)
	<-open
}

func (g *gate) Sync(f *os.File) error    { g.pass("sync", f.Name()); return g.Disk.Sync(f) }
func (g *gate) Rename(a, b string) error { g.pass("rename", b); return g.Disk.Rename(a, b) }

func anySync(op, _ string) bool { return op == "sync" }

func with(t *testing.T, cfg supervisor.Config) *service {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := tryStart(t, newEngine(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) apply(group uint64, key, value string) (messages.EntryApplied, error) {
	return ask[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Group: group, Operation: messages.PutOperation([]byte(key), []byte(value))})
}

func TestAskAfterStop(t *testing.T) {
	s := with(t, supervisor.Config{})
	s.stop()
	if _, err := ask[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{}); !errors.Is(err, messages.ErrStopped) {
		t.Errorf("through the service's own asker: %v", err)
	}
}

// ApplyEntry lives beside somebody who appends hard states of his own.
func TestHardStateBeside(t *testing.T) {
	s := with(t, supervisor.Config{})
	s.put("a", "1")
	must[messages.Appended](s, s.storage.Log, messages.Append{HardState: &messages.HardState{Term: 1, Vote: 7, Commit: 1}})
	s.put("a", "2")
	if b := must[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{}).Bounds; b.HardState.Vote != 7 {
		t.Errorf("the vote of term 1 was taken back: %+v", b.HardState)
	}
	must[messages.Appended](s, s.storage.Log, messages.Append{HardState: &messages.HardState{Term: 4, Vote: 7, Commit: 1}})
	if a := s.put("a", "3"); a.Term != 4 {
		t.Errorf("a term that was left to the service: %+v", a)
	}
	must[messages.LogReset](s, s.storage.Log, messages.ResetLog{Index: 100, Term: 4})
	if _, err := s.apply(0, "a", "4"); errors.Is(err, context.DeadlineExceeded) {
		t.Error("no reply after the log was reset beside the service")
	}
}

// While there is no room for the data, entries are in the log and in doubt, and
// every one is answered, before Stop and by it.
func TestDataDiskFull(t *testing.T) {
	var full atomic.Bool
	s := with(t, supervisor.Config{KV: kv.Options{Free: func(string) (int64, error) {
		if full.Load() {
			return 0, nil
		}
		return 1 << 40, nil
	}}})
	s.put("a", "1")
	full.Store(true)
	for i := range 3 {
		if _, err := s.apply(0, "a", fmt.Sprint(i)); !errors.Is(err, messages.ErrInDoubt) || !errors.Is(err, messages.ErrDiskFull) {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	full.Store(false)
	for s.status().Applied < 4 { // it catches up by itself
	}
	s.expect("a", "2")
	s.put("a", "5")
}

func TestSpawnFailsWhileClientsSend(t *testing.T) {
	s := with(t, supervisor.Config{})
	s.put("a", "1")
	s.stop()
	if err := os.WriteFile(filepath.Join(s.dir, "log", "MANIFEST"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	engine := newEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	asker := actors.NewAsker(engine)
	defer asker.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			pid := actor.NewPID(engine.Address(), "ballast/supervisor")
			for ctx.Err() == nil {
				_, err := actors.Ask[messages.EntryApplied](ctx, asker, pid, messages.ApplyEntry{Operation: messages.PutOperation([]byte("a"), nil)})
				if err == nil {
					t.Error("acknowledged by a service that did not start")
				}
			}
		})
	}
	if _, err := tryStart(t, engine, supervisor.Config{Dir: s.dir}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("spawn: %v", err)
	}
	cancel()
	wg.Wait()
}

func TestLostLogOfAnotherGroup(t *testing.T) {
	s := with(t, supervisor.Config{})
	for i := range 3 {
		if _, err := s.apply(7, "a", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	if err := os.RemoveAll(filepath.Join(s.dir, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, newEngine(t), supervisor.Config{Dir: s.dir}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("the lost log of group 7: %v", err)
	}
}

// The supervisor fails while the import of a Restore is being swapped in.
func TestSupervisorCrashDuringImport(t *testing.T) {
	g := newGate(t)
	s := with(t, supervisor.Config{KV: kv.Options{Disk: g}})
	s.put("a", "1")
	s.snapshot()
	s.put("a", "2")
	s.put("a", "3")
	hit, open := g.close(func(op, path string) bool { return op == "sync" && strings.HasSuffix(path, "DATA") })
	restored := make(chan struct{})
	go func() {
		_, _ = ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{}) // any answer will do
		close(restored)
	}()
	<-hit
	if err := s.storage.Crash("supervisor"); err != nil {
		t.Fatal(err)
	}
	s.status() // of the new one
	open()
	<-restored
	s.expect("a", "3")
	s.put("a", "4")
	s.expect("a", "4")
}

// The supervisor fails while the reset of a Restore with Discard is being synced.
func TestSupervisorCrashDuringReset(t *testing.T) {
	g := newGate(t)
	s := with(t, supervisor.Config{Log: raftlog.Options{Disk: g}})
	s.put("a", "1")
	s.snapshot()
	s.put("a", "2")
	s.put("a", "3")
	hit, open := g.close(anySync)
	restored := make(chan struct{})
	go func() {
		_, _ = ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{Discard: true}) // any answer will do
		close(restored)
	}()
	<-hit
	if err := s.storage.Crash("supervisor"); err != nil {
		t.Fatal(err)
	}
	s.status()
	open()
	<-restored
	s.put("new", "x")
	s.expect("new", "x")
	if st := s.status(); st.Applied != st.Log.Last {
		t.Errorf("%+v", st)
	}
}

// A consensus engine that does not store its commit index, as hashicorp/raft,
// finds everything that it has ever applied, also when the data was damaged.
func TestEngineWithoutCommit(t *testing.T) {
	s := with(t, supervisor.Config{})
	drive := func(i uint64) {
		t.Helper()
		e := messages.Entry{Index: i, Term: 1, Data: messages.PutOperation([]byte("a"), fmt.Append(nil, i)).Encode(nil)}
		must[messages.Appended](s, s.storage.Log, messages.Append{Entries: []messages.Entry{e}})
		must[messages.Applied](s, s.storage.KV, messages.Apply{Entries: []messages.Entry{e}})
	}
	for i := uint64(1); i <= 5; i++ {
		drive(i)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "kv", "DATA"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("XXXXXXXX"), 40); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.storage.Crash("kv"); err != nil {
		t.Fatal(err)
	}
	s.expect("a", "5")
	drive(6)
	s.expect("a", "6")
}

func TestSpawnSameNameConcurrently(t *testing.T) {
	for range 20 {
		engine := newEngine(t)
		var started atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			dir := t.TempDir()
			wg.Go(func() {
				s, err := tryStart(t, engine, supervisor.Config{Dir: dir})
				switch {
				case err == nil:
					started.Add(1)
					if _, err := s.apply(0, "a", "1"); err != nil {
						t.Error(err)
					}
				case !errors.Is(err, messages.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := started.Load(); n != 1 {
			t.Fatalf("%d services of one name have started", n)
		}
	}
}

// Restores that are refused beside the first entries of a group lose none.
func TestRefusedRestoreBesideTheFirstEntries(t *testing.T) {
	for range 30 {
		s := with(t, supervisor.Config{})
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if i%3 == 1 {
					if _, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: "nonsense"}); err == nil {
						t.Error("restored from nonsense")
					}
				} else if _, err := s.apply(0, "a", fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s.stop()
	}
}

// No snapshot of a history survives that is being discarded.
func TestSnapshotBesideDiscard(t *testing.T) {
	g := newGate(t)
	cfg := supervisor.Config{}
	cfg.Snapshot.Disk = g
	s := with(t, cfg)
	s.put("a", "1")
	first := s.snapshot()
	s.put("a", "to be discarded")
	hit, open := g.close(func(op, _ string) bool { return op == "rename" })
	taken := make(chan error, 1)
	go func() {
		_, err := ask[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{})
		taken <- err
	}()
	<-hit
	discard := messages.Restore{ID: first.Info.ID, Discard: true}
	if _, err := ask[messages.Restored](s, s.storage.Supervisor, discard); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("discard while a snapshot is being taken: %v", err)
	}
	open()
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	must[messages.Restored](s, s.storage.Supervisor, discard)
	s.put("b", "new")
	s.stop()
	if err := os.RemoveAll(filepath.Join(s.dir, "kv")); err != nil {
		t.Fatal(err)
	}
	s = with(t, supervisor.Config{Dir: s.dir})
	s.expect("a", "1")
	s.expect("b", "new")
}

// A snapshot beyond the end of the log is restored in an order that a crash at
// any point leaves whole: the log is reset first.
func TestDiscardBeyondTheLog(t *testing.T) {
	other := with(t, supervisor.Config{})
	other.put("a", "1")
	other.put("a", "2")
	taken := other.snapshot()
	g := newGate(t)
	s := with(t, supervisor.Config{Log: raftlog.Options{Disk: g}})
	copyFile(t, other.snapshotPath(taken.Info.ID), s.snapshotPath(taken.Info.ID))
	hit, open := g.close(anySync)
	restored := make(chan error, 1)
	go func() {
		_, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{Discard: true})
		restored <- err
	}()
	<-hit // the process is killed here, and the record of the reset is lost
	next := filepath.Join(t.TempDir(), "next")
	if err := os.CopyFS(next, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(next, "log")); err != nil {
		t.Fatal(err)
	}
	with(t, supervisor.Config{Dir: next}).expect("a", "2")
	open()
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	s.expect("a", "2")
	if a := s.put("a", "3"); a.Index != 3 {
		t.Errorf("%+v", a)
	}
}

// A second Stop waits as long as its own context allows, not the first one's.
func TestStopTwice(t *testing.T) {
	g := newGate(t)
	s := with(t, supervisor.Config{Log: raftlog.Options{Disk: g}})
	hit, open := g.close(anySync)
	applied, stopped := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.apply(0, "a", "1"); applied <- err }()
	<-hit
	go func() { stopped <- s.storage.Stop(context.Background()) }()
	for {
		if _, err := ask[messages.Status](s, s.storage.Supervisor, messages.ReadStatus{}); errors.Is(err, messages.ErrStopped) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.storage.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second Stop: %v", err)
	}
	open()
	if err := errors.Join(<-applied, <-stopped); err != nil {
		t.Error(err)
	}
	for range 100 { // that context has ended, and so has the first Stop
		if err := s.storage.Stop(ctx); err != nil {
			t.Fatalf("a Stop of what has stopped: %v", err)
		}
	}
}

// Groups are restored one at a time; every Restore is answered.
func TestTwoRestores(t *testing.T) {
	s := with(t, supervisor.Config{})
	for g := range uint64(2) {
		if _, err := s.apply(g, "a", "1"); err != nil {
			t.Fatal(err)
		}
		must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: g})
	}
	for range 10 {
		var wg sync.WaitGroup
		for g := range uint64(2) {
			wg.Go(func() {
				_, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{Group: g})
				if err != nil && !errors.Is(err, messages.ErrConflict) && !errors.Is(err, messages.ErrUnavailable) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	for g := range uint64(2) {
		if _, err := s.apply(g, "a", "2"); err != nil {
			t.Errorf("group %d: %v", g, err)
		}
	}
}
