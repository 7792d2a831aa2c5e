package actors

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// SnapshotWriter writes a snapshot, or imports one, through a snapshot actor. It
// is for code outside of actors, one goroutine at a time.
//
// It sends chunks of 256 KiB, as many at a time as the actor gives credit for,
// and holds those and one more. A stream that breaks off, for example because
// the actor has crashed, fails the call that notices and every later one: only
// the caller can go back in what it is writing. SaveSnapshot and ImportSnapshot
// do that.
type SnapshotWriter struct {
	ctx    context.Context
	asker  *Asker
	pid    *actor.PID
	group  uint64
	stream messages.SaveBegun
	offset int64  // of the next byte that the caller gives
	chunk  []byte // being filled
	spare  []byte // to be filled next, or nil
	seq    uint64 // of the last chunk that was sent
	sent   []posted
	err    error // every further call fails with it
}

var (
	_ io.Writer     = (*SnapshotWriter)(nil)
	_ io.ReaderFrom = (*SnapshotWriter)(nil)
)

// NewSnapshotWriter begins a save. The context bounds Write and ReadFrom as
// well. Whoever does not end it by Finish, Suspend or Abort leaves it to the
// actor's lease.
//
// With begin.Resume the caller goes on from Offset.
func NewSnapshotWriter(ctx context.Context, a *Asker, pid *actor.PID, begin messages.BeginSave) (*SnapshotWriter, error) {
	return beginWriter(ctx, a, pid, begin.Group, begin)
}

// NewSnapshotImporter begins an import: what is written is the stream of an
// export, as NewSnapshotExporter yields it, from Offset on or from 0.
func NewSnapshotImporter(ctx context.Context, a *Asker, pid *actor.PID, begin messages.ImportSnapshot) (*SnapshotWriter, error) {
	return beginWriter(ctx, a, pid, begin.Group, begin)
}

func beginWriter(ctx context.Context, a *Asker, pid *actor.PID, group uint64, begin messages.Command) (*SnapshotWriter, error) {
	s, err := Ask[messages.SaveBegun](ctx, a, pid, begin)
	if err != nil {
		return nil, fmt.Errorf("actors: begin snapshot: %w", err)
	}
	return &SnapshotWriter{ctx: ctx, asker: a, pid: pid, group: group, stream: s, offset: s.Offset}, nil
}

// ID is what the snapshot will be called; empty for an import without one.
func (w *SnapshotWriter) ID() string { return w.stream.ID }

// Offset is how much of the state there is: what an earlier stream has left, and
// what was written since. For an import it is the offset in the file that the
// export may begin at, and changes only by what is written.
func (w *SnapshotWriter) Offset() int64 { return w.offset }

// Write implements io.Writer. It returns when p was copied, and waits for the
// actor if that means more chunks than it gives credit for.
func (w *SnapshotWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if w.err != nil {
			return n, w.err
		}
		k := copy(w.room(), p[n:])
		n += k
		w.filled(k)
	}
	return n, w.err
}

// ReadFrom implements io.ReaderFrom: io.Copy reads into the chunks themselves.
func (w *SnapshotWriter) ReadFrom(r io.Reader) (n int64, err error) {
	for idle := 0; w.err == nil; {
		k, err := r.Read(w.room())
		n += int64(k)
		w.filled(k)
		switch {
		case w.err != nil:
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		case k > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return n, io.ErrNoProgress
			}
		}
	}
	return n, w.err
}

// room is where the next bytes go, never nothing.
func (w *SnapshotWriter) room() []byte {
	if w.chunk == nil && w.spare != nil {
		w.chunk, w.spare = w.spare[:0], nil
	} else if w.chunk == nil {
		w.chunk = make([]byte, 0, defaultChunk)
	}
	return w.chunk[len(w.chunk):cap(w.chunk)]
}

func (w *SnapshotWriter) filled(n int) {
	w.chunk = w.chunk[:len(w.chunk)+n]
	w.offset += int64(n)
	if len(w.chunk) == cap(w.chunk) {
		w.send(w.ctx)
	}
}

// send sends the chunk, when there is credit for it.
func (w *SnapshotWriter) send(ctx context.Context) {
	w.settle(ctx, w.stream.Credit-1)
	if w.err != nil {
		return
	}
	w.seq++
	p, err := w.asker.post(w.pid, messages.SaveChunk{Group: w.group, Stream: w.stream.Stream, Seq: w.seq, Data: w.chunk})
	w.chunk = nil
	if err != nil {
		w.fail(err)
		return
	}
	w.sent = append(w.sent, p)
}

// settle waits until no more than a number of chunks are under way.
func (w *SnapshotWriter) settle(ctx context.Context, most int) {
	for w.err == nil && len(w.sent) > most {
		p := w.sent[0]
		w.sent = append(w.sent[:0], w.sent[1:]...)
		m, err := await[messages.ChunkSaved](ctx, p)
		if err != nil {
			w.fail(err)
		} else if cap(m.Data) == defaultChunk {
			w.spare = m.Data
		}
	}
}

// flush sends what is left and waits until all of it was taken.
func (w *SnapshotWriter) flush(ctx context.Context) {
	if w.err == nil && len(w.chunk) > 0 {
		w.send(ctx)
	}
	w.settle(ctx, 0)
}

func (w *SnapshotWriter) fail(err error) {
	w.err = fmt.Errorf("actors: write snapshot %s: %w", w.stream.ID, err)
	w.chunk, w.spare, w.sent = nil, nil, nil
}

func (w *SnapshotWriter) over(how string) {
	w.err = fmt.Errorf("actors: write snapshot %s: it was %s: %w", w.stream.ID, how, messages.ErrInvalid)
	w.chunk, w.spare, w.sent = nil, nil, nil
}

// Finish completes the snapshot. With a nil error it is on disk and survives
// power loss. If the error matches messages.ErrInDoubt, or is the context's, the
// snapshot with the ID may be there, whole.
func (w *SnapshotWriter) Finish(ctx context.Context) (messages.SnapshotInfo, error) {
	w.flush(ctx)
	if w.err != nil {
		return messages.SnapshotInfo{}, w.err
	}
	m, err := Ask[messages.Saved](ctx, w.asker, w.pid, messages.FinishSave{Group: w.group, Stream: w.stream.Stream})
	if err != nil {
		w.fail(err)
		return messages.SnapshotInfo{}, w.err
	}
	w.over("finished")
	return m.Info, nil
}

// Suspend ends a writer that was begun with Resume, or an importer, and keeps
// what was written, durably. It may be called after an error; what was kept then
// is told by the Offset of the next one.
func (w *SnapshotWriter) Suspend(ctx context.Context) error {
	w.flush(ctx)
	failed := w.err
	_, err := Ask[messages.SaveSuspended](ctx, w.asker, w.pid, messages.SuspendSave{Group: w.group, Stream: w.stream.Stream})
	if failed != nil && lost(err) {
		return failed
	}
	if err != nil {
		return fmt.Errorf("actors: suspend snapshot %s: %w", w.stream.ID, err)
	}
	w.over("suspended")
	return failed
}

// Abort gives the snapshot up and removes what was written. After an error or
// the end of the stream it removes what is left of it if the actor still has the
// stream. What has been suspended, also by a lease that ran out, is removed by
// messages.DiscardSnapshotFile.
func (w *SnapshotWriter) Abort(ctx context.Context) error {
	w.over("given up")
	_, err := Ask[messages.SaveAborted](ctx, w.asker, w.pid, messages.AbortSave{Group: w.group, Stream: w.stream.Stream})
	if err != nil && !lost(err) {
		return fmt.Errorf("actors: abort snapshot %s: %w", w.stream.ID, err)
	}
	return nil
}

// letGo asks for the end of the stream and does not wait for it: the context may
// have ended, and the lease is the second net.
func (w *SnapshotWriter) letGo() {
	w.over("given up")
	// An error says that there is no actor, and so no stream.
	_, _ = w.asker.post(w.pid, messages.SuspendSave{Group: w.group, Stream: w.stream.Stream})
}

// lost reports whether a stream is gone, which another one can go on for.
func lost(err error) bool {
	return errors.Is(err, messages.ErrNotFound) || errors.Is(err, messages.ErrExpired) || transient(err)
}

// transient reports whether the same command may succeed if it is sent again.
func transient(err error) bool {
	return errors.Is(err, messages.ErrCrashed) || errors.Is(err, messages.ErrInDoubt) ||
		errors.Is(err, messages.ErrUnavailable) || errors.Is(err, messages.ErrOverloaded)
}
