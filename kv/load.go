package kv

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tidwall/buntdb"
)

// newTree is buntdb as it is used here: an ordered map in memory. It knows of
// no file, so that nothing it does by itself, and nothing it cannot do, matters
// to what is on disk.
func newTree() (*buntdb.DB, error) {
	db, err := buntdb.Open(":memory:")
	if err != nil {
		return nil, fmt.Errorf("buntdb: %w", err)
	}
	return db, nil
}

// loader fills the tree with the changes that examine has verified, in another
// goroutine, while examine goes on reading.
type loader struct {
	db *buntdb.DB
	// pending are commands whose marker has not been seen yet, ready those
	// that are verified and have not been handed over.
	pending, ready []loaded
	batches        chan []loaded
	done           chan error

	// What has been loaded; for the reader when done has told.
	keys map[uint64]int // of each group
	live int64
}

type loaded struct {
	set        bool
	key, value string
}

const (
	// loadBatch is how many commands are handed over together.
	loadBatch = 1024
	// loadAhead is how many batches may wait: with values of 1 KiB, 8 MiB.
	loadAhead = 8
)

func startLoader(db *buntdb.DB) *loader {
	l := &loader{db: db, batches: make(chan []loaded, loadAhead), done: make(chan error, 1), keys: map[uint64]int{}}
	go l.run()
	return l
}

func (l *loader) changed(set bool, key, value []byte) {
	// One allocation for both: in the tree they live and die together.
	var b strings.Builder
	b.Grow(len(key) + len(value))
	b.Write(key)
	b.Write(value)
	s := b.String()
	l.pending = append(l.pending, loaded{set, s[:len(key)], s[len(key):]})
}

func (l *loader) marked(marker) {
	l.ready = append(l.ready, l.pending...)
	clear(l.pending)
	l.pending = l.pending[:0]
	if len(l.ready) >= loadBatch {
		l.batches <- l.ready
		l.ready = make([]loaded, 0, loadBatch+64)
	}
}

// finish waits until everything that was verified is in the tree.
func (l *loader) finish() error {
	l.batches <- l.ready
	close(l.batches)
	return <-l.done
}

func (l *loader) run() {
	var err error
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("load: panic: %v", p)
		}
		for range l.batches {
		}
		l.done <- err
	}()
	for batch := range l.batches {
		if err = l.db.Update(func(tx *buntdb.Tx) error { return l.enter(tx, batch) }); err != nil {
			return
		}
	}
}

func (l *loader) enter(tx *buntdb.Tx, batch []loaded) error {
	for _, c := range batch {
		if err := l.take(tx, c); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) take(tx *buntdb.Tx, c loaded) error {
	old, had, err := "", true, error(nil)
	if c.set {
		old, had, err = tx.Set(c.key, c.value, nil)
		l.live += setLen(c.key, c.value)
	} else if old, err = tx.Delete(c.key); errors.Is(err, buntdb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if had {
		l.live -= setLen(c.key, old)
	}
	if c.key[0] == dataSpace && had == !c.set {
		_, id, _, _ := splitKey(c.key)
		if c.set {
			l.keys[id]++
		} else {
			l.keys[id]--
		}
	}
	return nil
}
