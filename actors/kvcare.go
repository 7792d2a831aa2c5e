package actors

import (
	"errors"
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// CompactionPolicy paces the compaction of application data, which begins by
// itself when more of the file is garbage than kv.Options allow. That it is done
// is told by the event messages.DataFileReplaced.
type CompactionPolicy struct {
	// BytesPerSecond is the mean rate of writing. Default 64 MiB, which takes 5 to
	// 10 % of a core. A smaller one leaves more of the disk to others and lets the
	// file grow further meanwhile; negative: as fast as it goes.
	BytesPerSecond int64
	// Retry is how long it waits after a failure, such as a full disk. Default 10
	// seconds.
	Retry time.Duration
}

// Validate reports every field that makes no sense.
func (p CompactionPolicy) Validate() error {
	if p.Retry < 0 {
		return fmt.Errorf("CompactionPolicy.Retry is negative (%v): %w", p.Retry, messages.ErrInvalid)
	}
	return nil
}

func (p CompactionPolicy) withDefaults() CompactionPolicy {
	if p.BytesPerSecond == 0 {
		p.BytesPerSecond = 64 << 20
	}
	if p.Retry == 0 {
		p.Retry = 10 * time.Second
	}
	return p
}

// maintain has the store do what need not be on the way of a change, a piece at
// a time.
func (b *kvBehavior) maintain() {
	if b.maintaining || b.resting || !b.store.Due() {
		return
	}
	b.maintaining = true
	b.host.Do(kvCareLane, Call{"maintain", true}, func() func() {
		wrote, err := b.store.Maintain()
		return func() {
			b.maintaining = false
			b.maintained(wrote, err)
		}
	})
}

func (b *kvBehavior) maintained(wrote int64, err error) {
	if err == nil {
		b.delayed = false
		var wait time.Duration
		if rate := b.cfg.Compaction.BytesPerSecond; rate > 0 {
			wait = time.Duration(float64(wrote) / float64(rate) * float64(time.Second))
		}
		b.rest(wait)
		return
	}
	switch {
	case b.store.Poisoned():
		b.host.Fail(fmt.Errorf("%s: %w", b.host.PID().ID, err))
		return
	case errors.Is(err, messages.ErrStopped):
		return
	case errors.Is(err, messages.ErrCorrupt):
		b.host.Event(messages.DamageFound{Actor: b.host.PID().ID, Err: err})
	case !b.delayed: // told once, until it works again
		b.delayed = true
		b.host.Event(messages.MaintenanceDelayed{Actor: b.host.PID().ID, Err: err})
	}
	b.rest(b.cfg.Compaction.Retry)
}

// rest goes on with maintain after a while.
func (b *kvBehavior) rest(d time.Duration) {
	if d <= 0 {
		b.maintain()
		return
	}
	b.resting = true
	b.host.After(d, func() {
		b.resting = false
		b.maintain()
	})
}

// compact compacts the data on demand, as fast as it goes. One that is under way
// is brought to its end.
func (b *kvBehavior) compact(r *Request, c messages.CompactData) {
	b.host.Do(kvCareLane, Call{"compact", true}, func() func() {
		before, after, err := b.store.Compact()
		return func() {
			if b.failed(err) {
				return
			}
			r.Reply(messages.DataCompacted{Tag: c.Tag, Group: c.Group, Before: before, After: after, Err: err})
		}
	})
}
