package actors

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// A message holds whole revisions, as many as fit, and at least one.
func TestFit(t *testing.T) {
	for name, c := range map[string]struct {
		revisions []uint64 // of changes with keys of 100 bytes
		maxBytes  int
		want      int
	}{
		"one":                        {[]uint64{1}, 1000, 1},
		"all":                        {[]uint64{1, 2, 3}, 3 * (100 + messages.WatchEventBytes), 3},
		"a byte too few":             {[]uint64{1, 2, 3}, 3*(100+messages.WatchEventBytes) - 1, 2},
		"nothing fits":               {[]uint64{1, 2, 3}, 1, 1},
		"a large revision first":     {[]uint64{1, 1, 1, 1, 2}, 500, 4},
		"a large revision later":     {[]uint64{1, 2, 2, 2, 2}, 500, 1},
		"a revision over the border": {[]uint64{1, 2, 2, 3}, 2*(100+messages.WatchEventBytes) + 1, 1},
	} {
		var out []*kv.Mutation
		for _, revision := range c.revisions {
			out = append(out, &kv.Mutation{Revision: revision, Key: strings.Repeat("k", 100)})
		}
		w := &watch{maxBytes: c.maxBytes}
		if got := w.fit(out); got != c.want {
			t.Errorf("%s: %d of %d, want %d", name, got, len(out), c.want)
		}
	}
}

// Nothing is left of watches whose watchers have gone away in one way or another.
func TestWatchesLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		engine, err := actor.NewEngine(actor.NewEngineConfig())
		if err != nil {
			t.Fatal(err)
		}
		k, err := SpawnKV(engine, KVConfig{Config: Config{Name: "test", ID: "kv"}, Open: func() (kv.Store, error) { return kv.Open(dir, kv.Options{}) }})
		if err != nil {
			t.Fatal(err)
		}
		a := NewAsker(engine)
		for i := range 30 {
			c := messages.Watch{Group: uint64(i % 4), Credit: 1}
			if i%2 == 0 {
				c.Key = []byte("k")
			}
			w, err := Ask[messages.Watching](t.Context(), a, k.PID(), c)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 3 {
			case 0:
				_, err = Ask[messages.WatchCancelled](t.Context(), a, k.PID(), messages.CancelWatch{Group: c.Group, Watch: w.Watch})
			case 1: // nobody takes the answer, or asks again
				_, err = a.post(k.PID(), messages.ReadChanges{Group: c.Group, Watch: w.Watch})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := Ask[messages.PutDone](t.Context(), a, k.PID(), messages.Put{Key: []byte("k")}); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(10 * time.Minute)
		synctest.Wait()
		ws := k.behavior.(*kvBehavior).watches
		if len(ws.groups) > 0 || len(ws.leases.all) > 0 || len(ws.catching) > 0 || len(ws.gathered) > 0 || k.box.parked != 0 || k.box.count != 0 {
			t.Errorf("left: groups %v, leases %v, catching %d, gathered %d, parked %d of %d", ws.groups, ws.leases.all, len(ws.catching), len(ws.gathered), k.box.parked, k.box.count)
		}
		if err := k.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		a.Close()
		<-time.After(3 * time.Second) // buntdb looks every second whether it is closed
		synctest.Wait()
	})
}
