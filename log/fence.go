package log

import (
	"bytes"
	"encoding/binary"
)

// A fence is a record of the engine that is none of the log. Fences are only in
// segments whose file has been a segment before (recycle.go): there what lies
// behind the end is not zeros but older records, and trying every offset of that
// for a witness would take a second. One begins such a segment and says so, one
// precedes every batch, and bytes that nothing else on the disk has lead to them
// at the speed of a search in memory.
//
//	0   check, as that of a record at the wal index that follows
//	4   0: kindExtended
//	5   1
//	6   magic: seed and ordinal of the segment, spread over 8 bytes
//	14  wal index of the batch's first record, 8 bytes, little-endian; zero at
//	    the beginning of a segment
const (
	fenceSize   = 22
	fenceFramed = fenceSize + 1
	fenceMagic  = 6
	fenceFirst  = 14
	kindFence   = 1 // after kindExtended
)

// fence makes and finds the fences of one segment.
type fence struct {
	seed  uint32
	magic [8]byte
}

func newFence(seed, ordinal uint32) fence {
	f := fence{seed: seed}
	// The finalizer of splitmix64: a bijection, so the magic of every ordinal
	// differs from that of every other.
	x := uint64(seed)<<32 | uint64(ordinal)
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	binary.LittleEndian.PutUint64(f.magic[:], x^x>>31)
	return f
}

// record is the fence before a batch whose first record is at first.
func (f fence) record(first uint64) []byte {
	rec := make([]byte, fenceSize)
	rec[5] = kindFence
	copy(rec[fenceMagic:], f.magic[:])
	binary.LittleEndian.PutUint64(rec[fenceFirst:], first)
	putCheck(rec, first, f.seed)
	return rec
}

// read reports whether data, from the record on, begins with a good fence.
func (f fence) read(data []byte) (first uint64, ok bool) {
	if len(data) < fenceSize || [8]byte(data[fenceMagic:]) != f.magic || data[4] != byte(kindExtended) || data[5] != kindFence {
		return 0, false
	}
	first = binary.LittleEndian.Uint64(data[fenceFirst:])
	return first, goodCheck(data[:fenceSize], first, f.seed)
}

// cut is read for data that begins with the length.
func (f fence) cut(data []byte) (first uint64, ok bool) {
	if len(data) == 0 || data[0] != fenceSize {
		return 0, false
	}
	return f.read(data[1:])
}

// after returns the offset in data, from from on, of a fence of a batch that
// begins behind the wal index at, or -1: it was written when everything before
// it was durable.
func (f fence) after(data []byte, from int, at uint64) int {
	for {
		i := bytes.Index(data[from:], f.magic[:])
		if i < 0 {
			return -1
		}
		start := from + i - fenceMagic
		if start >= 0 {
			if first, ok := f.read(data[start:]); ok && first > at {
				return start
			}
		}
		from += i + 1
	}
}

// unused reports whether a segment has the fence that begins it and no other.
func (s *logScan) unused(seg *segment, data []byte) bool {
	fence := newFence(s.seed, seg.ordinal)
	first, ok := fence.cut(data)
	return ok && first == 0 && (len(data) == fenceFramed || data[fenceFramed] == 0) && fence.after(data, fenceFramed, 0) < 0
}
