package actors

import (
	"sync/atomic"
	"time"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// kvMeasured is a store of application data that can say how much it holds, at
// any time and in no time to speak of.
type kvMeasured interface {
	Statistics() messages.KVStatistics
}

var _ kvMeasured = (*kv.DB)(nil)

// kvCounters outlive the behaviors of an actor. They are written in the actor or
// its jobs and read by anybody.
type kvCounters struct {
	applied, writes, reads, syncs atomic.Uint64
	views, txns, watches          atomic.Int64
	store                         atomic.Pointer[kvMeasured] // while it is open
}

// Statistics counts what the actor has done since it was spawned, and measures
// what the store holds. It is safe for concurrent use, and waits for nothing but
// a change that the store is making in memory.
func (k *KV) Statistics() messages.KVStatistics {
	c := &k.counters
	var s messages.KVStatistics
	if store := c.store.Load(); store != nil {
		s = (*store).Statistics()
	}
	s.Applied, s.Writes, s.Syncs = c.applied.Load(), c.writes.Load(), c.syncs.Load()
	s.Reads = c.reads.Load() + k.box.quickly.Load()
	s.Views, s.Transactions, s.Watches = int(c.views.Load()), int(c.txns.Load()), int(c.watches.Load())
	return s
}

// Withheld are the groups that the commands of others are refused for, and why.
// The map must not be changed.
func (k *KV) Withheld() map[uint64]error {
	if groups := k.withheld.Load(); groups != nil {
		return *groups
	}
	return nil
}

// gauge publishes how much is open.
func (b *kvBehavior) gauge() {
	set := func(g *atomic.Int64, n int) {
		if g.Load() != int64(n) { // a store would cost as much as all three loads
			g.Store(int64(n))
		}
	}
	set(&b.kv.counters.views, len(b.leases.all))
	set(&b.kv.counters.txns, len(b.txns.all))
	set(&b.kv.counters.watches, len(b.watches.leases.all))
}

// snapshotCounters outlive the behaviors of an actor; the lanes write them.
type snapshotCounters struct {
	savedCount, failed, opened atomic.Uint64
	writtenBytes, readBytes    atomic.Uint64
	writeNanos, readNanos      atomic.Uint64
	streams                    atomic.Int64
}

func (c *snapshotCounters) wrote(n int, took time.Duration) {
	c.writtenBytes.Add(uint64(n))
	c.writeNanos.Add(uint64(max(took, 0)))
}

func (c *snapshotCounters) read(n int, took time.Duration) {
	c.readBytes.Add(uint64(n))
	c.readNanos.Add(uint64(max(took, 0)))
}

// saved counts the end of a save or an import.
func (b *snapshotBehavior) saved(err error) {
	b.host.room(err)
	if err != nil {
		b.counters.failed.Add(1)
	} else {
		b.counters.savedCount.Add(1)
	}
}

// Statistics counts what the actor has done since it was spawned. It is safe for
// concurrent use.
func (a *Snapshot) Statistics() messages.SnapshotStatistics {
	c := &a.counters
	return messages.SnapshotStatistics{
		Saved: c.savedCount.Load(), Failed: c.failed.Load(), Opened: c.opened.Load(),
		WrittenBytes: c.writtenBytes.Load(), ReadBytes: c.readBytes.Load(),
		WriteNanos: c.writeNanos.Load(), ReadNanos: c.readNanos.Load(),
		Streams: int(c.streams.Load()),
	}
}
