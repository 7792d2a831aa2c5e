package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
	"github.com/ballast-raft/ballast/snapshot"
)

// promise is what a store has acknowledged and must keep whatever happens.
type promise struct {
	there, gone []uint64 // snapshots, by index
	damaged     []uint64 // may be there, and may be damaged
	part        uint64   // index of the unfinished save, if there is one
	offset      int64    // from which it goes on at least
	copied      int64    // the same of the unfinished import
}

func (p promise) key() (k uint64) {
	for _, c := range fmt.Sprint(p) {
		k = k*31 + uint64(c)
	}
	return k
}

// life is the life of a group's files, each step of which can fail.
type life struct {
	states map[uint64][]byte
	source *snapshot.Dir // has the snapshot at index 3
	from   messages.SnapshotInfo
}

func lifeOptions(disk durable.Disk) snapshot.Options {
	return snapshot.Options{BlockBytes: 512, Concurrency: 1, PartialSyncBytes: 1000, Disk: disk, Now: newClock().Now, NoLock: true}
}

func newLife(t *testing.T) *life {
	l := &life{states: map[uint64][]byte{}}
	for i := range uint64(6) {
		l.states[i] = append(records(i, 700), noise(byte(i), 1000)...)
	}
	l.source = open(t, t.TempDir(), lifeOptions(noSync{durable.OS}))
	l.from = save(t, l.source, 1, 3, 1, nil, l.states[3])
	return l
}

// export returns the stream of the snapshot at index 3 from an offset in its
// file.
func (l *life) export(offset int64) ([]byte, error) {
	x, err := l.source.Export(l.from.ID, offset)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(x)
	return b, errors.Join(err, x.Close())
}

// run leads the life, and tells promised each time that the promise changes:
// before a step that may take something back, and after one that adds.
func (l *life) run(path string, disk durable.Disk, promised func(promise)) (err error) {
	var p promise
	d, err := snapshot.OpenDir(path, lifeOptions(disk))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	// A save that is suspended, torn behind that, gone on with, and finished.
	w, _, err := d.Resume(1, 1, 1, nil)
	if err != nil {
		return err
	}
	if _, err := w.Write(l.states[1][:1100]); err != nil {
		return err
	}
	if err := w.Suspend(); err != nil {
		return err
	}
	p.part, p.offset = 1, 1024
	promised(p)
	list, err := d.Unfinished()
	if err != nil || len(list) != 1 {
		return fmt.Errorf("unfinished %v, %w", list, err)
	}
	f, err := os.OpenFile(filepath.Join(path, list[0].Name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(noise(9, 700))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	w, offset, err := d.Resume(1, 1, 1, nil)
	if err != nil {
		return err
	}
	if offset != 1024 {
		return fmt.Errorf("goes on at %d", offset)
	}
	if _, err := w.Write(l.states[1][offset:]); err != nil {
		return err
	}
	p.part, p.offset = 0, 0
	promised(p)
	if _, err := w.Finish(); err != nil {
		return err
	}
	p.there = []uint64{1}
	promised(p)

	// A plain one.
	w, err = d.Create(1, 2, 1, nil)
	if err != nil {
		return err
	}
	if _, err := w.Write(l.states[2]); err != nil {
		return err
	}
	second, err := w.Finish()
	if err != nil {
		return err
	}
	p.there = []uint64{1, 2}
	promised(p)

	// An import in two parts.
	stream, err := l.export(0)
	if err != nil {
		return err
	}
	m, _, err := d.Import("")
	if err != nil {
		return err
	}
	if _, err := m.Write(stream[:1200]); err != nil {
		return err
	}
	if err := m.Suspend(); err != nil {
		return err
	}
	p.copied = 400 // a block is there at least
	promised(p)
	m, offset, err = d.Import(l.from.ID)
	if err != nil {
		return err
	}
	if offset < p.copied {
		return fmt.Errorf("the import goes on at %d", offset)
	}
	if stream, err = l.export(offset); err != nil {
		return err
	}
	if _, err := m.Write(stream); err != nil {
		return err
	}
	p.copied = 0
	promised(p)
	if _, err := m.Finish(); err != nil {
		return err
	}
	p.there = []uint64{1, 2, 3}
	promised(p)

	// The second rots and is set aside.
	p.there, p.damaged = []uint64{1, 3}, []uint64{2}
	promised(p)
	name := filepath.Join(path, second.ID+".snap")
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[300] ^= 1
	if err := os.WriteFile(name, b, 0o644); err != nil {
		return err
	}
	if _, err := d.SetAside(second.ID); err != nil {
		return err
	}
	p.damaged, p.gone = nil, []uint64{2}
	promised(p)

	// The first goes.
	p.there = []uint64{3}
	promised(p)
	if removed, err := d.Cleanup(1, messages.Retention{Keep: 1}); err != nil || len(removed) != 1 {
		return errors.Join(err, fmt.Errorf("removed %v", removed))
	}
	p.gone = []uint64{1, 2}
	promised(p)

	// A save is left behind by a later snapshot; what was set aside goes.
	w, _, err = d.Resume(1, 4, 1, nil)
	if err != nil {
		return err
	}
	if _, err := w.Write(l.states[4][:1600]); err != nil {
		return err
	}
	if err := w.Suspend(); err != nil {
		return err
	}
	p.part, p.offset = 4, 1536
	promised(p)
	w, err = d.Create(1, 5, 1, nil)
	if err != nil {
		return err
	}
	if _, err := w.Write(l.states[5]); err != nil {
		return err
	}
	p.part, p.offset = 0, 0
	promised(p)
	if _, err := w.Finish(); err != nil {
		return err
	}
	p.there = []uint64{3, 5}
	promised(p)
	kept, err := d.Aside()
	if err != nil || len(kept) != 1 {
		return fmt.Errorf("aside: %v, %w", kept, err)
	}
	if err := d.Discard(kept[0].Name); err != nil {
		return err
	}
	p.there = []uint64{5}
	promised(p)
	if err := d.Delete(l.from.ID); err != nil {
		return err
	}
	p.gone = []uint64{1, 2, 3}
	promised(p)
	return nil
}

// check holds what is in a directory against a promise.
func (l *life) check(dir string, p promise) (err error) {
	d, err := snapshot.OpenDir(dir, lifeOptions(noSync{durable.OS}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	there, err := l.contents(d, p)
	if err != nil {
		return err
	}
	for _, i := range p.there {
		if !slices.Contains(there, i) {
			return fmt.Errorf("lost index %d of %v, there are %v", i, p.there, there)
		}
	}
	for _, i := range p.gone {
		if slices.Contains(there, i) {
			return fmt.Errorf("index %d is back", i)
		}
	}
	if p.part != 0 {
		if err := l.goOn(d, p.part, p.offset); err != nil {
			return err
		}
	}
	// What was promised or not: all that says that it can be gone on with can.
	list, err := d.Unfinished()
	if err != nil {
		return err
	}
	for _, u := range list {
		if !u.Import {
			err = l.goOn(d, u.Index, 0)
		} else {
			err = l.copyOn(d, p.copied)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", u.Name, err)
		}
	}
	if p.copied > 0 && len(list) == 0 {
		return errors.New("the import is lost")
	}
	if _, err := l.contents(d, p); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".snap") && !strings.HasSuffix(e.Name(), ".snap.damaged") {
			return fmt.Errorf("left %s", e.Name())
		}
	}
	return err
}

// contents returns the indexes of the good snapshots, whose state must be right.
func (l *life) contents(d *snapshot.Dir, p promise) (there []uint64, err error) {
	infos, damaged, err := d.ListAll()
	if err != nil || len(damaged) > 0 {
		return nil, errors.Join(err, fmt.Errorf("damaged: %v", damaged))
	}
	for _, info := range infos {
		r, err := d.Open(info.ID)
		var state []byte
		if err == nil {
			state, err = io.ReadAll(r)
			err = errors.Join(err, r.Close())
		}
		if errors.Is(err, messages.ErrCorrupt) && slices.Contains(p.damaged, info.Index) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(state, l.states[info.Index]) {
			return nil, fmt.Errorf("other bytes at index %d", info.Index)
		}
		there = append(there, info.Index)
	}
	return there, nil
}

// goOn finishes a save from where it is.
func (l *life) goOn(d *snapshot.Dir, index uint64, low int64) error {
	w, offset, err := d.Resume(1, index, 1, nil)
	if err != nil {
		return err
	}
	if offset < low || offset > int64(len(l.states[index])) {
		return errors.Join(fmt.Errorf("the save goes on at %d, not %d", offset, low), w.Abort())
	}
	if _, err := w.Write(l.states[index][offset:]); err != nil {
		return err
	}
	_, err = w.Finish()
	return err
}

// copyOn finishes the import from where it is.
func (l *life) copyOn(d *snapshot.Dir, low int64) error {
	m, offset, err := d.Import(l.from.ID)
	if err != nil {
		return err
	}
	if offset < low {
		return errors.Join(fmt.Errorf("the import goes on at %d, not %d", offset, low), m.Abort())
	}
	stream, err := l.export(offset)
	if err != nil {
		return err
	}
	if _, err := m.Write(stream); err != nil {
		return err
	}
	_, err = m.Finish()
	return err
}

// The power fails after every operation on the disk, and leaves any part of what
// was not synced.
func TestPowerCut(t *testing.T) {
	const seeds = 3
	l := newLife(t)
	images := 0
	for seed := range uint64(seeds) {
		images += l.powerCuts(t, seed)
	}
	if t.Logf("%d images", images); images < 500*seeds {
		t.Errorf("only %d images", images)
	}
}

func (l *life) powerCuts(t *testing.T, seed uint64) (images int) {
	root := t.TempDir()
	rec, err := crashtest.Record(root)
	if err != nil {
		t.Fatal(err)
	}
	pool := crashtest.NewPool(t.TempDir())
	rng := rand.New(rand.NewPCG(seed, 1))
	var current promise
	rec.Event = func(what string) {
		p := current
		rec.Images(what, rng, 8, func(m *crashtest.Image) {
			pool.Go(m, p.key(), func(dir string) error { return l.check(dir, p) })
		})
	}
	err = l.run(root, rec, func(p promise) {
		rec.Look("before " + fmt.Sprint(p))
		current = p
		rec.Event("promised " + fmt.Sprint(p))
	})
	rec.Look("end")
	if err := errors.Join(err, rec.Err(), pool.Wait()); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	return pool.Checked()
}

// Every step that the disk is asked for fails, before or after it was taken,
// once or for good, and the power may fail as well.
func TestEveryStepOfLifeFails(t *testing.T) {
	l := newLife(t)
	clean := newFaultyDisk(0, false)
	if err := l.run(t.TempDir(), clean, func(promise) {}); err != nil {
		t.Fatal(err)
	}
	t.Log(clean.steps)
	for fail := 1; fail <= len(clean.steps); fail++ {
		for mode := range 4 {
			disk := newFaultyDisk(fail, mode&1 != 0)
			disk.broken = mode&2 != 0
			what := fmt.Sprintf("step %d (%s) fails, taken %v, for good %v", fail, clean.steps[fail-1], disk.after, disk.broken)
			path := t.TempDir()
			var p promise
			err := l.run(path, disk, func(now promise) { p = now })
			// What only tidies up after a snapshot is durable may fail unseen.
			if err != nil && !errors.Is(err, errInjected) {
				t.Errorf("%s: %v", what, err)
			}
			// A failed sync takes back what a save had of unsynced bytes, and
			// what cannot be trusted at all; finished snapshots stay.
			if clean.steps[fail-1] == "sync" {
				p.part, p.offset, p.copied = 0, 0, 0
			}
			for i, dir := range []string{path, disk.powerCut(t, path, true), disk.powerCut(t, path, false)} {
				if err := l.check(dir, p); err != nil {
					t.Errorf("%s, crash %d: %v", what, i, err)
				}
			}
		}
	}
}
