package snapshot_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

func aside(t testing.TB, d snapshot.Store) []messages.AsideSnapshot {
	t.Helper()
	list, err := d.Aside()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A damaged snapshot is kept under another name, and is no snapshot any more.
func TestSetAside(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	old := save(t, d, 1, 1, 1, nil, records(1, 2000))
	bad := save(t, d, 1, 2, 1, nil, records(2, 2000))
	stream := exported(t, d, bad.ID, 0)
	name := filepath.Join(path, bad.ID+".snap")
	if _, err := d.SetAside(bad.ID); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("a good one: %v", err)
	}
	good := read(t, name)
	for n, damage := range []func() []byte{
		func() []byte { b := slices.Clone(good); b[300] ^= 1; return b }, // a block
		func() []byte { return good[:300] },                              // no footer
		func() []byte { return nil },
	} {
		b := damage()
		overwrite(t, name, b)
		r, err := d.Open(old.ID)
		if err != nil {
			t.Fatal(err)
		}
		a, err := d.SetAside(bad.ID)
		if err != nil {
			t.Fatal(err)
		}
		if a.ID != bad.ID || a.Group != 1 || a.Index != 2 || a.Term != 1 || a.FileBytes != int64(len(b)) ||
			a.Damage == nil || filepath.Base(a.Damage.Path) != a.Name || !errors.Is(a.Damage, messages.ErrCorrupt) {
			t.Errorf("set aside as %+v, %v", a, a.Damage)
		}
		if got := read(t, filepath.Join(path, a.Name)); !slices.Equal(got, b) {
			t.Error("other bytes")
		}
		if got := aside(t, d); len(got) != n+1 {
			t.Errorf("aside: %+v", got)
		}
		// It counts for nothing.
		if infos, damaged, err := d.ListAll(); len(infos) != 1 || len(damaged) != 0 || err != nil {
			t.Errorf("listed %v %v %v", infos, damaged, err)
		}
		if info, damaged, err := d.Latest(1); info.ID != old.ID || len(damaged) != 0 || err != nil {
			t.Errorf("latest %v %v %v", info, damaged, err)
		}
		if removed, err := d.Cleanup(1, messages.Retention{Keep: 1}); len(removed) != 0 || err != nil {
			t.Errorf("cleaned up %v %v", removed, err)
		}
		if _, err := d.Verify(bad.ID); !errors.Is(err, messages.ErrNotFound) {
			t.Errorf("verified: %v", err)
		}
		if again, err := d.SetAside(bad.ID); err != nil || again.ID != bad.ID {
			t.Errorf("again: %+v %v", again, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		// It comes back by a copy, which may rot as well.
		if _, err := imported(d, "", stream); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path, snapshot.Options{})
	list := aside(t, d)
	if len(list) != 3 || list[0].Damage != nil || list[1].Damage == nil || list[2].Damage == nil || !strings.HasSuffix(list[1].Name, ".damaged.2") {
		t.Fatalf("after open: %+v", list)
	}
	for _, a := range list {
		if err := d.Discard(a.Name); err != nil {
			t.Error(err)
		}
	}
	if got := aside(t, d); len(got) != 0 || len(files(t, path)) != 2 {
		t.Errorf("discarded, left %v", files(t, path))
	}
	if _, err := d.SetAside("x"); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
	if err := d.Delete(bad.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SetAside(bad.ID); !errors.Is(err, messages.ErrNotFound) {
		t.Error(err)
	}
}

// The latest of a dozen that were set aside under one id is the one with the
// highest number, also if some before it were discarded, and what it says is
// about that file.
func TestSetAsideOften(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	bad := save(t, d, 1, 2, 1, nil, records(2, 2000))
	name := filepath.Join(path, bad.ID+".snap")
	want := ""
	for n := 1; n <= 12; n++ {
		plant(t, name, make([]byte, n))
		a := check(d.SetAside(bad.ID))
		want = bad.ID + ".snap.damaged"
		if n > 1 {
			want += "." + strconv.Itoa(n)
		}
		if a.Name != want || a.FileBytes != int64(n) {
			t.Fatalf("the %d.: %+v", n, a)
		}
		if n == 11 {
			for _, gone := range []string{"", ".3", ".9"} {
				if err := d.Discard(bad.ID + ".snap.damaged" + gone); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// Whoever does not know whether it was done is told of the latest.
	for range 2 {
		if a, err := d.SetAside(bad.ID); err != nil || a.Name != want || a.FileBytes != 12 {
			t.Errorf("again: %+v, %v", a, err)
		}
		d = reopen(t, d, path)
	}
	var sizes []int64
	for _, a := range aside(t, d) {
		sizes = append(sizes, a.FileBytes)
	}
	if !slices.Equal(sizes, []int64{2, 4, 5, 6, 7, 8, 10, 11, 12}) {
		t.Errorf("in the order %v", sizes)
	}
	// A name that is not ours to give does not count, and no number is beyond
	// the last.
	for _, stray := range []string{".99999999999999999999", ".013", ".-20", ".1000001"} {
		plant(t, name+".damaged"+stray, nil)
	}
	plant(t, name, make([]byte, 13))
	if a, err := d.SetAside(bad.ID); err != nil || a.Name != bad.ID+".snap.damaged.13" {
		t.Errorf("beside strays: %+v, %v", a, err)
	}
	plant(t, name+".damaged.1000000", nil)
	plant(t, name, make([]byte, 14))
	if _, err := d.SetAside(bad.ID); !errors.Is(err, messages.ErrConflict) || len(read(t, name)) != 14 {
		t.Errorf("no number is left: %v", err)
	}
}

// plant makes a file.
func plant(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func reopen(t *testing.T, d *snapshot.Dir, path string) *snapshot.Dir {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, path, snapshot.Options{BlockBytes: 512})
}

// A directory that has the name of a snapshot, and one that is open.
func TestSetAsideOdd(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	const id = "0000000000000000-0000000000000001-0000000000000001-000123456789"
	if err := os.Mkdir(filepath.Join(path, id+".snap"), 0o755); err != nil {
		t.Fatal(err)
	}
	if a, err := d.SetAside(id); err != nil || a.Damage == nil {
		t.Errorf("a directory: %+v %v", a, err)
	}
	info := save(t, d, 0, 5, 1, nil, records(1, 2000))
	r, err := d.Open(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(path, info.ID+".snap"), nil)
	if _, err := d.SetAside(info.ID); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("an open one: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// A newer version's file is not damaged.
	_, newer, b := small(t, snapshot.Options{})
	p := parse(b)
	le.PutUint16(p.header[8:], 2)
	if err := os.WriteFile(filepath.Join(path, newer.ID+".snap"), p.seal(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SetAside(newer.ID); !errors.Is(err, messages.ErrIncompatible) {
		t.Errorf("a newer one: %v", err)
	}
	if _, err := os.Stat(filepath.Join(path, newer.ID+".snap")); err != nil {
		t.Error(err)
	}
}

// No descriptor is left: that is not damage, and nothing is renamed, removed or
// passed over.
func TestNoDescriptors(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	info := save(t, d, 0, 1, 1, nil, records(1, 2000))
	w, _ := resume(t, d, 0, 2, 1, "")
	write(t, w, records(1, 2000))
	if err := w.Suspend(); err != nil {
		t.Fatal(err)
	}
	from, copied, stream := source(t)
	m, _, err := d.Import("")
	if err != nil {
		t.Fatal(err)
	}
	write(t, m, stream[:1000])
	if err := m.Suspend(); err != nil {
		t.Fatal(err)
	}
	want := files(t, path)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, setAside := d.SetAside(info.ID)
	_, _, latest := d.Latest(0)
	_, _, list := d.List(0)
	_, cleanup := d.Cleanup(0, messages.Retention{Keep: 1})
	_, plan := d.Plan(0, messages.Retention{Keep: 1})
	_, export := d.Export(info.ID, 0)
	_, _, resumed := d.Resume(0, 2, 1, nil)
	_, _, imported := d.Import(info.ID)
	_, created := d.Create(0, 3, 1, nil)
	deleted := d.Delete(info.ID)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"SetAside": setAside, "Latest": latest, "List": list, "Cleanup": cleanup, "Plan": plan,
		"Export": export, "Resume": resumed, "Import": imported, "Create": created, "Delete": deleted} {
		if !errors.Is(err, syscall.EMFILE) || errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := files(t, path); !slices.Equal(got, want) {
		t.Errorf("left %v of %v", got, want)
	}
	if _, err := d.Verify(info.ID); err != nil {
		t.Error(err)
	}
	// A few more, so that it fails later on: what was left stays.
	lowest, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	free := uint64(lowest.Fd())
	if err := lowest.Close(); err != nil {
		t.Fatal(err)
	}
	for more := uint64(0); ; more++ {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: free + more, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
		_, offset, err := d.Resume(0, 2, 1, nil)
		m, at, again := d.Import(copied.ID)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			if offset != 1536 {
				t.Errorf("goes on at %d", offset)
			}
			if again != nil { // the save has taken the last one
				continue
			}
			write(t, m, exported(t, from, copied.ID, at))
			if finish(t, m); at == 0 {
				t.Error("the import begins again")
			}
			break
		}
		if !errors.Is(err, syscall.EMFILE) || !slices.Equal(files(t, path), want) {
			t.Errorf("%d descriptors: %v, left %v", more, err, files(t, path))
		}
	}
}

// The rename is refused, or its sync is: nothing is lost, and it can be tried
// again.
func TestSetAsideDiskFull(t *testing.T) {
	for _, what := range []string{"rename", "syncdir"} {
		disk := &failing{Disk: durable.OS}
		path := t.TempDir()
		d := open(t, path, snapshot.Options{BlockBytes: 512, Disk: disk})
		good := save(t, d, 0, 1, 1, nil, records(1, 2000))
		info := save(t, d, 0, 2, 1, nil, records(1, 2000))
		overwrite(t, filepath.Join(path, info.ID+".snap"), nil)
		*disk = failing{Disk: durable.OS, what: what, n: 1, err: errDiskFull}
		if _, err := d.SetAside(info.ID); !errors.Is(err, messages.ErrDiskFull) {
			t.Errorf("%s: %v", what, err)
		}
		if names := files(t, path); len(names) != 2 {
			t.Errorf("%s: %v", what, names)
		}
		*disk = failing{Disk: durable.OS, what: "syncdir", n: 1, err: errInjected}
		if _, err := d.SetAside(info.ID); !errors.Is(err, errInjected) {
			t.Errorf("%s: the name was not synced again: %v", what, err)
		}
		if a, err := d.SetAside(info.ID); err != nil || len(aside(t, d)) != 1 || a.ID != info.ID {
			t.Errorf("%s: again: %+v %v", what, a, err)
		}
		load(t, d, good.ID)
	}
}
