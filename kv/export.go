package kv

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// The state stream; the package comment has the layout.
const (
	stateMagic   = "BLSTKVST"
	stateVersion = 3
	stateHead    = len(stateMagic) + 4

	definitionRecord = 1
	pairRecord       = 2
	endRecord        = 3

	trailerEnd = 1 + 5*8 + 4 + 4

	// maxDefinition bounds an encoded definition: six bytes for a byte of a path
	// or of a function, base64 for the prefix.
	maxDefinition       = 6*(messages.MaxIndexPath+messages.MaxIndexName) + 2*messages.MaxKey + 80*messages.MaxIndexFields + 64
	maxDefinitionRecord = 1 + binary.MaxVarintLen64 + messages.MaxIndexName + binary.MaxVarintLen64 + maxDefinition
)

// stateWriter encodes a state piece by piece. Read takes out what was put in;
// once it is empty more may be put in.
type stateWriter struct {
	buf []byte
	// off is how much of buf has been read.
	off int
	// large is the value of the last pair, if it is not worth copying.
	large string
	index sparseIndex
	pairs uint64
	bytes uint64 // of keys and values
	sum   uint32
	// trailer is the end record without its checksums, which follow when all
	// before them has been read.
	trailer  []byte
	finished bool
}

// writerBytes is what the buffer of a stateWriter needs to have room for.
const writerBytes = sliceBytes + largeValue + messages.MaxKey + maxPageRecord + 32

// largeValue is the size from which a value is not copied into the buffer.
const largeValue = 32 << 10

func (w *stateWriter) begin() {
	w.buf = append(w.buf, stateMagic...)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, stateVersion)
	w.index.off = uint64(len(w.buf))
}

func (w *stateWriter) definition(def messages.IndexDefinition) {
	before := len(w.buf)
	w.record(definitionRecord, def.Name)
	encoded := def.Encode(nil)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(encoded)))
	w.buf = append(w.buf, encoded...)
	w.index.off += uint64(len(w.buf) - before)
}

func (w *stateWriter) record(kind byte, key string) {
	w.buf = append(w.buf, kind)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(key)))
	w.buf = append(w.buf, key...)
}

// pair adds a pair. After a large one nothing may be added before it is read.
func (w *stateWriter) pair(key string, version uint64, value string) {
	if cap(w.buf) < writerBytes {
		w.buf = slices.Grow(w.buf, writerBytes)
	}
	w.buf = w.index.next(w.buf, key)
	before := len(w.buf)
	w.record(pairRecord, key)
	w.buf = binary.AppendUvarint(w.buf, version)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(value)))
	w.index.off += uint64(len(w.buf) - before + len(value))
	w.pairs++
	w.bytes += uint64(len(key) + len(value))
	if len(value) >= largeValue {
		w.large = value
		return
	}
	w.buf = append(w.buf, value...)
}

func (w *stateWriter) end(revision uint64) {
	var root uint64
	w.buf, root = w.index.finish(w.buf)
	w.trailer = append(w.trailer, endRecord)
	for _, n := range []uint64{w.pairs, w.bytes, revision, root, w.index.off} {
		w.trailer = binary.LittleEndian.AppendUint64(w.trailer, n)
	}
	w.buf = append(w.buf, w.trailer...)
}

// buffered is how much there is to read; a large value counts as a full slice.
func (w *stateWriter) buffered() int {
	if w.large != "" {
		return sliceBytes
	}
	return len(w.buf) - w.off
}

// Read returns what was put in, 0 and nil if there is none at the moment, and
// io.EOF after the end.
func (w *stateWriter) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if w.off == len(w.buf) {
			w.buf, w.off = w.buf[:0], 0
		}
		if len(w.buf) == 0 && w.large == "" {
			if w.finished {
				if n == 0 {
					return 0, io.EOF
				}
				return n, nil
			}
			if w.trailer == nil {
				return n, nil
			}
			w.trailer = binary.LittleEndian.AppendUint32(w.trailer, w.sum)
			w.buf = append(w.buf, w.trailer[len(w.trailer)-4:]...)
			w.buf = binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(w.trailer, castagnoli))
			w.finished = true
		}
		var m int
		if len(w.buf) > 0 {
			m = copy(p[n:], w.buf[w.off:])
			w.off += m
		} else {
			m = copy(p[n:], w.large)
			w.large = w.large[m:]
		}
		w.sum = crc32.Update(w.sum, castagnoli, p[n:n+m])
		n += m
	}
	return n, nil
}
