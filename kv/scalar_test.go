package kv

import (
	"bytes"
	"slices"
	"testing"
	"time"
	"unicode"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/gjson"
)

// In the blocks that it knows, the table folds two letters to the same exactly if
// Unicode does, and to one of Unicode's; elsewhere it does nothing.
func TestFoldIsUnicodes(t *testing.T) {
	blocks := func(r rune) bool {
		return r < 0x180 || r >= 0x386 && r <= 0x3ab || r >= 0x3b1 && r <= 0x3ce || r >= 0x400 && r <= 0x481 ||
			r >= 0x48a && r <= 0x52f || r >= 0x531 && r <= 0x556 || r >= 0x561 && r <= 0x586
	}
	odd := []rune{0x130, 0x131, 0x149} // no simple folding, or one that depends on the language
	for r := rune(0); r <= unicode.MaxRune; r++ {
		f := foldRune(r)
		if f != foldRune(f) {
			t.Errorf("%U folds to %U and that to %U", r, f, foldRune(f))
		}
		if f != r && !blocks(r) {
			t.Errorf("%U folds to %U", r, f)
		}
		same := f == r
		for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
			same = same || o == f
			if blocks(r) && blocks(o) && foldRune(o) != f && !slices.Contains(odd, r) && !slices.Contains(odd, o) {
				t.Errorf("%U folds to %U and %U to %U", r, f, o, foldRune(o))
			}
		}
		if !same {
			t.Errorf("%U folds to %U, which is another letter", r, f)
		}
	}
	for s, want := range map[string]string{
		"": "", "abc": "abc", "aBC": "abc", "Straße ÄÖ": "straße äö", "ΣΑΣ": "σασ", "Ж\xffZ\xc3": "ж\xffz\xc3", "ĲŁŽŸ": "ĳłžÿ", "Ա": "ա",
	} {
		if got := foldCase(s); got != want {
			t.Errorf("%q folds to %q, want %q", s, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	for s, valid := range map[string]bool{
		"2024-02-29T23:59:59Z": true, "1969-12-31T23:59:59.999999999-23:59": true, "0000-01-01T00:00:00Z": true,
		"9999-12-31T23:59:59.5+01:30": true, "2024-01-01T00:00:00.123456789123Z": true, "2024-01-01T00:00:00+00:00": true,
		"": false, "2024-02-30T00:00:00Z": false, "2023-02-29T00:00:00Z": false, "2024-13-01T00:00:00Z": false, "2024-00-01T00:00:00Z": false,
		"2024-01-01T24:00:00Z": false, "2024-01-01T23:60:00Z": false, "2024-01-01T23:59:60Z": false, "2024-01-01T00:00:00": false,
		"2024-01-01t00:00:00Z": false, "2024-01-01T00:00:00z": false, "2024-01-01T00:00:00.Z": false, "2024-01-01T00:00:00.5": false,
		"2024-01-01T00:00:00,5Z": false, "2024-01-01T0:00:00Z": false, "2024-01-01T00:00:00+24:00": false, "2024-01-01T00:00:00+0100": false,
		"2024-01-01T00:00:00Z ": false, "2024-01-01 00:00:00Z": false, "2024-01-01T00:00:00+01:60": false, "x024-01-01T00:00:00Z": false,
	} {
		sec, nano, ok := parseTime(s)
		if ok != valid {
			t.Errorf("%q: %v", s, ok)
			continue
		}
		if want, err := time.Parse(time.RFC3339Nano, s); ok && (err != nil || sec != want.Unix() || int(nano) != want.Nanosecond()) {
			t.Errorf("%q is %d.%09d, want %v %v", s, sec, nano, want, err)
		}
	}
}

// The order of the encodings is that of the documentation, in both directions,
// and each ends where it should.
func TestFieldOrder(t *testing.T) {
	sorted := []string{"", "null", "false", "true", "-1e999", "-1", "-0.5", "0", "1e-300", "2", "1e999",
		`"1969-12-31T23:59:59.999999999Z"`, `"1970-01-01T01:00:00+01:00"`, `"1970-01-01T00:00:00.000000001Z"`, `"9999-01-01T00:00:00Z"`,
		`""`, `"\u0000"`, `"\u0000a"`, `"a"`, `"a\u0000"`, `"aa"`, `"é"`}
	for _, descending := range []bool{false, true} {
		var last []byte
		for i, text := range sorted {
			f := messages.IndexField{Descending: descending}
			if i >= 11 && i < 15 {
				f.Type = messages.IndexTime
			}
			b, ok := appendField(nil, &f, gjson.Parse(text))
			if ok != (text != "") {
				t.Errorf("%q: %v", text, ok)
			}
			if rest, ok := skipField(string(b)+"key", descending); !ok || rest != "key" {
				t.Errorf("%q as %x is followed by %q", text, b, rest)
			}
			for n := range b {
				if rest, ok := skipField(string(b[:n]), descending); ok {
					t.Errorf("%x of %x is followed by %q", b[:n], b, rest)
				}
			}
			if i > 0 && bytes.Compare(last, b) < 0 == descending {
				t.Errorf("descending %v: %x before %x", descending, last, b)
			}
			last = b
		}
	}
}
