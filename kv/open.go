package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/tidwall/buntdb"
)

const (
	dataName = "DATA"
	markName = "MARK"
)

// DB is a Store on disk. All of its methods may be called from any goroutine;
// changes wait for each other, and Sync waits for none of them.
type DB struct {
	dir  string
	opt  Options
	lock *durable.Lock
	// readOnly: it was opened by OpenReadOnly.
	readOnly bool

	// maintaining is held by Maintain and Compact, syncing by Sync and by what
	// replaces or closes the file, and writing by whatever changes the store.
	// They are taken in this order, and mu last. A transaction of buntdb is never
	// begun within another.
	maintaining sync.Mutex
	compaction  *compaction // guarded by maintaining
	syncing     sync.Mutex
	synced      uint64 // sequence; guarded by syncing
	writing     sync.Mutex
	scratch     *scratch // of a batch to come; guarded by writing
	turn        uint64   // the group that MaintainIndexes has served last; guarded by writing

	changes *changes // has a lock of its own, which is taken last

	mu        sync.RWMutex // guards everything below and what it points to
	gen       *generation
	tree      *buntdb.DB // of all groups that have none to themselves
	groups    map[uint64]*machine
	importing *importer
	imports   uint64 // the number of the latest import
	// compacting: there is a compaction, for those who do not hold maintaining.
	compacting bool
	// retired are groups that were replaced: Maintain frees their memory.
	retired []*machine
	// due are groups with work for MaintainIndexes.
	due map[uint64]struct{}
	// live is what DATA would hold of commands if each key had one.
	live    int64
	poison  error // why nothing can be changed any more
	closing bool  // Close has begun
	closed  bool
}

var _ Store = (*DB)(nil)

// Open opens the store in dir, which is created if it is missing, and brings
// back every change that was synced, and of those after it as many as are
// whole. A torn write at the end is removed and reported to Options.OnRepair.
//
// Errors: *messages.CorruptError (nothing was changed; remove the directory and
// restore from a snapshot and the log), ErrLocked, ErrIncompatible, ErrInvalid,
// ErrDiskFull.
func Open(dir string, opt Options) (*DB, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	s := &DB{dir: filepath.Clean(dir), opt: opt, due: map[uint64]struct{}{}, changes: newChanges(opt)}
	err := durable.MkdirAll(opt.Disk, s.dir)
	if err == nil {
		s.lock, err = durable.LockDir(s.dir)
	}
	if err == nil {
		if err = s.recover(); err != nil {
			err = errors.Join(err, s.release())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kv: open %s: %w", dir, durable.Wrap(err))
	}
	return s, nil
}

// recover brings the store to its last good marker:
//
//  1. With neither DATA nor MARK the store is new, and begins with a generation
//     that holds nothing.
//  2. DATA is read and verified to its end, what is good goes into the tree,
//     and MARK is the judge of the rest. Up to here nothing has been changed.
//  3. Unfinished files are removed, a torn write and the zeros
//     ahead of it are cut off, and what may not
//     be on disk is written and synced.
//  4. MARK is set, or made anew if a swap was interrupted or it was unreadable.
func (s *DB) recover() error {
	path, markPath := filepath.Join(s.dir, dataName), filepath.Join(s.dir, markName)
	hasData, err := exists(path)
	if err != nil {
		return err
	}
	if !hasData {
		hasMark, err := exists(markPath)
		if err != nil {
			return err
		}
		if hasMark {
			return &messages.CorruptError{Path: path, Offset: -1, Reason: "the file is missing"}
		}
		if err := s.create(path); err != nil {
			return err
		}
	}

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	g := &generation{file: f}
	s.gen = g
	sv, k, err := s.survey(path, markPath)
	if err != nil {
		return err
	}

	if _, err := durable.RemoveTemps(s.opt.Disk, s.dir); err != nil {
		return err
	}
	if err := sv.repair(s.opt.Disk, f, k); err != nil {
		return err
	}
	pos := durable.Position{Sequence: sv.sequence, Offset: sv.end}
	if k.replace {
		g.mark, err = durable.CreateMark(s.opt.Disk, markPath, sv.identity, pos)
	} else if g.mark, _, _, err = durable.OpenMark(s.opt.Disk, markPath, sv.identity); err == nil {
		err = g.mark.Set(sv.identity, pos)
	}
	if err != nil {
		return err
	}
	if sv.end < sv.tail && s.opt.OnRepair != nil {
		s.opt.OnRepair(messages.TailRepaired{Path: path, Offset: sv.end, Bytes: sv.tail - sv.end, Reason: sv.why()})
	}

	return s.serve(path, sv)
}

// survey reads and verifies the data file, fills the trees, and asks MARK.
func (s *DB) survey(path, markPath string) (sv survey, k knowledge, err error) {
	f := s.gen.file
	info, err := f.Stat()
	if err != nil {
		return sv, k, err
	}
	if s.tree, err = newTree(); err != nil {
		return sv, k, err
	}
	l := startLoader(s.tree)
	sv, err = examine(f, info.Size(), visitor{l.changed, l.marked}, markOffset(markPath)...)
	loaded := l.finish()
	s.groups, s.imports = l.groups, l.newest
	if err == nil && errors.Is(loaded, messages.ErrMalformed) {
		err = &messages.CorruptError{Path: path, Offset: -1, Index: sv.last.index, Reason: "an index entry", Err: loaded}
	} else {
		err = errors.Join(err, loaded)
	}
	if err != nil {
		return sv, k, err
	}
	k, err = sv.judge(f, path, markPath)
	return sv, k, err
}

// serve goes on from what survey has found.
func (s *DB) serve(path string, sv survey) error {
	g := s.gen
	g.header, g.place, g.filled = sv.header, place{sv.sequence, sv.end}, sv.end
	s.synced = sv.sequence
	g.durable.Store(sv.sequence)
	g.synced.Store(sv.end)
	for id, p := range sv.groups {
		m := s.groups[id]
		if m == nil {
			m = newGroup(id, s.tree)
			s.groups[id] = m
		}
		m.index, m.term, m.revision = p.index, p.term, p.revision
	}
	if err := s.readIndexes(); errors.Is(err, messages.ErrIncompatible) {
		return err
	} else if err != nil {
		return &messages.CorruptError{Path: path, Offset: -1, Index: sv.last.index, Reason: "an index definition", Err: err}
	}
	for _, g := range s.groups {
		s.live += g.live
		s.settle(g)
	}
	return nil
}

// release gives back what the store holds of the system.
func (s *DB) release() error {
	var errs []error
	groups := slices.AppendSeq(s.retired, maps.Values(s.groups))
	for _, g := range groups {
		if g.db != s.tree {
			errs = append(errs, g.db.Close())
		}
	}
	if s.tree != nil {
		errs = append(errs, s.tree.Close())
	}
	if s.gen != nil {
		errs = append(errs, s.gen.release())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Release())
	}
	return errors.Join(errs...)
}

// create makes the first generation, which holds nothing. MARK comes after it:
// recover makes that as if it had been lost in a crash.
func (s *DB) create(path string) error {
	if _, err := durable.RemoveTemps(s.opt.Disk, s.dir); err != nil {
		return err
	}
	w, err := newDraft(s.opt.Disk, path+durable.TempSuffix, identity{})
	if err != nil {
		return err
	}
	if err = w.seal(nil); err == nil {
		err = s.opt.Disk.Rename(w.path, path)
	}
	if err != nil {
		return errors.Join(err, w.abandon())
	}
	return errors.Join(w.f.Close(), s.opt.Disk.SyncDir(s.dir))
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// readIndexes reads the index definitions of every group.
func (s *DB) readIndexes() error {
	for _, g := range s.groups {
		var bad error
		err := g.db.View(func(tx *buntdb.Tx) error {
			walk(tx, g.definitions, successor(g.definitions), false, func(key, value string) bool {
				var x index
				if x, bad = s.loadIndex(g.id, key[len(g.definitions):], value); bad == nil {
					g.indexes = append(g.indexes, x)
					g.numbers = max(g.numbers, x.number)
				}
				return bad == nil
			})
			return nil
		})
		if err = errors.Join(err, bad); err != nil {
			return err
		}
	}
	return nil
}

// Sync makes every change that was made before it began durable. Changes and
// reads go on meanwhile. After an error the store is poisoned: changes fail with
// ErrUnavailable, reads go on, and only Close and a new Open help.
func (s *DB) Sync() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if err := s.sync(); err != nil {
		return fmt.Errorf("kv: sync: %w", err)
	}
	return nil
}

func (s *DB) sync() error {
	s.mu.RLock()
	gen := s.gen
	pos := durable.Position{Sequence: gen.sequence, Offset: gen.end}
	err := s.unwritable()
	s.mu.RUnlock()
	if err != nil || pos.Sequence == s.synced {
		return err
	}
	if err = s.opt.Disk.Sync(gen.file); err == nil {
		err = gen.mark.Set(gen.identity, pos)
	}
	if err != nil {
		err = durable.Wrap(err)
		s.mu.Lock()
		s.poison = errors.Join(s.poison, err)
		s.mu.Unlock()
		return err
	}
	s.synced = pos.Sequence
	gen.durable.Store(pos.Sequence)
	gen.synced.Store(pos.Offset)
	return nil
}

// failed notes that a change has failed. It poisons the store unless nothing is
// left of the change. The caller holds mu.
func (s *DB) failed(err error) error {
	if !errors.As(err, new(noRoom)) {
		s.poison = err
	}
	return err
}

// Poisoned reports whether an earlier change or Sync failed in a way that only
// reopening mends.
func (s *DB) Poisoned() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.poison != nil
}

// Close syncs the store, unless it is poisoned, and gives the directory back.
// Closing it again does nothing.
func (s *DB) Close() error {
	s.mu.Lock()
	s.closing = true // or an import could begin in between
	im := s.importing
	s.mu.Unlock()
	var errs []error
	if im != nil {
		errs = append(errs, im.Abort())
	}
	s.maintaining.Lock() // what is under way ends, because of closing
	defer s.maintaining.Unlock()
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	closed, poison := s.closed, s.poison
	s.mu.RUnlock()
	if closed {
		return nil
	}
	if c := s.compaction; c != nil {
		s.setCompaction(nil)
		errs = append(errs, c.draft.abandon())
	}
	if poison == nil {
		err := s.sync()
		if err == nil {
			err = errors.Join(s.gen.mark.Sync(), s.gen.cutZeros())
		}
		errs = append(errs, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if err := errors.Join(append(errs, s.release())...); err != nil {
		return fmt.Errorf("kv: close: %w", err)
	}
	return nil
}
