package log_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

const killDir = "BALLAST_LOG_KILL_DIR"

// killPayload is what entry index of a group holds: any mix-up shows.
func killPayload(group, index uint64) string {
	return fmt.Sprintf("%d/%d/%s", group, index, strings.Repeat("z", int(index*7919%300)))
}

// appendUntilKilled is the child: it appends, truncates and syncs at full speed
// and prints what was acknowledged: the position, and the bounds of two groups.
func appendUntilKilled(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	w, err := raftlog.Open(dir, raftlog.Options{SegmentBytes: 8 << 10, RecycleBytes: 1})
	fail(err)
	go func() {
		for { // as fast as it can, so that kills hit it
			_, err := w.Maintain()
			fail(err)
		}
	}()
	out := bufio.NewWriter(os.Stdout)
	next := []uint64{w.Bounds(0).Last + 1, w.Bounds(1).Last + 1}
	for round := 0; ; round++ {
		for range 1 + round%5 {
			group := uint64(round % 2)
			var entries []messages.Entry
			for range 1 + round%3 {
				entries = append(entries, messages.Entry{Index: next[group], Term: 1, Data: []byte(killPayload(group, next[group]))})
				next[group]++
			}
			_, err := w.Append(group, entries, &messages.HardState{Term: 1, Commit: next[group] - 1})
			fail(err)
		}
		if round%50 == 49 {
			for group := range uint64(2) {
				_, err := w.TruncateBefore(group, max(next[group], 20)-20)
				fail(err)
			}
		}
		_, err := w.Sync()
		fail(err)
		fmt.Fprintln(out, w.Durable(), w.Bounds(0).First, w.Bounds(0).Last, w.Bounds(1).First, w.Bounds(1).Last)
		fail(out.Flush())
	}
}

// TestKill kills a process with signal 9 while it appends, at a random
// acknowledgement, over and over in the same directory.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	repairs := 0
	for round := range 20 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var durable, first0, last0, first1, last1 uint64
		read := func(line string) bool {
			n, err := fmt.Sscan(line, &durable, &first0, &last0, &first1, &last1)
			return n == 5 && err == nil
		}
		lines := bufio.NewReader(stdout)
		for range 1 + r.IntN(100) {
			line, err := lines.ReadString('\n')
			if err != nil || !read(line) {
				t.Fatalf("round %d: child said %q, %v", round, line, err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// What was still printed was acknowledged too; a last line may be cut.
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(rest)) {
			if strings.HasSuffix(line, "\n") && !read(line) {
				t.Fatalf("round %d: child said %q", round, line)
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 8 << 10, OnRepair: func(messages.TailRepaired) { repairs++ }})
		if w.Durable() < durable {
			t.Fatalf("round %d: %d was acknowledged, %d is durable", round, durable, w.Durable())
		}
		for group, bounds := range map[uint64][2]uint64{0: {first0, last0}, 1: {first1, last1}} {
			b := w.Bounds(group)
			if b.First < bounds[0] || b.Last < bounds[1] {
				t.Fatalf("round %d: bounds %+v, acknowledged %v", round, b, bounds)
			}
			entries, err := w.Entries(group, b.First, b.Last+1, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if string(e.Data) != killPayload(group, e.Index) {
					t.Fatalf("round %d: entry %d of group %d is %q", round, e.Index, group, e.Data)
				}
			}
		}
		mustMaintain(t, w)
		if damage, err := scrub(w); err != nil || len(damage) > 0 {
			t.Fatalf("round %d: %v, %v", round, damage, err)
		}
		mustClose(t, w)
		if r, err := raftlog.Inspect(dir); err != nil || len(r.Damage) > 0 {
			t.Fatalf("round %d: %v, %v", round, r.Damage, err)
		}
	}
	t.Logf("%d of 20 kills left a torn write", repairs)
}
