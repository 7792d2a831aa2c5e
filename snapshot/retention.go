package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Delete implements Store. A snapshot that is whole, or that the disk cannot
// read at the moment, goes only if another of its group is known to be whole, so
// Delete may have to read one. A damaged one can always be deleted.
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
	defer d.maintenance.lock(info.Group)()
	if err := d.running(); err != nil {
		return err
	}
	if _, err := os.Lstat(d.filePath(id)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", messages.ErrNotFound, err)
	}
	if d.isHidden(id) {
		return errHidden
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
		if err := mayGo(d.whole(id), info.Group); err != nil {
			return err
		}
	}
	if err := d.remove(id); err != nil {
		return err
	}
	return d.options.Disk.SyncDir(d.path)
}

// mayGo says whether the only snapshot of a group that may be good can be
// deleted, by what reading it has come to: only if it is known to be damaged.
func mayGo(read error, group uint64) error {
	switch {
	case read == nil:
		return fmt.Errorf("it is the last good one of group %d: %w", group, messages.ErrConflict)
	case unreadable(read):
		return fmt.Errorf("it cannot be read, and no other of group %d is good: %w: %w", group, messages.ErrConflict, read)
	case !errors.Is(read, messages.ErrCorrupt):
		return read
	}
	return nil
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
	return d.leave(id, func() error {
		err := d.options.Disk.Remove(d.filePath(id))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", messages.ErrNotFound, err)
		}
		return err
	})
}

// Cleanup implements Store. It returns the ids from old to new.
//
// The newest snapshot that verifies whole always stays; if there is none,
// nothing is removed. Only snapshots older than it whose header, index and
// footer are good are counted and removed: damaged files and those of a newer
// version of Ballast are left to SetAside, an operator, and Delete. Those that
// are open stay and are counted.
//
// The age of a snapshot is that of the latest creation time that it or one
// before it has, among those that are not in the future: one that was made while
// the clock was behind is not taken for old.
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
	defer d.maintenance.lock(group)()
	plan, err := d.plan(group, r)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range plan {
		if p.Err != nil {
			errs = append(errs, p.Err)
		}
	}
	removed, err := d.removePlanned(plan, r.DryRun)
	return removed, errors.Join(append(errs, err)...)
}

// Plan implements Store.
func (d *Dir) Plan(group uint64, r messages.Retention) ([]messages.PlannedSnapshot, error) {
	plan, err := d.plan(group, r)
	if err != nil {
		return nil, fmt.Errorf("snapshot: plan for group %d: %w", group, err)
	}
	return plan, nil
}

// plan decides about each snapshot of a group, newest first.
func (d *Dir) plan(group uint64, r messages.Retention) (plan []messages.PlannedSnapshot, err error) {
	if r.Keep < 0 || r.MaxAge < 0 || r.MaxBytes < 0 {
		return nil, fmt.Errorf("a negative bound in %+v: %w", r, messages.ErrInvalid)
	}
	ids, err := d.groupIDs(group)
	if err != nil {
		return nil, err
	}
	found := false // the newest good one
	for _, id := range ids {
		info, err := d.examine(id, !found)
		if errors.Is(err, messages.ErrNotFound) {
			continue // removed meanwhile
		}
		p := messages.PlannedSnapshot{ID: id, Index: info.Index, Created: info.Created, FileBytes: info.FileBytes, Err: err}
		switch {
		case err == nil && !found:
			found, p.Fate = true, messages.StaysNewestGood
		case err == nil:
		case unreadable(err):
			p.Fate = messages.StaysUnreadable
		case errors.Is(err, messages.ErrIncompatible):
			p.Fate = messages.StaysIncompatible
		case errors.Is(err, messages.ErrCorrupt):
			p.Fate = messages.StaysDamaged
		default:
			return nil, err
		}
		plan = append(plan, p)
	}
	if found {
		d.bound(plan, r)
	}
	return plan, nil
}

// examine reads header, index and footer of a snapshot, and with whole all of
// it: a bad block is found only by reading it, and bits rot without changing a
// time of modification.
func (d *Dir) examine(id string, whole bool) (messages.SnapshotInfo, error) {
	info, err := ParseID(id)
	if err != nil {
		return info, err
	}
	x, err := d.openFile(id)
	if errors.Is(err, messages.ErrIncompatible) {
		err = d.incompatible(info, err)
	}
	if err != nil {
		return info, err
	}
	info = x.info
	if whole {
		if err := d.verifyBlocks(x); err != nil {
			return info, errors.Join(x.failure(err), x.f.Close())
		}
	}
	return info, x.f.Close()
}

// bound decides about the good snapshots of a plan after the newest.
func (d *Dir) bound(plan []messages.PlannedSnapshot, r messages.Retention) {
	now := d.options.Now()
	age := make([]time.Duration, len(plan))
	var latest time.Time
	for i := len(plan) - 1; i >= 0; i-- {
		if created := plan[i].Created; !created.After(now) && created.After(latest) {
			latest = created
		}
		if !plan[i].Created.After(now) {
			age[i] = now.Sub(latest)
		}
	}
	var count int
	var bytes int64
	for i := range plan {
		p := &plan[i]
		if p.Err != nil {
			continue
		}
		count++
		bytes += p.FileBytes
		if p.Fate == messages.StaysNewestGood {
			continue
		}
		switch {
		case r.Keep > 0 && count > r.Keep:
			p.Fate = messages.GoesByCount
		case r.MaxAge > 0 && age[i] > r.MaxAge:
			p.Fate = messages.GoesByAge
		case r.MaxBytes > 0 && bytes > r.MaxBytes:
			p.Fate = messages.GoesByBytes
		}
		if p.Fate.Goes() && d.isOpen(p.ID) {
			p.Fate = messages.StaysOpen
		}
	}
}

// removePlanned removes what goes, the oldest first, so that a crash in between
// leaves the newer ones.
func (d *Dir) removePlanned(plan []messages.PlannedSnapshot, dryRun bool) (removed []string, err error) {
	for i := len(plan) - 1; i >= 0; i-- {
		if !plan[i].Fate.Goes() {
			continue
		}
		id := plan[i].ID
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
