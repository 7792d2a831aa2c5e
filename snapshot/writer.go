package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Create implements Store. The id carries the time of this call, or a later
// millisecond if that id is taken.
//
// Errors: messages.ErrInvalid (index zero), messages.ErrTooLarge (meta),
// messages.ErrDiskFull, messages.ErrStopped.
func (d *Dir) Create(group, index, term uint64, meta []byte) (Writer, error) {
	w, err := d.create(group, index, term, meta)
	if err != nil {
		return nil, fmt.Errorf("snapshot: create at index %d: %w", index, durable.Wrap(err))
	}
	return w, nil
}

func (d *Dir) create(group, index, term uint64, meta []byte) (*writer, error) {
	w, err := d.newWriter(group, index, term, meta)
	if err != nil {
		return nil, err
	}
	d.expire()
	if err := d.reserve(w); err != nil {
		return nil, err
	}
	w.out.path = w.path + durable.TempSuffix
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err // Dir.Close came between
	}
	if err := w.begin(); err != nil {
		return nil, w.fail(err)
	}
	return w, nil
}

// newWriter returns a writer that has neither an id nor a file yet.
func (d *Dir) newWriter(group, index, term uint64, meta []byte) (*writer, error) {
	if index == 0 {
		return nil, fmt.Errorf("the index is zero: %w", messages.ErrInvalid)
	}
	if len(meta) > messages.MaxSnapshotMeta {
		return nil, fmt.Errorf("%d bytes of metadata, at most %d: %w", len(meta), messages.MaxSnapshotMeta, messages.ErrTooLarge)
	}
	return &writer{
		dir: d,
		out: output{dir: d},
		header: header{
			codec:      d.coder.number,
			blockBytes: uint32(d.options.BlockBytes),
			group:      group,
			index:      index,
			term:       term,
			meta:       append([]byte(nil), meta...),
		},
		// One being filled or written, one ready, the others in compression.
		free: make([]*block, d.options.Concurrency+2),
	}, nil
}

// begin makes the file and writes its header.
func (w *writer) begin() error {
	if err := w.out.create(); err != nil {
		return err
	}
	return w.out.write(w.header.encode())
}

// reserve gives w an id that no file and no other writer has, nor an unfinished
// save: that can be gone on with, under its id, while w is written.
func (d *Dir) reserve(w *writer) error {
	created := uint64(min(max(d.options.Now().UnixMilli(), 0), maxCreated))
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.running(); err != nil {
		return err
	}
	unfinished, err := d.partials()
	if err != nil {
		return err
	}
	for ; created <= maxCreated; created++ {
		id := formatID(w.header.group, w.header.term, w.header.index, created)
		if d.writers[id] != nil || slices.ContainsFunc(unfinished, func(p partial) bool { return !p.imported && p.info.ID == id }) {
			continue
		}
		_, err := os.Lstat(d.filePath(id))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		info, err := ParseID(id)
		if err != nil {
			return err
		}
		d.name(w, info)
		return nil
	}
	return fmt.Errorf("every id is taken: %w", messages.ErrConflict)
}

// name gives w the id in info. The caller holds d.mu.
func (d *Dir) name(w *writer, info messages.SnapshotInfo) {
	w.info = info
	w.info.Meta = w.header.meta
	w.path = d.filePath(info.ID)
	d.writers[info.ID] = w
}

func (d *Dir) release(w *writer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writers[w.info.ID] == w {
		delete(d.writers, w.info.ID)
	}
}

// writer implements Writer. Blocks are compressed on goroutines of their own,
// which end by themselves, so that a writer that is forgotten leaves none
// behind; the blocks are written to the file in order by whoever calls Write or
// Finish. The mutex is for Dir.Close, which may come at any time.
type writer struct {
	dir *Dir

	mu     sync.Mutex
	info   messages.SnapshotInfo
	path   string // final name
	header header
	out    output
	raw    int64  // bytes taken
	blocks int64  // blocks begun
	index  []byte // entries of the blocks in the file

	current *block   // being filled, or nil
	queue   []*block // in compression or ready, in order
	free    []*block // to be used again; nil: not allocated yet

	expected *[32]byte // content hash that Finish insists on, or nil

	partName string // of the unfinished file, if it is from Resume
	kept     bool   // it has ended, and that file is still there

	err error // every further call fails with it
}

// Write implements Writer. It returns as soon as p has been copied, unless as
// many blocks as are allowed are under way.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, fmt.Errorf("snapshot: write %s: %w", w.info.ID, w.err)
	}
	taken := 0
	for len(p) > 0 {
		if err := w.fill(&p, &taken); err != nil {
			return taken, fmt.Errorf("snapshot: write %s: %w", w.info.ID, w.fail(err))
		}
	}
	return taken, nil
}

// fill moves bytes from p to the current block and sends it off if that
// completes it.
func (w *writer) fill(p *[]byte, taken *int) error {
	if w.current == nil {
		if w.blocks == MaxBlocks {
			return fmt.Errorf("more than %d blocks: %w", MaxBlocks, messages.ErrTooLarge)
		}
		last := len(w.free) - 1
		w.current, w.free = w.free[last], w.free[:last]
		if w.current == nil {
			w.current = &block{}
		}
		w.current.raw = w.current.raw[:0]
	}
	b, size := w.current, int(w.header.blockBytes)
	n := min(len(*p), size-len(b.raw))
	if need := len(b.raw) + n; need > cap(b.raw) {
		// By doubling up to the block size: small snapshots stay small.
		grown := make([]byte, len(b.raw), min(size, max(2*cap(b.raw), need)))
		copy(grown, b.raw)
		b.raw = grown
	}
	b.raw = append(b.raw, (*p)[:n]...)
	*p = (*p)[n:]
	*taken += n
	w.raw += int64(n)
	if len(b.raw) == size {
		return w.send()
	}
	return nil
}

// send starts the compression of the current block, and waits for the oldest
// one and writes it if no free block would be left.
func (w *writer) send() error {
	b := w.current
	w.current = nil
	b.number, b.err, b.done = w.blocks, nil, make(chan struct{})
	w.blocks++
	w.queue = append(w.queue, b)
	go b.encode(w.dir.coder, w.header.crc)
	if len(w.free) == 0 {
		return w.writeOldest()
	}
	return nil
}

func (w *writer) writeOldest() error {
	b := w.queue[0]
	<-b.done
	if b.err != nil {
		return b.err
	}
	w.queue = w.queue[1:]
	w.index = appendEntry(w.index, w.out.offset, len(b.raw), len(b.stored)-blockFixed, &b.hash)
	w.free = append(w.free, b)
	return w.out.write(b.stored)
}

// writeQueue writes all that was sent.
func (w *writer) writeQueue() error {
	for len(w.queue) > 0 {
		if err := w.writeOldest(); err != nil {
			return err
		}
	}
	return nil
}

// Finish implements Writer. If it is the last step that fails, the sync of the
// directory, then the snapshot is removed again, or unfinished again if it is
// from Resume, but a power cut that follows at once may bring it back, whole.
func (w *writer) Finish() (messages.SnapshotInfo, error) {
	info, err := w.finish()
	if err != nil {
		return messages.SnapshotInfo{}, fmt.Errorf("snapshot: finish %s: %w", w.info.ID, err)
	}
	w.dir.finished(info.Group, info.Index)
	return info, nil
}

func (w *writer) finish() (messages.SnapshotInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return messages.SnapshotInfo{}, w.err
	}
	if err := w.complete(); err != nil {
		return messages.SnapshotInfo{}, w.fail(err)
	}
	if err := w.out.publish(w.info.ID); err != nil {
		return messages.SnapshotInfo{}, w.fail(err)
	}
	w.end(fmt.Errorf("it is finished: %w", messages.ErrInvalid))
	info := w.info
	info.Meta = bytes.Clone(info.Meta)
	return info, nil
}

// ID implements Writer.
func (w *writer) ID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.info.ID
}

// Expect implements Writer.
func (w *writer) Expect(contentHash [32]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expected = &contentHash
}

// complete writes what is left: the last block, the index and the footer.
func (w *writer) complete() error {
	if w.current != nil {
		if err := w.send(); err != nil {
			return err
		}
	}
	if err := w.writeQueue(); err != nil {
		return err
	}
	end := footer{
		headerCRC:   w.header.crc,
		indexOffset: w.out.offset,
		blocks:      w.blocks,
		rawBytes:    w.raw,
		content:     contentHash(w.header.blockBytes, w.raw, w.index),
	}
	if w.expected != nil && *w.expected != end.content {
		return &messages.CorruptError{Path: w.out.path, Offset: -1, Index: w.header.index,
			Reason: fmt.Sprintf("the content hash is %x, expected %x", end.content, *w.expected)}
	}
	crc := crc32.Update(seedCRC(w.header.crc), castagnoli, w.index)
	if err := w.out.write(le.AppendUint32(w.index, crc)); err != nil {
		return err
	}
	if err := w.out.write(end.encode()); err != nil {
		return err
	}
	w.info.RawBytes, w.info.FileBytes, w.info.ContentHash = w.raw, w.out.offset, end.content
	return nil
}

// Suspend implements Writer.
func (w *writer) Suspend() error {
	if !w.out.keep {
		return fmt.Errorf("snapshot: suspend %s: it is not from Resume: %w", w.info.ID, messages.ErrInvalid)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return fmt.Errorf("snapshot: suspend %s: %w", w.info.ID, w.err)
	}
	if err := w.suspend(fmt.Errorf("it was suspended: %w", messages.ErrInvalid)); err != nil {
		return fmt.Errorf("snapshot: suspend %s: %w", w.info.ID, durable.Wrap(err))
	}
	return nil
}

// suspend ends the writer and keeps the blocks that are complete; later calls
// fail with reason.
func (w *writer) suspend(reason error) error {
	err := w.writeQueue()
	w.drain()
	var also error
	w.kept, also = w.out.suspend(w.header.size())
	err = errors.Join(err, also)
	if err != nil {
		reason = errors.Join(reason, durable.Wrap(err))
	}
	w.end(reason)
	return err
}

// Abort implements Writer. A second Abort does nothing.
func (w *writer) Abort() error {
	w.mu.Lock()
	var err error
	kept := w.kept
	w.kept = false
	if w.err == nil {
		err = w.giveUp(fmt.Errorf("it was given up: %w", messages.ErrInvalid))
	}
	w.mu.Unlock()
	if kept {
		err = w.dir.abandon(w.partName, w)
	}
	if err != nil {
		return fmt.Errorf("snapshot: abort %s: %w", w.info.ID, err)
	}
	return nil
}

// stop implements owner, and is what Dir.Close calls: it gives the snapshot up,
// or suspends it if it is from Resume.
func (w *writer) stop(reason error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil
	}
	if w.out.f == nil {
		// It comes before Create or Resume had opened the file.
		w.kept = w.out.keep
		w.end(reason)
		return nil
	}
	var err error
	if w.out.keep {
		err = w.suspend(reason)
	} else {
		err = w.giveUp(fmt.Errorf("it was given up: %w", reason))
	}
	if err != nil {
		return fmt.Errorf("snapshot: stop %s: %w", w.info.ID, durable.Wrap(err))
	}
	return nil
}

// giveUp ends the writer and removes its file; later calls fail with reason.
func (w *writer) giveUp(reason error) error {
	w.drain()
	err := w.out.discard()
	w.end(reason)
	return err
}

// fail ends the writer after err, and removes what there is of the snapshot
// unless it is to be kept and can be of use. It returns err, made
// understandable, and whatever else went wrong.
func (w *writer) fail(err error) error {
	err = durable.Wrap(err)
	w.drain()
	var also error
	if w.out.keep && !useless(err) {
		w.kept, also = w.out.suspend(w.header.size())
	} else {
		also = w.out.discard()
	}
	if also != nil {
		err = errors.Join(err, durable.Wrap(also))
	}
	w.end(err)
	return err
}

// useless reports whether an unfinished file would fail in the same way again.
func useless(err error) bool {
	return errors.Is(err, messages.ErrTooLarge) || errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrConflict)
}

// drain waits until nothing is under way any more.
func (w *writer) drain() {
	for _, b := range w.queue {
		<-b.done
	}
	w.queue = nil
}

// end lets go of everything.
func (w *writer) end(err error) {
	w.err = err
	w.current, w.queue, w.free, w.index = nil, nil, nil, nil
	w.dir.release(w)
	if w.out.keep {
		w.dir.disown(w.partName, w, w.kept)
	}
}
