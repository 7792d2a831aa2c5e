package supervisor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// restore is the flow behind messages.Restore:
//
//  1. verify the snapshot whole, before anything is changed;
//  2. hold the application data, so that nobody sees it on its way, and let
//     what is being appended and applied come to an end;
//  3. import the snapshot: one swap, the old state or the new one;
//  4. either replay the log after it up to the commit index, or, with Discard,
//     remove the newer snapshots before the swap, when all of the state has been
//     read, and reset the log after it (or before it, if the snapshot lies beyond
//     the end of the log);
//  5. serve.
//
// A crash between 3 and the end of 4 leaves an older state and a log that
// reaches further: the next recovery replays it, as if there had been no
// Restore. Nothing is ever lost that the reply has not confirmed as discarded.
//
// One case is not covered: with Discard, and a snapshot that ends before the log
// begins, a crash between swap and reset leaves data that the log does not reach
// back to, and the newer snapshots are gone. The next start refuses and says so;
// with the log and the data moved away it starts from the snapshot.
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
				t.ahead = o.Info.Index > b.Bounds.Last
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
	// ahead: the snapshot lies beyond the end of the log, which is therefore
	// reset before the data is replaced: a crash in between leaves a log that
	// only the snapshot leads up to, and the recovery imports it.
	ahead bool
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
		t.load()
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
	var before func(func(error), func())
	if t.c.Discard { // a snapshot that is no application data must cost nothing
		before = t.dropNewer
	}
	t.s.importSnapshot(t.c.Group, t.id, before, t.fail, func(info messages.SnapshotInfo) {
		switch {
		case t.ahead:
			t.done(info, 0)
			return
		case t.c.Discard:
			t.reset(t.fail, func() { t.done(info, 0) })
			return
		}
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

// dropNewer removes the snapshots of a history that is being given up, so that
// no recovery will ever start from one of them: also those that cannot be read
// now, which may pass.
func (t *restoring) dropNewer(fail func(error), then func()) {
	snap := t.s.parts.snapshot.PID()
	call(t.s, snap, messages.ListSnapshots{Group: t.c.Group}, fail, func(l messages.SnapshotsListed) {
		if l.Err != nil {
			fail(l.Err)
			return
		}
		at := slices.IndexFunc(l.Snapshots, func(info messages.SnapshotInfo) bool { return info.ID == t.id })
		if at < 0 { // all the others might be all there is
			fail(fmt.Errorf("snapshot %s is gone: %w", t.id, messages.ErrNotFound))
			return
		}
		var newer []string
		for _, info := range l.Snapshots[:at] {
			newer = append(newer, info.ID)
		}
		for _, d := range l.Damaged {
			// The ids of one group sort from old to new.
			id := strings.TrimSuffix(filepath.Base(d.Path), ".snap")
			if _, err := snapshot.ParseID(id); err == nil && id > t.id {
				newer = append(newer, id)
			}
		}
		var next func()
		next = func() {
			if len(newer) == 0 {
				if t.ahead {
					t.reset(fail, then)
				} else {
					then()
				}
				return
			}
			id := newer[0]
			newer = newer[1:]
			call(t.s, snap, messages.DeleteSnapshot{Group: t.c.Group, ID: id}, fail, func(m messages.SnapshotDeleted) {
				if m.Err != nil && !missing(m.Err) {
					fail(m.Err)
					return
				}
				next()
			})
		}
		next()
	})
}

func (t *restoring) reset(fail func(error), then func()) {
	call(t.s, t.s.parts.log.PID(), messages.ResetLog{Group: t.c.Group, Index: t.info.Index, Term: t.info.Term}, fail, func(m messages.LogReset) {
		if m.Err != nil {
			fail(m.Err)
			return
		}
		t.g.next = t.info.Index + 1
		then()
	})
}

func (t *restoring) done(info messages.SnapshotInfo, replayed uint64) {
	t.s.host.Event(messages.DataRebuilt{Group: t.c.Group, Snapshot: info.ID, Replayed: replayed, Reason: "restored on request"})
	t.r.Reply(messages.Restored{Tag: t.c.Tag, Group: t.c.Group, Info: info, Applied: info.Index + replayed, Replayed: replayed})
	t.s.restoring = nil
	t.s.recovered(t.incarnation)
	t.resume()
}
