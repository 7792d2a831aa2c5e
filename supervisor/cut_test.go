package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

// The log is cut at damage that lies before what the newest snapshot includes,
// and kv is moved away, as the error says: the snapshot is imported and the log
// goes on behind it, so that what is acknowledged from then on is applied.
func TestSnapshotAheadOfCutLog(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	open := func() (*supervisor.Storage, error) {
		engine, err := actor.NewEngine(actor.NewEngineConfig())
		if err != nil {
			t.Fatal(err)
		}
		return supervisor.SpawnContext(ctx, engine, supervisor.Config{Dir: dir})
	}
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, value string) uint64 {
		t.Helper()
		m, err := actors.Ask[messages.EntryApplied](ctx, s.Asker(), s.Supervisor, messages.ApplyEntry{Operation: messages.PutOperation([]byte(key), []byte(value))})
		if err != nil || m.Result.Err != nil {
			t.Fatalf("put: %+v, %v", m, err)
		}
		return m.Index
	}
	get := func(key, want string) {
		t.Helper()
		m, err := actors.Ask[messages.Got](ctx, s.Asker(), s.KV, messages.Get{Key: []byte(key)})
		if err != nil || string(m.Value) != want {
			t.Fatalf("%s is %q, want %q, %v", key, m.Value, want, err)
		}
	}
	for i := range 20 {
		put("old", fmt.Sprint(i))
		if i%10 == 9 {
			if _, err := actors.Ask[messages.SnapshotCreated](ctx, s.Asker(), s.Supervisor, messages.CreateSnapshot{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	logDir := filepath.Join(dir, "log")
	if _, err := raftlog.InspectRecords(logDir, func(r raftlog.RecordReport) {
		if r.First != 15 {
			return
		}
		f, err := os.OpenFile(r.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{0xFF, 0xFE}, r.Offset+8); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	cut, err := raftlog.Repair(logDir, false, raftlog.Options{})
	if err != nil || cut == nil || len(cut.Lost) != 1 || cut.Lost[0] != (messages.LostEntries{First: 15, Last: 20}) {
		t.Fatalf("cut %+v, %v", cut, err)
	}
	if s, err = open(); err == nil {
		t.Fatal("the data is ahead of the log, and nobody minds")
	}
	if err := os.Rename(filepath.Join(dir, "kv"), filepath.Join(dir, "kv.away")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s, err = open(); err != nil {
			t.Fatal(err)
		}
		get("old", "19")
		if index := put("ship", "steady"); index <= 20 {
			t.Errorf("a new entry has index %d, which the snapshot includes", index)
		}
		get("ship", "steady")
		if err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
