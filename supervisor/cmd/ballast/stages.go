package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// stages makes things happen while the demo writes:
//
//	settled   what                              files handed out until then
//	20 %      the log actor is crashed          at most 40 %
//	45 %      a snapshot begins                 at most 65 %
//	          and ends                          at most 85 %
//	75 %      the data actor is crashed         at most 95 %
//
// The bounds on the right keep a small tree from being through before anything
// has happened; with a large one they hold nobody up, unless the snapshot takes
// as long as 40 % of the files.
type stages struct {
	demo *demo

	mu       sync.Mutex
	problems []error
	skips    map[string]bool // keys that were left out
	up       map[string]chan time.Duration
	events   []string

	gates   [4]chan struct{}
	crashes []crashResult
	shot    snapshotResult
}

// The stages' shares, in percent.
var (
	stageAt = [3]int{20, 45, 75}
	gateAt  = [4]int{logCrashed: 40, snapshotBegun: 65, snapshotTaken: 85, dataCrashed: 95}
)

// The gates.
const (
	logCrashed = iota
	snapshotBegun
	snapshotTaken
	dataCrashed
)

func newStages(d *demo) *stages {
	s := &stages{demo: d, skips: map[string]bool{}, up: map[string]chan time.Duration{}}
	for i := range s.gates {
		s.gates[i] = make(chan struct{})
	}
	return s
}

func (s *stages) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, err)
}

func (s *stages) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.problems...)
}

func (s *stages) skipped(j *job, reason string) {
	s.demo.app.console.note("%s: skipped: %s", j.name, reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skips[string(j.key)] = true
}

// pass waits until the i-th file may be handed out.
func (s *stages) pass(ctx context.Context, i int) bool {
	for n, gate := range s.gates {
		if i < s.share(gateAt[n]) {
			break
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return false
		case <-s.demo.pool.done: // nothing is handed out any more
			return false
		}
	}
	return true
}

func (s *stages) share(percent int) int { return len(s.demo.files) * percent / 100 }

// run takes the stages one after the other.
func (s *stages) run(ctx context.Context) {
	steps := [3]func(context.Context){
		func(ctx context.Context) { s.crash(ctx, "log", logCrashed) },
		s.snapshot,
		func(ctx context.Context) { s.crash(ctx, "kv", dataCrashed) },
	}
	for i, step := range steps {
		select {
		case <-s.demo.pool.reached(s.share(stageAt[i])):
		case <-s.demo.pool.done:
		case <-ctx.Done():
		}
		if ctx.Err() == nil && s.err() == nil {
			step(ctx)
		}
	}
	for gate := range s.gates {
		s.open(gate)
	}
}

// open lets the files behind a gate be handed out.
func (s *stages) open(gate int) {
	select {
	case <-s.gates[gate]:
	default:
		close(s.gates[gate])
	}
}

// answered waits until one more file is settled, if there are more before the
// next gate: whoever opens that must not wait for what is behind it.
func (s *stages) answered(ctx context.Context) {
	settled := s.demo.pool.read().settled
	for n, gate := range s.gates {
		select {
		case <-gate:
			continue
		default:
		}
		if settled >= s.share(gateAt[n]) {
			return
		}
		break
	}
	select {
	case <-s.demo.pool.reached(settled + 1):
	case <-s.demo.pool.done:
	case <-ctx.Done():
	}
}

// crash fails an actor and waits until it is back.
func (s *stages) crash(ctx context.Context, name string, gate int) {
	s.answered(ctx) // the clients are at work, also if they had to wait before
	back := make(chan time.Duration, 1)
	s.mu.Lock()
	s.up["ballast/"+name] = back
	s.mu.Unlock()
	s.demo.pool.longestPause()
	before := s.demo.pool.read()
	r := crashResult{Actor: name, InFlight: before.inFlight, At: before.settled}
	if err := s.demo.service.Crash(name); err != nil {
		s.fail(err)
		return
	}
	s.say("crashed the %s actor on purpose, with %s under way", name, plural(r.InFlight, "proposal"))
	s.open(gate)
	t := time.NewTimer(giveUpAge)
	defer t.Stop()
	select {
	case d := <-back:
		r.Down = duration(d)
		s.say("the %s actor is back after %s", name, timeText(d))
	case <-t.C:
		s.fail(fmt.Errorf("the %s actor is not back after %v", name, giveUpAge))
	case <-ctx.Done():
	}
	// What clients notice lasts until the first of them is answered again.
	s.answered(ctx)
	r.Pause = duration(s.demo.pool.longestPause())
	s.crashes = append(s.crashes, r)
}

// snapshot takes one while writes go on.
func (s *stages) snapshot(ctx context.Context) {
	before := s.demo.pool.read().settled
	began := time.Now()
	s.say("taking a snapshot while writes go on")
	s.open(snapshotBegun)
	defer s.open(snapshotTaken)
	r, err := ask[messages.SnapshotCreated](ctx, s.demo.service, s.demo.service.Supervisor, messages.CreateSnapshot{})
	if err != nil {
		if ctx.Err() == nil {
			s.fail(fmt.Errorf("snapshot: %w", err))
		}
		return
	}
	s.shot = snapshotResult{ID: r.Info.ID, Index: r.Info.Index, RawBytes: r.Info.RawBytes, FileBytes: r.Info.FileBytes,
		Seconds: time.Since(began).Seconds(), Meanwhile: s.demo.pool.read().settled - before, LogFirst: r.LogFirst}
	s.say("snapshot at index %d: %s in %s, %s; %s written meanwhile; the log begins at %d now", r.Info.Index, bytesText(r.Info.RawBytes),
		timeText(time.Since(began)), savedText(r.Info), plural(s.shot.Meanwhile, "file"), r.LogFirst)
	if r.LogFirst != r.Info.Index+1 {
		s.fail(fmt.Errorf("the snapshot ends at %d, but the log begins at %d", r.Info.Index, r.LogFirst))
	}
}

func (s *stages) say(format string, args ...any) {
	s.demo.app.console.say("%5.1f s  %s", time.Since(s.demo.result.began).Seconds(), fmt.Sprintf(format, args...))
}

// event is called for every event of the service.
func (s *stages) event(e any) {
	switch m := e.(type) {
	case messages.ActorRecovered:
		s.mu.Lock()
		back := s.up[m.Actor]
		delete(s.up, m.Actor)
		s.mu.Unlock()
		if back != nil {
			back <- m.Down
		}
	case messages.ActorFailed:
		if !strings.Contains(m.Err.Error(), "on purpose") {
			s.say("%s failed: %v", m.Actor, m.Err)
			s.note("%s failed: %v", m.Actor, m.Err)
		}
	case messages.DamageFound:
		s.fail(fmt.Errorf("damage was found by %s: %w", m.Actor, m.Err))
	case messages.Stalled:
		s.say("the disk does not answer: %s of %s for %s", m.Call, m.Actor, timeText(m.For))
		s.note("the disk did not answer for %s", timeText(m.For))
	case messages.TailRepaired:
		s.say("a write that the crash cut short was removed: %s at offset %d of %s", plural(m.Bytes, "byte"), m.Offset, m.Path)
	case messages.DataRebuilt:
		s.say("the data is whole again: %s of the log applied", plural(m.Replayed, "entry"))
	}
}

// note keeps something unexpected for the report.
func (s *stages) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

func (s *stages) result(r *demoResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Crashes, r.Snapshot, r.Unexpected = s.crashes, s.shot, s.events
}
