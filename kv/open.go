package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

	// writing is held by whatever changes the store, syncing by Sync and by
	// what replaces or closes the file. They are taken in this order, and mu
	// last. A transaction of buntdb is begun under mu or writing, and never
	// within another.
	writing sync.Mutex
	syncing sync.Mutex
	synced  uint64 // sequence; guarded by syncing

	changes *changes // has a lock of its own, which is taken last

	mu        sync.RWMutex // guards everything below and what it points to
	gen       *generation
	groups    map[uint64]*machine
	importing *importer
	poison    error // why nothing can be changed any more
	dead      bool  // buntdb cannot be read either
	closing   bool  // Close has begun
	closed    bool
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
	s := &DB{dir: filepath.Clean(dir), opt: opt, groups: map[uint64]*machine{}, changes: newChanges(opt)}
	err := durable.MkdirAll(opt.Disk, s.dir)
	if err == nil {
		s.lock, err = durable.LockDir(s.dir)
	}
	if err == nil {
		if err = s.recover(); err != nil {
			if s.gen != nil {
				err = errors.Join(err, s.gen.release(false))
			}
			err = errors.Join(err, s.lock.Release())
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
//  2. DATA is read and verified to its end, and judged by MARK. Up to here
//     nothing has been changed.
//  3. Unfinished files are removed, a torn write is cut off, and what may not
//     be on disk is written and synced.
//  4. MARK is set, or made anew if a swap was interrupted or it was unreadable.
//  5. buntdb loads the file.
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
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sv, err := examine(f, info.Size(), visitor{}, markOffset(markPath)...)
	if err != nil {
		return err
	}
	k, err := sv.judge(f, path, markPath)
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
	if sv.end < sv.size && s.opt.OnRepair != nil {
		s.opt.OnRepair(messages.TailRepaired{Path: path, Offset: sv.end, Bytes: sv.size - sv.end, Reason: sv.why()})
	}

	g.header, g.sequence, g.end = sv.header, sv.sequence, sv.end
	s.synced = sv.sequence
	g.durable.Store(sv.sequence)
	if g.db, err = load(path, sv.end); err != nil {
		return err
	}
	if s.groups, err = readGroups(g.db); err != nil {
		return &messages.CorruptError{Path: path, Offset: -1, Index: sv.last.index, Reason: "an index definition", Err: err}
	}
	for id, p := range sv.groups {
		if s.groups[id] == nil {
			s.groups[id] = newGroup(id)
		}
		s.groups[id].index, s.groups[id].term, s.groups[id].revision = p.index, p.term, p.revision
	}
	return nil
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

// readGroups counts the keys of every group and reads its index definitions.
func readGroups(db *buntdb.DB) (groups map[uint64]*machine, err error) {
	groups = map[uint64]*machine{}
	get := func(id uint64) *machine {
		if groups[id] == nil {
			groups[id] = newGroup(id)
		}
		return groups[id]
	}
	err = db.View(func(tx *buntdb.Tx) error {
		// The keys of a group are together, so it is looked up once.
		var g *machine
		walk(tx, string(rune(dataSpace)), string(rune(dataSpace+1)), false, func(key, _ string) bool {
			if g == nil || !strings.HasPrefix(key, g.data) {
				_, id, _, _ := splitKey(key)
				g = get(id)
			}
			g.keys++
			return true
		})
		var bad error
		walk(tx, string(rune(definitionSpace)), string(rune(definitionSpace+1)), false, func(key, value string) bool {
			_, id, name, _ := splitKey(key)
			def, err := decodeDefinition(name, value)
			if err != nil {
				bad = err
				return false
			}
			g := get(id)
			g.indexes = append(g.indexes, newIndex(id, def))
			return true
		})
		return bad
	})
	return groups, err
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
	return nil
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
	s.writing.Lock()
	defer s.writing.Unlock()
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.RLock()
	closed, poison := s.closed, s.poison
	s.mu.RUnlock()
	if closed {
		return nil
	}
	if poison == nil {
		err := s.sync()
		if err == nil {
			err = s.gen.mark.Sync()
		}
		errs = append(errs, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	errs = append(errs, s.gen.release(s.dead), s.lock.Release())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kv: close: %w", err)
	}
	return nil
}
