package supervisor

import (
	"fmt"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// createSnapshot is the flow behind messages.CreateSnapshot:
//
//  1. open a view of the application data: a point in time, at index N;
//  2. stream it from the view into a new snapshot, with credit, while writes
//     go on;
//  3. finish it: synced, renamed, directory synced;
//  4. verify the file by reading it back;
//  5. apply the retention, in which only snapshots count that can be fallen
//     back on;
//  6. compact the log up to the oldest of those that stay, so that falling
//     back to it works: see retaining.
//
// A failure before step 4 is over leaves nothing behind but older snapshots; a
// later one leaves a good snapshot and a longer log. What was cut short is not
// gone on with: see DESIGN.md, decision 6.
func (s *supervisor) createSnapshot(r *actors.Request, c messages.CreateSnapshot) {
	g := s.group(c.Group)
	if g.pauses > 0 {
		r.Fail(fmt.Errorf("%s: create snapshot: group %d is being restored: %w", s.host.PID().ID, c.Group, messages.ErrConflict))
		return
	}
	if g.snapshotting {
		r.Fail(fmt.Errorf("%s: create snapshot: another one of group %d is being taken: %w", s.host.PID().ID, c.Group, messages.ErrConflict))
		return
	}
	g.snapshotting = true
	t := &taking{s: s, r: r, c: c, g: g}
	began := s.host.Now()
	t.finished = func(info messages.SnapshotInfo) {
		s.host.Event(messages.SnapshotTaken{Info: info, Took: s.host.Now().Sub(began)})
	}
	t.open()
}

// taking is one snapshot on its way.
type taking struct {
	s        *supervisor
	r        *actors.Request
	c        messages.CreateSnapshot
	g        *group
	finished func(messages.SnapshotInfo)

	view        uint64
	viewOpen    bool
	stream      uint64
	streamOpen  bool
	credit      int
	seq         uint64
	saving      int // chunks under way
	exporting   bool
	exported    bool
	info        messages.SnapshotInfo
	index, term uint64
	over        bool
}

// fail ends the flow and lets go of what it holds. A snapshot that has been
// verified is named in the reply.
func (t *taking) fail(err error) {
	if t.over {
		return
	}
	t.end()
	t.r.Reply(messages.SnapshotCreated{Tag: t.c.Tag, Group: t.c.Group, Info: t.info,
		Err: fmt.Errorf("%s: create snapshot of group %d: %w", t.s.host.PID().ID, t.c.Group, err)})
}

func (t *taking) end() {
	t.over = true
	t.g.snapshotting = false
	if t.viewOpen {
		t.viewOpen = false
		t.s.tell(t.s.parts.kv.PID(), messages.CloseView{Group: t.c.Group, View: t.view})
	}
	if t.streamOpen {
		t.streamOpen = false
		t.s.tell(t.s.parts.snapshot.PID(), messages.AbortSave{Group: t.c.Group, Stream: t.stream})
	}
}

func (t *taking) open() {
	call(t.s, t.s.parts.kv.PID(), messages.OpenView{Group: t.c.Group, Export: true}, t.fail, func(v messages.ViewOpened) {
		if v.Err != nil {
			t.fail(v.Err)
			return
		}
		t.view, t.viewOpen = v.View, true
		t.index, t.term = v.Index, v.Term
		if v.Index == 0 || v.Index < t.c.UpTo {
			t.fail(fmt.Errorf("index %d asked for, %d applied: %w", t.c.UpTo, v.Index, messages.ErrNotApplied))
			return
		}
		begin := messages.BeginSave{Group: t.c.Group, Index: v.Index, Term: v.Term, Meta: t.c.Meta}
		call(t.s, t.s.parts.snapshot.PID(), begin, t.fail, func(b messages.SaveBegun) {
			if b.Err != nil {
				t.fail(b.Err)
				return
			}
			t.stream, t.streamOpen, t.credit = b.Stream, true, b.Credit
			t.pump()
		})
	})
}

// pump keeps one export and as many saves as there is credit for under way.
func (t *taking) pump() {
	if t.over {
		return
	}
	if t.exported {
		if t.saving == 0 {
			t.finish()
		}
		return
	}
	if t.exporting || t.saving >= t.credit {
		return
	}
	t.exporting = true
	call(t.s, t.s.parts.kv.PID(), messages.ExportChunk{Group: t.c.Group, View: t.view}, t.fail, func(e messages.ChunkExported) {
		if t.over {
			return
		}
		t.exporting = false
		if e.Err != nil {
			t.fail(e.Err)
			return
		}
		t.exported = e.EOF
		t.save(e.Data)
		t.pump()
	})
}

func (t *taking) save(data []byte) {
	t.seq++
	t.saving++
	chunk := messages.SaveChunk{Group: t.c.Group, Stream: t.stream, Seq: t.seq, Data: data}
	call(t.s, t.s.parts.snapshot.PID(), chunk, t.fail, func(m messages.ChunkSaved) {
		if t.over {
			return
		}
		t.saving--
		if m.Err != nil {
			t.fail(m.Err)
			return
		}
		t.pump()
	})
}

func (t *taking) finish() {
	t.s.tell(t.s.parts.kv.PID(), messages.CloseView{Group: t.c.Group, View: t.view})
	t.viewOpen, t.streamOpen = false, false
	call(t.s, t.s.parts.snapshot.PID(), messages.FinishSave{Group: t.c.Group, Stream: t.stream}, t.fail, func(m messages.Saved) {
		if m.Err != nil {
			t.fail(m.Err)
			return
		}
		call(t.s, t.s.parts.snapshot.PID(), messages.VerifySnapshot{Group: t.c.Group, ID: m.Info.ID}, t.fail, func(v messages.SnapshotVerified) {
			if v.Err != nil {
				t.fail(v.Err)
				return
			}
			t.info = v.Info
			t.finished(v.Info)
			retain(t)
		})
	})
}

// compact removes from the log what a snapshot at upTo covers, which ends the
// flow.
func (t *taking) compact(upTo uint64) {
	call(t.s, t.s.parts.log.PID(), messages.TruncateBefore{Group: t.c.Group, Index: upTo + 1}, t.fail, func(m messages.Compacted) {
		if m.Err != nil {
			t.fail(m.Err)
			return
		}
		t.end()
		t.s.host.Event(messages.LogCompacted{Group: t.c.Group, First: m.First})
		t.r.Reply(messages.SnapshotCreated{Tag: t.c.Tag, Group: t.c.Group, Info: t.info, LogFirst: m.First})
	})
}
