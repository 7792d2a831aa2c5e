package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"pgregory.net/rapid"
)

// codecs has each codec at the number that the package comment gives it.
var codecs = []snapshot.Codec{snapshot.CodecNone, snapshot.CodecZstd, snapshot.CodecS2, snapshot.CodecGzip, snapshot.CodecLZ4}

// levels are the highest of each.
var levels = []int{0, 22, 3, 9, 9}

func eachCodec(t *testing.T, test func(t *testing.T, number int, codec snapshot.Codec)) {
	for number, codec := range codecs {
		t.Run(string(codec), func(t *testing.T) { test(t, number, codec) })
	}
}

func check[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// deflate makes a frame of a codec, without the package's code.
func deflate(codec snapshot.Codec, raw []byte) []byte {
	switch codec {
	case snapshot.CodecZstd:
		return check(zstd.NewWriter(nil)).EncodeAll(raw, nil)
	case snapshot.CodecS2:
		return s2.Encode(nil, raw)
	case snapshot.CodecGzip:
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		check(w.Write(raw))
		if err := w.Close(); err != nil {
			panic(err)
		}
		return b.Bytes()
	case snapshot.CodecLZ4:
		b := make([]byte, lz4.CompressBlockBound(len(raw)))
		return b[:check(new(lz4.Compressor).CompressBlock(raw, b))]
	}
	return bytes.Clone(raw)
}

// inflate takes one apart, without the package's code.
func inflate(codec snapshot.Codec, frame []byte, rawLength int) ([]byte, error) {
	switch codec {
	case snapshot.CodecZstd:
		return check(zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))).DecodeAll(frame, nil)
	case snapshot.CodecS2:
		return s2.Decode(nil, frame)
	case snapshot.CodecGzip:
		r, err := gzip.NewReader(bytes.NewReader(frame))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case snapshot.CodecLZ4:
		b := make([]byte, rawLength)
		n, err := lz4.UncompressBlock(frame, b)
		return b[:max(n, 0)], err
	}
	return nil, errors.New("a frame of no codec")
}

// A file of each codec at its lowest and highest level is read by a directory
// that writes another, and the level does not change the content hash.
func TestEveryCodecIsRead(t *testing.T) {
	state := bytes.Join([][]byte{records(1, 50_000), noise(1, 5000), make([]byte, 20_000), records(2, 777)}, nil)
	eachCodec(t, func(t *testing.T, number int, codec snapshot.Codec) {
		for _, level := range []int{0, min(1, levels[number]), levels[number]} {
			path := t.TempDir()
			d := open(t, path, snapshot.Options{Codec: codec, Level: level, BlockBytes: 4096})
			info := save(t, d, 0, 1, 1, nil, state)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if got := read(t, filepath.Join(path, info.ID+".snap"))[10]; int(got) != number {
				t.Errorf("the header names codec %d, not %d", got, number)
			}
			if saves := info.FileBytes < info.RawBytes*6/10; saves != (codec != snapshot.CodecNone) {
				t.Errorf("level %d: %d bytes became %d", level, info.RawBytes, info.FileBytes)
			}
			if info.ContentHash != tree(state, 4096) {
				t.Errorf("level %d: another content hash", level)
			}
			d = open(t, path, snapshot.Options{Codec: codecs[(number+1)%len(codecs)], BlockBytes: 512, Concurrency: 1})
			if got, _ := load(t, d, info.ID); !bytes.Equal(got, state) {
				t.Errorf("level %d: other bytes", level)
			}
			if _, err := d.Verify(info.ID); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What does not shrink costs 64 bytes a block with every codec, and no more.
func TestIncompressibleIsStoredAsIs(t *testing.T) {
	eachCodec(t, func(t *testing.T, number int, codec snapshot.Codec) {
		for _, level := range []int{0, levels[number]} {
			d := open(t, t.TempDir(), snapshot.Options{Codec: codec, Level: level, BlockBytes: 64 << 10})
			state := noise(7, 10<<16+100)
			info := save(t, d, 0, 1, 1, nil, state)
			if want := int64(136 + 11*64 + len(state)); info.FileBytes != want {
				t.Errorf("level %d: %d bytes, want %d", level, info.FileBytes, want)
			}
			if got, _ := load(t, d, info.ID); !bytes.Equal(got, state) {
				t.Errorf("level %d: other bytes", level)
			}
		}
	})
}

func TestCodecOptions(t *testing.T) {
	for number, codec := range codecs {
		highest := levels[number]
		for _, c := range []struct {
			level int
			good  bool
		}{{0, true}, {1, highest > 0}, {highest, true}, {highest + 1, false}, {-1, false}} {
			err := snapshot.Options{Codec: codec, Level: c.level}.Validate()
			if (err == nil) != c.good || err != nil && (!errors.Is(err, messages.ErrInvalid) || !strings.Contains(err.Error(), string(codec))) {
				t.Errorf("%s at level %d: %v", codec, c.level, err)
			}
		}
	}
	for _, codec := range []snapshot.Codec{"snappy", "ZSTD", "zstd ", snapshot.Codec(strings.Repeat("x", 1<<20))} {
		err := snapshot.Options{Codec: codec, BlockBytes: 1}.Validate()
		if !errors.Is(err, messages.ErrInvalid) || !strings.Contains(err.Error(), "Codec") || !strings.Contains(err.Error(), "BlockBytes") || len(err.Error()) > 500 {
			t.Errorf("%.20q: %v", codec, err)
		}
		if _, err := snapshot.OpenDir(t.TempDir(), snapshot.Options{Codec: codec}); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("%.20q: opened: %v", codec, err)
		}
	}
}

// unsynced is a disk that need not survive a power cut.
type unsynced struct{}

func (unsynced) Sync(*os.File) error          { return nil }
func (unsynced) SyncDir(string) error         { return nil }
func (unsynced) Rename(from, to string) error { return os.Rename(from, to) }
func (unsynced) Remove(name string) error     { return os.Remove(name) }

// The same state and options give the same bytes, at any Concurrency, with one
// processor and two, in whatever pieces it arrives, and whatever the same
// compressors have worked on before.
func TestDeterministic(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	eachCodec(t, func(t *testing.T, number int, codec snapshot.Codec) {
		if raceDetector && codec != snapshot.CodecZstd {
			return // the goroutines are the same for each of them
		}
		dir := t.TempDir
		rapid.Check(t, func(t *rapid.T) {
			seed := rapid.Uint64().Draw(t, "seed")
			r := rand.New(rand.NewPCG(seed, 3))
			var state []byte
			for range rapid.IntRange(0, 6).Draw(t, "parts") {
				switch n := r.IntN(20_000); r.IntN(3) {
				case 0:
					state = append(state, noise(byte(r.Uint32()), n)...)
				case 1:
					state = append(state, make([]byte, n)...)
				default:
					state = append(state, records(r.Uint64(), n)...)
				}
			}
			o := snapshot.Options{
				Codec:      codec,
				Level:      rapid.IntRange(0, min(levels[number], 7)).Draw(t, "level"),
				Disk:       unsynced{},
				BlockBytes: rapid.SampledFrom([]int{512, 4096, 10_000, 70_000}).Draw(t, "block"),
			}
			var want []byte
			for _, processors := range []int{1, 2} {
				runtime.GOMAXPROCS(processors)
				o.Concurrency = rapid.IntRange(1, 8).Draw(t, "concurrency")
				path := dir()
				d := check(snapshot.OpenDir(path, o))
				for i := range uint64(2) {
					w := check(d.Create(i, 9, 3, []byte("meta")))
					most := 1 + r.IntN(40_000)
					for rest := state; len(rest) > 0; {
						n := min(1+r.IntN(most), len(rest))
						check(w.Write(rest[:n]))
						rest = rest[n:]
					}
					info := check(w.Finish())
					if info.ContentHash != tree(state, o.BlockBytes) {
						t.Fatal("another content hash")
					}
					// The group is in the header and in every checksum: take it out.
					p := parse(check(os.ReadFile(filepath.Join(path, info.ID+".snap"))))
					le.PutUint64(p.header[16:], 0)
					file := p.seal()
					if want == nil {
						want = file
					}
					if !bytes.Equal(file, want) {
						t.Fatalf("%d processors, %+v, snapshot %d: another file", processors, o, i)
					}
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

// Whatever a frame says, it is decompressed into no more than the raw length
// that the index has for it, and nothing is served of what does not fill that.
func TestFramesThatLie(t *testing.T) {
	eachCodec(t, func(t *testing.T, number int, codec snapshot.Codec) {
		state, info, file := small(t, snapshot.Options{Codec: codec})
		last := state[4*512:]
		good := deflate(codec, last)
		var before, after runtime.MemStats
		for name, frame := range map[string][]byte{
			"longer":              deflate(codec, append(bytes.Clone(last), 0)),
			"shorter":             deflate(codec, last[:len(last)-1]),
			"one byte":            deflate(codec, last[:1]),
			"grows to 64 MiB":     deflate(codec, make([]byte, 64<<20)),
			"twice":               append(bytes.Clone(good), good...),
			"with a byte behind":  append(bytes.Clone(good), 0),
			"without the last":    good[:len(good)-1],
			"first byte":          good[:1],
			"another codec's":     deflate(codecs[(number+1)%len(codecs)], last),
			"noise":               noise(1, 99),
			"zeros":               make([]byte, 99),
			"s2 length of 4 Gi":   {0xff, 0xff, 0xff, 0xff, 0x0f},
			"zstd window of 3 Ti": {0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0},
		} {
			// As long as the raw length allows: the index refuses more.
			frame = frame[:min(len(frame), len(last))]
			p := parse(file)
			p.blocks[4] = bytes.Join([][]byte{u32(uint32(len(last))), u32(uint32(len(frame))), u32(0), u32(0), frame}, nil)
			e := p.index[4*48:]
			le.PutUint32(e[12:], uint32(len(frame)))
			le.PutUint64(p.footer[16:], le.Uint64(e)+uint64(len(p.blocks[4])))
			d, name2 := place(t, info.ID, p.seal())
			runtime.ReadMemStats(&before)
			r, err := d.Open(info.ID)
			if err == nil {
				var got []byte
				got, err = io.ReadAll(r)
				if err == nil && !bytes.Equal(got, state) || err != nil && !bytes.Equal(got, state[:4*512]) {
					t.Errorf("%s: served %d bytes, %v", name, len(got), err)
				}
			}
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
				t.Errorf("%s: took %d MiB", name, grown>>20)
			}
			// A codec need not see what lies behind its frame.
			if err == nil && name != "twice" && name != "with a byte behind" {
				t.Errorf("%s: served", name)
			}
			if err != nil {
				checkCorrupt(t, err, name2, info.Index)
			}
		}
	})
}

// Files of more bytes than one block, and of one level after the other, give
// what they hold, in blocks of the largest size.
func TestLargeBlocks(t *testing.T) {
	state := records(4, 16<<20+5)
	copy(state[3<<20:], noise(1, 1<<20))
	eachCodec(t, func(t *testing.T, number int, codec snapshot.Codec) {
		d := open(t, t.TempDir(), snapshot.Options{Codec: codec, BlockBytes: snapshot.MaxBlockBytes})
		info := save(t, d, 0, 1, 1, nil, state)
		if got, _ := load(t, d, info.ID); !bytes.Equal(got, state) {
			t.Error("other bytes")
		}
	})
}

func ExampleCodec() {
	for _, codec := range []snapshot.Codec{"", snapshot.CodecS2, "brotli"} {
		fmt.Printf("%q: %v\n", codec, snapshot.Options{Codec: codec}.Validate())
	}
	// Output:
	// "": <nil>
	// "s2": <nil>
	// "brotli": snapshot: option Codec is "brotli", must be one of none, zstd, s2, gzip, lz4: invalid argument
}
