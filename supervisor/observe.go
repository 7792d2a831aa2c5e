package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// observer counts what happens, and logs it, before it is broadcast. It outlives
// every actor of the service. Nothing that happens for a command that succeeds is
// an event, so it is on nobody's way.
type observer struct {
	engine *actor.Engine
	logger *slog.Logger
	name   string

	mu     sync.Mutex
	counts map[string]uint64
}

func newObserver(engine *actor.Engine, cfg Config) *observer {
	return &observer{engine: engine, logger: cfg.Logger, name: cfg.Name, counts: make(map[string]uint64)}
}

// observe is called with every event, by whoever it happens to.
func (o *observer) observe(e any) {
	o.mu.Lock()
	o.counts[strings.TrimPrefix(fmt.Sprintf("%T", e), "messages.")]++
	o.mu.Unlock()
	if o.logger == nil {
		return
	}
	if l, ok := e.(actor.EventLogger); ok {
		level, text, attributes := l.Log()
		o.logger.Log(context.Background(), level, text, append(attributes, "service", o.name)...)
	}
}

// broadcast observes an event and tells the engine's subscribers.
func (o *observer) broadcast(e any) {
	o.observe(e)
	o.engine.BroadcastEvent(e)
}

func (o *observer) events() map[string]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.counts)
}

// Statistics are what a service can say about itself at any moment, without asking
// an actor, so also when one hangs.
type Statistics struct {
	// Actors are supervisor, kv, snapshot and log.
	Actors    []messages.ActorStatus
	Log       messages.LogStatistics
	KV        messages.KVStatistics
	Snapshots messages.SnapshotStatistics
	// Withheld are the groups whose application data is not served, and why.
	Withheld map[uint64]error
	// Events counts what has happened, by the name of the event.
	Events map[string]uint64
}

// Statistics is safe for concurrent use, also after Stop.
func (s *Storage) Statistics() Statistics {
	st := Statistics{Log: s.parts.log.Statistics(), KV: s.parts.kv.Statistics(), Snapshots: s.parts.snapshot.Statistics(),
		Withheld: s.parts.kv.Withheld(), Events: s.observer.events()}
	for _, h := range s.hosts() {
		st.Actors = append(st.Actors, h.Status())
	}
	return st
}

// Problem is one reason why a service is not all that it should be.
type Problem struct {
	// Actor is "log", "snapshot", "kv" or "supervisor".
	Actor string `json:"actor"`
	// Group is set if it concerns one group alone.
	Group  *uint64 `json:"group,omitempty"`
	Reason string  `json:"reason"`
}

// Health lists what is wrong at the moment: an actor that is not serving, a call
// to the disk that hangs, a full disk, a group that is withheld. It is empty if all
// is well. Like Statistics it asks no actor.
func (s *Storage) Health() []Problem { return s.Statistics().Problems() }

// Problems are those that Health lists.
func (st Statistics) Problems() (all []Problem) {
	for _, a := range st.Actors {
		switch a.State {
		case messages.StateServing:
		case messages.StateBackoff, messages.StateUnavailable:
			all = append(all, Problem{Actor: a.Name, Reason: fmt.Sprintf("%s: %s", a.State, a.LastFailure)})
		default:
			all = append(all, Problem{Actor: a.Name, Reason: string(a.State)})
		}
		if a.Stalled != "" {
			all = append(all, Problem{Actor: a.Name, Reason: "the disk does not answer: " + a.Stalled})
		}
		if a.DiskFull {
			all = append(all, Problem{Actor: a.Name, Reason: "the disk is full"})
		}
	}
	for _, group := range slices.Sorted(maps.Keys(st.Withheld)) {
		all = append(all, Problem{Actor: kvDir, Group: &group, Reason: st.Withheld[group].Error()})
	}
	return all
}
