package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
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

// Settler is a Behavior that is told when the actor has done everything that a
// message in its inbox has brought, which may be many requests.
type Settler interface {
	// Settle is called in the actor, like Handle.
	Settle()
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
	// Patient tells which commands may wait while Defer is on. Default: none.
	Patient func(messages.Command) bool
	// StallAfter is how long a call to the disk may take before it is reported, by
	// the event messages.Stalled and in the status; one that takes time in
	// proportion to the data may take 30 times as long. It is looked for so often,
	// so a call may have hung for twice as long when it is told. Default 2 seconds.
	// A smaller one cries wolf when the disk is busy.
	StallAfter time.Duration
	// Observe is called with every event before it is broadcast, in the goroutine
	// in which it happens. It must not block. Default: nobody is told.
	Observe func(event any)
	// New makes a Behavior.
	New func(*Host) Behavior
}

func (c Config) validate() error {
	err := errors.Join(c.Limits.Validate(), c.Restart.Validate())
	if c.StallAfter < 0 {
		err = errors.Join(err, fmt.Errorf("StallAfter is negative (%v): %w", c.StallAfter, messages.ErrInvalid))
	}
	return err
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
	lanes     []*lane
	watch     watchdog
	full      atomic.Bool // see room
	firstOpen chan error  // the outcome of the first Open
	reaping   sync.Once
	reaped    error // by reaping
	stopped   chan struct{}
	ended     chan struct{} // the process has ended, after stopped

	// The fields below belong to the actor.
	state       messages.ActorState
	incarnation uint64
	behavior    Behavior
	opened      bool // behavior.Open has returned nil
	waiting     []*Request
	took        uint64 // commands
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
	// announcement has the actor take the commands of a group.
	announcement struct{ group uint64 }
	// look is what Yield sends. It takes the commands that come until it is
	// received.
	look struct {
		timeout
		group uint64
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
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("actors: spawn %s/%s: %w", cfg.Name, cfg.ID, err)
	}
	cfg.Restart = cfg.Restart.withDefaults()
	cfg.StallAfter = cmp.Or(cfg.StallAfter, defaultStallAfter)
	h := &Host{
		cfg: cfg, engine: engine, env: cfg.Env.withDefaults(),
		box:       newMailbox(engine, cfg.Name, cfg.ID, cfg.Limits, cfg.Env.withDefaults().Burst),
		firstOpen: make(chan error, 1),
		stopped:   make(chan struct{}),
		ended:     make(chan struct{}),
		state:     messages.StateOpening,
	}
	h.watch.host = h
	h.box.exempt = cfg.Coordinator
	if h.box.patient = cfg.Patient; h.box.patient == nil {
		h.box.patient = func(messages.Command) bool { return false }
	}
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
	quickly := b.quickly.Load()
	s.Requests, s.Replies, s.Refused = b.requests+quickly, b.replies+quickly, b.refused
	b.mu.Unlock()
	s.DiskFull = h.full.Load()
	calls, stalls := h.watch.stalled()
	s.Stalled, s.Stalls = stalledText(calls), stalls
	return s
}

// Run has a worker call work, and the actor call what work returns, unless the
// Behavior was replaced in the meantime. Jobs of one lane run one after the
// other; lanes run beside each other. Lane 0 also opens and closes the store.
func (h *Host) Run(lane int, work func() (done func())) { h.Do(lane, Call{Name: "work"}, work) }

// Do is Run of a call that has a name.
func (h *Host) Do(lane int, call Call, work func() (done func())) {
	h.engine.Send(h.lane(lane).pid, job{h.incarnation, h.PID(), call, work})
}

func (h *Host) lane(i int) *lane {
	for len(h.lanes) <= i {
		l := &lane{}
		l.pid = h.env.spawn(h.engine, worker{l, h}, h.cfg.Name+"/"+h.cfg.ID+"/worker", strconv.Itoa(len(h.lanes)))
		h.lanes = append(h.lanes, l)
		h.watch.add(l)
	}
	return h.lanes[i]
}

// After has the actor call f after d, unless the Behavior was replaced in the
// meantime.
func (h *Host) After(d time.Duration, f func()) {
	m := timeout{h.incarnation, f}
	h.env.After(d, func() { h.engine.Send(h.PID(), m) })
}

// Await lets other goroutines run until the actor can take n commands, or until
// it has yielded patience times without another one coming.
func (h *Host) Await(n, patience int) {
	for idle, last := 0, uint64(0); idle < patience; {
		now := h.box.admitted.Load()
		if int(now-h.took) >= n {
			return
		}
		if now == last {
			idle++
		} else {
			idle, last = 0, now
		}
		runtime.Gosched()
	}
}

// Defer begins or ends a time in which patient commands are handled when 64 of
// them, or 16 KiB, have come, or at its end. It is for while the actor could do
// little for them: the processor is left to others, and a sender need not wake
// the actor for each. A failure ends it.
func (h *Host) Defer(on bool) { h.box.deferPatient(on) }

// Yield has the actor call f after the messages that are in its inbox now, and
// after the commands that have come until then.
func (h *Host) Yield(f func()) { h.box.look(look{timeout: timeout{h.incarnation, f}}) }

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
func (h *Host) Event(e any) {
	if h.cfg.Observe != nil {
		h.cfg.Observe(e)
	}
	h.engine.BroadcastEvent(e)
}

// room takes the outcome of a change that needs space, and tells when there is no
// more, and when there is again. It may be called in jobs.
func (h *Host) room(err error) {
	switch {
	case err == nil && h.full.Load() && h.full.CompareAndSwap(true, false):
		h.Event(messages.SpaceReturned{Actor: h.PID().ID})
	case err != nil && errors.Is(err, messages.ErrDiskFull) && h.full.CompareAndSwap(false, true):
		h.Event(messages.DiskFull{Actor: h.PID().ID, Err: err})
	}
}

// Fail drops the Behavior because of err, and rebuilds it. While the Behavior is
// being closed it only tells of err: there is nothing to rebuild, and the end
// waits for Close.
func (h *Host) Fail(err error) {
	h.fail(err)
}
