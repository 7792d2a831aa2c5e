package actors_test

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// refusing lets nothing be opened, once its gate is open.
type refusing struct {
	snapshot.Store
	gate chan struct{}
}

var errRefused = errors.New("refused")

func (s refusing) Create(uint64, uint64, uint64, []byte) (snapshot.Writer, error) {
	<-s.gate
	return nil, errRefused
}

func (s refusing) Open(string) (snapshot.Reader, error) {
	<-s.gate
	return nil, errRefused
}

// Whoever guesses the id of a stream that is about to be opened, and then is
// not, reaches nothing: he gets an error of his own, and the actor does not fail.
func TestStreamIsGuessed(t *testing.T) {
	for name, c := range map[string]struct {
		open    messages.Command
		guesses func(stream uint64) []messages.Command
	}{
		"a save": {messages.BeginSave{Tag: 1, Index: 1}, func(stream uint64) []messages.Command {
			return []messages.Command{messages.SaveChunk{Tag: 2, Stream: stream, Seq: 1, Data: []byte("x")}, messages.SaveChunk{Tag: 2, Stream: stream, Seq: 7},
				messages.FinishSave{Tag: 2, Stream: stream}, messages.SuspendSave{Tag: 2, Stream: stream}, messages.AbortSave{Tag: 2, Stream: stream}}
		}},
		"a reader": {messages.OpenSnapshot{Tag: 1, ID: "0000000000000000-0000000000000001-0000000000000001-000123456789"}, func(stream uint64) []messages.Command {
			return []messages.Command{messages.ReadChunk{Tag: 2, Stream: stream}, messages.CloseSnapshot{Tag: 2, Stream: stream}}
		}},
	} {
		for i := range c.guesses(0) {
			synctest.Test(t, func(t *testing.T) {
				r := newSnapshotRig(t, nil)
				defer r.close()
				gate := make(chan struct{})
				r.wrap = func(s snapshot.Store) snapshot.Store { return refusing{s, gate} }
				r.host.Crash(errors.New("so that it is opened anew"))
				before := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 1, Index: 1, Resume: true})
				failed := len(eventsOf[messages.ActorFailed](r.events))
				answers := map[uint64]error{}
				client := receiver(func(c *actor.Context) {
					if m, ok := c.Message().(messages.Reply); ok {
						answers[m.ReplyTag()] = m.Failure()
					}
				})
				pid := r.engine.Spawn(func() actor.Receiver { return client }, "guesser", actor.WithID("1"))
				r.engine.SendWithSender(r.host.PID(), c.open, pid)
				synctest.Wait()
				guess := c.guesses(before.Stream + 1)[i]
				r.engine.SendWithSender(r.host.PID(), guess, pid)
				synctest.Wait()
				close(gate)
				synctest.Wait()
				if !errors.Is(answers[1], errRefused) {
					t.Errorf("%s: opened: %v", name, answers[1])
				}
				if err := answers[2]; !errors.Is(err, messages.ErrNotFound) {
					t.Errorf("%s: %T: %v", name, guess, err)
				}
				if n := len(eventsOf[messages.ActorFailed](r.events)); n != failed {
					t.Errorf("%s: %T: the actor has failed", name, guess)
				}
			})
		}
	}
}

// stallingDisk is a disk whose next sync, of a file or of names, hangs until the
// channel is closed.
type stallingDisk struct {
	durable.Disk
	stall atomic.Pointer[chan struct{}]
}

func (d *stallingDisk) wait() {
	if gate := d.stall.Swap(nil); gate != nil {
		<-*gate
	}
}

func (d *stallingDisk) Sync(f *os.File) error    { d.wait(); return d.Disk.Sync(f) }
func (d *stallingDisk) SyncDir(dir string) error { d.wait(); return d.Disk.SyncDir(dir) }

// While a change of one group hangs on the disk, whatever is there can be
// listed, verified, read and exported, and other groups save, delete, clean up,
// set aside and discard. What comes for the same group waits, and is done after.
func TestHangingChange(t *testing.T) {
	for name, change := range map[string]func(id string) messages.Command{
		"delete": func(id string) messages.Command { return messages.DeleteSnapshot{Group: 1, ID: id} },
		"clean up": func(string) messages.Command {
			return messages.CleanupSnapshots{Group: 1, Retention: messages.Retention{Keep: 1}}
		},
		"save in one message": func(string) messages.Command {
			return messages.Save{Group: 1, Index: 7, Term: 1, Data: []byte("state")}
		},
		"take over": func(string) messages.Command { return messages.BeginSave{Group: 1, Index: 9, Term: 1, Resume: true} },
	} {
		synctest.Test(t, func(t *testing.T) {
			disk := &stallingDisk{}
			r := newSnapshotRig(t, func(_ *actors.SnapshotConfig, o *snapshot.Options) { disk.Disk, o.Disk = o.Disk, disk })
			defer r.close()
			var ids []string
			for i := range uint64(2) {
				ids = append(ids, must[messages.Saved](r.actorRig, messages.Save{Group: 1, Index: i + 1, Term: 1, Data: []byte("state")}).Info.ID)
			}
			must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 1, Index: 9, Term: 1, Resume: true})
			var others2 []string
			for i := range uint64(4) {
				others2 = append(others2, must[messages.Saved](r.actorRig, messages.Save{Group: 2, Index: i + 1, Term: 1, Data: []byte("state")}).Info.ID)
			}
			left := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 2, Index: 20, Term: 1, Resume: true})
			must[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Group: 2, Stream: left.Stream, Seq: 1, Data: make([]byte, 3*testBlock)})
			must[messages.SaveSuspended](r.actorRig, messages.SuspendSave{Group: 2, Stream: left.Stream})
			unfinished := must[messages.SnapshotFilesListed](r.actorRig, messages.ListSnapshotFiles{Group: 2}).Unfinished
			gate := make(chan struct{})
			disk.stall.Store(&gate)
			hangs := make(chan error, 1)
			go func() {
				_, err := do[messages.Reply](r.actorRig, change(ids[0]))
				hangs <- err
			}()
			synctest.Wait()
			others := make(chan error, 1)
			go func() {
				ask := func(c messages.Command) error {
					_, err := do[messages.Reply](r.actorRig, c)
					return err
				}
				err := errors.Join(ask(messages.ListSnapshots{Group: 1}), ask(messages.ListSnapshots{All: true}), ask(messages.ListSnapshotFiles{All: true}),
					ask(messages.VerifySnapshot{ID: ids[1]}), ask(messages.OpenSnapshot{Group: 1}), ask(messages.ExportSnapshot{Group: 1}))
				b, also := do[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 2, Index: 1, Term: 1})
				others <- errors.Join(err, also, ask(messages.AbortSave{Stream: b.Stream}),
					ask(messages.DiscardSnapshotFile{Name: unfinished[0].Name}), ask(messages.DeleteSnapshot{ID: others2[0]}),
					ask(messages.Save{Group: 2, Index: 9, Term: 1, Data: []byte("state")}),
					ask(messages.CleanupSnapshots{Group: 2, Retention: messages.Retention{Keep: 1}}))
			}()
			synctest.Wait()
			select {
			case err := <-hangs:
				t.Errorf("%s does not hang: %v", name, err)
			default:
			}
			select {
			case err := <-others:
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			default:
				t.Errorf("%s: others wait for it", name)
			}
			// Of its group: after it.
			after := make(chan error, 1)
			go func() {
				_, err := do[messages.Saved](r.actorRig, messages.Save{Group: 1, Index: 30, Term: 1, Data: []byte("state")})
				after <- err
			}()
			synctest.Wait()
			if _, ordered := change(ids[0]).(messages.BeginSave); !ordered && len(after) > 0 {
				t.Errorf("%s: the next change of the group does not wait", name)
			}
			close(gate)
			if err := errors.Join(<-hangs, <-after); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// A stream that its owner has forgotten, and whose end hangs on the disk, holds
// up none that is opened later.
func TestGivingUpHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &stallingDisk{}
		r := newSnapshotRig(t, func(cfg *actors.SnapshotConfig, o *snapshot.Options) {
			disk.Disk, o.Disk = o.Disk, disk
			cfg.Lanes, cfg.Lease = 2, time.Minute
		})
		defer r.close()
		forgotten := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 1, Index: 1, Term: 1, Resume: true})
		must[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Group: 1, Stream: forgotten.Stream, Seq: 1, Data: make([]byte, 3*testBlock)})
		gate := make(chan struct{})
		disk.stall.Store(&gate)
		pass(2 * time.Minute)
		if disk.stall.Load() != nil {
			t.Error("it was not given up")
		}
		saved := make(chan error, 1)
		go func() {
			var errs []error
			for g := range uint64(6) { // more than there are lanes, all open at once
				_, err := do[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 2 + g, Index: 1, Term: 1})
				errs = append(errs, err)
			}
			saved <- errors.Join(errs...)
		}()
		synctest.Wait()
		select {
		case err := <-saved:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("others wait for it")
		}
		close(gate)
		synctest.Wait()
	})
}

// movingStore is a store in which, between the look for the newest snapshot and its
// opening, somebody saves a newer one and removes that which was found.
type movingStore struct {
	snapshot.Store
	t     *testing.T
	moves *atomic.Int32 // how often it does so
}

func (s movingStore) move() {
	if s.moves.Add(-1) < 0 {
		return
	}
	w, err := s.Create(0, uint64(100-s.moves.Load()), 1, nil)
	if err == nil {
		_, err = w.Finish()
	}
	if err == nil {
		_, err = s.Cleanup(0, messages.Retention{Keep: 1})
	}
	if err != nil {
		s.t.Error(err)
	}
}

func (s movingStore) Latest(group uint64) (messages.SnapshotInfo, []*messages.CorruptError, error) {
	info, damaged, err := s.Store.Latest(group)
	s.move()
	return info, damaged, err
}

func (s movingStore) List(group uint64) ([]messages.SnapshotInfo, []*messages.CorruptError, error) {
	infos, damaged, err := s.Store.List(group)
	s.move()
	return infos, damaged, err
}

// A group that has a snapshot at any moment is never said to have none, because
// the newest was replaced while it was looked for.
func TestNewestIsReplaced(t *testing.T) {
	for name, open := range map[string]messages.Command{
		"open":   messages.OpenSnapshot{},
		"random": messages.OpenSnapshot{Random: true},
		"export": messages.ExportSnapshot{},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newSnapshotRig(t, nil)
			defer r.close()
			r.saved(1, []byte("state"))
			var moves atomic.Int32
			r.wrap = func(s snapshot.Store) snapshot.Store { return movingStore{s, t, &moves} }
			r.host.Crash(errors.New("so that it is opened anew"))
			must[messages.SnapshotVerified](r.actorRig, messages.VerifySnapshot{ID: must[messages.SnapshotsListed](r.actorRig, messages.ListSnapshots{}).Snapshots[0].ID})
			moves.Store(3)
			o, err := do[messages.SnapshotOpened](r.actorRig, open)
			if err != nil || o.Info.Index != 100 {
				t.Errorf("%s: index %d, %v", name, o.Info.Index, err)
			}
			must[messages.SnapshotClosed](r.actorRig, messages.CloseSnapshot{Stream: o.Stream})
			// Not for ever.
			moves.Store(1 << 20)
			if _, err := do[messages.SnapshotOpened](r.actorRig, open); !errors.Is(err, messages.ErrOverloaded) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
