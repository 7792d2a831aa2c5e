package supervisor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

// childEnv tells the test binary to be the process that is killed, on the
// directory that it names.
const childEnv = "BALLAST_TEST_CHILD"

// child appends and applies at full speed, takes snapshots, and prints each key
// once it was acknowledged. It never ends by itself.
func child() {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx := context.Background()
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		panic(err)
	}
	storage, err := supervisor.Spawn(engine, supervisor.Config{Dir: os.Getenv(childEnv)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	st, err := actors.Ask[messages.Status](ctx, storage.Asker(), storage.Supervisor, messages.ReadStatus{})
	if err != nil {
		panic(err)
	}
	fmt.Println("open", st.Applied)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d/%d", st.Applied, c, i)
				op := messages.PutOperation([]byte(key), []byte(strings.Repeat(key, 1+i%50)))
				a, err := actors.Ask[messages.EntryApplied](ctx, storage.Asker(), storage.Supervisor, messages.ApplyEntry{Operation: op})
				mu.Lock()
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println("ack", a.Index, key, 1+i%50)
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		for {
			if _, err := actors.Ask[messages.SnapshotCreated](ctx, storage.Asker(), storage.Supervisor, messages.CreateSnapshot{}); err != nil && !errors.Is(err, messages.ErrNotApplied) {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
	})
	wg.Wait()
}

// Fifty times over, a process that appends, applies and takes snapshots at full
// speed is killed with SIGKILL at a different point. Each restart finds all
// that was ever acknowledged.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Log("ten rounds instead of fifty")
	}
	dir := t.TempDir()
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	acked := map[string]string{}
	var last uint64
	for round := range rounds {
		// From a few acknowledgements to some hundreds: the kill hits opening,
		// snapshots, compaction and plain appends.
		n := 1 + (round*37)%400
		lines, err := runChild(t, dir, n)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, line := range lines {
			var index uint64
			var key string
			var times int
			switch {
			case strings.HasPrefix(line, "open "):
				var applied uint64
				if _, err := fmt.Sscanf(line, "open %d", &applied); err != nil {
					t.Fatal(err)
				}
				if applied < last {
					t.Fatalf("round %d: index %d was acknowledged, and after the restart %d are applied", round, last, applied)
				}
			case strings.HasPrefix(line, "ack "):
				if n, err := fmt.Sscanf(line, "ack %d %s %d", &index, &key, &times); n != 3 || err != nil {
					continue // the line was cut by the kill
				}
				last = max(last, index)
				acked[key] = strings.Repeat(key, times)
			default:
				t.Fatalf("round %d: %s", round, line)
			}
		}
	}
	s := start(t, dir)
	for key, want := range acked {
		if got := s.get(key); got != want {
			t.Errorf("%s is %.40q, want %.40q", key, got, want)
		}
	}
	if st := s.status(); st.Applied < last || st.Log.Last < last {
		t.Errorf("%d was acknowledged: %+v", last, st)
	}
	t.Logf("%d keys acknowledged in %d rounds", len(acked), rounds)
}

// runChild kills the child after n lines and returns what it had printed.
func runChild(t *testing.T, dir string, n int) ([]string, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var lines []string
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
		if strings.HasPrefix(scanner.Text(), "error") {
			break
		}
		if len(lines) == n {
			if err := cmd.Process.Kill(); err != nil {
				return nil, err
			}
		}
	}
	if len(lines) < n {
		err = fmt.Errorf("the child ended by itself after %q", lines)
		if killErr := cmd.Process.Kill(); killErr != nil {
			err = fmt.Errorf("%w (%w)", err, killErr)
		}
	}
	waitErr := cmd.Wait() // it was killed, so this is an error
	if waitErr == nil {
		return nil, fmt.Errorf("the child was not killed")
	}
	return lines, err
}
