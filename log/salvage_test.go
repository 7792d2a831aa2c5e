package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// flip changes one byte in the middle of what a file holds, wherever it is.
func flip(t testing.TB, path, payload string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte(payload))
	if at < 0 {
		t.Fatalf("%s does not hold %q", path, payload)
	}
	at += len(payload) / 2
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func flipped(payload string) string {
	b := []byte(payload)
	b[len(b)/2] ^= 1
	return string(b)
}

// A damaged entry of a group that lags behind does not pin the log: it moves
// with the others and stays damaged, and the segments take no more than they
// would without the damage. It is told with its group and its index by
// Maintain, by every Scrub, and to whoever reads it.
func TestDamagedEntriesMove(t *testing.T) {
	const segment, count = 2 << 10, 12
	payload := func(i uint64) string { return fmt.Sprintf("payload %d of a group that lags behind", i) }
	first := func(dir string) string { return filepath.Join(dir, "wal", "00000001", logFile) }
	for _, c := range []struct {
		name    string
		damage  func(t *testing.T, dir string)
		damaged []uint64
		// left: what is left of the bytes is kept.
		left bool
	}{
		{"the first", func(t *testing.T, dir string) { flip(t, first(dir), payload(1)) }, []uint64{1}, true},
		{"one in the middle", func(t *testing.T, dir string) { flip(t, first(dir), payload(5)) }, []uint64{5}, true},
		{"the last", func(t *testing.T, dir string) { flip(t, first(dir), payload(12)) }, []uint64{12}, true},
		{"every second", func(t *testing.T, dir string) {
			for i := uint64(2); i <= count; i += 2 {
				flip(t, first(dir), payload(i))
			}
		}, []uint64{2, 4, 6, 8, 10, 12}, true},
		{"a file that was cut short", func(t *testing.T, dir string) {
			b, err := os.ReadFile(first(dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(first(dir), int64(bytes.Index(b, []byte(payload(10))))); err != nil {
				t.Fatal(err)
			}
		}, []uint64{10, 11, 12}, false},
		{"a file that was removed", func(t *testing.T, dir string) {
			if err := os.Remove(first(dir)); err != nil {
				t.Fatal(err)
			}
		}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, false},
	} {
		for _, reopened := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reopened %v", c.name, reopened), func(t *testing.T) {
				dir := memory(t)
				o := raftlog.Options{SegmentBytes: segment}
				w := mustOpen(t, dir, o)
				for i := uint64(1); i <= count; i++ {
					e := messages.Entry{Index: i, Term: 1 + i/4, Type: uint8(i % 3), Data: []byte(payload(i))}
					if _, err := w.Append(7, []messages.Entry{e}, nil); err != nil {
						t.Fatal(err)
					}
				}
				mustSync(t, w)
				grow := func(rounds int) {
					t.Helper()
					for range rounds {
						put(t, w, 0, 1, strings.Repeat("x", 700))
						if _, err := w.TruncateBefore(0, w.Bounds(0).Last+1); err != nil {
							t.Fatal(err)
						}
						mustSync(t, w)
					}
				}
				grow(5)
				if reopened { // where the entries lie is in the summary then
					mustClose(t, w)
					w = mustOpen(t, dir, o)
				}
				c.damage(t, dir)
				scrubbed := 0
				// check reads everything, and compares what is damaged.
				check := func(what string) {
					t.Helper()
					r, err := raftlog.Inspect(dir)
					if err != nil {
						t.Fatal(err)
					}
					tail, closed := "", []uint64(nil)
					if s := r.Segments[len(r.Segments)-1]; !s.Summary {
						tail = s.Path // which is not scrubbed
					}
					for i := uint64(1); i <= count; i++ {
						e, err := w.Entry(7, i)
						var d *messages.CorruptError
						if slices.Contains(c.damaged, i) {
							if !errors.As(err, &d) || d.Index != i || e.Data != nil {
								t.Fatalf("%s: entry %d: %+v, %v", what, i, e, err)
							}
							if d.Path != tail {
								closed = append(closed, i)
							}
							if _, err := w.Entries(7, i, i+1, 0); !errors.Is(err, messages.ErrCorrupt) {
								t.Errorf("%s: range %d: %v", what, i, err)
							}
						} else if err != nil || string(e.Data) != payload(i) || e.Type != uint8(i%3) {
							t.Errorf("%s: entry %d: %+v, %v", what, i, e, err)
						}
						if term, err := w.Term(7, i); err != nil || term != 1+i/4 {
							t.Errorf("%s: term of %d: %d, %v", what, i, term, err)
						}
					}
					found, err := scrub(w)
					if err != nil {
						t.Errorf("%s: scrub: %v", what, err)
					}
					if got := named(t, found); !slices.Equal(got, closed) {
						t.Errorf("%s: scrub found %v, damaged are %v", what, got, closed)
					}
					scrubbed += len(closed)
				}
				check("before")
				if d := w.Damaged(); d != nil {
					t.Errorf("%v before anything was moved", d)
				}
				grow(100)
				size, _ := logBytes(t, dir)
				if limit := int64(2*count*60 + (8+1+2)*(segment+segment/8+700)); size > limit {
					t.Errorf("%d bytes, limit %d", size, limit)
				}
				told := w.Damaged()
				if got := named(t, told); !slices.Equal(got, c.damaged) {
					t.Errorf("maintain found %v, damaged are %v", told, c.damaged)
				}
				for _, d := range told {
					if filepath.Dir(d.Err.Path) != filepath.Dir(first(dir)) {
						t.Errorf("%v is not where it was found", d)
					}
				}
				if d := w.Damaged(); d != nil {
					t.Errorf("told again: %v", d)
				}
				check("moved")
				for _, o.VerifyAll = range []bool{false, true} {
					mustClose(t, w)
					report, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) {
						if r.Kind != "damaged" {
							return
						}
						for e := range r.AllEntries() {
							want := flipped(payload(e.Index))
							if !c.left {
								want = strings.Repeat("\x00", len(e.Data))
							}
							if !slices.Contains(c.damaged, e.Index) || string(e.Data) != want {
								t.Errorf("%+v was moved as damaged", e)
							}
						}
					})
					if err != nil || len(report.Damage) > 0 || report.Floor == 1 {
						t.Fatalf("floor %d, %v, %v", report.Floor, report.Damage, err)
					}
					if got := named(t, report.Lost); !slices.Equal(got, c.damaged) {
						t.Errorf("inspect found %v, damaged are %v", got, c.damaged)
					}
					w = mustOpen(t, dir, o)
					check(fmt.Sprintf("reopened, verified %v", o.VerifyAll))
				}
				grow(100)
				check("moved again")
				if d := w.Damaged(); d != nil {
					t.Errorf("what had been told is told again: %v", d)
				}
				if scrubbed < 2*len(c.damaged) {
					t.Errorf("only %d of the damaged were scrubbed", scrubbed)
				}
				// Once it is compacted, nothing is damaged.
				if _, err := w.TruncateBefore(7, 13); err != nil {
					t.Fatal(err)
				}
				grow(100)
				if found, err := scrub(w); err != nil || found != nil {
					t.Errorf("scrub: %v, %v", found, err)
				}
				mustDescribe(t, w)
				mustClose(t, w)
				if report, err := raftlog.Inspect(dir); err != nil || len(report.Lost) > 0 {
					t.Errorf("inspect found %v, %v", report.Lost, err)
				}
			})
		}
	}
}

// named lists the indexes of damaged entries of group 7.
func named(t *testing.T, damage []raftlog.Damage) (indexes []uint64) {
	t.Helper()
	for _, d := range damage {
		if d.Index == 0 {
			continue
		}
		if d.Group != 7 || d.Err.Index != d.Index {
			t.Errorf("%+v", d)
		}
		indexes = append(indexes, d.Index)
	}
	slices.Sort(indexes)
	return indexes
}

// Damage to many entries is told of 64 of them.
func TestDamageIsToldInMeasure(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 4 << 10})
	defer func() { mustClose(t, w) }()
	payloads := make([]string, 200)
	for i := range payloads {
		payloads[i] = fmt.Sprint("entry ", i)
	}
	put(t, w, 7, 1, payloads...)
	mustSync(t, w)
	for range 6 {
		put(t, w, 0, 1, strings.Repeat("x", 2000))
		mustSync(t, w)
	}
	if err := os.Truncate(filepath.Join(dir, "wal", "00000001", logFile), 10); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		put(t, w, 0, 1, strings.Repeat("x", 2000))
		if _, err := w.TruncateBefore(0, w.Bounds(0).Last+1); err != nil {
			t.Fatal(err)
		}
		mustSync(t, w)
	}
	if d := w.Damaged(); len(d) != 64 {
		t.Errorf("%d are told", len(d))
	}
	if _, damaged, err := survey(w); err != nil || len(damaged) != 200 {
		t.Errorf("%d are damaged, %v", len(damaged), err)
	}
	if floor := raftlogFloor(t, dir); floor == 1 {
		t.Error("the segment was kept")
	}
}

// Where both a summary and a record of its segment are damaged, nobody can tell
// where the entries lie: they stay, and every read and scrub says so.
func TestUnlocatedEntriesStay(t *testing.T) {
	dir := memory(t)
	o := raftlog.Options{SegmentBytes: 2 << 10}
	w := mustOpen(t, dir, o)
	put(t, w, 7, 1, "an entry that lags behind")
	mustSync(t, w)
	churn(t, w, 0, 40)
	mustClose(t, w)
	w = mustOpen(t, dir, o)
	flip(t, filepath.Join(dir, "wal", "00000001", logFile), "an entry that lags behind")
	path := filepath.Join(dir, "wal", "00000001", "SUMMARY")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	churn(t, w, 0, 400)
	if _, err := w.Entry(7, 1); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
	if found, err := scrub(w); err != nil || len(found) != 1 || filepath.Dir(found[0].Err.Path) != filepath.Dir(path) {
		t.Errorf("scrub: %v, %v", found, err)
	}
	if r, err := raftlog.Inspect(dir); err != nil || r.Floor != 1 || len(r.Damage) == 0 {
		t.Errorf("floor %d, %v, %v", r.Floor, r.Damage, err)
	}
	mustClose(t, w)
}

// Segments that are complete and not closed yet are scrubbed as well.
func TestScrubBeforeSummary(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 1 << 10})
	rng := rand.New(rand.NewPCG(8, 9))
	payloads := make([]string, 3)
	for i := range payloads {
		b := make([]byte, 1100)
		for k := range b {
			b[k] = 'a' + byte(rng.IntN(26))
		}
		payloads[i] = string(b)
		put(t, w, 7, 1, payloads[i])
		mustSync(t, w)
	}
	size := int64(0)
	for {
		n, damage, err := w.Scrub()
		if err != nil || damage != nil {
			t.Fatal(damage, err)
		}
		if size += n; n == 0 {
			break
		}
	}
	if r, err := raftlog.Inspect(dir); err != nil || len(r.Segments) != 3 || r.Segments[0].Summary || r.Segments[1].Summary ||
		size != r.Segments[0].Good+r.Segments[1].Good {
		t.Fatalf("scrubbed %d of %+v, %v", size, r.Segments, err)
	}
	for i := range uint64(2) {
		flip(t, filepath.Join(dir, "wal", fmt.Sprintf("%08d", i+1), logFile), payloads[i])
		if found, err := scrub(w); err != nil || !slices.Equal(named(t, found), []uint64{1, 2}[:i+1]) {
			t.Errorf("scrub: %v, %v", found, err)
		}
	}
	// What is after a crash, when they are read and not closed yet.
	mustClose(t, w)
}
