package actors_test

import (
	"errors"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// keysOf gathers what is yielded.
func keysOf(t *testing.T, pairs iter.Seq2[messages.Pair, error]) (keys []string) {
	t.Helper()
	for p, err := range pairs {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(p.Key))
	}
	return keys
}

// A view from outside of actors is one point in time, over any number of pages.
func TestView(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	must[messages.IndexCreated](r, messages.CreateIndex{Definition: messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}})
	for i := range 30 {
		must[messages.PutDone](r, messages.Put{Key: fmt.Appendf(nil, "k%02d", i), Value: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	v, err := actors.OpenView(t.Context(), r.asker, r.host.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	before := must[messages.AppliedRead](r, messages.ReadApplied{})
	if v.Revision != before.Revision || v.Revision == 0 {
		t.Errorf("revision %d, want %d", v.Revision, before.Revision)
	}
	for i := range 30 {
		if i%2 == 0 {
			must[messages.Deleted](r, messages.Delete{Key: fmt.Appendf(nil, "k%02d", i)})
		} else {
			must[messages.PutDone](r, messages.Put{Key: fmt.Appendf(nil, "k%02d", i), Value: []byte(`{"n":-1}`)})
		}
	}
	if got := keysOf(t, v.Scan(messages.Scan{MaxBytes: 20})); len(got) != 30 || got[29] != "k29" {
		t.Errorf("in pages: %v", got)
	}
	if got := keysOf(t, v.All()); len(got) != 30 {
		t.Errorf("all: %v", got)
	}
	if got := keysOf(t, v.Scan(messages.Scan{MaxBytes: 20, Limit: 7, Reverse: true})); len(got) != 7 || got[6] != "k23" {
		t.Errorf("seven from the end: %v", got)
	}
	if got := keysOf(t, v.Query(messages.QueryIndex{Name: "n", Min: "10", MaxBytes: 20, Limit: 9})); len(got) != 9 || got[8] != "k18" {
		t.Errorf("by the index: %v", got)
	}
	for limit, want := range map[int]int{0: 20, 7: 7, 100: 20} {
		if n, err := v.Count(messages.Scan{From: []byte("k10"), Limit: limit}); n != want || err != nil {
			t.Errorf("count up to %d: %d, %v", limit, n, err)
		}
	}
	values, versions, err := v.MultiGet([]byte("k04"), []byte("none"))
	if err != nil || string(values[0]) != `{"n":4}` || values[1] != nil || versions[0] != 6 || versions[1] != 0 {
		t.Errorf("%q %v %v", values, versions, err)
	}
	if value, version, err := v.Get([]byte("k04")); string(value) != `{"n":4}` || version != 6 || err != nil {
		t.Errorf("%q %d %v", value, version, err)
	}
	if s := must[messages.Scanned](r, messages.Scan{Count: true}); s.Count != 15 || s.Pairs != nil {
		t.Errorf("now: %+v", s)
	}
	// What is not a view of this group, or not this kind of view.
	export := must[messages.ViewOpened](r, messages.OpenView{Export: true})
	id := must[messages.ViewOpened](r, messages.OpenView{Group: 3}).View
	for i, c := range []messages.Command{messages.Get{View: id, Key: []byte("x")}, messages.Scan{Group: 3, View: export.View}, messages.QueryIndex{View: 99}, messages.MultiGet{View: id}} {
		if _, err := actors.Ask[messages.Reply](t.Context(), r.asker, r.host.PID(), c); !errors.Is(err, messages.ErrNotFound) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := do[messages.ChunkExported](r, messages.ExportChunk{Group: 3, View: id}); !errors.Is(err, messages.ErrNotFound) {
		t.Error(err)
	}
	// A failure of the actor ends it.
	r.host.Crash(errors.New("on purpose"))
	for _, err := range v.All() {
		if !errors.Is(err, messages.ErrNotFound) && !errors.Is(err, messages.ErrCrashed) {
			t.Error(err)
		}
	}
	for range 2 {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A view that nobody uses is given up, and costs nothing then.
func TestViewLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newKV(t, false)
		defer pass(2 * time.Second) // buntdb looks once a second whether it was closed
		defer r.close()
		v, err := actors.OpenView(t.Context(), r.asker, r.host.PID(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			pass(50 * time.Second)
			if _, _, err := v.Get([]byte("k")); err != nil {
				t.Fatal(err)
			}
		}
		pass(2 * time.Minute)
		if _, _, err := v.Get([]byte("k")); !errors.Is(err, messages.ErrExpired) {
			t.Error(err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}
