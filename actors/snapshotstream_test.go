package actors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// fullBlocks makes blocks as large as usual, for states of megabytes.
func fullBlocks(_ *actors.SnapshotConfig, o *snapshot.Options) { o.BlockBytes = 64 << 10 }

// What is written through the bridges comes back through them, whatever its
// length, however it is cut.
func TestSnapshotBridges(t *testing.T) {
	const chunk = 256 << 10
	r, other := newSnapshotRig(t, fullBlocks), newSnapshotRig(t, fullBlocks)
	defer r.close()
	defer other.close()
	ctx := t.Context()
	for i, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 9*chunk + 5} {
		state := textState(uint64(i), size)
		w, err := actors.NewSnapshotWriter(ctx, r.asker, r.host.PID(), messages.BeginSave{Group: uint64(i), Index: 1, Meta: []byte("m")})
		if err != nil {
			t.Fatal(err)
		}
		half := size / 2
		for rest := state[:half]; len(rest) > 0; rest = rest[min(len(rest), 99_999):] {
			if _, err := w.Write(rest[:min(len(rest), 99_999)]); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(state[half:]))); err != nil || n != int64(size-half) || w.Offset() != int64(size) {
			t.Fatalf("%d, %v, %d", n, err, w.Offset())
		}
		info, err := w.Finish(ctx)
		if err != nil || info.ID != w.ID() || info.RawBytes != int64(size) {
			t.Fatalf("%+v, %v", info, err)
		}
		if _, err := w.Write([]byte("x")); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("a write after the end: %v", err)
		}

		read := func(from *snapshotRig, offset int64) []byte {
			rd, err := actors.NewSnapshotReader(ctx, from.asker, from.host.PID(), messages.OpenSnapshot{Group: uint64(i), Offset: offset})
			if err != nil {
				t.Fatal(err)
			}
			if rd.Size() != int64(size)-offset || rd.Info().ID != info.ID {
				t.Errorf("%d, %+v", rd.Size(), rd.Info())
			}
			var b bytes.Buffer
			if _, err := io.CopyN(&b, rd, min(10, rd.Size())); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(&b, rd); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(rd.Close(), rd.Close()); err != nil {
				t.Error(err)
			}
			if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, messages.ErrInvalid) {
				t.Errorf("a read after Close: %v", err)
			}
			return b.Bytes()
		}
		if got := read(r, 0); !bytes.Equal(got, state) {
			t.Errorf("%d bytes: another state", size)
		}
		if got := read(r, int64(half)); !bytes.Equal(got, state[half:]) {
			t.Errorf("%d bytes: another state from the middle on", size)
		}

		e, err := actors.NewSnapshotExporter(ctx, r.asker, r.host.PID(), messages.ExportSnapshot{ID: info.ID})
		if err != nil {
			t.Fatal(err)
		}
		m, err := actors.NewSnapshotImporter(ctx, other.asker, other.host.PID(), messages.ImportSnapshot{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(m, e); err != nil {
			t.Fatal(err)
		}
		copied, err := m.Finish(ctx)
		if err != nil || copied.ID != info.ID || e.Close() != nil {
			t.Fatalf("%+v, %v", copied, err)
		}
		if got := read(other, 0); !bytes.Equal(got, state) {
			t.Errorf("%d bytes: another state was imported", size)
		}
	}
	if s := r.host.Status(); s.Queued != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := actors.NewSnapshotReader(ctx, r.asker, r.host.PID(), messages.OpenSnapshot{Group: 99}); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("none of the group: %v", err)
	}
}

func TestSnapshotWriterEnds(t *testing.T) {
	r := newSnapshotRig(t, nil)
	defer r.close()
	ctx := t.Context()
	begin := func(resume bool) *actors.SnapshotWriter {
		w, err := actors.NewSnapshotWriter(ctx, r.asker, r.host.PID(), messages.BeginSave{Index: 1, Resume: resume})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	state := textState(1, 10*testBlock+1)
	w := begin(false)
	if _, err := w.Write(state); err != nil {
		t.Fatal(err)
	}
	if err := w.Suspend(ctx); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("it cannot be resumed, and was suspended: %v", err)
	}
	if err := w.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	if n := r.files("*"); n != 1 {
		t.Errorf("%d files", n)
	}
	w = begin(true)
	if _, err := w.Write(state); err != nil {
		t.Fatal(err)
	}
	if err := w.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(ctx); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("finished after it was suspended: %v", err)
	}
	w = begin(true)
	if w.Offset() != 10*testBlock {
		t.Errorf("it goes on from %d", w.Offset())
	}
	// The actor crashes. What is sent after that fails, and so does all else.
	r.host.Crash(errors.New("on purpose"))
	_, _ = w.Write(state[w.Offset():]) // may be told of it or not
	if _, err := w.Finish(ctx); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("finished after a crash: %v", err)
	}
	if err := w.Suspend(ctx); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("suspended after a crash: %v", err)
	}
	if err := w.Abort(ctx); err != nil {
		t.Errorf("aborted after a crash: %v", err)
	}
	if err := begin(true).Abort(ctx); err != nil || r.files("*") != 1 {
		t.Errorf("%v, %d files", err, r.files("*"))
	}
}

// crasher is a source that crashes the actor now and then while it is read.
type crasher struct {
	*bytes.Reader
	host  *actors.Host
	every int
	left  int // crashes
	read  int
	next  int
}

func (c *crasher) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p[:min(len(p), 10_000)])
	if c.read += n; c.read >= c.next && c.left > 0 {
		c.next = c.read + c.every
		c.left--
		c.host.Crash(fmt.Errorf("%d more to come", c.left))
	}
	return n, err
}

// A save goes on by itself over crashes of the actor, and reads no more of its
// source again than what was under way.
func TestSaveSnapshotOverCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, func(cfg *actors.SnapshotConfig, o *snapshot.Options) {
			o.BlockBytes = 64 << 10
			cfg.Restart.MaxFailures = 1000
		})
		defer r.close()
		state := textState(7, 6<<20)
		const crashes = 12
		source := &crasher{Reader: bytes.NewReader(state), host: r.host, every: 800_000, next: 800_000, left: crashes}
		info, err := actors.SaveSnapshot(t.Context(), r.asker, r.host.PID(), messages.BeginSave{Index: 3, Term: 1}, source)
		if err != nil || source.left > 0 {
			t.Fatalf("%v, %d crashes left", err, source.left)
		}
		// Credit and one chunk, the block that was not complete, and those that
		// were being compressed.
		if again := source.read - len(state); again > crashes*(5*(256<<10)+4*(64<<10)) {
			t.Errorf("%d bytes were read again", again)
		}
		rd, err := actors.NewSnapshotReader(t.Context(), r.asker, r.host.PID(), messages.OpenSnapshot{ID: info.ID})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rd)
		if err := errors.Join(err, rd.Close()); err != nil || !bytes.Equal(got, state) {
			t.Errorf("%v, %d bytes", err, len(got))
		}
		if r.files("*.part") != 0 {
			t.Error("an unfinished file is left")
		}
	})
}

// The end of a save is in doubt, or was lost, and it is there all the same: it
// is not written a second time.
func TestSaveSnapshotInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, nil)
		defer r.close()
		n := &noVerify{}
		r.wrap = func(s snapshot.Store) snapshot.Store { n.Store = s; return n }
		g := &gates{before: make(chan struct{}), after: make(chan struct{})}
		close(g.before)
		wrap := r.wrap
		r.wrap = func(s snapshot.Store) snapshot.Store { g.Store = s; return g }
		r.host.Crash(errors.New("so that it is opened anew"))
		must[messages.SnapshotsListed](r.actorRig, messages.ListSnapshots{})
		r.wrap = wrap
		state := textState(1, 9*testBlock)
		var info messages.SnapshotInfo
		var err error
		done := make(chan struct{})
		go func() {
			info, err = actors.SaveSnapshot(t.Context(), r.asker, r.host.PID(), messages.BeginSave{Index: 3}, bytes.NewReader(state))
			close(done)
		}()
		synctest.Wait() // finished, and the worker waits
		r.host.Crash(errors.New("in the middle"))
		<-done
		close(g.after)
		if err != nil || info.RawBytes != int64(len(state)) || n.asked < 2 || r.files("*.snap") != 1 {
			t.Errorf("%v, %+v, verified %d times, %d snapshots", err, info, n.asked, r.files("*.snap"))
		}
	})
}

// noVerify is a store that cannot verify at the first time.
type noVerify struct {
	snapshot.Store
	asked int
}

func (n *noVerify) Verify(id string) (messages.SnapshotInfo, error) {
	if n.asked++; n.asked == 1 {
		return messages.SnapshotInfo{}, errors.New("too many open files")
	}
	return n.Store.Verify(id)
}

func TestSaveSnapshotGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, nil)
		state := textState(1, 9*testBlock)
		save := func(ctx context.Context, source io.ReadSeeker) error {
			_, err := actors.SaveSnapshot(ctx, r.asker, r.host.PID(), messages.BeginSave{Index: 3}, source)
			return err
		}
		broken := errors.New("broken")
		if err := save(t.Context(), &failing{bytes.NewReader(state), broken, 6 * testBlock}); !errors.Is(err, broken) {
			t.Errorf("an error of the source: %v", err)
		}
		// One that looks like one of the actor's.
		if err := save(t.Context(), &failing{bytes.NewReader(state), messages.ErrUnavailable, 6 * testBlock}); !errors.Is(err, messages.ErrUnavailable) {
			t.Errorf("an error of the source: %v", err)
		}
		synctest.Wait()
		b := must[messages.SaveBegun](r.actorRig, messages.BeginSave{Index: 3, Resume: true})
		if b.Offset != 0 && b.Offset != 6*testBlock {
			t.Errorf("%+v", b)
		}
		r.host.GiveUp(errors.New("unavailable for long"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := save(ctx, bytes.NewReader(state)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, messages.ErrUnavailable) {
			t.Errorf("unavailable: %v", err)
		}
		if err := save(t.Context(), bytes.NewReader(state)); err != nil { // tried again every 10 s
			t.Errorf("available again: %v", err)
		}
		r.close()
		if err := save(t.Context(), bytes.NewReader(state)); !errors.Is(err, messages.ErrStopped) {
			t.Errorf("stopped: %v", err)
		}
	})
}

// failing is a source that ends with an error.
type failing struct {
	*bytes.Reader
	err  error
	left int
}

func (f *failing) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, f.err
	}
	n, err := f.Reader.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}

// A reader and an export go on over crashes and leases, wherever they are, and
// yield every byte once.
func TestReaderOverCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSnapshotRig(t, func(cfg *actors.SnapshotConfig, o *snapshot.Options) {
			o.BlockBytes = 64 << 10
			cfg.Restart.MaxFailures = 1000
		})
		defer r.close()
		info, err := actors.SaveSnapshot(t.Context(), r.asker, r.host.PID(), messages.BeginSave{Index: 3}, bytes.NewReader(textState(5, 4<<20)))
		if err != nil {
			t.Fatal(err)
		}
		for name, open := range map[string]func() (*actors.SnapshotReader, error){
			"state": func() (*actors.SnapshotReader, error) {
				return actors.NewSnapshotReader(t.Context(), r.asker, r.host.PID(), messages.OpenSnapshot{Offset: 1000})
			},
			"export": func() (*actors.SnapshotReader, error) {
				return actors.NewSnapshotExporter(t.Context(), r.asker, r.host.PID(), messages.ExportSnapshot{})
			},
			"export from an offset": func() (*actors.SnapshotReader, error) {
				return actors.NewSnapshotExporter(t.Context(), r.asker, r.host.PID(), messages.ExportSnapshot{Offset: 70_000})
			},
		} {
			rd, err := open()
			if err != nil {
				t.Fatal(err)
			}
			want, err := io.ReadAll(rd)
			if err := errors.Join(err, rd.Close()); err != nil || int64(len(want)) != rd.Size() {
				t.Fatalf("%s: %v, %d bytes of %d", name, err, len(want), rd.Size())
			}
			if rd, err = open(); err != nil {
				t.Fatal(err)
			}
			var got []byte
			for i, size := range []int{0, 10, 70, 1, 100, 200_000, 300_000, 1} { // the envelope has 80
				b := make([]byte, size)
				n, err := io.ReadFull(rd, b)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got = append(got, b[:n]...)
				if i%2 == 0 {
					r.host.Crash(errors.New("on purpose"))
				} else {
					pass(3 * time.Minute)
				}
				synctest.Wait()
			}
			rest, err := io.ReadAll(rd)
			if err := errors.Join(err, rd.Close()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !bytes.Equal(append(got, rest...), want) {
				t.Errorf("%s: other bytes", name)
			}
		}
		// Nothing holds it any more.
		must[messages.Saved](r.actorRig, messages.Save{Index: 4, Data: []byte("newer")})
		must[messages.SnapshotDeleted](r.actorRig, messages.DeleteSnapshot{ID: info.ID})
		if _, err := actors.NewSnapshotReader(t.Context(), r.asker, r.host.PID(), messages.OpenSnapshot{ID: info.ID}); !errors.Is(err, messages.ErrNotFound) {
			t.Errorf("it was deleted: %v", err)
		}
	})
}

// A snapshot is copied from one actor to another while both of them crash.
func TestImportSnapshotOverCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		change := func(cfg *actors.SnapshotConfig, o *snapshot.Options) {
			o.BlockBytes = 16 << 10
			cfg.Restart.MaxFailures = 1000
		}
		from, to := newSnapshotRig(t, change), newSnapshotRig(t, change)
		defer from.close()
		defer to.close()
		info, err := actors.SaveSnapshot(t.Context(), from.asker, from.host.PID(), messages.BeginSave{Index: 3}, bytes.NewReader(textState(5, 8<<20)))
		if err != nil {
			t.Fatal(err)
		}
		var offsets []int64
		crashes := 0
		copied, err := actors.ImportSnapshot(t.Context(), to.asker, to.host.PID(), info.ID, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			offsets = append(offsets, offset)
			e, err := actors.NewSnapshotExporter(ctx, from.asker, from.host.PID(), messages.ExportSnapshot{ID: info.ID, Offset: offset})
			return struct {
				io.Reader
				io.Closer
			}{readerFunc(func(p []byte) (int, error) {
				n, err := e.Read(p[:min(len(p), 50_000)])
				// 40 reads are 7 chunks, more than the credit: some have been written.
				if crashes++; crashes%40 == 0 && crashes < 200 {
					[]*snapshotRig{from, to}[crashes/40%2].host.Crash(errors.New("on purpose"))
				}
				return n, err
			}), e}, err
		})
		if err != nil || copied.ContentHash != info.ContentHash || copied.ID != info.ID {
			t.Fatalf("%v, %+v", err, copied)
		}
		if len(offsets) < 2 || offsets[0] != 0 || offsets[len(offsets)-1] == 0 {
			t.Errorf("it was opened at %d", offsets)
		}
		must[messages.SnapshotVerified](to.actorRig, messages.VerifySnapshot{ID: info.ID})
		if to.files("*.import") != 0 {
			t.Error("an unfinished file is left")
		}
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Single keys are read out of a snapshot through the actor, by several at once,
// while it crashes.
func TestReaderAtFindsKeys(t *testing.T) {
	r := newSnapshotRig(t, func(cfg *actors.SnapshotConfig, o *snapshot.Options) {
		o.BlockBytes = 16 << 10
		cfg.Restart.MaxFailures = 1000
	})
	defer r.close()
	db, err := kv.Open(t.TempDir(), kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const keys = 3000
	key := func(i int) []byte { return fmt.Appendf(nil, "key %05d", i) }
	value := func(i int) []byte { return fmt.Appendf(nil, "value %d %s", i, textState(uint64(i), 150)) }
	var ops []messages.Operation
	for i := range keys {
		ops = append(ops, messages.PutOperation(key(i), value(i)))
	}
	if _, err := db.Write(0, ops); err != nil {
		t.Fatal(err)
	}
	view, err := db.OpenView(0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := actors.NewSnapshotWriter(t.Context(), r.asker, r.host.PID(), messages.BeginSave{Index: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(w, view)
	if err := errors.Join(err, view.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	at, err := actors.NewSnapshotReaderAt(t.Context(), r.asker, r.host.PID(), messages.OpenSnapshot{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			state, err := kv.OpenState(at, at.Size())
			if err != nil {
				t.Error(err)
				return
			}
			for i := n; i < keys; i += 97 {
				v, version, err := state.Get(key(i))
				if err != nil || version == 0 || !bytes.Equal(v, value(i)) {
					t.Errorf("%s: %q, %v, %v", key(i), v, version, err)
					return
				}
				if i%1000 == n {
					r.host.Crash(errors.New("on purpose"))
				}
			}
		})
	}
	wg.Wait()
	all := make([]byte, at.Size()+1)
	if n, err := at.ReadAt(all, 0); int64(n) != at.Size() || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := at.ReadAt(all[:10], at.Size()); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := at.ReadAt(all, -1); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(at.Close(), at.Close()); err != nil {
		t.Error(err)
	}
	if _, err := at.ReadAt(all[:1], 0); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("after Close: %v", err)
	}
}

// While the disk hangs a writer waits with what its credit allows, until its
// context ends; a reader that nobody reads from holds what it has asked for.
// Others go on.
func TestSlowStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const credit, chunk = 2, 256 << 10
		r := newSnapshotRig(t, func(cfg *actors.SnapshotConfig, o *snapshot.Options) {
			cfg.Credit = credit
			o.BlockBytes = 64 << 10
			o.PartialSyncBytes = 1
		})
		defer r.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		slow, err := actors.NewSnapshotWriter(ctx, r.asker, r.host.PID(), messages.BeginSave{Group: 1, Index: 1, Resume: true})
		if err != nil {
			t.Fatal(err)
		}
		release := r.disk.hold()
		stuck := make(chan error, 1)
		go func() {
			_, err := io.Copy(slow, endless{})
			stuck <- err
		}()
		synctest.Wait()
		state := textState(1, 20*chunk)
		held := func() (bytes int64) { return r.host.Status().QueuedBytes }
		if held() != credit*chunk {
			t.Errorf("%d bytes are under way", held())
		}
		pass(2 * time.Second) // now the lane is known to hang
		var wg sync.WaitGroup
		for g := range uint64(12) { // more than there are lanes
			wg.Go(func() {
				if _, err := actors.SaveSnapshot(t.Context(), r.asker, r.host.PID(), messages.BeginSave{Group: 2 + g, Index: 1}, bytes.NewReader(state)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		idle, err := actors.NewSnapshotReader(t.Context(), r.asker, r.host.PID(), messages.OpenSnapshot{Group: 2})
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 1)
		if _, err := idle.Read(first); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := r.host.Status(); s.Queued != credit || s.QueuedBytes != credit*chunk { // those of the slow one
			t.Errorf("%+v", s)
		}
		requests := r.host.Status().Requests
		if _, err := idle.Read(first); err != nil || r.host.Status().Requests != requests {
			t.Errorf("what had come was asked for again: %v", err)
		}
		if err := <-stuck; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context has ended: %v", err)
		}
		release()
		if err := slow.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		if err := idle.Close(); err != nil {
			t.Error(err)
		}
		if r.files("*.part") != 0 {
			t.Error("an unfinished file is left")
		}
	})
}

// endless is a state without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
