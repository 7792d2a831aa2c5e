package snapshot_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// takenBackDisk fails to sync the name of a snapshot, though it gets to the
// disk, and keeps what a power cut would find under it until the names are
// synced once more.
type takenBackDisk struct {
	durable.Disk
	fail  bool
	found string // directory
}

func (d *takenBackDisk) SyncDir(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.snap"))
	if err != nil {
		return err
	}
	if d.fail && len(names) == 1 {
		d.fail = false
		return errors.Join(errInjected, os.Link(names[0], filepath.Join(d.found, filepath.Base(names[0]))))
	}
	old, err := filepath.Glob(filepath.Join(d.found, "*.snap"))
	if err != nil {
		return err
	}
	for _, name := range old {
		err = errors.Join(err, os.Remove(name))
	}
	return errors.Join(err, d.Disk.SyncDir(dir))
}

// A file that was taken back from its final name may have that name again after
// a power cut. So going on with it, which cuts it, waits until the name is gone
// for good: nothing that is not whole has a final name.
func TestTakenBackIsWhole(t *testing.T) {
	_, from, stream := source(t)
	type output interface {
		Finish() (messages.SnapshotInfo, error)
		Suspend() error
	}
	for name, begin := range map[string]func(d *snapshot.Dir) (output, error){
		"Resume": func(d *snapshot.Dir) (output, error) {
			w, offset, err := d.Resume(0, 1, 1, nil)
			if err == nil {
				_, err = w.Write(records(1, 2000)[offset:])
			}
			return w, err
		},
		"Import": func(d *snapshot.Dir) (output, error) {
			m, offset, err := d.Import(from.ID)
			if err == nil && offset == 0 {
				_, err = m.Write(stream)
			}
			return m, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := &takenBackDisk{Disk: durable.OS, found: t.TempDir()}
			d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Disk: disk})
			w := check(begin(d))
			disk.fail = true
			if _, err := w.Finish(); !errors.Is(err, errInjected) {
				t.Fatalf("finished: %v", err)
			}
			names := files(t, disk.found)
			if len(names) != 1 {
				t.Fatalf("found %v", names)
			}
			w = check(begin(d))
			after := open(t, disk.found, snapshot.Options{NoLock: true})
			id := names[0][:len(names[0])-len(".snap")]
			if _, err := after.Verify(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a power cut would leave %v", err)
			}
			if err := w.Suspend(); err != nil {
				t.Error(err)
			}
		})
	}
}
