// Package faulty is a disk on which calls fail, hang and panic on demand, and that is
// full on demand, for tests and for the chaos run. What it lets through is done by
// the real disk.
package faulty

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages/durable"
)

// Rule is called before each call to the disk, in its goroutine: op is "sync",
// "syncdir", "rename" or "remove", path the file, for a rename that which it becomes.
// An error is what the call returns, without being carried out. A rule may block,
// which is a disk that hangs, or panic. It is called by many goroutines at once.
type Rule func(op, path string) error

// Disk is a durable.Limited disk. Its zero value is as good as the real one.
type Disk struct {
	rule atomic.Pointer[Rule]
	full atomic.Bool
}

var _ durable.Limited = (*Disk)(nil)

// Set replaces the rule; nil lets everything through.
func (d *Disk) Set(r Rule) {
	if r == nil {
		d.rule.Store(nil)
		return
	}
	d.rule.Store(&r)
}

// Hang holds up the next call that match picks, until release is called; hit is
// closed when it has come. It replaces the rule.
func (d *Disk) Hang(match func(op, path string) bool) (hit <-chan struct{}, release func()) {
	came, open := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	d.Set(func(op, path string) error {
		if match(op, path) && once.CompareAndSwap(false, true) {
			close(came)
			<-open
		}
		return nil
	})
	return came, sync.OnceFunc(func() { close(open) })
}

// Fail has the next call that match picks return an error. It replaces the rule.
func (d *Disk) Fail(match func(op, path string) bool, err error) {
	var once atomic.Bool
	d.Set(func(op, path string) error {
		if match(op, path) && once.CompareAndSwap(false, true) {
			return err
		}
		return nil
	})
}

// Fill makes the disk full, or not.
func (d *Disk) Fill(full bool) { d.full.Store(full) }

// Free implements durable.Limited.
func (d *Disk) Free(dir string) (int64, error) {
	if d.full.Load() {
		return 0, nil
	}
	return durable.Free(dir)
}

func (d *Disk) meet(op, path string) error {
	if r := d.rule.Load(); r != nil {
		return (*r)(op, path)
	}
	return nil
}

// Sync implements durable.Disk.
func (d *Disk) Sync(f *os.File) error {
	if err := d.meet("sync", f.Name()); err != nil {
		return err
	}
	return durable.OS.Sync(f)
}

// SyncDir implements durable.Disk.
func (d *Disk) SyncDir(dir string) error {
	if err := d.meet("syncdir", dir); err != nil {
		return err
	}
	return durable.OS.SyncDir(dir)
}

// Rename implements durable.Disk.
func (d *Disk) Rename(from, to string) error {
	if err := d.meet("rename", to); err != nil {
		return err
	}
	return durable.OS.Rename(from, to)
}

// Remove implements durable.Disk.
func (d *Disk) Remove(path string) error {
	if err := d.meet("remove", path); err != nil {
		return err
	}
	return durable.OS.Remove(path)
}

// AnySync picks every sync of a file.
func AnySync(op, _ string) bool { return op == "sync" }
