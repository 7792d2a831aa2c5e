package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/messages"
)

// clientPool proposes jobs through a number of client actors, each of which has
// one proposal under way: the next leaves when the previous is answered. What
// fails for a moment is proposed again; every job is settled in the end.
type clientPool struct {
	service *service
	feed    *feed
	// compare: a value that is there already is not proposed.
	compare bool
	// onSkip and onFail are told of jobs that were not stored, in any
	// goroutine. After stopOnFail no further job is begun.
	onSkip     func(j *job, reason string)
	onFail     func(j *job, err error)
	stopOnFail bool

	clients []*actor.PID
	done    chan struct{} // every client has come to its end

	mu      sync.Mutex
	tally   tally
	running int
	marks   []mark
	latency *hdrhistogram.Histogram // of proposals, in microseconds
	lastAck time.Time
	pause   time.Duration // the longest between two acknowledgements
}

// tally counts what has become of the jobs.
type tally struct {
	settled  int // all of those below
	added    int
	updated  int
	same     int
	skipped  int
	failed   int
	inFlight int
	retries  int
	sent     int   // proposals, also those that were sent again
	bytes    int64 // of the keys and values that were acknowledged
}

func (t tally) acked() int { return t.added + t.updated }

// mark is a channel that is closed once enough jobs are settled.
type mark struct {
	settled int
	c       chan struct{}
}

const maxLatency = 10 * 60 * 1e6 // microseconds

func newClientPool(s *service, f *feed, compare bool) *clientPool {
	return &clientPool{service: s, feed: f, compare: compare, running: f.clients, done: make(chan struct{}),
		latency: hdrhistogram.New(1, maxLatency, 3), onSkip: func(*job, string) {}, onFail: func(*job, error) {}}
}

// start spawns the clients, which begin at once.
func (p *clientPool) start() {
	p.feed.wake = func(n int) { p.service.engine.Send(p.clients[n], wake{}) }
	p.lastAck = time.Now()
	for i := range p.feed.clients {
		c := &client{pool: p, number: i}
		p.clients = append(p.clients, p.service.engine.Spawn(func() actor.Receiver { return c }, "client",
			actor.WithID(strconv.Itoa(i)), actor.WithMaxRestarts(1<<30)))
	}
	for _, pid := range p.clients {
		p.service.engine.Send(pid, wake{})
	}
}

// end takes the clients out of the engine, after done.
func (p *clientPool) end() {
	for _, pid := range p.clients {
		<-p.service.engine.Poison(pid).Done()
	}
}

func (p *clientPool) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running--; p.running == 0 {
		close(p.done)
	}
}

// update changes the tally.
func (p *clientPool) update(f func(t *tally)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.tally)
}

func (p *clientPool) read() tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tally
}

// settle ends a job; f counts it.
func (p *clientPool) settle(j *job, f func(t *tally)) {
	p.feed.settle(j)
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.tally)
	p.tally.settled++
	keep := p.marks[:0]
	for _, m := range p.marks {
		if p.tally.settled >= m.settled {
			close(m.c)
		} else {
			keep = append(keep, m)
		}
	}
	p.marks = keep
}

// acked notes when an acknowledgement came.
func (p *clientPool) acked(sent time.Time) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.latency.RecordValue(min(max(now.Sub(sent).Microseconds(), 1), maxLatency)) // it is in range
	p.pause = max(p.pause, now.Sub(p.lastAck))
	p.lastAck = now
}

// longestPause is the longest time without an acknowledgement since the last
// call.
func (p *clientPool) longestPause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.pause
	p.pause = 0
	return d
}

// reached is closed once n jobs are settled.
func (p *clientPool) reached(n int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(chan struct{})
	if p.tally.settled >= n {
		close(c)
	} else {
		p.marks = append(p.marks, mark{n, c})
	}
	return c
}

// client is one actor of the pool.
type client struct {
	pool   *clientPool
	number int
	over   bool

	job       *job // under way, or nil
	flying    bool // it counts as in flight
	operation messages.Operation
	looking   bool // for the value that is there
	existed   bool
	tag       uint64
	sent      time.Time
	began     time.Time
	wait      time.Duration
}

// Messages to a client.
type (
	wake  struct{}
	again struct{ tag uint64 }
)

// Receive implements hollywood's Receiver. No panic gets past it: hollywood
// would lose the job, and end the program in the end.
func (c *client) Receive(x *actor.Context) {
	defer func() {
		if v := recover(); v != nil && c.job != nil {
			c.fail(fmt.Errorf("panic: %v", v))
			x.Send(x.PID(), wake{})
		}
	}()
	switch m := x.Message().(type) {
	case wake:
		if c.job == nil {
			c.next(x)
		}
	case messages.Got:
		if m.Tag == c.tag && c.job != nil {
			c.got(x, m)
		}
	case messages.EntryApplied:
		if m.Tag == c.tag && c.job != nil {
			c.applied(x, m)
		}
	case again:
		if m.tag == c.tag && c.job != nil {
			c.pool.update(func(t *tally) { t.retries++ })
			c.send(x)
		}
	}
}

// next begins jobs until one is under way or there is none.
func (c *client) next(x *actor.Context) {
	for c.job == nil && !c.over {
		j, v := c.pool.feed.take(c.number)
		switch v {
		case later:
			return
		case over:
			c.over = true
			c.pool.ended()
			return
		}
		c.job, c.existed, c.looking, c.began, c.wait = j, false, c.pool.compare, time.Now(), minRetry
		value, err := j.value()
		if err != nil {
			c.fail(err)
			continue
		}
		if len(value) > messages.MaxValue {
			c.settle(func(t *tally) { t.skipped++ })
			c.pool.onSkip(j, tooLargeText(int64(len(value))))
			continue
		}
		c.operation = messages.PutOperation(j.key, value)
		c.flying = true
		c.pool.update(func(t *tally) { t.inFlight++ })
		c.send(x)
	}
}

// send sends what is to be sent next for the job, under a new tag.
func (c *client) send(x *actor.Context) {
	c.tag++
	c.sent = time.Now()
	var (
		to                       = c.pool.service.Supervisor
		command messages.Command = messages.ApplyEntry{Tag: c.tag, Operation: c.operation}
	)
	if c.looking {
		to, command = c.pool.service.KV, messages.Get{Tag: c.tag, Key: c.job.key}
	} else {
		c.pool.update(func(t *tally) { t.sent++ })
	}
	x.Engine().SendWithSender(to, command, x.PID())
}

func (c *client) got(x *actor.Context, m messages.Got) {
	if c.failed(x, m.Err) {
		return
	}
	c.looking, c.existed = false, m.Found
	if m.Found && bytes.Equal(m.Value, c.operation.Value) {
		c.settle(func(t *tally) { t.same++ })
		c.next(x)
		return
	}
	c.send(x)
}

func (c *client) applied(x *actor.Context, m messages.EntryApplied) {
	err := m.Err
	if err == nil && !errors.Is(m.Result.Err, messages.ErrResultLost) {
		err = m.Result.Err
	}
	if c.failed(x, err) {
		return
	}
	c.pool.acked(c.sent)
	size := int64(len(c.operation.Key) + len(c.operation.Value))
	c.settle(func(t *tally) {
		t.bytes += size
		if c.existed {
			t.updated++
		} else {
			t.added++
		}
	})
	c.next(x)
}

// failed deals with an error: it tries again after a while, or gives the job
// up.
func (c *client) failed(x *actor.Context, err error) bool {
	if err == nil {
		return false
	}
	if tryAgain(err) && time.Since(c.began) < giveUpAge {
		engine, pid, m := x.Engine(), x.PID(), again{c.tag}
		time.AfterFunc(c.wait/2+rand.N(c.wait/2+1), func() { engine.Send(pid, m) })
		c.wait = min(2*c.wait, maxRetry)
		return true
	}
	c.fail(err)
	c.next(x)
	return true
}

// fail ends the job without success.
func (c *client) fail(err error) {
	j := c.job
	c.settle(func(t *tally) { t.failed++ })
	c.pool.onFail(j, err)
	if c.pool.stopOnFail || fatal(err) {
		c.pool.feed.stop()
	}
}

// fatal errors will meet every other job as well.
func fatal(err error) bool {
	return errors.Is(err, messages.ErrDiskFull) || errors.Is(err, messages.ErrStopped) ||
		errors.Is(err, messages.ErrCorrupt) || tryAgain(err)
}

// settle ends the job.
func (c *client) settle(count func(t *tally)) {
	j, flying := c.job, c.flying
	c.job, c.flying = nil, false
	c.pool.settle(j, func(t *tally) {
		count(t)
		if flying {
			t.inFlight--
		}
	})
}
