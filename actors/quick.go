package actors

import (
	"runtime"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// Quick is a Behavior that can answer some commands beside everything else that
// it does, without waiting for anything: an Ask is then answered in the goroutine
// that asks, without a hop, while the actor is serving.
type Quick interface {
	// Quick returns nil for what has to go through the actor, and whenever it is
	// in doubt. It is called at any time, by many goroutines, also a moment after
	// the Behavior has failed, until Close begins to return errors.
	Quick(messages.Command) messages.Reply
}

// atOnce answers a command without the actor, or returns nil. A panic is left to
// the actor: it does the same once more, and fails.
func (m *Mailbox) atOnce(c messages.Command) (reply messages.Reply) {
	quick := m.quick.Load()
	if quick == nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			reply = nil
		}
	}()
	if reply = (*quick)(c); reply != nil {
		m.quickly.Add(1)
		// Whoever reads without a pause never waits, and on two processors the
		// changes beside it would.
		runtime.Gosched()
	}
	return reply
}

// cachedReader is a Store that can read an entry without waiting for the disk.
type cachedReader interface {
	CachedEntry(group, index uint64) (messages.Entry, bool)
}

var _ cachedReader = (*raftlog.WAL)(nil)

// Quick implements Quick: the store may be read beside everything else, and what
// the page cache holds needs neither the actor nor a worker. A store that was
// closed has nothing cached.
func (b *logBehavior) Quick(c messages.Command) messages.Reply {
	read, ok := c.(messages.ReadEntry)
	if !ok {
		return nil
	}
	store, ok := b.store.(cachedReader)
	if !ok {
		return nil
	}
	e, ok := store.CachedEntry(read.Group, read.Index)
	if !ok {
		return nil
	}
	return messages.EntryRead{Tag: read.Tag, Group: read.Group, Entry: e}
}
