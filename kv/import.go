package kv

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/tidwall/buntdb"
)

// importer writes a new generation, in which one group has the imported state.
type importer struct {
	store *DB
	pos   position

	mu      sync.Mutex // held before DB.writing
	draft   *draft
	reader  stateReader
	indexes []index
	keys    int
	// asked is how much may be taken before the free space is asked for again.
	asked int64
	over  error // why nothing more can be done
}

// BeginImport starts to replace a group's data by an exported state, which is
// that of the given index and term. The new data is written beside the old, so
// the disk must have room for both.
//
// Errors: ErrConflict (another import is under way), ErrDiskFull, ErrStopped,
// ErrUnavailable (the store is poisoned).
func (s *DB) BeginImport(group, index, term uint64) (Import, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.unwritable()
	if err == nil && s.closing {
		err = messages.ErrStopped
	}
	if err == nil && s.importing != nil {
		err = fmt.Errorf("another import is under way: %w", messages.ErrConflict)
	}
	if err == nil {
		err = s.room(0)
	}
	if err != nil {
		return nil, fmt.Errorf("kv: begin import: %w", err)
	}
	im := &importer{store: s, pos: position{group: group, index: index, term: term}}
	im.draft, err = newDraft(s.opt.Disk, filepath.Join(s.dir, dataName+durable.TempSuffix), s.gen.identity)
	if err != nil {
		return nil, fmt.Errorf("kv: begin import: %w", err)
	}
	im.draft.room = s.room // index entries may be far more than the stream
	data, definitions := spacePrefix(dataSpace, group), spacePrefix(definitionSpace, group)
	im.reader.definition = func(def messages.IndexDefinition) error {
		im.indexes = append(im.indexes, newIndex(group, def))
		return im.draft.set(definitions+def.Name, encodeDefinition(def))
	}
	im.reader.pair = func(key string, version uint64, value string) error {
		checked := false
		for i := range im.indexes {
			x := &im.indexes[i]
			if !x.covers(key) {
				continue
			}
			if !checked && !validJSON(value) {
				return malformed("the value of %q under index %q is not JSON", key, x.Name)
			}
			checked = true
			if e := x.entry(key, value); e != "" {
				if err := im.draft.set(e, ""); err != nil {
					return err
				}
			}
		}
		im.keys++
		return im.draft.set(data+key, joinVersion(version, []byte(value)))
	}
	s.importing = im
	return im, nil
}

// Write takes the next piece of the state stream, of any size. After an error
// the import is given up and the old data stays.
//
// Errors: ErrMalformed, ErrCorrupt (the trailer fails its checksum, or the
// sparse index is not that of the pairs; the offset is one in the stream),
// ErrIncompatible (a later version of the stream), ErrDiskFull, ErrNotFound (the
// import is over).
func (im *importer) Write(p []byte) (n int, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.over != nil {
		return 0, fmt.Errorf("kv: import: %w", im.over)
	}
	if im.asked -= int64(len(p)); im.asked < 0 {
		im.asked = draftBuffer
		err = im.store.room(max(draftBuffer, int64(len(p))))
	}
	if err == nil {
		err = im.reader.Write(p)
	}
	if err != nil {
		return 0, fmt.Errorf("kv: import: %w", errors.Join(err, im.giveUp(err)))
	}
	return len(p), nil
}

// Whole fails if the stream has not come to its end. It changes nothing.
//
// Errors: ErrMalformed, ErrNotFound (the import is over).
func (im *importer) Whole() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	err := im.over
	if err == nil && !im.reader.ended {
		err = malformed("it is not complete")
	}
	if err != nil {
		return fmt.Errorf("kv: import: %w", err)
	}
	return nil
}

// giveUp removes the unfinished file and makes room for another import.
func (im *importer) giveUp(why error) error {
	im.end(why)
	return im.draft.abandon()
}

func (im *importer) end(why error) {
	im.over = why
	s := im.store
	s.mu.Lock()
	if s.importing == im {
		s.importing = nil
	}
	s.mu.Unlock()
}

// Abort gives the import up. After Finish, or another Abort, it does nothing.
func (im *importer) Abort() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.over != nil {
		return nil
	}
	if err := im.giveUp(fmt.Errorf("aborted: %w", messages.ErrNotFound)); err != nil {
		return fmt.Errorf("kv: abort import: %w", err)
	}
	return nil
}

// Finish completes the new generation with the data of all other groups, makes
// it durable and swaps it in. Views of the imported group expire. With an error
// the old data is served; if the error came after the new generation had got
// its name the store is poisoned, and which of the two Open finds is open.
//
// Errors: ErrMalformed (the stream is not complete), ErrDiskFull, ErrNotFound
// (the import is over), ErrStopped, ErrUnavailable (the store is poisoned).
func (im *importer) Finish() (keys int, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.over != nil {
		return 0, fmt.Errorf("kv: finish import: %w", im.over)
	}
	s := im.store
	s.writing.Lock()
	defer s.writing.Unlock()
	s.syncing.Lock()
	defer s.syncing.Unlock()
	next, err := im.complete()
	if err != nil {
		return 0, fmt.Errorf("kv: finish import: %w", errors.Join(err, im.giveUp(err)))
	}

	// From the rename on there is no way back.
	path := filepath.Join(s.dir, dataName)
	if err := s.opt.Disk.Rename(im.draft.path, path); err != nil {
		err = errors.Join(durable.Wrap(err), next.db.Close(), im.giveUp(err))
		return 0, fmt.Errorf("kv: finish import: %w", err)
	}
	im.end(fmt.Errorf("finished: %w", messages.ErrNotFound))
	err = s.opt.Disk.SyncDir(s.dir)
	if err == nil {
		next.mark, err = durable.CreateMark(s.opt.Disk, filepath.Join(s.dir, markName), next.identity,
			durable.Position{Sequence: next.sequence, Offset: next.end})
	}
	if err != nil {
		err = durable.Wrap(err)
		s.mu.Lock()
		s.poison = err
		s.mu.Unlock()
		return 0, fmt.Errorf("kv: finish import: %w", errors.Join(err, next.release(false)))
	}

	next.durable.Store(next.sequence)
	old := s.gen
	g := newGroup(im.pos.group)
	g.index, g.term, g.revision, g.keys, g.indexes = im.pos.index, im.pos.term, im.pos.revision, im.keys, im.indexes
	s.mu.Lock()
	if before := s.groups[g.id]; before != nil {
		for _, v := range before.views {
			v.expire("the group's data was replaced")
		}
	}
	s.groups[g.id] = g
	s.changes.replaced(g.id, g.revision)
	s.gen, s.synced = next, next.sequence
	s.mu.Unlock()
	// Nobody can see the old file any more: an error in closing it is not one
	// of this import, and its data does not matter.
	_ = old.release(false)
	return im.keys, nil
}

// complete finishes the file under its temporary name and loads it.
func (im *importer) complete() (*generation, error) {
	s, w := im.store, im.draft
	if err := s.writable(); err != nil {
		return nil, err
	}
	if !im.reader.ended {
		return nil, malformed("it is not complete")
	}
	im.pos.revision = im.reader.revision
	positions, others := []position{im.pos}, []*machine{}
	s.mu.RLock()
	for id, g := range s.groups {
		if id != im.pos.group {
			positions = append(positions, position{id, g.index, g.term, g.revision})
			others = append(others, g)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(positions, func(a, b position) int { return cmp.Compare(a.group, b.group) })
	slices.SortFunc(others, func(a, b *machine) int { return cmp.Compare(a.id, b.id) })
	for _, g := range others {
		for _, space := range []byte{definitionSpace, indexSpace, dataSpace} {
			if err := s.copy(w, spacePrefix(space, g.id)); err != nil {
				return nil, err
			}
		}
	}
	if err := w.seal(positions); err != nil {
		return nil, err
	}
	if err := w.verify(); err != nil {
		return nil, err
	}
	db, err := load(w.path, w.off)
	if err != nil {
		return nil, err
	}
	return &generation{header: w.header, db: db, file: w.f, sequence: w.sequence, end: w.off}, nil
}

// copy writes the stored keys with a prefix into the draft, in short
// transactions: one that is long would make readers wait behind buntdb's clock.
func (s *DB) copy(w *draft, prefix string) error {
	type stored struct{ key, value string }
	var slice []stored
	for from, upper := prefix, successor(prefix); from != ""; {
		slice = slice[:0]
		err := s.gen.db.View(func(tx *buntdb.Tx) error {
			bytes := 0
			walk(tx, from, upper, false, func(key, value string) bool {
				slice = append(slice, stored{key, value})
				bytes += len(key) + len(value)
				return len(slice) < sliceKeys && bytes < sliceBytes
			})
			return nil
		})
		if err != nil {
			return err
		}
		from = ""
		bytes := int64(0)
		for _, p := range slice {
			if err := w.set(p.key, p.value); err != nil {
				return err
			}
			bytes += int64(len(p.key) + len(p.value))
			from = p.key + "\x00"
		}
		if err := s.room(bytes); err != nil {
			return err
		}
	}
	return nil
}
