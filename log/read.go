package log

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sort"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
)

const (
	// A range is read in pieces of up to readPiece bytes, over gaps of up to
	// readGap between two entries (the headers of records, other groups'
	// entries): a pread costs as much as reading some KiB more.
	readPiece = 1 << 20
	readGap   = 4 << 10
	// rangeEntries bounds the entries of one range, whatever their size.
	rangeEntries = 64 << 10
)

// found is an entry that has been looked up and not been read yet.
type found struct {
	locator
	segment *segment
	index   uint64
	term    uint64
	typ     uint8
}

var noGroup = &group{cursor: newCursor()}

// group returns what is durable of a group. The caller holds state.
func (w *WAL) group(id uint64) *group {
	if g := w.index.groups[id]; g != nil {
		return g
	}
	return noGroup
}

func (g *group) check(index uint64) error {
	switch {
	case index < g.first:
		return fmt.Errorf("the log begins at %d: %w", g.first, messages.ErrCompacted)
	case index > g.last:
		return fmt.Errorf("the log ends at %d: %w", g.last, messages.ErrNotFound)
	}
	return nil
}

// errRemoved: a segment was removed between the lookup and the open.
var errRemoved = errors.New("segment removed")

// A lookup holds state for 0.2 us, publish for a few. Whoever finds it held looks
// that long for a gap before it sleeps: on two processors, one of which is kept
// busy by a reader, being woken takes 20 to 300 us, and an appender beside it
// kept 0.36 of its rate instead of 0.43 (medians of seven runs in turns).
const (
	gapsForReader = 400
	gapsForWriter = 200
)

func (w *WAL) lockState() {
	for range gapsForWriter {
		if w.state.TryLock() {
			return
		}
	}
	w.state.Lock()
}

func (w *WAL) rlockState() {
	for range gapsForReader {
		if w.state.TryRLock() {
			return
		}
	}
	w.state.RLock()
}

// Entry implements Store: one pread of exactly the entry's bytes.
func (w *WAL) Entry(group, index uint64) (messages.Entry, error) {
	for {
		f, err := w.find(group, index)
		if err == errNotLoaded {
			if err = w.load(f.segment); err == nil || err == errRemoved {
				continue
			}
		}
		if err != nil {
			return messages.Entry{}, fmt.Errorf("log: read %d of group %d: %w", index, group, err)
		}
		data := make([]byte, f.size)
		if err = w.read(f.segment, data, int64(f.offset)); err == nil {
			err = f.verify(data)
		} else if err != errRemoved {
			err = f.unreadable(err)
		}
		switch {
		case err == errRemoved:
			continue // so the entry has been compacted or moved, and find says so
		case err != nil:
			return messages.Entry{}, fmt.Errorf("log: read %d of group %d: %w", index, group, err)
		}
		return messages.Entry{Index: f.index, Term: f.term, Type: f.typ, Data: data}, nil
	}
}

// find looks an entry up. If the error is errNotLoaded, the result has only the
// segment.
func (w *WAL) find(group, index uint64) (found, error) {
	w.rlockState()
	defer w.state.RUnlock()
	if w.shut {
		return found{}, messages.ErrStopped
	}
	g := w.group(group)
	if err := g.check(index); err != nil {
		return found{}, err
	}
	s := g.at(index)
	if s.entries.pages == nil {
		return found{segment: s.segment}, errNotLoaded
	}
	return found{s.entries.locator(index), s.segment, index, g.terms.at(index), uint8(g.types.at(index))}, nil
}

// Entries implements Store. The entries' Data are parts of buffers of up to
// 1 MiB that only the result refers to.
func (w *WAL) Entries(group, from, to uint64, maxBytes int) ([]messages.Entry, error) {
	for {
		entries, err := w.readRange(group, from, to, maxBytes)
		if err == errRemoved {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("log: read %d to %d of group %d: %w", from, to, group, err)
		}
		return entries, nil
	}
}

// piece is a part of a file that holds the next n entries of a range.
type piece struct {
	segment    *segment
	start, end int64
	n          int
	payload    int64
}

func (w *WAL) readRange(group, from, to uint64, maxBytes int) ([]messages.Entry, error) {
	entries, locators, pieces, missing, err := w.findRange(group, from, to, maxBytes)
	if err == errNotLoaded {
		if err = w.load(missing); err == nil {
			err = errRemoved // look again
		}
	}
	if err != nil {
		return nil, err
	}
	at := 0
	for _, p := range pieces {
		part, where := entries[at:at+p.n], locators[at:at+p.n]
		at += p.n
		f := found{locator: where[0], segment: p.segment, index: part[0].Index}
		data := make([]byte, p.end-p.start)
		if err := w.read(p.segment, data, p.start); err == errRemoved {
			return nil, err
		} else if err != nil {
			return nil, f.unreadable(err)
		}
		var packed []byte // if the gaps are more than the entries, they are not kept
		if p.payload < int64(len(data)/2) {
			packed = make([]byte, 0, p.payload)
		}
		for i := range part {
			l := where[i]
			o := int64(l.offset) - p.start
			d := data[o : o+int64(l.size) : o+int64(l.size)]
			if crc32.Checksum(d, castagnoli) != l.crc {
				f.locator, f.index = l, part[i].Index
				return nil, f.verify(d)
			}
			if packed != nil {
				packed = append(packed, d...)
				d = packed[len(packed)-len(d) : len(packed) : len(packed)]
			}
			part[i].Data = d
		}
	}
	return entries, nil
}

// findRange looks up a range: the entries without their data, where that lies,
// and the reads that it takes.
func (w *WAL) findRange(group, from, to uint64, maxBytes int) (entries []messages.Entry, locators []locator, pieces []piece, missing *segment, err error) {
	w.rlockState()
	defer w.state.RUnlock()
	fail := func(err error) ([]messages.Entry, []locator, []piece, *segment, error) {
		return nil, nil, nil, nil, err
	}
	switch {
	case w.shut:
		return fail(messages.ErrStopped)
	case from > to:
		return fail(messages.ErrInvalid)
	case maxBytes < 0:
		return fail(fmt.Errorf("%d bytes at most: %w", maxBytes, messages.ErrInvalid))
	case from == to:
		return fail(nil)
	case maxBytes == 0:
		maxBytes = defaultRangeBytes
	}
	g := w.group(group)
	if err := g.check(from); err != nil {
		return fail(err)
	}
	if err := g.check(to - 1); err != nil {
		return fail(err)
	}
	to = min(to, from+rangeEntries)
	k := sort.Search(len(g.spans), func(i int) bool { return g.spans[i].first > from }) - 1
	sum, n := uint64(0), 0
	for i := from; i < to; k++ { // how many, before anything is made
		s := &g.spans[k]
		if s.entries.pages == nil {
			return nil, nil, nil, s.segment, errNotLoaded
		}
		for end := min(to, g.endOf(k)); i < end; i++ {
			if sum += uint64(s.entries.locator(i).size); sum > uint64(maxBytes) && i > from {
				to = i
				break
			}
			n++
		}
	}
	entries, locators = make([]messages.Entry, n), make([]locator, n)
	k = sort.Search(len(g.spans), func(i int) bool { return g.spans[i].first > from }) - 1
	term, typ := g.terms.find(from), g.types.find(from)
	at := 0
	for i := from; i < to; k++ {
		s := &g.spans[k]
		for end := min(to, g.endOf(k)); i < end; i++ {
			if term+1 < len(g.terms) && g.terms[term+1].from <= i {
				term++
			}
			if typ+1 < len(g.types) && g.types[typ+1].from <= i {
				typ++
			}
			l := s.entries.locator(i)
			entries[at] = messages.Entry{Index: i, Term: g.terms[term].value, Type: uint8(g.types[typ].value)}
			locators[at] = l
			at++
			start, stop := int64(l.offset), int64(l.offset)+int64(l.size)
			if m := len(pieces); m > 0 {
				p := &pieces[m-1]
				if p.segment == s.segment && start >= p.end && start-p.end <= readGap && stop-p.start <= readPiece {
					p.end = stop
					p.n++
					p.payload += int64(l.size)
					continue
				}
			}
			pieces = append(pieces, piece{s.segment, start, stop, 1, int64(l.size)})
		}
	}
	return entries, locators, pieces, nil, nil
}

// errNotLoaded: where the entries of a segment lie is in its summary.
var errNotLoaded = errors.New("not loaded")

// load reads where the entries of a closed segment lie: from its summary, or,
// if that is not good, from its records.
func (w *WAL) load(s *segment) error {
	locators, err := loadLocators(s.summaryPath(), s.summary)
	if err != nil {
		if s.removed.Load() {
			return errRemoved
		}
		var again error
		if locators, again = s.reload(w.seed); again != nil {
			if s.removed.Load() {
				return errRemoved
			}
			return errors.Join(err, again)
		}
		w.handover.Lock()
		w.stale = append(w.stale, s)
		w.handover.Unlock()
		w.due.Store(true)
	}
	w.state.Lock()
	defer w.state.Unlock()
	for _, t := range s.summary.stretches {
		part := locators[:t.count:t.count]
		locators = locators[t.count:]
		if t.pages != nil {
			continue // somebody else has just done it
		}
		pages := make([][]locator, 0, (len(part)+pageEntries-1)/pageEntries)
		for len(part) > 0 {
			n := min(pageEntries, len(part))
			pages = append(pages, part[:n:n])
			part = part[n:]
		}
		t.pages = pages
	}
	return nil
}

// refold reads the records of a complete segment: how many, and how many bytes
// of them.
func (s *segment) refold(seed uint32, records uint64, size int64) (*fold, scanned, error) {
	data, err := readFile(nil, s.logPath(), size)
	if err != nil {
		return nil, scanned{}, err
	}
	f := newFold()
	var refs []entryRef
	got := scanSegment(data, s.first, seed, s.ordinal, func(_ uint64, _, body int, rec []byte) error {
		c, r, err := decodeRecord(rec, refs[:0], true)
		if err != nil {
			return err
		}
		refs = r
		return f.add(&c, uint32(body))
	})
	if got.reason == "" && (int64(got.end) != size || got.next != s.first+records) {
		got.reason = "records are missing"
	}
	return f, got, nil
}

// reload gets the locators from the segment itself.
func (s *segment) reload(seed uint32) ([]locator, error) {
	f, got, err := s.refold(seed, s.summary.records, s.summary.size)
	if err != nil {
		return nil, err
	}
	var all []locator
	for _, id := range slices.Sorted(maps.Keys(f.groups)) {
		g := f.groups[id]
		for _, t := range g.stretches() {
			for _, p := range t.pages {
				all = append(all, p...)
			}
		}
	}
	if got.reason != "" || uint64(len(all)) != s.summary.count {
		return nil, &messages.CorruptError{Path: s.logPath(), Offset: int64(got.end), Reason: got.reason}
	}
	return all, nil
}

// read fills data from a segment.
func (w *WAL) read(s *segment, data []byte, offset int64) error {
	if len(data) == 0 {
		return nil
	}
	h, err := w.readers.acquire(s)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && s.removed.Load() {
			return errRemoved
		}
		return err
	}
	defer w.readers.release(h)
	n, err := h.f.ReadAt(data, offset)
	switch {
	case s.removed.Load():
		return errRemoved // by now the file may be another segment
	case n == len(data):
		return nil
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

func (f *found) damage(reason string) *messages.CorruptError {
	return &messages.CorruptError{Path: f.segment.logPath(), Offset: int64(f.offset), Index: f.index, Reason: reason}
}

// unreadable is damage if the file is gone, too short or cannot be read, and
// not if, for example, the process has no descriptor left.
func (f *found) unreadable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO) {
		c := f.damage("unreadable")
		c.Err = err
		return c
	}
	return err
}

// knownDamage is the reason of damage that has been told of before.
const knownDamage = "it was damaged when it was moved here"

// verify returns nil if the data is what was written.
func (f *found) verify(data []byte) error {
	switch crc := crc32.Checksum(data, castagnoli); crc {
	case f.crc:
		return nil
	case ^f.crc:
		return f.damage(knownDamage)
	}
	return f.damage("bad checksum")
}

// Term implements Store. It reads from memory.
func (w *WAL) Term(group, index uint64) (uint64, error) {
	w.state.RLock()
	defer w.state.RUnlock()
	g := w.group(group)
	err := g.check(index)
	if w.shut {
		err = messages.ErrStopped
	} else if index+1 == g.first {
		return g.prevTerm, nil
	}
	if err != nil {
		return 0, fmt.Errorf("log: term of %d in group %d: %w", index, group, err)
	}
	return g.terms.at(index), nil
}

// Bounds implements Store. It reads from memory.
func (w *WAL) Bounds(group uint64) messages.LogBounds {
	w.state.RLock()
	defer w.state.RUnlock()
	return w.group(group).bounds()
}

// Groups implements Store.
func (w *WAL) Groups() []uint64 {
	w.state.RLock()
	defer w.state.RUnlock()
	return slices.Sorted(maps.Keys(w.index.groups))
}

// Stable implements Store. The value belongs to the caller.
func (w *WAL) Stable(group uint64, name string) ([]byte, error) {
	w.state.RLock()
	defer w.state.RUnlock()
	value, ok := w.group(group).stable[name]
	err := messages.ErrNotFound
	if w.shut {
		ok, err = false, messages.ErrStopped
	}
	if !ok {
		return nil, fmt.Errorf("log: get %.32q of group %d: %w", name, group, err)
	}
	return append([]byte{}, value...), nil
}
