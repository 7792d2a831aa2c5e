package actors

import (
	"fmt"
	"runtime/debug"

	"github.com/anthdm/hollywood/actor"
)

// worker runs the calls that wait for the disk, one at a time, in order.
type worker struct {
	lane *lane
	host *Host
}

// job is one call. done runs afterwards in the actor that asked for it, unless
// it has been rebuilt in the meantime.
type job struct {
	incarnation uint64
	to          *actor.PID
	call        Call
	work        func() (done func())
}

type jobDone struct {
	incarnation uint64
	done        func()
	err         error // the work panicked
}

// PanicError is a panic that was caught in an actor or in its worker.
type PanicError struct {
	Value any
	Stack []byte
}

// Error says what the panic said.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

func (w worker) Receive(c *actor.Context) {
	if j, ok := c.Message().(job); ok {
		deepen()
		w.lane.begin(j.call, w.host.env.Now())
		d := j.run()
		w.lane.end(&w.host.watch)
		c.Send(j.to, d)
	}
}

func (j job) run() (d jobDone) {
	d.incarnation = j.incarnation
	defer func() {
		if v := recover(); v != nil {
			d.done = nil
			if p, ok := v.(*PanicError); ok { // caught before, and passed on
				d.err = p
			} else {
				d.err = &PanicError{v, debug.Stack()}
			}
		}
	}()
	d.done = j.work()
	return d
}
