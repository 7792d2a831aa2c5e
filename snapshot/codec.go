package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec names how the blocks of a snapshot are compressed. Every build reads
// all of them, whatever Options.Codec says: the file names its own.
type Codec string

// The codecs. DESIGN.md has figures for each.
const (
	CodecZstd Codec = "zstd" // the default: small, and fast enough for a disk
	CodecS2   Codec = "s2"   // several times faster, files half as large again
	CodecLZ4  Codec = "lz4"  // the fastest to read
	CodecGzip Codec = "gzip" // for tools that know nothing else
	CodecNone Codec = "none" // for state that does not compress
)

// codecSpec is what there is to know of one codec.
type codecSpec struct {
	name Codec
	// Levels are 1 to maxLevel; none if that is zero.
	defaultLevel, maxLevel int
	// bound is how long the destination of encode must be for n bytes. nil: as
	// long as the source.
	bound   func(n int) int
	encoder func(level, blockBytes int) (encoder, error)
	decoder func() (decoder, error)
}

// encoder compresses single blocks, one at a time. What it returns depends on
// nothing but its configuration and raw.
type encoder interface {
	// encode writes to dst and returns how much. Zero, or no less than raw has:
	// it does not shrink, and dst holds nothing of use.
	encode(dst, raw []byte) (int, error)
}

// decoder decompresses single blocks, one at a time.
type decoder interface {
	// decode writes to dst, which has length zero and the capacity that the
	// block must have, and never beyond that.
	decode(dst, stored []byte) ([]byte, error)
}

// codecs has each codec at the number that stands for it in a header.
var codecs = [...]codecSpec{
	0: {name: CodecNone},
	1: {CodecZstd, DefaultLevel, MaxLevel, zstdBound, newZstdEncoder, newZstdDecoder},
	2: {CodecS2, 1, 3, s2.MaxEncodedLen, newS2Encoder, func() (decoder, error) { return s2Coder{}, nil }},
	3: {CodecGzip, 1, 9, nil, newGzipEncoder, func() (decoder, error) { return &gzipDecoder{}, nil }},
	4: {CodecLZ4, 1, 9, nil, newLZ4Encoder, func() (decoder, error) { return lz4Decoder{}, nil }},
}

// number returns what stands for the codec in a header.
func (c Codec) number() (uint8, bool) {
	i := slices.IndexFunc(codecs[:], func(s codecSpec) bool { return s.name == c })
	return uint8(i), i >= 0
}

func codecNames() string {
	var names []string
	for _, s := range codecs {
		names = append(names, string(s.name))
	}
	return strings.Join(names, ", ")
}

// supported reports whether this version knows a codec.
func supported(number uint8) bool { return int(number) < len(codecs) }

func codecName(number uint8) string {
	if supported(number) {
		return string(codecs[number].name)
	}
	return fmt.Sprintf("number %d", number)
}

// zstd: one frame, with the window of the block and without a checksum.

type zstdEncoder struct{ *zstd.Encoder }

func zstdBound(n int) int {
	// zstd.Encoder.MaxEncodedSize, which needs an encoder: a frame header of at
	// most 18 bytes, 3 bytes for each 64 KiB.
	return n + 18 + 3*(n>>16+1)
}

func newZstdEncoder(level, blockBytes int) (encoder, error) {
	window := zstd.MinWindowSize
	for window < blockBytes {
		window <<= 1
	}
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window),
		zstd.WithEncoderCRC(false))
	return zstdEncoder{e}, err
}

func (e zstdEncoder) encode(dst, raw []byte) (int, error) {
	out := e.EncodeAll(raw, dst[:0])
	if len(out) > len(dst) {
		return 0, nil // never seen: the bound is an upper one
	}
	return copy(dst, out), nil // onto itself
}

type zstdDecoder struct{ *zstd.Decoder }

func newZstdDecoder() (decoder, error) {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(MaxBlockBytes),
		zstd.WithDecoderMaxWindow(2*MaxBlockBytes),
		zstd.WithDecodeAllCapLimit(true))
	return zstdDecoder{d}, err
}

func (d zstdDecoder) decode(dst, stored []byte) ([]byte, error) { return d.DecodeAll(stored, dst) }

// s2: one block of the format, which begins with its length.

type s2Coder struct{ compress func(dst, src []byte) []byte }

func newS2Encoder(level, _ int) (encoder, error) {
	return s2Coder{[]func(dst, src []byte) []byte{s2.Encode, s2.EncodeBetter, s2.EncodeBest}[level-1]}, nil
}

func (c s2Coder) encode(dst, raw []byte) (int, error) { return len(c.compress(dst, raw)), nil }

func (s2Coder) decode(dst, stored []byte) ([]byte, error) {
	// s2.Decode allocates whatever the frame says.
	n, err := s2.DecodedLen(stored)
	if err != nil {
		return nil, err
	}
	if n > cap(dst) {
		return nil, fmt.Errorf("%d bytes: %w", n, s2.ErrTooLarge)
	}
	return s2.Decode(dst, stored)
}

// gzip: one member. It carries a CRC-32 of its own, which the format demands.

type gzipEncoder struct {
	*gzip.Writer
	out limitedBuffer
}

func newGzipEncoder(level, _ int) (encoder, error) {
	w, err := gzip.NewWriterLevel(io.Discard, level)
	return &gzipEncoder{Writer: w}, err
}

func (e *gzipEncoder) encode(dst, raw []byte) (int, error) {
	e.out = limitedBuffer{room: dst}
	e.Reset(&e.out)
	_, err := e.Write(raw)
	err = errors.Join(err, e.Close())
	return e.out.n, err
}

// limitedBuffer counts what is written to it and keeps what has room.
type limitedBuffer struct {
	room []byte
	n    int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.n < len(b.room) {
		copy(b.room[b.n:], p)
	}
	b.n += len(p)
	return len(p), nil
}

type gzipDecoder struct {
	gzip.Reader
	source bytes.Reader
}

var errTrailing = errors.New("bytes after the end of the frame")

func (d *gzipDecoder) decode(dst, stored []byte) ([]byte, error) {
	d.source.Reset(stored)
	if err := d.Reset(&d.source); err != nil {
		return nil, err
	}
	d.Multistream(false)
	dst = dst[:cap(dst)]
	n, err := io.ReadFull(d, dst)
	if err != nil {
		return nil, err
	}
	// One byte more than there should be, or the end and its checksum.
	if k, err := d.Read(make([]byte, 1)); k != 0 || err != io.EOF {
		return nil, fmt.Errorf("more than %d bytes, or a bad end: %w", n, errors.Join(err, gzip.ErrChecksum))
	}
	if d.source.Len() != 0 {
		return nil, errTrailing
	}
	return dst, nil
}

// lz4: one block of the format. Its frames would only add lengths and checksums
// that are there already.

type lz4Encoder interface {
	CompressBlock(src, dst []byte) (int, error)
}

type lz4Coder struct{ lz4Encoder }

func newLZ4Encoder(level, _ int) (encoder, error) {
	if level == 1 {
		return lz4Coder{&lz4.Compressor{}}, nil
	}
	return lz4Coder{&lz4.CompressorHC{Level: lz4.CompressionLevel(1 << (8 + level - 1))}}, nil
}

func (e lz4Coder) encode(dst, raw []byte) (int, error) {
	// As long as raw and no longer, so that the compressor gives up early.
	n, err := e.CompressBlock(raw, dst[:len(raw):len(raw)])
	if errors.Is(err, lz4.ErrInvalidSourceShortBuffer) {
		return 0, nil
	}
	return n, err
}

type lz4Decoder struct{}

func (lz4Decoder) decode(dst, stored []byte) ([]byte, error) {
	n, err := lz4.UncompressBlock(stored, dst[:cap(dst)])
	if err != nil {
		return nil, err
	}
	return dst[:n], nil
}
