package supervisor

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// discardNote is the stable value of a group whose history is being given up for
// a snapshot: that snapshot's id. It is durable before anything is removed, and
// goes when everything is done. A recovery that finds it does what is left: by
// then there may be no way back, because newer snapshots are gone, or the log
// begins behind the old data.
const discardNote = "ballast/discard"

// discarding gives a group's history up for a snapshot:
//
//  1. read the state in, beside the old one: a snapshot that holds no
//     application data costs nothing;
//  2. note which snapshot;
//  3. remove the newer ones, so that no recovery starts from one of them;
//  4. reset the log behind it, and let the state count: one swap;
//  5. remove the note.
//
// Before the reset it can be called off, and is if a step fails; then nothing
// has changed but that newer snapshots may be gone.
type discarding struct {
	s           *supervisor
	group       uint64
	id          string
	incarnation uint64
	fail        func(error)
	done        func(messages.SnapshotInfo)
	importing   *importing
	noted       bool // a recovery would finish it
	redo        bool // this is that recovery: the log may have been reset
}

func (d *discarding) begin() {
	call(d.s, d.s.parts.snapshot.PID(), messages.OpenSnapshot{Group: d.group, ID: d.id}, d.callOff, func(o messages.SnapshotOpened) {
		if o.Err != nil {
			d.callOff(o.Err)
			return
		}
		t := &importing{s: d.s, group: d.group, incarnation: d.incarnation, open: o, fail: d.callOff}
		t.before = func() {
			d.note([]byte(d.id), t.abort, func() { d.dropNewer(t.abort, t.resetLog) })
		}
		t.done = func() {
			d.note(nil, d.fail, func() { d.done(o.Info) })
		}
		d.importing = t
		t.begin()
	})
}

func (d *discarding) note(value []byte, fail func(error), then func()) {
	set := messages.SetStable{Group: d.group, Name: discardNote, Value: value}
	call(d.s, d.s.parts.log.PID(), set, fail, func(m messages.StableSet) {
		if m.Err != nil {
			fail(m.Err)
			return
		}
		d.noted = value != nil
		then()
	})
}

// callOff ends it with an error: for good if nothing but snapshots has changed.
// Otherwise, and after a failure that may pass, a recovery goes on, unless the
// snapshot is gone.
func (d *discarding) callOff(err error) {
	keep := d.redo && !missing(err) || transient(err) || d.importing != nil && d.importing.resetting
	if !d.noted || keep {
		d.fail(err)
		return
	}
	d.note(nil, func(error) { d.fail(err) }, func() { d.fail(err) })
}

// dropNewer removes the snapshots of a history that is being given up: also
// those that cannot be read now, which may pass.
func (d *discarding) dropNewer(fail func(error), then func()) {
	snap := d.s.parts.snapshot.PID()
	call(d.s, snap, messages.ListSnapshots{Group: d.group}, fail, func(l messages.SnapshotsListed) {
		if l.Err != nil {
			fail(l.Err)
			return
		}
		at := slices.IndexFunc(l.Snapshots, func(info messages.SnapshotInfo) bool { return info.ID == d.id })
		if at < 0 { // all the others might be all there is
			fail(fmt.Errorf("snapshot %s is gone: %w", d.id, messages.ErrNotFound))
			return
		}
		var newer []string
		for _, info := range l.Snapshots[:at] {
			newer = append(newer, info.ID)
		}
		for _, c := range l.Damaged {
			// The ids of one group sort from old to new.
			id := strings.TrimSuffix(filepath.Base(c.Path), ".snap")
			if _, err := snapshot.ParseID(id); err == nil && id > d.id {
				newer = append(newer, id)
			}
		}
		var next func()
		next = func() {
			if len(newer) == 0 {
				then()
				return
			}
			id := newer[0]
			newer = newer[1:]
			call(d.s, snap, messages.DeleteSnapshot{Group: d.group, ID: id}, fail, func(m messages.SnapshotDeleted) {
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

// finishDiscard finishes what a Restore with Discard has begun in a group, if
// there is such a thing.
func (s *supervisor) finishDiscard(id, incarnation uint64, fail func(error), none, done func()) {
	call(s, s.parts.log.PID(), messages.GetStable{Group: id, Name: discardNote}, fail, func(m messages.StableGot) {
		switch {
		case missing(m.Err):
			none()
			return
		case m.Err != nil:
			fail(m.Err)
			return
		}
		d := &discarding{s: s, group: id, id: string(m.Value), incarnation: incarnation, noted: true, redo: true}
		d.fail = func(err error) {
			if errors.Is(err, messages.ErrConflict) { // somebody is reading one of the newer snapshots
				err = fmt.Errorf("%w: %w", messages.ErrCrashed, err)
			}
			fail(fmt.Errorf("group %d: a Restore to snapshot %s was cut short: %w", id, d.id, err))
		}
		d.done = func(info messages.SnapshotInfo) {
			s.replay(id, info.Index+1, info.Index, fail, func(uint64) {
				s.host.Event(messages.DataRebuilt{Group: id, Snapshot: info.ID, Reason: "a Restore that was cut short is finished"})
				done()
			})
		}
		d.begin()
	})
}
