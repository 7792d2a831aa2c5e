package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// uniqueN is an index that admits each number once.
var uniqueN = messages.IndexDefinition{Name: "n", Fields: messages.Paths("n"), Unique: true}

func n(key string, n int) messages.Operation { return put(key, fmt.Sprintf(`{"n":%d}`, n)) }

// What is unique is looked at when a transaction ends, whatever it did on the way.
func TestUniqueAtTheEndOfATransaction(t *testing.T) {
	one, two := `{"n":1}`, `{"n":2}`
	for name, c := range map[string]struct {
		ops []messages.Operation
		// of the pairs a, b and c, which have 1, 2 and 3; empty if it is refused
		order string
		// operation, key and other of the refusal
		refused string
	}{
		"a swap":                              {[]messages.Operation{n("a", 2), n("b", 1)}, "b a c", ""},
		"a swap by comparing":                 {[]messages.Operation{cas("a", &one, two), cas("b", &two, one)}, "b a c", ""},
		"a rotation":                          {[]messages.Operation{n("a", 2), n("b", 3), n("c", 1)}, "c a b", ""},
		"a rotation, the other way":           {[]messages.Operation{n("a", 3), n("b", 1), n("c", 2)}, "b c a", ""},
		"a move":                              {[]messages.Operation{del("a"), n("d", 1)}, "d b c", ""},
		"a move, before there is room":        {[]messages.Operation{n("d", 1), del("a")}, "d b c", ""},
		"a value taken and then changed":      {[]messages.Operation{n("d", 1), n("a", 9)}, "d b c a", ""},
		"taken and given back":                {[]messages.Operation{n("d", 1), del("d")}, "a b c", ""},
		"taken, and another one then":         {[]messages.Operation{n("d", 1), n("d", 4)}, "a b c d", ""},
		"taken twice, given up by both":       {[]messages.Operation{n("d", 1), n("e", 1), del("d"), del("a")}, "e b c", ""},
		"taken by three, the first stays":     {[]messages.Operation{n("d", 1), n("e", 1), del("e"), del("d")}, "a b c", ""},
		"there and back":                      {[]messages.Operation{n("a", 2), n("b", 1), n("a", 1), n("b", 2)}, "a b c", ""},
		"given up, taken, wanted again":       {[]messages.Operation{n("a", 5), n("d", 1), n("a", 1), del("d")}, "a b c", ""},
		"with a pair in between that is gone": {[]messages.Operation{n("d", 1), n("e", 1), del("d"), n("a", 7), n("f", 2), del("b")}, "e f c a", ""},
		"two have one value":                  {[]messages.Operation{n("c", 1)}, "", "0 c a"},
		"two that are new":                    {[]messages.Operation{n("d", 4), n("e", 4)}, "", "1 e d"},
		"half of a swap":                      {[]messages.Operation{n("d", 6), n("a", 2), del("c")}, "", "1 a b"},
		"a swap and one too many":             {[]messages.Operation{n("a", 2), n("b", 1), n("c", 1)}, "", "2 c b"},
		"the one that came first is gone":     {[]messages.Operation{n("d", 1), n("e", 1), del("d")}, "", "1 e a"},
		"all three stay":                      {[]messages.Operation{n("d", 1), n("e", 1)}, "", "0 d e"},
		"another failure comes first":         {[]messages.Operation{n("d", 1), put("e", "no JSON")}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, mode := range []string{"write", "apply", "direct", "logged"} {
				db := open(t, memDir(t), lazy)
				mustWrite(t, db, 0, createIndex(uniqueN), n("a", 1), n("b", 2), n("c", 3))
				txn := messages.TxnOperation(messages.Transaction{Then: c.ops})
				var err error
				switch mode {
				case "write":
					// What comes after it in the same change sees who has what.
					results := write(t, db, 0, txn, n("z", 1), n("z", 2), n("z", 3))
					err = results[0].Err
					for i, res := range results[1:] {
						if !errors.Is(res.Err, messages.ErrNotUnique) && len(keys(queryAll(t, db, messages.QueryIndex{Name: "n", Equal: fmt.Sprint(i + 1)}))) != 1 {
							t.Errorf("%s: %d is there twice: %v", mode, i+1, res.Err)
						}
					}
					mustWrite(t, db, 0, del("z"))
				case "apply":
					results, e := db.Apply(0, []messages.Entry{entry(1, txn)})
					if e != nil {
						t.Fatal(e)
					}
					err = results[0].Err
				default:
					x := begin(t, db)
					for i, op := range c.ops {
						res, e := x.Run(op)
						if e != nil || res.Err != nil && !errors.Is(res.Err, messages.ErrNotJSON) {
							t.Fatal(i, res.Err, e)
						}
						if err = res.Err; err != nil {
							break
						}
					}
					switch {
					case err != nil:
						_ = x.Close()
					case mode == "direct":
						err = commitDirect(t, db, x)
					default:
						err = commitLogged(t, db, x)
					}
				}
				got := keys(queryAll(t, db, messages.QueryIndex{Name: "n"}))
				if c.order != "" {
					if err != nil || got != c.order {
						t.Errorf("%s: %s, want %s: %v", mode, got, c.order, err)
					}
					continue
				}
				if got != "a b c" {
					t.Errorf("%s: refused, and there is %s", mode, got)
				}
				var dup *messages.NotUniqueError
				if c.refused == "" {
					if !errors.Is(err, messages.ErrNotJSON) {
						t.Errorf("%s: %v", mode, err)
					}
				} else if !errors.As(err, &dup) || dup.Index != "n" {
					t.Errorf("%s: %v", mode, err)
				} else if at := fmt.Sprintf("%s %s", dup.Key, dup.Other); mode == "write" || mode == "apply" {
					if at != c.refused[2:] || !bytes.Contains([]byte(err.Error()), []byte("operation "+c.refused[:1]+" of then")) {
						t.Errorf("%s: %v, want %s", mode, err, c.refused)
					}
				}
			}
		})
	}
}

// A pair with several entries, each of which only one may have.
func TestUniqueFunctionAtTheEnd(t *testing.T) {
	db := open(t, memDir(t), kv.Options{Disk: lazyDisk{}, Funcs: testFuncs})
	txn := func(ops ...messages.Operation) messages.Operation {
		return messages.TxnOperation(messages.Transaction{Then: ops})
	}
	mustWrite(t, db, 0, createIndex(messages.IndexDefinition{Name: "w", Func: "words", Unique: true}), put("a", "x y"), put("b", "z"))
	results := write(t, db, 0,
		txn(put("b", "x z"), put("a", "y")),
		txn(put("a", "y z"), put("b", "y")), // y
		txn(put("a", "x z"), put("b", "y")),
		txn(put("c", "x y"), del("a"), put("b", "z")),
	)
	for i, want := range []error{nil, messages.ErrNotUnique, nil, nil} {
		if !errors.Is(results[i].Err, want) {
			t.Errorf("%d: %v", i, results[i].Err)
		}
	}
	if got := keys(queryAll(t, db, messages.QueryIndex{Name: "w"})); got != "c c b" {
		t.Error(got)
	}
}

// What becomes of transactions on unique indexes does not depend on how entries come
// together, nor on how far an index is, nor on what a replica began with.
func TestUniqueIsTheSameOnAllReplicas(t *testing.T) {
	refused, done := 0, 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 5))
		plain := messages.IndexDefinition{Name: "m", Fields: messages.Paths("m")}
		var entries []messages.Entry
		some := func() messages.Operation {
			key := fmt.Sprint("k", r.IntN(8))
			switch r.IntN(8) {
			case 0:
				return del(key)
			case 1:
				return put(key, "no JSON")
			}
			return put(key, fmt.Sprintf(`{"n":%d,"m":%d}`, r.IntN(10), r.IntN(3)))
		}
		for i := range uint64(120) {
			op := some()
			switch r.IntN(12) {
			case 0:
				op = createIndex(plain)
			case 1:
				op = createIndex(uniqueN)
			case 2:
				op = messages.DropIndexOperation([]string{"n", "m"}[r.IntN(2)])
			case 3, 4, 5, 6, 7, 8:
				txn := messages.Transaction{}
				for range 1 + r.IntN(4) {
					if op := some(); string(op.Value) != "no JSON" {
						txn.Then = append(txn.Then, op)
					}
				}
				op = messages.TxnOperation(txn)
			}
			entries = append(entries, entry(i+1, op))
		}
		var first []string
		var state []byte
		for replica := range 4 {
			dir := memDir(t)
			opt := kv.Options{Disk: lazyDisk{}, IndexSliceKeys: []int64{1, 100, 2, 3}[replica], CommitBytes: []int64{1, 0, 60, 0}[replica]}
			db := open(t, dir, opt)
			var outcomes []string
			for at := 0; at < len(entries); {
				step := min([]int{1, 40, 3, 7}[replica], len(entries)-at)
				results, err := db.Apply(0, entries[at:at+step])
				if err != nil {
					t.Fatal(err)
				}
				for _, res := range results {
					outcomes = append(outcomes, fmt.Sprintf("%+v", res))
				}
				at += step
				switch {
				case replica == 1 || replica == 2 && at%2 == 0:
					for db.IndexesDue() {
						if err := db.MaintainIndexes(); err != nil {
							t.Fatal(err)
						}
					}
				case replica == 2:
					if err := db.Close(); err != nil {
						t.Fatal(err)
					}
					db = open(t, dir, opt)
				case replica == 3 && at > 50 && at < 60: // goes on in another store
					b := export(t, db, 0)
					db = open(t, memDir(t), opt)
					im, err := db.BeginImport(0, uint64(at), 1)
					if err == nil {
						_, err = im.Write(b)
					}
					if err == nil {
						_, err = im.Finish()
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			b := export(t, db, 0)
			if replica == 0 {
				first, state = outcomes, b
				for i, o := range outcomes {
					if entries[i].Data[0] == byte(messages.OpTxn) {
						done++
						if bytes.Contains([]byte(o), []byte("not unique")) {
							refused++
						}
					}
				}
				continue
			}
			for i := range first {
				if outcomes[i] != first[i] {
					t.Fatalf("seed %d, replica %d: entry %d: %s, and %s on the first", seed, replica, i+1, outcomes[i], first[i])
				}
			}
			if !bytes.Equal(b, state) {
				t.Fatalf("seed %d, replica %d: another state", seed, replica)
			}
		}
	}
	if refused < 50 || done < 500 {
		t.Errorf("%d of %d transactions were refused", refused, done)
	}
}
