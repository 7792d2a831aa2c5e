package actors

import (
	"fmt"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// queries are what can be read of a group's data: as it is now, or in a view.
type queries interface {
	Get(key []byte) (value []byte, version uint64, err error)
	MultiGet(keys [][]byte) (values [][]byte, versions []uint64, err error)
	Scan(q messages.Scan) (pairs []messages.Pair, next []byte, err error)
	CountKeys(q messages.Scan) (n int, next []byte, err error)
	Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error)
	Count(q messages.QueryIndex) (n int, next []byte, err error)
}

// latest is the data of a group as it is now.
type latest struct {
	kv.Store
	group uint64
}

func (l latest) Get(key []byte) ([]byte, uint64, error) { return l.Store.Get(l.group, key) }

func (l latest) MultiGet(keys [][]byte) ([][]byte, []uint64, error) {
	return l.Store.MultiGet(l.group, keys)
}

// viewOf is the view that a command reads in, or zero, and its group.
func viewOf(c messages.Command) (view, group uint64) {
	switch c := c.(type) {
	case messages.Get:
		return c.View, c.Group
	case messages.MultiGet:
		return c.View, c.Group
	case messages.Scan:
		return c.View, c.Group
	case messages.QueryIndex:
		return c.View, c.Group
	}
	return 0, 0
}

// answer reads; group is that of the command.
func answer(c messages.Command, of func(group uint64) queries) messages.Reply {
	switch c := c.(type) {
	case messages.Get:
		v, version, err := of(c.Group).Get(c.Key)
		return messages.Got{Tag: c.Tag, Group: c.Group, Value: v, Found: version > 0, Version: version, Err: err}
	case messages.MultiGet:
		vs, versions, err := of(c.Group).MultiGet(c.Keys)
		return messages.MultiGot{Tag: c.Tag, Group: c.Group, Values: vs, Versions: versions, Err: err}
	case messages.Scan:
		reply := messages.Scanned{Tag: c.Tag, Group: c.Group}
		if c.Count {
			reply.Count, reply.Next, reply.Err = of(c.Group).CountKeys(c)
		} else {
			reply.Pairs, reply.Next, reply.Err = of(c.Group).Scan(c)
			reply.Count = len(reply.Pairs)
		}
		return reply
	case messages.QueryIndex:
		reply := messages.IndexQueried{Tag: c.Tag, Group: c.Group}
		if c.Count {
			reply.Count, reply.Next, reply.Err = of(c.Group).Count(c)
		} else {
			reply.Pairs, reply.Next, reply.Err = of(c.Group).Query(c)
			reply.Count = len(reply.Pairs)
		}
		return reply
	}
	panic(fmt.Sprintf("actors: %T is not a read of a group's data", c))
}

func (b *kvBehavior) read(r *Request) {
	switch c := r.Command.(type) {
	case messages.ListIndexes:
		r.Reply(messages.IndexesListed{Tag: c.Tag, Group: c.Group, Indexes: b.store.Indexes(c.Group)})
	case messages.ListGroups:
		r.Reply(messages.GroupsListed{Tag: c.Tag, Group: c.Group, Groups: b.store.Groups()})
	case messages.ReadApplied:
		index, term := b.store.Applied(c.Group)
		r.Reply(messages.AppliedRead{Tag: c.Tag, Group: c.Group, Index: index, Term: term, Revision: b.store.Revision(c.Group), Keys: b.store.Keys(c.Group)})
	default:
		b.kv.counters.reads.Add(1)
		r.Reply(answer(c, func(group uint64) queries { return latest{b.store, group} }))
	}
}

// readView reads in a view. That is durable already, so no sync is waited for.
func (b *kvBehavior) readView(r *Request, id, group uint64) {
	a, ok := b.leases.find(r, id, func(a *access) bool { return isView(a) && a.group == group })
	if !ok {
		return
	}
	a.used = b.host.Now()
	b.kv.counters.reads.Add(1)
	r.Reply(answer(r.Command, func(uint64) queries { return a.view }))
}

func (b *kvBehavior) openView(r *Request, c messages.OpenView) {
	if b.leases.full(r) {
		return
	}
	a := &access{group: c.Group}
	opened := messages.ViewOpened{Tag: c.Tag, Group: c.Group}
	var err error
	if c.Export {
		if a.export, err = b.store.OpenExport(c.Group); err == nil {
			a.lease = lease{lane: kvExportLane, end: a.export.Close}
			opened.Index, opened.Term = a.export.Index()
			opened.Revision = a.export.Revision()
		}
	} else if a.view, err = b.store.OpenView(c.Group); err == nil {
		a.lease = lease{lane: kvExportLane, end: a.view.Close}
		opened.Index, opened.Term = a.view.Index()
		opened.Revision = a.view.Revision()
	}
	if err != nil {
		r.Fail(err)
		return
	}
	b.leases.add(a)
	opened.View = a.id
	r.Reply(opened)
}
