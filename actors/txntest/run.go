// Package txntest runs transactions from many goroutines at once and checks that what
// they did is serialisable, whatever fails meanwhile. It is for tests.
package txntest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv/serialcheck"
	"github.com/ballast-raft/ballast/messages"
)

// Config of a run.
type Config struct {
	Asker *actors.Asker
	Data  actors.Data
	// Clients run Each transactions.
	Clients, Each int
	// Crash is called from time to time, with how often it was before.
	Crash func(n int)
	// CrashEvery is after how many transactions. Crash is not called if it is zero.
	CrashEvery int
	// Blind has the transactions read past themselves, which the check must find.
	Blind bool
	// Settle, if set, is called when all clients are through and before what is in
	// doubt is looked up.
	Settle func()
}

// Outcome of a run.
type Outcome struct {
	Committed, Conflicts, InDoubt, Crashes int
	// Circle are transactions that depend on each other; empty if an order explains
	// what was done.
	Circle []serialcheck.Txn
}

const keys = 5 // few, so that transactions meet

func key(i int) string { return fmt.Sprint("k", i) }

type attempt struct {
	serialcheck.Txn
	marker string // a key that it alone writes
	err    error  // of the commit
}

type run struct {
	Config
	t        *testing.T
	ctx      context.Context
	began    atomic.Int64
	mu       sync.Mutex
	attempts []*attempt
}

// Run runs transactions and returns what became of them.
func Run(t *testing.T, cfg Config) (out Outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := &run{Config: cfg, t: t, ctx: ctx}
	var crashes atomic.Int64
	var wg sync.WaitGroup
	for c := range cfg.Clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 7))
			for i := range cfg.Each {
				r.one(rng, fmt.Sprintf("%d/%d", c, i))
				if n := r.began.Add(1); cfg.CrashEvery > 0 && n%int64(cfg.CrashEvery) == 0 {
					cfg.Crash(int(crashes.Add(1)) - 1)
				}
			}
		})
	}
	wg.Wait()
	if cfg.Settle != nil {
		cfg.Settle()
	}
	out.Crashes = int(crashes.Load())
	var history []serialcheck.Txn
	for _, a := range r.attempts {
		switch {
		case errors.Is(a.err, messages.ErrConflict):
			out.Conflicts++
		case errors.Is(a.err, messages.ErrInDoubt):
			out.InDoubt++
		}
		if r.found(a) {
			out.Committed++
			history = append(history, a.Txn)
		}
	}
	for _, i := range serialcheck.Cycle(history) {
		out.Circle = append(out.Circle, history[i])
	}
	return out
}

// found reports whether a transaction was carried out: exactly if it has left its
// marker, which has the version of all that it wrote.
func (r *run) found(a *attempt) bool {
	if len(a.Writes) == 0 {
		return a.err == nil
	}
	var got messages.Got
	for {
		var err error
		got, err = actors.Ask[messages.Got](r.ctx, r.Asker, r.Data.KV, messages.Get{Group: r.Data.Group, Key: []byte(a.marker)})
		if err == nil {
			break
		}
		if !errors.Is(err, messages.ErrCrashed) || r.ctx.Err() != nil { // a read may be asked again
			r.t.Errorf("%s: %v", a.marker, err)
			return false
		}
	}
	switch {
	case a.err == nil && got.Version != a.Version:
		r.t.Errorf("%s was committed at %d, and is there at %d", a.marker, a.Version, got.Version)
	case a.err != nil && !errors.Is(a.err, messages.ErrInDoubt) && got.Found:
		r.t.Errorf("%s was carried out, though: %v", a.marker, a.err)
	}
	a.Version = got.Version
	return got.Found
}

// one runs a transaction until it meets no conflict.
func (r *run) one(rng *rand.Rand, name string) {
	var last *attempt
	n := 0
	version, err := actors.Update(r.ctx, r.Asker, r.Data, func(x *actors.Txn) error {
		if last != nil { // it was not committed
			last.err = messages.ErrConflict
		}
		n++
		last = &attempt{marker: fmt.Sprintf("m/%s/%d", name, n), Txn: serialcheck.Txn{Reads: map[string]uint64{}, Writes: map[string]bool{}, Revision: x.Revision}}
		r.mu.Lock()
		r.attempts = append(r.attempts, last)
		r.mu.Unlock()
		if err := r.steps(rng, x, last); err != nil {
			last.err = err
			return err
		}
		return nil
	})
	if last == nil {
		r.t.Errorf("%s: did not begin: %v", name, err)
		return
	}
	if last.err = err; err == nil && len(last.Writes) > 0 {
		last.Version = version
	}
	if err != nil && !errors.Is(err, messages.ErrInDoubt) {
		r.t.Errorf("%s: %v", name, err)
	}
}

// steps reads and writes, and removes only what it has seen: else nobody could tell
// whether that was there.
func (r *run) steps(rng *rand.Rand, x *actors.Txn, a *attempt) error {
	get := x.Get
	if r.Blind {
		get = func(key []byte) ([]byte, uint64, error) {
			got, err := actors.Ask[messages.Got](r.ctx, r.Asker, r.Data.KV, messages.Get{Group: r.Data.Group, Key: key})
			return got.Value, got.Version, err
		}
	}
	seen := maps.Clone(a.Reads)
	if rng.IntN(3) == 0 && !r.Blind {
		for i := range keys {
			seen[key(i)] = 0
		}
		for p, err := range x.Scan(messages.Scan{Prefix: []byte("k"), Limit: keys + 1}) {
			if err != nil {
				return err
			}
			seen[string(p.Key)] = p.Version
		}
	}
	for range 1 + rng.IntN(3) {
		k := key(rng.IntN(keys))
		_, version, err := get([]byte(k))
		if err != nil {
			return err
		}
		if _, known := seen[k]; !known {
			seen[k] = version
		}
	}
	a.Reads = seen
	if rng.IntN(5) == 0 { // it only reads
		return nil
	}
	for range 1 + rng.IntN(2) {
		k := key(rng.IntN(keys))
		var err error
		if version := seen[k]; version > 0 && rng.IntN(4) == 0 && !a.Writes[k] && !r.Blind {
			a.Writes[k], err = false, x.Delete([]byte(k))
		} else {
			a.Writes[k], err = true, x.Put([]byte(k), []byte(a.marker))
		}
		if err != nil {
			return err
		}
	}
	a.Writes[a.marker] = true
	return x.Put([]byte(a.marker), nil)
}
