package kv

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/tidwall/gjson"
)

// IndexFunc yields the keys under which an index has a pair: any number of
// them, each of 1 to messages.MaxIndexKey bytes, in any order; of equal ones one
// counts. Key and value must not be changed or kept. It must depend on nothing
// but them, as it is called on every replica, more than once for each pair and
// from several goroutines. A panic refuses the value.
type IndexFunc func(key, value []byte) [][]byte

// index is a definition and how far it is. It is never changed once it is in
// machine.indexes.
type index struct {
	messages.IndexDefinition
	// number is in the keys of its entries. It is of this store alone, so that
	// an index of the same name never meets entries of an earlier one.
	number  uint64
	entries string // begins the keys of its entries
	fn      IndexFunc
	// building: pairs with keys below next are in the index, and no others.
	building bool
	next     string
	examined uint64 // pairs, while building
	skipped  uint64 // pairs that are older than the index and cannot be in it
}

func (s *DB) newIndex(group, number uint64, def messages.IndexDefinition) (index, error) {
	x := index{IndexDefinition: def, number: number, entries: entriesPrefix(group, number)}
	if def.Func != "" {
		if x.fn = s.opt.Funcs[def.Func]; x.fn == nil && !s.readOnly {
			return x, fmt.Errorf("index %q needs the function %q, which is not in Options.Funcs", def.Name, def.Func)
		}
	}
	return x, nil
}

func entriesPrefix(group, number uint64) string {
	return string(binary.AppendUvarint([]byte(spacePrefix(indexSpace, group)), number))
}

// covers reports whether an index is about the key.
func (x *index) covers(key string) bool { return strings.HasPrefix(key, x.Prefix) }

// reached reports whether a pair is in the index, as far as it can be.
func (x *index) reached(key string) bool { return !x.building || key < x.next }

func findIndex(indexes []index, name string) (i int, found bool) {
	return slices.BinarySearchFunc(indexes, name, func(x index, name string) int { return strings.Compare(x.Name, name) })
}

// value is what indexes look at. Whether it is JSON is found out once.
type value struct {
	text                string
	validated, document bool
}

func (v *value) isJSON() bool {
	if !v.validated {
		v.validated, v.document = true, validJSON(v.text)
	}
	return v.document
}

// entry is the stored key of an index entry.
type entry struct {
	key string
	// tuple is the length of what no other entry may have, or zero if the
	// index is not unique or a field is missing.
	tuple int
}

// appendEntries appends the entries of a pair. The error is why the pair cannot
// be in the index, and depends on the definition and the pair alone.
func (x *index) appendEntries(dst []entry, key string, v *value) ([]entry, error) {
	if x.Func != "" {
		return x.appendKeys(dst, key, v)
	}
	if !v.isJSON() {
		return dst, fmt.Errorf("under index %q: %w", x.Name, messages.ErrNotJSON)
	}
	b := append(make([]byte, 0, len(x.entries)+16*len(x.Fields)+len(key)), x.entries...)
	any, all := false, true
	for i := range x.Fields {
		f := &x.Fields[i]
		var ok bool
		b, ok = appendField(b, f, gjson.Get(v.text, f.Path))
		any, all = any || ok, all && ok
	}
	if !any {
		return dst, nil
	}
	if n := len(b) - len(x.entries); n > messages.MaxIndexKey {
		return dst, x.tooLarge(n)
	}
	return append(dst, x.entry(b, key, all)), nil
}

func (x *index) entry(b []byte, key string, whole bool) entry {
	e := entry{}
	if x.Unique && whole {
		e.tuple = len(b)
	}
	e.key = string(append(b, key...))
	return e
}

func (x *index) tooLarge(n int) error {
	return fmt.Errorf("an entry of %d bytes, at most %d, under index %q: %w", n, messages.MaxIndexKey, x.Name, messages.ErrTooLarge)
}

// appendKeys appends an entry for each key that the registered function yields.
func (x *index) appendKeys(dst []entry, key string, v *value) (_ []entry, err error) {
	before := len(dst)
	defer func() {
		if p := recover(); p != nil {
			dst, err = dst[:before], fmt.Errorf("function %q of index %q panicked: %v: %w", x.Func, x.Name, p, messages.ErrInvalid)
		}
	}()
	keys := x.fn([]byte(key), []byte(v.text))
	if len(keys) > 1 {
		keys = slices.Clone(keys)
		slices.SortFunc(keys, slices.Compare)
		keys = slices.CompactFunc(keys, slices.Equal)
	}
	for _, k := range keys {
		if len(k) == 0 {
			return dst[:before], fmt.Errorf("function %q of index %q yields an empty key: %w", x.Func, x.Name, messages.ErrInvalid)
		}
		if len(k) > messages.MaxIndexKey {
			return dst[:before], x.tooLarge(len(k))
		}
		b := append(make([]byte, 0, len(x.entries)+len(k)+2+len(key)), x.entries...)
		dst = append(dst, x.entry(appendTerminated(b, string(k)), key, true))
	}
	return dst, nil
}

// entryKey returns the user's key in an index entry without its prefix.
func (x *index) entryKey(entry string) (key string, ok bool) {
	if x.Func != "" {
		return skipTerminated(entry, 0)
	}
	for i := range x.Fields {
		if entry, ok = skipField(entry, x.Fields[i].Descending); !ok {
			return "", false
		}
	}
	return entry, true
}

// tupleOf returns the part of a stored entry that no other may have, or "".
func (x *index) tupleOf(stored string) string {
	rest := stored[len(x.entries):]
	for i := range x.Fields {
		if rest == "" || rest[0] == scalarMissing || rest[0] == ^byte(scalarMissing) {
			return ""
		}
		rest, _ = skipField(rest, x.Fields[i].Descending)
	}
	if x.Func != "" {
		rest, _ = skipTerminated(rest, 0)
	}
	return stored[:len(stored)-len(rest)]
}

// stored is what DATA holds of an index, under its name.
func (x *index) stored() string {
	b := binary.AppendUvarint(nil, x.number)
	b = binary.AppendUvarint(b, x.skipped)
	if x.building {
		b = append(b, 1)
		b = binary.AppendUvarint(b, x.examined)
		b = binary.AppendUvarint(b, uint64(len(x.next)))
		b = append(b, x.next...)
	} else {
		b = append(b, 0)
	}
	return string(x.Encode(b))
}

// loadIndex decodes what stored made.
func (s *DB) loadIndex(group uint64, name, stored string) (x index, err error) {
	bad := fmt.Errorf("index %q: %w", name, messages.ErrMalformed)
	rest, ok := stored, true
	next := func() (n uint64) {
		if ok {
			n, rest, ok = cutUvarint(rest)
		}
		return n
	}
	number, skipped := next(), next()
	if !ok || rest == "" || rest[0] > 1 {
		return x, bad
	}
	building := rest[0] == 1
	rest = rest[1:]
	var examined uint64
	at := ""
	if building {
		examined = next()
		n := next()
		if !ok || n > uint64(len(rest)) {
			return x, bad
		}
		at, rest = rest[:n], rest[n:]
	}
	def, err := messages.DecodeIndexDefinition(name, []byte(rest))
	if err != nil {
		return x, err
	}
	if x, err = s.newIndex(group, number, def); err != nil {
		return x, fmt.Errorf("group %d: %w: %w", group, messages.ErrIncompatible, err)
	}
	x.building, x.next, x.examined, x.skipped = building, at, examined, skipped
	return x, nil
}
