package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

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
