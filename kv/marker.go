package kv

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/ballast-raft/ballast/messages"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// identity tells one generation from all others.
type identity = [16]byte

// header is the value of the first command.
type header struct {
	identity, parent identity
}

const (
	headerSize    = 64
	headerMagic   = "BLSTKVDB"
	headerVersion = 2
)

func headerSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:headerSize])
}

func (h header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, headerMagic)
	binary.LittleEndian.PutUint32(b[8:], headerVersion)
	copy(b[16:], h.identity[:])
	copy(b[32:], h.parent[:])
	binary.LittleEndian.PutUint32(b[12:], headerSum(b))
	return b
}

func decodeHeader(b []byte) (h header, err error) {
	if len(b) != headerSize || string(b[:8]) != headerMagic || binary.LittleEndian.Uint32(b[12:]) != headerSum(b) {
		return h, badCommand{reason: "the header fails its checksum"}
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != headerVersion {
		return h, fmt.Errorf("version %d of the data file: %w", v, messages.ErrIncompatible)
	}
	copy(h.identity[:], b[16:])
	copy(h.parent[:], b[32:])
	return h, nil
}

// position is how far a group has been applied, and its revision.
type position struct{ group, index, term, revision uint64 }

// marker follows a change and makes it count.
type marker struct {
	seal bool
	// unsynced is how many markers, this one included, were not known to be on
	// disk when it was written. Zero: not known.
	unsynced   uint16
	sum        uint32 // of the bytes from start to end
	sequence   uint64
	start, end int64
	groups     []position
}

const (
	markerVersion = 2
	markerFixed   = 36
	positionSize  = 32
	sealFlag      = 1

	// maxMarkerGroups bounds the groups in one marker. A new generation with
	// more of them has more markers.
	maxMarkerGroups = 4096
)

func (m marker) encode(id identity) []byte {
	b := make([]byte, markerFixed, markerFixed+len(m.groups)*positionSize+4)
	b[0] = markerVersion
	if m.seal {
		b[1] = sealFlag
	}
	binary.LittleEndian.PutUint16(b[2:], m.unsynced)
	binary.LittleEndian.PutUint32(b[4:], m.sum)
	binary.LittleEndian.PutUint64(b[8:], m.sequence)
	binary.LittleEndian.PutUint64(b[16:], uint64(m.start))
	binary.LittleEndian.PutUint64(b[24:], uint64(m.end))
	binary.LittleEndian.PutUint32(b[32:], uint32(len(m.groups)))
	for _, p := range m.groups {
		b = binary.LittleEndian.AppendUint64(b, p.group)
		b = binary.LittleEndian.AppendUint64(b, p.index)
		b = binary.LittleEndian.AppendUint64(b, p.term)
		b = binary.LittleEndian.AppendUint64(b, p.revision)
	}
	return binary.LittleEndian.AppendUint32(b, markerSum(id, b))
}

func markerSum(id identity, b []byte) uint32 {
	return crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, b)
}

// decodeMarker decodes the value of a marker that begins at the offset at.
func decodeMarker(b []byte, id identity, at int64) (m marker, err error) {
	if len(b) < markerFixed+4 {
		return m, badCommand{reason: "a marker of the wrong size"}
	}
	body := b[:len(b)-4]
	if binary.LittleEndian.Uint32(b[len(body):]) != markerSum(id, body) {
		return m, badCommand{reason: "a marker fails its checksum"}
	}
	if b[0] != markerVersion || b[1]&^sealFlag != 0 {
		return m, fmt.Errorf("version %d of a marker, flags %#x: %w", b[0], b[1], messages.ErrIncompatible)
	}
	n := binary.LittleEndian.Uint32(b[32:])
	if n > maxMarkerGroups || len(body) != markerFixed+int(n)*positionSize {
		return m, badCommand{reason: "a marker of the wrong size"}
	}
	m = marker{
		seal:     b[1] == sealFlag,
		unsynced: binary.LittleEndian.Uint16(b[2:]),
		sum:      binary.LittleEndian.Uint32(b[4:]),
		sequence: binary.LittleEndian.Uint64(b[8:]),
		start:    int64(binary.LittleEndian.Uint64(b[16:])),
		end:      int64(binary.LittleEndian.Uint64(b[24:])),
	}
	if m.end != at {
		return m, badCommand{reason: "a marker that belongs elsewhere"}
	}
	for p := body[markerFixed:]; len(p) > 0; p = p[positionSize:] {
		m.groups = append(m.groups, position{
			group:    binary.LittleEndian.Uint64(p),
			index:    binary.LittleEndian.Uint64(p[8:]),
			term:     binary.LittleEndian.Uint64(p[16:]),
			revision: binary.LittleEndian.Uint64(p[24:]),
		})
	}
	return m, nil
}

// durable is the sequence up to which everything was known to be on disk when
// the marker was written.
func (m *marker) durable() uint64 {
	if m.unsynced == 0 || uint64(m.unsynced) > m.sequence {
		return 0
	}
	return m.sequence - uint64(m.unsynced)
}
