package actors_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// With a lazy policy a watcher is told as early as the writer.
func TestWatchWithLazySync(t *testing.T) {
	for _, mode := range []actors.SyncMode{actors.SyncInterval, actors.SyncNever} {
		cfg := actors.KVConfig{Sync: actors.SyncPolicy{Mode: mode}}
		watched(t, cfg, kv.Options{}, func(t *testing.T, r *actorRig) {
			w := must[messages.Watching](r, messages.Watch{})
			ch := ahead(r, messages.ReadChanges{Watch: w.Watch})
			release := r.disk.hold()
			defer release()
			putKV(r, 0, "k", "1")
			synctest.Wait()
			select {
			case c := <-ch:
				if c.Revision != 1 || len(c.Events) != 1 || c.Err != nil {
					t.Errorf("mode %v: %+v", mode, c)
				}
			default:
				t.Errorf("mode %v: nothing is told of what was answered", mode)
			}
		})
	}
}

// An interactive transaction is told when it is committed, whole, in one message;
// nothing of one that has a conflict or is rolled back.
func TestWatchOfTransactions(t *testing.T) {
	watched(t, actors.KVConfig{}, kv.Options{}, func(t *testing.T, r *actorRig) {
		w := must[messages.Watching](r, messages.Watch{MaxBytes: 1})
		ch := ahead(r, messages.ReadChanges{Watch: w.Watch})
		write := func(txn uint64) {
			for _, key := range []string{"a", "b"} {
				must[messages.PutDone](r, messages.Put{Txn: txn, Key: []byte(key), Value: []byte("v")})
			}
		}
		rolled, late := must[messages.Begun](r, messages.Begin{}).Txn, must[messages.Begun](r, messages.Begin{}).Txn
		write(rolled)
		must[messages.RolledBack](r, messages.Rollback{Txn: rolled})
		must[messages.Got](r, messages.Get{Txn: late, Key: []byte("a")})
		write(late)
		nothing(t, "before a commit", ch)
		good := must[messages.Begun](r, messages.Begin{}).Txn
		write(good)
		version := must[messages.Committed](r, messages.Commit{Txn: good}).Version
		if c := <-ch; c.Revision != version || len(c.Events) != 2 || c.Events[0].Version != version || c.Events[1].Version != version || c.Err != nil {
			t.Errorf("a commit at %d: %+v", version, c)
		}
		ch = ahead(r, messages.ReadChanges{Watch: w.Watch})
		if _, err := do[messages.Committed](r, messages.Commit{Txn: late}); !errors.Is(err, messages.ErrConflict) {
			t.Error(err)
		}
		nothing(t, "after a conflict", ch)
		putKV(r, 0, "c", "v")
		if c := <-ch; c.Revision != version+1 || len(c.Events) != 1 || c.Err != nil {
			t.Errorf("after a conflict: %+v", c)
		}
	})
}
