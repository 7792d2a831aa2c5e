package kv

import (
	"encoding/binary"
	"strings"

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

// maxStoredKey bounds a key in buntdb: an index entry holds a whole string of a
// value, in which every byte may need two.
const maxStoredKey = 1 + binary.MaxVarintLen64 + 2*messages.MaxIndexName + 2 + 1 + 2*messages.MaxValue + 2 + messages.MaxKey

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
	var w int
	for shift := 0; ; shift += 7 {
		w++
		if w >= len(key) || w > binary.MaxVarintLen64 {
			return 0, 0, "", false
		}
		c := key[w]
		if w == binary.MaxVarintLen64 && c > 1 || c == 0 && w > 1 {
			return 0, 0, "", false
		}
		group |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	rest = key[w+1:]
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

// appendTerminated appends s so that the result sorts as s does, whatever
// follows it.
func appendTerminated(dst []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			break
		}
		dst = append(dst, s[:i]...)
		dst = append(dst, 0, 0xff)
		s = s[i+1:]
	}
	dst = append(dst, s...)
	return append(dst, 0, 1)
}

// skipTerminated returns what follows a string that appendTerminated encoded.
func skipTerminated(s string) (rest string, ok bool) {
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 || i+1 == len(s) {
			return "", false
		}
		switch s[i+1] {
		case 1:
			return s[i+2:], true
		case 0xff:
			s = s[i+2:]
		default:
			return "", false
		}
	}
}
