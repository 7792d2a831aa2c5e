package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// Storage is a running service.
type Storage struct {
	// Supervisor, Log, Snapshot and KV are the addresses of the actors, valid
	// for the life of the engine.
	Supervisor, Log, Snapshot, KV *actor.PID

	asker *actors.Asker
	lock  *durable.Lock
	parts *parts
	sup   *actors.Host
	// observer sees every event first.
	observer *observer

	dir     string
	stop    sync.Once
	ended   chan struct{} // Stop is over
	stopErr error
}

// parts are the actors that the supervisor coordinates.
type parts struct {
	log      *actors.Log
	snapshot *actors.Snapshot
	kv       *actors.KV
	// started: all three are there. It is read when the supervisor is rebuilt.
	started atomic.Bool
}

// The names of what is in a service's directory; "kv" is also the name of its
// actor.
const (
	logDir      = "log"
	snapshotDir = "snapshots"
	kvDir       = "kv"
)

// Spawn opens or creates the service in cfg.Dir and starts its actors in
// engine. It returns once the service is ready: the log has been verified, and
// the application data has caught up with it.
//
// Errors: messages.ErrLocked (another process has the directory),
// messages.ErrConflict (the name is taken in this engine), messages.ErrCorrupt
// (the error says where), messages.ErrIncompatible, messages.ErrInvalid. After
// an error nothing is left running and nothing is locked.
func Spawn(engine *actor.Engine, cfg Config) (*Storage, error) {
	return SpawnContext(context.Background(), engine, cfg)
}

// SpawnContext is Spawn with a bound on how long opening and replaying may
// take.
func SpawnContext(ctx context.Context, engine *actor.Engine, cfg Config) (*Storage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	cfg = cfg.withDefaults()
	if err := durable.MkdirAll(durable.OS, cfg.Dir); err != nil {
		return nil, fmt.Errorf("supervisor: %w", durable.Wrap(err))
	}
	lock, err := durable.LockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	s := &Storage{dir: cfg.Dir, lock: lock, ended: make(chan struct{}), asker: actors.NewAsker(engine), parts: &parts{}, observer: newObserver(engine, cfg)}
	if err := s.spawn(ctx, engine, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("supervisor: %w", err), s.Stop(ctx))
	}
	return s, nil
}

func (s *Storage) spawn(ctx context.Context, engine *actor.Engine, cfg Config) (err error) {
	base := actors.Config{Name: cfg.Name, Limits: cfg.Limits, Restart: cfg.Restart, Env: cfg.Env,
		StallAfter: cfg.StallAfter, Observe: s.observer.observe}
	named := func(id string) actors.Config {
		c := base
		c.ID = id
		return c
	}
	ready := make(chan error, 1)
	sup := named("supervisor")
	sup.New = func(h *actors.Host) actors.Behavior { return newSupervisor(h, s, cfg, ready) }
	if s.sup, err = actors.Spawn(engine, sup); err != nil {
		return err
	}
	s.Supervisor = s.sup.PID()

	logCfg := named("log")
	logCfg.Coordinator = s.Supervisor
	s.parts.log, err = actors.SpawnLog(engine, actors.LogConfig{Config: logCfg, Scrub: cfg.Scrub, Open: func() (raftlog.Store, error) {
		o := cfg.Log
		o.OnRepair = repaired(s.observer, o.OnRepair)
		onCut := o.OnCut
		o.OnCut = func(c messages.LogCut) {
			s.observer.broadcast(c)
			engine.Send(s.Supervisor, logCut{})
			if onCut != nil {
				onCut(c)
			}
		}
		return store[raftlog.Store](raftlog.Open(filepath.Join(cfg.Dir, logDir), o))
	}})
	if err != nil {
		return err
	}
	s.Log = s.parts.log.PID()

	snapCfg := named("snapshot")
	snapCfg.Coordinator = s.Supervisor
	s.parts.snapshot, err = actors.SpawnSnapshot(engine, actors.SnapshotConfig{Config: snapCfg, Open: func() (snapshot.Store, error) {
		return store[snapshot.Store](snapshot.OpenDir(filepath.Join(cfg.Dir, snapshotDir), cfg.Snapshot))
	}})
	if err != nil {
		return err
	}
	s.Snapshot = s.parts.snapshot.PID()

	kvCfg := named("kv")
	kvCfg.Coordinator, kvCfg.Recover = s.Supervisor, true
	s.parts.kv, err = actors.SpawnKV(engine, actors.KVConfig{Config: kvCfg, Replicated: true, Compaction: cfg.Compaction, Open: func() (kv.Store, error) {
		o := cfg.KV
		o.OnRepair = repaired(s.observer, o.OnRepair)
		onCompact := o.OnCompact
		o.OnCompact = func(r messages.DataFileReplaced) {
			s.observer.broadcast(r)
			if onCompact != nil {
				onCompact(r)
			}
		}
		return openKV(s.observer, cfg.Dir, o)
	}})
	if err != nil {
		return err
	}
	s.KV = s.parts.kv.PID()

	for _, h := range []*actors.Host{s.sup, s.parts.log.Host, s.parts.snapshot.Host, s.parts.kv.Host} {
		if err := h.Opened(ctx); err != nil {
			return err
		}
	}
	s.parts.started.Store(true) // a supervisor that is down now starts when it is back
	engine.Send(s.Supervisor, start{})
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return fmt.Errorf("recover: %w", ctx.Err())
	}
}

// store turns a nil *T with an error into a nil interface with an error.
func store[I any, T any](s T, err error) (i I, _ error) {
	if err != nil {
		return i, err
	}
	return any(s).(I), nil
}

// repaired reports a repair as an event as well.
func repaired(to *observer, next func(messages.TailRepaired)) func(messages.TailRepaired) {
	return func(r messages.TailRepaired) {
		to.broadcast(r)
		if next != nil {
			next(r)
		}
	}
}

// openKV opens the application data. Damaged files are set aside, because the
// log and the snapshots are the truth: the supervisor rebuilds the data from
// them.
func openKV(to *observer, dir string, o kv.Options) (kv.Store, error) {
	path := filepath.Join(dir, kvDir)
	db, err := kv.Open(path, o)
	if err == nil || !errors.Is(err, messages.ErrCorrupt) {
		return store[kv.Store](db, err)
	}
	to.broadcast(messages.DamageFound{Actor: kvDir, Err: err})
	aside, asideErr := freeName(path + ".damaged-")
	if asideErr == nil {
		asideErr = durable.OS.Rename(path, aside)
	}
	if asideErr == nil {
		asideErr = durable.OS.SyncDir(dir)
	}
	if asideErr != nil {
		return nil, errors.Join(err, asideErr)
	}
	return store[kv.Store](kv.Open(path, o))
}

func freeName(prefix string) (string, error) {
	for i := 1; ; i++ {
		name := prefix + strconv.Itoa(i)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
}

// Asker serves Ask for this service; others of the same engine do as well.
func (s *Storage) Asker() *actors.Asker { return s.asker }

// Data is where a group's data is, for actors.Update and actors.Read.
func (s *Storage) Data(group uint64) actors.Data {
	return actors.Data{KV: s.KV, Committer: s.Supervisor, Group: group}
}

// Crash fails one of the actors, "log", "snapshot", "kv" or "supervisor", as a
// panic in it would: it is rebuilt from disk, and what was under way is
// resolved. It is for drills.
func (s *Storage) Crash(name string) error {
	for _, h := range s.hosts() {
		if h.Name() == name {
			h.Crash(errors.New("crashed on purpose"))
			return nil
		}
	}
	return fmt.Errorf("supervisor: crash %q: %w: it is one of log, snapshot, kv, supervisor", name, messages.ErrInvalid)
}

// Stop ends the service: what is under way is answered, everything is synced
// and closed, and the directory is given back. Commands that come later are
// answered with ErrStopped. If the context ends first, what is left is answered
// with an error, the files are closed all the same if the disk allows it, and
// Stop returns the context's error. Further calls wait for the first, as long as
// their own contexts allow, and return the same.
//
// The order is fixed: supervisor, application data, snapshots, log, so that
// nobody's servant goes before its master.
func (s *Storage) Stop(ctx context.Context) error {
	first := false
	s.stop.Do(func() { first = true })
	if first {
		s.stopErr = s.end(ctx)
		close(s.ended)
		return s.stopErr
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		select {
		case <-s.ended: // both are true, and this says more
		default:
			return fmt.Errorf("supervisor: stop %s: %w", s.dir, ctx.Err())
		}
	}
	return s.stopErr
}

func (s *Storage) end(ctx context.Context) error {
	var errs []error
	for _, h := range s.hosts() {
		errs = append(errs, h.Stop(ctx))
	}
	s.asker.Close()
	err := errors.Join(errs...)
	open := s.stillOpen()
	if len(open) == 0 {
		return errors.Join(err, s.lock.Release())
	}
	// A hanging disk call may yet write: the lock is given back when the last
	// file is closed, or with the process.
	go func() {
		for _, h := range s.hosts() {
			<-h.Done()
		}
		if err := s.lock.Release(); err != nil {
			s.sup.Event(messages.ActorFailed{Actor: s.Supervisor.ID, Err: err})
		}
	}()
	return errors.Join(err, fmt.Errorf("supervisor: stop: %v still have files open; %s stays locked until they are closed", open, s.dir))
}

// stillOpen names the actors that have not closed their store.
func (s *Storage) stillOpen() (names []string) {
	for _, h := range s.hosts() {
		if !h.Stopped() {
			names = append(names, h.Name())
		}
	}
	return names
}

// hosts lists the actors that were spawned, in the order in which they stop.
func (s *Storage) hosts() (all []*actors.Host) {
	if s.sup != nil {
		all = append(all, s.sup)
	}
	if s.parts.kv != nil {
		all = append(all, s.parts.kv.Host)
	}
	if s.parts.snapshot != nil {
		all = append(all, s.parts.snapshot.Host)
	}
	if s.parts.log != nil {
		all = append(all, s.parts.log.Host)
	}
	return all
}
