package sim

import (
	"fmt"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Ask sends a command from the driver and waits for its reply, as actors.Ask
// does outside of a simulation. It goes through an actor of the World, so that
// the driver goes on only when that delivery is over: an Asker's caller would
// run beside the rest of the step that answered it, in an order that differs
// from run to run.
func Ask[R messages.Reply](w *World, to *actor.PID, c messages.Command) (R, error) {
	var none R
	a := &question{to: to, command: c, answer: make(chan messages.Reply, 1)}
	w.mu.Lock()
	w.asked++
	id := fmt.Sprint(w.asked)
	w.mu.Unlock()
	pid := w.Spawn(a, "ask", id)
	defer w.engine.Registry.Remove(pid)
	reply, ok := (<-a.answer).(R)
	if !ok {
		return none, fmt.Errorf("sim: ask %v: %T is not answered by %T: %w", to, c, none, messages.ErrInvalid)
	}
	return reply, reply.Failure()
}

// question is an actor that asks once.
type question struct {
	to      *actor.PID
	command messages.Command
	answer  chan messages.Reply
}

func (q *question) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case actor.Started:
		c.Send(q.to, q.command)
	case messages.Reply:
		q.answer <- m
	}
}
