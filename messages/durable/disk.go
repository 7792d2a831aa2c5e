package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
)

// Disk is what a store asks of the file system besides reading and writing
// open files. OS is the real one. Implementations are safe for concurrent use.
type Disk interface {
	// Sync makes the contents of f durable (fdatasync): its bytes and its
	// length, not its other metadata.
	Sync(f *os.File) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Rename and Remove change a name; SyncDir makes that durable.
	Rename(from, to string) error
	Remove(path string) error
}

// OS is the real disk.
var OS Disk = osDisk{}

type osDisk struct{}

func (osDisk) Sync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

func (osDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

// MkdirAll creates dir and whatever is missing above it, and makes every new
// name durable.
func MkdirAll(d Disk, dir string) error {
	dir = filepath.Clean(dir)
	info, err := os.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		// Whoever made it may have been killed before the sync. A parent that
		// may not be read cannot be synced.
		if err := d.SyncDir(filepath.Dir(dir)); !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(d, parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.SyncDir(parent)
}

// TempSuffix ends the name of every file that is not finished. A store removes
// such files when it opens.
const TempSuffix = ".tmp"

// WriteFile replaces path by data in one step: after a crash it holds the old
// contents or the new, never a mixture. The new contents are durable when it
// returns nil.
func WriteFile(d Disk, path string, data []byte) error {
	temp := path + TempSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = d.Sync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.Rename(temp, path)
	}
	if err != nil {
		// The error that matters is the first; a temporary file that cannot be
		// removed is removed at the next open.
		return errors.Join(err, d.Remove(temp))
	}
	return d.SyncDir(filepath.Dir(path))
}

// RemoveTemps removes the unfinished files in dir that a crash left behind and
// returns their names.
func RemoveTemps(d Disk, dir string) ([]string, error) {
	// Not filepath.Glob: it would take a bracket in dir for a pattern.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), TempSuffix) || e.IsDir() { // no store makes such a directory
			continue
		}
		name := filepath.Join(dir, e.Name())
		if err := d.Remove(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	// Also if there was none: whoever was here before may have been killed
	// between a rename and the sync of the directory.
	return names, d.SyncDir(dir)
}

// Wrap gives an error of the operating system the meaning that a caller can
// act on: ENOSPC, EDQUOT and EFBIG match messages.ErrDiskFull.
func Wrap(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w: %w", messages.ErrDiskFull, err)
	}
	return err
}

// FreeBeside is Free for the file system that holds an open file. It looks up
// no path and allocates nothing.
func FreeBeside(f *os.File) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "fstatfs", Path: f.Name(), Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// Free returns the bytes that are available to this process on the file system
// that holds dir.
func Free(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// Limited is a Disk that knows better than the file system how much room there is:
// one with a quota, or of a test.
type Limited interface {
	Disk
	// Free returns the bytes that are available in a directory.
	Free(dir string) (int64, error)
}

// FreeOn is Free, or what a Limited disk says.
func FreeOn(d Disk, dir string) (int64, error) {
	if l, ok := d.(Limited); ok {
		return l.Free(dir)
	}
	return Free(dir)
}

// FreeBesideOn is FreeBeside, or what a Limited disk says.
func FreeBesideOn(d Disk, f *os.File) (int64, error) {
	if l, ok := d.(Limited); ok {
		return l.Free(filepath.Dir(f.Name()))
	}
	return FreeBeside(f)
}

// Transient reports whether an error is of the kind that goes away by itself:
// the process, or the system, has run out of descriptors or of memory. A step
// that only prepares something can be tried again later; a sync that failed with
// it has failed all the same.
func Transient(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EAGAIN)
}
