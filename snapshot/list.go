package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages"
)

// printable is an id as it goes into an error: quoted and cut if it is none.
func printable(id string) string {
	if _, err := ParseID(id); err != nil {
		return fmt.Sprintf("%.80q", id)
	}
	return id
}

// ids returns the ids of the files in the directory, in order: groups from low
// to high, and in each the oldest first. strays are files that end like
// snapshots and have no id.
func (d *Dir) ids() (ids, strays []string, err error) {
	if err := d.running(); err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), fileSuffix)
		if !ok {
			continue
		}
		if _, err := ParseID(id); err != nil {
			strays = append(strays, e.Name())
			continue
		}
		if !d.isHidden(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, strays, nil
}

// groupIDs returns the ids of one group, newest first.
func (d *Dir) groupIDs(group uint64) ([]string, error) {
	ids, _, err := d.ids()
	if err != nil {
		return nil, err
	}
	prefix := fmt.Sprintf("%016x-", group)
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, prefix) })
	slices.Reverse(ids)
	return ids, nil
}

// List implements Store. The index of each file is checked too. A file that a
// newer version of Ballast wrote is among the damaged ones, with an Err that
// matches messages.ErrIncompatible.
func (d *Dir) List(group uint64) ([]messages.SnapshotInfo, []*messages.CorruptError, error) {
	ids, err := d.groupIDs(group)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: list group %d: %w", group, err)
	}
	infos, damaged, err := d.describe(ids)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: list group %d: %w", group, err)
	}
	return infos, damaged, nil
}

// ListAll implements Store: groups from low to high, and in each the newest
// first. Files that end in ".snap" and have no id for a name are among the
// damaged.
func (d *Dir) ListAll() ([]messages.SnapshotInfo, []*messages.CorruptError, error) {
	ids, strays, err := d.ids()
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: list: %w", err)
	}
	slices.SortFunc(ids, func(a, b string) int {
		if c := strings.Compare(a[:16], b[:16]); c != 0 {
			return c
		}
		return strings.Compare(b, a)
	})
	infos, damaged, err := d.describe(ids)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: list: %w", err)
	}
	for _, name := range strays {
		damaged = append(damaged, &messages.CorruptError{Path: filepath.Join(d.path, name), Offset: -1, Reason: "the name is no snapshot id"})
	}
	return infos, damaged, nil
}

// describe opens each file for its header, index and footer.
func (d *Dir) describe(ids []string) (infos []messages.SnapshotInfo, damaged []*messages.CorruptError, err error) {
	for _, id := range ids {
		x, err := d.openFile(id)
		if err == nil {
			infos = append(infos, x.info)
			err = x.f.Close()
		}
		if errors.Is(err, messages.ErrIncompatible) {
			info, _ := ParseID(id)
			err = d.incompatible(info, err)
		}
		if err := classify(err, &damaged); err != nil {
			return nil, nil, err
		}
	}
	return infos, damaged, nil
}

// incompatible is how a file of a newer version is told of beside damaged ones.
func (d *Dir) incompatible(info messages.SnapshotInfo, err error) error {
	return &messages.CorruptError{Path: d.filePath(info.ID), Offset: 0, Index: info.Index, Reason: "this version cannot read it", Err: err}
}

// classify puts an error where it belongs: a damaged file among the damaged, and
// one that was deleted in the meantime nowhere. Others are returned.
func classify(err error, damaged *[]*messages.CorruptError) error {
	var c *messages.CorruptError
	switch {
	case err == nil || errors.Is(err, messages.ErrNotFound):
		return nil
	case errors.As(err, &c):
		*damaged = append(*damaged, c)
		return nil
	}
	return err
}

// Latest implements Store. The snapshot has just been read whole. If the newest
// file was written by a newer version of Ballast the error matches
// messages.ErrIncompatible: to fall back would be to forget what it holds.
func (d *Dir) Latest(group uint64) (messages.SnapshotInfo, []*messages.CorruptError, error) {
	info, damaged, err := d.latest(group)
	if err != nil {
		return messages.SnapshotInfo{}, damaged, fmt.Errorf("snapshot: latest of group %d: %w", group, err)
	}
	return info, damaged, nil
}

// latest lists again if something that was listed has gone: what it was removed
// in favour of may be younger than the list. A name that leads nowhere, a broken
// link, never stops being gone: so it does not do that for ever.
func (d *Dir) latest(group uint64) (info messages.SnapshotInfo, damaged []*messages.CorruptError, err error) {
	for gone, try := true, 0; gone && try < 16; try++ {
		gone, damaged = false, nil
		ids, err := d.groupIDs(group)
		if err != nil {
			return info, nil, err
		}
		for _, id := range ids {
			info, err := d.verify(id)
			if err == nil {
				return info, damaged, nil
			}
			gone = gone || errors.Is(err, messages.ErrNotFound)
			if err := classify(err, &damaged); err != nil {
				return info, damaged, err
			}
		}
	}
	return info, damaged, messages.ErrNotFound
}
