package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// Descriptors or memory that ran out fail no append: whatever Maintain was
// about is done by a later one, and says so. Each step that it takes fails once,
// in a run of its own, but for the syncs of what is in use: after one of those
// nothing can be trusted.
func TestTransientFailures(t *testing.T) {
	for _, recycle := range []int{0, 1} {
		t.Run(fmt.Sprintf("RecycleBytes %d", recycle), func(t *testing.T) { testTransientFailures(t, recycle) })
	}
}

func testTransientFailures(t *testing.T, recycle int) {
	// run returns how many steps it took to open, and the errors of the rest.
	run := func(d *faults, dir string) (opened int, delays []error, w *raftlog.WAL) {
		w = mustOpen(t, dir, raftlog.Options{SegmentBytes: 256, RecycleBytes: recycle, Disk: d.disk()})
		opened = d.steps
		put(t, w, 5, 1, "lagging", "", "entries")
		for round := uint64(1); round <= 36; round++ {
			put(t, w, 0, 1, strings.Repeat("x", 70+int(round%3)*100))
			if round%4 == 0 {
				if _, err := w.TruncateBefore(0, round); err != nil {
					t.Fatal(err)
				}
			}
			for again := true; again; {
				if _, err := w.Sync(); err != nil {
					return opened, append(delays, err), w
				}
				again = false
				for w.Due() && !again {
					var err error
					if again, err = w.Maintain(); err != nil {
						delays = append(delays, err)
					}
					if w.Poisoned() {
						return opened, delays, w
					}
				}
			}
		}
		return opened, delays, w
	}
	count := &faults{}
	opened, delays, w := run(count, memory(t))
	if len(delays) > 0 {
		t.Fatal(delays)
	}
	want := mustDescribe(t, w)
	mustClose(t, w)
	delayed := map[string]int{}
	for n := opened + 1; n <= count.steps; n++ {
		errno := []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM}[n%3]
		dir := memory(t)
		d := &faults{failAt: n, err: errno}
		_, delays, w := run(d, dir)
		if d.failed == "" { // it is a step of Close
			if err := w.Close(); !errors.Is(err, errno) {
				t.Errorf("close: %v", err)
			}
			continue
		}
		step := fmt.Sprintf("step %d, %s", n, d.failed)
		if w.Poisoned() {
			if d.failed != "sync MARK" && d.failed != "sync "+logFile {
				t.Fatalf("%s: poisoned by %v", step, delays)
			}
			mustClose(t, w)
			continue
		}
		if len(delays) != 1 || !errors.Is(delays[0], errno) {
			t.Fatalf("%s: %v", step, delays)
		}
		delayed[strings.Replace(d.failed, filepath.Base(dir), "DIR", 1)]++
		if got := mustDescribe(t, w); got != want {
			t.Fatalf("%s:\n%swant\n%s", step, got, want)
		}
		mustMaintain(t, w)
		if segments := len(readFiles(t, dir).segments()); segments > 12 {
			t.Fatalf("%s: %d segments", step, segments)
		}
		mustClose(t, w)
		r, err := raftlog.Inspect(dir)
		if err != nil || len(r.Damage) > 0 || r.Torn != nil || r.Floor == 1 {
			t.Fatalf("%s: floor %d, %v, %v, %v", step, r.Floor, r.Damage, r.Torn, err)
		}
		w = mustOpen(t, dir, raftlog.Options{VerifyAll: true})
		if got := mustDescribe(t, w); got != want {
			t.Fatalf("%s: reopened as\n%swant\n%s", step, got, want)
		}
		mustClose(t, w)
	}
	for _, what := range []string{"sync " + logFile, "sync directory 00000002", "sync directory wal", "sync MANIFEST.tmp", "rename MANIFEST",
		"sync directory DIR", "remove " + logFile, "remove 00000001"} {
		if delayed[what] == 0 {
			t.Errorf("no %s was delayed: %v", what, delayed)
		}
	}
}

// The segment that could be neither made nor removed again is in nobody's way.
func TestUnfinishedSegment(t *testing.T) {
	for _, fails := range []string{"sync", "sync directory"} {
		out := true
		d := stepDisk{func(what, path string) error {
			if out && strings.Contains(path, "00000002") && (what == fails || what == "remove") {
				return &os.PathError{Op: what, Path: path, Err: syscall.EMFILE}
			}
			return nil
		}}
		dir := memory(t)
		w := mustOpen(t, dir, raftlog.Options{Disk: d, SegmentBytes: 100})
		delays := 0
		for range 60 { // far beyond the four segments that Sync waits for
			put(t, w, 0, 1, strings.Repeat("x", 50))
			if _, err := w.Sync(); err != nil {
				t.Fatal(err)
			}
			if !w.Due() {
				continue
			}
			if _, err := w.Maintain(); !errors.Is(err, syscall.EMFILE) || w.Poisoned() {
				t.Fatalf("%v, poisoned %v", err, w.Poisoned())
			}
			delays++
		}
		if delays < 10 {
			t.Errorf("tried again %d times", delays)
		}
		// The next one that has what it needs goes on, by itself.
		out = false
		for range 2 {
			put(t, w, 0, 1, strings.Repeat("x", 50))
			mustSync(t, w)
		}
		want := mustDescribe(t, w)
		mustClose(t, w)
		if r, err := raftlog.Inspect(dir); err != nil || len(r.Segments) != 2 || len(r.Damage) > 0 {
			t.Errorf("%d segments, %v, %v", len(r.Segments), r.Damage, err)
		}
		w = mustOpen(t, dir, raftlog.Options{VerifyAll: true})
		if got := mustDescribe(t, w); got != want {
			t.Errorf("reopened as\n%swant\n%s", got, want)
		}
		mustClose(t, w)
	}
}

// A directory that this log has not made is left alone.
func TestForeignNextSegment(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 100})
	foreign := filepath.Join(dir, "wal", "00000002", "notes")
	if err := os.Mkdir(filepath.Dir(foreign), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(foreign, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	put(t, w, 0, 1, strings.Repeat("x", 200))
	if _, err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Maintain(); !errors.Is(err, os.ErrExist) || !w.Poisoned() {
		t.Errorf("%v, poisoned %v", err, w.Poisoned())
	}
	if b, err := os.ReadFile(foreign); err != nil || !bytes.Equal(b, []byte("x")) {
		t.Error(err)
	}
	mustClose(t, w)
}

const descriptorsDir = "BALLAST_LOG_DESCRIPTORS_DIR"

// appendWithoutDescriptors is the child of TestNoDescriptors.
func appendWithoutDescriptors(dir string) {
	fail := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		os.Exit(1)
	}
	w, err := raftlog.Open(dir, raftlog.Options{SegmentBytes: 1000})
	if err != nil {
		fail("open: %v", err)
	}
	if _, err := w.Append(5, []messages.Entry{{Term: 1, Data: []byte("lagging")}}, nil); err != nil {
		fail("append: %v", err)
	}
	index := uint64(0)
	round := func() (delayed error) {
		es := []messages.Entry{{Term: 1, Data: make([]byte, 300)}}
		if _, err := w.Append(0, es, nil); err != nil {
			fail("append: %v", err)
		}
		if b := w.Bounds(0); b.Last > b.First {
			if _, err := w.TruncateBefore(0, b.Last); err != nil {
				fail("truncate: %v", err)
			}
		}
		if _, err := w.Sync(); err != nil {
			fail("sync: %v", err)
		}
		index = es[0].Index
		for w.Due() {
			sync, err := w.Maintain()
			if w.Poisoned() {
				fail("maintain: %v", err)
			}
			if err != nil {
				delayed = err
			}
			if sync {
				if _, err := w.Sync(); err != nil {
					fail("sync: %v", err)
				}
			}
		}
		return delayed
	}
	for range 5 {
		if err := round(); err != nil {
			fail("with descriptors: %v", err)
		}
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		fail("limit: %v", err)
	}
	// Descriptors are numbered from the lowest that is free.
	f, err := os.Open(dir)
	if err != nil {
		fail("open: %v", err)
	}
	least := uint64(f.Fd())
	if err := f.Close(); err != nil {
		fail("close: %v", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: least, Max: before.Max}); err != nil {
		fail("limit: %v", err)
	}
	delays := map[string]int{}
	for range 50 {
		err := round()
		if err == nil {
			continue
		}
		if !errors.Is(err, syscall.EMFILE) {
			fail("delayed by %v", err)
		}
		for _, what := range []string{"prepare", "relocate"} {
			if strings.Contains(err.Error(), what) {
				delays[what]++
			}
		}
	}
	if delays["prepare"] < 5 || delays["relocate"] < 5 {
		fail("%v", delays)
	}
	if _, err := w.Entry(0, index); !errors.Is(err, syscall.EMFILE) || errors.Is(err, messages.ErrCorrupt) {
		fail("a read without descriptors: %v", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		fail("limit: %v", err)
	}
	for range 50 {
		if err := round(); err != nil {
			fail("with descriptors again: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		fail("close: %v", err)
	}
	fmt.Println("acknowledged", index)
	os.Exit(0)
}

// A process without descriptors appends on in the segment that is open, and
// begins new ones when it has some again.
func TestNoDescriptors(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), descriptorsDir+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "acknowledged 105\n" {
		t.Fatalf("%v: %s", err, out)
	}
	w := mustOpen(t, dir, raftlog.Options{VerifyAll: true})
	defer mustClose(t, w)
	if b := w.Bounds(0); b.Last != 105 {
		t.Errorf("%+v", b)
	}
	if e, err := w.Entry(5, 1); err != nil || string(e.Data) != "lagging" {
		t.Errorf("%+v, %v", e, err)
	}
	mustDescribe(t, w)
	if size, newest := logBytes(t, dir); newest < 10 || size > 20_000 {
		t.Errorf("%d segments were made, %d bytes are left", newest, size)
	}
}
