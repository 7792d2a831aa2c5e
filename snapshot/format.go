package snapshot

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

const (
	headerMagic = "BLSTSNAP"
	footerMagic = "BLSTSEND"
	version     = 1

	headerFixed = 48 // before the metadata
	crcBytes    = 4
	blockFixed  = 16 // before the stored bytes
	entryBytes  = 48
	footerBytes = 80
	minFile     = headerFixed + crcBytes + crcBytes + footerBytes

	contentPrefix = "ballast snapshot content 1\x00"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// damage is a defect found while decoding: what messages.CorruptError says
// without the file, which the decoder does not know.
type damage struct {
	offset int64
	reason string
	err    error
}

func (d *damage) Error() string { return d.reason }

// header is the decoded start of a file.
type header struct {
	codec              uint8
	blockBytes         uint32
	group, index, term uint64
	meta               []byte
	crc                uint32 // of the encoded header; set by encode and decode
}

// size is the length of the encoded header.
func (h *header) size() int64 { return headerFixed + int64(len(h.meta)) + crcBytes }

func (h *header) encode() []byte {
	b := make([]byte, 0, h.size())
	b = append(b, headerMagic...)
	b = le.AppendUint16(b, version)
	b = append(b, h.codec, 0)
	b = le.AppendUint32(b, h.blockBytes)
	b = le.AppendUint64(b, h.group)
	b = le.AppendUint64(b, h.index)
	b = le.AppendUint64(b, h.term)
	b = le.AppendUint32(b, uint32(len(h.meta)))
	b = le.AppendUint32(b, 0)
	b = append(b, h.meta...)
	h.crc = crc32.Checksum(b, castagnoli)
	return le.AppendUint32(b, h.crc)
}

// metaLength checks the first bytes of a header, before anything is allocated
// for the rest. It returns the length of the metadata.
func metaLength(fixed []byte, fileBytes int64) (int, error) {
	if string(fixed[:8]) != headerMagic {
		return 0, &damage{0, "not a snapshot: the header's magic is wrong", nil}
	}
	n := le.Uint32(fixed[40:])
	if n > messages.MaxSnapshotMeta || int64(n) > fileBytes-minFile {
		return 0, &damage{40, fmt.Sprintf("the length of the metadata is %d", n), nil}
	}
	return int(n), nil
}

// decode checks a whole header, whose first bytes metaLength has seen. The
// metadata is not copied. It returns a *damage, or an error that matches
// messages.ErrIncompatible.
func (h *header) decode(b []byte) error {
	body, sum := b[:len(b)-crcBytes], le.Uint32(b[len(b)-crcBytes:])
	if crc32.Checksum(body, castagnoli) != sum {
		return &damage{0, "the header fails its checksum", nil}
	}
	if v := le.Uint16(b[8:]); v != version {
		return fmt.Errorf("format version %d: %w", v, messages.ErrIncompatible)
	}
	if b[11] != 0 || le.Uint32(b[44:]) != 0 {
		return fmt.Errorf("unknown flags in the header: %w", messages.ErrIncompatible)
	}
	*h = header{
		codec:      b[10],
		blockBytes: le.Uint32(b[12:]),
		group:      le.Uint64(b[16:]),
		index:      le.Uint64(b[24:]),
		term:       le.Uint64(b[32:]),
		meta:       slices.Clip(body[headerFixed:]),
		crc:        sum,
	}
	if len(h.meta) == 0 {
		h.meta = nil
	}
	if !supported(h.codec) {
		return fmt.Errorf("codec %s: %w", codecName(h.codec), messages.ErrIncompatible)
	}
	if h.blockBytes < MinBlockBytes || h.blockBytes > MaxBlockBytes {
		return &damage{12, fmt.Sprintf("the block size is %d", h.blockBytes), nil}
	}
	return nil
}

// footer is the decoded end of a file.
type footer struct {
	headerCRC           uint32
	indexOffset, blocks int64
	rawBytes            int64
	content             [32]byte
}

func (f *footer) encode() []byte {
	b := make([]byte, 0, footerBytes)
	b = append(b, footerMagic...)
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, f.headerCRC)
	b = le.AppendUint64(b, uint64(f.indexOffset))
	b = le.AppendUint64(b, uint64(f.blocks))
	b = le.AppendUint64(b, uint64(f.rawBytes))
	b = append(b, f.content[:]...)
	b = le.AppendUint32(b, 0)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decode checks the footer of a file of the given length, whose header is h.
func (f *footer) decode(b []byte, h *header, fileBytes int64) error {
	start := fileBytes - footerBytes
	if string(b[:8]) != footerMagic {
		return &damage{start, "the file does not end in a footer", nil}
	}
	if crc32.Checksum(b[:76], castagnoli) != le.Uint32(b[76:]) {
		return &damage{start, "the footer fails its checksum", nil}
	}
	if v := le.Uint16(b[8:]); v != version {
		return fmt.Errorf("format version %d in the footer: %w", v, messages.ErrIncompatible)
	}
	if le.Uint16(b[10:]) != 0 || le.Uint32(b[72:]) != 0 {
		return fmt.Errorf("unknown flags in the footer: %w", messages.ErrIncompatible)
	}
	if le.Uint32(b[12:]) != h.crc {
		return &damage{start + 12, "the footer belongs to another header", nil}
	}
	index, blocks, raw := le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:])
	switch size := uint64(h.blockBytes); {
	case blocks > MaxBlocks:
		return &damage{start + 24, fmt.Sprintf("the number of blocks is %d", blocks), nil}
	case raw > blocks*size || raw+size <= blocks*size:
		return &damage{start + 32, fmt.Sprintf("a length of %d does not fit %d blocks", raw, blocks), nil}
	case index < uint64(h.size()) || index > uint64(start)-crcBytes || blocks*entryBytes > uint64(start)-crcBytes-index:
		return &damage{start + 16, fmt.Sprintf("there is no index of %d blocks at offset %d", blocks, index), nil}
	}
	*f = footer{
		headerCRC:   h.crc,
		indexOffset: int64(index),
		blocks:      int64(blocks),
		rawBytes:    int64(raw),
		content:     [32]byte(b[40:72]),
	}
	return nil
}

// seedCRC begins the checksum of a part that is bound to a header.
func seedCRC(headerCRC uint32) uint32 {
	return crc32.Checksum(le.AppendUint32(make([]byte, 0, crcBytes), headerCRC), castagnoli)
}
