package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

// service is the storage service in an engine of its own.
type service struct {
	*supervisor.Storage
	engine *actor.Engine
}

// openService starts the service on cfg.Dir. watch, if it is not nil, is told of
// every event from the beginning.
func openService(ctx context.Context, cfg supervisor.Config, watch func(event any)) (*service, error) {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		return nil, fmt.Errorf("start the actor engine: %w", err)
	}
	if watch != nil {
		subscribe(engine, watch)
	}
	s, err := supervisor.SpawnContext(ctx, engine, cfg)
	if err != nil {
		return nil, err
	}
	return &service{s, engine}, nil
}

// subscribe spawns the one actor that is told of the engine's events. It lives
// as long as the engine: hollywood never forgets a subscriber that is gone.
func subscribe(engine *actor.Engine, watch func(event any)) {
	engine.Subscribe(engine.SpawnFunc(func(c *actor.Context) {
		switch m := c.Message().(type) {
		case messages.ActorFailed, messages.ActorRecovered, messages.TailRepaired, messages.DamageFound,
			messages.DataRebuilt, messages.SnapshotTaken, messages.LogCompacted, messages.LogCut, messages.Stalled, messages.StallEnded:
			watch(m)
		}
	}, "watch", actor.WithID("events"), actor.WithMaxRestarts(1<<30)))
}

// stopTimeout bounds how long a service may take to finish what is under way.
const stopTimeout = 30 * time.Second

// close ends the service, also when the user does not want to wait for anything
// else.
func (s *service) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return s.Stop(ctx)
}

// with opens the service on an existing directory, calls f and closes it.
func (a *app) with(ctx context.Context, cfg supervisor.Config, f func(*service) error) (err error) {
	if err := existing(cfg.Dir); err != nil {
		return err
	}
	stop := every(redraw, func() { a.console.progress("opening " + cfg.Dir + ": checking the log, catching up") })
	s, err := openService(ctx, cfg, nil)
	stop()
	a.console.clear()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return f(s)
}

// redraw is how often progress is shown.
const redraw = 200 * time.Millisecond

// Waits between two attempts, and how long attempts are made at all.
const (
	minRetry  = 5 * time.Millisecond
	maxRetry  = 500 * time.Millisecond
	giveUpAge = 60 * time.Second
)

// tryAgain reports whether the same command may well succeed in a moment: an
// index is built while it is waited for. All that is proposed here can be
// proposed twice, so a doubt is a reason too.
func tryAgain(err error) bool {
	return errors.Is(err, messages.ErrOverloaded) || errors.Is(err, messages.ErrUnavailable) ||
		errors.Is(err, messages.ErrCrashed) || errors.Is(err, messages.ErrNotReady) || errors.Is(err, messages.ErrInDoubt)
}

// ask is actors.Ask that tries again.
func ask[R messages.Reply](ctx context.Context, s *service, to *actor.PID, c messages.Command) (R, error) {
	began := time.Now()
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		r, err := actors.Ask[R](ctx, s.Asker(), to, c)
		if err == nil || !tryAgain(err) || time.Since(began) > giveUpAge {
			return r, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return r, err
		}
	}
}

// createIndex proposes an index through the log. One that is there already with
// the same definition is fine.
func (s *service) createIndex(ctx context.Context, def messages.IndexDefinition) error {
	r, err := ask[messages.EntryApplied](ctx, s, s.Supervisor, messages.ApplyEntry{Operation: messages.CreateIndexOperation(def)})
	if err == nil && !errors.Is(r.Result.Err, messages.ErrResultLost) {
		err = r.Result.Err
	}
	if err != nil {
		return fmt.Errorf("create index %q: %w", def.Name, err)
	}
	return nil
}
