package supervisor

import (
	"fmt"
	"sync"

	"github.com/ballast-raft/ballast/messages"
)

// pause keeps what is proposed to a group from its log, and what is in its log
// from its data, until resume is called. Then proposals learn again where the
// log ends: it may have been reset.
func (s *supervisor) pause(g *group) (resume func()) {
	g.pauses++
	return sync.OnceFunc(func() {
		g.pauses--
		if g.state == known {
			g.state = unknown
		}
		s.ask(g)
		s.pump(g)
	})
}

// busy reports whether an append or an apply of a group is under way, or a
// question where its log ends.
func (g *group) busy() bool { return g.inFlight > 0 || g.applying != 0 || g.state == asking }

// quiet pauses a group and goes on when nothing of it is under way any more: a
// log must not be reset below an append whose answer is still to come.
func (s *supervisor) quiet(g *group, then func(resume func())) {
	resume := s.pause(g)
	var wait func()
	wait = func() {
		if g.busy() {
			s.host.After(retryDelay/10, wait)
			return
		}
		then(resume)
	}
	wait()
}

// resetLog has the log of a group that is quiet go on behind a snapshot (Raft
// §7). The proposals that were in it and not applied are in it no more. Those
// behind the snapshot have left no trace and are proposed again. Whether the
// snapshot includes the others, which it does if it was taken by another
// replica that had agreed to them, cannot be told.
func (s *supervisor) resetLog(g *group, info messages.SnapshotInfo, fail func(error), then func()) {
	call(s, s.parts.log.PID(), messages.ResetLog{Group: g.id, Index: info.Index, Term: info.Term}, fail, func(m messages.LogReset) {
		if m.Err != nil {
			fail(m.Err)
			return
		}
		g.next = info.Index + 1
		for _, p := range g.sortedProposals() {
			g.forget(p)
			if p.entry.Index > info.Index {
				s.again(g, p, fmt.Errorf("the log was reset behind snapshot %s: %w", info.ID, messages.ErrCrashed))
				continue
			}
			p.fail(fmt.Errorf("%s: apply entry: the log was reset behind snapshot %s, which may include index %d: %w",
				s.host.PID().ID, info.ID, p.entry.Index, messages.ErrInDoubt))
		}
		then()
	})
}
