package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

func resume(t testing.TB, d snapshot.Store, group, index, term uint64, meta string) (snapshot.Writer, int64) {
	t.Helper()
	w, offset, err := d.Resume(group, index, term, []byte(meta))
	if err != nil {
		t.Fatal(err)
	}
	return w, offset
}

func write(t testing.TB, w interface{ Write([]byte) (int, error) }, b []byte) {
	t.Helper()
	if n, err := w.Write(b); n != len(b) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(b), err)
	}
}

func finish(t testing.TB, w interface {
	Finish() (messages.SnapshotInfo, error)
}) messages.SnapshotInfo {
	t.Helper()
	info, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// killed copies a directory as a process that is killed would leave it.
func killed(t testing.TB, path string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	return to
}

func unfinished(t testing.TB, d snapshot.Store) (names []string) {
	t.Helper()
	list, err := d.Unfinished()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range list {
		names = append(names, u.Name)
	}
	return names
}

// wantFile finishes a save from an offset and checks that the file is the one
// that was written without a break.
func wantFile(t testing.TB, path string, w snapshot.Writer, rest, want []byte) {
	t.Helper()
	write(t, w, rest)
	info := finish(t, w)
	if !bytes.Equal(read(t, filepath.Join(path, info.ID+".snap")), want) {
		t.Error("the file is another than without the break")
	}
	if names := files(t, path); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
}

// A save that breaks off anywhere goes on at the last whole block, and gives the
// file that it would have given.
func TestResume(t *testing.T) {
	const block = 512
	state := append(append(records(1, 3*block), noise(1, 2*block)...), records(2, 200)...)
	o := snapshot.Options{BlockBytes: block, Concurrency: 2, Now: newClock().Now, Disk: noSync{durable.OS}}
	whole := t.TempDir()
	d := open(t, whole, o)
	want := read(t, filepath.Join(whole, save(t, d, 3, 9, 2, []byte("m"), state).ID+".snap"))
	for cut := 0; cut <= len(state); cut += 37 {
		for _, how := range []string{"suspend", "close", "kill"} {
			path := t.TempDir()
			d := open(t, path, o)
			w, offset := resume(t, d, 3, 9, 2, "m")
			if offset != 0 {
				t.Fatalf("begins at %d", offset)
			}
			write(t, w, state[:cut])
			switch how {
			case "suspend":
				if err := w.Suspend(); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(nil); !errors.Is(err, messages.ErrInvalid) {
					t.Errorf("write after suspend: %v", err)
				}
			case "close":
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				if err := w.Abort(); cut >= block && !errors.Is(err, messages.ErrStopped) {
					t.Errorf("abort after close: %v", err)
				}
				d = open(t, path, o)
			case "kill":
				path = killed(t, path)
				d = open(t, path, o)
			}
			w, offset = resume(t, d, 3, 9, 2, "m")
			full := int64(cut / block * block)
			if how != "kill" && offset != full || offset > full || offset%block != 0 || offset < full-4*block {
				t.Errorf("%s after %d bytes: goes on at %d", how, cut, offset)
			}
			wantFile(t, path, w, state[offset:], want)
		}
	}
}

// Whatever has happened to what was left: the result is right.
func TestResumeDamaged(t *testing.T) {
	const block = 512
	state := append(records(1, 2*block), noise(1, block)...)
	o := snapshot.Options{BlockBytes: block, Concurrency: 2, Now: newClock().Now, Disk: noSync{durable.OS}}
	path := t.TempDir()
	d := open(t, path, o)
	w, _ := resume(t, d, 0, 1, 1, "m")
	write(t, w, state)
	if err := w.Suspend(); err != nil {
		t.Fatal(err)
	}
	name := unfinished(t, d)[0]
	part := read(t, filepath.Join(path, name))
	w, _ = resume(t, d, 0, 1, 1, "m")
	want := read(t, filepath.Join(path, finish(t, w).ID+".snap"))
	check := func(what string, b []byte, low int64) {
		t.Helper()
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		d := open(t, path, o)
		w, offset := resume(t, d, 0, 1, 1, "m")
		if offset > int64(len(state)) || offset < low {
			t.Fatalf("%s: goes on at %d", what, offset)
		}
		wantFile(t, path, w, state[offset:], want)
		if t.Failed() {
			t.Fatal(what)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range part {
		if n > 80 && n%5 != 0 && n != len(part)-1 {
			continue // within the blocks, some
		}
		bad := bytes.Clone(part)
		bad[n] ^= 1 << (n % 8)
		check(fmt.Sprintf("a bit of byte %d", n), bad, 0)
		check(fmt.Sprintf("cut at %d", n), part[:n], 0)
	}
	check("surplus", append(bytes.Clone(part), noise(2, 900)...), int64(len(state)))
	check("zeros", append(bytes.Clone(part), make([]byte, 5000)...), int64(len(state)))
	check("its own first block again", append(bytes.Clone(part), part[53:]...), int64(len(state)))
}

// What cannot be gone on with is replaced.
func TestResumeBeginsAgain(t *testing.T) {
	base := snapshot.Options{BlockBytes: 512}
	for _, c := range []struct {
		name               string
		group, index, term uint64
		meta               string
		options            snapshot.Options
		offset             int64
		left               int
	}{
		{"the same", 1, 5, 2, "m", base, 1024, 1},
		{"another index", 1, 6, 2, "m", base, 0, 1},
		{"a lower index", 1, 4, 2, "m", base, 0, 1},
		{"another term", 1, 5, 3, "m", base, 0, 1},
		{"another meta", 1, 5, 2, "n", base, 0, 1},
		{"longer meta", 1, 5, 2, strings.Repeat("n", 1<<20), base, 0, 1},
		{"another block size", 1, 5, 2, "m", snapshot.Options{BlockBytes: 1024}, 0, 1},
		{"another level", 1, 5, 2, "m", snapshot.Options{BlockBytes: 512, Level: 9}, 0, 1},
		{"another group", 2, 5, 2, "m", base, 0, 2},
	} {
		path := t.TempDir()
		d := open(t, path, base)
		w, _ := resume(t, d, 1, 5, 2, "m")
		write(t, w, records(1, 1100))
		if err := errors.Join(w.Suspend(), d.Close()); err != nil {
			t.Fatal(err)
		}
		d = open(t, path, c.options)
		w, offset := resume(t, d, c.group, c.index, c.term, c.meta)
		if offset != c.offset {
			t.Errorf("%s: goes on at %d, want %d", c.name, offset, c.offset)
		}
		if names := unfinished(t, d); len(names) != c.left {
			t.Errorf("%s: unfinished %v", c.name, names)
		}
		state := records(3, 3000)
		write(t, w, state[:2048-offset])
		if info := finish(t, w); c.offset == 0 {
			if got, _ := load(t, d, info.ID); !bytes.Equal(got, state[:2048]) {
				t.Errorf("%s: blocks of the save before", c.name)
			}
		}
	}
	d := open(t, t.TempDir(), base)
	if _, _, err := d.Resume(0, 0, 1, nil); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("index zero: %v", err)
	}
	if _, _, err := d.Resume(0, 1, 1, make([]byte, 1<<20+1)); !errors.Is(err, messages.ErrTooLarge) {
		t.Errorf("large meta: %v", err)
	}
	w, err := d.Create(0, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Suspend(); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("suspended one from Create: %v", err)
	}
	write(t, w, []byte("goes on"))
	finish(t, w)
}

// The latest Resume has the save; the others learn that.
func TestResumeTakesOver(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	state := records(1, 3000)
	first, _ := resume(t, d, 0, 1, 1, "")
	write(t, first, state[:1500])
	second, offset := resume(t, d, 0, 1, 1, "")
	if offset != 1024 {
		t.Errorf("goes on at %d", offset)
	}
	_, write1 := first.Write(state)
	_, finish1 := first.Finish()
	for what, err := range map[string]error{"write": write1, "finish": finish1, "suspend": first.Suspend()} {
		if !errors.Is(err, messages.ErrExpired) {
			t.Errorf("%s after it was taken over: %v", what, err)
		}
	}
	if err := first.Abort(); err != nil {
		t.Error(err)
	}
	write(t, second, state[offset:])
	if err := second.Suspend(); err != nil {
		t.Fatal(err)
	}
	if err := first.Abort(); err != nil || len(unfinished(t, d)) != 1 {
		t.Errorf("the first writer's Abort takes what is the second's: %v %v", err, unfinished(t, d))
	}
	// Another index: the one before goes, though somebody writes it.
	third, offset := resume(t, d, 0, 1, 1, "")
	if offset != 2560 {
		t.Errorf("goes on at %d", offset)
	}
	fourth, offset := resume(t, d, 0, 2, 1, "")
	if _, err := third.Write(state); !errors.Is(err, messages.ErrExpired) || offset != 0 {
		t.Errorf("at another index: %d, %v", offset, err)
	}
	if list, err := d.Unfinished(); err != nil || len(list) != 1 || list[0].Index != 2 || !list[0].Active || list[0].Import {
		t.Errorf("%+v, %v", list, err)
	}
	// Abort after Suspend.
	write(t, fourth, state)
	if err := errors.Join(fourth.Suspend(), fourth.Abort(), fourth.Abort()); err != nil || len(files(t, path)) != 0 {
		t.Errorf("%v, left %v", err, files(t, path))
	}
	fifth, _ := resume(t, d, 0, 2, 1, "")
	write(t, fifth, state)
	if err := errors.Join(fifth.Abort(), fifth.Abort()); err != nil || len(files(t, path)) != 0 {
		t.Errorf("%v, left %v", err, files(t, path))
	}
}

// What is left does not stay for ever.
func TestUnfinishedBounds(t *testing.T) {
	path := t.TempDir()
	now := &clock{time.Now()}
	o := snapshot.Options{BlockBytes: 512, Now: now.Now, KeepPartial: time.Hour}
	d := open(t, path, o)
	leave := func(group, index uint64) string {
		t.Helper()
		w, _ := resume(t, d, group, index, 1, "")
		write(t, w, records(1, 2000))
		if err := w.Suspend(); err != nil {
			t.Fatal(err)
		}
		for _, name := range unfinished(t, d) {
			if strings.HasPrefix(name, fmt.Sprintf("%016x-", group)) {
				return name
			}
		}
		t.Fatal("nothing is left")
		return ""
	}
	want := func(what string, names ...string) {
		t.Helper()
		if got := unfinished(t, d); fmt.Sprint(got) != fmt.Sprint(names) {
			t.Errorf("%s: %v, want %v", what, got, names)
		}
	}
	a, b := leave(1, 10), leave(2, 10)
	save(t, d, 1, 9, 1, nil, nil)
	want("a snapshot before it", a, b)
	save(t, d, 1, 10, 1, nil, nil)
	want("a snapshot at its index", b)
	save(t, d, 2, 11, 1, nil, nil)
	want("a snapshot after it")

	a, b = leave(1, 20), leave(2, 20)
	age := func(name string, by time.Duration) {
		t.Helper()
		at := now.now.Add(-by)
		if err := os.Chtimes(filepath.Join(path, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	age(a, time.Hour+time.Second)
	age(b, time.Hour-time.Second)
	if _, _, err := d.ListAll(); err != nil {
		t.Error(err)
	}
	want("before anything begins", a, b)
	w, err := d.Create(3, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	want("one is old", b)
	age(b, -100*365*24*time.Hour)
	x, _ := resume(t, d, 4, 1, 1, "")
	want("the clock was set back", b, unfinished(t, d)[1])
	if err := errors.Join(w.Abort(), x.Abort()); err != nil {
		t.Fatal(err)
	}
	age(b, 2*time.Hour)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path, o)
	want("after open")

	// By hand.
	a = leave(1, 30)
	y, _ := resume(t, d, 1, 30, 1, "")
	if err := d.Discard(a); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("discarded while it is written: %v", err)
	}
	if err := errors.Join(y.Suspend(), d.Discard(a)); err != nil {
		t.Error(err)
	}
	want("discarded")
	if err := d.Discard(a); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("discarded twice: %v", err)
	}
	for _, name := range append(badIDs, "LOCK", a+"x", files(t, path)[0]) {
		if err := d.Discard(name); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("discarded %.80q: %v", name, err)
		}
	}
}

// A receiver that knows the content hash does not take anything else.
func TestExpect(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	state := records(1, 3000)
	good := save(t, d, 0, 1, 1, nil, state)
	for _, begin := range []func() (snapshot.Writer, error){
		func() (snapshot.Writer, error) { return d.Create(0, 2, 1, nil) },
		func() (snapshot.Writer, error) { w, _, err := d.Resume(0, 2, 1, nil); return w, err },
	} {
		w, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		w.Expect(good.ContentHash)
		write(t, w, state[:2999])
		if _, err := w.Finish(); !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("finished: %v", err)
		}
		if names := files(t, path); len(names) != 1 {
			t.Errorf("left: %v", names)
		}
	}
	w, _ := resume(t, d, 0, 2, 1, "")
	w.Expect(good.ContentHash)
	write(t, w, state)
	finish(t, w)
}

// noSync is a disk that syncs nothing: for tests in which no power fails.
type noSync struct{ durable.Disk }

func (noSync) Sync(*os.File) error  { return nil }
func (noSync) SyncDir(string) error { return nil }

// failing is a disk whose n-th step of a kind fails.
type failing struct {
	durable.Disk
	what string
	n    int
	err  error
}

func (d *failing) fails(what string) error {
	if d.what != what {
		return nil
	}
	if d.n--; d.n != 0 {
		return nil
	}
	return d.err
}

func (d *failing) Sync(f *os.File) error {
	return errors.Join(d.fails("sync"), d.Disk.Sync(f))
}

func (d *failing) SyncDir(path string) error {
	return errors.Join(d.fails("syncdir"), d.Disk.SyncDir(path))
}

func (d *failing) Rename(from, to string) error {
	if err := d.fails("rename"); err != nil {
		return err
	}
	return d.Disk.Rename(from, to)
}

// A sync that has failed tells that bytes are lost which can still be read: only
// what was synced before is kept.
func TestResumeAfterFailedSync(t *testing.T) {
	const block = 512
	state := noise(1, 20*block)
	disk := &failing{Disk: durable.OS}
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: block, Concurrency: 1, PartialSyncBytes: 4 * block, Disk: disk, Now: newClock().Now})
	for fail := 1; fail <= 6; fail++ {
		for _, err := range []error{errInjected, errDiskFull} {
			*disk = failing{Disk: durable.OS, what: "sync", n: fail, err: err}
			w, _ := resume(t, d, 0, 1, 1, "")
			_, failed := w.Write(state)
			if failed == nil {
				_, failed = w.Finish()
			}
			if !errors.Is(failed, err) || err == errDiskFull && !errors.Is(failed, messages.ErrDiskFull) {
				t.Fatalf("sync %d: %v", fail, failed)
			}
			// Each sync before covers at least 4 blocks of 528 bytes, and at
			// most one block more than they are due after.
			w, offset := resume(t, d, 0, 1, 1, "")
			if offset < int64(fail-1)*4*block-block || offset > int64(fail-1)*4*block {
				t.Errorf("sync %d has failed: goes on at %d", fail, offset)
			}
			write(t, w, state[offset:])
			info := finish(t, w)
			if got, _ := load(t, d, info.ID); !bytes.Equal(got, state) {
				t.Errorf("sync %d has failed: other bytes", fail)
			}
			if err := os.Remove(filepath.Join(path, info.ID+".snap")); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The same when it is gone on with: whoever wrote it was not told.
	w, _ := resume(t, d, 0, 1, 1, "")
	write(t, w, state)
	if err := w.Suspend(); err != nil {
		t.Fatal(err)
	}
	*disk = failing{Disk: durable.OS, what: "sync", n: 1, err: errInjected}
	if _, _, err := d.Resume(0, 1, 1, nil); !errors.Is(err, errInjected) {
		t.Errorf("resumed: %v", err)
	}
	if names := files(t, path); len(names) != 0 {
		t.Errorf("left what cannot be trusted: %v", names)
	}
}

// No space for the name: there is room again, and it goes on.
func TestResumeAfterNoRoomForTheName(t *testing.T) {
	state := records(1, 3000)
	disk := &failing{Disk: durable.OS}
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512, Disk: disk})
	good := save(t, d, 0, 1, 1, nil, state)
	for _, what := range []string{"rename", "syncdir"} {
		w, _ := resume(t, d, 0, 2, 1, "")
		write(t, w, state)
		*disk = failing{Disk: durable.OS, what: what, n: 1, err: errDiskFull}
		if _, err := w.Finish(); !errors.Is(err, messages.ErrDiskFull) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := w.Finish(); !errors.Is(err, messages.ErrDiskFull) {
			t.Errorf("%s, again: %v", what, err)
		}
		if got := list(t, d, 0); len(got) != 1 || len(unfinished(t, d)) != 1 {
			t.Errorf("%s: there are %v, unfinished %v", what, got, unfinished(t, d))
		}
		w, offset := resume(t, d, 0, 2, 1, "")
		if offset != 2560 {
			t.Errorf("%s: goes on at %d", what, offset)
		}
		write(t, w, state[offset:])
		info := finish(t, w)
		if got, _ := load(t, d, info.ID); !bytes.Equal(got, state) {
			t.Errorf("%s: other bytes", what)
		}
		if err := d.Delete(info.ID); err != nil {
			t.Fatal(err)
		}
	}
	load(t, d, good.ID)
}

// Whatever an unfinished file holds, what it becomes is good.
func FuzzResume(f *testing.F) {
	const name = "0000000000000000-0000000000000001-0000000000000001-000123456789"
	o := snapshot.Options{BlockBytes: 512, Concurrency: 1, Level: 3, Disk: noSync{durable.OS}}
	path := f.TempDir()
	d := open(f, path, o)
	w, _ := resume(f, d, 0, 1, 1, "")
	write(f, w, append(records(1, 1024), noise(1, 600)...))
	if err := w.Suspend(); err != nil {
		f.Fatal(err)
	}
	part := read(f, filepath.Join(path, unfinished(f, d)[0]))
	f.Add(part, true)
	f.Add(part[:400], false)
	f.Add(noise(1, 300), false)
	path = f.TempDir()
	d = open(f, path, o)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) > 52 {
			// The header that is expected, and blocks whose checksums are good.
			b = append(bytes.Clone(part[:52]), b[52:]...)
			for at, n := 52, uint64(0); len(b)-at > 16; n++ {
				end := at + 16 + int(le.Uint32(b[at+4:]))
				if end > len(b) || end < at+16 {
					break
				}
				le.PutUint32(b[at+12:], crc(part[48:52], u64(n), b[at:at+12], b[at+16:end]))
				at = end
			}
		}
		defer empty(t, path)
		if err := os.WriteFile(filepath.Join(path, name+"-3.snap.part"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, name+".snap.import"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		m, _, err := d.Import(name)
		if err != nil {
			t.Fatal(err)
		}
		w, offset := resume(t, d, 0, 1, 1, "")
		if offset%512 != 0 || offset > 64*int64(len(b)) {
			t.Fatalf("goes on at %d with %d bytes", offset, len(b))
		}
		write(t, w, []byte("and so on"))
		info := finish(t, w)
		if got, err := d.Verify(info.ID); err != nil || got.RawBytes != offset+9 {
			t.Fatalf("%+v, %v", got, err)
		}
		if err := m.Abort(); err != nil {
			t.Fatal(err)
		}
	})
}

// Everything at once, for the race detector; the store is closed in the middle.
func TestConcurrentLife(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512, Concurrency: 2, PartialSyncBytes: 2000, Disk: noSync{durable.OS}})
	from, info, stream := source(t)
	state := records(1, 5000)
	fine := func(err error) bool {
		for _, want := range []error{nil, messages.ErrExpired, messages.ErrConflict, messages.ErrNotFound, messages.ErrInvalid, messages.ErrStopped} {
			if errors.Is(err, want) {
				return true
			}
		}
		return false
	}
	calls := []func(n uint64) error{
		func(n uint64) error {
			w, offset, err := d.Resume(3, n%3+1, 1, nil)
			if err != nil {
				return err
			}
			if _, err = w.Write(state[offset:]); err == nil && n%2 == 0 {
				_, err = w.Finish()
			} else if err == nil {
				err = w.Suspend()
			}
			if n%5 == 0 {
				err = errors.Join(err, w.Abort())
			}
			return err
		},
		func(n uint64) error {
			m, offset, err := d.Import(info.ID)
			if err != nil {
				return err
			}
			x, err := from.Export(info.ID, offset)
			if err != nil {
				return err
			}
			defer x.Close()
			b := stream
			if offset > 0 {
				b = exported(t, from, info.ID, offset)
			}
			if _, err = m.Write(b); err == nil && n%2 == 0 {
				_, err = m.Finish()
			} else if err == nil {
				err = m.Suspend()
			}
			return err
		},
		func(uint64) error { _, err := d.SetAside(info.ID); return err },
		func(uint64) error {
			list, err := d.Unfinished()
			for _, u := range list {
				if err := d.Discard(u.Name); !fine(err) {
					return err
				}
			}
			return err
		},
		func(uint64) error { _, err := d.Cleanup(3, messages.Retention{Keep: 1}); return err },
		func(uint64) error { _, err := d.Plan(3, messages.Retention{Keep: 1}); return err },
		func(uint64) error { _, _, err := d.Latest(3); return err },
		func(uint64) error {
			x, err := d.Export(info.ID, 0)
			if err != nil {
				return err
			}
			return x.Close()
		},
	}
	done := make(chan error)
	for i, call := range append(calls, calls[:2]...) {
		go func() {
			for n := uint64(i); ; n++ {
				if err := call(n); !fine(err) || errors.Is(err, messages.ErrStopped) {
					done <- err
					return
				}
				if n == 60 && i == 0 {
					if err := d.Close(); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	for range len(calls) + 2 {
		if err := <-done; !errors.Is(err, messages.ErrStopped) {
			t.Errorf("ended with %v", err)
		}
	}
	d = open(t, path, snapshot.Options{})
	infos, damaged, err := d.ListAll()
	if err != nil || len(damaged) != 0 {
		t.Errorf("%v %v", damaged, err)
	}
	for _, info := range infos {
		if _, err := d.Verify(info.ID); err != nil {
			t.Error(err)
		}
	}
}
