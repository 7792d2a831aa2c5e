package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// writtenLog is a log with records of every kind that has a directory to
// itself. The large entries make several segments.
func writtenLog(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
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
	do(w.Append(0, []messages.Entry{{Term: 1, Data: []byte("a")}, {Term: 1}, {Term: 2}}, &messages.HardState{Term: 2, Vote: 3, Commit: 1}))
	do(w.SetStable(7, "name", []byte("value")))
	do(w.Reset(7, 41, 5))
	for range 5 {
		do(w.Append(7, []messages.Entry{{Term: 6, Data: large}}, nil))
	}
	do(w.TruncateFrom(0, 3))
	do(w.TruncateBefore(0, 2))
	do(w.Append(0, nil, &messages.HardState{Term: 4, Commit: 1}))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// dumped is the output of log dump without what depends on the layout of the
// files: their names, offsets and sizes, and which record began a sync.
func dumped(s string) string {
	s = regexp.MustCompile(`(?m)^( *\w+)  \S+ +\w+ +\w+  `).ReplaceAllString(s, "$1  ")
	s = strings.NewReplacer("; durable before", "", "durable before", "").Replace(s)
	return regexp.MustCompile(`(?m) +$`).ReplaceAllString(s, "")
}

func TestLogDump(t *testing.T) {
	dir := writtenLog(t)
	const heading = "record  kind            group  index     term\n"
	const groupZero = heading +
		"     1  append              0  1 to 3       1  hard state: term 2, vote 3, commit 1\n"
	for _, c := range []struct{ flags, want string }{
		{"", groupZero +
			"     2  stable              7  -            0  \"name\"\n" +
			"     3  reset               7  41           5\n" +
			"     4  append              7  42           6\n" +
			"     5  append              7  43           6\n" +
			"     6  append              7  44           6\n" +
			"     7  append              7  45           6\n" +
			"     8  append              7  46           6\n" +
			"     9  truncateFrom        0  3            0\n" +
			"    10  truncateBefore      0  2            1\n" +
			"    11  append              0  -            0  hard state: term 4, vote 0, commit 1\n"},
		{"-group 0 -to 9", groupZero + "     9  truncateFrom        0  3            0\n"},
		{"-group 8", heading},
		{"-from 3 -to 4", heading + "     3  reset               7  41           5\n     4  append              7  42           6\n"},
		{"-from 12", heading},
	} {
		if got := dumped(must(t, strings.Fields("log dump "+c.flags+" "+dir)...)); got != c.want {
			t.Errorf("log dump %s:\n%s\nwant\n%s", c.flags, got, c.want)
		}
	}
}

// dumpLine is what a line of log dump -json may be.
type dumpLine struct {
	recordOutput
	Problem *problem
	Torn    *tornOutput
}

func dumpLines(t *testing.T, out string) (lines []dumpLine) {
	t.Helper()
	for line := range strings.Lines(out) {
		var l dumpLine
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines
}

func TestLogDumpJSON(t *testing.T) {
	dir := writtenLog(t)
	var want []raftlog.RecordReport
	if _, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) { want = append(want, r) }); err != nil {
		t.Fatal(err)
	}
	lines := dumpLines(t, must(t, "log", "dump", dir, "-json"))
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d", len(lines), len(want))
	}
	durableBefore := false
	for i, r := range want {
		if got, _ := json.Marshal(lines[i].recordOutput); !bytes.Equal(got, must2(json.Marshal(recordJSON(r)))) {
			t.Errorf("line %d: %s, want %+v", i, got, r)
		}
		durableBefore = durableBefore || lines[i].DurableBefore
	}
	if r := lines[0]; r.Record != 1 || r.Kind != "append" || r.First != 1 || r.Last != 3 || r.Entries != 3 ||
		*r.HardState != (hardStateOutput{2, 3, 1}) || r.Bytes <= 0 {
		t.Errorf("the first line: %+v", r)
	}
	if r := lines[1]; r.Name != "name" || r.Group != 7 || r.HardState != nil {
		t.Errorf("the second line: %+v", r)
	}
	if !durableBefore {
		t.Error("no record says what was durable before it")
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestLogDumpOfService finds the log below a service's directory, also for
// inspect -records, which prints the same.
func TestLogDumpOfService(t *testing.T) {
	dir := library(t)
	whole := must(t, "log", "dump", dir)
	if strings.Count(whole, "\n") < 9 || !strings.Contains(whole, "append") {
		t.Errorf("the dump of a service:\n%s", whole)
	}
	for _, args := range [][]string{{"log", "dump", filepath.Join(dir, logDir)}, {"log", "dump", "-dir", dir}, {"inspect", "-records", dir}} {
		if got := must(t, args...); got != whole {
			t.Errorf("%q differs:\n%s", args, got)
		}
	}
	if out := must(t, "log", "verify", dir); !strings.Contains(out, "every byte is good: 8 entries") {
		t.Error("log verify does not tell how many entries there are")
	}
}

// layers are the segments of a log and their records.
func layers(t *testing.T, dir string) (segments []raftlog.SegmentReport, records []raftlog.RecordReport) {
	t.Helper()
	r, err := raftlog.InspectRecords(dir, func(r raftlog.RecordReport) { records = append(records, r) })
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Segments) < 3 {
		t.Fatalf("%d segments are too few for this test", len(r.Segments))
	}
	return r.Segments, records
}

func change(t *testing.T, path string, f func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, f(b), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestLogDamage damages a log in several ways, and wants dump and verify to say
// where, dump in the right place, and to change nothing.
func TestLogDamage(t *testing.T) {
	for _, c := range []struct {
		name string
		// damage says which file it has damaged, at least at which offset, and
		// how many records lie before it.
		damage func(t *testing.T, dir string) (path string, offset int64, before int)
	}{
		{"flipped bit", func(t *testing.T, dir string) (string, int64, int) {
			_, records := layers(t, dir)
			r := records[4] // in the second segment
			change(t, r.Path, func(b []byte) []byte { b[r.Offset+r.Size/2] ^= 4; return b })
			return r.Path, r.Offset, 4
		}},
		{"first record", func(t *testing.T, dir string) (string, int64, int) {
			_, records := layers(t, dir)
			r := records[0]
			change(t, r.Path, func(b []byte) []byte { b[r.Offset+r.Size-1] ^= 1; return b })
			return r.Path, r.Offset, 0
		}},
		{"last record", func(t *testing.T, dir string) (string, int64, int) {
			_, records := layers(t, dir)
			r := records[len(records)-1]
			change(t, r.Path, func(b []byte) []byte { b[r.Offset+r.Size-1] ^= 1; return b })
			return r.Path, r.Offset, len(records) - 1
		}},
		{"cut", func(t *testing.T, dir string) (string, int64, int) {
			_, records := layers(t, dir)
			r := records[len(records)-2]
			change(t, r.Path, func(b []byte) []byte { return b[:r.Offset+1] })
			return r.Path, r.Offset, len(records) - 2
		}},
		{"missing segment", func(t *testing.T, dir string) (string, int64, int) {
			segments, _ := layers(t, dir)
			if err := os.Remove(segments[1].Path); err != nil {
				t.Fatal(err)
			}
			return segments[1].Path, -1, int(segments[0].Last)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := writtenLog(t)
			path, offset, before := c.damage(t, dir)
			files := contents(t, dir)

			o := ballast(t, "log", "dump", dir)
			if o.code != exitFailed || !strings.Contains(o.out, "DAMAGE: log: corrupt: "+path) || !strings.Contains(o.err, "log dump "+dir) {
				t.Errorf("dump: exit code %d, want 1 and the damage", o.code)
			}
			at := -1
			lines := dumpLines(t, ballast(t, "log", "dump", dir, "-json", "-group", "99").out)
			if len(lines) == 0 || lines[0].Problem == nil {
				t.Errorf("a group that has no records: %+v, want the damage alone", lines)
			}
			for i, l := range dumpLines(t, ballast(t, "log", "dump", dir, "-json").out) {
				if p := l.Problem; p != nil && at < 0 {
					at = i
					if p.Path != path || p.Offset != offset || p.Store != logDir {
						t.Errorf("%+v, want %s at %d", p, path, offset)
					}
				}
			}
			if at != before {
				t.Errorf("the damage is on line %d, want %d", at, before)
			}

			o = ballast(t, "log", "verify", dir)
			if o.code != exitFailed || !strings.Contains(o.out, "DAMAGE: log: corrupt: "+path) || strings.Contains(o.out, "every byte is good") {
				t.Errorf("verify: exit code %d, want 1 and the damage", o.code)
			}
			var v logDirectoryOutput
			if err := json.Unmarshal([]byte(ballast(t, "log", "verify", dir, "-json").out), &v); err != nil {
				t.Fatal(err)
			}
			if v.OK || len(v.Problems) == 0 || v.Problems[0].Path != path || v.Problems[0].Offset != offset {
				t.Errorf("%+v", v)
			}
			if !maps.Equal(files, contents(t, dir)) {
				t.Error("dump or verify has changed something")
			}
		})
	}
}

func TestLogDumpData(t *testing.T) {
	dir := writtenLog(t)
	out := must(t, "log", "dump", dir, "-data")
	for _, want := range []string{`1/1  type 0  1 B  "a"`, `3/2  type 0  0 B  ""`, `46/6  type 0  41.0 kB  "\x00\x00`, "…"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	entries := 0
	for _, line := range strings.Split(strings.TrimSpace(must(t, "log", "dump", dir, "-data", "-json")), "\n") {
		var r recordOutput
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Data) != r.Entries {
			t.Errorf("record %d: %d entries, %d shown", r.Record, r.Entries, len(r.Data))
		}
		for i, e := range r.Data {
			if e.Index != r.First+uint64(i) || r.Group == 7 && len(e.Data) != 40<<10 {
				t.Errorf("record %d: entry %d with %d bytes", r.Record, e.Index, len(e.Data))
			}
			entries++
		}
	}
	if entries != 8 {
		t.Errorf("%d entries", entries)
	}
}

// TestLogTorn has something behind the last record that was never acknowledged.
func TestLogTorn(t *testing.T) {
	dir := writtenLog(t)
	segments, records := layers(t, dir)
	last := segments[len(segments)-1]
	change(t, last.Path, func(b []byte) []byte { return append(b[:last.Good:last.Good], "\x40torn"...) })
	o := ballast(t, "log", "dump", dir)
	if want := "TORN: " + last.Path; o.code != exitOK || !strings.Contains(o.out, want) {
		t.Errorf("exit code %d, want 0 and %q", o.code, want)
	}
	lines := dumpLines(t, must(t, "log", "dump", dir, "-json"))
	if torn := lines[len(lines)-1].Torn; len(lines) != len(records)+1 || torn == nil || torn.Path != last.Path || torn.Offset != last.Good || torn.Bytes != 5 {
		t.Errorf("%d lines, the last %+v", len(lines), lines[len(lines)-1])
	}
	if out := must(t, "log", "verify", dir); !strings.Contains(out, "note: log: "+last.Path) || !strings.Contains(out, "every byte is good") {
		t.Error("verify does not tell of the torn write")
	}
}

func TestLogVerify(t *testing.T) {
	dir := writtenLog(t)
	out := must(t, "log", "verify", dir)
	for _, want := range []string{"2 to 2", "term 4, vote 0, commit 1", "42 to 46", "every byte is good: 8 entries", "truncateBefore 1"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	var v logDirectoryOutput
	if err := json.Unmarshal([]byte(must(t, "log", "verify", dir, "-json")), &v); err != nil {
		t.Fatal(err)
	}
	if !v.OK || v.Dir != dir || len(v.Groups) != 2 || v.Groups[1] != (logGroupOutput{7, 42, 46, 6, 41}) || v.Log.Records != 11 || v.Problems == nil {
		t.Errorf("%+v", v)
	}
}

func TestLogInterrupted(t *testing.T) {
	dir := writtenLog(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errInterrupted)
	for _, c := range []string{"dump", "verify"} {
		if o := ballastWith(t, ctx, nil, "log", c, dir); o.code != exitInterrupted || o.out != "" {
			t.Errorf("log %s: exit code %d, want %d and no output", c, o.code, exitInterrupted)
		}
	}
}

// TestLogDumpFailingOutput ends with the error of its output, once.
func TestLogDumpFailingOutput(t *testing.T) {
	dir := writtenLog(t)
	errFull := errors.New("no room")
	d, err := readLogDirectory(context.Background(), dir, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{out: newOutput(failingWriter{errFull})}
	a.out.err = errFull
	for _, o := range []dumpOptions{{to: 100}, {to: 100, json: true}} {
		if err := d.dump(context.Background(), a, o); !errors.Is(err, errFull) {
			t.Errorf("%v, want %v", err, errFull)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
