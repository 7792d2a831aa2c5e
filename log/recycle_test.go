package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// recycledLog makes a log whose tail is the file of an older segment, with
// batches in it, and older records behind them. before are the files after
// each of the tail's batches, end where that batch ends.
func recycledLog(t *testing.T) (h *history, tail string, before []files, end []int) {
	t.Helper()
	h = &history{options: raftlog.Options{SegmentBytes: 400, RecycleBytes: 1}, states: []string{""}}
	dir := memory(t)
	w := mustOpen(t, dir, h.options)
	defer mustClose(t, w)
	for i := uint64(1); i < 200; i++ {
		// The lengths differ, so that records do not end where older ones did.
		position, err := app(0, i, i/5, 1, 20+int(i*7%23))(w)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := w.TruncateBefore(0, i-1); err != nil {
				t.Fatal(err)
			}
		}
		if mustSync(t, w); w.Durable() < position {
			t.Fatalf("durable up to %d of %d", w.Durable(), position)
		}
		state := mustDescribe(t, w)
		for uint64(len(h.states)) <= w.Durable() {
			// Of two changes in one batch the first alone is no state that any
			// of the damage here leaves: a batch is cut with its fence.
			h.states = append(h.states, state)
		}
		r, err := raftlog.Inspect(dir)
		if err != nil || len(r.Damage) > 0 || r.Torn != nil {
			t.Fatalf("%v, %v, torn %v", err, r.Damage, r.Torn)
		}
		s := r.Segments[len(r.Segments)-1]
		name, err := filepath.Rel(dir, s.Path)
		if err != nil {
			t.Fatal(err)
		}
		if name != tail {
			tail, before, end = name, nil, nil
		}
		if !s.Recycled || i%3 == 0 {
			tail = ""
			continue
		}
		before, end = append(before, readFiles(t, dir)), append(end, int(s.Good))
		if rest := before[len(before)-1][name][s.Good:]; len(before) == 2 && len(bytes.Trim(rest, "\x00")) > 100 {
			return h, tail, before, end
		}
	}
	t.Fatal("no segment was recycled, with older records behind its end")
	return nil, "", nil, nil
}

// The end of a recycled segment is found whatever lies behind it, and what had
// been acknowledged there is told from what a crash has torn, as elsewhere.
func TestDamageToRecycledSegment(t *testing.T) {
	h, tail, before, end := recycledLog(t)
	dir := memory(t)
	first, last := before[0], before[1]
	data := last[tail]
	all := len(h.states) - 1
	h.mustBeHarmless(t, dir, last, all, "a kill")

	// What the mark says is acknowledged.
	damages(data, 0, end[1], true, func(kind string, at int, damaged []byte) {
		fs := last.clone()
		fs[tail] = damaged
		h.mustBeFound(t, dir, fs, tail, fmt.Sprintf("%s at %d", kind, at))
	})

	// With the mark of the batch before it, and that damaged: the fence of the
	// last batch is the witness. The mark of no batch shows nothing but that.
	old := last.clone()
	old["MARK"] = bytes.Repeat([]byte{1}, len(last["MARK"]))
	h.mustBeHarmless(t, dir, old, all, "without the mark")
	for at := end[0] - 30; at < end[0]; at++ {
		for _, bit := range []byte{1, 0x10, 0x80} {
			fs := old.clone()
			fs[tail] = bytes.Clone(data)
			fs[tail][at] ^= bit
			h.mustBeFound(t, dir, fs, tail, fmt.Sprintf("flip of %x at %d without the mark", bit, at))
		}
		fs := old.clone()
		fs[tail] = bytes.Clone(data)
		clear(fs[tail][at:end[0]])
		h.mustBeFound(t, dir, fs, tail, fmt.Sprintf("zeros from %d to %d without the mark", at, end[0]))
	}

	// The last batch was not acknowledged, and is torn at any byte: older
	// records, or what is left of them, follow.
	for at := end[0]; at < end[1]; at++ {
		fs := first.clone()
		fs[tail] = append(bytes.Clone(data[:at]), first[tail][at:]...)
		v := h.judge(t, dir, fs, fmt.Sprintf("torn at %d", at))
		if v.corrupt != nil || v.found() || v.position < all-1 || at > end[0] && v.position == all-1 && v.repaired == nil {
			t.Fatalf("torn at %d: position %d of %d, %v, repaired %v", at, v.position, all, v.corrupt, v.repaired)
		}
	}
}

func spares(t *testing.T, dir string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "segment-*.tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// What a spare takes is given back when the log is closed or batches become
// small, and never counts as a part of the log.
func TestSparesAreGivenBack(t *testing.T) {
	const most = 8
	for _, how := range []string{"close", "kill", "small batches"} {
		t.Run(how, func(t *testing.T) {
			dir := memory(t)
			w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 4 << 10, RecycleBytes: 1 << 10})
			next := uint64(1)
			add := func(size int) {
				if _, err := w.Append(0, []messages.Entry{{Index: next, Term: 1, Data: make([]byte, size)}}, nil); err != nil {
					t.Fatal(err)
				}
				next++
				mustSync(t, w)
			}
			for range 80 {
				add(3 << 10)
			}
			if _, err := w.TruncateBefore(0, next); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				add(3 << 10)
			}
			if n := spares(t, dir); n == 0 || n > most {
				t.Fatalf("%d spares after 40 segments were removed", n)
			}
			switch how {
			case "kill":
				fs := readFiles(t, dir)
				mustClose(t, w)
				fs.write(t, dir)
				if spares(t, dir) == 0 {
					t.Fatal("no spares in the copy")
				}
				w = mustOpen(t, dir, raftlog.Options{})
			case "small batches":
				for range 200 {
					add(100)
				}
			}
			if how != "close" && spares(t, dir) != 0 {
				t.Errorf("%d spares are left", spares(t, dir))
			}
			mustClose(t, w)
			if spares(t, dir) != 0 {
				t.Errorf("%d spares are left after Close", spares(t, dir))
			}
		})
	}
}

// A read that has its file open while that becomes another segment says that
// the entry is compacted, and never what is there now.
func TestReadBesideRecycling(t *testing.T) {
	dir := memory(t)
	entry := func(i uint64) messages.Entry {
		return messages.Entry{Index: i, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 3<<10)}
	}
	recycled := 0
	disk := stepDisk{func(what, to string) error {
		if what == "rename" && filepath.Base(to) == logFile {
			recycled++
		}
		return nil
	}}
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 4 << 10, RecycleBytes: 1 << 10, Disk: disk})
	defer mustClose(t, w)
	stop, done := make(chan struct{}), make(chan error, 2)
	for range cap(done) {
		go func() {
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				b := w.Bounds(0)
				if b.Empty() {
					continue
				}
				at := b.First + i%3
				e, err := w.Entry(0, min(at, b.Last))
				if err == nil && !bytes.Equal(e.Data, entry(e.Index).Data) {
					err = fmt.Errorf("entry %d holds %x", e.Index, e.Data[:4])
				}
				if err != nil && !errors.Is(err, messages.ErrCompacted) {
					done <- err
					return
				}
			}
		}()
	}
	for i := uint64(1); i <= 2000; i++ {
		if _, err := w.Append(0, []messages.Entry{entry(i)}, nil); err != nil {
			t.Fatal(err)
		}
		if i > 3 {
			if _, err := w.TruncateBefore(0, i-2); err != nil {
				t.Fatal(err)
			}
		}
		mustSync(t, w)
	}
	close(stop)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if recycled < 100 {
		t.Errorf("%d segments were recycled", recycled)
	}
}

// Spares go before the room that they take is missed.
func TestSparesMakeRoom(t *testing.T) {
	dir, real := smallDisk(t)
	o := raftlog.Options{SegmentBytes: 64 << 10, RecycleBytes: 4 << 10, ReserveBytes: 256 << 10, MaxBatchBytes: 64 << 10}
	w := mustOpen(t, dir, o)
	defer func() { mustClose(t, w) }()
	for i := range uint64(100) {
		put(t, w, 0, 1, strings.Repeat("x", 8000))
		if i%20 == 19 {
			if _, err := w.TruncateBefore(0, i); err != nil {
				t.Fatal(err)
			}
		}
		mustSync(t, w)
	}
	if spares(t, dir) == 0 {
		t.Fatal("no spares")
	}
	if !real { // nothing can be mounted, and no other disk may be filled
		return
	}
	free, err := durable.Free(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "filler"), make([]byte, free-100<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	put(t, w, 0, 1, "x")
	if _, err := w.Sync(); err != nil || spares(t, dir) != 0 {
		t.Errorf("an append with 100 KiB free beside the spares: %v, %d spares", err, spares(t, dir))
	}
}
