package kv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
)

// Bounds of one Scan or Query. A larger Limit or MaxBytes counts as these.
const (
	DefaultLimit = 1000
	MaxLimit     = 1 << 20
	DefaultBytes = 1 << 20
	MaxBytes     = 64 << 20
	// DefaultCount is how many keys CountKeys counts in one call unless Limit
	// says otherwise: some 4 ms, in which a writer waits.
	DefaultCount = 1 << 16
)

// view calls fn with the group and a transaction of its tree, both nil if there
// is nothing in it. fn must not call the store.
func (s *DB) view(id uint64, fn func(tx *buntdb.Tx, g *machine) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return messages.ErrStopped
	}
	g := s.groups[id]
	if g == nil {
		return fn(nil, nil)
	}
	return g.db.View(func(tx *buntdb.Tx) error { return fn(tx, g) })
}

func validKey(key []byte) error {
	if len(key) == 0 {
		return fmt.Errorf("empty key: %w", messages.ErrInvalid)
	}
	if len(key) > messages.MaxKey {
		return fmt.Errorf("key of %d bytes, at most %d: %w", len(key), messages.MaxKey, messages.ErrTooLarge)
	}
	return nil
}

// reads are the queries over the data of one group, wherever that is read.
type reads struct {
	group uint64
	// in calls fn with the data and its indexes; src is nil if there is nothing.
	in func(fn func(src source, indexes []index) error) error
	// seen, if set, is told which stored keys the answer of a query depends on.
	seen func(lower, upper string) error
}

// reads are those of the data as it is now.
func (s *DB) reads(group uint64) *reads {
	return &reads{group: group, in: func(fn func(src source, indexes []index) error) error {
		return s.view(group, func(tx *buntdb.Tx, g *machine) error {
			if g == nil {
				return fn(nil, nil)
			}
			return fn(now{tx}, g.indexes)
		})
	}}
}

func (r *reads) note(lower, upper string) error {
	if r.seen == nil {
		return nil
	}
	return r.seen(lower, upper)
}

// Get returns the value of a key, which the caller may change, and the version
// at which it was written, zero if there is no such key. The value of a key that
// exists is not nil.
func (s *DB) Get(group uint64, key []byte) (value []byte, version uint64, err error) {
	return s.reads(group).Get(key)
}

// MultiGet returns the values and versions of several keys at one point in time;
// those of a key that does not exist are nil and zero.
func (s *DB) MultiGet(group uint64, keys [][]byte) (values [][]byte, versions []uint64, err error) {
	return s.reads(group).MultiGet(keys)
}

// Get is DB.Get in this data.
func (r *reads) Get(key []byte) (value []byte, version uint64, err error) {
	if err = validKey(key); err == nil {
		err = r.in(func(src source, _ []index) error {
			stored := spacePrefix(dataSpace, r.group) + string(key)
			if src != nil {
				if p, found := src.get(stored); found {
					n, v := valueOf(p)
					value, version = []byte(v), n
				}
			}
			return r.note(stored, stored+"\x00")
		})
	}
	if err != nil {
		return nil, 0, fmt.Errorf("kv: get: %w", err)
	}
	return value, version, nil
}

// MultiGet is DB.MultiGet in this data.
func (r *reads) MultiGet(keys [][]byte) (values [][]byte, versions []uint64, err error) {
	for i, key := range keys {
		if err := validKey(key); err != nil {
			return nil, nil, fmt.Errorf("kv: multi-get: key %d: %w", i, err)
		}
	}
	values, versions = make([][]byte, len(keys)), make([]uint64, len(keys))
	data := spacePrefix(dataSpace, r.group)
	err = r.in(func(src source, _ []index) error {
		bytes := 0
		for i, key := range keys {
			stored := data + string(key)
			if err := r.note(stored, stored+"\x00"); err != nil {
				return err
			}
			if src == nil {
				continue
			}
			p, found := src.get(stored)
			if !found {
				continue
			}
			version, v := valueOf(p)
			if bytes += len(v); bytes > MaxBytes {
				return fmt.Errorf("more than %d bytes of values: %w", MaxBytes, messages.ErrTooLarge)
			}
			values[i], versions[i] = []byte(v), version
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("kv: multi-get: %w", err)
	}
	return values, versions, nil
}

// page gathers pairs within the bounds of one call.
type page struct {
	limit, maxBytes, bytes int
	keysOnly               bool
	pairs                  []messages.Pair
	arena                  []byte // for the bytes of pairs
	// more: there is at least one more pair.
	more bool
}

func newPage(limit, maxBytes int, keysOnly bool) (*page, error) {
	if limit < 0 || maxBytes < 0 {
		return nil, fmt.Errorf("limit %d, max bytes %d: %w", limit, maxBytes, messages.ErrInvalid)
	}
	if limit == 0 {
		limit = DefaultLimit
	}
	if maxBytes == 0 {
		maxBytes = DefaultBytes
	}
	return &page{limit: min(limit, MaxLimit), maxBytes: min(maxBytes, MaxBytes), keysOnly: keysOnly}, nil
}

// add takes the pair, or reports that the page is full.
func (p *page) add(key, stored string) bool {
	version, value := valueOf(stored)
	size := len(key)
	if !p.keysOnly {
		size += len(value)
	}
	if len(p.pairs) == p.limit || len(p.pairs) > 0 && p.bytes+size > p.maxBytes {
		p.more = true
		return false
	}
	p.bytes += size
	pair := messages.Pair{Key: p.copy(key), Version: version}
	if !p.keysOnly {
		pair.Value = p.copy(value)
	}
	if len(p.pairs) == cap(p.pairs) {
		p.pairs = slices.Grow(p.pairs, min(max(16, len(p.pairs)), p.limit-len(p.pairs)))
	}
	p.pairs = append(p.pairs, pair)
	return true
}

// copy copies into memory that is allocated for many pairs at once: by far the
// most of a scan's time was two allocations a pair. A pair that is kept holds at
// most maxArena bytes of the others'.
func (p *page) copy(s string) []byte {
	if len(s) > maxArena/4 {
		return []byte(s)
	}
	if len(s) > cap(p.arena)-len(p.arena) {
		p.arena = make([]byte, 0, max(4*len(s), min(2*cap(p.arena), maxArena), 256))
	}
	n := len(p.arena)
	p.arena = append(p.arena, s...)
	return p.arena[n:len(p.arena):len(p.arena)]
}

const maxArena = 32 << 10

// Cursors are opaque to the caller: a byte for the kind of call, where to go
// on, and a CRC32C that also covers the query, so that a cursor of another
// query is refused.
const (
	scanCursor  = 's'
	queryCursor = 'q'
)

// walk calls fn for the stored keys in [lower, upper), in order, until it
// returns false.
func walk(tx *buntdb.Tx, lower, upper string, reverse bool, fn func(key, value string) bool) {
	// The only errors are a closed transaction and an unknown index of
	// buntdb's, and we have neither.
	if reverse {
		_ = tx.DescendLessOrEqual("", upper, func(key, value string) bool {
			return key == upper || key >= lower && fn(key, value)
		})
		return
	}
	_ = tx.AscendGreaterOrEqual("", lower, func(key, value string) bool {
		return key < upper && fn(key, value)
	})
}

func cursorSum(body []byte, query [][]byte, reverse bool) uint32 {
	sum := crc32.Checksum(body, castagnoli)
	for _, q := range query {
		var n [9]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(q)))
		if q == nil {
			n[8] = 1
		}
		sum = crc32.Update(crc32.Update(sum, castagnoli, n[:]), castagnoli, q)
	}
	if reverse {
		sum = crc32.Update(sum, castagnoli, []byte{1})
	}
	return sum
}

func encodeCursor(kind byte, at string, query [][]byte, reverse bool) []byte {
	b := append([]byte{kind}, at...)
	return binary.LittleEndian.AppendUint32(b, cursorSum(b, query, reverse))
}

func decodeCursor(cursor []byte, kind byte, query [][]byte, reverse bool) (at string, err error) {
	n := len(cursor) - 4
	if n < 2 || cursor[0] != kind || binary.LittleEndian.Uint32(cursor[n:]) != cursorSum(cursor[:n], query, reverse) {
		return "", fmt.Errorf("the cursor is not one of this query: %w", messages.ErrInvalid)
	}
	return string(cursor[1:n]), nil
}

// Scan returns a group's pairs in order, at one point in time, and the cursor
// for those that follow. See messages.Scan; Limit and MaxBytes count as at most
// MaxLimit and MaxBytes.
//
// Errors: ErrInvalid (Prefix together with From or To, From > To, a negative
// bound, a cursor that is not one of this scan).
func (s *DB) Scan(q messages.Scan) (pairs []messages.Pair, next []byte, err error) {
	return s.reads(q.Group).Scan(q)
}

// CountKeys returns how many pairs Scan would, and the cursor for those that
// follow. A Limit of zero counts as DefaultCount; MaxBytes does not matter.
//
// Errors: those of Scan.
func (s *DB) CountKeys(q messages.Scan) (n int, next []byte, err error) {
	return s.reads(q.Group).CountKeys(q)
}

// Scan is DB.Scan in this data.
func (r *reads) Scan(q messages.Scan) (pairs []messages.Pair, next []byte, err error) {
	p, err := newPage(q.Limit, q.MaxBytes, q.KeysOnly)
	if err == nil {
		next, err = r.scan(q, func(key, stored string) bool { return p.add(key, stored) })
	}
	if err != nil {
		return nil, nil, fmt.Errorf("kv: scan: %w", err)
	}
	return p.pairs, next, nil
}

// CountKeys is DB.CountKeys in this data.
func (r *reads) CountKeys(q messages.Scan) (n int, next []byte, err error) {
	limit := min(q.Limit, MaxLimit)
	if limit == 0 {
		limit = DefaultCount
	}
	if limit < 0 {
		err = fmt.Errorf("limit %d: %w", limit, messages.ErrInvalid)
	} else {
		next, err = r.scan(q, func(string, string) bool {
			n++
			return n <= limit
		})
	}
	if err != nil {
		return 0, nil, fmt.Errorf("kv: count keys: %w", err)
	}
	return min(n, limit), next, nil
}

// scan calls add for the pairs until that returns false, and returns the cursor
// for the pair that it has refused and what follows.
func (r *reads) scan(q messages.Scan, add func(key, stored string) bool) (next []byte, err error) {
	if len(q.Prefix) > 0 && (len(q.From) > 0 || q.To != nil) {
		return nil, fmt.Errorf("both a prefix and a range: %w", messages.ErrInvalid)
	}
	if q.To != nil && bytes.Compare(q.From, q.To) > 0 {
		return nil, fmt.Errorf("from %q is after to %q: %w", q.From, q.To, messages.ErrInvalid)
	}
	data := spacePrefix(dataSpace, r.group)
	lower := data + string(q.From) + string(q.Prefix)
	upper := successor(data + string(q.Prefix))
	if q.To != nil {
		upper = data + string(q.To)
	}
	query := [][]byte{[]byte(data), q.Prefix, q.From, q.To}
	if len(q.Cursor) > 0 {
		at, err := decodeCursor(q.Cursor, scanCursor, query, q.Reverse)
		if err != nil {
			return nil, err
		}
		if q.Reverse {
			upper = data + at
		} else {
			lower = data + at + "\x00"
		}
	}
	last, more := "", false
	err = r.in(func(src source, _ []index) error {
		if src != nil {
			src.walk(lower, upper, q.Reverse, func(key, stored string) bool {
				if !add(key[len(data):], stored) {
					more = true
					return false
				}
				last = key
				return true
			})
		}
		switch { // as far as it was read
		case more && q.Reverse:
			return r.note(last, upper)
		case more:
			return r.note(lower, last+"\x00")
		}
		return r.note(lower, upper)
	})
	if err != nil || !more {
		return nil, err
	}
	return encodeCursor(scanCursor, last[len(data):], query, q.Reverse), nil
}

// Groups lists the groups that have data, an index or an applied index, in
// order.
func (s *DB) Groups() []uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []uint64
	for id, g := range s.groups {
		if g.keys > 0 || g.index > 0 || len(g.indexes) > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Keys returns the number of a group's keys.
func (s *DB) Keys(group uint64) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g := s.groups[group]; g != nil {
		return g.keys
	}
	return 0
}
