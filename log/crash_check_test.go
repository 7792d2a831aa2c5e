package log_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sort"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
)

// promise is what must be true of an image: at least what was acknowledged, at
// most what was staged, and whole changes in order.
type promise struct {
	acknowledged uint64
	positions    []uint64 // of the changes that were staged, ascending
	states       []string // states[k] is the log after k of them
}

// upTo is how many changes are durable with a position.
func (p *promise) upTo(position uint64) int {
	return sort.Search(len(p.positions), func(i int) bool { return p.positions[i] > position })
}

// holds compares a log with the promise, and returns its state.
func (p *promise) holds(w *raftlog.WAL) (state string, err error) {
	at := w.Durable()
	if at < p.acknowledged {
		return "", fmt.Errorf("durable up to %d, and %d was acknowledged", at, p.acknowledged)
	}
	k := p.upTo(at)
	if state, err = fullState(w); err != nil {
		return "", err
	}
	if want := p.states[k]; state != want {
		return "", fmt.Errorf("at position %d, after %d changes:\n%swant\n%s", at, k, state, want)
	}
	return state, nil
}

// crashed is an image and what it must hold.
type crashed struct {
	*crashtest.Image
	promise
	number int
	// twice: cut the power again while this one is being recovered.
	twice bool
}

// check opens an image, holds it against the promise, opens it again, goes on
// writing and opens it once more. again checks what a second power cut leaves.
func (c *crashed) check(dir string, o raftlog.Options, again func(*crashed) error) (repaired bool, err error) {
	if c.number%8 == 0 {
		r, err := raftlog.Inspect(dir)
		if len(r.Damage) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) { // not made yet
			return false, fmt.Errorf("inspect: %v, %w", r.Damage, err)
		}
	}
	o.OnRepair = func(messages.TailRepaired) { repaired = true }
	o.VerifyAll = c.number%3 == 0
	if c.twice {
		rec, e := crashtest.Record(dir)
		if e != nil {
			return repaired, e
		}
		rng := rand.New(rand.NewPCG(uint64(c.number), 7))
		later := *c
		rec.Event = func(what string) {
			rec.Images(c.What+"; then "+what, rng, 1, func(m *crashtest.Image) {
				n := later
				n.Image, n.twice, n.number = m, false, n.number+1
				later.number = n.number
				if e := again(&n); e != nil {
					err = errors.Join(err, e)
				}
			})
		}
		o.Disk = rec
		w, e := raftlog.Open(dir, o)
		if e != nil {
			return repaired, errors.Join(err, e)
		}
		// From here on what recovery has found is promised.
		// What it has not found never was, and its positions go to others.
		later.acknowledged = max(later.acknowledged, w.Durable())
		k := c.upTo(w.Durable())
		later.positions, later.states = later.positions[:k], later.states[:k+1]
		rec.Look("open returned")
		if e := maintain(w); e != nil {
			err = errors.Join(err, fmt.Errorf("maintain: %w", e))
		}
		rec.Look("maintained")
		err = errors.Join(err, w.Close())
		rec.Look("closed")
		if err = errors.Join(err, rec.Err()); err != nil {
			return repaired, err
		}
		o.Disk, c.promise = nil, later.promise
	}
	w, err := raftlog.Open(dir, o)
	if err != nil {
		return repaired, err
	}
	at := w.Durable()
	state, err := c.holds(w)
	if err != nil {
		return repaired, errors.Join(err, w.Close())
	}
	if c.number%4 == 1 {
		return repaired, w.Close()
	}
	if c.number%4 == 3 { // what was found is found again
		if err := w.Close(); err != nil {
			return repaired, err
		}
		o.VerifyAll = false
		if w, err = raftlog.Open(dir, o); err != nil {
			return repaired, fmt.Errorf("second open: %w", err)
		}
		if got, err := fullState(w); err != nil || got != state || w.Durable() != at {
			return repaired, errors.Join(fmt.Errorf("second open: at %d, %w\n%swant\n%s", w.Durable(), err, got, state), w.Close())
		}
	}
	if c.number%2 == 1 {
		return repaired, w.Close()
	}
	for round := range 2 { // it goes on
		for _, id := range []uint64{0, 1} {
			b := w.Bounds(id)
			es := []messages.Entry{{Term: b.LastTerm + 1, Data: fmt.Appendf(nil, "after the crash, round %d", round)}, {Term: b.LastTerm + 1, Type: 3}}
			if _, err := w.Append(id, es, nil); err != nil {
				return repaired, errors.Join(err, w.Close())
			}
		}
		if _, err := w.Sync(); err != nil {
			return repaired, errors.Join(err, w.Close())
		}
		if err := maintain(w); err != nil {
			return repaired, errors.Join(fmt.Errorf("maintain: %w", err), w.Close())
		}
	}
	if state, err = fullState(w); err != nil {
		return repaired, errors.Join(err, w.Close())
	}
	at = w.Durable()
	if err := w.Close(); err != nil {
		return repaired, err
	}
	if w, err = raftlog.Open(dir, o); err != nil {
		return repaired, fmt.Errorf("open after going on: %w", err)
	}
	if got, e := fullState(w); e != nil || got != state || w.Durable() != at {
		err = fmt.Errorf("after going on: at %d, %w\n%swant\n%s", w.Durable(), e, got, state)
	}
	return repaired, errors.Join(err, w.Close())
}
