package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// An entry that was damaged when it was moved is in nobody's way, and verify
// tells of it until it is compacted. A dump shows what is left of it.
func TestVerifyFindsLostEntries(t *testing.T) {
	const payload = "an entry of a group that lags behind"
	dir := t.TempDir()
	w, err := raftlog.Open(dir, raftlog.Options{SegmentBytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	do := func(_ uint64, err error) {
		t.Helper()
		if err == nil {
			_, err = w.Sync()
		}
		for again := false; err == nil && w.Due(); {
			if again, err = w.Maintain(); err == nil && again {
				_, err = w.Sync()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	churn := func(rounds int) {
		t.Helper()
		for range rounds {
			do(w.Append(0, []messages.Entry{{Term: 1, Data: make([]byte, 1000)}}, nil))
			do(w.TruncateBefore(0, w.Bounds(0).Last+1))
		}
	}
	do(w.Append(7, []messages.Entry{{Term: 1, Data: []byte(payload)}}, nil))
	churn(10)
	path := filepath.Join(dir, "wal", "00000001", "00000000000000000001")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte(payload))] = 'A'
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	churn(100)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatalf("the segment is still there: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if o := ballast(t, "log", "verify", dir); o.code != exitFailed || !strings.Contains(o.out, "entry 1 of group 7 is lost") {
		t.Errorf("exit code %d: %s", o.code, o.out)
	}
	if out := ballast(t, "log", "dump", "-data", dir).out; !strings.Contains(out, "damaged") || !strings.Contains(out, "An"+payload[2:]) {
		t.Error(out)
	}
	if w, err = raftlog.Open(dir, raftlog.Options{}); err != nil {
		t.Fatal(err)
	}
	do(w.TruncateBefore(7, 2))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if o := ballast(t, "log", "verify", dir); o.code != 0 {
		t.Errorf("exit code %d: %s", o.code, o.out)
	}
}
