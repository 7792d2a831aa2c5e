package sim_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/sim"
	"github.com/ballast-raft/ballast/snapshot"
)

// victim is a store that is killed: work opens it, acknowledges things and
// closes it; check opens an image and looks for what was acknowledged.
type victim struct {
	work  func(dir string, disk durable.Disk, ack func()) error
	check func(dir string, acked int) error
}

// A process is killed at each step of its disk; the next one opens what it
// left, acknowledges something more, and then the power goes. What a killed
// process had renamed and not synced must have been synced by its successor
// before it acknowledges anything that depends on it.
func TestKillThenPowerCut(t *testing.T) {
	for name, v := range map[string]victim{"log": logVictim, "kv": kvVictim, "snapshot": snapshotVictim} {
		t.Run(name, func(t *testing.T) {
			for _, after := range []bool{false, true} {
				for n := 1; ; n++ {
					killed := killThenCut(t, v, n, after)
					if t.Failed() || !killed {
						break
					}
				}
			}
		})
	}
}

func killThenCut(t *testing.T, v victim, n int, after bool) (killed bool) {
	base := t.TempDir()
	disk, err := sim.NewPowerDisk(base)
	if err != nil {
		t.Fatal(err)
	}
	acked := 0
	ack := func() { acked++ }
	disk.KillAt(n, after)
	dir := filepath.Join(base, "data")
	if err = v.work(dir, disk, ack); err != nil && !errors.Is(err, sim.ErrKilled) {
		t.Fatalf("step %d: %v", n, err)
	}
	killed = err != nil
	disk.KillAt(0, false)
	if err := v.work(dir, disk, ack); err != nil {
		t.Fatalf("after a kill at step %d (taken: %v): %v", n, after, err)
	}
	for s := range uint64(6) {
		image := filepath.Join(t.TempDir(), "image")
		if err := disk.Image(image, newRand(s)); err != nil {
			t.Fatal(err)
		}
		if err := v.check(filepath.Join(image, "data"), acked); err != nil {
			t.Errorf("kill at step %d (taken: %v), reopen, %d acknowledged, power cut %d: %v", n, after, acked, s, err)
		}
	}
	return killed
}

var logVictim = victim{
	work: func(dir string, disk durable.Disk, ack func()) (err error) {
		w, err := raftlog.Open(dir, raftlog.Options{Disk: disk, SegmentBytes: 200, NoLock: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
		for i := range 6 {
			if _, err := w.Append(0, []messages.Entry{{Term: 1, Data: make([]byte, 60)}}, nil); err != nil {
				return err
			}
			if i%3 == 2 {
				if _, err := w.TruncateBefore(0, w.Bounds(0).Last); err != nil {
					return err
				}
			}
			if _, err := w.Sync(); err != nil {
				return err
			}
			ack()
		}
		return nil
	},
	check: func(dir string, acked int) error {
		w, err := raftlog.Open(dir, raftlog.Options{NoLock: true})
		if err != nil {
			return err
		}
		if last := w.Bounds(0).Last; last < uint64(acked) {
			err = fmt.Errorf("the log ends at %d", last)
		}
		return errors.Join(err, w.Close())
	},
}

var kvVictim = victim{
	work: func(dir string, disk durable.Disk, ack func()) (err error) {
		db, err := kv.Open(dir, kv.Options{Disk: disk})
		if errors.Is(err, messages.ErrLocked) { // the killed one still holds it, in this process
			return err
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		for range 2 {
			n := db.Keys(0)
			ops := []messages.Operation{messages.PutOperation(fmt.Append(nil, "k", n), bytes.Repeat([]byte("v"), 700))}
			if _, err := db.Write(0, ops); err != nil {
				return err
			}
			if err := db.Sync(); err != nil {
				return err
			}
			ack()
			// The same state again, in a new generation of the file.
			view, err := db.OpenView(0)
			if err != nil {
				return err
			}
			var state bytes.Buffer
			if _, err := state.ReadFrom(view); err != nil {
				return err
			}
			if err := view.Close(); err != nil {
				return err
			}
			imp, err := db.BeginImport(0, 0, 0)
			if err != nil {
				return err
			}
			if _, err := imp.Write(state.Bytes()); err != nil {
				return err
			}
			if _, err := imp.Finish(); err != nil {
				return err
			}
		}
		return nil
	},
	check: func(dir string, acked int) error {
		db, err := kv.Open(dir, kv.Options{})
		if err != nil {
			return err
		}
		if n := db.Keys(0); n < acked {
			err = fmt.Errorf("%d keys", n)
		}
		return errors.Join(err, db.Close())
	},
}

var snapshotVictim = victim{
	work: func(dir string, disk durable.Disk, ack func()) (err error) {
		d, err := snapshot.OpenDir(dir, snapshot.Options{Disk: disk, NoLock: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
		infos, _, err := d.List(0)
		if err != nil {
			return err
		}
		// Whoever sees a snapshot may compact the log on its account.
		for i := len(infos); i < 2; i++ {
			w, err := d.Create(0, uint64(i+1), 1, nil)
			if err != nil {
				return err
			}
			if _, err := w.Write([]byte("state")); err != nil {
				return errors.Join(err, w.Abort())
			}
			if _, err := w.Finish(); err != nil {
				return err
			}
		}
		return nil
	},
	check: func(dir string, _ int) error {
		d, err := snapshot.OpenDir(dir, snapshot.Options{NoLock: true})
		if err != nil {
			return err
		}
		infos, damaged, err := d.List(0)
		if err == nil && (len(infos) != 2 || len(damaged) > 0) {
			err = fmt.Errorf("%d snapshots and %d damaged ones of 2 that were seen", len(infos), len(damaged))
		}
		return errors.Join(err, d.Close())
	},
}

// The power fails while the log prepares, closes and removes segments beside
// its appends: of the names that were not synced any may be there.
func TestNamesOfMaintenance(t *testing.T) {
	killed := 0
	for s := range uint64(120) {
		base := t.TempDir()
		disk, err := sim.NewPowerDisk(base)
		if err != nil {
			t.Fatal(err)
		}
		o := raftlog.Options{Disk: disk, SegmentBytes: 64, NoLock: true}
		w, err := raftlog.Open(filepath.Join(base, "data"), o)
		if err != nil {
			t.Fatal(err)
		}
		disk.KillAt(2+int(s), false)
		last := uint64(0)
		for range 12 {
			if _, err = w.Append(0, []messages.Entry{{Term: 1, Data: make([]byte, 70)}}, nil); err != nil {
				break
			}
			if last%5 == 4 {
				_, err = w.TruncateBefore(0, last-2)
			}
			if err == nil {
				_, err = w.Sync()
			}
			if err != nil {
				break
			}
			last++
			for err == nil && w.Due() {
				var again bool
				if again, err = w.Maintain(); err == nil && again {
					_, err = w.Sync()
				}
			}
			if err != nil {
				break
			}
		}
		if err != nil {
			killed++
		}
		image := filepath.Join(t.TempDir(), "image")
		if err := disk.Image(image, newRand(s)); err != nil {
			t.Fatal(err)
		}
		v, err := raftlog.Open(filepath.Join(image, "data"), raftlog.Options{SegmentBytes: 64, NoLock: true})
		if err != nil {
			t.Fatalf("image %d: %v", s, err)
		}
		if b := v.Bounds(0); b.Last < last {
			t.Errorf("image %d: %+v, and %d was acknowledged", s, b, last)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		_ = w.Close() // it was killed: any error will do
		if err := os.RemoveAll(base); err != nil {
			t.Fatal(err)
		}
	}
	if killed < 60 {
		t.Errorf("%d of 120 were killed", killed)
	}
}

// What was synced survives a power cut in the middle of changes that were not,
// whichever of their sectors are there.
func TestSyncedDataBeforeATornTail(t *testing.T) {
	for s := range uint64(100) {
		base := t.TempDir()
		disk, err := sim.NewPowerDisk(base)
		if err != nil {
			t.Fatal(err)
		}
		db, err := kv.Open(filepath.Join(base, "data"), kv.Options{Disk: disk})
		if err != nil {
			t.Fatal(err)
		}
		put := func(key string) error {
			_, err := db.Write(0, []messages.Operation{messages.PutOperation([]byte(key), bytes.Repeat([]byte("v"), 900))})
			return err
		}
		if err := errors.Join(put("synced"), db.Sync(), put("a"), put("b"), put("c")); err != nil {
			t.Fatal(err)
		}
		image := filepath.Join(t.TempDir(), "image")
		if err := disk.Image(image, newRand(s)); err != nil {
			t.Fatal(err)
		}
		cut, err := kv.Open(filepath.Join(image, "data"), kv.Options{})
		if err != nil {
			t.Fatalf("image %d: %v", s, err)
		}
		if _, version, err := cut.Get(0, []byte("synced")); err != nil || version == 0 {
			t.Errorf("image %d: version %v, %v", s, version, err)
		}
		if err := errors.Join(cut.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
