package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
	"time"

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
	if index == 0 {
		return nil, fmt.Errorf("the index is zero: %w", messages.ErrInvalid)
	}
	if len(meta) > messages.MaxSnapshotMeta {
		return nil, fmt.Errorf("%d bytes of metadata, at most %d: %w", len(meta), messages.MaxSnapshotMeta, messages.ErrTooLarge)
	}
	w := &writer{
		dir: d,
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
	}
	if err := d.reserve(w); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err // Dir.Close came between
	}
	var err error
	if w.f, err = os.OpenFile(w.temp(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		d.release(w)
		return nil, err
	}
	if err := w.write(w.header.encode()); err != nil {
		return nil, w.discard(err)
	}
	return w, nil
}

// reserve gives w an id that no file and no other writer has.
func (d *Dir) reserve(w *writer) error {
	created := uint64(min(max(d.options.Now().UnixMilli(), 0), maxCreated))
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.running(); err != nil {
		return err
	}
	for ; created <= maxCreated; created++ {
		id := formatID(w.header.group, w.header.term, w.header.index, created)
		if d.writers[id] != nil {
			continue
		}
		_, err := os.Lstat(d.filePath(id))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		w.info = messages.SnapshotInfo{
			ID:      id,
			Group:   w.header.group,
			Index:   w.header.index,
			Term:    w.header.term,
			Created: time.UnixMilli(int64(created)).UTC(),
			Meta:    w.header.meta,
		}
		w.path = d.filePath(id)
		d.writers[id] = w
		return nil
	}
	return fmt.Errorf("every id is taken: %w", messages.ErrConflict)
}

func (d *Dir) release(w *writer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.writers, w.info.ID)
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
	f      *os.File
	offset int64  // bytes written to f
	raw    int64  // bytes taken
	blocks int64  // blocks begun
	index  []byte // entries of the blocks in f

	current *block   // being filled, or nil
	queue   []*block // in compression or ready, in order
	free    []*block // to be used again; nil: not allocated yet

	err error // every further call fails with it
}

func (w *writer) temp() string { return w.path + durable.TempSuffix }

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
			return taken, fmt.Errorf("snapshot: write %s: %w", w.info.ID, w.discard(err))
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
	w.index = appendEntry(w.index, w.offset, len(b.raw), len(b.stored)-blockFixed, &b.hash)
	w.free = append(w.free, b)
	return w.write(b.stored)
}

func (w *writer) write(b []byte) error {
	n, err := w.f.Write(b)
	w.offset += int64(n)
	return err
}

// Finish implements Writer. If it is the last step that fails, the sync of the
// directory, then the snapshot is removed again, but a power cut that follows
// at once may bring it back, whole.
func (w *writer) Finish() (messages.SnapshotInfo, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return messages.SnapshotInfo{}, fmt.Errorf("snapshot: finish %s: %w", w.info.ID, w.err)
	}
	if err := w.complete(); err != nil {
		return messages.SnapshotInfo{}, fmt.Errorf("snapshot: finish %s: %w", w.info.ID, w.discard(err))
	}
	if err := w.publish(); err != nil {
		return messages.SnapshotInfo{}, fmt.Errorf("snapshot: finish %s: %w", w.info.ID, w.discard(err))
	}
	w.end(fmt.Errorf("it is finished: %w", messages.ErrInvalid))
	info := w.info
	info.Meta = bytes.Clone(info.Meta)
	return info, nil
}

// complete writes what is left: the last block, the index and the footer.
func (w *writer) complete() error {
	if w.current != nil {
		if err := w.send(); err != nil {
			return err
		}
	}
	for len(w.queue) > 0 {
		if err := w.writeOldest(); err != nil {
			return err
		}
	}
	end := footer{
		headerCRC:   w.header.crc,
		indexOffset: w.offset,
		blocks:      w.blocks,
		rawBytes:    w.raw,
		content:     contentHash(w.header.blockBytes, w.raw, w.index),
	}
	crc := crc32.Update(seedCRC(w.header.crc), castagnoli, w.index)
	if err := w.write(le.AppendUint32(w.index, crc)); err != nil {
		return err
	}
	if err := w.write(end.encode()); err != nil {
		return err
	}
	w.info.RawBytes, w.info.FileBytes, w.info.ContentHash = w.raw, w.offset, end.content
	return nil
}

// publish makes the complete file durable, first its bytes, then its name.
func (w *writer) publish() error {
	disk := w.dir.options.Disk
	err := disk.Sync(w.f)
	err = errors.Join(err, w.f.Close())
	w.f = nil
	if err != nil {
		return err
	}
	if _, err := os.Lstat(w.path); err == nil {
		return fmt.Errorf("%s has appeared meanwhile: %w", w.path, messages.ErrConflict)
	}
	if err := disk.Rename(w.temp(), w.path); err != nil {
		// Whether the name has changed is not known, but nobody else's file
		// can have it.
		return errors.Join(err, w.remove(w.path))
	}
	if err := disk.SyncDir(w.dir.path); err != nil {
		return errors.Join(err, w.remove(w.path))
	}
	return nil
}

// Abort implements Writer. A second Abort does nothing.
func (w *writer) Abort() error { return w.stop(messages.ErrInvalid) }

// stop gives the snapshot up; later calls fail with reason.
func (w *writer) stop(reason error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil
	}
	if w.f == nil {
		// Dir.Close before Create had made the file.
		w.end(reason)
		return nil
	}
	err := w.removeTemp()
	w.end(fmt.Errorf("it was given up: %w", reason))
	if err != nil {
		return fmt.Errorf("snapshot: abort %s: %w", w.info.ID, err)
	}
	return nil
}

// discard removes what there is of the snapshot after err and ends the writer.
// It returns err, made understandable, and whatever else went wrong.
func (w *writer) discard(err error) error {
	err = durable.Wrap(err)
	also := w.removeTemp()
	w.end(err)
	if also != nil {
		return errors.Join(err, also)
	}
	return err
}

// removeTemp closes and removes the unfinished file, if it is still there, once
// nothing is under way any more.
func (w *writer) removeTemp() error {
	for _, b := range w.queue {
		<-b.done
	}
	var err error
	if w.f != nil {
		err = w.f.Close()
		w.f = nil
	}
	return errors.Join(err, w.remove(w.temp()))
}

// remove removes a name that may be there or not. It need not be durable: a
// temporary name is removed by the next OpenDir, and a final one has a whole
// file behind it.
func (w *writer) remove(path string) error {
	if err := w.dir.options.Disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// end lets go of everything.
func (w *writer) end(err error) {
	w.err = err
	w.current, w.queue, w.free, w.index = nil, nil, nil, nil
	w.dir.release(w)
}
