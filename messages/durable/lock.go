package durable

import (
	"fmt"

	"github.com/ballast-raft/ballast/messages"
	"github.com/gofrs/flock"
)

// Lock is a directory held by this process.
type Lock struct{ f *flock.Flock }

// LockDir takes the directory for this process by an advisory lock on the file
// LOCK in it. It does not wait: if another process has the directory the error
// matches messages.ErrLocked. The operating system releases the lock when the
// process ends, however it ends.
func LockDir(dir string) (*Lock, error) {
	f := flock.New(dir + "/LOCK")
	ok, err := f.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("lock %s: %w", dir, messages.ErrLocked)
	}
	return &Lock{f}, nil
}

// Release gives the directory back.
func (l *Lock) Release() error { return l.f.Unlock() }
