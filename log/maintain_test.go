package log_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// hookDisk calls before ahead of each sync.
type hookDisk struct {
	durable.Disk
	before func(path string)
}

func (d *hookDisk) Sync(f *os.File) error {
	d.before(f.Name())
	return d.Disk.Sync(f)
}

// The tail overflows while Maintain is still preparing the segment that
// follows it: Sync must not prepare the same one.
func TestSyncDuringPrepare(t *testing.T) {
	d := &hookDisk{durable.OS, func(string) {}}
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{Disk: d, SegmentBytes: 100})
	put(t, w, 0, 1, strings.Repeat("a", 500))
	if _, err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	put(t, w, 0, 1, "b")
	done := make(chan error, 1)
	hooked := false
	next := filepath.Join(dir, "wal", "00000002")
	d.before = func(path string) {
		if filepath.Dir(path) != next || hooked {
			return
		}
		hooked = true
		go func() {
			_, err := w.Sync()
			done <- err
		}()
		for _, n := w.Staged(); n > 0; _, n = w.Staged() {
			runtime.Gosched() // until Sync has taken the batch
		}
		for range 10_000 {
			runtime.Gosched()
		}
	}
	if err := maintain(w); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !hooked {
		t.Error("nothing was prepared")
	}
	d.before = func(string) {}
	mustSync(t, w)
	want := mustDescribe(t, w)
	mustClose(t, w)
	w = mustOpen(t, dir, raftlog.Options{})
	if got := mustDescribe(t, w); got != want || w.Bounds(0).Last != 2 {
		t.Errorf("reopened as\n%swant\n%s", got, want)
	}
	mustClose(t, w)
}

// churn writes and compacts a group until a segment of others that lag behind
// must have been emptied by relocation.
func churn(t testing.TB, w *raftlog.WAL, group uint64, rounds int) {
	t.Helper()
	for range rounds {
		put(t, w, group, 1, strings.Repeat("x", 80))
		if _, err := w.TruncateBefore(group, w.Bounds(group).Last+1); err != nil {
			t.Fatal(err)
		}
		mustSync(t, w)
	}
}

// The entries of a group that lags behind move, and the segments that they were
// in go, whatever the entries are.
func TestRelocate(t *testing.T) {
	for name, payloads := range map[string][]string{
		"one":       {"lagging"},
		"empty":     {""},
		"all empty": {"", "", ""},
		"some":      {"", "a", "", "bb"},
	} {
		dir := memory(t)
		w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 64})
		put(t, w, 7, 3, payloads...)
		if _, err := w.Append(7, nil, &messages.HardState{Term: 4, Vote: 2, Commit: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.SetStable(7, "a", []byte("value")); err != nil {
			t.Fatal(err)
		}
		mustSync(t, w)
		churn(t, w, 0, 40)
		want := mustDescribe(t, w)
		check := func(when string, o raftlog.Options) {
			t.Helper()
			if got := mustDescribe(t, w); got != want {
				t.Fatalf("%s, %s:\n%swant\n%s", name, when, got, want)
			}
			for i, p := range payloads {
				if e, err := w.Entry(7, uint64(i)+1); err != nil || string(e.Data) != p || e.Term != 3 {
					t.Fatalf("%s, %s: %+v, %v", name, when, e, err)
				}
			}
			if v, err := w.Stable(7, "a"); err != nil || string(v) != "value" {
				t.Fatalf("%s, %s: %q, %v", name, when, v, err)
			}
			mustClose(t, w)
			r, err := raftlog.Inspect(dir)
			if err != nil || len(r.Damage) > 0 || r.Floor == 1 {
				t.Fatalf("%s, %s: floor %d, %v, %v", name, when, r.Floor, r.Damage, err)
			}
			w = mustOpen(t, dir, o)
		}
		check("as it was left", raftlog.Options{})
		check("reopened", raftlog.Options{VerifyAll: true})
		check("verified", raftlog.Options{})
		mustClose(t, w)
	}
}
