package actors

import (
	"bytes"
	"fmt"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// watches are the watches of one application-data actor. They have no queues:
// what one has not asked for is in the store's history, once for all of them, and
// the watch knows up to where it was told.
//
// A watch that keeps up is found by the intervals when something happens under
// its keys. One that has asked for nothing then is behind: it reads the history
// from where it was told, in turns that leave the actor to others, until it has
// come to the end.
type watches struct {
	b      *kvBehavior
	leases *leases[*watch]
	groups map[uint64]*watchedGroup
	// gathered is what must not be told before the sync under way is over.
	gathered []happened
	// catching are watches that are behind and have asked.
	catching []*watch
	turn     bool // one of them has been asked for
	closed   bool
}

// watchedGroup is a group with watches.
type watchedGroup struct {
	id     uint64
	ranges intervals[*watch]
	all    map[uint64]*watch
	// told: those that keep up know everything up to this revision. gathered:
	// everything up to this one was gathered to be told.
	told, gathered uint64
}

// happened is what one call of the store has changed.
type happened struct {
	group   *watchedGroup
	changes []kv.Mutation
	upTo    uint64
}

type watch struct {
	lease
	group    *watchedGroup
	keys     keyRange
	previous bool
	keysOnly bool
	credit   int
	maxBytes int

	asked  []*Request // ReadChanges, oldest first
	after  uint64     // told up to here; further if it is not behind, and told is
	behind bool
	queued bool           // in catching
	out    []*kv.Mutation // of what is being told now
	over   error          // it has ended, and nobody was told
}

const (
	defaultWatchCredit = 2
	defaultWatchBytes  = 64 << 10
)

func newWatches(b *kvBehavior) *watches {
	ws := &watches{b: b, groups: make(map[uint64]*watchedGroup)}
	ws.leases = newLeases[*watch](b.host, b.cfg.Lease, b.cfg.MaxWatches, b.host.Fail)
	ws.leases.swept, ws.leases.expired = ws.progress, ws.leave
	return ws
}

// open begins a watch. Nothing that is not durable has been done to the store, and
// everything has been told.
func (ws *watches) open(r *Request, c messages.Watch) {
	if ws.leases.full(r) {
		return
	}
	w, err := newWatch(c)
	revision := ws.b.store.Revision(c.Group)
	since := c.Since
	if c.Now {
		since = revision
	}
	if err == nil && since > revision && !ws.b.cfg.Replicated {
		err = fmt.Errorf("the group is at revision %d, before %d: %w", revision, since, messages.ErrReplaced)
	}
	if err == nil {
		_, _, err = ws.b.store.Changes(c.Group, since, 1)
	}
	if err != nil {
		r.Fail(fmt.Errorf("%s: watch: %w", ws.b.host.PID().ID, err))
		return
	}
	g := ws.groups[c.Group]
	if g == nil {
		g = &watchedGroup{id: c.Group, all: make(map[uint64]*watch), told: revision, gathered: revision}
		ws.groups[c.Group] = g
	}
	w.group, w.after, w.behind = g, since, since < revision
	ws.leases.add(w)
	g.all[w.id] = w
	g.ranges.add(w.keys, w)
	r.Reply(messages.Watching{Tag: c.Tag, Group: c.Group, Watch: w.id, Revision: revision, Since: since, Credit: w.credit})
}

func newWatch(c messages.Watch) (*watch, error) {
	kinds := 0
	for _, used := range []bool{len(c.Key) > 0, len(c.Prefix) > 0, len(c.From) > 0 || c.To != nil} {
		if used {
			kinds++
		}
	}
	w := &watch{previous: c.WithPrevious && !c.KeysOnly, keysOnly: c.KeysOnly}
	switch {
	case kinds > 1:
		return nil, fmt.Errorf("more than one of a key, a prefix and a range: %w", messages.ErrInvalid)
	case max(len(c.Key), len(c.Prefix), len(c.From), len(c.To)) > messages.MaxKey:
		return nil, fmt.Errorf("a key of more than %d bytes: %w", messages.MaxKey, messages.ErrTooLarge)
	case c.Now && c.Since > 0:
		return nil, fmt.Errorf("now, and since revision %d: %w", c.Since, messages.ErrInvalid)
	case c.Credit < 0 || c.MaxBytes < 0:
		return nil, fmt.Errorf("credit %d, max bytes %d: %w", c.Credit, c.MaxBytes, messages.ErrInvalid)
	case len(c.Key) > 0:
		w.keys = single(string(c.Key))
	case len(c.Prefix) > 0:
		w.keys = keyRange{string(c.Prefix), after(c.Prefix)}
	default:
		w.keys = keyRange{string(c.From), bound{string(c.To), c.To == nil}}
	}
	if w.keys.empty() {
		return nil, fmt.Errorf("from %q to %q: there is no key between: %w", c.From, c.To, messages.ErrInvalid)
	}
	if w.credit = min(c.Credit, messages.MaxWatchCredit); w.credit == 0 {
		w.credit = defaultWatchCredit
	}
	if w.maxBytes = min(c.MaxBytes, messages.MaxWatchBytes); w.maxBytes == 0 {
		w.maxBytes = defaultWatchBytes
	}
	return w, nil
}

// after is the end of the keys with a prefix.
func after(prefix []byte) bound {
	p := bytes.TrimRight(prefix, "\xff")
	if len(p) == 0 {
		return bound{endless: true}
	}
	p = bytes.Clone(p)
	p[len(p)-1]++
	return bound{key: string(p)}
}

func (ws *watches) read(r *Request, c messages.ReadChanges) {
	w, ok := ws.leases.find(r, c.Watch, func(w *watch) bool { return w.group.id == c.Group })
	switch {
	case !ok:
	case ws.closed:
		r.Fail(fmt.Errorf("%s: %w", ws.b.host.PID().ID, messages.ErrStopped))
	case w.over != nil:
		ws.leases.remove(w)
		r.Fail(w.over)
	case len(w.asked) >= w.credit:
		r.Fail(fmt.Errorf("%s: watch %d has %d ReadChanges under way: %w", ws.b.host.PID().ID, w.id, w.credit, messages.ErrOverloaded))
	default:
		w.asked = append(w.asked, r)
		w.underWay++
		w.used = ws.b.host.Now()
		r.Park()
		switch {
		case w.behind:
			ws.catch(w)
		default:
			ws.hurry(w)
		}
	}
}

// hurry answers what does not wait, and what was asked before it. The watch is
// not behind.
func (ws *watches) hurry(w *watch) {
	for n := len(w.asked); n > 0; n-- {
		if w.asked[n-1].Command.(messages.ReadChanges).NoWait {
			for range n {
				ws.reply(w, nil, w.upTo())
			}
			return
		}
	}
}

// upTo is what a watch knows that keeps up.
func (w *watch) upTo() uint64 { return max(w.after, w.group.told) }

func (ws *watches) cancel(r *Request, c messages.CancelWatch) {
	w, ok := ws.leases.find(r, c.Watch, func(w *watch) bool { return w.group.id == c.Group })
	if !ok {
		return
	}
	ws.leave(w)
	ws.fail(w, fmt.Errorf("%s: watch %d was cancelled: %w", ws.b.host.PID().ID, w.id, messages.ErrNotFound))
	ws.leases.remove(w)
	r.Reply(messages.WatchCancelled{Tag: c.Tag, Group: c.Group})
}

// leave takes a watch out of its group.
func (ws *watches) leave(w *watch) {
	g := w.group
	if g.all[w.id] != w {
		return
	}
	delete(g.all, w.id)
	g.ranges.remove(w.keys, w)
	if len(g.all) == 0 {
		delete(ws.groups, g.id)
	}
}

// end ends a watch and tells its watcher, now or when it asks again.
func (ws *watches) end(w *watch, err error) {
	ws.leave(w)
	if len(w.asked) == 0 {
		w.over = err
		return
	}
	ws.fail(w, err)
	ws.leases.remove(w)
}

func (ws *watches) fail(w *watch, err error) {
	asked := w.asked
	w.asked, w.underWay = nil, 0
	for _, r := range asked {
		r.Fail(err)
	}
}

// replaced ends the watches of a group whose data is not what it was.
func (ws *watches) replaced(group uint64) {
	g := ws.groups[group]
	if g == nil {
		return
	}
	for _, id := range sortedKeys(g.all) {
		w := g.all[id]
		ws.end(w, fmt.Errorf("%s: watch %d: %w", ws.b.host.PID().ID, w.id, messages.ErrReplaced))
	}
}

// close answers what has been asked. Nothing more will be told.
func (ws *watches) close() {
	ws.closed = true
	for _, id := range sortedKeys(ws.leases.all) {
		ws.fail(ws.leases.all[id], fmt.Errorf("%s: %w", ws.b.host.PID().ID, messages.ErrStopped))
	}
}
