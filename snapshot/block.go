package snapshot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// The encodings that a block can have.
const (
	byCodec = 0
	asIs    = 1
)

// supported reports whether this version can read and write a codec.
func supported(codec uint8) bool { return codec == codecZstd }

// codec compresses and decompresses single blocks. It is safe for concurrent
// use. There is one for each Dir and none for the whole program, because its
// channels must belong to the synctest bubble that the Dir was opened in.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec(o Options) (*codec, error) {
	window := zstd.MinWindowSize
	for window < o.BlockBytes {
		window <<= 1
	}
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(o.Level)),
		zstd.WithEncoderConcurrency(o.Concurrency),
		zstd.WithWindowSize(window),
		zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("set up the compressor: %w", err)
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(o.Concurrency),
		zstd.WithDecoderMaxMemory(MaxBlockBytes),
		zstd.WithDecoderMaxWindow(2*MaxBlockBytes),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("set up the decompressor: %w", err)
	}
	return &codec{enc, dec}, nil
}

// block is one block on its way into a file.
type block struct {
	number int64
	raw    []byte // the state
	stored []byte // block header and stored bytes
	hash   [32]byte
	err    error
	done   chan struct{} // closed when stored, hash and err are set
}

// encode compresses and seals the block. It runs on a goroutine of its own, so
// a panic in the compressor must end here.
func (b *block) encode(c *codec, headerCRC uint32) {
	defer close(b.done)
	defer func() {
		if p := recover(); p != nil {
			b.err = fmt.Errorf("compressing block %d panicked: %v", b.number, p)
		}
	}()
	b.hash = sha256.Sum256(b.raw)
	if need := blockFixed + c.enc.MaxEncodedSize(len(b.raw)); cap(b.stored) < need {
		b.stored = make([]byte, 0, need)
	}
	encoding := uint32(byCodec)
	b.stored = c.enc.EncodeAll(b.raw, b.stored[:blockFixed])
	if len(b.stored)-blockFixed >= len(b.raw) {
		encoding = asIs
		b.stored = append(b.stored[:blockFixed], b.raw...)
	}
	le.PutUint32(b.stored[0:], uint32(len(b.raw)))
	le.PutUint32(b.stored[4:], uint32(len(b.stored)-blockFixed))
	le.PutUint32(b.stored[8:], encoding)
	le.PutUint32(b.stored[12:], blockCRC(headerCRC, b.number, b.stored))
}

// blockCRC is the checksum of a stored block, which binds it to its header and
// its place.
func blockCRC(headerCRC uint32, number int64, stored []byte) uint32 {
	var seed [12]byte
	le.PutUint32(seed[0:], headerCRC)
	le.PutUint64(seed[4:], uint64(number))
	crc := crc32.Update(0, castagnoli, seed[:])
	crc = crc32.Update(crc, castagnoli, stored[:12])
	return crc32.Update(crc, castagnoli, stored[blockFixed:])
}

// decodeBlock checks a stored block against its index entry and returns the
// state in it: in dst, whose capacity must be the raw length at least, or, for
// a block that is stored as is, in stored.
func (c *codec) decodeBlock(h *header, number int64, e entry, stored, dst []byte) ([]byte, error) {
	raw, err := c.openBlock(h, number, e, stored, dst)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(raw); !bytes.Equal(sum[:], e.hash()) {
		return nil, &damage{e.offset(), fmt.Sprintf("block %d fails its SHA-256", number), nil}
	}
	return raw, nil
}

// checkStored checks the lengths and the checksum of a stored block.
func checkStored(h *header, number int64, e entry, stored []byte) error {
	if le.Uint32(stored) != uint32(e.raw()) || le.Uint32(stored[4:]) != uint32(e.stored()) {
		return &damage{e.offset(), fmt.Sprintf("block %d has lengths other than the index says", number), nil}
	}
	if blockCRC(h.crc, number, stored) != le.Uint32(stored[12:]) {
		return &damage{e.offset(), fmt.Sprintf("block %d fails its checksum", number), nil}
	}
	return nil
}

// openBlock is decodeBlock without the hash, which an unfinished file does not
// have.
func (c *codec) openBlock(h *header, number int64, e entry, stored, dst []byte) ([]byte, error) {
	if err := checkStored(h, number, e, stored); err != nil {
		return nil, err
	}
	at := e.offset()
	var raw []byte
	switch encoding := le.Uint32(stored[8:]); encoding {
	case byCodec:
		var err error
		if raw, err = c.decompress(stored[blockFixed:], dst[:0:e.raw()]); err != nil {
			return nil, &damage{at + blockFixed, fmt.Sprintf("block %d cannot be decompressed", number), err}
		}
	case asIs:
		raw = stored[blockFixed:]
	default:
		return nil, &damage{at + 8, fmt.Sprintf("block %d has the unknown encoding %d", number, encoding), nil}
	}
	if len(raw) != e.raw() {
		return nil, &damage{at, fmt.Sprintf("block %d holds %d bytes, not %d", number, len(raw), e.raw()), nil}
	}
	return raw, nil
}

// decompress never writes beyond the capacity of dst. What it reads has passed
// a checksum, but a checksum can be forged: a panic becomes an error.
func (c *codec) decompress(frame, dst []byte) (raw []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			raw, err = nil, fmt.Errorf("the decompressor panicked: %v", p)
		}
	}()
	return c.dec.DecodeAll(frame, dst)
}
