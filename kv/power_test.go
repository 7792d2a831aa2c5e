package kv_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
)

var (
	crashSeeds   = flag.Int("crash.seeds", 2, "lives whose every crash is tried")
	crashDensity = flag.Int("crash.density", 1, "how many images of each moment, relative to the default")
)

// besideDisk calls a function before a generation that is being written is synced:
// others use the store meanwhile.
type besideDisk struct {
	durable.Disk
	beside func(path string)
}

func (d besideDisk) Sync(f *os.File) error {
	if filepath.Base(f.Name()) == "DATA.tmp" {
		d.beside(f.Name())
	}
	return d.Disk.Sync(f)
}

// powerLife is a life of a store that does everything that it can: writes,
// imports that are finished and given up, compactions that go on beside them,
// indexes that are built, in slices of two pairs, and dropped, exports, syncs, and being opened again. The same seed gives the same life.
type powerLife struct {
	t    *testing.T
	rng  *rand.Rand
	dir  string
	opt  kv.Options
	db   *kv.DB
	look func(what string)
	progress
	states []string

	im    kv.Import
	state []byte // what of it is still to be written
	view  kv.Export
	// compacting: Maintain or Compact is under way.
	compacting bool
}

func (l *powerLife) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *powerLife) open() {
	var err error
	l.db, err = kv.Open(l.dir, l.opt)
	l.check(err)
}

// note is called when a change has been acknowledged.
func (l *powerLife) note(synced bool) {
	l.states = append(l.states, fingerprint(l.t, l.db))
	l.reach(l.db, synced)
	l.look("acknowledged")
}

func (l *powerLife) begin() {
	l.open()
	l.note(true)
	mustWrite(l.t, l.db, 2, messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}))
	l.note(false)
}

func (l *powerLife) value() string {
	return fmt.Sprintf(`{"n":%d,"pad":"%s"}`, l.rng.IntN(5), strings.Repeat("p", l.rng.IntN(60)))
}

func (l *powerLife) step() {
	key := func() string { return fmt.Sprint("key-", l.rng.IntN(6)) }
	switch k := l.rng.IntN(26); {
	case k < 5:
		ops := []messages.Operation{put(key(), l.value()), put(key(), l.value()), del(key())}
		mustWrite(l.t, l.db, 1+uint64(l.rng.IntN(2)), ops[:1+l.rng.IntN(3)]...)
		l.note(false)
	case k < 8:
		entries := make([]messages.Entry, 1+l.rng.IntN(3))
		index, _ := l.db.Applied(1)
		for i := range entries {
			entries[i] = entry(index+1+uint64(i), put(key(), l.value()))
		}
		_, err := l.db.Apply(1, entries)
		l.check(err)
		l.note(false)
	case k < 10:
		l.check(l.db.Sync())
		l.note(true)
	case k < 13:
		l.importing()
	case k < 16:
		l.compacting = true
		_, err := l.db.Maintain()
		l.check(err)
		l.compacting = false
		l.look("maintained")
	case k == 16:
		l.compacting = true
		_, _, err := l.db.Compact()
		l.check(err)
		l.compacting = false
		l.look("compacted")
	case k < 19:
		l.viewing()
	case k < 25:
		l.indexing()
	default:
		l.close()
		l.open()
		l.note(true)
	}
}

// beside is what others do while a compaction syncs. Once the new generation is
// sealed, syncs wait.
func (l *powerLife) beside(path string) {
	if !l.compacting || l.rng.IntN(3) == 0 {
		return
	}
	mustWrite(l.t, l.db, 1, put("beside", l.value()))
	l.note(false)
	sealed, err := kv.Sealed(path)
	l.check(err)
	if !sealed {
		l.check(l.db.Sync())
		l.note(true)
	}
}

func (l *powerLife) importing() {
	var err error
	switch {
	case l.im == nil:
		other := open(l.t, memDir(l.t), lazy)
		if l.rng.IntN(2) == 0 {
			mustWrite(l.t, other, 1, messages.CreateIndexOperation(messages.IndexDefinition{Name: "m", Fields: messages.Paths("n")}))
		}
		for i := range 1 + l.rng.IntN(6) {
			mustWrite(l.t, other, 1, put(fmt.Sprint("key-", i), l.value()))
		}
		l.state = export(l.t, other, 1)
		l.check(other.Close())
		index, _ := l.db.Applied(1)
		l.im, err = l.db.BeginImport(1+uint64(l.rng.IntN(2)), index+uint64(l.rng.IntN(3)), 1)
		l.check(err)
	case len(l.state) > 0 && l.rng.IntN(8) == 0:
		l.check(l.im.Abort())
		l.im = nil
	case len(l.state) > 0:
		n := min(len(l.state), 50+l.rng.IntN(300))
		_, err = l.im.Write(l.state[:n])
		l.check(err)
		l.state = l.state[n:]
		l.look("staged")
	default:
		_, err = l.im.Finish()
		l.check(err)
		l.im = nil
		l.note(true)
	}
}

// indexing creates, drops, and goes on with what is begun.
func (l *powerLife) indexing() {
	group := 1 + uint64(l.rng.IntN(2))
	op := messages.DropIndexOperation("x")
	switch l.rng.IntN(6) {
	case 0:
	case 1:
		op = messages.CreateIndexOperation(messages.IndexDefinition{Name: "x", Fields: messages.Paths("pad", "n")})
	case 2:
		op = messages.CreateIndexOperation(messages.IndexDefinition{Name: "x", Fields: messages.Paths("pad"), Unique: true})
		for range 1 + l.rng.IntN(3) {
			_, err := l.db.Prepare(group, op)
			l.check(err)
			l.note(false)
		}
	default:
		l.check(l.db.MaintainIndexes())
		l.note(false)
		return
	}
	_, err := l.db.Write(group, []messages.Operation{op})
	l.check(err)
	l.note(false)
}

func (l *powerLife) viewing() {
	var err error
	if l.view == nil {
		l.view, err = l.db.OpenExport(1)
		l.check(err)
		return
	}
	if _, err = l.view.Read(make([]byte, 100)); err != nil {
		l.check(l.view.Close())
		l.view = nil
	}
}

func (l *powerLife) close() {
	l.im, l.view = nil, nil
	l.check(l.db.Close())
	l.look("closed")
}

// Whatever a power cut leaves, at any moment of such a life, is a store that
// opens: with everything that was synced, with a state that there was, and with
// every key of it in every index.
func TestEveryCrash(t *testing.T) {
	compactions, images := 0, 0
	for seed := range uint64(*crashSeeds) {
		life := func(dir string, opt kv.Options) *powerLife {
			opt.CommitBytes, opt.MaxGarbagePercent, opt.MinGarbageBytes, opt.MaintainBytes, opt.IndexSliceKeys = 1<<20, 1, 1, 1, 2
			l := &powerLife{t: t, rng: rand.New(rand.NewPCG(seed, 1)), dir: dir, look: func(string) {}}
			opt.Disk = besideDisk{opt.Disk, l.beside}
			l.opt = opt
			return l
		}
		const steps = 100
		run := func(l *powerLife, goOn func() bool) {
			l.begin()
			for i := 0; i < steps && goOn(); i++ {
				l.step()
			}
			l.close()
		}
		// The states of this life, also those that an image may be ahead to.
		known := life(memDir(t), lazy)
		known.opt.OnCompact = func(messages.DataFileReplaced) { compactions++ }
		run(known, func() bool { return true })

		root := memDir(t)
		dir := filepath.Join(root, "data")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		rec, err := crashtest.Record(dir)
		if err != nil {
			t.Fatal(err)
		}
		pool := crashtest.NewPool(memDir(t))
		pool.Every = crashtest.UnderRace
		rng := rand.New(rand.NewPCG(seed, 2))
		l := life(dir, kv.Options{Disk: rec})
		l.look = rec.Look
		// A new generation is synced, and then appended to before it is renamed.
		rec.Rewritten = func(path string) bool { return filepath.Base(path) == "MARK"+durable.TempSuffix }
		rec.Event = func(what string) {
			now := l.progress
			key := uint64(now.synced)<<32 | uint64(now.reached)
			rec.Images(what, rng, *crashDensity, func(m *crashtest.Image) {
				pool.Go(m, key, func(dir string) error { return afterPowerCut(dir, now.allowed(known.states)) })
			})
		}
		run(l, func() bool { return !pool.Failed() })
		if err := errors.Join(rec.Err(), pool.Wait()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		images += pool.Checked()
	}
	if compactions < *crashSeeds || images < 500**crashSeeds {
		t.Errorf("only %d images, %d compactions", images, compactions)
	}
	t.Logf("%d images of %d lives, with %d compactions", images, *crashSeeds, compactions)
}

// afterPowerCut opens what is left, twice, with a change in between.
func afterPowerCut(dir string, allowed []string) error {
	for round := range 2 {
		rep, err := kv.Inspect(dir)
		if err != nil || rep.Damage != nil {
			return fmt.Errorf("round %d: inspect: %w", round, errors.Join(err, rep.Damage))
		}
		db, err := kv.Open(dir, kv.Options{Disk: lazyDisk{}, IndexSliceKeys: 2})
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		got, err := fingerprintOf(db)
		if err != nil {
			return err
		}
		if round == 0 && !slices.Contains(allowed, got) {
			return fmt.Errorf("state\n%s\nnone of\n%s", got, strings.Join(allowed, "\nor\n"))
		}
		if round == 1 && got != allowed[0] {
			return fmt.Errorf("state\n%s\nbut it was left as\n%s", got, allowed[0])
		}
		if _, err := db.Write(1, []messages.Operation{put("after", "1")}); err != nil {
			return err
		}
		if got, err = fingerprintOf(db); err != nil {
			return err
		}
		allowed = []string{got}
		if round == 1 {
			if err := wholeIndexes(db); err != nil {
				return err
			}
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
	return nil
}

// wholeIndexes goes on with what was begun, until every index has all that it is
// about, and there is no entry besides.
func wholeIndexes(db *kv.DB) error {
	for db.IndexesDue() {
		if err := db.MaintainIndexes(); err != nil {
			return err
		}
	}
	for _, g := range db.Groups() {
		pairs, _, err := db.Scan(messages.Scan{Group: g})
		if err != nil {
			return err
		}
		for _, x := range db.Indexes(g) {
			got, _, err := db.Query(messages.QueryIndex{Group: g, Name: x.Name})
			if err != nil {
				return err
			}
			want, _ := refQuery(x.IndexDefinition, pairs, messages.QueryIndex{})
			if x.Building || x.Entries != len(want) || !reflect.DeepEqual(got, want) {
				return fmt.Errorf("group %d: index %+v has %q, and should have %q", g, x, got, want)
			}
		}
	}
	return nil
}
