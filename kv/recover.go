package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// survey is what reading a data file from its beginning has found.
type survey struct {
	header
	size int64
	// end is where the last good marker ends; what follows does not count.
	end      int64
	sequence uint64
	sealed   int64 // where the seal ends, or zero
	groups   map[uint64]position
	last     position // the group that was changed last
	// bad is where reading had to stop and reason says why; -1 if the file is
	// good to its end. The damage lies there or, in the same change, before: a
	// wrong length leads astray.
	bad    int64
	reason string
	// ends has the sequence of the marker that ends at an offset, for those
	// that were asked for.
	ends map[int64]uint64
}

// visitor is told of what the file holds; a change counts once marked is called
// after it. Nil functions are not called.
type visitor struct {
	changed func(set bool, key []byte)
	marked  func(m marker)
}

// examine reads the file and verifies every byte. The error is about reading, or
// matches ErrIncompatible; damage is in the survey. ends are the offsets at
// which the sequence number is wanted.
func examine(r io.ReaderAt, size int64, v visitor, ends ...int64) (survey, error) {
	sv := survey{size: size, bad: -1, groups: map[uint64]position{}, ends: map[int64]uint64{}}
	for _, e := range ends {
		sv.ends[e] = 0
	}
	w := &window{r: r, size: size}
	var (
		off int64
		sum uint32
	)
	for {
		c, err := w.command(off)
		if err == io.EOF {
			if off != sv.end || off == 0 {
				sv.bad, sv.reason = off, "the last change has no marker"
			}
			return sv, nil
		}
		if err == nil {
			err = sv.take(c, off, &sum, v)
		}
		var bad badCommand
		if errors.As(err, &bad) {
			sv.bad, sv.reason = off, bad.reason
			return sv, nil
		}
		if err != nil {
			return sv, err
		}
		off += int64(len(c.raw))
		if len(c.key) == 1 && c.key[0] == markerKey[0] {
			sv.end = off
			if _, ok := sv.ends[off]; ok {
				sv.ends[off] = sv.sequence
			}
			if sv.sealed < 0 {
				sv.sealed = off
			}
		}
	}
}

func (sv *survey) take(c command, off int64, sum *uint32, v visitor) (err error) {
	if off == 0 {
		if !c.set || string(c.key) != headerKey {
			return badCommand{reason: "the header is missing"}
		}
		if sv.header, err = decodeHeader(c.value); err != nil {
			return err
		}
		*sum = crc32.Checksum(c.raw, castagnoli)
		return nil
	}
	if string(c.key) != markerKey {
		if _, _, _, ok := splitKey(string(c.key[:min(len(c.key), 16)])); !ok {
			return badCommand{reason: "a key of no known kind"}
		}
		if c.set && c.key[0] == dataSpace {
			if _, _, ok := splitVersion(c.value); !ok {
				return badCommand{reason: "a value without a version"}
			}
		}
		*sum = crc32.Update(*sum, castagnoli, c.raw)
		if v.changed != nil {
			v.changed(c.set, c.key)
		}
		return nil
	}
	if !c.set {
		return badCommand{reason: "a marker is deleted"}
	}
	m, err := decodeMarker(c.value, sv.identity, off)
	if err != nil {
		return err
	}
	switch {
	case m.start != sv.end || m.sequence != sv.sequence+1:
		return badCommand{reason: "a marker out of order"}
	case m.sum != *sum:
		return badCommand{reason: "the change fails its checksum"}
	case m.seal && sv.sealed > 0:
		return badCommand{reason: "a second seal"}
	}
	if m.seal {
		sv.sealed = -1 // its end is known when it has been read
	}
	sv.sequence, *sum = m.sequence, 0
	for _, p := range m.groups {
		sv.groups[p.group], sv.last = p, p
	}
	if v.marked != nil {
		v.marked(m)
	}
	return nil
}

// findMarker looks in the bytes from from on, whatever lies between, for a
// marker of this generation that was written when the change after sequence
// was known to be on disk.
func findMarker(r io.ReaderAt, from, size int64, id identity, sequence uint64) (at int64, found bool, err error) {
	const step = 1 << 20
	buf := make([]byte, min(step, size-from))
	for off := from; off < size; off += step - int64(len(markerHead)) + 1 {
		b := buf[:min(step, size-off)]
		if n, err := r.ReadAt(b, off); n < len(b) {
			return 0, false, fmt.Errorf("read at offset %d: %w", off+int64(n), err)
		}
		for i := 0; ; i++ {
			j := bytes.Index(b[i:], []byte(markerHead))
			if j < 0 {
				break
			}
			i += j
			at := off + int64(i)
			if ok, err := endsAt(r, at); err != nil {
				return 0, false, err
			} else if !ok {
				continue
			}
			c, err := (&window{r: r, size: size}).command(at)
			var m marker
			if err == nil {
				m, err = decodeMarker(c.value, id, at)
			}
			if err == nil && m.durable() <= sequence {
				continue // of the same torn sync
			}
			var bad badCommand
			if err == nil || errors.Is(err, messages.ErrIncompatible) {
				return at, true, nil
			}
			if !errors.As(err, &bad) {
				return 0, false, err
			}
		}
	}
	return 0, false, nil
}

// endsAt reports whether what begins like a marker at an offset says that its
// change ends there, as every marker does. Only then is it worth reading: a
// value may hold any number of beginnings.
func endsAt(r io.ReaderAt, at int64) (bool, error) {
	var b [len(markerHead) + maxNumber + len(newline) + markerFixed]byte
	n, err := r.ReadAt(b[:], at)
	if err != nil && err != io.EOF {
		return false, err
	}
	size, width, err := number(b[len(markerHead):n])
	value := b[min(len(markerHead)+width, n):n]
	return err == nil && size <= markerFixed+maxMarkerGroups*positionSize+4 && len(value) >= 32 &&
		int64(binary.LittleEndian.Uint64(value[24:])) == at, nil
}

// knowledge is what MARK says about a data file.
type knowledge struct {
	// replace: MARK has to be written anew, because it is missing or unreadable
	// or belongs to the generation before.
	replace bool
	// durable is the offset up to which the file is known to be on disk.
	durable int64
}

// judge compares the survey of a data file with MARK and decides how much of
// the file may be used: sv.end, unless the error says that it must not be. It
// changes nothing. An error that is not a *CorruptError is about reading.
//
//  1. The file has a header and, not before the seal, its last good marker: a
//     generation is named DATA only when it is whole and synced.
//  2. MARK of this generation: its position is the end of a marker of that
//     sequence, and everything up to there is good.
//  3. MARK of the generation before, or none at all beside a generation that
//     replaced none: a crash in the middle of a swap. Nothing can have been
//     written since, so the file ends with the seal.
//  4. MARK that fails its checksum: nothing is known beyond the seal.
//  5. What follows the last good marker is a torn write, unless a good marker
//     comes after it: then something in between has been damaged.
func (sv *survey) judge(r io.ReaderAt, path, markPath string) (k knowledge, err error) {
	// The offset is the end of what is known to be good.
	corrupt := func(path string, off int64, reason string) error {
		return &messages.CorruptError{Path: path, Offset: off, Index: sv.last.index, Reason: reason}
	}
	if sv.end == 0 || sv.sealed == 0 {
		return k, corrupt(path, sv.end, firstOf(sv.why(), "the seal is missing"))
	}
	k.durable = sv.sealed

	swapping := false
	f, err := os.Open(markPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if sv.parent != (identity{}) {
			return k, corrupt(markPath, -1, "the file is missing")
		}
		swapping = true
	case err != nil:
		return k, err
	default:
		p, known, err := durable.ReadMark(f, markPath, sv.identity)
		if errors.Is(err, messages.ErrCorrupt) && sv.parent != (identity{}) {
			if _, ofParent, err2 := durable.ReadMark(f, markPath, sv.parent); err2 == nil && ofParent {
				swapping, err = true, nil
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return k, err
		}
		switch {
		case swapping:
		case !known:
			k.replace = true
		case p.Offset > sv.end:
			return k, corrupt(path, sv.end, "bytes that had been synced are damaged or gone: "+firstOf(sv.why(), "the file ends early"))
		default:
			if n, ok := sv.ends[p.Offset]; !ok || n != p.Sequence {
				return k, corrupt(path, p.Offset, "MARK does not fit the file")
			}
			k.durable = p.Offset
		}
	}
	if swapping {
		k.replace = true
		if sv.end != sv.size || sv.sealed != sv.size {
			if errors.Is(err, fs.ErrNotExist) {
				return k, corrupt(markPath, -1, "the file is missing")
			}
			return k, corrupt(path, sv.sealed, "MARK belongs to the generation before, but the file goes on after the seal")
		}
	}
	if sv.end < sv.size {
		at, found, err := findMarker(r, sv.end+1, sv.size, sv.identity, sv.sequence)
		if err != nil {
			return k, err
		}
		if found {
			return k, corrupt(path, sv.end, fmt.Sprintf("%s, but the marker at offset %d shows that it had been synced", sv.why(), at))
		}
	}
	return k, nil
}

// why says why the file is not good to its end.
func (sv *survey) why() string {
	if sv.bad < 0 {
		return ""
	}
	return fmt.Sprintf("%s (at offset %d)", sv.reason, sv.bad)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// markOffset reads where MARK lies, if it can be read at all, so that the
// sequence number there can be noted while the data file is read.
func markOffset(path string) []int64 {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var b [64]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return nil
	}
	p, ok, err := durable.ReadMark(f, path, identity(b[16:32]))
	if err != nil || !ok {
		return nil
	}
	return []int64{p.Offset}
}

// repair cuts the file to its last good marker and makes everything up to there
// durable. What was found after the durable position may be in the page cache
// alone, and marked clean by a sync that failed: it is written again.
func (sv *survey) repair(d durable.Disk, f *os.File, k knowledge) error {
	if sv.end == sv.size && k.durable == sv.end {
		return nil
	}
	if sv.end < sv.size {
		if err := f.Truncate(sv.end); err != nil {
			return err
		}
	}
	buf := make([]byte, min(1<<20, sv.end-k.durable))
	for off := k.durable; off < sv.end; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), sv.end-off)]
		if n, err := f.ReadAt(b, off); n < len(b) {
			return fmt.Errorf("read at offset %d: %w", off+int64(n), err)
		}
		if _, err := f.WriteAt(b, off); err != nil {
			return durable.Wrap(err)
		}
	}
	return durable.Wrap(d.Sync(f))
}
