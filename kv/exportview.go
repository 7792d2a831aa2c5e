package kv

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// exportView is a group's data as it was when the view was opened, read once from
// its beginning to its end: the store, with what has been overwritten since put
// back from an overlay.
//
// Its reader moves forwards only, so the overlay holds the keys that it has not
// come to yet. Other views share one history; this one has its own, because
// nothing that the reader has passed is kept for it.
type exportView struct {
	store       *DB
	group       *machine
	index, term uint64
	revision    uint64

	// reading is held by Read and Close, before DB.mu.
	reading sync.Mutex
	out     stateWriter
	closed  bool

	// Changed by the reader under DB.mu for reading, and by writers under DB.mu
	// for writing.
	next, upper string // the stored keys that are still to be read
	over        ordered[kept]
	bytes       atomic.Int64 // in over; Statistics reads it beside the reader
	expired     error
}

// kept is what a key was.
type kept struct {
	old     string
	existed bool
}

const (
	// sliceBytes and sliceKeys bound what is read in one go, and with it how
	// long a writer waits.
	sliceBytes = 256 << 10
	sliceKeys  = 4096
)

// OpenExport opens an exported state of a group's data as it is now. It costs
// nothing but what is overwritten while it is open, where it has not been read.
func (s *DB) OpenExport(group uint64) (Export, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.viewed(group)
	if err != nil {
		return nil, fmt.Errorf("kv: open export: %w", err)
	}
	v := &exportView{store: s, group: g, index: g.index, term: g.term, revision: g.revision, next: g.data, upper: successor(g.data)}
	v.out.begin()
	for _, x := range g.indexes {
		v.out.definition(x.IndexDefinition)
	}
	g.exports = append(g.exports, v)
	return v, nil
}

// keep is called by a writer, under DB.mu, before it changes a key.
func (v *exportView) keep(key, old string, existed bool) {
	if v.expired != nil || key < v.next {
		return
	}
	n, added := v.over.at(key)
	if !added {
		return
	}
	n.value = kept{old, existed}
	bytes := v.bytes.Add(keptBytes(n))
	if limit := v.store.opt.MaxViewBytes; bytes > limit {
		v.expire(fmt.Sprintf("more than %d bytes were overwritten", limit))
	}
}

func keptBytes(n *node[kept]) int64 { return int64(len(n.key)+len(n.value.old)) + nodeBytes }

func (v *exportView) expire(reason string) {
	v.expired = fmt.Errorf("%s: %w", reason, messages.ErrExpired)
	v.over = ordered[kept]{}
	v.bytes.Store(0)
}

// live returns those that writers have to care for.
func live(exports []*exportView) []*exportView {
	return slices.DeleteFunc(exports, func(v *exportView) bool { return v.expired != nil })
}

// Index returns the index and term of the last entry that the view includes.
func (v *exportView) Index() (index, term uint64) { return v.index, v.term }

// Revision is the version of the latest change that the view includes.
func (v *exportView) Revision() uint64 { return v.revision }

// Read yields the state stream. It is io.EOF after the end record, ErrExpired
// if the view was given up, ErrStopped if the store was closed.
func (v *exportView) Read(p []byte) (n int, err error) {
	v.reading.Lock()
	defer v.reading.Unlock()
	if v.closed {
		return 0, fmt.Errorf("kv: read export: it is closed: %w", messages.ErrExpired)
	}
	for len(p) > 0 {
		n, err = v.out.Read(p)
		if n > 0 || err == io.EOF {
			return n, err
		}
		if err := v.fill(); err != nil {
			return 0, fmt.Errorf("kv: read export: %w", err)
		}
	}
	return 0, nil
}

// fill reads the next slice of the data into out.
func (v *exportView) fill() error {
	s := v.store
	return s.view(v.group.id, func(tx *buntdb.Tx, _ *machine) error {
		if v.expired != nil {
			return v.expired
		}
		last, steps, full := "", 0, false
		each := v.over.each(v.next, v.upper, false)
		merge(now{tx}, v.next, v.upper, false, func() (r replaced, ok bool) {
			if n := each(); n != nil {
				return replaced{n.key, n.value.old, n.value.existed}, true
			}
			return r, false
		}, func(r replaced) bool {
			if r.exists {
				version, value := valueOf(r.stored)
				v.out.pair(r.key[len(v.group.data):], version, value)
			}
			last = r.key
			steps++
			full = steps == sliceKeys || v.out.buffered() >= sliceBytes
			return !full
		})
		if !full {
			v.next = v.upper
			v.out.end(v.revision)
		} else {
			v.next = last + "\x00"
		}
		for n := v.over.head[0]; n != nil && n.key < v.next; n = v.over.head[0] {
			v.bytes.Add(-keptBytes(n))
			v.over.removeFirst()
		}
		return nil
	})
}

// Close gives the view up. Closing it again does nothing.
func (v *exportView) Close() error {
	v.reading.Lock()
	defer v.reading.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	v.out = stateWriter{}
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.expired == nil {
		v.expire("it is closed")
	}
	g := v.group
	g.exports = live(g.exports)
	s.forget(g)
	return nil
}
