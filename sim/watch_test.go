package sim_test

import (
	"bytes"
	"errors"
	"maps"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// watcher rebuilds the data from what it is told, over every failure and every life
// of the service. What it has must be the data at every revision that it comes to.
type watcher struct {
	l    *life
	tag  uint64 // of the command that is under way; 0: none
	last uint64
	w    messages.Watching
	view uint64
	data []byte // of the view, as far as it was read
	// state is the data at revision known. Without one it has to be read.
	state map[string]string
	known uint64
	reads bool // the state has to be read again
	// waits: it asks for more at once and waits until something happens.
	waits bool
}

func (o *watcher) send(c *actor.Context, m messages.Command) {
	o.last++
	o.tag = o.last
	c.Send(o.l.storage.KV, m.WithTag(o.tag))
}

// step goes on, if nothing is under way: a watcher that is not told to is slow.
func (o *watcher) step(c *actor.Context) {
	switch {
	case o.tag != 0 || o.l.h.ghosts:
	case o.reads:
		o.send(c, messages.OpenView{Export: true})
	case o.w.Watch == 0:
		o.send(c, messages.Watch{Since: o.known, MaxBytes: 500})
	default:
		o.send(c, messages.ReadChanges{Watch: o.w.Watch, NoWait: !o.waits})
	}
}

func (o *watcher) Receive(c *actor.Context) {
	if _, ok := c.Message().(proceed); ok {
		o.step(c)
		return
	}
	r, ok := c.Message().(messages.Reply)
	if !ok || o.l.h.ghosts {
		return
	}
	if r.ReplyTag() != o.tag {
		o.l.w.Fail("the watcher got a reply to #%d and waits for #%d: a second reply?", r.ReplyTag(), o.tag)
		return
	}
	o.tag = 0
	if err := r.Failure(); err != nil {
		o.failed(err)
		return
	}
	switch m := r.(type) {
	case messages.Watching:
		if o.w = m; o.waits {
			o.step(c)
		}
	case messages.Changes:
		if o.follow(m); o.waits {
			o.step(c)
		}
	case messages.ViewOpened:
		o.view, o.known, o.data = m.View, m.Revision, nil
		o.send(c, messages.ExportChunk{View: o.view})
	case messages.ChunkExported:
		if o.data = append(o.data, m.Data...); !m.EOF {
			o.send(c, messages.ExportChunk{View: o.view})
			return
		}
		o.load()
		o.send(c, messages.CloseView{View: o.view})
	}
}

func (o *watcher) failed(err error) {
	o.w = messages.Watching{}
	for _, again := range []error{messages.ErrCompacted, messages.ErrReplaced} {
		if errors.Is(err, again) {
			o.reads = true
			o.l.h.tally.Rescans++
			return
		}
	}
	for _, normal := range []error{messages.ErrNotFound, messages.ErrCrashed, messages.ErrInDoubt,
		messages.ErrUnavailable, messages.ErrStopped, messages.ErrOverloaded, messages.ErrExpired} {
		if errors.Is(err, normal) {
			return
		}
	}
	o.l.w.Fail("the watcher: %v", err)
}

// follow does what it is told. One entry is one revision, and its index.
func (o *watcher) follow(m messages.Changes) {
	if m.Revision < o.known {
		o.l.w.Fail("the watcher was at revision %d and is told up to %d", o.known, m.Revision)
	}
	for i, e := range m.Events { // those of one revision are in one message
		if e.Version <= o.known || e.Version > m.Revision {
			o.l.w.Fail("the watcher is at revision %d and is told %v, up to %d", o.known, e, m.Revision)
		}
		if i == 0 || m.Events[i-1].Version < e.Version {
			o.at(e.Version - 1)
		}
		if e.Kind == messages.EventPut {
			o.state[string(e.Key)] = string(e.Value)
		} else {
			delete(o.state, string(e.Key))
		}
		if i == len(m.Events)-1 || m.Events[i+1].Version > e.Version {
			o.at(e.Version)
			o.known = e.Version
		}
		o.l.h.tally.Told++
	}
	o.at(m.Revision)
	o.known = m.Revision
	o.l.h.state, o.l.h.known = maps.Clone(o.state), o.known // for the next life
}

// at compares the state with the entries that were applied up to a revision.
func (o *watcher) at(revision uint64) {
	want := o.l.h.at(revision)
	if want == nil || !maps.Equal(o.state, want.data) {
		o.l.w.Fail("at revision %d the watcher has %q, and should have %+v", revision, o.state, want)
	}
}

// load takes the state that was read.
func (o *watcher) load() {
	s, err := kv.OpenState(bytes.NewReader(o.data), int64(len(o.data)))
	if err != nil {
		o.l.w.Fail("the watcher: %v", err)
		return
	}
	o.state, o.reads = map[string]string{}, false
	for p, err := range s.Range(nil, nil) {
		if err != nil {
			o.l.w.Fail("the watcher: %v", err)
			return
		}
		o.state[string(p.Key)] = string(p.Value)
	}
	o.at(o.known)
}
