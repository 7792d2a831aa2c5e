package log_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// The tail overflows while Maintain is still preparing the segment that
// follows it: Sync must not prepare the same one.
func TestSyncDuringPrepare(t *testing.T) {
	before := func(string) {}
	d := stepDisk{func(what, path string) error {
		if what == "sync" {
			before(path)
		}
		return nil
	}}
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
	before = func(path string) {
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
	before = func(string) {}
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

// A summary that is made again from the records is the one that was written
// when the segment was closed, whatever the segment holds.
func TestSummaryRebuilt(t *testing.T) {
	kinds := map[string]int{}
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 77))
		dir := memory(t)
		o := raftlog.Options{SegmentBytes: 200 + int(seed%4)*300}
		w := mustOpen(t, dir, o)
		put(t, w, 7, 3, "lagging", "", "behind")
		for round := range 120 {
			for range 1 + r.IntN(3) {
				group := uint64(r.IntN(3))
				b := w.Bounds(group)
				var err error
				switch k := r.IntN(14); {
				case k == 0 && b.Last > b.First+2:
					_, err = w.TruncateFrom(group, b.Last-uint64(r.IntN(3)))
				case k <= 3 && !b.Empty():
					_, err = w.TruncateBefore(group, b.Last+uint64(r.IntN(2)))
				case k == 4 && round%10 == 0:
					_, err = w.Reset(group, b.Last+5, b.LastTerm+1)
				case k == 5:
					_, err = w.SetStable(group, stableNames[r.IntN(2)], []byte(strings.Repeat("v", r.IntN(9))))
				case k == 6:
					_, err = w.SetStable(group, stableNames[r.IntN(2)], nil)
				case k == 7:
					_, err = w.Append(group, nil, &messages.HardState{Term: 1 << 20, Vote: 3, Commit: b.Last})
				default:
					es := make([]messages.Entry, 1+r.IntN(4))
					for i := range es {
						es[i] = messages.Entry{Term: 1000 + uint64(round*3+i), Type: uint8(r.IntN(2)), Data: []byte(strings.Repeat("d", r.IntN(60)))}
					}
					_, err = w.Append(group, es, nil)
				}
				// Checked against what is staged, and chosen by what is durable.
				if err != nil && !errors.Is(err, messages.ErrCompacted) && !errors.Is(err, messages.ErrNotFound) && !errors.Is(err, messages.ErrStaleTerm) {
					t.Fatal(err)
				}
			}
			mustSync(t, w)
			if round == 60 {
				mustClose(t, w)
				w = mustOpen(t, dir, o)
			}
		}
		want := mustDescribe(t, w)
		for range 3 { // until there is nothing more to relocate and remove
			mustClose(t, w)
			w = mustOpen(t, dir, o)
			mustMaintain(t, w)
		}
		mustClose(t, w)
		base := readFiles(t, dir)
		names := base.summaries()
		if len(names) < 2 {
			t.Fatalf("seed %d: %d summaries", seed, len(names))
		}
		closed := map[string]bool{}
		for _, name := range names {
			closed[filepath.Join(dir, beside(name, logFile))] = true
		}
		if _, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) {
			if closed[r.Path] {
				kinds[r.Kind]++
			}
		}); err != nil {
			t.Fatal(err)
		}
		check := func(what string, fs files, o raftlog.Options) {
			t.Helper()
			fs.write(t, dir)
			w := mustOpen(t, dir, o)
			if got := mustDescribe(t, w); got != want {
				t.Fatalf("seed %d, %s:\n%swant\n%s", seed, what, got, want)
			}
			mustMaintain(t, w)
			// Where dead entries lie, nobody but Scrub looks.
			if damage, err := scrub(w); err != nil || len(damage) > 1 || len(damage) > 0 && filepath.Base(damage[0].Err.Path) != "SUMMARY" {
				t.Fatalf("seed %d, %s: scrub: %v, %v", seed, what, damage, err)
			} else if len(damage) > 0 && !strings.HasPrefix(what, "damaged") {
				t.Fatalf("seed %d, %s: not rebuilt: %v", seed, what, damage)
			}
			mustClose(t, w)
			left := readFiles(t, dir)
			for _, name := range names {
				if !bytes.Equal(left[name], base[name]) {
					t.Fatalf("seed %d, %s: %s is\n%x, was\n%x", seed, what, name, left[name], base[name])
				}
			}
		}
		o.NoLock = true
		check("untouched", base, o)
		none := base.clone()
		for _, name := range names {
			delete(none, name)
			one := base.clone()
			delete(one, name)
			check("without "+name, one, o)
			one[name] = bytes.Clone(base[name])
			one[name][r.IntN(len(one[name]))] ^= 1 << r.IntN(8)
			check("damaged "+name, one, o)
		}
		check("without any", none, o)
		o.VerifyAll = true
		check("verified", base, o)
	}
	for _, kind := range []string{"append", "truncateFrom", "truncateBefore", "reset", "stable", "checkpoint", "relocated"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s in any closed segment: %v", kind, kinds)
		}
	}
	t.Logf("in closed segments: %v", kinds)
}

// When the manifest cannot be replaced nothing is removed, and one checkpoint
// is enough: more would fill the disk by themselves. When it can, space comes
// back.
func TestManifestWithoutSpace(t *testing.T) {
	full := false
	d := stepDisk{func(what, path string) error {
		if full && what == "rename" && filepath.Base(path) == "MANIFEST" {
			return &os.PathError{Op: "rename", Path: path, Err: syscall.ENOSPC}
		}
		return nil
	}}
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{Disk: d, SegmentBytes: 200})
	for range 30 {
		put(t, w, 0, 1, strings.Repeat("x", 100))
		mustSync(t, w)
	}
	full = true
	if _, err := w.TruncateBefore(0, 29); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	before := w.Durable()
	for range 20 {
		sync, err := w.Maintain()
		if err != nil {
			t.Fatal(err)
		}
		if sync {
			if _, err := w.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := w.Durable() - before; n > 1 {
		t.Errorf("%d checkpoints", n)
	}
	full = false
	put(t, w, 0, 1, "y")
	mustSync(t, w)
	mustMaintain(t, w)
	if _, err := w.Maintain(); err != nil {
		t.Fatal(err)
	}
	if n := len(readFiles(t, dir).segments()); n > 6 {
		t.Errorf("%d segments are left", n)
	}
	mustClose(t, w)
}
