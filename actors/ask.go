package actors

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Asker receives the replies to Ask. One serves any number of goroutines and
// any number of services in an engine.
//
// A mailbox of the asker's own engine is handed the command, and hands back the
// reply, without a look into the engine's registry: that and the tag's table
// were a third of what an Ask cost. Any other process is sent a message.
//
// Hollywood's own Request draws a random id of 31 bits for each call and
// delivers to the wrong caller when two collide; an Asker counts.
type Asker struct {
	engine *actor.Engine
	pid    *actor.PID
	closed atomic.Bool
	tag    atomic.Uint64
	shards [askShards]askShard
	// The asker's own, not the package's: channels made in one bubble of
	// testing/synctest must not be met in another.
	calls sync.Pool
	// The only one that is kept: each holds a whole actor with its store, and a
	// stopped one may never be asked again.
	last atomic.Pointer[Mailbox] // that was asked
}

// call is where one Ask waits. The channel has room for its one reply.
type call struct{ reply chan messages.Reply }

const askShards = 16

type askShard struct {
	mu      sync.Mutex
	waiting map[uint64]*call
}

var _ actor.Processer = (*Asker)(nil)

var askers atomic.Uint64

// NewAsker registers an asker with the engine. Close it when it is no longer
// needed.
func NewAsker(engine *actor.Engine) *Asker {
	a := &Asker{engine: engine, pid: actor.NewPID(engine.Address(), fmt.Sprintf("ballast-asker/%d", askers.Add(1)))}
	for i := range a.shards {
		a.shards[i].waiting = make(map[uint64]*call)
	}
	a.calls.New = func() any { return &call{make(chan messages.Reply, 1)} }
	engine.SpawnProc(a)
	return a
}

// Close takes the asker out of the engine. Calls that are under way end with
// their replies or their contexts; those to another engine, whose replies no
// longer arrive, with ErrInDoubt.
func (a *Asker) Close() {
	a.closed.Store(true)
	a.engine.Registry.Remove(a.pid)
	for i := range a.shards {
		s := &a.shards[i]
		s.mu.Lock()
		for _, c := range s.waiting {
			close(c.reply)
		}
		s.waiting = nil
		s.mu.Unlock()
	}
}

// PID, Start, Invoke, Shutdown and Send implement hollywood's Processer.
func (a *Asker) PID() *actor.PID { return a.pid }

// Start does nothing: an asker has no queue.
func (a *Asker) Start() {}

// Invoke does nothing: an asker has no queue.
func (a *Asker) Invoke([]actor.Envelope) {}

// Shutdown does nothing: an asker has no queue.
func (a *Asker) Shutdown() {}

// Send takes a reply. One that nobody waits for any more is dropped: its caller
// has been told that the context ended.
func (a *Asker) Send(_ *actor.PID, msg any, _ *actor.PID) {
	r, ok := msg.(messages.Reply)
	if !ok {
		return
	}
	if c := a.forget(r.ReplyTag()); c != nil {
		c.reply <- r
	}
}

// expect has the reply with this tag delivered to c. It reports false if the
// asker is closed.
func (a *Asker) expect(tag uint64, c *call) bool {
	s := &a.shards[tag%askShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		return false
	}
	s.waiting[tag] = c
	return true
}

func (a *Asker) forget(tag uint64) *call {
	s := &a.shards[tag%askShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.waiting[tag]
	delete(s.waiting, tag)
	return c
}

// Ask sends a command and waits for its reply. The command's Tag may be
// replaced. The error is the reply's Err, or the context's if that ends first;
// the command may be carried out all the same then. A pid that does not exist
// is ErrUnavailable at once.
//
// A read of application data may be answered at once, ahead of commands that were
// sent and have not been answered yet.
//
// The reply type is named at the call:
//
//	got, err := actors.Ask[messages.Got](ctx, asker, pid, messages.Get{Key: key})
func Ask[R messages.Reply](ctx context.Context, a *Asker, pid *actor.PID, c messages.Command) (R, error) {
	if m := a.mailbox(pid); m != nil && !a.closed.Load() {
		if reply := m.atOnce(c); reply != nil {
			return typed[R](pid, c, reply)
		}
	}
	p, err := a.post(pid, c)
	if err != nil {
		var none R
		return none, err
	}
	return await[R](ctx, p)
}

// typed is the reply as the type that the caller has named.
func typed[R messages.Reply](pid *actor.PID, c messages.Command, r messages.Reply) (R, error) {
	reply, ok := r.(R)
	if !ok {
		return reply, fmt.Errorf("ask %v: %T is answered by %T, not %T: %w", pid, c, r, reply, messages.ErrInvalid)
	}
	return reply, reply.Failure()
}

// posted is a command that was sent and whose reply was not taken yet.
type posted struct {
	asker *Asker
	pid   *actor.PID
	what  messages.Command
	call  *call
	tag   uint64 // zero if a mailbox was handed the call
}

// post sends a command without waiting for its reply. Commands that a goroutine
// posts to one pid arrive in order.
func (a *Asker) post(pid *actor.PID, c messages.Command) (p posted, err error) {
	if a.closed.Load() {
		return p, fmt.Errorf("ask %v: the asker is closed: %w", pid, messages.ErrStopped)
	}
	p = posted{asker: a, pid: pid, what: c, call: a.calls.Get().(*call)}
	if m := a.mailbox(pid); m != nil {
		m.admit(c, a.pid, p.call)
		return p, nil
	}
	if !a.exists(pid) {
		return p, fmt.Errorf("ask %v: no such process: %w", pid, messages.ErrUnavailable)
	}
	if p.tag = a.tag.Add(1); !a.expect(p.tag, p.call) {
		return p, fmt.Errorf("ask %v: the asker is closed: %w", pid, messages.ErrStopped)
	}
	a.engine.SendWithSender(pid, c.WithTag(p.tag), a.pid)
	return p, nil
}

// await takes the reply to a command that was posted, once.
func await[R messages.Reply](ctx context.Context, p posted) (R, error) {
	var none R
	r, ok := p.call.wait(ctx)
	if !ok {
		if p.tag != 0 {
			p.asker.forget(p.tag)
		}
		// The reply may be on its way: this call is not used again.
		return none, fmt.Errorf("ask %v: %T: %w", p.pid, p.what, ctx.Err())
	}
	if r == nil {
		return none, fmt.Errorf("ask %v: %T: the asker was closed: %w", p.pid, p.what, messages.ErrInDoubt)
	}
	p.asker.calls.Put(p.call)
	return typed[R](p.pid, p.what, r)
}

// wait reports false if the context ends first.
func (c *call) wait(ctx context.Context) (messages.Reply, bool) {
	done := ctx.Done()
	if done == nil {
		return <-c.reply, true
	}
	select {
	case r := <-c.reply:
		return r, true
	case <-done:
		return nil, false
	}
}

// mailboxes finds the mailbox of a pid that a Host has given out. It keeps none
// of them alive.
var mailboxes sync.Map // *actor.PID to weak.Pointer[Mailbox]

// publish lets askers find the mailbox.
func (m *Mailbox) publish() {
	mailboxes.Store(m.pid, weak.Make(m))
	runtime.AddCleanup(m, func(pid *actor.PID) { mailboxes.Delete(pid) }, m.pid)
}

// mailbox returns the running mailbox behind a pid, or nil. A stopped one is
// asked through the engine, because its name may have a new owner.
func (a *Asker) mailbox(pid *actor.PID) *Mailbox {
	m := a.last.Load()
	if m == nil || m.pid != pid {
		if m = a.find(pid); m == nil {
			return nil
		}
		a.last.Store(m)
	}
	if m.closed.Load() {
		a.last.CompareAndSwap(m, nil)
		return nil
	}
	return m
}

func (a *Asker) find(pid *actor.PID) *Mailbox {
	p, ok := mailboxes.Load(pid)
	if !ok {
		return nil
	}
	m := p.(weak.Pointer[Mailbox]).Value()
	if m == nil || m.engine != a.engine || m.closed.Load() {
		return nil
	}
	return m
}

func (a *Asker) exists(pid *actor.PID) bool {
	if pid == nil {
		return false
	}
	if pid.Address != a.engine.Address() {
		return true // another engine's; only that one knows
	}
	i := strings.LastIndexByte(pid.ID, '/')
	return i > 0 && a.engine.Registry.GetPID(pid.ID[:i], pid.ID[i+1:]) != nil
}
