package log

import (
	"fmt"

	"github.com/ballast-raft/ballast/messages"
)

// TruncateFrom implements Store. On disk it is one small record, whatever the
// number of entries.
func (w *WAL) TruncateFrom(group, index uint64) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	c := w.cursor(group)
	err = w.usable()
	switch {
	case err != nil:
	case index == 0:
		err = messages.ErrInvalid
	case index < c.first:
		err = fmt.Errorf("the log begins at %d: %w", c.first, messages.ErrCompacted)
	case index > c.last:
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("log: truncate from %d in group %d: %w", index, group, err)
	}
	ch := change{kind: kindTruncateFrom, group: group, index: index}
	w.encode(&ch, nil)
	c.truncateFrom(index)
	w.open.shrinks = true
	w.newest = w.stage(&ch)
	return w.newest, nil
}

// TruncateBefore implements Store. On disk it is one small record; when it
// is durable, Maintain removes the segments that hold nothing live.
func (w *WAL) TruncateBefore(group, index uint64) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	c := w.cursor(group)
	err = w.usable()
	switch {
	case err != nil:
	case index <= c.first:
		return 0, nil
	case index > c.last+1:
		err = fmt.Errorf("the log ends at %d: %w", c.last, messages.ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("log: truncate before %d in group %d: %w", index, group, err)
	}
	ch := change{kind: kindTruncateBefore, group: group, index: index, term: c.term(index - 1)}
	w.encode(&ch, nil)
	c.truncateBefore(index, ch.term)
	w.open.shrinks = true
	w.newest = w.stage(&ch)
	return w.newest, nil
}

// Reset implements Store.
func (w *WAL) Reset(group, index, term uint64) (position uint64, err error) {
	w.staging.Lock()
	defer w.staging.Unlock()
	err = w.usable()
	if err == nil && index >= maxIndex {
		err = fmt.Errorf("index over %d: %w", uint64(maxIndex), messages.ErrInvalid)
	}
	if err != nil {
		return 0, fmt.Errorf("log: reset group %d to %d: %w", group, index, err)
	}
	c := w.cursor(group)
	ch := change{kind: kindReset, group: group, index: index, term: term}
	w.encode(&ch, nil)
	c.reset(index, term)
	w.open.shrinks = true
	w.staged[group] = c
	w.newest = w.stage(&ch)
	return w.newest, nil
}
