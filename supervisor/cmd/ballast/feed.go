package main

import (
	"context"
	"hash/maphash"
	"sync"
)

// job is one value to be stored under a key.
type job struct {
	key  []byte
	name string // for messages to the user
	// cost is about how much memory the job takes while it is under way.
	cost int64
	// value makes the value. It is called by the client, so that clients share
	// the work.
	value func() ([]byte, error)
}

// verdict is what a client hears when it asks for a job.
type verdict int

const (
	later verdict = iota // it is woken when there is one
	over                 // there will be none
	ready
)

// feed hands jobs out to clients. It bounds what has been added and not settled.
type feed struct {
	clients int
	// ordered: jobs of one key go to one client, in the order in which they were
	// added. Otherwise they go to whoever is free.
	ordered bool
	wake    func(client int)

	mu      sync.Mutex
	room    sync.Cond
	queues  [][]*job // one, or one for each client
	waiting map[int]bool
	ended   bool // nothing more is added
	cut     bool // nothing more is handed out
	jobs    int
	cost    int64
}

// What a feed holds at most: jobs for each client, and bytes over all, but for
// a single job that is larger.
const (
	feedDepth = 4
	feedBytes = 96 << 20
)

var keySeed = maphash.MakeSeed()

func newFeed(clients int, ordered bool) *feed {
	f := &feed{clients: clients, ordered: ordered, queues: make([][]*job, 1), waiting: map[int]bool{}}
	if ordered {
		f.queues = make([][]*job, clients)
	}
	f.room.L = &f.mu
	return f
}

// add hands a job in. It waits for room, and returns false if the context ends
// first or nothing more is handed out.
func (f *feed) add(ctx context.Context, j *job) bool {
	defer context.AfterFunc(ctx, func() { // wakes the wait below
		f.mu.Lock()
		defer f.mu.Unlock()
		f.room.Broadcast()
	})()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.jobs > 0 && (f.jobs >= feedDepth*f.clients || f.cost+j.cost > feedBytes) && !f.cut && ctx.Err() == nil {
		f.room.Wait()
	}
	if f.cut || ctx.Err() != nil {
		return false
	}
	f.jobs++
	f.cost += j.cost
	q := 0
	if f.ordered {
		q = int(maphash.Bytes(keySeed, j.key) % uint64(f.clients))
	}
	f.queues[q] = append(f.queues[q], j)
	if f.ordered {
		f.rouse(q)
		return true
	}
	for c := range f.waiting {
		f.rouse(c)
		break
	}
	return true
}

// rouse wakes a client if it waits.
func (f *feed) rouse(client int) {
	if f.waiting[client] {
		delete(f.waiting, client)
		f.wake(client)
	}
}

// end says that nothing more is added; stop that nothing more is handed out.
func (f *feed) end()  { f.finish(false) }
func (f *feed) stop() { f.finish(true) }

func (f *feed) finish(cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.cut = f.cut || cut
	f.room.Broadcast()
	for c := range f.waiting {
		f.rouse(c)
	}
}

// take gives a client its next job.
func (f *feed) take(client int) (*job, verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := &f.queues[0]
	if f.ordered {
		q = &f.queues[client]
	}
	switch {
	case f.cut:
		return nil, over
	case len(*q) > 0:
		j := (*q)[0]
		(*q)[0] = nil
		*q = (*q)[1:]
		return j, ready
	case f.ended:
		return nil, over
	}
	f.waiting[client] = true
	return nil, later
}

// settle makes room for others.
func (f *feed) settle(j *job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.jobs--
	f.cost -= j.cost
	f.room.Broadcast()
}
