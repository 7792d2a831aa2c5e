package supervisor

import (
	"fmt"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// restore is the flow behind messages.Restore:
//
//  1. verify the snapshot whole, before anything is changed;
//  2. hold the application data, so that nobody sees it on its way, and let
//     what is being appended and applied come to an end;
//  3. import the snapshot: one swap, the old state or the new one;
//  4. replay the log after it up to the commit index, or, with Discard, reset
//     the log behind it, as discarding says;
//  5. serve.
//
// A crash between 3 and the end of 4 leaves an older state and a log that
// reaches further: the next recovery replays it, as if there had been no
// Restore, or finishes the Discard. Nothing is ever lost that was not to be
// discarded. A reply that matches ErrInDoubt comes if that recovery decides.
func (s *supervisor) restore(r *actors.Request, c messages.Restore) {
	g := s.group(c.Group)
	if c.Discard && g.snapshotting {
		r.Fail(fmt.Errorf("%s: restore: a snapshot of what would be discarded is being taken: %w", s.host.PID().ID, messages.ErrConflict))
		return
	}
	if g.pauses > 0 {
		r.Fail(fmt.Errorf("%s: restore: another one of group %d is under way, or its recovery: %w", s.host.PID().ID, c.Group, messages.ErrConflict))
		return
	}
	if s.restoring != nil {
		r.Fail(fmt.Errorf("%s: restore: another group is being restored: %w", s.host.PID().ID, messages.ErrConflict))
		return
	}
	t := &restoring{s: s, r: r, c: c, g: g, resume: s.pause(g)}
	snap := s.parts.snapshot.PID()
	call(s, snap, messages.OpenSnapshot{Group: c.Group, ID: c.ID}, t.refuse, func(o messages.SnapshotOpened) {
		if o.Err != nil {
			t.refuse(o.Err)
			return
		}
		s.tell(snap, messages.CloseSnapshot{Group: c.Group, Stream: o.Stream})
		t.id = o.Info.ID
		call(s, s.parts.log.PID(), messages.ReadBounds{Group: c.Group}, t.refuse, func(b messages.BoundsRead) {
			switch {
			case b.Err != nil:
				t.refuse(b.Err)
			case o.Info.Group != c.Group:
				t.refuse(fmt.Errorf("snapshot %s is of group %d: %w", o.Info.ID, o.Info.Group, messages.ErrInvalid))
			case !c.Discard && o.Info.Index+1 < b.Bounds.First:
				t.refuse(fmt.Errorf("snapshot %s ends at %d, the log begins at %d: %w", o.Info.ID, o.Info.Index, b.Bounds.First, messages.ErrCompacted))
			case !c.Discard && o.Info.Index > b.Bounds.Last:
				t.refuse(fmt.Errorf("snapshot %s ends at %d, the log at %d; discard the log to go on from there: %w", o.Info.ID, o.Info.Index, b.Bounds.Last, messages.ErrInvalid))
			case c.Discard:
				t.info = o.Info
				t.verify()
			default:
				s.fit(b.Bounds, o.Info, t.refuse, func(f fit) {
					if f == apart {
						t.refuse(s.apartError(o.Info, b.Bounds, 0))
						return
					}
					t.info = o.Info
					t.verify()
				})
			}
		})
	})
}

// verify reads the snapshot to its end before anything is given up for it:
// opening it has checked what is stored, not what that decompresses to. The
// newest one has been read whole when it was chosen.
func (t *restoring) verify() {
	if t.c.ID == "" {
		t.hold()
		return
	}
	call(t.s, t.s.parts.snapshot.PID(), messages.VerifySnapshot{Group: t.c.Group, ID: t.id}, t.refuse, func(v messages.SnapshotVerified) {
		if v.Err != nil {
			t.refuse(v.Err)
			return
		}
		t.hold()
	})
}

// restoring is one restore on its way.
type restoring struct {
	s    *supervisor
	r    *actors.Request
	c    messages.Restore
	g    *group
	id   string
	info messages.SnapshotInfo
	// incarnation of the application data that is held.
	incarnation uint64
	// upTo is the index up to which the log is to be replayed.
	upTo uint64
	// noted: a recovery may finish it.
	noted  bool
	resume func()
}

// refuse ends a restore that has changed nothing.
func (t *restoring) refuse(err error) {
	if t.s.restoring == t {
		t.s.restoring, t.s.restoringHeld = nil, nil
	}
	t.r.Fail(fmt.Errorf("%s: restore of group %d: %w", t.s.host.PID().ID, t.c.Group, err))
	t.resume()
}

// hold waits until the group stands still and nobody but the supervisor is
// served.
func (t *restoring) hold() {
	if t.g.busy() || t.s.retrying {
		t.s.host.After(retryDelay/10, t.hold)
		return
	}
	if t.s.restoring != nil {
		t.refuse(fmt.Errorf("another group is being restored: %w", messages.ErrConflict))
		return
	}
	if t.s.kvState != messages.StateServing {
		t.refuse(fmt.Errorf("the application data has failed meanwhile: %w", messages.ErrUnavailable))
		return
	}
	t.incarnation = t.s.kv
	t.upTo = t.s.parts.kv.Reached(t.c.Group)
	t.s.restoring = t
	t.s.restoringHeld = func() {
		t.s.recovering = t.incarnation // no other recovery of this incarnation
		t.load()
	}
	t.s.parts.kv.Hold()
}

// fail ends a restore that may have changed the application data: a recovery
// makes it whole.
func (t *restoring) fail(err error) {
	if t.noted {
		err = fmt.Errorf("the recovery that follows decides: %w: %w", messages.ErrInDoubt, err)
	}
	t.refuse(err)
	if t.s.kv == t.incarnation && t.s.kvState == messages.StateRecovering {
		t.s.recovering = t.incarnation
		t.s.recover(t.incarnation)
	}
}

func (t *restoring) load() {
	t.s.importSnapshot(t.c.Group, t.id, t.fail, func(m *importing) {
		if t.c.Discard {
			t.discard(m)
			return
		}
		m.done = func() {
			t.s.bounds(t.c.Group, t.fail, func(b messages.LogBounds) {
				upTo := min(max(t.upTo, t.s.committed(t.g, b)), b.Last)
				t.s.replay(t.c.Group, t.info.Index+1, upTo, t.fail, func(n uint64) { t.done(n) })
			})
		}
	})
}

// discard has an import give up the history of the group behind its snapshot,
// which nobody can remove until that is over.
func (t *restoring) discard(m *importing) {
	d := &discarding{s: t.s, g: t.g, incarnation: t.incarnation, info: t.info}
	m.before = func() {
		d.plan(m.abort, func() {
			t.noted = true
			d.begin(func(err error) {
				t.noted = transient(err) // otherwise it was refused
				m.abort(err)
			}, m.swap)
		})
	}
	m.pinned = true
	m.done = func() {
		leave := func(err error) {
			m.close()
			t.fail(err)
		}
		if m.current() {
			d.finish(leave, func() {
				m.close()
				t.done(0)
			})
		}
	}
}

func (t *restoring) done(replayed uint64) {
	info := t.info
	t.s.host.Event(messages.DataRebuilt{Group: t.c.Group, Snapshot: info.ID, Replayed: replayed, Reason: "restored on request"})
	t.r.Reply(messages.Restored{Tag: t.c.Tag, Group: t.c.Group, Info: info, Applied: info.Index + replayed, Replayed: replayed})
	t.s.restoring = nil
	t.s.readmit(t.g)
	t.s.recovered(t.incarnation)
	t.resume()
}
