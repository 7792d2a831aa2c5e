package snapshot

import (
	"fmt"
	"hash/crc32"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// EnvelopeBytes is the length of what comes before the file's bytes in the
// stream of an Exporter.
const EnvelopeBytes = 80

const (
	envelopeMagic   = "BLSTSEXP"
	envelopeVersion = 1
)

// envelope says what a file does not: the creation time, which is only in its
// name; and what a receiver wants to know before it has all of it.
type envelope struct {
	headerCRC uint32
	created   uint64 // Unix milliseconds
	fileBytes int64
	content   [32]byte
	offset    int64 // in the file, of the first byte that follows
}

func (e *envelope) encode() []byte {
	b := make([]byte, 0, EnvelopeBytes)
	b = append(b, envelopeMagic...)
	b = le.AppendUint16(b, envelopeVersion)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, e.headerCRC)
	b = le.AppendUint64(b, e.created)
	b = le.AppendUint64(b, uint64(e.fileBytes))
	b = append(b, e.content[:]...)
	b = le.AppendUint64(b, uint64(e.offset))
	b = le.AppendUint32(b, 0)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decode returns a *damage, or an error that matches messages.ErrMalformed or
// messages.ErrIncompatible.
func (e *envelope) decode(b []byte) error {
	if string(b[:8]) != envelopeMagic {
		return fmt.Errorf("not an exported snapshot: the envelope's magic is wrong: %w", messages.ErrMalformed)
	}
	if crc32.Checksum(b[:76], castagnoli) != le.Uint32(b[76:]) {
		return &damage{0, "the envelope fails its checksum", nil}
	}
	if v := le.Uint16(b[8:]); v != envelopeVersion {
		return fmt.Errorf("envelope version %d: %w", v, messages.ErrIncompatible)
	}
	if le.Uint16(b[10:]) != 0 || le.Uint32(b[72:]) != 0 {
		return fmt.Errorf("unknown flags in the envelope: %w", messages.ErrIncompatible)
	}
	created, bytes, offset := le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[64:])
	switch {
	case created > maxCreated:
		return &damage{16, fmt.Sprintf("the creation time is %d", created), nil}
	case bytes < minFile || bytes > 1<<62:
		return &damage{24, fmt.Sprintf("the length of the file is %d", bytes), nil}
	case offset > bytes:
		return &damage{64, fmt.Sprintf("the offset is %d in a file of %d", offset, bytes), nil}
	}
	*e = envelope{
		headerCRC: le.Uint32(b[12:]),
		created:   created,
		fileBytes: int64(bytes),
		content:   [32]byte(b[32:64]),
		offset:    int64(offset),
	}
	return nil
}

// createdOf returns the creation time that an id has, in Unix milliseconds.
func createdOf(info messages.SnapshotInfo) uint64 { return uint64(info.Created.UnixMilli()) }

// infoOf returns what an id for the header and creation time says.
func infoOf(h *header, created uint64) messages.SnapshotInfo {
	return messages.SnapshotInfo{
		ID:      formatID(h.group, h.term, h.index, created),
		Group:   h.group,
		Index:   h.index,
		Term:    h.term,
		Created: time.UnixMilli(int64(created)).UTC(),
	}
}
