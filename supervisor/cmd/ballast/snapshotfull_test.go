package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/ballast-raft/ballast/supervisor"
)

// fullDisk has no room for one step, counted down from left.
type fullDisk struct {
	durable.Disk
	left atomic.Int64
}

func (d *fullDisk) step(do func() error) error {
	if d.left.Add(-1) == 0 {
		return syscall.ENOSPC
	}
	return do()
}

func (d *fullDisk) Sync(f *os.File) error { return d.step(func() error { return d.Disk.Sync(f) }) }
func (d *fullDisk) SyncDir(dir string) error {
	return d.step(func() error { return d.Disk.SyncDir(dir) })
}
func (d *fullDisk) Rename(from, to string) error {
	return d.step(func() error { return d.Disk.Rename(from, to) })
}

// TestSnapshotDiskFull takes a snapshot for which there is no room, wherever that
// is noticed: nothing of it is left, all others are as they were, and the log is
// not compacted, until there is room.
func TestSnapshotDiskFull(t *testing.T) {
	for left, step := range []string{"its bytes", "its name", "the directory"} {
		t.Run(step, func(t *testing.T) {
			disk := &fullDisk{Disk: durable.OS}
			dir := t.TempDir()
			s, err := openService(t.Context(), supervisor.Config{Dir: dir, Snapshot: snapshot.Options{Disk: disk}, Retention: messages.Retention{Keep: 1}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.close(); err != nil {
					t.Error(err)
				}
			}()
			create := func() error {
				for i := range 5 {
					put := messages.ApplyEntry{Operation: messages.PutOperation(fmt.Append(nil, i), []byte("value"))}
					if _, err := actors.Ask[messages.EntryApplied](t.Context(), s.Asker(), s.Supervisor, put); err != nil {
						t.Fatal(err)
					}
				}
				_, err := actors.Ask[messages.SnapshotCreated](t.Context(), s.Asker(), s.Supervisor, messages.CreateSnapshot{})
				return err
			}
			first := func() uint64 {
				b, err := actors.Ask[messages.BoundsRead](t.Context(), s.Asker(), s.Log, messages.ReadBounds{})
				if err != nil {
					t.Fatal(err)
				}
				return b.Bounds.First
			}
			if err := create(); err != nil {
				t.Fatal(err)
			}
			before, begins := contents(t, filepath.Join(dir, snapshotDir)), first()
			if begins == 1 {
				t.Fatal("the log was not compacted")
			}
			disk.left.Store(int64(left + 1))
			if err := create(); !errors.Is(err, messages.ErrDiskFull) {
				t.Errorf("with a full disk: %v", err)
			}
			if !maps.Equal(before, contents(t, filepath.Join(dir, snapshotDir))) {
				t.Error("other files than before")
			}
			if now := first(); now != begins {
				t.Errorf("the log begins at %d, and at %d before", now, begins)
			}
			if err := create(); err != nil {
				t.Errorf("with room again: %v", err)
			}
			if now := first(); now == begins {
				t.Error("then the log was not compacted")
			}
		})
	}
}
