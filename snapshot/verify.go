package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages"
)

// MaxDamagedBlocks is how many blocks a DamageError lists.
const MaxDamagedBlocks = messages.MaxDamagedBlocks

// DamageError is what Verify has found wrong with the blocks of a snapshot
// whose header, index and footer are good. It matches messages.ErrCorrupt and
// wraps the *messages.CorruptError of the first block whose bytes are wrong, or,
// if there is none, of the first that the disk cannot read.
type DamageError struct {
	// Info describes the snapshot, as far as it is not damaged.
	Info messages.SnapshotInfo
	messages.SnapshotDamage

	cause  *messages.CorruptError
	number int64 // of the block that it is about
}

// Error implements error.
func (e *DamageError) Error() string {
	s := e.cause.Error()
	if e.Damaged > 1 {
		last := e.Blocks[len(e.Blocks)-1]
		s += fmt.Sprintf("; %d of %d blocks are damaged, up to number %d", e.Damaged, e.Total, last.Number)
		if e.Damaged > int64(len(e.Blocks)) {
			s += " and beyond"
		}
	}
	return s
}

// Unwrap returns what was found wrong with one block.
func (e *DamageError) Unwrap() error { return e.cause }

// Verify implements Store. Blocks are decompressed and checked on
// Options.Concurrency goroutines. If any are damaged the error wraps a
// *DamageError, which tells all of them.
func (d *Dir) Verify(id string) (messages.SnapshotInfo, error) {
	info, err := d.verify(id)
	if err != nil {
		return messages.SnapshotInfo{}, fmt.Errorf("snapshot: verify %s: %w", printable(id), err)
	}
	return info, nil
}

func (d *Dir) verify(id string) (messages.SnapshotInfo, error) {
	if err := d.running(); err != nil {
		return messages.SnapshotInfo{}, err
	}
	x, err := d.openFile(id)
	if err != nil {
		return messages.SnapshotInfo{}, err
	}
	if err := d.verifyBlocks(x); err != nil {
		return messages.SnapshotInfo{}, errors.Join(x.failure(err), x.f.Close())
	}
	return x.info, x.f.Close()
}

// verifyBlocks decompresses and checks every block of x. It returns a
// *DamageError, or what kept it from reading on.
func (d *Dir) verifyBlocks(x *file) error {
	report := &DamageError{Info: x.info, SnapshotDamage: messages.SnapshotDamage{Total: x.blocks()}}
	var mu sync.Mutex
	buffers := make(chan []byte, d.options.Concurrency)
	for range d.options.Concurrency {
		buffers <- nil
	}
	err := d.eachBlock(x, func(r *blockReader, number int64) error {
		if err := x.passing(number); err != nil {
			return err
		}
		buf := <-buffers
		defer func() { buffers <- buf }()
		if buf == nil {
			buf = make([]byte, x.blockBuffer())
		}
		_, err := x.readBlock(r, number, buf)
		var found *damage
		if errors.As(err, &found) {
			mu.Lock()
			defer mu.Unlock()
			report.add(x, number, found)
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if report.Damaged > 0 {
		return report
	}
	return nil
}

// add notes a damaged block. They come in any order.
func (e *DamageError) add(x *file, number int64, found *damage) {
	from := number * int64(x.header.blockBytes)
	entry, err := x.entry(number)
	if err != nil { // the index is what has become wrong
		entry = appendEntry(nil, found.offset, int(min(int64(x.header.blockBytes), x.footer.rawBytes-from)), 0, new([32]byte))
	}
	b := messages.DamagedBlock{
		Number: number,
		Offset: entry.offset(),
		Length: blockFixed + int64(entry.stored()),
		From:   from,
		To:     from + int64(entry.raw()),
		Reason: found.reason,
		Err:    found.err,
	}
	e.Damaged++
	e.RawBytes += b.To - b.From
	at, _ := slices.BinarySearchFunc(e.Blocks, number, func(b messages.DamagedBlock, n int64) int { return cmp.Compare(b.Number, n) })
	// What is wrong in one place is wrong, whatever cannot be read elsewhere.
	if c := x.corrupt(found); e.cause == nil || unreadable(e.cause) && !unreadable(c) ||
		number < e.number && unreadable(e.cause) == unreadable(c) {
		e.cause, e.number = c, number
	}
	if at < MaxDamagedBlocks {
		e.Blocks = slices.Insert(e.Blocks, at, b)
		e.Blocks = e.Blocks[:min(len(e.Blocks), MaxDamagedBlocks)]
	}
}

// checkBlocks checks the stored bytes of every block of x, by their CRC. It
// returns the error of the first block that has one.
func (d *Dir) checkBlocks(x *file) error {
	return d.eachBlock(x, func(r *blockReader, number int64) error { return x.checkBlock(r, number) })
}

// eachBlock calls check for the blocks of x, on Options.Concurrency goroutines,
// until one of them fails. It returns the error of the first block that has
// one: blocks are handed out in order, and those that were handed out are
// finished.
func (d *Dir) eachBlock(x *file, check func(r *blockReader, number int64) error) error {
	var (
		next   atomic.Int64
		failed atomic.Bool

		mu     sync.Mutex
		first  error
		number int64
	)
	work := func() {
		for !failed.Load() {
			n := next.Add(1) - 1
			if n >= x.blocks() {
				return
			}
			err := d.running()
			if err == nil {
				err = d.coder.withReader(func(r *blockReader) error { return check(r, n) })
			}
			if err != nil {
				failed.Store(true)
				mu.Lock()
				if first == nil || n < number {
					first, number = err, n
				}
				mu.Unlock()
				return
			}
		}
	}
	var wg sync.WaitGroup
	for range min(int64(d.options.Concurrency), x.blocks()) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return first
}
