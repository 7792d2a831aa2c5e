package main

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
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// begun starts a command and waits until it has made something in a directory.
// It returns how to wait for its end.
func begun(t *testing.T, c *exec.Cmd, dir string) (wait func() error) {
	t.Helper()
	c.Env = append(os.Environ(), asBallast+"=1")
	// A child inherits what its parent ignores, and nohup and shells without a
	// terminal have it ignore some; what is handled is reset.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(handled) })
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := c.Wait()
		if c.ProcessState.ExitCode() == exitFailed { // it may not have made anything
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, "failed"), nil, 0o644))
		}
		ended <- err
	}()
	if _, err := unix.Read(fd, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	return func() error { return <-ended }
}

// TestSignals ends a benchmark that would run for minutes.
func TestSignals(t *testing.T) {
	for _, signals := range [][]syscall.Signal{{syscall.SIGINT}, {syscall.SIGTERM}, {syscall.SIGHUP}, {syscall.SIGTERM, syscall.SIGINT}, {syscall.SIGHUP, syscall.SIGTERM}} {
		dir := t.TempDir()
		c := exec.Command(os.Args[0], "bench", "log", "-dir", dir, "-rows", "^append/1x128$", "-rounds", "1000", "-time", "100s")
		var stderr bytes.Buffer
		c.Stderr = &stderr
		wait := begun(t, c, dir)
		for _, s := range signals {
			if err := c.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
		err := wait()
		t.Logf("%v: %v: %s", signals, err, stderr.String())
		if c.ProcessState.ExitCode() != exitInterrupted || !strings.Contains(stderr.String(), "ballast: ") {
			t.Errorf("%v: %v, want exit code 130 and a word", signals, err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range left {
			if len(signals) == 1 || !strings.Contains(stderr.String(), name) {
				t.Errorf("%v: %s is left, and nothing tells", signals, name)
			}
		}
	}
}

// TestNobodyReads ends a benchmark whose progress nobody reads any more.
func TestNobodyReads(t *testing.T) {
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "bench", "log", "-dir", dir, "-rows", "^append/1x128$", "-rounds", "1000", "-time", "100s")
	c.Stdout, c.Stderr = w, w
	wait := begun(t, c, dir)
	if err := errors.Join(w.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := wait(); c.ProcessState.ExitCode() != exitUnread {
		t.Errorf("%v, want exit code %d", err, exitUnread)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestNohup goes on after a hangup that it was told to ignore.
func TestNohup(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command("/bin/sh", "-c", `trap '' HUP; exec "$0" bench log -dir "$1" -rows '^append/1x128$' -time 1ms`, os.Args[0], dir)
	wait := begun(t, c, dir)
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// TestHurry names what could not be removed in time.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent := t.TempDir()
		release := make(chan struct{})
		s := &scratch{}
		slow, err := s.make(parent, "slow-")
		if err != nil {
			t.Fatal(err)
		}
		quick, err := s.make(parent, "quick-")
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		s.removeAll = func(dir string) error {
			if dir == slow {
				<-release
				return nil
			}
			if tries++; tries < 3 {
				return errors.New("directory not empty")
			}
			return os.RemoveAll(dir)
		}
		began := time.Now()
		var out bytes.Buffer
		if code := hurry(&out, syscall.SIGTERM, s); code != exitInterrupted || time.Since(began) != patience {
			t.Errorf("exit code %d after %v", code, time.Since(began))
		}
		if got := out.String(); strings.Contains(got, quick) || !strings.Contains(got, slow+" is left") {
			t.Errorf("%s", got)
		}
		if _, err := os.Lstat(quick); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", quick, err)
		}
		close(release)
	})
}
