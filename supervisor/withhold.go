package supervisor

import (
	"fmt"

	"github.com/ballast-raft/ballast/messages"
)

// withhold keeps a group from being served, because its data could not be
// brought up to its log. The others are. Its log and its snapshots can be used,
// as what may mend it; commands for its data are refused with
// messages.ErrUnavailable and the reason. What is in the log already, and was
// proposed, is in doubt: it is applied if the group comes back.
//
// The group is tried again every Retry of the RestartPolicy, when the log or the
// snapshot actor has come back, and with the application data. Restore may
// bring it back as well.
func (s *supervisor) withhold(g *group, err error) {
	if g.failed == nil || g.failed.Error() != err.Error() {
		s.host.Event(messages.GroupWithheld{Group: g.id, Err: err})
	}
	g.failed = err
	s.refuseQueued(g, fmt.Errorf("%w: %w", messages.ErrUnavailable, err))
	s.giveUp(g, err)
	s.retryLater()
}

// readmit has a group be served again.
func (s *supervisor) readmit(g *group) {
	if g.failed != nil {
		g.failed = nil
		s.host.Event(messages.GroupReadmitted{Group: g.id})
	}
}

// withheld is the answer to a command for a group that is withheld.
func (s *supervisor) withheld(g *group) error {
	return fmt.Errorf("%s: group %d: %w: %w", s.host.PID().ID, g.id, messages.ErrUnavailable, g.failed)
}

// publish tells the application data which groups are withheld.
func (s *supervisor) publish() {
	failed := make(map[uint64]error)
	for _, g := range s.sortedGroups() {
		if g.failed != nil {
			failed[g.id] = s.withheld(g)
		}
	}
	s.parts.kv.Withhold(failed)
}

func (s *supervisor) retryLater() {
	if s.waiting {
		return
	}
	s.waiting = true
	s.host.After(s.retryEvery, func() {
		s.waiting = false
		s.retry()
	})
}

// retry tries the groups again that are withheld, beside those that are served.
func (s *supervisor) retry() {
	var failed []*group
	for _, g := range s.sortedGroups() {
		if g.failed != nil {
			failed = append(failed, g)
		}
	}
	switch {
	case len(failed) == 0 || s.retrying:
		return
	case s.kvState != messages.StateServing || s.restoring != nil:
		s.retryLater()
		return
	}
	s.retrying = true
	incarnation := s.kv
	end := func() {
		s.retrying = false
		s.retryLater() // which ends by itself when none is left
	}
	s.listSnapshots(func(error) { end() }, func(snapshots map[uint64][]messages.SnapshotInfo) {
		var next func()
		next = func() {
			if len(failed) == 0 || s.kv != incarnation {
				end()
				return
			}
			g := failed[0]
			failed = failed[1:]
			if g.failed == nil || g.pauses > 0 { // it is being restored
				next()
				return
			}
			resume := s.pause(g)
			after := func() {
				if s.kv == incarnation {
					s.publish()
				}
				resume()
				next()
			}
			s.recoverGroup(g.id, snapshots[g.id], func(err error) {
				if s.kv == incarnation && !transient(err) {
					s.withhold(g, err)
				}
				after()
			}, func() {
				if s.kv == incarnation {
					s.readmit(g)
				}
				after()
			})
		}
		next()
	})
}

// came tries what is withheld again when an actor has come back that may have
// been missing.
func (s *supervisor) came(state messages.ActorState) {
	if state == messages.StateServing && s.compared {
		s.retry()
	}
}

// logCut tells the supervisor that the log has been cut at damage by an open: it
// may end before what was applied. Nothing is proposed until that is known.
type logCut struct{}

func (s *supervisor) cut() {
	s.compared = false
	if s.restoring != nil || s.kvState == messages.StateRecovering && s.recovering == s.kv {
		s.outdated = true // when the recovery that is under way is over
		return
	}
	s.recovering = 0
	s.parts.kv.Hold()
}
