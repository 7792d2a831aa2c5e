package kv

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

const (
	// fillStep is how far ahead of the last change there are zeros. An append to
	// a growing file has the journal write its size and its blocks too, with each
	// sync: one write of 100 bytes at a time is 1.2 to 1.5 times as fast into
	// zeros.
	fillStep = 256 << 10
	// fillBelow is how much may be unsynced for zeros to be worth writing: with
	// more to a sync, as where a log drives the data, they only double it.
	fillBelow = 64 << 10
	// maxKeptBuffer bounds the memory that is kept from one change to the next.
	maxKeptBuffer = 8 << 20
)

var zeros [fillStep]byte

// write appends a change and its marker, of which it fills in what says where it
// is. The change is the front of what will be written, best with room for
// markerBytes; it counts when advance is called. spare is what may be taken of the disk for zeros. A disk that is full
// leaves the file as it was, without zeros.
func (g *generation) write(change []byte, m marker, spare int64) error {
	m.sequence, m.start, m.end = g.sequence+1, g.end, g.end+int64(len(change))
	m.sum = crc32.Checksum(change, castagnoli)
	if n := m.sequence - g.durable.Load(); n <= math.MaxUint16 {
		m.unsynced = uint16(n)
	}
	change = appendSet(change, markerKey, string(m.encode(g.identity)))
	g.next = place{m.sequence, g.end + int64(len(change))}
	if g.next.end > g.filled && g.next.end-g.synced.Load() < fillBelow && spare > 2*fillStep {
		// Without zeros the file grows as it is written, and if they are all that
		// does not fit, it does.
		n, _ := g.file.WriteAt(zeros[:], g.filled)
		g.filled += int64(n)
	}
	_, err := g.file.WriteAt(change, g.end)
	if err = durable.Wrap(err); errors.Is(err, messages.ErrDiskFull) {
		g.filled = g.end
		if err2 := g.file.Truncate(g.end); err2 != nil {
			return fmt.Errorf("%w; and it cannot be taken back: %w", err, err2)
		}
		return noRoom{err}
	}
	if err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(change), g.end, err)
	}
	g.filled = max(g.filled, g.next.end)
	return nil
}

// cutZeros makes the file end with its last change. It need not be durable.
func (g *generation) cutZeros() error {
	if g.filled == g.end {
		return nil
	}
	g.filled = g.end
	return g.file.Truncate(g.end)
}

// trailingZeros returns where the zeros begin that the bytes from from to size
// end with.
func trailingZeros(r io.ReaderAt, from, size int64) (int64, error) {
	var buf [4096]byte
	for size > from {
		b := buf[:min(int64(len(buf)), size-from)]
		if n, err := r.ReadAt(b, size-int64(len(b))); n < len(b) {
			return 0, fmt.Errorf("read at offset %d: %w", size-int64(len(b))+int64(n), err)
		}
		for len(b) > 0 && b[len(b)-1] == 0 {
			b, size = b[:len(b)-1], size-1
		}
		if len(b) > 0 {
			break
		}
	}
	return size, nil
}
