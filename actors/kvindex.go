package actors

import (
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// building is a group that waits for a unique index, which must be whole before
// the operation that creates it can be carried out. Slices of it take turns with
// whatever else the actor has to do.
type building struct {
	group uint64
	op    messages.Operation
	// then goes on with the operation, or gives it up.
	then func(error)
	held []*Request // what else would change the group
}

const (
	// indexRetry is how long indexes wait after a failure that may pass, such
	// as a full disk.
	indexRetry = time.Second
	// indexSliceDirty is what a slice counts for towards KVConfig.SyncEvery, so
	// that a power cut does not take the work of hours.
	indexSliceDirty = 64 << 10
)

// maintainIndexes goes on with indexes that are being built and with those that
// are gone, a slice at a time.
func (b *kvBehavior) maintainIndexes() {
	if b.indexing || b.draining || !b.store.IndexesDue() {
		return
	}
	b.indexing = true
	b.host.Do(kvIndexLane, Call{Name: "index"}, func() func() {
		err := b.store.MaintainIndexes()
		return func() {
			switch {
			case b.failed(err):
			case err != nil:
				b.host.After(indexRetry, func() {
					b.indexing = false
					b.maintainIndexes()
				})
			default:
				b.indexing = false
				b.wrote(indexSliceDirty)
				b.tend()
			}
		}
	})
}

// wrote counts what has been written without a sync.
func (b *kvBehavior) wrote(bytes int) {
	if b.dirty += bytes; b.dirty >= b.cfg.SyncEvery {
		b.syncInBackground()
	}
}

// prepare builds the unique index that an operation creates, and then goes on.
// Until then nothing else may change the group.
func (b *kvBehavior) prepare(group uint64, op messages.Operation, then func(error)) {
	if b.draining {
		then(b.notWhole())
		return
	}
	w := &building{group: group, op: op, then: then}
	b.building[group] = w
	b.build(w)
}

// build does one slice after the other.
func (b *kvBehavior) build(w *building) {
	b.host.Do(kvIndexLane, Call{Name: "index"}, func() func() {
		ready, err := b.store.Prepare(w.group, w.op)
		return func() {
			switch {
			case b.building[w.group] != w: // it was given up
			case b.failed(err):
			case err == nil && !ready:
				b.wrote(indexSliceDirty)
				b.build(w)
			default:
				b.prepared(w, err)
			}
		}
	})
}

func (b *kvBehavior) prepared(w *building, err error) {
	delete(b.building, w.group)
	w.then(err)
	for _, r := range w.held {
		if b.committing[r] != nil { // its transaction has been looked up already
			b.write(r)
		} else {
			b.Handle(r)
		}
	}
	b.release() // an import
}

// abandon gives up what waits for unique indexes.
func (b *kvBehavior) abandon() {
	b.creating = nil
	for _, group := range sortedKeys(b.building) {
		w := b.building[group]
		for _, r := range w.held {
			b.endCommit(r)
			r.Fail(b.notWhole())
		}
		w.held = nil
		b.prepared(w, b.notWhole())
	}
}

func (b *kvBehavior) notWhole() error {
	return fmt.Errorf("%s: a unique index is not whole: %w", b.host.PID().ID, messages.ErrStopped)
}

// create has a direct write wait until the unique index is whole that it creates,
// and those behind it wait for it. So it is the first of its group in its batch.
func (b *kvBehavior) create(group uint64, op messages.Operation, r *Request) {
	if b.draining {
		r.Fail(b.notWhole())
		return
	}
	w := &building{group: group, op: op}
	w.then = func(err error) {
		if err != nil {
			r.Fail(err)
			return
		}
		b.queue(r)
	}
	b.building[group] = w
	b.creating = append(b.creating, w)
}

// prepareWrites begins with unique indexes whose turn has come: what was ahead of
// them has been written.
func (b *kvBehavior) prepareWrites() {
	if len(b.creating) == 0 || b.importing {
		return
	}
	ahead := make(map[uint64]bool)
	for _, r := range b.writes {
		ahead[b.change(r).group] = true
	}
	var left []*building
	for _, w := range b.creating {
		if ahead[w.group] {
			left = append(left, w)
		} else {
			b.build(w)
		}
	}
	b.creating = left
}

// applyRest applies the entries of a command from the one after results on. An
// entry that creates a unique index begins a new turn, when that is whole:
// prepared says that it is so for the first.
func (b *kvBehavior) applyRest(r *Request, c messages.Apply, results []messages.Result, prepared bool) {
	rest := c.Entries[len(results):]
	applied, _ := b.store.Applied(c.Group)
	n := len(rest)
	var op messages.Operation
	for i := len(rest) - 1; i >= 0; i-- {
		if i > 0 && rest[i].Index != rest[i-1].Index+1 {
			n = len(rest) // the store will refuse all of it
			break
		}
		if o, ok := kv.NeedsPreparation(rest[i]); ok && rest[i].Index > applied && (i > 0 || !prepared) {
			n, op = i, o
		}
	}
	var err error
	if n > 0 || n == len(rest) {
		var more []messages.Result
		more, err = b.store.Apply(c.Group, rest[:n])
		results = append(results, more...)
		if b.failed(err) {
			return
		}
		b.watches.gather(c.Group, !b.syncing)
	}
	if err == nil && n < len(rest) {
		b.prepare(c.Group, op, func(err error) {
			if err != nil {
				b.applied(r, c, results, err)
			} else {
				b.applyRest(r, c, results, true)
			}
		})
		return
	}
	b.applied(r, c, results, err)
}

func (b *kvBehavior) applied(r *Request, c messages.Apply, results []messages.Result, err error) {
	b.host.room(err)
	b.kv.counters.applied.Add(uint64(len(results)))
	index, term := b.store.Applied(c.Group)
	b.kv.reach(c.Group, max(index, b.kv.Reached(c.Group)))
	r.Reply(messages.Applied{Tag: c.Tag, Group: c.Group, Index: index, Term: term, Results: results, Err: err})
	b.wrote(c.Bytes())
	b.tend()
}
