package snapshot

import (
	"crypto/sha256"
	"hash"
	"hash/crc32"
	"sync"
)

// pieceEntries is how many index entries are in memory at a time: those of 1 GiB
// of state at the default block size.
const pieceEntries = 1024

// entry is one encoded index entry.
type entry []byte

func appendEntry(index []byte, offset int64, raw, stored int, sum *[32]byte) []byte {
	index = le.AppendUint64(index, uint64(offset))
	index = le.AppendUint32(index, uint32(raw))
	index = le.AppendUint32(index, uint32(stored))
	return append(index, sum[:]...)
}

func (e entry) offset() int64 { return int64(le.Uint64(e)) }
func (e entry) raw() int      { return int(le.Uint32(e[8:])) }
func (e entry) stored() int   { return int(le.Uint32(e[12:])) }
func (e entry) hash() []byte  { return e[16:entryBytes] }

// end is the offset in the file behind the block.
func (e entry) end() int64 { return e.offset() + blockFixed + int64(e.stored()) }

// index gives the entries of a file that has been checked. It holds a piece of
// them; if there are more, another piece is read when it is wanted. So a file of
// 16 Mi tiny blocks, which a hostile import may be, is open in as little memory
// as any other, and not in 800 MB. The checksum of each piece, of when the whole
// was checked, tells that it has not changed since.
type index struct {
	sums []uint32 // CRC of each piece

	mu    sync.Mutex
	first int64  // number of the first entry in the piece
	piece []byte // never written to: entries that were handed out lie in it
}

// entries are the next entries, behind those that were added before.
func (i *index) add(entries []byte) {
	if len(i.sums) == 0 {
		i.piece = append([]byte(nil), entries...)
	}
	i.sums = append(i.sums, crc32.Checksum(entries, castagnoli))
}

// entry returns the entry of a block.
func (x *file) entry(number int64) (entry, error) {
	i := &x.index
	i.mu.Lock()
	defer i.mu.Unlock()
	at := (number - i.first) * entryBytes
	if at < 0 || at >= int64(len(i.piece)) {
		if err := x.loadPiece(number / pieceEntries); err != nil {
			return nil, err
		}
		at = (number - i.first) * entryBytes
	}
	return entry(i.piece[at:][:entryBytes]), nil
}

func (x *file) loadPiece(number int64) error {
	first := number * pieceEntries
	b := make([]byte, min(pieceEntries, x.blocks()-first)*entryBytes)
	at := x.footer.indexOffset + first*entryBytes
	if err := x.readAt(b, at); err != nil {
		return err
	}
	if crc32.Checksum(b, castagnoli) != x.index.sums[number] {
		return &damage{at, "the index has changed since it was checked", nil}
	}
	x.index.first, x.index.piece = first, b
	return nil
}

// readIndex reads the index piece by piece and checks each entry as it comes,
// so that a forged number of blocks allocates no more than the file holds.
func (x *file) readIndex() error {
	const piece = pieceEntries * entryBytes
	at, end := x.footer.indexOffset, x.info.FileBytes-footerBytes-crcBytes
	entriesEnd := at + x.footer.blocks*entryBytes
	crc := seedCRC(x.header.crc)
	content := newContentHash(x.header.blockBytes, x.footer.rawBytes)
	next, raw := x.header.size(), x.footer.rawBytes
	buf := make([]byte, min(piece, end-at))
	for at < end {
		// Entries first, then the hints, which only the checksum sees.
		limit := end
		if at < entriesEnd {
			limit = entriesEnd
		}
		b := buf[:min(int64(len(buf)), limit-at)]
		if err := x.readAt(b, at); err != nil {
			return err
		}
		crc = crc32.Update(crc, castagnoli, b)
		if at < entriesEnd {
			x.index.add(b)
			for ; len(b) > 0; b, at = b[entryBytes:], at+entryBytes {
				e := entry(b)
				want := min(raw, int64(x.header.blockBytes))
				if e.offset() != next || int64(e.raw()) != want || e.stored() < 1 || int64(e.stored()) > want {
					return &damage{at, "the index does not describe the blocks before it", nil}
				}
				raw -= want
				next = e.end()
				x.maxRaw = max(x.maxRaw, e.raw())
				content.Write(e.hash())
			}
			continue
		}
		at += int64(len(b))
	}
	var sum [crcBytes]byte
	if err := x.readAt(sum[:], end); err != nil {
		return err
	}
	if crc != le.Uint32(sum[:]) {
		return &damage{x.footer.indexOffset, "the index fails its checksum", nil}
	}
	if next != x.footer.indexOffset {
		return &damage{next, "the blocks do not reach to the index", nil}
	}
	if [32]byte(content.Sum(nil)) != x.footer.content {
		return &damage{x.info.FileBytes - footerBytes + 40, "the content hash is not that of the index", nil}
	}
	return nil
}

// newContentHash begins the tree hash; the hashes of the blocks follow.
func newContentHash(blockBytes uint32, rawBytes int64) hash.Hash {
	h := sha256.New()
	b := append(make([]byte, 0, 64), contentPrefix...)
	b = le.AppendUint32(b, blockBytes)
	b = le.AppendUint64(b, uint64(rawBytes))
	h.Write(b)
	return h
}

// contentHash computes the tree hash from the index entries.
func contentHash(blockBytes uint32, rawBytes int64, entries []byte) (sum [32]byte) {
	h := newContentHash(blockBytes, rawBytes)
	for ; len(entries) > 0; entries = entries[entryBytes:] {
		h.Write(entry(entries).hash())
	}
	h.Sum(sum[:0])
	return sum
}
