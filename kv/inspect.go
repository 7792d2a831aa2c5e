package kv

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Report is what Inspect found in a directory.
type Report struct {
	// Path is the data file. Exists is false if there is neither it nor MARK:
	// Open would begin a new store.
	Path   string
	Exists bool
	// Generation and Parent are the identities of the data file and of the one
	// that it replaced, zero if there was none.
	Generation, Parent [16]byte
	// Bytes is the length of the data file, without the zeros ahead of its end;
	// Good is the offset up to which it can be used. What lies between is a torn
	// write, unless Damage is set.
	Bytes, Good int64
	// Sealed is the offset up to which the file was written in one go.
	Sealed int64
	// Markers is the number of changes and Reason says why the file is not
	// good to its end.
	Markers uint64
	Reason  string
	// Synced is the offset up to which MARK, or the seal if MARK says nothing,
	// tells that the file is on disk.
	Synced int64
	// MarkStale: MARK is missing, unreadable or that of the parent, in a way
	// that a crash can bring about. Open makes it anew.
	MarkStale bool
	// Groups in order.
	Groups []GroupReport
	// Unfinished are the temporary files that Open would remove.
	Unfinished []string
	// Damage is why Open would refuse the store, or nil.
	Damage error
}

// GroupReport is the state of one group up to Report.Good.
type GroupReport struct {
	Group       uint64
	Index, Term uint64
	Keys        int
	// Revision is the version of the latest change.
	Revision uint64
	// Indexes are the names of its indexes, sorted, and Entries the number of
	// index entries, also of those that are left of an index that is gone.
	Indexes []string
	Entries int
}

// Inspect reads and verifies the files of a store and changes nothing. It needs
// memory for all keys. If the store is open meanwhile, the end of the report
// may show a change that was just being written.
//
// Damage is in the report; the error is about reading the files.
func Inspect(dir string) (Report, error) {
	r, err := inspect(filepath.Clean(dir))
	if err != nil {
		return r, fmt.Errorf("kv: inspect %s: %w", dir, err)
	}
	return r, nil
}

func inspect(dir string) (r Report, err error) {
	if _, err := os.ReadDir(dir); err != nil {
		return r, err
	}
	r.Path = filepath.Join(dir, dataName)
	markPath := filepath.Join(dir, markName)
	if r.Unfinished, err = filepath.Glob(filepath.Join(dir, "*"+durable.TempSuffix)); err != nil {
		return r, err
	}
	f, err := os.Open(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		if r.Exists, err = exists(markPath); r.Exists {
			r.Damage = &messages.CorruptError{Path: r.Path, Offset: -1, Reason: "the file is missing"}
		}
		return r, err
	}
	if err != nil {
		return r, err
	}
	defer f.Close()
	r.Exists = true
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	c := census{keys: map[string]struct{}{}, staged: map[uint64]map[string]struct{}{}}
	sv, err := examine(f, info.Size(), visitor{c.changed, c.marked}, markOffset(markPath)...)
	if errors.Is(err, messages.ErrIncompatible) {
		r.Damage = err
		return r, nil
	}
	if err != nil {
		return r, err
	}
	k, err := sv.judge(f, r.Path, markPath)
	if errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrIncompatible) {
		r.Damage, err = err, nil
	}
	r.Generation, r.Parent = sv.identity, sv.parent
	r.Bytes, r.Good, r.Sealed = sv.tail, sv.end, sv.sealed
	r.Markers, r.Reason = sv.sequence, sv.why()
	r.Synced, r.MarkStale = k.durable, k.replace
	r.Groups = c.groups(sv.groups)
	return r, err
}

// census counts keys; a change counts from its marker on, and an import when it
// is adopted.
type census struct {
	keys    map[string]struct{}
	staged  map[uint64]map[string]struct{}
	pending []change
	names   []string
}

func (c *census) changed(cmd command) {
	c.pending = append(c.pending, change{set: cmd.set})
	c.names = append(c.names, string(cmd.key))
}

func (c *census) marked(m marker) {
	keys := c.keys
	if m.number > 0 {
		if keys = c.staged[m.number]; keys == nil {
			keys = map[string]struct{}{}
			c.staged[m.number] = keys
		}
	}
	for i, p := range c.pending {
		if p.set {
			keys[c.names[i]] = struct{}{}
		} else {
			delete(keys, c.names[i])
		}
	}
	c.pending, c.names = c.pending[:0], c.names[:0]
	if m.adopted {
		for key := range c.keys {
			if _, id, _, _ := splitKey(key); id == m.groups[0].group {
				delete(c.keys, key)
			}
		}
		maps.Copy(c.keys, keys)
		delete(c.staged, m.number)
	}
}

func (c *census) groups(positions map[uint64]position) []GroupReport {
	reports := map[uint64]*GroupReport{}
	get := func(id uint64) *GroupReport {
		if reports[id] == nil {
			reports[id] = &GroupReport{Group: id}
		}
		return reports[id]
	}
	for id, p := range positions {
		g := get(id)
		g.Index, g.Term, g.Revision = p.index, p.term, p.revision
	}
	for key := range c.keys {
		space, id, rest, _ := splitKey(key)
		switch g := get(id); space {
		case dataSpace:
			g.Keys++
		case definitionSpace:
			g.Indexes = append(g.Indexes, rest)
		case indexSpace:
			g.Entries++
		}
	}
	var list []GroupReport
	for _, g := range reports {
		slices.Sort(g.Indexes)
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b GroupReport) int { return cmp.Compare(a.Group, b.Group) })
	return list
}
