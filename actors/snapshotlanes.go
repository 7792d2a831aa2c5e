package actors

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// laneLoad is what a lane of the snapshot actor has to do. It outlives a failure
// of the actor, as the call that hangs in a lane does.
type laneLoad struct {
	jobs  atomic.Int32 // queued or running
	since atomic.Int64 // when the running one began, in Unix nanoseconds; 0: none
}

// laneBusy is how long a job takes after which no stream is put behind it, if
// there is another lane. A chunk takes milliseconds.
const laneBusy = time.Second

// callOf names the work that a command asks for.
func callOf(c messages.Command) Call {
	call := Call{Name: strings.TrimPrefix(fmt.Sprintf("%T", c), "messages.")}
	switch c := c.(type) {
	case messages.OpenSnapshot, messages.ExportSnapshot, messages.ImportSnapshot, messages.FinishSave,
		messages.VerifySnapshot, messages.CleanupSnapshots, messages.SetAsideSnapshot:
		call.Long = true // they read or sync a whole file
	case messages.BeginSave:
		call.Long = c.Resume
	}
	return call
}

// run has a lane do some work; see Host.Do.
func (b *snapshotBehavior) run(lane int, call Call, work func() (done func())) {
	l := &b.lanes[lane]
	l.jobs.Add(1)
	b.host.Do(lane, call, func() func() {
		l.since.Store(b.host.Now().UnixNano())
		defer func() {
			l.since.Store(0)
			l.jobs.Add(-1)
		}()
		return work()
	})
}

// The first lane opens and closes the store. As many as Lanes says are for
// streams and for what only reads, and as many again for changes.
func (b *snapshotBehavior) streamLane() int { return b.freeLane(1) }
func (b *snapshotBehavior) changeLane() int { return b.freeLane(1 + b.cfg.Lanes) }

// freeLane is the lane with the least to do, of those from first on.
func (b *snapshotBehavior) freeLane(first int) int {
	const behindAll = 1 << 20
	load := make([]int, len(b.lanes))
	now := b.host.Now().UnixNano()
	for i := range b.lanes {
		l := &b.lanes[i]
		load[i] = int(l.jobs.Load())
		if since := l.since.Load(); since != 0 && now-since > int64(laneBusy) {
			load[i] += behindAll
		}
	}
	for _, s := range b.streams.all {
		load[s.lane]++
	}
	best := first
	for i := first + 1; i < first+b.cfg.Lanes; i++ {
		if load[i] < load[best] {
			best = i
		}
	}
	return best
}

// changing is the lane that the changes of a group go through, while there are
// any.
type changing struct {
	lane, jobs int
}

// change answers a request that changes the set of snapshots of a group. Those of
// one group are done in order; one that hangs holds up its group, and others
// only if as many groups hang as there are lanes.
func (b *snapshotBehavior) change(r *Request, group uint64, f func() messages.Reply) {
	g := b.changes[group]
	if g == nil {
		g = &changing{lane: b.changeLane()}
		b.changes[group] = g
	}
	g.jobs++
	b.run(g.lane, callOf(r.Command), func() func() {
		reply := f()
		return func() {
			if g.jobs--; g.jobs == 0 {
				delete(b.changes, group)
			}
			r.Reply(reply)
		}
	})
}

// groupOf is the group that a snapshot or a file belongs to, by its name, whatever
// the command says; that of the command if the name says nothing.
func groupOf(name string, group uint64) uint64 {
	name, _, _ = strings.Cut(name, ".")
	if info, err := snapshot.ParseID(name[:min(len(name), snapshot.IDLength)]); err == nil {
		return info.Group
	}
	return group
}

// read answers a request that reads files and changes nothing. It gets a lane
// like a stream, so that it waits for no change that hangs, and nobody for it.
func (b *snapshotBehavior) read(r *Request, f func() messages.Reply) { b.workIn(b.streamLane(), r, f) }

func (b *snapshotBehavior) workIn(lane int, r *Request, f func() messages.Reply) {
	b.run(lane, callOf(r.Command), func() func() {
		reply := f()
		return func() { r.Reply(reply) }
	})
}
