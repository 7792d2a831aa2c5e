package snapshot_test

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/messages"
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
