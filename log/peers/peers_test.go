package peers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/cockroachdb/pebble"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	tidwal "github.com/tidwall/wal"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// peer is a log that is open.
type peer interface {
	// append makes entries durable that follow the last.
	append(data [][]byte) error
	// read returns the entry with an index, the first of which is 1.
	read(index uint64) ([]byte, error)
	close() error
}

var errNoRead = errors.New("it reads nothing but all of it, at open")

// peers open a log in a directory, which may hold what they have written.
var peers = []struct {
	name string
	open func(dir string) (peer, error)
}{
	{"ballast", openBallast},
	{"raft-wal", openRaftWAL},
	{"etcd-wal", openEtcd},
	{"pebble", openPebble},
	{"raft-boltdb", openBolt},
	{"tidwall-wal", openTidwall},
}

// ballast is Ballast's own store, with what its actor does between the syncs.
type ballast struct {
	store raftlog.Store
	es    []messages.Entry
	care  chan struct{}
	done  chan error
}

func openBallast(dir string) (peer, error) {
	w, err := raftlog.Open(dir, raftlog.Options{})
	if err != nil {
		return nil, err
	}
	b := &ballast{store: w, care: make(chan struct{}, 1), done: make(chan error, 1)}
	go b.maintain()
	return b, nil
}

func (b *ballast) maintain() {
	var err error
	for range b.care {
		for err == nil && b.store.Due() {
			var again bool
			if again, err = b.store.Maintain(); err == nil && again {
				_, err = b.store.Sync()
			}
		}
	}
	b.done <- err
}

func (b *ballast) append(data [][]byte) error {
	b.es = b.es[:0]
	for _, d := range data {
		b.es = append(b.es, messages.Entry{Term: 1, Data: d})
	}
	if _, err := b.store.Append(0, b.es, nil); err != nil {
		return err
	}
	_, err := b.store.Sync()
	if b.store.Due() {
		select {
		case b.care <- struct{}{}:
		default:
		}
	}
	return err
}

func (b *ballast) read(index uint64) ([]byte, error) {
	e, err := b.store.Entry(0, index)
	return e.Data, err
}

func (b *ballast) close() error {
	close(b.care)
	return errors.Join(<-b.done, b.store.Close())
}

type hashicorp struct {
	store raft.LogStore
	last  uint64
	batch []*raft.Log
	end   func() error
}

func newHashicorp(store raft.LogStore, end func() error) (peer, error) {
	last, err := store.LastIndex()
	return &hashicorp{store: store, last: last, end: end}, err
}

func openRaftWAL(dir string) (peer, error) {
	meta := &metadb.BoltMetaDB{} // which Close of the log leaves open, and locked
	w, err := raftwal.Open(dir, raftwal.WithMetaStore(meta))
	if err != nil {
		return nil, err
	}
	return newHashicorp(w, func() error { return errors.Join(w.Close(), meta.Close()) })
}

func openBolt(dir string) (peer, error) {
	s, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, err
	}
	return newHashicorp(s, s.Close)
}

func (h *hashicorp) append(data [][]byte) error {
	for len(h.batch) < len(data) {
		h.batch = append(h.batch, &raft.Log{})
	}
	for i, d := range data {
		h.last++
		*h.batch[i] = raft.Log{Index: h.last, Term: 1, Data: d}
	}
	return h.store.StoreLogs(h.batch[:len(data)])
}

func (h *hashicorp) read(index uint64) ([]byte, error) {
	var l raft.Log
	err := h.store.GetLog(index, &l)
	return l.Data, err
}

func (h *hashicorp) close() error { return h.end() }

// etcd's log is read whole when it is opened, and the entries live in memory.
type etcd struct {
	w    *wal.WAL
	last uint64
	es   []*raftpb.Entry
}

func openEtcd(dir string) (peer, error) {
	dir = filepath.Join(dir, "wal")
	if !wal.Exist(dir) {
		w, err := wal.Create(zap.NewNop(), dir, []byte("peers"))
		return &etcd{w: w}, err
	}
	return reopenEtcd(dir)
}

func reopenEtcd(dir string) (peer, error) {
	w, err := wal.Open(zap.NewNop(), dir, &walpb.Snapshot{Index: proto.Uint64(0), Term: proto.Uint64(0)})
	if err != nil {
		return nil, err
	}
	_, _, es, err := w.ReadAll()
	if err != nil {
		return nil, err
	}
	return &etcd{w: w, last: uint64(len(es))}, nil
}

func (e *etcd) append(data [][]byte) error {
	e.es = e.es[:0]
	for _, d := range data {
		e.last++
		e.es = append(e.es, &raftpb.Entry{Index: proto.Uint64(e.last), Term: proto.Uint64(1), Data: d})
	}
	return e.w.Save(&raftpb.HardState{}, e.es)
}

func (e *etcd) read(uint64) ([]byte, error) { return nil, errNoRead }
func (e *etcd) close() error                { return e.w.Close() }

type pebbleLog struct {
	db   *pebble.DB
	last uint64
}

func openPebble(dir string) (peer, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: silent{}})
	return &pebbleLog{db: db}, err
}

// silent takes pebble's log; what is fatal ends the run.
type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func (p *pebbleLog) append(data [][]byte) error {
	b := p.db.NewBatch()
	for _, d := range data {
		p.last++
		if err := b.Set(key(p.last), d, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (p *pebbleLog) read(index uint64) ([]byte, error) {
	v, c, err := p.db.Get(key(index))
	if err != nil {
		return nil, err
	}
	v = append([]byte(nil), v...)
	return v, c.Close()
}

func (p *pebbleLog) close() error { return p.db.Close() }

// tidwall is the engine below Ballast, on its own.
type tidwall struct {
	w    *tidwal.Log
	last uint64
}

func openTidwall(dir string) (peer, error) {
	w, err := tidwal.Open(filepath.Join(dir, "wal"), nil)
	if err != nil {
		return nil, err
	}
	last, err := w.LastIndex()
	return &tidwall{w, last}, err
}

func (t *tidwall) append(data [][]byte) error {
	var b tidwal.Batch
	for _, d := range data {
		t.last++
		b.Write(t.last, d)
	}
	return t.w.WriteBatch(&b)
}

func (t *tidwall) read(index uint64) ([]byte, error) { return t.w.Read(index) }
func (t *tidwall) close() error                      { return t.w.Close() }

// TestPeers keeps the peers honest: what they have made durable is there again.
func TestPeers(t *testing.T) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			dir := t.TempDir()
			for n := range uint64(2) {
				l, err := p.open(dir)
				if err != nil {
					t.Fatal(err)
				}
				for i := range uint64(3) {
					if n > 0 {
						break
					}
					if err := l.append([][]byte{{byte(2 * i)}, {byte(2*i + 1)}}); err != nil {
						t.Fatal(err)
					}
				}
				for i := range uint64(6) {
					d, err := l.read(1 + i)
					if errors.Is(err, errNoRead) {
						break
					}
					if err != nil || len(d) != 1 || d[0] != byte(i) {
						t.Fatalf("%d is %v, %v", i, d, err)
					}
				}
				if err := l.close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
