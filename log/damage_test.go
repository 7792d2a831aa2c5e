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
)

// history is a log of several batches, and what it was after each of them.
type history struct {
	options raftlog.Options
	// states[p] describes the log after the change at position p.
	states []string
	// after[k] are the files after batch k, durable[k] its last position.
	after   []files
	durable []uint64
}

// makeHistory runs batches of changes twice: all at once for the files, and
// one by one for what the log is after each change.
func makeHistory(t testing.TB, options raftlog.Options, batches ...[]func(*raftlog.WAL) (uint64, error)) *history {
	h := &history{options: options, states: []string{""}}
	dir, single := memory(t), memory(t)
	w, s := mustOpen(t, dir, options), mustOpen(t, single, options)
	for _, batch := range batches {
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
		h.after = append(h.after, readFiles(t, dir))
		h.durable = append(h.durable, w.Durable())
	}
	if got, want := w.Durable(), uint64(len(h.states)-1); got != want {
		t.Fatalf("%d positions for %d changes", got, want)
	}
	mustClose(t, s)
	mustClose(t, w)
	return h
}

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

// verdict opens files and says what came of it: the state's position, or the
// damage. Anything else is a failure.
func (h *history) verdict(t testing.TB, dir string, fs files, name string) (position int, corrupt *messages.CorruptError, repaired []messages.TailRepaired) {
	t.Helper()
	fs.write(t, dir)
	o := h.options
	o.OnRepair = func(r messages.TailRepaired) { repaired = append(repaired, r) }
	w, err := raftlog.Open(dir, o)
	if err != nil {
		if !errors.As(err, &corrupt) || !errors.Is(err, messages.ErrCorrupt) {
			t.Fatalf("%s: %v", name, err)
		}
		if corrupt.Path == "" || !strings.HasPrefix(corrupt.Path, dir) {
			t.Fatalf("%s: no path in %v", name, err)
		}
		return 0, corrupt, nil
	}
	state := mustDescribe(t, w)
	position = int(w.Durable())
	if position >= len(h.states) || state != h.states[position] {
		t.Fatalf("%s: position %d with the state\n%s", name, position, state)
	}
	mustClose(t, w)
	// What was repaired stays so.
	n := len(repaired)
	w, err = raftlog.Open(dir, o)
	if err != nil || int(w.Durable()) != position || len(repaired) != n {
		t.Fatalf("%s: a second open: %v, %d repairs", name, err, len(repaired))
	}
	mustClose(t, w)
	return position, nil, repaired
}

func (h *history) mustBeCorrupt(t testing.TB, dir string, fs files, path, name string) {
	t.Helper()
	position, corrupt, _ := h.verdict(t, dir, fs, name)
	if corrupt == nil {
		t.Fatalf("%s: opened at position %d", name, position)
	}
	if path != "" && corrupt.Path != filepath.Join(dir, path) {
		t.Fatalf("%s: blames %s at %d", name, corrupt.Path, corrupt.Offset)
	}
	if corrupt.Index == 0 && filepath.Dir(path) == "wal" && filepath.Ext(path) == "" {
		t.Fatalf("%s: no index in %v", name, corrupt)
	}
}

// damages calls do with every way to damage one file that the tests know.
func damages(data []byte, from int, everyBit bool, do func(kind string, at int, damaged []byte)) {
	for at := from; at < len(data); at++ {
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
		[]func(*raftlog.WAL) (uint64, error){app(0, 1, 1, 3, 40), app(5, 1, 1, 1, 20)},
		[]func(*raftlog.WAL) (uint64, error){app(0, 4, 2, 1, 60), cutFrom(0, 2), app(0, 2, 3, 2, 30)},
		[]func(*raftlog.WAL) (uint64, error){reset(9, 100, 7), app(9, 101, 7, 2, 10)},
		[]func(*raftlog.WAL) (uint64, error){app(5, 2, 4, 1, 9), app(0, 4, 4, 1, 0)},
		[]func(*raftlog.WAL) (uint64, error){app(0, 5, 4, 2, 5), cutFrom(5, 2), app(5, 2, 4, 1, 3)},
	)
}

// Whatever is done to a segment whose records have all been acknowledged is
// found, and nothing is cut away.
func TestDamageToAcknowledged(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	good := h.after[len(h.after)-1]
	segments := good.segments()
	if len(segments) < 3 {
		t.Fatalf("only %d segments", len(segments))
	}
	if p, _, _ := h.verdict(t, dir, good, "undamaged"); p != len(h.states)-1 {
		t.Fatalf("undamaged: position %d", p)
	}
	for i, name := range segments {
		tail := i == len(segments)-1
		damages(good[name], 0, tail, func(kind string, at int, damaged []byte) {
			fs := good.clone()
			fs[name] = damaged
			h.mustBeCorrupt(t, dir, fs, "", fmt.Sprintf("%s %s %d", name, kind, at))
		})
		// The damaged file is the one that is blamed.
		fs := good.clone()
		fs[name] = bytes.Clone(good[name])
		fs[name][len(fs[name])/2] ^= 1
		h.mustBeCorrupt(t, dir, fs, name, name)
		// Zeros behind the last record are not damage, anything else is.
		fs[name] = append(bytes.Clone(good[name]), make([]byte, 100)...)
		if p, _, repaired := h.verdict(t, dir, fs, "zeros behind "+name); p != len(h.states)-1 || repaired != nil {
			t.Fatalf("zeros behind %s: position %d, %v", name, p, repaired)
		}
		fs[name] = append(bytes.Clone(good[name]), 0, 0, 1)
		if !tail {
			h.mustBeCorrupt(t, dir, fs, name, "garbage behind "+name)
		} else if p, _, repaired := h.verdict(t, dir, fs, "garbage behind the tail"); p != len(h.states)-1 || len(repaired) != 1 {
			t.Fatalf("garbage behind the tail: position %d, %v", p, repaired)
		}
	}
}

// A batch that was written but not acknowledged is there up to a record of it,
// or damage, whatever happened to it; what is torn is reported.
func TestTornBatch(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	before, after := h.after[last-1], h.after[last]
	segments := after.segments()
	tail := segments[len(segments)-1]
	old := len(before[tail])
	if old == 0 || old == len(after[tail]) {
		t.Fatalf("the last batch is not within one segment: %d of %d bytes", old, len(after[tail]))
	}
	base := after.clone()
	base["MARK"] = before["MARK"]
	acknowledged := int(h.durable[last-1])
	if p, _, repaired := h.verdict(t, dir, base, "whole"); p != len(h.states)-1 || repaired != nil {
		t.Fatalf("whole: position %d, %v", p, repaired)
	}
	kept := map[int]bool{}
	damages(after[tail], 0, true, func(kind string, at int, damaged []byte) {
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
		p, corrupt, repaired := h.verdict(t, dir, fs, name)
		if corrupt != nil {
			t.Fatalf("%s: a torn batch is called damage: %v", name, corrupt)
		}
		if p < acknowledged || p == len(h.states)-1 {
			t.Fatalf("%s: position %d, %d was acknowledged", name, p, acknowledged)
		}
		kept[p] = true
		if len(repaired) > 1 || kind == "flip" && len(repaired) == 0 {
			t.Fatalf("%s: repairs %v", name, repaired)
		}
		for _, r := range repaired {
			if r.Path != filepath.Join(dir, tail) || r.Offset < int64(old) || r.Offset > int64(offset) || r.Bytes <= 0 || r.Reason == "" {
				t.Fatalf("%s: repair %+v", name, r)
			}
		}
	})
	for p := acknowledged; p < len(h.states)-1; p++ {
		if !kept[p] {
			t.Errorf("no damage left the log at position %d", p)
		}
	}
}

// If a power cut has lost the latest updates of the mark, the records that came
// after a sync still prove that it was acknowledged.
func TestDamageWithoutMark(t *testing.T) {
	h := makeHistory(t, raftlog.Options{},
		[]func(*raftlog.WAL) (uint64, error){app(0, 1, 1, 1, 30)},
		[]func(*raftlog.WAL) (uint64, error){app(0, 2, 1, 1, 30), app(3, 1, 1, 2, 20)},
		[]func(*raftlog.WAL) (uint64, error){app(0, 3, 1, 1, 30), app(0, 4, 1, 1, 3)},
	)
	dir := memory(t)
	whole := h.after[2]
	tail := whole.segments()[0]
	witness := len(h.after[1][tail])
	torn := bytes.Clone(whole["MARK"])
	torn[40] ^= 1
	for name, mark := range map[string][]byte{"old": h.after[0]["MARK"], "torn": torn, "empty": {}} {
		base := whole.clone()
		base["MARK"] = mark
		from := len(h.after[0][tail])
		if p, _, repaired := h.verdict(t, dir, base, name); p != len(h.states)-1 || repaired != nil {
			t.Fatalf("%s: position %d %v", name, p, repaired)
		}
		damages(whole[tail], from, true, func(kind string, at int, damaged []byte) {
			fs := base.clone()
			fs[tail] = damaged
			what := fmt.Sprintf("mark %s, %s %d", name, kind, at)
			if kind == "flip" && at/8 < witness {
				h.mustBeCorrupt(t, dir, fs, tail, what)
				return
			}
			p, corrupt, _ := h.verdict(t, dir, fs, what)
			if corrupt != nil || p < int(h.durable[0]) {
				t.Fatalf("%s: position %d, %v", what, p, corrupt)
			}
			if kind == "flip" && p < int(h.durable[1]) {
				t.Fatalf("%s: position %d, but %d was acknowledged", what, p, h.durable[1])
			}
		})
	}
}

func TestMissingFiles(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	for k, good := range h.after {
		for name := range good {
			if name == "LOCK" {
				continue
			}
			fs := good.clone()
			delete(fs, name)
			h.mustBeCorrupt(t, dir, fs, name, fmt.Sprintf("batch %d without %s", k, name))
		}
		// All segments gone, or all but the manifest.
		h.mustBeCorrupt(t, dir, files{"MANIFEST": good["MANIFEST"], "MARK": good["MARK"]}, "", "no segments")
		h.mustBeCorrupt(t, dir, files{"MANIFEST": good["MANIFEST"]}, "MARK", "only a manifest")
		h.mustBeCorrupt(t, dir, files{"MARK": good["MARK"]}, "MANIFEST", "only a mark")
	}
}

func TestDamageToManifest(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	good := h.after[len(h.after)-1]
	damages(good["MANIFEST"], 0, true, func(kind string, at int, damaged []byte) {
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
	damages(good["MARK"], 0, true, func(kind string, at int, damaged []byte) {
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

// Segments swapped, copied over each other, or rolled back to an older copy.
func TestMisplacedSegments(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	last := len(h.after) - 1
	good := h.after[last]
	segments := good.segments()
	for i, a := range segments {
		for j, b := range segments {
			if i != j && !bytes.Equal(good[a], good[b]) {
				fs := good.clone()
				fs[a], fs[b] = good[b], good[a]
				h.mustBeCorrupt(t, dir, fs, "", fmt.Sprintf("%s and %s swapped", a, b))
				fs = good.clone()
				fs[a] = good[b]
				h.mustBeCorrupt(t, dir, fs, "", fmt.Sprintf("%s replaced by %s", a, b))
			}
		}
		for k := range last {
			old, ok := h.after[k][a]
			if ok && !bytes.Equal(old, good[a]) {
				fs := good.clone()
				fs[a] = old
				h.mustBeCorrupt(t, dir, fs, "", fmt.Sprintf("%s as after batch %d", a, k))
			}
		}
	}
}

// Files that are not the log's are left alone; those of an interrupted engine
// truncation are removed if they are unfinished, and refused otherwise.
func TestForeignFiles(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	good := h.after[len(h.after)-1]
	segment := good.segments()[1]
	fs := good.clone()
	fs["wal/README"] = []byte("x")
	fs["wal/00000000000000000000"] = []byte("x")
	fs["wal/0000000000000000000x"] = []byte("x")
	fs["notes.txt"] = []byte("x")
	fs[segment+".bak"] = []byte("x")
	fs[segment+".TEMP"] = []byte("x")
	fs[segment+".START.TEMP"] = []byte("x")
	fs["MANIFEST.tmp"] = []byte("x")
	if p, _, _ := h.verdict(t, dir, fs, "foreign files"); p != len(h.states)-1 {
		t.Errorf("position %d", p)
	}
	left := readFiles(t, dir)
	for _, name := range []string{"wal/README", "wal/00000000000000000000", "wal/0000000000000000000x", "notes.txt", segment + ".bak"} {
		if _, ok := left[name]; !ok {
			t.Errorf("%s was removed", name)
		}
	}
	for _, name := range []string{segment + ".TEMP", segment + ".START.TEMP", "MANIFEST.tmp"} {
		if _, ok := left[name]; ok {
			t.Errorf("%s was left", name)
		}
	}
	for _, suffix := range []string{".START", ".END"} {
		fs := good.clone()
		fs[segment+suffix] = good[segment]
		h.mustBeCorrupt(t, dir, fs, segment+suffix, suffix)
	}
	// A segment that begins where none should, and holds nothing that anybody
	// has acknowledged: the names of one sync may survive a power cut in any
	// order.
	fs = good.clone()
	fs["wal/00000000000000000900"] = []byte{}
	if p, _, _ := h.verdict(t, dir, fs, "a stray segment"); p != len(h.states)-1 {
		t.Errorf("position %d", p)
	}
	if _, ok := readFiles(t, dir)["wal/00000000000000000900"]; ok {
		t.Error("the stray segment was left")
	}
}

// A creation that a crash cut short at any point is begun again.
func TestInterruptedCreation(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{})
	mustClose(t, w)
	whole := readFiles(t, dir)
	if len(whole) != 4 {
		t.Fatalf("%d files", len(whole))
	}
	for _, names := range [][]string{{}, {"LOCK"}, {"LOCK", "wal/00000000000000000001"}, {"LOCK", "wal/00000000000000000001", "MARK"}} {
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

// Bits that turn while the log is open are noticed by the read.
func TestDamageUnderOpenLog(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	good := h.after[len(h.after)-1]
	good.write(t, dir)
	w := mustOpen(t, dir, h.options)
	defer mustClose(t, w)
	want := map[[2]uint64]string{}
	for _, g := range w.Groups() {
		b := w.Bounds(g)
		for i := b.First; i <= b.Last; i++ {
			e, err := w.Entry(g, i)
			if err != nil {
				t.Fatal(err)
			}
			want[[2]uint64{g, i}] = string(e.Data)
		}
	}
	found := 0
	check := func(path string) (bad int) {
		for k, data := range want {
			e, err := w.Entry(k[0], k[1])
			es, rangeErr := w.Entries(k[0], k[1], k[1]+1, 0)
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
			if !errors.As(err, &c) || c.Path != path || c.Index != k[1] || c.Offset < 0 {
				t.Fatalf("entry %v: %v", k, err)
			}
			bad++
		}
		return bad
	}
	for _, name := range good.segments() {
		path := filepath.Join(dir, name)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for at, b := range good[name] {
			if _, err := f.WriteAt([]byte{b ^ 1<<(at%8)}, int64(at)); err != nil {
				t.Fatal(err)
			}
			n := check(path)
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
		check(path)
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
	segments := good.segments()
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
	if len(records) != len(h.states)-1 || len(r.Segments) != len(segments) || len(r.Groups) != 3 {
		t.Errorf("%d records, %d segments, %d groups", len(records), len(r.Segments), len(r.Groups))
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
	torn[tail] = good[tail][:len(good[tail])-1]
	torn[segments[0]+".TEMP"] = []byte("x")
	torn.write(t, dir)
	r, err = raftlog.Inspect(dir)
	if err != nil || len(r.Damage) > 0 || r.Torn == nil || len(r.Leftover) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	same(torn)
	_, _, repaired := h.verdict(t, dir, torn, "torn")
	if len(repaired) != 1 || repaired[0] != *r.Torn {
		t.Errorf("inspect says %+v, open %+v", r.Torn, repaired)
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
