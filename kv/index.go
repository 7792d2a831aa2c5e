package kv

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/buntdb"
	"github.com/tidwall/gjson"
)

// The first byte of an encoded scalar. The gaps leave room for more kinds.
const (
	scalarNull   = 0x10
	scalarFalse  = 0x20
	scalarTrue   = 0x30
	scalarNumber = 0x40
	scalarString = 0x50
)

// maxDepth bounds the nesting of a document, as encoding/json does: its
// validation is recursive, and a Go stack that overflows cannot be recovered.
const maxDepth = 10000

// validJSON reports whether s is one JSON document.
func validJSON(s string) bool {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '{':
			if depth++; depth > maxDepth {
				return false
			}
		case ']', '}':
			depth--
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		}
	}
	return gjson.Valid(s)
}

// appendScalar appends the encoding of a JSON value, or reports that it is not
// a scalar.
func appendScalar(dst []byte, r gjson.Result) ([]byte, bool) {
	switch r.Type {
	case gjson.Null:
		return append(dst, scalarNull), true
	case gjson.False:
		return append(dst, scalarFalse), true
	case gjson.True:
		return append(dst, scalarTrue), true
	case gjson.Number:
		// A number out of range is ±Inf, which is where it belongs.
		f, err := strconv.ParseFloat(r.Raw, 64)
		if err != nil && !math.IsInf(f, 0) {
			return dst, false
		}
		bits := math.Float64bits(f)
		switch {
		case f == 0:
			bits = 1 << 63
		case bits>>63 == 0:
			bits |= 1 << 63
		default:
			bits = ^bits
		}
		return binary.BigEndian.AppendUint64(append(dst, scalarNumber), bits), true
	case gjson.String:
		return appendTerminated(append(dst, scalarString), r.Str), true
	}
	return dst, false
}

// skipScalar returns what follows an encoded scalar: the user's key.
func skipScalar(s string) (rest string, ok bool) {
	if s == "" {
		return "", false
	}
	switch s[0] {
	case scalarNull, scalarFalse, scalarTrue:
		return s[1:], true
	case scalarNumber:
		if len(s) < 9 {
			return "", false
		}
		return s[9:], true
	case scalarString:
		return skipTerminated(s[1:])
	}
	return "", false
}

// index is a definition with the prefix of its entries.
type index struct {
	messages.IndexDefinition
	entries string
}

func newIndex(group uint64, def messages.IndexDefinition) index {
	b := append([]byte(nil), spacePrefix(indexSpace, group)...)
	return index{IndexDefinition: def, entries: string(appendTerminated(b, def.Name))}
}

// covers reports whether an index is about the key.
func (x *index) covers(key string) bool { return strings.HasPrefix(key, x.Prefix) }

// entry returns the key of the index entry for a pair, or "" if the document
// has no scalar at the path. The value must be valid JSON.
func (x *index) entry(key, value string) string {
	r := gjson.Get(value, x.Path)
	if !r.Exists() {
		return ""
	}
	b := make([]byte, 0, len(x.entries)+16+len(key))
	b, ok := appendScalar(append(b, x.entries...), r)
	if !ok {
		return ""
	}
	return string(append(b, key...))
}

// entryKey returns the user's key in an index entry.
func (x *index) entryKey(entry string) (key string, ok bool) {
	return skipScalar(entry[len(x.entries):])
}

func findIndex(indexes []index, name string) (i int, found bool) {
	return slices.BinarySearchFunc(indexes, name, func(x index, name string) int { return strings.Compare(x.Name, name) })
}

// validPath accepts the plain part of gjson's syntax: names and array positions
// with dots between them, and \ before a character that would mean something.
// Wildcards, queries, modifiers and the like are refused: what they yield is
// not promised to stay the same from one version of gjson to the next, and an
// index must be the same on every replica.
func validPath(path string) error {
	bad := func(why string) error {
		return fmt.Errorf("index path %q: %s: %w", path, why, messages.ErrInvalid)
	}
	if !utf8.ValidString(path) {
		return bad("not UTF-8")
	}
	empty := true
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '.':
			if empty {
				return bad("an empty name")
			}
			empty = true
			continue
		case '\\':
			if i++; i == len(path) {
				return bad("nothing after the backslash")
			}
		case '|', '#', '@', '*', '?', '!', '{', '}', '[', ']', '(', ')':
			return bad(fmt.Sprintf("%q needs a backslash before it", path[i]))
		}
		empty = false
	}
	if empty {
		return bad("an empty name")
	}
	return nil
}

// storedDefinition is the JSON of an index definition in DATA and in the state
// stream. The name is beside it. Prefix is base64: it may be any bytes.
type storedDefinition struct {
	Path   string `json:"path"`
	Prefix []byte `json:"prefix,omitempty"`
}

func encodeDefinition(def messages.IndexDefinition) string {
	b, err := json.Marshal(storedDefinition{Path: def.Path, Prefix: []byte(def.Prefix)})
	if err != nil {
		panic("kv: a definition cannot be encoded: " + err.Error()) // it holds strings only
	}
	return string(b)
}

// decodeDefinition is strict: only what encodeDefinition made is accepted, so
// that the same state has the same bytes.
func decodeDefinition(name, encoded string) (def messages.IndexDefinition, err error) {
	var s storedDefinition
	if err := json.Unmarshal([]byte(encoded), &s); err != nil {
		return def, fmt.Errorf("definition of index %q: %w: %w", name, messages.ErrMalformed, err)
	}
	def = messages.IndexDefinition{Name: name, Prefix: string(s.Prefix), Path: s.Path}
	if err := messages.CreateIndexOperation(def).Validate(); err != nil {
		return def, fmt.Errorf("%w: %w", messages.ErrMalformed, err)
	}
	if err := validPath(def.Path); err != nil {
		return def, fmt.Errorf("%w: %w", messages.ErrMalformed, err)
	}
	if encodeDefinition(def) != encoded {
		return def, fmt.Errorf("definition of index %q is not in its one form: %w", name, messages.ErrMalformed)
	}
	return def, nil
}

// createIndex adds an index over the data as the batch sees it.
func (b *batch) createIndex(def messages.IndexDefinition) messages.Result {
	if err := validPath(def.Path); err != nil {
		return messages.Result{Err: fmt.Errorf("kv: create index: %w", err)}
	}
	at, found := findIndex(b.indexes, def.Name)
	if found {
		if b.indexes[at].IndexDefinition == def {
			return messages.Result{Existed: true}
		}
		return messages.Result{Existed: true, Err: fmt.Errorf("kv: create index %q: the name has another definition: %w", def.Name, messages.ErrConflict)}
	}
	x := newIndex(b.group.id, def)
	from := b.group.data + def.Prefix
	var entries []string
	isJSON := true
	add := func(stored, set string) bool {
		_, value := valueOf(set)
		if !validJSON(value) {
			isJSON = false
			return false
		}
		if e := x.entry(stored[len(b.group.data):], value); e != "" {
			entries = append(entries, e)
		}
		return true
	}
	b.src.walk(from, successor(from), false, func(key, value string) bool {
		if _, changed := b.changes[key]; changed {
			return true
		}
		return add(key, value)
	})
	for key, c := range b.changes {
		if isJSON && c.set && strings.HasPrefix(key, from) {
			add(key, c.value)
		}
	}
	if !isJSON {
		return messages.Result{Err: fmt.Errorf("kv: create index %q: a value under its prefix: %w", def.Name, messages.ErrNotJSON)}
	}
	for _, e := range entries {
		b.setEntry(e)
	}
	stored := b.group.definitions + def.Name
	old, had := b.lookup(stored)
	b.set(stored, encodeDefinition(def), old, had)
	b.indexes = slices.Insert(slices.Clone(b.indexes), at, x)
	return messages.Result{Version: b.revision}
}

// dropIndex removes an index and its entries.
func (b *batch) dropIndex(name string) messages.Result {
	at, found := findIndex(b.indexes, name)
	if !found {
		return messages.Result{Err: fmt.Errorf("kv: drop index %q: %w", name, messages.ErrNotFound)}
	}
	x := b.indexes[at]
	b.src.walk(x.entries, successor(x.entries), false, func(key, _ string) bool {
		b.removeEntry(key)
		return true
	})
	for key, c := range b.changes {
		if c.set && strings.HasPrefix(key, x.entries) {
			b.removeEntry(key)
		}
	}
	stored := b.group.definitions + name
	old, had := b.lookup(stored)
	b.remove(stored, old, had)
	b.indexes = slices.Delete(slices.Clone(b.indexes), at, at+1)
	return messages.Result{Existed: true, Version: b.revision}
}

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
