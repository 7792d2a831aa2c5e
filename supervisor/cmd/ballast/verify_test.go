package main

import (
	"context"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/ballast-raft/ballast/supervisor"
)

// damaged runs verify and wants it to find problems.
func damaged(t *testing.T, dir string) directoryOutput {
	t.Helper()
	before := contents(t, dir)
	o := ballast(t, "verify", dir)
	if o.code != exitFailed || !strings.Contains(o.out, "DAMAGE") {
		t.Errorf("exit code %d, want 1 and damage", o.code)
	}
	var d directoryOutput
	if err := json.Unmarshal([]byte(ballast(t, "verify", "-json", dir).out), &d); err != nil {
		t.Fatal(err)
	}
	if d.OK || len(d.Problems) == 0 {
		t.Errorf("%+v", d)
	}
	if o := ballast(t, "inspect", dir); o.code == exitUsage {
		t.Error("inspect does not run on damage")
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("verify or inspect has changed something")
	}
	return d
}

// prepared is a store with a snapshot and entries after it.
func prepared(t *testing.T) string {
	t.Helper()
	dir := library(t)
	must(t, "snapshot", dir)
	mustRead(t, "1\n2\n3\n4\n5\n6\n7\n8\n", "load", dir, "-name", "later")
	return dir
}

func find(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[len(names)-1]
}

func TestVerifyFindsFlippedBits(t *testing.T) {
	for _, pattern := range []string{"log/wal/*/0*1", "snapshots/*.snap", "kv/DATA", "log/MANIFEST"} {
		t.Run(strings.ReplaceAll(pattern, "/", " "), func(t *testing.T) {
			dir := prepared(t)
			must(t, "verify", dir)
			path := find(t, filepath.Join(dir, filepath.FromSlash(pattern)))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/3] ^= 0x10
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			d := damaged(t, dir)
			if p := d.Problems[0]; p.Path != path || p.Offset < 0 || !strings.Contains(p.Text, path) {
				t.Errorf("%+v does not name %s and an offset", p, path)
			}
		})
	}
}

func TestVerifyFindsMissingFiles(t *testing.T) {
	for _, pattern := range []string{"log", "snapshots", "kv", "log/wal/*", "kv/DATA", "log/MANIFEST"} {
		t.Run(strings.ReplaceAll(pattern, "/", " "), func(t *testing.T) {
			dir := prepared(t)
			path := find(t, filepath.Join(dir, filepath.FromSlash(pattern)))
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			damaged(t, dir)
		})
	}
}

// TestVerifyFindsDisagreement puts parts of the same service from different
// times together.
func TestVerifyFindsDisagreement(t *testing.T) {
	older := func(t *testing.T, dir, part string) (restore func()) {
		t.Helper()
		saved := t.TempDir()
		if err := os.CopyFS(saved, os.DirFS(filepath.Join(dir, part))); err != nil {
			t.Fatal(err)
		}
		return func() {
			path := filepath.Join(dir, part)
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(path, os.DirFS(saved)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("old log", func(t *testing.T) {
		dir := library(t)
		restore := older(t, dir, logDir)
		mustRead(t, "1\n2\n", "load", dir, "-name", "later")
		must(t, "snapshot", dir)
		restore()
		d := damaged(t, dir)
		if len(d.Problems) != 2 || !strings.Contains(d.Problems[0].Text, "is applied to the data, but the log ends at") ||
			!strings.Contains(d.Problems[1].Text, "includes index") {
			t.Errorf("%+v", d.Problems)
		}
	})
	t.Run("old data and snapshots", func(t *testing.T) {
		dir := prepared(t)
		restoreKV, restoreSnapshots := older(t, dir, kvDir), older(t, dir, snapshotDir)
		mustRead(t, "1\n2\n3\n", "load", dir, "-name", "more")
		must(t, "snapshot", dir, "-keep", "1")
		restoreKV()
		// The snapshot makes up for the old data.
		must(t, "verify", dir)
		restoreSnapshots()
		if d := damaged(t, dir); !strings.Contains(d.Problems[0].Text, "the entries between are gone") {
			t.Errorf("%+v", d.Problems)
		}
	})
}

// Who keeps a state of their own in snapshots is not told that the log has lost
// something.
func TestVerifyStateMachineOfOnesOwn(t *testing.T) {
	dir := prepared(t)
	store, err := snapshot.OpenDir(filepath.Join(dir, snapshotDir), snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []uint64{0, 7} {
		w, err := store.Create(group, 4200, 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("a state of my own")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	o := must(t, "verify", dir)
	if n := strings.Count(o, "holds no application data"); n != 2 || strings.Contains(o, "DAMAGE") {
		t.Errorf("%s", o)
	}
	// What the data needs is not made up for by it.
	if err := os.RemoveAll(filepath.Join(dir, kvDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(find(t, filepath.Join(dir, snapshotDir, "0000000000000000-0000000000000001-*.snap"))); err != nil {
		t.Fatal(err)
	}
	if o := ballast(t, "verify", dir); !strings.Contains(o.out, "what is good of data and snapshots ends at 0") {
		t.Errorf("%s", o.out)
	}
}

// TestVerifyFindsAnotherHistory puts a snapshot beside a log that has other
// entries up to its index.
func TestVerifyFindsAnotherHistory(t *testing.T) {
	stored := func(dir string, term uint64, n int) {
		t.Helper()
		s, err := openService(context.Background(), supervisor.Config{Dir: dir}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			put := messages.ApplyEntry{Term: term, Operation: messages.PutOperation([]byte("k"), nil)}
			if _, err := actors.Ask[messages.EntryApplied](t.Context(), s.Asker(), s.Supervisor, put); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	other := t.TempDir()
	stored(other, 1, 5)
	id := strings.Fields(must(t, "snapshot", other))[0] + ".snap"
	b, err := os.ReadFile(filepath.Join(other, snapshotDir, id))
	if err != nil {
		t.Fatal(err)
	}
	for entries, want := range map[int]string{8: "has term 1 at index 5, the log has term 2 there", 3: "includes index 5 in term 1, but the log ends at 3 in term 2"} {
		dir := t.TempDir()
		stored(dir, 2, entries)
		must(t, "verify", dir)
		if err := os.WriteFile(filepath.Join(dir, snapshotDir, id), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if d := damaged(t, dir); len(d.Problems) != 1 || !strings.Contains(d.Problems[0].Text, want) || d.Problems[0].Index != 5 {
			t.Errorf("%+v", d.Problems)
		}
	}
}

// TestVerifyChangesNothing also with what a crash has left.
func TestVerifyChangesNothing(t *testing.T) {
	dir := prepared(t)
	writeFile(t, filepath.Join(dir, "snapshots", "0000000000000000-0000000000000001-0000000000000009-000000000001.snap.tmp"), "unfinished")
	writeFile(t, filepath.Join(dir, "kv", "DATA.tmp"), "unfinished")
	segment := find(t, filepath.Join(dir, "log", "wal", "*", "0*1"))
	data := filepath.Join(dir, "kv", "DATA")
	for path, torn := range map[string]string{segment: "\x40torn", data: "*3\r\n$3\r\nse"} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(torn); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, dir)
	out := must(t, "verify", dir)
	out += must(t, "inspect", dir)
	for _, want := range []string{"note: log: " + segment, "note: kv: " + data, "is a leftover"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing tells of %q", want)
		}
	}
	if after := contents(t, dir); !maps.Equal(before, after) {
		t.Error("something was changed")
	}
	// Without a lock file none is made.
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "LOCK" {
			return os.Remove(path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	before = contents(t, dir)
	must(t, "verify", dir)
	if after := contents(t, dir); !maps.Equal(before, after) {
		t.Error("something was changed where there is no lock file")
	}
	if got := strings.Count(must(t, "scan", dir, "-keys"), "\n"); got != 14 {
		t.Errorf("%d keys after the repair", got)
	}
}

func TestLocked(t *testing.T) {
	dir := library(t)
	s, err := openService(context.Background(), supervisor.Config{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	for _, c := range []string{"verify DIR", "inspect DIR", "get DIR k", "scan DIR", "load DIR", "snapshot DIR", "restore DIR",
		"log dump DIR", "log dump DIR/log", "log verify DIR", "log verify DIR/log",
		"snapshot list DIR", "snapshot list DIR/snapshots", "snapshot show DIR latest", "snapshot get DIR latest k", "snapshot verify DIR", "snapshot export DIR latest",
		"snapshot import DIR /dev/null", "snapshot import DIR/snapshots /dev/null", "snapshot delete DIR ID", "snapshot prune DIR -keep 1", "snapshot prune DIR -keep 1 -dry-run",
		"snapshot discard DIR x"} {
		c = strings.ReplaceAll(c, "ID", strings.Repeat("0", 16)+"-"+strings.Repeat("0", 15)+"1-"+strings.Repeat("0", 15)+"1-000000000001")
		o := ballast(t, strings.Fields(strings.ReplaceAll(c, "DIR", dir))...)
		if o.code != exitFailed || !strings.Contains(o.err, "locked by another process") {
			t.Errorf("%s: exit code %d, want 1 and a word about the lock", c, o.code)
		}
	}
	after := contents(t, dir)
	for name := range after { // the service prepares its next segment meanwhile
		if _, ok := before[name]; !ok || strings.Contains(name, "/wal/00000002/") {
			delete(before, name)
			delete(after, name)
		}
	}
	if !maps.Equal(before, after) {
		t.Error("something was changed")
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	must(t, "verify", dir)
}
