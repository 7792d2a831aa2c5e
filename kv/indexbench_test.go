package kv_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sort"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
	"golang.org/x/sys/unix"
)

// The baseline of these is what buntdb has itself: IndexJSON, which holds the
// lock while it is created, at every start.
const indexBenchKeys = 100_000

var benchFields = []string{"n", "name", "town"}

func indexedDocument(i int) string {
	return fmt.Sprintf(`{"n":%d,"name":"somebody-%06d","town":"town-%03d","pad":"%050d"}`, i, i*7919%1_000_000, i%1000, i)
}

func indexBallast(b *testing.B, db *kv.DB, n int) {
	for _, f := range benchFields[:n] {
		mustWrite(b, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: f, Fields: messages.Paths(f)}))
	}
}

func indexBunt(b *testing.B, db *buntdb.DB, n int) {
	for _, f := range benchFields[:n] {
		if err := db.CreateIndex(f, "*", buntdb.IndexJSON(f)); err != nil {
			b.Fatal(err)
		}
	}
}

func fillIndexed(b *testing.B, db *kv.DB, bunt *buntdb.DB) {
	for from := 0; from < indexBenchKeys; from += 1000 {
		if db != nil {
			var ops []messages.Operation
			for i := from; i < from+1000; i++ {
				ops = append(ops, put(benchKey(i), indexedDocument(i)))
			}
			mustWrite(b, db, 0, ops...)
			continue
		}
		if err := bunt.Update(func(tx *buntdb.Tx) error {
			for i := from; i < from+1000; i++ {
				if _, _, err := tx.Set(benchKey(i), indexedDocument(i), nil); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// cpuTime is what the process, or the thread alone, has used of the processor:
// on a machine with other work it says more than the clock.
func cpuTime(b *testing.B, clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// measured reports the processor time of an operation.
func measured(b *testing.B, began time.Duration, ops int) {
	reportOps(b, ops)
	b.ReportMetric(float64((cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)-began).Nanoseconds())/1e3/float64(ops), "cpu-µs/op")
}

func openBench(b *testing.B, dir string) *kv.DB {
	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return db
}

// What an index costs a write: 64 documents are overwritten at a time, with all
// fields changed.
func BenchmarkIndexedWrite(b *testing.B) {
	const batch = 64
	for n := range 4 {
		b.Run(fmt.Sprintf("indexes=%d/ballast", n), func(b *testing.B) {
			db := openBench(b, b.TempDir())
			defer db.Close()
			indexBallast(b, db, n)
			fillIndexed(b, db, nil)
			r := rand.New(rand.NewPCG(1, 1))
			count := 0
			began := cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
			b.ReportAllocs()
			for b.Loop() {
				ops := make([]messages.Operation, batch)
				for i := range ops {
					ops[i] = put(benchKey(r.IntN(indexBenchKeys)), indexedDocument(r.IntN(1_000_000)))
				}
				mustWrite(b, db, 0, ops...)
				count += batch
			}
			measured(b, began, count)
		})
		b.Run(fmt.Sprintf("indexes=%d/buntdb", n), func(b *testing.B) {
			db := openBunt(b, filepath.Join(b.TempDir(), "data"))
			indexBunt(b, db, n)
			fillIndexed(b, nil, db)
			r := rand.New(rand.NewPCG(1, 1))
			count := 0
			began := cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
			b.ReportAllocs()
			for b.Loop() {
				if err := db.Update(func(tx *buntdb.Tx) error {
					for range batch {
						if _, _, err := tx.Set(benchKey(r.IntN(indexBenchKeys)), indexedDocument(r.IntN(1_000_000)), nil); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					b.Fatal(err)
				}
				count += batch
			}
			measured(b, began, count)
		})
	}
}

// A start: until every index can be asked.
func BenchmarkIndexedOpen(b *testing.B) {
	for n := range 4 {
		b.Run(fmt.Sprintf("indexes=%d/ballast", n), func(b *testing.B) {
			dir := b.TempDir()
			db := openBench(b, dir)
			indexBallast(b, db, n)
			fillIndexed(b, db, nil)
			var opening time.Duration
			for b.Loop() {
				b.StopTimer()
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				opening -= cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
				b.StartTimer()
				db = openBench(b, dir)
				opening += cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
			}
			b.ReportMetric(opening.Seconds()*1e3/float64(b.N), "cpu-ms/op")
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
		b.Run(fmt.Sprintf("indexes=%d/buntdb", n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "data")
			db, err := buntdb.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			fillIndexed(b, nil, db)
			var opening time.Duration
			for b.Loop() {
				b.StopTimer()
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				opening -= cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
				b.StartTimer()
				if db, err = buntdb.Open(path); err != nil {
					b.Fatal(err)
				}
				indexBunt(b, db, n)
				opening += cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
			}
			b.ReportMetric(opening.Seconds()*1e3/float64(b.N), "cpu-ms/op")
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// Building an index over what is there, and what a writer waits at most.
func BenchmarkIndexBuild(b *testing.B) {
	for _, unique := range []bool{false, true} {
		b.Run(fmt.Sprintf("unique=%v/ballast", unique), func(b *testing.B) {
			db := openBench(b, b.TempDir())
			defer db.Close()
			fillIndexed(b, db, nil)
			op := messages.CreateIndexOperation(messages.IndexDefinition{Name: "name", Fields: messages.Paths("name", "n"), Unique: unique})
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var slices []time.Duration
			var building time.Duration
			for b.Loop() {
				building -= cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
				slice := func(f func() error) {
					began := cpuTime(b, unix.CLOCK_THREAD_CPUTIME_ID)
					if err := f(); err != nil {
						b.Fatal(err)
					}
					slices = append(slices, cpuTime(b, unix.CLOCK_THREAD_CPUTIME_ID)-began)
				}
				for ready := false; !ready; {
					slice(func() (err error) {
						ready, err = db.Prepare(0, op)
						return err
					})
				}
				mustWrite(b, db, 0, op)
				for db.IndexesDue() {
					slice(db.MaintainIndexes)
				}
				building += cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
				b.StopTimer()
				mustWrite(b, db, 0, messages.DropIndexOperation("name"))
				for db.IndexesDue() {
					slice(db.MaintainIndexes)
				}
				b.StartTimer()
			}
			measured(b, cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)-building, b.N*indexBenchKeys)
			sort.Slice(slices, func(i, j int) bool { return slices[i] < slices[j] })
			b.ReportMetric(slices[len(slices)/2].Seconds()*1e3, "slice-p50-cpu-ms")
			b.ReportMetric(slices[len(slices)-1].Seconds()*1e3, "slice-max-cpu-ms")
		})
	}
	b.Run("buntdb", func(b *testing.B) {
		db := openBunt(b, filepath.Join(b.TempDir(), "data"))
		fillIndexed(b, nil, db)
		began := cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
		for b.Loop() {
			indexBunt(b, db, 1)
			if err := db.DropIndex("n"); err != nil {
				b.Fatal(err)
			}
		}
		measured(b, began, b.N*indexBenchKeys)
	})
}
