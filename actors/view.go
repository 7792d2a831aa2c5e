package actors

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// View reads a group's data at one point in time, for code outside of actors. It
// holds a lease of the application-data actor, so it has to be used and closed.
// Any number of goroutines may use it. After ErrExpired, or when the actor has
// failed (ErrNotFound, ErrCrashed), another has to be opened.
type View struct {
	reading
	// Index and Term of the last entry that the view includes, and Revision,
	// the version of its latest change.
	Index, Term, Revision uint64
}

// OpenView opens a view of a group's data as it is now. The context is for all
// that is done with it.
func OpenView(ctx context.Context, a *Asker, pid *actor.PID, group uint64) (*View, error) {
	r, err := Ask[messages.ViewOpened](ctx, a, pid, messages.OpenView{Group: group})
	if err != nil {
		return nil, fmt.Errorf("actors: open view: %w", err)
	}
	return &View{reading{ctx: ctx, asker: a, pid: pid, group: group, view: r.View}, r.Index, r.Term, r.Revision}, nil
}

// Close closes the view. One that has ended already is no error.
func (v *View) Close() error {
	p, err := v.asker.post(v.pid, messages.CloseView{Group: v.group, View: v.view})
	if err == nil {
		_, err = await[messages.ViewClosed](v.ctx, p)
	}
	if err != nil && v.ctx.Err() == nil && !viewGone(err) { // otherwise it is on its way
		return fmt.Errorf("actors: close view: %w", err)
	}
	return nil
}

// viewGone reports whether an error says that a view is not there any more.
func viewGone(err error) bool {
	for _, target := range []error{messages.ErrNotFound, messages.ErrExpired, messages.ErrCrashed, messages.ErrStopped} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// reading is what a view and a transaction are read with.
type reading struct {
	ctx   context.Context
	asker *Asker
	pid   *actor.PID
	group uint64
	// one of them
	view, txn uint64
}

// Get returns the value and the version of a key, nil and zero if there is no
// such key.
func (r *reading) Get(key []byte) (value []byte, version uint64, err error) {
	got, err := Ask[messages.Got](r.ctx, r.asker, r.pid, messages.Get{Group: r.group, View: r.view, Txn: r.txn, Key: key})
	return got.Value, got.Version, err
}

// MultiGet returns the values and versions of several keys.
func (r *reading) MultiGet(keys ...[]byte) (values [][]byte, versions []uint64, err error) {
	got, err := Ask[messages.MultiGot](r.ctx, r.asker, r.pid, messages.MultiGet{Group: r.group, View: r.view, Txn: r.txn, Keys: keys})
	return got.Values, got.Versions, err
}

// All yields all pairs in order. An error is the last that is yielded.
func (r *reading) All() iter.Seq2[messages.Pair, error] { return r.Scan(messages.Scan{}) }

// Scan yields the pairs that the command asks for, page after page: its Limit
// bounds all of them together, none if it is zero, and MaxBytes bounds a page.
func (r *reading) Scan(q messages.Scan) iter.Seq2[messages.Pair, error] {
	q.Group, q.View, q.Txn, q.Count = r.group, r.view, r.txn, false
	return pages(q.Limit, func(limit int) ([]messages.Pair, bool, error) {
		q.Limit = limit
		page, err := Ask[messages.Scanned](r.ctx, r.asker, r.pid, q)
		q.Cursor = page.Next
		return page.Pairs, page.Next != nil, err
	})
}

// Query yields the pairs that the command asks for, as Scan does.
func (r *reading) Query(q messages.QueryIndex) iter.Seq2[messages.Pair, error] {
	q.Group, q.View, q.Txn = r.group, r.view, r.txn
	return pages(q.Limit, func(limit int) ([]messages.Pair, bool, error) {
		q.Limit = limit
		page, err := Ask[messages.IndexQueried](r.ctx, r.asker, r.pid, q)
		q.Cursor = page.Next
		return page.Pairs, page.Next != nil, err
	})
}

// Count returns how many pairs Scan would yield.
func (r *reading) Count(q messages.Scan) (n int, err error) {
	q.Group, q.View, q.Txn, q.Count = r.group, r.view, r.txn, true
	for limit := q.Limit; ; {
		page, err := Ask[messages.Scanned](r.ctx, r.asker, r.pid, q)
		if err != nil {
			return 0, err
		}
		n += page.Count
		if page.Next == nil || limit > 0 && n >= limit {
			return n, nil
		}
		q.Cursor = page.Next
		if limit > 0 {
			q.Limit = limit - n
		}
	}
}

// pages yields what ask returns until it says that there is no more.
func pages(limit int, ask func(limit int) (pairs []messages.Pair, more bool, err error)) iter.Seq2[messages.Pair, error] {
	return func(yield func(messages.Pair, error) bool) {
		for n := 0; ; {
			rest := 0
			if limit != 0 {
				rest = limit - n
			}
			pairs, more, err := ask(rest)
			if err != nil {
				yield(messages.Pair{}, err)
				return
			}
			for _, p := range pairs {
				if !yield(p, nil) {
					return
				}
			}
			if n += len(pairs); !more || n == limit {
				return
			}
		}
	}
}
