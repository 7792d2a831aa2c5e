package log

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/ballast-raft/ballast/messages"
)

// goldenSummary is a summary of every sample record in one segment, each in a
// group of its own, and of some that follow each other in one group.
func goldenSummary(t testing.TB, withCheckpoint bool) *summary {
	t.Helper()
	f := newFold()
	at, records := uint32(0), uint64(0)
	add := func(c change, entries []messages.Entry) {
		rec, _ := encodeRecord(nil, &c, entries, nil)
		got, _, err := decodeRecord(rec, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		at += uint32(uvarintLen(uint64(len(rec))))
		if err := f.add(&got, at); err != nil {
			t.Fatal(err)
		}
		at += uint32(len(rec))
		records++
	}
	for i, s := range samples() {
		if s.change.kind == kindCheckpoint {
			continue
		}
		s.change.group = 1000 + uint64(i)
		add(s.change, s.entries)
	}
	es := func(first, term uint64, data ...string) []messages.Entry {
		entries := make([]messages.Entry, len(data))
		for i, d := range data {
			entries[i] = messages.Entry{Index: first + uint64(i), Term: term + uint64(i/2), Type: uint8(i / 3), Data: []byte(d)}
		}
		return entries
	}
	add(change{kind: kindRelocated, index: 5}, es(5, 1, "moved", "", "here"))
	add(change{kind: kindRelocated, index: 8}, es(8, 9, "too"))
	add(change{kind: kindTruncateFrom, index: 7}, nil)
	add(change{kind: kindAppend, index: 7, hasHard: true, hard: messages.HardState{Term: 4, Vote: 3, Commit: 6}}, es(7, 4, "a", "bb", "", "dddd"))
	add(change{kind: kindTruncateBefore, index: 6, term: 1}, nil)
	add(change{kind: kindReset, group: 3, index: 100, term: 5}, nil)
	add(change{kind: kindAppend, group: 3, index: 101}, es(101, 6, "x"))
	for _, name := range []string{"b", "a", "c"} {
		add(change{kind: kindStable, group: 3, name: name, value: []byte(name + name)}, nil)
	}
	add(change{kind: kindStable, group: 3, name: "b", removed: true}, nil)
	if withCheckpoint {
		add(change{kind: kindCheckpoint, groups: []groupMeta{{group: 3, first: 101, count: 1, prevTerm: 5, lastTerm: 6,
			stableNames: []string{"a"}, stableValues: [][]byte{[]byte("aa")}}}}, nil)
		add(change{kind: kindStable, group: 3, name: "d", value: []byte{}}, nil)
		add(change{kind: kindStable, group: 3, name: "a", removed: true}, nil)
	}
	s := (&segment{ordinal: 7, first: 1 << 33, size: int64(at), fold: f}).summarise(goldenIdentity, records)
	return s
}

func TestGoldenSummary(t *testing.T) {
	for name, checkpoint := range map[string]bool{"summary": false, "summary-checkpoint": true} {
		s := goldenSummary(t, checkpoint)
		b := s.encode()
		golden(t, name, b)
		n := len(b) - int(s.count)*locatorSize
		got, err := decodeSummary(b[:n])
		if err != nil {
			t.Fatal(err)
		}
		if got.count != s.count || got.locatorsAt+got.locatorsSize != int64(len(b)) || got.records != s.records || got.first != s.first {
			t.Errorf("%s: %+v", name, got)
		}
		if !bytes.Equal(metadataOf(got.encode()), metadataOf(b[:n])) {
			t.Errorf("%s: decodes to something else", name)
		}
		// With the locators it is the same file again.
		at := 0
		var all []locator
		for _, st := range s.stretches {
			for _, p := range st.pages {
				all = append(all, p...)
			}
		}
		for _, st := range got.stretches {
			st.pages = [][]locator{all[at : at+int(st.count)]}
			at += int(st.count)
		}
		if !bytes.Equal(got.encode(), b) {
			t.Errorf("%s: differs with its locators", name)
		}
	}
}

// metadataOf is what a summary without its locators says, and not how it says
// that they are there.
func metadataOf(b []byte) []byte {
	m := bytes.Clone(b)
	clear(m[12:16])            // the check
	clear(m[76:summaryHeader]) // of the locators
	return m
}

// FuzzDecodeSummary decodes any bytes as a summary, under a good checksum:
// nothing panics, and what decodes is what would be encoded.
func FuzzDecodeSummary(f *testing.F) {
	for _, checkpoint := range []bool{false, true} {
		s := goldenSummary(f, checkpoint)
		b := s.encode()
		b = b[:len(b)-int(s.count)*locatorSize]
		f.Add(b)
		f.Add(b[:summaryHeader])
		f.Add(b[:len(b)-1])
		f.Add(append(bytes.Clone(b), 0))
	}
	empty := (&segment{ordinal: 1, first: 1, fold: newFold()}).summarise(goldenIdentity, 0)
	f.Add(empty.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeSummary(b); err == nil && len(b) < summaryHeader {
			t.Fatal("decoded less than a header")
		}
		if len(b) < summaryHeader {
			return
		}
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[12:], summarySum(b))
		s, err := decodeSummary(b)
		if err != nil {
			return
		}
		// How much metadata there is, is for the reader of the file to know.
		binary.LittleEndian.PutUint32(b[72:], uint32(len(b)-summaryHeader))
		if again := s.encode(); !bytes.Equal(metadataOf(again), metadataOf(b)) {
			t.Fatalf("decodes as\n%x\nof\n%x", again, b)
		}
		// It may be added to a log, whatever it says.
		seg := &segment{ordinal: s.ordinal, fold: s.fold, summary: s}
		r := rebuild{index: newIndex()}
		if r.add(seg, true) == nil {
			_ = r.finish()
		}
	})
}
