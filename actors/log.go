package actors

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anthdm/hollywood/actor"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// LogConfig configures a log actor.
type LogConfig struct {
	// Open opens the store; it is called again after every failure.
	Open func() (raftlog.Store, error)
	// Sync says when changes become durable. Default: before they are answered.
	Sync SyncPolicy
	// MaxBatchBytes starts a sync without waiting for more once that much is
	// staged. Default 1 MiB. A larger one gives more throughput and longer
	// waits to those at its front.
	MaxBatchBytes int
	// Scrub says how fast closed segments are verified beside everything else.
	Scrub ScrubPolicy
	Config
}

// ScrubPolicy paces the verification of what nobody reads. Damage is told by
// the event messages.DamageFound.
type ScrubPolicy struct {
	// BytesPerSecond is the mean rate. Default 4 MiB, which takes 0.5 % of a
	// core; a terabyte takes three days. Negative: nothing is verified.
	BytesPerSecond int64
	// Pause is how long it rests after each time around. Default 1 hour.
	Pause time.Duration
}

// Validate reports every field that makes no sense.
func (p ScrubPolicy) Validate() error {
	if p.Pause < 0 {
		return fmt.Errorf("ScrubPolicy.Pause is negative (%v): %w", p.Pause, messages.ErrInvalid)
	}
	return nil
}

func (p ScrubPolicy) withDefaults() ScrubPolicy {
	if p.BytesPerSecond == 0 {
		p.BytesPerSecond = 4 << 20
	}
	if p.Pause == 0 {
		p.Pause = time.Hour
	}
	return p
}

// Log is a running log actor: it answers Append, TruncateFrom, TruncateBefore,
// ResetLog, SetStable, GetStable, ReadEntry, ReadRange, ReadBounds and
// ListGroups.
//
// It commits in groups without a timer: see front. While one batch is being
// synced and answered by a worker, the changes of the next one are checked and
// encoded, in lots of 64 or 16 KiB.
//
// What the store has to do besides, it does on a lane of its own.
type Log struct {
	*Host
	mu    sync.Mutex
	stats messages.LogStatistics
}

// SpawnLog starts a log actor.
func SpawnLog(engine *actor.Engine, cfg LogConfig) (*Log, error) {
	err := errors.Join(cfg.Scrub.Validate(), cfg.Sync.Validate())
	if cfg.MaxBatchBytes < 0 {
		err = errors.Join(err, fmt.Errorf("MaxBatchBytes %d is negative: %w", cfg.MaxBatchBytes, messages.ErrInvalid))
	}
	if err != nil {
		return nil, fmt.Errorf("actors: spawn %s/%s: %w", cfg.Name, cfg.ID, err)
	}
	if cfg.MaxBatchBytes == 0 {
		cfg.MaxBatchBytes = 1 << 20
	}
	cfg.Scrub, cfg.Sync = cfg.Scrub.withDefaults(), cfg.Sync.withDefaults()
	l := &Log{}
	cfg.Patient = changes
	cfg.New = func(h *Host) Behavior {
		b := &logBehavior{host: h, cfg: cfg, log: l}
		b.front = front{host: h, size: func() (int, bool) { return len(b.pending), b.syncing }, leave: b.leave}
		return b
	}
	if l.Host, err = Spawn(engine, cfg.Config); err != nil {
		return nil, err
	}
	return l, nil
}

// Statistics counts what the actor has made durable since it was spawned.
func (l *Log) Statistics() messages.LogStatistics {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Stalls, s.Stalled = l.watch.stallsOf(syncCall.Name)
	return s
}

// syncCall makes a batch durable.
var syncCall = Call{Name: "sync"}

const (
	logSyncLane = 0
	logReadLane = 1
	// logCareLane is for Maintain and Scrub.
	logCareLane = 2
)

type logBehavior struct {
	host  *Host
	cfg   LogConfig
	log   *Log
	store raftlog.Store

	pending []*Request // staged and not durable, in the order of staging
	spare   []*Request // for the next pending
	notes   []staged   // allocated ahead
	reads   []*Request // for the next job of the lane for reads
	// staged counts what was ever in pending; the worker reads it.
	staged atomic.Uint64
	front  front
	// full: the last sync that would have made the log grow was refused for
	// lack of space. Changes that give space back then travel alone, because
	// they may use the reserve; they wait in shrinking while a sync is under
	// way.
	full      bool
	shrinking []*Request
	syncing   bool
	// maintaining: the store's Maintain is under way; wanted: it has asked for a
	// sync. timed: the time of the next sync of a lazy policy is set; late: it has
	// come.
	maintaining, wanted, timed, late bool
	// failed: the host has been told, and this behavior is no longer its own.
	failed bool
}

// staged is the Note of a request whose change has a position.
type staged struct {
	position uint64
	change   bool           // false: there was nothing to do but to wait for it
	reply    messages.Reply // when it is durable
}

// changes reports whether a command waits for the next sync.
func changes(c messages.Command) bool {
	switch c.(type) {
	case messages.Append, messages.TruncateFrom, messages.TruncateBefore, messages.ResetLog, messages.SetStable:
		return true
	}
	return false
}

// shrinks reports whether a command gives space back.
func shrinks(c messages.Command) bool {
	switch c := c.(type) {
	case messages.TruncateFrom, messages.TruncateBefore, messages.ResetLog:
		return true
	case messages.SetStable:
		return c.Value == nil
	}
	return false
}

func (b *logBehavior) Open() (err error) {
	b.store, err = b.cfg.Open()
	return err
}

func (b *logBehavior) Close() error {
	if b.store == nil {
		return nil
	}
	return b.store.Close()
}

func (b *logBehavior) Drain()      {}
func (b *logBehavior) Message(any) {}

// Ready implements Behavior.
func (b *logBehavior) Ready() {
	b.maintain()
	if b.cfg.Scrub.BytesPerSecond > 0 {
		b.host.After(b.cfg.Scrub.Pause/60, b.scrub)
	}
}

func (b *logBehavior) Handle(r *Request) {
	if b.host.Late(logSyncLane) && changes(r.Command) && !shrinks(r.Command) {
		// What a disk that hangs would be given on top could only wait, and take
		// memory. The fences of a coordinator are truncations, and do wait.
		r.Fail(stalledError(b.host, r.Command))
		return
	}
	if b.full {
		if changes(r.Command) {
			grows := !shrinks(r.Command)
			if grows && (b.syncing || len(b.pending) > 0) {
				r.Fail(fmt.Errorf("%s: %T: the disk was full a moment ago: %w", b.host.PID().ID, r.Command, messages.ErrDiskFull))
				return
			}
			if !grows && (b.syncing || len(b.pending) > 0) {
				b.shrinking = append(b.shrinking, r)
				return
			}
		}
	}
	b.handle(r)
}

func (b *logBehavior) handle(r *Request) {
	switch c := r.Command.(type) {
	case messages.Append:
		position, err := b.store.Append(c.Group, c.Entries, c.HardState)
		reply := messages.Appended{Tag: c.Tag, Group: c.Group}
		if n := len(c.Entries); n > 0 && err == nil {
			reply.First, reply.Last = c.Entries[0].Index, c.Entries[n-1].Index
		}
		b.stage(r, position, reply, err)
	case messages.TruncateFrom:
		position, err := b.store.TruncateFrom(c.Group, c.Index)
		b.stage(r, position, messages.Truncated{Tag: c.Tag, Group: c.Group}, err)
	case messages.TruncateBefore:
		position, err := b.store.TruncateBefore(c.Group, c.Index)
		b.stage(r, position, messages.Compacted{Tag: c.Tag, Group: c.Group}, err)
	case messages.ResetLog:
		position, err := b.store.Reset(c.Group, c.Index, c.Term)
		b.stage(r, position, messages.LogReset{Tag: c.Tag, Group: c.Group}, err)
	case messages.SetStable:
		position, err := b.store.SetStable(c.Group, c.Name, c.Value)
		b.stage(r, position, messages.StableSet{Tag: c.Tag, Group: c.Group}, err)
	case messages.GetStable:
		value, err := b.store.Stable(c.Group, c.Name)
		r.Reply(messages.StableGot{Tag: c.Tag, Group: c.Group, Value: value, Err: err})
	case messages.ReadBounds:
		r.Reply(messages.BoundsRead{Tag: c.Tag, Group: c.Group, Bounds: b.store.Bounds(c.Group)})
	case messages.ListGroups:
		r.Reply(messages.GroupsListed{Tag: c.Tag, Group: c.Group, Groups: b.store.Groups()})
	case messages.ReadEntry:
		b.reads = append(b.reads, r)
	case messages.ReadRange:
		b.reads = append(b.reads, r)
	default:
		r.Fail(unknown(b.host, c))
	}
}

// stalledError is the answer to a change that comes while the disk hangs.
func stalledError(h *Host, c messages.Command) error {
	return fmt.Errorf("%s: %T: the disk does not answer: %w", h.PID().ID, c, messages.ErrUnavailable)
}

// unknown is the answer to a command that belongs to another actor.
func unknown(h *Host, c messages.Command) error {
	return fmt.Errorf("%s does not answer %T: %w", h.PID().ID, c, messages.ErrInvalid)
}

// Settle starts what a burst of commands has asked for.
func (b *logBehavior) Settle() {
	b.startReads()
	b.commit()
}

// startReads runs the reads of a burst on a worker of their own: a read may have
// to wait for the disk, and must wait for no sync. They are answered from there,
// one hop earlier. One that panics does not take those behind it with it.
func (b *logBehavior) startReads() {
	if len(b.reads) == 0 {
		return
	}
	reads := b.reads
	b.reads = nil
	b.host.Do(logReadLane, Call{Name: "read"}, func() func() {
		var first *PanicError
		for _, r := range reads {
			if err := b.read(r); err != nil && first == nil {
				first = err
			}
		}
		if first != nil {
			panic(first)
		}
		return nil
	})
}

func (b *logBehavior) read(r *Request) (panicked *PanicError) {
	defer func() {
		if v := recover(); v != nil {
			panicked = &PanicError{v, debug.Stack()}
		}
	}()
	var reply messages.Reply
	switch c := r.Command.(type) {
	case messages.ReadEntry:
		e, err := b.store.Entry(c.Group, c.Index)
		reply = messages.EntryRead{Tag: c.Tag, Group: c.Group, Entry: e, Err: err}
	case messages.ReadRange:
		es, err := b.store.Entries(c.Group, c.From, c.To, c.MaxBytes)
		reply = messages.RangeRead{Tag: c.Tag, Group: c.Group, Entries: es, Err: err}
	}
	// A store that was closed under it, because the actor has failed, is no
	// answer: Resolve reads again (simulation seed 92).
	if !errors.Is(reply.Failure(), messages.ErrStopped) {
		r.Reply(reply)
	}
	return nil
}

func (b *logBehavior) stage(r *Request, position uint64, reply messages.Reply, err error) {
	if errors.Is(err, raftlog.ErrPoisoned) {
		// A sync or Maintain has failed, and its worker is on its way to say so.
		r.Fail(fmt.Errorf("%s: %w: %w", b.host.PID().ID, messages.ErrCrashed, err))
		b.fail(err)
		return
	}
	if err != nil {
		r.Fail(err)
		return
	}
	change := position != 0
	if !change { // there is nothing to do, but it may rest on what is staged
		position, _ = b.store.Staged()
	}
	if len(b.notes) == 0 {
		b.notes = make([]staged, slabSize)
	}
	note := &b.notes[0]
	b.notes = b.notes[1:]
	*note = staged{position, change, reply}
	r.Note = note
	b.pending = append(b.pending, r)
	b.staged.Add(1)
}

// commit starts a sync, or a look at whether more is coming.
func (b *logBehavior) commit() {
	if b.syncing || !b.asked() {
		return
	}
	if b.cfg.Sync.Mode != SyncAlways {
		b.sync()
		return
	}
	_, bytes := b.store.Staged()
	b.front.gather(len(b.pending) == 0 || bytes >= b.cfg.MaxBatchBytes)
}

func (b *logBehavior) leave() {
	if b.asked() {
		b.sync()
	}
}

func (b *logBehavior) asked() bool { return len(b.pending) > 0 || b.wanted || b.late }

// syncSoon has what is written synced within the interval.
func (b *logBehavior) syncSoon() {
	if b.cfg.Sync.Mode != SyncInterval || b.timed {
		return
	}
	b.timed = true
	b.host.After(b.cfg.Sync.Every, func() {
		b.timed, b.late = false, true // Settle follows
	})
}

// maxSpare is how long a batch's slice may be to be used again, so that one
// large batch does not pin 8 bytes for each of its commands for ever.
const maxSpare = 4096

// sync sends a batch on its way: to the disk, or with a lazy policy to the kernel.
func (b *logBehavior) sync() {
	batch := b.pending
	b.pending, b.spare = b.spare, nil
	lazy := b.cfg.Sync.Mode != SyncAlways && !b.late
	b.syncing, b.wanted, b.late = true, false, false
	if lazy {
		b.syncSoon() // first, so that who has an answer can count on it
	}
	b.host.Defer(true)
	upTo := b.staged.Load()
	b.host.Do(logSyncLane, syncCall, func() func() {
		began := b.host.Now()
		carryOut := b.store.Sync
		if lazy {
			carryOut = b.store.Write
		}
		changes, err := carryOut()
		took := b.host.Now().Sub(began)
		if err == nil {
			later := int(b.staged.Load() - upTo)
			n := len(batch)
			if n > 0 {
				b.count(batch, took)
			}
			grows := slices.ContainsFunc(batch, func(r *Request) bool { return !shrinks(r.Command) })
			if grows {
				b.host.room(nil)
			}
			replyAll(batch, func(r *Request) messages.Reply { return b.bounded(r.Note.(*staged).reply) })
			return func() {
				if n > 0 {
					b.front.answered(n, later)
				}
				b.full = b.full && !grows
				clear(batch)
				if n <= maxSpare {
					b.spare = batch[:0]
				}
				b.synced(nil, changes, nil)
			}
		}
		return func() { b.synced(batch, changes, err) }
	})
}

func (b *logBehavior) synced(batch []*Request, changes int, err error) {
	b.syncing = false
	b.host.Defer(false)
	switch {
	case err != nil && b.store.Poisoned():
		// Resolve answers the batch and what was staged after it.
		b.fail(err)
		return
	case err != nil:
		b.dropped(batch, changes, fmt.Errorf("%s: %w", b.host.PID().ID, err))
	}
	if len(b.pending) == 0 {
		shrinking := b.shrinking
		b.shrinking = nil
		for i, r := range shrinking {
			if b.failed { // Resolve answers the rest
				b.shrinking = shrinking[i:]
				return
			}
			b.handle(r)
		}
	}
	b.maintain()
}

// fail has the host drop this behavior, once.
func (b *logBehavior) fail(err error) {
	if !b.failed {
		b.failed = true
		b.host.Fail(fmt.Errorf("%s: %w", b.host.PID().ID, err))
	}
}

// maintain has the store do what need not be on the way of an append.
func (b *logBehavior) maintain() {
	if b.failed || b.maintaining || !b.store.Due() {
		return
	}
	b.maintaining = true
	b.host.Do(logCareLane, Call{"maintain", true}, func() func() {
		sync, err := b.store.Maintain()
		damage := b.store.Damaged()
		return func() {
			b.maintaining = false
			b.tell(damage)
			if err != nil && b.store.Poisoned() {
				b.fail(err)
				return
			}
			if err != nil && !errors.Is(err, messages.ErrStopped) {
				b.host.Event(messages.MaintenanceDelayed{Actor: b.host.PID().ID, Err: err})
			}
			if b.wanted = b.wanted || sync; b.wanted {
				b.commit()
				return
			}
			b.maintain()
		}
	})
}

// scrub verifies the next part of what is closed, and comes back when that has
// earned its time.
func (b *logBehavior) scrub() {
	b.host.Do(logCareLane, Call{"scrub", true}, func() func() {
		read, damage, err := b.store.Scrub()
		return func() {
			b.tell(damage)
			wait := b.cfg.Scrub.Pause
			if err == nil && read > 0 {
				wait = time.Duration(float64(read) / float64(b.cfg.Scrub.BytesPerSecond) * float64(time.Second))
			}
			b.host.After(wait, b.scrub)
		}
	})
}

func (b *logBehavior) tell(damage []raftlog.Damage) {
	if len(damage) == 0 {
		return
	}
	b.log.mu.Lock()
	b.log.stats.Damage += uint64(len(damage))
	b.log.mu.Unlock()
	for _, d := range damage {
		b.host.Event(messages.DamageFound{Actor: b.host.PID().ID, Group: d.Group, Index: d.Index, Err: d.Err})
	}
}

// dropped sorts out what a full disk has dropped: the first changes of those
// that were not durable, whether they had been staged before the sync was asked
// for or before it began. What was staged after that is still staged. Nothing
// was written, so those that give space back are tried again by themselves.
func (b *logBehavior) dropped(batch []*Request, changes int, err error) {
	b.full = true
	b.host.room(err)
	all := append(batch, b.pending...)
	mixed := slices.ContainsFunc(all, func(r *Request) bool { return !shrinks(r.Command) })
	b.pending = nil
	for _, r := range all {
		note := r.Note.(*staged)
		switch {
		case note.position <= b.store.Written():
			r.Reply(b.bounded(note.reply))
			continue
		case note.change && changes > 0:
			changes--
		case note.change || len(b.pending) > 0:
			b.pending = append(b.pending, r)
			continue
		}
		if mixed && shrinks(r.Command) {
			r.Note = nil
			b.shrinking = append(b.shrinking, r)
		} else {
			r.Fail(err)
		}
	}
}

// bounded completes a reply that tells where the log begins or ends now.
func (b *logBehavior) bounded(reply messages.Reply) messages.Reply {
	switch m := reply.(type) {
	case messages.Truncated:
		m.Last = b.store.Bounds(m.Group).Last
		return m
	case messages.Compacted:
		m.First = b.store.Bounds(m.Group).First
		return m
	}
	return reply
}

func (b *logBehavior) count(batch []*Request, took time.Duration) {
	l := b.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range batch {
		if c, ok := r.Command.(messages.Append); ok {
			l.stats.Appends++
			l.stats.Entries += uint64(len(c.Entries))
			l.stats.Bytes += uint64(c.Bytes())
		}
	}
	l.stats.Syncs++
	l.stats.SyncTime += took
	l.stats.LastSync = took
	l.stats.LastBatch = len(batch)
	l.stats.BatchSizes.Observe(uint64(len(batch)))
	l.stats.SyncTimes.Observe(uint64(took.Microseconds()))
}

// Resolve: what reached the disk has succeeded, what did not left no trace, and
// reads are done again. A command that failed in the middle of being staged has
// no position, and may have been synced all the same.
func (b *logBehavior) Resolve(r *Request, cause error) {
	if s, ok := r.Note.(*staged); ok {
		if s.position <= b.store.Durable() {
			r.Reply(b.bounded(s.reply))
		} else {
			r.Fail(fmt.Errorf("%s: %w: %w", b.host.PID().ID, messages.ErrCrashed, cause))
		}
		return
	}
	switch r.Command.(type) {
	case messages.ReadEntry, messages.ReadRange:
		r.Keep()
		b.Handle(r)
	}
}
