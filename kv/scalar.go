package kv

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/gjson"
)

// The first byte of an encoded scalar. The gaps leave room for more kinds.
const (
	scalarMissing = 0x08
	scalarNull    = 0x10
	scalarFalse   = 0x20
	scalarTrue    = 0x30
	scalarNumber  = 0x40
	scalarTime    = 0x48
	scalarString  = 0x50
)

// maxDepth bounds the nesting of a document, as encoding/json does: its
// validation is recursive, and a Go stack that overflows cannot be recovered.
const maxDepth = 10000

// validJSON reports whether s is one JSON document.
func validJSON(s string) bool {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '{':
			if depth++; depth > maxDepth {
				return false
			}
		case ']', '}':
			depth--
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		}
	}
	return gjson.Valid(s)
}

// appendScalar appends the encoding of a JSON value, or reports that it is not
// a scalar of the field's type.
func appendScalar(dst []byte, f *messages.IndexField, r gjson.Result) ([]byte, bool) {
	switch want := f.Type; r.Type {
	case gjson.Null:
		if want == messages.IndexAny {
			return append(dst, scalarNull), true
		}
	case gjson.False:
		if want == messages.IndexAny || want == messages.IndexBool {
			return append(dst, scalarFalse), true
		}
	case gjson.True:
		if want == messages.IndexAny || want == messages.IndexBool {
			return append(dst, scalarTrue), true
		}
	case gjson.Number:
		if want == messages.IndexAny || want == messages.IndexNumber {
			return appendNumber(dst, r.Raw)
		}
	case gjson.String:
		switch {
		case want == messages.IndexTime:
			return appendTime(dst, r.Str)
		case want == messages.IndexAny || want == messages.IndexString:
			return appendTerminated(append(dst, scalarString), folded(f, r.Str)), true
		}
	}
	return dst, false
}

func folded(f *messages.IndexField, s string) string {
	if f.Fold {
		return foldCase(s)
	}
	return s
}

func appendNumber(dst []byte, raw string) ([]byte, bool) {
	// A number out of range is ±Inf, which is where it belongs.
	f, err := strconv.ParseFloat(raw, 64)
	if err != nil && !math.IsInf(f, 0) {
		return dst, false
	}
	bits := math.Float64bits(f)
	switch {
	case f == 0:
		bits = 1 << 63
	case bits>>63 == 0:
		bits |= 1 << 63
	default:
		bits = ^bits
	}
	return binary.BigEndian.AppendUint64(append(dst, scalarNumber), bits), true
}

func appendTime(dst []byte, s string) ([]byte, bool) {
	sec, nano, ok := parseTime(s)
	if !ok {
		return dst, false
	}
	dst = binary.BigEndian.AppendUint64(append(dst, scalarTime), uint64(sec)^1<<63)
	return binary.BigEndian.AppendUint32(dst, nano), true
}

// parseTime parses RFC 3339 itself: time.Parse has become stricter from one
// version of Go to the next (1.20), and an index must not change with it.
func parseTime(s string) (sec int64, nano uint32, ok bool) {
	const layout = "0000-00-00T00:00:00"
	if len(s) <= len(layout) {
		return 0, 0, false
	}
	var n [6]int // year to second
	at := 0
	for i := range len(layout) {
		switch digit := s[i] - '0'; {
		case layout[i] != '0':
			if s[i] != layout[i] {
				return 0, 0, false
			}
			at++
		case digit > 9:
			return 0, 0, false
		default:
			n[at] = n[at]*10 + int(digit)
		}
	}
	if s = s[len(layout):]; s[0] == '.' {
		i := 1
		for scale := uint32(1e8); i < len(s) && s[i]-'0' <= 9; i++ {
			nano += uint32(s[i]-'0') * scale
			scale /= 10
		}
		if i == 1 || i == len(s) {
			return 0, 0, false
		}
		s = s[i:]
	}
	offset := 0 // minutes
	if s != "Z" {
		if len(s) != len("+00:00") || s[0] != '+' && s[0] != '-' || s[3] != ':' {
			return 0, 0, false
		}
		for _, i := range []int{1, 2, 4, 5} {
			if s[i]-'0' > 9 {
				return 0, 0, false
			}
		}
		h, m := int(s[1]-'0')*10+int(s[2]-'0'), int(s[4]-'0')*10+int(s[5]-'0')
		if h > 23 || m > 59 {
			return 0, 0, false
		}
		if offset = h*60 + m; s[0] == '-' {
			offset = -offset
		}
	}
	if n[3] > 23 || n[4] > 59 || n[5] > 59 {
		return 0, 0, false
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
	if t.Year() != n[0] || int(t.Month()) != n[1] || t.Day() != n[2] {
		return 0, 0, false // no such day
	}
	return t.Unix() - int64(offset)*60, nano, true
}

// appendField appends what an entry holds of a field, and reports whether the
// field is there.
func appendField(dst []byte, f *messages.IndexField, r gjson.Result) ([]byte, bool) {
	start, ok := len(dst), r.Exists()
	if ok {
		dst, ok = appendScalar(dst, f, r)
	}
	if !ok {
		dst = append(dst, scalarMissing)
	}
	turn(dst[start:], f.Descending)
	return dst, ok
}

// turn turns the order of an encoding around. None is the beginning of another,
// so the inverse of its bytes sorts the other way.
func turn(b []byte, descending bool) {
	if descending {
		for i := range b {
			b[i] = ^b[i]
		}
	}
}

// skipField returns what follows an encoded field.
func skipField(s string, descending bool) (rest string, ok bool) {
	if s == "" {
		return "", false
	}
	var mask byte
	if descending {
		mask = 0xff
	}
	n := 1
	switch s[0] ^ mask {
	case scalarMissing, scalarNull, scalarFalse, scalarTrue:
	case scalarNumber:
		n += 8
	case scalarTime:
		n += 12
	case scalarString:
		return skipTerminated(s[1:], mask)
	default:
		return "", false
	}
	if len(s) < n {
		return "", false
	}
	return s[n:], true
}

// appendEscaped appends s so that nothing in it looks like its end.
func appendEscaped(dst []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		dst = append(dst, 0, 0xff)
		s = s[i+1:]
	}
}

// appendTerminated appends s so that the result sorts as s does, whatever
// follows it.
func appendTerminated(dst []byte, s string) []byte {
	return append(appendEscaped(dst, s), 0, 1)
}

// skipTerminated returns what follows a string that appendTerminated encoded,
// all bytes of it combined with mask.
func skipTerminated(s string, mask byte) (rest string, ok bool) {
	for {
		i := strings.IndexByte(s, mask)
		if i < 0 || i+1 == len(s) {
			return "", false
		}
		switch s[i+1] ^ mask {
		case 1:
			return s[i+2:], true
		case 0xff:
			s = s[i+2:]
		default:
			return "", false
		}
	}
}
