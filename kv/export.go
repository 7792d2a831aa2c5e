package kv

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ballast-raft/ballast/messages"
)

// The state stream; the package comment has the layout.
const (
	stateMagic   = "BLSTKVST"
	stateVersion = 1
	stateHead    = len(stateMagic) + 4

	definitionRecord = 1
	pairRecord       = 2
	endRecord        = 3

	// maxDefinition bounds an encoded definition: six bytes for a byte of the
	// path, base64 for the prefix.
	maxDefinition = 6*messages.MaxIndexPath + 2*messages.MaxKey + 64
)

// stateWriter encodes a state piece by piece. Read takes out what was put in;
// once it is empty more may be put in.
type stateWriter struct {
	buf []byte
	// off is how much of buf has been read.
	off int
	// large is the value of the last pair, if it is not worth copying.
	large string
	pairs uint64
	sum   uint32
	// ended: the end record is in buf; finished: its checksum as well.
	ended, finished bool
}

// largeValue is the size from which a value is not copied into the buffer.
const largeValue = 32 << 10

func (w *stateWriter) begin() {
	w.buf = append(w.buf, stateMagic...)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, stateVersion)
}

func (w *stateWriter) definition(def messages.IndexDefinition) {
	w.record(definitionRecord, def.Name)
	encoded := encodeDefinition(def)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(encoded)))
	w.buf = append(w.buf, encoded...)
}

func (w *stateWriter) record(kind byte, key string) {
	if cap(w.buf) == 0 {
		w.buf = make([]byte, 0, sliceBytes+largeValue+messages.MaxKey+16)
	}
	w.buf = append(w.buf, kind)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(key)))
	w.buf = append(w.buf, key...)
}

// pair adds a pair. After a large one nothing may be added before it is read.
func (w *stateWriter) pair(key, value string) {
	w.pairs++
	w.record(pairRecord, key)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(value)))
	if len(value) >= largeValue {
		w.large = value
		return
	}
	w.buf = append(w.buf, value...)
}

func (w *stateWriter) end() {
	w.buf = append(w.buf, endRecord)
	w.buf = binary.LittleEndian.AppendUint64(w.buf, w.pairs)
	w.ended = true
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
			if !w.ended {
				return n, nil
			}
			w.buf = binary.LittleEndian.AppendUint32(w.buf, w.sum)
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

// stateReader parses a state that arrives in pieces of any size.
type stateReader struct {
	buf   []byte
	sum   uint32
	pairs uint64
	begun bool
	// definitions are followed by pairs, then nothing.
	inPairs, ended bool
	last           string // the name or key before
	definition     func(messages.IndexDefinition) error
	pair           func(key, value string) error
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("state stream: "+format+": %w", append(args, messages.ErrMalformed)...)
}

// Write takes the next piece. It is kept only as far as a record is not whole.
func (r *stateReader) Write(p []byte) error {
	r.buf = append(r.buf, p...)
	rest := r.buf
	for {
		n, err := r.parse(rest)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		rest = rest[n:]
	}
	if len(rest) < len(r.buf) { // or a long record would be moved with each piece
		r.buf = r.buf[:copy(r.buf, rest)]
	}
	return nil
}

// parse handles the record at the beginning of b and returns its length, or 0
// if it is not whole yet.
func (r *stateReader) parse(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	if r.ended {
		return 0, malformed("bytes after the end")
	}
	if !r.begun {
		if m := min(len(b), len(stateMagic)); string(b[:m]) != stateMagic[:m] {
			return 0, malformed("it does not begin with %q", stateMagic)
		}
		if len(b) < stateHead {
			return 0, nil
		}
		if v := binary.LittleEndian.Uint32(b[len(stateMagic):]); v != stateVersion {
			return 0, fmt.Errorf("state stream: version %d: %w", v, messages.ErrIncompatible)
		}
		r.begun = true
		r.sum = crc32.Checksum(b[:stateHead], castagnoli)
		return stateHead, nil
	}
	switch kind := b[0]; kind {
	case definitionRecord, pairRecord:
		maxKey, maxValue := messages.MaxKey, messages.MaxValue
		if kind == definitionRecord {
			maxKey, maxValue = messages.MaxIndexName, maxDefinition
			if r.inPairs {
				return 0, malformed("an index after a pair")
			}
		}
		key, n, err := field(b, 1, maxKey)
		if err != nil || n == 0 {
			return 0, err
		}
		value, n, err := field(b, n, maxValue)
		if err != nil || n == 0 {
			return 0, err
		}
		if kind == pairRecord && !r.inPairs {
			r.inPairs, r.last = true, ""
		}
		// The first key is compared with the empty one, which is refused thus.
		if key <= r.last {
			return 0, malformed("%q is not in order", key)
		}
		r.last = key
		if kind == pairRecord {
			r.pairs++
			err = r.pair(key, value)
		} else {
			var def messages.IndexDefinition
			if def, err = decodeDefinition(key, value); err == nil {
				err = r.definition(def)
			}
		}
		if err != nil {
			return 0, err
		}
		r.sum = crc32.Update(r.sum, castagnoli, b[:n])
		return n, nil
	case endRecord:
		if len(b) < 13 {
			return 0, nil
		}
		if c := binary.LittleEndian.Uint64(b[1:]); c != r.pairs {
			return 0, malformed("%d pairs, not %d", r.pairs, c)
		}
		if binary.LittleEndian.Uint32(b[9:]) != crc32.Update(r.sum, castagnoli, b[:9]) {
			return 0, malformed("it fails its checksum")
		}
		r.ended = true
		return 13, nil
	default:
		return 0, malformed("a record of kind %#x", kind)
	}
}

// field reads a length and that many bytes at b[at:], and returns where they
// end, or 0 if they are not all there yet. The string is a copy.
func field(b []byte, at, limit int) (s string, end int, err error) {
	n, w := binary.Uvarint(b[at:])
	switch {
	case w == 0 && len(b)-at < binary.MaxVarintLen64:
		return "", 0, nil
	case w <= 0 || w > 1 && b[at+w-1] == 0:
		return "", 0, malformed("a length is not a minimal varint")
	case n > uint64(limit):
		return "", 0, malformed("a length of %d, at most %d", n, limit)
	case n > uint64(len(b)-at-w):
		return "", 0, nil
	}
	end = at + w + int(n)
	return string(b[at+w : end]), end, nil
}
