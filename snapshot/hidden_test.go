package snapshot_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// namingDisk is the real disk; in the next sync of a directory it calls inside,
// and fails.
type namingDisk struct {
	durable.Disk
	inside func()
}

func (d *namingDisk) SyncDir(dir string) error {
	inside := d.inside
	if inside == nil {
		return d.Disk.SyncDir(dir)
	}
	d.inside = nil
	inside()
	return errInjected
}

// A snapshot whose name is not durable yet is not there for anybody: what is
// removed in its favour would be lost with it when the sync of the name fails.
func TestNothingReliesOnUnfinished(t *testing.T) {
	writers := map[string]func(d *snapshot.Dir) (snapshot.Writer, error){
		"Create": func(d *snapshot.Dir) (snapshot.Writer, error) { return d.Create(0, 2, 1, nil) },
		"Resume": func(d *snapshot.Dir) (snapshot.Writer, error) {
			w, _, err := d.Resume(0, 2, 1, nil)
			return w, err
		},
	}
	for name, begin := range writers {
		t.Run(name, func(t *testing.T) {
			disk := &namingDisk{Disk: durable.OS}
			d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Disk: disk, Now: newClock().Now})
			old := save(t, d, 0, 1, 1, nil, records(1, 700))
			w := check(begin(d))
			check(w.Write(records(2, 700)))
			disk.inside = func() {
				if list, damaged, err := d.List(0); err != nil || len(list) != 1 || len(damaged) != 0 {
					t.Errorf("listed %v, %v, %v", list, damaged, err)
				}
				if latest, _, err := d.Latest(0); err != nil || latest.ID != old.ID {
					t.Errorf("the latest is %s, %v", latest.ID, err)
				}
				if removed, err := d.Cleanup(0, messages.Retention{Keep: 1}); err != nil || len(removed) != 0 {
					t.Errorf("removed %v, %v", removed, err)
				}
				if err := d.Delete(old.ID); !errors.Is(err, messages.ErrConflict) {
					t.Errorf("the last good one deleted: %v", err)
				}
				// The id of the other is no secret.
				next := fmt.Sprintf("%016x-%016x-%016x-%s", 0, 1, 2, old.ID[51:])
				if _, err := d.Open(next); !errors.Is(err, messages.ErrNotFound) {
					t.Errorf("opened: %v", err)
				}
				if err := d.Delete(next); !errors.Is(err, messages.ErrNotFound) {
					t.Errorf("deleted: %v", err)
				}
			}
			if _, err := w.Finish(); !errors.Is(err, errInjected) {
				t.Fatalf("finished: %v", err)
			}
			if _, err := d.Verify(old.ID); err != nil {
				t.Fatalf("lost: %v", err)
			}
			// What failed can be done again, under the same id too.
			w = check(begin(d))
			check(w.Write(records(2, 700)))
			info := check(w.Finish())
			if latest, _, err := d.Latest(0); err != nil || latest.ID != info.ID {
				t.Errorf("then the latest is %s, %v", latest.ID, err)
			}
		})
	}
}

// An import does not confirm a snapshot that another import has just renamed
// and may still take back.
func TestImportReliesOnUnfinished(t *testing.T) {
	_, from, stream := source(t)
	disk := &namingDisk{Disk: durable.OS}
	d := open(t, t.TempDir(), snapshot.Options{Disk: disk})
	first, _, err := d.Import("")
	if err != nil {
		t.Fatal(err)
	}
	check(first.Write(stream))
	second := make(chan error, 1)
	disk.inside = func() {
		go func() {
			_, err := imported(d, "", stream)
			second <- err
		}()
		select {
		case err := <-second:
			second <- err
		case <-time.After(100 * time.Millisecond): // it waits for the first, as it should
		}
	}
	if _, err := first.Finish(); !errors.Is(err, errInjected) {
		t.Fatalf("finished: %v", err)
	}
	if err := <-second; err != nil {
		t.Fatalf("the second import: %v", err)
	}
	if _, err := d.Verify(from.ID); err != nil {
		t.Fatalf("the second import was confirmed: %v", err)
	}
}
