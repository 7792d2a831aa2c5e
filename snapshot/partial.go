package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

const (
	saveSuffix   = fileSuffix + ".part"
	importSuffix = fileSuffix + ".import"
)

// partial is an unfinished file that can be gone on with, as its name describes
// it: <id>-<level>.snap.part of a save, <id>.snap.import of an import. The level
// is there because blocks of another would make another file; all else that
// matters is in the header.
type partial struct {
	name     string
	info     messages.SnapshotInfo
	imported bool
	level    int
}

func saveName(id string, level int) string { return id + "-" + strconv.Itoa(level) + saveSuffix }
func importName(id string) string          { return id + importSuffix }

// parsePartial is the inverse of saveName and importName.
func parsePartial(name string) (p partial, ok bool) {
	if len(name) < IDLength {
		return p, false
	}
	info, err := ParseID(name[:IDLength])
	if err != nil {
		return p, false
	}
	p = partial{name: name, info: info}
	rest := name[IDLength:]
	if rest == importSuffix {
		p.imported = true
		return p, true
	}
	level, ok := strings.CutSuffix(rest, saveSuffix)
	if !ok {
		return p, false
	}
	p.level, err = strconv.Atoi(strings.TrimPrefix(level, "-"))
	return p, err == nil && saveName(info.ID, p.level) == name
}

// partials lists the unfinished files that can be gone on with.
func (d *Dir) partials() (found []partial, err error) {
	if err := d.running(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if p, ok := parsePartial(e.Name()); ok && e.Type().IsRegular() {
			found = append(found, p)
		}
	}
	return found, nil
}

// owner is who writes an unfinished file.
type owner interface {
	// stop ends it; the file is kept if it can be of use.
	stop(reason error) error
}

var errTakenOver = fmt.Errorf("it was taken over: %w", messages.ErrExpired)

func (p partial) slot() slot { return slot{p.info.Group, p.imported} }

// claim ends whoever writes the unfinished file of a slot, lets choose find the
// one to go on with among those that are there, and removes the others. The
// caller holds the slot's claim until it owns what was chosen.
func (d *Dir) claim(s slot, choose func(partial) (bool, error)) (chosen *partial, err error) {
	d.mu.Lock()
	var owners []owner
	for name, o := range d.owners {
		if p, _ := parsePartial(name); p.slot() == s {
			owners = append(owners, o)
		}
	}
	d.mu.Unlock()
	for _, o := range owners {
		// What goes wrong there, its own caller is told.
		_ = o.stop(errTakenOver)
	}
	all, err := d.partials()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.slot() != s {
			continue
		}
		ok := false
		if chosen == nil {
			if ok, err = choose(p); err != nil {
				return nil, err
			}
		}
		if ok {
			chosen = &p
			continue
		}
		if _, err := d.removePartial(p.name); err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// own makes o the writer of an unfinished file.
func (d *Dir) own(name string, o owner) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.running(); err != nil {
		return err
	}
	d.owners[name] = o
	delete(d.kept, name)
	return nil
}

// disown is called when o has ended. If the file was kept, o alone can still
// take it away.
func (d *Dir) disown(name string, o owner, kept bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owners[name] != o {
		return
	}
	delete(d.owners, name)
	if kept {
		d.kept[name] = o
	}
}

// abandon removes what o has left, if nobody has gone on with it.
func (d *Dir) abandon(name string, o owner) error {
	p, _ := parsePartial(name)
	defer d.claims.lock(p.slot())()
	d.mu.Lock()
	mine := d.kept[name] == o
	d.mu.Unlock()
	if !mine {
		return nil
	}
	_, err := d.removePartial(name)
	return err
}

// removePartial removes an unfinished file that nobody writes, and reports
// whether there was one. The caller holds the claim of its slot, so nobody
// begins to write it meanwhile.
func (d *Dir) removePartial(name string) (bool, error) {
	d.mu.Lock()
	if d.owners[name] != nil {
		d.mu.Unlock()
		return false, fmt.Errorf("it is being written: %w", messages.ErrConflict)
	}
	done, err := d.change()
	d.mu.Unlock()
	if err != nil {
		return false, err
	}
	defer done()
	err = d.options.Disk.Remove(filepath.Join(d.path, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kept, name)
	return err == nil, nil
}

// expire removes unfinished files that have not been written to for longer than
// Options.KeepPartial. One that was written to in the future, by a clock that
// has been set back, is new. An error is not reported: one that cannot be
// removed is met again, and is no reason to do without new snapshots.
func (d *Dir) expire() {
	_ = d.removePartials(func(p partial) (bool, error) {
		st, err := os.Lstat(filepath.Join(d.path, p.name))
		if err != nil {
			return false, err
		}
		return d.options.Now().Sub(st.ModTime()) > d.options.KeepPartial, nil
	})
}

// finished removes what has become useless because there is a snapshot of the
// group at the index: unfinished ones up to there. An error is not reported:
// the snapshot is durable, and these files are met again by the next snapshot
// and by age.
func (d *Dir) finished(group, index uint64) {
	_ = d.removePartials(func(p partial) (bool, error) {
		return p.info.Group == group && p.info.Index <= index, nil
	})
}

// removePartials removes the unfinished files that nobody writes and that match,
// but those of a slot about which somebody is deciding right now: it is done in
// passing, by whoever has something else to do.
func (d *Dir) removePartials(match func(partial) (bool, error)) error {
	all, err := d.partials()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range all {
		err := d.removeMatching(p, match)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, messages.ErrConflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (d *Dir) removeMatching(p partial, match func(partial) (bool, error)) error {
	unlock, held := d.claims.try(p.slot())
	if held != nil {
		return nil
	}
	defer unlock()
	if d.owned(p.name) {
		return nil
	}
	ok, err := match(p)
	if ok && err == nil {
		_, err = d.removePartial(p.name)
	}
	return err
}

func (d *Dir) owned(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owners[name] != nil
}

// Unfinished implements Store.
func (d *Dir) Unfinished() ([]messages.UnfinishedSnapshot, error) {
	all, err := d.partials()
	if err != nil {
		return nil, fmt.Errorf("snapshot: list unfinished: %w", err)
	}
	var list []messages.UnfinishedSnapshot
	for _, p := range all {
		st, err := os.Lstat(filepath.Join(d.path, p.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // finished or given up meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("snapshot: list unfinished: %w", err)
		}
		list = append(list, messages.UnfinishedSnapshot{
			Name:      p.name,
			ID:        p.info.ID,
			Group:     p.info.Group,
			Index:     p.info.Index,
			Term:      p.info.Term,
			Import:    p.imported,
			FileBytes: st.Size(),
			Changed:   st.ModTime().UTC().Round(time.Millisecond),
			Active:    d.owned(p.name),
		})
	}
	return list, nil
}

// Discard implements Store.
//
// Errors: messages.ErrInvalid (not such a name), messages.ErrNotFound,
// messages.ErrConflict, messages.ErrStopped.
func (d *Dir) Discard(name string) error {
	if err := d.discardOne(name); err != nil {
		return fmt.Errorf("snapshot: discard %.120q: %w", name, durable.Wrap(err))
	}
	return nil
}

func (d *Dir) discardOne(name string) error {
	p, unfinished := parsePartial(name)
	_, _, aside := parseAside(name)
	if !unfinished && !aside {
		return fmt.Errorf("not the name of an unfinished file or of one set aside: %w", messages.ErrInvalid)
	}
	found, err := func() (bool, error) {
		if unfinished {
			defer d.claims.lock(p.slot())()
		}
		return d.removePartial(name)
	}()
	if err != nil {
		return err
	}
	if !found {
		return messages.ErrNotFound
	}
	d.mu.Lock()
	delete(d.aside, name)
	d.mu.Unlock()
	return d.options.Disk.SyncDir(d.path)
}
