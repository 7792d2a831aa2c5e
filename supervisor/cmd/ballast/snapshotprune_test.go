package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/snapshot"
)

type prunedOutput struct {
	DryRun bool          `json:"dry_run"`
	Groups []prunedGroup `json:"groups"`
}

func pruned(t *testing.T, args ...string) (o prunedOutput, code int) {
	t.Helper()
	r := ballast(t, append([]string{"snapshot", "prune", "-json"}, args...)...)
	if err := json.Unmarshal([]byte(r.out), &o); err != nil {
		t.Fatal(err)
	}
	return o, r.code
}

func fates(g prunedGroup) (all []string) {
	for _, p := range g.Plan {
		all = append(all, p.Fate)
	}
	return all
}

func TestSnapshotPrune(t *testing.T) {
	for _, c := range []struct {
		flags string
		fates []string // of group 0, newest first
	}{
		{"-keep 2", []string{"stays: newest good one", "stays: within bounds", "goes: count"}},
		{"-keep 1", []string{"stays: newest good one", "goes: count", "goes: count"}},
		{"-max-age 3h30m", []string{"stays: newest good one", "stays: within bounds", "goes: age"}},
		{"-max-age 1m", []string{"stays: newest good one", "goes: age", "goes: age"}},
		{"-max-bytes 1", []string{"stays: newest good one", "goes: bytes", "goes: bytes"}},
		{"-keep 2 -max-bytes 1kB", []string{"stays: newest good one", "goes: bytes", "goes: count"}},
		{"-max-bytes 1GB -keep 9", []string{"stays: newest good one", "stays: within bounds", "stays: within bounds"}},
	} {
		t.Run(c.flags, func(t *testing.T) {
			dir, infos := shelf(t)
			before := contents(t, dir)
			args := append([]string{dir}, strings.Fields(c.flags)...)
			plan, code := pruned(t, append(args, "-dry-run")...)
			if code != exitOK || !plan.DryRun || len(plan.Groups) != 2 || !slices.Equal(fates(plan.Groups[0]), c.fates) || len(plan.Groups[0].Removed) != 0 {
				t.Fatalf("dry run: exit code %d, %+v, want %q", code, plan, c.fates)
			}
			if got := fates(plan.Groups[1]); !slices.Equal(got, c.fates[:1]) {
				t.Errorf("the only one of group 7: %q", got)
			}
			if !maps.Equal(before, contents(t, dir)) {
				t.Fatal("-dry-run has changed something")
			}
			done, code := pruned(t, args...)
			var want []string
			for i, f := range c.fates {
				if strings.HasPrefix(f, "goes") {
					want = append([]string{infos[2-i].ID}, want...)
				}
			}
			if code != exitOK || !slices.Equal(done.Groups[0].Removed, want) || !slices.Equal(fates(done.Groups[0]), c.fates) {
				t.Errorf("exit code %d, %+v, want %q removed", code, done, want)
			}
			if rows, _ := listed(t, dir); len(rows) != 4-len(want) {
				t.Errorf("%d are left", len(rows))
			}
		})
	}
}

func TestSnapshotPruneText(t *testing.T) {
	if out := must(t, "help", "snapshot", "prune"); strings.Contains(out, "default 0s") {
		t.Errorf("the help shows a default that there is none of:\n%s", out)
	}
	dir, infos := shelf(t)
	if out := must(t, "snapshot", "prune", dir, "-keep", "2", "-dry-run"); !strings.Contains(out, "goes: count") || !strings.Contains(out, "nothing was removed; "+bytesText(infos[0].FileBytes)+" would be freed") {
		t.Error("dry run")
	}
	out := must(t, "snapshot", "prune", dir, "-keep", "2", "-group", "0")
	if !strings.Contains(out, "removed "+infos[0].ID) || !strings.Contains(out, "1 snapshot removed, "+bytesText(infos[0].FileBytes)+" freed") || strings.Contains(out, infos[3].ID) {
		t.Error("prune of one group")
	}
}

// TestSnapshotPruneDamage removes nothing on the word of a damaged snapshot, and
// tells of it beside what it has done.
func TestSnapshotPruneDamage(t *testing.T) {
	dir, infos := shelf(t)
	change(t, fileOf(dir, infos[2]), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	for _, dry := range []bool{true, false} {
		args := []string{dir, "-keep", "1"}
		if dry {
			args = append(args, "-dry-run")
		}
		o, code := pruned(t, args...)
		g := o.Groups[0]
		if code != exitFailed || !strings.Contains(g.Error, "corrupt: "+fileOf(dir, infos[2])) || !slices.Equal(fates(g), []string{"stays: damaged", "stays: newest good one", "goes: count"}) {
			t.Errorf("dry %v: exit code %d, %+v", dry, code, g)
		}
		if removed := !dry; removed != slices.Equal(g.Removed, []string{infos[0].ID}) {
			t.Errorf("dry %v: removed %q", dry, g.Removed)
		}
	}
	// The damaged one can go, the last good one cannot.
	must(t, "snapshot", "delete", dir, infos[2].ID)
	if o := ballast(t, "snapshot", "delete", dir, infos[1].ID, "-force"); o.code != exitFailed || !strings.Contains(o.err, "the last good one of group 0") {
		t.Errorf("the last good one: exit code %d", o.code)
	}
	if rows, _ := listed(t, dir); len(rows) != 2 || rows[0].ID != infos[1].ID {
		t.Errorf("%+v are left", rows)
	}
}

func TestSnapshotDelete(t *testing.T) {
	dir, infos := shelf(t)
	if out := must(t, "snapshot", "delete", dir, infos[0].ID, infos[2].ID); out != "deleted "+infos[0].ID+"\ndeleted "+infos[2].ID+"\n" {
		t.Errorf("%q", out)
	}
	if rows, _ := listed(t, dir); len(rows) != 2 || rows[0].ID != infos[1].ID {
		t.Errorf("%+v are left", rows)
	}
}

// TestSnapshotDeleteAsksTheLog has snapshots that the store would give up one
// for the other, but the log goes on from one of them only.
func TestSnapshotDeleteAsksTheLog(t *testing.T) {
	own := func(*testing.T) []byte { return []byte("some other state") }
	data := func(t *testing.T) []byte { return kvState(t, 3) }
	beside := func(n uint64) func(uint64) uint64 { return func(uint64) uint64 { return n } }
	same := func(n uint64) uint64 { return n }
	for _, c := range []struct {
		name string
		// of a good snapshot beside the one that the log needs
		index func(needed uint64) uint64
		term  uint64 // beyond that of the other
		state func(t *testing.T) []byte
		args  []string
		// whether it goes if the log is not asked
		forced bool
	}{
		{"an older one", beside(1), 0, data, []string{"delete", "DIR", "NEEDED"}, true},
		{"one beyond the log", beside(1000), 0, data, []string{"delete", "DIR", "NEEDED"}, true},
		{"prune to one beyond the log", beside(1000), 0, data, []string{"prune", "DIR", "-keep", "1"}, true},
		{"one of another history", same, 1, data, []string{"delete", "DIR", "NEEDED"}, true},
		{"one of something else", same, 0, own, []string{"delete", "DIR", "NEEDED"}, false},
		{"prune to one of something else", same, 0, own, []string{"prune", "DIR", "-keep", "1"}, false},
		{"prune to one of something else, by age", same, 0, own, []string{"prune", "DIR", "-max-age", "1ns"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := library(t)
			needed := strings.Fields(must(t, "snapshot", dir, "-keep", "1"))[0]
			info, err := snapshot.ParseID(needed)
			if err != nil {
				t.Fatal(err)
			}
			other := keepOf(t, filepath.Join(dir, snapshotDir), info.Group, c.index(info.Index), info.Term+c.term, time.Now(), nil, c.state(t))
			args := []string{"snapshot"}
			for _, a := range c.args {
				args = append(args, strings.NewReplacer("DIR", dir, "NEEDED", needed).Replace(a))
			}
			before := contents(t, filepath.Join(dir, snapshotDir))
			if o := ballast(t, args...); o.code != exitFailed || !strings.Contains(o.err, errLogNeeds.Error()) {
				t.Errorf("exit code %d, want 1 and %q", o.code, errLogNeeds)
			}
			if !maps.Equal(before, contents(t, filepath.Join(dir, snapshotDir))) {
				t.Fatal("something is gone")
			}
			// With a damaged log it is not known, and refused.
			change(t, find(t, filepath.Join(dir, "log", "wal", "*", "0*1")), func(b []byte) []byte { b[len(b)/3] ^= 1; return b })
			if o := ballast(t, args...); o.code != exitFailed || !strings.Contains(o.err, "what the log holds is not known") {
				t.Errorf("a damaged log: exit code %d", o.code)
			}
			args = append(args, "-force")
			if !c.forced {
				if o := ballast(t, args...); o.code != exitFailed || !strings.Contains(o.err, errLastData.Error()) {
					t.Errorf("without the log: exit code %d, want 1 and %q", o.code, errLastData)
				}
				if rows, _ := listed(t, dir); len(rows) != 2 {
					t.Errorf("%d are left", len(rows))
				}
				return
			}
			must(t, args...)
			rows, _ := listed(t, dir)
			if ids := slices.Collect(func(yield func(string) bool) {
				for _, r := range rows {
					if !yield(r.ID) {
						return
					}
				}
			}); !slices.Equal(ids, []string{other.ID}) {
				t.Errorf("%q are left", ids)
			}
		})
	}
}

// TestSnapshotLastDataStays has copies of application data and something else in
// one group, newer and good, in a directory without a log.
func TestSnapshotLastDataStays(t *testing.T) {
	for _, args := range [][]string{{"delete", "DIR", "DATA"}, {"delete", "DIR", "DATA", "-force"}, {"prune", "DIR", "-keep", "1"}, {"prune", "DIR", "-keep", "2", "-force"}} {
		dir := t.TempDir()
		data := keepOf(t, dir, 0, 7, 1, time.Now(), nil, kvState(t, 3))
		keepOf(t, dir, 0, 8, 1, time.Now(), nil, []byte("some other state"))
		keepOf(t, dir, 0, 9, 1, time.Now(), nil, []byte("some other state"))
		full := []string{"snapshot"}
		for _, a := range args {
			full = append(full, strings.NewReplacer("DIR", dir, "DATA", data.ID).Replace(a))
		}
		if o := ballast(t, full...); o.code != exitFailed || !strings.Contains(o.err, errLastData.Error()) {
			t.Errorf("%q: exit code %d, want 1 and %q", args, o.code, errLastData)
		}
		if rows, _ := listed(t, dir); len(rows) != 3 {
			t.Errorf("%q: %d are left", args, len(rows))
		}
		// Another of the kind, and it can go.
		keepOf(t, dir, 0, 10, 1, time.Now(), nil, kvState(t, 3))
		must(t, full...)
		if rows, _ := listed(t, dir); slices.ContainsFunc(rows, func(r snapshotRow) bool { return r.ID == data.ID }) {
			t.Errorf("%q: it is still there", args)
		}
	}
}

// TestSnapshotDeleteAhead has a snapshot beyond the end of the log, which begins
// anew behind it, and one that the log does not reach: the first cannot go.
func TestSnapshotDeleteAhead(t *testing.T) {
	dir := library(t)
	first := strings.Fields(must(t, "snapshot", dir, "-keep", "1"))[0]
	info, err := snapshot.ParseID(first)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := filepath.Join(dir, snapshotDir)
	ahead := keepOf(t, snapshots, 0, 1000, info.Term, time.Now(), nil, kvState(t, 3))
	keepOf(t, snapshots, 0, 1, info.Term, time.Now(), nil, kvState(t, 3))
	must(t, "snapshot", "delete", dir, first, "-force")
	if o := ballast(t, "snapshot", "delete", dir, ahead.ID); o.code != exitFailed || !strings.Contains(o.err, errLogNeeds.Error()) {
		t.Errorf("exit code %d, want 1 and %q", o.code, errLogNeeds)
	}
	must(t, "restore", dir)

	// The log and the data are lost: one of something else is no help.
	ahead = keepOf(t, snapshots, 0, 2000, info.Term, time.Now(), nil, kvState(t, 3))
	must(t, "snapshot", "prune", dir, "-keep", "1", "-force")
	keepOf(t, snapshots, 0, 2001, info.Term, time.Now(), nil, []byte("some other state"))
	for _, name := range []string{logDir, kvDir} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if o := ballast(t, "snapshot", "delete", dir, ahead.ID); o.code != exitFailed || !strings.Contains(o.err, errLogNeeds.Error()) {
		t.Errorf("nothing else is left: exit code %d, want 1 and %q", o.code, errLogNeeds)
	}
}

// TestSnapshotPruneService prunes a service's snapshots as far as its log
// allows, and the service goes on.
func TestSnapshotPruneService(t *testing.T) {
	dir := library(t)
	for range 3 {
		mustRead(t, "1\n", "load", dir, "-name", "more")
		must(t, "snapshot", dir, "-keep", "5")
	}
	must(t, "snapshot", "prune", dir, "-keep", "1")
	if rows, _ := listed(t, dir); len(rows) != 1 {
		t.Errorf("%d are left", len(rows))
	}
	must(t, "verify", dir)
	must(t, "restore", dir)
	must(t, "verify", dir)
}
