package kv

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/ballast-raft/ballast/messages"
)

// The sparse index of a state stream; the package comment has the layout.
const (
	pageRecord = 4

	// blockBytes is how far entries are apart: what one lookup reads of the
	// pairs. Smaller blocks make the index larger.
	blockBytes = 64 << 10
	// blockPerKey: an entry with a key of n bytes is at least n times this
	// after the one before, so that long keys do not make the index large:
	// 0.3 % at most.
	blockPerKey = 512
	// pageBytes is the size from which a page is put out.
	pageBytes = 16 << 10

	maxEntry = 2 + messages.MaxKey + binary.MaxVarintLen64
	// maxPage bounds the contents of a page: its level, and entries of which
	// the last one may be of any size.
	maxPage       = 1 + pageBytes - 1 + maxEntry
	maxPageRecord = 1 + 3 + maxPage + 4
	// maxLevel: a full page has at least four entries, so 24 levels cover
	// 2^64 bytes.
	maxLevel = 24
)

// sparseIndex makes the pages of a stream from its pairs. An export puts them
// out, an import compares them with those that it reads. It holds one unfinished
// page for each level.
type sparseIndex struct {
	off   uint64 // where the next record begins
	block uint64 // where the last block began
	last  string // the key before
	// levels are the unfinished pages; the first is about blocks, each other
	// about pages of the level before it.
	levels []indexPage
}

type indexPage struct {
	first   string // the first key
	entries []byte
}

// next is called before each pair. It appends the pages that come before it.
func (x *sparseIndex) next(dst []byte, key string) []byte {
	if x.off-x.block < blockBytes && len(x.levels) > 0 {
		x.last = key
		return dst
	}
	return x.border(dst, key)
}

// border begins a block with the key if the one before is long enough.
func (x *sparseIndex) border(dst []byte, key string) []byte {
	// The shortest key that is above the last one and not above this one.
	n := 0
	for n < len(x.last) && x.last[n] == key[n] {
		n++
	}
	n++
	x.last = key
	if len(x.levels) > 0 && x.off-x.block < uint64(n)*blockPerKey {
		return dst
	}
	for i := 0; i < len(x.levels) && len(x.levels[i].entries) >= pageBytes; i++ {
		first, off := x.levels[i].first, x.off
		dst = x.put(dst, i)
		x.enter(i+1, first, off)
	}
	x.enter(0, key[:n], x.off)
	x.block = x.off
	return dst
}

// enter adds an entry to the unfinished page of a level.
func (x *sparseIndex) enter(level int, key string, off uint64) {
	if level == len(x.levels) {
		x.levels = append(x.levels, indexPage{})
	}
	p := &x.levels[level]
	if len(p.entries) == 0 {
		p.first = key
	}
	p.entries = binary.AppendUvarint(p.entries, uint64(len(key)))
	p.entries = append(p.entries, key...)
	p.entries = binary.AppendUvarint(p.entries, off)
}

// put appends the page of a level and begins another.
func (x *sparseIndex) put(dst []byte, level int) []byte {
	p := &x.levels[level]
	start := len(dst)
	dst = append(dst, pageRecord)
	dst = binary.AppendUvarint(dst, uint64(1+len(p.entries)))
	dst = append(dst, byte(level))
	dst = append(dst, p.entries...)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	x.off += uint64(len(dst) - start)
	p.entries = p.entries[:0]
	return dst
}

// finish appends all unfinished pages and returns where the last one begins,
// which is the root, or zero if there is none.
func (x *sparseIndex) finish(dst []byte) (_ []byte, root uint64) {
	for i := range x.levels {
		root = x.off
		first := x.levels[i].first
		dst = x.put(dst, i)
		if i+1 < len(x.levels) {
			x.enter(i+1, first, root)
		}
	}
	return dst, root
}

// entries reads those of a page one by one.
type entries struct {
	rest []byte
	key  []byte
	off  int64
}

// next moves to the next entry. An entry that cannot be read is an error.
func (e *entries) next() (ok bool, err error) {
	if len(e.rest) == 0 {
		return false, nil
	}
	n, w, err := uvarint(e.rest, 0, messages.MaxKey)
	if err != nil {
		return false, err
	}
	if w == 0 || n == 0 || n > len(e.rest)-w {
		return false, malformed("an entry of the sparse index is not whole")
	}
	e.key = e.rest[w : w+n]
	off, v := binary.Uvarint(e.rest[w+n:])
	if v <= 0 || v > 1 && e.rest[w+n+v-1] == 0 || off > 1<<62 {
		return false, malformed("an offset in the sparse index is not a minimal varint")
	}
	e.off = int64(off)
	e.rest = e.rest[w+n+v:]
	return true, nil
}
