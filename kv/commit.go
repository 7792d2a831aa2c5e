package kv

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// machine is the state machine of one group. Its fields are guarded by DB.mu.
type machine struct {
	id uint64
	// db is the tree that holds its data: that of the store, or the one that an
	// import has made.
	db *buntdb.DB
	// data and definitions begin the stored keys of its pairs and indexes.
	data, definitions string
	index, term       uint64
	// revision is the version of the latest change; it never goes back.
	revision uint64
	keys     int
	live     int64 // what DATA would hold of it if each key had one command
	// indexes is sorted by name. The slice is replaced, never changed: views
	// hold on to it.
	indexes []index
	// entries is the number of index entries by the number in their keys;
	// those with a number that no index has are garbage. No number above
	// numbers has been used.
	entries  map[uint64]int
	numbers  uint64
	prepared *prepared
	exports  []*exportView
	history  history
}

func newGroup(id uint64, db *buntdb.DB) *machine {
	return &machine{id: id, db: db, data: spacePrefix(dataSpace, id), definitions: spacePrefix(definitionSpace, id), entries: map[uint64]int{}}
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
	store   *DB
	src     source // what the changes are made to
	group   *machine
	indexes []index
	changes map[string]*change
	scratch *scratch
	// revision is that of the operation that is being carried out.
	revision uint64
	bytes    int64    // about what the changes hold
	sorted   []string // the keys in changes, or nil if that is not known
	// claims has the keys that hold what only one may hold in a unique index,
	// where that has changed; numbers and prepared are those of the group
	// afterwards.
	claims   map[string]string
	numbers  uint64
	prepared *prepared
	// told is what happened to pairs, in order: changes has only the outcome.
	told []Mutation
	// touched: the operation has changed something. undo has what brings the
	// batch back to where a transaction began, if one is under way.
	touched bool
	undo    []func()
	inTxn   bool
	// operation is the one of the transaction that is being carried out. contests
	// are what it has given to a second pair, and rivals the keys that have what
	// claims has a later key for.
	operation int
	contests  []contest
	rivals    map[string][]string
}

// open reports whether the batch is what a transaction would write that has not
// been committed.
func (b *batch) open() bool { return b.revision == pendingVersion }

// lookup returns the value of a stored key as the batch has left it.
func (b *batch) lookup(key string) (value string, found bool) {
	if c, ok := b.changes[key]; ok {
		return c.value, c.set
	}
	return b.src.get(key)
}

// set and remove record a change. prior and had are what lookup has returned.
func (b *batch) set(key, value, prior string, had bool) {
	b.bytes += int64(len(key) + len(value))
	b.touch(key)
	b.tell(key, value, prior)
	if c, ok := b.changes[key]; ok {
		c.set, c.value = true, value
		return
	}
	b.sorted = nil
	b.record(key, change{set: true, value: value, existed: had, old: prior})
}

func (b *batch) record(key string, c change) {
	p := b.scratch.place()
	*p = c
	b.changes[key] = p
}

func (b *batch) remove(key, prior string, had bool) {
	b.bytes += int64(len(key))
	b.touch(key)
	b.sorted = nil
	if had {
		b.tell(key, "", prior)
	}
	c, ok := b.changes[key]
	switch {
	case !ok && had:
		b.record(key, change{existed: true, old: prior})
	case ok && c.existed:
		c.set, c.value = false, ""
	case ok:
		delete(b.changes, key)
	}
}

// tell notes what happens to a pair, of which there is prior in the store. What an
// open transaction would write is not told before it is committed.
func (b *batch) tell(key, value, prior string) {
	if key[0] == dataSpace && !b.open() {
		b.told = append(b.told, Mutation{b.revision, key[len(b.group.data):], value, prior})
	}
}

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
	case messages.OpTxn:
		return b.transact(op.Txn)
	}
	stored, set := joinPair(b.group.data, op.Key, b.revision, op.Value)
	key := stored[len(b.group.data):]
	was, found := b.lookup(stored)
	version, old := valueOf(was)
	res := messages.Result{Existed: found}
	switch op.Kind {
	case messages.OpGet:
		if found {
			res.Version, res.Value = version, []byte(old)
		}
		return res
	case messages.OpDelete:
		if found {
			_ = b.reindex(key, &old, nil) // nothing refuses to be removed
			b.remove(stored, was, true)
			res.Version = b.revision
		}
		return res
	case messages.OpCompareAndSwap:
		if found != (op.Expect != nil) || found && old != string(op.Expect) {
			return res
		}
	}
	_, value := valueOf(set)
	before := &old
	if !found {
		before = nil
	}
	if err := b.reindex(key, before, &value); err != nil {
		res.Err = fmt.Errorf("kv: %v: %w", op.Kind, err)
		return res
	}
	b.set(stored, set, was, found)
	res.Version = b.revision
	res.Swapped = op.Kind == messages.OpCompareAndSwap
	return res
}

// outcome is a change with its key.
type outcome struct {
	key string
	*change
}

// outcomes lists the changes by their keys.
func (b *batch) outcomes() []outcome {
	all := slices.Grow(b.scratch.outcomes[:0], len(b.changes))
	for key, c := range b.changes {
		all = append(all, outcome{key, c})
	}
	slices.SortFunc(all, func(a, b outcome) int { return strings.Compare(a.key, b.key) })
	b.scratch.outcomes = all
	return all
}

// Write carries out operations without an index. With a nil error all of them
// took effect for reads, in one step also as seen after a crash, except those
// whose Result says otherwise; Sync makes them durable.
//
// Errors: ErrDiskFull (nothing was done), ErrStopped, ErrUnavailable (the store
// is poisoned).
func (s *DB) Write(group uint64, ops []messages.Operation) ([]messages.Result, error) {
	var first messages.Operation
	if len(ops) > 0 {
		first = ops[0]
	}
	results, err := s.write(group, len(ops), first, func(b *batch, i int) messages.Result { return b.run(ops[i]) })
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
		g = newGroup(id, s.tree)
	}
	return g
}

// room returns ErrDiskFull if n bytes more would not leave the reserve free.
func (s *DB) room(n int64) error {
	_, err := s.spare(n)
	return err
}

// spare returns what is free besides n bytes more and the reserve.
func (s *DB) spare(n int64) (int64, error) {
	free, err := s.opt.Free(s.dir)
	if err != nil {
		return 0, err
	}
	if free < n+s.opt.ReserveBytes {
		return 0, fmt.Errorf("%d bytes are free, a change of %d must leave %d: %w", free, n, s.opt.ReserveBytes, messages.ErrDiskFull)
	}
	return free - n - s.opt.ReserveBytes, nil
}

// commit writes the changes of a batch, and behind them the marker that makes
// them count, and then changes the tree. If there is no room nothing is done;
// after any other error the store is poisoned. Readers and views see all of it or
// nothing.
func (s *DB) commit(b *batch, index, term uint64) error {
	gen, g := s.gen, b.group
	changes := b.outcomes()
	buf := gen.buf[:0]
	for _, c := range changes {
		if c.set {
			buf = appendSet(buf, c.key, c.value)
		} else {
			buf = appendDel(buf, c.key)
		}
	}
	spare, err := s.spare(int64(len(buf)) + markerBytes)
	if err != nil {
		return err
	}
	buf = slices.Grow(buf, int(markerBytes))
	if gen.buf = buf; cap(buf) > maxKeptBuffer {
		gen.buf = nil
	}
	err = gen.write(buf, marker{groups: []position{{g.id, index, term, b.revision}}}, spare)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return s.failed(err)
	}
	if len(g.exports) > 0 {
		for _, c := range changes {
			if c.key[0] == dataSpace {
				for _, v := range g.exports {
					v.keep(c.key, c.old, c.existed)
				}
			}
		}
		g.exports = live(g.exports)
	}
	if len(changes) > 0 {
		g.history.note(b)
		s.shrink(&g.history)
		err = g.db.Update(func(tx *buntdb.Tx) error { return enter(tx, changes) })
	}
	if err != nil {
		return s.failed(fmt.Errorf("buntdb: %w", err)) // the file and the tree have parted
	}
	before := g.live
	for _, c := range changes {
		if c.existed {
			g.live -= setLen(c.key, c.old)
		}
		if c.set {
			g.live += setLen(c.key, c.value)
		}
		switch {
		case c.set && !c.existed:
			g.count(c.key, 1)
		case !c.set:
			g.count(c.key, -1)
		}
	}
	s.groups[g.id] = g
	s.changes.note(g.id, g.revision, b.revision, b.told)
	g.indexes, g.index, g.term, g.revision, g.numbers = b.indexes, index, term, b.revision, b.numbers
	if len(changes) > 0 || b.prepared != nil {
		g.prepared = b.prepared
		s.settle(g)
	}
	s.live += g.live - before
	gen.advance()
	return nil
}

// enter carries the changes out in the tree.
func enter(tx *buntdb.Tx, changes []outcome) (err error) {
	for _, c := range changes {
		if c.set {
			_, _, err = tx.Set(c.key, c.value, nil)
		} else {
			_, err = tx.Delete(c.key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
