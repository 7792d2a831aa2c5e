package actors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// disk is the real one, with a switch: the next sync of a file whose name
// matches can be made to fail, to wait, or to be counted.
type disk struct {
	durable.Disk
	mu    sync.Mutex
	fail  error         // of the next sync
	block chan struct{} // the next sync waits for it
	held  chan struct{} // closed when one does
	syncs atomic.Int64
}

func newDisk() *disk { return &disk{Disk: durable.OS} }

func (d *disk) failNext(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// hold has the next sync wait until the returned function is called.
func (d *disk) hold() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ch := make(chan struct{})
	d.block, d.held = ch, make(chan struct{})
	return func() { close(ch) }
}

// holding returns what is closed when a sync has come to wait.
func (d *disk) holding() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held
}

func (d *disk) Sync(f *os.File) error {
	d.mu.Lock()
	err, block, held := d.fail, d.block, d.held
	d.fail, d.block = nil, nil
	d.mu.Unlock()
	if block != nil {
		close(held)
		<-block
	}
	if err != nil {
		return err
	}
	d.syncs.Add(1)
	return d.Disk.Sync(f)
}

// actorRig is one storage actor with an asker.
type actorRig struct {
	t     *testing.T
	asker *actors.Asker
	host  *actors.Host
	disk  *disk
	dir   string
}

func newActorRig(t *testing.T, spawn func(engine *actor.Engine, r *actorRig) (*actors.Host, error)) *actorRig {
	t.Helper()
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	r := &actorRig{t: t, asker: actors.NewAsker(engine), disk: newDisk(), dir: t.TempDir()}
	if r.host, err = spawn(engine, r); err != nil {
		t.Fatal(err)
	}
	if err := r.host.Opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// close stops the actor and checks its books.
func (r *actorRig) close() {
	r.t.Helper()
	if err := r.host.Stop(context.Background()); err != nil {
		r.t.Errorf("stop: %v", err)
	}
	if s := r.host.Status(); s.Requests != s.Replies || s.Queued != 0 {
		r.t.Errorf("the ledger does not balance: %+v", s)
	}
}

func do[R messages.Reply](r *actorRig, c messages.Command) (R, error) {
	return actors.Ask[R](r.t.Context(), r.asker, r.host.PID(), c)
}

func must[R messages.Reply](r *actorRig, c messages.Command) R {
	r.t.Helper()
	reply, err := do[R](r, c)
	if err != nil {
		r.t.Fatalf("%T: %v", c, err)
	}
	return reply
}

func newLog(t *testing.T) *actorRig {
	return newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		l, err := actors.SpawnLog(engine, actors.LogConfig{
			Config: actors.Config{Name: "test", ID: "log"},
			Open:   func() (raftlog.Store, error) { return raftlog.Open(r.dir, raftlog.Options{Disk: r.disk}) },
		})
		return l.Host, err
	})
}

func entries(first uint64, data ...string) []messages.Entry {
	es := make([]messages.Entry, len(data))
	for i, d := range data {
		es[i] = messages.Entry{Index: first + uint64(i), Term: 1, Data: []byte(d)}
	}
	return es
}

func TestLogActor(t *testing.T) {
	r := newLog(t)
	defer r.close()
	a := must[messages.Appended](r, messages.Append{Entries: entries(1, "a", "b", "c"), HardState: &messages.HardState{Term: 1, Vote: 2, Commit: 1}})
	if a.First != 1 || a.Last != 3 {
		t.Errorf("%+v", a)
	}
	if a := must[messages.Appended](r, messages.Append{Entries: []messages.Entry{{Term: 1}, {Term: 2}}}); a.First != 4 || a.Last != 5 {
		t.Errorf("indexes from the log: %+v", a)
	}
	if e := must[messages.EntryRead](r, messages.ReadEntry{Index: 2}); string(e.Entry.Data) != "b" {
		t.Errorf("%+v", e)
	}
	if es := must[messages.RangeRead](r, messages.ReadRange{From: 1, To: 4}); len(es.Entries) != 3 {
		t.Errorf("%+v", es)
	}
	if tr := must[messages.Truncated](r, messages.TruncateFrom{Index: 5}); tr.Last != 4 {
		t.Errorf("%+v", tr)
	}
	if c := must[messages.Compacted](r, messages.TruncateBefore{Index: 3}); c.First != 3 {
		t.Errorf("%+v", c)
	}
	must[messages.StableSet](r, messages.SetStable{Name: "n", Value: []byte("v")})
	if v := must[messages.StableGot](r, messages.GetStable{Name: "n"}); string(v.Value) != "v" {
		t.Errorf("%+v", v)
	}
	b := must[messages.BoundsRead](r, messages.ReadBounds{}).Bounds
	if b.First != 3 || b.Last != 4 || b.PrevTerm != 1 || b.LastTerm != 1 || b.HardState.Vote != 2 {
		t.Errorf("%+v", b)
	}
	must[messages.LogReset](r, messages.ResetLog{Index: 10, Term: 3})
	if a := must[messages.Appended](r, messages.Append{Group: 7, Entries: entries(1, "x")}); a.Last != 1 {
		t.Errorf("another group: %+v", a)
	}
	if g := must[messages.GroupsListed](r, messages.ListGroups{}); fmt.Sprint(g.Groups) != "[0 7]" {
		t.Errorf("%+v", g)
	}
	for name, c := range map[string]struct {
		command messages.Command
		want    error
	}{
		"nothing":     {messages.Append{}, messages.ErrEmptyAppend},
		"gap":         {messages.Append{Entries: entries(12, "x")}, messages.ErrOutOfOrder},
		"taken":       {messages.Append{Group: 7, Entries: entries(1, "x")}, messages.ErrConflict},
		"stale term":  {messages.Append{Entries: []messages.Entry{{Index: 11, Term: 2}}}, messages.ErrStaleTerm},
		"compacted":   {messages.ReadEntry{Index: 10}, messages.ErrCompacted},
		"beyond":      {messages.ReadEntry{Index: 11}, messages.ErrNotFound},
		"no such":     {messages.GetStable{Name: "x"}, messages.ErrNotFound},
		"other actor": {messages.Get{}, messages.ErrInvalid},
	} {
		if _, err := do[messages.Reply](r, c.command); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// While one batch is being synced the actor checks and stages, answers reads,
// and sends what has come meanwhile with the next sync.
func TestLogGroupCommit(t *testing.T) {
	r := newLog(t)
	defer r.close()
	must[messages.Appended](r, messages.Append{Entries: entries(1, "first")})
	release := r.disk.hold()
	before := r.disk.syncs.Load()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { must[messages.Appended](r, messages.Append{Entries: []messages.Entry{{Term: 1}}}) })
	}
	for r.host.Status().Queued < 100 {
		must[messages.EntryRead](r, messages.ReadEntry{Index: 1})
		must[messages.BoundsRead](r, messages.ReadBounds{})
	}
	release()
	wg.Wait()
	if n := r.disk.syncs.Load() - before; n > 3 {
		t.Errorf("100 appends took %d syncs, want one for those that came before it began and one for the rest", n)
	}
	if b := must[messages.BoundsRead](r, messages.ReadBounds{}).Bounds; b.Last != 101 {
		t.Errorf("%+v", b)
	}
}

// After a failed sync the store is reopened, and each command is answered by
// what is on disk then.
func TestLogSyncFailure(t *testing.T) {
	r := newLog(t)
	defer r.close()
	must[messages.Appended](r, messages.Append{Entries: entries(1, "safe")})
	r.disk.failNext(syscall.EIO)
	_, err := do[messages.Appended](r, messages.Append{Entries: entries(2, "in question")})
	e, readErr := do[messages.EntryRead](r, messages.ReadEntry{Index: 2})
	switch {
	case err == nil && readErr == nil && string(e.Entry.Data) == "in question":
	case errors.Is(err, messages.ErrCrashed) && errors.Is(readErr, messages.ErrNotFound):
	default:
		t.Errorf("append: %v; read: %v", err, readErr)
	}
	if e := must[messages.EntryRead](r, messages.ReadEntry{Index: 1}); string(e.Entry.Data) != "safe" {
		t.Errorf("%+v", e)
	}
	last := must[messages.BoundsRead](r, messages.ReadBounds{}).Bounds.Last
	must[messages.Appended](r, messages.Append{Entries: entries(last+1, "after")})
	if s := r.host.Status(); s.Failures != 1 {
		t.Errorf("%+v", s)
	}
}

// On a full disk appends are refused with nothing done, also those that wait
// behind one another; truncations use the reserve, and reads go on.
func TestLogDiskFull(t *testing.T) {
	reserve := int64(0)
	r := newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		l, err := actors.SpawnLog(engine, actors.LogConfig{
			Config: actors.Config{Name: "test", ID: "log"},
			Open: func() (raftlog.Store, error) {
				return raftlog.Open(r.dir, raftlog.Options{Disk: r.disk, ReserveBytes: atomic.LoadInt64(&reserve)})
			},
		})
		return l.Host, err
	})
	defer r.close()
	must[messages.Appended](r, messages.Append{Entries: entries(1, "a", "b", "c", "d")})
	atomic.StoreInt64(&reserve, 1<<60) // no disk has that much left
	r.host.Crash(errors.New("to open it again"))

	for round := range 3 {
		release := r.disk.hold() // so that everything below shares a batch
		first := make(chan error, 1)
		go func() {
			_, err := do[messages.Truncated](r, messages.TruncateFrom{Index: uint64(4 - round)})
			first <- err
		}()
		for r.host.Status().Queued == 0 {
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := do[messages.Appended](r, messages.Append{Entries: []messages.Entry{{Term: 9}}}); !errors.Is(err, messages.ErrDiskFull) {
					t.Errorf("append: %v, want ErrDiskFull", err)
				}
			})
			wg.Go(func() { must[messages.Compacted](r, messages.TruncateBefore{Index: 1}) })
		}
		wg.Go(func() { must[messages.EntryRead](r, messages.ReadEntry{Index: 1}) })
		release()
		wg.Wait()
		if err := <-first; err != nil {
			t.Errorf("truncate: %v", err)
		}
		if b := must[messages.BoundsRead](r, messages.ReadBounds{}).Bounds; b.Last != uint64(3-round) || b.LastTerm != 1 {
			t.Errorf("round %d: %+v", round, b)
		}
	}
	atomic.StoreInt64(&reserve, 0)
	r.host.Crash(errors.New("there is room again"))
	must[messages.Appended](r, messages.Append{Entries: entries(2, "e")})
}

func newKV(t *testing.T, replicated bool) *actorRig {
	return newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		a, err := actors.SpawnKV(engine, actors.KVConfig{
			Config: actors.Config{Name: "test", ID: "kv"}, Replicated: replicated,
			Open: func() (kv.Store, error) { return kv.Open(r.dir, kv.Options{Disk: r.disk}) },
		})
		return a.Host, err
	})
}

// The data compacts itself beside the writes, is tried again when the disk was
// full, and on demand.
func TestKVActorCompacts(t *testing.T) {
	for _, mode := range []actors.SyncMode{actors.SyncAlways, actors.SyncNever} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) { testCompacts(t, actors.SyncPolicy{Mode: mode}) })
	}
}

func testCompacts(t *testing.T, policy actors.SyncPolicy) {
	compacted := make(chan messages.DataFileReplaced, 100)
	var full atomic.Bool
	r := newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		a, err := actors.SpawnKV(engine, actors.KVConfig{
			Config: actors.Config{Name: "test", ID: "kv"}, Sync: policy,
			Compaction: actors.CompactionPolicy{Retry: time.Millisecond},
			Open: func() (kv.Store, error) {
				return kv.Open(r.dir, kv.Options{Disk: r.disk, MinGarbageBytes: 20_000, MaintainBytes: 500,
					OnCompact: func(e messages.DataFileReplaced) { compacted <- e },
					// Writes need no more than this, a compaction does.
					Free: func(string) (int64, error) {
						if full.Load() {
							return 1<<20 + 1500, nil
						}
						return 1 << 40, nil
					}})
			},
		})
		return a.Host, err
	})
	defer r.close()
	full.Store(true)
	value := bytes.Repeat([]byte("v"), 1000)
	for i := range 60 {
		must[messages.PutDone](r, messages.Put{Key: fmt.Append(nil, "k", i%3), Value: value})
	}
	if len(compacted) > 0 {
		t.Error("compacted without room")
	}
	full.Store(false)
	select {
	case e := <-compacted:
		if e.After >= e.Before || e.After > 10_000 {
			t.Errorf("%+v", e)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not compact itself")
	}
	must[messages.PutDone](r, messages.Put{Key: []byte("k0"), Value: value})
	if c := must[messages.DataCompacted](r, messages.CompactData{Tag: 9}); c.After >= c.Before || c.Tag != 9 {
		t.Errorf("%+v", c)
	}
	if g := must[messages.Got](r, messages.Get{Key: []byte("k2")}); !bytes.Equal(g.Value, value) {
		t.Errorf("%d bytes", len(g.Value))
	}
}

func TestKVActorDirectWrites(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	if p := must[messages.PutDone](r, messages.Put{Key: []byte("k"), Value: []byte("1")}); p.Existed {
		t.Errorf("%+v", p)
	}
	if c := must[messages.ComparedAndSwapped](r, messages.CompareAndSwap{Key: []byte("k"), Expect: []byte("1"), Value: []byte("2")}); !c.Swapped {
		t.Errorf("%+v", c)
	}
	if c := must[messages.ComparedAndSwapped](r, messages.CompareAndSwap{Key: []byte("k"), Value: []byte("3")}); c.Swapped {
		t.Errorf("%+v", c)
	}
	must[messages.PutDone](r, messages.Put{Key: []byte("j"), Value: []byte(`{"n":5}`)})
	must[messages.IndexCreated](r, messages.CreateIndex{Definition: messages.IndexDefinition{Name: "n", Prefix: "j", Fields: messages.Paths("n")}})
	if q := must[messages.IndexQueried](r, messages.QueryIndex{Name: "n", Equal: "5"}); len(q.Pairs) != 1 {
		t.Errorf("%+v", q)
	}
	if l := must[messages.IndexesListed](r, messages.ListIndexes{}); len(l.Indexes) != 1 {
		t.Errorf("%+v", l)
	}
	if m := must[messages.MultiGot](r, messages.MultiGet{Keys: [][]byte{[]byte("k"), []byte("none")}}); string(m.Values[0]) != "2" || m.Values[1] != nil {
		t.Errorf("%+v", m)
	}
	if s := must[messages.Scanned](r, messages.Scan{}); len(s.Pairs) != 2 || s.Next != nil {
		t.Errorf("%+v", s)
	}
	if d := must[messages.Deleted](r, messages.Delete{Key: []byte("k")}); !d.Existed {
		t.Errorf("%+v", d)
	}
	must[messages.IndexDropped](r, messages.DropIndex{Name: "n"})
	for name, c := range map[string]struct {
		command messages.Command
		want    error
	}{
		"empty key":   {messages.Put{}, messages.ErrInvalid},
		"no index":    {messages.QueryIndex{Name: "n"}, messages.ErrNotFound},
		"no view":     {messages.ExportChunk{View: 9}, messages.ErrNotFound},
		"no import":   {messages.FinishImport{Import: 9}, messages.ErrNotFound},
		"other actor": {messages.ReadEntry{}, messages.ErrInvalid},
	} {
		if _, err := do[messages.Reply](r, c.command); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A direct write is answered once it is on disk, others that come meanwhile
// share the next sync, and nobody reads what could still be lost.
func TestKVActorGroupCommit(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	must[messages.PutDone](r, messages.Put{Key: []byte("k"), Value: []byte("old")})
	release := r.disk.hold()
	before := r.disk.syncs.Load()
	var wg sync.WaitGroup
	put := func(key string) {
		wg.Go(func() { must[messages.PutDone](r, messages.Put{Key: []byte(key), Value: []byte("new")}) })
	}
	put("k")
	for r.host.Status().Queued < 1 {
	}
	read := make(chan string, 1)
	go func() { read <- string(must[messages.Got](r, messages.Get{Key: []byte("k")}).Value) }()
	for i := range 50 {
		put(fmt.Sprint(i))
	}
	for r.host.Status().Queued < 52 {
	}
	select {
	case v := <-read:
		t.Errorf("read %q while its sync was under way", v)
	default:
	}
	release()
	wg.Wait()
	if v := <-read; v != "new" {
		t.Errorf("read %q", v)
	}
	if n := r.disk.syncs.Load() - before; n > 3 {
		t.Errorf("51 writes took %d syncs", n)
	}
}

func TestKVActorSyncFailure(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	must[messages.PutDone](r, messages.Put{Key: []byte("safe"), Value: []byte("1")})
	r.disk.failNext(syscall.EIO)
	if _, err := do[messages.PutDone](r, messages.Put{Key: []byte("k"), Value: []byte("1")}); !errors.Is(err, messages.ErrInDoubt) {
		t.Errorf("got %v, want ErrInDoubt", err)
	}
	if g := must[messages.Got](r, messages.Get{Key: []byte("safe")}); string(g.Value) != "1" {
		t.Errorf("%+v", g)
	}
	must[messages.PutDone](r, messages.Put{Key: []byte("k"), Value: []byte("2")})
}

func TestKVActorApply(t *testing.T) {
	r := newKV(t, true)
	defer r.close()
	op := func(i uint64, o messages.Operation) messages.Entry {
		return messages.Entry{Index: i, Term: 1, Data: o.Encode(nil)}
	}
	es := []messages.Entry{
		op(1, messages.PutOperation([]byte("k"), []byte("v"))),
		{Index: 2, Term: 1},                            // a leader's empty entry
		{Index: 3, Term: 1, Type: 1, Data: []byte{99}}, // a configuration change
		{Index: 4, Term: 1, Data: []byte{99}},          // garbage
		op(5, messages.DeleteOperation([]byte("none"))),
	}
	a := must[messages.Applied](r, messages.Apply{Entries: es})
	if a.Index != 5 || len(a.Results) != 5 || !errors.Is(a.Results[3].Err, messages.ErrMalformed) || a.Results[4].Existed {
		t.Errorf("%+v", a)
	}
	a = must[messages.Applied](r, messages.Apply{Entries: es})
	if a.Index != 5 || !errors.Is(a.Results[0].Err, messages.ErrResultLost) {
		t.Errorf("again: %+v", a)
	}
	if _, err := do[messages.Applied](r, messages.Apply{Entries: []messages.Entry{op(7, messages.DeleteOperation([]byte("k")))}}); !errors.Is(err, messages.ErrOutOfOrder) {
		t.Errorf("a gap: %v", err)
	}
	if g := must[messages.Got](r, messages.Get{Key: []byte("k")}); string(g.Value) != "v" {
		t.Errorf("%+v", g)
	}
	if p := must[messages.AppliedRead](r, messages.ReadApplied{}); p.Index != 5 || p.Keys != 1 {
		t.Errorf("%+v", p)
	}
}

// export reads a view to its end.
func export(r *actorRig, view uint64) []byte {
	r.t.Helper()
	var all []byte
	for {
		c := must[messages.ChunkExported](r, messages.ExportChunk{View: view, MaxBytes: 1000})
		all = append(all, c.Data...)
		if c.EOF {
			return all
		}
	}
}

// A view is a point in time whatever is written later, and imports into
// another actor as the same state.
func TestKVActorViewAndImport(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	for i := range 200 {
		must[messages.PutDone](r, messages.Put{Key: fmt.Appendf(nil, "k%03d", i), Value: bytes.Repeat([]byte("v"), i)})
	}
	first, second := must[messages.ViewOpened](r, messages.OpenView{Export: true}), must[messages.ViewOpened](r, messages.OpenView{Export: true})
	want := export(r, first.View)
	for i := range 100 {
		must[messages.PutDone](r, messages.Put{Key: fmt.Appendf(nil, "k%03d", 2*i), Value: []byte("changed")})
	}
	if got := export(r, second.View); !bytes.Equal(got, want) {
		t.Error("a view has changed after it was opened")
	}
	must[messages.ViewClosed](r, messages.CloseView{View: first.View})
	if _, err := do[messages.ChunkExported](r, messages.ExportChunk{View: first.View}); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("a closed view: %v", err)
	}

	other := newKV(t, true)
	defer other.close()
	imp := must[messages.ImportBegun](other, messages.BeginImport{Index: 9, Term: 2})
	if _, err := do[messages.ImportBegun](other, messages.BeginImport{}); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("a second import: %v", err)
	}
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 777)
		must[messages.ChunkImported](other, messages.ImportChunk{Import: imp.Import, Data: bytes.Clone(rest[:n])})
		rest = rest[n:]
	}
	if m := must[messages.Imported](other, messages.FinishImport{Import: imp.Import}); m.Index != 9 || m.Keys != 200 {
		t.Errorf("%+v", m)
	}
	view := must[messages.ViewOpened](other, messages.OpenView{Export: true})
	if got := export(other, view.View); !bytes.Equal(got, want) || view.Index != 9 || view.Term != 2 {
		t.Error("the imported state differs")
	}

	imp = must[messages.ImportBegun](other, messages.BeginImport{Index: 10, Term: 2})
	if _, err := do[messages.ChunkImported](other, messages.ImportChunk{Import: imp.Import, Data: []byte("garbage, not an export")}); !errors.Is(err, messages.ErrMalformed) {
		t.Errorf("garbage: %v", err)
	}
	if p := must[messages.AppliedRead](other, messages.ReadApplied{}); p.Index != 9 || p.Keys != 200 {
		t.Errorf("after garbage: %+v", p)
	}
}

func spawnSnapshot(engine *actor.Engine, r *actorRig, env actors.Env) (*actors.Host, error) {
	a, err := actors.SpawnSnapshot(engine, actors.SnapshotConfig{
		Config: actors.Config{Name: "test", ID: "snapshot", Env: env},
		Open:   func() (snapshot.Store, error) { return snapshot.OpenDir(r.dir, snapshot.Options{Disk: r.disk}) },
	})
	return a.Host, err
}

func newSnapshot(t *testing.T) *actorRig {
	return newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		return spawnSnapshot(engine, r, actors.Env{})
	})
}

func TestSnapshotActorStreams(t *testing.T) {
	r := newSnapshot(t)
	defer r.close()
	want := bytes.Repeat([]byte("the state of things "), 100_000)
	var wg sync.WaitGroup
	for g := range uint64(6) { // several streams at once
		wg.Go(func() {
			b := must[messages.SaveBegun](r, messages.BeginSave{Group: g, Index: 5, Term: 2, Meta: []byte("m")})
			seq := uint64(0)
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 300_000)
				seq++
				must[messages.ChunkSaved](r, messages.SaveChunk{Group: g, Stream: b.Stream, Seq: seq, Data: bytes.Clone(rest[:n])})
				rest = rest[n:]
			}
			s := must[messages.Saved](r, messages.FinishSave{Group: g, Stream: b.Stream})
			if s.Info.Group != g || s.Info.RawBytes != int64(len(want)) || s.Info.FileBytes >= s.Info.RawBytes/2 {
				t.Errorf("%+v", s)
			}
			o := must[messages.SnapshotOpened](r, messages.OpenSnapshot{Group: g})
			var got []byte
			for {
				c := must[messages.ChunkRead](r, messages.ReadChunk{Group: g, Stream: o.Stream, MaxBytes: 100_000})
				got = append(got, c.Data...)
				if c.EOF {
					break
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("group %d: read %d bytes that differ", g, len(got))
			}
			must[messages.SnapshotClosed](r, messages.CloseSnapshot{Group: g, Stream: o.Stream})
			must[messages.SnapshotVerified](r, messages.VerifySnapshot{Group: g, ID: s.Info.ID})
		})
	}
	wg.Wait()
	if l := must[messages.SnapshotsListed](r, messages.ListSnapshots{All: true}); len(l.Snapshots) != 6 {
		t.Errorf("%+v", l)
	}
}

func TestSnapshotActorErrors(t *testing.T) {
	r := newSnapshot(t)
	defer r.close()
	saved := must[messages.Saved](r, messages.Save{Index: 1, Term: 1, Data: []byte("small")})
	begin := func() uint64 {
		return must[messages.SaveBegun](r, messages.BeginSave{Index: 2, Term: 1}).Stream
	}
	for name, c := range map[string]struct {
		command messages.Command
		want    error
	}{
		"index zero":      {messages.BeginSave{Term: 1}, messages.ErrInvalid},
		"meta":            {messages.BeginSave{Index: 1, Meta: make([]byte, messages.MaxSnapshotMeta+1)}, messages.ErrTooLarge},
		"no stream":       {messages.SaveChunk{Stream: 1 << 60, Seq: 1}, messages.ErrNotFound},
		"no such finish":  {messages.FinishSave{Stream: 1 << 60}, messages.ErrNotFound},
		"lost chunk":      {messages.SaveChunk{Stream: begin(), Seq: 2}, messages.ErrOutOfOrder},
		"huge chunk":      {messages.SaveChunk{Stream: begin(), Seq: 1, Data: make([]byte, messages.MaxSnapshotChunk+1)}, messages.ErrTooLarge},
		"huge save":       {messages.Save{Index: 1, Data: make([]byte, messages.MaxSnapshotChunk+1)}, messages.ErrTooLarge},
		"wrong direction": {messages.ReadChunk{Stream: begin()}, messages.ErrNotFound},
		"traversal":       {messages.OpenSnapshot{ID: "../../../etc/passwd"}, messages.ErrInvalid},
		"delete outside":  {messages.DeleteSnapshot{ID: "../log/MANIFEST"}, messages.ErrInvalid},
		"verify outside":  {messages.VerifySnapshot{ID: "/etc/passwd"}, messages.ErrInvalid},
		"none of group":   {messages.OpenSnapshot{Group: 9}, messages.ErrNotFound},
		"last good":       {messages.DeleteSnapshot{ID: saved.Info.ID}, messages.ErrConflict},
		"other actor":     {messages.Get{}, messages.ErrInvalid},
	} {
		if _, err := do[messages.Reply](r, c.command); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	aborted := begin()
	must[messages.SaveAborted](r, messages.AbortSave{Stream: aborted})
	if _, err := do[messages.Saved](r, messages.FinishSave{Stream: aborted}); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("finish after abort: %v", err)
	}
	if l := must[messages.SnapshotsListed](r, messages.ListSnapshots{}); len(l.Snapshots) != 1 || l.Snapshots[0].ID != saved.Info.ID {
		t.Errorf("something changed: %+v", l)
	}
}

// A stream that its owner has forgotten is given up, its file removed, and the
// owner told if it comes back.
func TestSnapshotActorLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshot(t)
		defer r.close()
		b := must[messages.SaveBegun](r, messages.BeginSave{Index: 2, Term: 1})
		must[messages.ChunkSaved](r, messages.SaveChunk{Stream: b.Stream, Seq: 1, Data: []byte("x")})
		must[messages.Saved](r, messages.Save{Index: 1, Term: 1, Data: []byte("y")})
		o := must[messages.SnapshotOpened](r, messages.OpenSnapshot{})
		temps := func() int {
			names, err := filepath.Glob(filepath.Join(r.dir, "*"+durable.TempSuffix))
			if err != nil {
				t.Fatal(err)
			}
			return len(names)
		}
		if temps() != 1 {
			t.Fatalf("%d temporary files", temps())
		}
		pass(2 * time.Minute)
		synctest.Wait()
		if temps() != 0 {
			t.Errorf("%d temporary files are left", temps())
		}
		if _, err := do[messages.ChunkSaved](r, messages.SaveChunk{Stream: b.Stream, Seq: 2}); !errors.Is(err, messages.ErrExpired) {
			t.Errorf("write: %v", err)
		}
		if _, err := do[messages.ChunkRead](r, messages.ReadChunk{Stream: o.Stream}); !errors.Is(err, messages.ErrExpired) {
			t.Errorf("read: %v", err)
		}
	})
}

// A crash ends the streams, each with one reply, and takes no snapshot away.
func TestSnapshotActorCrash(t *testing.T) {
	r := newSnapshot(t)
	defer r.close()
	must[messages.Saved](r, messages.Save{Index: 1, Term: 1, Data: []byte("y")})
	b := must[messages.SaveBegun](r, messages.BeginSave{Index: 2, Term: 1})
	r.host.Crash(errors.New("on purpose"))
	if _, err := do[messages.ChunkSaved](r, messages.SaveChunk{Stream: b.Stream, Seq: 1}); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if l := must[messages.SnapshotsListed](r, messages.ListSnapshots{}); len(l.Snapshots) != 1 {
		t.Errorf("%+v", l)
	}
}

// A transaction goes through the group commit like other direct writes, and
// through the log where one drives the data.
func TestKVActorTxn(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	key := []byte("k")
	create := messages.Transaction{
		If:   []messages.Compare{messages.Missing(key)},
		Then: []messages.Operation{messages.PutOperation(key, []byte("1"))},
		Else: []messages.Operation{messages.GetOperation(key)},
	}
	if d := must[messages.TxnDone](r, messages.Txn{Transaction: create}); !d.Succeeded || d.Version != 1 || len(d.Results) != 1 {
		t.Errorf("%+v", d)
	}
	if d := must[messages.TxnDone](r, messages.Txn{Transaction: create}); d.Succeeded || d.Version != 0 || string(d.Results[0].Value) != "1" {
		t.Errorf("%+v", d)
	}
	if _, err := do[messages.TxnDone](r, messages.Txn{Transaction: messages.Transaction{Then: []messages.Operation{messages.DropIndexOperation("x")}}}); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
	replicated := newKV(t, true)
	defer replicated.close()
	if _, err := do[messages.TxnDone](replicated, messages.Txn{Transaction: create}); !errors.Is(err, messages.ErrReplicated) {
		t.Error(err)
	}
	entries := []messages.Entry{{Index: 1, Term: 1, Data: messages.TxnOperation(create).Encode(nil)}, {Index: 2, Term: 1, Data: messages.TxnOperation(create).Encode(nil)}}
	if a := must[messages.Applied](replicated, messages.Apply{Entries: entries}); !a.Results[0].Succeeded || a.Results[0].Version != 1 || a.Results[1].Succeeded || string(a.Results[1].Results[0].Value) != "1" {
		t.Errorf("%+v", a)
	}
}
