package actors

import (
	"errors"
	"fmt"
	"io"
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
	// mailbox.
	Credit int
	// Lease is how long a stream may be idle before it is given up. Default 1
	// minute.
	Lease time.Duration
	// Lanes is how many streams can work at the same time. Default 4.
	Lanes int
	// MaxStreams is how many streams may be open. Default 64.
	MaxStreams int
	Config
}

// Snapshot is a running snapshot actor: it answers BeginSave, SaveChunk,
// FinishSave, AbortSave, Save, OpenSnapshot, ReadChunk, CloseSnapshot,
// ListSnapshots, DeleteSnapshot, CleanupSnapshots and VerifySnapshot.
//
// Compression and files are the business of workers, one lane a stream, so
// that a slow stream holds up neither the others nor the mailbox.
type Snapshot struct{ *Host }

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
	cfg.New = func(h *Host) Behavior {
		b := &snapshotBehavior{host: h, cfg: cfg}
		b.streams = newLeases[*stream](h, cfg.Lease, cfg.MaxStreams, func(err error) {
			h.Event(messages.ActorFailed{Actor: h.PID().ID, Err: err})
		})
		return b
	}
	h, err := Spawn(engine, cfg.Config)
	if err != nil {
		return nil, err
	}
	return &Snapshot{h}, nil
}

type snapshotBehavior struct {
	host    *Host
	cfg     SnapshotConfig
	store   snapshot.Store
	streams *leases[*stream]
}

// stream is one transfer. The actor owns all fields but writer and reader,
// which belong to the stream's lane once it is open.
type stream struct {
	lease
	saving saving // of one that is written
	writer snapshot.Writer
	reader snapshot.Reader
	seq    uint64 // of the last chunk accepted
	write  bool   // towards the disk
}

func isWriter(s *stream) bool { return s.write }
func isReader(s *stream) bool { return !s.write }

// saving is the Note of a request that makes a snapshot: what to look for on
// disk after a crash.
type saving struct {
	group, index, term uint64
	since              time.Time
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

func (b *snapshotBehavior) Drain()      {}
func (b *snapshotBehavior) Message(any) {}
func (b *snapshotBehavior) Ready()      {}

func (b *snapshotBehavior) Handle(r *Request) {
	switch c := r.Command.(type) {
	case messages.BeginSave:
		if !b.streams.full(r) {
			b.beginSave(r, c)
		}
	case messages.OpenSnapshot:
		if !b.streams.full(r) {
			b.openSnapshot(r, c)
		}
	case messages.SaveChunk:
		b.saveChunk(r, c)
	case messages.FinishSave:
		b.finishSave(r, c)
	case messages.AbortSave:
		b.end(r, c.Stream, isWriter, func(err error) messages.Reply {
			return messages.SaveAborted{Tag: c.Tag, Group: c.Group, Err: err}
		})
	case messages.ReadChunk:
		b.readChunk(r, c)
	case messages.CloseSnapshot:
		b.end(r, c.Stream, isReader, func(err error) messages.Reply {
			return messages.SnapshotClosed{Tag: c.Tag, Group: c.Group, Err: err}
		})
	case messages.Save:
		b.save(r, c)
	case messages.ListSnapshots:
		b.work(r, func() messages.Reply {
			list := func() ([]messages.SnapshotInfo, []*messages.CorruptError, error) { return b.store.List(c.Group) }
			if c.All {
				list = b.store.ListAll
			}
			infos, damaged, err := list()
			return messages.SnapshotsListed{Tag: c.Tag, Group: c.Group, Snapshots: infos, Damaged: damaged, Err: err}
		})
	case messages.DeleteSnapshot:
		b.work(r, func() messages.Reply {
			return messages.SnapshotDeleted{Tag: c.Tag, Group: c.Group, Err: b.store.Delete(c.ID)}
		})
	case messages.CleanupSnapshots:
		b.work(r, func() messages.Reply {
			removed, err := b.store.Cleanup(c.Group, c.Retention)
			return messages.SnapshotsCleanedUp{Tag: c.Tag, Group: c.Group, Removed: removed, Err: err}
		})
	case messages.VerifySnapshot:
		b.work(r, func() messages.Reply {
			info, err := b.store.Verify(c.ID)
			return messages.SnapshotVerified{Tag: c.Tag, Group: c.Group, Info: info, Err: err}
		})
	default:
		r.Fail(unknown(b.host, c))
	}
}

// work answers a request from the first lane, where what changes the set of
// snapshots is done in order.
func (b *snapshotBehavior) work(r *Request, f func() messages.Reply) {
	b.host.Run(0, func() func() {
		reply := f()
		return func() { r.Reply(reply) }
	})
}

// add opens a stream. Streams are spread over the lanes but the first, which is
// for everything else.
func (b *snapshotBehavior) add(s *stream) *stream {
	b.streams.add(s)
	s.lane = 1 + int(s.id)%b.cfg.Lanes
	s.underWay++ // until it is open
	return s
}

func (b *snapshotBehavior) beginSave(r *Request, c messages.BeginSave) {
	s := b.add(&stream{write: true, saving: saving{c.Group, c.Index, c.Term, b.host.Now()}})
	s.end = func() error { return s.writer.Abort() }
	b.host.Run(s.lane, func() func() {
		w, err := b.store.Create(c.Group, c.Index, c.Term, c.Meta)
		s.writer = w
		return func() {
			b.streams.settle(s, err)
			r.Reply(messages.SaveBegun{Tag: c.Tag, Group: c.Group, Stream: s.id, Credit: b.cfg.Credit, Err: err})
		}
	})
}

func (b *snapshotBehavior) openSnapshot(r *Request, c messages.OpenSnapshot) {
	s := b.add(&stream{})
	s.end = func() error { return s.reader.Close() }
	b.host.Run(s.lane, func() func() {
		id, err := c.ID, error(nil)
		var damaged []*messages.CorruptError
		if id == "" {
			var info messages.SnapshotInfo
			info, damaged, err = b.store.Latest(c.Group)
			id = info.ID
		}
		var info messages.SnapshotInfo
		if err == nil {
			s.reader, err = b.store.Open(id)
		}
		if err == nil {
			info = s.reader.Info()
		}
		return func() {
			for _, d := range damaged {
				b.host.Event(messages.DamageFound{Actor: b.host.PID().ID, Err: d})
			}
			b.streams.settle(s, err)
			r.Reply(messages.SnapshotOpened{Tag: c.Tag, Group: c.Group, Stream: s.id, Info: info, Err: err})
		}
	})
}

func (b *snapshotBehavior) saveChunk(r *Request, c messages.SaveChunk) {
	s, ok := b.streams.find(r, c.Stream, isWriter)
	if !ok {
		return
	}
	var err error
	switch {
	case s.underWay >= b.cfg.Credit:
		r.Fail(fmt.Errorf("%s: stream %d: %d chunks are under way: %w", b.host.PID().ID, s.id, s.underWay, messages.ErrOverloaded))
		return
	case c.Seq != s.seq+1:
		err = fmt.Errorf("%s: stream %d: chunk %d after %d: %w", b.host.PID().ID, s.id, c.Seq, s.seq, messages.ErrOutOfOrder)
	case len(c.Data) > messages.MaxSnapshotChunk:
		err = fmt.Errorf("%s: stream %d: chunk of %d bytes, at most %d: %w", b.host.PID().ID, s.id, len(c.Data), messages.MaxSnapshotChunk, messages.ErrTooLarge)
	}
	s.seq = c.Seq
	s.underWay++
	b.host.Run(s.lane, func() func() {
		if err == nil {
			_, err = s.writer.Write(c.Data)
		} else {
			err = errors.Join(err, s.writer.Abort())
		}
		return func() {
			b.streams.settle(s, err)
			r.Reply(messages.ChunkSaved{Tag: c.Tag, Group: c.Group, Stream: s.id, Seq: c.Seq, Err: err})
		}
	})
}

func (b *snapshotBehavior) finishSave(r *Request, c messages.FinishSave) {
	s, ok := b.streams.find(r, c.Stream, isWriter)
	if !ok {
		return
	}
	r.Note = s.saving
	b.streams.remove(s)
	b.host.Run(s.lane, func() func() {
		info, err := s.writer.Finish()
		return func() {
			r.Reply(messages.Saved{Tag: c.Tag, Group: c.Group, Info: info, Err: err})
		}
	})
}

// end gives a stream up on request.
func (b *snapshotBehavior) end(r *Request, id uint64, right func(*stream) bool, reply func(error) messages.Reply) {
	s, ok := b.streams.find(r, id, right)
	if !ok {
		return
	}
	b.streams.remove(s)
	b.streams.giveUp(s, func(err error) { r.Reply(reply(err)) })
}

func (b *snapshotBehavior) readChunk(r *Request, c messages.ReadChunk) {
	s, ok := b.streams.find(r, c.Stream, isReader)
	if !ok {
		return
	}
	if s.underWay >= b.cfg.Credit {
		r.Fail(fmt.Errorf("%s: stream %d: %d chunks are under way: %w", b.host.PID().ID, s.id, s.underWay, messages.ErrOverloaded))
		return
	}
	size := c.MaxBytes
	if size <= 0 {
		size = defaultChunk
	}
	size = min(size, messages.MaxSnapshotChunk)
	s.underWay++
	b.host.Run(s.lane, func() func() {
		data := make([]byte, size)
		n, err := io.ReadFull(s.reader, data)
		eof := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if eof {
			err = nil
		}
		if err != nil {
			n, err = 0, errors.Join(err, s.reader.Close())
		}
		return func() {
			b.streams.settle(s, err)
			r.Reply(messages.ChunkRead{Tag: c.Tag, Group: c.Group, Stream: s.id, Data: data[:n], EOF: eof, Err: err})
		}
	})
}

// defaultChunk is the size of a chunk when the command does not say.
const defaultChunk = 256 << 10

func (b *snapshotBehavior) save(r *Request, c messages.Save) {
	if len(c.Data) > messages.MaxSnapshotChunk {
		r.Fail(fmt.Errorf("%s: save of %d bytes, at most %d in one message: %w", b.host.PID().ID, len(c.Data), messages.MaxSnapshotChunk, messages.ErrTooLarge))
		return
	}
	r.Note = saving{c.Group, c.Index, c.Term, b.host.Now()}
	b.work(r, func() messages.Reply {
		info, err := func() (messages.SnapshotInfo, error) {
			w, err := b.store.Create(c.Group, c.Index, c.Term, c.Meta)
			if err != nil {
				return messages.SnapshotInfo{}, err
			}
			if _, err := w.Write(c.Data); err != nil {
				return messages.SnapshotInfo{}, err
			}
			return w.Finish()
		}()
		return messages.Saved{Tag: c.Tag, Group: c.Group, Info: info, Err: err}
	})
}

// Resolve: streams do not survive a crash of the actor. A snapshot that was
// being finished exists whole or not at all, and a deleted one is gone or not.
func (b *snapshotBehavior) Resolve(r *Request, cause error) {
	crashed := fmt.Errorf("%s: %w: %w", b.host.PID().ID, messages.ErrCrashed, cause)
	switch c := r.Command.(type) {
	case messages.ListSnapshots, messages.VerifySnapshot, messages.CleanupSnapshots, messages.OpenSnapshot:
		r.Keep()
		b.Handle(r) // asking again does no harm
	case messages.DeleteSnapshot:
		r.Keep()
		b.work(r, func() messages.Reply {
			err := b.store.Delete(c.ID)
			if errors.Is(err, messages.ErrNotFound) {
				err = nil
			}
			return messages.SnapshotDeleted{Tag: c.Tag, Group: c.Group, Err: err}
		})
	case messages.Save, messages.FinishSave:
		note, ok := r.Note.(saving)
		if !ok {
			r.Fail(crashed)
			return
		}
		r.Keep()
		b.work(r, func() messages.Reply {
			infos, _, err := b.store.List(note.group)
			if err != nil {
				return r.Command.Refuse(fmt.Errorf("%s: %w: %w", b.host.PID().ID, messages.ErrInDoubt, err))
			}
			for _, info := range infos {
				if info.Index != note.index || info.Term != note.term || info.Created.Before(note.since.Truncate(time.Millisecond)) {
					continue
				}
				if _, err := b.store.Verify(info.ID); err == nil {
					return messages.Saved{Tag: r.Command.RequestTag(), Group: note.group, Info: info}
				}
			}
			return r.Command.Refuse(crashed)
		})
	default:
		r.Fail(crashed)
	}
}
