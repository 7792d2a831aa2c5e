package actors_test

import (
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// gates is a store whose writers and importers wait at the end, before or after
// it is done.
type gates struct {
	snapshot.Store
	before, after chan struct{}
}

type gatedWriter struct {
	snapshot.Writer
	g *gates
}

type gatedImporter struct {
	snapshot.Importer
	g *gates
}

func (g *gates) Create(group, index, term uint64, meta []byte) (snapshot.Writer, error) {
	w, err := g.Store.Create(group, index, term, meta)
	return gatedWriter{w, g}, err
}

func (g *gates) Resume(group, index, term uint64, meta []byte) (snapshot.Writer, int64, error) {
	w, offset, err := g.Store.Resume(group, index, term, meta)
	return gatedWriter{w, g}, offset, err
}

func (g *gates) Import(id string) (snapshot.Importer, int64, error) {
	w, offset, err := g.Store.Import(id)
	return gatedImporter{w, g}, offset, err
}

func (w gatedWriter) Finish() (info messages.SnapshotInfo, err error) {
	<-w.g.before
	info, err = w.Writer.Finish()
	<-w.g.after
	return info, err
}

func (w gatedWriter) Abort() error { <-w.g.before; err := w.Writer.Abort(); <-w.g.after; return err }
func (w gatedWriter) Suspend() error {
	<-w.g.before
	err := w.Writer.Suspend()
	<-w.g.after
	return err
}

func (w gatedImporter) Finish() (info messages.SnapshotInfo, err error) {
	<-w.g.before
	info, err = w.Importer.Finish()
	<-w.g.after
	return info, err
}

func (w gatedImporter) Abort() error {
	<-w.g.before
	err := w.Importer.Abort()
	<-w.g.after
	return err
}

// The actor crashes while a stream is being ended, before the store has done
// anything or after it has done everything. The reply says which, also for a
// resumed save, whose id is older, and for an import, whose id is of another
// node.
func TestEndingIsResolved(t *testing.T) {
	other := newSnapshotRig(t, nil)
	foreign := other.saved(4, textState(9, 5*testBlock))
	o := must[messages.SnapshotOpened](other.actorRig, messages.ExportSnapshot{ID: foreign.ID})
	exported := other.drain(o.Stream)
	other.close()
	state := textState(9, 5*testBlock)

	begin := messages.BeginSave{Index: 7, Term: 2}
	resumed := messages.BeginSave{Index: 7, Term: 2, Resume: true}
	finish := func(stream uint64) messages.Command { return messages.FinishSave{Stream: stream} }
	abort := func(stream uint64) messages.Command { return messages.AbortSave{Stream: stream} }
	for name, c := range map[string]struct {
		begin         messages.Command
		end           func(stream uint64) messages.Command
		before, after error  // in which case the store has done it
		left          string // the ending of a file that stays if it has not
		again         bool   // it was suspended before
	}{
		"finish":         {begin, finish, messages.ErrCrashed, nil, "", false},
		"finish resumed": {resumed, finish, messages.ErrCrashed, nil, ".part", true},
		"finish import":  {messages.ImportSnapshot{ID: foreign.ID}, finish, messages.ErrCrashed, nil, ".import", true},
		"finish unnamed": {messages.ImportSnapshot{}, finish, messages.ErrCrashed, nil, ".import", false},
		"suspend":        {resumed, func(stream uint64) messages.Command { return messages.SuspendSave{Stream: stream} }, messages.ErrInDoubt, messages.ErrInDoubt, ".part", true},
		"abort":          {begin, abort, nil, nil, "", false},
		"abort resumed":  {resumed, abort, nil, nil, "", true},
		"abort import":   {messages.ImportSnapshot{ID: foreign.ID}, abort, nil, nil, "", true},
	} {
		for _, done := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", before", true: ", after"}[done], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newSnapshotRig(t, nil)
					data := state
					_, imported := c.begin.(messages.ImportSnapshot)
					if imported {
						data = exported
					}
					if c.again {
						b := must[messages.SaveBegun](r.actorRig, c.begin)
						r.send(b.Stream, data[:3*testBlock])
						must[messages.SaveSuspended](r.actorRig, messages.SuspendSave{Stream: b.Stream})
					}
					g := &gates{before: make(chan struct{}), after: make(chan struct{})}
					r.wrap = func(s snapshot.Store) snapshot.Store { g.Store = s; return g }
					pass(time.Hour)
					r.host.Crash(errors.New("so that it is opened anew"))
					b := must[messages.SaveBegun](r.actorRig, c.begin)
					r.wrap = func(s snapshot.Store) snapshot.Store { return s }
					if c.again != (b.Offset > 0) {
						t.Fatalf("%+v", b)
					}
					if imported && c.again {
						r.send(b.Stream, exportFrom(t, exported, b.Offset))
					} else {
						r.send(b.Stream, data[b.Offset:])
					}
					if done {
						close(g.before)
					}
					var err error
					answered := make(chan struct{})
					go func() {
						_, err = do[messages.Reply](r.actorRig, c.end(b.Stream))
						close(answered)
					}()
					synctest.Wait()
					r.host.Crash(errors.New("in the middle"))
					pass(time.Second)
					<-answered
					want := c.before
					if done {
						want = c.after
					}
					if !errors.Is(err, want) {
						t.Errorf("%v, want %v", err, want)
					}
					if !done {
						close(g.before)
					}
					close(g.after)
					snapshots, left := 0, 0
					if _, ok := c.end(0).(messages.FinishSave); ok && done {
						snapshots = 1
					} else if c.left != "" {
						left = 1
					}
					if r.files("*.snap") != snapshots || c.left != "" && r.files("*"+c.left) != left || c.left == "" && r.files("*") != 1+snapshots {
						t.Errorf("%d snapshots, %d files", r.files("*.snap"), r.files("*"))
					}
					r.close()
				})
			})
		}
	}
}

// The actor crashes while an abort waits behind a chunk that hangs: what was
// written is removed all the same.
func TestAbortBehindAHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, func(_ *actors.SnapshotConfig, o *snapshot.Options) { o.PartialSyncBytes = 1 })
		defer r.close()
		b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Index: 9, Resume: true})
		r.send(b.Stream, textState(1, 5*testBlock))
		release := r.disk.hold()
		errs := make(chan error, 2)
		for _, c := range []messages.Command{
			messages.SaveChunk{Stream: b.Stream, Seq: 8, Data: textState(2, 3*testBlock)}, messages.AbortSave{Stream: b.Stream},
		} {
			go func() {
				_, err := do[messages.Reply](r.actorRig, c)
				errs <- err
			}()
			synctest.Wait()
		}
		r.host.Crash(errors.New("on purpose"))
		for r.host.Status().State == messages.StateServing {
			runtime.Gosched() // closing waits for a mutex, of which a bubble knows nothing
		}
		release()
		for range 2 {
			if err := <-errs; err != nil && !errors.Is(err, messages.ErrCrashed) {
				t.Error(err)
			}
		}
		if n := r.files("*.part"); n != 0 {
			t.Error("the unfinished file is left")
		}
	})
}

// exportFrom returns the export of the same snapshot from an offset on.
func exportFrom(t *testing.T, exported []byte, offset int64) []byte {
	t.Helper()
	dir := t.TempDir()
	d, err := snapshot.OpenDir(dir, snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := d.Import("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write(exported); err != nil {
		t.Fatal(err)
	}
	info, err := m.Finish()
	if err != nil {
		t.Fatal(err)
	}
	e, err := d.Export(info.ID, offset)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(e)
	if err := errors.Join(err, e.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// What removes is repeated after a crash, and what is gone then is gone.
func TestRemovalIsResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, nil)
		defer r.close()
		r.saved(1, []byte("good"))
		bad := r.saved(2, []byte("bad"))
		r.damage(bad.ID, 20)
		a := must[messages.SnapshotSetAside](r.actorRig, messages.SetAsideSnapshot{ID: bad.ID})
		for _, c := range []messages.Command{
			messages.SetAsideSnapshot{ID: bad.ID}, messages.DiscardSnapshotFile{Name: a.File.Name},
			messages.BeginSave{Index: 5, Resume: true}, messages.ExportSnapshot{}, messages.ListSnapshotFiles{},
		} {
			h := &held{gate: make(chan struct{})}
			r.wrap = func(s snapshot.Store) snapshot.Store { h.Store = s; return h }
			r.host.Crash(errors.New("so that it is opened anew"))
			must[messages.SnapshotsListed](r.actorRig, messages.ListSnapshots{})
			r.wrap = func(s snapshot.Store) snapshot.Store { return s }
			var err error
			answered := make(chan struct{})
			go func() {
				_, err = do[messages.Reply](r.actorRig, c)
				close(answered)
			}()
			synctest.Wait() // it has been done, and the worker waits
			r.host.Crash(errors.New("in the middle"))
			close(h.gate)
			<-answered
			if err != nil {
				t.Errorf("%T: %v", c, err)
			}
		}
		if r.files("*.damaged") != 0 {
			t.Error("it was not discarded")
		}
	})
}

// held is a store that does what it is told and then does not come back.
type held struct {
	snapshot.Store
	gate chan struct{}
}

func (h *held) SetAside(id string) (messages.AsideSnapshot, error) {
	a, err := h.Store.SetAside(id)
	<-h.gate
	return a, err
}

func (h *held) Discard(name string) error { err := h.Store.Discard(name); <-h.gate; return err }

func (h *held) Resume(group, index, term uint64, meta []byte) (snapshot.Writer, int64, error) {
	w, n, err := h.Store.Resume(group, index, term, meta)
	<-h.gate
	return w, n, err
}

func (h *held) Export(id string, offset int64) (snapshot.Exporter, error) {
	e, err := h.Store.Export(id, offset)
	<-h.gate
	return e, err
}

func (h *held) Unfinished() ([]messages.UnfinishedSnapshot, error) {
	l, err := h.Store.Unfinished()
	<-h.gate
	return l, err
}
