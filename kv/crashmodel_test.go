package kv_test

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
	"pgregory.net/rapid"
)

// mixedRun is a store on a disk that forgets, beside all the states that it has
// had.
type mixedRun struct {
	root string
	n    int // of directories
	opt  kv.Options
	rec  *crashtest.Recorder
	db   *kv.DB
	// moments are the states of all groups, the latest last; those before synced
	// are not to come back.
	moments []map[uint64]*model
	synced  int
	views   []*modelView
	txns    []*modelTxn
	// touched: for each group, the moment at which a key was last written or removed.
	touched map[uint64]map[string]int
	tally   *mixedTally
}

type mixedTally struct{ crashes, lost, committed, conflicts, queries int }

type modelView struct {
	kv.View
	group uint64
	want  *model
}

// modelTxn is an open transaction: what it began with, what it sees now, and what it
// has read.
type modelTxn struct {
	kv.Txn
	group        uint64
	before, sees *model
	moment       int
	writes       map[string]bool
	reads        []modelRead
}

// modelRead is what a transaction has asked: ask does it again, of another state;
// about reports whether a key could matter.
type modelRead struct {
	ask   func(m *model) any
	about func(key string) bool
}

func (r *mixedRun) now(group uint64) *model { return r.moments[len(r.moments)-1][group] }

// next begins a moment in which a group changes.
func (r *mixedRun) next(group uint64) *model {
	m := maps.Clone(r.moments[len(r.moments)-1])
	m[group] = m[group].clone()
	r.moments = append(r.moments, m)
	return m[group]
}

// touch notes which keys are others than at a moment, and those in ops: they may
// have been written as they were.
func (r *mixedRun) touch(group uint64, ops ...messages.Operation) {
	for _, op := range ops {
		if op.Txn != nil {
			r.touch(group, slices.Concat(op.Txn.Then, op.Txn.Else)...)
		} else {
			r.touched[group][string(op.Key)] = len(r.moments) - 1
		}
	}
}

func (r *mixedRun) open(t *rapid.T, dir string) {
	var err error
	if r.rec, err = crashtest.Record(dir); err != nil {
		t.Fatal(err)
	}
	opt := r.opt
	opt.Disk = r.rec
	if r.db, err = kv.Open(dir, opt); err != nil {
		t.Fatalf("open: %v", err)
	}
}

// crash has the store go on with what a power cut would leave now, one of all that
// it could.
func (r *mixedRun) crash(t *rapid.T) {
	r.rec.Look("crash")
	var images []*crashtest.Image
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "chance"), 0))
	r.rec.Images("crash", rng, 1, func(m *crashtest.Image) { images = append(images, m) })
	image := images[rng.IntN(len(images))]
	old := r.db
	r.views, r.txns = nil, nil
	r.n++
	dir := filepath.Join(r.root, strconv.Itoa(r.n))
	if err := errors.Join(r.rec.Err(), image.Write(dir)); err != nil {
		t.Fatal(err)
	}
	_ = old.Close() // it is gone: nobody looks at its directory any more
	r.open(t, dir)
	at := len(r.moments) - 1
	for ; at >= r.synced && !r.has(t, r.moments[at]); at-- {
	}
	if at < r.synced {
		for g, m := range r.moments[len(r.moments)-1] {
			i, term := r.db.Applied(g)
			t.Logf("group %d: at %d/%d, revision %d, %q; was at %d/%d, revision %d, %q, synced %d", g, i, term, r.db.Revision(g), scanAll(t, r.db, messages.Scan{Group: g}), m.index, m.term, m.revision, m.data, r.moments[r.synced][g].index)
		}
		t.Fatalf("%v: what is there has not been there since the last sync", image)
	}
	r.tally.crashes++
	r.tally.lost += len(r.moments) - 1 - at
	r.moments = []map[uint64]*model{r.moments[at]}
	r.synced = 0
	r.touched = map[uint64]map[string]int{}
	for g := range r.moments[0] {
		r.touched[g] = map[string]int{}
	}
}

// has compares the store with a moment.
func (r *mixedRun) has(t *rapid.T, moment map[uint64]*model) bool {
	for g, m := range moment {
		i, term := r.db.Applied(g)
		if i != m.index || term != m.term || r.db.Revision(g) != m.revision || r.db.Keys(g) != len(m.data) ||
			!reflect.DeepEqual(scanAll(t, r.db, messages.Scan{Group: g}), m.scan(messages.Scan{})) {
			return false
		}
		indexes := map[string]messages.IndexDefinition{}
		for _, x := range r.db.Indexes(g) {
			indexes[x.Name] = x.IndexDefinition
		}
		if !maps.EqualFunc(indexes, m.indexes, messages.IndexDefinition.Equal) {
			return false
		}
	}
	return true
}

// apply has the next entries carried out.
func (r *mixedRun) apply(t *rapid.T, group uint64, ops ...messages.Operation) []messages.Result {
	var entries []messages.Entry
	var want []messages.Result
	for _, op := range ops {
		m := r.next(group)
		want = append(want, m.apply(op))
		m.term = 1 + m.index/7
		r.touch(group, op)
		entries = append(entries, messages.Entry{Index: m.index, Term: m.term, Data: op.Encode(nil)})
	}
	got, err := r.db.Apply(group, entries)
	if err != nil {
		t.Fatal(err)
	}
	sameResults(t, got, want)
	return got
}

// commit carries writes and transactions out in one change.
func (r *mixedRun) commit(t *rapid.T, group uint64, list []kv.Change) {
	m := r.next(group)
	got, err := r.db.Commit(group, list)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range list {
		x := r.txnOf(c.Txn)
		if x == nil {
			sameResults(t, got[i:i+1], []messages.Result{m.write(c.Operation)})
			r.touch(group, c.Operation)
			continue
		}
		if err := r.expectConflict(x, m, got[i].Err); err != "" {
			t.Fatalf("%s: %+v", err, got[i].Err)
		}
		if r.close(t, x); errors.Is(got[i].Err, messages.ErrConflict) {
			continue
		}
		r.tally.committed++
		want := m.write(messages.TxnOperation(messages.Transaction{Then: x.operations()}))
		if got[i].Version != want.Version || (got[i].Err == nil) != (want.Err == nil) {
			t.Fatalf("commit: %+v, want %+v", got[i], want)
		}
		r.touch(group, x.operations()...)
	}
}

func (r *mixedRun) txnOf(txn kv.Txn) *modelTxn {
	for _, x := range r.txns {
		if txn != nil && x.Txn == txn {
			return x
		}
	}
	return nil
}

// expectConflict: a transaction whose reads would have another answer now must be
// refused, and one with nothing changed that it has read must not.
func (r *mixedRun) expectConflict(x *modelTxn, now *model, err error) string {
	must, may := false, false
	for _, read := range x.reads {
		must = must || !reflect.DeepEqual(read.ask(x.before), read.ask(now))
		for key, at := range r.touched[x.group] {
			may = may || at > x.moment && read.about(key)
		}
	}
	conflict := errors.Is(err, messages.ErrConflict)
	if conflict {
		r.tally.conflicts++
	}
	switch {
	case must && !conflict:
		return "it has read something else"
	case conflict && !may && !must:
		return "nothing has changed"
	}
	return ""
}

func (r *mixedRun) close(t *rapid.T, x *modelTxn) {
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	r.txns = slices.DeleteFunc(r.txns, func(o *modelTxn) bool { return o == x })
}

// operations are what it writes, of each key what it has come to.
func (x *modelTxn) operations() (ops []messages.Operation) {
	for _, key := range slices.Sorted(maps.Keys(x.writes)) {
		if value, ok := x.sees.data[key]; ok {
			ops = append(ops, put(key, value))
		} else {
			ops = append(ops, del(key))
		}
	}
	return ops
}

// read notes what the transaction has asked for, but for its own writes.
func (x *modelTxn) read(about func(key string) bool, ask func(m *model) any) {
	x.reads = append(x.reads, modelRead{ask, about})
}

// write does an operation in the transaction.
func (x *modelTxn) write(t *rapid.T, op messages.Operation) {
	key := string(op.Key)
	if op.Kind == messages.OpCompareAndSwap && !x.writes[key] {
		x.read(func(k string) bool { return k == key }, func(m *model) any { return m.versions[key] })
	}
	want := x.sees.run(op)
	got, err := x.Run(op)
	if err != nil || got.Swapped != want.Swapped || (got.Err == nil) != (want.Err == nil) || errors.Is(got.Err, messages.ErrNotJSON) != errors.Is(want.Err, messages.ErrNotJSON) {
		t.Fatalf("%v in a transaction: %+v, want %+v: %v", op, got, want, err)
	}
	if want.Err == nil && (op.Kind != messages.OpCompareAndSwap || want.Swapped) {
		x.writes[key] = true
	}
}

// look reads in one of three ways and compares with a model; read is told of it.
func (r *mixedRun) look(t *rapid.T, group uint64, src queries, get func(key []byte) ([]byte, uint64, error), m *model, read func(about func(string) bool, ask func(*model) any)) {
	from, to := anyKey.Draw(t, "from"), anyKey.Draw(t, "to")
	from, to = min(from, to), max(from, to)
	switch rapid.IntRange(0, 2).Draw(t, "read") {
	case 0:
		value, version, err := get([]byte(from))
		if want := m.data[from]; err != nil || string(value) != want || version != m.versions[from] {
			t.Fatalf("%q is %q %d, want %q %d: %v", from, value, version, want, m.versions[from], err)
		}
		read(func(k string) bool { return k == from }, func(m *model) any { return m.versions[from] })
	case 1:
		q := messages.Scan{Group: group, From: []byte(from), To: []byte(to), Limit: rapid.IntRange(0, 3).Draw(t, "limit"), Reverse: rapid.Bool().Draw(t, "reverse")}
		if got, want := scanAll(t, src, q), m.scan(q); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
		read(func(k string) bool { return k >= from && k < to }, func(m *model) any { return m.scan(q) })
	default:
		for _, name := range []string{"x", "y", "x\x00"} {
			q := messages.QueryIndex{Group: group, Name: name, Equal: anyScalar.Draw(t, "equal"), Reverse: rapid.Bool().Draw(t, "reverse")}
			if _, _, err := src.Query(q); errors.Is(err, messages.ErrNotFound) || errors.Is(err, messages.ErrNotReady) {
				continue
			}
			x := m.indexes[name]
			if got, want := queryAll(t, src, q), m.query(t, q); !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v: %q, want %q", q, got, want)
			}
			r.tally.queries++
			read(func(k string) bool { return strings.HasPrefix(k, x.Prefix) || k == "" }, func(m *model) any {
				if def, ok := m.indexes[name]; !ok || !def.Equal(x) {
					return nil // it was dropped, which is for the store to notice
				}
				return m.query(t, q)
			})
		}
	}
}

// readIn reads in a transaction. What that has written itself it has not read.
func (r *mixedRun) readIn(t *rapid.T, x *modelTxn) {
	r.look(t, x.group, x, x.Get, x.sees, func(about func(string) bool, ask func(*model) any) {
		own := maps.Clone(x.writes)
		x.read(about, func(m *model) any {
			m = m.clone()
			for k := range own {
				delete(m.data, k)
				delete(m.versions, k)
			}
			return ask(m)
		})
	})
}

// inTransaction are the operations that an open transaction can do.
var inTransaction = anySimple.Filter(func(op messages.Operation) bool {
	return op.Kind == messages.OpPut || op.Kind == messages.OpDelete || op.Kind == messages.OpCompareAndSwap
})

// Everything mixed: writes, entries of a log, views, interactive transactions that
// are committed directly and through the log, queries of indexes that are being
// built, compactions, imports; and again and again the store is cut off and goes on
// with one of all the things that a power cut could leave.
func TestStoreBehavesAsItsModelAcrossCrashes(t *testing.T) {
	root := memDir(t)
	total := &mixedTally{}
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		groups := []uint64{0, 300}
		r := &mixedRun{root: dir, tally: total, touched: map[uint64]map[string]int{}, moments: []map[uint64]*model{{}}, opt: kv.Options{
			CommitBytes:       int64(rapid.SampledFrom([]int{1, 60, 0}).Draw(t, "commit bytes")),
			IndexSliceKeys:    int64(rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "slice")),
			MaxGarbagePercent: 1, MinGarbageBytes: 1, MaintainBytes: 1}}
		for _, g := range groups {
			r.moments[0][g] = newModel()
			r.touched[g] = map[string]int{}
		}
		first := filepath.Join(dir, "0")
		if err := os.Mkdir(first, 0o755); err != nil {
			t.Fatal(err)
		}
		r.open(t, first)
		defer func() { r.db.Close() }()
		t.Repeat(r.steps(groups))
	})
	t.Logf("%+v", *total)
	if total.crashes == 0 || total.lost == 0 || total.committed == 0 || total.conflicts == 0 || total.queries == 0 {
		t.Errorf("too little has happened: %+v", *total)
	}
}

func (r *mixedRun) steps(groups []uint64) map[string]func(*rapid.T) {
	group := func(t *rapid.T) uint64 { return rapid.SampledFrom(groups).Draw(t, "group") }
	txn := func(t *rapid.T) *modelTxn {
		if len(r.txns) == 0 {
			t.Skip()
		}
		return rapid.SampledFrom(r.txns).Draw(t, "transaction")
	}
	done := func(t *rapid.T, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	steps := map[string]func(*rapid.T){
		"write": func(t *rapid.T) {
			g := group(t)
			var list []kv.Change
			for _, op := range rapid.SliceOfN(anyOperation, 1, 5).Draw(t, "operations") {
				list = append(list, kv.Change{Operation: op})
			}
			for _, x := range slices.Clone(r.txns) {
				if x.group == g && x.Writes() && rapid.Bool().Draw(t, "commit") {
					at := rapid.IntRange(0, len(list)).Draw(t, "at")
					list = slices.Insert(list, at, kv.Change{Txn: x.Txn})
				}
			}
			r.commit(t, g, list)
		},
		"apply": func(t *rapid.T) {
			r.apply(t, group(t), rapid.SliceOfN(anyOperation, 1, 6).Draw(t, "operations")...)
		},
		"begin": func(t *rapid.T) {
			g := group(t)
			x, err := r.db.Begin(g, false)
			done(t, err)
			m := r.now(g).clone()
			m.revision = math.MaxUint64
			open := &modelTxn{Txn: x, group: g, before: r.now(g), sees: m, moment: len(r.moments) - 1, writes: map[string]bool{}}
			r.txns = append(r.txns, open)
			for range rapid.IntRange(0, 3).Draw(t, "reads") {
				r.readIn(t, open)
			}
			open.write(t, inTransaction.Draw(t, "operation"))
		},
		"write in a transaction": func(t *rapid.T) { txn(t).write(t, inTransaction.Draw(t, "operation")) },
		"read in a transaction": func(t *rapid.T) {
			x := txn(t)
			r.readIn(t, x)
		},
		"commit": func(t *rapid.T) {
			x := txn(t)
			if !x.Writes() {
				r.close(t, x)
				return
			}
			if rapid.Bool().Draw(t, "direct") {
				r.commit(t, x.group, []kv.Change{{Txn: x.Txn}})
				return
			}
			op, err := x.Prepare()
			if err := r.expectConflict(x, r.now(x.group), err); err != "" {
				t.Fatal(err)
			}
			if r.close(t, x); err != nil {
				return
			}
			if res := r.apply(t, x.group, op)[0]; !res.Succeeded {
				t.Fatalf("a conflict, and nothing has happened since it was prepared: %+v", res)
			}
			r.tally.committed++
		},
		"open view": func(t *rapid.T) {
			g := group(t)
			v, err := r.db.OpenView(g)
			done(t, err)
			r.views = append(r.views, &modelView{v, g, r.now(g)})
		},
		"read a view": func(t *rapid.T) {
			if len(r.views) == 0 {
				t.Skip()
			}
			v := rapid.SampledFrom(r.views).Draw(t, "view")
			r.look(t, v.group, v, v.Get, v.want, func(func(string) bool, func(*model) any) {})
		},
		"read": func(t *rapid.T) {
			g := group(t)
			r.look(t, g, r.db, func(key []byte) ([]byte, uint64, error) { return r.db.Get(g, key) }, r.now(g), func(func(string) bool, func(*model) any) {})
		},
		"import": func(t *rapid.T) {
			from, to := group(t), group(t)
			m := r.now(from).clone()
			im, err := r.db.BeginImport(to, m.index, m.term)
			done(t, err)
			_, err = im.Write(export(t, r.db, from))
			done(t, err)
			if rapid.IntRange(0, 3).Draw(t, "not finished") == 0 {
				r.crash(t)
				return
			}
			_, err = im.Finish()
			done(t, err)
			*r.next(to) = *m
			r.synced = len(r.moments) - 1
			for _, x := range slices.Clone(r.txns) {
				if x.group == to {
					if _, _, err := x.Get([]byte("a")); !errors.Is(err, messages.ErrExpired) {
						t.Fatal(err)
					}
					r.close(t, x)
				}
			}
			r.views = slices.DeleteFunc(r.views, func(v *modelView) bool {
				if v.group != to {
					return false
				}
				_, _, err := v.Get([]byte("a"))
				return errors.Is(err, messages.ErrExpired) && v.Close() == nil
			})
		},
		"sync": func(t *rapid.T) {
			done(t, r.db.Sync())
			r.synced = len(r.moments) - 1
		},
		"maintain": func(t *rapid.T) {
			_, err := r.db.Maintain()
			done(t, err)
		},
		"compact": func(t *rapid.T) {
			_, _, err := r.db.Compact()
			done(t, err)
		},
		"maintain indexes": func(t *rapid.T) { done(t, r.db.MaintainIndexes()) },
		"crash": func(t *rapid.T) {
			if rapid.Bool().Draw(t, "crash") {
				r.crash(t)
			}
		},
		"": func(t *rapid.T) {
			if !r.has(t, r.moments[len(r.moments)-1]) {
				t.Fatalf("the store is not what it should be")
			}
		},
	}
	for _, often := range []string{"begin", "commit", "write"} {
		steps[often+" again"] = steps[often]
	}
	return steps
}
