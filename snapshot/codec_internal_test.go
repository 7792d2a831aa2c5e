package snapshot

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// FuzzDecode gives any bytes to any decoder. Whatever they are, no panic gets
// out and not a byte is written beyond the length that the block should have.
func FuzzDecode(f *testing.F) {
	raw := bytes.Repeat([]byte("a state that compresses, "), 60)
	for number, spec := range codecs {
		if spec.encoder == nil {
			continue
		}
		for _, level := range []int{1, spec.maxLevel} {
			frame := encodeWith(f, uint8(number), level, raw)
			f.Add(uint8(number), uint16(len(raw)), frame)
			f.Add(uint8(number), uint16(len(raw)-1), frame)
			f.Add(uint8(number), uint16(len(raw)+1), frame)
			f.Add(uint8(number), uint16(10), frame[:len(frame)/2])
		}
		f.Add(uint8(number), uint16(0), []byte{})
		f.Add(uint8(number), uint16(100), []byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	}
	r := &blockReader{}
	f.Fuzz(func(t *testing.T, number uint8, length uint16, frame []byte) {
		number %= uint8(len(codecs))
		if codecs[number].decoder == nil {
			return
		}
		room := bytes.Repeat([]byte{0xa5}, int(length)+64)
		kept := bytes.Clone(frame)
		got, err := r.decompress(number, room[:0:length], frame)
		if err == nil && len(got) > int(length) {
			t.Fatalf("%d bytes of at most %d", len(got), length)
		}
		if err == nil && len(got) > 0 && &got[0] != &room[0] {
			t.Fatal("decompressed into a buffer of its own")
		}
		for i, c := range room[length:] {
			if c != 0xa5 {
				t.Fatalf("wrote %d bytes beyond the end", i)
			}
		}
		if !bytes.Equal(frame, kept) {
			t.Fatal("the frame was changed")
		}
	})
}

// FuzzEncode has any bytes compressed by any codec, with compressors that have
// worked before and that have not: the bytes come back, and the stored ones are
// always the same.
func FuzzEncode(f *testing.F) {
	noise := make([]byte, 5000)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(noise)
	for number, spec := range codecs {
		for level := range uint8(max(1, min(spec.maxLevel, 9))) {
			f.Add([]byte("a"), uint8(number), level)
			f.Add(bytes.Repeat([]byte("abc"), 1000), uint8(number), level)
			f.Add(noise, uint8(number), level)
			f.Add(append(make([]byte, 3000), noise...), uint8(number), level)
		}
	}
	type key struct {
		number uint8
		level  int
	}
	used := map[key]*coder{}
	r := &blockReader{}
	f.Fuzz(func(t *testing.T, raw []byte, number, level uint8) {
		if len(raw) == 0 {
			return // there are no empty blocks
		}
		number %= uint8(len(codecs))
		spec, k := codecs[number], key{number: number}
		if spec.maxLevel > 0 {
			k.level = 1 + int(level)%min(spec.maxLevel, 9)
		}
		if used[k] == nil {
			used[k] = newTestCoder(k.number, k.level)
		}
		var stored [2][]byte
		for i, c := range []*coder{used[k], newTestCoder(k.number, k.level)} {
			b := &block{number: 3, raw: raw, done: make(chan struct{})}
			b.encode(c, 77)
			if b.err != nil {
				t.Fatal(b.err)
			}
			h := &header{codec: k.number, crc: 77}
			e := entry(appendEntry(nil, 0, len(raw), len(b.stored)-blockFixed, &b.hash))
			got, err := r.decode(h, 3, e, b.stored, make([]byte, 0, len(raw)))
			if err != nil || !bytes.Equal(got, raw) {
				t.Fatalf("%s, level %d: %d bytes became %d: %v", spec.name, k.level, len(raw), len(got), err)
			}
			if len(b.stored) > blockFixed+len(raw) {
				t.Fatalf("%s, level %d: %d bytes are stored as %d", spec.name, k.level, len(raw), len(b.stored))
			}
			stored[i] = b.stored
		}
		if !bytes.Equal(stored[0], stored[1]) {
			t.Fatalf("%s, level %d: a compressor remembers", spec.name, k.level)
		}
	})
}

func newTestCoder(number uint8, level int) *coder {
	return newCoder(Options{Codec: codecs[number].name, Level: level, BlockBytes: 1 << 16, Concurrency: 1})
}

func encodeWith(t testing.TB, number uint8, level int, raw []byte) []byte {
	t.Helper()
	e, err := codecs[number].encoder(level, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, len(raw)+1000)
	n, err := e.encode(dst, raw)
	if err != nil || n == 0 || n >= len(raw) {
		t.Fatalf("%s: %d bytes became %d: %v", codecs[number].name, len(raw), n, err)
	}
	return dst[:n]
}

// The bound of zstd is that of the encoder itself, at sizes around its blocks.
func TestZstdBound(t *testing.T) {
	for _, level := range []int{1, 3, 6, 22} {
		for _, n := range []int{1, 255, 256, MinBlockBytes, 2000, 65535, 65536, 65791, 65792, 1<<17 - 1, 1 << 17, 1<<17 + 1, 1 << 20, MaxBlockBytes} {
			e, err := newZstdEncoder(level, max(n, MinBlockBytes))
			if err != nil {
				t.Fatal(err)
			}
			if want := e.(zstdEncoder).MaxEncodedSize(n); zstdBound(n) < want {
				t.Errorf("level %d: %d bytes may take %d, not %d", level, n, want, zstdBound(n))
			}
		}
	}
}

// A panic in a compressor or a decompressor is an error of one block, and the
// next block gets a new one.
func TestCoderPanics(t *testing.T) {
	c := newTestCoder(1, 1)
	<-c.encoders
	c.encoders <- panicking{}
	b := &block{raw: []byte("state"), done: make(chan struct{})}
	b.encode(c, 1)
	if b.err == nil {
		t.Error("a panic while compressing is lost")
	}
	b = &block{raw: []byte("state"), done: make(chan struct{})}
	if b.encode(c, 1); b.err != nil {
		t.Errorf("the block after it: %v", b.err)
	}
	r := &blockReader{}
	r.decoders[1] = panicking{}
	if _, err := r.decompress(1, make([]byte, 0, 10), []byte("frame")); err == nil {
		t.Error("a panic while decompressing is lost")
	}
	if got, err := r.decompress(1, make([]byte, 0, 1500), encodeWith(t, 1, 1, make([]byte, 1500))); err != nil || len(got) != 1500 {
		t.Errorf("the block after it: %d bytes, %v", len(got), err)
	}
}

type panicking struct{}

func (panicking) encode(dst, raw []byte) (int, error)       { panic("out of order") }
func (panicking) decode(dst, stored []byte) ([]byte, error) { panic("out of order") }

// What a reader of a file with large blocks needs does not stay with a Dir
// that writes small ones.
func TestLargeBuffersAreLetGo(t *testing.T) {
	c := newTestCoder(1, 1)
	for _, n := range []int{1 << 10, 16 << 20, 1 << 17} {
		if err := c.withReader(func(r *blockReader) error { r.room(n); return nil }); err != nil {
			t.Fatal(err)
		}
		if r := <-c.readers; cap(r.stored) > 2*(blockFixed+1<<16) {
			t.Errorf("after %d bytes: %d stay", n, cap(r.stored))
		} else {
			c.readers <- r
		}
	}
}
