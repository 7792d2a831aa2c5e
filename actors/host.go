package actors

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Behavior is what one kind of actor does; a Host runs it. All methods but Open
// and Close are called in the actor, one at a time; a panic in any of them, or
// in a job, is a failure: the Host drops the Behavior and makes a new one.
type Behavior interface {
	// Open opens the store. It runs on a worker.
	Open() error
	// Ready is called once Open has succeeded, before anything else.
	Ready()
	// Handle answers a request, now or later.
	Handle(r *Request)
	// Resolve answers a request that an earlier Behavior had begun when it
	// failed with cause, from what Open has found. If it neither answers nor
	// calls Keep, the sender gets messages.ErrInDoubt.
	Resolve(r *Request, cause error)
	// Message takes anything that is not a request: replies to commands that
	// the Behavior has sent itself.
	Message(msg any)
	// Drain prepares for the end: nothing new will be handled. What is under
	// way must be answered.
	Drain()
	// Close releases the store. It runs on a worker, after all jobs of the
	// first lane.
	Close() error
}

// Config of a Host.
type Config struct {
	// Name is the kind of the pid and ID its last part: Name/ID.
	Name, ID string
	Limits   Limits
	Restart  RestartPolicy
	Env      Env
	// Coordinator is told of every change of state (Notice). If Recover is set
	// the actor serves only commands from the coordinator after it has opened,
	// until Serve is called; what others send waits.
	Coordinator *actor.PID
	Recover     bool
	// New makes a Behavior.
	New func(*Host) Behavior
}

// Notice tells the coordinator that an actor has changed its state.
type Notice struct {
	Name  string
	State messages.ActorState
	Err   error // why, for StateBackoff and StateUnavailable
	// Incarnation counts how often the actor was opened; hand it to Serve.
	Incarnation uint64
}

// Host guards a Behavior: see the package comment.
type Host struct {
	cfg    Config
	engine *actor.Engine
	box    *Mailbox
	env    Env

	// spawning serialises the (re)creation of the process.
	spawning  sync.Mutex
	spawns    int
	lanes     []*actor.PID
	firstOpen chan error // the outcome of the first Open
	stopped   chan struct{}

	// The fields below belong to the actor.
	state       messages.ActorState
	incarnation uint64
	behavior    Behavior
	opened      bool // behavior.Open has returned nil
	waiting     []*Request
	failures    failures
	total       uint64
	cause       error // of the latest failure
	downSince   time.Time
	draining    bool
	closing     bool

	statusMu    sync.Mutex
	lastFailure string
	failed      uint64
}

// Internal messages to the host's own process.
type (
	timeout struct {
		incarnation uint64
		f           func()
	}
	serve struct{ incarnation uint64 }
	hold  struct{}
	drain struct{}
	crash struct {
		err  error
		lost bool
	}
	// idle: nothing is under way any more.
	idle struct{}
)

// Spawn starts an actor. It returns at once; Opened waits for the store.
func Spawn(engine *actor.Engine, cfg Config) (*Host, error) {
	if err := errors.Join(cfg.Limits.Validate(), cfg.Restart.Validate()); err != nil {
		return nil, fmt.Errorf("actors: spawn %s/%s: %w", cfg.Name, cfg.ID, err)
	}
	cfg.Restart = cfg.Restart.withDefaults()
	h := &Host{
		cfg: cfg, engine: engine, env: cfg.Env.withDefaults(),
		box:       newMailbox(engine, cfg.Name, cfg.ID, cfg.Limits),
		firstOpen: make(chan error, 1),
		stopped:   make(chan struct{}),
		state:     messages.StateOpening,
	}
	h.box.exempt = cfg.Coordinator
	if err := h.box.register(cfg.Name, cfg.ID, h.respawn); err != nil {
		return nil, err
	}
	return h, nil
}

// respawn creates the process behind the mailbox, for the first time or after
// somebody has poisoned it.
func (h *Host) respawn() {
	h.spawning.Lock()
	h.spawns++
	id := strconv.Itoa(h.spawns)
	h.spawning.Unlock()
	kind := h.cfg.Name + "/" + h.cfg.ID
	// The process gets its first message, Started, within spawn, and may send
	// to itself then.
	h.box.target.Store(actor.NewPID(h.engine.Address(), kind+"/"+id))
	h.env.spawn(h.engine, h, kind, id)
}

// PID is the address of the actor, valid for the life of the engine.
func (h *Host) PID() *actor.PID { return h.box.PID() }

// Engine is the engine that the actor runs in.
func (h *Host) Engine() *actor.Engine { return h.engine }

// Name is the last part of the pid.
func (h *Host) Name() string { return h.cfg.ID }

// Opened waits for the first attempt to open the store and returns its error.
// The actor goes on trying after an error, unless it is stopped.
func (h *Host) Opened(ctx context.Context) error {
	select {
	case err := <-h.firstOpen:
		h.firstOpen <- err
		return err
	case <-ctx.Done():
		return fmt.Errorf("actors: open %s: %w", h.box.pid.ID, ctx.Err())
	}
}

// Serve ends the recovery of the given incarnation: commands from everybody are
// handled from now on, those that have waited first.
func (h *Host) Serve(incarnation uint64) { h.engine.Send(h.PID(), serve{incarnation}) }

// Hold makes the actor serve the coordinator alone until Serve is called. The
// coordinator gets a Notice with StateRecovering when that is so.
func (h *Host) Hold() { h.engine.Send(h.PID(), hold{}) }

// Crash fails the actor with err as a panic would. It is for tests, drills and
// simulations.
func (h *Host) Crash(err error) { h.engine.Send(h.PID(), crash{err, false}) }

// GiveUp makes the actor unavailable because of err, as if it had failed too
// often. It is tried again as the RestartPolicy says.
func (h *Host) GiveUp(err error) { h.engine.Send(h.PID(), crash{err, true}) }

// Status describes the actor. It is safe for concurrent use.
func (h *Host) Status() messages.ActorStatus {
	b := h.box
	s := messages.ActorStatus{Name: h.cfg.ID, State: b.state.Load().(messages.ActorState)}
	h.statusMu.Lock()
	s.LastFailure, s.Failures = h.lastFailure, h.failed
	h.statusMu.Unlock()
	b.mu.Lock()
	s.Queued, s.QueuedBytes = b.count, b.bytes
	s.Requests, s.Replies, s.Refused = b.requests, b.replies, b.refused
	b.mu.Unlock()
	return s
}

// Run has a worker call work, and the actor call what work returns, unless the
// Behavior was replaced in the meantime. Jobs of one lane run one after the
// other; lanes run beside each other. Lane 0 also opens and closes the store.
func (h *Host) Run(lane int, work func() (done func())) {
	h.engine.Send(h.lane(lane), job{h.incarnation, h.PID(), work})
}

func (h *Host) lane(i int) *actor.PID {
	for len(h.lanes) <= i {
		h.lanes = append(h.lanes, h.env.spawn(h.engine, worker{},
			h.cfg.Name+"/"+h.cfg.ID+"/worker", strconv.Itoa(len(h.lanes))))
	}
	return h.lanes[i]
}

// After has the actor call f after d, unless the Behavior was replaced in the
// meantime.
func (h *Host) After(d time.Duration, f func()) {
	m := timeout{h.incarnation, f}
	h.env.After(d, func() { h.engine.Send(h.PID(), m) })
}

// Yield has the actor call f after the messages that are in its inbox now.
func (h *Host) Yield(f func()) { h.engine.Send(h.PID(), timeout{h.incarnation, f}) }

// Incarnation counts how often the actor was opened. It tells what belongs to
// this Behavior from what an earlier one has left behind.
func (h *Host) Incarnation() uint64 { return h.incarnation }

// FromCoordinator reports whether a request was sent by the coordinator.
func (h *Host) FromCoordinator(r *Request) bool {
	return r.Sender != nil && h.cfg.Coordinator != nil && r.Sender.Equals(h.cfg.Coordinator)
}

// Now is the clock.
func (h *Host) Now() time.Time { return h.env.Now() }

// Send sends a command of the Behavior's own; the reply comes to Message.
func (h *Host) Send(to *actor.PID, c messages.Command) {
	h.engine.SendWithSender(to, c, h.PID())
}

// Event broadcasts an event on the engine's event stream.
func (h *Host) Event(e any) { h.engine.BroadcastEvent(e) }

// Fail drops the Behavior because of err, and rebuilds it.
func (h *Host) Fail(err error) { h.fail(err) }

// Receive implements hollywood's Receiver. No panic gets past it.
func (h *Host) Receive(c *actor.Context) {
	defer func() {
		if v := recover(); v != nil {
			h.fail(&PanicError{v, debug.Stack()})
		}
	}()
	switch m := c.Message().(type) {
	case *Request:
		h.receive(m)
	case jobDone:
		if m.incarnation != h.incarnation {
			return
		}
		if m.err != nil {
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
		if h.state == messages.StateServing {
			h.enter(messages.StateRecovering, nil)
		} else if h.state == messages.StateRecovering {
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
	case actor.Stopped:
		h.poisoned()
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
	if h.incarnation == 0 {
		h.open()
	} else {
		h.fail(fmt.Errorf("%s was poisoned", h.box.pid.ID))
	}
	for _, r := range h.box.underWay() {
		h.receive(r)
	}
}

// poisoned brings the process back, unless the service is being stopped: only
// Stop ends an actor.
func (h *Host) poisoned() {
	select {
	case <-h.stopped:
	default:
		// Not from here: hollywood is inside this process's clean-up.
		h.env.After(0, h.respawn)
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
		h.waiting = append(h.waiting, r)
	}
}

func (h *Host) dispatch(r *Request) {
	if r.Answered() {
		return
	}
	r.dispatched, r.incarnation = true, h.incarnation
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
		func() {
			defer func() {
				if v := recover(); v != nil {
					h.fail(&PanicError{v, debug.Stack()})
				}
			}()
			h.dispatch(r)
		}()
	}
}

func (h *Host) unavailable() error {
	return fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrUnavailable, h.cause)
}

// enter changes the state and tells the coordinator.
func (h *Host) enter(s messages.ActorState, err error) {
	h.state = s
	h.box.state.Store(s)
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
	h.Run(0, func() func() {
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
		if r.dispatched && r.incarnation < h.incarnation && !r.Answered() {
			r.kept = false
			h.behavior.Resolve(r, h.cause)
			if r.kept {
				r.incarnation = h.incarnation
			} else if !r.Answered() {
				r.Fail(fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrInDoubt, h.cause))
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
	if h.closing { // Close has panicked; there is nothing left to rebuild
		h.Event(messages.ActorFailed{Actor: h.box.pid.ID, Err: err})
		h.finish()
		return
	}
	old := h.behavior
	wasOpen := h.opened
	h.behavior, h.opened = nil, false
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
		h.Run(0, func() func() {
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
		h.finish()
		return
	}
	h.After(wait, h.open)
}

// giveUp makes the actor unavailable: nothing waits for it any longer.
func (h *Host) giveUp() {
	err := h.unavailable()
	h.box.refuse.Store(&err)
	h.enter(messages.StateUnavailable, h.cause)
	h.waiting = nil
	for _, r := range h.box.underWay() {
		switch {
		case r.dispatched:
			r.Fail(fmt.Errorf("%s: %w: %w", h.box.pid.ID, messages.ErrInDoubt, h.cause))
		case r.received:
			r.Fail(err)
		}
	}
}

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
