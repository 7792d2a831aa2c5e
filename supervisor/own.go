package supervisor

import (
	"errors"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// ownProofBytes is how much of a log is looked at to tell whose it is. The log of
// application data has an operation in there, if it has one at all: what it has
// besides are single entries of elections and of changes of the members.
const ownProofBytes = 1 << 20

// owned reports whether a group belongs to a state machine of the user's own,
// whose log and snapshots recovery leaves to it, whatever it has done with them:
// there are no keys and no indexes, the log begins with an entry of a type other
// than zero and holds no operation, and there is no snapshot of application
// data. strange: it has been found that there are snapshots, of something else.
// Without them the data must have counted entries of the group, so that it is
// known not to be lost, and the log must not be: one that was reset or compacted
// does not begin at 1.
func (s *supervisor) owned(id uint64, b messages.LogBounds, applied uint64, strange bool, fail func(error), then func(bool)) {
	if !strange && (applied == 0 || b.Empty() && b.First == 1) {
		then(false)
		return
	}
	snapshots := func() {
		if strange {
			then(true)
			return
		}
		s.ownSnapshots(id, fail, then)
	}
	log := func() {
		if b.Empty() {
			snapshots()
			return
		}
		read := messages.ReadRange{Group: id, From: b.First, To: b.Last + 1, MaxBytes: ownProofBytes}
		call(s, s.parts.log.PID(), read, fail, func(m messages.RangeRead) {
			if m.Err != nil && !errors.Is(m.Err, messages.ErrCorrupt) { // which the log tells of
				fail(m.Err)
				return
			}
			for i, e := range m.Entries {
				if e.Type == messages.EntryNormal && (i == 0 || len(e.Data) > 0) {
					then(false)
					return
				}
			}
			snapshots()
		})
	}
	call(s, s.parts.kv.PID(), messages.Scan{Group: id, Limit: 1, KeysOnly: true}, fail, func(m messages.Scanned) {
		if m.Err != nil || len(m.Pairs) > 0 {
			s.unless(m.Err, fail, func() { then(false) })
			return
		}
		call(s, s.parts.kv.PID(), messages.ListIndexes{Group: id}, fail, func(m messages.IndexesListed) {
			if m.Err != nil || len(m.Indexes) > 0 {
				s.unless(m.Err, fail, func() { then(false) })
				return
			}
			log()
		})
	})
}

func (s *supervisor) unless(err error, fail func(error), then func()) {
	if err != nil {
		fail(err)
		return
	}
	then()
}

// ownSnapshots reports whether the newest good snapshot of a group, if there is
// one, is no application data.
func (s *supervisor) ownSnapshots(id uint64, fail func(error), then func(bool)) {
	snap := s.parts.snapshot.PID()
	call(s, snap, messages.OpenSnapshot{Group: id}, fail, func(o messages.SnapshotOpened) {
		if o.Err != nil {
			if missing(o.Err) {
				then(true)
				return
			}
			fail(o.Err)
			return
		}
		call(s, snap, messages.ReadChunk{Group: id, Stream: o.Stream, MaxBytes: 8}, fail, func(c messages.ChunkRead) {
			s.tell(snap, messages.CloseSnapshot{Group: id, Stream: o.Stream})
			s.unless(c.Err, fail, func() { then(!kv.IsState(c.Data)) })
		})
	})
}

// forget has the application data of a group that is owned count from where its
// log begins now: it was reset to before what had been counted, or to another
// history. What has no keys is exported and comes back under another index.
func (s *supervisor) forget(id uint64, b messages.LogBounds, fail func(error), done func()) {
	data := s.parts.kv.PID()
	call(s, data, messages.OpenView{Group: id, Export: true}, fail, func(v messages.ViewOpened) {
		if v.Err != nil {
			fail(v.Err)
			return
		}
		call(s, data, messages.ExportChunk{Group: id, View: v.View}, fail, func(e messages.ChunkExported) {
			s.tell(data, messages.CloseView{Group: id, View: v.View})
			if e.Err != nil {
				fail(e.Err)
				return
			}
			call(s, data, messages.BeginImport{Group: id, Index: b.First - 1, Term: b.PrevTerm}, fail, func(i messages.ImportBegun) {
				if i.Err != nil {
					fail(i.Err)
					return
				}
				call(s, data, messages.ImportChunk{Group: id, Import: i.Import, Data: e.Data, EOF: e.EOF}, fail, func(c messages.ChunkImported) {
					if c.Err != nil {
						fail(c.Err)
						return
					}
					call(s, data, messages.FinishImport{Group: id, Import: i.Import}, fail, func(f messages.Imported) {
						s.unless(f.Err, fail, done)
					})
				})
			})
		})
	})
}
