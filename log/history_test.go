package log_test

import (
	"bytes"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// history is a log of several batches, and what it was after each of them.
type history struct {
	options raftlog.Options
	// states[p] describes the log after the change at position p.
	states []string
	// after[k] are the files after batch k, durable[k] its last position, and
	// ends[k] where the records of each segment that has any end.
	after   []files
	durable []uint64
	ends    []map[string]int
}

// someZeros is how many of the zeros behind the records are kept in a history.
const someZeros = 40

// makeHistory runs batches of changes twice: all at once for the files, and
// one by one for what the log is after each change.
func makeHistory(t testing.TB, options raftlog.Options, batches ...[]func(*raftlog.WAL) (uint64, error)) *history {
	h := &history{options: options, states: []string{""}}
	dir, single := memory(t), memory(t)
	w, s := mustOpen(t, dir, options), mustOpen(t, single, options)
	for k, batch := range batches {
		// Segments that were left are closed all at once, or by a close.
		if k < len(batches)-2 {
			mustClose(t, w)
			w = mustOpen(t, dir, options)
			mustMaintain(t, w)
		}
		for _, change := range batch {
			for _, l := range []*raftlog.WAL{w, s} {
				if _, err := change(l); err != nil {
					t.Fatal(err)
				}
			}
			mustSync(t, s)
			h.states = append(h.states, mustDescribe(t, s))
		}
		mustSync(t, w)
		h.durable = append(h.durable, w.Durable())
		fs, ends := readFiles(t, dir), map[string]int{}
		r, err := raftlog.Inspect(dir)
		if err != nil || len(r.Damage) > 0 {
			t.Fatalf("%v, %v", r.Damage, err)
		}
		for _, s := range r.Segments {
			name, err := filepath.Rel(dir, s.Path)
			if err != nil {
				t.Fatal(err)
			}
			ends[name] = int(s.Good)
		}
		for _, name := range fs.segments() {
			if n := ends[name] + someZeros; len(fs[name]) > n {
				if bytes.Trim(fs[name][ends[name]:], "\x00") != nil {
					t.Fatalf("no zeros behind %s", name)
				}
				fs[name] = fs[name][:n]
			}
		}
		h.after, h.ends = append(h.after, fs), append(h.ends, ends)
	}
	if got, want := w.Durable(), uint64(len(h.states)-1); got != want {
		t.Fatalf("%d positions for %d changes", got, want)
	}
	mustClose(t, s)
	mustClose(t, w)
	return h
}

// used lists the segments that hold records after batch k, in order. The last
// one is the tail.
func (h *history) used(k int) []string { return slices.Sorted(maps.Keys(h.ends[k])) }

func beside(name, base string) string { return filepath.Join(filepath.Dir(name), base) }

func app(group, first, term uint64, n, size int) func(*raftlog.WAL) (uint64, error) {
	return func(w *raftlog.WAL) (uint64, error) {
		es := make([]messages.Entry, n)
		for i := range es {
			es[i] = messages.Entry{Index: first + uint64(i), Term: term, Data: bytes.Repeat([]byte{byte('a' + (first+uint64(i))%26)}, size)}
		}
		return w.Append(group, es, &messages.HardState{Term: term, Commit: first})
	}
}

func cutFrom(group, index uint64) func(*raftlog.WAL) (uint64, error) {
	return func(w *raftlog.WAL) (uint64, error) { return w.TruncateFrom(group, index) }
}

func reset(group, index, term uint64) func(*raftlog.WAL) (uint64, error) {
	return func(w *raftlog.WAL) (uint64, error) { return w.Reset(group, index, term) }
}

// verdict is what came of damage to a log.
type verdict struct {
	// position is that of the state that the log opened as.
	position int
	// corrupt is why it did not open.
	corrupt *messages.CorruptError
	// damaged are the entries that could not be read, scrubbed what Scrub has
	// found but for summaries, and inspected what Inspect has.
	damaged, inspected []*messages.CorruptError
	scrubbed           []raftlog.Damage
	mended             int // summaries that Scrub has rebuilt
	repaired           []messages.TailRepaired
}

// found says that the damage was noticed.
func (v *verdict) found() bool { return len(v.inspected) > 0 }

// blames tells whether the damage was found in a file.
func (v *verdict) blames(path string) bool {
	same := func(c *messages.CorruptError) bool { return c.Path == path }
	if v.corrupt != nil {
		return same(v.corrupt)
	}
	return slices.ContainsFunc(v.inspected, same) &&
		slices.ContainsFunc(v.scrubbed, func(d raftlog.Damage) bool { return same(d.Err) })
}

// judge opens files and says what came of it. It fails unless that is one of:
// the log is damaged, and Open says where; or it is one of the states that it
// has had, and what cannot be read of it is found by Scrub, by Inspect and by
// Open if that verifies everything.
func (h *history) judge(t testing.TB, dir string, fs files, name string) *verdict {
	t.Helper()
	v := &verdict{}
	fs.write(t, dir)
	report, err := raftlog.Inspect(dir)
	if err != nil {
		t.Fatalf("%s: inspect: %v", name, err)
	}
	v.inspected = report.Damage
	o := h.options
	o.OnRepair = func(r messages.TailRepaired) { v.repaired = append(v.repaired, r) }
	corruption := func(err error) *messages.CorruptError {
		t.Helper()
		var c *messages.CorruptError
		if !errors.As(err, &c) || !errors.Is(err, messages.ErrCorrupt) {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.HasPrefix(c.Path, dir) || c.Reason == "" {
			t.Fatalf("%s: no path or no reason in %v", name, err)
		}
		return c
	}
	w, err := raftlog.Open(dir, o)
	if err != nil {
		v.corrupt = corruption(err)
		if !v.found() {
			t.Fatalf("%s: open says %v, and inspect nothing", name, err)
		}
		had, left := fs.clone(), readFiles(t, dir)
		delete(had, "LOCK")
		delete(left, "LOCK")
		if !maps.EqualFunc(had, left, bytes.Equal) {
			t.Fatalf("%s: a failed open changed files", name)
		}
		return v
	}
	state, damaged, err := survey(w)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	v.position, v.damaged = int(w.Durable()), damaged
	if v.position >= len(h.states) || !sameButDamaged(state, h.states[v.position]) {
		t.Fatalf("%s: position %d with the state\n%s", name, v.position, state)
	}
	if len(v.repaired) > 0 != (report.Torn != nil) || len(v.repaired) > 0 && v.repaired[0] != *report.Torn {
		t.Fatalf("%s: repairs %v, inspect says %v", name, v.repaired, report.Torn)
	}
	scrubbed, err := scrub(w)
	if err != nil {
		t.Fatalf("%s: scrub: %v", name, err)
	}
	named := 0
	for _, d := range scrubbed {
		if filepath.Base(d.Err.Path) == "SUMMARY" {
			v.mended++
			continue
		}
		v.scrubbed = append(v.scrubbed, d)
		if d.Index == 0 {
			continue
		}
		named++
		var c *messages.CorruptError
		if _, err := w.Entry(d.Group, d.Index); !errors.As(err, &c) || c.Path != d.Err.Path || c.Offset != d.Err.Offset {
			t.Fatalf("%s: scrub says %v, the read %v", name, d, err)
		}
	}
	if named != len(damaged) || v.found() != (len(v.scrubbed) > 0) {
		t.Fatalf("%s: damaged are %v, scrub says %v, and inspect %v", name, damaged, v.scrubbed, v.inspected)
	}
	if again, err := scrub(w); err != nil || len(again) != len(v.scrubbed) {
		t.Fatalf("%s: a second scrub: %v, %v", name, again, err)
	}
	mustMaintain(t, w)
	mustClose(t, w)
	// What was repaired stays so, also if everything is verified.
	n := len(v.repaired)
	o.VerifyAll = !v.found()
	w, err = raftlog.Open(dir, o)
	if err != nil || int(w.Durable()) != v.position || len(v.repaired) != n {
		t.Fatalf("%s: a second open: %v, %d repairs", name, err, len(v.repaired))
	}
	if again, _, err := survey(w); err != nil || again != state {
		t.Fatalf("%s: a second open: %v\n%s", name, err, again)
	}
	mustClose(t, w)
	if v.found() {
		o.VerifyAll = true
		if _, err = raftlog.Open(dir, o); err == nil {
			t.Fatalf("%s: verified, in spite of %v", name, v.inspected)
		}
		corruption(err)
	}
	return v
}

// mustBeFound is for damage to what was acknowledged: it is found, wherever the
// log opens nothing is missing from it, and the damaged file is blamed, if a
// path is given.
func (h *history) mustBeFound(t testing.TB, dir string, fs files, path, name string) *verdict {
	t.Helper()
	v := h.judge(t, dir, fs, name)
	if !v.found() || v.corrupt == nil && v.position != len(h.states)-1 {
		t.Fatalf("%s: opened at position %d", name, v.position)
	}
	if path != "" && !v.blames(filepath.Join(dir, path)) {
		t.Fatalf("%s: blames %v, or %v and %v", name, v.corrupt, v.scrubbed, v.inspected)
	}
	return v
}

// mustBeCorrupt is for damage that Open must find.
func (h *history) mustBeCorrupt(t testing.TB, dir string, fs files, path, name string) {
	t.Helper()
	v := h.judge(t, dir, fs, name)
	if v.corrupt == nil {
		t.Fatalf("%s: opened at position %d", name, v.position)
	}
	if path != "" && v.corrupt.Path != filepath.Join(dir, path) {
		t.Fatalf("%s: blames %v", name, v.corrupt)
	}
	if v.corrupt.Index == 0 && filepath.Base(path) == logFile {
		t.Fatalf("%s: no index in %v", name, v.corrupt)
	}
}

// mustBeHarmless is for what is no damage to any record.
func (h *history) mustBeHarmless(t testing.TB, dir string, fs files, position int, name string) *verdict {
	t.Helper()
	v := h.judge(t, dir, fs, name)
	if v.corrupt != nil || v.found() || v.repaired != nil || v.position != position {
		t.Fatalf("%s: position %d, corrupt %v, found %v, repaired %v", name, v.position, v.corrupt, v.inspected, v.repaired)
	}
	return v
}

// damages calls do with every way to damage one file that the tests know, from
// ≤ at < to.
func damages(data []byte, from, to int, everyBit bool, do func(kind string, at int, damaged []byte)) {
	for at := from; at < to; at++ {
		do("cut", at, data[:at])
		if data[at] != 0 {
			zero := bytes.Clone(data)
			clear(zero[at:])
			do("zeros", at, zero)
		}
		for bit := range 8 {
			if !everyBit && bit != at%8 {
				continue
			}
			flip := bytes.Clone(data)
			flip[at] ^= 1 << bit
			do("flip", at*8+bit, flip)
		}
	}
}

func smallHistory(t testing.TB) *history {
	return makeHistory(t, raftlog.Options{SegmentBytes: 150},
		[]func(*raftlog.WAL) (uint64, error){app(0, 1, 1, 3, 40), app(5, 1, 1, 1, 20), set(5, "a", "x")},
		[]func(*raftlog.WAL) (uint64, error){app(0, 4, 2, 1, 60), cutFrom(0, 2), app(0, 2, 3, 2, 40)},
		[]func(*raftlog.WAL) (uint64, error){reset(9, 100, 7), app(9, 101, 7, 2, 35)},
		[]func(*raftlog.WAL) (uint64, error){app(5, 2, 4, 1, 9), app(0, 4, 4, 1, 0)},
		[]func(*raftlog.WAL) (uint64, error){app(0, 5, 4, 2, 5), cutFrom(5, 2), app(5, 2, 4, 1, 3)},
	)
}

func set(group uint64, name, value string) func(*raftlog.WAL) (uint64, error) {
	return func(w *raftlog.WAL) (uint64, error) { return w.SetStable(group, name, []byte(value)) }
}
