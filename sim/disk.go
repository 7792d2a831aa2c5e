package sim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/ballast-raft/ballast/messages/durable"
)

// sector is what a disk writes whole: after a power cut each sector holds its
// old bytes or its new ones.
const sector = 512

// PowerDisk is a durable.Disk on the real files that knows what has been
// synced, so that Image can make what a power cut would leave: contents that
// were not synced may be there, in any subset of their sectors, or not; names
// that were not synced may be there or not.
//
// What a store syncs without going through its Disk counts as not synced,
// unless SyncedBeside says so.
type PowerDisk struct {
	root string

	mu sync.Mutex
	// contents is what is durable of each file, by inode: a name may come to
	// mean another file.
	contents map[inode][]byte
	held     map[inode]*os.File // closed when the disk is collected
	// names is what is durable of each directory.
	names map[string]map[string]inode
	// steps counts the calls of a Disk's methods. At the call of number kill,
	// before it is done or after, the process is killed.
	steps, kill int
	after, dead bool
}

// ErrKilled is what every step returns once the process has been killed.
var ErrKilled = errors.New("sim: killed")

// KillAt kills the process at the n-th step from now, before it is taken or
// after: that step and all later ones return ErrKilled. Zero brings it back.
func (d *PowerDisk) KillAt(n int, after bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kill, d.after, d.dead = 0, after, false
	if n > 0 {
		d.kill = d.steps + n
	}
}

func (d *PowerDisk) step(do func() error) error {
	d.mu.Lock()
	d.steps++
	dead, now, after := d.dead, d.steps == d.kill, d.after
	d.dead = dead || now
	d.mu.Unlock()
	switch {
	case dead, now && !after:
		return ErrKilled
	case now:
		return errors.Join(do(), ErrKilled)
	}
	return do()
}

type inode struct{ dev, ino uint64 }

var _ durable.Disk = (*PowerDisk)(nil)

// NewPowerDisk watches the files below root, which must exist. What is there
// already counts as durable.
func NewPowerDisk(root string) (*PowerDisk, error) {
	d := &PowerDisk{root: filepath.Clean(root), contents: make(map[inode][]byte), names: make(map[string]map[string]inode),
		held: make(map[inode]*os.File)}
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return d.noteDir(path)
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(d.note(f), f.Close())
	})
	if err != nil {
		return nil, fmt.Errorf("sim: watch %s: %w", root, err)
	}
	return d, nil
}

func inodeOf(info fs.FileInfo) inode {
	st := info.Sys().(*syscall.Stat_t)
	return inode{uint64(st.Dev), st.Ino}
}

// note takes what an open file holds now as durable.
func (d *PowerDisk) note(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		if !errors.Is(err, syscall.EBADF) { // opened for writing only
			return err
		}
		if b, err = os.ReadFile(f.Name()); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.contents[inodeOf(info)] = b
	d.hold(f.Name(), info)
	return nil
}

// hold keeps a file or directory open, so that its number is not given to
// another when it is removed: an image may bring it back (seed 9 found a
// directory that came back as a file). The caller holds mu.
func (d *PowerDisk) hold(path string, info fs.FileInfo) {
	node := inodeOf(info)
	if d.held[node] != nil {
		return
	}
	if f, err := os.Open(path); err == nil { // gone already: there is nothing to hold
		d.held[node] = f
	}
}

func (d *PowerDisk) noteDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := make(map[string]inode, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		names[e.Name()] = inodeOf(info)
		d.mu.Lock()
		d.hold(filepath.Join(dir, e.Name()), info)
		d.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[filepath.Clean(dir)] = names
	return nil
}

// Sync implements durable.Disk.
func (d *PowerDisk) Sync(f *os.File) error {
	return d.step(func() error { return d.note(f) }) // the page cache of this machine will not go away
}

// SyncedBeside notes that a file has been synced without this Disk: tidwall/wal
// syncs a segment before it makes the next one.
func (d *PowerDisk) SyncedBeside(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.note(f), f.Close())
}

// SyncDir implements durable.Disk.
func (d *PowerDisk) SyncDir(dir string) error {
	return d.step(func() error { return d.noteDir(dir) })
}

// Rename implements durable.Disk.
func (d *PowerDisk) Rename(from, to string) error {
	return d.step(func() error { return durable.OS.Rename(from, to) })
}

// Remove implements durable.Disk.
func (d *PowerDisk) Remove(path string) error {
	return d.step(func() error { return durable.OS.Remove(path) })
}

// Image writes into the new directory to what a power cut at this moment could
// leave, as chance decides. No actor may run meanwhile.
func (d *PowerDisk) Image(to string, chance *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.image(d.root, to, chance); err != nil {
		return fmt.Errorf("sim: image of %s: %w", d.root, err)
	}
	return nil
}

func (d *PowerDisk) image(from, to string, chance *rand.Rand) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	current := make(map[string]fs.FileInfo)
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		current[e.Name()] = info
	}
	known := d.names[from]
	all := maps.Clone(known)
	if all == nil {
		all = make(map[string]inode)
	}
	for name, info := range current {
		if _, ok := all[name]; !ok {
			all[name] = inodeOf(info)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		info, exists := current[name]
		node, durably := known[name]
		// A name that was not synced is there or not; one that means another
		// file by now means the one or the other.
		switch {
		case !durably && chance.IntN(2) == 0:
			continue
		case !durably, exists && inodeOf(info) != node && chance.IntN(2) == 0:
			node = inodeOf(info)
		case !exists && chance.IntN(2) == 0: // removed, and that was not synced
			continue
		}
		if exists && info.IsDir() || !exists && d.names[filepath.Join(from, name)] != nil {
			if err := d.image(filepath.Join(from, name), filepath.Join(to, name), chance); err != nil {
				return err
			}
			continue
		}
		b := slices.Clone(d.contents[node])
		if exists && inodeOf(info) == node {
			now, err := os.ReadFile(filepath.Join(from, name))
			if err != nil {
				return err
			}
			b = tear(b, now, chance)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// tear returns what a file may hold that was last synced as old and has been
// changed to now: each changed sector is the old or the new one, and the
// length lies between the two, at any byte.
func tear(old, now []byte, chance *rand.Rand) []byte {
	if slices.Equal(old, now) {
		return now
	}
	switch chance.IntN(4) { // often nothing or everything has made it
	case 0:
		return old
	case 1:
		return now
	}
	size := min(len(old), len(now))
	if d := max(len(old), len(now)) - size; d > 0 {
		size += chance.IntN(d + 1)
	}
	b := make([]byte, size)
	for at := 0; at < size; at += sector {
		end := min(at+sector, size)
		from := old
		if chance.IntN(2) == 0 {
			from = now
		}
		if at < len(from) { // beyond the end of the file that it was: zeros
			copy(b[at:end], from[at:])
		}
	}
	return b
}

// CopyDir copies a directory as a process finds it that starts after another
// was killed: everything that was written is there, synced or not.
func CopyDir(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("sim: copy %s: %w", from, err)
	}
	return nil
}
