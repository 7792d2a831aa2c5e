package supervisor_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

// soon tries what is withheld again after a moment.
var soon = actors.RestartPolicy{Retry: 20 * time.Millisecond}

// changeLog changes the log of a service that is not open.
func (s *service) changeLog(change func(w *raftlog.WAL) error) {
	s.t.Helper()
	w, err := raftlog.Open(filepath.Join(s.dir, "log"), raftlog.Options{})
	if err == nil {
		err = change(w)
	}
	if err == nil {
		_, err = w.Sync()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not in 20 seconds", what)
		}
	}
}

// refused checks that a group is withheld, everywhere and for a reason that
// names it, and that another is served.
func (s *service) refused(group, other uint64, reason error, says string) {
	s.t.Helper()
	check := func(what string, err error) {
		s.t.Helper()
		if !errors.Is(err, messages.ErrUnavailable) || !errors.Is(err, reason) || !strings.Contains(err.Error(), says) {
			s.t.Errorf("%s: %v, want %v that says %q", what, err, reason, says)
		}
	}
	_, err := s.apply(group, "k0", "v")
	check("apply entry", err)
	_, err = ask[messages.Got](s, s.storage.KV, messages.Get{Group: group, Key: []byte("k0")})
	check("get", err)
	_, err = ask[messages.Scanned](s, s.storage.KV, messages.Scan{Group: group})
	check("scan", err)
	_, err = ask[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: group})
	check("create snapshot", err)
	w := s.status().Withheld
	if len(w) != 1 || w[0].Group != group || !errors.Is(w[0].Err, reason) {
		s.t.Errorf("the status says %+v", w)
	}
	if _, err := s.apply(other, "served", "yes"); err != nil {
		s.t.Errorf("the other group: %v", err)
	}
	must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: other})
}

// A group whose data cannot be brought back is withheld, and no other; it comes
// back by itself when what was missing is there.
func TestOneGroupIsLost(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 3, "zero")
	s.fill(7, 5, "seven")
	id := must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: 7}).Info.ID
	s.fill(7, 2, "eight")
	s.stop()
	away := filepath.Join(t.TempDir(), "away")
	copyFile(t, s.snapshotPath(id), away)
	s.remove(id)
	s.lose("kv")
	s = with(t, supervisor.Config{Dir: s.dir, Restart: soon})
	s.filled(0, 3, "zero")
	s.refused(7, 0, messages.ErrNotFound, "the log begins at 6")
	for _, name := range []string{"kv", "supervisor"} { // nor does a failure change that
		if err := s.storage.Crash(name); err != nil {
			t.Fatal(err)
		}
		s.filled(0, 3, "zero")
		s.refused(7, 0, messages.ErrNotFound, "the log begins at 6")
	}
	copyFile(t, away, s.snapshotPath(id))
	until(t, "group 7 is back", func() bool { return len(s.status().Withheld) == 0 })
	s.filled(7, 2, "eight")
	if a, err := s.apply(7, "k", "v"); err != nil || a.Index != 8 {
		t.Errorf("%+v, %v", a, err)
	}
}

// A group whose log has lost what was applied is withheld, with all it has; a
// Restore gives that up and brings it back.
func TestWithheldGroupIsRestored(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 3, "zero")
	s.fill(7, 3, "old")
	id := must[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{Group: 7}).Info.ID
	s.fill(7, 3, "new")
	s.stop()
	s.changeLog(func(w *raftlog.WAL) error { _, err := w.TruncateFrom(7, 5); return err })
	s = start(t, s.dir)
	s.refused(7, 0, messages.ErrCorrupt, "Restore with Discard")
	must[messages.Restored](s, s.storage.Supervisor, messages.Restore{Group: 7, ID: id, Discard: true})
	if w := s.status().Withheld; len(w) > 0 {
		t.Errorf("still withheld: %+v", w)
	}
	for range 2 {
		s.filled(7, 3, "old")
		if _, err := s.apply(7, "k", "v"); err != nil {
			t.Error(err)
		}
		s.stop()
		s = start(t, s.dir)
	}
}

// What clients propose while a service begins does not fill up a log that has
// lost entries, which would then pass for whole.
func TestProposalsWaitForRecovery(t *testing.T) {
	s := start(t, t.TempDir())
	s.fill(0, 1, "zero")
	s.fill(7, 5, "seven")
	s.stop()
	s.changeLog(func(w *raftlog.WAL) error { _, err := w.TruncateFrom(7, 4); return err })
	engine := newEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	asker := actors.NewAsker(engine)
	defer asker.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			pid := actor.NewPID(engine.Address(), "ballast/supervisor")
			for ctx.Err() == nil {
				c := messages.ApplyEntry{Group: 7, Operation: messages.PutOperation([]byte("a"), nil)}
				if _, err := actors.Ask[messages.EntryApplied](ctx, asker, pid, c); err == nil {
					t.Error("acknowledged on top of a log that has lost entries")
				}
			}
		})
	}
	next, err := tryStart(t, engine, supervisor.Config{Dir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	next.refused(7, 0, messages.ErrCorrupt, "the log ends at 3")
	cancel()
	wg.Wait()
	if b := must[messages.BoundsRead](next, next.storage.Log, messages.ReadBounds{Group: 7}).Bounds; b.Last != 3 {
		t.Errorf("the log: %+v", b)
	}
}

// A log that is cut at damage while its service runs has lost what was applied:
// nothing is acknowledged on top of that.
func TestLogIsCutWhileServing(t *testing.T) {
	s := with(t, supervisor.Config{Log: raftlog.Options{Damage: raftlog.CutAtDamage}, Restart: soon})
	s.fill(7, 3, "seven")
	s.fill(0, 5, "zero")
	var at *raftlog.RecordReport
	if _, err := raftlog.InspectRecords(filepath.Join(s.dir, "log"), func(r raftlog.RecordReport) {
		if r.Group == 0 && r.First == 3 {
			at = &r
		}
	}); err != nil {
		t.Fatal(err)
	}
	flip(t, at.Path, int(at.Offset)+2)
	if err := s.storage.Crash("log"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if a, err := s.apply(0, "k0", "lost"); err == nil {
			t.Fatalf("acknowledged: %+v", a)
		}
	}
	until(t, "the group is withheld", func() bool { return len(s.status().Withheld) == 1 })
	s.filled(7, 3, "seven")
	s.refused(0, 7, messages.ErrCorrupt, "the log ends at 2")
}

// A state machine of one's own may reset its log to before what recovery has
// counted, in every way.
func TestOwnLogIsResetBackwards(t *testing.T) {
	const own = 8
	append1 := func(w *raftlog.WAL, from, to, term uint64) error {
		var es []messages.Entry
		for i := from; i <= to; i++ {
			es = append(es, messages.Entry{Index: i, Term: term, Type: 1, Data: []byte("mine")})
		}
		_, err := w.Append(own, es, &messages.HardState{Term: term, Commit: to})
		return err
	}
	for _, c := range []struct {
		name        string
		change      func(w *raftlog.WAL) error
		first, last uint64
		snapshot    bool
	}{
		{"and is empty", func(*raftlog.WAL) error { return nil }, 4, 3, false},
		{"and is empty, with a snapshot", func(*raftlog.WAL) error { return nil }, 4, 3, true},
		{"and goes on", func(w *raftlog.WAL) error { return append1(w, 4, 6, 1) }, 4, 6, false},
		{"and goes on in another term", func(w *raftlog.WAL) error { return append1(w, 4, 15, 2) }, 4, 15, false},
	} {
		for _, alone := range []bool{false, true} {
			t.Run(c.name+map[bool]string{true: ", alone"}[alone], func(t *testing.T) {
				s := start(t, t.TempDir())
				if !alone {
					s.fill(0, 3, "zero")
				}
				if c.snapshot {
					s.strange(own, 3, 1, "no application data")
				}
				s.stop()
				s.changeLog(func(w *raftlog.WAL) error { return append1(w, 1, 10, 1) })
				start(t, s.dir).stop() // which counts them
				s.changeLog(func(w *raftlog.WAL) error {
					_, err := w.Reset(own, 3, 1)
					return errors.Join(err, c.change(w))
				})
				for range 2 {
					s = start(t, s.dir)
					if !alone {
						s.filled(0, 3, "zero")
					}
					if w := s.status().Withheld; len(w) > 0 {
						t.Errorf("withheld: %+v", w)
					}
					b := must[messages.BoundsRead](s, s.storage.Log, messages.ReadBounds{Group: own}).Bounds
					a := must[messages.AppliedRead](s, s.storage.KV, messages.ReadApplied{Group: own})
					if b.First != c.first || b.Last != c.last || a.Index != c.last || a.Keys != 0 {
						t.Errorf("the log: %+v, and counted: %+v", b, a)
					}
					s.stop()
				}
			})
		}
	}
}

// Data without a key is data all the same, if its log has operations.
func TestEmptyDataIsNobodysOwn(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("a", "1")
	must[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Operation: messages.DeleteOperation([]byte("a"))})
	s.stop()
	s.changeLog(func(w *raftlog.WAL) error { _, err := w.TruncateFrom(0, 2); return err })
	if s, err := tryStart(t, newEngine(t), supervisor.Config{Dir: s.dir}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("%v, %v", s, err)
	}
}
