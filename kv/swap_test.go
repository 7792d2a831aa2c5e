package kv_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := memDir(t)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func fileOf(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every combination of the two files and the unfinished one, as a crash or an
// operator may leave them.
func TestSwapCombinations(t *testing.T) {
	dir := memDir(t)
	db := open(t, dir, lazy)
	mustWrite(t, db, 1, put("a", "old"))
	mustWrite(t, db, 2, put("b", "kept"))
	if err := db.Sync(); err != nil {
		t.Fatal(err)
	}
	oldState := fingerprint(t, db)
	before := copyDir(t, dir)
	mustWrite(t, db, 1, put("a", "new"))
	if _, _, err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	newState := fingerprint(t, db)
	after := copyDir(t, dir)
	mustWrite(t, db, 1, put("c", "soon")) // it may be there before MARK is
	soonState := fingerprint(t, db)
	soon := copyDir(t, dir)
	if err := db.Sync(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, db, 1, put("c", "later"))
	laterState := fingerprint(t, db)
	later := copyDir(t, dir)

	fresh := memDir(t)
	open(t, fresh, lazy)
	freshState := fingerprint(t, open(t, memDir(t), lazy))

	newData := fileOf(t, after, "DATA")
	data := map[string][]byte{"none": nil, "old": fileOf(t, before, "DATA"), "new": newData, "half": newData[:len(newData)/2],
		"soon": fileOf(t, soon, "DATA"), "later": fileOf(t, later, "DATA"), "fresh": fileOf(t, fresh, "DATA")}
	marks := map[string][]byte{"none": nil, "old": fileOf(t, before, "MARK"), "new": fileOf(t, after, "MARK"), "garbage": make([]byte, 64),
		"later": fileOf(t, later, "MARK"), "fresh": fileOf(t, fresh, "MARK")}
	expect := map[string]string{
		"none/none": freshState, "fresh/none": freshState, "fresh/fresh": freshState, "fresh/garbage": freshState,
		"old/old": oldState, "old/garbage": oldState,
		"new/old": newState, "new/new": newState, "new/garbage": newState,
		"soon/old": soonState, "soon/new": soonState, "soon/later": soonState, "soon/garbage": soonState,
		"later/new": laterState, "later/later": laterState, "later/garbage": laterState,
	}
	for d, dataBytes := range data {
		for m, markBytes := range marks {
			for _, temp := range []string{"none", "DATA.tmp", "MARK.tmp"} {
				what := fmt.Sprintf("DATA %s, MARK %s, temporary %s", d, m, temp)
				dir := memDir(t)
				for name, b := range map[string][]byte{"DATA": dataBytes, "MARK": markBytes, temp: newData} {
					if b == nil || name == "none" {
						continue
					}
					if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				rep, err := kv.Inspect(dir)
				if err != nil {
					t.Fatalf("%s: inspect: %v", what, err)
				}
				want, good := expect[d+"/"+m]
				if (rep.Damage == nil) != good {
					t.Errorf("%s: inspect: %v", what, rep.Damage)
				}
				db, err := kv.Open(dir, lazy)
				if !good {
					if !errors.Is(err, messages.ErrCorrupt) {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				for round := 0; ; round++ {
					if err != nil {
						t.Errorf("%s: %v", what, err)
						break
					}
					if got := fingerprint(t, db); got != want {
						t.Errorf("%s: state\n%s\nwant\n%s", what, got, want)
					}
					if err := db.Close(); err != nil {
						t.Fatal(err)
					}
					if rep, err := kv.Inspect(dir); err != nil || rep.Damage != nil || len(rep.Unfinished) > 0 || rep.MarkStale || rep.Synced != rep.Bytes {
						t.Errorf("%s: after Open: %+v %v", what, rep, err)
					}
					if round == 1 {
						break
					}
					db, err = kv.Open(dir, lazy)
				}
			}
		}
	}
}

// hookDisk calls a function before every step.
type hookDisk struct {
	lazyDisk
	before func(step string) error
}

func (d hookDisk) Sync(f *os.File) error { return d.before("sync " + filepath.Base(f.Name())) }
func (d hookDisk) SyncDir(dir string) error {
	return d.before("syncdir")
}
func (d hookDisk) Rename(from, to string) error {
	if err := d.before("rename " + filepath.Base(from)); err != nil {
		return err
	}
	return d.lazyDisk.Rename(from, to)
}
func (d hookDisk) Remove(path string) error {
	if err := d.before("remove " + filepath.Base(path)); err != nil {
		return err
	}
	return d.lazyDisk.Remove(path)
}

// session is a small life of a store: new, written, synced, imported into,
// compacted, written again, closed. It stops at the first error.
func session(dir string, d durableDisk, state []byte, reached func(db *kv.DB, synced bool)) (err error) {
	db, err := kv.Open(dir, kv.Options{Disk: d, CommitBytes: 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	do := func(sync bool, ops ...messages.Operation) error {
		if _, err := db.Write(1, ops); err != nil {
			return err
		}
		reached(db, false)
		if sync {
			if err := db.Sync(); err != nil {
				return err
			}
			reached(db, true)
		}
		return nil
	}
	reached(db, true)
	if err := do(true, put("a", "1"), put("b", "1")); err != nil {
		return err
	}
	if err := do(false, put("b", "2")); err != nil {
		return err
	}
	im, err := db.BeginImport(1, 5, 1)
	if err != nil {
		return err
	}
	if _, err := im.Write(state); err != nil {
		return err
	}
	if _, err := im.Finish(); err != nil {
		return err
	}
	reached(db, true)
	if err := do(false, put("b", "3")); err != nil {
		return err
	}
	if _, _, err := db.Compact(); err != nil {
		return err
	}
	reached(db, true)
	return do(true, put("c", "3"))
}

// cleanSession tells the states that a session goes through.
func cleanSession(t *testing.T, state []byte) (states []string) {
	t.Helper()
	if err := session(memDir(t), lazyDisk{}, state, func(db *kv.DB, _ bool) { states = append(states, fingerprint(t, db)) }); err != nil {
		t.Fatal(err)
	}
	return states
}

// progress is where a session has come to: the states between the one that was
// synced and the one that may have been under way are those that may be found.
type progress struct{ synced, reached int }

func (p *progress) reach(_ *kv.DB, synced bool) {
	p.reached++
	if synced {
		p.synced = p.reached
	}
}

func (p *progress) allowed(states []string) []string {
	return states[max(p.synced-1, 0):min(p.reached+1, len(states))]
}

type durableDisk interface {
	Sync(f *os.File) error
	SyncDir(dir string) error
	Rename(from, to string) error
	Remove(path string) error
}

func sessionState(t *testing.T) []byte {
	other := open(t, memDir(t), lazy)
	mustWrite(t, other, 1, put("a", "imported"), put("z", "imported"))
	return export(t, other, 1)
}

// The process dies before each step on the disk.
func TestCrashBeforeEveryStep(t *testing.T) {
	state := sessionState(t)
	states := cleanSession(t, state)
	dir := memDir(t)
	type point struct {
		dir, step string
		progress
	}
	var points []point
	var now progress
	d := hookDisk{before: func(step string) error {
		points = append(points, point{copyDir(t, dir), step, now})
		return nil
	}}
	if err := session(dir, d, state, now.reach); err != nil || len(points) < 20 {
		t.Fatal(len(points), err)
	}
	for i, p := range points {
		db, err := kv.Open(p.dir, lazy)
		if err != nil {
			t.Errorf("point %d, %s: %v", i, p.step, err)
			continue
		}
		if got := fingerprint(t, db); !slices.Contains(p.allowed(states), got) {
			t.Errorf("point %d, %s: state\n%s", i, p.step, got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Each step fails once: what had been synced is there afterwards, and a store
// that cannot know what is on disk changes nothing more.
func TestEveryStepFails(t *testing.T) {
	state := sessionState(t)
	states := cleanSession(t, state)
	bad := errors.New("bad disk")
	failed := map[string]bool{}
	for n := 1; ; n++ {
		dir := memDir(t)
		i, failedStep := 0, ""
		d := hookDisk{before: func(step string) error {
			if i++; i == n {
				failedStep = step
				return bad
			}
			return nil
		}}
		var now progress
		var store *kv.DB
		err := session(dir, d, state, func(db *kv.DB, synced bool) {
			store = db
			now.reach(db, synced)
		})
		if failedStep == "" {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		failed[failedStep] = true
		if !errors.Is(err, bad) {
			t.Fatalf("step %d, %s: %v", n, failedStep, err)
		}
		if store != nil && store.Poisoned() {
			_, err := store.Write(1, []messages.Operation{put("x", "x")})
			if err == nil {
				t.Fatalf("step %d, %s: a poisoned store was changed", n, failedStep)
			}
		}
		db := open(t, dir, lazy)
		if got := fingerprint(t, db); !slices.Contains(now.allowed(states), got) {
			t.Errorf("step %d, %s: state\n%s\nnone of %q", n, failedStep, got, now.allowed(states))
		}
	}
	for _, step := range []string{"sync DATA", "sync DATA.tmp", "sync MARK.tmp", "rename DATA.tmp", "rename MARK.tmp", "syncdir", "sync MARK"} {
		if !failed[step] {
			t.Errorf("no step %q has failed: %v", step, failed)
		}
	}
}

func TestFailedSyncPoisons(t *testing.T) {
	fail := false
	d := hookDisk{before: func(step string) error {
		if fail && step == "sync DATA" {
			return errors.New("bad disk")
		}
		return nil
	}}
	dir := memDir(t)
	db := open(t, dir, kv.Options{Disk: d})
	mustWrite(t, db, 0, put("a", "1"))
	im, err := db.BeginImport(0, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	fail = true
	if err := db.Sync(); err == nil || !db.Poisoned() {
		t.Fatal(err)
	}
	fail = false // the next one would succeed, and lie
	want(t, "sync", db.Sync(), messages.ErrUnavailable)
	_, err = db.Write(0, []messages.Operation{put("a", "2")})
	want(t, "write", err, messages.ErrUnavailable)
	_, err = db.Apply(0, []messages.Entry{entry(1, put("a", "2"))})
	want(t, "apply", err, messages.ErrUnavailable)
	_, err = db.OpenExport(0)
	want(t, "open view", err, messages.ErrUnavailable)
	_, err = im.Write(sessionState(t))
	if err == nil {
		_, err = im.Finish()
	}
	want(t, "import", err, messages.ErrUnavailable)
	_, err = db.BeginImport(0, 1, 1)
	want(t, "begin import", err, messages.ErrUnavailable)
	if v, _, err := db.Get(0, []byte("a")); err != nil || string(v) != "1" {
		t.Fatalf("%q %v", v, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	// What was only in the page cache is written and synced again.
	syncs := 0
	d.before = func(step string) error {
		if step == "sync DATA" {
			syncs++
		}
		return nil
	}
	db = open(t, dir, kv.Options{Disk: d})
	if v, _, err := db.Get(0, []byte("a")); err != nil || string(v) != "1" || syncs != 1 {
		t.Fatalf("%q %v, %d syncs", v, err, syncs)
	}
}
