package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// recover brings the application data up to the log, after it was opened in the
// given incarnation, and has it serve:
//
//  1. The log and the data say which groups there are; for each of them:
//  2. it says where the group's log begins and ends and what is committed;
//  3. the application data says how far it has applied;
//  4. if the log no longer reaches back to there, the newest snapshot that
//     verifies is imported; if the log ends before it, it goes on behind it;
//  5. the entries after that are applied, up to the commit index.
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
			slices.Sort(groups)
			s.recoverGroups(incarnation, slices.Compact(groups), fail)
		})
	})
}

// recoverGroups brings one group after the other up to the log.
func (s *supervisor) recoverGroups(incarnation uint64, groups []uint64, fail func(error)) {
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
		s.recoverGroup(id, fail, next)
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

// recoverGroup is steps 2 to 5 for one group.
func (s *supervisor) recoverGroup(id uint64, fail func(error), done func()) {
	s.position(id, fail, func(b messages.LogBounds, applied uint64) {
		commit := s.committed(s.group(id), b)
		finish := func(n uint64, snapshot, reason string) {
			if n > 0 || snapshot != "" {
				s.host.Event(messages.DataRebuilt{Group: id, Snapshot: snapshot, Replayed: n, Reason: reason})
			}
			done()
		}
		switch {
		case applied > b.Last:
			fail(fmt.Errorf("group %d: index %d was applied, but the log ends at %d: entries are missing from the log; restore its files, or move the kv directory away to rebuild the data from what is left: %w",
				id, applied, b.Last, messages.ErrCorrupt))
		case applied+1 < b.First:
			s.importSnapshot(id, "", fail, func(info messages.SnapshotInfo) {
				if info.Index+1 < b.First {
					fail(fmt.Errorf("group %d: the log begins at %d and the newest good snapshot, %s, ends at %d: the entries between are gone; restore a snapshot that reaches %d: %w",
						id, b.First, info.ID, info.Index, b.First-1, messages.ErrCorrupt))
					return
				}
				reason := "the log no longer reaches back to what was applied"
				catchUp := func() {
					s.replay(id, info.Index+1, commit, fail, func(n uint64) { finish(n, info.ID, reason) })
				}
				if info.Index <= b.Last {
					catchUp()
					return
				}
				// The log was cut at damage. It goes on behind the snapshot (Raft
				// §7): what was appended at an index that the snapshot includes
				// would never be applied.
				reason = "the log ends before the snapshot, and goes on behind it"
				call(s, s.parts.log.PID(), messages.ResetLog{Group: id, Index: info.Index, Term: info.Term}, fail, func(m messages.LogReset) {
					if m.Err != nil {
						fail(m.Err)
						return
					}
					catchUp()
				})
			})
		default:
			s.replay(id, applied+1, commit, fail, func(n uint64) { finish(n, "", "catching up with the log") })
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
func (s *supervisor) position(id uint64, fail func(error), then func(b messages.LogBounds, applied uint64)) {
	s.bounds(id, fail, func(b messages.LogBounds) {
		call(s, s.parts.kv.PID(), messages.ReadApplied{Group: id}, fail, func(a messages.AppliedRead) {
			if a.Err != nil {
				fail(a.Err)
				return
			}
			then(b, a.Index)
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
	s.position(g.id, fail, func(b messages.LogBounds, applied uint64) {
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

// importSnapshot replaces a group's data by a snapshot, the newest good one if
// id is empty. It reads the next chunk while one is being imported.
func (s *supervisor) importSnapshot(group uint64, id string, fail func(error), done func(messages.SnapshotInfo)) {
	snap, kv := s.parts.snapshot.PID(), s.parts.kv.PID()
	incarnation := s.kv
	call(s, snap, messages.OpenSnapshot{Group: group, ID: id}, fail, func(o messages.SnapshotOpened) {
		if o.Err != nil {
			fail(fmt.Errorf("group %d: open snapshot: %w", group, o.Err))
			return
		}
		closeAndFail := func(err error) {
			s.tell(snap, messages.CloseSnapshot{Group: group, Stream: o.Stream})
			fail(err)
		}
		if o.Info.Group != group {
			closeAndFail(fmt.Errorf("snapshot %s is of group %d, not %d: %w", o.Info.ID, o.Info.Group, group, messages.ErrInvalid))
			return
		}
		call(s, kv, messages.BeginImport{Group: group, Index: o.Info.Index, Term: o.Info.Term}, closeAndFail, func(b messages.ImportBegun) {
			if b.Err != nil {
				closeAndFail(b.Err)
				return
			}
			if s.kv != incarnation { // another recovery has begun
				s.tell(kv, messages.AbortImport{Group: group, Import: b.Import})
				closeAndFail(fmt.Errorf("the application data has failed meanwhile: %w", messages.ErrCrashed))
				return
			}
			failed := false
			abort := func(err error) {
				if !failed {
					failed = true
					s.tell(kv, messages.AbortImport{Group: group, Import: b.Import})
					closeAndFail(err)
				}
			}
			var read func()
			importing, ended := 0, false
			finish := func() {
				call(s, kv, messages.FinishImport{Group: group, Import: b.Import}, abort, func(m messages.Imported) {
					s.tell(snap, messages.CloseSnapshot{Group: group, Stream: o.Stream})
					if m.Err != nil {
						fail(m.Err)
						return
					}
					done(o.Info)
				})
			}
			read = func() {
				call(s, snap, messages.ReadChunk{Group: group, Stream: o.Stream, MaxBytes: messages.MaxSnapshotChunk}, abort, func(c messages.ChunkRead) {
					if c.Err != nil {
						abort(c.Err)
						return
					}
					ended = c.EOF
					importing++
					call(s, kv, messages.ImportChunk{Group: group, Import: b.Import, Data: c.Data}, abort, func(m messages.ChunkImported) {
						importing--
						switch {
						case failed:
						case m.Err != nil:
							abort(m.Err)
						case ended && importing == 0:
							finish()
						case !ended && importing == importWindow-1:
							read()
						}
					})
					if !ended && importing < importWindow {
						read()
					}
				})
			}
			read()
		})
	})
}

// importWindow is how many chunks of an import are under way.
const importWindow = 2

// missing reports whether an error means that there is nothing to restore from.
func missing(err error) bool { return errors.Is(err, messages.ErrNotFound) }
