package log

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
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

// lookup finds an entry. The caller holds state.
func (w *WAL) lookup(g *group, index uint64) found {
	l := g.data.at(index)
	return found{
		locator: l,
		segment: w.segments[l.ordinal-w.base],
		index:   index,
		term:    g.terms.at(index),
		typ:     uint8(g.types.at(index)),
	}
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

// Entry implements Store: one pread of exactly the entry's bytes.
func (w *WAL) Entry(group, index uint64) (messages.Entry, error) {
	for {
		f, err := w.find(group, index)
		if err != nil {
			return messages.Entry{}, fmt.Errorf("log: read %d of group %d: %w", index, group, err)
		}
		data := make([]byte, f.size)
		if err = w.read(f.segment, data, f.offset); err == nil {
			err = f.verify(data)
		} else if err != errRemoved {
			err = f.unreadable(err)
		}
		switch {
		case err == errRemoved:
			continue // so the entry has been compacted, and find says so
		case err != nil:
			return messages.Entry{}, fmt.Errorf("log: read %d of group %d: %w", index, group, err)
		}
		return f.entry(data), nil
	}
}

func (w *WAL) find(group, index uint64) (found, error) {
	w.state.RLock()
	defer w.state.RUnlock()
	if w.shut {
		return found{}, messages.ErrStopped
	}
	g := w.group(group)
	if err := g.check(index); err != nil {
		return found{}, err
	}
	return w.lookup(g, index), nil
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

func (w *WAL) readRange(group, from, to uint64, maxBytes int) ([]messages.Entry, error) {
	list, err := w.findRange(group, from, to, maxBytes)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	entries := make([]messages.Entry, 0, len(list))
	for len(list) > 0 {
		// The longest run of entries that lie close together.
		n, end := 1, uint64(list[0].offset)+uint64(list[0].size)
		for n < len(list) {
			f := &list[n]
			stop := uint64(f.offset) + uint64(f.size)
			if f.segment != list[0].segment || uint64(f.offset) < end || uint64(f.offset)-end > readGap ||
				stop-uint64(list[0].offset) > readPiece {
				break
			}
			n, end = n+1, stop
		}
		start := list[0].offset
		data := make([]byte, end-uint64(start))
		if err := w.read(list[0].segment, data, start); err == errRemoved {
			return nil, err
		} else if err != nil {
			return nil, list[0].unreadable(err)
		}
		payload := 0
		for i := range list[:n] {
			payload += int(list[i].size)
		}
		var packed []byte // if the gaps are more than the entries, they are not kept
		if payload < len(data)/2 {
			packed = make([]byte, 0, payload)
		}
		for i := range list[:n] {
			f := &list[i]
			at := f.offset - start
			d := data[at : at+f.size : at+f.size]
			if err := f.verify(d); err != nil {
				return nil, err
			}
			if packed != nil {
				packed = append(packed, d...)
				d = packed[len(packed)-len(d) : len(packed) : len(packed)]
			}
			entries = append(entries, f.entry(d))
		}
		list = list[n:]
	}
	return entries, nil
}

func (w *WAL) findRange(group, from, to uint64, maxBytes int) ([]found, error) {
	w.state.RLock()
	defer w.state.RUnlock()
	switch {
	case w.shut:
		return nil, messages.ErrStopped
	case from > to:
		return nil, messages.ErrInvalid
	case maxBytes < 0:
		return nil, fmt.Errorf("%d bytes at most: %w", maxBytes, messages.ErrInvalid)
	case from == to:
		return nil, nil
	case maxBytes == 0:
		maxBytes = defaultRangeBytes
	}
	g := w.group(group)
	if err := g.check(from); err != nil {
		return nil, err
	}
	if err := g.check(to - 1); err != nil {
		return nil, err
	}
	var list []found
	sum := uint64(0)
	for i := from; i < to; i++ {
		f := w.lookup(g, i)
		if sum += uint64(f.size); len(list) == rangeEntries || sum > uint64(maxBytes) && i > from {
			break
		}
		list = append(list, f)
	}
	return list, nil
}

// read fills data from a segment.
func (w *WAL) read(s *segment, data []byte, offset uint32) error {
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
	if n, err := h.f.ReadAt(data, int64(offset)); n < len(data) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

func (f *found) damage(reason string, err error) error {
	return &messages.CorruptError{Path: f.segment.path, Offset: int64(f.offset), Index: f.index, Reason: reason, Err: err}
}

// unreadable is damage if the file is gone, too short or cannot be read, and
// not if, for example, the process has no descriptor left.
func (f *found) unreadable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO) {
		return f.damage("unreadable", err)
	}
	return err
}

func (f *found) verify(data []byte) error {
	if crc32.Checksum(data, castagnoli) != f.crc {
		return f.damage("bad checksum", nil)
	}
	return nil
}

func (f *found) entry(data []byte) messages.Entry {
	return messages.Entry{Index: f.index, Term: f.term, Type: f.typ, Data: data}
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
