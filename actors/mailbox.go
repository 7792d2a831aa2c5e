package actors

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Limits bound what an actor has accepted and not answered yet. Hollywood's own
// inboxes have no bound and never shrink.
type Limits struct {
	// Requests is the most commands under way. Default 65,536. Each costs
	// about 300 bytes besides its payload.
	Requests int
	// Bytes is the most payload under way. Default 256 MiB. A single command
	// that is larger is accepted when nothing else is under way.
	Bytes int64
}

// Validate reports every field that makes no sense.
func (l Limits) Validate() error {
	if l.Requests < 0 || l.Bytes < 0 {
		return fmt.Errorf("Limits are negative (%d requests, %d bytes): %w", l.Requests, l.Bytes, messages.ErrInvalid)
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	if l.Requests == 0 {
		l.Requests = 65536
	}
	if l.Bytes == 0 {
		l.Bytes = 256 << 20
	}
	return l
}

// Mailbox is the process that clients address. Its pid stays valid however
// often the actor behind it is rebuilt, and after it was stopped: commands are
// then answered with ErrStopped.
//
// It implements hollywood's Processer; Send runs in the sender's goroutine.
type Mailbox struct {
	engine *actor.Engine
	pid    *actor.PID
	limits Limits
	// exempt is a sender that the limits do not apply to: the coordinator,
	// which has admitted the requests behind its commands itself.
	exempt *actor.PID

	target  atomic.Pointer[actor.PID] // the actor that handles the requests
	state   atomic.Value              // messages.ActorState
	closed  atomic.Bool               // commands are refused with ErrStopped
	refuse  atomic.Pointer[error]     // commands are refused with this error
	drained atomic.Pointer[func()]    // called once nothing is under way

	mu       sync.Mutex
	first    *Request // under way, oldest first
	last     *Request
	count    int
	bytes    int64
	requests uint64
	replies  uint64
	refused  uint64
}

var _ actor.Processer = (*Mailbox)(nil)

func newMailbox(engine *actor.Engine, kind, id string, limits Limits) *Mailbox {
	m := &Mailbox{engine: engine, pid: actor.NewPID(engine.Address(), kind+"/"+id), limits: limits.withDefaults()}
	m.state.Store(messages.StateOpening)
	return m
}

// probe asks a process whether it is a mailbox, which, and whether it has been
// stopped. A mailbox answers within Send.
type probe struct {
	box     *Mailbox
	stopped bool
}

// register makes the mailbox reachable under its pid, once start has made a
// process to forward to. A stopped mailbox of the same name is replaced; any
// other process there is an error.
func (m *Mailbox) register(kind, id string, start func()) error {
	if old := m.engine.Registry.GetPID(kind, id); old != nil {
		p := &probe{}
		m.engine.Send(old, p)
		if !p.stopped {
			return fmt.Errorf("actors: spawn %s: the name is taken: %w", m.pid, messages.ErrConflict)
		}
		m.engine.Registry.Remove(old)
	}
	m.engine.SpawnProc(m)
	// Of two at the same time one wins, and the other is told nothing.
	p := &probe{}
	if m.engine.Send(m.pid, p); p.box != m {
		return fmt.Errorf("actors: spawn %s: the name is taken: %w", m.pid, messages.ErrConflict)
	}
	start()
	return nil
}

// PID returns the address of the mailbox.
func (m *Mailbox) PID() *actor.PID { return m.pid }

// Start, Invoke and Shutdown complete hollywood's Processer; a mailbox has no
// queue of its own.
func (m *Mailbox) Start()                  {}
func (m *Mailbox) Invoke([]actor.Envelope) {}
func (m *Mailbox) Shutdown()               {}

// Send implements hollywood's Processer.
func (m *Mailbox) Send(_ *actor.PID, msg any, sender *actor.PID) {
	switch msg := msg.(type) {
	case messages.Command:
		m.admit(msg, sender)
	case *probe:
		msg.box = m
		msg.stopped = m.closed.Load() && m.target.Load() == nil
	default:
		if to := m.target.Load(); to != nil {
			m.engine.SendWithSender(to, msg, sender)
		}
	}
}

func (m *Mailbox) admit(c messages.Command, sender *actor.PID) {
	r := &Request{Command: c, Sender: sender, box: m, bytes: int64(c.Bytes())}
	m.mu.Lock()
	var err error
	switch {
	case m.closed.Load():
		err = messages.ErrStopped
	case m.refuse.Load() != nil:
		err = *m.refuse.Load()
	case m.exempt != nil && sender != nil && sender.Equals(m.exempt):
	case m.count >= m.limits.Requests || m.count > 0 && m.bytes+r.bytes > m.limits.Bytes:
		err = fmt.Errorf("%d commands with %d bytes are under way: %w", m.count, m.bytes, messages.ErrOverloaded)
	}
	if err != nil {
		m.refused++
		m.mu.Unlock()
		m.answer(sender, c.Refuse(fmt.Errorf("%s: %w", m.pid.ID, err)))
		return
	}
	m.requests++
	m.count++
	m.bytes += r.bytes
	if m.last == nil {
		m.first = r
	} else {
		m.last.next, r.prev = r, m.last
	}
	m.last = r
	m.mu.Unlock()
	m.engine.SendWithSender(m.target.Load(), r, sender)
}

func (m *Mailbox) answer(to *actor.PID, reply messages.Reply) {
	if to != nil {
		m.engine.SendWithSender(to, reply, m.pid)
	}
}

// release takes an answered request out of the books.
func (m *Mailbox) release(r *Request) {
	m.mu.Lock()
	if r.prev == nil {
		m.first = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		m.last = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
	m.count--
	m.bytes -= r.bytes
	m.replies++
	empty := m.count == 0
	m.mu.Unlock()
	if empty {
		if f := m.drained.Load(); f != nil {
			(*f)()
		}
	}
}

// underWay lists the requests that have not been answered, oldest first.
func (m *Mailbox) underWay() []*Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*Request, 0, m.count)
	for r := m.first; r != nil; r = r.next {
		all = append(all, r)
	}
	return all
}

// Request is a command that a mailbox has admitted. It is answered exactly
// once, by whoever answers first; later answers are dropped, so that a worker
// that comes back after its actor was rebuilt can do no harm.
type Request struct {
	Command messages.Command
	// Sender gets the reply. It is nil if the command was sent from outside of
	// an actor without one.
	Sender *actor.PID
	// Note is for the Behavior, to find again after a crash what it had begun.
	Note any

	box        *Mailbox
	prev, next *Request
	bytes      int64
	answered   atomic.Bool
	// claimed: it was dispatched, or Stop has refused it; whoever comes first.
	claimed atomic.Bool
	// received, kept, incarnation and resolved belong to the host.
	received    bool
	kept        bool
	incarnation uint64
	resolved    int
}

// Reply answers the request.
func (r *Request) Reply(reply messages.Reply) {
	if r.answered.CompareAndSwap(false, true) {
		r.box.release(r)
		r.box.answer(r.Sender, reply)
	}
}

// begin claims the request. It reports false if it was claimed before.
func (r *Request) begin() bool { return !r.Answered() && r.claimed.CompareAndSwap(false, true) }

func (r *Request) begun() bool { return r.claimed.Load() }

// Fail answers the request with an error.
func (r *Request) Fail(err error) { r.Reply(r.Command.Refuse(err)) }

// Keep tells the host, in Resolve, that the request will be answered later.
func (r *Request) Keep() { r.kept = true }

// Answered reports whether a reply has been sent.
func (r *Request) Answered() bool { return r.answered.Load() }
