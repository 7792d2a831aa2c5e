package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// recover brings the application data up to the log, after it was opened in the
// given incarnation, and has it serve:
//
//  1. The log, the data and the snapshots say which groups there are; for each
//     of them:
//  2. it says where the group's log begins and ends and what is committed;
//  3. the application data says how far it has applied;
//  4. snapshots that contradict the log are told, and not used;
//  5. if the log no longer reaches back to what was applied, or contradicts it,
//     or ends before a snapshot, the newest good snapshot is imported; if the log
//     ends before that one, it goes on behind it;
//  6. the entries after that are applied, up to the commit index.
//
// A snapshot that is no application data is left alone, with an event, and the
// next older one is looked at. If a group has no others, no data, and its log
// begins with no entry of type zero, it belongs to a state machine of the user's
// own.
//
// A failure that may pass is tried again. One that will not (the log ends
// before what was applied; neither log nor snapshot reach back far enough)
// makes the application data unavailable, with an error that says what is
// missing, and the actor is tried again as its RestartPolicy says.
func (s *supervisor) recover(incarnation uint64) {
	fail := func(err error) { s.recoveryFailed(incarnation, err) }
	call(s, s.parts.log.PID(), messages.ListGroups{}, fail, func(m messages.GroupsListed) {
		if m.Err != nil {
			fail(m.Err)
			return
		}
		// Data without a log must be noticed as well.
		call(s, s.parts.kv.PID(), messages.ListGroups{}, fail, func(k messages.GroupsListed) {
			if k.Err != nil {
				fail(k.Err)
				return
			}
			groups := append(m.Groups, k.Groups...)
			s.listSnapshots(fail, func(snapshots map[uint64][]messages.SnapshotInfo) {
				groups := slices.AppendSeq(groups, maps.Keys(snapshots))
				slices.Sort(groups)
				s.recoverGroups(incarnation, slices.Compact(groups), snapshots, fail)
			})
		})
	})
}

// listSnapshots lists what every group has to fall back on.
func (s *supervisor) listSnapshots(fail func(error), then func(map[uint64][]messages.SnapshotInfo)) {
	snapshots := make(map[uint64][]messages.SnapshotInfo)
	refused := func(err error) {
		// The data need not wait for an actor that is down for good, unless it
		// turns out to need a snapshot.
		if errors.Is(err, messages.ErrUnavailable) {
			then(snapshots)
			return
		}
		fail(fmt.Errorf("list snapshots: %w", err))
	}
	call(s, s.parts.snapshot.PID(), messages.ListSnapshots{All: true}, refused, func(m messages.SnapshotsListed) {
		if m.Err != nil {
			refused(m.Err)
			return
		}
		for _, info := range m.Snapshots {
			snapshots[info.Group] = append(snapshots[info.Group], info)
		}
		then(snapshots)
	})
}

// recoverGroups brings one group after the other up to the log.
func (s *supervisor) recoverGroups(incarnation uint64, groups []uint64, snapshots map[uint64][]messages.SnapshotInfo, fail func(error)) {
	var next func()
	next = func() {
		if s.kv != incarnation { // it has failed again; another recovery is on its way
			return
		}
		if len(groups) == 0 {
			s.recovered(incarnation)
			return
		}
		id := groups[0]
		groups = groups[1:]
		s.recoverGroup(id, snapshots[id], fail, next)
	}
	next()
}

func (s *supervisor) recovered(incarnation uint64) {
	s.parts.kv.Serve(incarnation)
	select {
	case s.ready <- nil:
	default:
	}
}

func (s *supervisor) recoveryFailed(incarnation uint64, err error) {
	if s.kv != incarnation {
		return
	}
	if transient(err) {
		s.host.After(retryDelay, func() {
			if s.kv == incarnation {
				s.recover(incarnation)
			}
		})
		return
	}
	err = fmt.Errorf("%s: recover application data: %w", s.host.PID().ID, err)
	select {
	case s.ready <- err:
	default:
	}
	s.parts.kv.GiveUp(err)
}

// recoverGroup is steps 2 to 6 for one group, whose snapshots are listed newest
// first.
func (s *supervisor) recoverGroup(id uint64, snapshots []messages.SnapshotInfo, fail func(error), done func()) {
	incarnation := s.kv
	s.position(id, fail, func(b messages.LogBounds, a messages.AppliedRead) {
		if a.Index > b.Last {
			fail(fmt.Errorf("group %d: index %d was applied, but the log ends at %d: entries are missing from the log; restore its files, or move the kv directory away to rebuild the data from what is left: %w",
				id, a.Index, b.Last, messages.ErrCorrupt))
			return
		}
		s.fit(b, messages.SnapshotInfo{Group: id, Index: a.Index, Term: a.Term}, fail, func(f fit) {
			s.recoverFrom(id, incarnation, b, a, f == apart, snapshots, fail, done)
		})
	})
}

// recoverFrom is steps 4 to 6 for one group. stray: what was applied is of
// another history than the log, as a Restore with Discard leaves it that was
// killed between its swap and its reset. The log on top of that would give a
// state that never was.
func (s *supervisor) recoverFrom(id, incarnation uint64, b messages.LogBounds, a messages.AppliedRead, stray bool, snapshots []messages.SnapshotInfo, fail func(error), done func()) {
	applied := a.Index
	commit := s.committed(s.group(id), b)
	needed, why := applied+1 < b.First, "the log no longer reaches back to what was applied"
	if stray {
		commit = min(b.HardState.Commit, b.Last) // what was reached is of the other history as well
		needed, why = true, "what was applied is of another history than the log"
	}
	finish := func(n uint64, snapshot, reason string) {
		if n > 0 || snapshot != "" {
			s.host.Event(messages.DataRebuilt{Group: id, Snapshot: snapshot, Replayed: n, Reason: reason})
		}
		done()
	}
	replay := func() {
		s.replay(id, applied+1, commit, fail, func(n uint64) { finish(n, "", "catching up with the log") })
	}
	s.compare(b, snapshots, fail, func(sound []messages.SnapshotInfo, beyond bool) {
		if !needed && !beyond {
			replay()
			return
		}
		var strange error // of the newest that is no application data
		var use func(o messages.SnapshotOpened, f fit, err error)
		use = func(o messages.SnapshotOpened, f fit, err error) {
			if err != nil && stray {
				fail(fmt.Errorf("group %d: index %d was applied in term %d, and the log contradicts it: the two are of different histories; move the kv directory away to rebuild the data from what is left: %w: %w",
					id, a.Index, a.Term, messages.ErrCorrupt, err))
				return
			}
			if err != nil && needed && strange != nil {
				s.unlessData(id, b, fail, strange, done)
				return
			}
			if err != nil && needed {
				fail(fmt.Errorf("group %d: the log begins at %d, and index %d was applied: %w", id, b.First, applied, err))
				return
			}
			t := &importing{s: s, group: id, incarnation: incarnation, open: o, fail: fail}
			t.fail = func(err error) {
				if !errors.Is(err, messages.ErrMalformed) {
					fail(err)
					return
				}
				s.host.Event(messages.SnapshotPassedOver{Actor: s.host.PID().ID, Info: o.Info, Err: err})
				if strange == nil {
					strange = err
				}
				sound = slices.DeleteFunc(sound, func(info messages.SnapshotInfo) bool { return info.ID == o.Info.ID })
				s.openOlder(id, b, sound, fail, use)
			}
			switch {
			case err != nil: // those beyond the end of the log are damaged, which has been told
				replay()
			case f == ahead:
				t.done = func() {
					s.replay(id, o.Info.Index+1, o.Info.Index, fail, func(uint64) {
						finish(0, o.Info.ID, "the log ends before the snapshot, and goes on behind it")
					})
				}
				t.importAhead()
			case !needed:
				t.close()
				replay()
			case f == behind && strange != nil:
				t.close()
				s.unlessData(id, b, fail, strange, done)
			case f == behind:
				t.close()
				fail(fmt.Errorf("group %d: the log begins at %d and the newest good snapshot, %s, ends at %d: the entries between are gone; restore a snapshot that reaches %d: %w",
					id, b.First, o.Info.ID, o.Info.Index, b.First-1, messages.ErrCorrupt))
			default:
				t.done = func() {
					s.replay(id, o.Info.Index+1, commit, fail, func(n uint64) {
						finish(n, o.Info.ID, why)
					})
				}
				t.begin()
			}
		}
		s.openUsable(id, b, sound, fail, use)
	})
}

// unlessData ends the recovery of a group that has been compacted and has only
// snapshots that are no application data, as err says. If there is no data
// either, and the log begins with an entry of another type, they are the state of
// somebody who has a state machine of their own, and left to them.
func (s *supervisor) unlessData(id uint64, b messages.LogBounds, fail func(error), err error, done func()) {
	lost := func() {
		fail(fmt.Errorf("group %d: the log begins at %d, and what leads up to it is gone: no good snapshot of application data goes together with it: %w: %w",
			id, b.First, messages.ErrCorrupt, err))
	}
	call(s, s.parts.kv.PID(), messages.Scan{Group: id, Limit: 1, KeysOnly: true}, fail, func(m messages.Scanned) {
		switch {
		case m.Err != nil:
			fail(m.Err)
		case len(m.Pairs) > 0:
			lost()
		case b.Empty():
			done()
		default:
			call(s, s.parts.log.PID(), messages.ReadEntry{Group: id, Index: b.First}, fail, func(m messages.EntryRead) {
				switch {
				case m.Err != nil && !errors.Is(m.Err, messages.ErrCorrupt): // which the log tells of
					fail(m.Err)
				case m.Err == nil && m.Entry.Type == 0:
					lost()
				default:
					done()
				}
			})
		}
	})
}

// committed is up to where a group's log is to be applied. An entry of
// ApplyEntry is committed when it is durable, whatever a hard state says that
// was appended beside it.
func (s *supervisor) committed(g *group, b messages.LogBounds) uint64 {
	// What was applied once was committed, also if the consensus engine does
	// not store its commit index (hashicorp/raft).
	commit := max(b.HardState.Commit, s.parts.kv.Reached(g.id))
	for i, p := range g.proposals {
		if p.durable {
			commit = max(commit, i)
		}
	}
	return min(commit, b.Last)
}

// position reads where a group's log and its application data are.
func (s *supervisor) position(id uint64, fail func(error), then func(b messages.LogBounds, a messages.AppliedRead)) {
	s.bounds(id, fail, func(b messages.LogBounds) {
		call(s, s.parts.kv.PID(), messages.ReadApplied{Group: id}, fail, func(a messages.AppliedRead) {
			if a.Err != nil {
				fail(a.Err)
				return
			}
			then(b, a)
		})
	})
}

// bounds reads where a group's log begins and ends, after everything that was
// sent to the log before has come to its end: a truncation that removes nothing
// is answered then. An earlier supervisor may have sent a reset, for example.
func (s *supervisor) bounds(id uint64, fail func(error), then func(messages.LogBounds)) {
	call(s, s.parts.log.PID(), messages.TruncateFrom{Group: id, Index: math.MaxUint64}, fail, func(m messages.Truncated) {
		if m.Err != nil {
			fail(m.Err)
			return
		}
		call(s, s.parts.log.PID(), messages.ReadBounds{Group: id}, fail, func(b messages.BoundsRead) {
			if b.Err != nil {
				fail(b.Err)
				return
			}
			then(b.Bounds)
		})
	})
}

// replayBytes is how much of the log is read and applied at a time.
const replayBytes = 1 << 20

// replay applies the entries from ≤ index ≤ to from the log, and answers the
// proposals among them, and those before them. It ends with the number of
// entries.
func (s *supervisor) replay(id, from, to uint64, fail func(error), done func(n uint64)) {
	g := s.group(id)
	for _, p := range g.sortedProposals() {
		if p.durable && p.entry.Index < from { // applied, and only the reply was lost
			g.forget(p)
			p.applied(messages.Result{Err: fmt.Errorf("%s: %w", s.host.PID().ID, messages.ErrResultLost)})
		}
	}
	first := from
	var step func()
	step = func() {
		if from > to {
			g.next = from
			done(from - first)
			return
		}
		call(s, s.parts.log.PID(), messages.ReadRange{Group: id, From: from, To: to + 1, MaxBytes: replayBytes}, fail, func(m messages.RangeRead) {
			if m.Err != nil {
				fail(m.Err)
				return
			}
			call(s, s.parts.kv.PID(), messages.Apply{Group: id, Entries: m.Entries}, fail, func(a messages.Applied) {
				if a.Err != nil {
					fail(a.Err)
					return
				}
				for i, e := range m.Entries {
					if p := g.proposals[e.Index]; p != nil && p.entry.Term == e.Term && bytes.Equal(p.entry.Data, e.Data) {
						g.forget(p)
						p.entry = e
						p.applied(a.Results[i])
					}
				}
				from = m.Entries[len(m.Entries)-1].Index + 1
				step()
			})
		})
	}
	step()
}

// catchUp applies what a group's log holds beyond the application data while
// that serves.
func (s *supervisor) catchUp(g *group) {
	if s.kvState != messages.StateServing || g.applying != 0 || g.paused {
		return
	}
	number := g.begin()
	fail := func(err error) {
		if !g.end(number) {
			return
		}
		if !transient(err) {
			g.stuck = err
			s.giveUp(g, err)
		}
		s.host.After(retryDelay, func() { s.catchUp(g) })
	}
	s.position(g.id, fail, func(b messages.LogBounds, a messages.AppliedRead) {
		applied := a.Index
		if applied > b.Last {
			fail(fmt.Errorf("group %d: index %d was applied, but the log ends at %d: %w", g.id, applied, b.Last, messages.ErrCorrupt))
			return
		}
		s.replay(g.id, applied+1, s.committed(g, b), fail, func(uint64) {
			if g.end(number) {
				g.stuck = nil
				s.pump(g)
			}
		})
	})
}

// missing reports whether an error means that there is nothing to restore from.
func missing(err error) bool { return errors.Is(err, messages.ErrNotFound) }
