package snapshot

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ballast-raft/ballast/messages"
)

// Verify implements Store. Blocks are checked on Options.Concurrency
// goroutines, and the first damaged one is what the error names.
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
	x, err := d.openVerified(id)
	if err != nil {
		return messages.SnapshotInfo{}, err
	}
	return x.info, x.f.Close()
}

// openVerified opens a snapshot and checks all of it. It remembers that the
// file was good, or that it no longer is.
func (d *Dir) openVerified(id string) (*file, error) {
	x, err := d.openFile(id)
	if err == nil {
		if err = d.verifyBlocks(x); err != nil {
			err = errors.Join(x.failure(err), x.f.Close())
		}
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// verifyBlocks reads every block of x and checks it. It returns the error of
// the first block that has one: blocks are handed out in order, and those that
// were handed out are finished.
func (d *Dir) verifyBlocks(x *file) error {
	var (
		next   atomic.Int64
		failed atomic.Bool

		mu     sync.Mutex
		first  error
		number int64
	)
	check := func() {
		stored, raw := x.buffers()
		for !failed.Load() {
			n := next.Add(1) - 1
			if n >= x.blocks() {
				return
			}
			err := d.running()
			if err == nil {
				_, err = x.readBlock(d.codec, n, stored, raw)
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
		wg.Go(check)
	}
	check()
	wg.Wait()
	return first
}
