package log

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync"

	"github.com/ballast-raft/ballast/messages"
)

// findWitness looks behind the bad record at data[bad:], which should have had
// the wal index at, for a good one that says that everything before it was
// durable. If there is one, the bad record had been acknowledged, and is
// damage; if there is none, it is the torn end of the last sync. It returns
// the witness's offset, or -1.
//
// First it follows the lengths, where the index of each record is known. Then
// it tries every offset. Three filters keep that bounded: the length must fit,
// the flag must be set and the flags legal (59 of 256 values), and the index
// that the check implies must be one that fits between the bad record and the
// candidate. The CRC of a candidate of any length costs four multiplications,
// because CRCs are linear and those of all prefixes are at hand (see
// prefixSums). A candidate must also be well-formed and be followed by a good
// record, the end, or nothing but zeros. 4 MiB of random bytes, the
// worst there is, cost 270 ms, 64 MiB a few seconds; zeros cost 1 ns each.
//
// missing is how many records may be missing before the bad one: none, unless
// it is the first of its segment.
func findWitness(data []byte, bad int, at uint64, seed uint32, missing int) int {
	for off, i := bad, at; ; i++ {
		rec, size, reason := cutFrame(data[off:])
		if reason != "" {
			break
		}
		if i > at && rec[4]&flagDurableBefore != 0 && goodCheck(rec, i, seed) {
			return off
		}
		off += size
	}
	sums := newPrefixSums(data[bad:])
	for off := bad; off < len(data)-minFramed+1; off++ {
		if data[off] == 0 {
			continue
		}
		n, width := binary.Uvarint(data[off:])
		if width <= 0 || n < minRecord || n > uint64(len(data)-off-width) {
			continue
		}
		start := off + width
		flags := data[start+4]
		if flags&flagDurableBefore == 0 || flags&^(kindMask|flagDurableBefore)&^legalFlags[flags&kindMask] != 0 {
			continue
		}
		end := start + int(n)
		crc := sums.sum(start+4-bad, end-bad)
		ahead := recoverIndex(crc, binary.LittleEndian.Uint32(data[start:]), seed) - uint32(at)
		if ahead == 0 || uint64(ahead) > uint64(off-bad)/minFramed+uint64(missing) {
			continue
		}
		if _, _, err := decodeRecord(data[start:end], nil, false); err != nil && !errors.Is(err, messages.ErrIncompatible) {
			continue
		}
		if end == len(data) || data[end] == 0 && allZero(data[end:]) {
			return off
		}
		if rec, _, reason := cutFrame(data[end:]); reason == "" && goodCheck(rec, at+uint64(ahead)+1, seed) {
			return off
		}
	}
	return -1
}

// prefixSums gives the CRC32C of any part of some data in constant time:
//
//	crc(a..b) = crc(0..b) XOR crc(0..a) * x^(8(b-a))  mod the polynomial
//
// It keeps the CRC of every prefix whose length is a multiple of 64, one
// sixteenth of the size of the data.
type prefixSums struct {
	data []byte
	sums []uint32
}

const prefixStep = 64

func newPrefixSums(data []byte) *prefixSums {
	p := &prefixSums{data: data, sums: make([]uint32, 1, len(data)/prefixStep+1)}
	for crc := uint32(0); len(data) >= prefixStep; data = data[prefixStep:] {
		crc = crc32.Update(crc, castagnoli, data[:prefixStep])
		p.sums = append(p.sums, crc)
	}
	return p
}

func (p *prefixSums) prefix(n int) uint32 {
	k := n / prefixStep
	return crc32.Update(p.sums[k], castagnoli, p.data[k*prefixStep:n])
}

func (p *prefixSums) sum(from, to int) uint32 {
	crc := p.prefix(from)
	for i, n := 0, uint32(to-from); n != 0; i, n = i+1, n>>8 {
		if b := n & 0xFF; b != 0 {
			crc = multiply(crcShifts()[i][b], crc)
		}
	}
	return p.prefix(to) ^ crc
}

// crcShifts[i][b] is x^(8 * b * 256^i) mod the polynomial.
var crcShifts = sync.OnceValue(func() *[4][256]uint32 {
	var t [4][256]uint32
	step := uint32(1) << (31 - 8) // x^8: bit 31 is x^0
	for i := range t {
		t[i][0] = 1 << 31
		for b := 1; b < 256; b++ {
			t[i][b] = multiply(t[i][b-1], step)
		}
		step = multiply(t[i][255], step)
	}
	return &t
})

// multiply is the product of two polynomials over GF(2) mod the Castagnoli
// polynomial, bits reflected as in a CRC.
func multiply(a, b uint32) uint32 {
	var p uint32
	for m := uint32(1) << 31; a != 0; m >>= 1 {
		if a&m != 0 {
			p ^= b
			a ^= m
		}
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return p
}
