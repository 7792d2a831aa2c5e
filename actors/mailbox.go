package actors

import (
	"fmt"
	"slices"
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

// Mailbox is what clients address. Its pid stays valid however often the actor
// behind it is rebuilt, and after it was stopped: commands are then answered with
// ErrStopped.
//
// Commands queue here and not in the actor's inbox. The first of a burst is sent
// there as well, to wake the actor, which then takes the whole burst: a client
// that is an actor of hollywood's runs on a fresh stack of 2 KiB, which a second
// send would outgrow, and copying it was 40 % of the processor time of 256
// clients. The queue and the inbox together keep the order of each sender.
type Mailbox struct {
	engine *actor.Engine
	pid    *actor.PID
	limits Limits
	burst  int
	// patient tells which commands may be deferred.
	patient func(messages.Command) bool
	// exempt is a sender that the limits do not apply to: the coordinator,
	// which has admitted the requests behind its commands itself.
	exempt *actor.PID

	target  atomic.Pointer[actor.PID] // the actor that handles the requests
	state   atomic.Value              // messages.ActorState
	closed  atomic.Bool               // commands are refused with ErrStopped
	refuse  atomic.Pointer[error]     // commands are refused with this error
	drained atomic.Pointer[func()]    // called once nothing is under way
	// quick answers some commands at once, while the actor serves; quickly counts
	// them. They are never under way.
	quick   atomic.Pointer[func(messages.Command) messages.Reply]
	quickly atomic.Uint64
	// admitted counts the commands that were admitted since the start.
	admitted atomic.Uint64

	mu    sync.Mutex
	first *Request // under way, oldest first
	last  *Request
	slab  []Request // allocated ahead
	// fresh are those that the actor has not taken, linked by queued.
	fresh, freshLast *Request
	group            uint64 // of the commands that are admitted now
	inGroup          int    // how many there are
	announced        bool   // a message in the inbox will have the group taken
	deferring        bool   // patient commands need not be announced
	deferred         int64  // bytes of commands that were not
	count            int
	parked           int // of them, which the limits do not count
	bytes            int64
	requests         uint64
	replies          uint64
	refused          uint64
}

func newMailbox(engine *actor.Engine, kind, id string, limits Limits, burst int) *Mailbox {
	m := &Mailbox{engine: engine, pid: actor.NewPID(engine.Address(), kind+"/"+id), limits: limits.withDefaults(), burst: burst}
	m.state.Store(messages.StateOpening)
	return m
}

// door is the process behind the pid of a mailbox. It is registered once and for
// all: the mailbox of the name's next owner takes the place of a stopped one here.
// If the name left the registry in between, a command that is sent meanwhile
// would get no answer at all.
type door struct {
	pid *actor.PID
	box atomic.Pointer[Mailbox]
}

var _ actor.Processer = (*door)(nil)

// probe asks a process whether it is a door, and which. It answers within Send.
type probe struct{ door *door }

// PID, Start, Invoke and Shutdown complete hollywood's Processer; a door has no
// queue of its own.
func (d *door) PID() *actor.PID         { return d.pid }
func (d *door) Start()                  {}
func (d *door) Invoke([]actor.Envelope) {}
func (d *door) Shutdown()               {}

// Send implements hollywood's Processer. It runs in the sender's goroutine.
func (d *door) Send(_ *actor.PID, msg any, sender *actor.PID) {
	if p, ok := msg.(*probe); ok {
		p.door = d
		return
	}
	d.box.Load().send(msg, sender)
}

// register makes the mailbox reachable under its pid, once start has made a
// process to forward to. A stopped mailbox of the same name is replaced; any
// other process there is an error.
func (m *Mailbox) register(kind, id string, start func()) error {
	taken := fmt.Errorf("actors: spawn %s: the name is taken: %w", m.pid, messages.ErrConflict)
	p := &probe{}
	if old := m.engine.Registry.GetPID(kind, id); old != nil {
		if m.engine.Send(old, p); p.door == nil {
			return taken
		}
		if old := p.door.box.Load(); !old.stopped() || !p.door.box.CompareAndSwap(old, m) {
			return taken
		}
	} else {
		d := &door{pid: m.pid}
		d.box.Store(m)
		m.engine.SpawnProc(d)
		// Of two at the same time one wins, and the other is told nothing.
		if m.engine.Send(m.pid, p); p.door != d {
			return taken
		}
	}
	m.publish()
	start()
	return nil
}

// stopped reports whether the name may have a new owner.
func (m *Mailbox) stopped() bool { return m.closed.Load() && m.target.Load() == nil }

// PID returns the address of the mailbox.
func (m *Mailbox) PID() *actor.PID { return m.pid }

// send takes what was sent to the pid, in the sender's goroutine.
func (m *Mailbox) send(msg any, sender *actor.PID) {
	switch msg := msg.(type) {
	case messages.Command:
		m.admit(msg, sender, nil)
	case jobDone, timeout, idle: // nobody's order depends on them
		m.forward(msg, sender)
	default:
		// Behind the commands that this sender has sent before, whose
		// announcement may not be in the inbox yet (with a burst of 1 it is: the
		// sender has made it), and ahead of its later ones: nobody may announce
		// the next group before msg is in the inbox.
		m.mu.Lock()
		m.nextGroup()
		if m.fresh != nil && m.burst > 1 {
			m.forward(announcement{m.group - 1}, nil)
		}
		m.forward(msg, sender)
		m.mu.Unlock()
	}
}

func (m *Mailbox) forward(msg any, sender *actor.PID) {
	if to := m.target.Load(); to != nil {
		m.engine.SendWithSender(to, msg, sender)
	}
}

// nextGroup closes the group, if it has members.
func (m *Mailbox) nextGroup() {
	if m.inGroup > 0 {
		m.group++
		m.inGroup, m.announced, m.deferred = 0, false, 0
	}
}

// join counts one more into the group and reports which that is, and whether it
// has to be announced in the inbox.
func (m *Mailbox) join(deferred int64) (group uint64, announce bool) {
	group = m.group
	m.inGroup++
	m.deferred += deferred
	if !m.announced && (deferred == 0 || m.inGroup >= min(maxDeferred, m.burst) || m.deferred >= maxDeferredBytes) {
		m.announced, announce = true, true
	}
	if m.inGroup >= m.burst {
		m.nextGroup()
	}
	return group, announce
}

// As many commands, or as many bytes, are deferred at most: what they ask for
// should be prepared while the disk is busy.
const (
	maxDeferred      = 64
	maxDeferredBytes = 16 << 10
)

// deferPatient begins or ends the time in which patient commands need not wake
// the actor.
func (m *Mailbox) deferPatient(on bool) {
	m.mu.Lock()
	m.deferring = on
	announce := !on && m.inGroup > 0 && !m.announced
	m.announced = m.announced || announce
	group := m.group
	m.mu.Unlock()
	if announce {
		m.forward(announcement{group}, nil)
	}
}

// look sends the actor a look, which takes what is admitted from now on, so that
// the senders need not wake it.
func (m *Mailbox) look(l look) {
	m.mu.Lock()
	m.nextGroup()
	l.group, _ = m.join(0)
	m.mu.Unlock()
	m.forward(l, nil)
}

// take returns the requests up to and including a group that have not been taken
// before, linked by queued.
func (m *Mailbox) take(group uint64) (first *Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.group == group {
		m.nextGroup()
	}
	first = m.fresh
	switch {
	case first == nil || first.group > group:
		return nil
	case m.freshLast.group <= group:
		m.fresh, m.freshLast = nil, nil
	default:
		last := first
		for last.queued.group <= group {
			last = last.queued
		}
		m.fresh, last.queued = last.queued, nil
	}
	return first
}

// restart forgets what was announced to an inbox that is lost. The requests
// that it held are under way. It returns how many were admitted before.
func (m *Mailbox) restart() (admitted uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fresh, m.freshLast = nil, nil
	m.deferring = false
	m.nextGroup()
	return m.admitted.Load()
}

// admit takes a command, or refuses it. The reply goes to the call if there is
// one, else to the sender.
func (m *Mailbox) admit(c messages.Command, sender *actor.PID, to *call) {
	announce := false
	bytes := int64(c.Bytes())
	m.mu.Lock()
	var r *Request
	if bytes > slabBytes { // it would be held by the others of its slab
		r = &Request{}
	} else {
		if len(m.slab) == 0 {
			m.slab = make([]Request, slabSize)
		}
		r = &m.slab[0]
		m.slab = m.slab[1:]
	}
	r.Command, r.Sender, r.call, r.box, r.bytes = c, sender, to, m, bytes
	ok := !m.closed.Load() && m.refuse.Load() == nil &&
		(m.count-m.parked < m.limits.Requests && m.bytes+r.bytes <= m.limits.Bytes || m.count == m.parked || m.isExempt(sender))
	if ok {
		m.requests++
		m.count++
		m.bytes += r.bytes
		if m.last == nil {
			m.first = r
		} else {
			m.last.next, r.prev = r, m.last
		}
		m.last = r
		if m.freshLast == nil {
			m.fresh = r
		} else {
			m.freshLast.queued = r
		}
		m.freshLast = r
		deferred := int64(0)
		if m.deferring && m.patient(c) {
			deferred = 1 + r.bytes
		}
		r.group, announce = m.join(deferred)
		m.admitted.Add(1)
	}
	m.mu.Unlock()
	switch {
	case !ok:
		m.reject(r)
	case announce:
		m.forward(r, sender)
	}
}

// slabSize is how many requests, or notes, are allocated at once: 2 KiB, which
// the last of them to be answered holds. It saves two allocations an append.
const slabSize = 16

// slabBytes is the payload up to which a request shares a slab: the last one to
// be answered then holds no more than 16 KiB of the others'.
const slabBytes = 1 << 10

func (m *Mailbox) isExempt(sender *actor.PID) bool {
	return m.exempt != nil && sender != nil && sender.Equals(m.exempt)
}

// reject answers a command that is not admitted.
func (m *Mailbox) reject(r *Request) {
	m.mu.Lock()
	m.refused++
	err := fmt.Errorf("%d commands with %d bytes are under way: %w", m.count-m.parked, m.bytes, messages.ErrOverloaded)
	m.mu.Unlock()
	if m.closed.Load() {
		err = messages.ErrStopped
	} else if refuse := m.refuse.Load(); refuse != nil {
		err = *refuse
	}
	m.answer(r, r.Command.Refuse(fmt.Errorf("%s: %w", m.pid.ID, err)))
}

func (m *Mailbox) answer(r *Request, reply messages.Reply) {
	switch {
	case r.call != nil:
		r.call.reply <- reply
	case r.Sender != nil:
		m.engine.SendWithSender(r.Sender, reply, m.pid)
	}
}

// release takes an answered request out of the books.
func (m *Mailbox) release(r *Request) {
	m.mu.Lock()
	m.unlink(r)
	empty := m.count == 0
	m.mu.Unlock()
	if empty {
		m.empty()
	}
}

func (m *Mailbox) empty() {
	if f := m.drained.Load(); f != nil {
		(*f)()
	}
}

func (m *Mailbox) unlink(r *Request) {
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
	if r.parked {
		m.parked--
	}
	m.bytes -= r.bytes
	m.replies++
}

// replyAll answers requests of one mailbox in their order. The books are closed
// for all of them at once, before the first reply is sent. It overwrites batch.
func replyAll(batch []*Request, reply func(*Request) messages.Reply) {
	// All of them before the first is taken out of the books: after a panic here
	// every one can still be answered.
	replies := make([]messages.Reply, len(batch))
	for i, r := range batch {
		replies[i] = reply(r)
	}
	mine := batch[:0]
	for i, r := range batch {
		if r.answered.CompareAndSwap(false, true) {
			replies[len(mine)] = replies[i]
			mine = append(mine, r)
		}
	}
	if len(mine) == 0 {
		return
	}
	m := mine[0].box
	empty := false
	for part := range slices.Chunk(mine, 256) { // so that no sender waits for long
		m.mu.Lock()
		for _, r := range part {
			m.unlink(r)
		}
		empty = m.count == 0
		m.mu.Unlock()
	}
	for i, r := range mine {
		m.answer(r, replies[i])
	}
	if empty {
		m.empty()
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

	call       *call // an Ask
	box        *Mailbox
	prev, next *Request // under way
	queued     *Request // not taken
	group      uint64
	bytes      int64
	parked     bool // guarded by the mailbox
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
		r.box.answer(r, reply)
	}
}

// begin claims the request. It reports false if it was claimed before.
func (r *Request) begin() bool { return !r.Answered() && r.claimed.CompareAndSwap(false, true) }

func (r *Request) begun() bool { return r.claimed.Load() }

// Fail answers the request with an error.
func (r *Request) Fail(err error) { r.Reply(r.Command.Refuse(err)) }

// Park takes the request out of what Limits.Requests counts: it waits for
// something to happen, for as long as that takes, and costs the actor nothing.
// There must be another bound on how many do.
func (r *Request) Park() {
	m := r.box
	m.mu.Lock()
	defer m.mu.Unlock()
	if under := r.prev != nil || m.first == r; under && !r.parked {
		r.parked = true
		m.parked++
	}
}

// Keep tells the host, in Resolve, that the request will be answered later.
func (r *Request) Keep() { r.kept = true }

// Answered reports whether a reply has been sent.
func (r *Request) Answered() bool { return r.answered.Load() }
