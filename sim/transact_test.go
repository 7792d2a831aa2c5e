package sim_test

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// txnOperation is a transaction of one message.
func txnOperation(rand func(n int) int, value []byte) messages.Operation {
	key := func() []byte { return fmt.Appendf(nil, "k%d", rand(12)) }
	ops := func(n int) (list []messages.Operation) {
		for range n {
			switch rand(4) {
			case 0:
				list = append(list, messages.DeleteOperation(key()))
			case 1:
				list = append(list, messages.CompareAndSwapOperation(key(), nil, value))
			default:
				list = append(list, messages.PutOperation(key(), value))
			}
		}
		return list
	}
	t := messages.Transaction{Then: ops(1 + rand(3)), Else: ops(rand(2))}
	for range rand(3) {
		switch rand(4) {
		case 0:
			t.If = append(t.If, messages.Missing(key()))
		case 1:
			t.If = append(t.If, messages.ValueIs(key(), messages.Greater, []byte("2")))
		case 2:
			t.If = append(t.If, messages.VersionIs(key(), messages.Less, uint64(rand(200))))
		default:
			t.If = append(t.If, messages.Exists(key()))
		}
	}
	return messages.TxnOperation(t)
}

// transactor runs interactive transactions one after the other, step by step, and
// commits them at the supervisor. What they read must be the data at the revision
// at which they began; and at the index at which one is applied it must be the same
// still, so that each can be thought to take place there.
type transactor struct {
	l    *life
	rand func(n int) int
	left int
	done chan struct{}

	tag    uint64 // of the command that is under way; 0: none
	last   uint64
	begun  messages.Begun
	steps  int
	asked  messages.Command
	reads  []messages.Scan    // the ranges that were read
	writes map[string]*string // nil: removed
}

func (x *transactor) send(c *actor.Context, to *actor.PID, m messages.Command) {
	x.last++
	x.tag, x.asked = x.last, m
	c.Send(to, m.WithTag(x.tag))
}

func (x *transactor) next(c *actor.Context) {
	kv, txn := x.l.storage.KV, x.begun.Txn
	if txn == 0 {
		x.send(c, kv, messages.Begin{ReadOnly: x.rand(8) == 0})
		return
	}
	key := fmt.Appendf(nil, "k%d", x.rand(12))
	kind := x.rand(4)
	if x.steps++; x.steps > 6 || x.steps > 3 && x.rand(3) == 0 {
		kind = 4
	}
	switch kind {
	case 0:
		x.send(c, kv, messages.Get{Txn: txn, Key: key})
	case 1:
		to := fmt.Appendf(nil, "k%d", x.rand(12))
		if string(key) > string(to) {
			key, to = to, key
		}
		x.send(c, kv, messages.Scan{Txn: txn, From: key, To: to, Reverse: x.rand(2) == 0})
	case 2:
		x.send(c, kv, messages.Put{Txn: txn, Key: key, Value: fmt.Appendf(nil, "%d of %d", x.last, txn)})
	case 3:
		x.send(c, kv, messages.Delete{Txn: txn, Key: key})
	default:
		x.send(c, x.l.storage.Supervisor, messages.Commit{Txn: txn})
	}
}

func (x *transactor) Receive(c *actor.Context) {
	if _, ok := c.Message().(proceed); ok {
		x.next(c)
		return
	}
	r, ok := c.Message().(messages.Reply)
	if !ok || x.l.h.ghosts {
		return
	}
	if r.ReplyTag() != x.tag {
		x.l.w.Fail("a transaction got a reply to #%d and waits for #%d: a second reply?", r.ReplyTag(), x.tag)
		return
	}
	x.tag = 0
	err := r.Failure()
	switch m := r.(type) {
	case messages.Begun:
		if err == nil {
			x.begun, x.writes = m, map[string]*string{}
		}
	case messages.Got:
		if err == nil {
			x.read(messages.Scan{From: x.asked.(messages.Get).Key, To: append(x.asked.(messages.Get).Key, 0)}, pairOf(x.asked.(messages.Get).Key, m))
		}
	case messages.Scanned:
		if err == nil {
			x.read(x.asked.(messages.Scan), m.Pairs)
		}
	case messages.PutDone:
		put := x.asked.(messages.Put)
		value := string(put.Value)
		x.wrote(string(put.Key), &value, err)
	case messages.Deleted:
		x.wrote(string(x.asked.(messages.Delete).Key), nil, err)
	case messages.Committed:
		if err == nil {
			x.committed(m)
		}
		x.over()
	}
	if err != nil {
		x.failed(err)
	}
	if x.left <= 0 {
		close(x.done)
		return
	}
	x.next(c)
}

func pairOf(key []byte, m messages.Got) []messages.Pair {
	if !m.Found {
		return nil
	}
	return []messages.Pair{{Key: key, Value: m.Value, Version: m.Version}}
}

func (x *transactor) over() {
	x.left--
	x.begun, x.reads, x.steps = messages.Begun{}, nil, 0
}

func (x *transactor) failed(err error) {
	if errors.Is(err, messages.ErrConflict) {
		x.l.h.tally.Conflicts++
		return
	}
	if errors.Is(err, messages.ErrInvalid) && x.begun.Txn != 0 { // it writes, and was to read only
		return
	}
	for _, normal := range []error{messages.ErrNotFound, messages.ErrCrashed, messages.ErrInDoubt,
		messages.ErrUnavailable, messages.ErrStopped, messages.ErrOverloaded, messages.ErrExpired} {
		if errors.Is(err, normal) {
			if x.begun.Txn != 0 {
				x.over()
			}
			return
		}
	}
	x.l.w.Fail("a transaction: %v", err)
}

func (x *transactor) wrote(key string, value *string, err error) {
	if err == nil {
		x.writes[key] = value
	}
}

// sees are the pairs of a range at an index, with what the transaction has written.
func (x *transactor) sees(q messages.Scan, index uint64, own bool) (pairs []string) {
	s := x.l.h.at(index)
	if s == nil {
		x.l.w.Fail("a transaction sees index %d, which nobody has applied", index)
		return nil
	}
	within := func(key string) bool { return key >= string(q.From) && key < string(q.To) }
	for key, value := range s.data {
		if _, written := x.writes[key]; within(key) && !written {
			pairs = append(pairs, fmt.Sprintf("%s=%s at %d", key, value, s.versions[key]))
		}
	}
	for key, value := range x.writes {
		if own && value != nil && within(key) {
			pairs = append(pairs, fmt.Sprintf("%s=%s at %d", key, *value, uint64(math.MaxUint64)))
		}
	}
	slices.Sort(pairs)
	return pairs
}

func (x *transactor) read(q messages.Scan, got []messages.Pair) {
	x.reads = append(x.reads, q)
	var pairs []string
	for _, p := range got {
		pairs = append(pairs, fmt.Sprintf("%s=%s at %d", p.Key, p.Value, p.Version))
	}
	slices.Sort(pairs)
	if want := x.sees(q, x.begun.Revision, true); !slices.Equal(pairs, want) {
		x.l.w.Fail("a transaction of revision %d reads %q, and should read %q", x.begun.Revision, pairs, want)
	}
}

// committed: nothing that it has read had changed when it was applied, and what it
// has written is there.
func (x *transactor) committed(m messages.Committed) {
	x.l.h.tally.Committed++
	if len(x.writes) == 0 {
		return
	}
	if m.Version == 0 { // it has removed what was not there
		for key, value := range x.writes {
			if value != nil {
				x.l.w.Fail("a transaction has written %q and changed nothing", key)
			}
		}
		return
	}
	e, ok := x.l.h.applied[m.Version]
	s := x.l.h.at(m.Version)
	if !ok || s == nil || !s.succeeded {
		x.l.w.Fail("a transaction was committed at %d, where there is %q", m.Version, e.Data)
		return
	}
	x.l.h.acked[m.Version] = e.Data
	for key, value := range x.writes {
		if got, found := s.data[key]; found != (value != nil) || found && (got != *value || s.versions[key] != m.Version) {
			x.l.w.Fail("a transaction was committed at %d: %q is %q there at %d", m.Version, key, got, s.versions[key])
		}
	}
	for _, q := range x.reads {
		if was, is := x.sees(q, x.begun.Revision, false), x.sees(q, m.Version-1, false); !slices.Equal(was, is) {
			x.l.w.Fail("a transaction has read %q and was committed at %d, when there was %q", was, m.Version, is)
		}
	}
}
