package log_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"golang.org/x/sys/unix"
)

// A range is bounded in entries as well: those without data cost no payload.
func TestRangeOfEmptyEntries(t *testing.T) {
	w := mustOpen(t, memory(t), raftlog.Options{})
	defer mustClose(t, w)
	const n = 1 << 18
	if _, err := w.Append(0, make([]messages.Entry, n), nil); err != nil {
		t.Fatal(err)
	}
	mustSync(t, w)
	es, err := w.Entries(0, 1, n+1, 1)
	if err != nil || len(es) == 0 || len(es) > 1<<16 {
		t.Errorf("%d entries, %v", len(es), err)
	}
}

// CachedEntry gives what Entry gives, or nothing.
func TestCachedEntry(t *testing.T) {
	dir := t.TempDir() // not every memory file system reads without waiting
	w := mustOpen(t, dir, raftlog.Options{})
	put(t, w, 3, 1, "one", "", "three", "four")
	mustSync(t, w)
	cached := func(index uint64) string {
		e, ok := w.CachedEntry(3, index)
		if !ok {
			return "nothing"
		}
		if want, err := w.Entry(3, index); err != nil || e.Index != want.Index || e.Term != want.Term || e.Type != want.Type || string(e.Data) != string(want.Data) {
			t.Errorf("%+v, want %+v, %v", e, want, err)
		}
		return string(e.Data)
	}
	if got := cached(3); got != "nothing" {
		t.Errorf("before a read has opened the file: %q", got)
	}
	if _, err := w.Entry(3, 1); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"nothing", "one", "", "three", "four", "nothing"} {
		if got := cached(uint64(i)); got != want {
			t.Errorf("entry %d: %q, want %q", i, got, want)
		}
	}
	put(t, w, 3, 1, "five")
	if got := cached(5); got != "nothing" {
		t.Errorf("what is not durable: %q", got)
	}
	mustSync(t, w)
	if _, err := w.TruncateBefore(3, 3); err != nil {
		t.Fatal(err)
	}
	mustSync(t, w)
	if got := cached(2); got != "nothing" {
		t.Errorf("what is compacted: %q", got)
	}
	name := readFiles(t, dir).segments()[0]
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{'X'}, int64(bytes.Index(data, []byte("three")))); err != nil {
		t.Fatal(err)
	}
	if got := cached(3); got != "nothing" {
		t.Errorf("what is damaged: %q", got)
	}
	// What is not in the page cache would have to be waited for.
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if got := cached(4); got != "nothing" {
		t.Errorf("what is on the disk alone: %q", got)
	}
	mustClose(t, w)
	if _, ok := w.CachedEntry(3, 4); ok {
		t.Error("a log that was closed has something cached")
	}
}
