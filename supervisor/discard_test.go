package supervisor_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/sim"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/ballast-raft/ballast/supervisor"
)

// memory is a directory in memory, if there is such a thing: syncs are free.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ballast-supervisor-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// disks has all stores of a service use one disk.
func disks(dir string, d durable.Disk) supervisor.Config {
	cfg := supervisor.Config{Dir: dir, Log: raftlog.Options{Disk: d}, KV: kv.Options{Disk: d}, Scrub: actors.ScrubPolicy{BytesPerSecond: -1}}
	cfg.Snapshot = snapshot.Options{Disk: d}
	return cfg
}

// state is what a test knows of a service's group 0 at one time.
type state struct {
	applied uint64
	values  string // of k0 to k4
}

func (s *service) state() state {
	s.t.Helper()
	var values []string
	for i := range 5 {
		values = append(values, s.get(fmt.Sprint("k", i)))
	}
	st := s.status()
	if st.Log.Last != st.Applied {
		s.t.Errorf("%d are applied, and the log ends at %d", st.Applied, st.Log.Last)
	}
	return state{st.Applied, strings.Join(values, " ")}
}

// points are snapshots that a service can go back to: its log begins at 11 and
// ends at 18.
type points struct {
	dir, other string
	ids        map[string]string // by name
	states     map[string]state  // by name; "" is the current one
}

func newPoints(t *testing.T) points {
	p := points{dir: memory(t), other: memory(t), ids: map[string]string{}, states: map[string]state{}}
	foreign := start(t, p.other)
	for i := range 30 {
		op := messages.PutOperation(fmt.Append(nil, "k", i%5), []byte("other"))
		must[messages.EntryApplied](foreign, foreign.storage.Supervisor, messages.ApplyEntry{Term: 3, Operation: op})
		switch i + 1 {
		case 13:
			p.ids["another history"], p.states["another history"] = foreign.snapshot().Info.ID, foreign.state()
			copyFile(t, foreign.snapshotPath(p.ids["another history"]), filepath.Join(p.other, "13"))
		case 30:
			p.ids["ahead"], p.states["ahead"] = foreign.snapshot().Info.ID, foreign.state()
			copyFile(t, foreign.snapshotPath(p.ids["ahead"]), filepath.Join(p.other, "30"))
		}
	}
	foreign.stop()
	s := start(t, p.dir)
	s.fill(7, 3, "seven")
	for i, name := range []string{"behind", "oldest", "newest"} {
		s.fill(0, 5, fmt.Sprint(i))
		p.ids[name], p.states[name] = s.snapshot().Info.ID, s.state()
		copyFile(t, s.snapshotPath(p.ids[name]), filepath.Join(p.other, name))
	}
	s.fill(0, 3, "end")
	p.states[""] = s.state()
	if st := s.status(); st.Log.First != 11 || st.Log.Last != 18 {
		t.Fatalf("the log: %+v", st.Log)
	}
	copyFile(t, filepath.Join(p.other, "behind"), s.snapshotPath(p.ids["behind"]))
	s.stop()
	return p
}

// clone makes another directory of the same contents, with the snapshot that is
// called name.
func (p points) clone(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(memory(t), "data")
	if err := os.CopyFS(dir, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	if from := map[string]string{"ahead": "30", "another history": "13"}[name]; from != "" {
		copyFile(t, filepath.Join(p.other, from), filepath.Join(dir, "snapshots", p.ids[name]+".snap"))
	}
	return dir
}

var pointNames = []string{"behind", "oldest", "newest", "ahead", "another history"}

// steps is a disk that makes an image of all files before each step.
type steps struct {
	durable.Disk
	mu   sync.Mutex
	take func(step string)
}

func (d *steps) on(take func(step string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.take = take
}

func (d *steps) step(op, path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.take != nil {
		d.take(op + " " + filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path))
	}
}

func (d *steps) Sync(f *os.File) error    { d.step("sync", f.Name()); return d.Disk.Sync(f) }
func (d *steps) SyncDir(dir string) error { d.step("syncdir", dir); return d.Disk.SyncDir(dir) }
func (d *steps) Rename(a, b string) error { d.step("rename", b); return d.Disk.Rename(a, b) }
func (d *steps) Remove(path string) error { d.step("remove", path); return d.Disk.Remove(path) }

// A process that is killed, or whose power fails, at any step of a Restore with
// Discard has the old state or the new one afterwards, whichever snapshot it goes
// back to, and so do the other groups.
func TestKilledWhileDiscarding(t *testing.T) {
	p := newPoints(t)
	for _, name := range pointNames {
		t.Run(name, func(t *testing.T) {
			dir := p.clone(t, name)
			if name == "ahead" { // a start would take it for what the log has lost
				if err := os.Remove(filepath.Join(dir, "snapshots", p.ids[name]+".snap")); err != nil {
					t.Fatal(err)
				}
			}
			power, err := sim.NewPowerDisk(dir)
			if err != nil {
				t.Fatal(err)
			}
			disk := &steps{Disk: power}
			s := with(t, disks(dir, disk))
			if name == "ahead" {
				copyFile(t, filepath.Join(p.other, "30"), s.snapshotPath(p.ids[name]))
				if power, err = sim.NewPowerDisk(dir); err != nil {
					t.Fatal(err)
				}
				disk.Disk = power
			}
			type image struct {
				dir, step string
				cut       bool
			}
			var images []image
			n := 0
			take := func(step string) {
				n++
				kill := image{filepath.Join(memory(t), "image"), fmt.Sprintf("%d: killed before %s", n, step), false}
				err := os.CopyFS(kill.dir, os.DirFS(dir))
				images = append(images, kill)
				if name == "oldest" || name == "newest" { // the others show the same, and more
					if err != nil {
						t.Error(err)
					}
					return
				}
				cut := image{filepath.Join(memory(t), "image"), fmt.Sprintf("%d: power cut before %s", n, step), true}
				if err = errors.Join(err, power.Image(cut.dir, rand.New(rand.NewPCG(uint64(n), 0)))); err != nil {
					t.Error(err)
				}
				images = append(images, cut)
			}
			disk.on(take)
			must[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: p.ids[name], Discard: true})
			disk.on(nil)
			take("the end")
			if got := s.state(); got != p.states[name] {
				t.Errorf("restored to %v, want %v", got, p.states[name])
			}
			seen := map[state]int{}
			for _, i := range images {
				next, err := tryStart(t, newEngine(t), supervisor.Config{Dir: i.dir})
				if err != nil {
					t.Errorf("%s: %v", i.step, err)
					continue
				}
				got := next.state()
				if got == p.states[name] || got == p.states[""] {
					seen[got]++
				} else {
					t.Errorf("%s: %v, want %v or %v", i.step, got, p.states[name], p.states[""])
				}
				next.filled(7, 3, "seven")
				if a := next.put("k0", "v"); a.Index != got.applied+1 {
					t.Errorf("%s: %+v", i.step, a)
				}
				next.stop()
				if i.cut {
					continue
				}
				next = start(t, i.dir)
				if again := next.get("k0"); again != "v" {
					t.Errorf("%s: k0 is %q after another start", i.step, again)
				}
				if m, err := ask[messages.StableGot](next, next.storage.Log, messages.GetStable{Name: "ballast/discard"}); !errors.Is(err, messages.ErrNotFound) {
					t.Errorf("%s: the note is still there: %q, %v", i.step, m.Value, err)
				}
				next.stop()
			}
			if len(images) < 5 || seen[p.states[name]] == 0 || seen[p.states[""]] == 0 && name != "ahead" {
				t.Errorf("%d images, and the states %v", len(images), seen)
			}
			t.Logf("%d images: %v", len(images), seen)
		})
	}
}

// An actor that fails at any step of a Restore with Discard, with proposals
// under way: the state is the old one or the new one, as the reply says, and what
// is acknowledged afterwards is there.
func TestActorsFailWhileDiscarding(t *testing.T) {
	p := newPoints(t)
	for _, name := range []string{"behind", "newest"} {
		for _, victim := range []string{"supervisor", "kv", "log", "snapshot"} {
			t.Run(name+"/"+victim, func(t *testing.T) {
				for n, more := 1, true; more; n++ {
					more = failWhileDiscarding(t, p, name, victim, n)
				}
			})
		}
	}
}

func failWhileDiscarding(t *testing.T, p points, name, victim string, n int) (failed bool) {
	dir := p.clone(t, name)
	disk := &steps{Disk: durable.OS}
	cfg := disks(dir, disk)
	cfg.Restart.MaxFailures = 1000
	cfg.Restart.Retry = 20 * time.Millisecond
	s := with(t, cfg)
	steps := 0
	disk.on(func(string) {
		if steps++; steps == n {
			failed = true
			if err := s.storage.Crash(victim); err != nil {
				t.Error(err)
			}
			if victim == "supervisor" { // its successor is at work while this step hangs
				if _, err := ask[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{}); !errors.Is(err, messages.ErrInvalid) {
					t.Error(err)
				}
			}
		}
	})
	_, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: p.ids[name], Discard: true})
	disk.on(nil)
	applied, applyErr := s.apply(0, "new", "x")
	if applyErr != nil && !errors.Is(applyErr, messages.ErrUnavailable) && !errors.Is(applyErr, messages.ErrInDoubt) {
		t.Errorf("step %d: %v", n, applyErr)
	}
	for until := time.Now().Add(20 * time.Second); len(s.status().Withheld) > 0; {
		if time.Now().After(until) {
			t.Fatalf("step %d: %+v", n, s.status().Withheld)
		}
	}
	if applyErr == nil {
		s.expect("new", "x")
	}
	s.put("last", "y")
	s.expect("last", "y")
	got := s.state().values
	switch want, old := p.states[name].values, p.states[""].values; {
	case got == want:
	case got == old && err != nil:
	default:
		t.Errorf("step %d: %q after %v, want %q or %q", n, got, err, want, old)
	}
	if err == nil && got != p.states[name].values {
		t.Errorf("step %d: restored, and the state is %q", n, got)
	}
	st := s.status()
	s.stop()
	s = start(t, dir)
	if applyErr == nil {
		s.expect("new", "x")
	}
	s.expect("last", "y")
	if again := s.status(); again.Applied != st.Applied || again.Log.Last != st.Log.Last {
		t.Errorf("step %d: %+v, and after a start %+v (%+v)", n, st.Log, again.Log, applied)
	}
	s.stop()
	return failed
}

// A log that is cut at damage can bring back the note of a Restore that is long
// over. The data is then ahead of its log, and with the snapshot that was taken
// since the only copy of what was applied: neither is given up, also if a power
// cut has taken the data back to where the Restore left it.
func TestNoteThatCameBack(t *testing.T) {
	s := start(t, memory(t))
	s.fill(0, 5, "old")
	s.snapshot()
	s.fill(0, 5, "old")
	id := s.snapshot().Info.ID
	s.fill(0, 5, "discarded")
	must[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: id, Discard: true})
	s.stop()
	back := filepath.Join(memory(t), "kv")
	if err := os.CopyFS(back, os.DirFS(filepath.Join(s.dir, "kv"))); err != nil {
		t.Fatal(err)
	}
	s = start(t, s.dir)
	s.fill(0, 6, "new")
	newer := s.snapshot().Info.ID
	s.stop()
	var records []raftlog.RecordReport
	if _, err := raftlog.InspectRecords(filepath.Join(s.dir, "log"), func(r raftlog.RecordReport) { records = append(records, r) }); err != nil {
		t.Fatal(err)
	}
	noted := 0
	for n, r := range records {
		for _, data := range []string{filepath.Join(s.dir, "kv"), back} {
			dir := filepath.Join(memory(t), "data")
			err := errors.Join(os.CopyFS(dir, os.DirFS(s.dir)), os.RemoveAll(filepath.Join(dir, "kv")), os.CopyFS(filepath.Join(dir, "kv"), os.DirFS(data)))
			if err != nil {
				t.Fatal(err)
			}
			path, err := filepath.Rel(s.dir, r.Path)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, filepath.Join(dir, path), int(r.Offset)+2)
			options := raftlog.Options{Damage: raftlog.CutAtDamage}
			w, err := raftlog.Open(filepath.Join(dir, "log"), options)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Stable(0, "ballast/discard"); err == nil {
				noted++
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			next, err := tryStart(t, newEngine(t), supervisor.Config{Dir: dir, Log: raftlog.Options{Damage: raftlog.CutAtDamage}})
			switch {
			case err == nil && data != back:
				next.filled(0, 6, "new")
				next.stop()
			case err == nil:
				next.stop()
			case !errors.Is(err, messages.ErrCorrupt):
				t.Errorf("cut at record %d: %v", n, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "snapshots", newer+".snap")); err != nil {
				t.Errorf("cut at record %d: %v", n, err)
			}
			if data == back {
				continue
			}
			db, err := kv.Open(filepath.Join(dir, "kv"), kv.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if v, _, err := db.Get(0, []byte("k0")); string(v) != "new" || err != nil {
				t.Errorf("cut at record %d: k0 is %q, %v", n, v, err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if noted < 4 {
		t.Errorf("%d of %d cuts bring the note back", noted, len(records))
	}
}

// Proposals that become durable while a Restore with Discard waits for them are
// no part of what it goes back to: they are proposed again behind it, and what is
// acknowledged is in the log and in the data.
func TestProposalsBesideDiscard(t *testing.T) {
	g := newGate(t)
	s := with(t, supervisor.Config{Log: raftlog.Options{Disk: g}})
	s.put("a", "1")
	id := s.snapshot().Info.ID
	hit, open := g.close(anySync)
	type outcome struct {
		m   messages.EntryApplied
		err error
	}
	applied, restored := make(chan outcome, 1), make(chan error, 1)
	go func() { m, err := s.apply(0, "b", "2"); applied <- outcome{m, err} }()
	<-hit // its append is under way, at the index behind the snapshot
	go func() {
		err := messages.ErrConflict
		for errors.Is(err, messages.ErrConflict) { // with the question below
			_, err = ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: id, Discard: true})
		}
		restored <- err
	}()
	for err := error(nil); !errors.Is(err, messages.ErrConflict); { // until it has paused the group
		_, err = ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: "nonsense"})
	}
	open()
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	o := <-applied
	st := s.status()
	if o.err != nil || o.m.Index != st.Log.Last || st.Applied != st.Log.Last {
		t.Errorf("answered with %+v, %v; the log ends at %d, and %d are applied", o.m, o.err, st.Log.Last, st.Applied)
	}
	s.expect("b", "2")
	s.put("c", "3")
	s.stop()
	s = start(t, s.dir)
	s.expect("b", "2")
	s.expect("c", "3")
}

// The snapshot that a Restore with Discard goes back to cannot be removed before
// it is over.
func TestDiscardPinsItsSnapshot(t *testing.T) {
	g := newGate(t)
	cfg := supervisor.Config{KV: kv.Options{Disk: g}}
	s := with(t, cfg)
	s.put("a", "1")
	id := s.snapshot().Info.ID
	s.put("a", "2")
	s.snapshot()
	hit, open := g.close(func(op, path string) bool { return op == "sync" && filepath.Base(path) == "DATA" })
	restored := make(chan error, 1)
	go func() {
		_, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: id, Discard: true})
		restored <- err
	}()
	<-hit
	if _, err := ask[messages.SnapshotDeleted](s, s.storage.Snapshot, messages.DeleteSnapshot{ID: id}); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("deleted in the middle: %v", err)
	}
	open()
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	s.expect("a", "1")
}

// A newer snapshot that is being read cannot be removed: the Restore is in doubt,
// its group is withheld, the others are served, and when the reader is gone it is
// finished.
func TestDiscardWhileANewerOneIsRead(t *testing.T) {
	p := newPoints(t)
	s := with(t, supervisor.Config{Dir: p.clone(t, "behind"), Restart: soon})
	o := must[messages.SnapshotOpened](s, s.storage.Snapshot, messages.OpenSnapshot{ID: p.ids["newest"]})
	_, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: p.ids["behind"], Discard: true})
	if !errors.Is(err, messages.ErrInDoubt) {
		t.Fatalf("restored: %v", err)
	}
	s.filled(7, 3, "seven")
	s.refused(0, 7, messages.ErrConflict, "it is open")
	must[messages.SnapshotClosed](s, s.storage.Snapshot, messages.CloseSnapshot{Stream: o.Stream})
	until(t, "the Restore is finished", func() bool { return len(s.status().Withheld) == 0 })
	if got := s.state(); got != p.states["behind"] {
		t.Errorf("%v, want %v", got, p.states["behind"])
	}
}
