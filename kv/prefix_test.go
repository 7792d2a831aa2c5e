package kv_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
)

// Whatever a power cut leaves of a store that is synced now and then: it is what
// some number of whole changes had made, and no fewer than were synced.
func TestPowerCutLeavesAPrefix(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	plan := make([][]messages.Operation, 30)
	states := map[uint64]string{0: "[]"} // by revision
	ends := make([]uint64, len(plan))
	model := open(t, memDir(t), lazy)
	for i := range plan {
		for range rng.IntN(4) {
			plan[i] = append(plan[i], put(fmt.Sprintf("key-%d", rng.IntN(20)), strings.Repeat("x", rng.IntN(100))))
		}
		// Sectors that lie within a value, where only the checksum misses them.
		plan[i] = append(plan[i], put("sectors", strings.Repeat("z", 2000)))
		plan[i] = append(plan[i], del(fmt.Sprintf("key-%d", rng.IntN(20))))
		if i == 26 { // more than there are zeros ahead
			plan[i] = append(plan[i], put("large", strings.Repeat("y", 300_000+i)))
		}
		mustWrite(t, model, 1, plan[i]...)
		ends[i] = model.Revision(1)
		var err error
		if states[ends[i]], err = stateOf(model); err != nil {
			t.Fatal(err)
		}
	}

	root, pool := memDir(t), crashtest.NewPool(memDir(t))
	pool.Every = crashtest.UnderRace
	rec, err := crashtest.Record(root)
	if err != nil {
		t.Fatal(err)
	}
	var written, synced uint64 // revisions
	rec.Event = func(what string) {
		least, most := synced, written
		rec.Images(what, rng, 1, func(m *crashtest.Image) {
			pool.Go(m, least, func(dir string) error {
				db, err := kv.Open(dir, lazy)
				if err != nil {
					return err
				}
				got, err := stateOf(db)
				n := db.Revision(1)
				if want, whole := states[n]; err == nil && (!whole || n < least || n > most || got != want) {
					err = fmt.Errorf("revision %d, expected is one of %d to %d:\n%.300s\nwant\n%.300s", n, least, most, got, want)
				}
				return errors.Join(err, db.Close())
			})
		})
	}
	db := open(t, root, kv.Options{Disk: rec})
	for i, ops := range plan {
		if written = ends[i]; i%12 == 11 {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			rec.Look("closed")
			db = open(t, root, kv.Options{Disk: rec})
		}
		mustWrite(t, db, 1, ops...)
		rec.Look("write")
		if rng.IntN(5) == 0 {
			if err := db.Sync(); err != nil {
				t.Fatal(err)
			}
			synced = written
			rec.Look("synced")
		}
	}
	if err := errors.Join(db.Close(), rec.Err(), pool.Wait()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d images", pool.Checked())
}

func stateOf(db *kv.DB) (string, error) {
	pairs, _, err := db.Scan(messages.Scan{Group: 1, MaxBytes: kv.MaxBytes})
	return fmt.Sprintf("%q", pairs), err
}

// Zeros are ahead of the end where syncs are frequent and there is room, and go
// when the store is closed.
func TestZerosAhead(t *testing.T) {
	value := strings.Repeat("v", 1000)
	for _, c := range []struct {
		what  string
		free  int64 // besides the reserve
		sync  bool
		zeros bool
	}{
		{"each write is synced", 1 << 30, true, true},
		{"nothing is synced", 1 << 30, false, false},
		{"the disk is nearly full", 400 << 10, true, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := memDir(t)
			db, err := kv.Open(dir, kv.Options{Disk: lazyDisk{}, Free: func(string) (int64, error) { return 1<<20 + c.free, nil }})
			if err != nil {
				t.Fatal(err)
			}
			for range 350 { // more than are written ahead once
				mustWrite(t, db, 0, put("k", value))
				if c.sync {
					if err := db.Sync(); err != nil {
						t.Fatal(err)
					}
				}
			}
			data := fileOf(t, dir, "DATA")
			end := len(withoutZeros(data))
			if (len(data) > end) != c.zeros || len(data) > end+1<<20 {
				t.Errorf("%d bytes and %d zeros", end, len(data)-end)
			}
			rep, err := kv.Inspect(dir)
			if err != nil || rep.Bytes != int64(end) || rep.Good != int64(end) || rep.Damage != nil {
				t.Errorf("inspect: %+v %v, want %d bytes", rep, err, end)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if n := len(fileOf(t, dir, "DATA")); n != end {
				t.Errorf("closed with %d bytes, want %d", n, end)
			}
		})
	}
}
