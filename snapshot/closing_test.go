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

// A clock that stands still, or was set back, gives a save the millisecond of
// an unfinished one. They must not share an id: Close would end only one of
// them, and the other would go on in a directory that is no longer locked.
func TestUnfinishedKeepsItsID(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512, Now: newClock().Now})
	w, _, err := d.Resume(0, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(w.Write(records(1, 1100)))
	if err := w.Suspend(); err != nil {
		t.Fatal(err)
	}
	plain := check(d.Create(0, 1, 1, nil))
	check(plain.Write(records(1, 1100)))
	if _, offset, err := d.Resume(0, 1, 1, nil); err != nil || offset != 1024 {
		t.Fatal(offset, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Finish(); !errors.Is(err, messages.ErrStopped) {
		t.Errorf("after Close: %v, and there are %v", err, files(t, path))
	}
}
