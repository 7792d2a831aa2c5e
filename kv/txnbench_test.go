package kv_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// processorTime is what the process has used. On a machine that others use as well
// it says more than the time that has passed.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Interactive transactions over 200,000 keys, each of which reads a key and writes
// it, 64 at a time, without a sync. With a range, each has read as many pairs of
// its own besides.
func BenchmarkTransaction(b *testing.B) {
	const together = 64
	db, err := kv.Open(b.TempDir(), kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	for from := 0; from < benchKeys; from += 1000 {
		var ops []messages.Operation
		for i := from; i < from+1000; i++ {
			ops = append(ops, messages.PutOperation([]byte(benchKey(i)), document(i, benchValue)))
		}
		mustWrite(b, db, 0, ops...)
	}
	r := rand.New(rand.NewPCG(1, 1))
	value := document(1, benchValue)
	start := func(rows int) kv.Txn {
		txn := begin(b, db)
		key := []byte(benchKey(r.IntN(benchKeys)))
		if _, _, err := txn.Get(key); err != nil {
			b.Fatal(err)
		}
		if rows > 0 {
			if _, _, err := txn.Scan(messages.Scan{From: []byte(benchKey(r.IntN(benchKeys))), Limit: rows}); err != nil {
				b.Fatal(err)
			}
		}
		run(b, txn, messages.PutOperation(key, value))
		return txn
	}
	b.Run("begin and close", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := begin(b, db).Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	index := uint64(0)
	for _, rows := range []int{0, 100} {
		b.Run(fmt.Sprintf("range=%d/direct", rows), func(b *testing.B) {
			conflicts, n, before := 0, 0, processorTime(b)
			b.ReportAllocs()
			for b.Loop() {
				changes := make([]kv.Change, together)
				for i := range changes {
					changes[i].Txn = start(rows)
				}
				results, err := db.Commit(0, changes)
				if err != nil {
					b.Fatal(err)
				}
				for i, c := range changes {
					n++
					if results[i].Err != nil {
						conflicts++
					}
					if err := c.Txn.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
			reportOps(b, n-conflicts)
			b.ReportMetric(float64(conflicts)/float64(n), "conflicts/txn")
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(n), "cpu-µs/txn")
		})
		b.Run(fmt.Sprintf("range=%d/prepared and applied", rows), func(b *testing.B) {
			conflicts, n, before := 0, 0, processorTime(b)
			b.ReportAllocs()
			for b.Loop() {
				txns := make([]kv.Txn, together)
				for i := range txns {
					txns[i] = start(rows)
				}
				entries := make([]messages.Entry, together)
				for i, txn := range txns {
					op, err := txn.Prepare()
					if err != nil {
						b.Fatal(err)
					}
					index++
					entries[i] = messages.Entry{Index: index, Term: 1, Data: op.Encode(nil)}
					if err := txn.Close(); err != nil {
						b.Fatal(err)
					}
				}
				results, err := db.Apply(0, entries)
				if err != nil {
					b.Fatal(err)
				}
				for _, res := range results {
					n++
					if res.Err != nil || !res.Succeeded {
						conflicts++
					}
				}
			}
			reportOps(b, n-conflicts)
			b.ReportMetric(float64(conflicts)/float64(n), "conflicts/txn")
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(n), "cpu-µs/txn")
		})
	}
}

// The same state in a view of which much was overwritten since.
func BenchmarkViewGet(b *testing.B) {
	db, err := kv.Open(b.TempDir(), kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	fill(b, db, 0, 50_000, benchValue)
	v, err := db.OpenView(0)
	if err != nil {
		b.Fatal(err)
	}
	fill(b, db, 0, 50_000, benchValue)
	r := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		if _, version, err := v.Get(fmt.Appendf(nil, "key-%07d", 2*r.IntN(50_000))); err != nil || version == 0 {
			b.Fatal(version, err)
		}
	}
	reportOps(b, b.N)
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
}
