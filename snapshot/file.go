package snapshot

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
)

// file is a snapshot open for reading, whose header, index and footer have been
// checked.
type file struct {
	f       *os.File
	path    string
	header  header
	footer  footer
	entries []byte // the index, entryBytes for each block
	info    messages.SnapshotInfo
	maxRaw  int // the longest block

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

// readIndex reads the index piece by piece and checks each entry as it comes,
// so that a forged number of blocks allocates no more than the file holds.
func (x *file) readIndex() error {
	const piece = 1024 * entryBytes
	at, end := x.footer.indexOffset, x.info.FileBytes-footerBytes-crcBytes
	entriesEnd := at + x.footer.blocks*entryBytes
	crc := seedCRC(x.header.crc)
	next, raw := x.header.size(), x.footer.rawBytes
	buf := make([]byte, min(piece, end-at))
	for at < end {
		// Entries first, then the hints, which only the checksum sees.
		limit := end
		if at < entriesEnd {
			limit = entriesEnd
		}
		b := buf[:min(int64(len(buf)), limit-at)]
		if err := x.readAt(b, at); err != nil {
			return err
		}
		crc = crc32.Update(crc, castagnoli, b)
		if at < entriesEnd {
			x.entries = append(x.entries, b...)
			for ; len(b) > 0; b, at = b[entryBytes:], at+entryBytes {
				e := entry(b)
				want := min(raw, int64(x.header.blockBytes))
				if e.offset() != next || int64(e.raw()) != want || e.stored() < 1 || int64(e.stored()) > want {
					return &damage{at, "the index does not describe the blocks before it", nil}
				}
				raw -= want
				next += blockFixed + int64(e.stored())
				x.maxRaw = max(x.maxRaw, e.raw())
			}
			continue
		}
		at += int64(len(b))
	}
	var sum [crcBytes]byte
	if err := x.readAt(sum[:], end); err != nil {
		return err
	}
	if crc != le.Uint32(sum[:]) {
		return &damage{x.footer.indexOffset, "the index fails its checksum", nil}
	}
	if next != x.footer.indexOffset {
		return &damage{next, "the blocks do not reach to the index", nil}
	}
	if contentHash(x.header.blockBytes, x.footer.rawBytes, x.entries) != x.footer.content {
		return &damage{x.info.FileBytes - footerBytes + 40, "the content hash is not that of the index", nil}
	}
	return nil
}

func (x *file) blocks() int64 { return x.footer.blocks }

func (x *file) entry(number int64) entry { return x.entries[number*entryBytes:][:entryBytes] }

// checkBlock reads one block and checks its stored bytes, and those alone.
func (x *file) checkBlock(r *blockReader, number int64) error {
	e := x.entry(number)
	stored := r.room(blockFixed + e.stored())
	if err := x.readAt(stored, e.offset()); err != nil {
		return err
	}
	return checkStored(&x.header, number, e, stored)
}

// readBlock reads one block, checks it in every way and returns the state in
// it, which lies in buf. buf must have room for blockBuffer bytes.
func (x *file) readBlock(r *blockReader, number int64, buf []byte) ([]byte, error) {
	e := x.entry(number)
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
