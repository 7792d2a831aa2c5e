package kv

import (
	"encoding/binary"
	"strings"
)

// A pair is stored as the version at which it was last written, a minimal
// uvarint, and its value.

// joinVersion makes a stored value.
func joinVersion(version uint64, value []byte) string {
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], version)
	var b strings.Builder
	b.Grow(n + len(value))
	b.Write(head[:n])
	b.Write(value)
	return b.String()
}

// splitVersion is the reverse. It reports false for bytes that joinVersion
// cannot have made: no version, one of zero, one that is not minimal. The value
// shares memory with stored.
func splitVersion[S string | []byte](stored S) (version uint64, value S, ok bool) {
	for i := 0; i < len(stored) && i < binary.MaxVarintLen64; i++ {
		c := stored[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		version |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return version, stored[i+1:], version > 0 && (c > 0 || i == 0)
		}
	}
	return 0, stored[:0], false
}

// valueOf is the value of a stored pair, which Open or an import has checked.
func valueOf(stored string) (version uint64, value string) {
	version, value, _ = splitVersion(stored)
	return version, value
}
