package snapshot_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// Close while imports learn what they are and saves are taken up; the race
// detector watches.
func TestCloseWhileBeginning(t *testing.T) {
	from := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Now: newClock().Now})
	var streams [][]byte
	for g := range uint64(4) {
		streams = append(streams, exported(t, from, save(t, from, g, 1, 1, nil, records(g, 700)).ID, 0))
	}
	for i := range 200 {
		d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512, Disk: unsynced{}})
		var wg sync.WaitGroup
		start := make(chan struct{})
		for g, stream := range streams {
			m, _, err := d.Import("")
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				<-start
				if _, err := m.Write(stream); err != nil && !errors.Is(err, messages.ErrStopped) {
					t.Errorf("import: %v", err)
				}
			})
			wg.Go(func() {
				<-start
				w, _, err := d.Resume(uint64(g), 2, 1, nil)
				if err == nil {
					_, err = w.Write(records(1, 700))
				}
				if err != nil && !errors.Is(err, messages.ErrStopped) {
					t.Errorf("resume: %v", err)
				}
			})
		}
		close(start)
		for range i {
			runtime.Gosched()
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}
