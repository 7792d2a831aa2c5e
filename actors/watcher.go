package actors

import (
	"context"
	"fmt"
	"iter"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Watcher follows what changes in a group. It is for code outside of actors, one
// goroutine at a time. See messages.Watch.
//
// When the actor has crashed, or the Watcher was idle for longer than the lease, it
// watches again from where it was, until its context ends: nothing is told twice,
// and nothing left out.
type Watcher struct {
	ctx   context.Context
	asker *Asker
	pid   *actor.PID
	watch messages.Watch // with what is known in Since

	watching messages.Watching
	asked    []posted
	err      error // every further call fails with it
}

// Watch begins to watch. The context bounds everything but Close, which the caller
// must call, or the watch stays until its lease runs out.
func Watch(ctx context.Context, a *Asker, pid *actor.PID, c messages.Watch) (*Watcher, error) {
	w := &Watcher{ctx: ctx, asker: a, pid: pid, watch: c}
	err := w.begin()
	if err != nil {
		return nil, fmt.Errorf("actors: watch: %w", err)
	}
	return w, nil
}

func (w *Watcher) begin() (err error) {
	if w.watching, err = Ask[messages.Watching](w.ctx, w.asker, w.pid, w.watch); err == nil {
		w.watch.Since, w.watch.Now = w.watching.Since, false
	}
	return err
}

// Revision is up to where everything is known: Since at first, then that of the
// last Changes.
func (w *Watcher) Revision() uint64 { return w.watch.Since }

// Next waits for the next changes. They may be without events: then nothing has
// happened up to their Revision.
//
// Errors: ErrCompacted (a messages.HistoryError), ErrReplaced, ErrStopped, and the
// context's. The Watcher is of no use after any of them.
func (w *Watcher) Next() (messages.Changes, error) {
	var wait pause
	for w.err == nil {
		c, err := w.next()
		switch {
		case err == nil:
			w.watch.Since = c.Revision
			return c, nil
		case w.ctx.Err() == nil && lost(err):
			w.leave()
			if err = w.again(err, &wait); err == nil {
				continue
			}
		}
		w.err = fmt.Errorf("actors: watch after revision %d: %w", w.watch.Since, err)
		w.leave()
	}
	return messages.Changes{}, w.err
}

// All yields what Next returns, up to and with its first error.
func (w *Watcher) All() iter.Seq2[messages.Changes, error] {
	return func(yield func(messages.Changes, error) bool) {
		for {
			c, err := w.Next()
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func (w *Watcher) next() (c messages.Changes, err error) {
	for len(w.asked) < w.watching.Credit {
		p, err := w.asker.post(w.pid, messages.ReadChanges{Group: w.watch.Group, Watch: w.watching.Watch})
		if err != nil {
			return c, err
		}
		w.asked = append(w.asked, p)
	}
	p := w.asked[0]
	w.asked = append(w.asked[:0], w.asked[1:]...)
	return await[messages.Changes](w.ctx, p)
}

// again begins another watch where the last one has ended.
func (w *Watcher) again(cause error, wait *pause) error {
	for {
		if ended := wait.sleep(w.ctx); ended != nil {
			return fmt.Errorf("%w: %w", ended, cause)
		}
		err := w.begin()
		if err == nil || !transient(err) {
			return err
		}
		cause = err
	}
}

// leave ends the watch, if it is still there, and does not wait for it.
func (w *Watcher) leave() {
	w.asked = nil
	// An error says that there is no actor, and so no watch.
	_, _ = w.asker.post(w.pid, messages.CancelWatch{Group: w.watch.Group, Watch: w.watching.Watch})
}

// Close ends the watch. It does not wait for it; a second Close does nothing.
func (w *Watcher) Close() {
	if w.err == nil {
		w.leave()
		w.err = fmt.Errorf("actors: watch: the watcher is closed: %w", messages.ErrInvalid)
	}
}
