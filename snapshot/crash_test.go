package snapshot_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

var (
	errInjected = errors.New("injected")
	errDiskFull = &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
)

// faultyDisk is the real disk, but fails one step, or takes it and then fails,
// and keeps what a strict file system would have after a power cut: the bytes
// that were synced, under the names whose directory was.
type faultyDisk struct {
	mu     sync.Mutex
	steps  []string
	fail   int                          // the step, counted from 1, that fails; 0: none
	after  bool                         // take the step all the same
	broken bool                         // every later step fails as well
	err    error                        // what it fails with; nil: errInjected
	synced map[uint64][]byte            // by inode
	named  map[string]map[string]uint64 // final names by directory, durable
}

func newFaultyDisk(fail int, after bool) *faultyDisk {
	return &faultyDisk{fail: fail, after: after, synced: map[uint64][]byte{}, named: map[string]map[string]uint64{}}
}

func (d *faultyDisk) step(name string, take func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, name)
	if len(d.steps) == d.fail || d.broken && d.fail > 0 && len(d.steps) > d.fail {
		if d.after && len(d.steps) == d.fail {
			if err := take(); err != nil {
				return err
			}
		}
		return fmt.Errorf("%s: %w", name, cmp.Or(d.err, errInjected))
	}
	return take()
}

func inode(st fs.FileInfo) uint64 { return st.Sys().(*syscall.Stat_t).Ino }

func (d *faultyDisk) Sync(f *os.File) error {
	return d.step("sync", func() error {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			return err
		}
		d.synced[inode(st)] = b
		return durable.OS.Sync(f)
	})
}

func (d *faultyDisk) SyncDir(dir string) error {
	return d.step("syncdir", func() error {
		named := map[string]uint64{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			st, err := e.Info()
			if err != nil {
				return err
			}
			named[e.Name()] = inode(st)
		}
		d.named[filepath.Clean(dir)] = named
		return durable.OS.SyncDir(dir)
	})
}

func (d *faultyDisk) Rename(from, to string) error {
	return d.step("rename", func() error { return durable.OS.Rename(from, to) })
}

func (d *faultyDisk) Remove(path string) error {
	return d.step("remove", func() error { return durable.OS.Remove(path) })
}

// powerCut makes a directory as a crash may leave it. Strict: only what was
// synced is there. Otherwise every change of a name is there as well, with the
// bytes that were synced.
func (d *faultyDisk) powerCut(t *testing.T, dir string, strict bool) string {
	t.Helper()
	names := d.named[filepath.Clean(dir)]
	if !strict {
		names = map[string]uint64{}
		for _, name := range files(t, dir) {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			names[name] = inode(st)
		}
	}
	to := t.TempDir()
	for name, ino := range names {
		if err := os.WriteFile(filepath.Join(to, name), d.synced[ino], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// attempt writes two snapshots and deletes the first, until something fails.
func attempt(path string, disk durable.Disk, first, second []byte) (acked []string, deleted string, err error) {
	d, err := snapshot.OpenDir(path, snapshot.Options{BlockBytes: 512, Disk: disk, Now: newClock().Now})
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for i, state := range [][]byte{first, second} {
		w, err := d.Create(0, uint64(i+1), 1, nil)
		if err != nil {
			return acked, "", err
		}
		if _, err := w.Write(state); err != nil {
			return acked, "", err
		}
		info, err := w.Finish()
		if err != nil {
			if _, again := w.Finish(); again == nil {
				return acked, "", errors.New("a failed Finish succeeds when it is repeated")
			}
			return acked, "", err
		}
		acked = append(acked, info.ID)
	}
	if err := d.Delete(acked[0]); err != nil {
		return acked, "", err
	}
	return acked[1:], acked[0], nil
}

// Every step that the disk is asked for fails, before or after it was taken,
// and the power fails right there, in three ways: what was acknowledged is
// there whole, and what was not is there whole or not at all.
func TestEveryStepFails(t *testing.T) {
	first, second := records(1, 3000), append(records(2, 3000), noise(1, 1000)...)
	clean := newFaultyDisk(0, false)
	if acked, deleted, err := attempt(t.TempDir(), clean, first, second); err != nil || len(acked) != 1 || deleted == "" {
		t.Fatal(acked, deleted, err)
	}
	t.Log(clean.steps)
	for fail := 1; fail <= len(clean.steps); fail++ {
		for mode := range 4 {
			disk := newFaultyDisk(fail, mode&1 != 0)
			disk.broken = mode&2 != 0
			what := fmt.Sprintf("step %d (%s) fails, taken %v, for good %v", fail, clean.steps[fail-1], disk.after, disk.broken)
			path := t.TempDir()
			acked, _, err := attempt(path, disk, first, second)
			if !errors.Is(err, errInjected) {
				t.Errorf("%s: %v", what, err)
			}
			deleting := fail > len(clean.steps)-2
			for i, dir := range []string{path, disk.powerCut(t, path, true), disk.powerCut(t, path, false)} {
				what := fmt.Sprintf("%s, crash %d", what, i)
				d := open(t, dir, snapshot.Options{})
				infos, damaged, err := d.List(0)
				if err != nil || len(damaged) != 0 {
					t.Errorf("%s: %v %v", what, damaged, err)
				}
				for _, info := range infos {
					if got, _ := load(t, d, info.ID); !bytes.Equal(got, [][]byte{first, second}[info.Index-1]) {
						t.Errorf("%s: other bytes at index %d", what, info.Index)
					}
				}
				for k, id := range acked {
					// The first one's deletion may have got through.
					if _, err := d.Verify(id); err != nil && !(deleting && k == 0) {
						t.Errorf("%s: lost %s: %v", what, id, err)
					}
				}
				if i == 0 && !disk.broken && len(infos) > len(acked) {
					t.Errorf("%s: there are %d and %d were acknowledged", what, len(infos), len(acked))
				}
				for _, name := range files(t, dir) {
					if filepath.Ext(name) != ".snap" {
						t.Errorf("%s: left %s", what, name)
					}
				}
			}
		}
	}
}

// A disk that is full at the sync, for the name, or for the directory.
func TestDiskFullAtEveryStep(t *testing.T) {
	for fail := 3; fail <= 5; fail++ { // after the two syncs of names at open
		disk := newFaultyDisk(fail, false)
		disk.err = syscall.ENOSPC
		path := t.TempDir()
		d := open(t, path, snapshot.Options{Disk: disk})
		w, err := d.Create(0, 1, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(); !errors.Is(err, messages.ErrDiskFull) {
			t.Errorf("step %d: %v", fail, err)
		}
		if names := files(t, path); len(names) != 0 {
			t.Errorf("step %d: left %v", fail, names)
		}
	}
}
