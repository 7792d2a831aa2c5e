package snapshot

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
)

// Export implements Store. Header, footer and index are checked now and again
// when they are handed out, each block by its checksum when it is. Nothing is
// decompressed: that is for the other side.
//
// Errors: those of Open, and messages.ErrInvalid for an offset outside the file.
func (d *Dir) Export(id string, offset int64) (Exporter, error) {
	e, err := d.export(id, offset)
	if err != nil {
		return nil, fmt.Errorf("snapshot: export %s: %w", printable(id), err)
	}
	return e, nil
}

func (d *Dir) export(id string, offset int64) (_ *exporter, err error) {
	if err := d.pin(id); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.unpin(id)
		}
	}()
	x, err := d.openFile(id)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > x.info.FileBytes {
		return nil, errors.Join(fmt.Errorf("there is no offset %d in a file of %d: %w", offset, x.info.FileBytes, messages.ErrInvalid), x.f.Close())
	}
	head := envelope{
		headerCRC: x.header.crc,
		created:   createdOf(x.info),
		fileBytes: x.info.FileBytes,
		content:   x.footer.content,
		offset:    offset,
	}
	e := &exporter{dir: d, x: x, at: offset, rest: head.encode()}
	d.mu.Lock()
	if err = d.running(); err == nil {
		d.readers[e] = struct{}{}
	}
	d.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, x.f.Close())
	}
	return e, nil
}

// exporter implements Exporter. The mutex is for Dir.Close, which may come at
// any time.
type exporter struct {
	dir *Dir

	mu     sync.Mutex
	x      *file
	at     int64  // in the file, after rest
	block  int64  // number of the last one that was loaded
	rest   []byte // checked, and to be handed out
	buf    []byte
	tail   bool  // the index has been checked again
	err    error // ends the stream
	closed bool
}

// Info implements Exporter.
func (e *exporter) Info() messages.SnapshotInfo {
	info := e.x.info
	info.Meta = slices.Clone(info.Meta)
	return info
}

// Size implements Exporter.
func (e *exporter) Size() int64 { return EnvelopeBytes + e.x.info.FileBytes }

// Read implements Exporter. After an error it returns the same error for ever.
func (e *exporter) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return 0, e.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(e.rest) == 0 {
		if e.at == e.x.info.FileBytes {
			e.err = io.EOF
			return 0, e.err
		}
		if err := e.load(); err != nil {
			e.err = fmt.Errorf("snapshot: export %s: %w", e.x.info.ID, e.x.failure(err))
			return 0, e.err
		}
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// load puts the next piece of the file into rest: the header, a block, or some
// of what follows them.
func (e *exporter) load() error {
	x := e.x
	var from int64 // of the piece
	switch {
	case e.at < x.header.size():
		e.rest = x.header.encode()
	case e.at < x.footer.indexOffset:
		b, err := e.nextBlock()
		if err != nil {
			return err
		}
		if e.buf == nil {
			e.buf = make([]byte, x.blockBuffer())
		}
		from = b.offset()
		e.rest = e.buf[:blockFixed+b.stored()]
		if err := x.readAt(e.rest, from); err != nil {
			return err
		}
		if err := checkStored(&x.header, e.block, b, e.rest); err != nil {
			return err
		}
	default:
		if !e.tail {
			again := &file{f: x.f, path: x.path, info: x.info}
			if err := again.check(); err != nil {
				return err
			}
			e.tail = true
		}
		from = e.at
		e.rest = make([]byte, min(64<<10, x.info.FileBytes-from))
		if err := x.readAt(e.rest, from); err != nil {
			return err
		}
	}
	next := from + int64(len(e.rest))
	e.rest = e.rest[e.at-from:]
	e.at = next
	return nil
}

// nextBlock finds the block that e.at is in, from the last one on.
func (e *exporter) nextBlock() (entry, error) {
	for ; ; e.block++ {
		b, err := e.x.entry(e.block)
		if err != nil || e.at < b.end() {
			return b, err
		}
	}
}

// Close implements Exporter. A second Close does nothing.
func (e *exporter) Close() error {
	if err := e.stop(messages.ErrInvalid); err != nil {
		return fmt.Errorf("snapshot: close export of %s: %w", e.x.info.ID, err)
	}
	return nil
}

// stop closes the exporter; reading on fails with reason.
func (e *exporter) stop(reason error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	e.err = fmt.Errorf("snapshot: export %s: it is closed: %w", e.x.info.ID, reason)
	e.rest, e.buf = nil, nil
	e.dir.mu.Lock()
	delete(e.dir.readers, e)
	e.dir.mu.Unlock()
	e.dir.unpin(e.x.info.ID)
	return e.x.f.Close()
}
