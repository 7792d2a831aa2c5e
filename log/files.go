package log

import (
	"errors"
	"os"
	"sync"
)

// readers keeps the descriptors that reads use, at most max of them beyond
// those in use. A descriptor stays open as long as a read uses it, also when
// its file has been removed meanwhile.
type readers struct {
	mu     sync.Mutex
	max    int
	clock  uint64
	open   map[uint32]*reader
	closed bool
}

type reader struct {
	f      *os.File
	refs   int
	used   uint64 // clock at the last use
	doomed bool   // close when the last use ends
}

func newReaders(max int) *readers {
	return &readers{max: max, open: map[uint32]*reader{}}
}

// acquire returns the segment's descriptor, to be given back by release.
func (r *readers) acquire(s *segment) (*reader, error) {
	if h := r.lookup(s, nil); h != nil {
		return h, nil
	}
	f, err := os.Open(s.logPath())
	if err != nil {
		return nil, err
	}
	h := r.lookup(s, f)
	if h.f != f {
		err = f.Close()
	}
	return h, err
}

// lookup returns the segment's reader, and makes one of f if there is none.
func (r *readers) lookup(s *segment, f *os.File) *reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	h := r.open[s.ordinal]
	if h == nil {
		if f == nil {
			return nil
		}
		h = &reader{f: f}
		if r.closed || s.removed.Load() {
			h.doomed = true
		} else {
			if len(r.open) >= r.max {
				r.evict()
			}
			r.open[s.ordinal] = h
		}
	}
	h.refs++
	h.used = r.clock
	return h
}

// evict closes the descriptor that has been idle for longest.
func (r *readers) evict() {
	var victim uint32
	var oldest *reader
	for ordinal, h := range r.open {
		if h.refs == 0 && (oldest == nil || h.used < oldest.used) {
			victim, oldest = ordinal, h
		}
	}
	if oldest != nil {
		delete(r.open, victim)
		_ = oldest.f.Close() // opened for reading: there is nothing to lose
	}
}

func (r *readers) release(h *reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.refs--
	if h.doomed && h.refs == 0 {
		_ = h.f.Close() // opened for reading: there is nothing to lose
	}
}

// forget closes the descriptor of a segment that is being removed.
func (r *readers) forget(s *segment) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.open[s.ordinal]
	if h == nil {
		return nil
	}
	delete(r.open, s.ordinal)
	if h.refs > 0 {
		h.doomed = true
		return nil
	}
	return h.f.Close()
}

func (r *readers) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	var errs []error
	for _, h := range r.open {
		if h.refs > 0 {
			h.doomed = true
		} else {
			errs = append(errs, h.f.Close())
		}
	}
	clear(r.open)
	return errors.Join(errs...)
}
