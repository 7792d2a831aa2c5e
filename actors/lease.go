package actors

import (
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// lease is what a stream, a view or an import has in common: a command opens
// it, others use it, and it is given up when it has been idle for too long.
type lease struct {
	id   uint64
	lane int // where its work is done
	// end gives it up. It runs on the lane.
	end      func() error
	underWay int // commands
	used     time.Time
	expired  bool // given up, kept for another while so that its owner is told
}

func (l *lease) base() *lease { return l }

type leased interface {
	comparable
	base() *lease
}

// leases are the open leases of one actor, which owns them.
type leases[T leased] struct {
	host *Host
	idle time.Duration // how long one may be idle
	max  int           // how many there may be
	// failed is told when giving one up has failed.
	failed func(error)
	// run has a lane do some work: Host.Do, if nobody counts what lanes do.
	run func(lane int, call Call, work func() (done func()))
	// swept, if it is set, is told of each that is open, now and then; expired is
	// called for one that was idle, instead of giving it up on its lane.
	swept, expired func(T)

	all      map[uint64]T
	next     uint64
	sweeping bool
}

func newLeases[T leased](h *Host, idle time.Duration, max int, failed func(error)) *leases[T] {
	return &leases[T]{host: h, idle: idle, max: max, failed: failed, run: h.Do, all: make(map[uint64]T)}
}

// full refuses a request that would open one too many.
func (ls *leases[T]) full(r *Request) bool {
	if len(ls.all) < ls.max {
		return false
	}
	r.Fail(fmt.Errorf("%s: %T: %d are open: %w", ls.host.PID().ID, r.Command, len(ls.all), messages.ErrOverloaded))
	return true
}

// add gives t an id, which is never used again, also not after a crash.
func (ls *leases[T]) add(t T) {
	ls.next++
	l := t.base()
	l.id, l.used = ls.host.Incarnation()<<32|ls.next, ls.host.Now()
	ls.all[l.id] = t
	ls.sweep()
}

// find returns what is open under an id, if it is of the right kind; otherwise
// it fails the request.
func (ls *leases[T]) find(r *Request, id uint64, right func(T) bool) (t T, ok bool) {
	t, ok = ls.all[id]
	switch {
	case !ok || !right(t):
		r.Fail(fmt.Errorf("%s: %T %d: %w", ls.host.PID().ID, r.Command, id, messages.ErrNotFound))
	case t.base().expired:
		r.Fail(fmt.Errorf("%s: %T %d was idle for %v: %w", ls.host.PID().ID, r.Command, id, ls.idle, messages.ErrExpired))
	default:
		return t, true
	}
	return t, false
}

func (ls *leases[T]) remove(t T) { delete(ls.all, t.base().id) }

// settle notes that one command is done. After an error the lease is gone.
func (ls *leases[T]) settle(t T, err error) {
	l := t.base()
	l.underWay--
	l.used = ls.host.Now()
	if err != nil {
		ls.remove(t)
	}
}

// giveUp ends t on its lane and then calls done in the actor.
func (ls *leases[T]) giveUp(t T, done func(error)) {
	l := t.base()
	ls.run(l.lane, Call{"give up", true}, func() func() {
		err := l.end()
		return func() { done(err) }
	})
}

// sweep gives up what has been idle for too long, now and then for as long as
// anything is open.
func (ls *leases[T]) sweep() {
	if ls.sweeping {
		return
	}
	ls.sweeping = true
	ls.host.After(ls.idle/2+time.Millisecond, func() {
		ls.sweeping = false
		now := ls.host.Now()
		for _, id := range sortedKeys(ls.all) {
			t := ls.all[id]
			l := t.base()
			if ls.swept != nil {
				ls.swept(t)
			}
			if l.underWay > 0 || now.Sub(l.used) < ls.idle {
				continue
			}
			l.used = now
			if l.expired {
				ls.remove(t)
				continue
			}
			l.expired = true
			if ls.expired != nil {
				ls.expired(t)
				continue
			}
			ls.giveUp(t, func(err error) {
				if err != nil {
					ls.failed(fmt.Errorf("%s: give up %d: %w", ls.host.PID().ID, l.id, err))
				}
			})
		}
		if len(ls.all) > 0 {
			ls.sweep()
		}
	})
}
