package actors

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

func (b *snapshotBehavior) beginSave(r *Request, c messages.BeginSave) {
	s := &stream{write: true, resumable: c.Resume, note: &saving{group: c.Group, resumable: c.Resume}}
	b.begin(r, s, func() (sink, int64, error) {
		var w snapshot.Writer
		var offset int64
		var err error
		if c.Resume {
			w, offset, err = b.store.Resume(c.Group, c.Index, c.Term, c.Meta)
		} else {
			w, err = b.store.Create(c.Group, c.Index, c.Term, c.Meta)
		}
		if err == nil && c.ContentHash != [32]byte{} {
			w.Expect(c.ContentHash)
		}
		return w, offset, err
	})
}

func (b *snapshotBehavior) importSnapshot(r *Request, c messages.ImportSnapshot) {
	s := &stream{write: true, resumable: true, note: &saving{group: c.Group, resumable: true, imported: true}}
	b.begin(r, s, func() (sink, int64, error) { return b.store.Import(c.ID) })
}

// begin opens a stream towards the disk.
func (b *snapshotBehavior) begin(r *Request, s *stream, open func() (sink, int64, error)) {
	b.add(s)
	// What is idle for too long ends so.
	s.end = s.breakOff
	b.run(s.lane, callOf(r.Command), func() func() {
		w, offset, err := open()
		begun := messages.SaveBegun{Tag: r.Command.RequestTag(), Group: s.note.group, Stream: s.id, Offset: offset, Credit: b.cfg.Credit, Err: err}
		if err == nil {
			s.writer = w
			begun.ID = w.ID()
			s.note.name(begun.ID)
		}
		return func() {
			s.opened = err == nil
			b.streams.settle(s, err)
			r.Reply(begun)
		}
	})
}

// breakOff ends a stream towards the disk that its owner does not end. It runs
// on the stream's lane.
func (s *stream) breakOff() error {
	if s.resumable {
		return s.writer.Suspend()
	}
	return s.writer.Abort()
}

func (b *snapshotBehavior) saveChunk(r *Request, c messages.SaveChunk) {
	s, ok := b.streams.find(r, c.Stream, isWriter)
	if !ok || !b.withinCredit(r, s) {
		return
	}
	var err error
	switch {
	case c.Seq != s.seq+1:
		err = b.errorf(s, "chunk %d after %d: %w", c.Seq, s.seq, messages.ErrOutOfOrder)
	case len(c.Data) > messages.MaxSnapshotChunk:
		err = b.errorf(s, "chunk of %d bytes, at most %d: %w", len(c.Data), messages.MaxSnapshotChunk, messages.ErrTooLarge)
	}
	s.seq = c.Seq
	s.underWay++
	b.run(s.lane, callOf(r.Command), func() func() {
		if err == nil {
			began := b.host.Now()
			_, err = s.writer.Write(c.Data)
			b.counters.wrote(len(c.Data), b.host.Now().Sub(began))
		} else {
			err = errors.Join(err, s.breakOff())
		}
		b.host.room(err)
		saved := messages.ChunkSaved{Tag: c.Tag, Group: c.Group, Stream: s.id, Seq: c.Seq, Err: err}
		if err == nil {
			saved.Data = c.Data // the store has copied it
		}
		return func() {
			b.streams.settle(s, err)
			r.Reply(saved)
		}
	})
}

func (b *snapshotBehavior) finishSave(r *Request, c messages.FinishSave) {
	s, ok := b.streams.find(r, c.Stream, isWriter)
	if !ok {
		return
	}
	r.Note = s.note
	b.last(r, s, func() messages.Reply {
		s.note.name(s.writer.ID()) // an import may have learned it from its chunks
		began := b.host.Now()
		info, err := s.writer.Finish()
		b.counters.wrote(0, b.host.Now().Sub(began))
		b.saved(err)
		s.note.ended(info, err)
		return messages.Saved{Tag: c.Tag, Group: c.Group, Info: info, Err: err}
	})
}

func (b *snapshotBehavior) suspendSave(r *Request, c messages.SuspendSave) {
	s, ok := b.streams.find(r, c.Stream, isWriter)
	if !ok {
		return
	}
	if !s.resumable {
		r.Fail(b.errorf(s, "it was not begun with Resume: %w", messages.ErrInvalid))
		return
	}
	r.Note = s.note
	b.last(r, s, func() messages.Reply {
		err := s.writer.Suspend()
		s.note.ended(messages.SnapshotInfo{}, err)
		return messages.SaveSuspended{Tag: c.Tag, Group: c.Group, Err: err}
	})
}

func (b *snapshotBehavior) abortSave(r *Request, c messages.AbortSave) {
	s, ok := b.streams.find(r, c.Stream, isWriter)
	if !ok {
		return
	}
	r.Note = s.note
	b.last(r, s, func() messages.Reply {
		s.note.name(s.writer.ID())
		err := s.writer.Abort()
		s.note.ended(messages.SnapshotInfo{}, err)
		return messages.SaveAborted{Tag: c.Tag, Group: c.Group, Err: err}
	})
}

func (b *snapshotBehavior) save(r *Request, c messages.Save) {
	if len(c.Data) > messages.MaxSnapshotChunk {
		r.Fail(fmt.Errorf("%s: save of %d bytes, at most %d in one message: %w", b.host.PID().ID, len(c.Data), messages.MaxSnapshotChunk, messages.ErrTooLarge))
		return
	}
	note := &saving{group: c.Group}
	r.Note = note
	b.change(r, c.Group, func() messages.Reply {
		info, err := func() (messages.SnapshotInfo, error) {
			w, err := b.store.Create(c.Group, c.Index, c.Term, c.Meta)
			if err != nil {
				return messages.SnapshotInfo{}, err
			}
			note.name(w.ID())
			if _, err := w.Write(c.Data); err != nil {
				return messages.SnapshotInfo{}, err
			}
			return w.Finish()
		}()
		b.saved(err)
		note.ended(info, err)
		return messages.Saved{Tag: c.Tag, Group: c.Group, Info: info, Err: err}
	})
}
