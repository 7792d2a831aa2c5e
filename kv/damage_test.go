package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// memDir is a directory in memory where there is one: these tests open
// thousands of stores, and buntdb syncs when it is closed.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ballast-kv-")
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

// withoutZeros is what a data file holds, without the zeros ahead of its end.
func withoutZeros(data []byte) []byte { return bytes.TrimRight(data, "\x00") }

// fingerprint is everything that can be read of the groups 1 and 2.
func fingerprint(t testing.TB, db *kv.DB) string {
	t.Helper()
	s, err := fingerprintOf(db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fingerprintOf(db *kv.DB) (string, error) {
	var b strings.Builder
	for g := uint64(1); g <= 2; g++ {
		i, term := db.Applied(g)
		fmt.Fprintf(&b, "group %d: applied %d/%d, revision %d, %d keys\n", g, i, term, db.Revision(g), db.Keys(g))
		pairs, _, err := db.Scan(messages.Scan{Group: g, Limit: kv.MaxLimit, MaxBytes: kv.MaxBytes})
		if err != nil || len(pairs) != db.Keys(g) {
			return "", fmt.Errorf("group %d: %d pairs, but %d keys: %w", g, len(pairs), db.Keys(g), err)
		}
		for _, p := range pairs {
			fmt.Fprintf(&b, "%q=%q\n", p.Key, p.Value)
		}
		for _, x := range db.Indexes(g) {
			pairs, _, err := db.Query(messages.QueryIndex{Group: g, Name: x.Name})
			switch {
			case x.Building && errors.Is(err, messages.ErrNotFound):
				continue // it is prepared, which a crash undoes
			case x.Building && errors.Is(err, messages.ErrNotReady):
			case err != nil:
				return "", err
			}
			fmt.Fprintf(&b, "%+v:", x)
			for _, p := range pairs {
				fmt.Fprintf(&b, " %q=%q", p.Key, p.Value)
			}
			b.WriteString("\n")
		}
	}
	return b.String(), nil
}

// story is a small store, with its state at every border between two changes.
type story struct {
	data   []byte
	ends   []int64
	states map[int64]string
	marks  map[string][]byte // MARK after no sync, after one in the middle, after the last
	synced map[string]int64
}

func newStory(t *testing.T) *story {
	t.Helper()
	dir := memDir(t)
	db := open(t, dir, lazy)
	s := &story{states: map[int64]string{}, marks: map[string][]byte{}, synced: map[string]int64{}}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	note := func() {
		s.data = withoutZeros(read("DATA"))
		s.ends = append(s.ends, int64(len(s.data)))
		s.states[int64(len(s.data))] = fingerprint(t, db)
	}
	sync := func(name string) {
		if err := db.Sync(); err != nil {
			t.Fatal(err)
		}
		s.marks[name], s.synced[name] = read("MARK"), int64(len(s.data))
	}
	note()
	s.marks["none"], s.synced["none"] = read("MARK"), int64(len(s.data))
	apply := func(g uint64, entries ...messages.Entry) {
		if _, err := db.Apply(g, entries); err != nil {
			t.Fatal(err)
		}
		note()
	}
	apply(1, entry(1, put("a", `{"v":1}`)))
	mustWrite(t, db, 2, put("x", "1"), put("y", "2"), put("z", "3"))
	note()
	apply(1, messages.Entry{Index: 2, Term: 1})
	sync("middle")
	apply(1, entry(3, messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Fields: messages.Paths("v")})), entry(4, put("b", `{"v":"s"}`)))
	mustWrite(t, db, 2, del("y"), put("z", "4"))
	note()
	apply(1, entry(5, put("a", `{"v":2}`)), entry(6, del("b")))
	sync("all")
	return s
}

// try opens a store of these bytes. It reports the state, or damage.
func (s *story) try(t *testing.T, dir, what string, data, mark []byte) (state string, repaired bool, damage *messages.CorruptError) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "DATA"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "MARK"), mark, 0o644); err != nil {
		t.Fatal(err)
	}
	opt := lazy
	var repair messages.TailRepaired
	opt.OnRepair = func(r messages.TailRepaired) { repair, repaired = r, true }
	db, err := kv.Open(dir, opt)
	if errors.As(err, &damage) {
		if got, err := os.ReadFile(filepath.Join(dir, "DATA")); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%s: a damaged file was changed (%v)", what, err)
		}
		return "", false, damage
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if repaired && (repair.Offset+repair.Bytes != int64(len(withoutZeros(data))) || repair.Path != filepath.Join(dir, "DATA") || repair.Reason == "") {
		t.Fatalf("%s: reported %+v", what, repair)
	}
	state = fingerprint(t, db)
	if err := db.Close(); err != nil {
		t.Fatalf("%s: close: %v", what, err)
	}
	return state, repaired, nil
}

// last is the last border that is not after off.
func (s *story) last(off int64) int64 {
	end := int64(0)
	for _, e := range s.ends {
		if e <= off {
			end = e
		}
	}
	return end
}

func TestCutAtEveryByte(t *testing.T) {
	s, dir := newStory(t), memDir(t)
	for name, mark := range s.marks {
		for n := range int64(len(s.data)) + 1 {
			for i, zeros := range []int{0, len(s.data) - int(n), 1, 37} {
				if i > 1 && n%7 > 0 {
					continue
				}
				what := fmt.Sprintf("synced %s, cut at %d of %d, then %d zeros", name, n, len(s.data), zeros)
				state, repaired, damage := s.try(t, dir, what, append(bytes.Clone(s.data[:n]), make([]byte, zeros)...), mark)
				end := s.last(n)
				switch {
				case n < s.synced[name]:
					if damage == nil {
						t.Fatalf("%s: opened although synced bytes are gone", what)
					}
				case damage != nil:
					t.Fatalf("%s: %v", what, damage)
				case state != s.states[end]:
					t.Fatalf("%s: state\n%s\nwant\n%s", what, state, s.states[end])
				case repaired != (n > end): // zeros alone were ahead of the changes
					t.Fatalf("%s: repaired %v", what, repaired)
				}
			}
		}
	}
}

func TestFlipEveryBit(t *testing.T) {
	s, dir := newStory(t), memDir(t)
	for _, name := range []string{"none", "all"} {
		for i := range int64(len(s.data)) {
			for bit := range 8 {
				what := fmt.Sprintf("synced %s, bit %d of byte %d of %d", name, bit, i, len(s.data))
				data := bytes.Clone(s.data)
				if bit%2 > 0 { // a store that was not closed
					data = append(data, make([]byte, 5000)...)
				}
				data[i] ^= 1 << bit
				state, _, damage := s.try(t, dir, what, data, s.marks[name])
				switch {
				case damage != nil:
					if damage.Offset > i || damage.Path != filepath.Join(dir, "DATA") {
						t.Fatalf("%s: %v", what, damage)
					}
				case i < s.synced[name]:
					t.Fatalf("%s: opened although synced bytes are damaged", what)
				case state != s.states[s.last(i)]:
					t.Fatalf("%s: state\n%s", what, state)
				}
			}
		}
	}
}

// What lies in the zeros ahead is a torn write, wherever it is.
func TestFlipInTheZeros(t *testing.T) {
	s, dir := newStory(t), memDir(t)
	end := int64(len(s.data))
	for i := range 300 {
		data := append(bytes.Clone(s.data), make([]byte, 5000)...)
		data[end+int64(i*i%5000)] ^= 1 << (i % 8)
		state, repaired, damage := s.try(t, dir, fmt.Sprint("flip in the zeros at ", i*i%5000), data, s.marks["all"])
		if damage != nil || !repaired || state != s.states[end] {
			t.Fatalf("flip in the zeros at %d: repaired %v, %v\n%s", i*i%5000, repaired, damage, state)
		}
	}
}

func TestZeroedBlocks(t *testing.T) {
	s, dir := newStory(t), memDir(t)
	for name, mark := range s.marks {
		for i := range int64(len(s.data)) {
			for _, n := range []int64{16, 200} {
				what := fmt.Sprintf("synced %s, %d zeros at %d", name, n, i)
				data := bytes.Clone(s.data)
				clear(data[i:min(i+n, int64(len(data)))])
				if bytes.Equal(data, s.data) {
					continue
				}
				state, _, damage := s.try(t, dir, what, data, mark)
				switch {
				case damage != nil:
				case i+n <= s.synced[name]:
					t.Fatalf("%s: opened although synced bytes are damaged", what)
				case state != s.states[s.last(i)]:
					t.Fatalf("%s: state\n%s", what, state)
				}
			}
		}
	}
}

func TestDamagedMark(t *testing.T) {
	s, dir := newStory(t), memDir(t)
	good := s.marks["all"]
	final := s.states[int64(len(s.data))]
	for i := range len(good) * 8 {
		mark := bytes.Clone(good)
		mark[i/8] ^= 1 << (i % 8)
		what := fmt.Sprintf("bit %d of MARK", i)
		if state, _, damage := s.try(t, dir, what, s.data, mark); damage != nil || state != final {
			t.Fatalf("%s: %v\n%s", what, damage, state)
		}
		// It was made anew.
		if now, err := os.ReadFile(filepath.Join(dir, "MARK")); err != nil || !bytes.Equal(now, good) {
			t.Fatalf("%s: MARK is %x now (%v)", what, now, err)
		}
	}
	for n := range len(good) {
		if state, _, damage := s.try(t, dir, "cut MARK", s.data, good[:n]); damage != nil || state != final {
			t.Fatalf("MARK cut at %d: %v\n%s", n, damage, state)
		}
	}
	// Nothing is known without MARK, but the seal is.
	if _, _, damage := s.try(t, dir, "cut before the seal", s.data[:s.ends[0]-1], make([]byte, 64)); damage == nil {
		t.Error("opened a file without a seal")
	}
}

func TestDamageIsNamed(t *testing.T) {
	s, dir := newStory(t), memDir(t)
	data := bytes.Clone(s.data)
	data[s.ends[3]+40] ^= 1
	_, _, damage := s.try(t, dir, "flip", data, s.marks["all"])
	if damage == nil || damage.Path != filepath.Join(dir, "DATA") || damage.Offset != s.ends[3] || damage.Index != 2 {
		t.Errorf("%+v", damage)
	}
}

func TestMissingFiles(t *testing.T) {
	s := newStory(t)
	for _, name := range []string{"DATA", "MARK"} {
		dir := memDir(t)
		s.try(t, dir, "whole", s.data, s.marks["all"])
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		_, err := kv.Open(dir, lazy)
		var damage *messages.CorruptError
		if !errors.As(err, &damage) || damage.Offset != -1 || damage.Path != filepath.Join(dir, name) {
			t.Errorf("without %s: %v", name, err)
		}
		if rep, err := kv.Inspect(dir); err != nil || !errors.Is(rep.Damage, messages.ErrCorrupt) {
			t.Errorf("inspect without %s: %+v %v", name, rep, err)
		}
	}
}

// Wrong data could come back if bytes from before a repair were found again
// after it.
func TestWritesAfterARepair(t *testing.T) {
	s, dir := newStory(t), memDir(t)
	for _, cut := range []int64{s.ends[3] + 1, s.ends[4] - 1, s.ends[5] - 1} {
		s.try(t, dir, "cut", s.data[:cut], s.marks["middle"])
		db := open(t, dir, lazy)
		mustWrite(t, db, 2, put("new", "1"))
		state := fingerprint(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, lazy)
		if got := fingerprint(t, db); got != state || !strings.Contains(got, `"new"="1"`) {
			t.Errorf("cut at %d: %s", cut, got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
