package log_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
)

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
			s.Good+s.Ahead != s.Size || closed != (s.Ahead == 0) {
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
