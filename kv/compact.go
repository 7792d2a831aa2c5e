package kv

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/tidwall/buntdb"
)

// compaction writes a new generation while changes go on: first what is in
// memory, slice by slice, and then, again and again, the changes that were
// written to DATA since it began, until few are left. Every change says what its
// keys are set to, so it does not matter which of them a slice has seen already.
type compaction struct {
	store *DB
	old   *generation
	draft *draft
	began int64 // size of DATA then
	// parts are still to be copied; of the first one the kinds in spaces, and of
	// the first of these the keys from from on.
	parts  []part
	spaces []byte
	from   string
	// at is how far DATA has been followed, and positions are the groups' there.
	at        place
	positions map[uint64]position
	commands  []byte // of the change that is being followed
	unsynced  int64
	done      bool
}

// part is a group's data, or that of an import.
type part struct {
	group  *machine
	number uint64 // of the import, or zero
}

var spaces = []byte{definitionSpace, indexSpace, dataSpace}

const (
	// followBytes is how much is followed without asking how far there is to go.
	followBytes = 16 << 20
	// lagForSync and lagForSwap are how far the new generation may be behind, in
	// bytes, when syncs have to wait for it, and when changes have to.
	lagForSync = 1 << 20
	lagForSwap = 64 << 10
	// maxRounds bounds how often it tries to get there.
	maxRounds = 16
)

// compact begins a compaction.
func (s *DB) compact() (*compaction, error) {
	c := &compaction{store: s, positions: map[uint64]position{}}
	s.mu.RLock()
	err := s.unwritable()
	room := s.live + s.overhead()
	s.mu.RUnlock()
	if err == nil {
		err = s.room(room)
	}
	if err != nil {
		return nil, err
	}
	// What is in memory must not be behind the place where DATA is followed from,
	// so no change may be half-way.
	s.writing.Lock()
	s.mu.RLock()
	c.old, c.at = s.gen, s.gen.place
	c.began = c.at.end
	for _, g := range s.groups {
		if g.blank() {
			continue
		}
		c.parts = append(c.parts, part{group: g})
		c.positions[g.id] = position{g.id, g.index, g.term, g.revision}
	}
	if im := s.importing; im != nil {
		c.parts = append(c.parts, part{im.group, im.number})
	}
	s.mu.RUnlock()
	s.writing.Unlock()
	slices.SortFunc(c.parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.group.id, b.group.id))
	})
	c.draft, err = newDraft(s.opt.Disk, filepath.Join(s.dir, dataName+durable.TempSuffix), c.old.identity)
	if err != nil {
		return nil, err
	}
	c.draft.room = s.room
	c.begin()
	return c, nil
}

// begin begins with the first part.
func (c *compaction) begin() {
	if len(c.parts) == 0 {
		return
	}
	c.spaces = spaces
	c.from = spacePrefix(c.spaces[0], c.parts[0].group.id)
}

// step does the next piece of work.
func (c *compaction) step() error {
	before := c.draft.off
	for len(c.parts) > 0 {
		if err := c.copy(); err != nil {
			return err
		}
		if c.draft.off-before >= c.store.opt.MaintainBytes {
			return c.checkpoint(before)
		}
	}
	lag, err := c.follow(c.store.opt.MaintainBytes)
	if err != nil {
		return err
	}
	if lag > lagForSync && c.draft.off > before {
		return c.checkpoint(before)
	}
	return c.finish()
}

// checkpoint syncs now and then, as it goes.
func (c *compaction) checkpoint(before int64) error {
	if c.unsynced += c.draft.off - before; c.unsynced < 4*c.store.opt.MaintainBytes {
		return nil
	}
	c.unsynced = 0
	return c.draft.sync()
}

// copy writes the next slice of the first part, in a short transaction: one that
// is long would make readers wait behind buntdb's clock. The values come from
// memory, which was verified when it was filled, and not from the old file.
func (c *compaction) copy() error {
	p := c.parts[0]
	g := p.group
	var slice []stored
	upper := successor(spacePrefix(c.spaces[0], g.id))
	full := false
	err := g.db.View(func(tx *buntdb.Tx) error {
		bytes := 0
		walk(tx, c.from, upper, false, func(key, value string) bool {
			slice = append(slice, stored{key, value})
			bytes += len(key) + len(value)
			full = len(slice) == sliceKeys || bytes >= sliceBytes
			return !full
		})
		return nil
	})
	switch {
	case errors.Is(err, buntdb.ErrDatabaseClosed):
		// The group was replaced meanwhile, or the import given up: what has been
		// followed says so, and nothing of this will count.
		full, c.spaces = false, c.spaces[:1]
	case err != nil:
		return err
	}
	kind := marker{}
	if p.number > 0 {
		kind = marker{staged: true, number: p.number, groups: []position{{group: g.id}}}
	}
	if kind.number != c.draft.kind.number {
		if err := c.draft.border(); err != nil {
			return err
		}
		c.draft.kind = kind
	}
	for _, s := range slice {
		if err := c.draft.set(s.key, s.value); err != nil {
			return err
		}
	}
	if full {
		c.from = slice[len(slice)-1].key + "\x00"
		return nil
	}
	if c.spaces = c.spaces[1:]; len(c.spaces) > 0 {
		c.from = spacePrefix(c.spaces[0], g.id)
		return nil
	}
	if c.parts = c.parts[1:]; len(c.parts) == 0 {
		err := c.draft.border()
		c.draft.kind = marker{}
		return err
	}
	c.begin()
	return nil
}

// follow copies changes that were written since, about limit bytes of them, and
// returns how many bytes are left. They are verified as Open would.
func (c *compaction) follow(limit int64) (lag int64, err error) {
	c.store.mu.RLock()
	end := c.old.end
	c.store.mu.RUnlock()
	if c.at.end == end {
		return 0, nil
	}
	sv := newSurvey(end)
	sv.header, sv.sequence, sv.end, sv.sealed = c.old.header, c.at.sequence, c.at.end, c.at.end
	c.commands = c.commands[:0]
	var bad error
	v := visitor{
		changed: func(cmd command) { c.commands = append(c.commands, cmd.raw...) },
		marked: func(m marker) {
			if bad == nil {
				bad = c.draft.change(c.commands, m)
			}
			c.commands = c.commands[:0]
		},
	}
	if err = sv.read(&window{r: c.old.file, size: end}, sv.end, min(end, sv.end+limit), v); err == nil {
		err = bad
	}
	if err != nil {
		return 0, err
	}
	if sv.bad >= 0 || sv.tail < end { // zeros are what Open takes for the end
		path := filepath.Join(c.store.dir, dataName)
		return 0, &messages.CorruptError{Path: path, Offset: sv.end, Index: sv.last.index, Reason: sv.why()}
	}
	for id, p := range sv.groups {
		c.positions[id] = p
	}
	c.at = place{sv.sequence, sv.end}
	if cap(c.commands) > maxKeptBuffer {
		c.commands = nil
	}
	return end - sv.end, nil
}

// finish swaps the new generation in:
//
//  1. Everything that is copied is synced and read back, and what has been
//     written meanwhile is copied too.
//  2. From here on syncs wait. The new generation gets all that was ever synced,
//     and more, and its seal, and is synced and read back. Changes go on.
//  3. Once it is nearly up to date changes wait, for a write and a rename. What
//     the seal does not cover has not been acknowledged as durable by anybody.
//  4. The directory is synced and MARK made anew. Syncs go on.
//
// With an error before the rename all is as it was. After it the store is
// poisoned.
func (c *compaction) finish() error {
	if err := c.draft.sync(); err != nil {
		return err
	}
	if err := c.catchUp(lagForSync); err != nil {
		return err
	}
	s := c.store
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if err := c.catchUp(0); err != nil {
		return err
	}
	positions := make([]position, 0, len(c.positions))
	for _, p := range c.positions {
		positions = append(positions, p)
	}
	slices.SortFunc(positions, func(a, b position) int { return cmp.Compare(a.group, b.group) })
	if err := c.draft.seal(positions); err != nil {
		return err
	}
	sealed := place{c.draft.sequence, c.draft.off}
	if err := c.catchUp(lagForSwap); err != nil {
		return err
	}
	next, err := c.swap(sealed)
	if err != nil {
		return err
	}
	c.done = true
	// Nobody can see the old file any more: an error in closing it is not one of
	// this compaction.
	_ = c.old.release()
	if err = s.opt.Disk.SyncDir(s.dir); err == nil {
		next.mark, err = durable.CreateMark(s.opt.Disk, filepath.Join(s.dir, markName), next.identity,
			durable.Position{Sequence: sealed.sequence, Offset: sealed.end})
	}
	if err != nil {
		err = durable.Wrap(err)
		s.mu.Lock()
		s.poison = errors.Join(s.poison, err)
		s.mu.Unlock()
		return err
	}
	if s.opt.OnCompact != nil {
		after, _ := s.Size()
		s.opt.OnCompact(messages.DataFileReplaced{Path: filepath.Join(s.dir, dataName), Before: c.began, After: after})
	}
	return nil
}

// catchUp follows until at most lag bytes are left, or it cannot get nearer.
func (c *compaction) catchUp(lag int64) error {
	for range maxRounds {
		left, err := c.follow(followBytes)
		if err != nil || left <= lag {
			return err
		}
	}
	return nil
}

// swap has the store go on with the new generation.
func (c *compaction) swap(sealed place) (*generation, error) {
	s := c.store
	path := filepath.Join(s.dir, dataName)
	// The same open file, under the name that it is going to have: what was opened
	// before anything was written is told of every error in writing back.
	fd, err := syscall.Dup(int(c.draft.f.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	next := &generation{header: c.draft.header, file: os.NewFile(uintptr(fd), path)}
	next.durable.Store(sealed.sequence)
	next.synced.Store(sealed.end)

	s.writing.Lock()
	defer s.writing.Unlock()
	if err = s.writable(); err == nil {
		for left := int64(1); left > 0 && err == nil; {
			left, err = c.follow(followBytes)
		}
	}
	if err == nil {
		err = c.draft.flush()
	}
	if err == nil {
		err = durable.Wrap(s.opt.Disk.Rename(c.draft.path, path))
	}
	if err != nil {
		return nil, errors.Join(err, next.file.Close())
	}
	next.place, next.filled = place{c.draft.sequence, c.draft.off}, c.draft.off
	s.mu.Lock()
	s.gen, s.synced = next, sealed.sequence
	s.mu.Unlock()
	_ = c.draft.f.Close() // next has it
	return next, nil
}
