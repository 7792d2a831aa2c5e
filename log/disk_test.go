package log_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages/durable"
)

var errInjected = errors.New("injected failure")

// stepDisk is the real disk, and asks before each step: what it is ("sync",
// "sync directory", "rename", "remove"), and of what. An error fails the step.
// before must be safe for concurrent use where the test uses it so.
type stepDisk struct {
	before func(what, path string) error
}

func (d stepDisk) Sync(f *os.File) error {
	if err := d.before("sync", f.Name()); err != nil {
		return err
	}
	return durable.OS.Sync(f)
}

func (d stepDisk) SyncDir(dir string) error {
	if err := d.before("sync directory", dir); err != nil {
		return err
	}
	return durable.OS.SyncDir(dir)
}

func (d stepDisk) Rename(from, to string) error {
	if err := d.before("rename", to); err != nil {
		return err
	}
	return durable.OS.Rename(from, to)
}

func (d stepDisk) Remove(path string) error {
	if err := d.before("remove", path); err != nil {
		return err
	}
	return durable.OS.Remove(path)
}

// faults fails one of the steps of a disk, counted from 1. Zero fails none.
type faults struct {
	failAt int
	err    error // what with; nil: errInjected
	steps  int
	failed string
}

func (d *faults) disk() durable.Disk {
	return stepDisk{func(what, path string) error {
		if d.steps++; d.steps != d.failAt {
			return nil
		}
		d.failed = what + " " + filepath.Base(path)
		if d.err != nil {
			return fmt.Errorf("%s: %w", d.failed, d.err)
		}
		return fmt.Errorf("%s: %w", d.failed, errInjected)
	}}
}

// failOnce fails the step at which left has come down to nothing, and may be
// used by many at once.
type failOnce struct{ left atomic.Int64 }

func (d *failOnce) disk() durable.Disk {
	return stepDisk{func(string, string) error {
		if d.left.Add(-1) == 0 {
			return errInjected
		}
		return nil
	}}
}
