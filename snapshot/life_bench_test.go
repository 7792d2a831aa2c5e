package snapshot_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// What the syncs in between cost: state that does not compress, so that every
// byte goes to the file, beside Create, which syncs at the end alone.
func BenchmarkPartialSync(b *testing.B) {
	piece := noise(1, 1<<20)
	const pieces = 512
	for _, every := range []int64{0, 4 << 20, 16 << 20, 64 << 20, 256 << 20} {
		name := "Create"
		if every > 0 {
			name = fmt.Sprintf("Resume,MiB=%d", every>>20)
		}
		b.Run(name, func(b *testing.B) {
			d := open(b, b.TempDir(), snapshot.Options{PartialSyncBytes: every})
			b.SetBytes(pieces << 20)
			for b.Loop() {
				w, err := d.Create(0, 1, 1, nil)
				if every > 0 {
					w, _, err = d.Resume(0, 1, 1, nil)
				}
				if err != nil {
					b.Fatal(err)
				}
				for range pieces {
					if _, err := w.Write(piece); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := w.Finish(); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if _, err := d.Cleanup(0, messages.Retention{Keep: 1}); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// Going on with a save, sending and taking a copy: bytes of state a second, of
// JSON-like records.
func BenchmarkLife(b *testing.B) {
	const size = 128 << 20
	state := records(1, size)
	b.Run("Resume", func(b *testing.B) {
		d := open(b, b.TempDir(), snapshot.Options{})
		w, _ := resume(b, d, 0, 1, 1, "")
		write(b, w, state)
		if err := w.Suspend(); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(size)
		for b.Loop() {
			w, offset := resume(b, d, 0, 1, 1, "")
			if offset != size {
				b.Fatal(offset)
			}
			if err := w.Suspend(); err != nil {
				b.Fatal(err)
			}
		}
	})
	from := open(b, b.TempDir(), snapshot.Options{})
	info := save(b, from, 0, 1, 1, nil, state)
	b.Run("Export", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			x, err := from.Export(info.ID, 0)
			if err != nil {
				b.Fatal(err)
			}
			_, err = io.Copy(io.Discard, x)
			if err := errors.Join(err, x.Close()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Import", func(b *testing.B) {
		stream := exported(b, from, info.ID, 0)
		b.SetBytes(size)
		for b.Loop() {
			to := open(b, b.TempDir(), snapshot.Options{})
			if _, err := imported(to, "", stream); err != nil {
				b.Fatal(err)
			}
		}
	})
}
