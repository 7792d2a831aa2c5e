package kv

import (
	"fmt"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
	"github.com/tidwall/gjson"
)

// span is the part of an index that a query is about: the stored entries in
// [lower, upper).
type span struct{ lower, upper string }

// span works out what a query asks for.
func (x *index) span(q messages.QueryIndex) (s span, err error) {
	if (q.Equal != "" || q.Prefix != "") && (q.Min != "" || q.Max != "") {
		return s, fmt.Errorf("equal and prefix exclude min and max: %w", messages.ErrInvalid)
	}
	if q.Equal != "" || q.Prefix != "" {
		b, n, err := x.bound("equal", q.Equal)
		if err == nil && q.Prefix != "" {
			b, err = x.prefix(b, n, q.Prefix)
		}
		if err != nil {
			return s, err
		}
		return span{b, successor(b)}, nil
	}
	lowest, _, err := x.bound("min", q.Min)
	if err != nil {
		return s, err
	}
	highest, _, err := x.bound("max", q.Max)
	if err != nil {
		return s, err
	}
	if q.Min == "" && q.MinExclusive || q.Max == "" && q.MaxExclusive {
		return s, fmt.Errorf("a bound that is not there is exclusive: %w", messages.ErrInvalid)
	}
	if q.Min != "" && q.Max != "" && lowest > highest && !strings.HasPrefix(lowest, highest) {
		return s, fmt.Errorf("min %s is after max %s: %w", q.Min, q.Max, messages.ErrInvalid)
	}
	s = span{lowest, successor(highest)}
	if q.MinExclusive {
		s.lower = successor(lowest)
	}
	if q.MaxExclusive {
		s.upper = highest
	}
	return s, nil
}

// bound encodes a bound as entries begin, and returns the number of fields in it.
func (x *index) bound(name, text string) (encoded string, fields int, err error) {
	if text == "" {
		return x.entries, 0, nil
	}
	if x.fn != nil {
		return string(appendTerminated([]byte(x.entries), text)), 1, nil
	}
	bad := func(why string) error {
		return fmt.Errorf("%s %q of index %q: %s: %w", name, text, x.Name, why, messages.ErrInvalid)
	}
	if !validJSON(text) {
		return "", 0, bad("not JSON")
	}
	scalars := []gjson.Result{gjson.Parse(text)}
	if scalars[0].IsArray() {
		scalars = scalars[0].Array()
	}
	if len(scalars) == 0 || len(scalars) > len(x.Fields) {
		return "", 0, bad(fmt.Sprintf("%d values for %d fields", len(scalars), len(x.Fields)))
	}
	b := []byte(x.entries)
	for i, r := range scalars {
		var ok bool
		if b, ok = appendField(b, &x.Fields[i], r); !ok {
			return "", 0, bad(fmt.Sprintf("value %d is not a scalar of the field's type", i+1))
		}
	}
	return string(b), len(scalars), nil
}

// prefix appends what the entries have in common in which the field after the
// first n begins with text.
func (x *index) prefix(b string, n int, text string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("prefix %q of index %q: %s: %w", text, x.Name, why, messages.ErrInvalid)
	}
	if x.fn != nil {
		if n > 0 {
			return bad("there is no second key")
		}
		return string(appendEscaped([]byte(b), text)), nil
	}
	if n == len(x.Fields) {
		return bad("there is no further field")
	}
	f := &x.Fields[n]
	if f.Type != messages.IndexAny && f.Type != messages.IndexString {
		return bad("the field is not one of strings")
	}
	encoded := appendEscaped([]byte{scalarString}, folded(f, text))
	turn(encoded, f.Descending)
	return b + string(encoded), nil
}

// resume moves the beginning of a span to where a cursor says.
func (x *index) resume(s span, q messages.QueryIndex) (span, error) {
	at, err := decodeCursor(q.Cursor, queryCursor, x.identity(q), q.Reverse)
	if err != nil {
		return s, err
	}
	// Anybody can compute the checksum, so the place is not believed either.
	key, ok := x.entryKey(at)
	at = x.entries + at
	if !ok || key == "" || at < s.lower || at >= s.upper {
		return s, fmt.Errorf("the cursor is not one of this query: %w", messages.ErrInvalid)
	}
	if q.Reverse {
		s.upper = at
	} else {
		s.lower = at + "\x00"
	}
	return s, nil
}

// identity is what makes two queries the same, on every replica.
func (x *index) identity(q messages.QueryIndex) [][]byte {
	query := [][]byte{[]byte(spacePrefix(indexSpace, q.Group)), []byte(x.Name), x.Encode(nil), []byte(q.Equal), []byte(q.Prefix), []byte(q.Min), []byte(q.Max)}
	for _, exclusive := range []bool{q.MinExclusive, q.MaxExclusive} {
		if exclusive {
			query = append(query, []byte{1})
		} else {
			query = append(query, nil)
		}
	}
	return query
}

// each calls fn for the entries of a query, without their prefix, in order until
// it returns false, and then tells how a cursor of the query is made.
func (x *index) each(tx *buntdb.Tx, q messages.QueryIndex, fn func(entry, key string) bool) (cursor func(at string) []byte, err error) {
	if x.building {
		return nil, fmt.Errorf("it is being built, and %d keys have been looked at: %w", x.examined, messages.ErrNotReady)
	}
	s, err := x.span(q)
	if err != nil {
		return nil, err
	}
	if len(q.Cursor) > 0 {
		if s, err = x.resume(s, q); err != nil {
			return nil, err
		}
	}
	var bad error
	walk(tx, s.lower, s.upper, q.Reverse, func(stored, _ string) bool {
		entry := stored[len(x.entries):]
		key, ok := x.entryKey(entry)
		if !ok {
			bad = fmt.Errorf("an entry without a key: %w", messages.ErrCorrupt)
		}
		return ok && fn(entry, key)
	})
	return func(at string) []byte { return encodeCursor(queryCursor, at, x.identity(q), q.Reverse) }, bad
}

// query runs fn with the index of a query.
func (s *DB) query(q messages.QueryIndex, fn func(tx *buntdb.Tx, g *machine, x *index) error) error {
	err := s.view(q.Group, func(tx *buntdb.Tx, g *machine) error {
		if g == nil {
			return messages.ErrNotFound
		}
		i, found := findIndex(g.indexes, q.Name)
		if !found {
			return messages.ErrNotFound
		}
		return fn(tx, g, &g.indexes[i])
	})
	if err != nil {
		return fmt.Errorf("kv: query index %q: %w", q.Name, err)
	}
	return nil
}

// Query returns pairs in the order of an index, at one point in time, and the
// cursor for those that follow. See messages.QueryIndex; Count is for Count.
//
// Errors: those of messages.IndexQueried, and ErrInvalid for a negative limit.
func (s *DB) Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error) {
	p, err := newPage(q.Limit, q.MaxBytes, q.KeysOnly)
	if err != nil {
		return nil, nil, fmt.Errorf("kv: query: %w", err)
	}
	err = s.query(q, func(tx *buntdb.Tx, g *machine, x *index) error {
		last := ""
		var bad error
		cursor, err := x.each(tx, q, func(entry, key string) bool {
			var set string
			if set, bad = tx.Get(g.data + key); bad != nil {
				bad = fmt.Errorf("an entry without a pair: %w", messages.ErrCorrupt)
				return false
			}
			if !p.add(key, set) {
				return false
			}
			last = entry
			return true
		})
		if err == nil {
			err = bad
		}
		if err == nil && p.more {
			next = cursor(last)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return p.pairs, next, nil
}

// Count returns the number of entries that a query is about, at one point in
// time, and the cursor for those beyond Limit. Writers wait for it: 1 ms for
// about ten thousand entries.
//
// Errors: those of Query.
func (s *DB) Count(q messages.QueryIndex) (n int, next []byte, err error) {
	limit := q.Limit
	switch {
	case limit < 0:
		return 0, nil, fmt.Errorf("kv: count: limit %d: %w", limit, messages.ErrInvalid)
	case limit == 0, limit > MaxLimit:
		limit = MaxLimit
	}
	err = s.query(q, func(tx *buntdb.Tx, _ *machine, x *index) error {
		last, more := "", false
		cursor, err := x.each(tx, q, func(entry, _ string) bool {
			if more = n == limit; more {
				return false
			}
			n++
			last = entry
			return true
		})
		if err == nil && more {
			next = cursor(last)
		}
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	return n, next, nil
}
