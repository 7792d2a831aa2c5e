package kv

import (
	"strings"
	"unicode/utf8"
)

// foldCase returns s with its letters folded. What is not UTF-8 stays.
func foldCase(s string) string {
	i := 0
	for i < len(s) && s[i] < utf8.RuneSelf && (s[i] < 'A' || s[i] > 'Z') {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:i])
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if f := foldRune(r); f != r {
			b.WriteRune(f)
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// foldRune is Unicode's simple case folding for the blocks that it names, which
// are older than the promise that a folding never changes (Unicode 5.0). It must
// stay as it is: entries that were folded otherwise could not be found again.
func foldRune(r rune) rune {
	switch {
	case r <= 'Z' && r >= 'A': // ASCII
		return r + 32
	case r < 0xb5:
	case r == 0xb5: // micro sign
		return 0x3bc
	case r >= 0xc0 && r <= 0xde && r != 0xd7: // Latin-1
		return r + 32
	case r < 0x100:
	case r == 0x130, r == 0x131, r == 0x138, r == 0x149: // i and dots are language; the others have no pair
	case r == 0x178:
		return 0xff
	case r == 0x17f: // long s
		return 's'
	case r >= 0x139 && r <= 0x148, r >= 0x179 && r <= 0x17e: // Latin Extended-A, capitals odd
		return r + r&1
	case r >= 0x100 && r <= 0x177: // and even
		return r | 1
	case r < 0x386:
	case r == 0x386: // Greek with accents
		return 0x3ac
	case r >= 0x388 && r <= 0x38a:
		return r + 37
	case r == 0x38c:
		return 0x3cc
	case r == 0x38e, r == 0x38f:
		return r + 63
	case r >= 0x391 && r <= 0x3ab && r != 0x3a2: // Greek
		return r + 32
	case r == 0x3c2: // final sigma
		return 0x3c3
	case r >= 0x400 && r <= 0x40f: // Cyrillic
		return r + 80
	case r >= 0x410 && r <= 0x42f:
		return r + 32
	case r >= 0x460 && r <= 0x481, r >= 0x48a && r <= 0x4bf, r >= 0x4d0 && r <= 0x52f:
		return r | 1
	case r == 0x4c0:
		return 0x4cf
	case r >= 0x4c1 && r <= 0x4ce:
		return r + r&1
	case r >= 0x531 && r <= 0x556: // Armenian
		return r + 48
	}
	return r
}
