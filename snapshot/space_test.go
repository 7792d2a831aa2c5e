package snapshot_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// limitFiles makes the kernel refuse to write any file of this process beyond a
// length, as a full disk does: a write comes back short, then fails.
func limitFiles(bytes uint64) (lift func(), err error) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return nil, err
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: before.Max}); err != nil {
		return nil, err
	}
	return func() { syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before) }, nil
}

// No space, for real. The limit is that of a process, and go test writes files
// of its own, so a second process takes the test.
func TestDiskFull(t *testing.T) {
	const child = "BALLAST_SNAPSHOT_DISK_FULL"
	if os.Getenv(child) != "" {
		diskFull(t)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	c.Env = append(os.Environ(), child+"=1")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestDiskFull") {
		t.Errorf("%v\n%s", err, out)
	}
}

// diskFull meets the limit at every length up to that of the whole file.
func diskFull(t *testing.T) {
	path := t.TempDir()
	before := descriptors(t)
	d := open(t, path, snapshot.Options{BlockBytes: 512, Concurrency: 2})
	state := append(records(1, 20_000), noise(1, 5000)...)
	good := save(t, d, 0, 1, 1, []byte("good"), state)
	for limit := int64(0); limit < good.FileBytes; limit += 97 {
		lift, err := limitFiles(uint64(limit))
		if err != nil {
			t.Fatal(err)
		}
		err = func() error {
			w, err := d.Create(0, 2, 1, []byte("good"))
			if err != nil {
				return err
			}
			if _, err := w.Write(state); err != nil {
				if _, again := w.Write(state); !errors.Is(again, messages.ErrDiskFull) {
					t.Errorf("limit %d: write again: %v", limit, again)
				}
				return err
			}
			_, err = w.Finish()
			return err
		}()
		lift()
		if !errors.Is(err, messages.ErrDiskFull) {
			t.Fatalf("limit %d: %v", limit, err)
		}
		if names := files(t, path); len(names) != 1 {
			t.Fatalf("limit %d: files %v", limit, names)
		}
	}
	if _, err := d.Verify(good.ID); err != nil {
		t.Error(err)
	}
	// Space is back: it goes on by itself.
	next := save(t, d, 0, 2, 1, []byte("good"), state)
	if err := d.Delete(good.ID); err != nil {
		t.Error(err)
	}
	load(t, d, next.ID)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// What can be gone on with is kept when there is no space, whatever it is that
// did not fit, and goes on once there is. Everything else stays as it is.
func TestDiskFullResumed(t *testing.T) {
	const child = "BALLAST_SNAPSHOT_DISK_FULL_RESUMED"
	if os.Getenv(child) != "" {
		diskFullResumed(t)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestDiskFullResumed$", "-test.v")
	c.Env = append(os.Environ(), child+"=1")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestDiskFullResumed") {
		t.Errorf("%v\n%s", err, out)
	}
}

func diskFullResumed(t *testing.T) {
	path := t.TempDir()
	before := descriptors(t)
	o := snapshot.Options{BlockBytes: 512, Concurrency: 2, PartialSyncBytes: 2000, Disk: noSync{durable.OS}}
	d := open(t, path, o)
	source := open(t, t.TempDir(), o)
	state := append(records(1, 20_000), noise(1, 5000)...)
	good := save(t, d, 0, 1, 1, []byte("good"), state)
	copied := save(t, source, 0, 2, 1, []byte("good"), state)
	fill := func(limit int64, f func() error) {
		t.Helper()
		lift, err := limitFiles(uint64(limit))
		if err != nil {
			t.Fatal(err)
		}
		err = f()
		lift()
		if !errors.Is(err, messages.ErrDiskFull) {
			t.Fatalf("limit %d: %v", limit, err)
		}
	}
	for limit := int64(0); limit < good.FileBytes; limit += 311 {
		fill(limit, func() error {
			w, _, err := d.Resume(0, 2, 1, []byte("good"))
			if err != nil {
				return err
			}
			if _, err := w.Write(state); err != nil {
				return err
			}
			_, err = w.Finish()
			return err
		})
		w, offset := resume(t, d, 0, 2, 1, "good")
		// Blocks of 528 bytes at most, after a header of 56: one may be torn.
		if low := (limit - 56) / 528 * 512; offset < low {
			t.Errorf("limit %d: goes on at %d, not %d", limit, offset, low)
		}
		write(t, w, state[offset:])
		made := finish(t, w)
		if got, _ := load(t, d, made.ID); !bytes.Equal(got, state) {
			t.Errorf("limit %d: other bytes", limit)
		}
		if err := d.Delete(made.ID); err != nil {
			t.Fatal(err)
		}

		fill(limit, func() error {
			_, err := imported(d, copied.ID, exported(t, source, copied.ID, 0))
			return err
		})
		m, offset, err := d.Import(copied.ID)
		if err != nil || offset < limit-528 && offset < good.FileBytes-3000 {
			t.Errorf("limit %d: the import goes on at %d: %v", limit, offset, err)
		}
		write(t, m, exported(t, source, copied.ID, offset))
		if got := finish(t, m); !same(got, copied) {
			t.Errorf("limit %d: %+v", limit, got)
		}
		if err := d.Delete(copied.ID); err != nil {
			t.Fatal(err)
		}
		if names := files(t, path); len(names) != 1 {
			t.Fatalf("limit %d: files %v", limit, names)
		}
	}
	// Without room, what takes none goes on.
	bad := save(t, d, 0, 3, 1, nil, state)
	save(t, d, 0, 4, 1, nil, state)
	b := read(t, filepath.Join(path, bad.ID+".snap"))
	b[300] ^= 1
	overwrite(t, filepath.Join(path, bad.ID+".snap"), b)
	lift, err := limitFiles(0)
	if err != nil {
		t.Fatal(err)
	}
	_, setAside := d.SetAside(bad.ID)
	removed, cleanup := d.Cleanup(0, messages.Retention{Keep: 1})
	_, verify := d.Verify(removed[0])
	lift()
	if err := errors.Join(setAside, cleanup); err != nil || len(removed) != 1 || removed[0] != good.ID || !errors.Is(verify, messages.ErrNotFound) {
		t.Errorf("removed %v, %v, %v", removed, err, verify)
	}
	if err := errors.Join(source.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// The directory has gone.
func TestDirectoryGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone")
	d := open(t, path, snapshot.Options{})
	w, err := d.Create(0, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err == nil {
		t.Error("finished in a directory that is gone")
	}
	if _, err := d.Create(0, 1, 1, nil); err == nil {
		t.Error("created in a directory that is gone")
	}
	if _, _, err := d.List(0); err == nil {
		t.Error("listed a directory that is gone")
	}
}
