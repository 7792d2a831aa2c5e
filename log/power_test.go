package log_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// powerDisk knows what would be left of a log after a power cut, in the
// strictest reading of POSIX: the bytes that were synced, under the names that
// the directory had when it was synced. Before each step it calls cut.
type powerDisk struct {
	root   string
	synced map[uint64][]byte            // by file number: contents at the last sync
	names  map[string]map[string]uint64 // by directory: its names at the last sync
	cut    func()
}

func (d *powerDisk) number(path string) (uint64, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	return fileNumber(info), true
}

func (d *powerDisk) Sync(f *os.File) error {
	d.cut()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	n, _ := d.number(f.Name())
	d.synced[n] = data
	return durable.OS.Sync(f)
}

func (d *powerDisk) SyncDir(dir string) error {
	d.cut()
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := map[string]uint64{}
	for _, e := range list {
		if !e.IsDir() {
			names[e.Name()], _ = d.number(filepath.Join(dir, e.Name()))
		}
	}
	d.names[dir] = names
	return nil
}

func (d *powerDisk) Rename(from, to string) error { d.cut(); return os.Rename(from, to) }
func (d *powerDisk) Remove(path string) error     { d.cut(); return os.Remove(path) }

// after returns the files as a power cut at this moment may leave them. Of what
// was not synced, a random part of the blocks, the lengths and the names has
// made it to the disk; with strict, nothing has.
func (d *powerDisk) after(t testing.TB, r *rand.Rand, strict bool) files {
	live := readFiles(t, d.root)
	numbers := map[uint64]string{}
	for name := range live {
		n, _ := d.number(filepath.Join(d.root, name))
		numbers[n] = name
	}
	left := files{}
	keep := func(name string, number uint64) {
		synced := d.synced[number]
		current, ok := numbers[number]
		if strict || !ok {
			left[name] = synced
			return
		}
		data := bytes.Clone(live[current])
		const block = 32 // smaller than a sector, so that small logs tear often
		for at := 0; at < len(data); at += block {
			end := min(at+block, len(data))
			if name != "MARK" && r.IntN(2) == 0 {
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
		left[name] = data
	}
	for _, dir := range []string{d.root, filepath.Join(d.root, "wal")} {
		prefix, err := filepath.Rel(d.root, dir)
		if err != nil {
			t.Fatal(err)
		}
		for name, number := range d.names[dir] {
			keep(filepath.Join(prefix, name), number)
		}
	}
	return left
}

// TestPowerCut cuts the power before every step that makes something durable,
// over and over, and opens what is left: never an error, never less than what
// was acknowledged, never something that was not there.
func TestPowerCut(t *testing.T) {
	cuts, torn := 0, 0
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 0))
		root, victim, single := memory(t), memory(t), memory(t)
		// states[i] is the log after i changes, from a log that syncs each.
		s := mustOpen(t, single, raftlog.Options{})
		states := []string{""}
		acknowledged := 0
		d := &powerDisk{root: root, synced: map[uint64][]byte{}, names: map[string]map[string]uint64{}}
		options := raftlog.Options{SegmentBytes: 300, NoLock: true}
		d.cut = func() {
			cuts++
			left := d.after(t, r, cuts%3 == 0)
			left.write(t, victim)
			o := options
			o.OnRepair = func(messages.TailRepaired) { torn++ }
			w, err := raftlog.Open(victim, o)
			if err != nil {
				t.Fatalf("seed %d, cut %d: %v", seed, cuts, err)
			}
			got := mustDescribe(t, w)
			mustClose(t, w)
			for i := acknowledged; i < len(states); i++ {
				if states[i] == got {
					return
				}
			}
			t.Fatalf("seed %d, cut %d: %d acknowledged, found\n%s", seed, cuts, acknowledged, got)
		}
		o := options
		o.Disk = d
		w := mustOpen(t, root, o)
		for range 40 {
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
				case k == 3:
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
	}
	t.Logf("%d power cuts, %d torn writes repaired", cuts, torn)
	if torn == 0 {
		t.Error("no cut tore a write")
	}
}

func fileNumber(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
