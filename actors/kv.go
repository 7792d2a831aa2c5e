package actors

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

// KVConfig configures an application-data actor.
type KVConfig struct {
	// Open opens the store; it is called again after every failure.
	Open func() (kv.Store, error)
	// Replicated: a log drives the data. Direct writes are refused with
	// ErrReplicated, and Apply is answered without waiting for the disk, since
	// what a crash takes away is replayed from the log.
	Replicated bool
	// SyncEvery is how much may be applied, in bytes of payload, before the
	// data is synced in the background. Default 8 MiB. It bounds what has to be
	// replayed after a crash. It means nothing unless Replicated.
	SyncEvery int
	// Sync says when direct writes are made durable. Default: before they are
	// answered.
	Sync SyncPolicy
	// MaxBatchBytes bounds the payload of direct writes that are committed
	// together, unless a single one is larger. Default 4 MiB. A larger one gives
	// more throughput, and longer waits to those at its front.
	MaxBatchBytes int64
	// Lease is how long a view, a transaction, a watch or an import may be idle before it is given up.
	// Default 1 minute.
	Lease time.Duration
	// MaxViews is how many views and imports may be open. Default 64.
	MaxViews int
	// Compaction paces the compaction of the file.
	Compaction CompactionPolicy
	// MaxTxns is how many transactions may be open. Default 1024. Their memory
	// is bounded by MaxTxnBytes of the store each, and MaxViewBytes together.
	MaxTxns int
	// MaxWatches is how many watches there may be. Default 16,384. Each costs
	// about 1 KiB with its keys, and up to Watch.Credit messages of Watch.MaxBytes
	// that its watcher has not come to.
	MaxWatches int
	Config
}

// KV is a running application-data actor: it answers Apply, Get, MultiGet, Put,
// Delete, CompareAndSwap, Txn, Begin, Commit, Rollback, PrepareCommit, Scan,
// CreateIndex, DropIndex, ListIndexes,
// QueryIndex, ReadApplied, ListGroups, OpenView, ExportChunk, CloseView, BeginImport,
// ImportChunk, FinishImport, AbortImport, CompactData, Watch, ReadChanges and CancelWatch.
//
// Direct writes are committed in groups, as the log actor's appends are: those that
// arrive while a sync is under way share the next one, and a read that would see a
// write whose sync is under way waits for it, so that nobody sees what a crash
// could take back, unless the SyncPolicy allows that. Other reads that come by Ask
// do not wait for the actor at all.
//
// Indexes are built, and removed, in the background. While one that is unique is
// built, what would change its group waits, and nobody else.
type KV struct {
	*Host
	mu       sync.Mutex
	reached  map[uint64]uint64
	withheld atomic.Pointer[map[uint64]error]
	counters kvCounters
}

// Withhold has the commands for those groups refused with their errors, but for
// those that the coordinator sends, until it is called again. It outlasts a
// failure of the actor. The map must not be changed afterwards.
func (k *KV) Withhold(groups map[uint64]error) { k.withheld.Store(&groups) }

// withholds returns the error that a command is to be refused with, or nil.
func (k *KV) withholds(c messages.Command) error {
	groups := k.withheld.Load()
	if groups == nil || len(*groups) == 0 {
		return nil
	}
	if _, ok := c.(messages.ListGroups); ok { // of all groups
		return nil
	}
	return (*groups)[reflect.ValueOf(c).FieldByName("Group").Uint()] // every command has one
}

// Reached is the highest index that was applied to a group since the actor was
// spawned, whatever the store had kept of it when it was opened again.
func (k *KV) Reached(group uint64) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reached[group]
}

func (k *KV) reach(group, index uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reached[group] = index
}

// SpawnKV starts an application-data actor.
func SpawnKV(engine *actor.Engine, cfg KVConfig) (*KV, error) {
	err := cfg.Sync.Validate()
	if cfg.MaxBatchBytes < 0 {
		err = errors.Join(err, fmt.Errorf("MaxBatchBytes %d is negative: %w", cfg.MaxBatchBytes, messages.ErrInvalid))
	}
	if err != nil {
		return nil, fmt.Errorf("actors: spawn %s/%s: %w", cfg.Name, cfg.ID, err)
	}
	cfg.Sync = cfg.Sync.withDefaults()
	if cfg.MaxBatchBytes == 0 {
		cfg.MaxBatchBytes = 4 << 20
	}
	cfg.Patient = directWrite
	if cfg.SyncEvery == 0 {
		cfg.SyncEvery = 8 << 20
	}
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute
	}
	if cfg.MaxViews == 0 {
		cfg.MaxViews = 64
	}
	if err := cfg.Compaction.Validate(); err != nil {
		return nil, fmt.Errorf("actors: spawn %s: %w", cfg.ID, err)
	}
	cfg.Compaction = cfg.Compaction.withDefaults()
	if cfg.MaxTxns == 0 {
		cfg.MaxTxns = 1024
	}
	if cfg.MaxWatches == 0 {
		cfg.MaxWatches = 16384
	}
	k := &KV{reached: make(map[uint64]uint64)}
	cfg.New = func(h *Host) Behavior {
		b := &kvBehavior{host: h, cfg: cfg, kv: k, committing: make(map[*Request]kv.Txn), building: make(map[uint64]*building)}
		b.leases = newLeases[*access](h, cfg.Lease, cfg.MaxViews, h.Fail)
		b.front = front{host: h, size: func() (int, bool) { return len(b.writes), b.syncing || b.importing }, leave: b.leave}
		b.txns = newLeases[*open](h, cfg.Lease, cfg.MaxTxns, h.Fail)
		b.watches = newWatches(b)
		return b
	}
	h, err := Spawn(engine, cfg.Config)
	if err != nil {
		return nil, err
	}
	k.Host = h
	return k, nil
}

type kvBehavior struct {
	host  *Host
	kv    *KV
	cfg   KVConfig
	store kv.Store

	writes     []*Request  // direct writes that wait for the next batch
	writeBytes int64       // of them
	spare      []*Request  // for later writes
	changes    []kv.Change // for those of a later batch
	front      front
	queued     atomic.Uint64 // what was ever in writes; the worker reads it
	reads      []*Request    // reads that wait for the sync under way
	syncing    bool          // a batch of direct writes is not durable yet
	hidden     atomic.Uint64 // odd while that is so
	dirty      int           // bytes applied since the last background sync
	syncBg     bool          // a background sync is under way
	syncAgain  bool          // and has to be followed by another
	timed      bool          // a timer will have what was written synced
	// maintaining: the store's Maintain is under way; resting: it is not to be
	// called yet; delayed: it has failed the last time.
	maintaining, resting, delayed bool

	leases  *leases[*access]
	watches *watches
	txns    *leases[*open]
	// committing has the transactions of the commits in writes.
	committing map[*Request]kv.Txn
	// importing: a new state is being swapped in, and nothing may change the
	// store. Changes wait in held.
	importing bool
	held      []*Request

	// building has the groups that wait for a unique index, and creating those of
	// them whose turn has not come: direct writes are ahead of it. indexing: a
	// slice of work on indexes is under way.
	building map[uint64]*building
	creating []*building
	indexing bool
	draining bool
}

// access is a view or an import.
type access struct {
	lease
	view     kv.View   // or
	export   kv.Export // or
	imported kv.Import // this,
	group    uint64    // of or into this group
	index    uint64    // as of this index
	term     uint64
}

func isView(a *access) bool   { return a.view != nil }
func isExport(a *access) bool { return a.export != nil }
func isRead(a *access) bool   { return isView(a) || isExport(a) }
func isImport(a *access) bool { return a.imported != nil }

// applying is the Note of an Apply that has been handed to the store.
type applying struct{ group, last uint64 }

const (
	kvSyncLane   = 0
	kvExportLane = 1
	kvImportLane = 2
	kvCareLane   = 3
	kvIndexLane  = 4
)

func (b *kvBehavior) Open() (err error) {
	b.store, err = b.cfg.Open()
	return err
}

func (b *kvBehavior) Close() error {
	if b.store == nil {
		return nil
	}
	b.kv.counters.store.Store(nil)
	err := b.store.Sync()
	return errors.Join(err, b.store.Close())
}

// Drain lets go of what would hold the end up.
func (b *kvBehavior) Drain() {
	b.draining = true
	b.abandon()
	b.watches.close()
}

// Settle starts what a burst of commands has asked for.
func (b *kvBehavior) Settle() {
	b.commit()
	b.prepareWrites()
	b.gauge()
}

func (b *kvBehavior) Message(any) {}

// Ready implements Behavior.
func (b *kvBehavior) Ready() {
	if s, ok := b.store.(kvMeasured); ok {
		b.kv.counters.store.Store(&s)
	}
	b.tend()
}

// tend starts what need not be on the way of a change.
func (b *kvBehavior) tend() {
	b.maintain()
	b.maintainIndexes()
}

func (b *kvBehavior) Handle(r *Request) {
	if err := b.kv.withholds(r.Command); err != nil && !b.host.FromCoordinator(r) {
		r.Fail(err)
		return
	}
	if group, txn := txnOf(r.Command); txn != 0 {
		b.inTxn(r, group, txn)
		return
	}
	switch c := r.Command.(type) {
	case messages.Apply:
		b.apply(r, c)
	case messages.Put, messages.Delete, messages.CompareAndSwap, messages.Txn, messages.CreateIndex, messages.DropIndex:
		if b.host.Late(kvSyncLane) {
			r.Fail(stalledError(b.host, c))
			return
		}
		b.write(r)
	case messages.Get, messages.MultiGet, messages.Scan, messages.QueryIndex, messages.ListIndexes, messages.ReadApplied, messages.ListGroups:
		if view, group := viewOf(c); view != 0 {
			b.readView(r, view, group)
			return
		}
		if b.syncing {
			b.reads = append(b.reads, r)
			return
		}
		if _, ok := r.Command.(messages.ListGroups); ok && b.importing && b.host.FromCoordinator(r) {
			b.hold(r) // a recovery begins with it: an import of an earlier coordinator must be over
			return
		}
		b.read(r)
	case messages.OpenView:
		if b.syncing || b.importing {
			b.hold(r)
			return
		}
		b.openView(r, c)
	case messages.Begin:
		if b.syncing || b.importing {
			b.hold(r)
			return
		}
		b.begin(r, c)
	case messages.Commit, messages.Rollback, messages.PrepareCommit:
		r.Fail(fmt.Errorf("%s: %T: %w", b.host.PID().ID, c, messages.ErrNotFound))
	case messages.Watch:
		if b.syncing || b.importing {
			b.hold(r)
			return
		}
		b.watches.open(r, c)
	case messages.ReadChanges:
		b.watches.read(r, c)
	case messages.CancelWatch:
		b.watches.cancel(r, c)
	case messages.ExportChunk:
		b.exportChunk(r, c)
	case messages.CloseView:
		b.closeView(r, c)
	case messages.BeginImport:
		if b.importing {
			b.hold(r)
			return
		}
		b.beginImport(r, c)
	case messages.ImportChunk:
		b.importChunk(r, c)
	case messages.FinishImport:
		b.finishImport(r, c)
	case messages.AbortImport:
		b.abortImport(r, c)
	case messages.CompactData:
		b.compact(r, c)
	default:
		r.Fail(unknown(b.host, c))
	}
}

func (b *kvBehavior) hold(r *Request) { b.held = append(b.held, r) }

// release handles what was held.
func (b *kvBehavior) release() {
	held := b.held
	b.held = nil
	for _, r := range held {
		b.Handle(r)
	}
}

func (b *kvBehavior) apply(r *Request, c messages.Apply) {
	if b.importing {
		b.hold(r)
		return
	}
	if w := b.building[c.Group]; w != nil {
		w.held = append(w.held, r)
		return
	}
	if n := len(c.Entries); n > 0 {
		r.Note = applying{c.Group, c.Entries[n-1].Index}
	}
	b.applyRest(r, c, nil, false)
}

// failed fails the actor if the store needs to be reopened; Resolve then
// answers what is under way.
func (b *kvBehavior) failed(err error) bool {
	if err == nil || !b.store.Poisoned() {
		return false
	}
	b.host.Fail(fmt.Errorf("%s: %w", b.host.PID().ID, err))
	return true
}

func (b *kvBehavior) syncInBackground() {
	if b.syncBg {
		b.syncAgain = true
		return
	}
	b.syncBg, b.syncAgain, b.dirty = true, false, 0
	b.host.Do(kvSyncLane, syncCall, func() func() {
		err := b.store.Sync()
		return func() {
			b.syncBg = false
			b.kv.counters.syncs.Add(1)
			switch {
			case err != nil:
				b.host.Fail(fmt.Errorf("%s: %w", b.host.PID().ID, err))
			case b.syncAgain:
				b.syncInBackground()
			}
		}
	})
}

// operation is what a direct write asks for.
func operation(c messages.Command) (group uint64, op messages.Operation) {
	switch c := c.(type) {
	case messages.Put:
		return c.Group, messages.PutOperation(c.Key, c.Value)
	case messages.Delete:
		return c.Group, messages.DeleteOperation(c.Key)
	case messages.CompareAndSwap:
		return c.Group, messages.CompareAndSwapOperation(c.Key, c.Expect, c.Value)
	case messages.Txn:
		return c.Group, messages.TxnOperation(c.Transaction)
	case messages.CreateIndex:
		return c.Group, messages.CreateIndexOperation(c.Definition)
	case messages.DropIndex:
		return c.Group, messages.DropIndexOperation(c.Name)
	}
	panic(fmt.Sprintf("actors: %T is not a direct write", c))
}

// outcome turns an operation's result into the reply of its command.
func outcome(c messages.Command, res messages.Result) messages.Reply {
	switch c := c.(type) {
	case messages.Put:
		return messages.PutDone{Tag: c.Tag, Group: c.Group, Existed: res.Existed, Version: res.Version, Err: res.Err}
	case messages.Delete:
		return messages.Deleted{Tag: c.Tag, Group: c.Group, Existed: res.Existed, Version: res.Version, Err: res.Err}
	case messages.CompareAndSwap:
		return messages.ComparedAndSwapped{Tag: c.Tag, Group: c.Group, Swapped: res.Swapped, Version: res.Version, Err: res.Err}
	case messages.Txn:
		return messages.TxnDone{Tag: c.Tag, Group: c.Group, Succeeded: res.Succeeded, Results: res.Results, Version: res.Version, Err: res.Err}
	case messages.Commit:
		return messages.Committed{Tag: c.Tag, Group: c.Group, Version: res.Version, Err: res.Err}
	case messages.CreateIndex:
		return messages.IndexCreated{Tag: c.Tag, Group: c.Group, Err: res.Err}
	case messages.DropIndex:
		return messages.IndexDropped{Tag: c.Tag, Group: c.Group, Err: res.Err}
	}
	panic(fmt.Sprintf("actors: %T is not a direct write", c))
}

func (b *kvBehavior) exportChunk(r *Request, c messages.ExportChunk) {
	a, ok := b.leases.find(r, c.View, isExport)
	if !ok {
		return
	}
	size := c.MaxBytes
	if size <= 0 {
		size = defaultChunk
	}
	size = min(size, messages.MaxSnapshotChunk)
	a.underWay++
	b.host.Do(kvExportLane, Call{Name: "export"}, func() func() {
		data := make([]byte, size)
		n, err := io.ReadFull(a.export, data)
		eof := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if eof {
			err = nil
		}
		if err != nil {
			n, err = 0, errors.Join(err, a.export.Close())
		}
		return func() {
			b.leases.settle(a, err)
			r.Reply(messages.ChunkExported{Tag: c.Tag, Group: c.Group, View: c.View, Data: data[:n], EOF: eof, Err: err})
		}
	})
}

func (b *kvBehavior) closeView(r *Request, c messages.CloseView) {
	a, ok := b.leases.find(r, c.View, isRead)
	if !ok {
		return
	}
	b.leases.remove(a)
	b.leases.giveUp(a, func(err error) { r.Reply(messages.ViewClosed{Tag: c.Tag, Group: c.Group, Err: err}) })
}

// Resolve: an Apply or an import has succeeded if the store has applied that
// far. A direct write that had reached the store may be on disk or not; one
// that was still waiting has left no trace and is done now, and so is a read.
// Views, watches and imports do not survive.
func (b *kvBehavior) Resolve(r *Request, cause error) {
	crashed := fmt.Errorf("%s: %w: %w", b.host.PID().ID, messages.ErrCrashed, cause)
	switch note := r.Note.(type) {
	case applying:
		index, term := b.store.Applied(note.group)
		if index < note.last {
			r.Fail(crashed)
			return
		}
		switch c := r.Command.(type) {
		case messages.Apply:
			lost := messages.Result{Err: fmt.Errorf("%s: %w", b.host.PID().ID, messages.ErrResultLost)}
			r.Reply(messages.Applied{Tag: c.Tag, Group: c.Group, Index: index, Term: term, Results: slices.Repeat([]messages.Result{lost}, len(c.Entries))})
		case messages.FinishImport:
			if index == note.last {
				r.Reply(messages.Imported{Tag: c.Tag, Group: c.Group, Index: index, Term: term, Keys: b.store.Keys(c.Group)})
			}
		}
		return
	case *written:
		return // in doubt
	}
	_, txn := txnOf(r.Command)
	if view, _ := viewOf(r.Command); view != 0 || txn != 0 {
		r.Fail(crashed)
		return
	}
	switch r.Command.(type) {
	case messages.ExportChunk, messages.CloseView, messages.ImportChunk, messages.FinishImport, messages.AbortImport, messages.CompactData,
		messages.ReadChanges, messages.CancelWatch:
		r.Fail(crashed)
	default:
		r.Keep()
		b.Handle(r)
	}
}
