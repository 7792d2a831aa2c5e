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
// ErrStopped. Stop is called once.
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
			if r.dispatched {
				r.Fail(fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrInDoubt, err))
			} else {
				r.Fail(fmt.Errorf("%s: %w", h.box.pid.ID, messages.ErrStopped))
			}
		}
		select { // the answers have made it idle, unless the disk hangs
		case <-h.stopped:
		case <-time.After(stopGrace):
			return err
		}
	}
	// From here nothing is sent to these processes, so hollywood's pill is the
	// last message of each.
	target := h.box.target.Swap(nil)
	for _, pid := range append([]*actor.PID{target}, h.lanes...) {
		select {
		case <-h.engine.Poison(pid).Done():
		case <-time.After(stopGrace):
			return errors.Join(err, fmt.Errorf("actors: stop %s: %v does not end", h.box.pid.ID, pid))
		}
	}
	return err
}

// Stopped reports whether the actor has ended and its store is closed.
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
		h.giveUp()
		h.finish()
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
	h.Run(0, func() func() {
		err := b.Close()
		return func() {
			if err != nil {
				h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: fmt.Errorf("close: %w", err)})
			}
			h.finish()
		}
	})
}

func (h *Host) finish() {
	h.enter(messages.StateStopped, nil)
	close(h.stopped)
}
