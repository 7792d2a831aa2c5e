package sim_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/sim"
)

// savedGroup is a group that has snapshots alone: the supervisor knows nothing
// of it.
const savedGroup = 9

// savedState is the state of the group at an index, of 1 to 9 KiB: blocks have
// 1 KiB here.
func savedState(index uint64) []byte {
	var b []byte
	for i := 0; len(b) < 1000+int(index*2777%8000); i++ {
		b = fmt.Appendf(b, "%d of %d;", i*i, index)
	}
	return b
}

// saver writes resumable snapshots, one after the other and chunk by chunk. When
// something fails it begins again where SaveBegun says, also in its next life.
type saver struct {
	l     *life
	index uint64
	tag   uint64 // of the command that is under way; 0: none
	last  uint64
	begun messages.SaveBegun
	seq   uint64
	at    int
	made  int
}

// maxSaves is how many snapshots a saver makes in one life: each of them is looked
// at again by everything that lists them.
const maxSaves = 8

// step begins a save if nothing is under way.
func (s *saver) step(c *actor.Context) {
	if s.tag == 0 && !s.l.h.ghosts && s.made < maxSaves {
		s.index = uint64(len(s.l.h.saved) + 1)
		s.send(c, messages.BeginSave{Group: savedGroup, Index: s.index, Term: 1, Resume: true})
	}
}

func (s *saver) send(c *actor.Context, m messages.Command) {
	s.last++
	s.tag = s.last
	c.Send(s.l.storage.Snapshot, m.WithTag(s.tag))
}

func (s *saver) Receive(c *actor.Context) {
	if _, ok := c.Message().(proceed); ok {
		s.step(c)
		return
	}
	r, ok := c.Message().(messages.Reply)
	if !ok || s.l.h.ghosts {
		return
	}
	if r.ReplyTag() != s.tag {
		s.l.w.Fail("the saver got a reply to #%d and waits for #%d: a second reply?", r.ReplyTag(), s.tag)
		return
	}
	s.tag = 0
	if err := r.Failure(); err != nil {
		for _, normal := range []error{messages.ErrNotFound, messages.ErrCrashed, messages.ErrInDoubt,
			messages.ErrUnavailable, messages.ErrStopped, messages.ErrOverloaded, messages.ErrExpired} {
			if errors.Is(err, normal) {
				return
			}
		}
		s.l.w.Fail("the saver: %v", err)
		return
	}
	state := savedState(s.index)
	switch m := r.(type) {
	case messages.SaveBegun:
		if m.Offset < 0 || m.Offset > int64(len(state)) || m.Offset%(1<<10) != 0 {
			s.l.w.Fail("a save of %d bytes goes on from %d", len(state), m.Offset)
			return
		}
		if m.Offset > 0 {
			s.l.h.tally.Resumed++
		}
		s.begun, s.seq, s.at = m, 0, int(m.Offset)
		s.next(c, state)
	case messages.ChunkSaved:
		s.next(c, state)
	case messages.Saved:
		if m.Info.ID != s.begun.ID || m.Info.RawBytes != int64(len(state)) {
			s.l.w.Fail("%s of %d bytes was saved as %+v", s.begun.ID, len(state), m.Info)
		}
		s.l.h.saved[m.Info.ID] = s.index
		s.made++
	}
}

func (s *saver) next(c *actor.Context, state []byte) {
	if s.at == len(state) {
		s.send(c, messages.FinishSave{Group: savedGroup, Stream: s.begun.Stream})
		return
	}
	n := min(700, len(state)-s.at)
	s.seq++
	s.send(c, messages.SaveChunk{Group: savedGroup, Stream: s.begun.Stream, Seq: s.seq, Data: bytes.Clone(state[s.at : s.at+n])})
	s.at += n
}

// checkSaves: every snapshot that was acknowledged is there, and those that are
// there hold the state of their index.
func (l *life) checkSaves() {
	missing := maps.Clone(l.h.saved) // more may be told of while this is looked at
	list, err := sim.Ask[messages.SnapshotsListed](l.w, l.storage.Snapshot, messages.ListSnapshots{Group: savedGroup})
	if err != nil || len(list.Damaged) > 0 {
		l.w.Fail("life %d: list: %v, damaged %v", l.n, err, list.Damaged)
		return
	}
	for _, info := range list.Snapshots {
		delete(missing, info.ID)
	}
	if len(missing) > 0 {
		l.w.Fail("life %d: %q were acknowledged and are gone", l.n, slices.Sorted(maps.Keys(missing)))
	}
	if len(list.Snapshots) == 0 {
		return
	}
	info := list.Snapshots[l.w.Rand().IntN(len(list.Snapshots))]
	o, err := sim.Ask[messages.SnapshotOpened](l.w, l.storage.Snapshot, messages.OpenSnapshot{Group: savedGroup, ID: info.ID, Offset: info.RawBytes / 2})
	if err != nil {
		l.w.Fail("life %d: open %s: %v", l.n, info.ID, err)
		return
	}
	read, err := sim.Ask[messages.ChunkRead](l.w, l.storage.Snapshot, messages.ReadChunk{Group: savedGroup, Stream: o.Stream})
	if want := savedState(info.Index)[info.RawBytes/2:]; err != nil || !read.EOF || !bytes.Equal(read.Data, want) {
		l.w.Fail("life %d: %s holds %q, and should hold %q: %v", l.n, info.ID, read.Data, want, err)
	}
	if _, err := sim.Ask[messages.SnapshotClosed](l.w, l.storage.Snapshot, messages.CloseSnapshot{Group: savedGroup, Stream: o.Stream}); err != nil {
		l.w.Fail("life %d: close %s: %v", l.n, info.ID, err)
	}
}
