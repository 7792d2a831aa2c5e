package kv

import (
	"fmt"
	"strings"

	"github.com/ballast-raft/ballast/messages"
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
	if x.Func != "" {
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
	if x.Func != "" {
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

// each calls fn with the key of each entry of a query, in order until it returns
// false, and returns the cursor for the entry that fn has refused and
// what follows.
func (r *reads) each(q messages.QueryIndex, fn func(src source, key string) (bool, error)) (next []byte, err error) {
	q.Group = r.group
	err = r.in(func(src source, indexes []index) error {
		i, found := findIndex(indexes, q.Name)
		if !found {
			return messages.ErrNotFound
		}
		x := &indexes[i]
		if x.building {
			return fmt.Errorf("it is being built, and %d keys have been looked at: %w", x.examined, messages.ErrNotReady)
		}
		s, err := x.span(q)
		if err != nil {
			return err
		}
		if len(q.Cursor) > 0 {
			if s, err = x.resume(s, q); err != nil {
				return err
			}
		}
		last, more := "", false
		var bad error
		src.walk(s.lower, s.upper, q.Reverse, func(stored, _ string) bool {
			key, ok := x.entryKey(stored[len(x.entries):])
			if !ok {
				bad = fmt.Errorf("an entry without a key: %w", messages.ErrCorrupt)
				return false
			}
			var taken bool
			if taken, bad = fn(src, key); bad != nil || !taken {
				more = bad == nil
				return false
			}
			last = stored
			return true
		})
		switch { // as far as it was read
		case bad != nil:
			return bad
		case !more:
			return r.note(s.lower, s.upper)
		case q.Reverse:
			err = r.note(last, s.upper)
		default:
			err = r.note(s.lower, last+"\x00")
		}
		next = encodeCursor(queryCursor, last[len(x.entries):], x.identity(q), q.Reverse)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kv: query index %q: %w", q.Name, err)
	}
	return next, nil
}

// Query returns pairs in the order of an index, at one point in time, and the
// cursor for those that follow. See messages.QueryIndex; Count is for Count.
//
// Errors: those of messages.IndexQueried, and ErrInvalid for a negative limit.
func (s *DB) Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error) {
	return s.reads(q.Group).Query(q)
}

// Count returns the number of entries that a query is about, at one point in
// time, and the cursor for those beyond Limit, where zero counts as DefaultCount.
// Writers wait for it: 1 ms for about ten thousand entries.
//
// Errors: those of Query.
func (s *DB) Count(q messages.QueryIndex) (n int, next []byte, err error) {
	return s.reads(q.Group).Count(q)
}

// Query is DB.Query in this data. A view has the indexes that were there when it
// was opened; one that was being built then stays so in the view.
func (r *reads) Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error) {
	p, err := newPage(q.Limit, q.MaxBytes, q.KeysOnly)
	if err != nil {
		return nil, nil, fmt.Errorf("kv: query: %w", err)
	}
	data := spacePrefix(dataSpace, r.group)
	next, err = r.each(q, func(src source, key string) (bool, error) {
		stored, found := src.get(data + key)
		if !found {
			return false, fmt.Errorf("an entry without a pair: %w", messages.ErrCorrupt)
		}
		if !p.add(key, stored) {
			return false, nil
		}
		return true, r.note(data+key, data+key+"\x00")
	})
	if err != nil {
		return nil, nil, err
	}
	return p.pairs, next, nil
}

// Count is DB.Count in this data.
func (r *reads) Count(q messages.QueryIndex) (n int, next []byte, err error) {
	limit := min(q.Limit, MaxLimit)
	if limit == 0 {
		limit = DefaultCount
	}
	if limit < 0 {
		return 0, nil, fmt.Errorf("kv: count: limit %d: %w", limit, messages.ErrInvalid)
	}
	next, err = r.each(q, func(source, string) (bool, error) {
		n++
		return n <= limit, nil
	})
	if err != nil {
		return 0, nil, err
	}
	return min(n, limit), next, nil
}
