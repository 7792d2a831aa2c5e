package actors

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// SnapshotConfig configures a snapshot actor.
type SnapshotConfig struct {
	// Open opens the store; it is called again after every failure.
	Open func() (snapshot.Store, error)
	// Credit is how many chunks of one stream may be under way. Default 4. A
	// stream holds at most Credit × messages.MaxSnapshotChunk bytes in the
	// mailbox, besides what the store's writer or reader holds.
	Credit int
	// Lease is how long a stream may be idle before it is given up, or
	// suspended if it can be resumed. Default 1 minute.
	Lease time.Duration
	// Lanes is how many streams can work at the same time. Default 4. A call to
	// the disk that hangs holds up the streams of its lane; a new stream gets
	// the lane with the fewest. There are as many again for what changes the set
	// of snapshots (saves in one message, deletion, cleanup, setting aside,
	// discarding): the changes of one group share one, in order, so one that
	// hangs holds up those of its group.
	Lanes int
	// MaxStreams is how many streams may be open. Default 64.
	MaxStreams int
	// KeepDamaged leaves a damaged snapshot where it is when the newest good one
	// is wanted. By default it is set aside: it would be read again each time.
	KeepDamaged bool
	Config
}

// Snapshot is a running snapshot actor: it answers the commands of
// messages/snapshot.go, snapshotread.go and snapshotfiles.go. NewSnapshotWriter,
// NewSnapshotReader and their like are what code outside of actors uses.
//
// Compression and files are the business of workers, one lane a stream, so
// that a slow stream holds up neither the others nor the mailbox.
type Snapshot struct {
	*Host
	counters snapshotCounters
}

// SpawnSnapshot starts a snapshot actor.
func SpawnSnapshot(engine *actor.Engine, cfg SnapshotConfig) (*Snapshot, error) {
	if cfg.Credit == 0 {
		cfg.Credit = 4
	}
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute
	}
	if cfg.Lanes == 0 {
		cfg.Lanes = 4
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 64
	}
	lanes := make([]laneLoad, 1+2*cfg.Lanes)
	a := &Snapshot{}
	cfg.New = func(h *Host) Behavior {
		b := &snapshotBehavior{host: h, cfg: cfg, lanes: lanes, changes: make(map[uint64]*changing), counters: &a.counters}
		b.streams = newLeases[*stream](h, cfg.Lease, cfg.MaxStreams, func(err error) {
			h.Event(messages.ActorFailed{Actor: h.PID().ID, Err: err})
		})
		b.streams.run = b.run
		return b
	}
	var err error
	if a.Host, err = Spawn(engine, cfg.Config); err != nil {
		return nil, err
	}
	return a, nil
}

type snapshotBehavior struct {
	host    *Host
	cfg     SnapshotConfig
	store   snapshot.Store
	streams *leases[*stream]
	lanes   []laneLoad
	changes map[uint64]*changing // by group
	// counters outlive the behavior.
	counters *snapshotCounters
}

// stream is one transfer. The actor owns all fields but writer, reader and at,
// which belong to the stream's lane once it is open.
type stream struct {
	lease
	opened    bool // its id has been told
	write     bool // towards the disk
	resumable bool
	random    bool
	note      *saving // of one that is written
	writer    sink
	reader    io.ReadCloser
	at        io.ReaderAt
	size      int64  // of what can be read
	offset    int64  // of the next piece
	seq       uint64 // of the last chunk accepted
}

// sink is a snapshot.Writer or a snapshot.Importer.
type sink interface {
	io.Writer
	ID() string
	Finish() (messages.SnapshotInfo, error)
	Suspend() error
	Abort() error
}

// A stream whose opening is under way is nobody's: who guesses its id would
// reach a writer that is not there.
func isWriter(s *stream) bool { return s.opened && s.write }
func isReader(s *stream) bool { return s.opened && !s.write }

// saving is the Note of a request that ends a stream towards the disk: what to
// look for after a crash. The lane writes it while the actor may read it.
type saving struct {
	group               uint64
	resumable, imported bool
	id                  atomic.Pointer[string]
	outcome             atomic.Pointer[saveOutcome]
}

// saveOutcome is what the store has answered.
type saveOutcome struct {
	info messages.SnapshotInfo
	err  error
}

func (n *saving) name(id string) { n.id.Store(&id) }

func (n *saving) ended(info messages.SnapshotInfo, err error) {
	n.outcome.Store(&saveOutcome{info, err})
}

func (b *snapshotBehavior) Open() (err error) {
	b.store, err = b.cfg.Open()
	return err
}

// Close ends the store, and with it whatever stream is still open.
func (b *snapshotBehavior) Close() error {
	if b.store == nil {
		return nil
	}
	return b.store.Close()
}

// Settle implements Settler.
func (b *snapshotBehavior) Settle() { b.counters.streams.Store(int64(len(b.streams.all))) }

func (b *snapshotBehavior) Drain()      {}
func (b *snapshotBehavior) Message(any) {}
func (b *snapshotBehavior) Ready()      {}

func (b *snapshotBehavior) Handle(r *Request) {
	switch c := r.Command.(type) {
	case messages.BeginSave, messages.ImportSnapshot, messages.OpenSnapshot, messages.ExportSnapshot:
		if !b.streams.full(r) {
			b.open(r)
		}
	case messages.SaveChunk:
		b.saveChunk(r, c)
	case messages.FinishSave:
		b.finishSave(r, c)
	case messages.SuspendSave:
		b.suspendSave(r, c)
	case messages.AbortSave:
		b.abortSave(r, c)
	case messages.Save:
		b.save(r, c)
	case messages.ReadChunk:
		b.readChunk(r, c)
	case messages.CloseSnapshot:
		b.closeSnapshot(r, c)
	default:
		b.handleFiles(r)
	}
}

func (b *snapshotBehavior) open(r *Request) {
	switch c := r.Command.(type) {
	case messages.BeginSave:
		b.beginSave(r, c)
	case messages.ImportSnapshot:
		b.importSnapshot(r, c)
	case messages.OpenSnapshot:
		b.openSnapshot(r, c)
	case messages.ExportSnapshot:
		b.exportSnapshot(r, c)
	}
}

// add opens a stream.
func (b *snapshotBehavior) add(s *stream) *stream {
	s.lane = b.streamLane()
	b.streams.add(s)
	s.underWay++ // until it is open
	return s
}

// withinCredit refuses a chunk that is one too many.
func (b *snapshotBehavior) withinCredit(r *Request, s *stream) bool {
	if s.underWay < b.cfg.Credit {
		return true
	}
	r.Fail(b.errorf(s, "%d chunks are under way: %w", s.underWay, messages.ErrOverloaded))
	return false
}

func (b *snapshotBehavior) errorf(s *stream, format string, args ...any) error {
	return fmt.Errorf("%s: stream %d: %w", b.host.PID().ID, s.id, fmt.Errorf(format, args...))
}

// last has the stream's lane call f, after which the stream is over, and answers
// the request.
func (b *snapshotBehavior) last(r *Request, s *stream, f func() messages.Reply) {
	b.streams.remove(s)
	b.workIn(s.lane, r, f)
}

func (b *snapshotBehavior) closeSnapshot(r *Request, c messages.CloseSnapshot) {
	if s, ok := b.streams.find(r, c.Stream, isReader); ok {
		b.last(r, s, func() messages.Reply {
			return messages.SnapshotClosed{Tag: c.Tag, Group: c.Group, Err: s.reader.Close()}
		})
	}
}

// Resolve: streams do not survive a crash of the actor, though what some have
// written does. A snapshot that was being finished exists whole or not at all,
// and a deleted one is gone or not.
func (b *snapshotBehavior) Resolve(r *Request, cause error) {
	crashed := fmt.Errorf("%s: %w: %w", b.host.PID().ID, messages.ErrCrashed, cause)
	switch c := r.Command.(type) {
	case messages.BeginSave, messages.ImportSnapshot, messages.OpenSnapshot, messages.ExportSnapshot,
		messages.ListSnapshots, messages.ListSnapshotFiles, messages.VerifySnapshot, messages.CleanupSnapshots,
		messages.SetAsideSnapshot:
		r.Keep()
		b.Handle(r) // asking again does no harm
	case messages.DeleteSnapshot:
		r.Keep()
		b.change(r, groupOf(c.ID, c.Group), func() messages.Reply {
			return messages.SnapshotDeleted{Tag: c.Tag, Group: c.Group, Err: gone(b.store.Delete(c.ID))}
		})
	case messages.DiscardSnapshotFile:
		r.Keep()
		b.change(r, groupOf(c.Name, c.Group), func() messages.Reply {
			return messages.SnapshotFileDiscarded{Tag: c.Tag, Group: c.Group, Err: gone(b.store.Discard(c.Name))}
		})
	case messages.Save, messages.FinishSave, messages.SuspendSave, messages.AbortSave:
		note, ok := r.Note.(*saving)
		if !ok {
			r.Fail(crashed)
			return
		}
		r.Keep()
		b.change(r, note.group, func() messages.Reply { return b.resolveEnd(r, note, crashed) })
	default:
		r.Fail(crashed)
	}
}

// gone: what a command that may have been carried out before the crash wanted
// to remove, and does not find, is removed.
func gone(err error) error {
	if errors.Is(err, messages.ErrNotFound) {
		return nil
	}
	return err
}

// resolveEnd answers a command that was ending a save when the actor crashed.
func (b *snapshotBehavior) resolveEnd(r *Request, note *saving, crashed error) messages.Reply {
	doubt := func(err error) messages.Reply {
		return r.Command.Refuse(fmt.Errorf("%s: %w: %w", b.host.PID().ID, messages.ErrInDoubt, err))
	}
	id := ""
	if p := note.id.Load(); p != nil {
		id = *p
	}
	// The crash may have come between the store's answer and its delivery. One
	// that was stopped tells of the crash alone.
	done := note.outcome.Load()
	if done != nil && errors.Is(done.err, messages.ErrStopped) {
		done = nil
	}
	if done != nil && done.err != nil {
		return r.Command.Refuse(done.err)
	}
	switch c := r.Command.(type) {
	case messages.SuspendSave:
		if done == nil {
			return doubt(crashed)
		}
		return messages.SaveSuspended{Tag: c.Tag, Group: c.Group}
	case messages.AbortSave:
		if done == nil && note.resumable && id != "" {
			if err := b.discardUnfinished(id, note.imported); err != nil {
				return doubt(err)
			}
		}
		return messages.SaveAborted{Tag: c.Tag, Group: c.Group}
	}
	saved := messages.Saved{Tag: r.Command.RequestTag(), Group: note.group}
	switch {
	case done != nil:
		saved.Info = done.info
		return saved
	case id == "": // nothing had a name
		return r.Command.Refuse(crashed)
	}
	info, err := b.store.Verify(id)
	switch {
	case errors.Is(err, messages.ErrNotFound):
		return r.Command.Refuse(crashed)
	case err != nil:
		return doubt(err)
	}
	saved.Info = info
	return saved
}

// discardUnfinished removes what a stream has left, unless somebody goes on with
// it already.
func (b *snapshotBehavior) discardUnfinished(id string, imported bool) error {
	files, err := b.store.Unfinished()
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.ID == id && f.Import == imported && !f.Active {
			if err := gone(b.store.Discard(f.Name)); !errors.Is(err, messages.ErrConflict) {
				return err
			}
		}
	}
	return nil
}
