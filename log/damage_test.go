package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
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

// Whatever is done to a segment whose records have all been acknowledged is
// found, and nothing is cut away.
func TestDamageToAcknowledged(t *testing.T) {
	t.Parallel()
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	good, all := h.after[last], len(h.states)-1
	segments := h.used(last)
	if len(segments) < 3 {
		t.Fatalf("only %d segments", len(segments))
	}
	h.mustBeHarmless(t, dir, good, all, "undamaged")
	opened := 0
	for i, name := range segments {
		tail := i == len(segments)-1
		end := h.ends[last][name]
		damages(good[name], 0, end, tail, func(kind string, at int, damaged []byte) {
			fs := good.clone()
			fs[name] = damaged
			what := fmt.Sprintf("%s %s %d", name, kind, at)
			if tail || kind == "cut" {
				h.mustBeCorrupt(t, dir, fs, name, what)
			} else if v := h.mustBeFound(t, dir, fs, name, what); v.corrupt == nil {
				opened++
			}
			if tail || at%3 != 0 {
				return
			}
			// If the summary is lost as well, Open reads the records.
			delete(fs, beside(name, "SUMMARY"))
			h.mustBeCorrupt(t, dir, fs, "", what+", and no summary")
		})
		// Zeros behind the last record are not damage, anything else is.
		fs := good.clone()
		fs[name] = append(bytes.Clone(good[name]), make([]byte, 100)...)
		h.mustBeHarmless(t, dir, fs, all, "zeros behind "+name)
		fs[name] = append(bytes.Clone(good[name][:end]), 0, 0, 1)
		if !tail {
			h.mustBeCorrupt(t, dir, fs, name, "garbage behind "+name)
		} else if v := h.judge(t, dir, fs, "garbage behind the tail"); v.corrupt != nil || v.position != all || len(v.repaired) != 1 {
			t.Fatalf("garbage behind the tail: %+v", v)
		}
	}
	t.Logf("opened with damage %d times", opened)
	if opened == 0 {
		t.Error("every damage to a closed segment was found by Open, so summaries are not used")
	}
}

// A batch that was written but not acknowledged is there up to a record of it,
// or damage, whatever happened to it; what is torn is reported.
func TestTornBatch(t *testing.T) {
	t.Parallel()
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	before, after := h.after[last-1], h.after[last]
	segments := h.used(last)
	tail := segments[len(segments)-1]
	old, end := h.ends[last-1][tail], h.ends[last][tail]
	if old == 0 || old == end {
		t.Fatalf("the last batch is not within one segment: %d of %d bytes", old, end)
	}
	base := after.clone()
	base["MARK"] = before["MARK"]
	acknowledged, all := int(h.durable[last-1]), len(h.states)-1
	h.mustBeHarmless(t, dir, base, all, "whole")
	kept := map[int]bool{}
	check := func(name, kind string, offset, least int, fs files) {
		t.Helper()
		v := h.judge(t, dir, fs, name)
		if v.corrupt != nil || v.found() {
			t.Fatalf("%s: a torn batch is called damage: %+v", name, v)
		}
		if v.position < acknowledged || v.position == all {
			t.Fatalf("%s: position %d, %d was acknowledged", name, v.position, acknowledged)
		}
		kept[v.position] = true
		if len(v.repaired) > 1 || kind == "flip" && len(v.repaired) == 0 {
			t.Fatalf("%s: repairs %v", name, v.repaired)
		}
		for _, r := range v.repaired {
			if r.Path != filepath.Join(dir, tail) || r.Offset < int64(old) || r.Offset > int64(offset) || r.Bytes <= 0 || r.Reason == "" {
				t.Fatalf("%s: repair %+v", name, r)
			}
		}
	}
	damages(after[tail], 0, end, true, func(kind string, at int, damaged []byte) {
		fs := base.clone()
		fs[tail] = damaged
		name := fmt.Sprintf("%s %d", kind, at)
		offset := at
		if kind == "flip" {
			offset = at / 8
		}
		if offset < old {
			h.mustBeCorrupt(t, dir, fs, tail, name)
			return
		}
		check(name, kind, offset, old, fs)
	})
	for p := acknowledged; p < all; p++ {
		if !kept[p] {
			t.Errorf("no damage left the log at position %d", p)
		}
	}
}

// If a power cut has lost the latest updates of the mark, the records that came
// after a sync still prove that it was acknowledged.
func TestDamageWithoutMark(t *testing.T) {
	t.Parallel()
	h := makeHistory(t, raftlog.Options{SegmentBytes: 1000},
		[]func(*raftlog.WAL) (uint64, error){app(0, 1, 1, 1, 30)},
		[]func(*raftlog.WAL) (uint64, error){app(0, 2, 1, 1, 30), app(3, 1, 1, 2, 20)},
		[]func(*raftlog.WAL) (uint64, error){app(0, 3, 1, 1, 30), app(0, 4, 1, 1, 3)},
	)
	dir := memory(t)
	whole, all := h.after[2], len(h.states)-1
	tail := h.used(2)[0]
	from, witness, end := h.ends[0][tail], h.ends[1][tail], h.ends[2][tail]
	if from == 0 || from >= witness || witness >= end {
		t.Fatalf("the batches end at %d, %d and %d", from, witness, end)
	}
	torn := bytes.Clone(whole["MARK"])
	torn[40] ^= 1
	for name, mark := range map[string][]byte{"old": h.after[0]["MARK"], "torn": torn, "empty": {}} {
		base := whole.clone()
		base["MARK"] = mark
		h.mustBeHarmless(t, dir, base, all, name)
		damages(whole[tail], from, end, true, func(kind string, at int, damaged []byte) {
			fs := base.clone()
			fs[tail] = damaged
			what := fmt.Sprintf("mark %s, %s %d", name, kind, at)
			if kind == "flip" && at/8 < witness {
				h.mustBeCorrupt(t, dir, fs, tail, what)
				return
			}
			v := h.judge(t, dir, fs, what)
			if v.corrupt != nil || v.position < int(h.durable[0]) {
				t.Fatalf("%s: position %d, %v", what, v.position, v.corrupt)
			}
			if kind == "flip" && v.position < int(h.durable[1]) {
				t.Fatalf("%s: position %d, but %d was acknowledged", what, v.position, h.durable[1])
			}
		})
	}
}

// Without any mark, the summary of a closed segment still proves that all of it
// was acknowledged, also if nothing comes after it.
func TestDamageToClosedWithoutMark(t *testing.T) {
	t.Parallel()
	h := smallHistory(t)
	dir := memory(t)
	for k := range h.after {
		segments := h.used(k)
		name := segments[len(segments)-1]
		if _, ok := h.after[k][beside(name, "SUMMARY")]; ok {
			t.Fatalf("batch %d: the tail has a summary", k)
		}
		if len(segments) < 2 {
			continue
		}
		// The last closed segment, and nothing behind it.
		fs := h.after[k].clone()
		delete(fs, name)
		fs["MARK"] = nil
		for _, next := range fs.segments() {
			if next > name {
				delete(fs, next)
			}
		}
		name = segments[len(segments)-2]
		v := h.judge(t, dir, fs, "undamaged")
		if v.corrupt != nil || v.found() || v.position == 0 {
			t.Fatalf("batch %d: %+v", k, v)
		}
		position := v.position
		damages(h.after[k][name], 0, len(h.after[k][name]), false, func(what string, at int, damaged []byte) {
			fs := fs.clone()
			fs[name] = damaged
			what = fmt.Sprintf("batch %d: %s %d", k, what, at)
			v := h.judge(t, dir, fs, what)
			if !v.found() || !v.blames(filepath.Join(dir, name)) || v.corrupt == nil && v.position != position {
				t.Fatalf("%s: %+v", what, v)
			}
		})
	}
}

func TestMissingFiles(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	for k, good := range h.after {
		position := int(h.durable[k])
		for name := range good {
			fs := good.clone()
			delete(fs, name)
			what := fmt.Sprintf("batch %d without %s", k, name)
			_, used := h.ends[k][beside(name, logFile)]
			switch base := filepath.Base(name); {
			case base == "LOCK", base == "SUMMARY", base == logFile && !used: // it was only prepared
				h.mustBeHarmless(t, dir, fs, position, what)
			default:
				h.mustBeCorrupt(t, dir, fs, name, what)
			}
		}
		for _, segment := range good.segments() {
			fs := good.clone()
			for name := range good {
				if filepath.Dir(name) == filepath.Dir(segment) {
					delete(fs, name)
				}
			}
			what := fmt.Sprintf("batch %d without %s", k, filepath.Dir(segment))
			if _, used := h.ends[k][segment]; used {
				h.mustBeCorrupt(t, dir, fs, segment, what)
			} else {
				h.mustBeHarmless(t, dir, fs, position, what)
			}
		}
		// All segments gone, or all but the manifest.
		h.mustBeCorrupt(t, dir, files{"MANIFEST": good["MANIFEST"], "MARK": good["MARK"]}, "", "no segments")
		h.mustBeCorrupt(t, dir, files{"MANIFEST": good["MANIFEST"]}, "MARK", "only a manifest")
		h.mustBeCorrupt(t, dir, files{"MARK": good["MARK"]}, "MANIFEST", "only a mark")
	}
}

// Whatever happens to a summary changes nothing, and it is rebuilt.
func TestDamageToSummary(t *testing.T) {
	t.Parallel()
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	good, all := h.after[last], len(h.states)-1
	names := good.summaries()
	if len(names) < 2 {
		t.Fatalf("%d summaries", len(names))
	}
	check := func(fs files, what string) {
		t.Helper()
		// First as it is used: opened, read, maintained.
		fs.write(t, dir)
		w := mustOpen(t, dir, h.options)
		if got := mustDescribe(t, w); got != h.states[all] {
			t.Fatalf("%s:\n%s", what, got)
		}
		mustMaintain(t, w)
		mustClose(t, w)
		left := readFiles(t, dir)
		for _, name := range names {
			if !bytes.Equal(left[name], good[name]) {
				t.Fatalf("%s: %s was not rebuilt", what, name)
			}
		}
		// Then with a scrub before all else.
		h.mustBeHarmless(t, dir, fs, all, what)
		left = readFiles(t, dir)
		for _, name := range names {
			if !bytes.Equal(left[name], good[name]) {
				t.Fatalf("%s: %s was not rebuilt by scrub", what, name)
			}
		}
	}
	for i, name := range names {
		damages(good[name], 0, len(good[name]), false, func(damage string, at int, damaged []byte) {
			fs := good.clone()
			fs[name] = damaged
			check(fs, fmt.Sprintf("%s %s %d", name, damage, at))
		})
		fs := good.clone()
		fs[name] = append(bytes.Clone(good[name]), 0)
		check(fs, name+" and a zero")
		fs[name] = good[names[(i+1)%len(names)]]
		check(fs, name+" of another segment")
		fs[name] = smallHistory(t).after[last][name]
		check(fs, name+" of another log")
	}
	fs := good.clone()
	for _, name := range names {
		delete(fs, name)
	}
	check(fs, "without any summary")
}

func TestDamageToManifest(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	good := h.after[len(h.after)-1]
	damages(good["MANIFEST"], 0, len(good["MANIFEST"]), true, func(kind string, at int, damaged []byte) {
		fs := good.clone()
		fs["MANIFEST"] = damaged
		h.mustBeCorrupt(t, dir, fs, "MANIFEST", fmt.Sprintf("%s %d", kind, at))
	})
}

// A damaged mark never costs an entry: it is refused, or it says nothing.
func TestDamageToMark(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	good := h.after[len(h.after)-1]
	damages(good["MARK"], 0, len(good["MARK"]), true, func(kind string, at int, damaged []byte) {
		fs := good.clone()
		fs["MARK"] = damaged
		fs.write(t, dir)
		w, err := raftlog.Open(dir, h.options)
		if err != nil {
			if !errors.Is(err, messages.ErrIncompatible) && !errors.Is(err, messages.ErrCorrupt) {
				t.Fatalf("%s %d: %v", kind, at, err)
			}
			return
		}
		if got := mustDescribe(t, w); got != h.states[len(h.states)-1] {
			t.Fatalf("%s %d:\n%s", kind, at, got)
		}
		mustClose(t, w)
	})
	other := smallHistory(t).after[0]
	fs := good.clone()
	fs["MARK"] = other["MARK"]
	h.mustBeCorrupt(t, dir, fs, "MARK", "the mark of another log")
	fs = good.clone()
	fs["MANIFEST"], fs["MARK"] = other["MANIFEST"], other["MARK"]
	h.mustBeCorrupt(t, dir, fs, "", "the segments of another log")
}

// Segments swapped, copied over each other, or rolled back to an older copy:
// their files, their directories, or their summaries.
func TestMisplacedSegments(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	good, all := h.after[last], len(h.states)-1
	parts := []string{logFile, "SUMMARY"}
	place := func(fs files, a string, from files, b string, base string) {
		if data, ok := from[beside(b, base)]; ok {
			fs[beside(a, base)] = data
		} else {
			delete(fs, beside(a, base))
		}
	}
	for i, a := range h.used(last) {
		for j, b := range h.used(last) {
			if i == j {
				continue
			}
			what := fmt.Sprintf("%s and %s", a, b)
			swapped, replaced, over := good.clone(), good.clone(), good.clone()
			for _, base := range parts {
				place(swapped, a, good, b, base)
				place(swapped, b, good, a, base)
				place(replaced, a, good, b, base)
			}
			h.mustBeCorrupt(t, dir, swapped, "", what+" swapped")
			h.mustBeCorrupt(t, dir, replaced, "", what+" copied")
			place(over, a, good, b, logFile)
			h.mustBeFound(t, dir, over, "", what+", the log copied")
			place(over, b, good, a, logFile)
			h.mustBeFound(t, dir, over, "", what+", the logs swapped")
			// A summary in the place of another's, or of none.
			over = good.clone()
			place(over, a, good, b, "SUMMARY")
			h.mustBeHarmless(t, dir, over, all, what+", the summary copied")
		}
		for k := range last {
			old, ok := h.after[k][a]
			if !ok || h.ends[k][a] == h.ends[last][a] {
				continue
			}
			what := fmt.Sprintf("%s as after batch %d", a, k)
			fs := good.clone()
			fs[a] = old
			h.mustBeFound(t, dir, fs, "", what)
			delete(fs, beside(a, "SUMMARY"))
			h.mustBeCorrupt(t, dir, fs, "", what+", without summary")
			for _, base := range parts {
				place(fs, a, h.after[k], a, base)
			}
			h.mustBeCorrupt(t, dir, fs, "", what+", the whole directory")
		}
	}
}

// Files that are not the log's are left alone; those of an interrupted engine
// truncation, and others that the engine would take for its own, are refused
// in the segment that it opens.
func TestForeignFiles(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	good, all := h.after[last], len(h.states)-1
	segments := h.used(last)
	closed, tail := segments[1], segments[len(segments)-1]
	fs := good.clone()
	foreign := []string{"wal/README", "wal/00000000", "wal/0000000x", "wal/99/x", "wal/00000000000000000001", "notes.txt",
		closed + ".bak", tail + ".bak", tail + ".TEMP", closed + ".START", closed + ".END", beside(tail, "notes")}
	for _, name := range foreign {
		fs[name] = []byte("x")
	}
	fs["MANIFEST.tmp"] = []byte("x")
	h.mustBeHarmless(t, dir, fs, all, "foreign files")
	left := readFiles(t, dir)
	for _, name := range foreign {
		if _, ok := left[name]; !ok {
			t.Errorf("%s was removed", name)
		}
	}
	if _, ok := left["MANIFEST.tmp"]; ok {
		t.Error("MANIFEST.tmp was left")
	}
	for _, name := range []string{tail + ".START", tail + ".END", beside(tail, "00000000000000000002")} {
		fs := good.clone()
		fs[name] = good[tail]
		h.mustBeCorrupt(t, dir, fs, name, name)
	}
	// A segment that begins where none should, and holds nothing that anybody
	// has acknowledged: the names of one sync may survive a power cut in any
	// order.
	for _, zeros := range []int{0, 100} {
		fs := good.clone()
		fs["wal/00000900/"+logFile] = make([]byte, zeros)
		h.mustBeHarmless(t, dir, fs, all, "a stray segment")
		if _, err := os.Stat(filepath.Join(dir, "wal/00000900")); err == nil {
			t.Error("the stray segment was left")
		}
		// Also if the one that comes next is the one to be used.
		for _, name := range []string{tail, good.segments()[len(segments)]} {
			fs["wal/00000900/"+logFile] = make([]byte, zeros)
			delete(fs, name)
			fs["MARK"] = nil
			v := h.judge(t, dir, fs, "a stray segment behind a closed one")
			if v.corrupt != nil || v.found() {
				t.Errorf("%+v", v)
			}
			if _, err := os.Stat(filepath.Join(dir, "wal/00000900")); err == nil {
				t.Error("the stray segment behind a closed one was left")
			}
		}
	}
}

// A creation that a crash cut short at any point is begun again.
func TestInterruptedCreation(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{})
	mustClose(t, w)
	whole := readFiles(t, dir)
	segment := "wal/00000001/" + logFile
	if _, ok := whole[segment]; !ok || len(whole) != 4 {
		t.Fatalf("%d files", len(whole))
	}
	for _, names := range [][]string{{}, {"LOCK"}, {"LOCK", segment}, {"LOCK", segment, "MARK"}, {"LOCK", "MARK"}} {
		fs := files{}
		for _, name := range names {
			fs[name] = whole[name]
		}
		fs["MANIFEST.tmp"] = whole["MANIFEST"][:10]
		fs.write(t, dir)
		w := mustOpen(t, dir, raftlog.Options{})
		put(t, w, 0, 1, "a")
		mustSync(t, w)
		mustClose(t, w)
		w = mustOpen(t, dir, raftlog.Options{})
		if w.Bounds(0).Last != 1 {
			t.Errorf("%v: %+v", names, w.Bounds(0))
		}
		mustClose(t, w)
	}
}

// Bits that turn while the log is open are noticed by the read, and in a closed
// segment by Scrub.
func TestDamageUnderOpenLog(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	good := h.after[last]
	good.write(t, dir)
	w := mustOpen(t, dir, h.options)
	defer mustClose(t, w)
	type key struct{ group, index uint64 }
	want := map[key]string{}
	for _, g := range w.Groups() {
		b := w.Bounds(g)
		for i := b.First; i <= b.Last; i++ {
			e, err := w.Entry(g, i)
			if err != nil {
				t.Fatal(err)
			}
			want[key{g, i}] = string(e.Data)
		}
	}
	found := 0
	check := func(path string, closed bool) (bad []key) {
		t.Helper()
		for k, data := range want {
			e, err := w.Entry(k.group, k.index)
			es, rangeErr := w.Entries(k.group, k.index, k.index+1, 0)
			if (err == nil) != (rangeErr == nil) {
				t.Fatalf("entry %v: %v, as a range %v", k, err, rangeErr)
			}
			if err == nil {
				if string(e.Data) != data || string(es[0].Data) != data {
					t.Fatalf("entry %v is %q", k, e.Data)
				}
				continue
			}
			var c *messages.CorruptError
			if !errors.As(err, &c) || c.Path != path || c.Index != k.index || c.Offset < 0 {
				t.Fatalf("entry %v: %v", k, err)
			}
			bad = append(bad, k)
		}
		damage, err := scrub(w)
		if err != nil {
			t.Fatal(err)
		}
		if !closed {
			if damage != nil {
				t.Fatalf("scrub says %v of the tail", damage)
			}
			return bad
		}
		named := 0
		for _, d := range damage {
			if d.Err.Path != path {
				t.Fatalf("scrub blames %v", d)
			}
			if d.Index != 0 {
				named++
				if !slices.Contains(bad, key{d.Group, d.Index}) {
					t.Fatalf("scrub says %v, bad are %v", d, bad)
				}
			}
		}
		if named != len(bad) || len(damage) == 0 {
			t.Fatalf("scrub says %v, bad are %v", damage, bad)
		}
		return bad
	}
	used := h.used(last)
	for i, name := range used {
		closed := i < len(used)-1
		path := filepath.Join(dir, name)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for at, b := range good[name][:h.ends[last][name]] {
			if _, err := f.WriteAt([]byte{b ^ 1<<(at%8)}, int64(at)); err != nil {
				t.Fatal(err)
			}
			n := len(check(path, closed))
			if n > 1 {
				t.Fatalf("%s at %d: %d entries are bad", name, at, n)
			}
			found += n
			if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		check(path, closed)
		if _, err := f.WriteAt(good[name], 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	sum := 0
	for _, data := range want {
		sum += len(data)
	}
	if found != sum {
		t.Errorf("%d flips found in %d live bytes", found, sum)
	}
}

// Inspect says the same as Open, and changes nothing.
func TestInspect(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	good := h.after[last]
	segments := h.used(last)
	tail := segments[len(segments)-1]
	same := func(fs files) {
		t.Helper()
		left := readFiles(t, dir)
		if len(left) != len(fs) {
			t.Errorf("%d files, had %d", len(left), len(fs))
		}
		for name := range fs {
			if !bytes.Equal(left[name], fs[name]) {
				t.Errorf("%s was changed", name)
			}
		}
	}
	good.write(t, dir)
	var records []raftlog.RecordReport
	r, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) { records = append(records, r) })
	if err != nil || len(r.Damage) > 0 || r.Torn != nil || !r.MarkOK || r.Last != h.durable[last] || r.Floor != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if len(records) != len(h.states)-1 || len(r.Segments) != len(segments) || len(r.Groups) != 3 || len(r.Prepared) != 1 {
		t.Errorf("%d records, %d segments, %d groups, prepared %v", len(records), len(r.Segments), len(r.Groups), r.Prepared)
	}
	for i, s := range r.Segments {
		closed := i < len(segments)-1
		if s.Path != filepath.Join(dir, segments[i]) || s.Summary != closed || s.Good != int64(h.ends[last][segments[i]]) ||
			s.Good+s.Zeros != s.Size || closed != (s.Zeros == 0) {
			t.Errorf("%+v", s)
		}
	}
	if rec := records[0]; rec.Kind != "append" || rec.First != 1 || rec.Last != 3 || rec.Entries != 3 || !rec.DurableBefore || rec.HardState == nil {
		t.Errorf("%+v", rec)
	}
	if g := r.Groups[2]; g.Group != 9 || g.Bounds.First != 101 || g.Bounds.Last != 102 || g.OldestSegment == "" {
		t.Errorf("%+v", g)
	}
	same(good)

	torn := good.clone()
	torn["MARK"] = h.after[last-1]["MARK"]
	torn[tail] = good[tail][:h.ends[last][tail]-1]
	torn.write(t, dir)
	r, err = raftlog.Inspect(dir)
	if err != nil || len(r.Damage) > 0 || r.Torn == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	same(torn)
	v := h.judge(t, dir, torn, "torn")
	if len(v.repaired) != 1 || v.repaired[0] != *r.Torn {
		t.Errorf("inspect says %+v, open %+v", r.Torn, v.repaired)
	}

	bad := good.clone()
	for _, name := range segments[:2] {
		bad[name] = bytes.Clone(good[name])
		bad[name][len(bad[name])-1] ^= 1
	}
	bad.write(t, dir)
	r, err = raftlog.Inspect(dir)
	if err != nil || len(r.Damage) != 2 {
		t.Fatalf("%v, %v", r.Damage, err)
	}
	if s := r.Segments[len(segments)-1]; s.Last == s.First-1 {
		t.Errorf("nothing is reported of the segments behind the damage: %+v", s)
	}
	same(bad)

	delete(bad, "MANIFEST")
	bad.write(t, dir)
	if r, err = raftlog.Inspect(dir); err != nil || len(r.Damage) != 1 {
		t.Errorf("%v, %v", r.Damage, err)
	}
	if _, err = raftlog.Inspect(filepath.Join(dir, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
