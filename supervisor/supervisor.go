package supervisor

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// start tells the supervisor that the storage actors are there.
type start struct{}

// supervisor coordinates the storage actors. It owns no store: what it knows
// it can ask for again, so it is rebuilt like any other actor.
type supervisor struct {
	host      *actors.Host
	parts     *parts
	observer  *observer
	retention messages.Retention
	ready     chan error // the outcome of the first recovery

	started  bool
	draining bool
	// compared: a recovery has compared log and data since the supervisor began,
	// or since the log was cut.
	compared bool
	// outdated: the log was cut while a recovery was under way.
	outdated bool
	// retrying: groups that are withheld are being tried again; waiting: a timer
	// will do so, retryEvery after it was set.
	retrying, waiting bool
	retryEvery        time.Duration
	tag               uint64
	calls             map[uint64]func(messages.Reply)
	groups            map[uint64]*group

	// kvState is what the application-data actor last told; while it is not
	// StateServing nothing is applied and flows wait in whenReady.
	kvState   messages.ActorState
	kvErr     error
	kv        uint64 // its incarnation
	whenReady []waiter
	// recovering is the incarnation that a recovery was begun for.
	recovering uint64
	// restoring holds off the recovery that a Hold would start.
	restoring     *restoring
	restoringHeld func()
	// doubtful are proposals of an earlier supervisor whose append was not
	// answered. What comes before they are settled waits in early: an equal
	// entry at the same index could be taken for theirs.
	doubtful []*proposal
	early    []*proposal
}

// waiter is a flow that waits until the application data has caught up.
type waiter struct {
	run  func()
	fail func(error)
}

func newSupervisor(h *actors.Host, of *Storage, cfg Config, ready chan error) *supervisor {
	// Replies to commands of an earlier supervisor must not be taken for those
	// to its successor's (simulation seed 27).
	return &supervisor{host: h, parts: of.parts, observer: of.observer, retention: cfg.Retention, retryEvery: cfg.Restart.RetryInterval(), ready: ready, tag: h.Incarnation() << 32,
		calls: make(map[uint64]func(messages.Reply)), groups: make(map[uint64]*group), kvState: messages.StateOpening}
}

func (s *supervisor) Open() error  { return nil }
func (s *supervisor) Close() error { return nil }

// Drain answers what waits for something that may never come.
func (s *supervisor) Drain() {
	s.draining = true
	early := s.early
	s.early = nil
	for _, p := range early {
		p.fail(fmt.Errorf("%s: %w", s.host.PID().ID, messages.ErrStopped))
	}
	waiting := s.whenReady
	s.whenReady = nil
	for _, w := range waiting {
		w.fail(fmt.Errorf("%s: %w", s.host.PID().ID, messages.ErrStopped))
	}
	for _, g := range s.sortedGroups() {
		if g.stuck != nil {
			s.giveUp(g, g.stuck)
		}
		if !s.compared {
			s.refuseQueued(g, messages.ErrStopped)
		}
	}
}

// Ready takes up the work of an earlier supervisor that has failed, once
// Resolve has gone through what it left.
func (s *supervisor) Ready() {
	if s.parts.started.Load() {
		s.host.Yield(s.start)
	}
}

// start asks for the application data to be handed over, wherever it is: being
// opened, waiting for recovery, or serving under an earlier supervisor.
func (s *supervisor) start() {
	s.settle(func() {
		s.started = true
		s.parts.kv.Hold()
		early := s.early
		s.early = nil
		for _, p := range early {
			s.propose(s.group(p.group), p)
		}
	})
}

func (s *supervisor) Handle(r *actors.Request) {
	switch c := r.Command.(type) {
	case messages.ApplyEntry:
		s.applyEntry(r, c)
	case messages.Commit:
		s.commit(r, c)
	case messages.CreateSnapshot:
		s.whenServing(r, func() {
			if g := s.group(c.Group); g.failed != nil {
				r.Fail(s.withheld(g))
				return
			}
			s.createSnapshot(r, c)
		})
	case messages.Restore:
		s.whenServing(r, func() { s.restore(r, c) })
	case messages.ReadStatus:
		s.status(r, c)
	default:
		r.Fail(fmt.Errorf("%s does not answer %T: %w", s.host.PID().ID, c, messages.ErrInvalid))
	}
}

func (s *supervisor) Message(msg any) {
	switch m := msg.(type) {
	case start:
		s.start()
	case actors.Notice:
		switch {
		case !s.started:
		case m.Name == kvDir:
			s.noticeKV(m)
		default:
			s.came(m.State)
		}
	case logCut:
		if s.started {
			s.cut()
		}
	case messages.Reply:
		if f := s.calls[m.ReplyTag()]; f != nil {
			delete(s.calls, m.ReplyTag())
			f(m)
		}
	}
}

// noticeKV follows the application-data actor through its life.
func (s *supervisor) noticeKV(m actors.Notice) {
	s.kvState, s.kvErr, s.kv = m.State, m.Err, m.Incarnation
	switch m.State {
	case messages.StateRecovering:
		for _, g := range s.sortedGroups() {
			g.applying = 0
		}
		if f := s.restoringHeld; f != nil {
			s.restoringHeld = nil
			if m.Incarnation == s.restoring.incarnation {
				f()
				return
			}
			s.restoring.refuse(fmt.Errorf("the application data has failed meanwhile: %w", messages.ErrCrashed))
		}
		if s.recovering != m.Incarnation { // a Hold tells again what is known
			s.recovering = m.Incarnation
			s.recover(m.Incarnation)
		}
	case messages.StateServing:
		s.recovering = 0
		waiting := s.whenReady
		s.whenReady = nil
		for _, w := range waiting {
			w.run()
		}
		for _, g := range s.sortedGroups() {
			s.pump(g)
		}
	case messages.StateUnavailable, messages.StateStopped:
		select { // whoever waits for the first recovery
		case s.ready <- fmt.Errorf("%s: application data: %w", s.host.PID().ID, cmp.Or(m.Err, messages.ErrStopped)):
		default:
		}
		s.kvLost(m.Err)
	}
}

// kvLost answers what waits for the application data to come back.
func (s *supervisor) kvLost(err error) {
	if err == nil {
		err = messages.ErrStopped
	}
	if s.restoringHeld != nil {
		s.restoring.refuse(fmt.Errorf("%w: %w", messages.ErrUnavailable, err))
	}
	waiting := s.whenReady
	s.whenReady = nil
	for _, w := range waiting {
		w.fail(fmt.Errorf("%s: application data: %w: %w", s.host.PID().ID, messages.ErrUnavailable, err))
	}
	for _, g := range s.sortedGroups() {
		s.giveUp(g, err)
		if !s.compared {
			s.refuseQueued(g, fmt.Errorf("application data: %w: %w", messages.ErrUnavailable, err))
		}
	}
}

// giveUp answers the proposals that are in the log and cannot be applied now.
func (s *supervisor) giveUp(g *group, err error) {
	for _, p := range g.sortedProposals() {
		if p.durable {
			g.forget(p)
			p.fail(fmt.Errorf("%s: index %d is in the log but was not applied yet: %w: %w", s.host.PID().ID, p.entry.Index, messages.ErrInDoubt, err))
		}
	}
}

// whenServing runs a flow once the application data serves.
func (s *supervisor) whenServing(r *actors.Request, run func()) {
	switch s.kvState {
	case messages.StateServing:
		run()
	case messages.StateUnavailable, messages.StateStopped:
		r.Fail(fmt.Errorf("%s: application data: %w: %w", s.host.PID().ID, messages.ErrUnavailable, s.kvErr))
	default:
		if s.draining {
			r.Fail(fmt.Errorf("%s: %w", s.host.PID().ID, messages.ErrStopped))
			return
		}
		s.whenReady = append(s.whenReady, waiter{run, r.Fail})
	}
}

// call sends a command and has then called with its reply. A flow is a chain
// of such calls. A panic in a step ends that flow alone, with fail; the other
// flows go on.
func call[R messages.Reply](s *supervisor, to *actor.PID, c messages.Command, fail func(error), then func(R)) {
	s.tag++
	s.calls[s.tag] = func(reply messages.Reply) {
		s.contain(fail, func() { then(reply.(R)) })
	}
	s.host.Send(to, c.WithTag(s.tag))
}

// contain runs one step of a flow.
func (s *supervisor) contain(fail func(error), step func()) {
	defer func() {
		if v := recover(); v != nil {
			err := &actors.PanicError{Value: v, Stack: debug.Stack()}
			s.host.Event(messages.ActorFailed{Actor: s.host.PID().ID, Err: err})
			fail(fmt.Errorf("%s: %w: %w", s.host.PID().ID, messages.ErrInDoubt, err))
		}
	}()
	step()
}

// tell sends a command whose reply nobody needs.
func (s *supervisor) tell(to *actor.PID, c messages.Command) { s.host.Send(to, c.WithTag(0)) }

// transient reports whether the same command may succeed in a moment.
func transient(err error) bool {
	return errors.Is(err, messages.ErrCrashed) || errors.Is(err, messages.ErrInDoubt) || errors.Is(err, messages.ErrOverloaded)
}

// retryDelay is how long to wait before a flow that nobody has asked for, a
// recovery or the reload of a group's position, is tried again.
const retryDelay = 50 * time.Millisecond

// Resolve: an entry that the log has confirmed is applied by the recovery that
// follows, and answered then. One whose append was under way is looked for. Of
// everything else the outcome is not known.
func (s *supervisor) Resolve(r *actors.Request, _ error) {
	p, ok := r.Note.(*proposal)
	switch {
	case !ok:
	case p.entry.Index == 0: // it was waiting to be proposed
		r.Keep()
		s.early = append(s.early, p)
	case p.durable:
		r.Keep()
		s.group(p.group).proposals[p.entry.Index] = p
	default:
		r.Keep()
		s.doubtful = append(s.doubtful, p)
	}
}

// settle decides the doubtful proposals by looking for their entries in the
// log. A truncation that removes nothing is answered after everything that was
// sent to the log before it, so that what is not there then will not come.
func (s *supervisor) settle(done func()) {
	if len(s.doubtful) == 0 {
		done()
		return
	}
	p := s.doubtful[0]
	s.doubtful = s.doubtful[1:]
	doubt := func(err error) {
		p.fail(fmt.Errorf("%s: apply entry: %w: %w", s.host.PID().ID, messages.ErrInDoubt, err))
		s.settle(done)
	}
	log := s.parts.log.PID()
	call(s, log, messages.TruncateFrom{Group: p.group, Index: math.MaxUint64}, doubt, func(m messages.Truncated) {
		if m.Err != nil {
			doubt(m.Err)
			return
		}
		call(s, log, messages.ReadEntry{Group: p.group, Index: p.entry.Index}, doubt, func(m messages.EntryRead) {
			switch {
			case m.Err == nil && m.Entry.Term == p.entry.Term && bytes.Equal(m.Entry.Data, p.entry.Data):
				p.durable = true
				s.group(p.group).proposals[p.entry.Index] = p
			case m.Err == nil || missing(m.Err):
				p.fail(fmt.Errorf("%s: apply entry: %w", s.host.PID().ID, messages.ErrCrashed))
			default:
				doubt(m.Err)
				return
			}
			s.settle(done)
		})
	})
}
