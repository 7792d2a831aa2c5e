package kv

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages/durable"
)

// generation is one data file. Its fields are guarded by DB.mu, except those
// of the writer.
type generation struct {
	header
	// file is opened before anything is written, so that it is told of every
	// error in writing back.
	file *os.File
	mark *durable.Mark
	place
	durable atomic.Uint64 // sequence up to which the file is known to be on disk
	synced  atomic.Int64  // offset up to which it is

	// Of the writer: a change as bytes, where what was written last ends, and how
	// far there is something in the file, if only zeros.
	buf    []byte
	next   place
	filled int64
}

// place is the end of a change: the offset behind its marker, whose sequence
// number it has.
type place struct {
	sequence uint64
	end      int64
}

// noRoom is a write that has failed and was taken back.
type noRoom struct{ error }

func (e noRoom) Unwrap() error { return e.error }

// advance makes what was written last count.
func (g *generation) advance() { g.place = g.next }

// release closes what the generation holds open, but not the tree.
func (g *generation) release() error {
	var errs []error
	if g.mark != nil {
		errs = append(errs, g.mark.Close())
	}
	return errors.Join(append(errs, g.file.Close())...)
}

// draft writes a new generation under a temporary name, the commands in the order
// in which they come.
type draft struct {
	header
	disk durable.Disk
	path string
	f    *os.File
	buf  []byte
	// room, if set, is asked before each write.
	room func(bytes int64) error
	// kind is what the marker of the change under way will say. off is the end of
	// what was written, buffered or not; start and sum are those of the change.
	kind       marker
	off, start int64
	sum        uint32
	sequence   uint64
	// read is what was read back.
	read survey
}

const (
	draftBuffer = 1 << 20
	// draftChange is the size from which a marker is written, so that damage is
	// found near to where it is.
	draftChange = 4 << 20
)

func newDraft(d durable.Disk, path string, parent identity) (*draft, error) {
	w := &draft{disk: d, path: path, read: newSurvey(0)}
	w.parent = parent
	if _, err := rand.Read(w.identity[:]); err != nil {
		return nil, fmt.Errorf("draw an identity: %w", err)
	}
	var err error
	if w.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
		return nil, durable.Wrap(err)
	}
	if err := w.set(headerKey, string(w.header.encode())); err != nil {
		return nil, errors.Join(err, w.abandon())
	}
	return w, nil
}

// set adds a key.
func (w *draft) set(key, value string) error {
	if w.off-w.start >= draftChange {
		if err := w.border(); err != nil {
			return err
		}
	}
	n := len(w.buf)
	w.buf = appendSet(w.buf, key, value)
	return w.added(n)
}

func (w *draft) added(n int) error {
	w.sum = crc32.Update(w.sum, castagnoli, w.buf[n:])
	w.off += int64(len(w.buf) - n)
	if len(w.buf) >= draftBuffer {
		return w.flush()
	}
	return nil
}

// change adds a whole change.
func (w *draft) change(commands []byte, m marker) error {
	if err := w.border(); err != nil {
		return err
	}
	n := len(w.buf)
	w.buf = append(w.buf, commands...)
	if err := w.added(n); err != nil {
		return err
	}
	return w.mark(m)
}

// border ends the change under way, if there is one.
func (w *draft) border() error {
	if w.off == w.start {
		return nil
	}
	return w.mark(w.kind)
}

func (w *draft) mark(m marker) error {
	w.sequence++
	m.unsynced, m.sum, m.sequence, m.start, m.end = 0, w.sum, w.sequence, w.start, w.off
	n := len(w.buf)
	w.buf = appendSet(w.buf, markerKey, string(m.encode(w.identity)))
	err := w.added(n)
	w.start, w.sum = w.off, 0
	return err
}

func (w *draft) flush() error {
	if w.room != nil {
		if err := w.room(int64(len(w.buf))); err != nil {
			return err
		}
	}
	if _, err := w.f.Write(w.buf); err != nil {
		return durable.Wrap(err)
	}
	w.buf = w.buf[:0]
	return nil
}

// sync makes everything durable that was added, and reads it back.
func (w *draft) sync() error {
	if err := w.border(); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.disk.Sync(w.f); err != nil {
		return durable.Wrap(err)
	}
	if err := w.read.read(&window{r: w.f, size: w.off}, w.read.end, w.off, visitor{}); err != nil {
		return err
	}
	if w.read.bad >= 0 || w.read.end != w.off || w.read.identity != w.identity {
		return fmt.Errorf("%s was written wrong after offset %d: %s", w.path, w.read.end, w.read.why())
	}
	return nil
}

// seal writes the marker that makes the generation whole, with the positions of
// all groups, and makes it durable under its temporary name.
func (w *draft) seal(groups []position) error {
	if w.sequence > 0 { // the seal of an empty one is the header's marker
		if err := w.border(); err != nil {
			return err
		}
	}
	for ; len(groups) > maxMarkerGroups; groups = groups[maxMarkerGroups:] {
		if err := w.mark(marker{groups: groups[:maxMarkerGroups]}); err != nil {
			return err
		}
	}
	if err := w.mark(marker{seal: true, groups: groups}); err != nil {
		return err
	}
	return w.sync()
}

// abandon closes and removes the file.
func (w *draft) abandon() error {
	err := w.f.Close()
	if err2 := w.disk.Remove(w.path); !errors.Is(err2, fs.ErrNotExist) {
		err = errors.Join(err, err2)
	}
	return err
}
