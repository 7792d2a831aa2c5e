package actors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// A Watcher goes on by itself after a crash and after its lease has run out, and
// ends with what it cannot mend.
func TestWatcher(t *testing.T) {
	watched(t, actors.KVConfig{MaxWatches: 1}, kv.Options{HistoryRevisions: 3}, func(t *testing.T, r *actorRig) {
		watch := func(ctx context.Context, c messages.Watch) *actors.Watcher {
			t.Helper()
			w, err := actors.Watch(ctx, r.asker, r.host.PID(), c)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		w := watch(t.Context(), messages.Watch{Prefix: []byte("k"), Now: true})
		var got []string
		until := func(revision uint64) {
			t.Helper()
			for w.Revision() < revision {
				c, err := w.Next()
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range c.Events {
					got = append(got, e.String())
				}
			}
		}
		putKV(r, 0, "k", "1")
		until(1)
		for i := range 3 {
			r.host.Crash(errors.New("on purpose"))
			until(putKV(r, 0, fmt.Sprint("k", i), "after a crash"))
			<-time.After(time.Hour)
			putKV(r, 0, fmt.Sprint("other", i), "v")
			until(putKV(r, 0, fmt.Sprint("k", i), "after the lease"))
		}
		until(10)
		want := `put "k"@1="1"`
		for i := range 3 {
			want += fmt.Sprintf(` put "k%d"@%d="after a crash" put "k%d"@%d="after the lease"`, i, 3*i+2, i, 3*i+4)
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		w.Close()
		w.Close()
		if _, err := w.Next(); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("closed: %v", err)
		}

		ends := func(what string, want error, c messages.Watch, do func()) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			w := watch(ctx, c)
			defer w.Close()
			do()
			errs := 0
			for _, err := range w.All() {
				if err == nil {
					continue
				}
				if errs++; !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", what, err, want)
				}
			}
			if _, err := w.Next(); errs != 1 || !errors.Is(err, want) {
				t.Errorf("%s: %d errors, and then %v", what, errs, err)
			}
		}
		ends("fell behind", messages.ErrCompacted, messages.Watch{Now: true}, func() {
			for i := range 20 {
				putKV(r, 0, fmt.Sprint(i), "v")
			}
		})
		ends("an import", messages.ErrReplaced, messages.Watch{Now: true}, func() { replace(r, 0) })
		ends("the context", context.DeadlineExceeded, messages.Watch{Now: true}, func() {})
		if _, err := actors.Watch(t.Context(), r.asker, r.host.PID(), messages.Watch{Credit: -1}); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("a negative credit: %v", err)
		}
		ends("stop", messages.ErrStopped, messages.Watch{Now: true}, func() {
			if err := r.host.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
	})
}

// happening is the model of a group: all that has happened in it.
type happening struct {
	revision uint64
	versions map[string]uint64
	events   []messages.WatchEvent
}

func (m *happening) do(op messages.Operation, revision uint64) {
	key := string(op.Key)
	e := messages.WatchEvent{Kind: messages.EventPut, Key: op.Key, Value: op.Value, Version: revision, PreviousVersion: m.versions[key]}
	if op.Kind == messages.OpDelete {
		if e.PreviousVersion == 0 {
			return
		}
		e.Kind = messages.EventDelete
	}
	if m.versions[key] = revision; op.Kind == messages.OpDelete {
		delete(m.versions, key)
	}
	m.events = append(m.events, e)
}

// modelWatch is one watch, with what was asked and is not answered yet.
type modelWatch struct {
	messages.Watching
	watch messages.Watch
	known uint64
	asked []<-chan messages.Changes
}

func (w *modelWatch) sees(key []byte) bool {
	c := w.watch
	switch {
	case c.Key != nil:
		return bytes.Equal(key, c.Key)
	case c.Prefix != nil:
		return bytes.HasPrefix(key, c.Prefix)
	}
	return bytes.Compare(key, c.From) >= 0 && (c.To == nil || bytes.Compare(key, c.To) < 0)
}

// Whatever is written, crashes, is imported or falls behind: a watch tells exactly
// what has happened under its keys, or ends with the error that says why not.
func TestWatchesTellWhatHappens(t *testing.T) {
	told, endings := 0, map[string]int{}
	for seed := range uint64(60) {
		rand := rand.New(rand.NewPCG(seed, 7))
		replicated := seed%2 == 0
		cfg := actors.KVConfig{Replicated: replicated, SyncEvery: 1 + rand.IntN(300)}
		watched(t, cfg, kv.Options{HistoryBytes: int64(1 + rand.IntN(12_000)), CommitBytes: int64(1 + rand.IntN(100))}, func(t *testing.T, r *actorRig) {
			m := &happening{versions: map[string]uint64{}}
			var ws []*modelWatch
			operation := func() messages.Operation {
				key := fmt.Append(nil, rand.IntN(30))
				if rand.IntN(3) == 0 {
					return messages.DeleteOperation(key)
				}
				return messages.PutOperation(key, bytes.Repeat([]byte("v"), rand.IntN(60)))
			}
			write := func() {
				var es []messages.Entry
				for range 1 + rand.IntN(20) {
					op := operation()
					if replicated {
						m.revision++
						es = append(es, messages.Entry{Index: m.revision, Term: 1, Data: op.Encode(nil)})
						m.do(op, m.revision)
						continue
					}
					var version uint64
					if op.Kind == messages.OpDelete {
						version = must[messages.Deleted](r, messages.Delete{Key: op.Key}).Version
					} else {
						version = must[messages.PutDone](r, messages.Put{Key: op.Key, Value: op.Value}).Version
					}
					if version > 0 {
						m.revision = version
						m.do(op, version)
					}
				}
				if replicated {
					must[messages.Applied](r, messages.Apply{Entries: es})
				}
			}
			key := func() []byte { return fmt.Append(nil, rand.IntN(30)) }
			open := func() {
				c := messages.Watch{Credit: 1 + rand.IntN(3), MaxBytes: 1 + rand.IntN(1000)}
				switch rand.IntN(4) {
				case 0:
					c.Key = key()
				case 1:
					c.Prefix = fmt.Append(nil, rand.IntN(4))
				case 2:
					c.From, c.To = key(), append(key(), '~')
					if bytes.Compare(c.From, c.To) > 0 {
						c.From, c.To = c.To, c.From
					}
				}
				if c.Now = rand.IntN(2) == 0; !c.Now {
					c.Since = uint64(rand.IntN(int(m.revision) + 1))
				}
				w, err := do[messages.Watching](r, c)
				var gap *messages.HistoryError
				if errors.As(err, &gap) && gap.Oldest > c.Since && gap.Oldest <= m.revision {
					endings["not known"]++
					return
				}
				if err != nil || w.Revision != m.revision || c.Now && w.Since != m.revision {
					t.Fatalf("seed %d, at revision %d: %+v, %v", seed, m.revision, w, err)
				}
				ws = append(ws, &modelWatch{Watching: w, watch: c, known: w.Since})
			}
			// take takes an answer, and reports whether the watch is still there.
			take := func(w *modelWatch) bool {
				var c messages.Changes
				select {
				case c = <-w.asked[0]:
					w.asked = w.asked[1:]
				default:
					return true
				}
				for _, end := range []error{messages.ErrCompacted, messages.ErrReplaced, messages.ErrCrashed, messages.ErrNotFound, messages.ErrExpired} {
					if errors.Is(c.Err, end) {
						endings[end.Error()]++
						return false
					}
				}
				if c.Err != nil || c.Revision < w.known || c.Revision > m.revision {
					t.Fatalf("seed %d, at revision %d: from %d to %d, %v", seed, m.revision, w.known, c.Revision, c.Err)
				}
				var want []messages.WatchEvent
				for _, e := range m.events {
					if e.Version > w.known && e.Version <= c.Revision && w.sees(e.Key) {
						want = append(want, e)
					}
				}
				if fmt.Sprint(c.Events) != fmt.Sprint(want) {
					t.Fatalf("seed %d: %+v, from %d to %d: %v, want %v", seed, w.watch, w.known, c.Revision, c.Events, want)
				}
				told += len(want)
				w.known = c.Revision
				return true
			}
			for range 60 {
				switch rand.IntN(12) {
				case 0, 1, 2:
					write()
				case 3:
					open()
				case 4:
					if rand.IntN(6) == 0 {
						r.host.Crash(errors.New("on purpose"))
					}
				case 5:
					if rand.IntN(6) == 0 {
						replace(r, 0)
					}
				default:
					for i := len(ws) - 1; i >= 0; i-- {
						w := ws[i]
						if rand.IntN(3) > 0 {
							continue
						}
						if len(w.asked) < w.Credit {
							w.asked = append(w.asked, ahead(r, messages.ReadChanges{Watch: w.Watch, NoWait: rand.IntN(3) == 0}))
						}
						if !take(w) {
							ws = append(ws[:i], ws[i+1:]...)
						}
					}
				}
				synctest.Wait()
			}
			// In the end every watch comes to know everything.
			for _, w := range ws {
				for there := true; there && w.known < m.revision; there = take(w) {
					if len(w.asked) < w.Credit {
						w.asked = append(w.asked, ahead(r, messages.ReadChanges{Watch: w.Watch, NoWait: true}))
					} else {
						<-time.After(31 * time.Second) // it is told that nothing happens
					}
				}
			}
		})
	}
	t.Logf("%d events, endings %v", told, endings)
	if told < 1000 {
		t.Errorf("only %d events were told", told)
	}
	for _, end := range []string{"not known", "compacted", messages.ErrReplaced.Error(), messages.ErrCrashed.Error(), "not found"} {
		if endings[end] < 3 {
			t.Errorf("%q ended %d watches", end, endings[end])
		}
	}
}
