package actors_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// A transaction by its commands, and what becomes of one that is over.
func TestTxnCommands(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	a, b := []byte("a"), []byte("b")
	must[messages.PutDone](r, messages.Put{Key: a, Value: []byte("1")})
	x := must[messages.Begun](r, messages.Begin{})
	if x.Revision != 1 {
		t.Errorf("%+v", x)
	}
	if g := must[messages.Got](r, messages.Get{Txn: x.Txn, Key: a}); string(g.Value) != "1" || g.Version != 1 {
		t.Errorf("%+v", g)
	}
	must[messages.PutDone](r, messages.Put{Txn: x.Txn, Key: b, Value: []byte("2")})
	must[messages.Deleted](r, messages.Delete{Txn: x.Txn, Key: []byte("none")})
	if c := must[messages.ComparedAndSwapped](r, messages.CompareAndSwap{Txn: x.Txn, Key: a, Expect: []byte("1"), Value: []byte("3")}); !c.Swapped || c.Version != 0 {
		t.Errorf("%+v", c)
	}
	if s := must[messages.Scanned](r, messages.Scan{Txn: x.Txn}); s.Count != 2 || string(s.Pairs[0].Value) != "3" {
		t.Errorf("%+v", s)
	}
	if s := must[messages.Scanned](r, messages.Scan{Count: true}); s.Count != 1 {
		t.Errorf("others see %+v", s)
	}
	view := must[messages.ViewOpened](r, messages.OpenView{}).View
	if _, err := do[messages.Got](r, messages.Get{Txn: x.Txn, View: view, Key: a}); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
	if c := must[messages.Committed](r, messages.Commit{Txn: x.Txn}); c.Version != 2 {
		t.Errorf("%+v", c)
	}
	y := must[messages.Begun](r, messages.Begin{})
	if g := must[messages.Got](r, messages.Get{Txn: y.Txn, Key: a}); string(g.Value) != "3" || g.Version != 2 {
		t.Errorf("%+v", g)
	}
	must[messages.PutDone](r, messages.Put{Txn: y.Txn, Key: b, Value: []byte("4")})
	must[messages.PutDone](r, messages.Put{Key: a, Value: []byte("5")})
	if _, err := do[messages.Committed](r, messages.Commit{Txn: y.Txn}); !errors.Is(err, messages.ErrConflict) {
		t.Error(err)
	}
	z := must[messages.Begun](r, messages.Begin{ReadOnly: true})
	if _, err := do[messages.PutDone](r, messages.Put{Txn: z.Txn, Key: a}); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
	must[messages.PutDone](r, messages.Put{Key: a, Value: []byte("6")})
	if g := must[messages.Got](r, messages.Get{Txn: z.Txn, Key: a}); string(g.Value) != "5" {
		t.Errorf("%+v", g)
	}
	if c := must[messages.Committed](r, messages.Commit{Txn: z.Txn}); c.Version != z.Revision {
		t.Errorf("%+v", c)
	}
	// What is prepared can be applied elsewhere.
	p := must[messages.Begun](r, messages.Begin{})
	must[messages.Got](r, messages.Get{Txn: p.Txn, Key: b})
	must[messages.PutDone](r, messages.Put{Txn: p.Txn, Key: b, Value: []byte("7")})
	prepared := must[messages.CommitPrepared](r, messages.PrepareCommit{Txn: p.Txn})
	if op := prepared.Operation; op.Kind != messages.OpTxn || len(op.Txn.If) != 1 || op.Txn.If[0].Version != 2 || len(op.Txn.Then) != 1 {
		t.Errorf("%+v", op)
	}
	w := must[messages.Begun](r, messages.Begin{})
	must[messages.RolledBack](r, messages.Rollback{Txn: w.Txn})
	other := must[messages.Begun](r, messages.Begin{Group: 1})
	for i, c := range []messages.Command{messages.Commit{Txn: x.Txn}, messages.Rollback{Txn: w.Txn}, messages.Get{Txn: y.Txn, Key: a}, messages.Put{Txn: z.Txn, Key: a},
		messages.PrepareCommit{Txn: p.Txn}, messages.Commit{}, messages.Rollback{}, messages.Scan{Txn: other.Txn}} {
		if _, err := actors.Ask[messages.Reply](t.Context(), r.asker, r.host.PID(), c); !errors.Is(err, messages.ErrNotFound) {
			t.Errorf("%d, %T: %v", i, c, err)
		}
	}
	r.host.Crash(errors.New("on purpose"))
	if _, err := do[messages.Committed](r, messages.Commit{Group: 1, Txn: other.Txn}); !errors.Is(err, messages.ErrExpired) && !errors.Is(err, messages.ErrCrashed) {
		t.Error(err)
	}
}

// Where a log drives the data nothing is committed past it; transactions that are
// left are given up, and their number is bounded.
func TestTxnLeaseAndLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newKV(t, true)
		defer pass(2 * time.Second) // buntdb looks once a second whether it was closed
		defer r.close()
		x := must[messages.Begun](r, messages.Begin{})
		must[messages.PutDone](r, messages.Put{Txn: x.Txn, Key: []byte("a")})
		if _, err := do[messages.Committed](r, messages.Commit{Txn: x.Txn}); !errors.Is(err, messages.ErrReplicated) {
			t.Error(err)
		}
		for range 1023 {
			must[messages.Begun](r, messages.Begin{})
		}
		if _, err := do[messages.Begun](r, messages.Begin{}); !errors.Is(err, messages.ErrOverloaded) {
			t.Error(err)
		}
		pass(2 * time.Minute)
		if _, err := do[messages.Got](r, messages.Get{Txn: x.Txn, Key: []byte("a")}); !errors.Is(err, messages.ErrExpired) {
			t.Error(err)
		}
		pass(2 * time.Minute)
		must[messages.Begun](r, messages.Begin{})
	})
}

// kvInput and kvOutput are those of a register for porcupine.
type kvInput struct {
	key, expect, value string
	kind               messages.OperationKind
}

type kvOutput struct {
	value   string
	swapped bool
	unknown bool // in doubt
}

// register is a key that is read, set, and set if it is what is expected.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			k := op.Input.(kvInput).key
			byKey[k] = append(byKey[k], op)
		}
		return slices.Collect(maps.Values(byKey))
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		was, in, out := state.(string), input.(kvInput), output.(kvOutput)
		switch in.kind {
		case messages.OpGet:
			return out.unknown || out.value == was, was
		case messages.OpPut:
			return true, in.value
		}
		if was == in.expect && (out.swapped || out.unknown) {
			return true, in.value
		}
		return out.unknown || !out.swapped && was != in.expect, was
	},
}

// Single keys are linearizable, through direct writes, compare-and-swap and
// transactions, while the actor is crashed again and again.
func TestLinearizable(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	start := time.Now()
	now := func() int64 { return int64(time.Since(start)) }
	var mu sync.Mutex
	var history []porcupine.Operation
	const clients, steps = 8, 150
	d := actors.Data{KV: r.host.PID()}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range steps {
				in := kvInput{key: strconv.Itoa((c + i/3) % 3), value: fmt.Sprintf("%d-%d", c, i)}
				key := []byte(in.key)
				var out kvOutput
				var err error
				call := now()
				switch i % 4 {
				case 0:
					in.kind = messages.OpPut
					_, err = actors.Ask[messages.PutDone](t.Context(), r.asker, d.KV, messages.Put{Key: key, Value: []byte(in.value)})
				case 1:
					in.kind = messages.OpGet
					var got messages.Got
					got, err = actors.Ask[messages.Got](t.Context(), r.asker, d.KV, messages.Get{Key: key})
					out.value = string(got.Value)
				case 2: // a transaction that reads and writes is a compare-and-swap that matched
					in.kind = messages.OpCompareAndSwap
					_, err = actors.Update(t.Context(), r.asker, d, func(x *actors.Txn) error {
						was, _, err := x.Get(key)
						in.expect = string(was)
						if err != nil {
							return err
						}
						return x.Put(key, []byte(in.value))
					})
					out.swapped = err == nil
				case 3:
					in.kind = messages.OpGet
					err = actors.Read(t.Context(), r.asker, d, func(x *actors.Txn) error {
						was, _, err := x.Get(key)
						out.value = string(was)
						return err
					})
				}
				returned := now()
				if err != nil {
					if !errors.Is(err, messages.ErrInDoubt) && !errors.Is(err, messages.ErrCrashed) {
						t.Error(err)
						return
					}
					if in.kind == messages.OpGet || errors.Is(err, messages.ErrCrashed) {
						continue // nothing was done
					}
					// Done or not: it may take place at the end of time, when nobody looks.
					out.unknown, returned = true, int64(1)<<62
				}
				mu.Lock()
				id := c
				if out.unknown {
					id = clients + c*steps + i // its client goes on
				}
				history = append(history, porcupine.Operation{ClientId: id, Input: in, Call: call, Output: out, Return: returned})
				n := len(history)
				mu.Unlock()
				if n%200 == 199 {
					r.host.Crash(errors.New("on purpose"))
				}
			}
		})
	}
	wg.Wait()
	if len(history) < clients*steps/2 {
		t.Errorf("%d operations are too few to tell", len(history))
	}
	if result := porcupine.CheckOperationsTimeout(register, history, time.Minute); result != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s", result)
	}
	// The check finds what it is for: one read of what was overwritten before.
	for i, op := range history {
		if in := op.Input.(kvInput); in.kind == messages.OpGet && op.Output.(kvOutput).value != "" && op.Call > history[len(history)/2].Call {
			stale := slices.Clone(history)
			stale[i].Output = kvOutput{value: ""}
			if porcupine.CheckOperationsTimeout(register, stale, time.Minute) != porcupine.Illegal {
				t.Error("a stale read is not found")
			}
			break
		}
	}
}

// Money moves between accounts beside readers and crashes, and none is lost or made.
func TestTransfers(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	d := actors.Data{KV: r.host.PID()}
	const accounts, each, clients = 5, 100, 6
	account := func(i int) []byte { return fmt.Appendf(nil, "account-%d", i) }
	for i := range accounts {
		must[messages.PutDone](r, messages.Put{Key: account(i), Value: []byte(strconv.Itoa(each))})
	}
	sum := func(x *actors.Txn) (total int, err error) {
		for p, err := range x.All() {
			if err != nil {
				return 0, err
			}
			n, err := strconv.Atoi(string(p.Value))
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range 40 {
				if c == 0 {
					total := 0
					err := actors.Read(ctx, r.asker, d, func(x *actors.Txn) (err error) {
						total, err = sum(x)
						return err
					})
					if err != nil || total != accounts*each {
						t.Errorf("a reader finds %d, %v", total, err)
					}
					if i%20 == 10 {
						r.host.Crash(errors.New("on purpose"))
					}
					continue
				}
				from, to := account((c+i)%accounts), account((c+2*i+1)%accounts)
				_, err := actors.Update(ctx, r.asker, d, func(x *actors.Txn) error {
					for key, amount := range map[string]int{string(from): -1, string(to): +1} {
						value, _, err := x.Get([]byte(key))
						if err != nil {
							return err
						}
						n, err := strconv.Atoi(string(value))
						if err != nil {
							return err
						}
						if string(from) != string(to) {
							n += amount
						}
						if err := x.Put([]byte(key), []byte(strconv.Itoa(n))); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil && !errors.Is(err, messages.ErrInDoubt) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	err := actors.Read(ctx, r.asker, d, func(x *actors.Txn) error {
		if total, err := sum(x); err != nil || total != accounts*each {
			t.Errorf("at the end there is %d, %v", total, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// An error and a panic of the function leave nothing behind.
	broken := errors.New("broken")
	if _, err := actors.Update(ctx, r.asker, d, func(x *actors.Txn) error { return errors.Join(x.Put(account(0), nil), broken) }); !errors.Is(err, broken) {
		t.Error(err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = actors.Update(ctx, r.asker, d, func(x *actors.Txn) error { panic(x.Put(account(0), nil)) })
	}()
	if g := must[messages.Got](r, messages.Get{Key: account(0)}); len(g.Value) == 0 {
		t.Error("it was committed")
	}
}
