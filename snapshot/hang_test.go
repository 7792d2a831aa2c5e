package snapshot_test

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// hangingDisk is the real disk, but a step of one kind hangs until it is let go.
type hangingDisk struct {
	durable.Disk
	mu    sync.Mutex
	hangs string
	// begun is closed when the step hangs, and closing end lets it go.
	begun, end chan struct{}
}

// next makes the next step of a kind hang.
func (d *hangingDisk) next(what string) (begun <-chan struct{}, letGo func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hangs, d.begun, d.end = what, make(chan struct{}), make(chan struct{})
	return d.begun, sync.OnceFunc(func() { close(d.end) })
}

func (d *hangingDisk) step(what string, do func() error) error {
	d.mu.Lock()
	hangs, begun, end := d.hangs == what, d.begun, d.end
	if hangs {
		d.hangs = ""
	}
	d.mu.Unlock()
	if hangs {
		close(begun)
		<-end
	}
	return do()
}

func (d *hangingDisk) Sync(f *os.File) error {
	return d.step("sync", func() error { return d.Disk.Sync(f) })
}

func (d *hangingDisk) SyncDir(dir string) error {
	return d.step("syncdir", func() error { return d.Disk.SyncDir(dir) })
}

func (d *hangingDisk) Rename(from, to string) error {
	return d.step("rename", func() error { return d.Disk.Rename(from, to) })
}

func (d *hangingDisk) Remove(path string) error {
	return d.step("remove", func() error { return d.Disk.Remove(path) })
}

// While a step for one group hangs on the disk, whatever it is for, all other
// groups go on in every way, and in the group itself what is there can be read.
func TestHangingDisk(t *testing.T) {
	type setting struct {
		d         *snapshot.Dir
		path      string
		old, last messages.SnapshotInfo // of group 1
		stream    []byte
		bad       messages.SnapshotInfo // of group 1, damaged
	}
	begin := func(s setting) snapshot.Writer {
		w, _, err := s.d.Resume(1, 9, 1, nil)
		if err == nil {
			_, err = w.Write(records(1, 3000))
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for _, c := range []struct {
		name, step string
		// run prepares what is called while the step hangs.
		run func(s setting) func() error
	}{
		{"taking a save over", "sync", func(s setting) func() error {
			begin(s)
			return func() error { _, _, err := s.d.Resume(1, 9, 1, nil); return err }
		}},
		{"taking a save over, its name", "syncdir", func(s setting) func() error {
			begin(s)
			return func() error { _, _, err := s.d.Resume(1, 9, 1, nil); return err }
		}},
		{"replacing a save", "remove", func(s setting) func() error {
			begin(s)
			return func() error { _, _, err := s.d.Resume(1, 10, 1, nil); return err }
		}},
		{"taking an import over", "sync", func(s setting) func() error {
			m, _, err := s.d.Import("")
			if err == nil {
				_, err = m.Write(s.stream[:len(s.stream)-10])
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() error { _, _, err := s.d.Import(m.ID()); return err }
		}},
		{"finishing, the bytes", "sync", func(s setting) func() error {
			w := begin(s)
			return func() error { _, err := w.Finish(); return err }
		}},
		{"finishing, the rename", "rename", func(s setting) func() error {
			w := begin(s)
			return func() error { _, err := w.Finish(); return err }
		}},
		{"finishing, the name", "syncdir", func(s setting) func() error {
			w := begin(s)
			return func() error { _, err := w.Finish(); return err }
		}},
		{"aborting", "remove", func(s setting) func() error { return begin(s).Abort }},
		{"abandoning", "remove", func(s setting) func() error {
			w := begin(s)
			if err := w.Suspend(); err != nil {
				t.Fatal(err)
			}
			return w.Abort
		}},
		{"discarding", "remove", func(s setting) func() error {
			w := begin(s)
			if err := w.Suspend(); err != nil {
				t.Fatal(err)
			}
			list, err := s.d.Unfinished()
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			return func() error { return s.d.Discard(list[0].Name) }
		}},
		{"deleting", "remove", func(s setting) func() error { return func() error { return s.d.Delete(s.old.ID) } }},
		{"deleting, the name", "syncdir", func(s setting) func() error { return func() error { return s.d.Delete(s.old.ID) } }},
		{"cleaning up", "remove", func(s setting) func() error {
			return func() error { _, err := s.d.Cleanup(1, messages.Retention{Keep: 1}); return ignoreDamage(err) }
		}},
		{"cleaning up, the names", "syncdir", func(s setting) func() error {
			return func() error { _, err := s.d.Cleanup(1, messages.Retention{Keep: 1}); return ignoreDamage(err) }
		}},
		{"setting aside", "rename", func(s setting) func() error {
			return func() error { _, err := s.d.SetAside(s.bad.ID); return err }
		}},
		{"setting aside, the name", "syncdir", func(s setting) func() error {
			return func() error { _, err := s.d.SetAside(s.bad.ID); return err }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := &hangingDisk{Disk: noSync{durable.OS}}
			s := setting{path: t.TempDir()}
			_, _, s.stream = source(t) // of group 3
			s.d = open(t, s.path, snapshot.Options{BlockBytes: 512, Concurrency: 1, Disk: disk})
			s.old = save(t, s.d, 1, 1, 1, nil, records(1, 700))
			s.last = save(t, s.d, 1, 2, 1, nil, records(2, 700))
			s.bad = save(t, s.d, 1, 3, 1, nil, records(3, 700))
			overwrite(t, s.path+"/"+s.bad.ID+".snap", nil)
			otherOld := save(t, s.d, 2, 1, 1, nil, records(4, 700))
			other := save(t, s.d, 2, 2, 1, nil, records(5, 700))
			run := c.run(s)
			begun, letGo := disk.next(c.step)
			defer letGo()
			hung, others := make(chan error, 1), make(chan error, 1)
			go func() { hung <- run() }()
			select {
			case <-begun:
			case err := <-hung:
				t.Fatalf("it does not hang: %v", err)
			}
			go func() { others <- goOn(s.d, s.last.ID, other, otherOld) }()
			select {
			case err := <-others:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second): // it takes some 10 ms
				t.Error("others wait for it")
				letGo()
				<-others
			}
			letGo()
			if err := <-hung; err != nil {
				t.Errorf("in the end: %v", err)
			}
		})
	}
}

// Close waits for a removal that hangs: after it the directory, and the name,
// may be another's.
func TestCloseWaitsForRemoval(t *testing.T) {
	disk := &hangingDisk{Disk: noSync{durable.OS}}
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512, Disk: disk})
	old := save(t, d, 1, 1, 1, nil, records(1, 700))
	save(t, d, 1, 2, 1, nil, records(2, 700))
	begun, letGo := disk.next("remove")
	defer letGo()
	deleted, closed := make(chan error, 1), make(chan error, 1)
	go func() { deleted <- d.Delete(old.ID) }()
	<-begun
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("closed, and a removal is under way: %v", err)
	case <-time.After(100 * time.Millisecond): // it waits, as it should
	}
	if _, err := snapshot.OpenDir(path, snapshot.Options{}); !errors.Is(err, messages.ErrLocked) {
		t.Errorf("opened by another: %v", err)
	}
	letGo()
	if err := errors.Join(<-closed, <-deleted); err != nil {
		t.Error(err)
	}
}

func ignoreDamage(err error) error {
	if errors.Is(err, messages.ErrCorrupt) {
		return nil
	}
	return err
}

// goOn does with group 2 all that there is to do, and reads group 1.
func goOn(d *snapshot.Dir, id string, other, otherOld messages.SnapshotInfo) error {
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if info, _, err := d.Latest(1); err != nil || info.ID != id && info.Index != 9 {
		note("latest", fmt.Errorf("%s, %w", info.ID, err))
	}
	_, _, err := d.List(1)
	note("list", err)
	r, err := d.Open(id)
	note("open", err)
	if err == nil {
		note("close", r.Close())
	}
	_, err = d.Verify(id)
	note("verify", err)
	_, err = d.Plan(1, messages.Retention{Keep: 1})
	note("plan", err)
	_, err = d.Unfinished()
	note("unfinished", err)
	_, err = d.Aside()
	note("aside", err)

	w, err := d.Create(2, 3, 1, nil)
	note("create", err)
	if err == nil {
		_, err = w.Finish()
		note("finish", err)
	}
	w, _, err = d.Resume(2, 4, 1, nil)
	note("resume", err)
	if err == nil {
		_, err = w.Write(records(1, 2000))
		note("write", err)
		note("suspend", w.Suspend())
	}
	w, _, err = d.Resume(2, 5, 1, nil)
	note("replace", err)
	if err == nil {
		_, err = w.Write(records(1, 2000))
		note("write", err)
		note("suspend", w.Suspend())
		note("abort", w.Abort())
	}
	e, err := d.Export(other.ID, 0)
	note("export", err)
	if err == nil {
		note("close the export", e.Close())
	}
	m, _, err := d.Import(other.ID)
	note("import", err)
	if err == nil {
		note("abort the import", m.Abort())
	}
	note("delete", d.Delete(otherOld.ID))
	_, err = d.Cleanup(2, messages.Retention{Keep: 1})
	note("clean up", err)
	return errors.Join(errs...)
}
