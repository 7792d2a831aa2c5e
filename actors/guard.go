package actors

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Receive implements hollywood's Receiver. No panic gets past it.
func (h *Host) Receive(c *actor.Context) {
	deepen()
	h.watch.enter()
	defer h.watch.leave()
	h.guard(func() {
		if _, ok := c.Message().(actor.Stopped); ok {
			h.poisoned() // last of all: its successor may be running already
			return
		}
		h.handle(c.Message())
		if s, ok := h.behavior.(Settler); ok && h.opened {
			s.Settle()
		}
	})
}

// guard calls f; a panic in it is a failure.
func (h *Host) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			h.fail(&PanicError{v, debug.Stack()})
		}
	}()
	f()
}

func (h *Host) handle(msg any) {
	switch m := msg.(type) {
	case *Request:
		h.take(m.group)
	case announcement:
		h.take(m.group)
	case look:
		h.take(m.group)
		if m.incarnation == h.incarnation {
			m.f()
		}
	case jobDone:
		if m.incarnation != h.incarnation {
			return
		}
		if m.err != nil {
			select { // Open has panicked
			case h.firstOpen <- m.err:
			default:
			}
			h.fail(m.err)
		} else if m.done != nil {
			m.done()
		}
	case timeout:
		if m.incarnation == h.incarnation {
			m.f()
		}
	case serve:
		if m.incarnation == h.incarnation && h.state == messages.StateRecovering {
			h.enter(messages.StateServing, nil)
			h.flush()
		}
	case hold:
		switch h.state {
		case messages.StateServing:
			h.enter(messages.StateRecovering, nil)
		case messages.StateUnavailable:
			h.notify(h.cause)
		default: // Recovering: tell again. Otherwise Recovering will follow.
			h.notify(nil)
		}
	case crash:
		h.down(m.err, m.lost)
	case drain:
		h.drain()
	case idle:
		h.closeIfIdle()
	case actor.Initialized:
	case actor.Started:
		h.started()
	default:
		if h.behavior != nil && h.opened {
			h.behavior.Message(m)
		}
	}
}

// started opens the store, at the first start and after somebody has poisoned
// the process. Requests that were admitted before there was a process, or lost
// with the inbox of the old one, are received now.
func (h *Host) started() {
	h.draining = h.draining || h.box.closed.Load() // Stop's message may have been lost with the inbox
	if h.incarnation == 0 {
		h.open()
	} else {
		h.fail(fmt.Errorf("%s was poisoned", h.box.pid.ID))
	}
	h.took = h.box.restart()
	for _, r := range h.box.underWay() {
		h.guard(func() { h.receive(r) })
	}
}

// poisoned brings the process back, unless the service is being stopped: only
// Stop ends an actor.
func (h *Host) poisoned() {
	select {
	case <-h.stopped:
		close(h.ended)
	default:
		// Not from here: hollywood is inside this process's clean-up.
		h.env.After(0, h.respawn)
	}
}

// take receives the requests of a burst.
func (h *Host) take(group uint64) {
	for r := h.box.take(group); r != nil; {
		next := r.queued
		r.queued = nil
		h.guard(func() { h.receive(r) }) // those behind it have not been dispatched if it panics
		h.took++
		r = next
	}
}

func (h *Host) receive(r *Request) {
	if r.received {
		return
	}
	r.received = true
	switch h.state {
	case messages.StateServing:
		h.dispatch(r)
	case messages.StateRecovering:
		if h.FromCoordinator(r) {
			h.dispatch(r)
			return
		}
		h.waiting = append(h.waiting, r)
	case messages.StateUnavailable:
		r.Fail(h.unavailable())
	case messages.StateStopped:
		r.Fail(fmt.Errorf("%s: %w", h.box.pid.ID, messages.ErrStopped))
	default:
		if h.cfg.Recover && h.cause != nil && h.FromCoordinator(r) {
			// Of a flow that this failure has ended. It must not be carried out
			// in the middle of the recovery, or after it.
			r.Fail(fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrCrashed, h.cause))
			return
		}
		h.waiting = append(h.waiting, r)
	}
}

func (h *Host) dispatch(r *Request) {
	if !r.begin() {
		return
	}
	r.incarnation = h.incarnation
	h.behavior.Handle(r)
}

// flush dispatches what has waited.
func (h *Host) flush() {
	waiting := h.waiting
	h.waiting = nil
	for i, r := range waiting {
		if h.state != messages.StateServing { // a request has failed the behavior
			h.waiting = append(waiting[i:], h.waiting...)
			return
		}
		h.guard(func() { h.dispatch(r) })
	}
}

func (h *Host) unavailable() error {
	return fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrUnavailable, h.cause)
}

// enter changes the state and tells the coordinator.
func (h *Host) enter(s messages.ActorState, err error) {
	h.state = s
	h.box.state.Store(s)
	var quick *func(messages.Command) messages.Reply
	// Where every command is a delivery of its own, so is a read.
	if q, ok := h.behavior.(Quick); ok && s == messages.StateServing && h.env.Burst > 1 {
		f := q.Quick
		quick = &f
	}
	h.box.quick.Store(quick)
	h.notify(err)
}

func (h *Host) notify(err error) {
	if h.cfg.Coordinator != nil {
		h.engine.SendWithSender(h.cfg.Coordinator, Notice{h.cfg.ID, h.state, err, h.incarnation}, h.PID())
	}
}

func (h *Host) open() {
	h.incarnation++
	b := h.cfg.New(h)
	h.behavior, h.opened = b, false
	if h.state != messages.StateUnavailable {
		h.enter(messages.StateOpening, nil)
	}
	h.Do(0, Call{"open", true}, func() func() {
		err := b.Open()
		return func() { h.openDone(err) }
	})
}

func (h *Host) openDone(err error) {
	// Last of all, so that whoever waits for it does not run beside the rest.
	defer func() {
		select {
		case h.firstOpen <- err:
		default:
		}
	}()
	if err != nil {
		h.behavior = nil // there is nothing to close
		h.fail(fmt.Errorf("open %s: %w", h.box.pid.ID, err))
		return
	}
	h.opened = true
	h.behavior.Ready()
	for _, r := range h.box.underWay() {
		if r.begun() && r.incarnation < h.incarnation && !r.Answered() {
			if r.resolved++; r.resolved > maxResolved { // it may be what fails the actor
				r.Fail(fmt.Errorf("%s: under way in %d failures: %w: %w", h.box.pid.ID, r.resolved, messages.ErrInDoubt, h.cause))
				continue
			}
			r.kept = false
			h.behavior.Resolve(r, h.cause)
			if r.kept {
				r.incarnation = h.incarnation
			} else if !r.Answered() {
				r.Fail(fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrInDoubt, h.cause))
			}
			if !h.opened {
				return // it has failed again
			}
		}
	}
	h.box.refuse.Store(nil)
	if !h.downSince.IsZero() {
		h.Event(messages.ActorRecovered{Actor: h.box.pid.ID, Down: h.env.Now().Sub(h.downSince)})
		h.downSince = time.Time{}
	}
	switch {
	case h.draining:
		h.enter(messages.StateRecovering, nil)
		h.drain()
	case h.cfg.Recover:
		h.enter(messages.StateRecovering, nil)
	default:
		h.enter(messages.StateServing, nil)
		h.flush()
	}
}

// fail drops the behavior and arranges for a new one.
func (h *Host) fail(err error) { h.down(err, false) }

func (h *Host) down(err error, lost bool) {
	if h.state == messages.StateStopped {
		return
	}
	if h.closing {
		// Close has panicked, or something beside it has. There is nothing left
		// to rebuild, but the end comes when Close is over, and not before.
		h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: err})
		h.finishAfter(nil)
		return
	}
	old := h.behavior
	wasOpen := h.opened
	h.behavior, h.opened = nil, false
	h.box.deferPatient(false)
	h.incarnation++ // jobs and timers of the old behavior are void
	h.cause = err
	h.total++
	now := h.env.Now()
	if h.downSince.IsZero() {
		h.downSince = now
	}
	n := h.failures.add(now, h.cfg.Restart.Window)
	h.statusMu.Lock()
	h.failed, h.lastFailure = h.total, err.Error()
	h.statusMu.Unlock()

	lost = lost || n > h.cfg.Restart.MaxFailures || !wasOpen && permanent(err)
	wait := h.cfg.Restart.backoff(n, h.env.Chance())
	if lost {
		wait = h.cfg.Restart.Retry
	}
	h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: err, Failures: n, Retry: wait, Unavailable: lost})
	if errors.Is(err, messages.ErrCorrupt) {
		h.Event(messages.DamageFound{Actor: h.box.pid.ID, Err: err})
	}
	if old != nil {
		// Lane 0 is where the old behavior opens, syncs and closes, so the new
		// one's Open waits for whatever the old one still has in the disk.
		h.Do(0, Call{"close", true}, func() func() {
			closeErr := old.Close()
			return func() {
				if closeErr != nil {
					h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: fmt.Errorf("close after a failure: %w", closeErr), Failures: n, Retry: wait})
				}
			}
		})
	}
	if lost {
		h.giveUp()
	} else {
		h.enter(messages.StateBackoff, err)
	}
	if h.draining {
		h.giveUp()
		h.finishAfter(nil)
		return
	}
	h.After(wait, h.open)
}

// maxResolved is how many failures a request may survive before it is taken
// for their cause.
const maxResolved = 3

// giveUp makes the actor unavailable: nothing waits for it any longer.
func (h *Host) giveUp() {
	err := h.unavailable()
	h.box.refuse.Store(&err)
	h.enter(messages.StateUnavailable, h.cause)
	h.waiting = nil
	for _, r := range h.box.underWay() {
		switch {
		case r.begun():
			r.Fail(fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrInDoubt, h.cause))
		case r.received:
			r.Fail(err)
		}
	}
}
