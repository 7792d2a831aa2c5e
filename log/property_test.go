package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// TestModelOfMovedEntries is TestModel for a log where entries move all the
// time: one group is busy and compacted, and what others have staged, moved
// and cut back is interleaved in every way before a sync.
func TestModelOfMovedEntries(t *testing.T) {
	root := memory(t)
	n := 0
	moved := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, fmt.Sprint(n))
		options := raftlog.Options{NoLock: true, SegmentBytes: rapid.IntRange(64, 200).Draw(t, "segment bytes"),
			RecycleBytes: rapid.IntRange(0, 100).Draw(t, "recycle bytes"), MaxOpenFiles: 3}
		w, err := raftlog.Open(dir, options)
		if err != nil {
			t.Fatal(err)
		}
		m := &model{groups: map[uint64]*modelGroup{}}
		var serial byte
		put := func(id uint64, sizes ...int) {
			es := make([]messages.Entry, len(sizes))
			for i, size := range sizes {
				serial++
				es[i] = messages.Entry{Term: m.get(id).lastTerm() + uint64(i), Type: serial % 3, Data: bytes.Repeat([]byte{serial}, size)}
			}
			if err := m.append(id, es, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Append(id, es, nil); err != nil {
				t.Fatal(err)
			}
		}
		sync := func() {
			if _, err := w.Sync(); err != nil {
				t.Fatal(err)
			}
			m.compare(t, w)
		}
		reopen := func(verify bool) {
			sync() // so that the model need not go back
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			options.VerifyAll = verify
			if w, err = raftlog.Open(dir, options); err != nil {
				t.Fatal(err)
			}
			m.compare(t, w)
		}
		lagging := rapid.SampledFrom([]uint64{1, 2})
		// One round of the busy group fills a segment or so, and kills it.
		churn := func(rounds int) {
			for range rounds {
				put(0, 60, 30)
				last := m.get(0).last()
				if _, err := m.truncateBefore(0, last+1); err != nil {
					t.Fatal(err)
				}
				if _, err := w.TruncateBefore(0, last+1); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Sync(); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Maintain(); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				put(lagging.Draw(t, "group"), rapid.SliceOfN(rapid.IntRange(0, 20), 1, 4).Draw(t, "sizes")...)
			},
			"churn": func(t *rapid.T) { churn(rapid.IntRange(1, 14).Draw(t, "rounds")) },
			"truncateFrom": func(t *rapid.T) {
				id := lagging.Draw(t, "group")
				g := m.get(id)
				if len(g.entries) == 0 {
					return
				}
				index := rapid.Uint64Range(g.first(), g.last()).Draw(t, "index")
				if _, err := m.truncateFrom(id, index); err != nil {
					t.Fatal(err)
				}
				if _, err := w.TruncateFrom(id, index); err != nil {
					t.Fatal(err)
				}
			},
			"truncateBefore": func(t *rapid.T) {
				id := lagging.Draw(t, "group")
				g := m.get(id)
				index := rapid.Uint64Range(g.first(), g.last()+1).Draw(t, "index")
				if _, err := m.truncateBefore(id, index); err != nil {
					t.Fatal(err)
				}
				if _, err := w.TruncateBefore(id, index); err != nil {
					t.Fatal(err)
				}
			},
			"reset": func(t *rapid.T) {
				id := lagging.Draw(t, "group")
				g := m.get(id)
				index := rapid.Uint64Range(0, g.last()+2).Draw(t, "index")
				term := g.lastTerm()
				m.reset(id, index, term)
				if _, err := w.Reset(id, index, term); err != nil {
					t.Fatal(err)
				}
			},
			"maintain": func(t *rapid.T) {
				if _, err := w.Maintain(); err != nil {
					t.Fatal(err)
				}
			},
			"sync":   func(*rapid.T) { sync() },
			"reopen": func(t *rapid.T) { reopen(rapid.Bool().Draw(t, "verify")) },
		})
		reopen(false)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := raftlog.Inspect(dir)
		if err != nil || len(r.Damage) > 0 {
			t.Fatal(err, r.Damage)
		}
		for _, s := range r.Segments {
			moved += s.Kinds["relocated"]
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
	if moved == 0 {
		t.Error("nothing was ever moved")
	}
}

// A log that fails, or is closed, in the midst of appends, maintenance, scrubs
// and reads: nothing hangs, nothing acknowledged is lost, no descriptor stays
// open.
func TestFailureBesideEverything(t *testing.T) {
	mustClose(t, mustOpen(t, memory(t), raftlog.Options{})) // the runtime opens two for its poller
	before := descriptors(t)
	poisoned := 0
	for i := range 60 {
		dir := memory(t)
		var d failOnce
		o := raftlog.Options{SegmentBytes: 150, RecycleBytes: i % 2, MaxOpenFiles: 2, Disk: d.disk()}
		w := mustOpen(t, dir, o)
		put(t, w, 9, 1, "lagging", "", "entries")
		mustSync(t, w)
		d.left.Store(int64(10 + 3*i)) // in the last runs nothing fails
		expected := func(err error) bool {
			return errors.Is(err, messages.ErrStopped) || errors.Is(err, raftlog.ErrPoisoned) || errors.Is(err, errInjected)
		}
		var wg sync.WaitGroup
		var acked atomic.Uint64
		stop := make(chan struct{})
		wg.Go(func() {
			defer close(stop)
			for round := range uint64(60) {
				_, err := w.Append(0, []messages.Entry{{Term: 1, Data: []byte(strings.Repeat("x", 40))}}, nil)
				if err == nil && round%3 == 2 {
					_, err = w.TruncateBefore(0, round)
				}
				if err == nil {
					_, err = w.Sync()
				}
				if err != nil {
					if !expected(err) {
						t.Error(err)
					}
					return
				}
				acked.Store(round + 1)
			}
		})
		each := func(do func() error) {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := do(); err != nil {
						if !expected(err) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		each(func() error { _, err := w.Maintain(); return err })
		each(func() error {
			_, damage, err := w.Scrub()
			if len(damage) > 0 {
				return fmt.Errorf("%v", damage)
			}
			return err
		})
		each(func() error {
			e, err := w.Entry(9, 3)
			if err == nil && string(e.Data) != "entries" {
				err = fmt.Errorf("%q", e.Data)
			}
			return err
		})
		if i%3 == 0 {
			each(func() error { // closes in the midst
				if acked.Load() < uint64(i) {
					return nil
				}
				if err := w.Close(); err != nil && !expected(err) {
					return err
				}
				return messages.ErrStopped
			})
		}
		wg.Wait()
		if w.Poisoned() {
			poisoned++
		}
		if err := w.Close(); err != nil && !expected(err) {
			t.Error(err)
		}
		o.Disk = nil
		w = mustOpen(t, dir, o)
		if b := w.Bounds(0); b.Last < acked.Load() || b.Last > acked.Load()+1 {
			t.Errorf("run %d: %+v, %d acknowledged", i, b, acked.Load())
		}
		for k, want := range []string{"lagging", "", "entries"} {
			if e, err := w.Entry(9, uint64(k)+1); err != nil || string(e.Data) != want {
				t.Errorf("run %d: %+v, %v", i, e, err)
			}
		}
		mustDescribe(t, w)
		mustSync(t, w)
		mustClose(t, w)
		if t.Failed() {
			return
		}
	}
	if poisoned < 10 {
		t.Errorf("only %d logs were poisoned", poisoned)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Logs that roll, move, are closed, and cannot be opened, leave no descriptor
// open.
func TestDescriptors(t *testing.T) {
	dir := memory(t)
	o := raftlog.Options{SegmentBytes: 100, MaxOpenFiles: 3}
	w := mustOpen(t, dir, o)
	put(t, w, 7, 1, "lagging")
	churn(t, w, 0, 30)
	mustClose(t, w)
	before := descriptors(t)
	for i := range 100 {
		o.VerifyAll = i%2 == 0
		w := mustOpen(t, dir, o)
		churn(t, w, 0, 3)
		mustDescribe(t, w)
		if _, err := scrub(w); err != nil {
			t.Fatal(err)
		}
		if i%3 > 0 { // nothing was retired
			put(t, w, 0, 1, strings.Repeat("y", 500))
			if _, err := w.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, w)
		var d failOnce
		if d.left.Store(int64(1 + i%12)); i%4 == 0 {
			o := o
			o.Disk = d.disk()
			if w, err := raftlog.Open(dir, o); err == nil {
				mustClose(t, w)
			} else if !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// Rot in what has been moved away or compacted is no damage to an entry, only to
// the segment that it is in.
func TestScrubOfDeadEntries(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 200})
	put(t, w, 0, 1, "dead-0", "live-0", "dead-1") // of which two are cut away later
	put(t, w, 1, 1, "live-1", strings.Repeat("z", 200))
	if _, err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.TruncateFrom(0, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := w.TruncateBefore(0, 2); err != nil {
		t.Fatal(err)
	}
	for range 8 { // until it is closed
		put(t, w, 2, 1, strings.Repeat("x", 200))
		mustSync(t, w)
	}
	if damage, err := scrub(w); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
	path := filepath.Join(dir, "wal", "00000001", "00000000000000000001")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text         string
		group, index uint64
	}{{"dead-0", 0, 0}, {"dead-1", 0, 0}, {"live-0", 0, 2}, {"live-1", 1, 1}} {
		at := bytes.Index(good, []byte(c.text))
		for i := range c.text {
			bad := bytes.Clone(good)
			bad[at+i] ^= 4
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			damage, err := scrub(w)
			if err != nil || len(damage) != 1 || damage[0].Group != c.group || damage[0].Index != c.index || damage[0].Err.Path != path {
				t.Fatalf("%s: %v, %v", c.text, damage, err)
			}
		}
	}
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if damage, err := scrub(w); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
	mustClose(t, w)
}

// A segment that lost its end, or everything, is damage as soon as there is a
// next one, also if the mark and the summaries tell of nothing.
func TestSegmentCutShort(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 300})
	mark, err := os.ReadFile(filepath.Join(dir, "MARK"))
	if err != nil {
		t.Fatal(err)
	}
	borders := map[string][]int{}
	for range 7 { // three, three and one; fewer segments than are closed at once
		put(t, w, 0, 1, strings.Repeat("x", 94))
		mustSync(t, w)
	}
	fs := readFiles(t, dir)
	mustClose(t, w)
	if _, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) {
		name, err := filepath.Rel(dir, r.Path)
		if err != nil {
			t.Fatal(err)
		}
		borders[name] = append(borders[name], int(r.Offset))
	}); err != nil {
		t.Fatal(err)
	}
	fs["MARK"] = mark // what a power cut may take back
	used := fs.segments()[:3]
	other := memory(t)
	for i, name := range used[:2] {
		for _, border := range borders[name] {
			for _, zeros := range []int{0, 1, len(fs[name]) - border} {
				bad := fs.clone()
				bad[name] = append(bytes.Clone(fs[name][:border]), make([]byte, zeros)...)
				bad.write(t, other)
				w, err := raftlog.Open(other, raftlog.Options{})
				if err == nil {
					t.Errorf("segment %d cut at %d, %d zeros behind that: opened with %+v", i+1, border, zeros, w.Bounds(0))
					mustClose(t, w)
				} else if !errors.Is(err, messages.ErrCorrupt) {
					t.Error(err)
				}
			}
		}
	}
}
