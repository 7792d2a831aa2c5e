package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The runtime's poller keeps two descriptors from its first use on; have it
	// used before any test counts them.
	r, w, err := os.Pipe()
	if err := errors.Join(err, r.Close(), w.Close()); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// clock is a fixed time that a test moves by hand.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.UnixMilli(0x0123456789).UTC()} }

func (c *clock) Now() time.Time { return c.now }

func open(t testing.TB, path string, o snapshot.Options) *snapshot.Dir {
	t.Helper()
	d, err := snapshot.OpenDir(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func save(t testing.TB, d snapshot.Store, group, index, term uint64, meta, state []byte) messages.SnapshotInfo {
	t.Helper()
	w, err := d.Create(group, index, term, meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(state); err != nil {
		t.Fatal(err)
	}
	info, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func load(t testing.TB, d snapshot.Store, id string) ([]byte, messages.SnapshotInfo) {
	t.Helper()
	r, err := d.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	state, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	info := r.Info()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return state, info
}

// records returns n bytes that look like a key-value state: JSON documents
// under numbered keys.
func records(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := []string{"pending", "shipped", "delivered", "returned", "Amsterdam", "Berlin", "Lisbon", "Oslo", "Prague", "Vienna"}
	b := make([]byte, 0, n+512)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, `order/%012d{"customer":%d,"state":%q,"city":%q,"total":%d.%02d,"token":"%016x","note":"leave it with the neighbours"}`+"\n",
			i, r.IntN(1_000_000), words[r.IntN(4)], words[4+r.IntN(6)], r.IntN(5000), r.IntN(100), r.Uint64())
	}
	return b[:n]
}

// noise returns n bytes that do not compress.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func files(t testing.TB, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "LOCK" {
			names = append(names, e.Name())
		}
	}
	return names
}

func descriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func same(a, b messages.SnapshotInfo) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }

func TestRoundTrip(t *testing.T) {
	const block = 512
	states := map[string][]byte{
		"empty":            nil,
		"one byte":         {7},
		"zeros":            make([]byte, 3000),
		"just below":       records(1, block-1),
		"one block":        records(1, block),
		"just above":       records(1, block+1),
		"some blocks":      records(1, 5*block),
		"incompressible":   noise(1, 5*block+100),
		"mixed":            append(append(records(1, 2*block), noise(1, block)...), records(2, 700)...),
		"hundreds of them": records(3, 300*block+17),
	}
	d := open(t, filepath.Join(t.TempDir(), "made", "on", "demand"), snapshot.Options{BlockBytes: block, Now: newClock().Now})
	index := uint64(0)
	for name, state := range states {
		index++
		meta := []byte("configuration of " + name)
		saved := save(t, d, 3, index, 2, meta, state)
		if saved.Group != 3 || saved.Index != index || saved.Term != 2 || string(saved.Meta) != string(meta) ||
			saved.RawBytes != int64(len(state)) || !saved.Created.Equal(newClock().now) {
			t.Errorf("%s: saved %+v", name, saved)
		}
		got, info := load(t, d, saved.ID)
		if !bytes.Equal(got, state) {
			t.Errorf("%s: read back %d other bytes of %d", name, len(got), len(state))
		}
		verified, err := d.Verify(saved.ID)
		if err != nil || !same(verified, saved) || !same(info, saved) {
			t.Errorf("%s: saved %+v, opened %+v, verified %+v %v", name, saved, info, verified, err)
		}
		latest, damaged, err := d.Latest(3)
		if err != nil || len(damaged) != 0 || !same(latest, saved) {
			t.Errorf("%s: latest %+v %v %v", name, latest, damaged, err)
		}
	}
	infos, damaged, err := d.List(3)
	if err != nil || len(damaged) != 0 || len(infos) != len(states) {
		t.Fatalf("listed %d of %d, damaged %v, %v", len(infos), len(states), damaged, err)
	}
	for i := range infos[1:] {
		if infos[i].Index <= infos[i+1].Index {
			t.Errorf("not newest first: %d before %d", infos[i].Index, infos[i+1].Index)
		}
	}
}

func TestReadInAnyPieces(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512})
	state := records(1, 3000)
	id := save(t, d, 0, 1, 1, nil, state).ID
	for _, n := range []int{1, 7, 511, 512, 513, 5000} {
		r, err := d.Open(id)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		buf := make([]byte, n)
		for {
			n, err := r.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if n, err := r.Read(buf); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
		if !bytes.Equal(got, state) {
			t.Errorf("in pieces of %d: other bytes", n)
		}
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		if _, err := r.Read(buf); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("read after close: %v", err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{})
	for _, c := range []struct {
		name  string
		index uint64
		meta  int
		want  error
	}{
		{"index zero", 0, 0, messages.ErrInvalid},
		{"meta too large", 1, messages.MaxSnapshotMeta + 1, messages.ErrTooLarge},
	} {
		if w, err := d.Create(0, c.index, 1, make([]byte, c.meta)); !errors.Is(err, c.want) || w != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if names := files(t, path); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	largest := noise(1, messages.MaxSnapshotMeta)
	info := save(t, d, 1<<64-1, 1<<64-1, 1<<64-1, largest, []byte("state"))
	if _, got := load(t, d, info.ID); !bytes.Equal(got.Meta, largest) || got.Index != 1<<64-1 {
		t.Error("the largest of everything does not come back")
	}
}

var badIDs = []string{
	"",
	"x",
	"..",
	"../../../../etc/passwd",
	"LOCK",
	strings.Repeat("0", 63),
	strings.Repeat("-", 63),
	strings.Repeat("/", 63),
	"0000000000000000-0000000000000001-0000000000000000-000123456789",  // index zero
	"0000000000000000-0000000000000001-0000000000000001-00012345678",   // short
	"0000000000000000-0000000000000001-0000000000000001-0001234567890", // long
	"0000000000000000-0000000000000001-0000000000000001-00012345678A",  // upper case
	"0000000000000000-0000000000000001-0000000000000001-00012345678g",
	"0000000000000000-0000000000000001-0000000000000001_000123456789",
	"0000000000000000-0000000000000001-0000000000000001-0001234567\x00\x00",
	"../../0000000000-0000000000000001-0000000000000001-000123456789",
	"0000000000000000-0000000000000001-0000000000000001-000123456789.snap",
	" 000000000000000-0000000000000001-0000000000000001-000123456789",
	"+000000000000000-0000000000000001-0000000000000001-000123456789",
	"0x00000000000000-0000000000000001-0000000000000001-000123456789",
	"٠٠٠٠٠٠٠٠-0000000000000001-0000000000000001-000123456789",
	strings.Repeat("long", 1<<16),
}

func TestBadIDs(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{})
	for _, id := range badIDs {
		_, parse := snapshot.ParseID(id)
		_, open := d.Open(id)
		_, verify := d.Verify(id)
		for what, err := range map[string]error{"ParseID": parse, "Open": open, "Verify": verify, "Delete": d.Delete(id)} {
			if !errors.Is(err, messages.ErrInvalid) {
				t.Errorf("%s(%.80q): %v", what, id, err)
			} else if len(err.Error()) > 700 {
				t.Errorf("%s(%.80q): an error of %d bytes", what, id, len(err.Error()))
			}
		}
	}
	const unknown = "0000000000000007-0000000000000001-0000000000000001-000123456789"
	_, open := d.Open(unknown)
	_, verify := d.Verify(unknown)
	_, _, latest := d.Latest(7)
	for what, err := range map[string]error{"Open": open, "Verify": verify, "Delete": d.Delete(unknown), "Latest": latest} {
		if !errors.Is(err, messages.ErrNotFound) || !strings.HasPrefix(err.Error(), "snapshot: ") {
			t.Errorf("%s of an unknown one: %v", what, err)
		}
	}
}

func TestOptionsValidate(t *testing.T) {
	err := snapshot.Options{Level: 23, BlockBytes: 511, Concurrency: -1}.Validate()
	for _, field := range []string{"Level", "BlockBytes", "Concurrency"} {
		if !errors.Is(err, messages.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not reported: %v", field, err)
		}
	}
	for _, o := range []snapshot.Options{{}, {Level: 1, BlockBytes: 512, Concurrency: 1}, {Level: 22, BlockBytes: 16 << 20, Concurrency: 256}} {
		if err := o.Validate(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := snapshot.OpenDir(t.TempDir(), snapshot.Options{Level: -1}); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("opened: %v", err)
	}
}

func TestNameTaken(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{Now: newClock().Now})
	first := save(t, d, 0, 1, 1, nil, []byte("a"))
	w, err := d.Create(0, 1, 1, nil) // takes a name before it has a file
	if err != nil {
		t.Fatal(err)
	}
	third := save(t, d, 0, 1, 1, nil, []byte("a"))
	second, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if second.Created.Sub(first.Created) != time.Millisecond || third.Created.Sub(first.Created) != 2*time.Millisecond {
		t.Errorf("created %v, %v, %v", first.Created, second.Created, third.Created)
	}
	if !bytes.Equal(read(t, filepath.Join(path, first.ID+".snap")), read(t, filepath.Join(path, third.ID+".snap"))) {
		t.Error("the time changes the file")
	}
}

func TestLocked(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{})
	if _, err := snapshot.OpenDir(path, snapshot.Options{}); !errors.Is(err, messages.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	other, err := snapshot.OpenDir(path, snapshot.Options{NoLock: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	open(t, path, snapshot.Options{})
}

func TestTwoGroups(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{})
	a := save(t, d, 1, 10, 1, nil, []byte("a"))
	b := save(t, d, 2, 5, 9, nil, []byte("b"))
	b2 := save(t, d, 2, 6, 9, nil, []byte("b2"))
	all, damaged, err := d.ListAll()
	if err != nil || len(damaged) != 0 || len(all) != 3 || all[0].ID != a.ID || all[1].ID != b2.ID || all[2].ID != b.ID {
		t.Errorf("ListAll: %v %v %v", all, damaged, err)
	}
	if got, _, err := d.Latest(1); err != nil || got.ID != a.ID {
		t.Errorf("latest of 1: %v %v", got, err)
	}
	if removed, err := d.Cleanup(2, messages.Retention{Keep: 1}); err != nil || len(removed) != 1 || removed[0] != b.ID {
		t.Errorf("cleaned up %v %v", removed, err)
	}
	if one, _, err := d.List(1); err != nil || len(one) != 1 {
		t.Errorf("group 1 after the cleanup of group 2: %v %v", one, err)
	}
}

func TestUnfinishedIsInvisible(t *testing.T) {
	path := t.TempDir()
	before := descriptors(t)
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	w, err := d.Create(0, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(records(1, 10_000)); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSuffix(files(t, path)[0], ".snap.tmp")
	_, opened := d.Open(id)
	_, _, latest := d.Latest(0)
	infos, damaged, err := d.ListAll()
	if !errors.Is(opened, messages.ErrNotFound) || !errors.Is(latest, messages.ErrNotFound) || err != nil || len(infos)+len(damaged) != 0 {
		t.Errorf("seen before Finish: %v, %v, %v %v %v", opened, latest, infos, damaged, err)
	}
	if err := errors.Join(w.Abort(), w.Abort()); err != nil {
		t.Error(err)
	}
	_, write := w.Write([]byte("x"))
	_, finish := w.Finish()
	if !errors.Is(write, messages.ErrInvalid) || !errors.Is(finish, messages.ErrInvalid) {
		t.Errorf("after Abort: %v, %v", write, finish)
	}
	if names := files(t, path); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	info := save(t, d, 0, 1, 1, nil, nil)
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	load(t, d, info.ID)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestLeftovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no [pattern*")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x.tmp", "0000000000000000-0000000000000001-0000000000000001-000123456789.snap.tmp"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"README", "other.snap"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	directory := "0000000000000000-0000000000000001-0000000000000001-000123456789"
	if err := os.Mkdir(filepath.Join(path, directory+".snap"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := open(t, path, snapshot.Options{})
	if names := files(t, path); len(names) != 3 {
		t.Errorf("left: %v", names)
	}
	infos, damaged, err := d.ListAll()
	if err != nil || len(infos) != 0 || len(damaged) != 2 {
		t.Errorf("strays: %v %v %v", infos, damaged, err)
	}
	if _, err := d.Open(directory); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("opened a directory: %v", err)
	}
}

func TestAfterClose(t *testing.T) {
	path := t.TempDir()
	before := descriptors(t)
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	id := save(t, d, 0, 1, 1, nil, records(1, 5000)).ID
	r, err := d.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Create(0, 2, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(records(1, 5000)); err != nil {
		t.Fatal(err)
	}
	x, err := d.Export(id, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := d.Import("")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if names := files(t, path); len(names) != 1 {
		t.Errorf("files: %v", names)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	calls := map[string]func() error{
		"Create":  func() error { _, err := d.Create(0, 1, 1, nil); return err },
		"Open":    func() error { _, err := d.Open(id); return err },
		"Latest":  func() error { _, _, err := d.Latest(0); return err },
		"List":    func() error { _, _, err := d.List(0); return err },
		"ListAll": func() error { _, _, err := d.ListAll(); return err },
		"Verify":  func() error { _, err := d.Verify(id); return err },
		"Delete":  func() error { return d.Delete(id) },
		"Cleanup": func() error { _, err := d.Cleanup(0, messages.Retention{Keep: 1}); return err },
		"Read":    func() error { _, err := r.Read(make([]byte, 1)); return err },
		"Write":   func() error { _, err := w.Write([]byte{1}); return err },
		"Finish":  func() error { _, err := w.Finish(); return err },

		"Resume":        func() error { _, _, err := d.Resume(0, 1, 1, nil); return err },
		"Import":        func() error { _, _, err := d.Import(""); return err },
		"Export":        func() error { _, err := d.Export(id, 0); return err },
		"SetAside":      func() error { _, err := d.SetAside(id); return err },
		"Aside":         func() error { _, err := d.Aside(); return err },
		"Unfinished":    func() error { _, err := d.Unfinished(); return err },
		"Discard":       func() error { return d.Discard(id + ".snap.damaged") },
		"Plan":          func() error { _, err := d.Plan(0, messages.Retention{}); return err },
		"Export, Read":  func() error { _, err := x.Read(make([]byte, 1)); return err },
		"Import, Write": func() error { _, err := m.Write([]byte{1}); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, messages.ErrStopped) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(r.Close(), w.Abort(), x.Close(), m.Abort()); err != nil {
		t.Error(err)
	}
}

// Everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 1024, Concurrency: 2})
	state := records(1, 20_000)
	done := make(chan error)
	const workers = 8
	for g := range uint64(workers) {
		go func() {
			done <- func() error {
				for i := uint64(1); i <= 10; i++ {
					w, err := d.Create(g%3, i, 1, nil)
					if err != nil {
						return err
					}
					if _, err := w.Write(state); err != nil {
						return err
					}
					if _, err := w.Finish(); err != nil {
						return err
					}
					info, _, err := d.Latest(g % 3)
					if err != nil {
						return err
					}
					r, err := d.Open(info.ID)
					if errors.Is(err, messages.ErrNotFound) {
						continue // cleaned up by another worker
					} else if err != nil {
						return err
					}
					if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, state) {
						return fmt.Errorf("read %d bytes, %v", len(got), err)
					}
					if err := r.Close(); err != nil {
						return err
					}
					if _, err := d.Cleanup(g%3, messages.Retention{Keep: 2}); err != nil {
						return err
					}
					if err := d.Delete(info.ID); err != nil && !errors.Is(err, messages.ErrNotFound) && !errors.Is(err, messages.ErrConflict) {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for g := range uint64(3) {
		if _, damaged, err := d.Latest(g); err != nil || len(damaged) != 0 {
			t.Errorf("group %d: %v %v", g, damaged, err)
		}
	}
}

// Close in the middle of everything.
func TestCloseWhileInUse(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Concurrency: 2})
	id := save(t, d, 0, 1, 1, nil, records(1, 200_000)).ID
	done := make(chan error)
	started := make(chan struct{}, 3)
	loop := func(step func() error) {
		started <- struct{}{}
		for {
			if err := step(); err != nil {
				done <- err
				return
			}
		}
	}
	go loop(func() error { _, err := d.Verify(id); return err })
	go loop(func() error {
		w, err := d.Create(0, 2, 1, nil)
		if err != nil {
			return err
		}
		if _, err := w.Write(records(1, 2000)); err != nil {
			return err
		}
		return w.Abort()
	})
	go loop(func() error {
		r, err := d.Open(id)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return errors.Join(err, r.Close())
	})
	for range 3 {
		<-started
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-done; !errors.Is(err, messages.ErrStopped) {
			t.Errorf("ended with %v", err)
		}
	}
}

// The pipeline in a synctest bubble: time is virtual and nothing is left
// running. Two bubbles, because what is shared between them would panic.
func TestInBubble(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Concurrency: 2})
			state := records(1, 50_000)
			<-time.After(time.Hour)
			info := save(t, d, 0, 1, 1, nil, state)
			if want := time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC); !info.Created.Equal(want) {
				t.Errorf("created %v, want %v", info.Created, want)
			}
			if got, _ := load(t, d, info.ID); !bytes.Equal(got, state) {
				t.Error("other bytes")
			}
			w, err := d.Create(0, 2, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(state); err != nil {
				t.Fatal(err)
			}
			if err := w.Abort(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		})
	}
}
