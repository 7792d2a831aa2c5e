package kv

import (
	"fmt"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// view is a group's data as it was when the view was opened: the store, with what
// has been overwritten since put back from the history of the group.
type view struct {
	reads
	store       *DB
	group       *machine
	index, term uint64
	revision    uint64
	indexes     []index
	time        uint64 // in the history

	// over is why the view has ended; guarded by DB.mu.
	over error
}

// OpenView opens a view of a group's data as it is now. It costs nothing but what
// is overwritten while it is open, and that is kept once for all views.
func (s *DB) OpenView(group uint64) (View, error) {
	v, err := s.openView(group)
	if err != nil {
		return nil, fmt.Errorf("kv: open view: %w", err)
	}
	return v, nil
}

func (s *DB) openView(group uint64) (*view, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.viewed(group)
	if err != nil {
		return nil, err
	}
	v := &view{store: s, group: g, index: g.index, term: g.term, revision: g.revision, indexes: g.indexes}
	v.reads = reads{group: group, in: v.in}
	g.history.open(v)
	return v, nil
}

// viewed returns the group, which exists as long as views of it do.
func (s *DB) viewed(id uint64) (*machine, error) {
	if s.closed {
		return nil, messages.ErrStopped
	}
	if s.poison != nil {
		// What is in memory may be more than what the disk will remember.
		return nil, s.unwritable()
	}
	g := s.groups[id]
	if g == nil {
		g = newGroup(id, s.tree)
		s.groups[id] = g
	}
	return g, nil
}

// forget removes a group that was there for views alone.
func (s *DB) forget(g *machine) {
	if s.groups[g.id] == g && g.db == s.tree && len(g.exports) == 0 && len(g.history.views) == 0 && g.blank() {
		delete(s.groups, g.id)
	}
}

// blank reports whether nothing was ever done to the group: it is there for
// views alone.
func (g *machine) blank() bool {
	return g.keys == 0 && g.revision == 0 && g.index == 0 && len(g.indexes) == 0
}

// in calls fn with what the view sees.
func (v *view) in(fn func(src source, indexes []index) error) error {
	return v.store.view(v.group.id, func(tx *buntdb.Tx, _ *machine) error {
		if v.over != nil {
			return v.over
		}
		return fn(then{now{tx}, &v.group.history, v.time}, v.indexes)
	})
}

// expire ends a view, under DB.mu.
func (v *view) expire(reason string) {
	v.over = fmt.Errorf("%s: %w", reason, messages.ErrExpired)
	v.group.history.end(v)
}

// shrink expires the oldest views until the rest of them needs no more memory
// than it may.
func (s *DB) shrink(h *history) {
	for h.bytes > s.opt.MaxViewBytes && len(h.views) > 0 {
		h.views[0].expire(fmt.Sprintf("more than %d bytes were overwritten", s.opt.MaxViewBytes))
	}
}

// Index returns the index and term of the last entry that the view includes.
func (v *view) Index() (index, term uint64) { return v.index, v.term }

// Revision is the version of the latest change that the view includes.
func (v *view) Revision() uint64 { return v.revision }

// Close gives the view up. Closing it again does nothing.
func (v *view) Close() error {
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.over == nil {
		v.expire("the view is closed")
		s.forget(v.group)
	}
	return nil
}
