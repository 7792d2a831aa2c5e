package supervisor

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
)

// importing is one import on its way: a snapshot that is open replaces a
// group's data. The next chunk is read while one is being imported.
type importing struct {
	s     *supervisor
	group uint64
	// incarnation of the application data that the import was decided for:
	// another one has a recovery of its own.
	incarnation uint64
	open        messages.SnapshotOpened
	// before, if not nil, is what has to happen when all of the state is there
	// and does not count yet. It goes on with swap, or with abort.
	before func()
	fail   func(error)
	done   func()
	// pinned: done leaves the snapshot open, so that nobody removes it, and
	// closes it.
	pinned bool

	id       uint64 // of the import
	underWay int
	ended    bool
	failed   bool
}

// importWindow is how many chunks of an import are under way.
const importWindow = 2

// importSnapshot replaces a group's data by a snapshot, the newest good one if
// id is empty.
func (s *supervisor) importSnapshot(group uint64, id string, fail func(error), begin func(*importing)) {
	incarnation := s.kv
	call(s, s.parts.snapshot.PID(), messages.OpenSnapshot{Group: group, ID: id}, fail, func(o messages.SnapshotOpened) {
		if o.Err != nil {
			fail(fmt.Errorf("group %d: open snapshot: %w", group, o.Err))
			return
		}
		t := &importing{s: s, group: group, incarnation: incarnation, open: o, fail: fail}
		begin(t)
		t.begin()
	})
}

// current aborts the import if the application data has failed meanwhile.
func (t *importing) current() bool {
	if t.s.kv == t.incarnation {
		return true
	}
	t.abort(fmt.Errorf("the application data has failed meanwhile: %w", messages.ErrCrashed))
	return false
}

// importAhead imports a snapshot that lies beyond the end of the log, and has
// the log go on behind it (Raft §7): what was appended at an index that the
// snapshot includes would never be applied. The log is reset when all of the
// state has been read and before it counts: a snapshot that is none changes
// nothing, and a crash in between leaves a log that only this snapshot leads up
// to, which the next recovery imports.
//
// What was being proposed while the application data failed is answered before,
// which may have moved the end of the log: changed is called instead if the
// snapshot does not lie beyond it any more.
func (t *importing) importAhead(changed func()) {
	s, g, info := t.s, t.s.group(t.group), t.open.Info
	s.quiet(g, func(resume func()) {
		fail, done := t.fail, t.done
		t.fail = func(err error) {
			resume()
			fail(err)
		}
		t.done = func() {
			resume()
			done()
		}
		leave := func(err error) {
			t.close()
			t.fail(err)
		}
		s.bounds(t.group, leave, func(b messages.LogBounds) {
			s.fit(b, info, leave, func(f fit) {
				if f != ahead {
					t.close()
					resume()
					changed()
					return
				}
				t.before = func() { s.resetLog(g, info, t.abort, t.swap) }
				t.begin()
			})
		})
	})
}

func (t *importing) begin() {
	if t.open.Info.Group != t.group {
		t.close()
		t.fail(fmt.Errorf("snapshot %s is of group %d, not %d: %w", t.open.Info.ID, t.open.Info.Group, t.group, messages.ErrInvalid))
		return
	}
	fail := func(err error) {
		t.close()
		t.fail(err)
	}
	begin := messages.BeginImport{Group: t.group, Index: t.open.Info.Index, Term: t.open.Info.Term}
	call(t.s, t.s.parts.kv.PID(), begin, fail, func(b messages.ImportBegun) {
		if b.Err != nil {
			fail(b.Err)
			return
		}
		t.id = b.Import
		if t.current() {
			t.read()
		}
	})
}

// close lets go of the snapshot.
func (t *importing) close() {
	t.s.tell(t.s.parts.snapshot.PID(), messages.CloseSnapshot{Group: t.group, Stream: t.open.Stream})
}

// abort ends an import that has changed nothing.
func (t *importing) abort(err error) {
	if t.failed {
		return
	}
	t.failed = true
	t.s.tell(t.s.parts.kv.PID(), messages.AbortImport{Group: t.group, Import: t.id})
	t.close()
	t.fail(err)
}

func (t *importing) read() {
	next := messages.ReadChunk{Group: t.group, Stream: t.open.Stream, MaxBytes: messages.MaxSnapshotChunk}
	call(t.s, t.s.parts.snapshot.PID(), next, t.abort, func(c messages.ChunkRead) {
		switch {
		case errors.Is(c.Err, messages.ErrNotFound), errors.Is(c.Err, messages.ErrExpired):
			// The snapshot actor has failed meanwhile, or was slow for longer than
			// the lease (simulation seed 12): the snapshot is still there.
			t.abort(fmt.Errorf("%w: %w", messages.ErrCrashed, c.Err))
			return
		case c.Err != nil:
			t.abort(c.Err)
			return
		}
		t.ended = c.EOF
		t.write(c.Data)
		if !t.ended && t.underWay < importWindow {
			t.read()
		}
	})
}

func (t *importing) write(data []byte) {
	t.underWay++
	call(t.s, t.s.parts.kv.PID(), messages.ImportChunk{Group: t.group, Import: t.id, Data: data, EOF: t.ended}, t.abort, func(m messages.ChunkImported) {
		t.underWay--
		switch {
		case t.failed:
		case m.Err != nil:
			t.abort(m.Err)
		case t.ended && t.underWay == 0:
			if t.before == nil {
				t.swap()
			} else if t.current() {
				t.before()
			}
		case !t.ended && t.underWay == importWindow-1:
			t.read()
		}
	})
}

// swap makes the imported state the group's data.
func (t *importing) swap() {
	if !t.current() {
		return
	}
	call(t.s, t.s.parts.kv.PID(), messages.FinishImport{Group: t.group, Import: t.id}, t.abort, func(m messages.Imported) {
		if m.Err != nil || !t.pinned {
			t.close()
		}
		if m.Err != nil {
			t.fail(m.Err)
			return
		}
		t.done()
	})
}
