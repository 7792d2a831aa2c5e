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

// loader fills trees with the changes that examine has verified, in another
// goroutine, while examine goes on reading.
type loader struct {
	tree *buntdb.DB
	// pending are commands whose marker has not been seen yet, ready is what is
	// verified and has not been handed over.
	pending []loaded
	ready   batchToLoad
	batches chan batchToLoad
	done    chan error

	// What has been loaded; for the reader when done has told.
	groups map[uint64]*machine
	staged map[uint64]*machine // imports that have not been adopted, by number
	newest uint64              // the highest number of an import
}

type loaded struct {
	set        bool
	key, value string
}

// batchToLoad are commands of changes that are alike, and the last marker.
type batchToLoad struct {
	marker
	commands []loaded
}

const (
	// loadBatch is how many commands are handed over together, or more if one
	// change has more.
	loadBatch = 1024
	// loadAhead is how many batches may wait: with values of 1 KiB, 8 MiB.
	loadAhead = 8
	// clearKeys is how many keys are removed in one go, which others wait for:
	// about a millisecond.
	clearKeys = 512
)

func startLoader(tree *buntdb.DB) *loader {
	l := &loader{tree: tree, batches: make(chan batchToLoad, loadAhead), done: make(chan error, 1),
		groups: map[uint64]*machine{}, staged: map[uint64]*machine{}}
	go l.run()
	return l
}

func (l *loader) changed(c command) {
	// One allocation for both: in the tree they live and die together.
	var b strings.Builder
	b.Grow(len(c.key) + len(c.value))
	b.Write(c.key)
	b.Write(c.value)
	s := b.String()
	l.pending = append(l.pending, loaded{c.set, s[:len(c.key)], s[len(c.key):]})
}

func (l *loader) marked(m marker) {
	if m.number != l.ready.number || m.adopted {
		l.hand()
	}
	l.ready.marker = m
	l.ready.commands = append(l.ready.commands, l.pending...)
	clear(l.pending)
	l.pending = l.pending[:0]
	if len(l.ready.commands) >= loadBatch || m.adopted {
		l.hand()
	}
}

func (l *loader) hand() {
	l.batches <- l.ready
	l.ready = batchToLoad{commands: make([]loaded, 0, loadBatch+64)}
}

// finish waits until everything that was verified is in its tree.
func (l *loader) finish() error {
	l.hand()
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
		for _, g := range l.staged { // never finished
			err = errors.Join(err, g.db.Close())
		}
		l.done <- err
	}()
	for b := range l.batches {
		if err = l.take(b); err != nil {
			return
		}
	}
}

// group returns the group, and makes it.
func (l *loader) group(id uint64) *machine {
	g := l.groups[id]
	if g == nil {
		g = newGroup(id, l.tree)
		l.groups[id] = g
	}
	return g
}

// imported returns the import, and makes it.
func (l *loader) imported(m marker) (*machine, error) {
	g := l.staged[m.number]
	if g == nil {
		tree, err := newTree()
		if err != nil {
			return nil, err
		}
		g = newGroup(m.groups[0].group, tree)
		l.staged[m.number] = g
		l.newest = max(l.newest, m.number)
	}
	return g, nil
}

func (l *loader) take(b batchToLoad) (err error) {
	var g *machine
	if b.number > 0 {
		if g, err = l.imported(b.marker); err != nil {
			return err
		}
	}
	for rest := b.commands; len(rest) > 0 && err == nil; {
		if b.number == 0 {
			_, id, _, _ := splitKey(rest[0].key)
			g = l.group(id)
		}
		err = g.db.Update(func(tx *buntdb.Tx) error {
			tree := g.db
			for ; len(rest) > 0; rest = rest[1:] {
				if b.number == 0 {
					if _, id, _, _ := splitKey(rest[0].key); id != g.id {
						g = l.group(id)
					}
					if g.db != tree {
						return nil
					}
				}
				if err := g.load(tx, rest[0]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil || !b.adopted {
		return err
	}
	delete(l.staged, b.number)
	old := l.groups[g.id]
	l.groups[g.id] = g
	if old != nil && old.db != l.tree {
		return old.db.Close()
	}
	for more := old != nil; more && err == nil; {
		more, err = old.clear(l.tree)
	}
	return err
}

// load carries a command out.
func (g *machine) load(tx *buntdb.Tx, c loaded) error {
	old, had, err := "", true, error(nil)
	if c.set {
		old, had, err = tx.Set(c.key, c.value, nil)
		g.live += setLen(c.key, c.value)
	} else if old, err = tx.Delete(c.key); errors.Is(err, buntdb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if had {
		g.live -= setLen(c.key, old)
	}
	ok := true
	switch {
	case c.set && !had:
		ok = g.count(c.key, 1)
	case !c.set:
		ok = g.count(c.key, -1)
	}
	if !ok {
		return malformed("an index entry without a number")
	}
	return nil
}

// clear removes a group's data from a tree that it shares with others, or the
// next slice of it.
func (g *machine) clear(shared *buntdb.DB) (more bool, err error) {
	err = shared.Update(func(tx *buntdb.Tx) error {
		var keys []string
		for _, space := range []byte{dataSpace, definitionSpace, indexSpace} {
			prefix := spacePrefix(space, g.id)
			walk(tx, prefix, successor(prefix), false, func(key, _ string) bool {
				keys = append(keys, key)
				return len(keys) < clearKeys
			})
		}
		for _, key := range keys {
			if _, err := tx.Delete(key); err != nil {
				return err
			}
		}
		more = len(keys) >= clearKeys
		return nil
	})
	return more, err
}
