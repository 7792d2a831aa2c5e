package kv_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// churn overwrites the same keys, so that most of DATA is garbage.
func churn(t testing.TB, db *kv.DB, rounds int) {
	t.Helper()
	for i := range rounds {
		mustWrite(t, db, 1, put(fmt.Sprint("key-", i%10), strings.Repeat("v", 500)), put("last", fmt.Sprint(i)))
	}
}

// A compaction is due when enough is garbage, and not again when it is done. A
// file of many groups with little in them has no garbage because of that.
func TestCompactionIsDue(t *testing.T) {
	var told []messages.DataFileReplaced
	dir := memDir(t)
	db := open(t, dir, kv.Options{MinGarbageBytes: 20_000, MaxGarbagePercent: 60, OnCompact: func(r messages.DataFileReplaced) { told = append(told, r) }})
	for g := range uint64(3000) {
		mustWrite(t, db, 10+g, put("k", "v"))
	}
	if _, _, err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	if bytes, live := db.Size(); db.Due() || bytes-live > 1500 {
		t.Errorf("after a compaction %d of %d bytes are live, due %v", live, bytes, db.Due())
	}
	due := false
	for !due {
		bytes, live := db.Size()
		churn(t, db, 1)
		now, _ := db.Size()
		if due = db.Due(); due && (now-live < 20_000 || (now-live)*100 < now*60-1000) {
			t.Fatalf("due at %d of %d bytes", live, now)
		}
		if bytes > 10*live {
			t.Fatal("never due")
		}
	}
	before, _ := db.Size()
	state := fingerprint(t, db)
	for db.Due() {
		if _, err := db.Maintain(); err != nil {
			t.Fatal(err)
		}
	}
	after, live := db.Size()
	if after-live > 1500 || len(told) != 2 || told[1] != (messages.DataFileReplaced{Path: filepath.Join(dir, "DATA"), Before: before, After: after}) {
		t.Errorf("%d bytes, %d live; told %+v", after, live, told)
	}
	if info, err := os.Stat(filepath.Join(dir, "DATA")); err != nil || info.Size() != after {
		t.Errorf("DATA has %d bytes, not %d (%v)", info.Size(), after, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got := fingerprint(t, open(t, dir, lazy)); got != state {
		t.Errorf("state\n%s\nwant\n%s", got, state)
	}
}

// Each step on the disk fails once: with an error of a compaction that does not
// poison the store all goes on, and the next one succeeds.
func TestCompactionFails(t *testing.T) {
	bad := errors.New("bad disk")
	steps := 0
	for fail := 1; ; fail++ {
		dir := memDir(t)
		n, failed := -1, ""
		d := hookDisk{before: func(step string) error {
			if n >= 0 {
				if n++; n == fail {
					failed = step
					return bad
				}
			}
			return nil
		}}
		db := open(t, dir, kv.Options{Disk: d, MaintainBytes: 1})
		churn(t, db, 20)
		n = 0 // the steps of the compaction
		_, _, err := db.Compact()
		n = -1
		if failed == "" {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		steps++
		if !errors.Is(err, bad) {
			t.Fatalf("step %d, %s: %v", fail, failed, err)
		}
		if named := failed == "syncdir" || strings.HasSuffix(failed, "MARK.tmp"); db.Poisoned() != named {
			t.Fatalf("step %d, %s: poisoned %v", fail, failed, db.Poisoned())
		} else if !named {
			if _, err := os.Stat(filepath.Join(dir, "DATA.tmp")); !os.IsNotExist(err) {
				t.Errorf("step %d, %s: DATA.tmp is left: %v", fail, failed, err)
			}
			mustWrite(t, db, 1, put("after", "1"))
			if err := db.Sync(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := db.Compact(); err != nil {
				t.Fatalf("step %d, %s: again: %v", fail, failed, err)
			}
		}
		state := fingerprint(t, db)
		if err := db.Close(); err != nil && !db.Poisoned() {
			t.Fatal(err)
		}
		if got := fingerprint(t, open(t, dir, lazy)); got != state {
			t.Errorf("step %d, %s: state\n%s\nwant\n%s", fail, failed, got, state)
		}
	}
	if steps < 6 {
		t.Errorf("only %d steps have failed", steps)
	}
}

// Without room for what is live nothing is begun; when room runs out in the
// middle the old file goes on; with room it is done.
func TestCompactionOnAFullDisk(t *testing.T) {
	free := int64(1 << 40)
	dir := memDir(t)
	db := open(t, dir, kv.Options{ReserveBytes: 1000, MinGarbageBytes: 1000, MaintainBytes: 1, Free: func(string) (int64, error) { return free, nil }})
	churn(t, db, 100)
	state := fingerprint(t, db)
	_, live := db.Size()
	free = live
	if _, err := db.Maintain(); !errors.Is(err, messages.ErrDiskFull) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "DATA.tmp")); !os.IsNotExist(err) {
		t.Error("a compaction has begun without room")
	}
	free = 1 << 40
	if _, err := db.Maintain(); err != nil {
		t.Fatal(err)
	}
	free = 500
	var err error
	for err == nil {
		_, err = db.Maintain()
	}
	if !errors.Is(err, messages.ErrDiskFull) || db.Poisoned() || !db.Due() || fingerprint(t, db) != state {
		t.Fatal(err, db.Poisoned(), db.Due())
	}
	free = 1 << 40
	mustWrite(t, db, 1, put("after", "1"))
	for db.Due() {
		if _, err := db.Maintain(); err != nil {
			t.Fatal(err)
		}
	}
	if bytes, live := db.Size(); bytes > live+2000 {
		t.Errorf("%d bytes, %d live", bytes, live)
	}
}

// Damage in the old file is never copied: what is in memory was verified when it
// was read or written, and what is followed is verified. Either way the next
// compaction makes the file good again.
func TestCompactionMeetsDamage(t *testing.T) {
	for _, where := range []string{"before it began", "meanwhile"} {
		dir := memDir(t)
		db := open(t, dir, kv.Options{MinGarbageBytes: 1000, MaintainBytes: 1})
		churn(t, db, 50)
		rot := func() {
			path := filepath.Join(dir, "DATA")
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			bytes, _ := db.Size()
			if _, err := f.WriteAt([]byte("rot"), bytes-400); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if where == "before it began" {
			rot()
		}
		if _, err := db.Maintain(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, db, 1, put("late", strings.Repeat("l", 1000)))
		if where == "meanwhile" {
			rot()
		}
		state := fingerprint(t, db)
		_, _, err := db.Compact()
		if where == "meanwhile" {
			var damage *messages.CorruptError
			if !errors.As(err, &damage) || damage.Path != filepath.Join(dir, "DATA") || db.Poisoned() || fingerprint(t, db) != state {
				t.Fatalf("%s: %v, poisoned %v", where, err, db.Poisoned())
			}
			_, _, err = db.Compact()
		}
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if got := fingerprint(t, open(t, dir, lazy)); got != state {
			t.Errorf("%s: state\n%s\nwant\n%s", where, got, state)
		}
	}
}

// An import costs what it is long, whatever else is in the file, and what it has
// replaced, or an import that was given up has left, is garbage.
func TestImportCostsWhatItIsLong(t *testing.T) {
	dir := memDir(t)
	db := open(t, dir, lazy)
	fill(t, db, 2, 20_000, 100)
	fill(t, db, 1, 200, 100)
	state := export(t, db, 1)
	before, live := db.Size()
	load(t, db, 1, 1, state)
	after, liveAfter := db.Size()
	if grown := after - before; grown > 2*int64(len(state)) || liveAfter != live {
		t.Errorf("the file has grown by %d bytes for a state of %d, and %d were live and %d are", grown, len(state), live, liveAfter)
	}
	im, err := db.BeginImport(1, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.Write(state); err != nil {
		t.Fatal(err)
	}
	if err := im.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, l := db.Size(); l != live {
		t.Errorf("%d bytes are live, not %d", l, live)
	}
}

// A compaction without end, beside a writer, a syncer, an exporter and imports.
func TestCompactionBesideEverything(t *testing.T) {
	dir := memDir(t)
	db := open(t, dir, kv.Options{MaintainBytes: 10_000})
	const n = 1000
	fill(t, db, 1, n, 100)
	fill(t, db, 2, n, 100)
	other := open(t, memDir(t), lazy)
	fill(t, other, 1, 3*n, 100)
	state := export(t, other, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(step func() error) {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := step(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	compactions := 0
	loop(func() error {
		_, _, err := db.Compact()
		compactions++
		return err
	})
	loop(db.Sync)
	loop(func() error {
		v, err := db.OpenExport(1)
		if err == nil {
			_, err = io.Copy(io.Discard, v)
			err = errors.Join(err, v.Close())
		}
		return err
	})
	loop(func() error {
		im, err := db.BeginImport(2, 1, 1)
		if err != nil {
			return err
		}
		for rest := state; len(rest) > 0 && err == nil; rest = rest[min(len(rest), 20_000):] {
			_, err = im.Write(rest[:min(len(rest), 20_000)])
		}
		if err == nil {
			_, err = im.Finish()
		}
		return err
	})
	index := uint64(0)
	for range 400 {
		var entries []messages.Entry
		for range 10 {
			index++
			entries = append(entries, entry(index, put(fmt.Sprintf("key-%07d", index*7%n), fmt.Sprint(index))))
		}
		if _, err := db.Apply(1, entries); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	want := fingerprint(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got := fingerprint(t, open(t, dir, lazy)); got != want {
		t.Error("another state was found")
	}
	t.Logf("%d compactions", compactions)
}
