package snapshot

import (
	"fmt"
	"slices"
	"sync"
)

// cache holds blocks of one file, decoded and checked, for its Reader: the one
// that is being read, those that are being decompressed ahead of it and the
// last few that were used. Each block is decoded once while it stays, whoever
// wants it. It keeps limit blocks at most, and beyond them only what concurrent
// ReadAts hold at the moment.
type cache struct {
	coder *coder
	x     *file
	limit int

	mu     sync.Mutex
	blocks []*cached
	clock  uint64
	closed error          // what every further call fails with
	ahead  sync.WaitGroup // goroutines that prefetch
}

// cached is one block. All but done and what it guards is guarded by the
// cache's mutex.
type cached struct {
	number  int64
	holders int    // it is not reused while there are any
	used    uint64 // by the cache's clock

	buf  []byte
	done chan struct{} // closed when raw and err are set
	raw  []byte
	err  error
}

// acquire returns a block, which the caller has to release. If it is not there
// it is decoded by the caller.
func (c *cache) acquire(number int64) (*cached, error) {
	c.mu.Lock()
	if c.closed != nil {
		c.mu.Unlock()
		return nil, c.closed
	}
	b := c.find(number)
	if b != nil {
		b.holders++
		c.mu.Unlock()
		<-b.done
	} else {
		if b = c.room(number); b == nil {
			b = c.add(number) // beyond the limit, until it is released
		}
		c.mu.Unlock()
		c.load(b)
	}
	if b.err != nil {
		return nil, c.giveBack(b)
	}
	return b, nil
}

// giveBack releases a block that could not be decoded and says why: because the
// file was closed meanwhile, or the block's own reason.
func (c *cache) giveBack(b *cached) error {
	c.release(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		return c.closed
	}
	return b.err
}

// prefetch has a block decoded on a goroutine of its own, which ends by itself,
// unless the block is there or there is no room for it.
func (c *cache) prefetch(number int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil || c.find(number) != nil {
		return
	}
	b := c.room(number)
	if b == nil {
		return
	}
	c.ahead.Go(func() {
		c.decode(b)
		// In one step: who waited for the block may move on at once, and its
		// place has to be free for the next one then, or less is read ahead.
		c.mu.Lock()
		defer c.mu.Unlock()
		close(b.done)
		c.drop(b)
	})
}

// retain makes the caller one more holder of a block that is held.
func (c *cache) retain(b *cached) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.holders++
	return b
}

func (c *cache) release(b *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(b)
}

// drop makes a block be held by one less. c.mu is held.
func (c *cache) drop(b *cached) {
	b.holders--
	// One that failed is not kept: a disk may read at the second try.
	if b.holders == 0 && (len(c.blocks) > c.limit || b.err != nil) {
		c.blocks = slices.DeleteFunc(c.blocks, func(o *cached) bool { return o == b })
	}
}

// find returns a block that is there or on its way. c.mu is held.
func (c *cache) find(number int64) *cached {
	for _, b := range c.blocks {
		if b.number == number {
			c.clock++
			b.used = c.clock
			return b
		}
	}
	return nil
}

// room returns a place for a block, held by the caller: a new one below the
// limit, else that of the block that was used the longest ago, or nil if all of
// them are held. c.mu is held.
func (c *cache) room(number int64) *cached {
	if len(c.blocks) < c.limit {
		return c.add(number)
	}
	var oldest *cached
	for _, b := range c.blocks {
		if b.holders == 0 && (oldest == nil || b.used < oldest.used) {
			oldest = b
		}
	}
	if oldest != nil {
		c.take(oldest, number)
	}
	return oldest
}

func (c *cache) add(number int64) *cached {
	b := &cached{}
	c.take(b, number)
	c.blocks = append(c.blocks, b)
	return b
}

func (c *cache) take(b *cached, number int64) {
	c.clock++
	*b = cached{number: number, holders: 1, used: c.clock, buf: b.buf, done: make(chan struct{})}
}

// load decodes a block that the caller holds, for all who wait for it.
func (c *cache) load(b *cached) {
	defer close(b.done)
	c.decode(b)
}

func (c *cache) decode(b *cached) {
	defer func() {
		if p := recover(); p != nil {
			b.raw, b.err = nil, fmt.Errorf("reading block %d panicked: %v", b.number, p)
		}
	}()
	if b.buf == nil {
		b.buf = make([]byte, c.x.blockBuffer())
	}
	b.err = c.coder.withReader(func(r *blockReader) (err error) {
		b.raw, err = c.x.readBlock(r, b.number, b.buf)
		return err
	})
}

// close makes every further call fail with err and waits until nothing is
// prefetched any more. What is held stays good.
func (c *cache) close(err error) {
	c.mu.Lock()
	c.closed = err
	c.blocks = nil
	c.mu.Unlock()
	c.ahead.Wait()
}
