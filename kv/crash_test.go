package kv_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// The test binary starts itself with these set and becomes the process that is
// killed.
const (
	childMode = "BALLAST_KV_CHILD"
	childDir  = "BALLAST_KV_DIR"
)

func TestMain(m *testing.M) {
	mode := os.Getenv(childMode)
	if mode == "" {
		code := m.Run()
		if err := removeFilled(); err != nil {
			fmt.Println(err)
			code = max(code, 1)
		}
		os.Exit(code)
	}
	if err := child(mode, os.Getenv(childDir)); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// crashEntry is the entry that the child applies at an index.
func crashEntry(index uint64) messages.Entry {
	value := fmt.Sprintf(`{"n":%d,"pad":"%s"}`, index, strings.Repeat("x", int(index%200)))
	op := put(fmt.Sprintf("key-%d", index%97), value)
	if index%11 == 0 {
		op = del(fmt.Sprintf("key-%d", index*3%97))
	}
	return messages.Entry{Index: index, Term: 1, Data: op.Encode(nil)}
}

func child(mode, dir string) error {
	opt := kv.Options{CommitBytes: 2000, MinGarbageBytes: 100_000, MaintainBytes: 10_000}
	if mode == "limit" {
		signal.Ignore(syscall.SIGXFSZ)
	}
	db, err := kv.Open(dir, opt)
	if err != nil {
		return err
	}
	var noLimit syscall.Rlimit
	if mode == "limit" {
		err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &noLimit)
		if err == nil {
			// Leave the page-sized files alone: the data file fails first.
			err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 50_000, Max: noLimit.Max})
		}
		if err != nil {
			return err
		}
	}
	if db.Keys(1) == 0 {
		if _, err := db.Write(1, []messages.Operation{messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n"), Prefix: "key"})}); err != nil {
			return err
		}
	}
	index, _ := db.Applied(1)
	for {
		var entries []messages.Entry
		for range 1 + index%40 {
			index++
			entries = append(entries, crashEntry(index))
		}
		_, err := db.Apply(1, entries)
		if err == nil {
			v := []byte(strconv.FormatUint(index, 10))
			_, err = db.Write(2, []messages.Operation{messages.PutOperation([]byte("a"), v), messages.PutOperation([]byte("b"), v)})
		}
		if err != nil {
			if mode != "limit" {
				return err
			}
			if db.Poisoned() || !errors.Is(err, messages.ErrDiskFull) {
				return fmt.Errorf("poisoned %v by %w", db.Poisoned(), err)
			}
			// Nothing is left of it: a smaller change may fit, a larger one does not.
			if _, err := db.Write(1, []messages.Operation{put("x", strings.Repeat("x", 3000))}); !errors.Is(err, messages.ErrDiskFull) {
				return fmt.Errorf("changed after a failed write: %w", err)
			}
			if _, version, err := db.Get(2, []byte("a")); err != nil || version == 0 {
				return fmt.Errorf("not readable after a failed write: %v %w", version, err)
			}
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &noLimit); err != nil {
				return err
			}
			applied, _ := db.Applied(1)
			if _, err := db.Apply(1, entries[len(entries)-int(index-applied):]); err != nil {
				return fmt.Errorf("with room again: %w", err)
			}
			if err := db.Sync(); err != nil {
				return err
			}
			fmt.Println("synced", index)
			fmt.Println("refused:", err)
			return nil
		}
		if mode == "apply" { // a compaction, piece by piece
			if _, err := db.Maintain(); err != nil {
				return err
			}
		}
		if index%7 == 0 {
			if err := db.Sync(); err != nil {
				return err
			}
			fmt.Println("synced", index)
		}
	}
}

// checkPrefix opens what a child has left and compares it with the same
// entries, applied to a map.
func checkPrefix(t *testing.T, dir string, synced uint64) (applied uint64) {
	t.Helper()
	db := open(t, dir, lazy)
	applied, _ = db.Applied(1)
	if applied < synced {
		t.Fatalf("applied %d, but %d was synced", applied, synced)
	}
	m := newModel()
	for i := range applied {
		op, err := messages.DecodeOperation(crashEntry(i + 1).Data)
		if err != nil {
			t.Fatal(err)
		}
		m.apply(op)
	}
	pairs := scanAll(t, db, messages.Scan{Group: 1})
	if len(pairs) != len(m.data) || db.Keys(1) != len(m.data) {
		t.Fatalf("%d pairs at index %d, want %d", len(pairs), applied, len(m.data))
	}
	for _, p := range pairs {
		if m.data[string(p.Key)] != string(p.Value) {
			t.Fatalf("%s is %s at index %d, want %s", p.Key, p.Value, applied, m.data[string(p.Key)])
		}
	}
	if applied > 0 {
		if got := queryAll(t, db, messages.QueryIndex{Group: 1, Name: "n"}); len(got) != len(pairs) {
			t.Fatalf("%d index entries for %d pairs", len(got), len(pairs))
		}
	}
	both, _, err := db.MultiGet(2, [][]byte{[]byte("a"), []byte("b")})
	if err != nil || string(both[0]) != string(both[1]) {
		t.Fatalf("half of a change: %q %v", both, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return applied
}

func startChild(t *testing.T, mode, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childMode+"="+mode, childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// A process that applies at full speed is killed, 20 times on the same files.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for round := range 20 {
		cmd, out := startChild(t, "apply", dir)
		synced, killed := last, false
		for n := 0; out.Scan(); n++ {
			if _, err := fmt.Sscanf(out.Text(), "synced %d", &synced); err != nil {
				t.Fatal(out.Text())
			}
			// The child goes on while the signal is on its way, so it dies
			// anywhere.
			if n == 1+round%5 && !killed {
				killed = true
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !killed {
			t.Fatal("the child was not killed", err)
		}
		last = checkPrefix(t, dir, synced)
	}
	t.Logf("%d entries after 20 kills", last)
}

// A write that really fails half-way, because the file may not grow beyond a
// limit, leaves nothing; when there is room again the store goes on.
func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startChild(t, "limit", dir)
	synced, refused := uint64(0), ""
	for out.Scan() {
		if _, err := fmt.Sscanf(out.Text(), "synced %d", &synced); err != nil {
			refused = out.Text()
		}
	}
	if err := cmd.Wait(); err != nil || !strings.HasPrefix(refused, "refused:") {
		t.Fatal(err, refused)
	}
	if applied := checkPrefix(t, dir, synced); applied == 0 {
		t.Error("nothing was applied")
	}
}
