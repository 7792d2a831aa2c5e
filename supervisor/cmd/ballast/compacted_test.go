package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// compactedLog is a log whose first segments are gone: a checkpoint stands for
// them. Segment is where its first record lies now, and checkpoint the number of
// that record.
func compactedLog(t *testing.T, dir string) (segment string, checkpoint raftlog.RecordReport) {
	t.Helper()
	w, err := raftlog.Open(dir, raftlog.Options{SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	do := func(_ uint64, err error) {
		t.Helper()
		if err == nil {
			_, err = w.Sync()
		}
		for again := false; err == nil && w.Due(); {
			if again, err = w.Maintain(); err == nil && again {
				_, err = w.Sync()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	large := make([]byte, 40<<10)
	for i := uint64(1); i <= 12; i++ {
		do(w.Append(3, []messages.Entry{{Term: 1, Data: large}}, &messages.HardState{Term: 1, Vote: 2, Commit: i - 1}))
		if i%4 == 0 {
			do(w.TruncateBefore(3, i))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) {
		if r.Kind == "checkpoint" {
			checkpoint = r
		}
	})
	if err != nil || len(r.Damage) > 0 || r.Floor == 1 || checkpoint.WALIndex == 0 {
		t.Fatalf("%+v, %+v, %v", r, checkpoint, err)
	}
	return r.Segments[0].Path, checkpoint
}

// TestLogVerifyMark tells of a mark that is not good: as a warning where the next
// start mends it, as damage where it refuses.
func TestLogVerifyMark(t *testing.T) {
	other := t.TempDir()
	compactedLog(t, other)
	old, err := os.ReadFile(filepath.Join(other, "MARK"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		harm    func(mark string) error
		harmful bool
		want    []string
	}{
		{"changed", func(mark string) error { return flipped(mark, 40) }, false, []string{"note: log: MARK fails its checksum"}},
		{"empty", func(mark string) error { return os.Truncate(mark, 0) }, false, []string{"note: log: MARK fails its checksum"}},
		{"missing", os.Remove, true, []string{"DAMAGE: log: corrupt: MARK: the file is missing", "note: log: MARK only tells", "00000006"}},
		{"of another log", func(mark string) error { return os.WriteFile(mark, old, 0o644) }, true,
			[]string{"DAMAGE: log: corrupt: MARK at offset 16: the mark belongs to another store", "note: log: MARK only tells", "00000006"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			compactedLog(t, dir)
			mark := filepath.Join(dir, "MARK")
			if err := c.harm(mark); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			o := ballast(t, "log", "verify", dir)
			for _, want := range c.want {
				if want = strings.Replace(want, "MARK", mark, 1); !strings.Contains(o.out, want) {
					t.Errorf("no %q", want)
				}
			}
			var r logDirectoryOutput
			if err := json.Unmarshal([]byte(ballast(t, "log", "verify", "-json", dir).out), &r); err != nil {
				t.Fatal(err)
			}
			if (o.code == exitFailed) != c.harmful || r.OK == c.harmful || r.Log.MarkOK || len(r.Notes) != 1 || len(r.Groups) != 1 || r.Groups[0].Last != 12 {
				t.Errorf("exit code %d, %+v", o.code, r)
			}
			if !maps.Equal(before, contents(t, dir)) {
				t.Error("verify has changed something")
			}
			out := must(t, "log", "repair", "-dry-run", dir)
			if !maps.Equal(before, contents(t, dir)) {
				t.Error("-dry-run has changed something")
			}
			if strings.Contains(out, "the mark would be made anew") != c.harmful {
				t.Error(out)
			}
			if out := must(t, "log", "repair", dir); strings.Contains(out, "the mark was made anew") != c.harmful {
				t.Error(out)
			}
			w, err := raftlog.Open(dir, raftlog.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if b := w.Bounds(3); b.First != 12 || b.Last != 12 || b.HardState.Vote != 2 {
				t.Errorf("%+v", b)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if out := must(t, "log", "verify", "-json", dir); !strings.Contains(out, `"mark_ok":true`) {
				t.Error(out)
			}
		})
	}
}

func flipped(path string, offset int64) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[offset] ^= 4
	return os.WriteFile(path, b, 0o644)
}

// TestLogRepairImpossible says what is left to do where the log cannot be cut,
// and changes nothing.
func TestLogRepairImpossible(t *testing.T) {
	other := t.TempDir()
	compactedLog(t, other)
	for _, c := range []struct {
		name string
		harm func(dir, segment string, checkpoint raftlog.RecordReport) error
		want string
	}{
		{"the first record", func(_, segment string, _ raftlog.RecordReport) error { return flipped(segment, 6) }, "the log ends before the checkpoint at record"},
		{"the checkpoint", func(_, _ string, r raftlog.RecordReport) error { return flipped(r.Path, r.Offset+6) }, "bad checksum"},
		{"the first segment is gone", func(_, segment string, _ raftlog.RecordReport) error { return os.RemoveAll(filepath.Dir(segment)) }, "the segment is missing"},
		{"the checkpoint's is gone", func(_, _ string, r raftlog.RecordReport) error { return os.RemoveAll(filepath.Dir(r.Path)) }, "the segment is missing"},
		{"the manifest", func(dir, _ string, _ raftlog.RecordReport) error { return flipped(filepath.Join(dir, "MANIFEST"), 40) }, "MANIFEST at offset 0: bad checksum"},
		{"the manifest is gone", func(dir, _ string, _ raftlog.RecordReport) error { return os.Remove(filepath.Join(dir, "MANIFEST")) }, "MANIFEST: the file is missing"},
		// It makes the mark that of another log, and every record bad.
		{"the manifest of another log", func(dir, _ string, _ raftlog.RecordReport) error {
			b, err := os.ReadFile(filepath.Join(other, "MANIFEST"))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "MANIFEST"), b, 0o644)
		}, "bad checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			segment, checkpoint := compactedLog(t, dir)
			if err := c.harm(dir, segment, checkpoint); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			for _, flags := range [][]string{{"-dry-run"}, nil} {
				o := ballast(t, append([]string{"log", "repair", dir}, flags...)...)
				for _, want := range []string{c.want, "The log cannot be ended before this damage", "Put back a copy of\n" + dir} {
					if o.code != exitFailed || o.out != "" || !strings.Contains(o.err, want) {
						t.Errorf("exit code %d, and no %q in %s", o.code, want, o.err)
					}
				}
			}
			if !maps.Equal(before, contents(t, dir)) {
				t.Error("something was changed")
			}
		})
	}
}

// TestLogRepairOfAnotherManifest does not cut a log without compacted records for a
// manifest that is not its own.
func TestLogRepairOfAnotherManifest(t *testing.T) {
	dir, other := writtenLog(t), writtenLog(t)
	b, err := os.ReadFile(filepath.Join(other, "MANIFEST"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	if o := ballast(t, "log", "repair", dir); o.code != exitFailed || !strings.Contains(o.err, "the mark belongs to another store; and ") {
		t.Errorf("exit code %d, %s", o.code, o.err)
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("something was changed")
	}
}

// TestLogRepairAdvice follows what a failed repair says, with the directory of a
// service.
func TestLogRepairAdvice(t *testing.T) {
	dir := library(t)
	want := must(t, "scan", dir, "-json")
	must(t, "snapshot", dir)
	if err := os.Remove(filepath.Join(dir, logDir, "MANIFEST")); err != nil {
		t.Fatal(err)
	}
	o := ballast(t, "log", "repair", dir)
	for _, part := range []string{logDir, kvDir} {
		path := filepath.Join(dir, part)
		if o.code != exitFailed || !strings.Contains(o.err, path) {
			t.Errorf("exit code %d, and nothing about %s in %s", o.code, path, o.err)
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
	}
	mustRead(t, "43\n", "load", dir, "-name", "m")
	got := must(t, "scan", dir, "-json")
	for line := range strings.Lines(want + `{"key":"line/m/000000000001","value":43}` + "\n") {
		if !strings.Contains(got, line) {
			t.Errorf("after the advice there is no %s", line)
		}
	}
	must(t, "verify", dir)
}
