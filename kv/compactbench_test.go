package kv_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// 100,000 pairs of 1 KiB, durable. The baseline is write and fdatasync of the
// same bytes into a new file, with a sync every 16 MiB as the import has it; the
// two take turns.
func BenchmarkImport(b *testing.B) {
	const pairs, size = 100_000, 1 << 10
	source, err := kv.Open(b.TempDir(), kv.Options{Disk: lazyDisk{}})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, source, 0, pairs, size)
	state := export(b, source, 0)
	if err := source.Close(); err != nil {
		b.Fatal(err)
	}
	var ours, limit, cpu []float64
	for b.Loop() {
		began := time.Now()
		f, err := os.Create(filepath.Join(b.TempDir(), "file"))
		if err != nil {
			b.Fatal(err)
		}
		for rest := state; len(rest) > 0; {
			n := min(16<<20, len(rest))
			if _, err := f.Write(rest[:n]); err != nil {
				b.Fatal(err)
			}
			if err := durable.OS.Sync(f); err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		limit = append(limit, float64(len(state))/1e6/time.Since(began).Seconds())

		db, err := kv.Open(b.TempDir(), kv.Options{})
		if err != nil {
			b.Fatal(err)
		}
		began = time.Now()
		used := cpuSeconds()
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
		ours = append(ours, float64(len(state))/1e6/time.Since(began).Seconds())
		cpu = append(cpu, float64(len(state))/1e6/(cpuSeconds()-used))
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(ours), "MB/s")
	b.ReportMetric(median(limit), "limit-MB/s")
	b.ReportMetric(median(cpu), "MB/cpu-s")
	b.ReportMetric(median(ours)/median(limit), "of-limit")
}

// cpuSeconds is what the process has used so far: what counts where others use
// the machine as well.
func cpuSeconds() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}

func median(x []float64) float64 { return quantile(x, 0.5) }

func quantile(x []float64, q float64) float64 {
	slices.Sort(x)
	return x[min(int(q*float64(len(x))), len(x)-1)]
}

// A million documents of 100 bytes under two indexes, opened.
func BenchmarkOpenMillion(b *testing.B) {
	dir := b.TempDir()
	db, err := kv.Open(dir, kv.Options{Disk: lazyDisk{}})
	if err != nil {
		b.Fatal(err)
	}
	mustWrite(b, db, 0, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}),
		messages.CreateIndexOperation(messages.IndexDefinition{Name: "m", Fields: messages.Paths("n")}))
	fill(b, db, 0, 1_000_000, benchValue)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "DATA"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	var cpu []float64
	for b.Loop() {
		used := cpuSeconds()
		db, err := kv.Open(dir, kv.Options{Disk: lazyDisk{}})
		if err != nil {
			b.Fatal(err)
		}
		cpu = append(cpu, cpuSeconds()-used)
		b.StopTimer()
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(median(cpu), "cpu-s/op")
}

// Changes of one entry, with a compaction beside them that goes as fast as it can
// and without, in turns.
func BenchmarkApplyWhileCompacting(b *testing.B) {
	db, err := kv.Open(b.TempDir(), kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	fill(b, db, 0, 100_000, 1<<10)
	if err := db.Sync(); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	value := document(1, 100)
	index := uint64(0)
	write := func() float64 {
		index++
		op := messages.PutOperation([]byte(fmt.Sprintf("key-%07d", r.IntN(100_000))), value)
		e := []messages.Entry{{Index: index, Term: 1, Data: op.Encode(nil)}}
		began := time.Now()
		if _, err := db.Apply(0, e); err != nil {
			b.Fatal(err)
		}
		return float64(time.Since(began).Microseconds())
	}
	var alone, beside []float64
	for b.Loop() {
		for range 20_000 {
			alone = append(alone, write())
		}
		done := make(chan error, 1)
		go func() {
			_, _, err := db.Compact()
			done <- err
		}()
		for ended := false; !ended; {
			beside = append(beside, write())
			select {
			case err := <-done:
				if err != nil {
					b.Fatal(err)
				}
				ended = true
			default:
			}
		}
	}
	for _, x := range []struct {
		name string
		of   []float64
	}{{"alone", alone}, {"compacting", beside}} {
		b.ReportMetric(quantile(x.of, 0.5), x.name+"-p50-µs")
		b.ReportMetric(quantile(x.of, 0.99), x.name+"-p99-µs")
		b.ReportMetric(quantile(x.of, 0.999), x.name+"-p999-µs")
		b.ReportMetric(quantile(x.of, 1), x.name+"-max-µs")
	}
}
