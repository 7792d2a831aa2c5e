package supervisor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// discardNote is the stable value that a Restore with Discard leaves in the log
// while it is under way: the ids of the snapshot that the group goes back to and
// of the newer ones that go, one a line.
const discardNote = "ballast/discard"

// discarding gives up the history of a group behind a snapshot, in an order in
// which each crash leaves the old state or the new one:
//
//  1. note: from here on a recovery knows of it;
//  2. swap the state in, read whole before: one rename, durable with it;
//  3. remove the newer snapshots;
//  4. reset the log behind the snapshot;
//  5. remove the note.
//
// A recovery that finds the note looks at the data. If it is exactly at the
// snapshot's index and term, the swap has happened and nothing was applied
// since: it does 3 to 5. Otherwise it removes the note and goes on as always.
// Before the swap that is the old state, of which nothing is gone yet; behind
// the reset it is the new one.
//
// A log that was cut at damage can bring a note back that had been removed. What
// was applied after the swap, of which the data may then be the only copy, moves
// it away from the snapshot, and the note does nothing. If nothing was, then 3
// removes by name what had been removed, and 4 resets what had been reset. That
// is why the note comes before the swap and not instead of it, why it names what
// goes, and why the data decides: a note alone, in the log, could be out of
// date, and the data alone, ahead of its log, could be all that is left.
//
// Data that is at the snapshot before the swap, because a power cut took it back
// there or the state is the current one, holds the same state: to finish is
// right. A log that begins right behind the snapshot is not reset again: either
// it was, and what is in it now was proposed since, or it leads on from the
// snapshot anyway, and replaying it gives the old state.
type discarding struct {
	s *supervisor
	g *group
	// incarnation of the application data that it began with: the recovery of
	// another one decides for itself, and must not be disturbed.
	incarnation uint64
	info        messages.SnapshotInfo
	newer       []string
}

// plan finds out which snapshots go: the newer ones, also those that cannot be
// read now, which may pass.
func (d *discarding) plan(fail func(error), then func()) {
	call(d.s, d.s.parts.snapshot.PID(), messages.ListSnapshots{Group: d.g.id}, fail, func(l messages.SnapshotsListed) {
		if l.Err != nil {
			fail(l.Err)
			return
		}
		at := slices.IndexFunc(l.Snapshots, func(info messages.SnapshotInfo) bool { return info.ID == d.info.ID })
		if at < 0 { // all the others might be all there is
			fail(fmt.Errorf("snapshot %s is gone: %w", d.info.ID, messages.ErrNotFound))
			return
		}
		for _, info := range l.Snapshots[:at] {
			d.newer = append(d.newer, info.ID)
		}
		for _, c := range l.Damaged {
			// The ids of one group sort from old to new.
			id := strings.TrimSuffix(filepath.Base(c.Path), ".snap")
			if _, err := snapshot.ParseID(id); err == nil && id > d.info.ID {
				d.newer = append(d.newer, id)
			}
		}
		then()
	})
}

// begin leaves the note.
func (d *discarding) begin(fail func(error), then func()) {
	value := []byte(strings.Join(append([]string{d.info.ID}, d.newer...), "\n"))
	if len(value) > messages.MaxStableValue {
		fail(fmt.Errorf("%d snapshots are newer, too many to note; delete some first: %w", len(d.newer), messages.ErrTooLarge))
		return
	}
	d.note(value, fail, then)
}

func (d *discarding) note(value []byte, fail func(error), then func()) {
	set := messages.SetStable{Group: d.g.id, Name: discardNote, Value: value}
	call(d.s, d.s.parts.log.PID(), set, fail, func(m messages.StableSet) {
		if m.Err != nil {
			fail(m.Err)
			return
		}
		then()
	})
}

// finish is what follows the swap, in a group that is quiet.
func (d *discarding) finish(fail func(error), then func()) {
	if !d.current(fail) {
		return
	}
	if len(d.newer) == 0 {
		d.s.resetLog(d.g, d.info, fail, func() {
			if d.current(fail) {
				d.note(nil, fail, then)
			}
		})
		return
	}
	call(d.s, d.s.parts.snapshot.PID(), messages.DeleteSnapshot{Group: d.g.id, ID: d.newer[0]}, fail, func(m messages.SnapshotDeleted) {
		if m.Err != nil && !missing(m.Err) {
			fail(fmt.Errorf("remove a snapshot of what is discarded: %w", m.Err))
			return
		}
		d.newer = d.newer[1:]
		d.finish(fail, then)
	})
}

func (d *discarding) current(fail func(error)) bool {
	if d.s.kv == d.incarnation {
		return true
	}
	fail(fmt.Errorf("the application data has failed meanwhile: %w", messages.ErrCrashed))
	return false
}

// discard reads the note of a group, behind whatever an earlier supervisor may
// have sent to the log: who calls it has waited for that. none: there is none.
func (s *supervisor) discard(g *group, fail func(error), none func(), then func(*discarding)) {
	call(s, s.parts.log.PID(), messages.GetStable{Group: g.id, Name: discardNote}, fail, func(m messages.StableGot) {
		switch {
		case missing(m.Err):
			none()
			return
		case m.Err != nil:
			fail(m.Err)
			return
		}
		ids := strings.Split(string(m.Value), "\n")
		info, err := snapshot.ParseID(ids[0])
		if err != nil {
			fail(fmt.Errorf("stable value %s of group %d: %w: %w", discardNote, g.id, messages.ErrIncompatible, err))
			return
		}
		then(&discarding{s: s, g: g, incarnation: s.kv, info: info, newer: ids[1:]})
	})
}

// resolve ends what a crash has cut short, as the comment of discarding says.
func (d *discarding) resolve(fail func(error), then func()) {
	s := d.s
	s.quiet(d.g, func(resume func()) {
		failed := func(err error) {
			resume()
			fail(err)
		}
		done := func() {
			resume()
			then()
		}
		s.position(d.g.id, failed, func(b messages.LogBounds, a messages.AppliedRead) {
			swapped := a.Index == d.info.Index && a.Term == d.info.Term
			behind := b.First == d.info.Index+1 && b.PrevTerm == d.info.Term
			if !swapped || behind {
				d.note(nil, failed, done)
				return
			}
			d.finish(failed, func() {
				s.host.Event(messages.DataRebuilt{Group: d.g.id, Snapshot: d.info.ID, Reason: "a Restore that was cut short is finished"})
				done()
			})
		})
	})
}
