package snapshot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
)

// The encodings that a block can have.
const (
	byCodec = 0
	asIs    = 1
)

// coder compresses, decompresses and checks blocks. It is safe for concurrent
// use: as many blocks as Options.Concurrency says are worked on at a time, and
// the others wait. There is one for each Dir and none for the whole program,
// because its channels must belong to the synctest bubble that the Dir was
// opened in.
type coder struct {
	number     uint8 // of the codec that is written with
	level      int
	blockBytes int

	// What one worker needs. Each is taken out while it is used; nil: not
	// needed so far.
	encoders chan encoder
	readers  chan *blockReader
}

// blockReader is what it takes to read one block at a time.
type blockReader struct {
	decoders [len(codecs)]decoder // nil: not needed so far
	stored   []byte               // room for a block header and stored bytes
}

func newCoder(o Options) *coder {
	number, _ := o.Codec.number()
	c := &coder{
		number:     number,
		level:      o.Level,
		blockBytes: o.BlockBytes,
		encoders:   make(chan encoder, o.Concurrency),
		readers:    make(chan *blockReader, o.Concurrency),
	}
	for range o.Concurrency {
		c.encoders <- nil
		c.readers <- nil
	}
	return c
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
func (b *block) encode(c *coder, headerCRC uint32) {
	defer close(b.done)
	e := <-c.encoders
	defer func() {
		if p := recover(); p != nil {
			b.err = fmt.Errorf("compressing block %d panicked: %v", b.number, p)
			e = nil // it may have been left in any state
		}
		c.encoders <- e
	}()
	spec := &codecs[c.number]
	if e == nil && spec.encoder != nil {
		if e, b.err = spec.encoder(c.level, c.blockBytes); b.err != nil {
			e, b.err = nil, fmt.Errorf("set up %s: %w", spec.name, b.err)
			return
		}
	}
	b.hash = sha256.Sum256(b.raw)
	room := len(b.raw)
	if spec.bound != nil {
		room = spec.bound(room)
	}
	if need := blockFixed + room; cap(b.stored) < need {
		b.stored = make([]byte, need)
	}
	n := 0
	if e != nil {
		if n, b.err = e.encode(b.stored[blockFixed:blockFixed+room], b.raw); b.err != nil {
			b.err = fmt.Errorf("compressing block %d: %w", b.number, b.err)
			return
		}
	}
	encoding := uint32(byCodec)
	if n == 0 || n >= len(b.raw) {
		encoding = asIs
		n = copy(b.stored[blockFixed:cap(b.stored)], b.raw)
	}
	b.stored = b.stored[:blockFixed+n]
	le.PutUint32(b.stored[0:], uint32(len(b.raw)))
	le.PutUint32(b.stored[4:], uint32(n))
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

// withReader lends a block reader to f. It waits until one is free.
func (c *coder) withReader(f func(*blockReader) error) error {
	r := <-c.readers
	if r == nil {
		r = &blockReader{}
	}
	defer func() {
		// A file with larger blocks than this Dir writes leaves nothing behind.
		if cap(r.stored) > 2*(blockFixed+c.blockBytes) {
			r.stored = nil
		}
		c.readers <- r
	}()
	return f(r)
}

// room returns a buffer of n bytes, which holds until the next call.
func (r *blockReader) room(n int) []byte {
	if cap(r.stored) < n {
		r.stored = make([]byte, n)
	}
	return r.stored[:n]
}

// checkStored checks a stored block against its index entry, without
// decompressing it: its lengths, its place and every byte by the CRC.
func checkStored(h *header, number int64, e entry, stored []byte) error {
	at := e.offset()
	if le.Uint32(stored) != uint32(e.raw()) || le.Uint32(stored[4:]) != uint32(e.stored()) {
		return &damage{at, fmt.Sprintf("block %d has lengths other than the index says", number), nil}
	}
	if blockCRC(h.crc, number, stored) != le.Uint32(stored[12:]) {
		return &damage{at, fmt.Sprintf("block %d fails its checksum", number), nil}
	}
	switch encoding := le.Uint32(stored[8:]); {
	case encoding > asIs || encoding == byCodec && codecs[h.codec].decoder == nil:
		return &damage{at + 8, fmt.Sprintf("block %d has the unknown encoding %d", number, encoding), nil}
	case encoding == asIs && e.stored() != e.raw():
		return &damage{at, fmt.Sprintf("block %d holds %d bytes, not %d", number, e.stored(), e.raw()), nil}
	}
	return nil
}

// decode checks a stored block in every way and returns the state in it: in
// dst, whose capacity must be the raw length at least, or, for a block that is
// stored as is, in stored.
func (r *blockReader) decode(h *header, number int64, e entry, stored, dst []byte) ([]byte, error) {
	raw, err := r.open(h, number, e, stored, dst)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(raw); !bytes.Equal(sum[:], e.hash()) {
		return nil, &damage{e.offset(), fmt.Sprintf("block %d fails its SHA-256", number), nil}
	}
	return raw, nil
}

// open is decode without the hash, which an unfinished file does not have.
func (r *blockReader) open(h *header, number int64, e entry, stored, dst []byte) ([]byte, error) {
	if err := checkStored(h, number, e, stored); err != nil {
		return nil, err
	}
	at, raw := e.offset(), stored[blockFixed:]
	if le.Uint32(stored[8:]) == byCodec {
		var err error
		if raw, err = r.decompress(h.codec, dst[:0:e.raw()], raw); err != nil {
			return nil, &damage{at + blockFixed, fmt.Sprintf("block %d cannot be decompressed", number), err}
		}
	}
	if len(raw) != e.raw() {
		return nil, &damage{at, fmt.Sprintf("block %d holds %d bytes, not %d", number, len(raw), e.raw()), nil}
	}
	return raw, nil
}

// decompress never writes beyond the capacity of dst. What it reads has passed
// a checksum, but a checksum can be forged: a panic becomes an error.
func (r *blockReader) decompress(codec uint8, dst, frame []byte) (raw []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			raw, err = nil, fmt.Errorf("the decompressor panicked: %v", p)
			r.decoders[codec] = nil // it may have been left in any state
		}
	}()
	if r.decoders[codec] == nil {
		if r.decoders[codec], err = codecs[codec].decoder(); err != nil {
			r.decoders[codec] = nil
			return nil, fmt.Errorf("set up the decompressor: %w", err)
		}
	}
	return r.decoders[codec].decode(dst, frame)
}
