package snapshot_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// keepingDisk removes no unfinished save.
type keepingDisk struct{ durable.Disk }

func (d keepingDisk) Remove(path string) error {
	if strings.HasSuffix(path, ".part") {
		return errInjected
	}
	return d.Disk.Remove(path)
}

// An unfinished save that is too old and cannot be removed is no reason for
// other groups to be without snapshots, nor for the directory not to open.
func TestExpiredCannotBeRemoved(t *testing.T) {
	path, at := t.TempDir(), &clock{time.Now()}
	o := snapshot.Options{BlockBytes: 512, Now: at.Now, Disk: keepingDisk{durable.OS}}
	d := open(t, path, o)
	w, _, err := d.Resume(1, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(w.Write(records(1, 700)))
	if err := w.Suspend(); err != nil {
		t.Fatal(err)
	}
	at.now = at.now.Add(48 * time.Hour)
	w, err = d.Create(2, 1, 1, nil)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	check(w.Finish())
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, o)
}
