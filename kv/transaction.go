package kv

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// pendingVersion is the version of what a transaction has written itself, until it
// is committed.
const pendingVersion = math.MaxUint64

// transaction is a view, what was read of it, and what is to be written.
type transaction struct {
	reads
	view     *view
	readOnly bool
	// pending is the view with the writes of the transaction; writes are the same
	// as they will be carried out, the last one of each key.
	pending *batch
	writes  map[string]messages.Operation
	// points are the stored keys that were read, spans the ranges, as far as they
	// were read.
	points map[string]struct{}
	spans  []span
	bytes  int64
}

// Begin begins a transaction on a group's data as it is now.
func (s *DB) Begin(group uint64, readOnly bool) (Txn, error) {
	v, err := s.openView(group)
	if err != nil {
		return nil, fmt.Errorf("kv: begin: %w", err)
	}
	t := &transaction{view: v, readOnly: readOnly}
	if readOnly {
		t.reads = v.reads // at one point in time: nothing to check
		return t, nil
	}
	t.pending = &batch{group: v.group, indexes: v.indexes, revision: pendingVersion, changes: map[string]*change{}, scratch: &scratch{}}
	t.writes, t.points = map[string]messages.Operation{}, map[string]struct{}{}
	t.reads = reads{group: group, seen: t.see, in: func(fn func(src source, indexes []index) error) error {
		return v.in(func(src source, indexes []index) error {
			t.pending.src = src
			return fn(t.pending, indexes)
		})
	}}
	return t, nil
}

// see notes what an answer depends on.
func (t *transaction) see(lower, upper string) error {
	switch n := len(t.spans); {
	case upper == lower+"\x00":
		if _, written := t.pending.changes[lower]; written {
			return nil
		}
		if _, known := t.points[lower]; known {
			return nil
		}
		t.points[lower] = struct{}{}
		t.bytes += nodeBytes + int64(len(lower))
	case n > 0 && t.spans[n-1].upper == lower: // the next page
		t.spans[n-1].upper = upper
	case n > 0 && t.spans[n-1].lower == upper:
		t.spans[n-1].lower = lower
	default:
		t.spans = append(t.spans, span{lower, upper})
		t.bytes += int64(len(lower) + len(upper))
	}
	return t.fits()
}

// fits reports a transaction that has become too large.
func (t *transaction) fits() error {
	if n := max(len(t.points)+len(t.spans), len(t.writes)); n > messages.MaxTxnOperations {
		return fmt.Errorf("a transaction of more than %d keys and ranges: %w", messages.MaxTxnOperations, messages.ErrTooLarge)
	}
	if limit := t.view.store.opt.MaxTxnBytes; t.bytes > limit {
		return fmt.Errorf("a transaction of more than %d bytes: %w", limit, messages.ErrTooLarge)
	}
	return nil
}

// Run carries out an operation, as far as the transaction goes.
func (t *transaction) Run(op messages.Operation) (res messages.Result, err error) {
	switch {
	case t.readOnly:
		err = fmt.Errorf("%v in a transaction that only reads: %w", op.Kind, messages.ErrInvalid)
	case op.Kind != messages.OpPut && op.Kind != messages.OpDelete && op.Kind != messages.OpCompareAndSwap:
		err = fmt.Errorf("%v in a transaction: %w", op.Kind, messages.ErrInvalid)
	default:
		err = op.Validate()
	}
	if err == nil {
		err = t.in(func(source, []index) error {
			stored := t.pending.group.data + string(op.Key)
			if op.Kind == messages.OpCompareAndSwap {
				if err := t.see(stored, stored+"\x00"); err != nil {
					return err
				}
			}
			bytes := t.pending.bytes
			if res = t.pending.run(op); res.Err != nil {
				return nil
			}
			t.bytes += nodeBytes + int64(len(op.Key)+len(op.Value)) + t.pending.bytes - bytes
			switch {
			case op.Kind != messages.OpCompareAndSwap:
				res.Existed = false // to tell it would be to read
				t.writes[string(op.Key)] = op
			case res.Swapped:
				t.writes[string(op.Key)] = messages.PutOperation(op.Key, op.Value)
			}
			res.Version = 0
			return t.fits()
		})
	}
	if err != nil {
		return messages.Result{}, fmt.Errorf("kv: %w", err)
	}
	return res, nil
}

// Writes reports whether there is anything to commit.
func (t *transaction) Writes() bool { return len(t.writes) > 0 }

// Revision is that of the view.
func (t *transaction) Revision() uint64 { return t.view.revision }

// Index is that of the view.
func (t *transaction) Index() (index, term uint64) { return t.view.Index() }

// Close gives the transaction up.
func (t *transaction) Close() error { return t.view.Close() }

// operations are the writes, in order of their keys.
func (t *transaction) operations() []messages.Operation {
	ops := make([]messages.Operation, 0, len(t.writes))
	for _, key := range slices.Sorted(maps.Keys(t.writes)) {
		ops = append(ops, t.writes[key])
	}
	return ops
}

// conflict reports that something that was read has changed since, under DB.mu.
func (t *transaction) conflict() error {
	if t.view.over != nil {
		return t.view.over
	}
	h := &t.view.group.history
	if err := t.changed(func(key string) bool { _, changed := h.find(key, t.view.time); return changed }); err != nil {
		return err
	}
	for _, s := range t.spans {
		if h.changed(s.lower, s.upper, t.view.time) {
			return conflicting(s.lower)
		}
	}
	return t.dropped(t.view.group.indexes)
}

// changed reports a conflict if a key that was read is one of those. It names the
// least, so that an error is the same in every run of the simulation (seed 1004).
func (t *transaction) changed(is func(key string) bool) error {
	least, found := "", false
	for key := range t.points {
		if (!found || key < least) && is(key) {
			least, found = key, true
		}
	}
	if found {
		return conflicting(least)
	}
	return nil
}

// dropped reports a conflict if an index that was read is not among those: what
// changes afterwards is in no entry of it.
func (t *transaction) dropped(indexes []index) error {
	for _, s := range t.spans {
		if s.lower[0] == indexSpace && !slices.ContainsFunc(indexes, func(x index) bool { return strings.HasPrefix(s.lower, x.entries) }) {
			return fmt.Errorf("an index that was read was dropped: %w", messages.ErrConflict)
		}
	}
	return nil
}

func conflicting(key string) error {
	_, _, rest, _ := splitKey(key)
	return fmt.Errorf("%q, or what follows it, has changed since it was read: %w", rest, messages.ErrConflict)
}

// commit carries out a transaction that no log drives. What the operations before
// it in the same batch have changed is in no history yet.
func (b *batch) commit(s *DB, t *transaction) messages.Result {
	if t.view.store != s || t.view.group.id != b.group.id || t.readOnly {
		return messages.Result{Err: fmt.Errorf("kv: commit: a transaction of another group or store, or one that only reads: %w", messages.ErrInvalid)}
	}
	s.mu.RLock()
	err := t.conflict()
	s.mu.RUnlock()
	if err == nil {
		err = t.changed(func(key string) bool { _, changed := b.changes[key]; return changed })
	}
	if err == nil {
		err = t.dropped(b.indexes)
	}
	for _, r := range t.spans {
		for key := range b.changes {
			if err == nil && key >= r.lower && key < r.upper {
				err = conflicting(r.lower)
			}
		}
	}
	if err != nil {
		return messages.Result{Err: fmt.Errorf("kv: commit: %w", err)}
	}
	return b.transact(&messages.Transaction{Then: t.operations()})
}

// Prepare makes the transaction an operation for a log. Its conditions are the
// versions of the keys that were read, and that each range has as many pairs as it
// had and none of a later version. What was asked of an index depends on all pairs
// that the index is about: entries of an index are not the same on all replicas at
// the same entry while it is being built, pairs are.
func (t *transaction) Prepare() (messages.Operation, error) {
	txn := messages.Transaction{Then: t.operations()}
	err := t.view.in(func(src source, indexes []index) error {
		if err := t.conflict(); err != nil {
			return err
		}
		data := t.view.group.data
		for _, key := range slices.Sorted(maps.Keys(t.points)) {
			stored, _ := src.get(key)
			version, _ := valueOf(stored)
			txn.If = append(txn.If, messages.VersionIs([]byte(key[len(data):]), messages.Equal, version))
		}
		total := 0
		for _, r := range t.dataSpans(indexes) {
			// It is more than what was asked of an index: the log need not carry what
			// cannot hold.
			if t.view.group.history.changed(r.lower, r.upper, t.view.time) {
				return conflicting(r.lower)
			}
			count := 0
			src.walk(r.lower, r.upper, false, func(string, string) bool {
				count++
				total++
				return total <= messages.MaxTxnRange
			})
			if total > messages.MaxTxnRange {
				return fmt.Errorf("it has read ranges of more than %d pairs: %w", messages.MaxTxnRange, messages.ErrTooLarge)
			}
			c := messages.RangeUnchanged([]byte(r.lower[len(data):]), nil, uint64(count), t.view.revision)
			if strings.HasPrefix(r.upper, data) {
				c.To = []byte(r.upper[len(data):])
			}
			txn.If = append(txn.If, c)
		}
		op := messages.TxnOperation(txn)
		return op.Validate()
	})
	if err != nil {
		return messages.Operation{}, fmt.Errorf("kv: prepare commit: %w", err)
	}
	return messages.TxnOperation(txn), nil
}

// dataSpans are the ranges of pairs that were read, sorted and without overlaps.
func (t *transaction) dataSpans(indexes []index) []span {
	data := t.view.group.data
	var list []span
	for _, r := range t.spans {
		if r.lower >= r.upper {
			continue
		}
		if r.lower[0] != dataSpace {
			for i := range indexes {
				if strings.HasPrefix(r.lower, indexes[i].entries) {
					from := data + indexes[i].Prefix
					r = span{from, successor(from)}
					break
				}
			}
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b span) int { return strings.Compare(a.lower, b.lower) })
	merged := list[:0]
	for _, r := range list {
		if n := len(merged); n > 0 && r.lower <= merged[n-1].upper {
			merged[n-1].upper = max(merged[n-1].upper, r.upper)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// Commit carries out changes without an index: see Store.
func (s *DB) Commit(group uint64, changes []Change) ([]messages.Result, error) {
	var first messages.Operation
	if len(changes) > 0 {
		first = changes[0].Operation
	}
	results, err := s.write(group, len(changes), first, func(b *batch, i int) messages.Result {
		if t, ok := changes[i].Txn.(*transaction); ok {
			return b.commit(s, t)
		}
		return b.run(changes[i].Operation)
	})
	if err != nil {
		return nil, fmt.Errorf("kv: commit: %w", err)
	}
	return results, nil
}

// write carries out n changes as one, of which the first may be the creation of a
// unique index.
func (s *DB) write(group uint64, n int, first messages.Operation, run func(b *batch, i int) messages.Result) ([]messages.Result, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.writable(); err != nil {
		return nil, err
	}
	s.changes.trim(group)
	g := s.group(group)
	if err := s.prepareAll(g, first); err != nil {
		return nil, err
	}
	b := s.newBatch(g)
	defer b.release()
	results := make([]messages.Result, n)
	err := g.db.View(func(tx *buntdb.Tx) error {
		b.src = now{tx}
		for i := range results {
			b.revision++
			b.touched = false
			if results[i] = run(b, i); !b.touched {
				b.revision--
			}
		}
		return nil
	})
	if err == nil && b.revision > g.revision {
		err = s.commit(b, g.index, g.term)
	}
	return results, err
}
