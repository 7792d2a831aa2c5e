package snapshot_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// indexes returns the indexes that the ids name.
func indexes(t testing.TB, ids []string) (got []uint64) {
	t.Helper()
	for _, id := range ids {
		info, err := snapshot.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Index)
	}
	return got
}

func list(t testing.TB, d snapshot.Store, group uint64) (got []uint64) {
	t.Helper()
	infos, _, err := d.List(group)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		got = append(got, info.Index)
	}
	return got
}

// Five snapshots, one hour apart, indexes 1 to 5, of one size; the newest is
// half an hour old.
func TestCleanup(t *testing.T) {
	size := int64(0)
	for _, c := range []struct {
		name      string
		retention func() messages.Retention
		damage    []uint64 // a block of these
		cut       []uint64 // these cut short
		open      []uint64
		removed   []uint64
		corrupt   bool // the error names damage
	}{
		{name: "zero keeps all", retention: func() messages.Retention { return messages.Retention{} }},
		{name: "keep 1", retention: func() messages.Retention { return messages.Retention{Keep: 1} }, removed: []uint64{1, 2, 3, 4}},
		{name: "keep 3", retention: func() messages.Retention { return messages.Retention{Keep: 3} }, removed: []uint64{1, 2}},
		{name: "keep 9", retention: func() messages.Retention { return messages.Retention{Keep: 9} }},
		{name: "age 2h", retention: func() messages.Retention { return messages.Retention{MaxAge: 2 * time.Hour} }, removed: []uint64{1, 2, 3}},
		{name: "age 1ns keeps the newest", retention: func() messages.Retention { return messages.Retention{MaxAge: 1} }, removed: []uint64{1, 2, 3, 4}},
		{name: "bytes of two", retention: func() messages.Retention { return messages.Retention{MaxBytes: 2 * size} }, removed: []uint64{1, 2, 3}},
		{name: "bytes of less than two", retention: func() messages.Retention { return messages.Retention{MaxBytes: 2*size - 1} }, removed: []uint64{1, 2, 3, 4}},
		{name: "one byte keeps the newest", retention: func() messages.Retention { return messages.Retention{MaxBytes: 1} }, removed: []uint64{1, 2, 3, 4}},
		{name: "any bound", retention: func() messages.Retention {
			return messages.Retention{Keep: 4, MaxAge: 3 * time.Hour, MaxBytes: 9 * size}
		}, removed: []uint64{1, 2}},
		{name: "open ones stay", retention: func() messages.Retention { return messages.Retention{Keep: 1} }, open: []uint64{1, 3}, removed: []uint64{2, 4}},
		{name: "newest damaged", retention: func() messages.Retention { return messages.Retention{Keep: 1} }, damage: []uint64{5}, removed: []uint64{1, 2, 3}, corrupt: true},
		{name: "newest two damaged", retention: func() messages.Retention { return messages.Retention{Keep: 2} }, damage: []uint64{5}, cut: []uint64{4}, removed: []uint64{1}, corrupt: true},
		{name: "an old one cut stays for the operator", retention: func() messages.Retention { return messages.Retention{Keep: 1} }, cut: []uint64{2}, removed: []uint64{1, 3, 4}, corrupt: true},
		{name: "all damaged", retention: func() messages.Retention { return messages.Retention{Keep: 1} }, damage: []uint64{1, 2, 3, 4, 5}, corrupt: true},
		{name: "the oldest alone is good", retention: func() messages.Retention { return messages.Retention{Keep: 1, MaxAge: 1, MaxBytes: 1} }, damage: []uint64{2, 3, 4, 5}, corrupt: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir()
			now := newClock()
			d := open(t, path, snapshot.Options{BlockBytes: 512, Now: now.Now})
			var infos []messages.SnapshotInfo
			for i := range uint64(5) {
				infos = append(infos, save(t, d, 0, i+1, 1, nil, records(0, 2000)))
				now.now = now.now.Add(time.Hour)
			}
			now.now = now.now.Add(-time.Hour / 2)
			size = infos[0].FileBytes
			name := func(index uint64) string { return filepath.Join(path, infos[index-1].ID+".snap") }
			for _, i := range c.damage {
				b := read(t, name(i))
				b[300] ^= 1
				overwrite(t, name(i), b)
			}
			for _, i := range c.cut {
				overwrite(t, name(i), read(t, name(i))[:300])
			}
			var readers []snapshot.Reader
			for _, i := range c.open {
				r, err := d.Open(infos[i-1].ID)
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, r)
			}
			before := list(t, d, 0)
			r := c.retention()
			r.DryRun = true
			would, err := d.Cleanup(0, r)
			if errors.Is(err, messages.ErrCorrupt) != c.corrupt || !slices.Equal(indexes(t, would), c.removed) || !slices.Equal(list(t, d, 0), before) {
				t.Errorf("dry run: %v %v, left %v", indexes(t, would), err, list(t, d, 0))
			}
			r.DryRun = false
			removed, err := d.Cleanup(0, r)
			if errors.Is(err, messages.ErrCorrupt) != c.corrupt || err != nil && !c.corrupt || !slices.Equal(removed, would) {
				t.Errorf("removed %v, would have removed %v: %v", removed, would, err)
			}
			want := slices.DeleteFunc(before, func(i uint64) bool { return slices.Contains(c.removed, i) })
			if got := list(t, d, 0); !slices.Equal(got, want) {
				t.Errorf("left %v, want %v", got, want)
			}
			if again, _ := d.Cleanup(0, r); len(again) != 0 {
				t.Errorf("removed %v when repeated", again)
			}
			for _, r := range readers {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	d := open(t, t.TempDir(), snapshot.Options{})
	if removed, err := d.Cleanup(9, messages.Retention{Keep: 1}); err != nil || len(removed) != 0 {
		t.Errorf("nothing to clean up: %v %v", removed, err)
	}
	for _, r := range []messages.Retention{{Keep: -1}, {MaxAge: -1}, {MaxBytes: -1}} {
		if _, err := d.Cleanup(0, r); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// Every fate, from one directory: what Plan says is what Cleanup does.
func TestPlan(t *testing.T) {
	path := t.TempDir()
	now := newClock()
	d := open(t, path, snapshot.Options{BlockBytes: 512, Now: now.Now})
	var infos []messages.SnapshotInfo
	for i := range uint64(8) {
		infos = append(infos, save(t, d, 0, i+1, 1, nil, records(0, 2000)))
		now.now = now.now.Add(time.Hour)
	}
	name := func(index int) string { return filepath.Join(path, infos[index-1].ID+".snap") }
	b := read(t, name(8))
	b[300] ^= 1 // only reading it finds that
	overwrite(t, name(8), b)
	overwrite(t, name(5), read(t, name(5))[:300])
	p := parse(read(t, name(4)))
	le.PutUint16(p.header[8:], 2)
	overwrite(t, name(4), p.seal())
	r, err := d.Open(infos[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	want := []messages.Fate{messages.StaysDamaged, messages.StaysNewestGood, messages.StaysWithinBounds, messages.StaysDamaged,
		messages.StaysIncompatible, messages.GoesByAge, messages.GoesByCount, messages.StaysOpen}
	retention := messages.Retention{Keep: 3, MaxAge: 4 * time.Hour}
	plan, err := d.Plan(0, retention)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range plan {
		info := infos[7-i]
		if p.Fate != want[i] || p.ID != info.ID || p.Index != info.Index || !p.Created.Equal(info.Created) ||
			(p.Err != nil) != (want[i] == messages.StaysDamaged || want[i] == messages.StaysIncompatible) {
			t.Errorf("index %d: %v (%v), want %v", p.Index, p.Fate, p.Err, want[i])
		}
	}
	if len(plan) != 8 || len(list(t, d, 0)) != 6 {
		t.Errorf("%d planned, left %v", len(plan), list(t, d, 0))
	}
	removed, err := d.Cleanup(0, retention)
	if !errors.Is(err, messages.ErrCorrupt) || !slices.Equal(indexes(t, removed), []uint64{2, 3}) {
		t.Errorf("removed %v, %v", indexes(t, removed), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if plan, err := d.Plan(0, messages.Retention{MaxBytes: 1}); err != nil || plan[len(plan)-1].Fate != messages.GoesByBytes {
		t.Errorf("%+v %v", plan, err)
	}
	// The newest two, of which one is bad and one cannot be understood: nothing
	// can be said to be the newest good one.
	p = parse(read(t, name(7)))
	le.PutUint16(p.header[8:], 2)
	overwrite(t, name(7), p.seal())
	plan, err = d.Plan(0, messages.Retention{Keep: 1})
	if err != nil || plan[1].Fate != messages.StaysIncompatible || plan[2].Fate != messages.StaysNewestGood {
		t.Errorf("%+v %v", plan, err)
	}
	if _, err := d.Plan(0, messages.Retention{Keep: -1}); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
	fates := map[string]bool{}
	for f := messages.StaysWithinBounds; f <= messages.GoesByBytes; f++ {
		fates[f.String()] = true
		if f.Goes() != (f >= messages.GoesByCount) || f.String() == "unknown" {
			t.Error(f)
		}
	}
	if len(fates) != int(messages.GoesByBytes)+1 {
		t.Error("two fates with one name")
	}
}

// The clock is set back, or is wrong for a while. Nothing goes that would have
// stayed had it been right, and the newest stays whatever its date.
func TestClock(t *testing.T) {
	start := newClock().now
	hours := func(n float64) time.Duration { return time.Duration(n * float64(time.Hour)) }
	for _, c := range []struct {
		name    string
		created []float64 // hours after the start, by index from 1
		now     float64
		removed []uint64 // by an age of two hours
	}{
		{"right", []float64{0, 1, 2, 3}, 3.5, []uint64{1, 2}},
		{"set back behind all", []float64{0, 1, 2, 3}, -100, nil},
		{"set back behind some", []float64{0, 1, 2, 3}, 2.5, []uint64{1}},
		{"was ahead for the second", []float64{0, 50, 2, 3}, 3.5, []uint64{1}},
		{"was ahead long ago", []float64{0, 50, 2, 3}, 60, []uint64{1, 2, 3}},
		{"was behind for the third", []float64{2, 2.5, -900, 3}, 3.5, nil},
		{"was behind for the third, long ago", []float64{2, 2.5, -900, 3}, 9, []uint64{1, 2, 3}},
		{"is behind since the second", []float64{100, -1, 0, 1}, 1.5, []uint64{2}},
		{"forward: the newest stays", []float64{0, 1, 2, 3}, 1e6, []uint64{1, 2, 3}},
	} {
		now := &clock{start.Add(hours(1000))}
		d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Now: now.Now})
		for i, at := range c.created {
			now.now = start.Add(hours(1000 + at))
			save(t, d, 0, uint64(i+1), 1, nil, records(0, 1000))
		}
		now.now = start.Add(hours(1000 + c.now))
		removed, err := d.Cleanup(0, messages.Retention{MaxAge: 2 * time.Hour})
		if err != nil || !slices.Equal(indexes(t, removed), c.removed) {
			t.Errorf("%s: removed %v, want %v: %v", c.name, indexes(t, removed), c.removed, err)
		}
		if _, _, err := d.Latest(0); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDelete(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	var infos []messages.SnapshotInfo
	for i := range uint64(4) {
		infos = append(infos, save(t, d, 0, i+1, 1, nil, records(i, 2000)))
	}
	name := func(i int) string { return filepath.Join(path, infos[i].ID+".snap") }
	conflict := func(what string, i int) {
		t.Helper()
		if err := d.Delete(infos[i].ID); !errors.Is(err, messages.ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(name(i)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	gone := func(what string, i int) {
		t.Helper()
		if err := d.Delete(infos[i].ID); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := d.Delete(infos[i].ID); !errors.Is(err, messages.ErrNotFound) {
			t.Errorf("%s, again: %v", what, err)
		}
	}
	r1, err := d.Open(infos[1].ID)
	if err != nil {
		t.Fatal(err)
	}
	r2, err := d.Open(infos[1].ID)
	if err != nil {
		t.Fatal(err)
	}
	conflict("open twice", 1)
	if err := r1.Close(); err != nil {
		t.Error(err)
	}
	conflict("open once", 1)
	if err := r2.Close(); err != nil {
		t.Error(err)
	}
	gone("closed", 1)
	// A block of the newest is bad: its header and footer do not know.
	b := read(t, name(3))
	b[300] ^= 1
	overwrite(t, name(3), b)
	gone("an old one, the one between is good", 0)
	conflict("the last good one, though a newer one looks good", 2)
	gone("the damaged one", 3)
	conflict("the only one", 2)
	// The last one, damaged: nothing is lost by it.
	overwrite(t, name(2), nil)
	gone("damaged beyond reading", 2)
}

// Rot changes neither a file's length nor its time of modification: what is
// relied on is read, before anything goes.
func TestRotIsFoundBeforeRemoval(t *testing.T) {
	for _, how := range []string{"delete", "cleanup"} {
		path := t.TempDir()
		d := open(t, path, snapshot.Options{BlockBytes: 512})
		old := save(t, d, 0, 1, 1, nil, records(0, 2000))
		newest := save(t, d, 0, 2, 1, nil, records(0, 2000))
		if _, err := d.Verify(newest.ID); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(path, newest.ID+".snap")
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		b := read(t, name)
		b[300] ^= 1
		overwrite(t, name, b)
		if err := os.Chtimes(name, st.ModTime(), st.ModTime()); err != nil {
			t.Fatal(err)
		}
		if how == "delete" {
			if err := d.Delete(old.ID); !errors.Is(err, messages.ErrConflict) {
				t.Errorf("deleted the last good one: %v", err)
			}
		} else if _, err := d.Cleanup(0, messages.Retention{Keep: 1}); !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("cleaned up: %v", err)
		}
		if info, damaged, err := d.Latest(0); err != nil || info.ID != old.ID || len(damaged) != 1 {
			t.Errorf("%s: the latest good one is %+v, %v, %v", how, info, damaged, err)
		}
	}
}

func ExampleDir_Cleanup() {
	path, err := os.MkdirTemp("", "snapshots")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(path)
	d, err := snapshot.OpenDir(path, snapshot.Options{})
	if err != nil {
		panic(err)
	}
	defer d.Close()
	for index := range uint64(5) {
		w, err := d.Create(0, 100*(index+1), 1, nil)
		if err != nil {
			panic(err)
		}
		if _, err := w.Finish(); err != nil {
			panic(err)
		}
	}
	removed, err := d.Cleanup(0, messages.Retention{Keep: 2})
	fmt.Println(len(removed), "removed,", err)
	kept, _, _ := d.List(0)
	for _, info := range kept {
		fmt.Println("kept index", info.Index)
	}
	// Output:
	// 3 removed, <nil>
	// kept index 500
	// kept index 400
}

// removingDisk calls back before each removal.
type removingDisk struct {
	durable.Disk
	before func(path string)
}

func (d *removingDisk) Remove(path string) error {
	if d.before != nil {
		d.before(path)
	}
	return d.Disk.Remove(path)
}

// One that is opened after the decision that it goes, and before its turn, stays.
func TestOpenedDuringCleanup(t *testing.T) {
	disk := &removingDisk{Disk: durable.OS}
	d := open(t, t.TempDir(), snapshot.Options{Disk: disk})
	var ids []string
	for i := range uint64(3) {
		ids = append(ids, save(t, d, 0, i+1, 1, nil, []byte("state")).ID)
	}
	var r snapshot.Reader
	disk.before = func(path string) {
		if r != nil || filepath.Base(path) != ids[0]+".snap" {
			return
		}
		var err error
		if r, err = d.OpenAt(ids[1]); err != nil {
			t.Error(err)
		}
	}
	removed, err := d.Cleanup(0, messages.Retention{Keep: 1})
	if err != nil || !slices.Equal(removed, ids[:1]) {
		t.Errorf("removed %q: %v", removed, err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "state" {
		t.Errorf("%q, %v", got, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if removed, err = d.Cleanup(0, messages.Retention{Keep: 1}); err != nil || !slices.Equal(removed, ids[1:2]) {
		t.Errorf("once it is closed: removed %q: %v", removed, err)
	}
}
