package kv

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// importer stages a state: in DATA as changes that belong to no group yet, and
// in memory in a tree of its own. One marker then makes it the group's.
type importer struct {
	store  *DB
	number uint64

	mu     sync.Mutex // held before DB.writing
	group  *machine   // what is staged; live is guarded by DB.mu
	reader stateReader
	// buf are commands that are not in DATA yet, and pairs the same for the tree.
	buf     []byte
	pairs   []stored
	entries []entry // of the pair that has come last
	// unsynced is how much was written since the last sync.
	unsynced int64
	over     error // why nothing more can be done
}

type stored struct{ key, value string }

const (
	// stageBytes is how much is staged in one change, if CommitBytes is not less:
	// other writers wait for it.
	stageBytes = 256 << 10
	// stageSync is how much is written between two syncs, so that nobody else's
	// waits for more.
	stageSync = 16 << 20
)

// BeginImport starts to replace a group's data by an exported state, which is
// that of the given index and term. The new data is written behind all other in
// DATA, and costs what it is long, whatever else is there. The disk must have
// room for it, and beyond that for as much as is live in DATA, so that what an
// import leaves, finished or not, can be compacted.
//
// Errors: ErrConflict (another import is under way), ErrDiskFull, ErrStopped,
// ErrUnavailable (the store is poisoned).
func (s *DB) BeginImport(group, index, term uint64) (Import, error) {
	if err := s.reclaimAll(); err != nil {
		return nil, fmt.Errorf("kv: begin import: %w", err)
	}
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
		err = s.room(s.live)
	}
	var tree *buntdb.DB
	if err == nil {
		tree, err = newTree()
	}
	if err != nil {
		return nil, fmt.Errorf("kv: begin import: %w", err)
	}
	s.imports++
	im := &importer{store: s, number: s.imports, group: newGroup(group, tree)}
	im.group.index, im.group.term = index, term
	im.reader.definition = im.definition
	im.reader.pair = im.pair
	s.importing = im
	return im, nil
}

// definition takes an index, whose entries are staged as the pairs come: when they
// are adopted it is whole. What DATA holds of it is staged at the end.
func (im *importer) definition(def messages.IndexDefinition) error {
	g := im.group
	g.numbers++
	x, err := im.store.newIndex(g.id, g.numbers, def)
	if err != nil {
		return fmt.Errorf("%w: %w", messages.ErrIncompatible, err)
	}
	g.indexes = append(g.indexes, x)
	return nil
}

// pair takes a pair and its index entries. A value that cannot be in an index was
// there before it.
func (im *importer) pair(key string, version uint64, text string) error {
	g := im.group
	v := value{text: text}
	for i := range g.indexes {
		x := &g.indexes[i]
		if !x.covers(key) {
			continue
		}
		var err error
		if im.entries, err = x.appendEntries(im.entries[:0], key, &v); err != nil {
			x.skipped++
		}
		for _, e := range im.entries {
			g.entries[x.number]++
			if err := im.stage(e.key, ""); err != nil {
				return err
			}
		}
	}
	g.keys++
	return im.stage(g.data+key, joinVersion(version, text))
}

func (im *importer) stage(key, value string) error {
	if im.buf == nil {
		im.buf = make([]byte, 0, stageBytes+stageBytes/4)
	}
	im.buf = appendSet(im.buf, key, value)
	im.pairs = append(im.pairs, stored{key, value})
	if int64(len(im.buf)) < min(stageBytes, im.store.opt.CommitBytes) {
		return nil
	}
	return im.flush()
}

// flush writes what was staged as one change, and syncs now and then.
func (im *importer) flush() error {
	size := int64(len(im.buf))
	err := im.append(marker{staged: true, number: im.number, groups: []position{{group: im.group.id}}})
	if im.unsynced += size; err == nil && im.unsynced >= stageSync {
		im.unsynced = 0
		err = im.store.Sync()
	}
	return err
}

// append writes a change of the import. The tree has it before another change is
// made: a compaction that begins then must find it there.
func (im *importer) append(m marker) error {
	s := im.store
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	err := s.unwritable()
	need := int64(len(im.buf)) + markerBytes + s.live
	s.mu.RUnlock()
	if err == nil {
		err = s.room(need)
	}
	if err != nil {
		return err
	}
	size := int64(len(im.buf))
	err = s.gen.write(im.buf, m, 0)
	if im.buf = im.buf[:0]; cap(im.buf) > maxKeptBuffer {
		im.buf = nil
	}
	if err == nil && m.staged {
		err = im.enter()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return s.failed(err)
	}
	if !m.adopted {
		im.group.live += size
		s.live += size
	} else {
		s.adopt(im)
	}
	s.gen.advance()
	return nil
}

func (im *importer) enter() error {
	defer func() {
		clear(im.pairs)
		im.pairs = im.pairs[:0]
	}()
	return im.group.db.Update(func(tx *buntdb.Tx) error {
		for _, p := range im.pairs {
			if _, _, err := tx.Set(p.key, p.value, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// adopt makes what is staged the group's state. The caller holds mu.
func (s *DB) adopt(im *importer) {
	g := im.group
	if old := s.groups[g.id]; old != nil {
		for _, v := range old.exports {
			v.expire("the group's data was replaced")
		}
		for len(old.history.views) > 0 {
			old.history.views[0].expire("the group's data was replaced")
		}
		s.live -= old.live
		s.retired = append(s.retired, old)
	}
	s.groups[g.id] = g
	s.settle(g)
	s.changes.replaced(g.id, g.revision)
	s.importing = nil
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
	im.store.mu.RLock()
	live := im.store.live
	im.store.mu.RUnlock()
	err = im.store.room(live + int64(len(p)))
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

// checkUnique finds out whether a unique index of the state is that, as it is in a
// state that a store has exported. It goes slice by slice, so that a compaction
// need not wait long for the tree.
func (im *importer) checkUnique(x *index) (err error) {
	last := ""
	for from := x.entries; x.Unique && from != "" && err == nil; {
		next, n := "", 0
		failed := im.group.db.View(func(tx *buntdb.Tx) error {
			walk(tx, from, successor(x.entries), false, func(stored, _ string) bool {
				if n++; n > sliceKeys {
					next = stored
					return false
				}
				tuple := x.tupleOf(stored)
				if tuple != "" && tuple == last {
					err = malformed("key %q has the same values as another under unique index %q", stored[len(tuple):], x.Name)
				}
				last = tuple
				return err == nil
			})
			return nil
		})
		from, err = next, errors.Join(err, failed)
	}
	return err
}

// giveUp forgets what was staged. In DATA it is garbage now.
func (im *importer) giveUp(why error) error {
	im.over = why
	im.buf, im.pairs = nil, nil
	s := im.store
	s.mu.Lock()
	if s.importing == im {
		s.importing = nil
		s.live -= im.group.live
	}
	s.mu.Unlock()
	return im.group.db.Close()
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

// Finish makes the imported state durable and then the group's, in one step for
// readers and for any crash. Views of the group expire. With an error the old
// data is served, unless it comes from the last sync: then the new data is
// served, the store is poisoned, and which of the two Open finds is open.
//
// Errors: ErrMalformed (the stream is not complete, or a unique index of it is
// none), ErrDiskFull, ErrNotFound (the import is over), ErrStopped, ErrUnavailable (the store is poisoned).
func (im *importer) Finish() (keys int, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.over != nil {
		return 0, fmt.Errorf("kv: finish import: %w", im.over)
	}
	if err := im.complete(); err != nil {
		return 0, fmt.Errorf("kv: finish import: %w", errors.Join(err, im.giveUp(err)))
	}
	im.over = fmt.Errorf("finished: %w", messages.ErrNotFound)
	im.buf, im.pairs = nil, nil
	if err := im.store.Sync(); err != nil {
		return 0, fmt.Errorf("kv: finish import: %w", err)
	}
	return im.group.keys, nil
}

// complete writes what is left, and the marker that counts when all of it is on
// disk.
func (im *importer) complete() error {
	if !im.reader.ended {
		return malformed("it is not complete")
	}
	g := im.group
	for i := range g.indexes {
		x := &g.indexes[i]
		if err := im.stage(g.definitions+x.Name, x.stored()); err != nil {
			return err
		}
	}
	if len(im.buf) > 0 {
		if err := im.flush(); err != nil {
			return err
		}
	}
	for i := range g.indexes {
		if err := im.checkUnique(&g.indexes[i]); err != nil {
			return err
		}
	}
	if err := im.store.Sync(); err != nil {
		return err
	}
	g.revision = im.reader.revision
	return im.append(marker{adopted: true, number: im.number, groups: []position{{g.id, g.index, g.term, g.revision}}})
}
