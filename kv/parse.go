package kv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/ballast-raft/ballast/messages"
)

// stateReader parses a state that arrives in pieces of any size.
type stateReader struct {
	buf    []byte
	headed bool // the header has been read
	sum    uint32
	pairs  uint64
	bytes  uint64 // of keys and values
	// latest is the highest version of a pair, and revision what the trailer says.
	latest, revision uint64
	index            sparseIndex
	// pages were read and are compared with those of index when what follows
	// them is known; want is room for the latter.
	pages, want []byte
	// definitions are followed by pairs, then nothing.
	inPairs, ended bool
	last           string // the name or key before
	definition     func(messages.IndexDefinition) error
	pair           func(key string, version uint64, value string) error
}

// IsState reports whether what begins with head can be an exported state, if
// head has at least 8 bytes.
func IsState(head []byte) bool { return bytes.HasPrefix(head, []byte(stateMagic)) }

func malformed(format string, args ...any) error {
	return fmt.Errorf("state stream: "+format+": %w", append(args, messages.ErrMalformed)...)
}

func damagedState(off uint64, reason string) error {
	return &messages.CorruptError{Path: "state stream", Offset: int64(off), Reason: reason}
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
	if !r.headed {
		if m := min(len(b), len(stateMagic)); string(b[:m]) != stateMagic[:m] {
			return 0, malformed("it does not begin with %q", stateMagic)
		}
		if len(b) < stateHead {
			return 0, nil
		}
		if err := checkVersion(b); err != nil {
			return 0, err
		}
		r.headed = true
		return r.took(b, stateHead), nil
	}
	switch kind := b[0]; kind {
	case definitionRecord:
		if r.inPairs {
			return 0, malformed("an index after a pair")
		}
		def, n, err := parseDefinition(b)
		if err != nil || n == 0 {
			return 0, err
		}
		// The first name is compared with the empty one, which is refused thus.
		if def.Name <= r.last {
			return 0, malformed("%q is not in order", def.Name)
		}
		r.last = def.Name
		if err := r.definition(def); err != nil {
			return 0, err
		}
		return r.took(b, n), nil
	case pairRecord:
		key, n, err := field(b, 1, messages.MaxKey)
		if err != nil || n == 0 {
			return 0, err
		}
		version, w, err := pairVersion(b, n)
		if err != nil || w == 0 {
			return 0, err
		}
		value, n, err := field(b, n+w, messages.MaxValue)
		if err != nil || n == 0 {
			return 0, err
		}
		if !r.inPairs {
			r.inPairs, r.last = true, ""
		}
		if key <= r.last { // as above
			return 0, malformed("%q is not in order", key)
		}
		r.last = key
		r.want = r.index.next(r.want[:0], key)
		if err := r.compare(); err != nil {
			return 0, err
		}
		r.latest = max(r.latest, version)
		r.pairs++
		r.bytes += uint64(len(key) + len(value))
		if err := r.pair(key, version, value); err != nil {
			return 0, err
		}
		return r.took(b, n), nil
	case pageRecord:
		n, w, err := uvarint(b, 1, maxPage)
		if err != nil || w == 0 || 1+w+n+4 > len(b) {
			return 0, err
		}
		n += 1 + w + 4
		// index counts the pages that it makes, not those that are read.
		if len(r.pages)+n > (maxLevel+1)*maxPageRecord {
			return 0, damagedState(r.index.off, "there are too many pages of the sparse index")
		}
		r.pages = append(r.pages, b[:n]...)
		r.sum = crc32.Update(r.sum, castagnoli, b[:n])
		return n, nil
	case endRecord:
		return r.end(b)
	default:
		return 0, malformed("a record of kind %#x", kind)
	}
}

// parseDefinition reads the record of a definition at the beginning of b and
// returns its length, or 0 if it is not whole.
func parseDefinition(b []byte) (def messages.IndexDefinition, n int, err error) {
	name, n, err := field(b, 1, messages.MaxIndexName)
	if err != nil || n == 0 {
		return def, 0, err
	}
	encoded, n, err := field(b, n, maxDefinition)
	if err != nil || n == 0 {
		return def, 0, err
	}
	if def, err = messages.DecodeIndexDefinition(name, []byte(encoded)); err != nil {
		return def, 0, malformed("%w", err)
	}
	return def, n, nil
}

// took counts the n bytes of a record that is not a page.
func (r *stateReader) took(b []byte, n int) int {
	r.sum = crc32.Update(r.sum, castagnoli, b[:n])
	r.index.off += uint64(n)
	return n
}

// compare reports whether the pages that were read are those of the pairs.
func (r *stateReader) compare() error {
	if !bytes.Equal(r.pages, r.want) {
		return damagedState(r.index.off-uint64(len(r.want)), "the sparse index is not that of the pairs")
	}
	r.pages = r.pages[:0]
	return nil
}

// end handles the trailer.
func (r *stateReader) end(b []byte) (n int, err error) {
	if len(b) < trailerEnd {
		return 0, nil
	}
	var root uint64
	r.want, root = r.index.finish(r.want[:0])
	if err := r.compare(); err != nil {
		return 0, err
	}
	t, err := decodeTrailer(b[:trailerEnd], r.index.off)
	switch {
	case err != nil:
		return 0, err
	case t.root != root:
		return 0, damagedState(r.index.off, "the trailer has another root of the sparse index")
	case t.pairs != r.pairs || t.bytes != r.bytes:
		return 0, malformed("%d pairs of %d bytes, not %d of %d", r.pairs, r.bytes, t.pairs, t.bytes)
	case r.latest > t.revision:
		return 0, malformed("a pair of version %d, but the revision is %d", r.latest, t.revision)
	case t.sum != crc32.Update(r.sum, castagnoli, b[:trailerEnd-8]):
		return 0, malformed("it fails its checksum")
	}
	r.ended, r.revision = true, t.revision
	return trailerEnd, nil
}

// checkVersion checks the header.
func checkVersion(head []byte) error {
	if v := binary.LittleEndian.Uint32(head[len(stateMagic):]); v != stateVersion {
		return fmt.Errorf("state stream: version %d, not %d: %w", v, stateVersion, messages.ErrIncompatible)
	}
	return nil
}

// trailer is the end record of a stream.
type trailer struct {
	pairs, bytes, revision, root uint64
	sum                          uint32
}

// decodeTrailer checks the trailer that begins at off, but not whether it is
// true.
func decodeTrailer(b []byte, off uint64) (t trailer, err error) {
	le := binary.LittleEndian
	if le.Uint32(b[trailerEnd-4:]) != crc32.Checksum(b[:trailerEnd-4], castagnoli) {
		return t, damagedState(off, "the trailer fails its checksum")
	}
	t = trailer{pairs: le.Uint64(b[1:]), bytes: le.Uint64(b[9:]), revision: le.Uint64(b[17:]), root: le.Uint64(b[25:]), sum: le.Uint32(b[41:])}
	if b[0] != endRecord || le.Uint64(b[33:]) != off {
		return t, malformed("there is no trailer at %d", off)
	}
	if (t.root == 0) != (t.pairs == 0) || t.root != 0 && (t.root < uint64(stateHead) || t.root >= off) {
		return t, malformed("%d pairs, and the root of the sparse index at %d", t.pairs, t.root)
	}
	return t, nil
}

// field reads a length and that many bytes at b[at:], and returns where they
// end, or 0 if they are not all there yet. The string is a copy.
func field(b []byte, at, limit int) (s string, end int, err error) {
	n, w, err := uvarint(b, at, limit)
	if err != nil || w == 0 || n > len(b)-at-w {
		return "", 0, err
	}
	at += w
	return string(b[at : at+n]), at + n, nil
}

// pairVersion reads the version of a pair at b[at:] and returns it and its width,
// which is 0 if it is not all there yet.
func pairVersion(b []byte, at int) (version uint64, width int, err error) {
	version, width = binary.Uvarint(b[at:])
	switch {
	case width == 0 && len(b)-at < binary.MaxVarintLen64:
		return 0, 0, nil
	case width <= 0 || width > 1 && b[at+width-1] == 0 || version == 0:
		return 0, 0, malformed("a version is not a minimal varint above zero")
	}
	return version, width, nil
}

// uvarint reads a length at b[at:] and returns it and its width, which is 0 if
// it is not all there yet.
func uvarint(b []byte, at, limit int) (n, width int, err error) {
	v, w := binary.Uvarint(b[at:])
	switch {
	case w == 0 && len(b)-at < binary.MaxVarintLen64:
		return 0, 0, nil
	case w <= 0 || w > 1 && b[at+w-1] == 0:
		return 0, 0, malformed("a length is not a minimal varint")
	case v > uint64(limit):
		return 0, 0, malformed("a length of %d, at most %d", v, limit)
	}
	return int(v), w, nil
}
