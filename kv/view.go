package kv

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// view is a group's data as it was when the view was opened: the store, with
// what has been overwritten since put back from the overlay.
//
// Its reader moves forwards only, so the overlay holds the keys that it has not
// come to yet.
type view struct {
	store       *DB
	group       *machine
	index, term uint64
	revision    uint64
	indexes     []index

	// reading is held by Read and Close, before DB.mu.
	reading sync.Mutex
	out     stateWriter
	closed  bool

	// Changed by the reader under DB.mu for reading, and by writers under DB.mu
	// for writing.
	next, upper string // the stored keys that are still to be read
	over        overlay
	expired     error
}

const (
	// sliceBytes and sliceKeys bound what is read in one go, and with it how
	// long a writer waits.
	sliceBytes = 256 << 10
	sliceKeys  = 4096
)

// OpenView opens a view of a group's data as it is now. It costs nothing but
// what is overwritten while it is open.
func (s *DB) OpenView(group uint64) (View, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("kv: open view: %w", messages.ErrStopped)
	}
	if s.poison != nil {
		// What is in memory may be more than what the disk will remember.
		return nil, fmt.Errorf("kv: open view: %w", s.unwritable())
	}
	g := s.groups[group]
	if g == nil {
		g = newGroup(group)
		s.groups[group] = g
	}
	v := &view{store: s, group: g, index: g.index, term: g.term, revision: g.revision, indexes: g.indexes, next: g.data, upper: successor(g.data)}
	v.out.begin()
	for _, x := range v.indexes {
		v.out.definition(x.IndexDefinition)
	}
	g.views = append(g.views, v)
	return v, nil
}

// keep is called by a writer, under DB.mu, before it changes a key.
func (v *view) keep(key, old string, existed bool) {
	if v.expired != nil || key < v.next {
		return
	}
	v.over.keep(key, old, existed)
	if limit := v.store.opt.MaxViewBytes; v.over.bytes > limit {
		v.expire(fmt.Sprintf("more than %d bytes were overwritten", limit))
	}
}

func (v *view) expire(reason string) {
	v.expired = fmt.Errorf("%s: %w", reason, messages.ErrExpired)
	v.over = overlay{}
}

// live returns the views that writers have to care for.
func live(views []*view) []*view {
	return slices.DeleteFunc(views, func(v *view) bool { return v.expired != nil })
}

// Index returns the index and term of the last entry that the view includes.
func (v *view) Index() (index, term uint64) { return v.index, v.term }

// Revision is the version of the latest change that the view includes.
func (v *view) Revision() uint64 { return v.revision }

// Read yields the state stream. It is io.EOF after the end record, ErrExpired
// if the view was given up, ErrStopped if the store was closed.
func (v *view) Read(p []byte) (n int, err error) {
	v.reading.Lock()
	defer v.reading.Unlock()
	if v.closed {
		return 0, fmt.Errorf("kv: read view: it is closed: %w", messages.ErrExpired)
	}
	for len(p) > 0 {
		n, err = v.out.Read(p)
		if n > 0 || err == io.EOF {
			return n, err
		}
		if err := v.fill(); err != nil {
			return 0, fmt.Errorf("kv: read view: %w", err)
		}
	}
	return 0, nil
}

// fill reads the next slice of the data into out.
func (v *view) fill() error {
	s := v.store
	return s.view(v.group.id, func(tx *buntdb.Tx, _ *machine) error {
		if v.expired != nil {
			return v.expired
		}
		last, steps, full := "", 0, false
		emit := func(key, stored string, existed bool) {
			if existed {
				version, value := valueOf(stored)
				v.out.pair(key[len(v.group.data):], version, value)
			}
			last = key
			steps++
			full = steps == sliceKeys || v.out.buffered() >= sliceBytes
		}
		kept := v.over.head[0]
		walk(tx, v.next, v.upper, false, func(key, value string) bool {
			for ; kept != nil && kept.key < key && !full; kept = kept.next[0] {
				emit(kept.key, kept.old, kept.existed)
			}
			if full {
				return false
			}
			if kept != nil && kept.key == key {
				emit(key, kept.old, kept.existed)
				kept = kept.next[0]
			} else {
				emit(key, value, true)
			}
			return !full
		})
		for ; kept != nil && !full; kept = kept.next[0] {
			emit(kept.key, kept.old, kept.existed)
		}
		if !full {
			v.next = v.upper
			v.out.end(v.revision)
		} else {
			v.next = last + "\x00"
		}
		v.over.dropBefore(v.next)
		return nil
	})
}

// Close gives the view up. Closing it again does nothing.
func (v *view) Close() error {
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
		v.expire("the view is closed")
	}
	g := v.group
	g.views = live(g.views)
	if s.groups[g.id] == g && len(g.views) == 0 && g.keys == 0 && g.revision == 0 && len(g.indexes) == 0 {
		delete(s.groups, g.id) // it was there for views alone
	}
	return nil
}
