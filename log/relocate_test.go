package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// logBytes is how much the segments take, without the zeros that the last ones
// are filled with, and the ordinal of the newest.
func logBytes(t testing.TB, dir string) (size int64, newest int) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, "wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if _, err := fmt.Sscanf(e.Name(), "%08d", &newest); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "wal", e.Name(), "00000000000000000001"))
		if err != nil {
			t.Fatal(err)
		}
		size += int64(len(bytes.TrimRight(b, "\x00")))
	}
	return size, newest
}

// A group that lags behind does not pin the log: what the segments take is
// bounded by twice what is live in them, eight segments, and the tail, the
// prepared one and those that a batch has made larger. And what is moved for
// that is bounded by what the others write.
func TestSpaceIsBounded(t *testing.T) {
	const segment, overhead = 4 << 10, 32 // of a record with one entry, at most
	for _, c := range []struct {
		name       string
		lag, busy  int // sizes of the entries
		perRound   int // entries of the busy group
		everyRound int // how often the lagging group appends
		lagging    int // rounds in which it does
	}{
		{"one old entry", 20, 1000, 1, 1, 1},
		{"some old segments", 1000, 1000, 1, 1, 50},
		{"scattered thinly", 20, 1000, 1, 10, 600},
		{"many small ones beside few large ones", 8, 3500, 1, 1, 400},
		{"few large ones beside many small ones", 3500, 4, 20, 1, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := memory(t)
			w := mustOpen(t, dir, raftlog.Options{SegmentBytes: segment})
			defer func() { mustClose(t, w) }()
			live, total, most := 0, 0, int64(0)
			for round := range 500 {
				if round < c.lagging && round%c.everyRound == 0 {
					put(t, w, 7, 1, strings.Repeat("l", c.lag))
					live += c.lag + overhead
					total += c.lag + overhead
				}
				for range c.perRound {
					put(t, w, 0, 1, strings.Repeat("b", c.busy))
					total += c.busy + overhead
				}
				if _, err := w.TruncateBefore(0, w.Bounds(0).Last+1); err != nil {
					t.Fatal(err)
				}
				total += overhead
				mustSync(t, w)
				if round%3 > 0 {
					continue
				}
				size, _ := logBytes(t, dir)
				most = max(most, size)
				if limit := int64(2*live + (8+1+2)*(segment+segment/8+3500)); size > limit {
					t.Fatalf("round %d: %d bytes, %d of them live, limit %d", round, size, live, limit)
				}
			}
			_, newest := logBytes(t, dir)
			t.Logf("%d live, at most %d on disk; %d appended, %d segments", live, most, total, newest)
			if written := newest * segment; written > 3*total {
				t.Errorf("%d bytes were written for %d", written, total)
			}
		})
	}
}

// What has been moved is the same in every way, and can be cut away in every
// way: with summaries, without, and when every record is read.
func TestMovedEntries(t *testing.T) {
	options := raftlog.Options{SegmentBytes: 200, MaxOpenFiles: 2}
	base := memory(t)
	w := mustOpen(t, base, options)
	// Two groups lag behind, one of them with everything that an entry can be.
	var want []messages.Entry
	for i := range uint64(12) {
		e := messages.Entry{Index: i + 1, Term: 1 + i/3, Type: uint8(i % 3), Data: bytes.Repeat([]byte{'a' + byte(i)}, int(i%4)*9)}
		want = append(want, e)
		if _, err := w.Append(3, []messages.Entry{e}, &messages.HardState{Term: 5, Vote: 2, Commit: i}); err != nil {
			t.Fatal(err)
		}
		put(t, w, 4, 2, fmt.Sprint("other ", i))
		churn(t, w, 0, 1)
	}
	if _, err := w.SetStable(3, "a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if r, err := raftlog.Inspect(base); err != nil || r.Floor != 1 {
		t.Fatalf("floor %d before anything was moved, %v", r.Floor, err)
	}
	churn(t, w, 0, 60)
	mustClose(t, w)
	r, err := raftlog.Inspect(base)
	if err != nil || len(r.Damage) > 0 {
		t.Fatal(err, r.Damage)
	}
	moved := 0
	for _, s := range r.Segments {
		moved += s.Kinds["relocated"]
	}
	if r.Floor == 1 || moved < 4 {
		t.Fatalf("floor %d, %d records of moved entries", r.Floor, moved)
	}

	model := &model{groups: map[uint64]*modelGroup{}}
	w = mustOpen(t, base, options)
	for _, id := range w.Groups() {
		b := w.Bounds(id)
		g := &modelGroup{prev: b.First - 1, prevTerm: b.PrevTerm, hard: b.HardState, stable: map[string]string{}}
		if !b.Empty() {
			if g.entries, err = w.Entries(id, b.First, b.Last+1, 0); err != nil {
				t.Fatal(err)
			}
		}
		model.groups[id] = g
	}
	model.groups[3].stable["a"] = "kept"
	for i, e := range model.groups[3].entries {
		if x := want[i]; e.Index != x.Index || e.Term != x.Term || e.Type != x.Type || !bytes.Equal(e.Data, x.Data) {
			t.Errorf("moved as %+v, want %+v", e, x)
		}
	}
	if n := len(model.groups[3].entries); n != len(want) {
		t.Fatalf("%d entries", n)
	}
	mustClose(t, w)
	start := readFiles(t, base)
	dir := memory(t)
	same := func(what string, m interface{ state() string }) {
		t.Helper()
		got, err := fullState(w)
		if want := m.state(); err != nil || got != want {
			t.Fatalf("%s: %v\n%swant\n%s", what, err, got, want)
		}
	}
	for _, cut := range []struct {
		name string
		do   func(w *raftlog.WAL) (uint64, error)
	}{
		{"nothing", func(*raftlog.WAL) (uint64, error) { return 1, nil }},
		{"from the first", func(w *raftlog.WAL) (uint64, error) { model.truncateFrom(3, 1); return w.TruncateFrom(3, 1) }},
		{"from the middle", func(w *raftlog.WAL) (uint64, error) { model.truncateFrom(3, 6); return w.TruncateFrom(3, 6) }},
		{"from the last", func(w *raftlog.WAL) (uint64, error) { model.truncateFrom(3, 12); return w.TruncateFrom(3, 12) }},
		{"before the second", func(w *raftlog.WAL) (uint64, error) { model.truncateBefore(3, 2); return w.TruncateBefore(3, 2) }},
		{"before the middle", func(w *raftlog.WAL) (uint64, error) { model.truncateBefore(3, 7); return w.TruncateBefore(3, 7) }},
		{"before the end", func(w *raftlog.WAL) (uint64, error) { model.truncateBefore(3, 13); return w.TruncateBefore(3, 13) }},
		{"reset forwards", func(w *raftlog.WAL) (uint64, error) { model.reset(3, 50, 9); return w.Reset(3, 50, 9) }},
		{"reset in the middle", func(w *raftlog.WAL) (uint64, error) { model.reset(3, 5, 3); return w.Reset(3, 5, 3) }},
		{"reset to nothing", func(w *raftlog.WAL) (uint64, error) { model.reset(3, 0, 0); return w.Reset(3, 0, 0) }},
	} {
		before := model.clone()
		for _, how := range []string{"with summaries", "without summaries", "with damaged summaries", "verified"} {
			what := cut.name + ", " + how
			model = before.clone()
			fs := start.clone()
			for _, name := range fs.summaries() {
				switch how {
				case "without summaries":
					delete(fs, name)
				case "with damaged summaries": // the locators, which Open does not look at
					fs[name] = bytes.Clone(fs[name])
					fs[name][len(fs[name])-1] ^= 1
				}
			}
			fs.write(t, dir)
			o := options
			o.VerifyAll = how == "verified"
			w = mustOpen(t, dir, o)
			same(what+", as opened", model)
			if position, err := cut.do(w); err != nil || position == 0 {
				t.Fatalf("%s: position %d, %v", what, position, err)
			}
			mustSync(t, w)
			same(what+", cut", model)
			es := []messages.Entry{{Term: 9, Data: []byte("new")}, {Term: 10, Type: 1}, {Term: 10, Data: []byte("newer")}}
			if err := model.append(3, es, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Append(3, es, nil); err != nil {
				t.Fatal(err)
			}
			mustSync(t, w)
			same(what+", written on", model)
			for _, o.VerifyAll = range []bool{false, true} {
				mustClose(t, w)
				w = mustOpen(t, dir, o)
				same(what+", reopened", model)
			}
			// And moved once more.
			for range 40 {
				es := []messages.Entry{{Term: 20, Data: make([]byte, 90)}}
				if err := model.append(0, es, nil); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Append(0, es, nil); err != nil {
					t.Fatal(err)
				}
				last := model.get(0).last()
				if _, err := model.truncateBefore(0, last+1); err != nil {
					t.Fatal(err)
				}
				if _, err := w.TruncateBefore(0, last+1); err != nil {
					t.Fatal(err)
				}
				mustSync(t, w)
			}
			same(what+", moved again", model)
			mustClose(t, w)
			w = mustOpen(t, dir, options)
			same(what+", moved again and reopened", model)
			mustClose(t, w)
		}
		model = before
	}
}

// Appends, maintenance, scrubbing and reads of what is being moved, all at
// once, for the race detector to see.
func TestRelocateBesideEverything(t *testing.T) {
	const lagging, each, rounds = 4, 10, 400
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 512, MaxOpenFiles: 2})
	payload := func(g, i uint64) string { return strings.Repeat(fmt.Sprintf("%d/%d ", g, i), int(i)) }
	for i := range uint64(each) {
		for g := range uint64(lagging) {
			put(t, w, 10+g, 1+i, payload(10+g, i+1))
		}
	}
	mustSync(t, w)
	// Reopened, so that the locators are read from the summaries meanwhile.
	mustClose(t, w)
	w = mustOpen(t, dir, raftlog.Options{SegmentBytes: 512, MaxOpenFiles: 2})
	var wg sync.WaitGroup
	wake, done := make(chan struct{}, 1), make(chan struct{})
	wg.Go(func() { // the maintenance
		for range wake {
			for w.Due() {
				if _, err := w.Maintain(); err != nil {
					t.Error(err)
					return
				}
			}
			if _, damage, err := w.Scrub(); err != nil || len(damage) > 0 {
				t.Error(damage, err)
				return
			}
		}
	})
	for g := range uint64(lagging) {
		wg.Go(func() { // reads
			rng := rand.New(rand.NewPCG(g, 0))
			for {
				select {
				case <-done:
					return
				default:
				}
				i := 1 + rng.Uint64N(each)
				e, err := w.Entry(10+g, i)
				if err != nil || string(e.Data) != payload(10+g, i) || e.Term != i {
					t.Errorf("%+v, %v", e, err)
					return
				}
				if es, err := w.Entries(10+g, 1, each+1, 0); err != nil || len(es) != each {
					t.Errorf("%d entries, %v", len(es), err)
					return
				}
				b := w.Bounds(0)
				if _, err := w.Entry(0, b.Last); err != nil && !errors.Is(err, messages.ErrCompacted) && !errors.Is(err, messages.ErrNotFound) {
					t.Error(err)
					return
				}
			}
		})
	}
	for range rounds { // appends and syncs
		put(t, w, 0, 1, strings.Repeat("x", 150), "y")
		if _, err := w.TruncateBefore(0, w.Bounds(0).Last+1); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	close(done)
	close(wake)
	wg.Wait()
	if t.Failed() {
		return
	}
	mustSync(t, w)
	size, newest := logBytes(t, dir)
	if r := raftlogFloor(t, dir); r == 1 || newest < 10 {
		t.Errorf("floor %d, %d bytes, %d segments", r, size, newest)
	}
	mustClose(t, w)
	w = mustOpen(t, dir, raftlog.Options{VerifyAll: true})
	for g := range uint64(lagging) {
		for i := range uint64(each) {
			if e, err := w.Entry(10+g, i+1); err != nil || string(e.Data) != payload(10+g, i+1) {
				t.Errorf("%+v, %v", e, err)
			}
		}
	}
	mustClose(t, w)
}

func raftlogFloor(t testing.TB, dir string) uint64 {
	t.Helper()
	r, err := raftlog.Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r.Floor
}

// A checkpoint that shares its sync with large appends is not taken for a large
// checkpoint, which would be worth much garbage.
func TestCheckpointBesideLargeBatch(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 4 << 10})
	const batch = 40 << 10
	for round := range 60 {
		put(t, w, 0, 1, strings.Repeat("x", batch))
		if _, err := w.TruncateBefore(0, uint64(round)+2); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Maintain(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		if size, _ := logBytes(t, dir); size > 5*batch {
			t.Fatalf("round %d: %d bytes, and nothing is live", round, size)
		}
	}
	mustClose(t, w)
}
