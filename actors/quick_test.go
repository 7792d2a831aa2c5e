package actors_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// cachedStore has entries 1 to 9 of every group in a cache of its own, and
// panics at 5. The others are read from the log below it.
type cachedStore struct{ raftlog.Store }

func (cachedStore) CachedEntry(group, index uint64) (messages.Entry, bool) {
	if index == 5 {
		panic("the cache")
	}
	return messages.Entry{Index: index, Data: []byte("cached")}, index < 10
}

// An entry that needs no disk is answered without the actor, but only
// while that serves, and never in a simulation.
func TestQuickReads(t *testing.T) {
	for _, burst := range []int{0, 1} {
		t.Run(fmt.Sprintf("Burst %d", burst), func(t *testing.T) {
			r := newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
				l, err := actors.SpawnLog(engine, actors.LogConfig{
					Config: actors.Config{Name: "quick", ID: "log", Env: actors.Env{Burst: burst}},
					Open: func() (raftlog.Store, error) {
						w, err := raftlog.Open(r.dir, raftlog.Options{Disk: r.disk})
						return cachedStore{w}, err
					},
				})
				return l.Host, err
			})
			read := func(index uint64) (string, error) {
				e, err := do[messages.EntryRead](r, messages.ReadEntry{Tag: 3, Group: 7, Index: index})
				if err == nil && (e.Tag != 3 && burst == 0 || e.Group != 7 || e.Entry.Index != index) {
					t.Errorf("read %d: %+v", index, e)
				}
				return string(e.Entry.Data), err
			}
			must[messages.Appended](r, messages.Append{Group: 7, Entries: entries(1, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")})
			quick := "cached"
			if burst == 1 {
				quick = "4"
			}
			// Those that the cache does not have, or panics at, go through the actor.
			for index, want := range map[uint64]string{4: quick, 5: "5", 10: "10"} {
				if got, err := read(index); err != nil || got != want {
					t.Errorf("read %d: %q, %v, want %q", index, got, err, want)
				}
			}
			if _, err := read(11); !errors.Is(err, messages.ErrNotFound) {
				t.Errorf("read 11: %v", err)
			}
			if s := r.host.Status(); s.Requests != 5 || s.Replies != 5 || s.Failures != 0 {
				t.Errorf("%+v", s)
			}
			// While the actor does not serve, nothing is answered beside it.
			r.host.GiveUp(errors.New("the test"))
			for end := time.Now().Add(10 * time.Second); r.host.Status().State != messages.StateUnavailable; runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatal("it was not given up")
				}
			}
			if got, err := read(4); !errors.Is(err, messages.ErrUnavailable) {
				t.Errorf("a read from an actor that was given up: %q, %v", got, err)
			}
			r.close()
			if got, err := read(4); !errors.Is(err, messages.ErrStopped) {
				t.Errorf("a read from an actor that was stopped: %q, %v", got, err)
			}
		})
	}
}
