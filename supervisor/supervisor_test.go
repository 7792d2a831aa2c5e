package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

// service is a running service and what a test asks of it.
type service struct {
	t       *testing.T
	engine  *actor.Engine
	storage *supervisor.Storage
	dir     string
}

func newEngine(t *testing.T) *actor.Engine {
	t.Helper()
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

func start(t *testing.T, dir string) *service {
	t.Helper()
	s, err := tryStart(t, newEngine(t), supervisor.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryStart(t *testing.T, engine *actor.Engine, cfg supervisor.Config) (*service, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	storage, err := supervisor.SpawnContext(ctx, engine, cfg)
	if err != nil {
		return nil, err
	}
	s := &service{t, engine, storage, cfg.Dir}
	t.Cleanup(func() {
		if err := storage.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s, nil
}

func (s *service) stop() {
	s.t.Helper()
	if err := s.storage.Stop(s.t.Context()); err != nil {
		s.t.Fatalf("stop: %v", err)
	}
}

func ask[R messages.Reply](s *service, pid *actor.PID, c messages.Command) (R, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	return actors.Ask[R](ctx, s.storage.Asker(), pid, c)
}

func must[R messages.Reply](s *service, pid *actor.PID, c messages.Command) R {
	s.t.Helper()
	r, err := ask[R](s, pid, c)
	if err != nil {
		s.t.Fatalf("%T: %v", c, err)
	}
	return r
}

func (s *service) put(key, value string) messages.EntryApplied {
	s.t.Helper()
	return must[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Operation: messages.PutOperation([]byte(key), []byte(value))})
}

func (s *service) get(key string) string {
	s.t.Helper()
	g := must[messages.Got](s, s.storage.KV, messages.Get{Key: []byte(key)})
	if !g.Found {
		return "(none)"
	}
	return string(g.Value)
}

func (s *service) snapshot() messages.SnapshotCreated {
	s.t.Helper()
	return must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{})
}

func (s *service) status() messages.Status {
	s.t.Helper()
	return must[messages.Status](s, s.storage.Supervisor, messages.ReadStatus{})
}

func (s *service) expect(key, want string) {
	s.t.Helper()
	if got := s.get(key); got != want {
		s.t.Errorf("%s is %q, want %q", key, got, want)
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	os.Exit(m.Run())
}

func TestApplyEntry(t *testing.T) {
	s := start(t, t.TempDir())
	for i := uint64(1); i <= 3; i++ {
		if a := s.put("k", fmt.Sprint(i)); a.Index != i || a.Term != 1 || a.Result.Existed != (i > 1) {
			t.Errorf("%d: %+v", i, a)
		}
	}
	s.expect("k", "3")
	apply := func(c messages.ApplyEntry) (messages.EntryApplied, error) {
		return ask[messages.EntryApplied](s, s.storage.Supervisor, c)
	}
	cas := messages.CompareAndSwapOperation([]byte("k"), []byte("3"), []byte("4"))
	if a, err := apply(messages.ApplyEntry{Term: 5, Operation: cas}); err != nil || !a.Result.Swapped || a.Term != 5 || a.Index != 4 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := apply(messages.ApplyEntry{Operation: cas}); err != nil || a.Result.Swapped || a.Term != 5 {
		t.Errorf("a swap that does not match: %+v, %v", a, err)
	}
	for name, c := range map[string]struct {
		apply messages.ApplyEntry
		want  error
	}{
		"stale term": {messages.ApplyEntry{Term: 4, Operation: cas}, messages.ErrStaleTerm},
		"no key":     {messages.ApplyEntry{Operation: messages.PutOperation(nil, nil)}, messages.ErrInvalid},
		"huge key":   {messages.ApplyEntry{Operation: messages.PutOperation(make([]byte, messages.MaxKey+1), nil)}, messages.ErrTooLarge},
		"huge value": {messages.ApplyEntry{Operation: messages.PutOperation([]byte("k"), make([]byte, messages.MaxValue+1))}, messages.ErrTooLarge},
		"no kind":    {messages.ApplyEntry{}, messages.ErrInvalid},
	} {
		if _, err := apply(c.apply); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if a := s.put("after", "x"); a.Index != 6 {
		t.Errorf("a refused proposal took an index: %+v", a)
	}
	s.expect("k", "4")
}

// Values that are not JSON are refused under a JSON index, by the operation's
// result: the entry is in the log of every replica all the same.
func TestIndex(t *testing.T) {
	s := start(t, t.TempDir())
	def := messages.IndexDefinition{Name: "size", Prefix: "f/", Fields: messages.Paths("size")}
	must[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Operation: messages.CreateIndexOperation(def)})
	for i := range 20 {
		s.put(fmt.Sprintf("f/%02d", i), fmt.Sprintf(`{"size":%d}`, (i*7)%20))
	}
	if a := s.put("f/bad", "not json"); !errors.Is(a.Result.Err, messages.ErrNotJSON) {
		t.Errorf("%+v", a)
	}
	s.expect("f/bad", "(none)")
	query := func(s *service) {
		t.Helper()
		q := must[messages.IndexQueried](s, s.storage.KV, messages.QueryIndex{Name: "size", Min: "5", Max: "7"})
		var got []string
		for _, p := range q.Pairs {
			got = append(got, string(p.Value))
		}
		if fmt.Sprint(got) != `[{"size":5} {"size":6} {"size":7}]` {
			t.Errorf("got %v", got)
		}
	}
	query(s)
	s.stop()
	query(start(t, s.dir))
}

func TestDirectWritesAreRefused(t *testing.T) {
	s := start(t, t.TempDir())
	if _, err := ask[messages.PutDone](s, s.storage.KV, messages.Put{Key: []byte("k")}); !errors.Is(err, messages.ErrReplicated) {
		t.Errorf("got %v", err)
	}
	s.expect("k", "(none)")
}

func TestReopenFindsEverything(t *testing.T) {
	s := start(t, t.TempDir())
	for i := range 100 {
		s.put(fmt.Sprint("k", i), fmt.Sprint(i))
	}
	s.stop()
	s = start(t, s.dir)
	for i := range 100 {
		s.expect(fmt.Sprint("k", i), fmt.Sprint(i))
	}
	if st := s.status(); st.Applied != 100 || st.Log.Last != 100 || st.Keys != 100 {
		t.Errorf("%+v", st)
	}
}

// Without its own files the application data is rebuilt from what the log and
// the snapshots hold.
func TestRebuild(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(dir string) error
	}{
		{"deleted", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "kv")) }},
		{"damaged", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "kv", "DATA"), bytes.Repeat([]byte("x"), 1000), 0o644)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, t.TempDir())
			for i := range 50 {
				s.put(fmt.Sprint("k", i), "old")
			}
			s.snapshot()
			for i := range 25 {
				s.put(fmt.Sprint("k", i), "new")
			}
			s.stop()
			if err := c.damage(s.dir); err != nil {
				t.Fatal(err)
			}
			s = start(t, s.dir)
			for i := range 50 {
				s.expect(fmt.Sprint("k", i), map[bool]string{true: "new", false: "old"}[i < 25])
			}
			if st := s.status(); st.Applied != 75 {
				t.Errorf("applied %d", st.Applied)
			}
		})
	}
}

// What cannot be made whole is refused, with the reason.
func TestNotEnoughToRebuild(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("k", "v")
	s.snapshot()
	s.put("k", "w")
	s.stop()
	for _, dir := range []string{"kv", "snapshots"} {
		if err := os.RemoveAll(filepath.Join(s.dir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	engine := newEngine(t)
	for range 2 { // and nothing is left running or locked by the first attempt
		if _, err := tryStart(t, engine, supervisor.Config{Dir: s.dir}); err == nil {
			t.Fatal("started without the snapshot that the log was compacted to")
		} else if !errors.Is(err, messages.ErrNotFound) && !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	}
}

func TestDataAheadOfTheLog(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("k", "v")
	s.stop()
	if err := os.RemoveAll(filepath.Join(s.dir, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, newEngine(t), supervisor.Config{Dir: s.dir}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

func TestLocked(t *testing.T) {
	s := start(t, t.TempDir())
	if _, err := tryStart(t, newEngine(t), supervisor.Config{Dir: s.dir}); !errors.Is(err, messages.ErrLocked) {
		t.Errorf("a second service on the directory: %v", err)
	}
	if _, err := tryStart(t, s.engine, supervisor.Config{Dir: t.TempDir()}); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("a second service of the same name: %v", err)
	}
	other, err := tryStart(t, s.engine, supervisor.Config{Dir: t.TempDir(), Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	other.put("k", "v")
	s.expect("k", "(none)")
}

// Every field that makes no sense is refused and named, alone and together.
func TestInvalidConfig(t *testing.T) {
	wrong := []struct {
		want string
		set  func(*supervisor.Config)
	}{
		{"Dir is empty", func(c *supervisor.Config) { c.Dir = "" }},
		{`Name "a/b" has a slash`, func(c *supervisor.Config) { c.Name = "a/b" }},
		{"Log: log: option SegmentBytes", func(c *supervisor.Config) { c.Log.SegmentBytes = -1 }},
		{"log: option MaxAppendBytes", func(c *supervisor.Config) { c.Log.MaxAppendBytes = 1 }},
		{"option MaxBatchBytes", func(c *supervisor.Config) { c.Log.MaxBatchBytes = -1 }},
		{"log: option ReserveBytes", func(c *supervisor.Config) { c.Log.ReserveBytes = -1 }},
		{"option MaxOpenFiles", func(c *supervisor.Config) { c.Log.MaxOpenFiles = -1 }},
		{"option Damage", func(c *supervisor.Config) { c.Log.Damage = 9 }},
		{"Snapshot: snapshot: option Level", func(c *supervisor.Config) { c.Snapshot.Level = 99 }},
		{"option BlockBytes", func(c *supervisor.Config) { c.Snapshot.BlockBytes = -1 }},
		{"option Concurrency", func(c *supervisor.Config) { c.Snapshot.Concurrency = -1 }},
		{"KV: kv: option MaxViewBytes", func(c *supervisor.Config) { c.KV.MaxViewBytes = -1 }},
		{"option CommitBytes", func(c *supervisor.Config) { c.KV.CommitBytes = -1 }},
		{"kv: option ReserveBytes", func(c *supervisor.Config) { c.KV.ReserveBytes = -1 }},
		{"Compaction: CompactionPolicy.Retry", func(c *supervisor.Config) { c.Compaction.Retry = -time.Second }},
		{"Scrub: ScrubPolicy.Pause", func(c *supervisor.Config) { c.Scrub.Pause = -time.Second }},
		{"Retention.Keep", func(c *supervisor.Config) { c.Retention.Keep = -1 }},
		{"Retention.MaxAge", func(c *supervisor.Config) { c.Retention.MaxAge = -time.Hour }},
		{"Retention.MaxBytes", func(c *supervisor.Config) { c.Retention.MaxBytes = -1 }},
		{"Retention.DryRun", func(c *supervisor.Config) { c.Retention.DryRun = true }},
		{"Limits", func(c *supervisor.Config) { c.Limits.Requests = -1 }},
		{"Restart: RestartPolicy.Window", func(c *supervisor.Config) { c.Restart.Window = -1 }},
		{"RestartPolicy.MaxFailures", func(c *supervisor.Config) { c.Restart.MaxFailures = -1 }},
		{"RestartPolicy.Retry", func(c *supervisor.Config) { c.Restart.Retry = -1 }},
	}
	dir := t.TempDir()
	good := supervisor.Config{Dir: dir, Scrub: actors.ScrubPolicy{BytesPerSecond: -1}}
	if err := good.Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	all := good
	for _, w := range wrong {
		c := good
		w.set(&c)
		w.set(&all)
		if _, err := supervisor.Spawn(newEngine(t), c); !errors.Is(err, messages.ErrInvalid) || !strings.Contains(err.Error(), w.want) {
			t.Errorf("%v does not name %s", err, w.want)
		}
	}
	err := all.Validate()
	for _, w := range wrong {
		if !errors.Is(err, messages.ErrInvalid) || !strings.Contains(err.Error(), w.want) {
			t.Errorf("%v does not name %s", err, w.want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("a refused configuration has made %v, %v", left, err)
	}
}

func TestSnapshotCompactsTheLog(t *testing.T) {
	s := start(t, t.TempDir())
	if _, err := ask[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{}); !errors.Is(err, messages.ErrNotApplied) {
		t.Errorf("a snapshot of nothing: %v", err)
	}
	for i := range 10 {
		s.put(fmt.Sprint("k", i), "v")
	}
	if _, err := ask[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{UpTo: 11}); !errors.Is(err, messages.ErrNotApplied) {
		t.Errorf("a snapshot of the future: %v", err)
	}
	// With two retained, the log always reaches back to the older one.
	for n := uint64(1); n <= 4; n++ {
		s.put("k", fmt.Sprint(n))
		c := must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{UpTo: 5, Meta: []byte("conf")})
		wantFirst := 10 + n + 1 // the only one
		if n > 1 {
			wantFirst--
		}
		if c.Info.Index != 10+n || c.LogFirst != wantFirst || string(c.Info.Meta) != "conf" || c.Info.Term != 1 {
			t.Errorf("%d: %+v, want the log to begin at %d", n, c, wantFirst)
		}
		if st := s.status(); len(st.Snapshots) != int(min(n, 2)) || st.Log.First != wantFirst || st.Log.PrevTerm != 1 {
			t.Errorf("%d: %+v", n, st)
		}
	}
	s.stop()
	s = start(t, s.dir)
	s.expect("k", "4")
	if a := s.put("k", "5"); a.Index != 15 {
		t.Errorf("%+v", a)
	}
}

func TestRestore(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("k", "one")
	first := s.snapshot()
	s.put("k", "two")
	s.put("l", "x")

	r := must[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: first.Info.ID})
	if r.Applied != 3 || r.Replayed != 2 {
		t.Errorf("%+v", r)
	}
	s.expect("k", "two")
	if a := s.put("m", "y"); a.Index != 4 {
		t.Errorf("%+v", a)
	}

	second := s.snapshot()
	r = must[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: first.Info.ID, Discard: true})
	if r.Applied != 1 || r.Replayed != 0 {
		t.Errorf("%+v", r)
	}
	check := func(s *service) {
		t.Helper()
		s.expect("k", "one")
		s.expect("l", "(none)")
		if st := s.status(); st.Applied != 1 || st.Log.Last != 1 || st.Log.First != 2 || len(st.Snapshots) != 1 {
			t.Errorf("%+v", st)
		}
	}
	check(s)
	s.stop()
	s = start(t, s.dir)
	check(s)
	if a := s.put("k", "three"); a.Index != 2 || a.Term != 1 {
		t.Errorf("%+v", a)
	}
	s.expect("k", "three")

	for name, c := range map[string]struct {
		restore messages.Restore
		want    error
	}{
		"discarded": {messages.Restore{ID: second.Info.ID}, messages.ErrNotFound},
		"unknown":   {messages.Restore{ID: "0000000000000000-0000000000000001-0000000000000009-019000000000"}, messages.ErrNotFound},
		"traversal": {messages.Restore{ID: "../../etc/passwd"}, messages.ErrInvalid},
		"group":     {messages.Restore{Group: 7}, messages.ErrNotFound},
	} {
		if _, err := ask[messages.Restored](s, s.storage.Supervisor, c.restore); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	s.expect("k", "three")
	s.put("still", "alive")
}

// Groups share the log and its syncs, and nothing else.
func TestGroups(t *testing.T) {
	s := start(t, t.TempDir())
	put := func(s *service, g uint64, v string) messages.EntryApplied {
		return must[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Group: g, Operation: messages.PutOperation([]byte("k"), []byte(v))})
	}
	for g := uint64(0); g < 5; g++ {
		for n := range g + 1 {
			put(s, g, fmt.Sprint(g, n))
		}
	}
	must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: 3})
	check := func(s *service) {
		t.Helper()
		for g := uint64(0); g < 5; g++ {
			got := must[messages.Got](s, s.storage.KV, messages.Get{Group: g, Key: []byte("k")})
			if string(got.Value) != fmt.Sprint(g, g) {
				t.Errorf("group %d: %q", g, got.Value)
			}
			b := must[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{Group: g}).Bounds
			if b.Last != g+1 || b.First != map[bool]uint64{true: 5, false: 1}[g == 3] {
				t.Errorf("group %d: %+v", g, b)
			}
		}
	}
	check(s)
	s.stop()
	if err := os.RemoveAll(filepath.Join(s.dir, "kv")); err != nil {
		t.Fatal(err)
	}
	check(start(t, s.dir))
}

// Each actor is crashed again and again under clients that never stop. Every
// proposal is answered once; what was acknowledged is there, in the order in
// which each client proposed it; the pids stay; nothing else goes down.
func TestCrashUnderLoad(t *testing.T) {
	for _, name := range []string{"log", "kv", "snapshot", "supervisor"} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t)
			s, err := tryStart(t, engine, supervisor.Config{Dir: t.TempDir(), Restart: actors.RestartPolicy{MaxFailures: 1000, MaxBackoff: 20 * time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			const clients, each, crashes = 16, 150, 8
			acked := make([][]int, clients)
			crashed := 0
			var mu sync.Mutex
			var wg sync.WaitGroup
			progress := make(chan struct{}, clients*each)
			for c := range clients {
				wg.Go(func() {
					for i := range each {
						op := messages.PutOperation(fmt.Appendf(nil, "%d/%d", c, i), []byte("v"))
						_, err := ask[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Operation: op})
						mu.Lock()
						switch {
						case err == nil:
							acked[c] = append(acked[c], i)
						case errors.Is(err, messages.ErrCrashed):
							crashed++
						default: // ErrInDoubt too: each outcome can be found out here
							t.Errorf("%d/%d: %v", c, i, err)
						}
						mu.Unlock()
						progress <- struct{}{}
					}
				})
			}
			for range crashes {
				for range clients * each / (crashes + 1) {
					<-progress
				}
				if err := s.storage.Crash(name); err != nil {
					t.Fatal(err)
				}
			}
			wg.Wait()
			st := s.status()
			for _, a := range st.Actors {
				if want := map[bool]uint64{true: crashes, false: 0}[a.Name == name]; a.Failures != want {
					t.Errorf("%s failed %d times, want %d: %s", a.Name, a.Failures, want, a.LastFailure)
				}
			}
			check := func(s *service) {
				t.Helper()
				for c := range clients {
					for _, i := range acked[c] {
						s.expect(fmt.Sprintf("%d/%d", c, i), "v")
					}
				}
				if st := s.status(); st.Applied != st.Log.Last {
					t.Errorf("applied %d of %d", st.Applied, st.Log.Last)
				}
			}
			check(s)
			s.stop()
			check(start(t, s.dir))
			t.Logf("%d acknowledged, %d left no trace", clients*each-crashed, crashed)
		})
	}
}

// A service that was stopped answers, and can be started again in the same
// engine at once; many times over, nothing is left behind.
func TestStopAndStartAgain(t *testing.T) {
	engine := newEngine(t)
	dir := t.TempDir()
	asker := actors.NewAsker(engine)
	defer asker.Close()
	for i := range 20 {
		s, err := tryStart(t, engine, supervisor.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if a := s.put("k", fmt.Sprint(i)); a.Index != uint64(i+1) {
			t.Fatalf("%+v", a)
		}
		s.stop()
		for _, pid := range []*actor.PID{s.storage.Supervisor, s.storage.KV, s.storage.Log, s.storage.Snapshot} {
			r, err := actors.Ask[messages.Status](t.Context(), asker, pid, messages.ReadStatus{})
			if !errors.Is(err, messages.ErrStopped) {
				t.Fatalf("%v after Stop: %+v, %v", pid, r, err)
			}
		}
	}
}
