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

// maintain goes on with indexes that are being built and with those that are
// gone, a slice at a time.
func (b *kvBehavior) maintain() {
	if b.maintaining || b.importing || b.draining || !b.store.IndexesDue() {
		return
	}
	b.maintaining = true
	b.host.Run(kvIndexLane, func() func() {
		err := b.store.MaintainIndexes()
		return func() {
			switch {
			case b.failed(err):
			case err != nil:
				b.host.After(indexRetry, func() {
					b.maintaining = false
					b.maintain()
				})
			default:
				b.maintaining = false
				b.wrote(indexSliceDirty)
				b.maintain()
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
	w := &building{then: then}
	b.building[group] = w
	var slice func()
	slice = func() {
		b.host.Run(kvIndexLane, func() func() {
			ready, err := b.store.Prepare(group, op)
			return func() {
				switch {
				case b.building[group] != w: // it was given up
				case b.failed(err):
				case err == nil && !ready:
					b.wrote(indexSliceDirty)
					slice()
				default:
					b.prepared(group, err)
				}
			}
		})
	}
	slice()
}

func (b *kvBehavior) prepared(group uint64, err error) {
	w := b.building[group]
	delete(b.building, group)
	w.then(err)
	for _, r := range w.held {
		b.Handle(r)
	}
	b.release() // an import
}

// abandon gives up what waits for unique indexes.
func (b *kvBehavior) abandon() {
	err := fmt.Errorf("%s: a unique index is not whole: %w", b.host.PID().ID, messages.ErrStopped)
	for _, group := range sortedKeys(b.building) {
		for _, r := range b.building[group].held {
			r.Fail(err)
		}
		b.building[group].held = nil
		b.prepared(group, err)
	}
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
	index, term := b.store.Applied(c.Group)
	b.kv.reach(c.Group, max(index, b.kv.Reached(c.Group)))
	r.Reply(messages.Applied{Tag: c.Tag, Group: c.Group, Index: index, Term: term, Results: results, Err: err})
	b.wrote(c.Bytes())
	b.maintain()
}

// takeWrites takes the direct writes that may be in the next batch. One that
// creates a unique index is the first of its group in a batch, when the index is
// whole; those behind it wait for it.
func (b *kvBehavior) takeWrites() (batch []*Request) {
	var left []*Request
	waits := make(map[uint64]bool)
	taken := make(map[uint64]bool)
	for _, r := range b.writes {
		group, op := operation(r.Command)
		unique := op.Kind == messages.OpCreateIndex && op.Index.Unique
		switch {
		case waits[group] || b.building[group] != nil:
			left = append(left, r)
		case !unique || b.whole[group] == r:
			delete(b.whole, group)
			taken[group] = true
			batch = append(batch, r)
		case b.draining:
			r.Fail(fmt.Errorf("%s: %w", b.host.PID().ID, messages.ErrStopped))
		default:
			waits[group] = true
			left = append(left, r)
			if taken[group] {
				continue
			}
			b.prepare(group, op, func(err error) {
				if err != nil {
					b.giveUpWrite(r, err)
				} else {
					b.whole[group] = r
				}
				b.commit()
			})
		}
	}
	b.writes = left
	return batch
}

func (b *kvBehavior) giveUpWrite(r *Request, err error) {
	for i, w := range b.writes {
		if w == r {
			b.writes = append(b.writes[:i:i], b.writes[i+1:]...)
		}
	}
	r.Fail(err)
}
