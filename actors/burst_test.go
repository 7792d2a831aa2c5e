package actors_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// recorder notes what reaches it, by sender.
type recorder struct {
	h    *actors.Host
	seen map[uint64][]uint64
	left int
	done chan struct{}
}

// other is a message that is no command.
type other struct{ sender, number uint64 }

func (r *recorder) Open() error                    { return nil }
func (r *recorder) Close() error                   { return nil }
func (r *recorder) Ready()                         {}
func (r *recorder) Drain()                         {}
func (r *recorder) Resolve(*actors.Request, error) {}
func (r *recorder) Message(msg any)                { m := msg.(other); r.note(m.sender, m.number) }

func (r *recorder) Handle(req *actors.Request) {
	c := req.Command.(messages.ReadEntry)
	r.note(c.Group, c.Index)
	r.h.Defer(c.Index%3 == 0)
	req.Fail(nil)
}

func (r *recorder) note(sender, number uint64) {
	r.seen[sender] = append(r.seen[sender], number)
	if r.left--; r.left == 0 {
		close(r.done)
	}
}

// Commands queue in the mailbox and other messages in the actor's inbox, and yet
// those of one sender arrive in their order, whether they wake the actor or not.
func TestOrderOfASender(t *testing.T) {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	const senders, each = 4, 5000
	r := &recorder{seen: make(map[uint64][]uint64), left: senders * each, done: make(chan struct{})}
	h, err := actors.Spawn(engine, actors.Config{
		Name: "order", ID: "1",
		Patient: func(c messages.Command) bool { return c.RequestTag()%2 == 0 },
		New:     func(h *actors.Host) actors.Behavior { r.h = h; return r },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for s := range uint64(senders) {
		wg.Go(func() {
			for i := range uint64(each) {
				if i%7 == s || i == each-1 { // the last one announces what was deferred
					engine.Send(h.PID(), other{s, i})
				} else {
					engine.Send(h.PID(), messages.ReadEntry{Tag: i, Group: s, Index: i})
				}
			}
		})
	}
	wg.Wait()
	<-r.done
	for s, seen := range r.seen {
		for i, n := range seen {
			if n != uint64(i) {
				t.Fatalf("sender %d: message %d came as number %d", s, n, i)
			}
		}
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// hangingStore is a disk that does not come back from a sync until it is let.
type hangingStore struct {
	*rawStore
	syncing, release chan struct{}
}

func (s *hangingStore) Sync() (int, error) {
	select {
	case s.syncing <- struct{}{}:
	default:
	}
	<-s.release
	return s.rawStore.Sync()
}

// Appends that come while a sync is under way do not wake the actor, but reads
// do, and neither is forgotten when the actor is given up meanwhile.
func TestAppendsDeferredByASync(t *testing.T) {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	asker := actors.NewAsker(engine)
	defer asker.Close()
	s := &hangingStore{newRawStore(newZeroFile(t)), make(chan struct{}, 1), make(chan struct{})}
	l, err := actors.SpawnLog(engine, actors.LogConfig{
		Config: actors.Config{Name: "hanging", ID: "log"},
		Open:   func() (raftlog.Store, error) { return s, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan error, 2)
	send := func() {
		_, err := actors.Ask[messages.Appended](t.Context(), asker, l.PID(),
			messages.Append{Entries: []messages.Entry{{Term: 1, Data: make([]byte, benchSize)}}})
		outcomes <- err
	}
	go send()
	<-s.syncing
	go send()
	for l.Status().Queued < 2 {
		if _, err := actors.Ask[messages.EntryRead](t.Context(), asker, l.PID(), messages.ReadEntry{Index: 1}); !errors.Is(err, messages.ErrNotFound) {
			t.Fatalf("a read during a sync: %v", err)
		}
	}
	l.GiveUp(fmt.Errorf("the test: %w", messages.ErrCorrupt))
	for range 2 {
		if err := <-outcomes; !errors.Is(err, messages.ErrInDoubt) && !errors.Is(err, messages.ErrUnavailable) {
			t.Errorf("an append when the actor was given up: %v", err)
		}
	}
	close(s.release)
	if err := l.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// eventLog hands on the events of an engine that a test waits for.
type eventLog struct{ events chan any }

func (e eventLog) Receive(c *actor.Context) {
	switch m := c.Message().(type) {
	case messages.Stalled, messages.StallEnded:
		e.events <- m
	}
}

// A sync that does not return is reported, reads go on, and so does everything
// when it returns after all.
func TestStalledSync(t *testing.T) {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan any, 1000)
	engine.Subscribe(engine.Spawn(func() actor.Receiver { return eventLog{events} }, "events", actor.WithID("1")))
	asker := actors.NewAsker(engine)
	defer asker.Close()
	s := &hangingStore{newRawStore(newZeroFile(t)), make(chan struct{}, 1), make(chan struct{})}
	l, err := actors.SpawnLog(engine, actors.LogConfig{
		Config: actors.Config{Name: "stalled", ID: "log", StallAfter: time.Millisecond},
		Open:   func() (raftlog.Store, error) { return s, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error, 1)
	go func() {
		_, err := actors.Ask[messages.Appended](t.Context(), asker, l.PID(),
			messages.Append{Entries: []messages.Entry{{Term: 1, Data: make([]byte, benchSize)}}})
		outcome <- err
	}()
	<-s.syncing
	for told := false; !told; { // a busy machine may hold other calls up for as long
		e, ok := (<-events).(messages.Stalled)
		told = ok && e.Actor == l.PID().ID && e.Call == "sync" && e.For >= time.Millisecond
	}
	if st := l.Statistics(); !st.Stalled || st.Stalls != 1 {
		t.Errorf("%+v", st)
	}
	if _, err := actors.Ask[messages.EntryRead](t.Context(), asker, l.PID(), messages.ReadEntry{Index: 1}); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("a read during a stall: %v", err)
	}
	if st := l.Status(); !strings.Contains(st.Stalled, "sync") || st.Stalls == 0 {
		t.Errorf("%+v", st)
	}
	refused := messages.Append{Entries: []messages.Entry{{Term: 1, Data: make([]byte, benchSize)}}}
	if _, err := actors.Ask[messages.Appended](t.Context(), asker, l.PID(), refused); !errors.Is(err, messages.ErrUnavailable) {
		t.Errorf("an append during a stall: %v", err)
	}
	close(s.release)
	if err := <-outcome; err != nil {
		t.Errorf("the append that waited: %v", err)
	}
	for ended := false; !ended; {
		e, ok := (<-events).(messages.StallEnded)
		ended = ok && e.Call == "sync"
	}
	if st := l.Statistics(); st.Stalled || st.Stalls != 1 {
		t.Errorf("%+v", st)
	}
	if err := l.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
