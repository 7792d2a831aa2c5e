package actors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Stop ends the actor: new commands are answered with ErrStopped, what is under
// way is finished, the store is closed. When the context ends first, what is
// left is answered with ErrInDoubt if it had begun and ErrStopped if not, and
// Stop returns the context's error. The mailbox stays, and goes on answering
// ErrStopped. It may be called again.
func (h *Host) Stop(ctx context.Context) error {
	h.box.closed.Store(true)
	f := func() { h.engine.Send(h.PID(), idle{}) }
	h.box.drained.Store(&f)
	h.engine.Send(h.PID(), drain{})
	var err error
	select {
	case <-h.stopped:
	case <-ctx.Done():
		err = fmt.Errorf("actors: stop %s: %w", h.box.pid.ID, ctx.Err())
		for _, r := range h.box.underWay() {
			if !r.begin() {
				r.Fail(fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrInDoubt, err))
			} else {
				r.Fail(fmt.Errorf("%s: %w", h.box.pid.ID, messages.ErrStopped))
			}
		}
		select { // the answers have made it idle, unless the disk hangs
		case <-h.stopped:
		case <-time.After(stopGrace):
			go func() { // for as long as it hangs
				<-h.stopped
				if err := h.reap(); err != nil {
					h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: err})
				}
			}()
			return err
		}
	}
	return errors.Join(err, h.reap())
}

// reap ends the processes, which have nothing left to do. Each gets hollywood's
// pill as its last message. If somebody else has sent one as well, hollywood
// reports only one of them as done, so the process itself tells, too.
// Whoever calls Stop beside another waits for the one end.
func (h *Host) reap() error {
	h.reaping.Do(func() { h.reaped = h.reapAll() })
	return h.reaped
}

func (h *Host) reapAll() error {
	target := h.box.target.Swap(nil)
	pids := []*actor.PID{target}
	for _, l := range h.lanes {
		pids = append(pids, l.pid)
	}
	for _, pid := range pids {
		ended := h.ended
		if pid != target {
			ended = nil
		}
		select {
		case <-h.engine.Poison(pid).Done():
		case <-ended:
		case <-time.After(stopGrace):
			return fmt.Errorf("actors: stop %s: %v does not end", h.box.pid.ID, pid)
		}
	}
	return nil
}

// Done is closed when the actor has ended and its store is closed.
func (h *Host) Done() <-chan struct{} { return h.stopped }

// Stopped reports whether Done is closed.
func (h *Host) Stopped() bool {
	select {
	case <-h.stopped:
		return true
	default:
		return false
	}
}

// stopGrace bounds the wait for a process that has nothing left to do.
const stopGrace = 5 * time.Second

func (h *Host) drain() {
	h.draining = true
	switch h.state {
	case messages.StateServing, messages.StateRecovering:
		for _, r := range h.waiting { // it has not caught up, so it may not answer them
			r.Fail(fmt.Errorf("%s: %w", h.box.pid.ID, messages.ErrStopped))
		}
		h.waiting = nil
		if h.state == messages.StateRecovering {
			h.enter(messages.StateServing, nil)
		}
		h.behavior.Drain()
		h.closeIfIdle()
	case messages.StateOpening: // openDone goes on
	default: // down: nothing will be served any more
		h.incarnation++
		b := h.behavior // not nil if it is being opened once more
		h.behavior = nil
		h.giveUp()
		h.finishAfter(b)
	}
}

func (h *Host) closeIfIdle() {
	if !h.draining || h.closing || h.state != messages.StateServing {
		return
	}
	if len(h.box.underWay()) > 0 {
		return // the mailbox tells when the last one is answered
	}
	h.closing = true
	b := h.behavior
	h.Do(0, Call{"close", true}, func() func() {
		err := b.Close()
		return func() {
			if err != nil {
				h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: fmt.Errorf("close: %w", err)})
			}
			h.finish()
		}
	})
}

// finishAfter ends the actor once the first lane has come to an end: whatever
// an old Behavior still has in the disk is over then, and its files are closed.
func (h *Host) finishAfter(b Behavior) {
	h.Do(0, Call{"close", true}, func() func() {
		var err error
		if b != nil {
			err = b.Close()
		}
		return func() {
			if err != nil {
				h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: fmt.Errorf("close: %w", err)})
			}
			h.finish()
		}
	})
}

func (h *Host) finish() {
	h.incarnation++ // no timer may touch the store any more
	h.enter(messages.StateStopped, nil)
	close(h.stopped)
}
