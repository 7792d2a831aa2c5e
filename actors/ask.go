package actors

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Asker receives the replies to Ask. One serves any number of goroutines and
// any number of services in an engine.
//
// Hollywood's own Request draws a random id of 31 bits for each call and
// delivers to the wrong caller when two collide; an Asker counts.
type Asker struct {
	engine *actor.Engine
	pid    *actor.PID
	tag    atomic.Uint64
	shards [askShards]askShard
}

const askShards = 16

type askShard struct {
	mu      sync.Mutex
	waiting map[uint64]chan messages.Reply
}

var _ actor.Processer = (*Asker)(nil)

var askers atomic.Uint64

// NewAsker registers an asker with the engine. Close it when it is no longer
// needed.
func NewAsker(engine *actor.Engine) *Asker {
	a := &Asker{engine: engine, pid: actor.NewPID(engine.Address(), fmt.Sprintf("ballast-asker/%d", askers.Add(1)))}
	for i := range a.shards {
		a.shards[i].waiting = make(map[uint64]chan messages.Reply)
	}
	engine.SpawnProc(a)
	return a
}

// Close takes the asker out of the engine. Calls that are under way end with
// their contexts.
func (a *Asker) Close() {
	a.engine.Registry.Remove(a.pid)
	for i := range a.shards {
		s := &a.shards[i]
		s.mu.Lock()
		for _, ch := range s.waiting {
			close(ch)
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
	s := &a.shards[r.ReplyTag()%askShards]
	s.mu.Lock()
	ch := s.waiting[r.ReplyTag()]
	delete(s.waiting, r.ReplyTag())
	s.mu.Unlock()
	if ch != nil {
		ch <- r
	}
}

// Ask sends a command and waits for its reply. The command's Tag is replaced.
// The error is the reply's Err, or the context's if that ends first; the
// command may be carried out all the same then. A pid that does not exist is
// ErrUnavailable at once.
//
// The reply type is named at the call:
//
//	got, err := actors.Ask[messages.Got](ctx, asker, pid, messages.Get{Key: key})
func Ask[R messages.Reply](ctx context.Context, a *Asker, pid *actor.PID, c messages.Command) (R, error) {
	var none R
	if !a.exists(pid) {
		return none, fmt.Errorf("ask %v: no such process: %w", pid, messages.ErrUnavailable)
	}
	tag := a.tag.Add(1)
	ch := make(chan messages.Reply, 1)
	s := &a.shards[tag%askShards]
	s.mu.Lock()
	if s.waiting == nil {
		s.mu.Unlock()
		return none, fmt.Errorf("ask %v: the asker is closed: %w", pid, messages.ErrStopped)
	}
	s.waiting[tag] = ch
	s.mu.Unlock()
	a.engine.SendWithSender(pid, c.WithTag(tag), a.pid)
	select {
	case r, open := <-ch:
		if !open {
			return none, fmt.Errorf("ask %v: %T: the asker was closed: %w", pid, c, messages.ErrInDoubt)
		}
		reply, ok := r.(R)
		if !ok {
			return none, fmt.Errorf("ask %v: %T is answered by %T, not %T: %w", pid, c, r, none, messages.ErrInvalid)
		}
		return reply, reply.Failure()
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.waiting, tag)
		s.mu.Unlock()
		return none, fmt.Errorf("ask %v: %T: %w", pid, c, ctx.Err())
	}
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
