package supervisor

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
)

// fit says how a snapshot and the log of its group go together.
type fit int

const (
	// behind: the log no longer reaches back to it.
	behind fit = iota
	// within: the log goes on from it.
	within
	// ahead: it lies beyond the end of the log.
	ahead
	// apart: the log has an entry of another term where the snapshot ends, or
	// ends in a later term before it. To replay the log on top of such a
	// snapshot would give a state that never was. See apartError.
	apart
)

// fit compares a snapshot with the log of its group. Entries of equal terms are
// taken to be equal, as Raft has it: a snapshot that was taken of entries which
// a cut log has lost, and which others of the same term have replaced, cannot be
// told from a good one.
func (s *supervisor) fit(b messages.LogBounds, info messages.SnapshotInfo, fail func(error), then func(fit)) {
	same := func(term uint64) fit {
		if term == info.Term {
			return within
		}
		return apart
	}
	switch {
	case info.Index+1 < b.First:
		then(behind)
	case info.Index+1 == b.First:
		then(same(b.PrevTerm))
	case info.Index > b.Last && info.Term >= b.LastTerm:
		then(ahead)
	case info.Index > b.Last:
		then(apart)
	default:
		call(s, s.parts.log.PID(), messages.ReadEntry{Group: info.Group, Index: info.Index}, fail, func(m messages.EntryRead) {
			switch {
			case m.Err == nil:
				then(same(m.Entry.Term))
			case errors.Is(m.Err, messages.ErrCorrupt): // the log tells of it; a replay may not need the entry
				then(within)
			case errors.Is(m.Err, messages.ErrCompacted), missing(m.Err): // since the bounds were read
				then(behind)
			default:
				fail(m.Err)
			}
		})
	}
}

// tellApart reports a snapshot that contradicts the log. applied is up to where
// the data has applied that log.
func (s *supervisor) tellApart(info messages.SnapshotInfo, b messages.LogBounds, applied uint64) {
	err := s.apartError(info, b, applied)
	if errors.Is(err, messages.ErrCorrupt) {
		s.host.Event(messages.DamageFound{Actor: s.parts.snapshot.PID().ID, Err: err})
	} else {
		s.host.Event(messages.SnapshotPassedOver{Actor: s.host.PID().ID, Info: info, Err: err})
	}
}

// apartError says what it means that a snapshot contradicts the log.
//
// If it contradicts an entry that is known to be committed, one of the two is of
// another history: Raft rules it out for two replicas of one. That is damage.
//
// Beyond that a follower may rightly hold such entries, of a term before or after
// the snapshot's, which a later leader takes back (Raft, figure 8). When that
// leader sends a snapshot, §7 has the follower give up its log. But it is the
// leader's message that says so, not the file, which is all that a recovery has:
// it can be a foreign one as well, and the commit index that is stored lags
// behind, or is never stored (hashicorp/raft), so that entries beyond it may
// have been acknowledged to a leader that counted them as committed. To reset
// the log would then lose them; to leave the snapshot alone loses nothing,
// because nobody has been told that it was installed, and the leader sends it
// again. So it stays unused, and is no damage. Who knows that it is to be
// installed sends ResetLog, or Restore with Discard.
func (s *supervisor) apartError(info messages.SnapshotInfo, b messages.LogBounds, applied uint64) error {
	if known := max(b.HardState.Commit, applied, b.First-1); min(info.Index, b.Last) > known {
		return fmt.Errorf("snapshot %s has index %d in term %d, and the log contradicts it with entries that are not known to be committed (those up to %d are): a leader that has it sends it again; ResetLog, or Restore with Discard, gives those entries up for it: %w",
			info.ID, info.Index, info.Term, known, messages.ErrConflict)
	}
	return fmt.Errorf("snapshot %s has index %d in term %d, and the log contradicts it: the two are of different histories, and the snapshot is not used: %w",
		info.ID, info.Index, info.Term, messages.ErrCorrupt)
}

// compare tells of the snapshots of a group that contradict its log, and ends
// with the others, in the same order. beyond: one of them lies beyond the end of
// the log. applied is up to where the data has applied that log.
func (s *supervisor) compare(b messages.LogBounds, applied uint64, snapshots []messages.SnapshotInfo, fail func(error), then func(sound []messages.SnapshotInfo, beyond bool)) {
	var sound []messages.SnapshotInfo
	beyond := false
	var next func(i int)
	next = func(i int) {
		if i == len(snapshots) {
			then(sound, beyond)
			return
		}
		s.fit(b, snapshots[i], fail, func(f fit) {
			if f == apart {
				s.tellApart(snapshots[i], b, applied)
			} else {
				sound = append(sound, snapshots[i])
				beyond = beyond || f == ahead
			}
			next(i + 1)
		})
	}
	next(0)
}

// openUsable opens the newest good snapshot of a group that does not contradict
// the log. sound are those that were compared with it, newest first. The error
// matches messages.ErrNotFound if there is none.
func (s *supervisor) openUsable(group uint64, b messages.LogBounds, sound []messages.SnapshotInfo, fail func(error), then func(messages.SnapshotOpened, fit, error)) {
	// The newest good one first: that tells of damage, and refuses to go back
	// behind what a later version has written.
	s.openSound(group, "", b, sound, fail, then)
}

// openOlder opens the first good one of those snapshots.
func (s *supervisor) openOlder(group uint64, b messages.LogBounds, sound []messages.SnapshotInfo, fail func(error), then func(messages.SnapshotOpened, fit, error)) {
	if len(sound) == 0 {
		then(messages.SnapshotOpened{}, behind, fmt.Errorf("group %d: no good snapshot goes together with the log: %w", group, messages.ErrNotFound))
		return
	}
	s.openSound(group, sound[0].ID, b, sound[1:], fail, then)
}

// openSound opens the snapshot called id, the newest good one if it is empty, or
// else an older one.
func (s *supervisor) openSound(group uint64, id string, b messages.LogBounds, older []messages.SnapshotInfo, fail func(error), then func(messages.SnapshotOpened, fit, error)) {
	snap := s.parts.snapshot.PID()
	call(s, snap, messages.OpenSnapshot{Group: group, ID: id}, fail, func(o messages.SnapshotOpened) {
		switch {
		case o.Err == nil:
			s.fit(b, o.Info, fail, func(f fit) {
				if f != apart {
					then(o, f, nil)
					return
				}
				s.tell(snap, messages.CloseSnapshot{Group: group, Stream: o.Stream})
				s.openOlder(group, b, older, fail, then)
			})
		case id != "" && errors.Is(o.Err, messages.ErrCorrupt):
			s.host.Event(messages.DamageFound{Actor: snap.ID, Err: o.Err})
			s.openOlder(group, b, older, fail, then)
		case id != "" && missing(o.Err): // deleted since it was listed
			s.openOlder(group, b, older, fail, then)
		case missing(o.Err):
			then(o, behind, fmt.Errorf("group %d: open snapshot: %w", group, o.Err))
		default:
			fail(fmt.Errorf("group %d: open snapshot: %w", group, o.Err))
		}
	})
}
