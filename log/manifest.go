package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

const (
	manifestName    = "MANIFEST"
	markName        = "MARK"
	manifestMagic   = "BLSTLOG1"
	manifestVersion = 3
	manifestSize    = 64
)

// manifest is what must be known before a segment is read.
type manifest struct {
	identity [16]byte
	// floor is the wal index of the first record that must exist, and ordinal
	// the segment that it begins. Segments before that are leftovers of a
	// removal that a crash cut short.
	floor   uint64
	ordinal uint32
	// checkpoint is the wal index of the checkpoint that was written before
	// the floor was raised: it makes up for the records that are gone. Zero if
	// the floor is 1.
	checkpoint uint64
}

// seed makes the checks of this log differ from those of any other.
func (m *manifest) seed() uint32 { return crc32.Checksum(m.identity[:], castagnoli) }

func (m *manifest) encode() []byte {
	b := make([]byte, manifestSize)
	copy(b, manifestMagic)
	binary.LittleEndian.PutUint32(b[8:], manifestVersion)
	copy(b[16:], m.identity[:])
	binary.LittleEndian.PutUint64(b[32:], m.floor)
	binary.LittleEndian.PutUint64(b[40:], m.checkpoint)
	binary.LittleEndian.PutUint64(b[48:], uint64(m.ordinal))
	binary.LittleEndian.PutUint32(b[12:], manifestSum(b))
	return b
}

func manifestSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

func (m *manifest) write(d durable.Disk, dir string) error {
	if err := durable.WriteFile(d, filepath.Join(dir, manifestName), m.encode()); err != nil {
		return fmt.Errorf("write manifest: %w", durable.Wrap(err))
	}
	return nil
}

// readManifest returns an error that matches fs.ErrNotExist if there is none.
func readManifest(dir string) (manifest, error) {
	path := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(path)
	if err != nil {
		return manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	damage := func(offset int64, reason string) (manifest, error) {
		return manifest{}, &messages.CorruptError{Path: path, Offset: offset, Reason: reason}
	}
	switch {
	case len(b) != manifestSize:
		return damage(0, fmt.Sprintf("%d bytes, want %d", len(b), manifestSize))
	case manifestSum(b) != binary.LittleEndian.Uint32(b[12:]):
		return damage(0, "bad checksum")
	case string(b[:8]) != manifestMagic:
		return damage(0, "not the manifest of a log")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != manifestVersion {
		return manifest{}, fmt.Errorf("manifest %s: version %d: %w", path, v, messages.ErrIncompatible)
	}
	m := manifest{identity: [16]byte(b[16:32]), floor: binary.LittleEndian.Uint64(b[32:]),
		checkpoint: binary.LittleEndian.Uint64(b[40:]), ordinal: binary.LittleEndian.Uint32(b[48:])}
	if m.floor == 0 || m.ordinal == 0 || (m.floor > 1) != (m.checkpoint != 0) || m.checkpoint != 0 && m.checkpoint < m.floor {
		return damage(32, fmt.Sprintf("floor %d and checkpoint %d", m.floor, m.checkpoint))
	}
	return m, nil
}

// readMark reads the mark without opening it for writing. ok is false if its
// bytes fail their checksum.
func readMark(dir string, identity [16]byte) (p durable.Position, ok bool, err error) {
	path := filepath.Join(dir, markName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, &messages.CorruptError{Path: path, Offset: -1, Reason: "the file is missing"}
	}
	if err != nil {
		return p, false, fmt.Errorf("open mark: %w", err)
	}
	defer f.Close()
	return durable.ReadMark(f, path, identity)
}

// unborn reports whether a directory without a manifest is one whose creation
// a crash cut short, or is not a log at all: the manifest is written last, so
// nothing can have been acknowledged then. A mark or a segment that says
// otherwise means that the manifest was lost.
func unborn(dir string, segments []*foundSegment) (bool, error) {
	for _, f := range segments {
		if f.logSize > 0 {
			return false, nil
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, markName))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read mark: %w", err)
	}
	if len(b) < 32 {
		return false, nil
	}
	p, ok, err := readMark(dir, [16]byte(b[16:32]))
	if err != nil {
		return false, err
	}
	return ok && p.Sequence == 0, nil
}
