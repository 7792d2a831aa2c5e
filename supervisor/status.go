package supervisor

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// status answers ReadStatus at once for what every actor counts, and asks those
// that serve for their positions. It waits for none that is down.
func (s *supervisor) status(r *actors.Request, c messages.ReadStatus) {
	if !s.parts.started.Load() { // there is nobody to ask yet
		r.Fail(fmt.Errorf("%s: the service is being opened: %w", s.host.PID().ID, messages.ErrUnavailable))
		return
	}
	st := &messages.Status{Tag: c.Tag, Group: c.Group, Statistics: s.parts.log.Statistics(),
		Data: s.parts.kv.Statistics(), Saves: s.parts.snapshot.Statistics(), Events: s.observer.events()}
	for _, g := range s.sortedGroups() {
		if g.failed != nil {
			st.Withheld = append(st.Withheld, messages.GroupFailure{Group: g.id, Err: g.failed})
		}
	}
	hosts := []*actors.Host{s.host, s.parts.log.Host, s.parts.snapshot.Host, s.parts.kv.Host}
	for _, h := range hosts {
		st.Actors = append(st.Actors, h.Status())
	}
	waiting := 1
	done := func() {
		if waiting--; waiting == 0 {
			r.Reply(*st)
		}
	}
	fail := func(err error) {
		st.Err = errors.Join(st.Err, err)
		done()
	}
	up := func(h *actors.Host) bool {
		state := h.Status().State
		return state == messages.StateServing || state == messages.StateRecovering
	}
	if up(s.parts.log.Host) {
		waiting++
		call(s, s.parts.log.PID(), messages.ReadBounds{Group: c.Group}, fail, func(m messages.BoundsRead) {
			st.Log = m.Bounds
			fail(m.Err)
		})
	}
	if up(s.parts.kv.Host) {
		waiting++
		call(s, s.parts.kv.PID(), messages.ReadApplied{Group: c.Group}, fail, func(m messages.AppliedRead) {
			st.Applied, st.Keys = m.Index, m.Keys
			fail(m.Err)
		})
	}
	if up(s.parts.snapshot.Host) {
		waiting++
		call(s, s.parts.snapshot.PID(), messages.ListSnapshots{Group: c.Group}, fail, func(m messages.SnapshotsListed) {
			st.Snapshots = m.Snapshots
			for _, d := range m.Damaged {
				m.Err = errors.Join(m.Err, d)
			}
			fail(m.Err)
		})
	}
	done()
}
