package durable_test

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// recorder is a disk that notes every step and fails the one it is told to.
type recorder struct {
	steps []string
	fail  int // 1-based; 0 fails none
}

var errInjected = errors.New("injected")

func (r *recorder) step(s string) error {
	r.steps = append(r.steps, s)
	if len(r.steps) == r.fail {
		return errInjected
	}
	return nil
}

func (r *recorder) Sync(f *os.File) error {
	if err := r.step("sync " + filepath.Base(f.Name())); err != nil {
		return err
	}
	return durable.OS.Sync(f)
}

func (r *recorder) SyncDir(dir string) error {
	if err := r.step("syncdir " + filepath.Base(dir)); err != nil {
		return err
	}
	return durable.OS.SyncDir(dir)
}

func (r *recorder) Rename(from, to string) error {
	if err := r.step("rename " + filepath.Base(to)); err != nil {
		return err
	}
	return durable.OS.Rename(from, to)
}

func (r *recorder) Remove(path string) error {
	if err := r.step("remove " + filepath.Base(path)); err != nil {
		return err
	}
	return durable.OS.Remove(path)
}

func TestWriteFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	r := &recorder{}
	if err := durable.MkdirAll(r, dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	if err := durable.WriteFile(r, path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	// Names that were there before are synced as well: whoever made them may
	// have been killed before he could.
	above := filepath.Dir(filepath.Dir(dir))
	want := []string{"syncdir " + filepath.Base(above), "syncdir " + filepath.Base(filepath.Dir(dir)), "sync file.tmp", "rename file", "syncdir d"}
	if !slices.Equal(r.steps, want) {
		t.Fatalf("steps %q, want %q", r.steps, want)
	}
	// A failure at any step is reported, and leaves the old contents or the
	// new, and no temporary file.
	for n := 1; n <= 3; n++ {
		err := durable.WriteFile(&recorder{fail: n}, path, []byte("new"))
		if !errors.Is(err, errInjected) {
			t.Fatalf("failing step %d: %v", n, err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != map[bool]string{true: "old", false: "new"}[n < 3] {
			t.Fatalf("failing step %d left %q, %v", n, got, err)
		}
		if _, err := os.Stat(path + durable.TempSuffix); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("failing step %d left the temporary file: %v", n, err)
		}
	}
}

func TestMkdirAllRefusesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(durable.OS, filepath.Join(path, "below")); !errors.Is(err, syscall.ENOTDIR) {
		t.Fatalf("got %v", err)
	}
}

func TestRemoveTemps(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.tmp", "b", "c.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody's directory, which is not empty.
	if err := os.MkdirAll(filepath.Join(dir, "d.tmp", "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	names, err := durable.RemoveTemps(durable.OS, dir)
	if err != nil || len(names) != 2 {
		t.Fatalf("removed %q, %v", names, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "b" || left[1].Name() != "d.tmp" {
		t.Fatalf("left %v, %v", left, err)
	}
}

func TestLockDir(t *testing.T) {
	dir := t.TempDir()
	l, err := durable.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.LockDir(dir); !errors.Is(err, messages.ErrLocked) {
		t.Fatalf("a second lock: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	l, err = durable.LockDir(dir)
	if err != nil {
		t.Fatalf("after a release: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestWrap(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		err := durable.Wrap(&fs.PathError{Op: "write", Path: "f", Err: errno})
		if !errors.Is(err, messages.ErrDiskFull) || !errors.Is(err, errno) {
			t.Errorf("%v becomes %v", errno, err)
		}
	}
	if err := durable.Wrap(syscall.EIO); errors.Is(err, messages.ErrDiskFull) {
		t.Errorf("EIO becomes %v", err)
	}
}

var identity = [16]byte{0: 0xab, 15: 0xcd}

// The bytes of a mark are part of the on-disk format.
const goldenMark = "424c53544d41524b" + "01000000" + "b96faa13" + "ab0000000000000000000000000000cd" +
	"0700000000000000" + "0300000000000000" + "0002000000000000" + "0000000000000000"

func TestMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "MARK")
	m, err := durable.CreateMark(durable.OS, path, identity, durable.Position{})
	if err != nil {
		t.Fatal(err)
	}
	want := durable.Position{Sequence: 7, File: 3, Offset: 512}
	if err := errors.Join(m.Set(identity, want), m.Sync(), m.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != goldenMark {
		t.Errorf("bytes\n%s, want\n%s", got, goldenMark)
	}
	m, p, ok, err := durable.OpenMark(durable.OS, path, identity)
	if err != nil || !ok || p != want {
		t.Fatalf("read %+v, %v, %v", p, ok, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	if _, _, _, err := durable.OpenMark(durable.OS, path, [16]byte{1}); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("the mark of another store: %v", err)
	}
	if _, _, _, err := durable.OpenMark(durable.OS, path+"x", identity); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("a missing mark: %v", err)
	}
	// Whatever is wrong with its bytes, a mark then says nothing, never
	// something false.
	for n := range b {
		for bit := range 8 {
			bad := slices.Clone(b)
			bad[n] ^= 1 << bit
			checkDamagedMark(t, bad, want)
		}
		checkDamagedMark(t, b[:n], want)
	}
}

func checkDamagedMark(t *testing.T, b []byte, want durable.Position) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "MARK")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	m, p, ok, err := durable.OpenMark(durable.OS, path, identity)
	switch {
	case err != nil:
		t.Fatalf("% x: %v", b, err)
	case err == nil && ok && p != want:
		t.Fatalf("% x reads as %+v", b, p)
	}
	if m != nil {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFree(t *testing.T) {
	if n, err := durable.Free(t.TempDir()); err != nil || n <= 0 {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := durable.Free("/does/not/exist"); err == nil {
		t.Fatal("no error for a directory that does not exist")
	}
}
