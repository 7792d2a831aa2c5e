package actors

import (
	"fmt"
	"math"
	"slices"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

const (
	// tellChanges and tellWatches bound what is told at once, and turnWork what
	// watches that are behind look at in one turn: other commands wait no longer
	// than that (1 ms or so). Further watches are behind, and have their turns.
	tellChanges = 1024
	tellWatches = 512
	turnWork    = 4096
	// replyWork is what a reply costs, in changes that are looked at.
	replyWork = 32
)

// gather takes what the latest call has changed in a group. It is told now, or
// when release is called if the store has yet to be synced.
func (ws *watches) gather(group uint64, durable bool) {
	g := ws.groups[group]
	if g == nil {
		return
	}
	changes, upTo, err := ws.b.store.Changes(group, g.gathered, math.MaxInt)
	if err != nil {
		for _, id := range sortedKeys(g.all) {
			ws.end(g.all[id], fmt.Errorf("%s: watch %d: %w", ws.b.host.PID().ID, id, err))
		}
		return
	}
	g.gathered = upTo
	if h := (happened{g, changes, upTo}); durable && len(ws.gathered) == 0 {
		ws.tell(h)
	} else {
		h.changes = slices.Clone(changes) // the next Write may come before
		ws.gathered = append(ws.gathered, h)
	}
}

// release tells what was gathered: it is durable.
func (ws *watches) release() {
	gathered := ws.gathered
	ws.gathered = nil
	for _, h := range gathered {
		ws.tell(h)
	}
}

// tell hands changes to the watches that keep up and have asked.
func (ws *watches) tell(h happened) {
	for len(h.changes) > tellChanges {
		n := tellChanges
		for n < len(h.changes) && h.changes[n].Revision == h.changes[n-1].Revision {
			n++
		}
		if n == len(h.changes) {
			break
		}
		ws.tellSome(happened{h.group, h.changes[:n], h.changes[n-1].Revision})
		h.changes = h.changes[n:]
	}
	ws.tellSome(h)
}

func (ws *watches) tellSome(h happened) {
	var found []*watch
	for i := range h.changes {
		c := &h.changes[i]
		h.group.ranges.at(c.Key, func(w *watch) {
			switch {
			case w.behind || c.Revision <= w.after:
			case len(w.out) > 0:
				w.out = append(w.out, c)
			case len(w.asked) == 0 || len(found) >= tellWatches:
				w.behind, w.after = true, max(w.upTo(), c.Revision-1)
				if len(w.asked) > 0 {
					ws.catch(w)
				}
			default:
				w.out = append(w.out, c)
				found = append(found, w)
			}
		})
	}
	h.group.told = h.upTo
	for _, w := range found {
		ws.hand(w, h.upTo)
	}
}

// hand sends what was found for a watch, as far as it has asked.
func (ws *watches) hand(w *watch, upTo uint64) {
	out := w.out
	w.out = nil
	for len(out) > 0 && len(w.asked) > 0 {
		n := w.fit(out)
		if n == len(out) {
			ws.reply(w, out, upTo)
		} else {
			ws.reply(w, out[:n], out[n-1].Revision)
		}
		out = out[n:]
	}
	w.behind = len(out) > 0
}

// fit is how many changes go into one message: whole revisions, and at least one.
func (w *watch) fit(out []*kv.Mutation) (n int) {
	bytes := 0
	for i := 0; i < len(out); {
		end := i
		for ; end < len(out) && out[end].Revision == out[i].Revision; end++ {
			bytes += w.size(out[end])
		}
		if n > 0 && bytes > w.maxBytes {
			return n
		}
		n, i = end, end
	}
	return n
}

// payload is what an event holds of a change.
func (w *watch) payload(c *kv.Mutation) (value, previous string) {
	if !w.keysOnly {
		value, _ = c.Value()
	}
	if w.previous {
		previous, _ = c.Previous()
	}
	return value, previous
}

func (w *watch) size(c *kv.Mutation) int {
	value, previous := w.payload(c)
	return len(c.Key) + len(value) + len(previous) + messages.WatchEventBytes
}

// reply answers the oldest ReadChanges. The events are the watcher's own.
func (ws *watches) reply(w *watch, out []*kv.Mutation, upTo uint64) {
	r := w.asked[0]
	w.asked = slices.Delete(w.asked, 0, 1)
	w.after = upTo
	ws.leases.settle(w, nil)
	m := messages.Changes{Tag: r.Command.RequestTag(), Group: w.group.id, Watch: w.id, Revision: upTo}
	if len(out) > 0 {
		bytes := 0
		for _, c := range out {
			bytes += w.size(c) - messages.WatchEventBytes
		}
		memory := make([]byte, 0, bytes)
		own := func(s string) []byte {
			from := len(memory)
			memory = append(memory, s...)
			return memory[from:len(memory):len(memory)]
		}
		m.Events = make([]messages.WatchEvent, len(out))
		for i, c := range out {
			e := messages.WatchEvent{Kind: messages.EventDelete, Key: own(c.Key), Version: c.Revision}
			value, previous := w.payload(c)
			if _, ok := c.Value(); ok {
				e.Kind = messages.EventPut
				if !w.keysOnly {
					e.Value = own(value)
				}
			}
			if _, e.PreviousVersion = c.Previous(); w.previous && e.PreviousVersion > 0 {
				e.Previous = own(previous)
			}
			m.Events[i] = e
		}
	}
	r.Reply(m)
}

// catch has a watch that is behind read the history, when it is its turn.
func (ws *watches) catch(w *watch) {
	if !w.queued {
		w.queued = true
		ws.catching = append(ws.catching, w)
	}
	if !ws.turn {
		ws.turn = true
		ws.b.host.Yield(ws.turns)
	}
}

// turns serves watches that are behind until enough was done for one turn.
func (ws *watches) turns() {
	ws.turn = false
	work := turnWork
	for work > 0 && len(ws.catching) > 0 {
		w := ws.catching[0]
		ws.catching[0] = nil
		ws.catching = ws.catching[1:]
		w.queued = false
		work -= ws.catchUp(w, work)
		if w.behind && len(w.asked) > 0 {
			ws.catch(w)
		}
	}
	if len(ws.catching) > 0 && !ws.turn {
		ws.catch(ws.catching[0])
	}
}

// catchUp answers one ReadChanges of a watch from the history, if there is
// something within what may be looked at. It returns the work that was done.
func (ws *watches) catchUp(w *watch, most int) (work int) {
	if !w.behind || len(w.asked) == 0 {
		return 1
	}
	// No more than gets into a message, if all of it is this watch's.
	most = min(most, 1+w.maxBytes/messages.WatchEventBytes)
	changes, upTo, err := ws.b.store.Changes(w.group.id, w.after, most)
	if err != nil {
		ws.end(w, fmt.Errorf("%s: watch %d: %w", ws.b.host.PID().ID, w.id, err))
		return 1
	}
	upTo = min(upTo, w.group.told)
	for i := range changes {
		if c := &changes[i]; c.Revision <= upTo && w.keys.contains(c.Key) {
			w.out = append(w.out, c)
		}
	}
	out := w.out
	w.out = nil
	work = 1 + len(changes)
	if n := w.fit(out); n < len(out) {
		ws.reply(w, out[:n], out[n-1].Revision)
		return work + replyWork
	}
	w.behind = upTo < w.group.told
	if w.after = upTo; len(out) > 0 {
		ws.reply(w, out, upTo)
		work += replyWork
	}
	if !w.behind {
		ws.hurry(w)
	}
	return work
}

// progress tells a watcher that has waited for half of its lease that nothing has
// happened. One that is alive asks again; one that is gone does not, and its lease
// runs out.
func (ws *watches) progress(w *watch) {
	if len(w.asked) > 0 && !w.behind && ws.b.host.Now().Sub(w.used) >= ws.leases.idle/2 {
		ws.reply(w, nil, w.upTo())
	}
}
