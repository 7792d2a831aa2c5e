package actors

import (
	"fmt"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// open is a transaction that has begun and was not ended.
type open struct {
	lease
	kv.Txn
	group uint64
}

// txnOf is the transaction that a command is about, or zero, and its group.
func txnOf(c messages.Command) (group, txn uint64) {
	switch c := c.(type) {
	case messages.Get:
		return c.Group, c.Txn
	case messages.MultiGet:
		return c.Group, c.Txn
	case messages.Scan:
		return c.Group, c.Txn
	case messages.QueryIndex:
		return c.Group, c.Txn
	case messages.Put:
		return c.Group, c.Txn
	case messages.Delete:
		return c.Group, c.Txn
	case messages.CompareAndSwap:
		return c.Group, c.Txn
	case messages.Commit:
		return c.Group, c.Txn
	case messages.Rollback:
		return c.Group, c.Txn
	case messages.PrepareCommit:
		return c.Group, c.Txn
	}
	return 0, 0
}

// begin sees what is durable: it waits for a sync of direct writes like a read.
func (b *kvBehavior) begin(r *Request, c messages.Begin) {
	if b.txns.full(r) {
		return
	}
	txn, err := b.store.Begin(c.Group, c.ReadOnly)
	if err != nil {
		r.Fail(err)
		return
	}
	t := &open{lease: lease{lane: kvExportLane, end: txn.Close}, Txn: txn, group: c.Group}
	b.txns.add(t)
	index, term := txn.Index()
	r.Reply(messages.Begun{Tag: c.Tag, Group: c.Group, Txn: t.id, Index: index, Term: term, Revision: txn.Revision()})
}

// inTxn handles a command about a transaction.
func (b *kvBehavior) inTxn(r *Request, group, id uint64) {
	if begun := id >> 32; begun > 0 && begun < b.host.Incarnation() {
		r.Fail(fmt.Errorf("%s: %T: the transaction was lost when the actor failed: %w", b.host.PID().ID, r.Command, messages.ErrExpired))
		return
	}
	t, ok := b.txns.find(r, id, func(t *open) bool { return t.group == group })
	if !ok {
		return
	}
	t.used = b.host.Now()
	switch c := r.Command.(type) {
	case messages.Put, messages.Delete, messages.CompareAndSwap:
		_, op := operation(c)
		res, err := t.Run(op)
		if err != nil {
			r.Fail(err)
			return
		}
		r.Reply(outcome(c, res))
	case messages.Rollback:
		b.end(t)
		r.Reply(messages.RolledBack{Tag: c.Tag, Group: c.Group})
	case messages.PrepareCommit:
		reply := messages.CommitPrepared{Tag: c.Tag, Group: c.Group, Revision: t.Revision()}
		if t.Writes() {
			reply.Operation, reply.Err = t.Prepare()
		}
		b.end(t)
		r.Reply(reply)
	case messages.Commit:
		switch {
		case !t.Writes(): // it took place when it began
			b.end(t)
			r.Reply(messages.Committed{Tag: c.Tag, Group: c.Group, Version: t.Revision()})
		case b.cfg.Replicated:
			r.Fail(fmt.Errorf("%s: %T: %w: send it to the supervisor, or propose what PrepareCommit yields", b.host.PID().ID, c, messages.ErrReplicated))
		default:
			b.txns.remove(t)
			b.committing[r] = t.Txn
			b.write(r)
		}
	default: // a read
		if view, _ := viewOf(c); view != 0 {
			r.Fail(fmt.Errorf("%s: %T: both a view and a transaction: %w", b.host.PID().ID, c, messages.ErrInvalid))
			return
		}
		r.Reply(answer(c, func(uint64) queries { return t.Txn }))
	}
}

// end gives a transaction up. Its view goes at once: that is in memory alone.
func (b *kvBehavior) end(t *open) {
	b.txns.remove(t)
	b.ended(t.Txn)
}

func (b *kvBehavior) ended(t kv.Txn) {
	if err := t.Close(); err != nil {
		b.host.Fail(fmt.Errorf("%s: end a transaction: %w", b.host.PID().ID, err))
	}
}

// grouped is a change and its group.
type grouped struct {
	kv.Change
	group uint64
}

// change is what a direct write asks for.
func (b *kvBehavior) change(r *Request) grouped {
	if c, ok := r.Command.(messages.Commit); ok {
		return grouped{kv.Change{Txn: b.committing[r]}, c.Group}
	}
	group, op := operation(r.Command)
	return grouped{kv.Change{Operation: op}, group}
}

// endCommit ends the transaction of a commit that was carried out or refused.
func (b *kvBehavior) endCommit(r *Request) {
	if t := b.committing[r]; t != nil {
		delete(b.committing, r)
		b.ended(t)
	}
}
