package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// Every benchmark has a baseline beside it: buntdb alone, which does not
// survive a kill. Values are JSON documents of 100 bytes.
const (
	benchKeys  = 200_000
	benchValue = 100
)

func benchKey(i int) string { return fmt.Sprintf("key-%09d", i) }

func openBunt(b *testing.B, path string) *buntdb.DB {
	b.Helper()
	db, err := buntdb.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := db.SetConfig(buntdb.Config{SyncPolicy: buntdb.Never, AutoShrinkDisabled: true}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

func reportOps(b *testing.B, ops int) {
	b.ReportMetric(float64(ops)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 64} {
		values := make([][]byte, 1000)
		for i := range values {
			values[i] = document(i, benchValue)
		}
		for _, indexed := range []bool{false, true} {
			name := fmt.Sprintf("batch=%d/ballast", batch)
			if indexed {
				name += "-indexed"
			}
			b.Run(name, func(b *testing.B) {
				db, err := kv.Open(b.TempDir(), kv.Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer db.Close()
				if indexed {
					mustWrite(b, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}))
				}
				r := rand.New(rand.NewPCG(1, 1))
				index := uint64(0)
				b.ReportAllocs()
				for b.Loop() {
					entries := make([]messages.Entry, batch)
					for i := range entries {
						index++
						op := messages.PutOperation([]byte(benchKey(r.IntN(benchKeys))), values[index%1000])
						entries[i] = messages.Entry{Index: index, Term: 1, Data: op.Encode(nil)}
					}
					if _, err := db.Apply(0, entries); err != nil {
						b.Fatal(err)
					}
				}
				reportOps(b, int(index))
			})
		}
		b.Run(fmt.Sprintf("batch=%d/buntdb", batch), func(b *testing.B) {
			db := openBunt(b, filepath.Join(b.TempDir(), "data"))
			r := rand.New(rand.NewPCG(1, 1))
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				err := db.Update(func(tx *buntdb.Tx) error {
					for range batch {
						n++
						if _, _, err := tx.Set(benchKey(r.IntN(benchKeys)), string(values[n%1000]), nil); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			reportOps(b, n)
		})
	}
}

// One change, on disk: the latency of a write that nobody shares a sync with.
func BenchmarkWriteAndSync(b *testing.B) {
	value := document(1, benchValue)
	b.Run("ballast", func(b *testing.B) {
		db, err := kv.Open(b.TempDir(), kv.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		ops := []messages.Operation{put("key", string(value))}
		for b.Loop() {
			if _, err := db.Write(0, ops); err != nil {
				b.Fatal(err)
			}
			if err := db.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		reportOps(b, b.N)
	})
	b.Run("buntdb", func(b *testing.B) { // SyncPolicy Always
		db := openBunt(b, filepath.Join(b.TempDir(), "data"))
		if err := db.SetConfig(buntdb.Config{SyncPolicy: buntdb.Always, AutoShrinkDisabled: true}); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := db.Update(func(tx *buntdb.Tx) error {
				_, _, err := tx.Set("key", string(value), nil)
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
		reportOps(b, b.N)
	})
}

type filledStores struct {
	dir  string
	db   *kv.DB
	bunt *buntdb.DB
	err  error
}

var filledDir string

func removeFilled() error {
	if filledDir == "" {
		return nil
	}
	f := filled()
	return errors.Join(f.db.Close(), f.bunt.Close(), os.RemoveAll(filledDir))
}

// filled is one store of each kind with the same pairs, for the benchmarks that
// read. It is made once.
var filled = sync.OnceValue(func() (f filledStores) {
	defer func() { filledDir = f.dir }()
	if f.dir, f.err = os.MkdirTemp("", "ballast-kv-bench-"); f.err != nil {
		return f
	}
	if f.db, f.err = kv.Open(filepath.Join(f.dir, "ballast"), kv.Options{}); f.err != nil {
		return f
	}
	if f.bunt, f.err = buntdb.Open(filepath.Join(f.dir, "buntdb")); f.err != nil {
		return f
	}
	if f.err = f.bunt.SetConfig(buntdb.Config{SyncPolicy: buntdb.Never, AutoShrinkDisabled: true}); f.err != nil {
		return f
	}
	if f.err = f.bunt.CreateIndex("n", "*", buntdb.IndexJSON("n")); f.err != nil {
		return f
	}
	ops := []messages.Operation{messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")})}
	for i := range benchKeys {
		ops = append(ops, messages.PutOperation([]byte(benchKey(i)), document(i, benchValue)))
		if len(ops) == 1000 || i == benchKeys-1 {
			if _, f.err = f.db.Write(0, ops); f.err != nil {
				return f
			}
			f.err = f.bunt.Update(func(tx *buntdb.Tx) error {
				for _, op := range ops {
					if op.Kind == messages.OpPut {
						if _, _, err := tx.Set(string(op.Key), string(op.Value), nil); err != nil {
							return err
						}
					}
				}
				return nil
			})
			ops = ops[:0]
		}
	}
	return f
})

func BenchmarkGet(b *testing.B) {
	f := filled()
	if f.err != nil {
		b.Fatal(f.err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	b.Run("ballast", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, version, err := f.db.Get(0, []byte(benchKey(r.IntN(benchKeys)))); err != nil || version == 0 {
				b.Fatal(version, err)
			}
		}
		reportOps(b, b.N)
	})
	b.Run("buntdb", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := f.bunt.View(func(tx *buntdb.Tx) error {
				v, err := tx.Get(benchKey(r.IntN(benchKeys)))
				_ = []byte(v)
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
		reportOps(b, b.N)
	})
}

func BenchmarkScan(b *testing.B) {
	f := filled()
	if f.err != nil {
		b.Fatal(f.err)
	}
	const pairs = 1000
	size := int64(pairs * (len(benchKey(0)) + benchValue))
	r := rand.New(rand.NewPCG(1, 1))
	b.Run("ballast", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			p, _, err := f.db.Scan(messages.Scan{From: []byte(benchKey(r.IntN(benchKeys - pairs)))})
			if err != nil || len(p) != pairs {
				b.Fatal(len(p), err)
			}
		}
	})
	b.Run("buntdb", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			var p []messages.Pair
			if err := f.bunt.View(func(tx *buntdb.Tx) error {
				return tx.AscendGreaterOrEqual("", benchKey(r.IntN(benchKeys-pairs)), func(k, v string) bool {
					p = append(p, messages.Pair{Key: []byte(k), Value: []byte(v)})
					return len(p) < pairs
				})
			}); err != nil || len(p) != pairs {
				b.Fatal(len(p), err)
			}
		}
	})
}

// Ten documents in the order of a number in them.
func BenchmarkQuery(b *testing.B) {
	f := filled()
	if f.err != nil {
		b.Fatal(f.err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	b.Run("ballast", func(b *testing.B) {
		for b.Loop() {
			p, _, err := f.db.Query(messages.QueryIndex{Name: "n", Min: fmt.Sprint(r.IntN(benchKeys - 10)), Limit: 10})
			if err != nil || len(p) != 10 {
				b.Fatal(len(p), err)
			}
		}
		reportOps(b, b.N)
	})
	b.Run("buntdb", func(b *testing.B) {
		for b.Loop() {
			var p []messages.Pair
			if err := f.bunt.View(func(tx *buntdb.Tx) error {
				return tx.AscendGreaterOrEqual("n", fmt.Sprintf(`{"n":%d}`, r.IntN(benchKeys-10)), func(k, v string) bool {
					p = append(p, messages.Pair{Key: []byte(k), Value: []byte(v)})
					return len(p) < 10
				})
			}); err != nil || len(p) != 10 {
				b.Fatal(len(p), err)
			}
		}
		reportOps(b, b.N)
	})
}

func BenchmarkExport(b *testing.B) {
	f := filled()
	if f.err != nil {
		b.Fatal(f.err)
	}
	b.Run("ballast", func(b *testing.B) {
		for b.Loop() {
			v, err := f.db.OpenExport(0)
			if err != nil {
				b.Fatal(err)
			}
			n, err := io.Copy(io.Discard, v)
			if err != nil {
				b.Fatal(err)
			}
			if err := v.Close(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(n)
		}
	})
	b.Run("buntdb", func(b *testing.B) { // Save: writers wait all the while
		for b.Loop() {
			var n counter
			if err := f.bunt.Save(&n); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(n))
		}
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// One key, and 1000 pairs, out of an exported state in memory. The baseline is
// to read it all.
func BenchmarkState(b *testing.B) {
	f := filled()
	if f.err != nil {
		b.Fatal(f.err)
	}
	state := export(b, f.db, 0)
	s := openState(b, state)
	r := rand.New(rand.NewPCG(1, 1))
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := kv.OpenState(bytes.NewReader(state), int64(len(state))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, version, err := s.Get([]byte(benchKey(r.IntN(benchKeys)))); err != nil || version == 0 {
				b.Fatal(version, err)
			}
		}
	})
	b.Run("range", func(b *testing.B) {
		const pairs = 1000
		b.SetBytes(pairs * int64(len(benchKey(0))+benchValue))
		for b.Loop() {
			n := 0
			for _, err := range s.Range([]byte(benchKey(r.IntN(benchKeys-pairs))), nil) {
				if err != nil {
					b.Fatal(err)
				}
				if n++; n == pairs {
					break
				}
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			if err := s.Verify(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// 200,000 keys without an index. The baseline is buntdb's own loading of the
// same file, which verifies nothing.
func BenchmarkOpenAndImport(b *testing.B) {
	dir := b.TempDir()
	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, db, 0, benchKeys, benchValue)
	state := export(b, db, 0)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "DATA"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("open/ballast", func(b *testing.B) {
		b.SetBytes(info.Size())
		for b.Loop() {
			db, err := kv.Open(dir, kv.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("open/buntdb", func(b *testing.B) {
		b.SetBytes(info.Size())
		for b.Loop() {
			db, err := buntdb.Open(filepath.Join(dir, "DATA"))
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("import/ballast", func(b *testing.B) {
		b.SetBytes(int64(len(state)))
		db, err := kv.Open(b.TempDir(), kv.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		for b.Loop() {
			im, err := db.BeginImport(0, 1, 1)
			if err != nil {
				b.Fatal(err)
			}
			for rest := state; len(rest) > 0; {
				n := min(256<<10, len(rest))
				if _, err := im.Write(rest[:n]); err != nil {
					b.Fatal(err)
				}
				rest = rest[n:]
			}
			if _, err := im.Finish(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("import/buntdb", func(b *testing.B) { // one transaction, and a sync
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			path := filepath.Join(b.TempDir(), "data")
			db, err := buntdb.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			if err := db.Update(func(tx *buntdb.Tx) error {
				for i := range benchKeys {
					if _, _, err := tx.Set(benchKey(i), string(document(i, benchValue)), nil); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
