package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		appendUntilKilled(dir)
	}
	if dir := os.Getenv(limitDir); dir != "" {
		appendUpToLimit(dir)
	}
	goleak.VerifyTestMain(m)
}

func mustOpen(t testing.TB, dir string, o raftlog.Options) *raftlog.WAL {
	t.Helper()
	w, err := raftlog.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func mustClose(t testing.TB, w *raftlog.WAL) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustSync(t testing.TB, w *raftlog.WAL) {
	t.Helper()
	if _, err := w.Sync(); err != nil {
		t.Fatal(err)
	}
}

// put stages n entries of a term behind the last.
func put(t testing.TB, w *raftlog.WAL, group, term uint64, payloads ...string) uint64 {
	t.Helper()
	entries := make([]messages.Entry, len(payloads))
	for i, p := range payloads {
		entries[i] = messages.Entry{Term: term, Data: []byte(p)}
	}
	position, err := w.Append(group, entries, nil)
	if err != nil {
		t.Fatal(err)
	}
	return position
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if want == nil && err != nil || want != nil && !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// describe lists everything that can be read of a log.
func describe(w *raftlog.WAL) (string, error) {
	var b bytes.Buffer
	for _, g := range w.Groups() {
		bounds := w.Bounds(g)
		fmt.Fprintf(&b, "group %d: %d to %d, terms %d to %d, hard state %v\n", g, bounds.First, bounds.Last,
			bounds.PrevTerm, bounds.LastTerm, bounds.HardState)
		for i := bounds.First; i <= bounds.Last; i++ {
			e, err := w.Entry(g, i)
			if err != nil {
				return "", err
			}
			data := string(e.Data)
			if len(data) > 40 {
				data = fmt.Sprintf("%s…(%d)", data[:40], len(data))
			}
			fmt.Fprintf(&b, "  %d/%d type %d %q\n", e.Index, e.Term, e.Type, data)
		}
		entries, err := w.Entries(g, bounds.First, bounds.Last+1, 1<<30)
		if err != nil {
			return "", err
		}
		if len(entries) != int(bounds.Last+1-bounds.First) {
			return "", fmt.Errorf("%d entries in the range of %v", len(entries), bounds)
		}
	}
	return b.String(), nil
}

func mustDescribe(t testing.TB, w *raftlog.WAL) string {
	t.Helper()
	s, err := describe(w)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// files reads a directory whole: what a test restores, damages and compares.
type files map[string][]byte

func readFiles(t testing.TB, dir string) files {
	t.Helper()
	fs := files{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fs[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// write makes dir hold exactly these files.
func (fs files) write(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o755); err != nil {
		t.Fatal(err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := filepath.Glob(filepath.Join(dir, "wal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(old, inner...) {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := fs[name]; !ok && name != "wal" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, data := range fs {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (fs files) clone() files {
	c := files{}
	for name, data := range fs {
		c[name] = data
	}
	return c
}

func (fs files) segments() []string {
	var names []string
	for name := range fs {
		if filepath.Dir(name) == "wal" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// memory is where tests that reopen thousands of times put their logs: syncs
// cost nothing there.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ballast-log-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
