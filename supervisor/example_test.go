package supervisor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

// Start the service, propose an operation, read it back.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "ballast")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		panic(err)
	}
	storage, err := supervisor.Spawn(engine, supervisor.Config{Dir: filepath.Join(dir, "data")})
	if err != nil {
		panic(err)
	}
	put := messages.ApplyEntry{Operation: messages.PutOperation([]byte("ship"), []byte("steady"))}
	applied, err := actors.Ask[messages.EntryApplied](ctx, storage.Asker(), storage.Supervisor, put)
	if err != nil {
		panic(err)
	}
	got, err := actors.Ask[messages.Got](ctx, storage.Asker(), storage.KV, messages.Get{Key: []byte("ship")})
	if err != nil {
		panic(err)
	}
	fmt.Printf("index %d: %s\n", applied.Index, got.Value)
	if err := storage.Stop(ctx); err != nil {
		panic(err)
	}
	// Output: index 1: steady
}
