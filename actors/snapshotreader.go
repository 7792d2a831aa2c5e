package actors

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// SnapshotReader reads the state of a snapshot, or its export, through a
// snapshot actor. It is for code outside of actors, one goroutine at a time.
//
// It keeps chunks of 256 KiB asked for ahead, as many as the actor gives credit
// for, and holds those and one more. When the stream breaks off, because the
// actor has crashed or the reader was idle for longer than the lease, it opens
// another one where it was, until its context ends.
type SnapshotReader struct {
	ctx   context.Context
	asker *Asker
	pid   *actor.PID
	group uint64
	// reopen returns the command that opens a stream from a position on, and
	// how many bytes of it come before that position.
	reopen func(at int64) (c messages.Command, before int64)

	info  messages.SnapshotInfo
	total int64 // bytes, from position 0 on

	stream messages.SnapshotOpened
	skip   int64 // bytes of it that come before what is wanted
	asked  int64 // bytes of it that were asked for
	ahead  []posted
	pos    int64  // of the byte after rest
	chunk  []byte // that came last
	rest   []byte // of it that was not read
	err    error  // every further call fails with it
	closed bool
}

var (
	_ io.ReadCloser = (*SnapshotReader)(nil)
	_ io.WriterTo   = (*SnapshotReader)(nil)
)

// NewSnapshotReader opens a snapshot, which was then verified whole. The context
// bounds everything but Close, which the caller must call, or the snapshot cannot
// be deleted until the lease runs out.
func NewSnapshotReader(ctx context.Context, a *Asker, pid *actor.PID, open messages.OpenSnapshot) (*SnapshotReader, error) {
	if open.Random {
		return nil, fmt.Errorf("actors: open snapshot: Random is for NewSnapshotReaderAt: %w", messages.ErrInvalid)
	}
	r := &SnapshotReader{ctx: ctx, asker: a, pid: pid, group: open.Group}
	r.reopen = func(at int64) (messages.Command, int64) {
		return messages.OpenSnapshot{Group: open.Group, ID: r.info.ID, Offset: open.Offset + at}, 0
	}
	return r, r.open(open)
}

// NewSnapshotExporter opens the export of a snapshot: what a SnapshotWriter from
// NewSnapshotImporter takes.
func NewSnapshotExporter(ctx context.Context, a *Asker, pid *actor.PID, export messages.ExportSnapshot) (*SnapshotReader, error) {
	r := &SnapshotReader{ctx: ctx, asker: a, pid: pid, group: export.Group}
	r.reopen = func(at int64) (messages.Command, int64) {
		// Each stream begins with an envelope, of which this one has said enough.
		c := messages.ExportSnapshot{Group: export.Group, ID: r.info.ID, Offset: export.Offset}
		if at <= snapshot.EnvelopeBytes {
			return c, at
		}
		c.Offset += at - snapshot.EnvelopeBytes
		return c, snapshot.EnvelopeBytes
	}
	return r, r.open(export)
}

// open is the first opening.
func (r *SnapshotReader) open(c messages.Command) error {
	o, err := Ask[messages.SnapshotOpened](r.ctx, r.asker, r.pid, c)
	if err != nil {
		r.err = fmt.Errorf("actors: open snapshot: %w", err)
		return r.err
	}
	r.stream, r.info, r.total = o, o.Info, o.Size
	return nil
}

// Info describes the snapshot.
func (r *SnapshotReader) Info() messages.SnapshotInfo { return r.info }

// Size is how many bytes there are from the beginning of the first stream to the
// end.
func (r *SnapshotReader) Size() int64 { return r.total }

// Read implements io.Reader.
func (r *SnapshotReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: io.Copy gets whole chunks, which are not
// copied.
func (r *SnapshotReader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if err := r.fill(); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
		k, err := w.Write(r.rest)
		n += int64(k)
		if err == nil && k < len(r.rest) {
			err = io.ErrShortWrite
		}
		r.rest = r.rest[k:]
		if err != nil {
			return n, err
		}
	}
}

// fill sees to it that there is something to be read.
func (r *SnapshotReader) fill() error {
	var wait pause
	for len(r.rest) == 0 {
		if r.err != nil {
			return r.err
		}
		if r.pos == r.total {
			r.err = io.EOF
			return r.err
		}
		err := r.next()
		if err == nil {
			wait = pause{}
			continue
		}
		if !lost(err) {
			return r.fail(err)
		}
		if err := r.resume(err, &wait); err != nil {
			return r.fail(err)
		}
	}
	return nil
}

func (r *SnapshotReader) fail(err error) error {
	r.err = fmt.Errorf("actors: read snapshot %s: %w", r.info.ID, err)
	r.ahead = nil
	return r.err
}

// next takes the oldest chunk that was asked for.
func (r *SnapshotReader) next() error {
	for len(r.ahead) < r.stream.Credit && r.asked < r.stream.Size {
		// The chunk that has been read is where the next one goes.
		p, err := r.asker.post(r.pid, messages.ReadChunk{Group: r.group, Stream: r.stream.Stream, MaxBytes: defaultChunk, Buffer: r.chunk})
		r.chunk = nil
		if err != nil {
			return err
		}
		r.ahead = append(r.ahead, p)
		r.asked += min(defaultChunk, r.stream.Size-r.asked)
	}
	if len(r.ahead) == 0 {
		return fmt.Errorf("the stream has ended at %d of %d: %w", r.pos, r.total, io.ErrUnexpectedEOF)
	}
	p := r.ahead[0]
	r.ahead = append(r.ahead[:0], r.ahead[1:]...)
	c, err := await[messages.ChunkRead](r.ctx, p)
	if err != nil {
		return err
	}
	skip := min(r.skip, int64(len(c.Data)))
	r.skip -= skip
	r.chunk, r.rest = c.Data, c.Data[skip:]
	r.pos += int64(len(r.rest))
	return nil
}

// resume opens another stream where the last one has broken off.
func (r *SnapshotReader) resume(cause error, wait *pause) error {
	r.ahead = nil
	r.leave()
	for {
		if ended := wait.sleep(r.ctx); ended != nil {
			return fmt.Errorf("%w: %w", ended, cause)
		}
		c, before := r.reopen(r.pos)
		o, err := Ask[messages.SnapshotOpened](r.ctx, r.asker, r.pid, c)
		switch {
		case err == nil && same(o.Info, r.info):
			r.stream, r.skip, r.asked = o, before, 0
			return nil
		case err == nil:
			r.stream = o
			return fmt.Errorf("another snapshot has the id now: %w", messages.ErrConflict)
		case !transient(err):
			return err
		}
		cause = err
	}
}

// same reports whether two snapshots are the same, of the same bytes.
func same(a, b messages.SnapshotInfo) bool {
	return a.ID == b.ID && a.ContentHash == b.ContentHash && a.FileBytes == b.FileBytes
}

// leave closes the stream, if it is still there, and does not wait for it.
func (r *SnapshotReader) leave() {
	// An error says that there is no actor, and so no stream.
	_, _ = r.asker.post(r.pid, messages.CloseSnapshot{Group: r.group, Stream: r.stream.Stream})
}

// Close ends the reader. It waits until the snapshot is closed, unless the
// context has ended: it will be closed then as well. A second Close does nothing.
func (r *SnapshotReader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.ahead, r.chunk, r.rest = nil, nil, nil
	r.err = fmt.Errorf("actors: read snapshot %s: the reader is closed: %w", r.info.ID, messages.ErrInvalid)
	return closeStream(r.ctx, r.asker, r.pid, r.group, r.stream.Stream)
}

func closeStream(ctx context.Context, a *Asker, pid *actor.PID, group, stream uint64) error {
	p, err := a.post(pid, messages.CloseSnapshot{Group: group, Stream: stream})
	if err == nil {
		_, err = await[messages.SnapshotClosed](ctx, p)
		if ctx.Err() != nil || errors.Is(err, messages.ErrStopped) || err != nil && lost(err) {
			return nil // it is on its way, or the stream has ended before
		}
	}
	if err != nil {
		return fmt.Errorf("actors: close snapshot: %w", err)
	}
	return nil
}
