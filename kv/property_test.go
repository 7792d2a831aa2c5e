package kv_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// model is what one group should hold.
type model struct {
	data     map[string]string
	versions map[string]uint64
	indexes  map[string]messages.IndexDefinition
	index    uint64
	term     uint64
	revision uint64
}

func newModel() *model {
	return &model{data: map[string]string{}, versions: map[string]uint64{}, indexes: map[string]messages.IndexDefinition{}}
}

func (m *model) clone() *model {
	c := *m
	c.data, c.versions, c.indexes = maps.Clone(m.data), maps.Clone(m.versions), maps.Clone(m.indexes)
	return &c
}

// write is a direct change, apply that of the next entry.
func (m *model) write(op messages.Operation) messages.Result {
	m.revision++
	res := m.run(op)
	if res.Version != m.revision {
		m.revision--
	}
	return res
}

func (m *model) apply(op messages.Operation) messages.Result {
	m.index++
	m.revision = max(m.index, m.revision+1)
	return m.run(op)
}

// run does to the model what the store should do, in the plainest way.
func (m *model) run(op messages.Operation) messages.Result {
	if err := op.Validate(); err != nil {
		return messages.Result{Err: err}
	}
	covered := func(key string) bool {
		for _, x := range m.indexes {
			if strings.HasPrefix(key, x.Prefix) {
				return true
			}
		}
		return false
	}
	key := string(op.Key)
	old, found := m.data[key]
	res := messages.Result{Existed: found}
	switch op.Kind {
	case messages.OpTxn:
		return m.transact(op.Txn)
	case messages.OpGet:
		if found {
			res.Value, res.Version = []byte(old), m.versions[key]
		}
	case messages.OpPut, messages.OpCompareAndSwap:
		if op.Kind == messages.OpCompareAndSwap && (found != (op.Expect != nil) || old != string(op.Expect)) {
			return res
		}
		if covered(key) && !json.Valid(op.Value) {
			res.Err = messages.ErrNotJSON
			return res
		}
		m.data[key], m.versions[key], res.Version = string(op.Value), m.revision, m.revision
		res.Swapped = op.Kind == messages.OpCompareAndSwap
	case messages.OpDelete:
		delete(m.data, key)
		delete(m.versions, key)
		if found {
			res.Version = m.revision
		}
	case messages.OpCreateIndex:
		if x, ok := m.indexes[op.Index.Name]; ok {
			if !x.Equal(op.Index) {
				return messages.Result{Existed: true, Err: messages.ErrConflict}
			}
			return messages.Result{Existed: true}
		}
		m.indexes[op.Index.Name] = op.Index
		res = messages.Result{Version: m.revision}
	case messages.OpDropIndex:
		if _, ok := m.indexes[op.Index.Name]; !ok {
			return messages.Result{Err: messages.ErrNotFound}
		}
		delete(m.indexes, op.Index.Name)
		return messages.Result{Existed: true, Version: m.revision}
	}
	return res
}

func (m *model) transact(txn *messages.Transaction) messages.Result {
	res := messages.Result{Succeeded: true}
	for _, c := range txn.If {
		res.Succeeded = res.Succeeded && m.holds(c)
	}
	ops := txn.Then
	if !res.Succeeded {
		ops = txn.Else
	}
	before := m.clone()
	for _, op := range ops {
		r := m.run(op)
		if r.Err != nil {
			*m = *before
			return messages.Result{Succeeded: res.Succeeded, Err: r.Err}
		}
		if op.Kind != messages.OpGet && r.Version > 0 {
			res.Version = m.revision
		}
		res.Results = append(res.Results, r)
	}
	return res
}

func (m *model) holds(c messages.Compare) bool {
	if c.Target == messages.CompareRange {
		pairs := m.scan(messages.Scan{From: c.Key, To: c.To})
		return uint64(len(pairs)) == c.Count && !slices.ContainsFunc(pairs, func(p messages.Pair) bool { return p.Version > c.Version })
	}
	value, found := m.data[string(c.Key)]
	order := cmp.Compare(m.versions[string(c.Key)], c.Version)
	if c.Target == messages.CompareValue {
		order = cmp.Compare(value, string(c.Value))
		if !found {
			return false
		}
	}
	return map[messages.Relation]bool{messages.Equal: order == 0, messages.NotEqual: order != 0, messages.Less: order < 0, messages.Greater: order > 0}[c.Relation]
}

func (m *model) scan(q messages.Scan) (pairs []messages.Pair) {
	for _, k := range slices.Sorted(maps.Keys(m.data)) {
		if strings.HasPrefix(k, string(q.Prefix)) && k >= string(q.From) && (q.To == nil || k < string(q.To)) {
			pairs = append(pairs, messages.Pair{Key: []byte(k), Value: []byte(m.data[k]), Version: m.versions[k]})
		}
	}
	if q.Reverse {
		slices.Reverse(pairs)
	}
	return pairs
}

// rank and compareScalars order JSON scalars; a negative rank is no scalar.
func rank(v any) int {
	switch v := v.(type) {
	case nil:
		return 0
	case bool:
		if v {
			return 2
		}
		return 1
	case float64:
		return 3
	case string:
		return 4
	}
	return -1
}

func compareScalars(a, b any) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch a := a.(type) {
	case float64:
		return cmp.Compare(a, b.(float64))
	case string:
		return cmp.Compare(a, b.(string))
	}
	return 0
}

func decodeJSON(t *rapid.T, s string) (v any) {
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return v
}

func (m *model) query(t *rapid.T, q messages.QueryIndex) (pairs []messages.Pair) {
	x := m.indexes[q.Name]
	type found struct {
		v    any
		pair messages.Pair
	}
	var all []found
	for _, p := range m.scan(messages.Scan{Prefix: []byte(x.Prefix)}) {
		var doc map[string]any
		if json.Unmarshal(p.Value, &doc) != nil {
			continue // an older value that is not JSON is not in the index either
		}
		v, ok := doc[x.Fields[0].Path]
		if !ok || rank(v) < 0 {
			continue
		}
		if q.Equal != "" && compareScalars(v, decodeJSON(t, q.Equal)) != 0 ||
			q.Min != "" && compareScalars(v, decodeJSON(t, q.Min)) < 0 ||
			q.Max != "" && compareScalars(v, decodeJSON(t, q.Max)) > 0 {
			continue
		}
		all = append(all, found{v, p})
	}
	slices.SortStableFunc(all, func(a, b found) int { return compareScalars(a.v, b.v) })
	for _, f := range all {
		pairs = append(pairs, f.pair)
	}
	if q.Reverse {
		slices.Reverse(pairs)
	}
	return pairs
}

// readState decodes a state stream, independently of the package.
func readState(t *rapid.T, b []byte) *model {
	m := newModel()
	next := func(n int) []byte {
		if n > len(b) {
			t.Fatalf("the state is cut short")
		}
		p := b[:n]
		b = b[n:]
		return p
	}
	uvarint := func() (n int) {
		for shift := 0; ; shift += 7 {
			c := next(1)[0]
			n |= int(c&0x7f) << shift
			if c < 0x80 {
				return n
			}
		}
	}
	next(12)
	last := ""
	for {
		kind := next(1)[0]
		if kind == 4 {
			next(uvarint() + 4)
			continue
		}
		if kind == 3 {
			m.revision = binary.LittleEndian.Uint64(next(48)[16:])
			if len(b) > 0 {
				t.Fatalf("%d bytes after the end", len(b))
			}
			return m
		}
		key := string(next(uvarint()))
		if kind == 2 {
			m.versions[key] = uint64(uvarint())
		}
		value := next(uvarint())
		if order := string(kind) + key; order <= last {
			t.Fatalf("%q after %q", order, last)
		} else {
			last = order
		}
		if kind == 1 {
			var d struct {
				Fields []messages.IndexField
				Prefix []byte
			}
			if err := json.Unmarshal(value, &d); err != nil {
				t.Fatal(err)
			}
			m.indexes[key] = messages.IndexDefinition{Name: key, Fields: d.Fields, Prefix: string(d.Prefix)}
		} else {
			m.data[key] = string(value)
		}
	}
}

// sameState compares what a State finds in a stream with the model.
func sameState(t *rapid.T, b []byte, m *model) {
	s, err := kv.OpenState(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		key := anyKey.Draw(t, "state key")
		value, version, err := s.Get([]byte(key))
		if want := m.data[key]; err != nil || version != m.versions[key] || string(value) != want {
			t.Fatalf("%q is %q %v %v, want %q %v", key, value, version, err, want, m.versions[key])
		}
	}
	q := messages.Scan{From: []byte(anyKey.Draw(t, "state from"))}
	if rapid.Bool().Draw(t, "state bounded") {
		q.To = []byte(anyKey.Draw(t, "state to"))
	}
	var got []messages.Pair
	for p, err := range s.Range(q.From, q.To) {
		if err != nil {
			if !errors.Is(err, messages.ErrInvalid) || bytes.Compare(q.From, q.To) <= 0 {
				t.Fatal(err)
			}
			return
		}
		got = append(got, p)
	}
	if want := m.scan(q); !reflect.DeepEqual(got, want) {
		t.Fatalf("%q to %q: %q, want %q", q.From, q.To, got, want)
	}
}

var (
	anyKey    = rapid.SampledFrom([]string{"a", "b", "a\x00", "a\xff", "a\x00b", "\x00", "\xff", "\xff\xff", "j/1", "j/2", "j/3", "j/\x00", "k", "l", "m", "h"})
	anyScalar = rapid.SampledFrom([]string{"null", "true", "false", "0", "-1", "1", "1.5", "10", "-1e300", `""`, `"a"`, `"a\u0000"`, `"ab"`, `"b"`, `"é"`})
	anyValue  = rapid.OneOf(
		rapid.Map(anyScalar, func(s string) string { return `{"v":` + s + `}` }),
		rapid.Map(anyScalar, func(s string) string { return `{"w":[],"v":` + s + `,"u":{}}` }),
		rapid.SampledFrom([]string{"", "x", "{}", `{"v":[1]}`, `{"v":{}}`, "1", "[1]", "\x00\r\n", `{"v":1}{`}),
	)
	anyRelation = rapid.SampledFrom([]messages.Relation{messages.Equal, messages.NotEqual, messages.Less, messages.Greater})
	anyCompare  = rapid.Custom(func(t *rapid.T) messages.Compare {
		key, version := []byte(anyKey.Draw(t, "key")), rapid.Uint64Range(0, 60).Draw(t, "version")
		switch rapid.IntRange(0, 4).Draw(t, "target") {
		case 0:
			return messages.ValueIs(key, anyRelation.Draw(t, "relation"), []byte(anyValue.Draw(t, "value")))
		case 1:
			return messages.VersionIs(key, anyRelation.Draw(t, "relation"), version)
		case 2:
			return messages.RangeUnchanged(key, append(key, '\xff'), rapid.Uint64Range(0, 2).Draw(t, "count"), version)
		case 3:
			return messages.Exists(key)
		}
		return messages.Missing(key)
	})
	anyOperation = rapid.Custom(func(t *rapid.T) messages.Operation {
		if rapid.IntRange(0, 4).Draw(t, "transaction") > 0 {
			return anySimple.Draw(t, "operation")
		}
		small := anySimple.Filter(func(op messages.Operation) bool {
			return op.Kind != messages.OpCreateIndex && op.Kind != messages.OpDropIndex
		})
		return messages.TxnOperation(messages.Transaction{
			If:   rapid.SliceOfN(anyCompare, 0, 2).Draw(t, "if"),
			Then: rapid.SliceOfN(small, 0, 4).Draw(t, "then"),
			Else: rapid.SliceOfN(small, 0, 2).Draw(t, "else"),
		})
	})
	anySimple = rapid.Custom(func(t *rapid.T) messages.Operation {
		key, value := anyKey.Draw(t, "key"), anyValue.Draw(t, "value")
		switch rapid.IntRange(0, 12).Draw(t, "kind") {
		case 12:
			return messages.GetOperation([]byte(key))
		case 0, 1:
			return del(key)
		case 2:
			return cas(key, nil, value)
		case 3, 4:
			expect := anyValue.Draw(t, "expect")
			return cas(key, &expect, value)
		case 5:
			return messages.CreateIndexOperation(messages.IndexDefinition{
				Name:   rapid.SampledFrom([]string{"x", "y", "x\x00"}).Draw(t, "name"),
				Fields: messages.Paths(rapid.SampledFrom([]string{"v", "w"}).Draw(t, "path")), Prefix: rapid.SampledFrom([]string{"j/", "j", "", "a\xff"}).Draw(t, "prefix")})
		case 6:
			return messages.DropIndexOperation(rapid.SampledFrom([]string{"x", "y", "x\x00"}).Draw(t, "name"))
		}
		return put(key, value)
	})
)

func sameResults(t *rapid.T, got, want []messages.Result) {
	if len(got) != len(want) {
		t.Fatalf("%d results, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Existed != want[i].Existed || got[i].Swapped != want[i].Swapped || got[i].Version != want[i].Version || got[i].Succeeded != want[i].Succeeded || !bytes.Equal(got[i].Value, want[i].Value) || (got[i].Value == nil) != (want[i].Value == nil) || (got[i].Err == nil) != (want[i].Err == nil) {
			t.Fatalf("result %d: %+v, want %+v", i, got[i], want[i])
		}
		sameResults(t, got[i].Results, want[i].Results)
		for _, target := range []error{messages.ErrNotJSON, messages.ErrConflict, messages.ErrNotFound, messages.ErrResultLost} {
			if errors.Is(got[i].Err, target) != errors.Is(want[i].Err, target) {
				t.Fatalf("result %d: %v, want %v", i, got[i].Err, want[i].Err)
			}
		}
	}
}

// Everything mixed, against the model.
func TestStoreBehavesAsItsModel(t *testing.T) {
	root := memDir(t)
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		opt := kv.Options{Disk: lazyDisk{}, CommitBytes: int64(rapid.SampledFrom([]int{1, 60, 0}).Draw(t, "commit bytes")),
			MaxGarbagePercent: 1, MinGarbageBytes: 1, MaintainBytes: 1}
		db, err := kv.Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { db.Close() }()
		groups := []uint64{0, 300}
		models := map[uint64]*model{}
		for _, g := range groups {
			models[g] = newModel()
		}
		type openExport struct {
			v     kv.Export
			group uint64
			read  []byte
			want  *model
		}
		var exports []*openExport
		type openView struct {
			kv.View
			group uint64
			want  *model
		}
		var views []*openView
		type openImport struct {
			im    kv.Import
			group uint64
			state []byte
			want  *model
		}
		var importing *openImport
		finish := func(v *openExport) {
			rest, err := io.ReadAll(v.v)
			if err != nil {
				t.Fatal(err)
			}
			got := readState(t, append(v.read, rest...))
			if !maps.Equal(got.data, v.want.data) || !maps.Equal(got.versions, v.want.versions) || got.revision != v.want.revision || !maps.EqualFunc(got.indexes, v.want.indexes, messages.IndexDefinition.Equal) {
				t.Fatalf("a view of group %d has\n%q %v\nwant\n%q %v", v.group, got.data, got.indexes, v.want.data, v.want.indexes)
			}
			sameState(t, append(v.read, rest...), v.want)
			if i, term := v.v.Index(); i != v.want.index || term != v.want.term || v.v.Revision() != v.want.revision {
				t.Fatalf("a view at %d/%d, want %d/%d", i, term, v.want.index, v.want.term)
			}
			if err := v.v.Close(); err != nil {
				t.Fatal(err)
			}
		}
		group := func() (uint64, *model) {
			g := rapid.SampledFrom(groups).Draw(t, "group")
			return g, models[g]
		}
		// data is that of a group, now or in a view.
		data := func() (uint64, *model, reader) {
			if len(views) > 0 && rapid.Bool().Draw(t, "in a view") {
				v := rapid.SampledFrom(views).Draw(t, "view")
				return v.group, v.want, reader{v, v.Get, v.MultiGet}
			}
			g, m := group()
			return g, m, reader{db, func(key []byte) ([]byte, uint64, error) { return db.Get(g, key) },
				func(keys [][]byte) ([][]byte, []uint64, error) { return db.MultiGet(g, keys) }}
		}
		closeView := func(i int) {
			if err := views[i].Close(); err != nil {
				t.Fatal(err)
			}
			views = slices.Delete(views, i, i+1)
		}
		ops := func() []messages.Operation { return rapid.SliceOfN(anyOperation, 1, 6).Draw(t, "operations") }
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				g, m := group()
				var want []messages.Result
				list := ops()
				for _, op := range list {
					want = append(want, m.write(op))
				}
				got, err := db.Write(g, list)
				if err != nil {
					t.Fatal(err)
				}
				sameResults(t, got, want)
			},
			"apply": func(t *rapid.T) {
				g, m := group()
				again := min(m.index, uint64(rapid.IntRange(0, 2).Draw(t, "again")))
				var entries []messages.Entry
				var want []messages.Result
				for i := range again {
					entries = append(entries, messages.Entry{Index: m.index - again + 1 + i, Term: 1, Data: put("x", "wrong").Encode(nil)})
					want = append(want, messages.Result{Err: messages.ErrResultLost})
				}
				for _, op := range ops() {
					want = append(want, m.apply(op))
					m.term = 1 + m.index/7
					entries = append(entries, messages.Entry{Index: m.index, Term: m.term, Data: op.Encode(nil)})
				}
				got, err := db.Apply(g, entries)
				if err != nil {
					t.Fatal(err)
				}
				sameResults(t, got, want)
			},
			"scan": func(t *rapid.T) {
				g, m, src := data()
				q := messages.Scan{Group: g, Limit: rapid.IntRange(0, 4).Draw(t, "limit"), MaxBytes: rapid.SampledFrom([]int{0, 1, 20}).Draw(t, "bytes"), Reverse: rapid.Bool().Draw(t, "reverse")}
				from, to := anyKey.Draw(t, "from"), anyKey.Draw(t, "to")
				if rapid.Bool().Draw(t, "prefix") {
					q.Prefix = []byte(from)
				} else if from <= to {
					q.From, q.To = []byte(from), []byte(to)
				}
				want := m.scan(q)
				if got := scanAll(t, src, q); !reflect.DeepEqual(got, want) {
					t.Fatalf("%q, want %q", got, want)
				}
				if n := countAll(t, src, q); n != len(want) {
					t.Fatalf("%d keys are counted, want %d", n, len(want))
				}
				keys := [][]byte{[]byte(from), []byte(to)}
				values, versions, err := src.multiGet(keys)
				if err != nil {
					t.Fatal(err)
				}
				for i, k := range keys {
					value, version, err := src.get(k)
					want, found := m.data[string(k)]
					if err != nil || string(value) != want || (value != nil) != found || version != m.versions[string(k)] || !bytes.Equal(values[i], value) || versions[i] != version {
						t.Fatalf("%q is %q %d, and %q %d, want %q %d: %v", k, value, version, values[i], versions[i], want, m.versions[string(k)], err)
					}
				}
			},
			"query": func(t *rapid.T) {
				g, m, src := data()
				for _, name := range []string{"x", "y", "x\x00"} {
					q := messages.QueryIndex{Group: g, Name: name, Limit: rapid.IntRange(0, 4).Draw(t, "limit"), Reverse: rapid.Bool().Draw(t, "reverse")}
					if _, ok := m.indexes[name]; !ok {
						if _, _, err := src.Query(q); !errors.Is(err, messages.ErrNotFound) {
							t.Fatal(err)
						}
						continue
					}
					a, b := anyScalar.Draw(t, "min"), anyScalar.Draw(t, "max")
					switch rapid.IntRange(0, 3).Draw(t, "bounds") {
					case 0:
						q.Equal = a
					case 1:
						q.Min = a
					case 2:
						q.Max = b
						if compareScalars(decodeJSON(t, a), decodeJSON(t, b)) <= 0 {
							q.Min = a
						}
					}
					if got, want := queryAll(t, src, q), m.query(t, q); !reflect.DeepEqual(got, want) {
						t.Fatalf("%+v: %q, want %q", q, got, want)
					}
				}
			},
			"open export": func(t *rapid.T) {
				g, m := group()
				v, err := db.OpenExport(g)
				if err != nil {
					t.Fatal(err)
				}
				exports = append(exports, &openExport{v: v, group: g, want: m.clone()})
			},
			"read export": func(t *rapid.T) {
				if len(exports) == 0 {
					t.Skip()
				}
				v := rapid.SampledFrom(exports).Draw(t, "view")
				p := make([]byte, rapid.IntRange(1, 60).Draw(t, "bytes"))
				n, err := v.v.Read(p)
				if err != nil && err != io.EOF {
					t.Fatal(err)
				}
				v.read = append(v.read, p[:n]...)
			},
			"finish export": func(t *rapid.T) {
				if len(exports) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(exports)-1).Draw(t, "view")
				finish(exports[i])
				exports = slices.Delete(exports, i, i+1)
			},
			"begin import": func(t *rapid.T) {
				if importing != nil {
					return
				}
				from, m := group()
				to, _ := group()
				im, err := db.BeginImport(to, m.index, m.term)
				if err != nil {
					t.Fatal(err)
				}
				importing = &openImport{im, to, export(t, db, from), m.clone()}
				half := len(importing.state) / 2
				if _, err := im.Write(importing.state[:half]); err != nil {
					t.Fatal(err)
				}
			},
			"end import": func(t *rapid.T) {
				i := importing
				if importing = nil; i == nil {
					return
				}
				if rapid.IntRange(0, 3).Draw(t, "abort") == 0 {
					if err := i.im.Abort(); err != nil {
						t.Fatal(err)
					}
					return
				}
				if _, err := i.im.Write(i.state[len(i.state)/2:]); err != nil {
					t.Fatal(err)
				}
				if n, err := i.im.Finish(); err != nil || n != len(i.want.data) {
					t.Fatal(n, err)
				}
				models[i.group] = i.want
				exports = slices.DeleteFunc(exports, func(v *openExport) bool {
					if v.group != i.group {
						return false
					}
					if _, err := io.Copy(io.Discard, v.v); err != nil && !errors.Is(err, messages.ErrExpired) {
						t.Fatal(err)
					}
					return true
				})
				for at := len(views) - 1; at >= 0; at-- {
					if views[at].group == i.group {
						if _, _, err := views[at].Get([]byte("a")); !errors.Is(err, messages.ErrExpired) {
							t.Fatal(err)
						}
						closeView(at)
					}
				}
				if !bytes.Equal(export(t, db, i.group), i.state) {
					t.Fatal("the imported state is exported with other bytes")
				}
			},
			"open view": func(t *rapid.T) {
				g, m := group()
				v, err := db.OpenView(g)
				if err != nil {
					t.Fatal(err)
				}
				if i, term := v.Index(); i != m.index || term != m.term || v.Revision() != m.revision {
					t.Fatal(i, term, v.Revision())
				}
				views = append(views, &openView{v, g, m.clone()})
			},
			"close view": func(t *rapid.T) {
				if len(views) == 0 {
					t.Skip()
				}
				closeView(rapid.IntRange(0, len(views)-1).Draw(t, "view"))
			},
			"maintain": func(t *rapid.T) {
				if _, err := db.Maintain(); err != nil {
					t.Fatal(err)
				}
			},
			"compact": func(t *rapid.T) {
				if _, _, err := db.Compact(); err != nil {
					t.Fatal(err)
				}
			},
			"reopen": func(t *rapid.T) {
				for _, v := range exports {
					finish(v)
				}
				exports, views = nil, nil
				if importing != nil {
					if err := importing.im.Abort(); err != nil {
						t.Fatal(err)
					}
					importing = nil
				}
				bytes, live := db.Size()
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				if db, err = kv.Open(dir, opt); err != nil {
					t.Fatal(err)
				}
				// The position of a group that was emptied by an import is not in a new
				// generation, and was counted before.
				if b, l := db.Size(); b != bytes || l > live || live-l > 19*3 {
					t.Fatalf("%d of %d bytes are live, they were %d of %d", l, b, live, bytes)
				}
			},
			"": func(t *rapid.T) {
				for g, m := range models {
					if i, term := db.Applied(g); i != m.index || term != m.term || db.Revision(g) != m.revision || db.Keys(g) != len(m.data) || len(db.Indexes(g)) != len(m.indexes) {
						t.Fatalf("group %d: applied %d/%d, %d keys; want %d/%d, %d", g, i, term, db.Keys(g), m.index, m.term, len(m.data))
					}
				}
			},
		})
	})
}
