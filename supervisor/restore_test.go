package supervisor_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/ballast-raft/ballast/supervisor"
)

// forge changes the content of a snapshot's first block and gives it a good CRC,
// as a fault of the memory would while it is written. The layout is that of the
// comment of package snapshot.
func forge(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	at := 48 + le.Uint32(b[40:]) // the header CRC
	head, block := b[at:at+4], b[at+4:]
	stored := block[16:][:le.Uint32(block[4:])]
	stored[len(stored)/2] ^= 1
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(head, table), table, make([]byte, 8)) // block 0
	sum = crc32.Update(crc32.Update(sum, table, block[:12]), table, stored)
	le.PutUint32(block[12:], sum)
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A snapshot of another node, from beyond the end of the log, whose stored bytes
// are good and whose content is not, is refused before the log is given up for
// it.
func TestRestoreOfBadContent(t *testing.T) {
	other := start(t, t.TempDir())
	for range 4 {
		other.put("k", "theirs")
	}
	theirs := other.snapshot()
	other.stop()
	file, err := os.ReadFile(filepath.Join(other.dir, "snapshots", theirs.Info.ID+".snap"))
	if err != nil {
		t.Fatal(err)
	}

	s := start(t, t.TempDir())
	s.put("k", "one")
	s.put("k", "two")
	name := filepath.Join(s.dir, "snapshots", theirs.Info.ID+".snap")
	if err := os.WriteFile(name, file, 0o644); err != nil {
		t.Fatal(err)
	}
	forge(t, name)
	restore := messages.Restore{ID: theirs.Info.ID, Discard: true}
	if _, err := ask[messages.Restored](s, s.storage.Supervisor, restore); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("restored: %v", err)
	}
	s.expect("k", "two")
	if st := s.status(); st.Log.First != 1 || st.Log.Last != 2 || st.Applied != 2 {
		t.Errorf("the log was given up: %+v", st)
	}
	if err := os.WriteFile(name, file, 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := ask[messages.Restored](s, s.storage.Supervisor, restore); err != nil || r.Applied != 4 {
		t.Errorf("mended: %+v %v", r, err)
	}
	s.expect("k", "theirs")
}

// A snapshot of a history that is discarded goes, also if it cannot be read at
// that moment: it may be readable at the next start.
func TestDiscardOfTheUnreadable(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("k", "one")
	first := s.snapshot()
	s.put("k", "two")
	second := s.snapshot()
	name := filepath.Join(s.dir, "snapshots", second.Info.ID+".snap")
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, name, 20)
	r, err := ask[messages.Restored](s, s.storage.Supervisor, messages.Restore{ID: first.Info.ID, Discard: true})
	if err != nil || r.Applied != first.Info.Index {
		t.Fatalf("%+v, %v", r, err)
	}
	s.expect("k", "one")
	s.stop()
	if _, err := os.Stat(name); err == nil { // the disk can read it again
		if err := os.WriteFile(name, file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s = start(t, s.dir)
	s.expect("k", "one")
}

// forgingDisk damages what is renamed to a snapshot, as long as it is told to.
type forgingDisk struct {
	durable.Disk
	t  *testing.T
	on atomic.Bool
}

func (d *forgingDisk) Rename(from, to string) error {
	if d.on.Load() && filepath.Ext(to) == ".snap" {
		forge(d.t, from)
	}
	return d.Disk.Rename(from, to)
}

// A snapshot that comes out bad lets nothing go: neither entries, of which it
// would be all that is left if it is the first, nor the snapshots before it.
func TestNewSnapshotIsBad(t *testing.T) {
	disk := &forgingDisk{Disk: durable.OS, t: t}
	cfg := supervisor.Config{Snapshot: snapshot.Options{Disk: disk}, Retention: messages.Retention{Keep: 1}}
	s := with(t, cfg)
	s.put("k", "one")
	bad := func(first uint64) {
		t.Helper()
		disk.on.Store(true)
		c, err := ask[messages.SnapshotCreated](s, s.storage.Supervisor, messages.CreateSnapshot{})
		disk.on.Store(false)
		if !errors.Is(err, messages.ErrCorrupt) || c.Info.ID != "" {
			t.Errorf("created %q: %v", c.Info.ID, err)
		}
		if st := s.status(); st.Log.First != first {
			t.Errorf("the log begins at %d, not %d", st.Log.First, first)
		}
	}
	bad(1)
	s.put("k", "two")
	good := s.snapshot()
	s.put("k", "three")
	bad(good.LogFirst)
	l := must[messages.SnapshotVerified](s, s.storage.Snapshot, messages.VerifySnapshot{ID: good.Info.ID})
	if l.Info.Index != 2 {
		t.Errorf("%+v", l)
	}
	s.expect("k", "three")
}
