package main

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// scratch are the directories of a run that nothing should be left of, also if
// the user does not wait for it to end.
type scratch struct {
	mu   sync.Mutex
	dirs []string
	// removeAll is os.RemoveAll but in tests.
	removeAll func(string) error
	// made, if not nil, is called when there is one.
	made func()
}

// temporary are those of this process.
var temporary = &scratch{removeAll: os.RemoveAll}

// make makes a directory as os.MkdirTemp does.
func (s *scratch) make(parent, pattern string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := os.MkdirTemp(parent, pattern)
	if err == nil {
		s.dirs = append(s.dirs, dir)
		if s.made != nil {
			s.made()
		}
	}
	return dir, err
}

// remove removes one of them.
func (s *scratch) remove(dir string) error {
	err := s.removeAll(dir)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dirs = slices.DeleteFunc(s.dirs, func(d string) bool { return d == dir })
	}
	return err
}

// abandon tries for as long as patience to remove all of them, beside whoever is
// still writing there, and returns those that are left.
func (s *scratch) abandon(patience time.Duration) []string {
	s.mu.Lock() // no new ones from now on
	over := make(chan struct{})
	var all sync.WaitGroup
	for _, dir := range s.dirs {
		all.Go(func() {
			for s.removeAll(dir) != nil { // a file was made in it meanwhile
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	gone := make(chan struct{})
	go func() {
		all.Wait()
		close(gone)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
		close(over)
	}
	var left []string
	for _, dir := range s.dirs {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			left = append(left, dir)
		}
	}
	return left
}
