package kv

import (
	"fmt"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// Apply carries out the operations in entries, which must be consecutive and
// begin at or before the applied index plus one. Entries that were applied
// before are stepped over with ErrResultLost. An entry of another type than
// EntryNormal, or without data, only advances the applied index; so does one
// whose data is not an operation, with ErrMalformed in its result.
//
// Entries are committed together, in steps of about Options.CommitBytes. If an
// error comes between two steps, the results are those of the entries that were
// applied, and Applied tells the same.
//
// Errors: ErrOutOfOrder, ErrDiskFull, ErrStopped, ErrUnavailable (the store is
// poisoned).
func (s *DB) Apply(group uint64, entries []messages.Entry) ([]messages.Result, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.writable(); err != nil {
		return nil, fmt.Errorf("kv: apply: %w", err)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	g := s.group(group)
	var bytes int64
	for i, e := range entries {
		switch {
		case e.Index == 0:
			return nil, fmt.Errorf("kv: apply: an entry has index 0: %w", messages.ErrOutOfOrder)
		case i > 0 && e.Index != entries[i-1].Index+1:
			return nil, fmt.Errorf("kv: apply: index %d follows index %d: %w", e.Index, entries[i-1].Index, messages.ErrOutOfOrder)
		}
		bytes += int64(len(e.Data))
	}
	if first := entries[0].Index; first-1 > g.index {
		return nil, fmt.Errorf("kv: apply: index %d, but the applied index is %d: %w", first, g.index, messages.ErrOutOfOrder)
	}
	if bytes >= s.opt.CommitBytes { // otherwise the one commit asks
		if err := s.room(bytes); err != nil {
			return nil, fmt.Errorf("kv: apply: %w", err)
		}
	}
	s.changes.trim(group)
	results := make([]messages.Result, len(entries))
	done := 0
	for ; done < len(entries) && entries[done].Index <= g.index; done++ {
		results[done].Err = fmt.Errorf("kv: apply index %d: %w", entries[done].Index, messages.ErrResultLost)
	}
	for done < len(entries) {
		next := done
		op, _ := NeedsPreparation(entries[next])
		if err := s.prepareAll(g, op); err != nil {
			return results[:done], fmt.Errorf("kv: apply index %d: %w", entries[done].Index, err)
		}
		b := s.newBatch(g)
		err := g.db.View(func(tx *buntdb.Tx) error {
			b.src = now{tx}
			for next < len(entries) {
				if _, first := NeedsPreparation(entries[next]); next > done && (first || b.bytes >= s.opt.CommitBytes) {
					break
				}
				results[next] = b.apply(entries[next])
				next++
			}
			return nil
		})
		if err == nil {
			last := entries[next-1]
			err = s.commit(b, last.Index, last.Term)
		}
		b.release()
		if err != nil {
			return results[:done], fmt.Errorf("kv: apply index %d: %w", entries[done].Index, err)
		}
		done = next
	}
	return results, nil
}

// apply carries out an entry. Its revision is its index, unless direct writes have
// gone beyond that; also if it changes nothing, so that it does not depend on how
// entries come together.
func (b *batch) apply(e messages.Entry) messages.Result {
	b.revision = max(e.Index, b.revision+1)
	if e.Type != messages.EntryNormal || len(e.Data) == 0 {
		return messages.Result{}
	}
	op, err := messages.DecodeOperation(e.Data)
	if err != nil {
		return messages.Result{Err: fmt.Errorf("kv: %w", err)}
	}
	return b.run(op)
}

// Applied returns the index and term up to which a group was applied.
func (s *DB) Applied(group uint64) (index, term uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g := s.groups[group]; g != nil {
		return g.index, g.term
	}
	return 0, 0
}

// Revision returns the version of a group's latest change.
func (s *DB) Revision(group uint64) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g := s.groups[group]; g != nil {
		return g.revision
	}
	return 0
}
