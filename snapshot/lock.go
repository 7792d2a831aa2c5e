package snapshot

import "sync"

// keyed is a mutex for each key. One that is held across a step of the disk that
// hangs holds up those who want the same key, and nobody else.
type keyed[K comparable] struct {
	mu   sync.Mutex
	held map[K]chan struct{} // closed when it is free again
}

// lock waits until nobody holds the key.
func (k *keyed[K]) lock(key K) (unlock func()) {
	for {
		unlock, held := k.try(key)
		if held == nil {
			return unlock
		}
		<-held
	}
}

// try locks the key if nobody holds it; if somebody does, held tells when to try
// again.
func (k *keyed[K]) try(key K) (unlock func(), held <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if held, ok := k.held[key]; ok {
		return nil, held
	}
	if k.held == nil {
		k.held = map[K]chan struct{}{}
	}
	free := make(chan struct{})
	k.held[key] = free
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.held, key)
		close(free)
	}, nil
}

// slot is what a group has one unfinished file for: its saves, or its imports.
type slot struct {
	group    uint64
	imported bool
}

// change begins a change of names that is made without d.mu, which the caller
// holds. Close waits for done: afterwards the directory may be another's.
func (d *Dir) change() (done func(), err error) {
	if err := d.running(); err != nil {
		return nil, err
	}
	d.changes++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.changes--; d.changes == 0 && d.quiet != nil {
			close(d.quiet)
		}
	}, nil
}

// settle waits for the changes that are under way; the Dir is closed, so no new
// ones begin.
func (d *Dir) settle() {
	d.mu.Lock()
	if d.changes == 0 {
		d.mu.Unlock()
		return
	}
	d.quiet = make(chan struct{})
	d.mu.Unlock()
	<-d.quiet
}

// leave lets do take the file of a snapshot away, by removing or renaming it,
// unless somebody has it open. Who wants to open it meanwhile waits.
func (d *Dir) leave(id string, do func() error) error {
	d.mu.Lock()
	_, hidden := d.hidden[id]
	switch {
	case d.open[id] > 0:
		d.mu.Unlock()
		return errOpen
	case hidden:
		d.mu.Unlock()
		return errHidden
	}
	done, err := d.change()
	if err != nil {
		d.mu.Unlock()
		return err
	}
	left := make(chan struct{})
	d.leaving[id] = left
	d.mu.Unlock()
	defer done()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.leaving, id)
		close(left)
	}()
	return do()
}

// pin keeps a snapshot from being deleted until unpin.
func (d *Dir) pin(id string) error {
	for {
		left, err := d.tryPin(id)
		if left == nil {
			return err
		}
		<-left
	}
}

func (d *Dir) tryPin(id string) (left <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if left, ok := d.leaving[id]; ok {
		return left, nil
	}
	if err := d.running(); err != nil {
		return nil, err
	}
	d.open[id]++
	return nil, nil
}

func (d *Dir) unpin(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[id]--; d.open[id] == 0 {
		delete(d.open, id)
	}
}
