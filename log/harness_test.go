package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
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
	if dir := os.Getenv(descriptorsDir); dir != "" {
		appendWithoutDescriptors(dir)
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

// mustSync syncs, and does all maintenance that is due.
func mustSync(t testing.TB, w *raftlog.WAL) {
	t.Helper()
	if _, err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	mustMaintain(t, w)
}

func mustMaintain(t testing.TB, w *raftlog.WAL) {
	t.Helper()
	if err := maintain(w); err != nil {
		t.Fatal(err)
	}
}

func maintain(w *raftlog.WAL) error {
	for w.Due() {
		sync, err := w.Maintain()
		if err != nil {
			return err
		}
		if sync {
			if _, err := w.Sync(); err != nil {
				return err
			}
		}
	}
	return nil
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

// stableNames are the names that the tests give to stable values.
var stableNames = []string{"a", "b"}

// describe lists everything that can be read of a log, in short.
func describe(w *raftlog.WAL) (string, error) { return undamaged(surveyTo(w, 40)) }

// fullState is describe with all of the data.
func fullState(w *raftlog.WAL) (string, error) { return undamaged(surveyTo(w, math.MaxInt)) }

func undamaged(text string, damaged []*messages.CorruptError, err error) (string, error) {
	if err == nil && len(damaged) > 0 {
		err = damaged[0]
	}
	return text, err
}

// survey is describe for a log with damage: the line of an entry that cannot be
// read for that ends in damagedEntry.
func survey(w *raftlog.WAL) (text string, damaged []*messages.CorruptError, err error) {
	return surveyTo(w, 40)
}

func groupLine(id uint64, b messages.LogBounds) string {
	return fmt.Sprintf("group %d: %d to %d, terms %d to %d, hard state %v\n", id, b.First, b.Last, b.PrevTerm, b.LastTerm, b.HardState)
}

// entryLine shows so much of the data.
func entryLine(e messages.Entry, width int) string {
	data := string(e.Data)
	if len(data) > width {
		data = fmt.Sprintf("%s…(%d)", data[:width], len(data))
	}
	return fmt.Sprintf("  %d/%d type %d %q\n", e.Index, e.Term, e.Type, data)
}

func stableLine(id uint64, name string, value []byte) string {
	return fmt.Sprintf("group %d: %s = %q\n", id, name, value)
}

func surveyTo(w *raftlog.WAL, width int) (text string, damaged []*messages.CorruptError, err error) {
	var b bytes.Buffer
	for _, g := range w.Groups() {
		bounds := w.Bounds(g)
		b.WriteString(groupLine(g, bounds))
		var all []messages.Entry
		before := len(damaged)
		for i := bounds.First; i <= bounds.Last; i++ {
			e, err := w.Entry(g, i)
			term, termErr := w.Term(g, i)
			if termErr != nil {
				return "", nil, termErr
			}
			var c *messages.CorruptError
			if errors.As(err, &c) {
				if c.Index != i || c.Path == "" {
					return "", nil, fmt.Errorf("entry %d of group %d: %w", i, g, err)
				}
				damaged = append(damaged, c)
				fmt.Fprintf(&b, "  %d/%d type %s\n", i, term, damagedEntry)
				continue
			}
			if err != nil {
				return "", nil, err
			}
			if e.Index != i || e.Term != term {
				return "", nil, fmt.Errorf("entry %d of group %d is %d/%d, of term %d", i, g, e.Index, e.Term, term)
			}
			all = append(all, e)
			b.WriteString(entryLine(e, width))
		}
		entries, err := w.Entries(g, bounds.First, bounds.Last+1, 1<<30)
		if len(damaged) > before {
			var c *messages.CorruptError
			if !errors.As(err, &c) {
				return "", nil, fmt.Errorf("a range with damage: %w", err)
			}
			continue
		}
		if err != nil {
			return "", nil, err
		}
		if len(entries) != len(all) {
			return "", nil, fmt.Errorf("%d entries in the range of %v", len(entries), bounds)
		}
		for i, e := range entries {
			if o := all[i]; e.Index != o.Index || e.Term != o.Term || e.Type != o.Type || !bytes.Equal(e.Data, o.Data) {
				return "", nil, fmt.Errorf("entry %d of group %d differs in a range", o.Index, g)
			}
		}
	}
	for _, g := range w.Groups() {
		for _, name := range stableNames {
			if v, err := w.Stable(g, name); err == nil {
				b.WriteString(stableLine(g, name, v))
			} else if !errors.Is(err, messages.ErrNotFound) {
				return "", nil, err
			}
		}
	}
	return b.String(), damaged, nil
}

const damagedEntry = "damaged"

// sameButDamaged compares two descriptions, but for the data of entries that
// are damaged in the first.
func sameButDamaged(got, want string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) {
		return false
	}
	for i := range g {
		if prefix, ok := strings.CutSuffix(g[i], damagedEntry); ok && strings.HasPrefix(w[i], prefix) {
			continue
		}
		if g[i] != w[i] {
			return false
		}
	}
	return true
}

// scrub goes once around.
func scrub(w *raftlog.WAL) (damage []raftlog.Damage, err error) {
	for {
		n, d, err := w.Scrub()
		if damage = append(damage, d...); n == 0 || err != nil {
			return damage, err
		}
	}
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

// write makes dir hold exactly these files, and the directories that they are
// in.
func (fs files) write(t testing.TB, dir string) {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if _, ok := fs[name]; !ok {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range fs {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := len(dirs) - 1; i > 0; i-- { // the inner ones come last; the first is dir
		if left, err := os.ReadDir(dirs[i]); err == nil && len(left) == 0 && filepath.Base(dirs[i]) != "wal" {
			if err := os.Remove(dirs[i]); err != nil {
				t.Fatal(err)
			}
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

// named lists the files with a name, in the order of their segments.
func (fs files) named(base string) []string {
	var names []string
	for name := range fs {
		if filepath.Dir(filepath.Dir(name)) == "wal" && filepath.Base(name) == base {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

const logFile = "00000000000000000001"

// segments lists the files of the engine, in order.
func (fs files) segments() []string { return fs.named(logFile) }

// summaries lists the summaries, in order.
func (fs files) summaries() []string { return fs.named("SUMMARY") }

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
