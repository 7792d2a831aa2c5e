package snapshot_test

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
	"testing/iotest"
	"testing/synctest"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// flipIn flips a bit in the stored bytes of some blocks and returns the file.
func flipIn(file []byte, blocks ...int) []byte {
	file = bytes.Clone(file)
	index := file[le.Uint64(file[len(file)-80+16:]):]
	for _, k := range blocks {
		e := index[48*k:]
		file[le.Uint64(e)+16+uint64(le.Uint32(e[12:]))/2] ^= 0x10
	}
	return file
}

// forgeIn makes blocks that have a good CRC and bad content, as a fault of the
// memory or of the compressor would while they are written.
func forgeIn(file []byte, blocks ...int) []byte {
	return parse(flipIn(file, blocks...)).seal()
}

// A Reader does what io.Reader, io.Seeker and io.ReaderAt say, however it was
// opened.
func TestReaderContract(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 5000} {
		d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Concurrency: 2})
		state := records(1, n)
		id := save(t, d, 0, 1, 1, nil, state).ID
		for name, open := range map[string]func(string) (snapshot.Reader, error){"Open": d.Open, "OpenAt": d.OpenAt} {
			r, err := open(id)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(r, state); err != nil {
				t.Errorf("%s, %d bytes: %v", name, n, err)
			}
			for what, call := range map[string]func() error{
				"ReadAt below zero": func() error { _, err := r.ReadAt(make([]byte, 1), -1); return err },
				"Seek below zero":   func() error { _, err := r.Seek(-1, io.SeekStart); return err },
				"Seek from nowhere": func() error { _, err := r.Seek(0, 3); return err },
			} {
				if err := call(); !errors.Is(err, messages.ErrInvalid) {
					t.Errorf("%s: %s: %v", name, what, err)
				}
			}
			if at, err := r.Seek(1<<40, io.SeekStart); err != nil || at != 1<<40 {
				t.Errorf("%s: Seek far beyond the end: %d, %v", name, at, err)
			}
			if k, err := r.Read(make([]byte, 1)); k != 0 || err != io.EOF {
				t.Errorf("%s: Read beyond the end: %d, %v", name, k, err)
			}
			if k, err := r.ReadAt(make([]byte, 1), 1<<62); k != 0 || err != io.EOF {
				t.Errorf("%s: ReadAt beyond the end: %d, %v", name, k, err)
			}
			// io.Copy goes through WriteTo.
			if _, err := r.Seek(-int64(n-n/3), io.SeekEnd); err != nil {
				t.Fatal(err)
			}
			var rest bytes.Buffer
			if k, err := io.Copy(&rest, r); err != nil || int(k) != n-n/3 || !bytes.Equal(rest.Bytes(), state[n/3:]) {
				t.Errorf("%s: copied %d of %d bytes, %v", name, k, n-n/3, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			_, seek := r.Seek(0, io.SeekStart)
			_, readAt := r.ReadAt(make([]byte, 1), 0)
			if n == 0 {
				readAt = messages.ErrInvalid // there is nothing to read: io.EOF
			}
			_, copied := io.Copy(io.Discard, r)
			for what, err := range map[string]error{"Seek": seek, "ReadAt": readAt, "Copy": copied} {
				if !errors.Is(err, messages.ErrInvalid) {
					t.Errorf("%s: %s after Close: %v", name, what, err)
				}
			}
		}
	}
}

// A consumer that fails, or takes less than it should, is told.
func TestCopyToFailingWriter(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512})
	r, err := d.Open(save(t, d, 0, 1, 1, nil, records(1, 5000)).ID)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(iotest.TruncateWriter(failingWriter{}, 0), r); err != nil || n != 5000 {
		t.Errorf("a writer that takes all: %d, %v", n, err)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(failingWriter{}, r); !errors.Is(err, errSource) || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 7, errSource }

// OpenAt reads no block that is not asked for, and checks those that are.
func TestOpenAtReadsOnlyWhatIsAsked(t *testing.T) {
	eachCodec(t, func(t *testing.T, _ int, codec snapshot.Codec) {
		state, info, file := small(t, snapshot.Options{Codec: codec})
		d, name := place(t, info.ID, flipIn(file, 0, 1, 3))
		if _, err := d.Open(info.ID); !errors.Is(err, messages.ErrCorrupt) {
			t.Fatalf("opened whole: %v", err)
		}
		r, err := d.OpenAt(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 512)
		if _, err := r.ReadAt(p, 2*512); err != nil || !bytes.Equal(p, state[2*512:3*512]) {
			t.Errorf("block 2: %v", err)
		}
		// Up to the damage, and not beyond.
		p = make([]byte, 700)
		n, err := r.ReadAt(p, 2*512+100)
		checkCorrupt(t, err, name, info.Index)
		if n != 412 || !bytes.Equal(p[:n], state[2*512+100:3*512]) {
			t.Errorf("%d bytes before the damage", n)
		}
		// A stream stops there too, and goes on behind it on demand.
		if _, err := r.Seek(2*512, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		checkCorrupt(t, err, name, info.Index)
		if !bytes.Equal(got, state[2*512:3*512]) {
			t.Errorf("%d bytes before the damage", len(got))
		}
		if _, err := r.Seek(4*512, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err = io.ReadAll(r); err != nil || !bytes.Equal(got, state[4*512:]) {
			t.Errorf("behind the damage: %d bytes, %v", len(got), err)
		}
		if err := d.Delete(info.ID); !errors.Is(err, messages.ErrConflict) {
			t.Errorf("deleted while it was open: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		// The index is checked at once.
		bad := bytes.Clone(file)
		bad[len(bad)-100] ^= 1
		overwrite(t, name, bad)
		if _, err := d.OpenAt(info.ID); !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("a bad index: %v", err)
		}
	})
}

// Small pieces one after the other decode a block once: it is damaged after the
// first of them, and the others are good all the same.
func TestReadAtKeepsBlocks(t *testing.T) {
	state, info, file := small(t, snapshot.Options{})
	d, name := place(t, info.ID, file)
	r, err := d.OpenAt(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	if _, err := r.ReadAt(p, 512); err != nil {
		t.Fatal(err)
	}
	overwrite(t, name, flipIn(file, 0, 1, 2, 3, 4))
	for at := 512; at+len(p) <= 1024; at += len(p) {
		if _, err := r.ReadAt(p, int64(at)); err != nil || !bytes.Equal(p, state[at:at+len(p)]) {
			t.Fatalf("at %d: %v", at, err)
		}
	}
	_, err = r.ReadAt(p, 0)
	checkCorrupt(t, err, name, info.Index)
	// What failed is not remembered: a disk may read at the second try.
	overwrite(t, name, file)
	if _, err := r.ReadAt(p, 0); err != nil || !bytes.Equal(p, state[:10]) {
		t.Errorf("mended: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// Many goroutines read anywhere while one streams and another seeks about.
func TestReadAtConcurrently(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 1024, Concurrency: 2})
	state := records(1, 200_000)
	r, err := d.Open(save(t, d, 0, 1, 1, nil, state).ID)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for seed := range uint64(8) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, 5))
			for range 200 {
				p := make([]byte, random.IntN(5000))
				at := random.IntN(len(state) - len(p))
				if _, err := r.ReadAt(p, int64(at)); err != nil || !bytes.Equal(p, state[at:at+len(p)]) {
					t.Errorf("%d bytes at %d: %v", len(p), at, err)
					return
				}
			}
		})
	}
	for range 5 {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, state) {
			t.Errorf("streamed %d bytes, %v", len(got), err)
		}
	}
	all.Wait()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A Reader that is closed, by itself or with its Dir, while others read from it.
func TestCloseWhileReading(t *testing.T) {
	for _, closeDir := range []bool{false, true} {
		d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Concurrency: 2})
		state := records(1, 300_000)
		r, err := d.Open(save(t, d, 0, 1, 1, nil, state).ID)
		if err != nil {
			t.Fatal(err)
		}
		want := messages.ErrInvalid
		if closeDir {
			want = messages.ErrStopped
		}
		var all sync.WaitGroup
		begun := make(chan struct{}, 8)
		for k := range 4 {
			all.Go(func() {
				p := make([]byte, 3000)
				for i := k; ; i++ {
					at := i * 777 % 290_000
					if n, err := r.ReadAt(p, int64(at)); !bytes.Equal(p[:n], state[at:at+n]) || err != nil {
						if !errors.Is(err, want) {
							t.Errorf("ReadAt ended with %v, want %v", err, want)
						}
						return
					}
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		all.Go(func() {
			for {
				if _, err := io.Copy(io.Discard, r); err != nil {
					if !errors.Is(err, want) {
						t.Errorf("Copy ended with %v, want %v", err, want)
					}
					return
				}
				if _, err := r.Seek(0, io.SeekStart); err != nil && !errors.Is(err, want) {
					t.Error(err)
				}
			}
		})
		for range cap(begun) {
			<-begun
		}
		if closeDir {
			err = d.Close()
		} else {
			err = r.Close()
		}
		if err != nil {
			t.Error(err)
		}
		all.Wait()
	}
}

// Reading ahead is bounded, starts at the first Read and leaves nothing running,
// even if the Reader is forgotten.
func TestForgottenReader(t *testing.T) {
	path := t.TempDir()
	state := records(1, 100_000)
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	info := save(t, d, 0, 1, 1, nil, state)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(path, info.ID+".snap")
	file := read(t, name)
	synctest.Test(t, func(t *testing.T) {
		d := open(t, path, snapshot.Options{Concurrency: 3, NoLock: true})
		r, err := d.OpenAt(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := make([]byte, 512*40)
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// At most Concurrency+2 blocks: block 39 and four behind it.
		var all []int
		for k := range 196 {
			all = append(all, k)
		}
		overwrite(t, name, flipIn(file, all...))
		defer overwrite(t, name, file)
		rest, err := io.ReadAll(r)
		if !errors.Is(err, messages.ErrCorrupt) || len(rest) != 4*512 || !bytes.Equal(append(got, rest...), state[:44*512]) {
			t.Errorf("%d bytes had been read ahead, then %v", len(rest), err)
		}
		// The bubble ends with the Reader open and nothing running.
	})
}

// A block with a good CRC and bad content is met by reading it, never served,
// and known before anything relies on the snapshot.
func TestGoodChecksumBadContent(t *testing.T) {
	eachCodec(t, func(t *testing.T, _ int, codec snapshot.Codec) {
		path := t.TempDir()
		d := open(t, path, snapshot.Options{BlockBytes: 512, Codec: codec})
		state := records(1, 10*512)
		older := save(t, d, 0, 1, 1, nil, state)
		info := save(t, d, 0, 2, 1, nil, state)
		name := filepath.Join(path, info.ID+".snap")
		overwrite(t, name, forgeIn(read(t, name), 7))
		r, err := d.Open(info.ID)
		if err != nil {
			t.Fatalf("the CRCs are good: %v", err)
		}
		got, err := io.ReadAll(r)
		checkCorrupt(t, err, name, 2)
		if !bytes.Equal(got, state[:7*512]) {
			t.Errorf("%d bytes before the damage", len(got))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := d.Verify(info.ID); !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("verified: %v", err)
		}
		if latest, damaged, err := d.Latest(0); err != nil || latest.ID != older.ID || len(damaged) != 1 {
			t.Errorf("latest: %v %v %v", latest.ID, damaged, err)
		}
		if removed, err := d.Cleanup(0, messages.Retention{Keep: 1}); len(removed) != 0 || !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("cleaned up %v, %v", removed, err)
		}
		if err := d.Delete(older.ID); !errors.Is(err, messages.ErrConflict) {
			t.Errorf("deleted the last good one: %v", err)
		}
	})
}

// Verify tells all of the damage.
func TestVerifyTellsAll(t *testing.T) {
	eachCodec(t, func(t *testing.T, _ int, codec snapshot.Codec) {
		path := t.TempDir()
		d := open(t, path, snapshot.Options{BlockBytes: 512, Codec: codec, Concurrency: 4})
		state := records(1, 2000*512+100)
		info := save(t, d, 0, 9, 1, nil, state)
		name := filepath.Join(path, info.ID+".snap")
		good := read(t, name)
		p := parse(good)
		for _, blocks := range [][]int{{0}, {2000}, {3, 4, 5, 1000}, upTo(2001)} {
			bad := flipIn(good, blocks...)
			if len(blocks) == 4 { // and one whose CRC is right
				bad = flipIn(forgeIn(good, 5), 3, 4, 1000)
			}
			overwrite(t, name, bad)
			_, err := d.Verify(info.ID)
			checkCorrupt(t, err, name, 9)
			var report *snapshot.DamageError
			if !errors.As(err, &report) {
				t.Fatalf("%v is no DamageError", err)
			}
			raw := int64(512 * len(blocks))
			if blocks[len(blocks)-1] == 2000 {
				raw -= 412
			}
			if report.Damaged != int64(len(blocks)) || report.Total != 2001 || report.RawBytes != raw || !same(report.Info, info) {
				t.Errorf("%d damaged: report of %d of %d with %d bytes of %+v", len(blocks), report.Damaged, report.Total, report.RawBytes, report.Info)
			}
			if len(report.Blocks) != min(len(blocks), snapshot.MaxDamagedBlocks) {
				t.Fatalf("%d damaged: %d listed", len(blocks), len(report.Blocks))
			}
			for i, b := range report.Blocks {
				e := p.index[48*blocks[i]:]
				from := int64(blocks[i]) * 512
				want := fmt.Sprint(blocks[i], le.Uint64(e), 16+le.Uint32(e[12:]), from, min(from+512, int64(len(state))))
				if got := fmt.Sprint(b.Number, b.Offset, b.Length, b.From, b.To); got != want || b.Reason == "" {
					t.Errorf("block %s (%s), want %s", got, b.Reason, want)
				}
			}
			var first *messages.CorruptError
			errors.As(err, &first)
			if at := report.Blocks[0].Offset; first.Offset < at || first.Offset > at+16 {
				t.Errorf("the damage is said to be at %d, not %d", first.Offset, at)
			}
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		}
		overwrite(t, name, good)
		if _, err := d.Verify(info.ID); err != nil {
			t.Error(err)
		}
	})
}

func upTo(n int) (all []int) {
	for k := range n {
		all = append(all, k)
	}
	return all
}

// An operator looks at one place of a large snapshot without reading it whole.
func ExampleDir_OpenAt() {
	path, err := os.MkdirTemp("", "snapshots")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(path)
	d, err := snapshot.OpenDir(path, snapshot.Options{Codec: snapshot.CodecS2})
	if err != nil {
		panic(err)
	}
	defer d.Close()
	w, err := d.Create(0, 1000, 3, nil)
	if err != nil {
		panic(err)
	}
	for i := range 100_000 {
		if _, err := fmt.Fprintf(w, "key-%06d=value\n", i); err != nil {
			panic(err)
		}
	}
	info, err := w.Finish()
	if err != nil {
		panic(err)
	}
	r, err := d.OpenAt(info.ID)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	line := make([]byte, 16)
	_, err = r.ReadAt(line, 77_777*17)
	fmt.Println(string(line), err)
	// Output: key-077777=value <nil>
}
