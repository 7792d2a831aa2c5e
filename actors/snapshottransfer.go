package actors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// SaveSnapshot saves what source yields from its beginning. The save can be
// resumed: if the stream breaks off because the actor crashes or is unavailable,
// it goes on from what is there, waiting longer each time that brings nothing,
// until the context ends; and so does a later call with the same begin and the
// same bytes, also in another process. What is there is not read from source
// again.
//
// An error of source suspends the save and is returned. messages.ErrExpired
// means that another save of the group has taken over, or that source has not
// yielded anything for longer than the actor's lease.
func SaveSnapshot(ctx context.Context, a *Asker, pid *actor.PID, begin messages.BeginSave, source io.ReadSeeker) (messages.SnapshotInfo, error) {
	begin.Resume = true
	t := transfer{ctx: ctx, asker: a, pid: pid, group: begin.Group, begin: begin,
		open: func(offset int64) (io.ReadCloser, error) {
			_, err := source.Seek(offset, io.SeekStart)
			return io.NopCloser(source), err
		}}
	return t.run()
}

// ImportSnapshot copies a snapshot from another actor. export opens the stream
// of the other side's ExportSnapshot at an offset; it is called again, at another
// one, when the stream to this side's actor has broken off. As SaveSnapshot, it
// goes on from what is there, until the context ends. An error of the stream
// suspends the import and is returned.
func ImportSnapshot(ctx context.Context, a *Asker, pid *actor.PID, id string, export func(ctx context.Context, offset int64) (io.ReadCloser, error)) (messages.SnapshotInfo, error) {
	t := transfer{ctx: ctx, asker: a, pid: pid, begin: messages.ImportSnapshot{ID: id},
		open: func(offset int64) (io.ReadCloser, error) { return export(ctx, offset) }}
	return t.run()
}

// transfer is a save or an import that goes on when its stream breaks off.
type transfer struct {
	ctx   context.Context
	asker *Asker
	pid   *actor.PID
	group uint64
	begin messages.Command
	// open yields what is to be written from an offset on.
	open  func(offset int64) (io.ReadCloser, error)
	doubt string // the id of a snapshot that may have been finished
}

func (t *transfer) run() (messages.SnapshotInfo, error) {
	var wait pause
	for best := int64(-1); ; {
		info, offset, err := t.attempt()
		if err == nil {
			return info, nil
		}
		var source errSource
		if errors.As(err, &source) || !transient(err) && !errors.Is(err, messages.ErrNotFound) {
			return messages.SnapshotInfo{}, err
		}
		if offset > best {
			best, wait = offset, pause{}
		}
		if ended := wait.sleep(t.ctx); ended != nil {
			return messages.SnapshotInfo{}, fmt.Errorf("actors: transfer snapshot: %w: %w", ended, err)
		}
	}
}

// errSource is an error of what is being written: nothing is tried again.
type errSource struct{ err error }

func (e errSource) Error() string { return "actors: read the state: " + e.err.Error() }
func (e errSource) Unwrap() error { return e.err }

// attempt writes from where the last one has ended, and returns from where that
// was.
func (t *transfer) attempt() (info messages.SnapshotInfo, from int64, err error) {
	if t.doubt != "" {
		v, err := Ask[messages.SnapshotVerified](t.ctx, t.asker, t.pid, messages.VerifySnapshot{Group: t.group, ID: t.doubt})
		if !errors.Is(err, messages.ErrNotFound) {
			return v.Info, -1, err
		}
		t.doubt = ""
	}
	w, err := beginWriter(t.ctx, t.asker, t.pid, t.group, t.begin)
	if err != nil {
		return info, -1, err
	}
	from = w.Offset()
	if err := t.copy(w); err != nil {
		w.letGo()
		return info, from, err
	}
	info, err = w.Finish(t.ctx)
	if errors.Is(err, messages.ErrInDoubt) {
		t.doubt = w.ID()
	}
	return info, from, err
}

func (t *transfer) copy(w *SnapshotWriter) error {
	source, err := t.open(w.Offset())
	if err != nil {
		return errSource{err}
	}
	_, err = w.ReadFrom(source)
	if err != nil && w.err == nil {
		err = errSource{err}
	}
	if also := source.Close(); err == nil && also != nil {
		err = errSource{also}
	}
	return err
}

// pause is the wait between two attempts: 10 ms, then twice as long each time,
// up to 2 s.
type pause struct{ next time.Duration }

// sleep returns the context's error if that ends first.
func (p *pause) sleep(ctx context.Context) error {
	p.next = min(max(10*time.Millisecond, 2*p.next), 2*time.Second)
	timer := time.NewTimer(p.next)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
