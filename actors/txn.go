package actors

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Txn reads and writes in a transaction, for code outside of actors. Its methods
// read as those of a View do, see its own writes, and are for one goroutine.
type Txn struct {
	reading
	// Revision of the state that it sees.
	Revision uint64
}

// Put sets a key.
func (t *Txn) Put(key, value []byte) error {
	_, err := Ask[messages.PutDone](t.ctx, t.asker, t.pid, messages.Put{Group: t.group, Txn: t.txn, Key: key, Value: value})
	return err
}

// Delete removes a key.
func (t *Txn) Delete(key []byte) error {
	_, err := Ask[messages.Deleted](t.ctx, t.asker, t.pid, messages.Delete{Group: t.group, Txn: t.txn, Key: key})
	return err
}

// CompareAndSwap sets a key if its value is expect; a nil expect means that it must
// not exist.
func (t *Txn) CompareAndSwap(key, expect, value []byte) (swapped bool, err error) {
	r, err := Ask[messages.ComparedAndSwapped](t.ctx, t.asker, t.pid, messages.CompareAndSwap{Group: t.group, Txn: t.txn, Key: key, Expect: expect, Value: value})
	return r.Swapped, err
}

// Data is where a group's data is: the pid of the application-data actor, and of
// who commits: the supervisor where a log drives the data, else nil or the same.
type Data struct {
	KV, Committer *actor.PID
	Group         uint64
}

// Update calls fn with a transaction and commits it, as often as it takes for it to
// meet no conflict. So fn may be called several times, and should do nothing but
// read and write in the transaction. It returns the version of what was written. An
// error of fn ends it, and nothing was done, unless that is one that beginning again
// may mend: ErrConflict, or that the transaction is gone.
//
// The context ends the attempts. An error that matches ErrInDoubt, or is the
// context's, leaves open whether the writes were carried out.
func Update(ctx context.Context, a *Asker, d Data, fn func(*Txn) error) (version uint64, err error) {
	return transact(ctx, a, d, false, fn)
}

// Read calls fn with a transaction that only reads, at one point in time.
func Read(ctx context.Context, a *Asker, d Data, fn func(*Txn) error) error {
	_, err := transact(ctx, a, d, true, fn)
	return err
}

// The wait before a transaction is begun again: none at first, then random up to a
// bound that doubles, so that those in conflict do not meet again.
const (
	minConflictWait = time.Millisecond
	maxConflictWait = 100 * time.Millisecond
)

func transact(ctx context.Context, a *Asker, d Data, readOnly bool, fn func(*Txn) error) (version uint64, err error) {
	for wait := minConflictWait; ; wait = min(2*wait, maxConflictWait) {
		if version, err = attempt(ctx, a, d, readOnly, fn); err == nil || !again(err) {
			return version, err
		}
		if wait == minConflictWait {
			continue
		}
		timer := time.NewTimer(rand.N(wait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, fmt.Errorf("actors: update: %w: %w", ctx.Err(), err)
		}
	}
}

// again reports whether nothing was done and another attempt may succeed.
func again(err error) bool {
	if errors.Is(err, messages.ErrInDoubt) || errors.Is(err, messages.ErrStopped) {
		return false
	}
	for _, target := range []error{messages.ErrConflict, messages.ErrExpired, messages.ErrCrashed, messages.ErrOverloaded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func attempt(ctx context.Context, a *Asker, d Data, readOnly bool, fn func(*Txn) error) (version uint64, err error) {
	begun, err := Ask[messages.Begun](ctx, a, d.KV, messages.Begin{Group: d.Group, ReadOnly: readOnly})
	if err != nil {
		return 0, err
	}
	t := &Txn{reading{ctx: ctx, asker: a, pid: d.KV, group: d.Group, txn: begun.Txn}, begun.Revision}
	over := false
	defer func() { // also after a panic of fn
		if !over {
			// Nobody waits for it: the lease would do as well.
			_, _ = a.post(d.KV, messages.Rollback{Group: d.Group, Txn: begun.Txn})
		}
	}()
	if err := fn(t); err != nil || readOnly {
		return begun.Revision, err
	}
	over = true
	committer := d.Committer
	if committer == nil {
		committer = d.KV
	}
	c, err := Ask[messages.Committed](ctx, a, committer, messages.Commit{Group: d.Group, Txn: begun.Txn})
	return c.Version, err
}
