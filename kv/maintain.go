package kv

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// overhead is about what DATA needs beside the commands of what is live: header,
// seal and the positions of all groups. The caller holds mu.
func (s *DB) overhead() int64 { return 1024 + int64(len(s.groups))*positionSize }

// Size returns the length of DATA in bytes, and how much of it is live: the
// latest command of each key that there is. The rest is garbage.
func (s *DB) Size() (bytes, live int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.gen.end, min(s.live+s.overhead(), s.gen.end)
}

// Due reports whether Maintain has something to do. It costs next to nothing and
// is meant to be asked after every change and every Maintain.
func (s *DB) Due() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || s.closing || s.poison != nil {
		return false
	}
	garbage := s.gen.end - s.live - s.overhead()
	return len(s.retired) > 0 || s.compacting ||
		garbage >= s.opt.MinGarbageBytes && garbage >= s.gen.end/100*int64(s.opt.MaxGarbagePercent)
}

// Maintain does a piece of what need not be on the way of a change: it frees the
// memory of groups that were replaced, and compacts DATA when more of it is
// garbage than it may be. It writes about MaintainBytes and returns how much, so that the
// caller can keep to a rate; a last piece swaps the new file in. It may run
// beside everything. Changes wait for the swap, which is a write of 64 KiB or so
// and a rename; Sync waits for a few syncs then; reads do not wait.
//
// After an error that leaves Poisoned false the old file goes on and a later call
// begins again: ErrDiskFull (there must be room for what is live), ErrCorrupt (the
// end of DATA, which was written during the compaction, cannot be read back; the
// state in memory is good, and the next compaction begins with that),
// ErrUnavailable and ErrStopped as for Write.
func (s *DB) Maintain() (wrote int64, err error) {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	if s.compaction == nil {
		if more, err := s.reclaim(); more || err != nil || !s.Due() {
			return 0, wrapMaintain(err)
		}
	}
	wrote, _, err = s.compactStep()
	return wrote, wrapMaintain(err)
}

func wrapMaintain(err error) error {
	if err != nil {
		return fmt.Errorf("kv: maintain: %w", err)
	}
	return nil
}

// Compact compacts DATA, however little of it is garbage, and returns its length
// in bytes before and after. A compaction that is under way is brought to its
// end. See Maintain, also for the errors.
func (s *DB) Compact() (before, after int64, err error) {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	for done := false; !done && err == nil; {
		if c := s.compaction; c != nil {
			before = c.began
		}
		_, done, err = s.compactStep()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("kv: compact: %w", err)
	}
	after, _ = s.Size()
	return before, after, nil
}

// compactStep begins a compaction or does the next step of it. The caller holds
// maintaining.
func (s *DB) compactStep() (wrote int64, done bool, err error) {
	s.mu.RLock()
	stopping := s.closing
	err = s.unwritable()
	s.mu.RUnlock()
	if stopping {
		err = messages.ErrStopped
	}
	c := s.compaction
	if err == nil && c == nil {
		if c, err = s.compact(); err != nil {
			return 0, false, err
		}
		s.setCompaction(c)
		return c.draft.off, false, nil
	}
	if err == nil {
		wrote = -c.draft.off
		err = c.step()
		wrote += c.draft.off
	}
	if c == nil || err == nil && !c.done {
		return wrote, false, err
	}
	s.setCompaction(nil)
	if !c.done {
		err = errors.Join(err, c.draft.abandon())
	}
	return wrote, c.done, err
}

func (s *DB) setCompaction(c *compaction) {
	s.compaction = c
	s.mu.Lock()
	s.compacting = c != nil
	s.mu.Unlock()
}

// reclaim frees memory of groups that were replaced: a whole tree, or the next
// few keys in the one that is shared.
func (s *DB) reclaim() (more bool, err error) {
	s.mu.Lock()
	if s.closed || len(s.retired) == 0 {
		s.mu.Unlock()
		return false, nil
	}
	g, shared := s.retired[0], s.tree
	if g.db != shared {
		s.retired = s.retired[1:]
		more = len(s.retired) > 0
		s.mu.Unlock()
		return more, g.db.Close()
	}
	s.mu.Unlock()
	more, err = g.clear(shared)
	if errors.Is(err, buntdb.ErrDatabaseClosed) {
		return false, messages.ErrStopped
	}
	if more || err != nil {
		return more, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.retired) > 0 && s.retired[0] == g {
		s.retired = s.retired[1:]
	}
	return len(s.retired) > 0, nil
}

func (s *DB) reclaimAll() error {
	for {
		if more, err := s.reclaim(); !more || err != nil {
			return err
		}
	}
}
