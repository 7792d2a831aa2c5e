package peers

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/cockroachdb/pebble"
	"github.com/tidwall/buntdb"
	"go.etcd.io/bbolt"
)

type pair struct{ key, value []byte }

// peer is a store that is open.
type peer interface {
	// put makes the pairs durable, in one change.
	put(pairs []pair) error
	// get returns the value of a key, for the caller to keep.
	get(key []byte) ([]byte, error)
	// scan returns the first n pairs from a key on, for the caller to keep.
	scan(from []byte, n int) ([]pair, error)
	close() error
}

var errNotThere = errors.New("not there")

// peers open a store in a directory, which may hold what they have written.
var peers = []struct {
	name string
	open func(dir string) (peer, error)
}{
	{"ballast", openBallast},
	{"bbolt", openBolt},
	{"pebble", openPebble},
	{"buntdb", openBunt},
}

type ballast struct{ *kv.DB }

func openBallast(dir string) (peer, error) {
	db, err := kv.Open(dir, kv.Options{})
	return ballast{db}, err
}

func (b ballast) put(pairs []pair) error {
	ops := make([]messages.Operation, len(pairs))
	for i, p := range pairs {
		ops[i] = messages.PutOperation(p.key, p.value)
	}
	if _, err := b.Write(0, ops); err != nil {
		return err
	}
	return b.Sync()
}

func (b ballast) get(key []byte) ([]byte, error) {
	value, version, err := b.Get(0, key)
	if err == nil && version == 0 {
		err = errNotThere
	}
	return value, err
}

func (b ballast) scan(from []byte, n int) ([]pair, error) {
	found, _, err := b.Scan(messages.Scan{From: from, Limit: n})
	pairs := make([]pair, len(found))
	for i, p := range found {
		pairs[i] = pair{p.Key, p.Value}
	}
	return pairs, err
}

func (b ballast) close() error { return b.Close() }

type bolt struct{ *bbolt.DB }

var bucket = []byte("b")

func openBolt(dir string) (peer, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o644, nil)
	if err != nil {
		return nil, err
	}
	return bolt{db}, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
}

func (b bolt) put(pairs []pair) error {
	return b.Update(func(tx *bbolt.Tx) error {
		for _, p := range pairs {
			if err := tx.Bucket(bucket).Put(p.key, p.value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b bolt) get(key []byte) (value []byte, err error) {
	return value, b.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucket).Get(key)
		if v == nil {
			return errNotThere
		}
		value = bytes.Clone(v)
		return nil
	})
}

func (b bolt) scan(from []byte, n int) (pairs []pair, err error) {
	return pairs, b.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.Seek(from); k != nil && len(pairs) < n; k, v = c.Next() {
			pairs = append(pairs, pair{bytes.Clone(k), bytes.Clone(v)})
		}
		return nil
	})
}

func (b bolt) close() error { return b.Close() }

type pebbleStore struct{ *pebble.DB }

type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func openPebble(dir string) (peer, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
	return pebbleStore{db}, err
}

func (p pebbleStore) put(pairs []pair) error {
	b := p.NewBatch()
	for _, q := range pairs {
		if err := b.Set(q.key, q.value, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (p pebbleStore) get(key []byte) ([]byte, error) {
	v, done, err := p.Get(key)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(v), done.Close()
}

func (p pebbleStore) scan(from []byte, n int) (pairs []pair, err error) {
	it, err := p.NewIter(&pebble.IterOptions{LowerBound: from})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid() && len(pairs) < n; it.Next() {
		pairs = append(pairs, pair{bytes.Clone(it.Key()), bytes.Clone(it.Value())})
	}
	return pairs, it.Close()
}

func (p pebbleStore) close() error { return p.Close() }

type bunt struct{ *buntdb.DB }

func openBunt(dir string) (peer, error) {
	db, err := buntdb.Open(filepath.Join(dir, "bunt"))
	if err != nil {
		return nil, err
	}
	return bunt{db}, db.SetConfig(buntdb.Config{SyncPolicy: buntdb.Always, AutoShrinkDisabled: true})
}

func (b bunt) put(pairs []pair) error {
	return b.Update(func(tx *buntdb.Tx) error {
		for _, p := range pairs {
			if _, _, err := tx.Set(string(p.key), string(p.value), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b bunt) get(key []byte) (value []byte, err error) {
	return value, b.View(func(tx *buntdb.Tx) error {
		v, err := tx.Get(string(key))
		value = []byte(v)
		return err
	})
}

func (b bunt) scan(from []byte, n int) (pairs []pair, err error) {
	return pairs, b.View(func(tx *buntdb.Tx) error {
		return tx.AscendGreaterOrEqual("", string(from), func(k, v string) bool {
			pairs = append(pairs, pair{[]byte(k), []byte(v)})
			return len(pairs) < n
		})
	})
}

func (b bunt) close() error { return b.Close() }

// What is measured must do what it says: pairs come back, also after reopening.
func TestPeers(t *testing.T) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			dir := t.TempDir()
			db, err := p.open(dir)
			if err != nil {
				t.Fatal(err)
			}
			put := []pair{{[]byte("a"), []byte("1")}, {[]byte("b"), []byte("2")}, {[]byte("c"), []byte("3")}}
			if err := db.put(put); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if v, err := db.get([]byte("b")); err != nil || string(v) != "2" {
					t.Errorf("%q %v", v, err)
				}
				if _, err := db.get([]byte("x")); err == nil {
					t.Error("found a key that is not there")
				}
				if got, err := db.scan([]byte("b"), 1); err != nil || len(got) != 1 || string(got[0].key) != "b" {
					t.Errorf("%q %v", got, err)
				}
				got, err := db.scan([]byte("a"), 9)
				if err != nil || !slices.EqualFunc(got, put, func(a, b pair) bool { return bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value) }) {
					t.Errorf("%q %v", got, err)
				}
				if err := db.close(); err != nil {
					t.Fatal(err)
				}
				if db, err = p.open(dir); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.close(); err != nil {
				t.Fatal(err)
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) == 0 {
				t.Errorf("nothing in its directory: %v", err)
			}
		})
	}
}
