package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ballast-raft/ballast/messages"
)

// Mark is a small file that records how far another file, or a sequence of
// them, is known to be on disk. It is what tells a torn write from damage: a
// tail that ends before the mark had been acknowledged.
//
// The mark is overwritten in place after each successful sync of what it is
// about, and is itself synced only by Sync. Losing an update in a power cut is
// safe: the mark then lies further back, and only the few writes after it
// cannot be told from a torn tail. It never lies too far ahead, because it is
// written only once what it says is true.
//
// Layout, 64 bytes, little-endian:
//
//	0   magic "BLSTMARK"
//	8   version, 4 bytes: 1
//	12  CRC32C of bytes 0 to 12 and 16 to 64, 4 bytes
//	16  identity of the marked store, 16 bytes
//	32  sequence of the last durable record, 8 bytes
//	40  file: number of the file that it ends in, 8 bytes
//	48  offset in that file at which it ends, 8 bytes
//	56  zero, 8 bytes
type Mark struct {
	disk Disk
	f    *os.File
	buf  [markSize]byte
}

// Position is what a Mark holds.
type Position struct {
	// Sequence is the number of the last record known to be durable.
	Sequence uint64
	// File and Offset say where it ends.
	File   uint64
	Offset int64
}

const (
	markSize    = 64
	markMagic   = "BLSTMARK"
	markVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CreateMark makes a new mark for the store with the given identity, durable
// under its name.
func CreateMark(d Disk, path string, identity [16]byte, p Position) (*Mark, error) {
	m := &Mark{disk: d}
	m.encode(identity, p)
	if err := WriteFile(d, path, m.buf[:]); err != nil {
		return nil, fmt.Errorf("create mark: %w", Wrap(err))
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open mark: %w", err)
	}
	m.f = f
	return m, nil
}

// OpenMark opens the mark of the store with the given identity. If its bytes
// fail their checksum, which a power cut in the middle of an update can bring
// about, ok is false and the position is zero: nothing is known. A mark that is
// missing, or that belongs to another store, is damage.
func OpenMark(d Disk, path string, identity [16]byte) (m *Mark, p Position, ok bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Position{}, false, &messages.CorruptError{Path: path, Offset: -1, Reason: "the file is missing"}
	}
	if err != nil {
		return nil, Position{}, false, fmt.Errorf("open mark: %w", err)
	}
	m = &Mark{disk: d, f: f}
	p, ok, err = ReadMark(f, path, identity)
	if err != nil {
		return nil, Position{}, false, errors.Join(err, f.Close())
	}
	return m, p, ok, nil
}

// ReadMark decodes a mark without opening it for writing.
func ReadMark(r io.ReaderAt, path string, identity [16]byte) (p Position, ok bool, err error) {
	var b [markSize]byte
	n, err := r.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Position{}, false, fmt.Errorf("read mark: %w", err)
	}
	if n < markSize || string(b[:8]) != markMagic || markCheck(b[:]) != binary.LittleEndian.Uint32(b[12:]) {
		return Position{}, false, nil
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != markVersion {
		return Position{}, false, fmt.Errorf("mark %s: version %d: %w", path, v, messages.ErrIncompatible)
	}
	if [16]byte(b[16:32]) != identity {
		return Position{}, false, &messages.CorruptError{Path: path, Offset: 16, Reason: "the mark belongs to another store"}
	}
	return Position{
		Sequence: binary.LittleEndian.Uint64(b[32:]),
		File:     binary.LittleEndian.Uint64(b[40:]),
		Offset:   int64(binary.LittleEndian.Uint64(b[48:])),
	}, true, nil
}

func (m *Mark) encode(identity [16]byte, p Position) {
	b := m.buf[:]
	copy(b, markMagic)
	binary.LittleEndian.PutUint32(b[8:], markVersion)
	copy(b[16:32], identity[:])
	binary.LittleEndian.PutUint64(b[32:], p.Sequence)
	binary.LittleEndian.PutUint64(b[40:], p.File)
	binary.LittleEndian.PutUint64(b[48:], uint64(p.Offset))
	binary.LittleEndian.PutUint32(b[12:], markCheck(b))
}

func markCheck(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:markSize])
}

// Set records p, which must be durable already. The update reaches the page
// cache, so it survives the end of the process, and the disk whenever the
// kernel writes it or Sync is called.
func (m *Mark) Set(identity [16]byte, p Position) error {
	m.encode(identity, p)
	if _, err := m.f.WriteAt(m.buf[:], 0); err != nil {
		return fmt.Errorf("write mark: %w", Wrap(err))
	}
	return nil
}

// Sync makes the latest Set durable.
func (m *Mark) Sync() error {
	if err := m.disk.Sync(m.f); err != nil {
		return fmt.Errorf("sync mark: %w", Wrap(err))
	}
	return nil
}

// Close closes the file without syncing it.
func (m *Mark) Close() error { return m.f.Close() }

// Path returns the mark's file name.
func (m *Mark) Path() string { return filepath.Clean(m.f.Name()) }
