package crashtest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
)

// Pool checks images, as many at a time as there are processors, each in a
// directory of its own, which is removed afterwards. It stops at the first
// failure, whose directory stays.
type Pool struct {
	// Every: Go has one of so many images checked, in turn. 0 is 1.
	Every int

	dir    string
	work   chan func()
	wg     sync.WaitGroup
	number atomic.Int64
	failed atomic.Bool

	mu    sync.Mutex
	known map[uint64]struct{}
	err   error
	came  int // to Go
}

// UnderRace is 4 under the race detector, which makes a check ten times as slow
// and learns nothing from one more image, and otherwise 1. It is meant for
// Pool.Every.
const UnderRace = underRace

// NewPool starts the workers. The directory must be there; Wait must be called.
func NewPool(dir string) *Pool {
	p := &Pool{dir: dir, work: make(chan func(), 64), known: map[uint64]struct{}{}}
	for range runtime.GOMAXPROCS(0) {
		p.wg.Go(func() {
			for do := range p.work {
				do()
			}
		})
	}
	return p
}

// Go has an image checked, unless one with the same bytes and the same key was
// before. The key stands for what is promised of the image: one that is right
// for an earlier promise may be wrong for a later one. It waits while many are
// queued. Not to be called from within a check, nor by two goroutines at once.
func (p *Pool) Go(m *Image, key uint64, check func(dir string) error) {
	if p.came++; p.came%max(1, p.Every) == 0 && !p.failed.Load() {
		p.work <- func() { p.Do(m, key, check) }
	}
}

// Do is Go in the goroutine of the caller: for the images of a recovery, whose
// check is part of a check. The error is Wait's too.
func (p *Pool) Do(m *Image, key uint64, check func(dir string) error) error {
	if p.failed.Load() || !p.fresh(m.Hash()^key*0x9E3779B97F4A7C15) {
		return nil
	}
	dir := filepath.Join(p.dir, fmt.Sprint("image-", p.number.Add(1)))
	err := m.Write(dir)
	if err == nil {
		err = check(dir)
	}
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", m.What, err)
		if p.mu.Lock(); p.err == nil {
			p.err = err
		}
		p.mu.Unlock()
		p.failed.Store(true)
	}
	return err
}

func (p *Pool) fresh(h uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.known[h]
	p.known[h] = struct{}{}
	return !known
}

// Failed reports whether a check has failed, so that whoever records may stop.
func (p *Pool) Failed() bool { return p.failed.Load() }

// Checked is how many images were checked so far.
func (p *Pool) Checked() int { return int(p.number.Load()) }

// Wait waits for everything that was queued, ends the workers and returns the
// first failure.
func (p *Pool) Wait() error {
	close(p.work)
	p.wg.Wait()
	return p.err
}
