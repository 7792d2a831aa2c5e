package supervisor_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/anthdm/hollywood/actor"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

// from is a snapshot of other data, up to an index, in a term.
func from(t *testing.T, index int, term uint64) (path, id string) {
	t.Helper()
	other := start(t, t.TempDir())
	for i := range index {
		op := messages.PutOperation(fmt.Append(nil, "k", i), []byte("theirs"))
		must[messages.EntryApplied](other, other.storage.Supervisor, messages.ApplyEntry{Term: term, Operation: op})
	}
	id = other.snapshot().Info.ID
	other.stop()
	return other.snapshotPath(id), id
}

// A recovery that leads the log on behind a snapshot, while appends are under
// way: what it takes out of the log is not acknowledged, also not as applied with
// its result lost, and is in doubt, because another replica's snapshot may include
// it. What is acknowledged is there.
func TestProposalsBesideASnapshotAhead(t *testing.T) {
	path, id := from(t, 20, 1)
	g := newGate(t)
	s := with(t, supervisor.Config{Log: raftlog.Options{Disk: g}})
	s.put("a", "1")
	copyFile(t, path, s.snapshotPath(id))
	hit, open := g.close(anySync)
	type outcome struct {
		key string
		m   messages.EntryApplied
		err error
	}
	const clients, each = 8, 20
	outcomes := make(chan outcome, clients*each)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("%d/%d", c, i)
				m, err := s.apply(0, key, "v")
				outcomes <- outcome{key, m, err}
			}
		})
	}
	<-hit
	if err := s.storage.Crash("kv"); err != nil {
		t.Fatal(err)
	}
	open()
	wg.Wait()
	close(outcomes)
	doubtful := 0
	for o := range outcomes {
		switch {
		case errors.Is(o.err, messages.ErrInDoubt):
			doubtful++
		case o.err != nil:
			t.Errorf("%s: %v", o.key, o.err)
		case o.m.Index <= 20 || o.m.Result.Err != nil:
			t.Errorf("%s is acknowledged at an index of the snapshot: %+v", o.key, o.m)
		default:
			s.expect(o.key, "v")
		}
	}
	if doubtful == 0 || doubtful > clients {
		t.Errorf("%d are in doubt; %d at most had been appended", doubtful, clients)
	}
	if st := s.status(); st.Applied != st.Log.Last || st.Log.First != 21 {
		t.Errorf("%d are applied: %+v", st.Applied, st.Log)
	}
	s.expect("k19", "theirs")
}

// passed collects the snapshots that recovery has passed over.
type passed struct{ found chan error }

func (p passed) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case messages.SnapshotPassedOver:
		p.found <- m.Err
	case mark:
		close(p.found)
	}
}

// A snapshot that a leader has sent, and that contradicts what a follower holds
// and does not know to be committed (Raft, figure 8), is no damage, whichever of
// the two has the later term. Recovery does not decide between them: the log
// stays, and the data is that of its commit index. ResetLog decides, and a crash
// after it is made whole.
func TestUncommittedTail(t *testing.T) {
	for _, c := range []struct {
		name                  string
		tail, snapshot        uint64 // terms
		commit, index, expect uint64
		want                  error // of a Restore
		damage                bool
	}{
		{"of an earlier term", 2, 5, 1, 3, 1, messages.ErrConflict, false},
		{"of a later term", 5, 2, 1, 3, 1, messages.ErrConflict, false},
		{"of a later term, and shorter", 5, 2, 1, 6, 1, messages.ErrInvalid, false},
		{"that is committed", 2, 5, 4, 3, 4, messages.ErrCorrupt, true},
		{"without a commit index", 2, 5, 0, 3, 0, messages.ErrConflict, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, id := from(t, int(c.index), c.snapshot)
			s := start(t, t.TempDir())
			s.stop()
			s.changeLog(func(w *raftlog.WAL) error {
				es := make([]messages.Entry, 4)
				for i := range es {
					es[i] = messages.Entry{Index: uint64(i + 1), Term: c.tail, Data: messages.PutOperation([]byte("k0"), fmt.Append(nil, i+1)).Encode(nil)}
				}
				es[0].Term = 1
				_, err := w.Append(0, es, &messages.HardState{Term: 9, Commit: c.commit})
				return err
			})
			copyFile(t, path, s.snapshotPath(id))
			engine, damages := watch(t)
			p := passed{make(chan error, 100)}
			engine.Subscribe(engine.Spawn(func() actor.Receiver { return p }, "passed", actor.WithID("1")))
			s, err := tryStart(t, engine, supervisor.Config{Dir: s.dir})
			if err != nil {
				t.Fatal(err)
			}
			if a := must[messages.AppliedRead](s, s.storage.KV, messages.ReadApplied{}); a.Index != c.expect {
				t.Errorf("%d are applied, want %d", a.Index, c.expect)
			}
			if b := s.status().Log; b.First != 1 || b.Last != 4 {
				t.Errorf("the log: %+v", b)
			}
			if _, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: id}); !errors.Is(err, c.want) {
				t.Errorf("restored: %v, want %v", err, c.want)
			}
			told := 0
			for _, err := range damages() {
				if strings.Contains(err.Error(), id) {
					told++
				}
			}
			over := 0
			for err := range p.found {
				if strings.Contains(err.Error(), id) && errors.Is(err, messages.ErrConflict) {
					over++
				}
			}
			if c.damage && (told == 0 || over > 0) || !c.damage && (told > 0 || over == 0) {
				t.Errorf("told %d times of damage, and %d times that it is passed over", told, over)
			}
			if c.damage {
				return
			}
			must[messages.LogReset](s, s.storage.Log, messages.ResetLog{Index: c.index, Term: c.snapshot})
			s.stop()
			s = start(t, s.dir)
			s.expect("k0", "theirs")
			if a := s.put("k", "v"); a.Index != c.index+1 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// A snapshot actor that fails in the middle of a CreateSnapshot ends it with an
// answer; nothing is left of it, and the next one succeeds.
func TestSnapshotActorFailsWhileOneIsTaken(t *testing.T) {
	s := start(t, memory(t))
	noise := make([]byte, 4<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for i := range 16 {
		s.put(fmt.Sprint("k", i), string(noise))
	}
	files := func() (all []string) {
		names, err := os.ReadDir(filepath.Join(s.dir, "snapshots"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if n.Name() != "LOCK" {
				all = append(all, n.Name())
			}
		}
		return all
	}
	failed := 0
	for try := 0; failed < 3; try++ {
		if try == 20 {
			t.Fatalf("%d of %d have failed", failed, try)
		}
		before := len(files())
		taken := make(chan error, 1)
		go func() {
			_, err := ask[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{})
			taken <- err
		}()
		until(t, "a file is being written", func() bool { return len(files()) > before })
		if err := s.storage.Crash("snapshot"); err != nil {
			t.Fatal(err)
		}
		err := <-taken
		if err == nil { // it was just over
			continue
		}
		failed++
		if !errors.Is(err, messages.ErrCrashed) && !errors.Is(err, messages.ErrNotFound) {
			t.Errorf("answered with %v", err)
		}
		if l := must[messages.SnapshotFilesListed](s, s.storage.Snapshot, messages.ListSnapshotFiles{}); len(l.Unfinished) > 0 {
			t.Errorf("left behind: %+v", l.Unfinished)
		}
		if left := files(); len(left) != before {
			t.Errorf("left behind: %v", left)
		}
		if b := s.status().Log; b.First != 1 && before == 0 {
			t.Errorf("the log was compacted: %+v", b)
		}
	}
	c := s.snapshot()
	must[messages.SnapshotVerified](s, s.storage.Snapshot, messages.VerifySnapshot{ID: c.Info.ID})
}
