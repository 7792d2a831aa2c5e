package snapshot_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/klauspost/compress/zstd"
)

const benchPiece = 256 << 10 // as the snapshot actor's chunks

var benchMiB = flag.Int("snapshot.bench", 64, "MiB of the states that benchmarks measure")

// The three kinds of state that are measured, made once.
var (
	jsonState   = sync.OnceValue(func() []byte { return records(1, *benchMiB<<20) })
	sourceState = sync.OnceValue(func() []byte { return sources(*benchMiB << 20) })
	binaryState = sync.OnceValue(func() []byte { return values(*benchMiB << 20) })
)

var corpora = []struct {
	name  string
	state func() []byte
}{{"json", jsonState}, {"source", sourceState}, {"binary", binaryState}}

// sources returns up to n bytes of the Go files of the toolchain, one after the
// other.
func sources(n int) (b []byte) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		panic(err)
	}
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src"), func(path string, e os.DirEntry, err error) error {
		if err != nil || len(b) >= n {
			return err
		}
		if e.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		file, err := os.ReadFile(path)
		b = append(b, file...)
		return err
	})
	if err != nil {
		panic(err)
	}
	return b[:min(n, len(b))]
}

// values returns n bytes of binary records: a counter as the key, a skewed
// number, and 24 bytes that no codec can do anything about.
func values(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+64)
	for i := uint64(0); len(b) < n; i++ {
		b = binary.BigEndian.AppendUint64(b, i)
		b = binary.LittleEndian.AppendUint64(b, uint64(r.ExpFloat64()*1e6))
		for range 3 {
			b = binary.LittleEndian.AppendUint64(b, r.Uint64())
		}
	}
	return b[:n]
}

func feed(b *testing.B, w io.Writer, state []byte) {
	for rest := state; len(rest) > 0; rest = rest[min(benchPiece, len(rest)):] {
		if _, err := w.Write(rest[:min(benchPiece, len(rest))]); err != nil {
			b.Fatal(err)
		}
	}
}

func drain(b *testing.B, r io.Reader, want int) {
	n, buf := 0, make([]byte, benchPiece)
	for {
		k, err := r.Read(buf)
		n += k
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if n != want {
		b.Fatalf("%d bytes of %d", n, want)
	}
}

func must(b *testing.B, err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

// contender is one of those that are measured in turns, so that a busy machine
// slows all of them down alike. run returns how many bytes it has left on disk,
// or zero.
type contender struct {
	name string
	run  func() int64
}

// turns runs each contender once per iteration and prints what each of them
// did: the median of its rates, how much it did for a second of processor time,
// which depends less on who else is using the machine, and its share of each
// baseline, the median of the shares of single rounds.
func turns(b *testing.B, bytes int, baselines []string, all []contender) {
	rates, cpu, saved := map[string][]float64{}, map[string][]float64{}, map[string]float64{}
	for b.Loop() {
		for _, c := range all {
			runtime.GC()
			began, used := time.Now(), processorTime()
			left := c.run()
			mega := float64(bytes) / 1e6
			rates[c.name] = append(rates[c.name], mega/time.Since(began).Seconds())
			cpu[c.name] = append(cpu[c.name], mega/(processorTime()-used).Seconds())
			saved[c.name] = 100 * (1 - float64(left)/float64(bytes))
		}
	}
	var s strings.Builder
	t := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tMB/s\tfrom\tto\tMB per cpu s\tsaved\t")
	for _, base := range baselines {
		fmt.Fprintf(t, "of %s\t", base)
	}
	fmt.Fprintln(t)
	for _, c := range all {
		r := rates[c.name]
		kept := ""
		if p := saved[c.name]; p < 100 {
			kept = fmt.Sprintf("%.1f%%", p)
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t", c.name, median(r), slices.Min(r), slices.Max(r), median(cpu[c.name]), kept)
		for _, base := range baselines {
			var shares []float64
			for i := range r {
				shares = append(shares, r[i]/rates[base][i])
			}
			fmt.Fprintf(t, "%.2f\t", median(shares))
		}
		fmt.Fprintln(t)
	}
	must(b, t.Flush())
	fmt.Printf("%s, %d MiB\n%s", b.Name(), bytes>>20, s.String()) // b.Log cuts it after ten lines
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The baselines: the bare file, and the bare compressor, in one thread and in
// two, into such a file.
const (
	plainFile  = "plain file"
	zstdStream = "zstd stream"
	zstdTwo    = "zstd, 2 threads"
)

var baselines = []string{plainFile, zstdStream, zstdTwo}

func plainWrite(b *testing.B, state []byte) contender {
	name := filepath.Join(b.TempDir(), "plain")
	return contender{plainFile, func() int64 {
		f, err := os.Create(name)
		must(b, err)
		feed(b, f, state)
		must(b, durable.OS.Sync(f))
		must(b, f.Close())
		must(b, os.Remove(name))
		return int64(len(state))
	}}
}

func streamWrite(b *testing.B, what string, threads int, state []byte) contender {
	name := filepath.Join(b.TempDir(), "zstd")
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(threads), zstd.WithEncoderLevel(zstd.SpeedFastest))
	must(b, err)
	return contender{what, func() int64 {
		f, err := os.Create(name)
		must(b, err)
		enc.Reset(f)
		feed(b, enc, state)
		must(b, enc.Close())
		must(b, durable.OS.Sync(f))
		st, err := f.Stat()
		must(b, err)
		must(b, f.Close())
		must(b, os.Remove(name))
		return st.Size()
	}}
}

// snapshotWrite is Create to Finish, everything durable.
func snapshotWrite(b *testing.B, what string, state []byte, o snapshot.Options) contender {
	path := b.TempDir()
	d := open(b, path, o)
	return contender{what, func() int64 {
		w, err := d.Create(0, 1, 1, nil)
		must(b, err)
		feed(b, w, state)
		info, err := w.Finish()
		must(b, err)
		must(b, os.Remove(filepath.Join(path, info.ID+".snap")))
		return info.FileBytes
	}}
}

// BenchmarkWrite: every codec, from Create until it is durable.
func BenchmarkWrite(b *testing.B) {
	for _, corpus := range corpora {
		b.Run(corpus.name, func(b *testing.B) {
			state := corpus.state()
			all := []contender{plainWrite(b, state), streamWrite(b, zstdStream, 1, state), streamWrite(b, zstdTwo, 2, state)}
			for _, c := range []struct {
				codec snapshot.Codec
				level int
			}{
				{"zstd", 1}, {"zstd", 3}, {"zstd", 6},
				{"s2", 1}, {"s2", 2},
				{"lz4", 1}, {"gzip", 1}, {"gzip", 6}, {"none", 0},
			} {
				all = append(all, snapshotWrite(b, fmt.Sprintf("%s %d", c.codec, c.level), state, snapshot.Options{Codec: c.codec, Level: c.level}))
			}
			turns(b, len(state), baselines, all)
		})
	}
}

// BenchmarkWriteOptions: what the other options cost.
func BenchmarkWriteOptions(b *testing.B) {
	state := jsonState()
	turns(b, len(state), []string{"default"}, []contender{
		snapshotWrite(b, "default", state, snapshot.Options{}),
		snapshotWrite(b, "one core", state, snapshot.Options{Concurrency: 1}),
		snapshotWrite(b, "four workers", state, snapshot.Options{Concurrency: 4}),
		snapshotWrite(b, "blocks of 64 KiB", state, snapshot.Options{BlockBytes: 64 << 10}),
		snapshotWrite(b, "blocks of 256 KiB", state, snapshot.Options{BlockBytes: 256 << 10}),
		snapshotWrite(b, "blocks of 4 MiB", state, snapshot.Options{BlockBytes: 4 << 20}),
	})
}

func plainRead(b *testing.B, state []byte) contender {
	name := filepath.Join(b.TempDir(), "plain")
	must(b, os.WriteFile(name, state, 0o644))
	return contender{plainFile, func() int64 {
		f, err := os.Open(name)
		must(b, err)
		drain(b, f, len(state))
		must(b, f.Close())
		return 0
	}}
}

func streamRead(b *testing.B, what string, threads int, state []byte) contender {
	name := filepath.Join(b.TempDir(), "zstd")
	f, err := os.Create(name)
	must(b, err)
	enc, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	must(b, err)
	feed(b, enc, state)
	must(b, enc.Close())
	must(b, f.Close())
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(threads))
	must(b, err)
	b.Cleanup(dec.Close)
	return contender{what, func() int64 {
		f, err := os.Open(name)
		must(b, err)
		must(b, dec.Reset(f))
		drain(b, dec, len(state))
		must(b, f.Close())
		return 0
	}}
}

// BenchmarkRead: from Open, which checks every stored byte, to the end of the
// stream, which checks what was decompressed. From the page cache.
func BenchmarkRead(b *testing.B) {
	for _, corpus := range corpora {
		b.Run(corpus.name, func(b *testing.B) {
			state := corpus.state()
			all := []contender{plainRead(b, state), streamRead(b, zstdStream, 1, state), streamRead(b, zstdTwo, 2, state)}
			for _, codec := range []snapshot.Codec{"zstd", "s2", "lz4", "gzip", "none"} {
				d := open(b, b.TempDir(), snapshot.Options{Codec: codec})
				id := save(b, d, 0, 1, 1, nil, state).ID
				restore := func(open func(string) (snapshot.Reader, error), stream bool) func() int64 {
					return func() int64 {
						r, err := open(id)
						must(b, err)
						if stream {
							drain(b, r, len(state))
						}
						must(b, r.Close())
						return 0
					}
				}
				all = append(all, contender{string(codec), restore(d.Open, true)})
				if codec == "zstd" {
					all = append(all,
						contender{"zstd: Open alone", restore(d.Open, false)},
						contender{"zstd: stream alone", restore(d.OpenAt, true)},
						contender{"zstd: Verify", func() int64 { _, err := d.Verify(id); must(b, err); return 0 }})
				}
			}
			turns(b, len(state), baselines, all)
		})
	}
}

// BenchmarkReadAt: one value of 256 bytes, anywhere, the file in the page cache:
// a block is decoded for each.
func BenchmarkReadAt(b *testing.B) {
	state := jsonState()
	for _, size := range []int{64 << 10, 1 << 20} {
		for _, codec := range []snapshot.Codec{"zstd", "s2", "lz4", "none"} {
			b.Run(fmt.Sprintf("%s/block-%dK", codec, size>>10), func(b *testing.B) {
				d := open(b, b.TempDir(), snapshot.Options{Codec: codec, BlockBytes: size})
				r, err := d.OpenAt(save(b, d, 0, 1, 1, nil, state).ID)
				must(b, err)
				random := rand.New(rand.NewPCG(1, 1))
				p := make([]byte, 256)
				for b.Loop() {
					_, err := r.ReadAt(p, random.Int64N(int64(len(state)-len(p))))
					must(b, err)
				}
				must(b, r.Close())
			})
		}
	}
}

// BenchmarkGigabyte: a state of 1 GiB, from Create until it is durable, and from
// Open to the last byte.
func BenchmarkGigabyte(b *testing.B) {
	state := jsonState()
	times := 1 << 30 / len(state)
	for _, codec := range []snapshot.Codec{"zstd", "s2"} {
		d := open(b, b.TempDir(), snapshot.Options{Codec: codec})
		var id string
		b.Run(string(codec)+"/write", func(b *testing.B) {
			b.SetBytes(int64(times) * int64(len(state)))
			for b.Loop() {
				w, err := d.Create(0, 1, 1, nil)
				must(b, err)
				for range times {
					feed(b, w, state)
				}
				info, err := w.Finish()
				must(b, err)
				id = info.ID
				b.StopTimer()
				_, err = d.Cleanup(0, messages.Retention{Keep: 1})
				must(b, err)
				b.StartTimer()
			}
		})
		b.Run(string(codec)+"/read", func(b *testing.B) {
			b.SetBytes(int64(times) * int64(len(state)))
			for b.Loop() {
				r, err := d.Open(id)
				must(b, err)
				drain(b, r, times*len(state))
				must(b, r.Close())
			}
		})
	}
}

// BenchmarkSmall: what a snapshot costs that holds next to nothing.
func BenchmarkSmall(b *testing.B) {
	path := b.TempDir()
	d := open(b, path, snapshot.Options{})
	i := uint64(0)
	for b.Loop() {
		i++
		save(b, d, i, 1, 1, nil, []byte("state"))
	}
}
