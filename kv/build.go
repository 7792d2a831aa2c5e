package kv

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// indexSliceBytes bounds what one slice of building an index reads and writes,
// and what one of removing entries removes.
const indexSliceBytes = 128 << 10

// prepared is a unique index that is built before the operation that creates it
// can be carried out. It is no index yet: if anything else happens to the group,
// or the store is closed, what it has become is garbage.
type prepared struct {
	index
	err error // duplicates
}

// fill adds pairs to an index that is being built, in the order of their keys:
// those of a slice, or all. After a duplicate it has done nothing.
func (b *batch) fill(x *index, all bool) (err error) {
	n, bytes, slice := 0, 0, int(b.store.opt.IndexSliceKeys)
	next, skipped := "", x.skipped
	var sets, entries []entry
	from := b.group.data + max(x.Prefix, x.next)
	b.walk(from, successor(b.group.data+x.Prefix), false, func(stored, set string) bool {
		_, text := valueOf(set)
		key := stored[len(b.group.data):]
		if !all && (n >= slice || bytes >= indexSliceBytes) {
			next = key
			return false
		}
		var bad error
		if entries, bad = x.appendEntries(entries[:0], key, &value{text: text}); bad != nil {
			skipped++
		}
		for _, e := range entries {
			if err = b.vacant(x, e, key); err != nil {
				return false
			}
			b.claim(e, key)
			sets = append(sets, e)
			bytes += len(e.key)
		}
		n++
		bytes += len(text)
		return true
	})
	if err != nil {
		return err // what was claimed is of a number that nobody will have
	}
	for _, e := range sets {
		b.set(e.key, "", "", false)
	}
	x.skipped, x.next, x.examined = skipped, next, x.examined+uint64(n)
	if x.building = next != ""; !x.building {
		x.examined = 0
	}
	return nil
}

// newNumber returns one that no index and no entry of the group has.
func (b *batch) newNumber() uint64 {
	b.numbers++
	return b.numbers
}

// createIndex adds an index over the data as the batch sees it. The first slice
// is built at once and the rest by MaintainIndexes, unless it must be unique:
// then there is an index only when it is whole.
func (b *batch) createIndex(def messages.IndexDefinition) messages.Result {
	at, found := findIndex(b.indexes, def.Name)
	if found {
		if b.indexes[at].Equal(def) {
			return messages.Result{Existed: true}
		}
		return messages.Result{Existed: true, Err: fmt.Errorf("kv: create index %q: the name has another definition: %w", def.Name, messages.ErrConflict)}
	}
	var x index
	var err error
	if p := b.group.prepared; p.ready(def) && len(b.changes) == 0 {
		x, err = p.index, p.err
	} else {
		if x, err = b.store.newIndex(b.group.id, b.newNumber(), def); err != nil {
			return messages.Result{Err: fmt.Errorf("kv: create index: %w: %w", messages.ErrInvalid, err)}
		}
		err = b.fill(&x, def.Unique)
	}
	if err != nil {
		return messages.Result{Err: fmt.Errorf("kv: create index: %w", err)}
	}
	b.describe(&x)
	b.indexes = slices.Insert(slices.Clone(b.indexes), at, x)
	return messages.Result{Version: b.revision}
}

// dropIndex removes an index. Its entries go in slices, the first one at once.
func (b *batch) dropIndex(name string) messages.Result {
	at, found := findIndex(b.indexes, name)
	if !found {
		return messages.Result{Err: fmt.Errorf("kv: drop index %q: %w", name, messages.ErrNotFound)}
	}
	b.clear(b.indexes[at].entries)
	stored := b.group.definitions + name
	old, had := b.lookup(stored)
	b.remove(stored, old, had)
	b.indexes = slices.Delete(slices.Clone(b.indexes), at, at+1)
	return messages.Result{Existed: true, Version: b.revision}
}

// clear removes a slice of the entries that begin with a prefix.
func (b *batch) clear(entries string) {
	n, bytes, slice := 0, 0, 4*int(b.store.opt.IndexSliceKeys)
	b.walk(entries, successor(entries), false, func(key, _ string) bool {
		b.remove(key, "", true)
		n++
		bytes += len(key)
		return n < slice && bytes < indexSliceBytes
	})
}

func (p *prepared) ready(def messages.IndexDefinition) bool {
	return p != nil && (p.err != nil || !p.building) && p.Equal(def)
}

// NeedsPreparation returns the operation of an entry that is one for Prepare.
func NeedsPreparation(e messages.Entry) (op messages.Operation, needs bool) {
	if e.Type == messages.EntryNormal && len(e.Data) > 0 && messages.OperationKind(e.Data[0]) == messages.OpCreateIndex {
		op, _ = messages.DecodeOperation(e.Data)
	}
	return op, Prepares(op)
}

// Prepares reports whether an operation is one for Prepare.
func Prepares(op messages.Operation) bool {
	return op.Kind == messages.OpCreateIndex && op.Index.Unique && op.Validate() == nil
}

// Prepare does a slice of what has to be done before an operation can be
// carried out in a short time, and reports whether there is nothing more to do.
// That is so for all operations but those that create a unique index, which is
// built before. Apply and Write do by themselves what is left; who calls Prepare
// until it is done can serve others meanwhile, but must not change the group, or
// it begins anew. So it does when the store is opened.
//
// Errors: those of Write.
func (s *DB) Prepare(group uint64, op messages.Operation) (ready bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if ready, err = s.prepare(s.group(group), op); err != nil {
		return false, fmt.Errorf("kv: prepare: %w", err)
	}
	return ready, nil
}

func (s *DB) prepare(g *machine, op messages.Operation) (ready bool, err error) {
	if !Prepares(op) {
		return true, nil
	}
	if err := s.writable(); err != nil {
		return false, err
	}
	def := op.Index
	if _, found := findIndex(g.indexes, def.Name); found || g.prepared.ready(def) {
		return true, nil
	}
	b := s.newBatch(g)
	defer b.release()
	p := &prepared{}
	if g.prepared != nil && g.prepared.Equal(def) {
		*p = *g.prepared
	} else {
		if p.index, err = s.newIndex(g.id, b.newNumber(), def); err != nil {
			return true, nil // the operation will be refused
		}
	}
	err = g.db.View(func(tx *buntdb.Tx) error {
		b.src = now{tx}
		p.err = b.fill(&p.index, false)
		return nil
	})
	if err != nil {
		return false, err
	}
	b.prepared = p
	if err := s.commit(b, g.index, g.term); err != nil {
		return false, err
	}
	return p.ready(def), nil
}

// prepareAll prepares an operation whose turn has come.
func (s *DB) prepareAll(g *machine, op messages.Operation) error {
	for {
		if ready, err := s.prepare(g, op); ready || err != nil {
			return err
		}
	}
}

// IndexesDue reports whether there is something to do for MaintainIndexes.
func (s *DB) IndexesDue() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.due) > 0 && s.unwritable() == nil
}

// MaintainIndexes goes on building an index, or removing the entries of one that
// is gone, for one slice: of about 128 KiB, so that writers hardly wait. Groups
// take turns. What it has done survives a crash as any change does, and is
// carried on after it. Call it while IndexesDue.
//
// Errors: those of Write.
func (s *DB) MaintainIndexes() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.maintainIndexes(); err != nil {
		return fmt.Errorf("kv: maintain indexes: %w", err)
	}
	return nil
}

func (s *DB) maintainIndexes() error {
	if err := s.writable(); err != nil {
		return err
	}
	s.mu.RLock()
	ids := slices.Sorted(maps.Keys(s.due))
	s.mu.RUnlock()
	if len(ids) == 0 {
		return nil
	}
	at, _ := slices.BinarySearch(ids, s.turn+1)
	s.turn = ids[at%len(ids)]
	g := s.group(s.turn)
	b := s.newBatch(g)
	defer b.release()
	err := g.db.View(func(tx *buntdb.Tx) error {
		b.src = now{tx}
		for i := range g.indexes {
			if g.indexes[i].building {
				b.indexes = slices.Clone(b.indexes)
				x := &b.indexes[i]
				err := b.fill(x, false)
				b.describe(x)
				return err
			}
		}
		for _, number := range slices.Sorted(maps.Keys(g.entries)) {
			if !g.inUse(number) {
				b.clear(entriesPrefix(g.id, number))
				break
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(b.changes) == 0 { // nothing was due after all; the caller must not come back for ever
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.due, g.id)
		return nil
	}
	b.prepared = g.prepared // the data has not changed
	return s.commit(b, g.index, g.term)
}

// inUse reports whether entries with a number belong to an index.
func (g *machine) inUse(number uint64) bool {
	return g.prepared != nil && g.prepared.err == nil && g.prepared.number == number ||
		slices.ContainsFunc(g.indexes, func(x index) bool { return x.number == number })
}

// settle notes what a group needs done. DB.mu is held.
func (s *DB) settle(g *machine) {
	due := slices.ContainsFunc(g.indexes, func(x index) bool { return x.building })
	for number := range g.entries {
		due = due || !g.inUse(number)
	}
	if due {
		s.due[g.id] = struct{}{}
	} else {
		delete(s.due, g.id)
	}
}

// count keeps the books about a stored key that has come or gone. It reports
// false if that is an index entry without a number.
func (g *machine) count(key string, n int) (ok bool) {
	switch key[0] {
	case dataSpace:
		g.keys += n
	case indexSpace:
		var number uint64
		if number, _, ok = cutUvarint(key[len(g.data):]); !ok {
			return false
		}
		g.numbers = max(g.numbers, number)
		if g.entries[number] += n; g.entries[number] == 0 {
			delete(g.entries, number)
		}
	}
	return true
}

// Indexes returns a group's indexes and how far they are, sorted by name.
func (s *DB) Indexes(group uint64) []messages.IndexStatus {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.groups[group]
	if g == nil {
		return nil
	}
	var all []messages.IndexStatus
	add := func(x *index) {
		all = append(all, messages.IndexStatus{IndexDefinition: x.IndexDefinition, Building: x.building,
			Examined: int(x.examined), Keys: g.keys, Entries: g.entries[x.number], Skipped: int(x.skipped)})
	}
	for i := range g.indexes {
		add(&g.indexes[i])
	}
	if p := g.prepared; p != nil && p.err == nil {
		p := p.index
		p.building = true // until it is an index
		add(&p)
		slices.SortStableFunc(all, func(a, b messages.IndexStatus) int { return strings.Compare(a.Name, b.Name) })
	}
	return all
}
