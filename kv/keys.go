package kv

import (
	"encoding/binary"

	"github.com/ballast-raft/ballast/messages"
)

// The first byte of every key in buntdb.
const (
	headerKey = "h"
	markerKey = "m"

	dataSpace       = 'd'
	definitionSpace = 'x'
	indexSpace      = 'i'
)

// maxStoredKey bounds a key in buntdb, which is longest for an index entry: the
// key from a function may need two bytes for one.
const maxStoredKey = 1 + 2*binary.MaxVarintLen64 + 2*messages.MaxIndexKey + 2 + messages.MaxKey

// maxStoredValue bounds a value in buntdb: that of a pair has its version before
// it.
const maxStoredValue = binary.MaxVarintLen64 + messages.MaxValue

// spacePrefix begins the keys of one kind of one group. No such prefix is the
// beginning of another, because uvarints are not.
func spacePrefix(space byte, group uint64) string {
	var b [1 + binary.MaxVarintLen64]byte
	b[0] = space
	return string(b[:1+binary.PutUvarint(b[1:], group)])
}

// splitKey is the reverse: the kind, the group and what follows.
func splitKey(key string) (space byte, group uint64, rest string, ok bool) {
	if len(key) < 3 {
		return 0, 0, "", false
	}
	switch key[0] {
	case dataSpace, definitionSpace, indexSpace:
	default:
		return 0, 0, "", false
	}
	group, rest, ok = cutUvarint(key[1:])
	if !ok {
		return 0, 0, "", false
	}
	return key[0], group, rest, rest != ""
}

// successor is the smallest key that is larger than every key that begins with
// prefix. A prefix here begins with a letter, so there is one.
func successor(prefix string) string {
	i := len(prefix) - 1
	for prefix[i] == 0xff {
		i--
	}
	return prefix[:i] + string([]byte{prefix[i] + 1})
}

// cutUvarint splits off a minimal uvarint.
func cutUvarint(s string) (n uint64, rest string, ok bool) {
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		c := s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 || c == 0 && i > 0 {
			return 0, "", false
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, s[i+1:], true
		}
	}
	return 0, "", false
}
