package kv_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// A refScalar is a scalar as the documentation orders them: by kind, then by
// number, then by text.
type refScalar struct {
	kind int // of missing, null, false, true, number, time, string
	num  float64
	text string
}

func (a refScalar) compare(b refScalar) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.num, b.num), cmp.Compare(a.text, b.text))
}

func refField(f messages.IndexField, v any, there bool) refScalar {
	is := func(t messages.IndexType) bool { return f.Type == messages.IndexAny || f.Type == t }
	switch v := v.(type) {
	case nil:
		if there && f.Type == messages.IndexAny {
			return refScalar{kind: 1}
		}
	case bool:
		if is(messages.IndexBool) {
			return refScalar{kind: map[bool]int{false: 2, true: 3}[v]}
		}
	case float64:
		if is(messages.IndexNumber) {
			return refScalar{kind: 4, num: v}
		}
	case string:
		if t, err := time.Parse(time.RFC3339Nano, v); f.Type == messages.IndexTime && err == nil {
			return refScalar{kind: 5, num: float64(t.Unix()), text: fmt.Sprintf("%09d", t.Nanosecond())}
		}
		if is(messages.IndexString) {
			if f.Fold {
				v = strings.ToLower(v)
			}
			return refScalar{kind: 6, text: v}
		}
	}
	return refScalar{}
}

// refEntry is an entry: what it is sorted by, and its pair.
type refEntry struct {
	tuple []refScalar
	pair  messages.Pair
}

// compareTuples compares in the order of an index as far as both go.
func compareTuples(def messages.IndexDefinition, a, b []refScalar) int {
	for i := range min(len(a), len(b)) {
		c := a[i].compare(b[i])
		if len(def.Fields) > i && def.Fields[i].Descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// refEntries are the entries of one pair, or why there can be none.
func refEntries(def messages.IndexDefinition, key, value string) (tuples [][]refScalar, err error) {
	if def.Func != "" {
		defer func() {
			if recover() != nil {
				tuples, err = nil, messages.ErrInvalid
			}
		}()
		seen := map[string]bool{}
		for _, k := range testFuncs[def.Func]([]byte(key), []byte(value)) {
			if !seen[string(k)] {
				tuples = append(tuples, []refScalar{{kind: 6, text: string(k)}})
			}
			seen[string(k)] = true
		}
		return tuples, nil
	}
	var v any
	if json.Unmarshal([]byte(value), &v) != nil {
		return nil, messages.ErrNotJSON
	}
	doc, _ := v.(map[string]any)
	var tuple []refScalar
	any := false
	for _, f := range def.Fields {
		v, there := doc[f.Path]
		s := refField(f, v, there)
		any = any || s.kind > 0
		tuple = append(tuple, s)
	}
	if !any {
		return nil, nil
	}
	return [][]refScalar{tuple}, nil
}

// refIndex is the whole index, sorted, and the number of pairs that cannot be
// in it.
func refIndex(def messages.IndexDefinition, pairs []messages.Pair) (all []refEntry, skipped int) {
	for _, p := range pairs {
		if !strings.HasPrefix(string(p.Key), def.Prefix) {
			continue
		}
		tuples, err := refEntries(def, string(p.Key), string(p.Value))
		if err != nil {
			skipped++
		}
		for _, tuple := range tuples {
			all = append(all, refEntry{tuple, p})
		}
	}
	slices.SortStableFunc(all, func(a, b refEntry) int {
		return cmp.Or(compareTuples(def, a.tuple, b.tuple), bytes.Compare(a.pair.Key, b.pair.Key))
	})
	return all, skipped
}

func whole(tuple []refScalar) bool {
	return !slices.ContainsFunc(tuple, func(s refScalar) bool { return s.kind == 0 })
}

// refDuplicate is the key that holds what a pair must have alone.
func refDuplicate(def messages.IndexDefinition, pairs []messages.Pair, key, value string) string {
	all, _ := refIndex(def, pairs)
	tuples, _ := refEntries(def, key, value)
	for _, tuple := range tuples {
		for _, e := range all {
			if def.Unique && whole(tuple) && whole(e.tuple) && string(e.pair.Key) != key && compareTuples(def, tuple, e.tuple) == 0 {
				return string(e.pair.Key)
			}
		}
	}
	return ""
}

// refBound decodes a bound, and reports whether it fits.
func refBound(def messages.IndexDefinition, text string) (tuple []refScalar, ok bool) {
	if text == "" {
		return nil, true
	}
	if def.Func != "" {
		return []refScalar{{kind: 6, text: text}}, true
	}
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return nil, false
	}
	list, is := v.([]any)
	if !is {
		list = []any{v}
	}
	if len(list) == 0 || len(list) > len(def.Fields) {
		return nil, false
	}
	for i, v := range list {
		s := refField(def.Fields[i], v, true)
		if s.kind == 0 {
			return nil, false
		}
		tuple = append(tuple, s)
	}
	return tuple, true
}

// refQuery is what a query should find.
func refQuery(def messages.IndexDefinition, pairs []messages.Pair, q messages.QueryIndex) (found []messages.Pair, ok bool) {
	equal, ok1 := refBound(def, q.Equal)
	lowest, ok2 := refBound(def, q.Min)
	highest, ok3 := refBound(def, q.Max)
	if !ok1 || !ok2 || !ok3 || compareTuples(def, lowest, highest) > 0 ||
		q.MinExclusive && q.Min == "" || q.MaxExclusive && q.Max == "" || (q.Equal != "" || q.Prefix != "") && (q.Min != "" || q.Max != "") {
		return nil, false
	}
	prefix := q.Prefix
	if def.Func == "" && prefix != "" {
		if len(equal) == len(def.Fields) {
			return nil, false
		}
		f := def.Fields[len(equal)]
		if f.Type != messages.IndexAny && f.Type != messages.IndexString {
			return nil, false
		}
		if f.Fold {
			prefix = strings.ToLower(prefix)
		}
	} else if prefix != "" && q.Equal != "" {
		return nil, false
	}
	all, _ := refIndex(def, pairs)
	for _, e := range all {
		low, high := compareTuples(def, e.tuple, lowest), compareTuples(def, e.tuple, highest)
		if compareTuples(def, e.tuple, equal) != 0 || low < 0 || low == 0 && q.MinExclusive || high > 0 || high == 0 && q.MaxExclusive {
			continue
		}
		if prefix != "" && (e.tuple[len(equal)].kind != 6 || !strings.HasPrefix(e.tuple[len(equal)].text, prefix)) {
			continue
		}
		found = append(found, e.pair)
	}
	if q.Reverse {
		slices.Reverse(found)
	}
	return found, true
}
