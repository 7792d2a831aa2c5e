package kv

import (
	"fmt"
	"hash/crc32"
	"math"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/tidwall/buntdb"
)

// machine is the state machine of one group. Its fields are guarded by DB.mu.
type machine struct {
	id uint64
	// data and definitions begin the stored keys of its pairs and indexes.
	data, definitions string
	index, term       uint64
	// revision is the version of the latest change; it never goes back.
	revision uint64
	keys     int
	// indexes is sorted by name. The slice is replaced, never changed: views
	// hold on to it.
	indexes []index
	views   []*view
}

func newGroup(id uint64) *machine {
	return &machine{id: id, data: spacePrefix(dataSpace, id), definitions: spacePrefix(definitionSpace, id)}
}

// change is the outcome of a batch for one stored key.
type change struct {
	set   bool // or removed
	value string
	// existed and old: what the store holds, before the batch.
	existed bool
	old     string
}

// batch works out what operations do, without touching the store, so that
// nothing can fail in the middle of buntdb's transaction.
type batch struct {
	tx      *buntdb.Tx
	group   *machine
	indexes []index
	changes map[string]*change
	// revision is that of the operation that is being carried out.
	revision uint64
	bytes    int64 // about what the changes hold
	// told is what happened to keys, in order: changes has only the outcome.
	told []Change
}

func (s *DB) newBatch(g *machine) *batch {
	return &batch{group: g, indexes: g.indexes, revision: g.revision, changes: map[string]*change{}}
}

// lookup returns the value of a stored key as the batch has left it.
func (b *batch) lookup(key string) (value string, found bool) {
	if c, ok := b.changes[key]; ok {
		return c.value, c.set
	}
	value, err := b.tx.Get(key)
	return value, err == nil
}

// set and remove record a change. prior and had are what lookup has returned.
func (b *batch) set(key, value, prior string, had bool) {
	b.bytes += int64(len(key) + len(value))
	b.tell(key, value, prior)
	if c, ok := b.changes[key]; ok {
		c.set, c.value = true, value
		return
	}
	b.changes[key] = &change{set: true, value: value, existed: had, old: prior}
}

func (b *batch) remove(key, prior string, had bool) {
	b.bytes += int64(len(key))
	if had {
		b.tell(key, "", prior)
	}
	c, ok := b.changes[key]
	switch {
	case !ok && had:
		b.changes[key] = &change{existed: true, old: prior}
	case ok && c.existed:
		c.set, c.value = false, ""
	case ok:
		delete(b.changes, key)
	}
}

// tell notes what happens to a pair, of which there is prior in the store.
func (b *batch) tell(key, value, prior string) {
	if key[0] == dataSpace {
		b.told = append(b.told, Change{b.revision, key[len(b.group.data):], value, prior})
	}
}

// setEntry and removeEntry change index entries. An entry is in the store
// exactly if its pair is, so there is nothing to look up.
func (b *batch) setEntry(key string) {
	if c, ok := b.changes[key]; ok && !c.set {
		delete(b.changes, key)
		return
	}
	b.set(key, "", "", false)
}

func (b *batch) removeEntry(key string) { b.remove(key, "", true) }

// run carries out one operation.
func (b *batch) run(op messages.Operation) messages.Result {
	if err := op.Validate(); err != nil {
		return messages.Result{Err: fmt.Errorf("kv: %w", err)}
	}
	switch op.Kind {
	case messages.OpCreateIndex:
		return b.createIndex(op.Index)
	case messages.OpDropIndex:
		return b.dropIndex(op.Index.Name)
	}
	stored := b.group.data + string(op.Key)
	key := stored[len(b.group.data):]
	was, found := b.lookup(stored)
	_, old := valueOf(was)
	res := messages.Result{Existed: found}
	switch op.Kind {
	case messages.OpDelete:
		if found {
			for i := range b.indexes {
				if x := &b.indexes[i]; x.covers(key) {
					if e := x.entry(key, old); e != "" {
						b.removeEntry(e)
					}
				}
			}
			b.remove(stored, was, true)
			res.Version = b.revision
		}
		return res
	case messages.OpCompareAndSwap:
		if found != (op.Expect != nil) || found && old != string(op.Expect) {
			return res
		}
	}
	set := joinVersion(b.revision, op.Value)
	_, value := valueOf(set)
	checked := false
	for i := range b.indexes {
		x := &b.indexes[i]
		if !x.covers(key) {
			continue
		}
		if !checked && !validJSON(value) {
			res.Err = fmt.Errorf("kv: %v under index %q: %w", op.Kind, x.Name, messages.ErrNotJSON)
			return res
		}
		checked = true
		before, is := "", x.entry(key, value)
		if found {
			before = x.entry(key, old)
		}
		if before == is {
			continue
		}
		if before != "" {
			b.removeEntry(before)
		}
		if is != "" {
			b.setEntry(is)
		}
	}
	b.set(stored, set, was, found)
	res.Version = b.revision
	res.Swapped = op.Kind == messages.OpCompareAndSwap
	return res
}

// size is what the changes take in the file, exactly.
func (b *batch) size() (n int64) {
	for key, c := range b.changes {
		if c.set {
			n += setLen(key, c.value)
		} else {
			n += delLen(key)
		}
	}
	return n
}

// Write carries out operations without an index. With a nil error all of them
// took effect for reads, in one step also as seen after a crash, except those
// whose Result says otherwise; Sync makes them durable.
//
// Errors: ErrDiskFull (nothing was done), ErrStopped, ErrUnavailable (the store
// is poisoned).
func (s *DB) Write(group uint64, ops []messages.Operation) ([]messages.Result, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.writable(); err != nil {
		return nil, fmt.Errorf("kv: write: %w", err)
	}
	s.changes.trim(group)
	g := s.group(group)
	b := s.newBatch(g)
	results := make([]messages.Result, len(ops))
	err := s.gen.db.View(func(tx *buntdb.Tx) error {
		b.tx = tx
		for i, op := range ops {
			b.revision++
			if results[i] = b.run(op); results[i].Version == 0 {
				b.revision-- // it has changed nothing
			}
		}
		return nil
	})
	if err == nil && b.revision > g.revision {
		err = s.commit(b, g.index, g.term)
	}
	if err != nil {
		return nil, fmt.Errorf("kv: write: %w", err)
	}
	return results, nil
}

// writable reports why nothing can be changed.
func (s *DB) writable() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.unwritable()
}

func (s *DB) unwritable() error {
	if s.closed {
		return messages.ErrStopped
	}
	if s.poison != nil {
		return fmt.Errorf("%w after a failure: %w", messages.ErrUnavailable, s.poison)
	}
	return nil
}

// group returns the group, which exists from its first change on.
func (s *DB) group(id uint64) *machine {
	s.mu.RLock()
	g := s.groups[id]
	s.mu.RUnlock()
	if g == nil {
		g = newGroup(id)
	}
	return g
}

// room returns ErrDiskFull if n bytes more would not leave the reserve free.
func (s *DB) room(n int64) error {
	free, err := s.opt.Free(s.dir)
	if err != nil {
		return err
	}
	if free < n+s.opt.ReserveBytes {
		return fmt.Errorf("%d bytes are free, a change of %d must leave %d: %w", free, n, s.opt.ReserveBytes, messages.ErrDiskFull)
	}
	return nil
}

// commit writes the changes of a batch and then the marker that makes them
// count. If there is no room nothing is done; after any other error the store
// is poisoned. Readers and views see all of it or nothing.
func (s *DB) commit(b *batch, index, term uint64) (err error) {
	gen, g := s.gen, b.group
	size := b.size()
	m := marker{
		sequence: gen.sequence + 1,
		start:    gen.end,
		end:      gen.end + size,
		groups:   []position{{g.id, index, term, b.revision}},
	}
	if n := m.sequence - gen.durable.Load(); n <= math.MaxUint16 {
		m.unsynced = uint16(n)
	}
	markerLen := setLen(markerKey, string(m.encode(gen.identity)))
	if err := s.room(size + markerLen); err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.unwritable(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			// buntdb panics, with its lock held, when it cannot take back a
			// write that has failed in the middle.
			s.dead = true
			err = fmt.Errorf("buntdb panicked: %v", p)
		}
		if err != nil {
			err = durable.Wrap(err)
			s.poison = err
		}
	}()
	if size > 0 {
		for key, c := range b.changes {
			if key[0] == dataSpace {
				for _, v := range g.views {
					v.keep(key, c.old, c.existed)
				}
			}
		}
		g.views = live(g.views)
		if err := gen.db.Update(b.write); err != nil {
			return fmt.Errorf("write data: %w", err)
		}
		s.groups[g.id] = g
		g.indexes = b.indexes
		for key, c := range b.changes {
			if key[0] == dataSpace {
				switch {
				case c.set && !c.existed:
					g.keys++
				case !c.set:
					g.keys--
				}
			}
		}
		if m.sum, err = gen.sum(m.start, size); err != nil {
			return fmt.Errorf("read data back: %w", err)
		}
	}
	value := string(m.encode(gen.identity))
	if err := gen.db.Update(func(tx *buntdb.Tx) error {
		_, _, err := tx.Set(markerKey, value, nil)
		return err
	}); err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	info, err := gen.file.Stat()
	if err != nil {
		return err
	}
	if end := m.end + markerLen; info.Size() != end {
		return fmt.Errorf("the file has %d bytes after a change that should end at %d", info.Size(), end)
	}
	s.groups[g.id] = g
	s.changes.note(g.id, g.revision, b.revision, b.told)
	g.index, g.term, g.revision = index, term, b.revision
	gen.sequence, gen.end = m.sequence, m.end+markerLen
	return nil
}

func (b *batch) write(tx *buntdb.Tx) (err error) {
	for key, c := range b.changes {
		if c.set {
			_, _, err = tx.Set(key, c.value, nil)
		} else {
			_, err = tx.Delete(key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sum is the checksum of what the file holds at start, which buntdb has just
// written in an order of its own.
func (g *generation) sum(start, size int64) (sum uint32, err error) {
	if len(g.buf) == 0 {
		g.buf = make([]byte, 64<<10)
	}
	for size > 0 {
		b := g.buf[:min(size, int64(len(g.buf)))]
		if n, err := g.file.ReadAt(b, start); n < len(b) {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, b)
		start += int64(len(b))
		size -= int64(len(b))
	}
	return sum, nil
}
