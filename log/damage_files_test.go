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

// Repair does not take a log for an empty one because the manifest is that of
// another log: then no record passes its checksum, which looks like one torn
// write at the beginning, or like damage from there on.
func TestRepairWithAnotherManifest(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	other := smallHistory(t).after[0]
	for k, good := range h.after {
		for _, mark := range []bool{true, false} {
			fs := good.clone()
			fs["MANIFEST"] = other["MANIFEST"]
			if !mark {
				delete(fs, "MARK")
			}
			fs.write(t, dir)
			if cut, err := raftlog.Repair(dir, false, h.options); !errors.Is(err, messages.ErrCorrupt) {
				t.Fatalf("batch %d, with a mark %t: repaired, %+v, %v", k, mark, cut, err)
			}
			for _, name := range []string{"MANIFEST", "MARK"} {
				if err := os.WriteFile(filepath.Join(dir, name), good[name], 0o644); err != nil {
					t.Fatal(err)
				}
			}
			w, err := raftlog.Open(dir, h.options)
			if err != nil {
				t.Fatalf("batch %d, with a mark %t: %v", k, mark, err)
			}
			if got := mustDescribe(t, w); got != h.states[h.durable[k]] {
				t.Fatalf("batch %d, with a mark %t:\n%s", k, mark, got)
			}
			mustClose(t, w)
		}
	}
}

// Nor does Open, whatever its policy, if the mark is damaged as well and cannot
// say that there should be records.
func TestAnotherManifestBesideADamagedMark(t *testing.T) {
	h := smallHistory(t)
	dir := memory(t)
	other := smallHistory(t).after[0]
	for k, good := range h.after {
		for _, policy := range []raftlog.DamagePolicy{raftlog.RefuseDamage, raftlog.CutAtDamage} {
			fs := good.clone()
			fs["MANIFEST"], fs["MARK"] = other["MANIFEST"], slices.Clone(good["MARK"])
			fs["MARK"][40] ^= 1
			fs.write(t, dir)
			options := h.options
			options.Damage = policy
			if w, err := raftlog.Open(dir, options); !errors.Is(err, messages.ErrCorrupt) {
				t.Fatalf("batch %d, policy %d: opened with %+v, %v", k, policy, w.Bounds(0), err)
			}
			if cut, err := raftlog.Repair(dir, false, options); !errors.Is(err, messages.ErrCorrupt) {
				t.Fatalf("batch %d: repaired, %+v, %v", k, cut, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), good["MANIFEST"], 0o644); err != nil {
				t.Fatal(err)
			}
			w, err := raftlog.Open(dir, options) // a damaged mark alone costs nothing
			if err != nil {
				t.Fatalf("batch %d, policy %d: %v", k, policy, err)
			}
			if got := mustDescribe(t, w); got != h.states[h.durable[k]] {
				t.Fatalf("batch %d, policy %d:\n%s", k, policy, got)
			}
			mustClose(t, w)
		}
	}
}
