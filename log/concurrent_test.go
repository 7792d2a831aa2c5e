package log_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

func numbered(group, index, term uint64) string {
	return fmt.Sprintf("%d/%d/%d/%s", group, index, term, strings.Repeat("q", int(index%200)))
}

// TestConcurrent stages, syncs, truncates at both ends, maintains, scrubs and
// reads, all at once:
// a read gives the entry that it names, with its term and its data, or says
// that it is gone.
func TestConcurrent(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 4 << 10, MaxOpenFiles: 2})
	var stop atomic.Bool
	var reads, misses atomic.Int64
	var writers, readers, syncer sync.WaitGroup
	for group := range uint64(2) {
		writers.Go(func() {
			next, term := uint64(1), uint64(1)
			for round := range uint64(600) {
				es := make([]messages.Entry, 1+round%4)
				for i := range es {
					index := next + uint64(i)
					es[i] = messages.Entry{Index: index, Term: term, Data: []byte(numbered(group, index, term))}
				}
				if _, err := w.Append(group, es, nil); err != nil {
					t.Error(err)
					return
				}
				next += uint64(len(es))
				if round%7 == 6 {
					next -= 3
					if _, err := w.TruncateFrom(group, next); err != nil {
						t.Error(err)
						return
					}
					term++
				}
				if round%20 == 19 {
					if _, err := w.TruncateBefore(group, next-10); err != nil {
						t.Error(err)
						return
					}
				}
				if round%16 == 15 {
					if _, err := w.Sync(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	syncer.Go(func() {
		for !stop.Load() {
			if _, err := w.Sync(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	syncer.Go(func() {
		for !stop.Load() {
			if _, err := w.Maintain(); err != nil {
				t.Error(err)
				return
			}
			if _, damage, err := w.Scrub(); err != nil || damage != nil {
				t.Error(damage, err)
				return
			}
		}
	})
	check := func(group, want uint64, e messages.Entry, err error) {
		reads.Add(1)
		switch {
		case errors.Is(err, messages.ErrCompacted), errors.Is(err, messages.ErrNotFound):
			misses.Add(1)
		case err != nil:
			t.Error(err)
			stop.Store(true)
		case e.Index != want || string(e.Data) != numbered(group, want, e.Term):
			t.Errorf("entry %d of group %d is %d/%d %q", want, group, e.Index, e.Term, e.Data)
			stop.Store(true)
		}
	}
	for group := range uint64(2) {
		readers.Go(func() {
			for n := uint64(0); !stop.Load(); n++ {
				b := w.Bounds(group)
				index := b.First + n%(b.Last-b.First+2)
				e, err := w.Entry(group, index)
				check(group, index, e, err)
				es, err := w.Entries(group, b.First, b.Last+1, 8<<10)
				for i, e := range es {
					check(group, b.First+uint64(i), e, err)
				}
				if err != nil && !errors.Is(err, messages.ErrCompacted) && !errors.Is(err, messages.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	syncer.Wait()
	readers.Wait()
	mustSync(t, w)
	want := mustDescribe(t, w)
	mustClose(t, w)
	w = mustOpen(t, dir, raftlog.Options{VerifyAll: true})
	if got := mustDescribe(t, w); got != want {
		t.Errorf("reopened as\n%swant\n%s", got, want)
	}
	mustClose(t, w)
	t.Logf("%d reads, %d of them too late or too early", reads.Load(), misses.Load())
}
