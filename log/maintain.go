package log

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// leftSegment is a segment that is complete, and has no summary yet.
type leftSegment struct {
	*writer
	records uint64
}

// Due implements Store.
func (w *WAL) Due() bool { return w.due.Load() }

// Maintain implements Store.
func (w *WAL) Maintain() (sync bool, err error) {
	w.maintaining.Lock()
	defer w.maintaining.Unlock()
	w.due.Store(false)
	w.postponed = nil
	w.staging.Lock()
	err = w.usable()
	w.staging.Unlock()
	if err == nil {
		sync, err = w.maintain()
	}
	if err != nil {
		if !errors.Is(err, messages.ErrStopped) && !errors.Is(err, ErrPoisoned) {
			w.fail(err)
		}
		return false, fmt.Errorf("log: maintain: %w", err)
	}
	if err := errors.Join(w.postponed...); err != nil {
		return sync, fmt.Errorf("log: maintain, to be tried again: %w", err)
	}
	return sync, nil
}

// later has a step tried again at the next Maintain, if there was no descriptor
// or no memory for it and nothing that is in use has changed. Otherwise it
// returns the error. The caller holds maintaining.
func (w *WAL) later(err error) error {
	if !durable.Transient(err) {
		return err
	}
	w.postponed = append(w.postponed, err)
	return nil
}

// maintain does what is not on the way of an append, the most urgent first.
// The caller holds maintaining.
func (w *WAL) maintain() (sync bool, err error) {
	if err := w.prepareNext(); err != nil {
		return false, err
	}
	if err := w.raise(); err != nil {
		return false, err
	}
	if err := w.retire(); err != nil {
		return false, err
	}
	if err := w.remove(); err != nil {
		return false, err
	}
	w.mend()
	if !w.recycles() {
		if err := w.dropSpares(); err != nil {
			return false, err
		}
	}
	staged, err := w.relocate()
	if err := w.later(err); err != nil {
		return false, err
	}
	return w.wantCheckpoint() || staged, nil
}

// retireAtOnce is how many segments are left before they are closed and
// summarised: the first sync of several costs a commit of the journal, the
// others little. After a crash at most so many must be read whole.
const retireAtOnce = 4

// retire closes the segments that were left: the zeros are cut off, and a
// summary is written.
func (w *WAL) retire() error {
	w.handover.Lock()
	left := slices.Clone(w.left)
	w.handover.Unlock()
	if len(left) < retireAtOnce && !slices.ContainsFunc(left, func(l *leftSegment) bool { return l.engine == nil || l.removed.Load() }) {
		return nil
	}
	for _, l := range left {
		removed := l.removed.Load()
		if l.engine != nil {
			err := l.writer.close(!removed)
			if l.engine = nil; err != nil {
				return fmt.Errorf("close segment: %w", err)
			}
		}
		if !removed {
			s := l.summarise(w.identity, l.records)
			if err := s.write(l.summaryPath()); err != nil {
				// It is only a copy: it is tried again, and until there is one the
				// next open reads the records.
				w.handover.Lock()
				w.stale = append(w.stale, l.segment)
				w.handover.Unlock()
			}
			w.state.Lock()
			s.fold = nil
			l.segment.summary = s
			l.segment.fold = nil
			w.state.Unlock()
		}
		w.handover.Lock()
		w.left[0] = nil
		w.left = w.left[1:]
		w.handover.Unlock()
	}
	// The mark on disk now says that all of them were acknowledged.
	return w.mark.Sync()
}

// mend writes the summaries again that a read has found damaged, or that could
// not be written.
func (w *WAL) mend() {
	w.handover.Lock()
	stale := w.stale
	w.stale = nil
	w.handover.Unlock()
	for _, s := range stale {
		if s.removed.Load() {
			continue
		}
		f, got, err := s.refold(w.seed, s.summary.records, s.summary.size)
		if durable.Transient(err) {
			w.handover.Lock()
			w.stale = append(w.stale, s)
			w.handover.Unlock()
			continue
		}
		if err != nil || got.reason != "" {
			continue // for who reads it, and for Scrub, to tell
		}
		sum := &summary{identity: w.identity, ordinal: s.ordinal, first: s.first, records: s.summary.records, size: s.summary.size, fold: f}
		if err := sum.write(s.summaryPath()); err != nil { // at the next Maintain
			w.handover.Lock()
			w.stale = append(w.stale, s)
			w.handover.Unlock()
		}
	}
}

// wantCheckpoint reports whether there are segments at the front without a
// live entry that are worth a checkpoint: at least four times its size, so that
// many groups, each compacted on its own, do not write more than they free.
func (w *WAL) wantCheckpoint() bool {
	if w.raiseLater { // there is one, and it could not be made use of
		return false
	}
	w.state.RLock()
	defer w.state.RUnlock()
	oldest := min(w.index.oldest(), w.segments[len(w.segments)-1].ordinal)
	var freed int64
	for _, s := range w.segments[:oldest-w.base] {
		freed += s.size
	}
	if freed <= 4*w.checkpointBytes {
		return false
	}
	w.wanted.Store(true)
	return true
}

// raise raises the floor over the segments that a checkpoint has made
// superfluous.
func (w *WAL) raise() error {
	w.state.RLock()
	at := w.checkpointAt
	oldest := min(w.index.oldest(), w.segments[len(w.segments)-1].ordinal)
	for oldest > w.base && w.segments[oldest-w.base].first > at {
		oldest--
	}
	base, first := w.base, w.segments[oldest-w.base].first
	w.state.RUnlock()
	if at <= w.manifest.checkpoint || oldest == base {
		return nil
	}
	// If the floor were on disk and the mark were not, a power cut would leave
	// a mark that knows nothing of the records above the floor.
	if err := w.mark.Sync(); err != nil {
		return err
	}
	m := w.manifest
	m.floor, m.ordinal, m.checkpoint = first, oldest, at
	err := m.write(w.disk, w.dir)
	if w.raiseLater = errors.Is(err, messages.ErrDiskFull); w.raiseLater {
		return nil // the floor stays where it was, until the next Maintain
	}
	if w.raiseLater = durable.Transient(err); w.raiseLater {
		return w.later(err)
	}
	if err != nil {
		return err
	}
	w.state.Lock()
	n := int(oldest - w.base)
	w.manifest = m
	w.doomed = append(w.doomed, w.segments[:n]...)
	w.segments = append([]*segment(nil), w.segments[n:]...)
	w.base = oldest
	w.state.Unlock()
	return nil
}

// remove removes the segments below the floor.
func (w *WAL) remove() error {
	if len(w.doomed) == 0 {
		return nil
	}
	for _, s := range w.doomed {
		s.removed.Store(true)
		if err := w.readers.forget(s); err != nil {
			return fmt.Errorf("remove segment: %w", err)
		}
		if err := w.keep(s); err != nil {
			return w.later(fmt.Errorf("keep segment: %w", durable.Wrap(err)))
		}
		if err := removeSegment(w.disk, s.dir); err != nil {
			return w.later(fmt.Errorf("remove segment: %w", durable.Wrap(err)))
		}
	}
	if err := w.disk.SyncDir(w.walDir()); err != nil {
		return w.later(fmt.Errorf("remove segment: %w", durable.Wrap(err)))
	}
	w.doomed = nil
	return w.retire() // closes what was removed before it was closed
}

// takeReady returns the segment that was prepared, which is the tail from now
// on, or nil.
func (w *WAL) takeReady() *writer {
	w.handover.Lock()
	defer w.handover.Unlock()
	t := w.ready
	if w.ready = nil; t != nil {
		w.tailOrdinal, w.tailUsed = t.ordinal, false
	}
	return t
}

// discard removes a segment that was prepared and not used.
func (w *WAL) discard(t *writer) error {
	return errors.Join(t.close(false), removeSegment(w.disk, t.dir))
}
