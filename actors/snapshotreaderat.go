package actors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// SnapshotReaderAt reads a snapshot at any place through a snapshot actor, for
// code outside of actors: kv.OpenState finds single keys through it. Any number
// of calls may be under way; together they have no more chunks of 256 KiB asked
// for than the actor gives credit for.
//
// When the stream breaks off, because the actor has crashed or nothing was read
// for longer than the lease, it opens another one, until its context ends. The
// snapshot can be deleted in between.
type SnapshotReaderAt struct {
	ctx    context.Context
	asker  *Asker
	pid    *actor.PID
	group  uint64
	info   messages.SnapshotInfo
	credit chan struct{} // has room for as many chunks as may be under way

	mu     sync.Mutex
	stream uint64
	closed bool
}

var (
	_ io.ReaderAt = (*SnapshotReaderAt)(nil)
	_ io.Closer   = (*SnapshotReaderAt)(nil)
)

// NewSnapshotReaderAt opens a snapshot without reading it: each block is checked
// when it is read. The context bounds everything but Close, which the caller must
// call.
func NewSnapshotReaderAt(ctx context.Context, a *Asker, pid *actor.PID, open messages.OpenSnapshot) (*SnapshotReaderAt, error) {
	open.Random = true
	o, err := Ask[messages.SnapshotOpened](ctx, a, pid, open)
	if err != nil {
		return nil, fmt.Errorf("actors: open snapshot: %w", err)
	}
	return &SnapshotReaderAt{ctx: ctx, asker: a, pid: pid, group: open.Group, info: o.Info, stream: o.Stream,
		credit: make(chan struct{}, o.Credit)}, nil
}

// Info describes the snapshot.
func (r *SnapshotReaderAt) Info() messages.SnapshotInfo { return r.info }

// Size is the length of the state.
func (r *SnapshotReaderAt) Size() int64 { return r.info.RawBytes }

// ReadAt implements io.ReaderAt.
func (r *SnapshotReaderAt) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, r.failure(fmt.Errorf("at offset %d: %w", offset, messages.ErrInvalid))
	}
	if int64(len(p)) > r.Size()-offset {
		p, err = p[:max(0, r.Size()-offset)], io.EOF
	}
	// Within one call chunks are asked for ahead, as far as others leave credit.
	var ahead []piece
	defer func() {
		for range ahead {
			<-r.credit
		}
	}()
	for n < len(p) {
		for asked := n + len(ahead)*defaultChunk; asked < len(p); asked += defaultChunk {
			if !r.take(len(ahead) == 0) {
				break
			}
			ahead = append(ahead, r.ask(p[asked:min(asked+defaultChunk, len(p))], offset+int64(asked)))
		}
		if len(ahead) == 0 {
			return n, r.failure(r.ctx.Err())
		}
		first := ahead[0]
		err := r.await(first)
		ahead = ahead[1:]
		<-r.credit
		if err != nil {
			return n, r.failure(err)
		}
		n += len(first.to)
	}
	return n, err
}

// take takes credit for one chunk. It waits for it, until the context ends, only
// if wait is set: who waits must have none.
func (r *SnapshotReaderAt) take(wait bool) bool {
	if !wait {
		select {
		case r.credit <- struct{}{}:
			return true
		default:
			return false
		}
	}
	select {
	case r.credit <- struct{}{}:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// piece is a chunk that was asked for.
type piece struct {
	to     []byte
	at     int64
	stream uint64
	posted posted
	err    error // it could not be asked for
}

func (r *SnapshotReaderAt) ask(to []byte, at int64) piece {
	r.mu.Lock()
	x := piece{to: to, at: at, stream: r.stream}
	closed := r.closed
	r.mu.Unlock()
	if closed {
		x.err = fmt.Errorf("the reader is closed: %w", messages.ErrInvalid)
		return x
	}
	x.posted, x.err = r.asker.post(r.pid, messages.ReadChunk{Group: r.group, Stream: x.stream, Offset: at, MaxBytes: len(to)})
	return x
}

// await takes a chunk, and asks for it again if the stream has broken off.
func (r *SnapshotReaderAt) await(x piece) error {
	for wait := (pause{}); ; {
		err := x.err
		if err == nil {
			var c messages.ChunkRead
			if c, err = await[messages.ChunkRead](r.ctx, x.posted); err == nil {
				if n := copy(x.to, c.Data); n < len(x.to) {
					return fmt.Errorf("%d of %d bytes at offset %d: %w", n, len(x.to), x.at, io.ErrUnexpectedEOF)
				}
				return nil
			}
		}
		if !lost(err) {
			return err
		}
		if ended := wait.sleep(r.ctx); ended != nil {
			return fmt.Errorf("%w: %w", ended, err)
		}
		if !errors.Is(err, messages.ErrOverloaded) {
			if err := r.reopen(x.stream); err != nil && !transient(err) {
				return err
			}
		}
		x = r.ask(x.to, x.at)
	}
}

// reopen opens another stream, unless somebody else has since the one broke off.
func (r *SnapshotReaderAt) reopen(broken uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.stream != broken {
		return nil
	}
	// It is there if the actor was unavailable only to this chunk.
	if _, err := r.asker.post(r.pid, messages.CloseSnapshot{Group: r.group, Stream: broken}); err != nil {
		return err
	}
	o, err := Ask[messages.SnapshotOpened](r.ctx, r.asker, r.pid, messages.OpenSnapshot{Group: r.group, ID: r.info.ID, Random: true})
	if err != nil {
		return err
	}
	r.stream = o.Stream
	if !same(o.Info, r.info) {
		return fmt.Errorf("another snapshot has the id now: %w", messages.ErrConflict)
	}
	return nil
}

func (r *SnapshotReaderAt) failure(err error) error {
	return fmt.Errorf("actors: read snapshot %s: %w", r.info.ID, err)
}

// Close ends the reader, as that of a SnapshotReader does.
func (r *SnapshotReaderAt) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return closeStream(r.ctx, r.asker, r.pid, r.group, r.stream)
}
