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
	"time"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// TestDiskFailure fails every step that a log takes through its Disk, one run
// for each: while it is made, while it appends, rolls, compacts and
// relocates.
func TestDiskFailure(t *testing.T) {
	for _, recycle := range []int{0, 1} {
		t.Run(fmt.Sprintf("RecycleBytes %d", recycle), func(t *testing.T) { testDiskFailure(t, recycle) })
	}
}

func testDiskFailure(t *testing.T, recycle int) {
	// The script appends, and compacts now and then; each round is one sync.
	script := func(w *raftlog.WAL, acked *uint64) error {
		if _, err := w.Append(5, entries(1, 1, 2), hard(1, 2, 0)); err != nil {
			return err
		}
		for round := uint64(0); round < 36; round++ {
			es := entries(2*round+1, 1, 2)
			es[0].Data = bytes.Repeat([]byte{'x'}, 70+int(round%3)*100)
			if _, err := w.Append(0, es, hard(1, 0, round)); err != nil {
				return err
			}
			if round%4 == 3 {
				if _, err := w.TruncateBefore(0, 2*round); err != nil {
					return err
				}
			}
			if _, err := w.Sync(); err != nil {
				return err
			}
			*acked = 2*round + 2
			if err := maintain(w); err != nil {
				return err
			}
		}
		return nil
	}
	options := raftlog.Options{SegmentBytes: 256, RecycleBytes: recycle}
	count := &faults{}
	o := options
	o.Disk = count.disk()
	dir := memory(t)
	w := mustOpen(t, dir, o)
	opened := count.steps
	var acked uint64
	if err := script(w, &acked); err != nil {
		t.Fatal(err)
	}
	mustClose(t, w)
	moved := false
	if _, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) { moved = moved || r.Kind == "relocated" }); err != nil || !moved {
		t.Fatalf("relocated %v, %v", moved, err)
	}
	seen := map[string]bool{}
	for n := 1; n <= count.steps; n++ {
		dir := memory(t)
		d := &faults{failAt: n}
		o := options
		o.Disk = d.disk()
		acked = 0
		w, err := raftlog.Open(dir, o)
		if n <= opened {
			if !errors.Is(err, errInjected) {
				t.Fatalf("step %d (%s): open: %v", n, d.failed, err)
			}
		} else {
			if err != nil {
				t.Fatal(err)
			}
			err = script(w, &acked)
			if d.steps < n { // the failing step is one that Close takes
				if err := w.Close(); !errors.Is(err, errInjected) {
					t.Fatalf("step %d (%s): close: %v", n, d.failed, err)
				}
			} else if err != nil {
				if !errors.Is(err, errInjected) || !w.Poisoned() {
					t.Fatalf("step %d (%s): %v, poisoned %v", n, d.failed, err, w.Poisoned())
				}
				if _, err := w.Append(0, nil, hard(9, 0, 0)); !errors.Is(err, raftlog.ErrPoisoned) || !errors.Is(err, errInjected) {
					t.Fatalf("append to a poisoned log: %v", err)
				}
				if _, err := w.Sync(); !errors.Is(err, raftlog.ErrPoisoned) {
					t.Fatalf("sync of a poisoned log: %v", err)
				}
				if _, err := w.Maintain(); !errors.Is(err, raftlog.ErrPoisoned) {
					t.Fatalf("maintenance of a poisoned log: %v", err)
				}
				// What is durable can still be read.
				if b := w.Bounds(0); b.Last < acked {
					t.Fatalf("step %d (%s): bounds %+v, acknowledged %d", n, d.failed, b, acked)
				}
				mustDescribe(t, w)
				mustClose(t, w)
			} else {
				t.Fatalf("step %d (%s): no error", n, d.failed)
			}
			seen[d.failed] = true
			seen[strings.Fields(d.failed)[0]] = true
		}
		w, err = raftlog.Open(dir, options)
		if err != nil {
			t.Fatalf("step %d (%s): reopen: %v", n, d.failed, err)
		}
		b := w.Bounds(0)
		if b.Last < acked || b.Last > acked+2 || acked > 0 && w.Bounds(5).Last != 2 {
			t.Fatalf("step %d (%s): bounds %+v, acknowledged %d", n, d.failed, b, acked)
		}
		mustDescribe(t, w)
		// It goes on.
		put(t, w, 0, 1, strings.Repeat("y", 200))
		mustSync(t, w)
		want := mustDescribe(t, w)
		if damage, err := scrub(w); err != nil || damage != nil {
			t.Fatalf("step %d (%s): scrub: %v, %v", n, d.failed, damage, err)
		}
		mustClose(t, w)
		w = mustOpen(t, dir, raftlog.Options{VerifyAll: true})
		if got := mustDescribe(t, w); got != want {
			t.Fatalf("step %d (%s): verified as\n%swant\n%s", n, d.failed, got, want)
		}
		mustClose(t, w)
	}
	steps := []string{"sync", "rename", "remove", "sync " + logFile, "sync MARK", "rename MANIFEST",
		"remove SUMMARY", "remove 00000001", "sync directory wal", "sync directory 00000002"}
	if recycle == 0 {
		steps = append(steps, "remove "+logFile)
	} else { // kept, begun, named, and given back
		steps = append(steps, "rename segment-00000001.tmp", "sync segment-00000001.tmp", "rename "+logFile, "remove segment-00000016.tmp")
	}
	for _, what := range steps {
		if !seen[what] {
			t.Errorf("no %s failed: %v", what, seen)
		}
	}
	t.Logf("%d steps failed", count.steps)
}

// What Open finds beyond the mark may be in the page cache alone. It must
// write it again: a sync by itself would not after an earlier one has failed.
func TestOpenRewritesUnconfirmed(t *testing.T) {
	dir := t.TempDir()
	w := mustOpen(t, dir, raftlog.Options{})
	put(t, w, 0, 1, "a")
	mustSync(t, w)
	segment := filepath.Join(dir, "wal", "00000001", logFile)
	mark := filepath.Join(dir, "MARK")
	old, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, 0, 1, "b")
	mustSync(t, w)
	mustClose(t, w)
	past := time.Unix(1e9, 0)
	reopen := func() (rewritten bool, syncs int) {
		if err := os.Chtimes(segment, past, past); err != nil {
			t.Fatal(err)
		}
		d := &faults{}
		w := mustOpen(t, dir, raftlog.Options{Disk: d.disk()})
		syncs = d.steps
		if b := w.Bounds(0); b.Last != 2 {
			t.Fatalf("%+v", b)
		}
		info, err := os.Stat(segment)
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, w)
		return !info.ModTime().Equal(past), syncs
	}
	if rewritten, _ := reopen(); rewritten {
		t.Error("a confirmed log was rewritten")
	}
	if err := os.WriteFile(mark, old, 0o644); err != nil {
		t.Fatal(err)
	}
	if rewritten, syncs := reopen(); !rewritten || syncs < 3 {
		t.Errorf("rewritten %v, %d syncs", rewritten, syncs)
	}
	if rewritten, _ := reopen(); rewritten {
		t.Error("rewritten again")
	}
}

// smallDisk is a file system of 2 MiB, if this process may mount one.
func smallDisk(t *testing.T) (dir string, ok bool) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=2m"); err != nil {
		t.Logf("no mount (%v): full by option", err)
		return mount, false
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(mount, "log"), true
}

func TestDiskFull(t *testing.T) {
	dir, real := smallDisk(t)
	o := raftlog.Options{SegmentBytes: 64 << 10, ReserveBytes: 256 << 10}
	w := mustOpen(t, dir, o)
	last := uint64(0)
	var err error
	for err == nil {
		if !real && last == 200 {
			// Where nothing can be mounted, the disk is full by definition.
			mustClose(t, w)
			o.ReserveBytes = 1 << 60
			w = mustOpen(t, dir, o)
		}
		put(t, w, 0, 1, strings.Repeat("x", 8000))
		put(t, w, 1, 1, "y")
		var n int
		if n, err = w.Sync(); n != 2 {
			t.Fatalf("%d changes", n)
		}
		if err == nil {
			last++
		}
	}
	if !errors.Is(err, messages.ErrDiskFull) || w.Poisoned() {
		t.Fatalf("%v, poisoned %v", err, w.Poisoned())
	}
	// What was staged is gone, and what is checked against has gone back.
	durable := w.Durable()
	if p, n := w.Staged(); p != durable || n != 0 {
		t.Errorf("staged %d, %d bytes, durable %d", p, n, durable)
	}
	if _, err := w.Append(0, entries(last+2, 1, 1), nil); !errors.Is(err, messages.ErrOutOfOrder) {
		t.Errorf("append behind what was dropped: %v", err)
	}
	for _, g := range []uint64{0, 1} {
		if e, err := w.Entry(g, last); err != nil || len(e.Data) == 0 {
			t.Errorf("read with a full disk: %v", err)
		}
	}
	if p := put(t, w, 0, 1, "again"); p != durable+1 {
		t.Errorf("position %d after %d", p, durable)
	}
	_, err = w.Append(7, nil, hard(1, 1, 0))
	wantErr(t, "append to a new group", err, nil)
	if n, err := w.Sync(); n != 2 || !errors.Is(err, messages.ErrDiskFull) {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := w.TruncateFrom(0, last); err != nil {
		t.Fatal(err)
	}
	// Truncations go on, and give the space back.
	for _, g := range []uint64{0, 1} {
		if _, err := w.TruncateBefore(g, last-1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.SetStable(1, "x", nil); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Sync(); n != 4 || err != nil {
		t.Fatalf("truncation on a full disk: %d, %v", n, err)
	}
	mustMaintain(t, w)
	if r, err := raftlog.Inspect(dir); err != nil || len(r.Segments) > 3 || len(r.Damage) > 0 {
		t.Errorf("%d segments, %v, %v", len(r.Segments), r.Damage, err)
	}
	if !real {
		mustClose(t, w)
		o.ReserveBytes = 0
		w = mustOpen(t, dir, o)
	}
	put(t, w, 0, 1, "it goes on")
	mustSync(t, w)
	before := mustDescribe(t, w)
	mustClose(t, w)
	w = mustOpen(t, dir, o)
	if after := mustDescribe(t, w); after != before {
		t.Errorf("reopened as\n%swant\n%s", after, before)
	}
	mustClose(t, w)
}

const limitDir = "BALLAST_LOG_LIMIT_DIR"

// appendUpToLimit is the child of TestWriteFails.
func appendUpToLimit(dir string) {
	fail := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		os.Exit(1)
	}
	w, err := raftlog.Open(dir, raftlog.Options{})
	if err != nil {
		fail("open: %v", err)
	}
	// Writes beyond 100,000 bytes of a file fail with EFBIG, half-way.
	limit := syscall.Rlimit{Cur: 100_000, Max: 100_000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fail("limit: %v", err)
	}
	for i := 0; ; i++ {
		if _, err := w.Append(0, []messages.Entry{{Term: 1, Data: make([]byte, 3000)}}, nil); err != nil {
			fail("append: %v", err)
		}
		if _, err := w.Sync(); err != nil {
			if !errors.Is(err, messages.ErrDiskFull) || !w.Poisoned() {
				fail("sync: %v, poisoned %v", err, w.Poisoned())
			}
			if _, err := w.Entry(0, uint64(i)); err != nil {
				fail("read: %v", err)
			}
			if _, err := w.Entry(0, uint64(i)+1); !errors.Is(err, messages.ErrNotFound) {
				fail("read of what failed: %v", err)
			}
			fmt.Println("acknowledged", w.Durable())
			os.Exit(0)
		}
	}
}

// A write that the kernel cuts short poisons the log, and the next open removes
// what there is of it.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), limitDir+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var acknowledged uint64
	if _, err := fmt.Sscanf(string(out), "acknowledged %d", &acknowledged); err != nil || acknowledged != 33 {
		t.Fatalf("%q, %v", out, err)
	}
	repairs := 0
	w := mustOpen(t, dir, raftlog.Options{OnRepair: func(messages.TailRepaired) { repairs++ }})
	if w.Durable() != acknowledged || repairs != 1 {
		t.Errorf("durable %d, acknowledged %d, %d repairs", w.Durable(), acknowledged, repairs)
	}
	put(t, w, 0, 1, "it goes on")
	mustSync(t, w)
	mustClose(t, w)
}
