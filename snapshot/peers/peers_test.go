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
	"slices"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/snapshot"
	"github.com/hashicorp/raft"
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

func stores(t testing.TB) []store {
	all := []store{hashicorp(t)}
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
		name: "hashicorp/raft",
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
// prints the medians and the median of the shares of single rounds.
func BenchmarkPeers(b *testing.B) {
	state := records(*benchMiB << 20)
	all := stores(b)
	writes, reads, saved := make([][]float64, len(all)), make([][]float64, len(all)), make([]float64, len(all))
	timed := func(f func() error) float64 {
		began := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		return float64(len(state)) / 1e6 / time.Since(began).Seconds()
	}
	for b.Loop() {
		for i, s := range all {
			writes[i] = append(writes[i], timed(func() error {
				n, err := s.save(state)
				saved[i] = 100 * (1 - float64(n)/float64(len(state)))
				return err
			}))
			reads[i] = append(reads[i], timed(func() error { return s.load(io.Discard) }))
		}
	}
	fmt.Printf("%d MiB of JSON-like records, median MB/s and share of %s\n", *benchMiB, all[0].name)
	for i, s := range all {
		fmt.Printf("%-16s write %6.0f %5.2f   read %6.0f %5.2f   saved %4.1f%%\n", s.name,
			median(writes[i]), median(shares(writes[i], writes[0])), median(reads[i]), median(shares(reads[i], reads[0])), saved[i])
	}
}

func shares(v, of []float64) (s []float64) {
	for i := range v {
		s = append(s, v[i]/of[i])
	}
	return s
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
