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
	"strings"

	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// directory is what the files of a service, or of a log alone, hold, read without
// starting it and without changing anything. It is locked until close, so that
// no service runs meanwhile.
type directory struct {
	dir       string
	lock      *durable.Lock // nil where there is none to take
	log       raftlog.Report
	kv        kv.Report
	snapshots []messages.SnapshotInfo // good as far as they were read
	// strange are those, by their IDs, that were read whole and hold no application
	// data: the state of somebody who has a state machine of their own.
	strange map[string]bool
	// unfinished are the snapshots that a crash has left; aside are the damaged
	// data directories that a service has replaced.
	unfinished, aside []string
	// terms are what the log has at the indexes at which the snapshots end, by
	// their names; zero where it has nothing.
	terms    map[entryID]uint64
	problems []problem
	notes    []string
}

type entryID struct{ group, index uint64 }

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

// openDirectory locks dir. The lock is not taken where there is none to take:
// that would make a file.
func openDirectory(dir string) (d *directory, err error) {
	d = &directory{dir: dir, strange: map[string]bool{}}
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); err == nil {
		if d.lock, err = durable.LockDir(dir); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *directory) close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Release()
}

// readDirectory reads the directory of a service. Whole snapshots are verified,
// or only what describes them. The caller closes what is returned.
func readDirectory(ctx context.Context, dir string, whole bool, step func(string)) (_ *directory, err error) {
	if err := existing(dir); err != nil {
		return nil, err
	}
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := d.wantTerms(filepath.Join(dir, snapshotDir)); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		name string
		read func(string) error
	}{
		{logDir, func(path string) error { return d.readLog(path, step) }},
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

// readLogDirectory reads only the log: that of a service's directory, or one that
// has a directory to itself. The caller closes what is returned.
func readLogDirectory(ctx context.Context, dir string, step func(string)) (_ *directory, err error) {
	path, err := logPath(dir)
	if err != nil {
		return nil, err
	}
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	step(logDir)
	if err = d.readLog(path, step); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: there is no Ballast log in this directory", dir)
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// logPath finds the log: dir is a service's directory, or the log's own.
func logPath(dir string) (string, error) {
	switch err := existing(dir); {
	case errors.Is(err, errNoData):
		return dir, nil
	case err != nil:
		return "", err
	}
	return filepath.Join(dir, logDir), nil
}

// recordsAStep is how many records are read between two lines of progress: some
// 20 ms at 3 million records a second.
const recordsAStep = 1 << 16

func (d *directory) readLog(path string, step func(string)) (err error) {
	n := 0
	count := func(r raftlog.RecordReport) {
		d.noteTerms(r)
		if n++; n%recordsAStep == 0 {
			step(fmt.Sprintf("%s, %s", logDir, plural(n, "record")))
		}
	}
	if d.log, err = raftlog.InspectRecords(path, count); err != nil {
		return err
	}
	for _, c := range d.log.Damage {
		d.damage(logDir, c)
	}
	for _, l := range d.log.Lost {
		d.damage(logDir, fmt.Errorf("entry %d of group %d is lost: %w", l.Index, l.Group, l.Err))
	}
	known := "nothing acknowledged is in it"
	if !d.log.MarkOK {
		known = "whether it was acknowledged cannot be told without a good mark"
	}
	if t := d.log.Torn; t != nil {
		d.note("log: %s: a write that a crash cut short, %d bytes at offset %d, will be removed at the next start; %s", t.Path, t.Bytes, t.Offset, known)
	}
	mark := filepath.Join(path, "MARK")
	of := func(c *messages.CorruptError) bool { return c.Path == mark }
	switch {
	case slices.ContainsFunc(d.log.Damage, of):
		d.note("log: %s only tells how far the log is durable; 'ballast log repair' makes a new one, if the records are good", mark)
	case !d.log.MarkOK && d.log.Identity != [16]byte{}:
		d.note("log: %s fails its checksum, or is older than the manifest; the next start writes it again, and until then what was synced last could be missing unseen", mark)
	}
	return nil
}

// wantTerms has the terms noted that the log has where snapshots end.
func (d *directory) wantTerms(path string) error {
	names, err := filepath.Glob(filepath.Join(path, "*.snap"))
	d.terms = map[entryID]uint64{}
	for _, name := range names {
		if info, err := snapshot.ParseID(strings.TrimSuffix(filepath.Base(name), ".snap")); err == nil {
			d.terms[entryID{info.Group, info.Index}] = 0
		}
	}
	return err
}

// noteTerms takes the terms of a record's entries that are wanted. A later
// record overrides an earlier one.
func (d *directory) noteTerms(r raftlog.RecordReport) {
	if r.Entries == 0 {
		return
	}
	for id := range d.terms {
		if id.group != r.Group || id.index < r.First || id.index > r.Last {
			continue
		}
		for e := range r.AllEntries() {
			if e.Index == id.index {
				d.terms[id] = e.Term
			}
		}
	}
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
			switch state, err := stateOf(store, info.ID); {
			case err != nil:
				d.damage(snapshotDir, err)
				continue
			case state == nil:
				d.strange[info.ID] = true
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
