package snapshot_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"pgregory.net/rapid"
)

const modelBlock = 512

// modelState is the state of a group at an index, the same on every node.
func modelState(group, index uint64) []byte {
	return append(records(group<<8|index, int(index%5)*600), noise(byte(index), int(group)*400)...)
}

// model is what the store should hold, as simple as can be.
type model struct {
	t    *rapid.T
	now  *clock
	path string
	d    *snapshot.Dir

	source *snapshot.Dir                    // another node
	origin map[string]messages.SnapshotInfo // what it has

	snaps   map[string]*modelSnap
	aside   map[string]int             // how often, by id
	saves   map[uint64]*modelPart      // by group
	copies  map[uint64]*modelPart      // by group
	readers map[string]snapshot.Reader // by id
}

type modelSnap struct {
	info    messages.SnapshotInfo
	damaged bool
}

// modelPart is an unfinished file, which goes on at low to high.
type modelPart struct {
	id        string
	index     uint64
	low, high int64
}

func (m *model) fatal(what string, args ...any) {
	m.t.Helper()
	m.t.Fatalf(what, args...)
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) options() snapshot.Options {
	return snapshot.Options{BlockBytes: modelBlock, Concurrency: 2, PartialSyncBytes: 1000, Disk: noSync{durable.OS}, Now: m.now.Now}
}

func (m *model) open() {
	d, err := snapshot.OpenDir(m.path, m.options())
	m.must(err)
	m.d = d
}

func (m *model) group() uint64 { return rapid.Uint64Range(1, 2).Draw(m.t, "group") }
func (m *model) index() uint64 { return rapid.Uint64Range(1, 9).Draw(m.t, "index") }

// any draws one of the snapshots, or an id of none.
func (m *model) any() string {
	ids := []string{"0000000000000001-0000000000000001-0000000000000063-000123456789"}
	for id := range m.snaps {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return rapid.SampledFrom(ids).Draw(m.t, "id")
}

// of returns a group's ids, newest first.
func (m *model) of(group uint64) (ids []string) {
	for id, s := range m.snaps {
		if s.info.Group == group {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
	return ids
}

// finished notes a snapshot, and that what it makes useless goes.
func (m *model) finished(info messages.SnapshotInfo) {
	if _, ok := m.snaps[info.ID]; !ok {
		m.snaps[info.ID] = &modelSnap{info: info}
	}
	for _, parts := range []map[uint64]*modelPart{m.saves, m.copies} {
		if p := parts[info.Group]; p != nil && p.index <= info.Index {
			delete(parts, info.Group)
		}
	}
}

func (m *model) create(t *rapid.T) {
	group, index := m.group(), m.index()
	w, err := m.d.Create(group, index, 1, nil)
	m.must(err)
	_, err = w.Write(modelState(group, index))
	m.must(err)
	if rapid.Bool().Draw(t, "abort") {
		m.must(w.Abort())
		return
	}
	info, err := w.Finish()
	m.must(err)
	if m.snaps[info.ID] != nil {
		m.fatal("id %s is given twice", info.ID)
	}
	m.finished(info)
}

func (m *model) resume(t *rapid.T) {
	group, index := m.group(), m.index()
	w, offset, err := m.d.Resume(group, index, 1, nil)
	m.must(err)
	if p := m.saves[group]; p != nil && p.index == index {
		if offset < p.low || offset > p.high || offset%modelBlock != 0 {
			m.fatal("index %d goes on at %d, not %d to %d", index, offset, p.low, p.high)
		}
	} else if offset != 0 {
		m.fatal("index %d goes on at %d, and there is nothing", index, offset)
	}
	delete(m.saves, group)
	state := modelState(group, index)
	rest := state[offset:]
	how := rapid.SampledFrom([]string{"finish", "suspend", "close", "kill", "abort"}).Draw(t, "how")
	if how != "finish" {
		rest = rest[:rapid.IntRange(0, len(rest)).Draw(t, "bytes")]
	}
	_, err = w.Write(rest)
	m.must(err)
	to := (offset + int64(len(rest))) / modelBlock * modelBlock
	part := &modelPart{index: index, low: to, high: to}
	switch how {
	case "finish":
		info, err := w.Finish()
		m.must(err)
		m.finished(info)
		return
	case "suspend":
		m.must(w.Suspend())
		if rapid.Bool().Draw(t, "abort then") {
			m.must(w.Abort())
			return
		}
	case "close":
		m.reopen(t)
	case "kill":
		part.low = max(0, to-4*modelBlock) // what is in compression
		m.kill(t)
	case "abort":
		m.must(w.Abort())
		return
	}
	// Without a block there may be no file, which makes no difference.
	m.saves[group] = part
}

func (m *model) copy(t *rapid.T) {
	ids := make([]string, 0, len(m.origin))
	for id := range m.origin {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	info := m.origin[rapid.SampledFrom(ids).Draw(t, "from")]
	id := info.ID
	if rapid.Bool().Draw(t, "unnamed") {
		id = ""
	}
	w, offset, err := m.d.Import(id)
	m.must(err)
	p := m.copies[info.Group]
	known := p != nil && p.id == id && m.snaps[id] == nil
	if known && (offset < p.low || offset > p.high) || !known && offset != 0 {
		m.fatal("the import of %s goes on at %d: %+v", id, offset, p)
	}
	if id != "" {
		delete(m.copies, info.Group)
	}
	x, err := m.source.Export(info.ID, offset)
	m.must(err)
	stream, err := io.ReadAll(x)
	m.must(errors.Join(err, x.Close()))
	how := rapid.SampledFrom([]string{"finish", "suspend", "close", "kill", "abort"}).Draw(t, "how")
	if how != "finish" {
		stream = stream[:rapid.IntRange(0, len(stream)).Draw(t, "bytes")]
	}
	_, err = w.Write(stream)
	there := m.snaps[info.ID]
	headed := len(stream) >= snapshot.EnvelopeBytes+52 || offset > 0 && len(stream) >= snapshot.EnvelopeBytes
	if there != nil && there.damaged && headed {
		if !errors.Is(err, messages.ErrConflict) {
			m.fatal("over a damaged one: %v", err)
		}
		return
	}
	m.must(err)
	if headed && there == nil {
		delete(m.copies, info.Group) // replaced, whoever had it
	}
	got := offset
	if n := len(stream) - snapshot.EnvelopeBytes; n > 0 && headed {
		got += int64(n)
	}
	part := &modelPart{id: info.ID, index: info.Index, high: got}
	if offset > 52 { // a header without a block is not kept
		part.low = offset
	}
	switch how {
	case "finish":
		again, err := w.Finish()
		m.must(err)
		if !same(again, info) {
			m.fatal("copied %+v, got %+v", info, again)
		}
		m.finished(info)
		return
	case "suspend":
		m.must(w.Suspend())
	case "close":
		m.reopen(t)
	case "kill":
		m.kill(t)
	case "abort":
		m.must(w.Abort())
		return
	}
	if there == nil && (headed || id != "") {
		m.copies[info.Group] = part
	}
}

func (m *model) delete(t *rapid.T) {
	id := m.any()
	s := m.snaps[id]
	var want error
	switch {
	case s == nil:
		want = messages.ErrNotFound
	case m.readers[id] != nil:
		want = messages.ErrConflict
	case !s.damaged && !slices.ContainsFunc(m.of(s.info.Group), func(x string) bool { return x != id && !m.snaps[x].damaged }):
		want = messages.ErrConflict
	}
	if err := m.d.Delete(id); !errors.Is(err, want) {
		m.fatal("delete %s: %v, want %v", id, err, want)
	}
	if want == nil {
		delete(m.snaps, id)
	}
}

func (m *model) cleanup(t *rapid.T) {
	group := m.group()
	r := messages.Retention{
		Keep:     rapid.IntRange(0, 4).Draw(t, "keep"),
		MaxAge:   time.Duration(rapid.IntRange(0, 5).Draw(t, "hours")) * time.Hour,
		MaxBytes: rapid.Int64Range(0, 9000).Draw(t, "bytes"),
		DryRun:   rapid.Bool().Draw(t, "dry"),
	}
	ids := m.of(group)
	var want []string
	newest, count, bytes, damaged := "", 0, int64(0), false
	for i, id := range ids {
		s := m.snaps[id]
		if newest == "" && s.damaged {
			damaged = true
			continue
		}
		count++
		bytes += s.info.FileBytes
		if newest == "" {
			newest = id
			continue
		}
		// Made after those that are older, whatever the clock said.
		var made time.Time
		for _, older := range ids[i:] {
			if c := m.snaps[older].info.Created; !c.After(m.now.now) && c.After(made) {
				made = c
			}
		}
		old := r.MaxAge > 0 && !s.info.Created.After(m.now.now) && m.now.now.Sub(made) > r.MaxAge
		if (r.Keep > 0 && count > r.Keep || old || r.MaxBytes > 0 && bytes > r.MaxBytes) && m.readers[id] == nil {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	removed, err := m.d.Cleanup(group, r)
	if errors.Is(err, messages.ErrCorrupt) != damaged || err != nil && !damaged || !slices.Equal(removed, want) {
		m.fatal("%+v removed %v, want %v: %v", r, removed, want, err)
	}
	if !r.DryRun {
		for _, id := range removed {
			delete(m.snaps, id)
		}
	}
}

func (m *model) damage(t *rapid.T) {
	s := m.snaps[m.any()]
	if s == nil || s.damaged {
		t.Skip("nothing to damage")
	}
	name := filepath.Join(m.path, s.info.ID+".snap")
	b, err := os.ReadFile(name)
	m.must(err)
	b[52+16] ^= 1 // the first block
	m.must(os.WriteFile(name, b, 0o644))
	s.damaged = true
}

func (m *model) setAside(t *rapid.T) {
	id := m.any()
	s := m.snaps[id]
	a, err := m.d.SetAside(id)
	switch {
	case s == nil && m.aside[id] == 0:
		if !errors.Is(err, messages.ErrNotFound) {
			m.fatal("set aside %s: %v", id, err)
		}
	case s == nil:
		m.must(err)
	case !s.damaged || m.readers[id] != nil:
		if !errors.Is(err, messages.ErrConflict) {
			m.fatal("set aside %s: %v", id, err)
		}
	default:
		if m.must(err); a.ID != id || a.FileBytes != s.info.FileBytes || a.Damage == nil {
			m.fatal("set aside as %+v", a)
		}
		delete(m.snaps, id)
		m.aside[id]++
	}
}

func (m *model) read(t *rapid.T) {
	id := m.any()
	if r := m.readers[id]; r != nil {
		delete(m.readers, id)
		m.must(r.Close())
		return
	}
	s := m.snaps[id]
	r, err := m.d.Open(id)
	switch {
	case s == nil && errors.Is(err, messages.ErrNotFound) || s != nil && s.damaged && errors.Is(err, messages.ErrCorrupt):
		return
	case s == nil || s.damaged || err != nil:
		m.fatal("open %s: %v", id, err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, modelState(s.info.Group, s.info.Index)) {
		m.fatal("read %s: %d bytes, %v", id, len(got), err)
	}
	if rapid.Bool().Draw(t, "stays open") {
		m.readers[id] = r
		return
	}
	m.must(r.Close())
}

func (m *model) discard(t *rapid.T) {
	list, err := m.d.Unfinished()
	m.must(err)
	if len(list) == 0 {
		t.Skip("nothing to discard")
	}
	u := rapid.SampledFrom(list).Draw(t, "unfinished")
	m.must(m.d.Discard(u.Name))
	if u.Import {
		delete(m.copies, u.Group)
	} else {
		delete(m.saves, u.Group)
	}
}

func (m *model) wait(t *rapid.T) {
	m.now.now = m.now.now.Add(time.Duration(rapid.IntRange(-120, 240).Draw(t, "minutes")) * time.Minute)
}

func (m *model) reopen(*rapid.T) {
	for id, r := range m.readers {
		m.must(r.Close())
		delete(m.readers, id)
	}
	m.must(m.d.Close())
	m.open()
}

// kill leaves the directory as it is in the middle of everything.
func (m *model) kill(*rapid.T) {
	to, err := os.MkdirTemp(filepath.Dir(m.path), "killed")
	m.must(err)
	m.must(os.CopyFS(to, os.DirFS(m.path)))
	clear(m.readers)
	m.must(m.d.Close())
	m.must(os.RemoveAll(m.path))
	m.path = to
	m.open()
}

// check holds every list against the model.
func (m *model) check(*rapid.T) {
	infos, damaged, err := m.d.ListAll()
	if err != nil || len(damaged) != 0 || len(infos) != len(m.snaps) {
		m.fatal("%d listed, %v damaged, want %d: %v", len(infos), damaged, len(m.snaps), err)
	}
	for _, info := range infos {
		if s := m.snaps[info.ID]; s == nil || !same(s.info, info) {
			m.fatal("listed %+v", info)
		}
	}
	for group := range uint64(3) {
		var want string
		for _, id := range m.of(group) {
			if !m.snaps[id].damaged {
				want = id
				break
			}
		}
		if info, _, err := m.d.Latest(group); info.ID != want || (err != nil) != (want == "") {
			m.fatal("latest of %d is %s, want %s: %v", group, info.ID, want, err)
		}
	}
	list, err := m.d.Unfinished()
	m.must(err)
	for _, u := range list {
		parts := m.saves
		if u.Import {
			parts = m.copies
		}
		if p := parts[u.Group]; p == nil || p.index != u.Index || u.Active {
			m.fatal("unfinished %+v, want %+v", u, p)
		}
	}
	for _, parts := range []map[uint64]*modelPart{m.saves, m.copies} {
		for group, p := range parts {
			if p.low > 0 && !slices.ContainsFunc(list, func(u messages.UnfinishedSnapshot) bool { return u.Group == group && u.Index == p.index }) {
				m.fatal("lost %+v of group %d", p, group)
			}
		}
	}
	kept, err := m.d.Aside()
	m.must(err)
	count := map[string]int{}
	for _, a := range kept {
		count[a.ID]++
	}
	if fmt.Sprint(count) != fmt.Sprint(m.aside) {
		m.fatal("aside %v, want %v", count, m.aside)
	}
	entries, err := os.ReadDir(m.path)
	m.must(err)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), durable.TempSuffix) {
			m.fatal("left %s", e.Name())
		}
	}
}

// Random operations, with the directory closed, or left as a killed process
// leaves it, in between.
func TestModel(t *testing.T) {
	source := open(t, t.TempDir(), snapshot.Options{BlockBytes: modelBlock, Now: newClock().Now, Disk: noSync{durable.OS}})
	origin := map[string]messages.SnapshotInfo{}
	for _, group := range []uint64{1, 2} {
		for _, index := range []uint64{3, 6} {
			info := save(t, source, group, index, 1, nil, modelState(group, index))
			origin[info.ID] = info
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		root, err := os.MkdirTemp(t.TempDir(), "model")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(root)
		m := &model{t: rt, now: &clock{newClock().now.Add(1000 * time.Hour)}, path: filepath.Join(root, "first"), source: source, origin: origin,
			snaps: map[string]*modelSnap{}, aside: map[string]int{}, saves: map[uint64]*modelPart{}, copies: map[uint64]*modelPart{}, readers: map[string]snapshot.Reader{}}
		m.open()
		defer func() {
			if err := m.d.Close(); err != nil {
				t.Error(err)
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"":         m.check,
			"create":   m.create,
			"resume":   m.resume,
			"resume 2": m.resume,
			"copy":     m.copy,
			"delete":   m.delete,
			"cleanup":  m.cleanup,
			"damage":   m.damage,
			"aside":    m.setAside,
			"read":     m.read,
			"discard":  m.discard,
			"wait":     m.wait,
			"reopen":   m.reopen,
			"kill":     m.kill,
		})
	})
}
