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
)

// view calls fn with a transaction of the current generation and the group,
// which is nil if there is nothing in it. fn must not call the store.
func (s *DB) view(id uint64, fn func(tx *buntdb.Tx, g *machine) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return messages.ErrStopped
	}
	if s.dead {
		return fmt.Errorf("%w after a failure: %w", messages.ErrUnavailable, s.poison)
	}
	return s.gen.db.View(func(tx *buntdb.Tx) error { return fn(tx, s.groups[id]) })
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

// Get returns the value of a key, which the caller may change, and the version
// at which it was written, zero if there is no such key. The value of a key that
// exists is not nil.
func (s *DB) Get(group uint64, key []byte) (value []byte, version uint64, err error) {
	if err := validKey(key); err != nil {
		return nil, 0, fmt.Errorf("kv: get: %w", err)
	}
	err = s.view(group, func(tx *buntdb.Tx, g *machine) error {
		if g != nil {
			if stored, err := tx.Get(g.data + string(key)); err == nil {
				n, v := valueOf(stored)
				value, version = []byte(v), n
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("kv: get: %w", err)
	}
	return value, version, nil
}

// MultiGet returns the values and versions of several keys at one point in time;
// those of a key that does not exist are nil and zero.
func (s *DB) MultiGet(group uint64, keys [][]byte) (values [][]byte, versions []uint64, err error) {
	for i, key := range keys {
		if err := validKey(key); err != nil {
			return nil, nil, fmt.Errorf("kv: multi-get: key %d: %w", i, err)
		}
	}
	values, versions = make([][]byte, len(keys)), make([]uint64, len(keys))
	err = s.view(group, func(tx *buntdb.Tx, g *machine) error {
		if g == nil {
			return nil
		}
		bytes := 0
		for i, key := range keys {
			stored, err := tx.Get(g.data + string(key))
			if err != nil {
				continue
			}
			version, v := valueOf(stored)
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
	pair := messages.Pair{Key: []byte(key), Version: version}
	if !p.keysOnly {
		pair.Value = []byte(value)
	}
	p.pairs = append(p.pairs, pair)
	return true
}

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
	p, err := newPage(q.Limit, q.MaxBytes, q.KeysOnly)
	if err != nil {
		return nil, nil, fmt.Errorf("kv: scan: %w", err)
	}
	if len(q.Prefix) > 0 && (len(q.From) > 0 || q.To != nil) {
		return nil, nil, fmt.Errorf("kv: scan: both a prefix and a range: %w", messages.ErrInvalid)
	}
	if q.To != nil && bytes.Compare(q.From, q.To) > 0 {
		return nil, nil, fmt.Errorf("kv: scan: from %q is after to %q: %w", q.From, q.To, messages.ErrInvalid)
	}
	data := spacePrefix(dataSpace, q.Group)
	lower := data + string(q.From) + string(q.Prefix)
	upper := successor(data + string(q.Prefix))
	if q.To != nil {
		upper = data + string(q.To)
	}
	query := [][]byte{[]byte(data), q.Prefix, q.From, q.To}
	if len(q.Cursor) > 0 {
		at, err := decodeCursor(q.Cursor, scanCursor, query, q.Reverse)
		if err != nil {
			return nil, nil, fmt.Errorf("kv: scan: %w", err)
		}
		if q.Reverse {
			upper = data + at
		} else {
			lower = data + at + "\x00"
		}
	}
	err = s.view(q.Group, func(tx *buntdb.Tx, g *machine) error {
		if g != nil {
			walk(tx, lower, upper, q.Reverse, func(key, value string) bool { return p.add(key[len(data):], value) })
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("kv: scan: %w", err)
	}
	if p.more {
		last := p.pairs[len(p.pairs)-1].Key
		next = encodeCursor(scanCursor, string(last), query, q.Reverse)
	}
	return p.pairs, next, nil
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
