package messages

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Limits of an index definition.
const (
	MaxIndexName   = 255     // bytes, of an index or of a registered function
	MaxIndexFields = 16      // fields
	MaxIndexPath   = 1 << 10 // bytes, of all paths of a definition together
)

// MaxIndexKey bounds what one entry holds of a document, in bytes, encoded: the
// fields, in which a zero byte of a string takes two, or the key from a
// function. A value that would need more is refused with ErrTooLarge.
const MaxIndexKey = 64 << 10

// IndexDefinition describes a secondary index over the pairs whose keys begin
// with Prefix. It has Fields, or else Func.
//
// With Fields, values are JSON documents, and there is an entry for each that
// has a scalar of the right type in at least one of the fields. Entries are
// ordered field by field, then by key. In a field the order is
//
//	missing < null < false < true < numbers < times < strings
//
// where missing also is an object, an array, and a scalar of another type than
// the field's. Numbers are compared as float64, strings by their bytes.
//
// With Func, the function that every replica has registered under that name (in
// kv.Options) yields the keys of the entries: any number for each pair, any
// bytes, in the order of the bytes. A function must give the same keys for the
// same pair for ever; one that has changed needs another name and a new index.
//
// A value that cannot be in the index is refused from the operation on that
// creates it: ErrNotJSON, ErrTooLarge (an entry beyond MaxIndexKey), ErrInvalid
// (the function has panicked). Such values that were there before stay, are not
// in the index, and are counted as IndexStatus.Skipped.
type IndexDefinition struct {
	// Name of the index, 1 to MaxIndexName bytes.
	Name string
	// Prefix of the keys it covers; empty covers all.
	Prefix string
	// Fields of the document, 1 to MaxIndexFields of them.
	Fields []IndexField
	// Func is the name of a registered function.
	Func string
	// Unique: no two entries have equal values in all fields, or equal keys
	// from the function. A write that would make a second is refused with
	// ErrNotUnique; of a transaction, what there is at its end. Entries that lack a field are not compared; a null is a
	// value.
	Unique bool
}

// IndexField is one field of an index.
type IndexField struct {
	// Path in the document: names and array positions with dots between them,
	// and \ before a character that would mean something else, for example
	// "owner.name". It is the plain part of gjson's syntax. Of several equal
	// names in a document the first counts.
	Path string `json:"path"`
	// Type is what the scalar must be.
	Type IndexType `json:"type,omitempty"`
	// Descending turns the order of this field around: larger values come
	// first, and missing last.
	Descending bool `json:"descending,omitempty"`
	// Fold compares strings without regard to case: the letters of ASCII,
	// Latin-1, Latin Extended-A, Greek, Cyrillic and Armenian, one for one, as
	// in Unicode's simple case folding. The table is the project's own, since
	// that of package unicode changes with the version of Go.
	Fold bool `json:"fold,omitempty"`
}

// IndexType restricts a field to scalars of one type.
type IndexType string

// The types of a field.
const (
	IndexAny    IndexType = "" // null, bool, number and string
	IndexString IndexType = "string"
	IndexNumber IndexType = "number"
	IndexBool   IndexType = "bool"
	// IndexTime is a string in the format of RFC 3339 with T and Z in upper
	// case, ordered by the instant, to the nanosecond; further digits are cut
	// off. There is no leap second.
	IndexTime IndexType = "time"
)

// Paths returns ascending fields of any type.
func Paths(paths ...string) []IndexField {
	fields := make([]IndexField, len(paths))
	for i, p := range paths {
		fields[i].Path = p
	}
	return fields
}

// Equal reports whether two definitions are the same.
func (d IndexDefinition) Equal(o IndexDefinition) bool {
	return d.Name == o.Name && d.Prefix == o.Prefix && d.Func == o.Func && d.Unique == o.Unique && slices.Equal(d.Fields, o.Fields)
}

// Bytes is the size of the definition's names, paths and prefix.
func (d IndexDefinition) Bytes() int {
	n := len(d.Name) + len(d.Prefix) + len(d.Func)
	for _, f := range d.Fields {
		n += len(f.Path) + len(f.Type)
	}
	return n
}

// Validate reports the first thing that is wrong with a definition, as
// ErrInvalid or ErrTooLarge.
func (d IndexDefinition) Validate() error {
	if err := validIndexName(d.Name); err != nil {
		return err
	}
	paths := 0
	switch {
	case len(d.Prefix) > MaxKey:
		return fmt.Errorf("index prefix of %d bytes, at most %d: %w", len(d.Prefix), MaxKey, ErrTooLarge)
	case (len(d.Fields) > 0) == (d.Func != ""):
		return fmt.Errorf("index %q: it needs fields or a function, and not both: %w", d.Name, ErrInvalid)
	case len(d.Func) > MaxIndexName:
		return fmt.Errorf("index function of %d bytes, at most %d: %w", len(d.Func), MaxIndexName, ErrTooLarge)
	case !utf8.ValidString(d.Func):
		return fmt.Errorf("index function %q: not UTF-8: %w", d.Func, ErrInvalid)
	case len(d.Fields) > MaxIndexFields:
		return fmt.Errorf("index %q: %d fields, at most %d: %w", d.Name, len(d.Fields), MaxIndexFields, ErrTooLarge)
	}
	for _, f := range d.Fields {
		if paths += len(f.Path); paths > MaxIndexPath {
			return fmt.Errorf("index paths of more than %d bytes: %w", MaxIndexPath, ErrTooLarge)
		}
		if err := f.validate(); err != nil {
			return err
		}
	}
	return nil
}

func validIndexName(name string) error {
	if name == "" {
		return fmt.Errorf("empty index name: %w", ErrInvalid)
	}
	if len(name) > MaxIndexName {
		return fmt.Errorf("index name of %d bytes, at most %d: %w", len(name), MaxIndexName, ErrTooLarge)
	}
	return nil
}

func (f IndexField) validate() error {
	switch f.Type {
	case IndexAny, IndexString:
	case IndexNumber, IndexBool, IndexTime:
		if f.Fold {
			return fmt.Errorf("index path %q: a %s has no case to fold: %w", f.Path, f.Type, ErrInvalid)
		}
	default:
		return fmt.Errorf("index path %q: unknown type %q: %w", f.Path, f.Type, ErrInvalid)
	}
	return validPath(f.Path)
}

// validPath accepts the plain part of gjson's syntax. Wildcards, queries,
// modifiers and the like are refused: what they yield is not promised to stay
// the same from one version of gjson to the next, and an index must be the same
// on every replica.
func validPath(path string) error {
	bad := func(why string) error {
		return fmt.Errorf("index path %q: %s: %w", path, why, ErrInvalid)
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

// Encode appends the definition as JSON, without its name, and returns it:
//
//	{"prefix":base64,"fields":[{"path":string,"type":string,"descending":true,"fold":true}],"func":string,"unique":true}
//
// with what is zero left out, and in strings a backslash before " and \, and
// \u00XX for what is below a space. The prefix is base64 because keys are any
// bytes. There is one form of each definition, so that equal states have equal
// bytes; it is spelled out here because encoding/json has changed its escapes
// from one version of Go to the next (1.22). The definition must be valid.
func (d IndexDefinition) Encode(dst []byte) []byte {
	o := object{append(dst, '{')}
	if d.Prefix != "" {
		o.name("prefix")
		o.b = append(o.b, '"')
		o.b = base64.StdEncoding.AppendEncode(o.b, []byte(d.Prefix))
		o.b = append(o.b, '"')
	}
	if len(d.Fields) > 0 {
		o.name("fields")
		for i, f := range d.Fields {
			o.b = append(o.b, ",["[min(i, 1)^1], '{')
			o.string("path", f.Path)
			o.string("type", string(f.Type))
			o.flag("descending", f.Descending)
			o.flag("fold", f.Fold)
			o.b = append(o.b, '}')
		}
		o.b = append(o.b, ']')
	}
	o.string("func", d.Func)
	o.flag("unique", d.Unique)
	return append(o.b, '}')
}

// object writes the members of a JSON object that are not zero.
type object struct{ b []byte }

func (o *object) name(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.quote(name)
	o.b = append(o.b, ':')
}

func (o *object) string(name, s string) {
	if s != "" {
		o.name(name)
		o.quote(s)
	}
}

func (o *object) flag(name string, set bool) {
	if set {
		o.name(name)
		o.b = append(o.b, "true"...)
	}
}

func (o *object) quote(s string) {
	o.b = append(o.b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"', c == '\\':
			o.b = append(o.b, '\\', c)
		case c < ' ':
			o.b = fmt.Appendf(o.b, `\u%04x`, c)
		default:
			o.b = append(o.b, c)
		}
	}
	o.b = append(o.b, '"')
}

// DecodeIndexDefinition decodes what Encode made, and nothing else. The error
// matches ErrMalformed, ErrInvalid or ErrTooLarge.
func DecodeIndexDefinition(name string, encoded []byte) (IndexDefinition, error) {
	var s struct {
		Prefix []byte
		Fields []IndexField
		Func   string
		Unique bool
	}
	if err := json.Unmarshal(encoded, &s); err != nil {
		return IndexDefinition{}, fmt.Errorf("definition of index %q: %w: %w", name, ErrMalformed, err)
	}
	d := IndexDefinition{Name: name, Prefix: string(s.Prefix), Fields: s.Fields, Func: s.Func, Unique: s.Unique}
	if err := d.Validate(); err != nil {
		return IndexDefinition{}, err
	}
	if string(d.Encode(nil)) != string(encoded) {
		return IndexDefinition{}, fmt.Errorf("definition of index %q is not in its one form: %w", name, ErrMalformed)
	}
	return d, nil
}

// IndexStatus is an index and how far it is.
type IndexStatus struct {
	IndexDefinition
	// Building: the index is being built, and queries are refused with
	// ErrNotReady. One that is unique is in the list while the operation that
	// creates it waits for it; its duplicates, if any, are not known yet.
	Building bool
	// Examined is the number of keys that building has looked at, of at most
	// Keys, those of the group. Neither means anything after it.
	Examined, Keys int
	// Entries in the index.
	Entries int
	// Skipped is the number of pairs under the prefix that are older than the
	// index and cannot be in it.
	Skipped int
}
