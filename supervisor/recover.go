package supervisor

import (
	"errors"
	"fmt"
	"maps"
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
//  4. a Restore with Discard that was cut short is finished or forgotten, see
//     discarding;
//  5. snapshots that contradict the log are told, and not used;
//  6. if the log no longer reaches back to what was applied, or contradicts it,
//     or ends before a snapshot, the newest good snapshot is imported; if the log
//     ends before that one, it goes on behind it;
//  7. the entries after that are applied, up to the commit index.
//
// Nothing is proposed before the first recovery is over, because new entries
// could hide that the log has lost some.
//
// A snapshot that is no application data is left alone, with an event, and the
// next older one is looked at. If a group has no others and no data, it may
// belong to a state machine of the user's own: see owned.
//
// A failure that may pass is tried again. One that will not (the log ends
// before what was applied; neither log nor snapshot reach back far enough)
// keeps that group from being served, see withhold, with an error that says what
// is missing. Only if that leaves none to be served, the application data is
// unavailable, and the actor is tried again as its RestartPolicy says.
//
// DESIGN.md has the table of what can be found, and what is done.
func (s *supervisor) recover(incarnation uint64) {
	s.outdated = false
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
	served := len(groups) == 0
	var why error // of the first that is not
	var next func()
	next = func() {
		if s.kv != incarnation { // it has failed again; another recovery is on its way
			return
		}
		if len(groups) == 0 {
			if !served {
				fail(why)
				return
			}
			s.recovered(incarnation)
			return
		}
		g := s.group(groups[0])
		groups = groups[1:]
		s.recoverGroup(g.id, snapshots[g.id], func(err error) {
			if s.kv != incarnation || transient(err) {
				fail(err)
				return
			}
			if why == nil {
				why = err
			}
			s.withhold(g, err)
			next()
		}, func() {
			served = true
			s.readmit(g)
			next()
		})
	}
	next()
}

// recovered has the application data serve what could be recovered.
func (s *supervisor) recovered(incarnation uint64) {
	if s.kv != incarnation {
		return
	}
	if s.outdated {
		s.recover(incarnation)
		return
	}
	s.publish()
	s.parts.kv.Serve(incarnation)
	select {
	case s.ready <- nil:
	default:
	}
	s.compared = true
	for _, g := range s.sortedGroups() {
		s.ask(g)
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

// recoverGroup is steps 2 to 7 for one group, whose snapshots are listed newest
// first.
func (s *supervisor) recoverGroup(id uint64, snapshots []messages.SnapshotInfo, fail func(error), done func()) {
	incarnation := s.kv
	s.position(id, fail, func(b messages.LogBounds, a messages.AppliedRead) {
		s.discard(s.group(id), fail, func() {
			s.fit(b, messages.SnapshotInfo{Group: id, Index: a.Index, Term: a.Term}, fail, func(f fit) {
				if a.Index <= b.Last && f != apart {
					s.recoverFrom(id, incarnation, b, a, false, snapshots, fail, done)
					return
				}
				s.owned(id, b, a.Index, false, fail, func(own bool) {
					switch {
					case own:
						s.forget(id, b, fail, func() { s.recoverGroup(id, snapshots, fail, done) })
					case a.Index > b.Last:
						fail(fmt.Errorf("group %d: index %d was applied, but the log ends at %d: entries are missing from the log; restore its files, or give them up: send Restore with Discard, or move the kv directory away to rebuild the data from what is left: %w",
							id, a.Index, b.Last, messages.ErrCorrupt))
					default:
						s.recoverFrom(id, incarnation, b, a, true, snapshots, fail, done)
					}
				})
			})
		}, func(d *discarding) {
			d.resolve(fail, func() {
				s.relist(id, fail, func(left []messages.SnapshotInfo) { s.recoverGroup(id, left, fail, done) })
			})
		})
	})
}

// relist lists the snapshots of a group again.
func (s *supervisor) relist(id uint64, fail func(error), then func([]messages.SnapshotInfo)) {
	s.listSnapshots(fail, func(all map[uint64][]messages.SnapshotInfo) { then(all[id]) })
}

// recoverFrom is steps 5 to 7 for one group. stray: what was applied is of
// another history than the log. The log on top of that would give a state that
// never was.
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
	agreed := applied
	if stray {
		agreed = 0
	}
	s.compare(b, agreed, snapshots, fail, func(sound []messages.SnapshotInfo, beyond bool) {
		if !needed && !beyond {
			replay()
			return
		}
		var strange error // of the newest that is no application data
		others := func() {
			s.owned(id, b, applied, true, fail, func(own bool) {
				if own {
					done()
					return
				}
				fail(fmt.Errorf("group %d: the log begins at %d, and what leads up to it is gone: no good snapshot of application data goes together with it: %w: %w",
					id, b.First, messages.ErrCorrupt, strange))
			})
		}
		var use func(o messages.SnapshotOpened, f fit, err error)
		use = func(o messages.SnapshotOpened, f fit, err error) {
			if err != nil && stray {
				fail(fmt.Errorf("group %d: index %d was applied in term %d, and the log contradicts it: the two are of different histories; send Restore with Discard, or move the kv directory away to rebuild the data from what is left: %w: %w",
					id, a.Index, a.Term, messages.ErrCorrupt, err))
				return
			}
			if err != nil && needed && strange != nil {
				others()
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
				t.importAhead(func() { s.recoverGroup(id, snapshots, fail, done) })
			case !needed:
				t.close()
				replay()
			case f == behind && strange != nil:
				t.close()
				others()
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

// missing reports whether an error means that there is nothing to restore from.
func missing(err error) bool { return errors.Is(err, messages.ErrNotFound) }
