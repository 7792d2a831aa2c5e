package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

const (
	asideSuffix = fileSuffix + ".damaged"
	// maxAside bounds how often one id can be set aside; more than once only if
	// it comes back by an import.
	maxAside = 1000
)

// asideName is the n-th name for a damaged snapshot, from 1 on.
func asideName(id string, n int) string {
	if n == 1 {
		return id + asideSuffix
	}
	return id + asideSuffix + "." + strconv.Itoa(n)
}

// parseAside is the inverse of asideName, as far as the id goes.
func parseAside(name string) (info messages.SnapshotInfo, ok bool) {
	if len(name) < idLength {
		return info, false
	}
	info, err := ParseID(name[:idLength])
	if err != nil {
		return info, false
	}
	rest, ok := strings.CutPrefix(name[idLength:], asideSuffix)
	if !ok || rest == "" {
		return info, ok
	}
	n, err := strconv.Atoi(strings.TrimPrefix(rest, "."))
	return info, err == nil && n > 1 && asideName(info.ID, n) == name
}

// unreadable reports whether err says that the disk could not read a file, which
// may pass, and not that what it read is wrong.
func unreadable(err error) bool { return errors.Is(err, syscall.EIO) }

// proven returns the damage that err tells of, or nil if it may be something
// else that kept the file from being read: a bad sector or a disk that has gone,
// no descriptor left, no permission, a format of a newer version.
func proven(err error) *messages.CorruptError {
	var damage *messages.CorruptError
	if unreadable(err) || errors.Is(err, messages.ErrIncompatible) || !errors.As(err, &damage) {
		return nil
	}
	return damage
}

// SetAside implements Store.
//
// Errors: messages.ErrNotFound, messages.ErrInvalid (no id),
// messages.ErrConflict, messages.ErrIncompatible (a newer version wrote it),
// messages.ErrStopped. If it is the last step that fails, the sync of the
// directory, a power cut may bring the old name back; set it aside again.
func (d *Dir) SetAside(id string) (messages.AsideSnapshot, error) {
	a, err := d.setAside(id)
	if err != nil {
		return messages.AsideSnapshot{}, fmt.Errorf("snapshot: set aside %s: %w", printable(id), durable.Wrap(err))
	}
	return a, nil
}

func (d *Dir) setAside(id string) (a messages.AsideSnapshot, err error) {
	info, err := ParseID(id)
	if err != nil {
		return a, err
	}
	d.maintenance.Lock()
	defer d.maintenance.Unlock()
	err = d.whole(id)
	if err == nil {
		return a, fmt.Errorf("it is whole: %w", messages.ErrConflict)
	}
	if errors.Is(err, messages.ErrNotFound) {
		return d.asideAgain(info, err)
	}
	damage := proven(err)
	if damage == nil {
		return a, err
	}
	name, err := d.rename(info, damage)
	if err != nil {
		return a, err
	}
	if err := d.options.Disk.SyncDir(d.path); err != nil {
		return a, err
	}
	return d.describeAside(name, info)
}

// rename gives a damaged snapshot, which nobody has open, the first name that
// is free.
func (d *Dir) rename(info messages.SnapshotInfo, damage *messages.CorruptError) (name string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.running(); err != nil {
		return "", err
	}
	if d.open[info.ID] > 0 {
		return "", errOpen
	}
	for n := 1; n <= maxAside; n++ {
		name = asideName(info.ID, n)
		path := filepath.Join(d.path, name)
		if _, err := os.Lstat(path); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err := d.options.Disk.Rename(d.filePath(info.ID), path); err != nil {
			return "", err
		}
		moved := *damage
		moved.Path = path
		d.aside[name] = &moved
		return name, nil
	}
	return "", fmt.Errorf("it was set aside %d times: %w", maxAside, messages.ErrConflict)
}

// asideAgain is for who does not know whether setting aside has succeeded.
func (d *Dir) asideAgain(info messages.SnapshotInfo, notFound error) (a messages.AsideSnapshot, err error) {
	list, err := d.listAside()
	if err != nil {
		return a, err
	}
	for _, x := range list {
		if x.ID == info.ID {
			a = x
		}
	}
	if a.Name == "" {
		return a, notFound
	}
	if err := d.options.Disk.SyncDir(d.path); err != nil {
		return messages.AsideSnapshot{}, err
	}
	return a, nil
}

// Aside implements Store. Headers, indexes and footers are read to say what is
// wrong with them.
func (d *Dir) Aside() ([]messages.AsideSnapshot, error) {
	list, err := d.listAside()
	if err != nil {
		return nil, fmt.Errorf("snapshot: list set aside: %w", err)
	}
	return list, nil
}

func (d *Dir) listAside() (list []messages.AsideSnapshot, err error) {
	if err := d.running(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, ok := parseAside(e.Name())
		if !ok {
			continue
		}
		a, err := d.describeAside(e.Name(), info)
		if errors.Is(err, messages.ErrNotFound) {
			continue // discarded meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

func (d *Dir) describeAside(name string, info messages.SnapshotInfo) (a messages.AsideSnapshot, err error) {
	path := filepath.Join(d.path, name)
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, fmt.Errorf("%w: %w", messages.ErrNotFound, err)
	}
	if err != nil {
		return a, err
	}
	a = messages.AsideSnapshot{Name: name, ID: info.ID, Group: info.Group, Index: info.Index, Term: info.Term, FileBytes: st.Size()}
	d.mu.Lock()
	known := d.aside[name]
	d.mu.Unlock()
	if known != nil {
		copied := *known
		a.Damage = &copied
		return a, nil
	}
	x, err := openPath(path, info)
	if err == nil {
		return a, x.f.Close() // a block of it
	}
	if !errors.As(err, &a.Damage) && !errors.Is(err, messages.ErrIncompatible) {
		return a, err
	}
	return a, nil
}
