package actors_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// Save a state, read it back, and copy the snapshot to another node.
func Example_snapshotStream() {
	if err := snapshotStream(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// saved 280000 bytes at index 42
	// read 280000 bytes
	// copied: same content true
}

func snapshotStream() error {
	ctx := context.Background()
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		return err
	}
	asker := actors.NewAsker(engine)
	defer asker.Close()
	dir, err := os.MkdirTemp("", "ballast")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	spawn := func(name string) (*actors.Snapshot, error) {
		return actors.SpawnSnapshot(engine, actors.SnapshotConfig{
			Config: actors.Config{Name: name, ID: "snapshot"},
			Open:   func() (snapshot.Store, error) { return snapshot.OpenDir(filepath.Join(dir, name), snapshot.Options{}) },
		})
	}
	here, err := spawn("here")
	if err != nil {
		return err
	}
	there, err := spawn("there")
	if err != nil {
		return err
	}

	// Goes on by itself if the actor crashes, and in a later call if the process
	// does.
	source := strings.NewReader(strings.Repeat("the state of things ", 14_000))
	info, err := actors.SaveSnapshot(ctx, asker, here.PID(), messages.BeginSave{Index: 42, Term: 3}, source)
	if err != nil {
		return err
	}
	fmt.Printf("saved %d bytes at index %d\n", info.RawBytes, info.Index)

	reader, err := actors.NewSnapshotReader(ctx, asker, here.PID(), messages.OpenSnapshot{})
	if err != nil {
		return err
	}
	var state bytes.Buffer
	if _, err := io.Copy(&state, reader); err != nil {
		return err
	}
	if err := reader.Close(); err != nil {
		return err
	}
	fmt.Printf("read %d bytes\n", state.Len())

	copied, err := actors.ImportSnapshot(ctx, asker, there.PID(), info.ID,
		func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return actors.NewSnapshotExporter(ctx, asker, here.PID(), messages.ExportSnapshot{ID: info.ID, Offset: offset})
		})
	if err != nil {
		return err
	}
	fmt.Println("copied: same content", copied.ContentHash == info.ContentHash)
	if err := here.Stop(ctx); err != nil {
		return err
	}
	return there.Stop(ctx)
}
