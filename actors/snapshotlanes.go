package actors

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ballast-raft/ballast/messages"
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

// run has a lane do some work for a command; see Host.Run.
func (b *snapshotBehavior) run(lane int, c messages.Command, work func() (done func())) {
	l := &b.lanes[lane]
	l.jobs.Add(1)
	b.host.Do(lane, callOf(c), func() func() {
		l.since.Store(b.host.Now().UnixNano())
		defer func() {
			l.since.Store(0)
			l.jobs.Add(-1)
		}()
		return work()
	})
}

// freeLane is the lane with the least to do. The first is not for streams.
func (b *snapshotBehavior) freeLane() int {
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
	best := 1
	for i := 2; i < len(load); i++ {
		if load[i] < load[best] {
			best = i
		}
	}
	return best
}

// work answers a request from the first lane, where what changes the set of
// snapshots is done in order.
func (b *snapshotBehavior) work(r *Request, f func() messages.Reply) { b.workIn(0, r, f) }

// read answers a request that reads files and changes nothing. It gets a lane
// like a stream, so that it waits for no change that hangs, and nobody for it.
func (b *snapshotBehavior) read(r *Request, f func() messages.Reply) { b.workIn(b.freeLane(), r, f) }

func (b *snapshotBehavior) workIn(lane int, r *Request, f func() messages.Reply) {
	b.run(lane, r.Command, func() func() {
		reply := f()
		return func() { r.Reply(reply) }
	})
}
