package supervisor

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// retaining is the end of a CreateSnapshot: which snapshots go, and with them
// which entries.
//
// To fall back on a snapshot takes its bytes and every entry after it. So only
// those count towards Retention.Keep that were just read whole, hold application
// data, and that the log goes on from, and the log is compacted to the oldest that stays. A damaged one
// neither counts nor holds the log: if the last but one of two has rotted, the
// one before it stays, and the log from there on. What was not read, because
// enough that count are newer, or because Keep sets no bound, can hold the log
// but does not release it.
//
// The price is one more reading of Keep-1 snapshots, at the rate of Verify.
type retaining struct {
	t      *taking
	bounds messages.LogBounds
	// useless are the ids of those that nobody can fall back on.
	useless map[string]bool
}

func retain(t *taking) {
	w := &retaining{t: t, useless: make(map[string]bool)}
	t.s.bounds(t.c.Group, t.fail, func(b messages.LogBounds) {
		w.bounds = b
		w.list(func(l messages.SnapshotsListed) {
			for _, d := range l.Damaged {
				w.tell(d)
			}
			w.count(l.Snapshots)
		})
	})
}

func (w *retaining) list(then func(messages.SnapshotsListed)) {
	call(w.t.s, w.t.s.parts.snapshot.PID(), messages.ListSnapshots{Group: w.t.c.Group}, w.t.fail, func(l messages.SnapshotsListed) {
		if l.Err != nil {
			w.t.fail(l.Err)
			return
		}
		then(l)
	})
}

func (w *retaining) tell(err error) {
	w.t.s.host.Event(messages.DamageFound{Actor: w.t.s.parts.snapshot.PID().ID, Err: err})
}

// count finds, from the newest on, as many that can be fallen back on as are to
// be kept, and how many snapshots that are with the others between them.
func (w *retaining) count(all []messages.SnapshotInfo) {
	r := w.t.s.retention
	if r.Keep == 0 {
		w.clean(r)
		return
	}
	good := 0
	var next func(i int)
	next = func(i int) {
		if good == r.Keep || i == len(all) {
			r.Keep = max(i, 1) // none goes by number before enough are found
			w.clean(r)
			return
		}
		w.judge(all[i], func(use bool) {
			if use {
				good++
			} else {
				w.useless[all[i].ID] = true
			}
			next(i + 1)
		})
	}
	next(0)
}

// judge reports whether a snapshot can be fallen back on.
func (w *retaining) judge(info messages.SnapshotInfo, then func(use bool)) {
	t := w.t
	t.s.fit(w.bounds, info, t.fail, func(f fit) {
		switch {
		case f == apart && info.ID == t.info.ID:
			t.fail(fmt.Errorf("the data does not agree with the log: %w", t.s.apartError(info, w.bounds, t.info.Index)))
			return
		case f == apart:
			t.s.tellApart(info, w.bounds, t.info.Index)
		}
		if f != within || info.ID == t.info.ID { // which was read a moment ago
			then(f == within)
			return
		}
		call(t.s, t.s.parts.snapshot.PID(), messages.VerifySnapshot{Group: t.c.Group, ID: info.ID}, t.fail, func(v messages.SnapshotVerified) {
			switch {
			case v.Err == nil:
				w.holdsData(info, then)
			case errors.Is(v.Err, messages.ErrCorrupt):
				w.tell(v.Err)
				then(false)
			case missing(v.Err): // deleted since it was listed
				then(false)
			default:
				t.fail(v.Err)
			}
		})
	})
}

// holdsData reports whether a snapshot that was just read whole is one of
// application data, and not somebody's own.
func (w *retaining) holdsData(info messages.SnapshotInfo, then func(bool)) {
	t, snap := w.t, w.t.s.parts.snapshot.PID()
	call(t.s, snap, messages.OpenSnapshot{Group: info.Group, ID: info.ID, Random: true}, t.fail, func(o messages.SnapshotOpened) {
		switch {
		case missing(o.Err): // deleted since it was read
			then(false)
			return
		case o.Err != nil:
			t.fail(o.Err)
			return
		}
		call(t.s, snap, messages.ReadChunk{Group: info.Group, Stream: o.Stream, MaxBytes: 8}, t.fail, func(c messages.ChunkRead) {
			t.s.tell(snap, messages.CloseSnapshot{Group: info.Group, Stream: o.Stream})
			if c.Err != nil {
				t.fail(c.Err)
				return
			}
			then(kv.IsState(c.Data))
		})
	})
}

// clean removes what is to go, and compacts the log to what stays.
func (w *retaining) clean(r messages.Retention) {
	t := w.t
	call(t.s, t.s.parts.snapshot.PID(), messages.CleanupSnapshots{Group: t.c.Group, Retention: r}, t.fail, func(m messages.SnapshotsCleanedUp) {
		switch {
		case errors.Is(m.Err, messages.ErrCorrupt):
			// It tells of damaged files that it leaves alone. Whatever else it
			// could not remove is listed again, and holds the log.
			w.tell(m.Err)
		case m.Err != nil:
			t.fail(m.Err)
			return
		}
		w.list(func(l messages.SnapshotsListed) {
			oldest, found := t.info.Index, false
			for _, info := range l.Snapshots {
				found = found || info.ID == t.info.ID
				if !w.useless[info.ID] && info.Index+1 >= w.bounds.First {
					oldest = min(oldest, info.Index)
				}
			}
			if !found { // deleted by hand: the log may be all there is
				t.fail(fmt.Errorf("snapshot %s is gone: %w", t.info.ID, messages.ErrNotFound))
				return
			}
			t.compact(oldest)
		})
	})
}
