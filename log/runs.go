package log

import (
	"slices"
	"sort"
)

// run says that all indexes from from on have a value, up to the next run.
type run struct{ from, value uint64 }

// runs maps indexes to terms, or to types: both hardly ever change, so a run
// of 16 bytes stands for thousands of entries.
type runs []run

func (r runs) find(index uint64) int {
	return sort.Search(len(r), func(i int) bool { return r[i].from > index }) - 1
}

func (r runs) at(index uint64) uint64 {
	if n := len(r); r[n-1].from <= index { // the newest entries are asked for most
		return r[n-1].value
	}
	return r[r.find(index)].value
}

func (r *runs) push(index, value uint64) {
	if n := len(*r); n == 0 || (*r)[n-1].value != value {
		*r = append(*r, run{index, value})
	}
}

func (r *runs) cutFrom(index uint64) {
	n := len(*r)
	for n > 0 && (*r)[n-1].from >= index {
		n--
	}
	*r = (*r)[:n]
}

func (r *runs) cutBefore(index uint64) {
	i := r.find(index) + 1
	if i > 1 {
		*r = slices.Delete(*r, 0, i-1)
	}
	if i > 0 {
		(*r)[0].from = index
	}
}

// copyRange appends the values of from ≤ index < to in s.
func (r *runs) copyRange(s runs, from, to uint64) {
	for i := s.find(from); i < len(s) && s[i].from < to; i++ {
		r.push(max(from, s[i].from), s[i].value)
	}
}

// locator is where the data of one entry lies in a segment: 12 bytes of memory
// per entry.
type locator struct {
	offset uint32
	size   uint32
	crc    uint32
}

// pageEntries locators make a page of 6 KiB. The last page of a stretch grows
// as a slice does, so that ten thousand small groups do not hold ten thousand
// pages.
const pageEntries = 512

// stretch holds the locators of consecutive indexes of one group in one
// segment, and their terms and types.
type stretch struct {
	base  uint64 // index of the first
	count uint64
	// bytes of data, and of what the records hold around it.
	bytes, around uint64
	terms, types  runs
	pages         [][]locator // nil: they are in the segment's summary
	at            int64       // where in the summary
}

// end is the index after the last.
func (s *stretch) end() uint64 { return s.base + s.count }

func (s *stretch) locator(index uint64) locator {
	i := index - s.base
	return s.pages[i/pageEntries][i%pageEntries]
}

func (s *stretch) push(l locator, term, typ uint64) {
	n := len(s.pages)
	if n == 0 || len(s.pages[n-1]) == pageEntries {
		s.pages = append(s.pages, nil)
		n++
	}
	s.pages[n-1] = append(s.pages[n-1], l)
	s.terms.push(s.end(), term)
	s.types.push(s.end(), typ)
	s.count++
	s.bytes += uint64(l.size)
}

// cutFrom drops the entries with an index ≥ index.
func (s *stretch) cutFrom(index uint64) {
	if index >= s.end() || s.count == 0 {
		return
	}
	for k := max(index, s.base); k < s.end(); k++ {
		s.bytes -= uint64(s.locator(k).size)
	}
	i := max(index, s.base) - s.base
	s.around = s.around * i / s.count
	n := int((i + pageEntries - 1) / pageEntries)
	clear(s.pages[n:])
	s.pages = s.pages[:n]
	if i%pageEntries != 0 {
		s.pages[n-1] = s.pages[n-1][:i%pageEntries]
	}
	s.count = i
	s.terms.cutFrom(s.base + i)
	s.types.cutFrom(s.base + i)
}

// cost is about what some of the entries take up, and would take up elsewhere.
func (s *stretch) cost(entries uint64) int64 {
	const head = 20 // of a record, at most but for odd groups and terms
	return int64(float64(s.bytes+s.around)*float64(entries)/float64(s.count)) + head
}

func (s *stretch) restart(base uint64) { *s = stretch{base: base} }
