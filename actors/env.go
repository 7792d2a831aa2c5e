package actors

import (
	"math/rand/v2"
	"time"

	"github.com/anthdm/hollywood/actor"
)

// Env is where the actors take time, chance and the options of every process
// they spawn from. The zero value is the real world; a deterministic simulation
// supplies its own.
type Env struct {
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// After calls f once after d, in any goroutine. Default: time.AfterFunc.
	After func(d time.Duration, f func())
	// Chance returns a number in [0,1), for the jitter of backoffs. Default:
	// math/rand/v2.
	Chance func() float64
	// Middleware is put around every actor that is spawned here, outermost
	// first. Default: none.
	Middleware []actor.MiddlewareFunc
	// Burst is the most commands that an actor takes up for one message in its
	// inbox. Default 1024. A larger one keeps other messages waiting for longer,
	// a smaller one makes more senders wake the actor; a simulation sets 1, so
	// that each command is a delivery of its own.
	Burst int
}

func (e Env) withDefaults() Env {
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.After == nil {
		e.After = func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	}
	if e.Chance == nil {
		e.Chance = rand.Float64
	}
	if e.Burst == 0 {
		e.Burst = 1024
	}
	return e
}

// spawn starts a process with a fixed id, as determinism requires. The guard
// never lets a panic through to hollywood, whose fourth restart would end the
// program; the restart limit is a second net.
func (e Env) spawn(engine *actor.Engine, r actor.Receiver, kind, id string) *actor.PID {
	return engine.Spawn(func() actor.Receiver { return r }, kind,
		actor.WithID(id), actor.WithMaxRestarts(1<<30), actor.WithMiddleware(e.Middleware...))
}
