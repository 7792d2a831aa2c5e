package snapshot

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
)

// Open implements Store. Every stored byte is read and checked by its CRC, on
// Options.Concurrency goroutines; nothing is decompressed. The SHA-256 of each
// block is checked when it is decompressed, before any byte of it is served.
func (d *Dir) Open(id string) (Reader, error) { return d.openReader(id, true) }

// OpenAt implements Store. Damage to blocks is met on the way, or not at all;
// Open and Verify look for it first.
func (d *Dir) OpenAt(id string) (Reader, error) { return d.openReader(id, false) }

func (d *Dir) openReader(id string, whole bool) (Reader, error) {
	r, err := d.newReader(id, whole)
	if err != nil {
		return nil, fmt.Errorf("snapshot: open %s: %w", printable(id), err)
	}
	return r, nil
}

func (d *Dir) newReader(id string, whole bool) (_ *reader, err error) {
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
	if whole {
		if err := d.checkBlocks(x); err != nil {
			return nil, errors.Join(x.failure(err), x.f.Close())
		}
	}
	// The block that is read, one that is ready and one in each decompressor.
	cache := &cache{coder: d.coder, x: x, limit: d.options.Concurrency + 2}
	r := &reader{dir: d, x: x, cache: cache}
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

// reader implements Reader. Blocks are decompressed ahead of Read on goroutines
// of their own, which end by themselves, so that a reader that is forgotten
// leaves none behind.
type reader struct {
	dir   *Dir
	x     *file
	cache *cache

	// Dir.Close may come at any time.
	mu      sync.Mutex
	offset  int64   // of the next byte
	current *cached // the block that is being read, held; or nil
	ahead   int64   // how many blocks beyond it to decompress
	err     error   // ends the stream, until it is moved
	closed  bool
}

// Info implements Reader.
func (r *reader) Info() messages.SnapshotInfo {
	info := r.x.info
	info.Meta = slices.Clone(info.Meta)
	return info
}

// Read implements Reader. After an error it returns the same error until the
// next Seek.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rest, err := r.rest()
	if err != nil {
		return 0, err
	}
	n := copy(p, rest)
	r.offset += int64(n)
	return n, nil
}

// WriteTo implements io.WriterTo: io.Copy gets whole blocks, which are not
// copied.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	for written := int64(0); ; {
		b, rest, err := r.takeRest()
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		n, err := w.Write(rest)
		r.cache.release(b)
		written += int64(n)
		if err == nil && n < len(rest) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return written, err
		}
	}
}

// takeRest is rest for a caller who uses it without the mutex, and releases the
// block.
func (r *reader) takeRest() (*cached, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest, err := r.rest()
	if err != nil {
		return nil, nil, err
	}
	r.offset += int64(len(rest))
	return r.cache.retain(r.current), rest, nil
}

// rest returns what the block at the offset holds from there on, never nothing.
// r.mu is held.
func (r *reader) rest() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.offset >= r.x.info.RawBytes {
		r.err = io.EOF
		return nil, r.err
	}
	size := int64(r.x.header.blockBytes)
	number := r.offset / size
	if r.current == nil || r.current.number != number {
		if err := r.move(number); err != nil {
			r.err = r.failure("read", err)
			return nil, r.err
		}
	}
	return r.current.raw[r.offset-number*size:], nil
}

// move makes a block the current one. Going from one to the next, the Reader
// decompresses ever more blocks ahead, up to what the cache has room for.
func (r *reader) move(number int64) error {
	next := int64(0)
	if r.current != nil {
		next = r.current.number + 1
		r.cache.release(r.current)
		r.current = nil
	}
	if number == next {
		r.ahead = min(max(1, 2*r.ahead), int64(r.cache.limit-1))
	} else {
		r.ahead = 0
	}
	last := min(number+r.ahead, r.x.blocks()-1)
	if r.ahead > 0 {
		for n := number; n <= last; n++ {
			r.cache.prefetch(n)
		}
	}
	b, err := r.cache.acquire(number)
	if err != nil {
		return err
	}
	r.current = b
	return nil
}

// Seek implements io.Seeker. The end is Info().RawBytes.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, r.err
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.x.info.RawBytes
	default:
		return 0, fmt.Errorf("snapshot: seek in %s: whence is %d: %w", r.x.info.ID, whence, messages.ErrInvalid)
	}
	if offset < 0 {
		return 0, fmt.Errorf("snapshot: seek in %s: to offset %d: %w", r.x.info.ID, offset, messages.ErrInvalid)
	}
	r.offset, r.err = offset, nil
	return offset, nil
}

// ReadAt implements io.ReaderAt: any number of calls may be under way, beside
// Read and Seek, and they do not move the offset of those. Only the blocks that
// p needs are read.
func (r *reader) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, fmt.Errorf("snapshot: read %s at offset %d: %w", r.x.info.ID, offset, messages.ErrInvalid)
	}
	size, end := int64(r.x.header.blockBytes), r.x.info.RawBytes
	if int64(len(p)) > end-offset {
		p, err = p[:max(0, end-offset)], io.EOF
	}
	for n < len(p) {
		number := (offset + int64(n)) / size
		last := (offset + int64(len(p)) - 1) / size
		if number < last {
			// All processors work on what spans several blocks.
			for k := number; k <= min(last, number+int64(r.cache.limit)-1); k++ {
				r.cache.prefetch(k)
			}
		}
		b, err := r.cache.acquire(number)
		if err != nil {
			return n, r.failure("read", err)
		}
		n += copy(p[n:], b.raw[offset+int64(n)-number*size:])
		r.cache.release(b)
	}
	return n, err
}

// failure is what the caller gets of an error.
func (r *reader) failure(what string, err error) error {
	return fmt.Errorf("snapshot: %s %s: %w", what, r.x.info.ID, r.x.failure(err))
}

// Close implements Reader. A second Close does nothing.
func (r *reader) Close() error {
	if err := r.stop(messages.ErrInvalid); err != nil {
		return r.failure("close reader of", err)
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
	reason = fmt.Errorf("the reader is closed: %w", reason)
	r.err = r.failure("read", reason)
	r.current = nil
	r.cache.close(reason)
	r.dir.mu.Lock()
	delete(r.dir.readers, r)
	r.dir.mu.Unlock()
	r.dir.unpin(r.x.info.ID)
	return r.x.f.Close()
}
