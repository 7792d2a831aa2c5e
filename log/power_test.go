package log_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// powerDisk knows what would be left of a log after a power cut, in the
// strictest reading of POSIX: the bytes that were synced, under the names that
// their directory had when it was synced, if that directory's own name is there
// by the same rule. Before each step it calls cut.
type powerDisk struct {
	root   string
	synced map[uint64][]byte          // by file number: contents at the last sync
	names  map[uint64]map[string]node // by number of the directory: its names at the last sync
	cut    func()
}

// node is a file or a directory.
type node struct {
	number uint64
	dir    bool
}

func stat(path string) (node, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return node{}, false
	}
	return node{fileNumber(info), info.IsDir()}, true
}

func (d *powerDisk) Sync(f *os.File) error {
	d.cut()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	n, _ := stat(f.Name())
	d.synced[n.number] = data
	return durable.OS.Sync(f)
}

func list(dir string) (map[string]node, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := map[string]node{}
	for _, e := range entries {
		names[e.Name()], _ = stat(filepath.Join(dir, e.Name()))
	}
	return names, nil
}

func (d *powerDisk) SyncDir(dir string) error {
	d.cut()
	n, ok := stat(dir)
	names, err := list(dir)
	if err != nil || !ok {
		return err
	}
	d.names[n.number] = names
	return nil
}

func (d *powerDisk) Rename(from, to string) error { d.cut(); return os.Rename(from, to) }
func (d *powerDisk) Remove(path string) error     { d.cut(); return os.Remove(path) }

// after returns the files as a power cut at this moment may leave them, and the
// directories. Of what was not synced, a random part of the blocks, the lengths
// and the names has made it to the disk; with strict, nothing has.
func (d *powerDisk) after(t testing.TB, r *rand.Rand, strict bool) (files, []string) {
	live := map[uint64]string{} // where each file and directory is now
	if err := filepath.WalkDir(d.root, func(path string, _ os.DirEntry, err error) error {
		if n, ok := stat(path); ok {
			live[n.number] = path
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	contents := func(number uint64) []byte {
		synced := d.synced[number]
		path, ok := live[number]
		if strict || !ok {
			return synced
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		const block = 32 // smaller than a sector, so that small logs tear often
		for at := 0; at < len(data); at += block {
			end := min(at+block, len(data))
			if filepath.Base(path) != "MARK" && r.IntN(2) == 0 {
				continue
			}
			clear(data[at:end])
			if at < len(synced) {
				copy(data[at:end], synced[at:])
			}
		}
		if len(synced) > len(data) || r.IntN(2) == 0 {
			data = data[:max(min(len(synced), len(data)), r.IntN(len(data)+1))]
		}
		return data
	}
	left := files{}
	var dirs []string
	var walk func(number uint64, prefix string)
	walk = func(number uint64, prefix string) {
		names := maps.Clone(d.names[number])
		if path, ok := live[number]; ok && !strict {
			now, err := list(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range slices.Sorted(maps.Keys(now)) {
				if names[name] != now[name] && r.IntN(2) == 0 {
					if names == nil {
						names = map[string]node{}
					}
					names[name] = now[name]
				}
			}
			for _, name := range slices.Sorted(maps.Keys(names)) {
				if _, ok := now[name]; !ok && r.IntN(2) == 0 {
					delete(names, name)
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			path := filepath.Join(prefix, name)
			if n := names[name]; n.dir {
				dirs = append(dirs, path)
				walk(n.number, path)
			} else {
				left[path] = contents(n.number)
			}
		}
	}
	root, _ := stat(d.root)
	walk(root.number, "")
	return left, dirs
}

// TestPowerCut cuts the power before every step that makes something durable,
// over and over, and opens what is left: never an error, never less than what
// was acknowledged, never something that was not there.
func TestPowerCut(t *testing.T) {
	cuts, torn, summaries, relocated, raised := 0, 0, 0, 0, 0
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 0))
		root, victim, single := memory(t), memory(t), memory(t)
		// states[i] is the log after i changes, from a log that syncs each.
		s := mustOpen(t, single, raftlog.Options{})
		states := []string{""}
		acknowledged := 0
		d := &powerDisk{root: root, synced: map[uint64][]byte{}, names: map[uint64]map[string]node{}}
		options := raftlog.Options{SegmentBytes: 300, RecycleBytes: int(seed % 2), NoLock: true}
		d.cut = func() {
			cuts++
			left, dirs := d.after(t, r, cuts%3 == 0)
			left.write(t, victim)
			for _, dir := range dirs {
				if err := os.MkdirAll(filepath.Join(victim, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			summaries += len(left.summaries())
			o := options
			repairs := 0
			o.OnRepair = func(messages.TailRepaired) { repairs++ }
			o.VerifyAll = cuts%4 == 0
			w, err := raftlog.Open(victim, o)
			if err != nil {
				t.Fatalf("seed %d, cut %d: %v", seed, cuts, err)
			}
			torn += repairs
			got := mustDescribe(t, w)
			found := false
			for i := acknowledged; i < len(states) && !found; i++ {
				found = states[i] == got
			}
			if !found {
				t.Fatalf("seed %d, cut %d: %d acknowledged, found\n%s", seed, cuts, acknowledged, got)
			}
			// The log goes on, and there is no damage in it that would show later.
			put(t, w, 99, 1, strings.Repeat("after", 50))
			mustSync(t, w)
			if damage, err := scrub(w); err != nil || slices.ContainsFunc(damage, func(d raftlog.Damage) bool { return filepath.Base(d.Err.Path) != "SUMMARY" }) {
				t.Fatalf("seed %d, cut %d: scrub: %v, %v", seed, cuts, damage, err)
			}
			mustClose(t, w)
			if report, err := raftlog.Inspect(victim); err != nil || len(report.Damage) > 0 || report.Torn != nil {
				t.Fatalf("seed %d, cut %d: inspect: %v, %v, %v", seed, cuts, report.Damage, report.Torn, err)
			}
		}
		o := options
		o.Disk = d
		w := mustOpen(t, root, o)
		// A group that lags behind, so that entries have to be relocated.
		for _, l := range []*raftlog.WAL{s, w} {
			put(t, l, 5, 1, "lagging", "", "behind")
		}
		mustSync(t, s)
		states = append(states, mustDescribe(t, s))
		for _, l := range []*raftlog.WAL{s, w} {
			if _, err := l.SetStable(5, "a", []byte("value")); err != nil {
				t.Fatal(err)
			}
		}
		mustSync(t, s)
		states = append(states, mustDescribe(t, s))
		for range 60 {
			for range 1 + r.IntN(4) {
				group := uint64(r.IntN(2))
				b := s.Bounds(group)
				change := func(l *raftlog.WAL) (uint64, error) {
					return l.Append(group, []messages.Entry{{Term: b.LastTerm + 1, Data: []byte(fmt.Sprint(len(states), "-", seed))}, {Term: b.LastTerm + 1, Data: make([]byte, len(states)%90)}}, nil)
				}
				switch k := r.IntN(12); {
				case k == 0 && b.Last > b.First:
					change = func(l *raftlog.WAL) (uint64, error) { return l.TruncateFrom(group, b.Last-1) }
				case k <= 2 && !b.Empty():
					change = func(l *raftlog.WAL) (uint64, error) { return l.TruncateBefore(group, b.Last) }
				case k == 3 && group > 0:
					change = func(l *raftlog.WAL) (uint64, error) { return l.Reset(group, b.Last+3, b.LastTerm+1) }
				}
				for _, l := range []*raftlog.WAL{s, w} {
					if position, err := change(l); err != nil {
						t.Fatal(err)
					} else if position == 0 {
						break
					}
				}
				if n, err := s.Sync(); err != nil {
					t.Fatal(err)
				} else if n > 0 {
					states = append(states, mustDescribe(t, s))
				}
			}
			mustSync(t, w)
			acknowledged = len(states) - 1
			if r.IntN(6) == 0 {
				mustClose(t, w)
				w = mustOpen(t, root, o)
			}
		}
		if got := mustDescribe(t, w); got != states[acknowledged] {
			t.Fatalf("seed %d:\n%s", seed, got)
		}
		mustClose(t, w)
		mustClose(t, s)
		report, err := raftlog.InspectRecords(root, func(r raftlog.RecordReport) {
			if r.Kind == "relocated" {
				relocated++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if report.Floor > 1 {
			raised++
		}
	}
	t.Logf("%d power cuts, %d torn writes repaired, %d summaries, %d relocations, %d floors raised", cuts, torn, summaries, relocated, raised)
	if torn == 0 || summaries == 0 || relocated == 0 || raised == 0 {
		t.Error("no cut tore a write, or there was no summary, relocation or compaction")
	}
}

func fileNumber(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
