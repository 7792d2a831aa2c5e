package kv

import (
	"fmt"
	"testing"

	"github.com/ballast-raft/ballast/messages"
)

// TestScratchHoldsNothing: what is kept for the next batch has nothing of the last
// one, whose values may be large, and nothing is kept of a large batch.
func TestScratchHoldsNothing(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	write := func(n int) {
		ops := make([]messages.Operation, n)
		for i := range ops {
			ops[i] = messages.PutOperation(fmt.Appendf(nil, "key %d", i), []byte("value"))
		}
		if _, err := s.Write(1, ops); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{1, 100, maxScratch} {
		write(n)
		k := s.scratch
		if k == nil || k.used != 0 || len(k.told) == 0 || len(k.outcomes) != n || len(k.changes) != 0 {
			t.Fatalf("the scratch of %d changes is not kept: %+v", n, k)
		}
		for i, c := range k.slab {
			if c != (change{}) {
				t.Fatalf("change %d of %d is still held: %+v", i, n, c)
			}
		}
		for i, m := range k.told[:cap(k.told)] {
			if m != (Mutation{}) {
				t.Fatalf("mutation %d of %d is still held: %+v", i, n, m)
			}
		}
		for i, o := range k.outcomes[:cap(k.outcomes)] {
			if o != (outcome{}) {
				t.Fatalf("outcome %d of %d is still held: %+v", i, n, o)
			}
		}
	}
	if write(maxScratch + 1); s.scratch != nil {
		t.Fatal("the scratch of a large batch is kept")
	}
}
