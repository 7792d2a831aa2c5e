package supervisor_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// Transactions through the log, which count one counter up while actors crash:
// each success counts once, and what is in doubt at most once.
func TestCommit(t *testing.T) {
	s := start(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	key := []byte("counter")
	read := func(x *actors.Txn) (int, error) {
		value, _, err := x.Get(key)
		if err != nil || value == nil {
			return 0, err
		}
		return strconv.Atoi(string(value))
	}
	var done, doubt atomic.Int64
	var wg sync.WaitGroup
	for c := range 6 {
		wg.Go(func() {
			for i := range 25 {
				_, err := actors.Update(ctx, s.storage.Asker(), s.storage.Data(0), func(x *actors.Txn) error {
					n, err := read(x)
					if err != nil {
						return err
					}
					return x.Put(key, []byte(strconv.Itoa(n+1)))
				})
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, messages.ErrInDoubt):
					doubt.Add(1)
				default:
					t.Error(err)
				}
				if c == 0 && i%8 == 4 {
					if err := s.storage.Crash([]string{"kv", "supervisor", "log"}[i/8]); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	s.put("last", "1") // behind whatever was in doubt
	n, err := strconv.Atoi(s.get("counter"))
	if min, max := int(done.Load()), int(done.Load()+doubt.Load()); err != nil || n < min || n > max || done.Load() == 0 {
		t.Errorf("the counter is at %d, want %d to %d: %v", n, min, max, err)
	}
	t.Logf("%d done, %d in doubt", done.Load(), doubt.Load())

	// One that conflicts when it is applied, one that wrote nothing, and one that is gone.
	begun := must[messages.Begun](s, s.storage.KV, messages.Begin{})
	must[messages.Got](s, s.storage.KV, messages.Get{Txn: begun.Txn, Key: key})
	must[messages.PutDone](s, s.storage.KV, messages.Put{Txn: begun.Txn, Key: key, Value: []byte("0")})
	s.put("counter", "-1")
	if _, err := ask[messages.Committed](s, s.storage.Supervisor, messages.Commit{Txn: begun.Txn}); !errors.Is(err, messages.ErrConflict) {
		t.Error(err)
	}
	if _, err := ask[messages.Committed](s, s.storage.Supervisor, messages.Commit{Txn: begun.Txn}); !errors.Is(err, messages.ErrNotFound) {
		t.Error(err)
	}
	begun = must[messages.Begun](s, s.storage.KV, messages.Begin{})
	if c := must[messages.Committed](s, s.storage.Supervisor, messages.Commit{Txn: begun.Txn}); c.Version != begun.Revision {
		t.Errorf("%+v", c)
	}
	// A prepared one, proposed late.
	begun = must[messages.Begun](s, s.storage.KV, messages.Begin{})
	must[messages.Got](s, s.storage.KV, messages.Get{Txn: begun.Txn, Key: key})
	must[messages.PutDone](s, s.storage.KV, messages.Put{Txn: begun.Txn, Key: key, Value: []byte("0")})
	prepared := must[messages.CommitPrepared](s, s.storage.KV, messages.PrepareCommit{Txn: begun.Txn})
	s.put("counter", "-2")
	applied := must[messages.EntryApplied](s, s.storage.Supervisor, messages.ApplyEntry{Operation: prepared.Operation})
	if applied.Result.Err != nil || applied.Result.Succeeded || s.get("counter") != "-2" {
		t.Errorf("%+v", applied)
	}
}
