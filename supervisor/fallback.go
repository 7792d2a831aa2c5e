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
	// ends in a later term before it. Up to the commit index Raft rules that out
	// for two replicas of one history: the one or the other is of another, and
	// to replay the log on top of such a snapshot would give a state that never
	// was. Beyond it a follower may hold such entries, which a later leader
	// takes back (Raft, figure 8). The two cannot be told apart without a commit
	// index, which not every engine stores, so the snapshot is left alone and
	// reported: a leader sends it again.
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

// tellApart reports a snapshot that contradicts the log.
func (s *supervisor) tellApart(info messages.SnapshotInfo) {
	s.host.Event(messages.DamageFound{Actor: s.parts.snapshot.PID().ID, Err: apartError(info)})
}

func apartError(info messages.SnapshotInfo) error {
	return fmt.Errorf("snapshot %s has index %d in term %d, and the log contradicts it: the two are of different histories, and the snapshot is not used: %w",
		info.ID, info.Index, info.Term, messages.ErrCorrupt)
}

// compare tells of the snapshots of a group that contradict its log, and ends
// with the others, in the same order. beyond: one of them lies beyond the end of
// the log.
func (s *supervisor) compare(b messages.LogBounds, snapshots []messages.SnapshotInfo, fail func(error), then func(sound []messages.SnapshotInfo, beyond bool)) {
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
				s.tellApart(snapshots[i])
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
