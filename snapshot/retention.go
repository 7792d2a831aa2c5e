package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Delete implements Store. A snapshot that is whole goes only if another of its
// group is known to be whole, so Delete may have to read one. A damaged one can
// always be deleted.
//
// Errors: messages.ErrNotFound, messages.ErrInvalid (no id),
// messages.ErrConflict (it is open, or the last good one), messages.ErrStopped.
func (d *Dir) Delete(id string) error {
	if err := d.deleteOne(id); err != nil {
		return fmt.Errorf("snapshot: delete %s: %w", printable(id), durable.Wrap(err))
	}
	return nil
}

func (d *Dir) deleteOne(id string) error {
	info, err := ParseID(id)
	if err != nil {
		return err
	}
	d.maintenance.Lock()
	defer d.maintenance.Unlock()
	if err := d.running(); err != nil {
		return err
	}
	if _, err := os.Lstat(d.filePath(id)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", messages.ErrNotFound, err)
	}
	if d.isOpen(id) {
		return errOpen
	}
	ids, err := d.groupIDs(info.Group)
	if err != nil {
		return err
	}
	another, err := d.anyWhole(ids, id)
	if err != nil {
		return err
	}
	if !another {
		err := d.whole(id)
		if err == nil {
			return fmt.Errorf("it is the last good one of group %d: %w", info.Group, messages.ErrConflict)
		}
		if !errors.Is(err, messages.ErrCorrupt) {
			return err
		}
	}
	if err := d.remove(id); err != nil {
		return err
	}
	return d.options.Disk.SyncDir(d.path)
}

// anyWhole reports whether any of the snapshots but one is whole.
func (d *Dir) anyWhole(ids []string, but string) (bool, error) {
	for _, id := range ids {
		if id == but {
			continue
		}
		err := d.whole(id)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, messages.ErrCorrupt) && !errors.Is(err, messages.ErrNotFound) && !errors.Is(err, messages.ErrIncompatible) {
			return false, err
		}
	}
	return false, nil
}

// whole returns nil if a snapshot is good in every byte. It always reads it:
// bits rot without changing a time of modification.
func (d *Dir) whole(id string) error {
	_, err := d.verify(id)
	return err
}

var errOpen = fmt.Errorf("it is open: %w", messages.ErrConflict)

func (d *Dir) isOpen(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[id] > 0
}

// remove removes the file of a snapshot that nobody has open.
func (d *Dir) remove(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.running(); err != nil {
		return err
	}
	if d.open[id] > 0 {
		return errOpen
	}
	err := d.options.Disk.Remove(d.filePath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", messages.ErrNotFound, err)
	}
	return err
}

// Cleanup implements Store. It returns the ids from old to new.
//
// The newest snapshot that verifies whole always stays; if there is none,
// nothing is removed. Only snapshots older than it whose header, index and
// footer are good are counted and removed: damaged files and those of a newer
// version of Ballast are left to an operator, and Delete. Those that are open
// stay and are counted.
//
// If damaged files are met, the error joins the *messages.CorruptError of each,
// and what is returned has been removed nevertheless. The same holds for any
// other error that comes in the middle.
func (d *Dir) Cleanup(group uint64, r messages.Retention) ([]string, error) {
	removed, err := d.cleanup(group, r)
	if err != nil {
		return removed, fmt.Errorf("snapshot: clean up group %d: %w", group, durable.Wrap(err))
	}
	return removed, nil
}

func (d *Dir) cleanup(group uint64, r messages.Retention) ([]string, error) {
	if r.Keep < 0 || r.MaxAge < 0 || r.MaxBytes < 0 {
		return nil, fmt.Errorf("a negative bound in %+v: %w", r, messages.ErrInvalid)
	}
	d.maintenance.Lock()
	defer d.maintenance.Unlock()
	good, damaged, err := d.List(group)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, c := range damaged {
		errs = append(errs, c)
	}
	// A bad block is found only by reading it, so the one that everything else
	// relies on is read.
	for len(good) > 0 {
		err := d.whole(good[0].ID)
		if err == nil {
			break
		}
		switch {
		case errors.Is(err, messages.ErrCorrupt):
			errs = append(errs, err)
		case !errors.Is(err, messages.ErrNotFound):
			return nil, err
		}
		good = good[1:]
	}
	removed, err := d.removeOld(d.beyond(good, r), r.DryRun)
	return removed, errors.Join(append(errs, err)...)
}

// beyond returns those of a group's good snapshots, newest first, that a bound
// of r says should go. It never returns the first.
func (d *Dir) beyond(good []messages.SnapshotInfo, r messages.Retention) (old []messages.SnapshotInfo) {
	now := d.options.Now()
	var bytes int64
	for i, info := range good {
		bytes += info.FileBytes
		goes := r.Keep > 0 && i >= r.Keep ||
			r.MaxAge > 0 && now.Sub(info.Created) > r.MaxAge ||
			r.MaxBytes > 0 && bytes > r.MaxBytes
		if i > 0 && goes && !d.isOpen(info.ID) {
			old = append(old, info)
		}
	}
	return old
}

// removeOld removes snapshots, the last first, so that a crash in between
// leaves the newer ones.
func (d *Dir) removeOld(old []messages.SnapshotInfo, dryRun bool) (removed []string, err error) {
	for i := len(old) - 1; i >= 0; i-- {
		id := old[i].ID
		if !dryRun {
			err := d.remove(id)
			if errors.Is(err, messages.ErrConflict) || errors.Is(err, messages.ErrNotFound) {
				continue // opened, or gone, since it was listed
			}
			if err != nil {
				return removed, errors.Join(err, d.syncRemoved(removed))
			}
		}
		removed = append(removed, id)
	}
	if dryRun {
		return removed, nil
	}
	return removed, d.syncRemoved(removed)
}

func (d *Dir) syncRemoved(removed []string) error {
	if len(removed) == 0 {
		return nil
	}
	return d.options.Disk.SyncDir(d.path)
}
