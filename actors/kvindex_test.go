package actors_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// slow is a store whose slices of a unique index wait for somebody.
type slow struct {
	kv.Store
	slices chan struct{}
	n      *atomic.Int64
}

func (s *slow) Prepare(group uint64, op messages.Operation) (bool, error) {
	<-s.slices
	s.n.Add(1)
	return s.Store.Prepare(group, op)
}

// newSlowKV has an actor with 300 pairs in group 1, which take three slices.
func newSlowKV(t *testing.T, replicated bool) (*actorRig, chan struct{}, *atomic.Int64) {
	slices, n := make(chan struct{}, 1000), new(atomic.Int64)
	r := newActorRig(t, func(engine *actor.Engine, r *actorRig) (*actors.Host, error) {
		a, err := actors.SpawnKV(engine, actors.KVConfig{
			Config: actors.Config{Name: "test", ID: "kv", Restart: actors.RestartPolicy{MinBackoff: time.Millisecond}}, Replicated: replicated,
			Open: func() (kv.Store, error) {
				db, err := kv.Open(r.dir, kv.Options{Disk: r.disk})
				return &slow{db, slices, n}, err
			},
		})
		return a.Host, err
	})
	var all []messages.Entry
	for i := range 300 {
		all = append(all, messages.Entry{Index: uint64(i + 1), Term: 1,
			Data: messages.PutOperation(fmt.Append(nil, "k", i), fmt.Appendf(nil, `{"n":%d}`, i)).Encode(nil)})
	}
	must[messages.Applied](r, messages.Apply{Group: 1, Entries: all})
	return r, slices, n
}

// begin asks without waiting for the answer.
func begin[R messages.Reply](r *actorRig, c messages.Command) chan R {
	answer := make(chan R, 1)
	call := actors.Ask[R]
	go func() {
		reply, _ := call(context.Background(), r.asker, r.host.PID(), c)
		answer <- reply
	}()
	return answer
}

// waiting has the actor take up everything that was sent.
func waiting(r *actorRig, n int) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for r.host.Status().Queued < n {
		if time.Now().After(deadline) {
			r.t.Fatalf("%+v", r.host.Status())
		}
		must[messages.Got](r, messages.Get{Group: 9, Key: []byte("k")})
	}
}

var uniqueN = messages.IndexDefinition{Name: "n", Fields: messages.Paths("n"), Unique: true}

func indexEntry(index uint64, op messages.Operation) messages.Entry {
	return messages.Entry{Index: index, Term: 1, Data: op.Encode(nil)}
}

// While a unique index is built, the entries of its group wait for it, and
// everybody else is served.
func TestUniqueIndexHoldsItsGroup(t *testing.T) {
	r, slices, _ := newSlowKV(t, true)
	defer r.close()
	first := begin[messages.Applied](r, messages.Apply{Group: 1, Entries: []messages.Entry{
		indexEntry(301, messages.PutOperation([]byte("a"), []byte(`{"n":"a"}`))),
		indexEntry(302, messages.CreateIndexOperation(uniqueN)),
		indexEntry(303, messages.PutOperation([]byte("b"), []byte(`{"n":7}`))),
	}})
	waiting(r, 1)
	second := begin[messages.Applied](r, messages.Apply{Group: 1, Entries: []messages.Entry{indexEntry(304, messages.PutOperation([]byte("b"), []byte(`{"n":"b"}`)))}})
	waiting(r, 2)

	if a := must[messages.AppliedRead](r, messages.ReadApplied{Group: 1}); a.Index != 301 {
		t.Errorf("%+v", a)
	}
	if g := must[messages.Got](r, messages.Get{Group: 1, Key: []byte("a")}); string(g.Value) != `{"n":"a"}` {
		t.Errorf("%+v", g)
	}
	must[messages.Applied](r, messages.Apply{Group: 2, Entries: []messages.Entry{indexEntry(1, messages.PutOperation([]byte("x"), nil))}})
	slices <- struct{}{}
	for deadline := time.Now().Add(10 * time.Second); ; {
		l := must[messages.IndexesListed](r, messages.ListIndexes{Group: 1})
		if len(l.Indexes) == 1 && l.Indexes[0].Building && l.Indexes[0].Examined == 128 && l.Indexes[0].Keys == 301 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", l)
		}
	}
	select {
	case a := <-first:
		t.Fatalf("%+v", a)
	case a := <-second:
		t.Fatalf("%+v", a)
	default:
	}
	close(slices)
	a := <-first
	var dup *messages.NotUniqueError
	if a.Err != nil || a.Index != 303 || len(a.Results) != 3 || a.Results[1].Err != nil || !errors.As(a.Results[2].Err, &dup) || string(dup.Other) != "k7" {
		t.Errorf("%+v", a)
	}
	if b := <-second; b.Err != nil || b.Index != 304 || b.Results[0].Err != nil {
		t.Errorf("%+v", b)
	}
	if q := must[messages.IndexQueried](r, messages.QueryIndex{Group: 1, Name: "n", Count: true}); q.Count != 302 || q.Pairs != nil {
		t.Errorf("%+v", q)
	}
}

// A crash and a stop in the middle of it: the entry was not applied, and can be
// applied again.
func TestUniqueIndexIsGivenUp(t *testing.T) {
	create := messages.Apply{Group: 1, Entries: []messages.Entry{indexEntry(301, messages.CreateIndexOperation(uniqueN))}}
	behind := messages.Apply{Group: 1, Entries: []messages.Entry{indexEntry(302, messages.PutOperation([]byte("b"), []byte(`{"n":7}`)))}}
	for name, end := range map[string]struct {
		how  func(r *actorRig)
		want []error
	}{
		"crash": {func(r *actorRig) { r.host.Crash(errors.New("on purpose")) }, []error{messages.ErrCrashed, messages.ErrOutOfOrder}},
		"stop": {func(r *actorRig) {
			go func() { _ = r.host.Stop(context.Background()) }() // close waits for it
		}, []error{messages.ErrStopped, messages.ErrStopped}},
	} {
		t.Run(name, func(t *testing.T) {
			r, slices, _ := newSlowKV(t, true)
			defer r.close()
			first := begin[messages.Applied](r, create)
			waiting(r, 1)
			second := begin[messages.Applied](r, behind)
			waiting(r, 2)
			end.how(r)
			if a := <-first; !errors.Is(a.Err, end.want[0]) {
				t.Errorf("%v, want %v", a.Err, end.want[0])
			}
			if a := <-second; !errors.Is(a.Err, end.want[1]) {
				t.Errorf("%v, want %v", a.Err, end.want[1])
			}
			close(slices) // for the slice that nobody waits for any more
			if name == "stop" {
				return
			}
			for deadline := time.Now().Add(10 * time.Second); ; {
				a, err := do[messages.Applied](r, create)
				if err == nil && a.Results[0].Err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(a, err)
				}
			}
			if a := must[messages.Applied](r, behind); !errors.Is(a.Results[0].Err, messages.ErrNotUnique) {
				t.Errorf("%+v", a)
			}
		})
	}
}

// Direct writes of the group wait likewise, in their order.
func TestUniqueIndexDirectly(t *testing.T) {
	r, slices, n := newSlowKV(t, false)
	defer r.close()
	putN := func(key string, n int) messages.Put {
		return messages.Put{Group: 1, Key: []byte(key), Value: fmt.Appendf(nil, `{"n":%d}`, n)}
	}
	txn := must[messages.Begun](r, messages.Begin{Group: 1}).Txn
	inTxn := putN("txn", 2000)
	inTxn.Txn = txn
	must[messages.PutDone](r, inTxn)
	dup := begin[messages.IndexCreated](r, messages.CreateIndex{Group: 1, Definition: messages.IndexDefinition{Name: "len", Func: "unknown", Unique: true}})
	waiting(r, 1)
	first := begin[messages.IndexCreated](r, messages.CreateIndex{Group: 1, Definition: uniqueN})
	waiting(r, 2)
	second := begin[messages.PutDone](r, putN("b", 7))
	waiting(r, 3)
	third := begin[messages.PutDone](r, putN("b", 1000))
	waiting(r, 4)
	commit := begin[messages.Committed](r, messages.Commit{Group: 1, Txn: txn})
	waiting(r, 5)
	must[messages.PutDone](r, messages.Put{Group: 2, Key: []byte("x")})
	close(slices)
	if a := <-dup; !errors.Is(a.Err, messages.ErrInvalid) {
		t.Errorf("%+v", a)
	}
	if a := <-first; a.Err != nil {
		t.Errorf("%+v", a)
	}
	if a := <-second; !errors.Is(a.Err, messages.ErrNotUnique) {
		t.Errorf("%+v", a)
	}
	if a := <-third; a.Err != nil {
		t.Errorf("%+v", a)
	}
	if a := <-commit; a.Err != nil {
		t.Errorf("%+v", a)
	}
	if n.Load() != 1+3 {
		t.Errorf("%d slices, of which one says that there is no such function", n.Load())
	}
}

// An index that need not be unique is built beside everything else, also after a
// crash and a start.
func TestIndexIsBuiltInTheBackground(t *testing.T) {
	r, _, _ := newSlowKV(t, true)
	defer r.close()
	def := uniqueN
	def.Unique = false
	var more []messages.Entry
	for i := range uint64(700) { // so that there is more to do than a slice for each reason to look
		more = append(more, indexEntry(301+i, messages.PutOperation(fmt.Append(nil, "m", i), []byte(`{"n":-1}`))))
	}
	must[messages.Applied](r, messages.Apply{Group: 1, Entries: more})
	must[messages.Applied](r, messages.Apply{Group: 1, Entries: []messages.Entry{indexEntry(1001, messages.CreateIndexOperation(def))}})
	r.host.Crash(errors.New("on purpose"))
	for deadline := time.Now().Add(10 * time.Second); ; {
		q, err := do[messages.IndexQueried](r, messages.QueryIndex{Group: 1, Name: "n", Min: "290"})
		if err == nil && len(q.Pairs) == 10 {
			break
		}
		if err == nil || !errors.Is(err, messages.ErrNotReady) && !errors.Is(err, messages.ErrNotFound) && !errors.Is(err, messages.ErrCrashed) || time.Now().After(deadline) {
			t.Fatal(q, err)
		}
	}
	if a, err := do[messages.Applied](r, messages.Apply{Group: 1, Entries: []messages.Entry{indexEntry(1002, messages.DropIndexOperation("n"))}}); err != nil || a.Results[0].Err != nil {
		t.Errorf("%+v %v", a, err)
	}
}
