package supervisor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/supervisor"
)

func (s *service) snapshotPath(id string) string {
	return filepath.Join(s.dir, "snapshots", id+".snap")
}

// lose removes parts of the service's directory, which is not open.
func (s *service) lose(parts ...string) {
	s.t.Helper()
	for _, part := range parts {
		if err := os.RemoveAll(filepath.Join(s.dir, part)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes a byte of a file.
func flip(t *testing.T, path string, offset int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[offset] ^= 0x55
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// rot damages a snapshot in its only block: header, index and footer stay good,
// so that only who reads it whole finds out.
func (s *service) rot(id string) {
	s.t.Helper()
	st, err := os.Stat(s.snapshotPath(id))
	if err != nil {
		s.t.Fatal(err)
	}
	// The footer has 80 bytes, and the index of one block 52.
	flip(s.t, s.snapshotPath(id), int(st.Size())-80-52-8)
	l := must[messages.SnapshotsListed](s, s.storage.Snapshot, messages.ListSnapshots{All: true})
	for _, info := range l.Snapshots {
		if info.ID == id {
			if _, err := ask[messages.SnapshotVerified](s, s.storage.Snapshot, messages.VerifySnapshot{ID: id}); !errors.Is(err, messages.ErrCorrupt) {
				s.t.Fatalf("a rotten snapshot: %v", err)
			}
			return
		}
	}
	s.t.Fatalf("%s is not listed any more: %+v", id, l)
}

// fill writes n keys, and the same ones again with the next call's value.
func (s *service) fill(group uint64, n int, value string) {
	s.t.Helper()
	for i := range n {
		if _, err := s.apply(group, fmt.Sprint("k", i), value); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *service) filled(group uint64, n int, value string) {
	s.t.Helper()
	for i := range n {
		got := must[messages.Got](s, s.storage.KV, messages.Get{Group: group, Key: fmt.Append(nil, "k", i)})
		if string(got.Value) != value {
			s.t.Errorf("group %d: k%d is %q, want %q", group, i, got.Value, value)
		}
	}
}

// damages hands on what an engine tells of damage, up to a mark.
type damages struct{ found chan error }

type mark struct{}

func (d damages) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case messages.DamageFound:
		d.found <- m.Err
	case mark:
		close(d.found)
	}
}

// watch returns a new engine, and a function that tells what damage has been
// found in it until then.
func watch(t *testing.T) (*actor.Engine, func() []error) {
	t.Helper()
	engine, found := newEngine(t), make(chan error, 1000)
	engine.Subscribe(engine.Spawn(func() actor.Receiver { return damages{found} }, "damages", actor.WithID("1")))
	return engine, func() (all []error) {
		engine.BroadcastEvent(mark{})
		for err := range found {
			all = append(all, err)
		}
		return all
	}
}

// The log was lost whole and so was the data: groups that only the snapshots
// know are brought back, and go on behind them.
func TestOnlySnapshotsAreLeft(t *testing.T) {
	s := start(t, t.TempDir())
	for _, g := range []uint64{0, 7} {
		s.fill(g, 5, "good")
		must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: g})
	}
	s.fill(7, 5, "newer") // of which one snapshot is damaged
	newest := must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: 7})
	s.rot(newest.Info.ID)
	s.stop()
	s.lose("log", "kv")
	for range 2 {
		s = start(t, s.dir)
		for _, g := range []uint64{0, 7} {
			s.filled(g, 5, "good")
			a, err := s.apply(g, "more", "steady")
			if err != nil || a.Index <= 5 || a.Term != 1 {
				t.Errorf("group %d goes on with %+v, %v", g, a, err)
			}
		}
		s.expect("more", "steady")
		s.stop()
	}
}

// Who has a state machine of their own, and uses the log and the snapshots only,
// finds both where they were: with entries of their own type that were
// compacted, with a snapshot beyond the log, and with nothing but a snapshot.
func TestStateMachineOfOnesOwn(t *testing.T) {
	const compacted, beyond, alone = 7, 8, 9
	s := start(t, t.TempDir())
	s.fill(0, 3, "v")
	ids := map[uint64]string{}
	save := func(group, index uint64) {
		m := must[messages.Saved](s, s.storage.Snapshot, messages.Save{Group: group, Index: index, Term: 1, Data: []byte("no application data")})
		ids[group] = m.Info.ID
	}
	entries := func(group, from uint64, n int) {
		es := make([]messages.Entry, n)
		for i := range es {
			es[i] = messages.Entry{Index: from + uint64(i), Term: 1, Type: 1, Data: []byte("mine")}
		}
		must[messages.Appended](s, s.storage.Log, messages.Append{Group: group, Entries: es, HardState: &messages.HardState{Term: 1, Commit: from + uint64(n) - 1}})
	}
	entries(compacted, 1, 10)
	entries(beyond, 1, 10)
	save(beyond, 20)
	save(alone, 100)
	for round := range uint64(3) {
		s.stop()
		s = start(t, s.dir)
		s.filled(0, 3, "v")
		// More than the last start has applied of it goes.
		from := 11 + 10*round
		entries(compacted, from, 10)
		save(compacted, from+5)
		must[messages.Compacted](s, s.storage.Log, messages.TruncateBefore{Group: compacted, Index: from + 6})
		for group, id := range ids {
			l := must[messages.SnapshotsListed](s, s.storage.Snapshot, messages.ListSnapshots{Group: group})
			if len(l.Snapshots) == 0 || l.Snapshots[0].ID != id {
				t.Errorf("group %d: %+v", group, l)
			}
		}
		for group, want := range map[uint64][2]uint64{compacted: {from + 6, from + 9}, beyond: {1, 10}, alone: {1, 0}} {
			if b := must[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{Group: group}).Bounds; b.First != want[0] || b.Last != want[1] {
				t.Errorf("group %d: %d to %d, want %v", group, b.First, b.Last, want)
			}
		}
	}
}

// The log ends before a snapshot although it reaches back to the first entry:
// the snapshot holds what was acknowledged.
func TestSnapshotAheadOfOldLog(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 3, "old")
	s.stop()
	if err := os.CopyFS(filepath.Join(s.dir, "log.old"), os.DirFS(filepath.Join(s.dir, "log"))); err != nil {
		t.Fatal(err)
	}
	s = start(t, s.dir)
	s.fill(0, 3, "new")
	s.snapshot()
	s.stop()
	s.lose("log", "kv")
	if err := os.Rename(filepath.Join(s.dir, "log.old"), filepath.Join(s.dir, "log")); err != nil {
		t.Fatal(err)
	}
	s = start(t, s.dir)
	s.filled(0, 3, "new")
	if a := s.put("k", "v"); a.Index != 7 {
		t.Errorf("%+v", a)
	}
}

// images copies the directory before and after each sync of the data: those of an
// import are before what it has staged counts, and when it does.
type images struct {
	durable.Disk
	t     *testing.T
	dir   string
	taken []string
}

func (i *images) take() {
	to := filepath.Join(i.t.TempDir(), "image")
	if err := os.CopyFS(to, os.DirFS(i.dir)); err != nil {
		i.t.Error(err)
	}
	i.taken = append(i.taken, to)
}

func (i *images) Sync(f *os.File) error {
	if filepath.Base(f.Name()) != "DATA" {
		return i.Disk.Sync(f)
	}
	i.take()
	err := i.Disk.Sync(f)
	i.take()
	return err
}

// A process that is killed while the log is being led on behind a snapshot is
// made whole by the next start.
func TestKilledWhileTheLogIsReset(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 5, "good")
	s.snapshot()
	s.stop()
	s.lose("log", "kv")
	disk := &images{Disk: durable.OS, t: t, dir: s.dir}
	s = with(t, supervisor.Config{Dir: s.dir, KV: kv.Options{Disk: disk}})
	s.filled(0, 5, "good")
	if len(disk.taken) != 4 {
		t.Fatalf("%d images", len(disk.taken))
	}
	for i, dir := range disk.taken {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := with(t, supervisor.Config{Dir: dir})
			s.filled(0, 5, "good")
			if a := s.put("k", "v"); a.Index != 6 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// foreign is a service with 8 entries and a snapshot of its own of index 3. In
// its directory lies another one, stale, of other entries up to index 5 in a
// later term, which makes it the newest.
func foreign(t *testing.T) (s *service, stale, own string) {
	t.Helper()
	put := func(s *service, term uint64, i int, value string) {
		op := messages.PutOperation(fmt.Append(nil, "k", i), []byte(value))
		must[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Term: term, Operation: op})
	}
	other := start(t, t.TempDir())
	for i := range 5 {
		put(other, 3, i, "stale")
	}
	stale = other.snapshot().Info.ID
	s = start(t, t.TempDir())
	for i := range 8 {
		put(s, 2, i, "good")
		if i == 2 {
			own = s.snapshot().Info.ID
		}
	}
	copyFile(t, other.snapshotPath(stale), s.snapshotPath(stale))
	return s, stale, own
}

// A snapshot that the log contradicts is reported by every start and never
// used: to replay the log on top of it would give a state that never was.
func TestSnapshotOfAnotherHistory(t *testing.T) {
	s, stale, own := foreign(t)
	if _, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: stale}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("restore of another history: %v", err)
	}
	s.filled(0, 8, "good")
	s.stop()
	again := func() (*service, error) {
		engine, found := watch(t)
		s, err := tryStart(t, engine, supervisor.Config{Dir: s.dir})
		told := func(err error) bool {
			return errors.Is(err, messages.ErrCorrupt) && strings.Contains(err.Error(), stale)
		}
		if all := found(); !slices.ContainsFunc(all, told) {
			t.Errorf("nothing tells of %s: %v", stale, all)
		}
		return s, err
	}
	s.lose("kv")
	next, err := again()
	if err != nil {
		t.Fatal(err)
	}
	next.filled(0, 8, "good")
	next.rot(own)
	next.stop()
	s.lose("kv")
	if s, err := again(); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("the only snapshot that is left is of another history: %v, %v", s, err)
	}
}

// Data of another history than the log is not what the log is replayed on top
// of: the state is that of the log, or there is none until the data is rebuilt.
func TestDataOfAnotherHistory(t *testing.T) {
	s, stale, own := foreign(t)
	s.stop()
	stray := filepath.Join(t.TempDir(), "stray")
	if err := os.CopyFS(stray, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	s = start(t, s.dir)
	must[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: stale, Discard: true})
	s.filled(0, 5, "stale")
	s.stop()
	if err := errors.Join(os.RemoveAll(filepath.Join(stray, "kv")), os.CopyFS(filepath.Join(stray, "kv"), os.DirFS(filepath.Join(s.dir, "kv")))); err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "alone")
	if err := os.CopyFS(alone, os.DirFS(stray)); err != nil {
		t.Fatal(err)
	}
	s = start(t, stray)
	s.filled(0, 8, "good")
	if a := s.put("k", "v"); a.Index != 9 {
		t.Errorf("%+v", a)
	}
	// Without a snapshot to go back to.
	if err := os.Remove(filepath.Join(alone, "snapshots", own+".snap")); err != nil {
		t.Fatal(err)
	}
	if s, err := tryStart(t, newEngine(t), supervisor.Config{Dir: alone}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("the log on top of another history: %v, %v", s, err)
	}
}

// A log that ends in a later term than a snapshot beyond its end has never held
// what the snapshot holds.
func TestSnapshotOfAnEarlierTermAhead(t *testing.T) {
	other := start(t, t.TempDir())
	other.fill(0, 5, "stale")
	stale := other.snapshot().Info.ID
	s := start(t, t.TempDir())
	op := messages.PutOperation([]byte("k0"), []byte("good"))
	must[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Term: 2, Operation: op})
	copyFile(t, other.snapshotPath(stale), s.snapshotPath(stale))
	s.stop()
	s.lose("kv")
	s = start(t, s.dir)
	s.filled(0, 1, "good")
	if a := s.put("k", "v"); a.Index != 2 {
		t.Errorf("%+v", a)
	}
}

// A snapshot of another history does not count towards those that are kept.
func TestRetentionBesideAnotherHistory(t *testing.T) {
	s, _, own := foreign(t)
	c := s.snapshot()
	if c.LogFirst != 4 { // index 3 is the older one of the two that count
		t.Errorf("the log begins at %d: %+v", c.LogFirst, c)
	}
	s.rot(c.Info.ID)
	s.stop()
	s.lose("kv")
	s = start(t, s.dir)
	s.filled(0, 8, "good")
	if _, err := os.Stat(s.snapshotPath(own)); err != nil {
		t.Error(err)
	}
}

// Whatever happens to one of the snapshots that are kept, every acknowledged
// write comes back from the older one and the log.
func TestFallBack(t *testing.T) {
	for _, c := range []struct {
		name string
		// harm is done to the two snapshots while the service runs, before the
		// third is taken; after it, to the third.
		harm  func(s *service, older, newer string)
		after func(s *service, third string)
		// first is where the log has to begin after the third, of index 15.
		first uint64
	}{
		{"nothing", func(*service, string, string) {}, (*service).rot, 11},
		{"newer rots", func(s *service, _, newer string) { s.rot(newer) }, (*service).rot, 6},
		{"newer loses its header", func(s *service, _, newer string) { flip(s.t, s.snapshotPath(newer), 20) }, (*service).rot, 6},
		{"older rots", func(s *service, older, _ string) { s.rot(older) }, (*service).rot, 11},
		{"newer is deleted", func(s *service, _, newer string) { s.remove(newer) }, (*service).rot, 6},
		{"older is deleted", func(s *service, older, _ string) { s.remove(older) }, (*service).remove, 11},
		{"older loses its header", func(s *service, older, _ string) { flip(s.t, s.snapshotPath(older), 20) }, (*service).remove, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, t.TempDir())
			s.fill(0, 5, "1")
			older := s.snapshot().Info.ID
			s.fill(0, 5, "2")
			newer := s.snapshot().Info.ID
			c.harm(s, older, newer)
			s.fill(0, 5, "3")
			third := s.snapshot()
			if third.LogFirst != c.first {
				t.Errorf("the log begins at %d, want %d", third.LogFirst, c.first)
			}
			s.fill(0, 4, "4")
			c.after(s, third.Info.ID)
			s.stop()
			s.lose("kv")
			s = start(t, s.dir)
			s.filled(0, 4, "4")
			s.expect("k4", "3")
			if a := must[messages.AppliedRead](s, s.storage.KV, messages.ReadApplied{}); a.Index != 19 {
				t.Errorf("applied %d", a.Index)
			}
			// With the next ones all is as it should be.
			s.put("k", "v")
			s.snapshot()
			s.put("k", "w")
			if c := s.snapshot(); c.LogFirst != 21 {
				t.Errorf("the log begins at %d after two more snapshots", c.LogFirst)
			}
		})
	}
}

func (s *service) remove(id string) {
	s.t.Helper()
	if err := os.Remove(s.snapshotPath(id)); err != nil {
		s.t.Fatal(err)
	}
}

// vanishing is a disk on which the newest snapshot is deleted by hand at the
// moment at which an old one is removed.
type vanishing struct {
	durable.Disk
	t *testing.T
}

func (v vanishing) Remove(path string) error {
	if strings.HasSuffix(path, ".snap") {
		all, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.snap"))
		if err != nil || len(all) < 2 {
			v.t.Errorf("%v, %v", all, err)
		}
		if err := os.Remove(all[len(all)-1]); err != nil {
			v.t.Error(err)
		}
	}
	return v.Disk.Remove(path)
}

// The log is not compacted for a snapshot that is gone.
func TestNewSnapshotIsDeletedByHand(t *testing.T) {
	cfg := supervisor.Config{Retention: messages.Retention{Keep: 1}}
	cfg.Snapshot.Disk = vanishing{durable.OS, t}
	s := with(t, cfg)
	s.fill(0, 5, "1")
	s.snapshot()
	s.fill(0, 5, "2")
	if c, err := ask[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{}); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("%+v, %v", c, err)
	}
	if st := s.status(); st.Log.First != 6 {
		t.Errorf("the log begins at %d and no snapshot is left", st.Log.First)
	}
}

// A Restore with Discard whose snapshot is deleted by hand on the way removes no
// other.
func TestDiscardToADeletedSnapshot(t *testing.T) {
	g := newGate(t)
	s := with(t, supervisor.Config{Log: raftlog.Options{Disk: g}})
	s.fill(0, 2, "1")
	older := s.snapshot().Info.ID
	s.fill(0, 2, "2")
	newer := s.snapshot().Info.ID
	replies := func() (n uint64) {
		for _, a := range s.status().Actors {
			if a.Name == "snapshot" {
				n = a.Replies
			}
		}
		return n
	}
	before := replies() // and one more for the list that it asks for
	hit, open := g.close(func(op, path string) bool { return op == "sync" && strings.Contains(path, "/wal/00000001/") })
	applied, restored := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.apply(0, "a", "1"); applied <- err }()
	<-hit // it waits until what is under way has come to its end
	go func() {
		_, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: older, Discard: true})
		restored <- err
	}()
	for asked := uint64(1); replies() < before+asked+2; asked++ { // it has opened and closed the snapshot
	}
	s.remove(older)
	open()
	if err := <-restored; !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("restore: %v", err)
	}
	if err := <-applied; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.snapshotPath(newer)); err != nil {
		t.Error(err)
	}
	s.filled(0, 2, "2")
	s.expect("a", "1")
}

// strange saves a state that is no application data.
func (s *service) strange(group, index, term uint64, state string) messages.SnapshotInfo {
	s.t.Helper()
	return must[messages.Saved](s, s.storage.Snapshot, messages.Save{Group: group, Index: index, Term: term, Data: []byte(state)}).Info
}

// A snapshot of something else beside application data is passed over: the data
// is served, from the log or from the snapshot before it.
func TestSnapshotOfSomethingElseBesideData(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 3, "v")
	s.strange(0, 42, 3, "no application data")
	s.stop()
	s = start(t, s.dir)
	s.filled(0, 3, "v")

	must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{})
	s.stop()
	s.lose("kv")
	s = start(t, s.dir)
	s.filled(0, 3, "v")
	b := must[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{}).Bounds
	if b.First != 4 || b.Last != 3 {
		t.Errorf("the log: %+v", b)
	}
}

// A state that is too short to be told from the beginning of application data
// does not cost its owner the log before it.
func TestShortStateOfSomethingElse(t *testing.T) {
	for _, state := range []string{"", "{}", "BLSTKVST"} {
		s := start(t, t.TempDir())
		must[messages.Appended](s, s.storage.Log, messages.Append{Group: 7, Entries: []messages.Entry{{Index: 1, Term: 1, Type: 1, Data: []byte("mine")}}})
		s.strange(7, 20, 1, state)
		s.stop()
		s = start(t, s.dir)
		if b := must[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{Group: 7}).Bounds; b.First != 1 || b.Last != 1 {
			t.Errorf("%q: the log is %d to %d, want 1 to 1", state, b.First, b.Last)
		}
		s.stop()
	}
}

// Nothing is given up for a snapshot that holds something else.
func TestDiscardToSomethingElse(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 3, "v")
	good := must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{}).Info
	s.fill(0, 3, "w")
	for _, index := range []uint64{2, 42} {
		mine := s.strange(0, index, 1, "no application data")
		r, err := actors.Ask[messages.Restored](t.Context(), s.storage.Asker(), s.storage.Supervisor, messages.Restore{ID: mine.ID, Discard: true})
		if !errors.Is(err, messages.ErrMalformed) {
			t.Errorf("%+v, %v", r, err)
		}
		if b := must[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{}).Bounds; b.First != 4 || b.Last != 6 {
			t.Errorf("the log: %+v", b)
		}
		l := must[messages.SnapshotsListed](s, s.storage.Snapshot, messages.ListSnapshots{})
		if !slices.ContainsFunc(l.Snapshots, func(i messages.SnapshotInfo) bool { return i.ID == good.ID }) {
			t.Errorf("the good snapshot is gone: %+v", l.Snapshots)
		}
		s.filled(0, 3, "w")
	}
}

// The data is lost and so is the snapshot that the log goes on from: a snapshot
// of something else does not turn that into an empty state that is served.
func TestSnapshotOfSomethingElseHidesNoLoss(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 3, "v")
	good := must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{}).Info
	s.fill(0, 1, "w")
	s.strange(0, 42, 3, "no application data")
	s.stop()
	s.lose("kv", filepath.Join("snapshots", good.ID+".snap"))
	storage, err := supervisor.Spawn(newEngine(t), supervisor.Config{Dir: s.dir})
	if err == nil {
		t.Fatal("started without the data", storage.Stop(t.Context()))
	}
	if !strings.Contains(err.Error(), "the log begins at 4") {
		t.Error(err)
	}
}

// A snapshot of something else is nothing to fall back on: the one of the data
// before it stays, and the log from there on.
func TestRetentionBesideSomethingElse(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 3, "v")
	must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{})
	s.fill(0, 3, "w")
	s.strange(0, 4, 1, "no application data")
	s.strange(0, 5, 1, "")
	newest := must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{})
	if newest.LogFirst != 4 {
		t.Errorf("the log begins at %d, want 4", newest.LogFirst)
	}
	s.stop()
	flip(t, s.snapshotPath(newest.Info.ID), 150)
	s.lose("kv")
	s = start(t, s.dir)
	s.filled(0, 3, "w")
}

// A snapshot that the log does not go on from is not taken for enough.
func TestGapBehindTheSnapshot(t *testing.T) {
	p := newPoints(t)
	dir := p.clone(t, "behind")
	for _, name := range []string{"oldest", "newest"} {
		if err := os.Remove(filepath.Join(dir, "snapshots", p.ids[name]+".snap")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "kv")); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	s.filled(7, 3, "seven")
	s.refused(0, 7, messages.ErrCorrupt, "the entries between are gone")
}
