package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

const (
	asideSuffix = fileSuffix + ".damaged"
	// maxAside bounds the number in the name of what is set aside; an id comes
	// back only by an import.
	maxAside = 1_000_000
)

// asideName is the n-th name for a damaged snapshot, from 1 on.
func asideName(id string, n int) string {
	if n == 1 {
		return id + asideSuffix
	}
	return id + asideSuffix + "." + strconv.Itoa(n)
}

// parseAside is the inverse of asideName, as far as the id goes.
func parseAside(name string) (info messages.SnapshotInfo, n int, ok bool) {
	if len(name) < IDLength {
		return info, 0, false
	}
	info, err := ParseID(name[:IDLength])
	if err != nil {
		return info, 0, false
	}
	rest, ok := strings.CutPrefix(name[IDLength:], asideSuffix)
	if !ok || rest == "" {
		return info, 1, ok
	}
	n, err = strconv.Atoi(strings.TrimPrefix(rest, "."))
	return info, n, err == nil && n > 1 && n <= maxAside && asideName(info.ID, n) == name
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
	defer d.maintenance.lock(info.Group)()
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

// rename gives a damaged snapshot, which nobody has open, the name after those
// that are there: of those set aside under one id the highest number is the
// latest. The caller holds the group's maintenance, so nobody else takes it.
func (d *Dir) rename(info messages.SnapshotInfo, damage *messages.CorruptError) (name string, err error) {
	all, err := d.asideNames()
	if err != nil {
		return "", err
	}
	n := 1
	for _, x := range all {
		if x.info.ID == info.ID {
			n = x.number + 1 // the last of them
		}
	}
	if n > maxAside {
		return "", fmt.Errorf("number %d is taken, and there is none after it: %w", maxAside, messages.ErrConflict)
	}
	name = asideName(info.ID, n)
	moved := *damage
	moved.Path = filepath.Join(d.path, name)
	if err := d.leave(info.ID, func() error { return d.options.Disk.Rename(d.filePath(info.ID), moved.Path) }); err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aside[name] = &moved
	return name, nil
}

// asideAgain is for who does not know whether setting aside has succeeded: it
// returns the latest.
func (d *Dir) asideAgain(info messages.SnapshotInfo, notFound error) (a messages.AsideSnapshot, err error) {
	all, err := d.asideNames()
	if err != nil {
		return a, err
	}
	latest := ""
	for _, x := range all {
		if x.info.ID == info.ID {
			latest = x.name
		}
	}
	if latest == "" {
		return a, notFound
	}
	if err := d.options.Disk.SyncDir(d.path); err != nil {
		return a, err
	}
	return d.describeAside(latest, info)
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

// asideFile is the name of a snapshot that was set aside.
type asideFile struct {
	name   string
	info   messages.SnapshotInfo
	number int
}

// asideNames lists them by id and number.
func (d *Dir) asideNames() (all []asideFile, err error) {
	if err := d.running(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if info, n, ok := parseAside(e.Name()); ok {
			all = append(all, asideFile{e.Name(), info, n})
		}
	}
	slices.SortFunc(all, func(a, b asideFile) int {
		return cmp.Or(strings.Compare(a.info.ID, b.info.ID), cmp.Compare(a.number, b.number))
	})
	return all, nil
}

func (d *Dir) listAside() (list []messages.AsideSnapshot, err error) {
	all, err := d.asideNames()
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		a, err := d.describeAside(x.name, x.info)
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
