package actors

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// Call names a job for whoever is told that it does not come back.
type Call struct {
	// Name is told by messages.Stalled.
	Name string
	// Long: it takes time in proportion to the data, and gets 30 times
	// Config.StallAfter: a verification of a snapshot of 10 GiB reads for 10
	// seconds, and nothing is wrong.
	Long bool
}

// longPatience is how many times StallAfter a long call may take.
const longPatience = 30

// defaultStallAfter is four times the slowest sync that was seen on a busy disk.
const defaultStallAfter = 2 * time.Second

// ownCall is what an actor that hangs in a message is said to do: application
// data is written there, into the page cache, which a disk that hangs can refuse.
const ownCall = "message"

// lane is a worker of an actor, and the job that it has.
type lane struct {
	pid *actor.PID
	// late: the job that runs was reported.
	late atomic.Bool

	mu    sync.Mutex
	call  Call
	began time.Time // of the job; zero if there is none
}

// watchdog reports the calls of one actor that do not come back: those of its
// lanes, and those in the actor itself. It is a timer that runs while there is
// something to watch, every StallAfter, so a call may have hung for twice as long
// when it is told. It outlasts failures of the actor, as a call that hangs does.
//
// It costs two atomic additions a message, and a lock that nobody else wants for
// each job (BenchmarkGuard).
type watchdog struct {
	host *Host
	// handled is odd while the actor is in a message.
	handled atomic.Uint64
	armed   atomic.Bool
	late    atomic.Bool // the actor hangs, and that was reported

	mu    sync.Mutex
	lanes []*lane
	// seen is what handled was at the last look, which was at looked.
	seen   uint64
	looked time.Time
	since  time.Time // when the actor was seen first in the message that hangs
	stalls map[string]uint64
}

// enter and leave go around each message to the actor.
func (w *watchdog) enter() {
	w.handled.Add(1)
	if !w.armed.Load() && w.armed.CompareAndSwap(false, true) {
		w.arm()
	}
}

func (w *watchdog) leave() {
	w.handled.Add(1)
	if w.late.Load() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.late.Store(false)
		w.ended(ownCall, w.since)
	}
}

// arm sets the timer, which must not keep an actor in memory that was stopped.
func (w *watchdog) arm() {
	host := weak.Make(w.host)
	w.host.env.After(w.host.cfg.StallAfter, func() {
		if h := host.Value(); h != nil {
			h.watch.look()
		}
	})
}

// look runs in a goroutine of its own: the actor may be what hangs.
func (w *watchdog) look() {
	if w.host.Stopped() {
		return
	}
	now := w.host.env.Now()
	w.mu.Lock()
	busy := w.lookAtActor(now)
	for _, l := range w.lanes {
		busy = w.lookAtLane(l, now) || busy
	}
	seen := w.seen
	w.mu.Unlock()
	if busy {
		w.arm()
		return
	}
	w.armed.Store(false)
	if w.handled.Load() != seen && w.armed.CompareAndSwap(false, true) {
		w.arm() // something came between the two
	}
}

func (w *watchdog) lookAtActor(now time.Time) (busy bool) {
	handled := w.handled.Load()
	hangs := handled%2 == 1 && handled == w.seen
	busy = handled%2 == 1 || handled != w.seen
	if hangs {
		if !w.late.Load() {
			w.since = w.looked
			w.begun(ownCall)
			w.late.Store(true)
			if w.handled.Load() != handled && w.late.CompareAndSwap(true, false) {
				// It has come back at this moment, and leave has missed that.
				w.ended(ownCall, w.since)
				return busy
			}
		}
		w.tell(ownCall, now.Sub(w.since))
	}
	w.seen, w.looked = handled, now
	return busy
}

func (w *watchdog) lookAtLane(l *lane, now time.Time) (busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began.IsZero() {
		return false
	}
	patience := w.host.cfg.StallAfter
	if l.call.Long {
		patience *= longPatience
	}
	if took := now.Sub(l.began); took >= patience {
		if !l.late.Load() {
			w.begun(l.call.Name)
			l.late.Store(true)
			// Those that were to wait for the end of this call hear of it instead.
			w.host.box.deferPatient(false)
		}
		w.tell(l.call.Name, took)
	}
	return true
}

// begun counts a stall. The caller holds mu.
func (w *watchdog) begun(call string) {
	if w.stalls == nil {
		w.stalls = make(map[string]uint64)
	}
	w.stalls[call]++
}

func (w *watchdog) tell(call string, took time.Duration) {
	w.host.Event(messages.Stalled{Actor: w.host.PID().ID, Call: call, For: took})
}

func (w *watchdog) ended(call string, since time.Time) {
	w.host.Event(messages.StallEnded{Actor: w.host.PID().ID, Call: call, For: w.host.env.Now().Sub(since)})
}

// add makes a lane known.
func (w *watchdog) add(l *lane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lanes = append(w.lanes, l)
}

// begin and end go around each job of a lane, in its worker.
func (l *lane) begin(c Call, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.call, l.began = c, now
}

func (l *lane) end(w *watchdog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late.Load() {
		l.late.Store(false)
		w.ended(l.call.Name, l.began)
	}
	l.began = time.Time{}
}

// stalled lists the calls that hang, sorted, and counts all that ever did.
func (w *watchdog) stalled() (calls []string, stalls uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.late.Load() {
		calls = append(calls, ownCall)
	}
	for _, l := range w.lanes {
		if l.late.Load() {
			l.mu.Lock()
			calls = append(calls, l.call.Name)
			l.mu.Unlock()
		}
	}
	for _, n := range w.stalls {
		stalls += n
	}
	slices.SortFunc(calls, cmp.Compare[string])
	return calls, stalls
}

// stallsOf counts the stalls of one call, and reports whether it hangs now.
func (w *watchdog) stallsOf(call string) (n uint64, now bool) {
	calls, _ := w.stalled()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stalls[call], slices.Contains(calls, call)
}

// Late reports whether the job that a lane has now was reported as stalled.
func (h *Host) Late(i int) bool { return i < len(h.lanes) && h.lanes[i].late.Load() }

func stalledText(calls []string) string { return strings.Join(calls, ", ") }
