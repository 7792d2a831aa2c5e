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
//  4. replay the log after it up to the commit index;
//  5. serve.
//
// A crash between 3 and the end of 4 leaves an older state and a log that
// reaches further: the next recovery replays it, as if there had been no
// Restore. With Discard, discarding does 3 and 4 in another way, and a recovery
// finishes what a crash has cut short. Nothing is ever lost that the user has
// not asked to discard.
func (s *supervisor) restore(r *actors.Request, c messages.Restore) {
	g := s.group(c.Group)
	if c.Discard && g.snapshotting {
		r.Fail(fmt.Errorf("%s: restore: a snapshot of what would be discarded is being taken: %w", s.host.PID().ID, messages.ErrConflict))
		return
	}
	if g.paused {
		r.Fail(fmt.Errorf("%s: restore: another one of group %d is under way: %w", s.host.PID().ID, c.Group, messages.ErrConflict))
		return
	}
	if s.restoring != nil {
		r.Fail(fmt.Errorf("%s: restore: another group is being restored: %w", s.host.PID().ID, messages.ErrConflict))
		return
	}
	t := &restoring{s: s, r: r, c: c, g: g}
	g.paused = true
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
						t.refuse(apartError(o.Info))
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
}

// refuse ends a restore that has changed nothing.
func (t *restoring) refuse(err error) {
	if t.s.restoring == t {
		t.s.restoring, t.s.restoringHeld = nil, nil
	}
	t.r.Fail(fmt.Errorf("%s: restore of group %d: %w", t.s.host.PID().ID, t.c.Group, err))
	t.resume()
}

func (t *restoring) resume() {
	t.g.paused = false
	if t.g.state == known {
		t.g.state = unknown // the log may have been reset
	}
	t.s.ask(t.g)
	t.s.pump(t.g)
}

// hold waits until the group stands still and nobody but the supervisor is
// served.
func (t *restoring) hold() {
	if t.g.inFlight > 0 || t.g.applying != 0 {
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
		if t.c.Discard {
			d := &discarding{s: t.s, group: t.c.Group, id: t.id, incarnation: t.incarnation}
			d.fail = func(err error) {
				if d.noted {
					err = fmt.Errorf("%w: %w", messages.ErrInDoubt, err)
				}
				t.fail(err)
			}
			d.done = func(info messages.SnapshotInfo) {
				t.s.replay(t.c.Group, info.Index+1, info.Index, t.fail, func(uint64) { t.done(info, 0) })
			}
			d.begin()
		} else {
			t.load()
		}
	}
	t.s.parts.kv.Hold()
}

// fail ends a restore that may have changed the application data: a recovery
// makes it whole.
func (t *restoring) fail(err error) {
	t.refuse(err)
	if t.s.kv == t.incarnation && t.s.kvState == messages.StateRecovering {
		t.s.recovering = t.incarnation
		t.s.recover(t.incarnation)
	}
}

func (t *restoring) load() {
	t.s.importSnapshot(t.c.Group, t.id, t.fail, func(info messages.SnapshotInfo) {
		call(t.s, t.s.parts.log.PID(), messages.ReadBounds{Group: t.c.Group}, t.fail, func(b messages.BoundsRead) {
			if b.Err != nil {
				t.fail(b.Err)
				return
			}
			t.s.replay(t.c.Group, info.Index+1, min(max(t.upTo, t.s.committed(t.g, b.Bounds)), b.Bounds.Last), t.fail, func(n uint64) {
				t.done(info, n)
			})
		})
	})
}

func (t *restoring) done(info messages.SnapshotInfo, replayed uint64) {
	t.s.host.Event(messages.DataRebuilt{Group: t.c.Group, Snapshot: info.ID, Replayed: replayed, Reason: "restored on request"})
	t.r.Reply(messages.Restored{Tag: t.c.Tag, Group: t.c.Group, Info: info, Applied: info.Index + replayed, Replayed: replayed})
	t.s.restoring = nil
	t.s.recovered(t.incarnation)
	t.resume()
}
