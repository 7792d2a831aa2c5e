package snapshot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
)

// file is a snapshot open for reading, whose header, index and footer have been
// checked.
type file struct {
	f      *os.File
	path   string
	header header
	footer footer
	index  index
	info   messages.SnapshotInfo
	maxRaw int // the longest block

	progress func(fileBytes int64) error // of VerifyProgress
}

// openFile opens the snapshot with the given id and checks everything in it but
// the blocks. The errors are those of Open, without the operation.
func (d *Dir) openFile(id string) (_ *file, err error) {
	info, err := ParseID(id)
	if err != nil {
		return nil, err
	}
	x, err := openPath(d.filePath(id), info)
	if !d.isHidden(id) {
		return x, err
	}
	if err == nil {
		err = x.f.Close()
	}
	return nil, errors.Join(errHidden, err)
}

var errHidden = fmt.Errorf("it is not finished: %w", messages.ErrNotFound)

// openPath is openFile for a snapshot that has another name.
func openPath(path string, info messages.SnapshotInfo) (_ *file, err error) {
	x := &file{path: path, info: info}
	// Opening a pipe would block, so look before.
	st, err := os.Lstat(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", messages.ErrNotFound, err)
	}
	if err != nil {
		return nil, x.failure(err)
	}
	if !st.Mode().IsRegular() {
		return nil, x.failure(&damage{-1, "not a regular file", nil})
	}
	if x.f, err = os.Open(x.path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", messages.ErrNotFound, err)
	} else if err != nil {
		return nil, x.failure(err)
	}
	if err = x.check(); err != nil {
		return nil, errors.Join(x.failure(err), x.f.Close())
	}
	return x, nil
}

// failure turns what a check returned into what a caller gets: a *damage
// becomes a *messages.CorruptError. So does a sector that cannot be read.
func (x *file) failure(err error) error {
	var d *damage
	if errors.As(err, &d) {
		return x.corrupt(d)
	}
	var report *DamageError
	if errors.Is(err, syscall.EIO) && !errors.As(err, &report) {
		return x.corrupt(&damage{-1, "the disk cannot read it", err})
	}
	return err
}

func (x *file) corrupt(d *damage) *messages.CorruptError {
	return &messages.CorruptError{Path: x.path, Offset: d.offset, Index: x.info.Index, Reason: d.reason, Err: d.err}
}

// readAt fills b from the given offset. A file that has become shorter is
// damaged.
func (x *file) readAt(b []byte, offset int64) error {
	_, err := x.f.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		return &damage{offset, "the file ends before its time", nil}
	}
	if errors.Is(err, syscall.EIO) {
		return &damage{offset, "the disk cannot read it", err}
	}
	return err
}

// check reads header, footer and index.
func (x *file) check() error {
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	x.info.FileBytes = st.Size()
	if x.info.FileBytes == 0 {
		return &damage{0, "the file is empty", nil}
	}
	if x.info.FileBytes < minFile {
		return &damage{x.info.FileBytes, "the file is shorter than any snapshot", nil}
	}
	if err := x.readHeader(); err != nil {
		return err
	}
	var end [footerBytes]byte
	if err := x.readAt(end[:], x.info.FileBytes-footerBytes); err != nil {
		return err
	}
	if err := x.footer.decode(end[:], &x.header, x.info.FileBytes); err != nil {
		return err
	}
	if err := x.readIndex(); err != nil {
		return err
	}
	x.info.RawBytes, x.info.ContentHash, x.info.Meta = x.footer.rawBytes, x.footer.content, x.header.meta
	return nil
}

func (x *file) readHeader() error {
	b := make([]byte, headerFixed)
	if err := x.readAt(b, 0); err != nil {
		return err
	}
	n, err := metaLength(b, x.info.FileBytes)
	if err != nil {
		return err
	}
	b = make([]byte, headerFixed+n+crcBytes)
	if err := x.readAt(b, 0); err != nil {
		return err
	}
	if err := x.header.decode(b); err != nil {
		return err
	}
	if h := &x.header; h.group != x.info.Group || h.index != x.info.Index || h.term != x.info.Term {
		return &damage{16, fmt.Sprintf("the header says group %d, index %d, term %d, which is not what the name says", h.group, h.index, h.term), nil}
	}
	return nil
}

func (x *file) blocks() int64 { return x.footer.blocks }

// checkBlock reads one block and checks its stored bytes, and those alone.
func (x *file) checkBlock(r *blockReader, number int64) error {
	e, err := x.entry(number)
	if err != nil {
		return err
	}
	stored := r.room(blockFixed + e.stored())
	if err := x.readAt(stored, e.offset()); err != nil {
		return err
	}
	return checkStored(&x.header, number, e, stored)
}

// readBlock reads one block, checks it in every way and returns the state in
// it, which lies in buf. buf must have room for blockBuffer bytes.
func (x *file) readBlock(r *blockReader, number int64, buf []byte) ([]byte, error) {
	e, err := x.entry(number)
	if err != nil {
		return nil, err
	}
	stored, dst := r.room(blockFixed+x.maxRaw), buf[:0]
	if e.stored() == e.raw() {
		// As is: it goes where it is wanted at once.
		stored, dst = buf, stored[:0]
	}
	stored = stored[:blockFixed+e.stored()]
	if err := x.readAt(stored, e.offset()); err != nil {
		return nil, err
	}
	raw, err := r.decode(&x.header, number, e, stored, dst)
	if err == nil && e.stored() == e.raw() && le.Uint32(stored[8:]) == byCodec {
		raw = append(buf[:0], raw...) // a frame that does not shrink: never written
	}
	return raw, err
}

// blockBuffer is the length of a buffer for any one block of the file.
func (x *file) blockBuffer() int { return blockFixed + x.maxRaw }
