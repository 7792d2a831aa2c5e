package actors

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// written is the Note of a direct write that was handed to the store.
type written struct{ reply messages.Reply }

// directWrite reports whether a command waits for the next sync.
func directWrite(c messages.Command) bool {
	if _, ok := c.(messages.Commit); ok {
		return true
	}
	if _, txn := txnOf(c); txn != 0 {
		return false
	}
	switch c.(type) {
	case messages.Put, messages.Delete, messages.CompareAndSwap, messages.Txn, messages.CreateIndex, messages.DropIndex:
		return true
	}
	return false
}

// write queues a direct write for the next batch.
func (b *kvBehavior) write(r *Request) {
	if b.cfg.Replicated {
		r.Fail(fmt.Errorf("%s: %T: %w: send ApplyEntry to the supervisor, or propose the operation", b.host.PID().ID, r.Command, messages.ErrReplicated))
		return
	}
	c := b.change(r)
	if w := b.building[c.group]; w != nil {
		w.held = append(w.held, r)
		return
	}
	if c.Txn == nil && kv.Prepares(c.Operation) {
		b.create(c.group, c.Operation, r)
		return
	}
	b.queue(r)
}

func (b *kvBehavior) queue(r *Request) {
	b.writes = append(b.writes, r)
	b.writeBytes += r.bytes
	b.queued.Add(1)
}

// commit sends a batch of direct writes on its way, or looks whether more is
// coming. Those that arrive while one is on its way form the next one.
func (b *kvBehavior) commit() {
	switch {
	case b.syncing || b.importing || len(b.writes) == 0:
	case b.cfg.Sync.Mode != SyncAlways:
		b.leave()
	default:
		b.front.gather(b.writeBytes >= b.cfg.MaxBatchBytes)
	}
}

// take removes the next batch from what is queued: at least one, and no more
// than MaxBatchBytes of them.
func (b *kvBehavior) take() (batch []*Request) {
	n, bytes := 0, int64(0)
	for ; n < len(b.writes) && (n == 0 || bytes+b.writes[n].bytes <= b.cfg.MaxBatchBytes); n++ {
		bytes += b.writes[n].bytes
	}
	batch, b.writes = b.writes[:n:n], b.writes[n:]
	b.writeBytes -= bytes
	if len(b.writes) == 0 {
		b.writes, b.spare = b.spare, nil
	}
	return batch
}

// leave writes a batch, the operations of each group in one atomic change, and
// syncs it, as the policy says.
func (b *kvBehavior) leave() {
	if len(b.writes) == 0 {
		return
	}
	batch := b.take()
	notes := make([]written, len(batch))
	for i, r := range batch {
		r.Note = &notes[i]
	}
	always := b.cfg.Sync.Mode == SyncAlways
	if always {
		b.hidden.Add(1)
	}
	if !b.writeGroups(batch) {
		return
	}
	if !always {
		b.syncSoon() // first, so that who has an answer can count on it
		n := len(batch)
		replyAll(batch, reply)
		b.watches.release()
		b.reuse(batch, n)
		b.tend()
		return
	}
	b.syncing = true
	b.host.Defer(true)
	upTo := b.queued.Load()
	b.host.Do(kvSyncLane, syncCall, func() func() {
		err := b.store.Sync()
		if err != nil {
			return func() { b.host.Fail(fmt.Errorf("%s: %w", b.host.PID().ID, err)) }
		}
		n, later := len(batch), int(b.queued.Load()-upTo)
		b.kv.counters.syncs.Add(1)
		b.hidden.Add(1)
		replyAll(batch, reply)
		return func() {
			b.front.answered(n, later)
			b.reuse(batch, n)
			b.synced()
		}
	})
}

func reply(r *Request) messages.Reply { return r.Note.(*written).reply }

// reuse keeps the slice of a batch of n for one to come.
func (b *kvBehavior) reuse(batch []*Request, n int) {
	clear(batch)
	if n <= maxSpare {
		b.spare = batch[:0]
	}
}

// writeGroups has the store carry out a batch, group by group. It reports false if
// the store has failed.
func (b *kvBehavior) writeGroups(batch []*Request) bool {
	first := b.change(batch[0]).group
	if !slices.ContainsFunc(batch, func(r *Request) bool { return b.change(r).group != first }) {
		return b.writeAll(first, batch)
	}
	groups := make(map[uint64][]*Request)
	for _, r := range batch {
		g := b.change(r).group
		groups[g] = append(groups[g], r)
	}
	for _, g := range sortedKeys(groups) {
		if !b.writeAll(g, groups[g]) {
			return false
		}
	}
	return true
}

// writeAll has the store carry out the operations of one group, as one change. If
// it refuses that, each is on its own, so that one that is too large for the disk
// takes no other with it. It reports false if the store has failed.
func (b *kvBehavior) writeAll(group uint64, batch []*Request) bool {
	changes := slices.Grow(b.changes[:0], len(batch))
	for _, r := range batch {
		changes = append(changes, b.change(r).Change)
	}
	results, err := b.store.Commit(group, changes)
	if clear(changes); len(changes) <= maxSpare {
		b.changes = changes
	}
	switch {
	case err == nil:
		b.host.room(nil)
		b.kv.counters.writes.Add(uint64(len(batch)))
		b.watches.gather(group, false)
		for i, r := range batch {
			b.endCommit(r)
			r.Note.(*written).reply = outcome(r.Command, results[i])
		}
	case b.store.Poisoned():
		b.host.Fail(fmt.Errorf("%s: %w", b.host.PID().ID, err))
		return false
	case len(batch) == 1:
		b.host.room(err)
		b.endCommit(batch[0])
		batch[0].Note.(*written).reply = batch[0].Command.Refuse(err)
	default:
		for i := range batch {
			if !b.writeAll(group, batch[i:i+1]) {
				return false
			}
		}
	}
	return true
}

// synced goes on after a batch was answered.
func (b *kvBehavior) synced() {
	b.syncing = false
	b.host.Defer(false)
	reads := b.reads
	b.reads = nil
	for _, r := range reads {
		b.read(r)
	}
	b.watches.release()
	b.release()
	b.tend()
}

// syncSoon has what was written synced within the interval.
func (b *kvBehavior) syncSoon() {
	if b.cfg.Sync.Mode != SyncInterval || b.timed {
		return
	}
	b.timed = true
	b.host.After(b.cfg.Sync.Every, func() {
		b.timed = false
		b.syncInBackground()
	})
}

// Quick implements Quick. What a write has changed whose sync is under way is not
// to be seen yet: hidden is odd then, and whoever reads while it changes has the
// actor do it.
func (b *kvBehavior) Quick(c messages.Command) messages.Reply {
	switch c.(type) {
	case messages.Get, messages.MultiGet, messages.Scan, messages.QueryIndex:
	default:
		return nil
	}
	view, _ := viewOf(c)
	if _, txn := txnOf(c); view != 0 || txn != 0 {
		return nil // its lease is the actor's
	}
	if b.kv.withholds(c) != nil {
		return nil
	}
	before := b.hidden.Load()
	if before%2 > 0 {
		return nil
	}
	r := answer(c, func(group uint64) queries { return latest{b.store, group} })
	if b.hidden.Load() != before || errors.Is(r.Failure(), messages.ErrStopped) {
		return nil
	}
	return r
}
