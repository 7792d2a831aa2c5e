package actors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// watched runs f with an application-data actor in a bubble.
func watched(t *testing.T, cfg actors.KVConfig, opt kv.Options, f func(t *testing.T, r *actorRig)) {
	t.Helper()
	dir := t.TempDir() // outside: its removal is not part of the bubble
	synctest.Test(t, func(t *testing.T) {
		r := newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
			opt.Disk = r.disk
			cfg.Name, cfg.ID = "test", "kv"
			cfg.Open = func() (kv.Store, error) { return kv.Open(dir, opt) }
			a, err := actors.SpawnKV(engine, cfg)
			return a.Host, err
		})
		defer func() {
			if !r.host.Stopped() {
				r.close()
			}
			r.asker.Close()
			<-time.After(3 * time.Second) // buntdb looks every second whether it is closed
			synctest.Wait()
		}()
		f(t, r)
	})
}

func putKV(r *actorRig, group uint64, key, value string) uint64 {
	r.t.Helper()
	return must[messages.PutDone](r, messages.Put{Group: group, Key: []byte(key), Value: []byte(value)}).Version
}

// ahead is a ReadChanges that is under way.
func ahead(r *actorRig, c messages.ReadChanges) <-chan messages.Changes {
	ch := make(chan messages.Changes, 1)
	go func() {
		// The error is in the reply.
		reply, err := actors.Ask[messages.Changes](context.Background(), r.asker, r.host.PID(), c)
		if reply.Err == nil {
			reply.Err = err
		}
		ch <- reply
	}()
	synctest.Wait()
	return ch
}

func nothing(t *testing.T, what string, ch <-chan messages.Changes) {
	t.Helper()
	synctest.Wait()
	select {
	case c := <-ch:
		t.Fatalf("%s: %+v", what, c)
	default:
	}
}

func TestWatchSelects(t *testing.T) {
	writes := func(r *actorRig) {
		for _, k := range []string{"a", "b", "b\x00", "b1", "c", "\xff", "\xff\xff1"} {
			putKV(r, 1, k, "1")
		}
		putKV(r, 1, "b", "2")
		must[messages.Deleted](r, messages.Delete{Group: 1, Key: []byte("b")})
		must[messages.Deleted](r, messages.Delete{Group: 1, Key: []byte("none")})
		putKV(r, 2, "b", "of another group")
	}
	for name, c := range map[string]struct {
		watch messages.Watch
		want  string
	}{
		"key":             {messages.Watch{Key: []byte("b")}, `put "b"@2="1" put "b"@8="2" delete "b"@9`},
		"prefix":          {messages.Watch{Prefix: []byte("b")}, `put "b"@2="1" put "b\x00"@3="1" put "b1"@4="1" put "b"@8="2" delete "b"@9`},
		"prefix ff":       {messages.Watch{Prefix: []byte("\xff")}, `put "\xff"@6="1" put "\xff\xff1"@7="1"`},
		"prefix ffff":     {messages.Watch{Prefix: []byte("\xff\xff")}, `put "\xff\xff1"@7="1"`},
		"range":           {messages.Watch{From: []byte("b1"), To: []byte("\xff")}, `put "b1"@4="1" put "c"@5="1"`},
		"from":            {messages.Watch{From: []byte("c")}, `put "c"@5="1" put "\xff"@6="1" put "\xff\xff1"@7="1"`},
		"to":              {messages.Watch{To: []byte("b")}, `put "a"@1="1"`},
		"since":           {messages.Watch{Since: 6}, `put "\xff\xff1"@7="1" put "b"@8="2" delete "b"@9`},
		"keys only":       {messages.Watch{Key: []byte("b"), KeysOnly: true, WithPrevious: true, Since: 7}, `put "b"@8="" delete "b"@9`},
		"nothing happens": {messages.Watch{Prefix: []byte("x")}, ""},
		"small messages":  {messages.Watch{Since: 5, MaxBytes: 1}, `put "\xff"@6="1" put "\xff\xff1"@7="1" put "b"@8="2" delete "b"@9`},
	} {
		for _, late := range []bool{true, false} {
			if !late && c.watch.Since > 0 {
				continue // the group has not come to it
			}
			t.Run(fmt.Sprintf("%s, late %v", name, late), func(t *testing.T) {
				watched(t, actors.KVConfig{}, kv.Options{}, func(t *testing.T, r *actorRig) {
					watch := c.watch
					watch.Group = 1
					if late {
						writes(r)
					}
					w := must[messages.Watching](r, watch)
					read := messages.ReadChanges{Group: 1, Watch: w.Watch}
					first := ahead(r, read)
					if !late {
						writes(r)
					}
					read.NoWait = true
					var got []string
					for known := w.Since; known < 9; {
						var ch messages.Changes
						select {
						case ch = <-first:
							first = nil
						default:
							ch = must[messages.Changes](r, read)
						}
						for _, e := range ch.Events {
							if e.Version <= known || e.Version > ch.Revision {
								t.Errorf("%v between revisions %d and %d", e, known, ch.Revision)
							}
							if (e.PreviousVersion != 0) != (e.Version >= 8) || e.Previous != nil {
								t.Errorf("%v with %d=%q before", e, e.PreviousVersion, e.Previous)
							}
							got = append(got, e.String())
						}
						if known = ch.Revision; watch.MaxBytes == 1 && len(ch.Events) > 1 {
							t.Errorf("%v in a message of one byte", ch.Events)
						}
						synctest.Wait()
					}
					if got := strings.Join(got, " "); got != c.want {
						t.Errorf("%s\nwant %s", got, c.want)
					}
				})
			})
		}
	}
}

func TestWatchWithPrevious(t *testing.T) {
	watched(t, actors.KVConfig{Replicated: true}, kv.Options{}, func(t *testing.T, r *actorRig) {
		w := must[messages.Watching](r, messages.Watch{Key: []byte("k"), WithPrevious: true})
		ch := ahead(r, messages.ReadChanges{Watch: w.Watch})
		var es []messages.Entry
		for i, op := range []messages.Operation{
			messages.PutOperation([]byte("k"), []byte("1")), messages.PutOperation([]byte("k"), nil),
			messages.DeleteOperation([]byte("k")), messages.PutOperation([]byte("k"), []byte("2")),
		} {
			es = append(es, messages.Entry{Index: uint64(i + 1), Term: 1, Data: op.Encode(nil)})
		}
		must[messages.Applied](r, messages.Apply{Entries: append(es, messages.Entry{Index: 5, Term: 1})})
		c := <-ch
		got := ""
		for _, e := range c.Events {
			got += fmt.Sprintf("%v %v was %q@%d %v; ", e, e.Value != nil, e.Previous, e.PreviousVersion, e.Previous != nil)
		}
		want := `put "k"@1="1" true was ""@0 false; put "k"@2="" true was "1"@1 true; delete "k"@3 false was ""@2 true; put "k"@4="2" true was ""@0 false; `
		if got != want || c.Revision != 5 {
			t.Errorf("%sup to %d\nwant %s", got, c.Revision, want)
		}
		c.Events[0].Value = append(c.Events[0].Value, "x"...)
		if string(c.Events[1].Key) != "k" {
			t.Error("slices of a reply share what lies behind them")
		}
	})
}

// What a crash could take back is not told: an event waits for its sync, and one
// whose sync fails is told by nobody.
func TestWatchTellsWhatIsDurable(t *testing.T) {
	watched(t, actors.KVConfig{}, kv.Options{}, func(t *testing.T, r *actorRig) {
		w := must[messages.Watching](r, messages.Watch{})
		ch := ahead(r, messages.ReadChanges{Watch: w.Watch})
		release := r.disk.hold()
		done := make(chan error, 2)
		write := func(v string) {
			_, err := do[messages.PutDone](r, messages.Put{Key: []byte("k"), Value: []byte(v)})
			done <- err
		}
		go write("1")
		nothing(t, "before the sync", ch)
		now := ahead(r, messages.ReadChanges{Watch: w.Watch, NoWait: true})
		if c := <-ch; c.Revision != 0 || len(c.Events) != 0 || c.Err != nil {
			t.Errorf("asked while the sync is under way: %+v", c)
		}
		if c := <-now; c.Revision != 0 || len(c.Events) != 0 || c.Err != nil {
			t.Errorf("asked while the sync is under way: %+v", c)
		}
		ch = ahead(r, messages.ReadChanges{Watch: w.Watch})
		late := make(chan messages.Watching, 1)
		go func() { late <- must[messages.Watching](r, messages.Watch{Now: true}) }()
		synctest.Wait()
		select {
		case w := <-late:
			t.Errorf("a watch began at revision %d while its sync was under way", w.Revision)
		default:
		}
		release()
		if c := <-ch; c.Revision != 1 || len(c.Events) != 1 || c.Err != nil || <-done != nil {
			t.Errorf("after the sync: %+v", c)
		}
		if w := <-late; w.Revision != 1 || w.Since != 1 {
			t.Errorf("%+v", w)
		}

		ch = ahead(r, messages.ReadChanges{Watch: w.Watch})
		r.disk.failNext(syscall.EIO)
		go write("2")
		if c := <-ch; !errors.Is(c.Err, messages.ErrCrashed) || len(c.Events) != 0 {
			t.Errorf("after a sync that failed: %+v", c)
		}
		if err := <-done; !errors.Is(err, messages.ErrInDoubt) {
			t.Error(err)
		}
		// It is in the file all the same. Nobody was told, and nobody can be: what
		// was there when the store was opened is not in its history.
		if got := must[messages.Got](r, messages.Get{Key: []byte("k")}); got.Version != 2 {
			t.Fatalf("%+v", got)
		}
		var gap *messages.HistoryError
		if _, err := do[messages.Watching](r, messages.Watch{Since: 1}); !errors.As(err, &gap) || gap.Oldest != 2 {
			t.Errorf("from before the failure: %v", err)
		}
	})
}

// Of how a watch ends its watcher is told once, whether it has asked or not.
func TestWatchEnds(t *testing.T) {
	ended := func(t *testing.T, what string, c messages.Changes, want error) {
		t.Helper()
		if !errors.Is(c.Err, want) || len(c.Events) != 0 {
			t.Errorf("%s: %+v, want %v", what, c, want)
		}
	}
	for name, c := range map[string]struct {
		end          func(r *actorRig, w messages.Watching)
		asked, later error
		other        error // what a watch of another group is told
	}{
		"crash": {func(r *actorRig, _ messages.Watching) { r.host.Crash(errors.New("on purpose")) }, messages.ErrCrashed, messages.ErrNotFound, messages.ErrCrashed},
		"poison": {func(r *actorRig, _ messages.Watching) {
			<-r.host.Engine().Poison(actor.NewPID(r.host.PID().Address, "test/kv/1")).Done()
		}, messages.ErrCrashed, messages.ErrNotFound, messages.ErrCrashed},
		"stop": {func(r *actorRig, _ messages.Watching) {
			if err := r.host.Stop(context.Background()); err != nil {
				r.t.Error(err)
			}
		}, messages.ErrStopped, messages.ErrStopped, messages.ErrStopped},
		"unavailable": {func(r *actorRig, _ messages.Watching) { r.host.GiveUp(errors.New("on purpose")) }, messages.ErrInDoubt, messages.ErrUnavailable, messages.ErrInDoubt},
		"import":      {func(r *actorRig, _ messages.Watching) { replace(r, 1) }, messages.ErrReplaced, messages.ErrReplaced, nil},
		"cancel": {func(r *actorRig, w messages.Watching) {
			must[messages.WatchCancelled](r, messages.CancelWatch{Group: 1, Watch: w.Watch})
		}, messages.ErrNotFound, messages.ErrNotFound, nil},
		"fell behind": {func(r *actorRig, w messages.Watching) {
			for i := range 50 {
				putKV(r, 1, fmt.Sprint(i), strings.Repeat("v", 1000))
			}
		}, nil, messages.ErrCompacted, nil},
		"lease": {func(r *actorRig, w messages.Watching) { <-time.After(time.Hour) }, nil, messages.ErrNotFound, nil},
	} {
		for _, asks := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, asked %v", name, asks), func(t *testing.T) {
				watched(t, actors.KVConfig{}, kv.Options{HistoryBytes: 10 << 10}, func(t *testing.T, r *actorRig) {
					putKV(r, 1, "k", "1")
					w := must[messages.Watching](r, messages.Watch{Group: 1, Now: true})
					other := must[messages.Watching](r, messages.Watch{Group: 2})
					var chs []<-chan messages.Changes
					if asks {
						for range w.Credit {
							chs = append(chs, ahead(r, messages.ReadChanges{Group: 1, Watch: w.Watch}))
						}
					}
					otherAsks := ahead(r, messages.ReadChanges{Group: 2, Watch: other.Watch})
					c.end(r, w)
					synctest.Wait()
					for _, ch := range chs {
						got := <-ch
						if c.asked == nil && got.Err == nil { // it has got something first
							continue
						}
						ended(t, "under way", got, c.asked)
					}
					read := messages.ReadChanges{Group: 1, Watch: w.Watch, NoWait: true}
					want := []error{c.later, messages.ErrNotFound}
					if asks && c.asked != nil && errors.Is(c.later, messages.ErrReplaced) {
						want = want[1:] // it was told
					}
					if errors.Is(c.later, messages.ErrStopped) || errors.Is(c.later, messages.ErrUnavailable) {
						want = want[:1]
					}
					for _, want := range want {
						got, err := do[messages.Changes](r, read)
						ended(t, "asked later", messages.Changes{Events: got.Events, Err: err}, want)
					}
					if c.other != nil {
						ended(t, "the watch of another group", <-otherAsks, c.other)
					} else if name != "lease" {
						nothing(t, "the watch of another group", otherAsks)
						putKV(r, 2, "k", "1")
						if got := <-otherAsks; len(got.Events) != 1 {
							t.Errorf("the watch of another group: %+v", got)
						}
					}
				})
			})
		}
	}
}

// replace imports the state of a group into itself.
func replace(r *actorRig, group uint64) {
	r.t.Helper()
	v := must[messages.ViewOpened](r, messages.OpenView{Group: group, Export: true})
	im := must[messages.ImportBegun](r, messages.BeginImport{Group: group, Index: v.Index, Term: v.Term})
	must[messages.ChunkImported](r, messages.ImportChunk{Group: group, Import: im.Import, Data: export(r, v.View), EOF: true})
	must[messages.Imported](r, messages.FinishImport{Group: group, Import: im.Import})
}

func TestWatchHostileInput(t *testing.T) {
	watched(t, actors.KVConfig{MaxWatches: 3}, kv.Options{HistoryRevisions: 2}, func(t *testing.T, r *actorRig) {
		for i := range 10 {
			putKV(r, 1, "k", fmt.Sprint(i))
		}
		long := bytes.Repeat([]byte("x"), messages.MaxKey+1)
		w := must[messages.Watching](r, messages.Watch{Group: 1, Now: true, Credit: 1 << 40, MaxBytes: 1 << 40, Prefix: long[1:]})
		if w.Credit != messages.MaxWatchCredit {
			t.Errorf("%+v", w)
		}
		gone := must[messages.Watching](r, messages.Watch{Group: 1, Now: true})
		must[messages.WatchCancelled](r, messages.CancelWatch{Group: 1, Watch: gone.Watch})
		must[messages.Watching](r, messages.Watch{Group: 1 << 63})
		for name, c := range map[string]struct {
			command messages.Command
			want    error
		}{
			"key and prefix":      {messages.Watch{Key: []byte("a"), Prefix: []byte("a")}, messages.ErrInvalid},
			"key and range":       {messages.Watch{Key: []byte("a"), To: []byte("a")}, messages.ErrInvalid},
			"prefix and range":    {messages.Watch{Prefix: []byte("a"), From: []byte("a")}, messages.ErrInvalid},
			"empty range":         {messages.Watch{From: []byte("a"), To: []byte("a")}, messages.ErrInvalid},
			"range to nothing":    {messages.Watch{To: []byte{}}, messages.ErrInvalid},
			"backwards":           {messages.Watch{From: []byte("b"), To: []byte("a")}, messages.ErrInvalid},
			"long key":            {messages.Watch{Key: long}, messages.ErrTooLarge},
			"long prefix":         {messages.Watch{Prefix: long}, messages.ErrTooLarge},
			"long from":           {messages.Watch{From: long}, messages.ErrTooLarge},
			"long to":             {messages.Watch{To: long}, messages.ErrTooLarge},
			"now and since":       {messages.Watch{Now: true, Since: 1}, messages.ErrInvalid},
			"negative credit":     {messages.Watch{Credit: -1}, messages.ErrInvalid},
			"negative bytes":      {messages.Watch{MaxBytes: -1}, messages.ErrInvalid},
			"forgotten":           {messages.Watch{Group: 1, Since: 6}, messages.ErrCompacted},
			"since the start":     {messages.Watch{Group: 1}, messages.ErrCompacted},
			"in the future":       {messages.Watch{Group: 1, Since: 11}, messages.ErrReplaced},
			"far in the future":   {messages.Watch{Group: 9, Since: 1<<64 - 1}, messages.ErrReplaced},
			"no watch":            {messages.ReadChanges{Group: 1}, messages.ErrNotFound},
			"a cancelled one":     {messages.ReadChanges{Group: 1, Watch: gone.Watch}, messages.ErrNotFound},
			"of another group":    {messages.ReadChanges{Watch: w.Watch}, messages.ErrNotFound},
			"a later id":          {messages.ReadChanges{Group: 1, Watch: 1<<64 - 1}, messages.ErrNotFound},
			"cancel no watch":     {messages.CancelWatch{Group: 1}, messages.ErrNotFound},
			"cancel in a group":   {messages.CancelWatch{Watch: w.Watch}, messages.ErrNotFound},
			"a view's id":         {messages.CloseView{Group: 1, View: w.Watch}, messages.ErrNotFound},
			"cancel it once more": {messages.CancelWatch{Group: 1, Watch: gone.Watch}, messages.ErrNotFound},
		} {
			if _, err := do[messages.Reply](r, c.command); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		var gap *messages.HistoryError
		if _, err := do[messages.Watching](r, messages.Watch{Group: 1, Since: 3}); !errors.As(err, &gap) || gap.After != 3 || gap.Oldest != 7 {
			t.Errorf("%v, want one after revision 7", err)
		}
		must[messages.Watching](r, messages.Watch{Group: 1, Since: 7})
		if _, err := do[messages.Watching](r, messages.Watch{}); !errors.Is(err, messages.ErrOverloaded) {
			t.Errorf("a fourth watch: %v", err)
		}
	})
}

// What waits for changes takes nothing from what the actor may have under way,
// and no more of it waits than the credit allows.
func TestWatchStampede(t *testing.T) {
	watched(t, actors.KVConfig{MaxWatches: 200, Config: actors.Config{Limits: actors.Limits{Requests: 10}}}, kv.Options{}, func(t *testing.T, r *actorRig) {
		var all []<-chan messages.Changes
		for i := range 200 {
			w := must[messages.Watching](r, messages.Watch{Key: fmt.Append(nil, i), Credit: 3})
			for range 3 {
				all = append(all, ahead(r, messages.ReadChanges{Watch: w.Watch}))
			}
			for range 5 {
				if _, err := do[messages.Changes](r, messages.ReadChanges{Watch: w.Watch}); !errors.Is(err, messages.ErrOverloaded) {
					t.Fatalf("beyond the credit: %v", err)
				}
			}
		}
		if s := r.host.Status(); s.Queued != 600 {
			t.Errorf("%+v", s)
		}
		errs := make(chan error)
		for range 10_000 {
			go func() {
				_, err := do[messages.Watching](r, messages.Watch{})
				errs <- err
			}()
		}
		for range 10_000 {
			if err := <-errs; !errors.Is(err, messages.ErrOverloaded) {
				t.Fatalf("one watch too many: %v", err)
			}
		}
		for i := range 200 {
			putKV(r, 0, fmt.Sprint(i), "v")
		}
		synctest.Wait()
		for i, ch := range all {
			if i%3 > 0 {
				nothing(t, "a second message of one change", ch)
			} else if c := <-ch; len(c.Events) != 1 || c.Events[0].Version != uint64(i/3+1) {
				t.Fatalf("watch %d: %+v", i/3, c)
			}
		}
	})
}

// A watcher that waits is told now and then that nothing has happened; one whose
// process is gone costs a few dead letters and then nothing.
func TestWatchLease(t *testing.T) {
	watched(t, actors.KVConfig{MaxWatches: 1, Lease: time.Minute}, kv.Options{}, func(t *testing.T, r *actorRig) {
		w := must[messages.Watching](r, messages.Watch{Key: []byte("k")})
		for i := range 20 { // ten minutes and more
			began := time.Now()
			ch := ahead(r, messages.ReadChanges{Watch: w.Watch})
			putKV(r, 0, "other", fmt.Sprint(i))
			c := <-ch
			if waited := time.Since(began); c.Err != nil || len(c.Events) != 0 || c.Revision != uint64(i+1) || waited < 30*time.Second || waited > 61*time.Second {
				t.Fatalf("after %v: %+v", waited, c)
			}
		}
		must[messages.WatchCancelled](r, messages.CancelWatch{Watch: w.Watch})

		letters := 0
		r.host.Engine().Subscribe(r.host.Engine().SpawnFunc(func(c *actor.Context) {
			if _, ok := c.Message().(actor.DeadLetterEvent); ok {
				letters++
			}
		}, "letters"))
		begun := make(chan uint64)
		gone := r.host.Engine().SpawnFunc(func(c *actor.Context) {
			switch m := c.Message().(type) {
			case actor.Started:
				c.Send(r.host.PID(), messages.Watch{Credit: 2})
			case messages.Watching:
				for range 2 {
					c.Send(r.host.PID(), messages.ReadChanges{Watch: m.Watch})
				}
				begun <- m.Watch
			}
		}, "gone")
		id := <-begun
		<-r.host.Engine().Poison(gone).Done()
		if _, err := do[messages.Watching](r, messages.Watch{}); !errors.Is(err, messages.ErrOverloaded) {
			t.Fatalf("a second watch: %v", err)
		}
		for range 100 {
			putKV(r, 0, "k", "v")
		}
		<-time.After(5 * time.Minute)
		synctest.Wait()
		must[messages.Watching](r, messages.Watch{Now: true})
		if letters == 0 || letters > 2 {
			t.Errorf("%d dead letters for a watch with a credit of 2", letters)
		}
		if _, err := do[messages.Changes](r, messages.ReadChanges{Watch: id}); !errors.Is(err, messages.ErrNotFound) {
			t.Errorf("the watch of a process that is gone: %v", err)
		}
	})
}

// A watcher that fell behind reads the data in a view and goes on from there: it
// misses nothing and is told nothing twice, whatever is written meanwhile, and its
// slowness costs no memory but the history.
func TestWatchAfterFallingBehind(t *testing.T) {
	watched(t, actors.KVConfig{Replicated: true}, kv.Options{HistoryBytes: 20 << 10}, func(t *testing.T, r *actorRig) {
		rand := rand.New(rand.NewPCG(1, 1))
		want, index := map[string]string{}, uint64(0)
		write := func(n int) {
			var es []messages.Entry
			for range n {
				k, v := fmt.Sprint(rand.IntN(50)), fmt.Sprint(rand.Uint64())
				op := messages.PutOperation([]byte(k), []byte(v))
				if want[k] = v; rand.IntN(4) == 0 {
					op = messages.DeleteOperation([]byte(k))
					delete(want, k)
				}
				index++
				es = append(es, messages.Entry{Index: index, Term: 1, Data: op.Encode(nil)})
				if len(es) == 50 {
					must[messages.Applied](r, messages.Apply{Entries: es})
					es = nil
				}
			}
			must[messages.Applied](r, messages.Apply{Entries: es})
		}
		write(10)
		w := must[messages.Watching](r, messages.Watch{Now: true})
		fell := 0
		got, known := map[string]string{}, uint64(0)
		for round := range 40 {
			write(rand.IntN(600))
			c, err := do[messages.Changes](r, messages.ReadChanges{Watch: w.Watch, NoWait: true})
			var gap *messages.HistoryError
			if errors.As(err, &gap) {
				if fell++; gap.Oldest <= gap.After || round > 0 && gap.After < known {
					t.Fatalf("known up to %d: %v", known, err)
				}
				v := must[messages.ViewOpened](r, messages.OpenView{Export: true})
				write(rand.IntN(30)) // the view does not see it, the watch tells it
				got, known = pairsOf(t, export(r, v.View)), v.Revision
				write(rand.IntN(30))
				w = must[messages.Watching](r, messages.Watch{Since: known})
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			known = follow(t, got, known, c)
		}
		for known < must[messages.AppliedRead](r, messages.ReadApplied{}).Revision {
			known = follow(t, got, known, must[messages.Changes](r, messages.ReadChanges{Watch: w.Watch, NoWait: true}))
		}
		if !maps.Equal(got, want) || fell < 5 || fell > 35 {
			t.Errorf("after falling behind %d times the watcher has %v, want %v", fell, got, want)
		}
	})
}

// follow does to a map what the events say.
func follow(t *testing.T, m map[string]string, known uint64, c messages.Changes) uint64 {
	t.Helper()
	last := known
	for _, e := range c.Events {
		if e.Version <= last || e.Version > c.Revision { // one operation is one revision
			t.Fatalf("%v after revision %d, in changes up to %d", e, last, c.Revision)
		}
		if last = e.Version; e.Kind == messages.EventPut {
			m[string(e.Key)] = string(e.Value)
		} else {
			delete(m, string(e.Key))
		}
	}
	if c.Revision < known {
		t.Fatalf("from revision %d to %d", known, c.Revision)
	}
	return c.Revision
}

// pairsOf reads an exported state.
func pairsOf(t *testing.T, state []byte) map[string]string {
	t.Helper()
	s, err := kv.OpenState(bytes.NewReader(state), int64(len(state)))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for p, err := range s.Range(nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		m[string(p.Key)] = string(p.Value)
	}
	return m
}
