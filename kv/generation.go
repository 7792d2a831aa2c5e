package kv

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/tidwall/buntdb"
)

// generation is one data file and the tree of what is in it. Its fields are
// guarded by DB.mu, except those of the writer.
type generation struct {
	header
	db *buntdb.DB
	// file is opened before anything was written, so that it is told of every
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

// place is the end of a change: the offset behind its marker, which has the
// sequence number.
type place struct {
	sequence uint64
	end      int64
}

// load makes the tree of a file that has been verified. buntdb is an ordered map
// in memory here: it knows of no file, so nothing that it does by itself, and
// nothing that it cannot do, matters to what is on disk.
func load(f *os.File, end int64) (*buntdb.DB, error) {
	db, err := buntdb.Open(":memory:")
	if err != nil {
		return nil, fmt.Errorf("buntdb: %w", err)
	}
	if err := db.Load(io.NewSectionReader(f, 0, end)); err != nil {
		return nil, errors.Join(fmt.Errorf("buntdb: %w", err), db.Close())
	}
	return db, nil
}

// release closes what the generation holds open.
func (g *generation) release() error {
	var errs []error
	if g.db != nil {
		errs = append(errs, g.db.Close())
	}
	if g.mark != nil {
		errs = append(errs, g.mark.Close())
	}
	return errors.Join(append(errs, g.file.Close())...)
}

// draft writes a new generation, the commands in the order in which they come.
type draft struct {
	header
	disk durable.Disk
	path string
	f    *os.File
	buf  []byte
	// room, if set, is asked before each write.
	room func(bytes int64) error
	// off is the end of what was written, buffered or not; start and sum are
	// those of the next marker.
	off, start int64
	sum        uint32
	sequence   uint64
}

const (
	draftBuffer = 1 << 20
	// draftChange is the size from which a marker is written, so that damage is
	// found near to where it is.
	draftChange = 4 << 20
)

func newDraft(d durable.Disk, path string, parent identity) (*draft, error) {
	w := &draft{disk: d, path: path}
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

func (w *draft) set(key, value string) error {
	if w.off-w.start >= draftChange {
		if err := w.marker(nil, false); err != nil {
			return err
		}
	}
	return w.append(key, value)
}

func (w *draft) append(key, value string) error {
	n := len(w.buf)
	w.buf = appendSet(w.buf, key, value)
	w.sum = crc32.Update(w.sum, castagnoli, w.buf[n:])
	w.off += int64(len(w.buf) - n)
	if len(w.buf) >= draftBuffer {
		return w.flush()
	}
	return nil
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

func (w *draft) marker(groups []position, seal bool) error {
	w.sequence++
	m := marker{seal: seal, sum: w.sum, sequence: w.sequence, start: w.start, end: w.off, groups: groups}
	if err := w.append(markerKey, string(m.encode(w.identity))); err != nil {
		return err
	}
	w.start, w.sum = w.off, 0
	return nil
}

// seal writes the last marker, with the positions of all groups, and makes the
// file durable under its temporary name.
func (w *draft) seal(groups []position) error {
	for ; len(groups) > maxMarkerGroups; groups = groups[maxMarkerGroups:] {
		if err := w.marker(groups[:maxMarkerGroups], false); err != nil {
			return err
		}
	}
	if err := w.marker(groups, true); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return durable.Wrap(w.disk.Sync(w.f))
}

// verify reads the file back.
func (w *draft) verify() error {
	sv, err := examine(w.f, w.off, visitor{})
	if err != nil {
		return err
	}
	if sv.bad >= 0 || sv.sealed != w.off || sv.identity != w.identity {
		return fmt.Errorf("%s was written wrong after offset %d: %s", w.path, sv.end, sv.why())
	}
	return nil
}

// abandon closes and removes the file.
func (w *draft) abandon() error {
	err := w.f.Close()
	if err2 := w.disk.Remove(w.path); !errors.Is(err2, fs.ErrNotExist) {
		err = errors.Join(err, err2)
	}
	return err
}
