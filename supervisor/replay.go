package supervisor

import (
	"bytes"
	"fmt"
	"math"

	"github.com/ballast-raft/ballast/messages"
)

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
	if !s.applies(g) {
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
