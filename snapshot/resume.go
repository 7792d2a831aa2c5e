package snapshot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ballast-raft/ballast/messages/durable"
)

// Resume implements Store. The id carries the time of the first of the calls.
// The state must be the same bytes each time: blocks of two different states
// would make a third. A caller who cannot be sure names the hash by Expect.
//
// What is there is read whole, on Options.Concurrency goroutines.
//
// Errors: those of Create.
func (d *Dir) Resume(group, index, term uint64, meta []byte) (Writer, int64, error) {
	w, offset, err := d.resume(group, index, term, meta)
	if err != nil {
		return nil, 0, fmt.Errorf("snapshot: resume at index %d: %w", index, durable.Wrap(err))
	}
	return w, offset, nil
}

func (d *Dir) resume(group, index, term uint64, meta []byte) (*writer, int64, error) {
	w, err := d.newWriter(group, index, term, meta)
	if err != nil {
		return nil, 0, err
	}
	w.out.keep = true
	d.expire()
	// Dir.Close and another Resume find it as soon as it has an id, and wait
	// until it is ready.
	w.mu.Lock()
	defer w.mu.Unlock()
	found, err := d.claimSave(w)
	if err != nil {
		return nil, 0, err
	}
	if found {
		err = w.reopen()
	} else {
		err = w.begin()
	}
	if err != nil {
		return nil, 0, w.fail(err)
	}
	return w, w.raw, nil
}

// claimSave gives w the group's unfinished save, if it can go on with it, or a
// new id.
func (d *Dir) claimSave(w *writer) (found bool, err error) {
	defer d.claims.lock(slot{w.header.group, false})()
	p, err := d.claim(slot{w.header.group, false}, func(p partial) (bool, error) {
		if p.info.Index != w.header.index || p.info.Term != w.header.term || p.level != d.options.Level {
			return false, nil
		}
		if _, err := os.Lstat(d.filePath(p.info.ID)); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return sameHeader(filepath.Join(d.path, p.name), w.header.encode())
	})
	if err != nil {
		return false, err
	}
	if p == nil {
		if err := d.reserve(w); err != nil {
			return false, err
		}
	} else {
		d.mu.Lock()
		d.name(w, p.info)
		d.mu.Unlock()
	}
	w.partName = saveName(w.info.ID, d.options.Level)
	w.out.path = filepath.Join(d.path, w.partName)
	if err := d.own(w.partName, w); err != nil {
		d.release(w)
		return false, err
	}
	return p != nil, nil
}

// sameHeader reports whether a file begins with a header.
func sameHeader(path string, header []byte) (same bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	b := make([]byte, len(header))
	_, err = io.ReadFull(f, b)
	same = err == nil && bytes.Equal(b, header)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO) {
		err = nil // nothing to go on with
	}
	return same, errors.Join(err, f.Close())
}

// reopen opens the unfinished file, whose header was found to be the right one,
// and cuts it after its last good block of full length.
func (w *writer) reopen() (err error) {
	end, entries, err := w.out.reopen(&w.header, true)
	if err != nil {
		return err
	}
	w.index = entries
	w.blocks = int64(len(entries) / entryBytes)
	w.raw = w.blocks * int64(w.header.blockBytes)
	return w.out.cut(end)
}

// reopen opens the file for going on and returns where its last good block
// ends. With hash the blocks up to there are decompressed, and their entries
// returned; without, which is for a file that others have made, nothing is held
// of them, and a last block that is shorter is taken too.
func (o *output) reopen(h *header, hash bool) (end int64, entries []byte, err error) {
	st, err := os.Lstat(o.path)
	if err != nil {
		return 0, nil, err
	}
	o.offset, o.synced = st.Size(), st.Size() // kept, if it cannot be read now
	if o.f, err = os.OpenFile(o.path, os.O_RDWR, 0); err != nil {
		return 0, nil, err
	}
	// Whoever wrote it may have been killed, or not have learned that the
	// kernel could not write it. If that is so it is told now, once, and then
	// nothing in the file can be trusted.
	if err := o.dir.options.Disk.Sync(o.f); err != nil {
		o.failed, o.synced = true, 0
		return 0, nil, err
	}
	// It may have had its final name already, and been taken back: that must be
	// durable before it is cut.
	if err := o.dir.options.Disk.SyncDir(o.dir.path); err != nil {
		return 0, nil, err
	}
	o.named = true
	end = h.size()
	for blocks := int64(0); ; {
		piece, err := chain(o.f, h, end, hash)
		if err != nil {
			return 0, nil, err
		}
		good, err := o.dir.checkChain(o.f, h, blocks, piece, hash)
		if err != nil {
			return 0, nil, err
		}
		blocks += good
		piece = piece[:good*entryBytes]
		if hash {
			entries = append(entries, piece...)
		}
		if good == 0 {
			return end, entries, nil
		}
		last := entry(piece[len(piece)-entryBytes:])
		end = last.end()
		if good < pieceEntries || last.raw() < int(h.blockBytes) || blocks == MaxBlocks {
			return end, entries, nil
		}
	}
}

// cut ends the file at an offset that is good and goes on from there.
func (o *output) cut(end int64) error {
	if err := o.f.Truncate(end); err != nil {
		return err
	}
	o.offset, o.synced = end, min(o.synced, end)
	_, err := o.f.Seek(end, io.SeekStart)
	return err
}

// chain follows the lengths of the blocks from an offset on, as far as they make
// sense, for pieceEntries blocks at most. Their checksums are for checkChain.
func chain(f *os.File, h *header, at int64, fullOnly bool) (entries []byte, err error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var b [blockFixed]byte
	for range pieceEntries {
		if st.Size()-at <= blockFixed {
			break
		}
		if _, err := f.ReadAt(b[:], at); errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) {
			break
		} else if err != nil {
			return nil, err
		}
		raw, stored := le.Uint32(b[0:]), le.Uint32(b[4:])
		short := raw < h.blockBytes
		if raw == 0 || raw > h.blockBytes || stored == 0 || stored > raw || short && fullOnly || st.Size()-at < blockFixed+int64(stored) {
			break
		}
		entries = appendEntry(entries, at, int(raw), int(stored), new([32]byte))
		if short {
			break
		}
		at += blockFixed + int64(stored)
	}
	return entries, nil
}

// checkChain checks the blocks from number first on, on Options.Concurrency
// goroutines, and returns how many are good before the first that is not. With
// hash it decompresses them and puts their hashes into the entries.
func (d *Dir) checkChain(f *os.File, h *header, first int64, entries []byte, hash bool) (int64, error) {
	x := &file{f: f, path: f.Name(), header: *h, index: index{first: first, piece: entries}}
	blocks := int64(len(entries) / entryBytes)
	for n := range blocks {
		x.maxRaw = max(x.maxRaw, entry(entries[n*entryBytes:]).raw())
	}
	var (
		next atomic.Int64
		good atomic.Int64

		mu     sync.Mutex
		failed error
	)
	good.Store(blocks)
	check := func(r *blockReader) error {
		raw := make([]byte, x.maxRaw)
		for {
			n := next.Add(1) - 1
			if n >= good.Load() {
				return nil
			}
			err := d.running()
			if err == nil {
				err = x.checkLink(r, first+n, raw, hash)
			}
			if err == nil {
				continue
			}
			for was := good.Load(); n < was && !good.CompareAndSwap(was, n); was = good.Load() {
			}
			var bad *damage
			if !errors.As(err, &bad) {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
			return nil
		}
	}
	var wg sync.WaitGroup
	for range min(int64(d.options.Concurrency), blocks) {
		wg.Go(func() { _ = d.coder.withReader(check) }) // check returns nil
	}
	wg.Wait()
	return good.Load(), failed
}

func (x *file) checkLink(r *blockReader, number int64, raw []byte, hash bool) error {
	if !hash {
		return x.checkBlock(r, number)
	}
	e, err := x.entry(number)
	if err != nil {
		return err
	}
	stored := r.room(blockFixed + e.stored())
	if err := x.readAt(stored, e.offset()); err != nil {
		return err
	}
	b, err := r.open(&x.header, number, e, stored, raw)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	copy(e[entryBytes-len(sum):], sum[:])
	return nil
}
