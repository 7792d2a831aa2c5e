package actors

import (
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// SyncPolicy says when changes of a log, or direct writes of application data, are
// made durable, and with that what the reply to one promises. The zero value is
// SyncAlways.
//
// A panic or a kill takes nothing away under any of them. With the lazy ones the
// loss of power may: a suffix of the changes, never a part of one. A consensus
// engine whose log is lazy may then vote twice in a term, and forget what it has
// acknowledged: its node has to join anew after a loss of power. Apply is not
// concerned, since the log has the entries.
type SyncPolicy struct {
	Mode SyncMode
	// Every is how long after a change SyncInterval begins to sync it. Default
	// 100 ms. What is lost with the power is at most what was written in that
	// time and during the last two syncs. A shorter one loses less and leaves
	// less of the disk to others. What comes to a log during such a sync waits for
	// it.
	Every time.Duration
}

// SyncMode is a kind of SyncPolicy.
type SyncMode uint8

const (
	// SyncAlways answers a change when it is on disk.
	SyncAlways SyncMode = iota
	// SyncInterval answers a change when the kernel has it, and syncs it within
	// an interval. A sync that fails is told by the event messages.ActorFailed
	// alone: the changes before it were answered.
	SyncInterval
	// SyncNever answers a change when the kernel has it, and leaves the disk to
	// the kernel, some 30 seconds, until the actor is stopped; of a log also until
	// a segment is full.
	SyncNever
)

// Validate reports every field that makes no sense, as ErrInvalid.
func (p SyncPolicy) Validate() error {
	if p.Mode > SyncNever || p.Every < 0 || p.Every > 0 && p.Mode != SyncInterval {
		return fmt.Errorf("SyncPolicy has mode %d and interval %v: %w", p.Mode, p.Every, messages.ErrInvalid)
	}
	return nil
}

func (p SyncPolicy) withDefaults() SyncPolicy {
	if p.Mode == SyncInterval && p.Every == 0 {
		p.Every = 100 * time.Millisecond
	}
	return p
}
