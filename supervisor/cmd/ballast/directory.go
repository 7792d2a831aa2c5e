package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// directory is what the files of a service hold, read without starting it and
// without changing anything.
type directory struct {
	dir       string
	log       raftlog.Report
	kv        kv.Report
	snapshots []messages.SnapshotInfo // good as far as they were read
	// unfinished are the snapshots that a crash has left; aside are the damaged
	// data directories that a service has replaced.
	unfinished, aside []string
	problems          []problem
	notes             []string
}

// problem is damage, or a disagreement between the stores.
type problem struct {
	Store  string `json:"store"`
	Path   string `json:"path,omitempty"`
	Offset int64  `json:"offset"` // -1: there is none to name
	Index  uint64 `json:"index,omitempty"`
	Text   string `json:"text"`
}

// String names the store and, as far as they are known, file, offset and index.
func (p problem) String() string { return p.Store + ": " + p.Text }

func (d *directory) damage(store string, err error) {
	p := problem{Store: store, Path: filepath.Join(d.dir, store), Offset: -1, Text: err.Error()}
	var c *messages.CorruptError
	if errors.As(err, &c) {
		p.Path, p.Offset, p.Index = c.Path, c.Offset, c.Index
	}
	d.problems = append(d.problems, p)
}

func (d *directory) disagree(group, index uint64, format string, args ...any) {
	d.problems = append(d.problems, problem{Store: "agreement", Offset: -1, Index: index,
		Text: fmt.Sprintf("group %d: %s", group, fmt.Sprintf(format, args...))})
}

func (d *directory) note(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

func (d *directory) damaged(store string) bool {
	return slices.ContainsFunc(d.problems, func(p problem) bool { return p.Store == store })
}

// readDirectory reads dir while holding its lock, so that no service runs
// meanwhile. Whole snapshots are verified, or only what describes them.
func readDirectory(ctx context.Context, dir string, whole bool, step func(string)) (d *directory, err error) {
	if err := existing(dir); err != nil {
		return nil, err
	}
	// The lock is not taken where there is none to take: that would make a file.
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); err == nil {
		lock, err := durable.LockDir(dir)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, lock.Release()) }()
	}
	d = &directory{dir: dir}
	for _, part := range []struct {
		name string
		read func(string) error
	}{
		{logDir, d.readLog},
		{snapshotDir, func(path string) error { return d.readSnapshots(ctx, path, whole, step) }},
		{kvDir, d.readKV},
	} {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		step(part.name)
		path := filepath.Join(dir, part.name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			d.damage(part.name, &messages.CorruptError{Path: path, Offset: -1, Reason: "the directory is missing"})
			continue
		}
		if err := part.read(path); err != nil {
			return nil, err
		}
	}
	d.aside, err = filepath.Glob(filepath.Join(dir, kvDir+".damaged-*"))
	return d, err
}

func (d *directory) readLog(path string) (err error) {
	if d.log, err = raftlog.Inspect(path); err != nil {
		return err
	}
	for _, c := range d.log.Damage {
		d.damage(logDir, c)
	}
	if t := d.log.Torn; t != nil {
		d.note("log: %s: a write that a crash cut short, %d bytes at offset %d, will be removed at the next start; nothing acknowledged is in it", t.Path, t.Bytes, t.Offset)
	}
	return nil
}

func (d *directory) readKV(path string) (err error) {
	if d.kv, err = kv.Inspect(path); err != nil {
		return err
	}
	switch r := d.kv; {
	case r.Damage != nil:
		d.damage(kvDir, r.Damage)
	case r.Good < r.Bytes:
		d.note("kv: %s: a write that a crash cut short, %d bytes at offset %d, will be removed at the next start and replayed from the log", r.Path, r.Bytes-r.Good, r.Good)
	}
	return nil
}

// readSnapshots opens the snapshots with a disk that keeps the unfinished files.
func (d *directory) readSnapshots(ctx context.Context, path string, whole bool, step func(string)) (err error) {
	if d.unfinished, err = filepath.Glob(filepath.Join(path, "*"+durable.TempSuffix)); err != nil {
		return err
	}
	store, err := snapshot.OpenDir(path, snapshot.Options{NoLock: true, Disk: untouched{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	infos, damaged, err := store.ListAll()
	if err != nil {
		return err
	}
	for _, c := range damaged {
		d.damage(snapshotDir, c)
	}
	for i, info := range infos {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if whole {
			step(fmt.Sprintf("%s %d/%d", snapshotDir, i+1, len(infos)))
			if _, err := store.Verify(info.ID); err != nil {
				d.damage(snapshotDir, err)
				continue
			}
		}
		d.snapshots = append(d.snapshots, info)
	}
	return nil
}

// untouched is a disk on which nothing is changed. Removing a file "succeeds",
// so that a store which tidies up when it opens can be read as it is.
type untouched struct{}

func (untouched) Sync(*os.File) error         { return errReadOnly }
func (untouched) SyncDir(string) error        { return nil }
func (untouched) Rename(string, string) error { return errReadOnly }
func (untouched) Remove(string) error         { return nil }

var errReadOnly = errors.New("opened for reading only")

// groupState is one group as the three stores have it.
type groupState struct {
	Group     uint64
	Log       messages.LogBounds
	KV        kv.GroupReport
	Snapshots []messages.SnapshotInfo // newest first
}

// groups brings together what the stores know of each group, in order.
func (d *directory) groups() (all []groupState) {
	at := func(id uint64) *groupState {
		i := slices.IndexFunc(all, func(g groupState) bool { return g.Group == id })
		if i < 0 {
			i = len(all)
			all = append(all, groupState{Group: id, Log: messages.LogBounds{First: 1}})
		}
		return &all[i]
	}
	for _, g := range d.log.Groups {
		at(g.Group).Log = g.Bounds
	}
	for _, g := range d.kv.Groups {
		at(g.Group).KV = g
	}
	for _, info := range d.snapshots {
		g := at(info.Group)
		g.Snapshots = append(g.Snapshots, info)
	}
	slices.SortFunc(all, func(a, b groupState) int { return cmp.Compare(a.Group, b.Group) })
	return all
}
