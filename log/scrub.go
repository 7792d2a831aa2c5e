package log

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
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

// Scrub verifies every byte of the next closed segment, in turn: the records,
// their entries, and the summary. It returns how much it
// has read, so that the caller can keep to a rate, and what is damaged. Zero
// bytes mean that it has been once around. It may run beside everything but
// Maintain, which waits.
//
// Damage that hits no live entry is reported without one. Of one segment at most
// 64 entries are reported: where there are more, it is lost as a whole.
func (w *WAL) Scrub() (read int64, damage []Damage, err error) {
	w.maintaining.Lock()
	defer w.maintaining.Unlock()
	w.state.RLock()
	var s *segment
	shut := w.shut
	for _, c := range w.segments {
		if c.ordinal >= w.scrub.next && c.summary != nil {
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

// verifySegment compares a closed segment with its own checks and its summary.
func (w *WAL) verifySegment(s *segment) ([]Damage, error) {
	f, got, err := s.refold(w.seed)
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
		sum := &summary{identity: w.identity, ordinal: s.ordinal, first: s.first, records: s.summary.records, size: s.summary.size, fold: f}
		if b, err := os.ReadFile(s.summaryPath()); err != nil || !bytes.Equal(b, sum.encode()) {
			return []Damage{{Err: &messages.CorruptError{Path: s.summaryPath(), Offset: 0, Reason: "it differs from its segment, and is rebuilt", Err: err}}},
				sum.write(s.summaryPath())
		}
		return nil, nil
	}
	return w.damagedEntries(s, broken)
}

// damagedEntries finds out which live entries the damage in a segment hits.
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
	if err != nil {
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
		if err := w.read(s, data, int64(e.offset)); err != nil {
			err = f.unreadable(err)
			var c *messages.CorruptError
			if !errors.As(err, &c) {
				return damage, err
			}
			damage = append(damage, Damage{e.group, e.index, c})
		} else if crc32.Checksum(data, castagnoli) != e.crc {
			damage = append(damage, Damage{e.group, e.index, f.damage("bad checksum", nil)})
		}
	}
	if len(damage) == 0 {
		damage = []Damage{{Err: broken}}
	}
	return damage, nil
}
