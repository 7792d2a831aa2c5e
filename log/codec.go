package log

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/ballast-raft/ballast/messages"
)

// kind says what a record does. The numbers are part of the format.
type kind uint8

const (
	kindExtended       kind = 0 // reserved: the kind is in the next byte
	kindAppend         kind = 1
	kindTruncateFrom   kind = 2
	kindTruncateBefore kind = 3
	kindReset          kind = 4
	kindStable         kind = 5
	kindCheckpoint     kind = 6
	// kindRelocated are entries of a group that lags behind the others, copied
	// here so that an old segment can go.
	kindRelocated kind = 7
)

var kindNames = [...]string{"extended", "append", "truncateFrom", "truncateBefore", "reset", "stable",
	"checkpoint", "relocated"}

func (k kind) String() string { return kindNames[k] }

const (
	kindMask          = 0x07
	flagGroup         = 0x08
	flagHardState     = 0x10
	flagDamaged       = 0x10 // relocated: the entries were damaged when they were copied
	flagTerms         = 0x20 // append: the entries' terms differ
	flagTyped         = 0x40 // append: some entry's type is not zero
	flagRemoved       = 0x40 // stable: the name is removed
	flagDurableBefore = 0x80
)

// legalFlags is what may be set beside the kind, without durableBefore.
var legalFlags = [8]byte{
	kindExtended:       0x78,
	kindAppend:         flagGroup | flagHardState | flagTerms | flagTyped,
	kindTruncateFrom:   flagGroup,
	kindTruncateBefore: flagGroup,
	kindReset:          flagGroup,
	kindStable:         flagGroup | flagRemoved,
	kindCheckpoint:     0,
	kindRelocated:      flagGroup | flagDamaged | flagTerms | flagTyped,
}

const (
	// recordHeader is the check and the kind byte.
	recordHeader = 5
	// minRecord is a header and the shortest body, minFramed that behind its
	// length.
	minRecord = recordHeader + 1
	minFramed = minRecord + 1

	// maxIndex bounds Raft indexes, so that index+1 never overflows.
	maxIndex = 1<<63 - 1

	// The mixing factor is odd, so it has an inverse and the wal index can be
	// recovered from a check. It is 2^32 divided by the golden ratio, which
	// spreads neighbouring indexes over all bits.
	mixFactor  = 0x9E3779B1
	mixInverse = 0x0E8B2F51
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealCheck returns the check of a record with the given CRC at a wal index.
func sealCheck(crc uint32, index uint64, seed uint32) uint32 {
	return crc ^ (uint32(index)*mixFactor + seed)
}

// recoverIndex is the inverse of sealCheck: the low 32 bits of the index that
// a record with this CRC and this check was written at.
func recoverIndex(crc, check, seed uint32) uint32 {
	return ((crc ^ check) - seed) * mixInverse
}

// entryRef is where one entry lies inside its record.
type entryRef struct {
	term uint64
	off  uint32 // of the data, from the start of the record
	size uint32
	crc  uint32 // CRC32C of the data; its complement if the data is damaged
	typ  uint8
}

// groupMeta is a group in a checkpoint: everything but its entries.
type groupMeta struct {
	group              uint64
	first, count       uint64
	prevTerm, lastTerm uint64
	hard               messages.HardState
	stableNames        []string // ascending
	stableValues       [][]byte
}

// change is the meaning of one record. The staging methods build it, and
// decodeRecord gives it back.
type change struct {
	kind          kind
	durableBefore bool
	hasHard       bool
	removed       bool
	damaged       bool
	group         uint64
	hard          messages.HardState
	// index is the first entry's, or that of a truncation or a reset; term the
	// first entry's, or that of index-1 (truncateBefore) or index (reset).
	index, term uint64
	entries     []entryRef
	name        string
	value       []byte
	groups      []groupMeta
}

// last is the index of an append's last entry.
func (c *change) last() uint64 { return c.index + uint64(len(c.entries)) - 1 }

// encodeRecord appends the record of c to dst, with a check of zero, and sets
// c.entries to where the entries have come to lie, as a part of refs. The
// caller fills in the check with putCheck.
func encodeRecord(dst []byte, c *change, entries []messages.Entry, refs []entryRef) ([]byte, []entryRef) {
	base := len(dst)
	flags := byte(c.kind)
	if c.durableBefore {
		flags |= flagDurableBefore
	}
	if c.group != 0 {
		flags |= flagGroup
	}
	if c.hasHard {
		flags |= flagHardState
	}
	if c.removed {
		flags |= flagRemoved
	}
	if c.damaged {
		flags |= flagDamaged
	}
	for i := range entries {
		if entries[i].Type != 0 {
			flags |= flagTyped
		}
		if entries[i].Term != entries[0].Term {
			flags |= flagTerms
		}
	}
	dst = append(dst, 0, 0, 0, 0, flags)
	if c.group != 0 {
		dst = binary.AppendUvarint(dst, c.group)
	}
	switch c.kind {
	case kindAppend, kindRelocated:
		if c.hasHard {
			dst = appendHardState(dst, c.hard)
		}
		if len(entries) == 0 {
			break
		}
		dst = binary.AppendUvarint(dst, entries[0].Index)
		dst = binary.AppendUvarint(dst, entries[0].Term)
		dst = binary.AppendUvarint(dst, uint64(len(entries)))
		start := len(refs)
		for i := range entries {
			e := &entries[i]
			if flags&flagTyped != 0 {
				dst = append(dst, e.Type)
			}
			if flags&flagTerms != 0 && i > 0 {
				dst = binary.AppendUvarint(dst, e.Term-entries[i-1].Term)
			}
			ref := entryRef{term: e.Term, size: uint32(len(e.Data)), crc: c.checksum(e.Data), typ: e.Type}
			if i < len(entries)-1 {
				dst = binary.AppendUvarint(dst, uint64(ref.size))
			}
			ref.off = uint32(len(dst) - base)
			refs = append(refs, ref)
			dst = append(dst, e.Data...)
		}
		c.entries = refs[start:len(refs):len(refs)]
	case kindTruncateFrom:
		dst = binary.AppendUvarint(dst, c.index)
	case kindTruncateBefore, kindReset:
		dst = binary.AppendUvarint(dst, c.index)
		dst = binary.AppendUvarint(dst, c.term)
	case kindStable:
		dst = binary.AppendUvarint(dst, uint64(len(c.name)))
		dst = append(dst, c.name...)
		dst = append(dst, c.value...)
	case kindCheckpoint:
		dst = binary.AppendUvarint(dst, uint64(len(c.groups)))
		for i := range c.groups {
			g := &c.groups[i]
			dst = binary.AppendUvarint(dst, g.group)
			dst = binary.AppendUvarint(dst, g.first)
			dst = binary.AppendUvarint(dst, g.count)
			dst = binary.AppendUvarint(dst, g.prevTerm)
			dst = binary.AppendUvarint(dst, g.lastTerm)
			dst = appendHardState(dst, g.hard)
			dst = binary.AppendUvarint(dst, uint64(len(g.stableNames)))
			for j, name := range g.stableNames {
				dst = binary.AppendUvarint(dst, uint64(len(name)))
				dst = append(dst, name...)
				dst = binary.AppendUvarint(dst, uint64(len(g.stableValues[j])))
				dst = append(dst, g.stableValues[j]...)
			}
		}
	}
	return dst, refs
}

// checksum is what the data of one of the entries must have when it is read
// back. If it was damaged when it was copied, that is what it can never have, so
// whoever reads it finds damage again.
func (c *change) checksum(data []byte) uint32 {
	crc := crc32.Checksum(data, castagnoli)
	if c.damaged {
		return ^crc
	}
	return crc
}

func appendHardState(dst []byte, hs messages.HardState) []byte {
	dst = binary.AppendUvarint(dst, hs.Term)
	dst = binary.AppendUvarint(dst, hs.Vote)
	return binary.AppendUvarint(dst, hs.Commit)
}

// putCheck completes a record for its place.
func putCheck(rec []byte, index uint64, seed uint32) {
	crc := crc32.Checksum(rec[4:], castagnoli)
	binary.LittleEndian.PutUint32(rec, sealCheck(crc, index, seed))
}

// goodCheck reports whether a record is the one that was written at a place.
func goodCheck(rec []byte, index uint64, seed uint32) bool {
	crc := crc32.Checksum(rec[4:], castagnoli)
	return binary.LittleEndian.Uint32(rec) == sealCheck(crc, index, seed)
}

// cutFrame splits the length and the record off the front of data. If it
// cannot, it says why.
func cutFrame(data []byte) (rec []byte, size int, reason string) {
	n, width := binary.Uvarint(data)
	switch {
	case width == 0:
		return nil, 0, "the length is cut short"
	case width < 0 || width != uvarintLen(n):
		return nil, 0, "the length is malformed"
	case n < minRecord:
		return nil, 0, fmt.Sprintf("a length of %d is too short", n)
	case n > uint64(len(data)-width):
		return nil, 0, fmt.Sprintf("the record is cut short: %d of %d bytes", len(data)-width, n)
	}
	return data[width : width+int(n)], width + int(n), ""
}

func uvarintLen(v uint64) int {
	return (bits.Len64(v|1) + 6) / 7
}

// body reads a record's body; after a failure everything reads as zero.
type body struct {
	b      []byte
	pos    int
	failed bool
}

func (r *body) uvarint() uint64 {
	v, n := binary.Uvarint(r.b[r.pos:])
	if n <= 0 || n != uvarintLen(v) {
		r.failed = true
		r.pos = len(r.b)
		return 0
	}
	r.pos += n
	return v
}

func (r *body) bytes(n uint64) []byte {
	if n > uint64(len(r.b)-r.pos) {
		r.failed = true
		r.pos = len(r.b)
		return nil
	}
	b := r.b[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

func (r *body) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *body) hardState() messages.HardState {
	return messages.HardState{Term: r.uvarint(), Vote: r.uvarint(), Commit: r.uvarint()}
}

func (r *body) left() int { return len(r.b) - r.pos }

// decodeRecord gives the meaning of a record whose check is good. It accepts
// exactly what encodeRecord produces. Entries are appended to refs; their CRCs
// are computed only if sums is set. The result's value and stable values are
// parts of rec.
func decodeRecord(rec []byte, refs []entryRef, sums bool) (c change, _ []entryRef, err error) {
	if len(rec) < minRecord {
		return c, refs, fmt.Errorf("%w: %d bytes", errMalformed, len(rec))
	}
	flags := rec[4]
	c.kind = kind(flags & kindMask)
	c.durableBefore = flags&flagDurableBefore != 0
	if c.kind == kindExtended {
		return c, refs, fmt.Errorf("record of kind %s: %w", c.kind, messages.ErrIncompatible)
	}
	bad := func(what string) (change, []entryRef, error) {
		return c, refs, fmt.Errorf("%w: %s: %s", errMalformed, c.kind, what)
	}
	if flags&^(kindMask|flagDurableBefore)&^legalFlags[c.kind] != 0 {
		return bad("flags")
	}
	r := body{b: rec, pos: recordHeader}
	if flags&flagGroup != 0 {
		if c.group = r.uvarint(); c.group == 0 {
			return bad("group")
		}
	}
	switch c.kind {
	case kindAppend, kindRelocated:
		if c.kind == kindRelocated {
			c.damaged = flags&flagDamaged != 0
		} else if flags&flagHardState != 0 {
			c.hasHard = true
			c.hard = r.hardState()
		}
		if r.failed {
			return bad("hard state")
		}
		if r.left() == 0 {
			if !c.hasHard || flags&(flagTerms|flagTyped) != 0 {
				return bad("nothing in it")
			}
			return c, refs, nil
		}
		c.index, c.term = r.uvarint(), r.uvarint()
		n := r.uvarint()
		// Each entry but the last has a byte of length at least.
		if r.failed || n == 0 || n-1 > uint64(r.left()) || c.index == 0 || c.index > maxIndex || n-1 > maxIndex-c.index {
			return bad("entries")
		}
		start := len(refs)
		term := c.term
		var typed, termed bool
		for i := uint64(0); i < n; i++ {
			var e entryRef
			if flags&flagTyped != 0 {
				e.typ = r.byte()
				typed = typed || e.typ != 0
			}
			if flags&flagTerms != 0 && i > 0 {
				d := r.uvarint()
				termed = termed || d != 0
				if d > 1<<64-1-term {
					return bad("term")
				}
				term += d
			}
			e.term = term
			size := uint64(r.left())
			if i < n-1 {
				size = r.uvarint()
			}
			e.off = uint32(r.pos)
			data := r.bytes(size)
			if r.failed {
				return bad("entry")
			}
			e.size = uint32(size)
			if sums {
				e.crc = c.checksum(data)
			}
			refs = append(refs, e)
		}
		if typed != (flags&flagTyped != 0) || termed != (flags&flagTerms != 0) {
			return bad("needless flag")
		}
		c.entries = refs[start:len(refs):len(refs)]
	case kindTruncateFrom:
		c.index = r.uvarint()
		if c.index == 0 || c.index > maxIndex {
			return bad("index")
		}
	case kindTruncateBefore:
		c.index, c.term = r.uvarint(), r.uvarint()
		if c.index < 2 || c.index > maxIndex {
			return bad("index")
		}
	case kindReset:
		c.index, c.term = r.uvarint(), r.uvarint()
		if c.index >= maxIndex {
			return bad("index")
		}
	case kindStable:
		c.name = string(r.bytes(r.uvarint()))
		if c.name == "" || len(c.name) > messages.MaxStableName {
			return bad("name")
		}
		if c.removed = flags&flagRemoved != 0; !c.removed {
			c.value = r.bytes(uint64(r.left()))
			if len(c.value) > messages.MaxStableValue {
				return bad("value")
			}
		}
	case kindCheckpoint:
		n := r.uvarint()
		// A group has nine bytes at least.
		if n > uint64(r.left()/9) {
			return bad("groups")
		}
		c.groups = make([]groupMeta, 0, n)
		for i := uint64(0); i < n; i++ {
			g := groupMeta{group: r.uvarint(), first: r.uvarint(), count: r.uvarint(),
				prevTerm: r.uvarint(), lastTerm: r.uvarint(), hard: r.hardState()}
			if r.failed || g.first == 0 || g.first > maxIndex || g.count > maxIndex-g.first ||
				i > 0 && g.group <= c.groups[i-1].group {
				return bad("group")
			}
			names := r.uvarint()
			for j := uint64(0); j < names && !r.failed; j++ {
				name := string(r.bytes(r.uvarint()))
				if j > 0 && name <= g.stableNames[j-1] || name == "" {
					return bad("stable name")
				}
				g.stableNames = append(g.stableNames, name)
				g.stableValues = append(g.stableValues, r.bytes(r.uvarint()))
			}
			c.groups = append(c.groups, g)
		}
	}
	if r.failed || r.left() != 0 {
		return bad("length")
	}
	return c, refs, nil
}
