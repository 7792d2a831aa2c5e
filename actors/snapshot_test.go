package actors_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

const (
	testBlock = 4 << 10
	testChunk = 3000 // so that chunks and blocks do not coincide
)

// gathered are the events of an engine.
type gathered struct {
	mu  sync.Mutex
	all []any
}

func (g *gathered) Receive(c *actor.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, c.Message())
}

// eventsOf waits until everything has been delivered; it is for bubbles.
func eventsOf[T any](g *gathered) (found []T) {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.all {
		if m, ok := e.(T); ok {
			found = append(found, m)
		}
	}
	return found
}

// snapshotRig is a snapshot actor with small blocks.
type snapshotRig struct {
	*actorRig
	engine *actor.Engine
	events *gathered
	wrap   func(snapshot.Store) snapshot.Store // what is opened; set before a crash
}

func newSnapshotRig(t *testing.T, change func(*actors.SnapshotConfig, *snapshot.Options)) *snapshotRig {
	return snapshotRigIn(t, "", change)
}

func snapshotRigIn(t *testing.T, dir string, change func(*actors.SnapshotConfig, *snapshot.Options)) *snapshotRig {
	t.Helper()
	s := &snapshotRig{events: &gathered{}, wrap: func(s snapshot.Store) snapshot.Store { return s }}
	s.actorRig = newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		s.engine = engine
		engine.Subscribe(engine.Spawn(func() actor.Receiver { return s.events }, "gathered", actor.WithID("1")))
		if dir != "" {
			r.dir = dir
		}
		o := snapshot.Options{Disk: r.disk, BlockBytes: testBlock, Concurrency: 1}
		cfg := actors.SnapshotConfig{Config: actors.Config{Name: "test", ID: "snapshot"}}
		if change != nil {
			change(&cfg, &o)
		}
		cfg.Open = func() (snapshot.Store, error) {
			d, err := snapshot.OpenDir(r.dir, o)
			if err != nil {
				return nil, err
			}
			return s.wrap(d), nil
		}
		a, err := actors.SpawnSnapshot(engine, cfg)
		if err != nil {
			return nil, err
		}
		return a.Host, nil
	})
	return s
}

// textState returns n bytes that compress a little.
func textState(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[r.IntN(16)]
	}
	return b
}

// send puts chunks into a stream, waiting for each.
func (r *snapshotRig) send(stream uint64, data []byte) {
	r.t.Helper()
	for seq := uint64(1); len(data) > 0; seq++ {
		n := min(len(data), testChunk)
		must[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Stream: stream, Seq: seq, Data: bytes.Clone(data[:n])})
		data = data[n:]
	}
}

// drain reads a stream to its end.
func (r *snapshotRig) drain(stream uint64) (all []byte) {
	r.t.Helper()
	for {
		c := must[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: stream, MaxBytes: testChunk})
		all = append(all, c.Data...)
		if c.EOF {
			must[messages.SnapshotClosed](r.actorRig, messages.CloseSnapshot{Stream: stream})
			return all
		}
	}
}

// saved writes a snapshot of one message.
func (r *snapshotRig) saved(index uint64, data []byte) messages.SnapshotInfo {
	r.t.Helper()
	return must[messages.Saved](r.actorRig, messages.Save{Index: index, Term: 1, Data: data}).Info
}

// damage flips a bit of a snapshot's file.
func (r *snapshotRig) damage(id string, at int64) {
	r.t.Helper()
	path := filepath.Join(r.dir, id+".snap")
	b, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *snapshotRig) files(pattern string) int {
	r.t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, pattern))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(names)
}

// A save goes on where it was when its stream was suspended, when its lease ran
// out, and when the actor crashed or was started again: at most the block that
// was not complete is sent again.
func TestSaveIsResumed(t *testing.T) {
	state := textState(1, 10*testBlock+77)
	begin := messages.BeginSave{Index: 7, Term: 2, Meta: []byte("m"), Resume: true}
	breaks := map[string]func(r *snapshotRig, stream uint64) *snapshotRig{
		"suspended": func(r *snapshotRig, stream uint64) *snapshotRig {
			must[messages.SaveSuspended](r.actorRig, messages.SuspendSave{Stream: stream})
			return r
		},
		"lease": func(r *snapshotRig, stream uint64) *snapshotRig {
			pass(2 * time.Minute)
			synctest.Wait()
			if _, err := do[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Stream: stream, Seq: 100}); !errors.Is(err, messages.ErrExpired) {
				r.t.Errorf("a chunk after the lease: %v", err)
			}
			return r
		},
		"lost chunk": func(r *snapshotRig, stream uint64) *snapshotRig {
			if _, err := do[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Stream: stream, Seq: 100}); !errors.Is(err, messages.ErrOutOfOrder) {
				r.t.Errorf("a chunk out of order: %v", err)
			}
			return r
		},
		"crash": func(r *snapshotRig, _ uint64) *snapshotRig {
			r.host.Crash(errors.New("on purpose"))
			return r
		},
		"restart": func(r *snapshotRig, _ uint64) *snapshotRig {
			r.close()
			return snapshotRigIn(r.t, r.dir, nil)
		},
	}
	for name, broken := range breaks {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newSnapshotRig(t, nil)
				b := must[messages.SaveBegun](r.actorRig, begin)
				if b.Offset != 0 || b.ID == "" {
					t.Fatalf("%+v", b)
				}
				id := b.ID
				// Twice, so that what was resumed is resumed as well.
				for _, upTo := range []int{4*testBlock + 5, 8*testBlock - 1} {
					r.send(b.Stream, state[b.Offset:upTo])
					r = broken(r, b.Stream)
					l := must[messages.SnapshotFilesListed](r.actorRig, messages.ListSnapshotFiles{})
					if len(l.Unfinished) != 1 || l.Unfinished[0].ID != id || l.Unfinished[0].Active || l.Unfinished[0].Index != 7 {
						t.Fatalf("unfinished: %+v", l.Unfinished)
					}
					b = must[messages.SaveBegun](r.actorRig, begin)
					if missing := int64(upTo) - b.Offset; missing < 0 || missing >= testBlock || b.ID != id {
						t.Fatalf("%d bytes were written, and it goes on from %d: %+v", upTo, b.Offset, b)
					}
				}
				r.send(b.Stream, state[b.Offset:])
				s := must[messages.Saved](r.actorRig, messages.FinishSave{Stream: b.Stream})
				if s.Info.ID != id || s.Info.RawBytes != int64(len(state)) {
					t.Errorf("%+v", s.Info)
				}
				o := must[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{})
				if o.Size != int64(len(state)) || o.Credit == 0 {
					t.Errorf("%+v", o)
				}
				if !bytes.Equal(r.drain(o.Stream), state) {
					t.Error("another state was read")
				}
				r.close()
				if r.files("*.part") != 0 || r.files("*"+durable.TempSuffix) != 0 {
					t.Error("files are left")
				}
			})
		})
	}
}

// The lease of a stream that cannot be resumed takes its file away, and a stream
// that cannot be suspended goes on when it was tried.
func TestSaveIsNotResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, nil)
		defer r.close()
		b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Index: 7, Term: 2})
		r.send(b.Stream, textState(1, 5*testBlock))
		if _, err := do[messages.SaveSuspended](r.actorRig, messages.SuspendSave{Stream: b.Stream}); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("suspended: %v", err)
		}
		must[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Stream: b.Stream, Seq: 8})
		if r.files("*"+durable.TempSuffix) != 1 {
			t.Error("there is no temporary file")
		}
		pass(2 * time.Minute)
		synctest.Wait()
		if r.files("*") != 1 { // the lock
			t.Error("files are left")
		}
		if b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Index: 7, Term: 2, Resume: true}); b.Offset != 0 {
			t.Errorf("%+v", b)
		}
	})
}

// A second save of the group takes the first one over, whose owner is told.
func TestSaveIsTakenOver(t *testing.T) {
	r := newSnapshotRig(t, nil)
	defer r.close()
	state := textState(1, 5*testBlock)
	begin := messages.BeginSave{Index: 7, Term: 2, Resume: true}
	first := must[messages.SaveBegun](r.actorRig, begin)
	r.send(first.Stream, state[:3*testBlock])
	second := must[messages.SaveBegun](r.actorRig, begin)
	if second.Offset != 3*testBlock {
		t.Errorf("%+v", second)
	}
	if _, err := do[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Stream: first.Stream, Seq: 6}); !errors.Is(err, messages.ErrOutOfOrder) && !errors.Is(err, messages.ErrExpired) {
		t.Errorf("the first goes on: %v", err)
	}
	r.send(second.Stream, state[second.Offset:])
	s := must[messages.Saved](r.actorRig, messages.FinishSave{Stream: second.Stream})
	if v := must[messages.SnapshotVerified](r.actorRig, messages.VerifySnapshot{ID: s.Info.ID}); v.Info.RawBytes != int64(len(state)) {
		t.Errorf("%+v", v)
	}
}

func TestContentHashIsExpected(t *testing.T) {
	r := newSnapshotRig(t, nil)
	defer r.close()
	info := r.saved(1, []byte("state"))
	for _, resume := range []bool{false, true} {
		b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Index: 2, Term: 1, Resume: resume, ContentHash: info.ContentHash})
		r.send(b.Stream, []byte("State"))
		if _, err := do[messages.Saved](r.actorRig, messages.FinishSave{Stream: b.Stream}); !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("another state: %v", err)
		}
		b = must[messages.SaveBegun](r.actorRig, messages.BeginSave{Index: 2, Term: 1, Resume: resume, ContentHash: info.ContentHash})
		r.send(b.Stream, []byte("state"))
		must[messages.Saved](r.actorRig, messages.FinishSave{Stream: b.Stream})
	}
}

// A transfer out goes on at an offset; random access finds its place without
// reading the rest, and meets damage only there.
func TestOpenAtOffsetAndRandom(t *testing.T) {
	r := newSnapshotRig(t, nil)
	defer r.close()
	state := textState(2, 20*testBlock+9)
	info := r.saved(3, state)
	size := int64(len(state))
	for _, offset := range []int64{0, 1, testBlock, 7*testBlock - 1, size - 1, size} {
		o := must[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{ID: info.ID, Offset: offset})
		if o.Size != size-offset {
			t.Errorf("offset %d: %+v", offset, o)
		}
		if !bytes.Equal(r.drain(o.Stream), state[offset:]) {
			t.Errorf("offset %d: another state", offset)
		}
	}
	for _, c := range []messages.OpenSnapshot{{Offset: -1}, {Offset: size + 1}, {Offset: 1, Random: true}, {ID: "no id", Random: true}} {
		if _, err := do[messages.SnapshotOpened](r.actorRig, c); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	o := must[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{ID: info.ID})
	if _, err := do[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream, Offset: 1}); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("an offset in a stream: %v", err)
	}
	if c := must[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream, MaxBytes: 10}); c.Offset != 0 || !bytes.Equal(c.Data, state[:10]) {
		t.Errorf("%+v", c)
	}
	if c := must[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream, MaxBytes: 10}); c.Offset != 10 {
		t.Errorf("%+v", c)
	}
	must[messages.SnapshotClosed](r.actorRig, messages.CloseSnapshot{Stream: o.Stream})

	r.damage(info.ID, 200) // in block 0
	if _, err := do[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{ID: info.ID}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("a damaged one was opened: %v", err)
	}
	for _, id := range []string{info.ID, ""} {
		o = must[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{ID: id, Random: true})
		if o.Size != size || o.Info.ID != info.ID {
			t.Errorf("%+v", o)
		}
		for _, at := range []int64{size, 5*testBlock - 3, size - 10, testBlock} {
			c := must[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream, Offset: at, MaxBytes: 100})
			if want := state[at:min(at+100, size)]; !bytes.Equal(c.Data, want) || c.EOF != (at+100 >= size) || c.Offset != at {
				t.Errorf("at %d: %d bytes, EOF %v", at, len(c.Data), c.EOF)
			}
			if _, err := do[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream}); !errors.Is(err, messages.ErrCorrupt) {
				t.Errorf("the damaged block: %v", err)
			}
		}
		for _, at := range []int64{-1, size + 1} {
			if _, err := do[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream, Offset: at}); !errors.Is(err, messages.ErrInvalid) {
				t.Errorf("at %d: %v", at, err)
			}
		}
		must[messages.SnapshotClosed](r.actorRig, messages.CloseSnapshot{Stream: o.Stream})
	}
}

// The memory of a chunk goes to and fro, so that a long transfer allocates
// nothing for each.
func TestChunksAreReused(t *testing.T) {
	r := newSnapshotRig(t, nil)
	defer r.close()
	state := textState(1, 2*testBlock)
	b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Index: 1})
	m := must[messages.ChunkSaved](r.actorRig, messages.SaveChunk{Stream: b.Stream, Seq: 1, Data: state})
	if len(m.Data) != len(state) || &m.Data[0] != &state[0] {
		t.Error("the chunk was not given back")
	}
	want := bytes.Clone(state)
	clear(m.Data) // it is ours again
	info := must[messages.Saved](r.actorRig, messages.FinishSave{Stream: b.Stream}).Info
	for _, random := range []bool{false, true} {
		o := must[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{ID: info.ID, Random: random})
		buf := make([]byte, 100)
		c := must[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream, MaxBytes: 90, Buffer: buf})
		if !bytes.Equal(c.Data, want[:90]) || &c.Data[0] != &buf[0] {
			t.Errorf("random %v: the buffer was not used", random)
		}
		if c := must[messages.ChunkRead](r.actorRig, messages.ReadChunk{Stream: o.Stream, MaxBytes: 110, Buffer: buf[:0:100]}); len(c.Data) != 110 {
			t.Errorf("random %v: %d bytes, and the buffer is too small", random, len(c.Data))
		}
		must[messages.SnapshotClosed](r.actorRig, messages.CloseSnapshot{Stream: o.Stream})
	}
}

// A snapshot goes from one actor to another as it is, with a break in between.
func TestExportImport(t *testing.T) {
	from, to := newSnapshotRig(t, nil), newSnapshotRig(t, nil)
	defer from.close()
	defer to.close()
	state := textState(3, 12*testBlock)
	info := from.saved(5, state)
	for range 2 { // the second time it is there already
		var offset int64
		for _, part := range []int{2, 100} {
			b := must[messages.SaveBegun](to.actorRig, messages.ImportSnapshot{ID: info.ID})
			if offset = b.Offset; b.ID != info.ID {
				t.Errorf("%+v", b)
			}
			e := must[messages.SnapshotOpened](from.actorRig, messages.ExportSnapshot{ID: info.ID, Offset: offset})
			if e.Size != snapshot.EnvelopeBytes+info.FileBytes-offset || e.Info.ID != info.ID {
				t.Errorf("%+v", e)
			}
			if _, err := do[messages.SnapshotDeleted](from.actorRig, messages.DeleteSnapshot{ID: info.ID}); !errors.Is(err, messages.ErrConflict) {
				t.Errorf("deleted while it is exported: %v", err)
			}
			eof := false
			for seq := uint64(1); !eof && seq <= uint64(part); seq++ {
				c := must[messages.ChunkRead](from.actorRig, messages.ReadChunk{Stream: e.Stream, MaxBytes: 7000})
				must[messages.ChunkSaved](to.actorRig, messages.SaveChunk{Stream: b.Stream, Seq: seq, Data: c.Data})
				eof = c.EOF
			}
			must[messages.SnapshotClosed](from.actorRig, messages.CloseSnapshot{Stream: e.Stream})
			if !eof {
				if _, err := do[messages.Saved](to.actorRig, messages.FinishSave{Stream: b.Stream}); !errors.Is(err, io.ErrUnexpectedEOF) && to.files("*.snap") == 0 {
					t.Errorf("an incomplete import: %v", err)
				}
				continue
			}
			s := must[messages.Saved](to.actorRig, messages.FinishSave{Stream: b.Stream})
			if s.Info.ID != info.ID || s.Info.ContentHash != info.ContentHash {
				t.Errorf("%+v", s.Info)
			}
		}
		if to.files("*.snap") == 0 || offset == 0 && to.files("*.import") > 0 {
			t.Errorf("the second part began at %d", offset)
		}
	}
	o := must[messages.SnapshotOpened](to.actorRig, messages.OpenSnapshot{ID: info.ID})
	if !bytes.Equal(to.drain(o.Stream), state) {
		t.Error("another state")
	}
	// Something else than an export.
	b := must[messages.SaveBegun](to.actorRig, messages.ImportSnapshot{})
	if _, err := do[messages.ChunkSaved](to.actorRig, messages.SaveChunk{Stream: b.Stream, Seq: 1, Data: state[:1000]}); !errors.Is(err, messages.ErrMalformed) {
		t.Errorf("not an export: %v", err)
	}
	for _, c := range []messages.Command{messages.ImportSnapshot{ID: "no id"}, messages.ExportSnapshot{ID: info.ID, Offset: info.FileBytes + 1}, messages.ExportSnapshot{ID: "no id"}} {
		if _, err := do[messages.Reply](to.actorRig, c); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := do[messages.SnapshotOpened](to.actorRig, messages.ExportSnapshot{Group: 9}); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("none of the group: %v", err)
	}
}

// unreadable is a store that cannot read some damaged file again.
type unreadable struct{ snapshot.Store }

func (unreadable) SetAside(string) (messages.AsideSnapshot, error) {
	return messages.AsideSnapshot{}, &os.PathError{Op: "read", Err: syscall.EIO}
}

// The newest snapshot is damaged: it is set aside, once, and the next good one
// is served. What could only not be read stays.
func TestDamagedNewestIsSetAside(t *testing.T) {
	for name, c := range map[string]struct {
		keep, eio bool
		open      messages.Command
		aside     bool
	}{
		"open":       {open: messages.OpenSnapshot{}, aside: true},
		"export":     {open: messages.ExportSnapshot{}, aside: true},
		"configured": {open: messages.OpenSnapshot{}, keep: true},
		"unreadable": {open: messages.OpenSnapshot{}, eio: true},
		"random":     {open: messages.OpenSnapshot{Random: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newSnapshotRig(t, func(cfg *actors.SnapshotConfig, _ *snapshot.Options) { cfg.KeepDamaged = c.keep })
				defer r.close()
				if c.eio {
					r.wrap = func(s snapshot.Store) snapshot.Store { return unreadable{s} }
					r.host.Crash(errors.New("so that it is opened anew"))
				}
				good := r.saved(1, []byte("good"))
				bad := r.saved(2, textState(1, 3*testBlock))
				worse := r.saved(3, textState(2, 3*testBlock))
				for _, id := range []string{bad.ID, worse.ID} {
					r.damage(id, 20) // the header
				}
				for range 2 {
					o := must[messages.SnapshotOpened](r.actorRig, c.open)
					if o.Info.ID != good.ID {
						t.Fatalf("%s was opened", o.Info.ID)
					}
					must[messages.SnapshotClosed](r.actorRig, messages.CloseSnapshot{Stream: o.Stream})
				}
				aside, found := eventsOf[messages.DamageSetAside](r.events), eventsOf[messages.DamageFound](r.events)
				l := must[messages.SnapshotFilesListed](r.actorRig, messages.ListSnapshotFiles{All: true})
				listed := must[messages.SnapshotsListed](r.actorRig, messages.ListSnapshots{})
				if !c.aside {
					if len(aside) != 0 || len(found) != 4 || len(l.Aside) != 0 || len(listed.Damaged) != 2 {
						t.Errorf("events %+v, %+v, files %+v, damaged %+v", aside, found, l.Aside, listed.Damaged)
					}
					if c.eio && !strings.Contains(found[0].Err.Error(), "not set aside") {
						t.Errorf("the event does not say that it stays: %v", found[0].Err)
					}
					return
				}
				if len(aside) != 2 || len(found) != 2 || aside[0].File.ID != worse.ID || aside[1].File.ID != bad.ID {
					t.Errorf("events %+v, %+v", aside, found)
				}
				if len(l.Aside) != 2 || len(listed.Damaged) != 0 || len(listed.Snapshots) != 1 {
					t.Errorf("files %+v, listed %+v", l.Aside, listed)
				}
				for _, f := range l.Aside {
					must[messages.SnapshotFileDiscarded](r.actorRig, messages.DiscardSnapshotFile{Name: f.Name})
				}
				if r.files("*.damaged*") != 0 {
					t.Error("they were not discarded")
				}
			})
		})
	}
}

// If there is no good one the damaged ones stay where they are: whoever asks
// next must not take the group for one that has never had a snapshot.
func TestAllDamagedStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, nil)
		defer r.close()
		r.damage(r.saved(1, []byte("state")).ID, 20)
		for n := 1; n < 3; n++ {
			if _, err := do[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{}); !errors.Is(err, messages.ErrNotFound) {
				t.Errorf("opened: %v", err)
			}
			if found := eventsOf[messages.DamageFound](r.events); len(found) != n || r.files("*.snap") != 1 {
				t.Errorf("%d events, %d snapshots", len(found), r.files("*.snap"))
			}
		}
	})
}

func TestSnapshotFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, nil)
		defer r.close()
		var ids []string
		for i := range uint64(4) {
			ids = append(ids, r.saved(i+1, textState(i, 6*testBlock)).ID)
			pass(time.Hour)
		}
		r.damage(ids[1], 20)
		o := must[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{ID: ids[0]})
		p := must[messages.SnapshotsCleanedUp](r.actorRig, messages.CleanupSnapshots{Retention: messages.Retention{Keep: 1, DryRun: true}})
		want := []messages.Fate{messages.StaysNewestGood, messages.GoesByCount, messages.StaysDamaged, messages.StaysOpen}
		if len(p.Plan) != 4 || len(p.Removed) != 1 || p.Removed[0] != ids[2] {
			t.Fatalf("%+v", p)
		}
		for i, f := range want {
			if p.Plan[i].Fate != f || p.Plan[i].ID != ids[3-i] {
				t.Errorf("%d: %+v, want %v", i, p.Plan[i], f)
			}
		}
		if !errors.Is(p.Plan[2].Err, messages.ErrCorrupt) || r.files("*.snap") != 4 {
			t.Errorf("%v", p.Plan[2].Err)
		}
		must[messages.SnapshotClosed](r.actorRig, messages.CloseSnapshot{Stream: o.Stream})

		// All damage of one, and of a file that has no blocks to speak of.
		r.damage(ids[3], 200)
		r.damage(ids[3], 7000)
		v, err := do[messages.SnapshotVerified](r.actorRig, messages.VerifySnapshot{ID: ids[3]})
		if !errors.Is(err, messages.ErrCorrupt) || v.Damage == nil || v.Damage.Damaged != 2 || v.Damage.Total != 6 || v.Damage.RawBytes != 2*testBlock || v.Info.ID != ids[3] {
			t.Fatalf("%v, %+v, %+v", err, v.Damage, v.Info)
		}
		if b := v.Damage.Blocks; len(b) != 2 || b[0].Number != 0 || b[0].From != 0 || b[0].To != testBlock || b[1].From != b[1].Number*testBlock || b[1].Reason == "" {
			t.Errorf("%+v", b)
		}
		if v, err := do[messages.SnapshotVerified](r.actorRig, messages.VerifySnapshot{ID: ids[1]}); !errors.Is(err, messages.ErrCorrupt) || v.Damage != nil {
			t.Errorf("%v, %+v", err, v)
		}

		if _, err := do[messages.SnapshotSetAside](r.actorRig, messages.SetAsideSnapshot{ID: ids[0]}); !errors.Is(err, messages.ErrConflict) {
			t.Errorf("a good one was set aside: %v", err)
		}
		a := must[messages.SnapshotSetAside](r.actorRig, messages.SetAsideSnapshot{ID: ids[3]})
		if e := eventsOf[messages.DamageSetAside](r.events); len(e) != 1 || e[0].File != a.File || a.File.ID != ids[3] || a.File.Damage == nil {
			t.Errorf("%+v, events %+v", a, e)
		}
		b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 1, Index: 9, Resume: true})
		elsewhere := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 2, Index: 9, Resume: true})
		l := must[messages.SnapshotFilesListed](r.actorRig, messages.ListSnapshotFiles{Group: 1})
		if len(l.Aside) != 0 || len(l.Unfinished) != 1 || !l.Unfinished[0].Active {
			t.Fatalf("%+v", l)
		}
		for name, want := range map[string]error{
			l.Unfinished[0].Name:     messages.ErrConflict,
			ids[0] + ".snap":         messages.ErrInvalid,
			"../" + a.File.Name:      messages.ErrInvalid,
			ids[0] + ".import":       messages.ErrInvalid,
			ids[0] + ".snap.damaged": messages.ErrNotFound,
		} {
			if _, err := do[messages.SnapshotFileDiscarded](r.actorRig, messages.DiscardSnapshotFile{Name: name}); !errors.Is(err, want) {
				t.Errorf("discard %s: %v, want %v", name, err, want)
			}
		}
		must[messages.SaveAborted](r.actorRig, messages.AbortSave{Stream: b.Stream})
		must[messages.SaveAborted](r.actorRig, messages.AbortSave{Stream: elsewhere.Stream})
		must[messages.SnapshotFileDiscarded](r.actorRig, messages.DiscardSnapshotFile{Name: a.File.Name})
		if l := must[messages.SnapshotFilesListed](r.actorRig, messages.ListSnapshotFiles{All: true}); len(l.Aside)+len(l.Unfinished) != 0 {
			t.Errorf("%+v", l)
		}
	})
}

// A client that ignores its credit is refused while the disk is slow: the
// mailbox holds what the credit allows and no more, and other streams go on,
// whichever lane they would get by their number.
func TestCreditIsEnforced(t *testing.T) {
	const credit, clients = 3, 8
	r := newSnapshotRig(t, func(cfg *actors.SnapshotConfig, o *snapshot.Options) {
		cfg.Credit = credit
		o.PartialSyncBytes = 1
	})
	defer r.close()
	slow := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 1, Index: 1, Resume: true})
	release := r.disk.hold()
	type answer struct {
		n   int
		err error
	}
	const flood = 200
	answers := make(chan answer, flood)
	client := receiver(func(c *actor.Context) {
		if m, ok := c.Message().(messages.ChunkSaved); ok {
			answers <- answer{int(m.Tag), m.Err}
		}
	})
	pid := r.engine.Spawn(func() actor.Receiver { return client }, "flood", actor.WithID("1"), actor.WithInboxSize(4*flood))
	chunk := textState(1, messages.MaxSnapshotChunk)
	for i := range flood {
		r.engine.SendWithSender(r.host.PID(), messages.SaveChunk{Tag: uint64(i + 1), Group: 1, Stream: slow.Stream, Seq: uint64(min(i, credit) + 1), Data: chunk}, pid)
	}
	for range flood - credit {
		if a := <-answers; !errors.Is(a.err, messages.ErrOverloaded) || a.n <= credit {
			t.Fatalf("chunk %d: %v", a.n, a.err)
		}
	}
	if s := r.host.Status(); s.Queued != credit || s.QueuedBytes != credit*messages.MaxSnapshotChunk {
		t.Errorf("the mailbox holds %d commands of %d bytes", s.Queued, s.QueuedBytes)
	}
	// The sync that waits must be that of the slow stream.
	<-r.disk.holding()
	// One after the other: each has ended before the next gets its lane.
	for g := range uint64(clients) {
		b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Group: 2 + g, Index: 1})
		r.send(b.Stream, chunk[:20*testBlock])
		must[messages.Saved](r.actorRig, messages.FinishSave{Stream: b.Stream})
		if v := must[messages.SnapshotVerified](r.actorRig, messages.VerifySnapshot{ID: b.ID}); v.Info.RawBytes != 20*testBlock {
			t.Errorf("%+v", v)
		}
	}
	release()
	for range credit {
		if a := <-answers; a.err != nil || a.n > credit {
			t.Errorf("chunk %d: %v", a.n, a.err)
		}
	}
	// A reader that asks for more than it has credit for is refused as well.
	o := must[messages.SnapshotOpened](r.actorRig, messages.OpenSnapshot{Group: 2})
	if o.Credit != credit {
		t.Errorf("%+v", o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := actors.Ask[messages.SaveAborted](ctx, r.asker, r.host.PID(), messages.AbortSave{Stream: slow.Stream}); err != nil {
		t.Error(err)
	}
}
