package kv_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// A request of a few bytes cannot ask for more than MaxBytes.
func TestMultiGetIsBounded(t *testing.T) {
	db := open(t, memDir(t), lazy)
	mustWrite(t, db, 1, put("big", string(make([]byte, 4<<20))))
	keys := make([][]byte, 2*kv.MaxBytes/(4<<20))
	for i := range keys {
		keys[i] = []byte("big")
	}
	if _, _, err := db.MultiGet(1, keys); !errors.Is(err, messages.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// No import goes on after Close.
func TestImportBesideClose(t *testing.T) {
	for range 300 {
		db, err := kv.Open(memDir(t), lazy)
		if err != nil {
			t.Fatal(err)
		}
		var im kv.Import
		var wg sync.WaitGroup
		wg.Go(func() { im, _ = db.BeginImport(1, 1, 1) })
		wg.Go(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if im != nil {
			if _, err := im.Write([]byte("BLSTKVST")); err == nil {
				t.Fatal("an import goes on after Close")
			}
		}
	}
}
