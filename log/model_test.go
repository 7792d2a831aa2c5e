package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"pgregory.net/rapid"
)

// model is a log as simple as it can be: slices and maps.
type model struct {
	groups map[uint64]*modelGroup
}

type modelGroup struct {
	prev, prevTerm uint64
	entries        []messages.Entry
	hard           messages.HardState
	stable         map[string]string
}

func (m *model) clone() *model {
	c := &model{groups: map[uint64]*modelGroup{}}
	for id, g := range m.groups {
		d := *g
		d.entries = slices.Clone(g.entries)
		d.stable = maps.Clone(g.stable)
		c.groups[id] = &d
	}
	return c
}

func (m *model) get(id uint64) *modelGroup {
	if g := m.groups[id]; g != nil {
		return g
	}
	return &modelGroup{stable: map[string]string{}}
}

func (g *modelGroup) first() uint64 { return g.prev + 1 }
func (g *modelGroup) last() uint64  { return g.prev + uint64(len(g.entries)) }
func (g *modelGroup) lastTerm() uint64 {
	if len(g.entries) == 0 {
		return g.prevTerm
	}
	return g.entries[len(g.entries)-1].Term
}

func (m *model) append(id uint64, es []messages.Entry, hs *messages.HardState) error {
	g := m.get(id)
	if len(es) == 0 && hs == nil {
		return messages.ErrEmptyAppend
	}
	if len(es) > 0 {
		first := es[0].Index
		if first == 0 {
			first = g.last() + 1
		}
		switch {
		case first < g.first():
			return messages.ErrCompacted
		case first <= g.last():
			return messages.ErrConflict
		case first > g.last()+1:
			return messages.ErrOutOfOrder
		}
		term := g.lastTerm()
		for i, e := range es {
			if es[0].Index != 0 && e.Index != first+uint64(i) {
				return messages.ErrOutOfOrder
			}
			if e.Term < term {
				return messages.ErrStaleTerm
			}
			term = e.Term
		}
	}
	if hs != nil && hs.Term < g.hard.Term {
		return messages.ErrStaleTerm
	}
	for i, e := range es {
		e.Index = g.last() + 1
		e.Data = bytes.Clone(es[i].Data)
		g.entries = append(g.entries, e)
	}
	if hs != nil {
		vote := g.hard.Vote
		if hs.Vote != 0 || hs.Term != g.hard.Term {
			vote = hs.Vote // otherwise a vote of the same term is kept
		}
		g.hard = *hs
		g.hard.Vote = vote
	}
	m.groups[id] = g
	return nil
}

func (m *model) truncateFrom(id, index uint64) (bool, error) {
	g := m.get(id)
	switch {
	case index == 0:
		return false, messages.ErrInvalid
	case index < g.first():
		return false, messages.ErrCompacted
	case index > g.last():
		return false, nil
	}
	g.entries = g.entries[:index-g.first()]
	return true, nil
}

func (m *model) truncateBefore(id, index uint64) (bool, error) {
	g := m.get(id)
	switch {
	case index <= g.first():
		return false, nil
	case index > g.last()+1:
		return false, messages.ErrNotFound
	}
	n := index - g.first()
	g.prevTerm = g.entries[n-1].Term
	g.prev = index - 1
	g.entries = g.entries[n:]
	return true, nil
}

func (m *model) reset(id, index, term uint64) {
	g := m.get(id)
	g.prev, g.prevTerm, g.entries = index, term, nil
	g.hard.Commit = index
	m.groups[id] = g
}

func (m *model) set(id uint64, name string, value []byte) {
	g := m.get(id)
	if value == nil {
		delete(g.stable, name)
	} else {
		g.stable[name] = string(value)
	}
	m.groups[id] = g
}

func (m *model) compare(t *rapid.T, w *raftlog.WAL) {
	ids := slices.Sorted(maps.Keys(m.groups))
	if got := w.Groups(); !slices.Equal(got, ids) {
		t.Fatalf("groups %v, want %v", got, ids)
	}
	for _, id := range ids {
		g := m.groups[id]
		want := messages.LogBounds{First: g.first(), Last: g.last(), PrevTerm: g.prevTerm, LastTerm: g.lastTerm(), HardState: g.hard}
		if got := w.Bounds(id); got != want {
			t.Fatalf("group %d: bounds %+v, want %+v", id, got, want)
		}
		same := func(got, want messages.Entry) {
			if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("group %d: entry %+v, want %+v", id, got, want)
			}
		}
		for _, e := range g.entries {
			got, err := w.Entry(id, e.Index)
			if err != nil {
				t.Fatal(err)
			}
			same(got, e)
			if term, err := w.Term(id, e.Index); err != nil || term != e.Term {
				t.Fatalf("group %d: term of %d is %d, %v", id, e.Index, term, err)
			}
		}
		if term, err := w.Term(id, g.prev); err != nil || term != g.prevTerm {
			t.Fatalf("group %d: term of %d before the first is %d, %v", id, g.prev, term, err)
		}
		for from := g.first(); from <= g.last(); {
			limit := rapid.IntRange(1, 200).Draw(t, "max bytes")
			got, err := w.Entries(id, from, g.last()+1, limit)
			if err != nil || len(got) == 0 {
				t.Fatalf("group %d: range from %d: %d entries, %v", id, from, len(got), err)
			}
			sum := 0
			for i, e := range got {
				same(e, g.entries[from-g.first()+uint64(i)])
				sum += len(e.Data)
			}
			if len(got) > 1 && sum > limit {
				t.Fatalf("%d bytes, limit %d", sum, limit)
			}
			from += uint64(len(got))
			if from <= g.last() && sum+len(g.entries[from-g.first()].Data) <= limit {
				t.Fatalf("group %d: the range stopped before %d with %d of %d bytes", id, from, sum, limit)
			}
		}
		for _, name := range []string{"a", "b"} {
			v, err := w.Stable(id, name)
			if want, ok := g.stable[name]; ok != (err == nil) || string(v) != want || !ok && !errors.Is(err, messages.ErrNotFound) {
				t.Fatalf("group %d: %s = %q, %v, want %q", id, name, v, err, want)
			}
		}
	}
}

// TestModel compares a log with the model under random operations, with clean
// restarts, crashes that lose the latest updates of the mark, and segments so
// small that they are left and removed all the time.
func TestModel(t *testing.T) {
	root := memory(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, fmt.Sprint(n))
		options := raftlog.Options{NoLock: true, SegmentBytes: rapid.IntRange(64, 600).Draw(t, "segment bytes"),
			RecycleBytes: rapid.IntRange(0, 100).Draw(t, "recycle bytes"), MaxOpenFiles: 3}
		w, err := raftlog.Open(dir, options)
		if err != nil {
			t.Fatal(err)
		}
		staged := &model{groups: map[uint64]*modelGroup{}}
		durable := staged.clone()
		changes := 0
		reopen := func() {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			options.SegmentBytes = rapid.IntRange(64, 600).Draw(t, "segment bytes")
			if w, err = raftlog.Open(dir, options); err != nil {
				t.Fatal(err)
			}
			staged, changes = durable.clone(), 0
		}
		outcome := func(position uint64, err error, changed bool, want error) {
			if want == nil && err != nil || want != nil && !errors.Is(err, want) {
				t.Fatalf("error %v, want %v", err, want)
			}
			if changed != (position != 0) {
				t.Fatalf("position %d, changed %v", position, changed)
			}
			if changed {
				changes++
			}
		}
		group := func(t *rapid.T) uint64 { return rapid.SampledFrom([]uint64{0, 1, 500}).Draw(t, "group") }
		index := func(t *rapid.T, id uint64) uint64 {
			g := staged.get(id)
			return rapid.Uint64Range(max(g.prev, 1)-1, g.last()+2).Draw(t, "index")
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				id := group(t)
				g := staged.get(id)
				es := make([]messages.Entry, rapid.IntRange(0, 5).Draw(t, "entries"))
				first := uint64(0)
				if rapid.Bool().Draw(t, "explicit") {
					first = index(t, id)
				}
				term := g.lastTerm() + uint64(rapid.IntRange(-1, 3).Draw(t, "term"))
				if term > 1<<60 {
					term = 0
				}
				for i := range es {
					es[i].Term = term
					if first > 0 {
						es[i].Index = first + uint64(i)
					}
					es[i].Data = rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "data")
					if rapid.IntRange(0, 5).Draw(t, "odd") == 0 {
						es[i].Type = rapid.Byte().Draw(t, "type")
						term++
					}
				}
				var hs *messages.HardState
				if rapid.Bool().Draw(t, "with hard state") {
					hs = &messages.HardState{Term: rapid.Uint64Range(0, 9).Draw(t, "hs term"), Vote: rapid.Uint64().Draw(t, "vote"), Commit: g.last()}
				}
				want := staged.append(id, es, hs)
				position, err := w.Append(id, es, hs)
				outcome(position, err, want == nil, want)
			},
			"truncateFrom": func(t *rapid.T) {
				id := group(t)
				i := index(t, id)
				changed, want := staged.truncateFrom(id, i)
				position, err := w.TruncateFrom(id, i)
				outcome(position, err, changed, want)
			},
			"truncateBefore": func(t *rapid.T) {
				id := group(t)
				i := index(t, id)
				changed, want := staged.truncateBefore(id, i)
				position, err := w.TruncateBefore(id, i)
				outcome(position, err, changed, want)
			},
			"reset": func(t *rapid.T) {
				id := group(t)
				i := index(t, id)
				term := staged.get(id).lastTerm()
				staged.reset(id, i, term)
				position, err := w.Reset(id, i, term)
				outcome(position, err, true, nil)
			},
			"set": func(t *rapid.T) {
				id := group(t)
				name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
				value := []byte(rapid.SampledFrom([]string{"", "x", "yyyyyyyyy"}).Draw(t, "value"))
				if rapid.Bool().Draw(t, "remove") {
					value = nil
				}
				staged.set(id, name, value)
				position, err := w.SetStable(id, name, value)
				outcome(position, err, true, nil)
			},
			"sync": func(t *rapid.T) {
				before, _ := w.Staged()
				n, err := w.Sync()
				if err != nil || n != changes {
					t.Fatalf("%d changes, want %d, %v", n, changes, err)
				}
				if w.Durable() < before {
					t.Fatalf("durable %d, staged %d", w.Durable(), before)
				}
				durable, changes = staged.clone(), 0
				durable.compare(t, w)
			},
			"maintain": func(t *rapid.T) {
				// Until nothing is due, or only once: what is staged stays so.
				for w.Due() {
					if _, err := w.Maintain(); err != nil {
						t.Fatal(err)
					}
					if rapid.Bool().Draw(t, "once") {
						break
					}
				}
				durable.compare(t, w)
			},
			"scrub": func(t *rapid.T) {
				if damage, err := scrub(w); err != nil || len(damage) > 0 {
					t.Fatal(damage, err)
				}
			},
			"restart, all verified": func(t *rapid.T) {
				options.VerifyAll = true
				reopen()
				options.VerifyAll = false
				durable.compare(t, w)
			},
			"restart without a summary": func(t *rapid.T) {
				names, err := filepath.Glob(filepath.Join(dir, "wal", "*", "SUMMARY"))
				if err != nil {
					t.Fatal(err)
				}
				if len(names) > 0 {
					if err := os.Remove(rapid.SampledFrom(names).Draw(t, "name")); err != nil {
						t.Fatal(err)
					}
				}
				reopen()
				durable.compare(t, w)
			},
			"restart": func(t *rapid.T) {
				reopen()
				durable.compare(t, w)
			},
			"restart with the mark of before": func(t *rapid.T) {
				mark, err := os.ReadFile(filepath.Join(dir, "MARK"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Sync(); err != nil {
					t.Fatal(err)
				}
				durable = staged.clone()
				if err := os.WriteFile(filepath.Join(dir, "MARK"), mark, 0o644); err != nil {
					t.Fatal(err)
				}
				reopen()
				durable.compare(t, w)
			},
		})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
}

// state is what fullState says of a log that the model describes.
func (m *model) state() string {
	var b strings.Builder
	ids := slices.Sorted(maps.Keys(m.groups))
	for _, id := range ids {
		g := m.groups[id]
		b.WriteString(groupLine(id, messages.LogBounds{First: g.first(), Last: g.last(), PrevTerm: g.prevTerm, LastTerm: g.lastTerm(), HardState: g.hard}))
		for _, e := range g.entries {
			b.WriteString(entryLine(e, math.MaxInt))
		}
	}
	for _, id := range ids {
		for _, name := range stableNames {
			if v, ok := m.groups[id].stable[name]; ok {
				b.WriteString(stableLine(id, name, []byte(v)))
			}
		}
	}
	return b.String()
}
