package snapshot

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
)

// Open implements Store. The file is read twice: by Open, on
// Options.Concurrency goroutines, and by the Reader, which starts none.
func (d *Dir) Open(id string) (Reader, error) {
	r, err := d.openReader(id)
	if err != nil {
		return nil, fmt.Errorf("snapshot: open %s: %w", printable(id), err)
	}
	return r, nil
}

func (d *Dir) openReader(id string) (_ *reader, err error) {
	if err := d.pin(id); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.unpin(id)
		}
	}()
	x, err := d.openVerified(id)
	if err != nil {
		return nil, err
	}
	r := &reader{dir: d, x: x}
	d.mu.Lock()
	if err = d.running(); err == nil {
		d.readers[r] = struct{}{}
	}
	d.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, x.f.Close())
	}
	return r, nil
}

// pin keeps a snapshot from being deleted until unpin.
func (d *Dir) pin(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.running(); err != nil {
		return err
	}
	d.open[id]++
	return nil
}

func (d *Dir) unpin(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[id]--; d.open[id] == 0 {
		delete(d.open, id)
	}
}

// reader implements Reader. The mutex is for Dir.Close, which may come at any
// time.
type reader struct {
	dir *Dir

	mu          sync.Mutex
	x           *file
	next        int64  // block
	rest        []byte // of the block before next
	stored, raw []byte
	err         error // ends the stream
	closed      bool
}

// Info implements Reader.
func (r *reader) Info() messages.SnapshotInfo {
	info := r.x.info
	info.Meta = slices.Clone(info.Meta)
	return info
}

// Read implements Reader. After an error it returns the same error for ever.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.rest) == 0 {
		if r.next == r.x.blocks() {
			r.err = io.EOF
			return 0, r.err
		}
		if r.stored == nil {
			r.stored, r.raw = r.x.buffers()
		}
		var err error
		if r.rest, err = r.x.readBlock(r.dir.codec, r.next, r.stored, r.raw); err != nil {
			r.rest = nil
			r.err = fmt.Errorf("snapshot: read %s: %w", r.x.info.ID, r.x.failure(err))
			return 0, r.err
		}
		r.next++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close implements Reader. A second Close does nothing.
func (r *reader) Close() error {
	if err := r.stop(messages.ErrInvalid); err != nil {
		return fmt.Errorf("snapshot: close reader of %s: %w", r.x.info.ID, err)
	}
	return nil
}

// stop closes the reader; reading on fails with reason.
func (r *reader) stop(reason error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.err = fmt.Errorf("snapshot: read %s: the reader is closed: %w", r.x.info.ID, reason)
	r.rest, r.stored, r.raw = nil, nil, nil
	r.dir.mu.Lock()
	delete(r.dir.readers, r)
	r.dir.mu.Unlock()
	r.dir.unpin(r.x.info.ID)
	return r.x.f.Close()
}
