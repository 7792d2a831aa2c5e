package log

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// Damage is what Scrub has found.
type Damage struct {
	// Group and Index tell which entry is damaged, if it is one: what a replica
	// fetches again. Index is zero if the damage is in a record around the
	// entries, or in a file that is only a copy.
	Group, Index uint64
	Err          *messages.CorruptError
}

// scrubber is where the next Scrub goes on.
type scrubber struct{ next uint32 }

// Scrub verifies every byte of the next complete segment, in turn: the records,
// their entries, and the summary if there is one yet. It returns how much it has
// read, so that the caller can keep to a rate, and what is damaged. Zero bytes
// mean that it has been once around. It may run beside everything but Maintain,
// which waits.
//
// Damage that hits no live entry is reported without one. Of one segment at most
// 64 entries are reported: where there are more, it is lost as a whole.
func (w *WAL) Scrub() (read int64, damage []Damage, err error) {
	w.maintaining.Lock()
	defer w.maintaining.Unlock()
	w.state.RLock()
	var s *segment
	shut := w.shut
	for _, c := range w.segments[:len(w.segments)-1] { // the last is being written
		if c.ordinal >= w.scrub.next {
			s = c
			break
		}
	}
	w.state.RUnlock()
	if shut {
		return 0, nil, fmt.Errorf("log: scrub: %w", messages.ErrStopped)
	}
	if s == nil {
		w.scrub.next = 0
		return 0, nil, nil
	}
	w.scrub.next = s.ordinal + 1
	read = s.size
	if damage, err = w.verifySegment(s); err != nil {
		return read, damage, fmt.Errorf("log: scrub: %w", err)
	}
	return read, damage, nil
}

// maxDamage bounds what is reported of one segment: one of 15 MB may hold 1.6
// million entries.
const maxDamage = 64

// unsummarised makes the summary that a segment will get when it is closed.
func (w *WAL) unsummarised(s *segment) *summary {
	w.handover.Lock()
	defer w.handover.Unlock()
	for _, l := range w.left {
		if l.segment == s {
			return s.summarise(w.identity, l.records)
		}
	}
	return nil
}

// verifySegment compares a complete segment with its own checks, and with its
// summary, or with what is in memory if it has none yet.
func (w *WAL) verifySegment(s *segment) ([]Damage, error) {
	want, closed := s.summary, true
	if want == nil {
		want, closed = w.unsummarised(s), false
	}
	f, got, err := s.refold(w.seed, want.records, want.size)
	var broken *messages.CorruptError
	switch {
	case errors.As(err, &broken), errors.Is(err, os.ErrNotExist):
		if broken == nil {
			broken = &messages.CorruptError{Path: s.logPath(), Offset: -1, Reason: "the file is missing", Err: err}
		}
	case err != nil:
		return nil, err
	case got.reason != "":
		broken = &messages.CorruptError{Path: s.logPath(), Offset: int64(got.end), Reason: got.reason}
	default:
		sum := &summary{identity: w.identity, ordinal: s.ordinal, first: s.first, records: want.records, size: want.size, fold: f}
		encoded := sum.encode()
		if !closed {
			if !bytes.Equal(encoded, want.encode()) {
				return []Damage{{Err: &messages.CorruptError{Path: s.logPath(), Offset: 0, Reason: "its records are not those that were written"}}}, nil
			}
		} else if b, err := os.ReadFile(s.summaryPath()); err != nil || !bytes.Equal(b, encoded) {
			return []Damage{{Err: &messages.CorruptError{Path: s.summaryPath(), Offset: 0, Reason: "it differs from its segment, and is rebuilt", Err: err}}},
				sum.write(s.summaryPath())
		}
		if !f.damaged {
			return nil, nil
		}
	}
	return w.damagedEntries(s, broken)
}

// damagedEntries finds out which live entries the damage in a segment hits.
// broken is what is wrong with its records, or nil.
func (w *WAL) damagedEntries(s *segment, broken *messages.CorruptError) ([]Damage, error) {
	type where struct {
		group, index uint64
		locator
	}
	var all []where
	collect := func() error {
		all = nil
		w.state.RLock()
		defer w.state.RUnlock()
		for id, g := range w.index.groups {
			for i := range g.spans {
				if p := &g.spans[i]; p.segment == s {
					if p.entries.pages == nil {
						return errNotLoaded
					}
					for k := p.first; k < g.endOf(i); k++ {
						all = append(all, where{id, k, p.entries.locator(k)})
					}
				}
			}
		}
		return nil
	}
	err := collect()
	if err == errNotLoaded {
		if err = w.load(s); err == nil {
			err = collect()
		}
	}
	switch {
	case err == nil:
	case broken == nil:
		return nil, err
	default:
		broken.Err = errors.Join(broken.Err, err)
		return []Damage{{Err: broken}}, nil
	}
	slices.SortFunc(all, func(a, b where) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.index, b.index))
	})
	var damage []Damage
	for _, e := range all {
		if len(damage) == maxDamage {
			break
		}
		data := make([]byte, e.size)
		f := found{locator: e.locator, segment: s, index: e.index}
		err := w.read(s, data, int64(e.offset))
		if err == nil {
			err = f.verify(data)
		} else {
			err = f.unreadable(err)
		}
		var c *messages.CorruptError
		if errors.As(err, &c) {
			damage = append(damage, Damage{e.group, e.index, c})
		} else if err != nil {
			return damage, err
		}
	}
	if len(damage) == 0 && broken != nil {
		damage = []Damage{{Err: broken}}
	}
	return damage, nil
}
