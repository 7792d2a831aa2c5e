package main

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
)

// TestLogRepair damages a record of group 7 and ends the log before it.
func TestLogRepair(t *testing.T) {
	dir := writtenLog(t)
	if out := must(t, "log", "repair", dir); !strings.Contains(out, "nothing to repair") {
		t.Errorf("a good log: %s", out)
	}
	segments, records := layers(t, dir)
	if len(segments) < 3 {
		t.Fatalf("%d segments are too few for this test", len(segments))
	}
	first := 0 // the first record of the second segment
	for records[first].Path != segments[1].Path {
		first++
	}
	change(t, segments[1].Path, func(b []byte) []byte { b[records[first].Offset+20] ^= 4; return b })
	before := contents(t, dir)
	var o repairOutput
	if err := json.Unmarshal([]byte(must(t, "log", "repair", dir, "-dry-run", "-json")), &o); err != nil {
		t.Fatal(err)
	}
	lost := uint64(len(records) - first)
	if !o.Damaged || o.Repaired || o.Path != segments[1].Path || o.Offset != 0 || o.Records != lost || o.Segments != len(segments)-2 ||
		len(o.Lost) != 1 || o.Lost[0].Group != 7 || o.Lost[0].Last != 46 {
		t.Errorf("%+v, and %d records should be lost", o, lost)
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Fatal("-dry-run has changed something")
	}
	out := must(t, "log", "repair", dir)
	for _, want := range []string{"the log was ended at offset 0 of " + segments[1].Path, "44 to 46"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := must(t, "log", "verify", dir); !strings.Contains(out, "every byte is good") {
		t.Error(out)
	}
	if r, err := raftlog.Inspect(dir); err != nil || r.Last != records[first-1].WALIndex {
		t.Errorf("the log ends at record %d, %v, and %d was the last good one", r.Last, err, records[first-1].WALIndex)
	}
	if o := ballast(t, "log", "repair", t.TempDir()); o.code != exitFailed || !strings.Contains(o.err, "there is no Ballast log") {
		t.Errorf("an empty directory: exit code %d, %s", o.code, o.err)
	}
}
