package actors_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// toldStalls are the events that a host has told of stalls.
type toldStalls struct {
	mu    sync.Mutex
	began []messages.Stalled
	ended []messages.StallEnded
}

func (s *toldStalls) observe(e any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := e.(type) {
	case messages.Stalled:
		s.began = append(s.began, e)
	case messages.StallEnded:
		s.ended = append(s.ended, e)
	}
}

func (s *toldStalls) counts() (began, ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.began), len(s.ended)
}

// A call that hangs is told wherever it hangs: in a lane, in the actor itself,
// while opening or closing. A long one has more time. All is well when it is back.
func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		call string
		at   time.Duration // told no earlier than this, and no later than StallAfter behind it
		hang func(h *actors.Host, r *actors.Request, wait func())
	}{
		{"sync", 2 * time.Second, func(h *actors.Host, r *actors.Request, wait func()) {
			h.Do(0, actors.Call{Name: "sync"}, func() func() { wait(); return func() { reply(r, "back") } })
		}},
		{"scrub", time.Minute, func(h *actors.Host, r *actors.Request, wait func()) {
			h.Do(3, actors.Call{Name: "scrub", Long: true}, func() func() { wait(); return func() { reply(r, "back") } })
		}},
		{"message", 2 * time.Second, func(h *actors.Host, r *actors.Request, wait func()) { wait(); reply(r, "back") }},
	} {
		t.Run(c.call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				back := make(chan struct{})
				told := &toldStalls{}
				_, h, asker := spawnScript(t, actors.Config{Observe: told.observe}, func(h *actors.Host) *script {
					return &script{handle: func(r *actors.Request) {
						if string(r.Command.(messages.Get).Key) == "hang" {
							c.hang(h, r, func() { <-back })
							return
						}
						reply(r, "ok")
					}}
				})
				defer asker.Close()
				outcome := make(chan error, 1)
				go func() { outcome <- getKey(t.Context(), asker, h.PID(), "hang") }()
				pass(c.at - time.Second)
				if n, _ := told.counts(); n != 0 || h.Status().Stalled != "" {
					t.Errorf("told after %v: %+v", c.at-time.Second, told.began)
				}
				pass(5 * time.Second)
				if n, _ := told.counts(); n == 0 {
					t.Fatal("not told")
				}
				if e := told.began[0]; e.Call != c.call || e.Actor != h.PID().ID || e.For < c.at || e.For > c.at+2*time.Second {
					t.Errorf("%+v", e)
				}
				if s := h.Status(); s.Stalled != c.call || s.Stalls != 1 {
					t.Errorf("%+v", s)
				}
				close(back)
				if err := <-outcome; err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if _, n := told.counts(); n != 1 || told.ended[0].Call != c.call || told.ended[0].For < c.at {
					t.Errorf("%+v", told.ended)
				}
				if s := h.Status(); s.Stalled != "" || s.Stalls != 1 {
					t.Errorf("%+v", s)
				}
				pass(10 * time.Minute)
				if n, _ := told.counts(); n > 5 {
					t.Errorf("told %d times of what is over", n)
				}
				if err := h.Stop(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An open and a close that hang are told as well.
func TestWatchdogOfOpenAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := &toldStalls{}
		opened, closed := make(chan struct{}), make(chan struct{})
		_, h, asker := spawnScript(t, actors.Config{Observe: told.observe}, func(*actors.Host) *script {
			return &script{open: func() error { <-opened; return nil }, close: func() { <-closed }}
		})
		defer asker.Close()
		pass(65 * time.Second)
		if s := h.Status(); s.Stalled != "open" {
			t.Errorf("%+v", s)
		}
		close(opened)
		if err := h.Opened(t.Context()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- h.Stop(t.Context()) }()
		pass(65 * time.Second)
		if s := h.Status(); s.Stalled != "close" {
			t.Errorf("%+v", s)
		}
		close(closed)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, n := told.counts(); n != 2 {
			t.Errorf("%+v", told.ended)
		}
	})
}

// The timer of an actor that has nothing to do ends, and one that is busy for
// hours, a message at a time, is not told of.
func TestWatchdogRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, timers := &toldStalls{}, 0
		var mu sync.Mutex
		cfg := actors.Config{Observe: told.observe}
		cfg.Env.After = func(d time.Duration, f func()) {
			mu.Lock()
			defer mu.Unlock()
			timers++
			time.AfterFunc(d, f)
		}
		_, h, asker := spawnScript(t, cfg, func(h *actors.Host) *script {
			return &script{handle: func(r *actors.Request) {
				h.Do(1, actors.Call{Name: "short"}, func() func() { <-time.After(1500 * time.Millisecond); return func() { reply(r, "ok") } })
			}}
		})
		defer asker.Close()
		for i := range 1000 {
			if err := getKey(t.Context(), asker, h.PID(), fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if n, _ := told.counts(); n != 0 {
			t.Errorf("told of %d calls that were not late: %+v", n, told.began[0])
		}
		pass(time.Minute)
		mu.Lock()
		before := timers
		mu.Unlock()
		pass(time.Hour)
		mu.Lock()
		if timers != before {
			t.Errorf("%d timers in an hour without a message", timers-before)
		}
		mu.Unlock()
		if err := h.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
