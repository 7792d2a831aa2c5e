package peers

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/hashicorp/raft"
	"github.com/klauspost/compress/zstd"
)

var benchMiB = flag.Int("snapshot.bench", 64, "MiB of the state that benchmarks measure")

const piece = 256 << 10

// records returns n bytes that look like a key-value state: JSON documents
// under numbered keys.
func records(n int) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	words := []string{"pending", "shipped", "delivered", "returned", "Amsterdam", "Berlin", "Lisbon", "Oslo", "Prague", "Vienna"}
	b := make([]byte, 0, n+512)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, `order/%012d{"customer":%d,"state":%q,"city":%q,"total":%d.%02d,"token":"%016x","note":"leave it with the neighbours"}`+"\n",
			i, r.IntN(1_000_000), words[r.IntN(4)], words[4+r.IntN(6)], r.IntN(5000), r.IntN(100), r.Uint64())
	}
	return b[:n]
}

// store is what is compared: a state goes in, durably, and comes out, verified.
type store struct {
	name string
	// save returns how many bytes the snapshot takes on disk.
	save func(state []byte) (int64, error)
	load func(w io.Writer) error
}

// The baselines, which the shares are of.
const (
	peerStore  = "hashicorp/raft"
	plainFile  = "plain file"
	zstdStream = "zstd stream"
)

var baselines = []string{plainFile, zstdStream, peerStore}

func stores(t testing.TB) []store {
	all := []store{plain(t), stream(t), hashicorp(t)}
	for _, codec := range []snapshot.Codec{snapshot.CodecNone, snapshot.CodecZstd, snapshot.CodecS2, snapshot.CodecLZ4} {
		all = append(all, ballast(t, codec))
	}
	return all
}

func feed(w io.Writer, state []byte) error {
	for rest := state; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
		if _, err := w.Write(rest[:min(piece, len(rest))]); err != nil {
			return err
		}
	}
	return nil
}

func size(pattern string) (total int64, err error) {
	names, err := filepath.Glob(pattern)
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		total += st.Size()
	}
	return total, err
}

// bare is a file without a store: written and synced, and read.
func bare(t testing.TB, name string, encode func(*os.File, []byte) error, decode func(*os.File) (io.Reader, error)) store {
	path := filepath.Join(t.TempDir(), "state")
	return store{
		name: name,
		save: func(state []byte) (int64, error) {
			f, err := os.Create(path)
			if err != nil {
				return 0, err
			}
			err = errors.Join(encode(f, state), durable.OS.Sync(f), f.Close())
			if err != nil {
				return 0, err
			}
			return size(path)
		},
		load: func(w io.Writer) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			r, err := decode(f)
			if err == nil {
				_, err = io.CopyBuffer(writerOnly{w}, readerOnly{r}, make([]byte, piece))
			}
			return errors.Join(err, f.Close())
		},
	}
}

func plain(t testing.TB) store {
	return bare(t, plainFile, func(f *os.File, state []byte) error { return feed(f, state) }, func(f *os.File) (io.Reader, error) { return f, nil })
}

// stream is zstd alone, in one thread, at the level that Ballast's zstd has.
func stream(t testing.TB) store {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dec.Close)
	return bare(t, zstdStream, func(f *os.File, state []byte) error {
		enc.Reset(f)
		return errors.Join(feed(enc, state), enc.Close())
	}, func(f *os.File) (io.Reader, error) { return dec, dec.Reset(f) })
}

// hashicorp is raft.FileSnapshotStore, which keeps one snapshot. It does not
// compress, and checks a CRC-64 of the whole when it opens one.
func hashicorp(t testing.TB) store {
	path := t.TempDir()
	s, err := raft.NewFileSnapshotStore(path, 1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("here")
	return store{
		name: peerStore,
		save: func(state []byte) (int64, error) {
			sink, err := s.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, transport)
			if err != nil {
				return 0, err
			}
			if err := feed(sink, state); err != nil {
				return 0, errors.Join(err, sink.Cancel())
			}
			if err := sink.Close(); err != nil {
				return 0, err
			}
			return size(filepath.Join(path, "snapshots", "*", "state.bin"))
		},
		load: func(w io.Writer) error {
			all, err := s.List()
			if err != nil {
				return err
			}
			if len(all) != 1 {
				return fmt.Errorf("%d snapshots", len(all))
			}
			_, r, err := s.Open(all[0].ID)
			if err != nil {
				return err
			}
			_, err = io.CopyBuffer(writerOnly{w}, readerOnly{r}, make([]byte, piece))
			return errors.Join(err, r.Close())
		},
	}
}

func ballast(t testing.TB, codec snapshot.Codec) store {
	path := t.TempDir()
	d, err := snapshot.OpenDir(path, snapshot.Options{Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	var id string
	return store{
		name: "ballast, " + string(codec),
		save: func(state []byte) (int64, error) {
			before := id
			w, err := d.Create(0, 1, 1, nil)
			if err != nil {
				return 0, err
			}
			if err := feed(w, state); err != nil {
				return 0, err
			}
			info, err := w.Finish()
			if err != nil {
				return 0, err
			}
			id = info.ID
			if before != "" {
				err = os.Remove(filepath.Join(path, before+".snap")) // as the peer does
			}
			return info.FileBytes, err
		},
		load: func(w io.Writer) error {
			r, err := d.Open(id)
			if err != nil {
				return err
			}
			_, err = io.CopyBuffer(writerOnly{w}, readerOnly{r}, make([]byte, piece))
			return errors.Join(err, r.Close())
		},
	}
}

// Both sides are read in pieces of the same size.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

// Every store gives back what it was given, so that the benchmark compares like
// with like.
func TestPeers(t *testing.T) {
	state := records(3 << 20)
	for _, s := range stores(t) {
		for range 2 {
			onDisk, err := s.save(state)
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			var got bytes.Buffer
			if err := s.load(&got); err != nil || !bytes.Equal(got.Bytes(), state) {
				t.Errorf("%s: %d bytes of %d, %v", s.name, got.Len(), len(state), err)
			}
			if onDisk <= 0 || onDisk > int64(len(state))+10_000 {
				t.Errorf("%s: %d bytes on disk", s.name, onDisk)
			}
		}
	}
}

// BenchmarkPeers has all of them write and read the same state in turns, and
// prints the median rates with the extremes, the work done for a second of
// processor time, which depends less on who else uses the machine, and the
// median of the shares of single rounds.
func BenchmarkPeers(b *testing.B) {
	state := records(*benchMiB << 20)
	all := stores(b)
	writes, reads, saved := map[string][]turn{}, map[string][]turn{}, map[string]float64{}
	timed := func(f func() error) turn {
		runtime.GC()
		began, used := time.Now(), processorTime(b)
		if err := f(); err != nil {
			b.Fatal(err)
		}
		mega := float64(len(state)) / 1e6
		return turn{mega / time.Since(began).Seconds(), mega / (processorTime(b) - used).Seconds()}
	}
	for b.Loop() {
		for _, s := range all {
			writes[s.name] = append(writes[s.name], timed(func() error {
				n, err := s.save(state)
				saved[s.name] = 100 * (1 - float64(n)/float64(len(state)))
				return err
			}))
			reads[s.name] = append(reads[s.name], timed(func() error { return s.load(io.Discard) }))
		}
	}
	for _, way := range []struct {
		what  string
		turns map[string][]turn
	}{{"written, durably", writes}, {"read, from the page cache", reads}} {
		fmt.Printf("%d MiB of JSON-like records, %s, %d rounds\n", *benchMiB, way.what, b.N)
		t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "\tMB/s\tfrom\tto\tMB per cpu s\tsaved\tof %s\t\n", strings.Join(baselines, "\tof "))
		for _, s := range all {
			rates := figures(way.turns[s.name], func(x turn) float64 { return x.rate })
			fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f%%\t", s.name, median(rates), slices.Min(rates), slices.Max(rates),
				median(figures(way.turns[s.name], func(x turn) float64 { return x.work })), saved[s.name])
			for _, base := range baselines {
				shares := slices.Clone(rates)
				for i := range shares {
					shares[i] /= way.turns[base][i].rate
				}
				fmt.Fprintf(t, "%.2f\t", median(shares))
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}

// turn is what one round has given: MB a second, and MB for a second of
// processor time.
type turn struct{ rate, work float64 }

func figures(turns []turn, of func(turn) float64) (v []float64) {
	for _, t := range turns {
		v = append(v, of(t))
	}
	return v
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
