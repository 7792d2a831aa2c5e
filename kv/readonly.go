package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// errReadOnly is why a store that was opened by OpenReadOnly cannot be changed.
var errReadOnly = errors.New("it was opened for reading")

// OpenReadOnly opens the store in dir for Get, MultiGet, Scan, Query and what
// tells about it, and changes nothing: a torn write at the end stays where it is
// and is not read, and unfinished files stay. It needs no Options.Funcs. Changes, Sync and views fail with
// ErrUnavailable. If the directory has a lock file the store is locked.
//
// Errors: *messages.CorruptError, ErrLocked, ErrIncompatible, fs.ErrNotExist.
func OpenReadOnly(dir string) (*DB, error) {
	opt := Options{}.withDefaults()
	s := &DB{dir: filepath.Clean(dir), opt: opt, due: map[uint64]struct{}{}, changes: newChanges(opt), poison: errReadOnly, readOnly: true}
	if err := s.read(); err != nil {
		return nil, fmt.Errorf("kv: open %s for reading: %w", dir, errors.Join(err, s.release()))
	}
	return s, nil
}

func (s *DB) read() error {
	path, markPath := filepath.Join(s.dir, dataName), filepath.Join(s.dir, markName)
	if has, err := exists(filepath.Join(s.dir, "LOCK")); err != nil {
		return err
	} else if has {
		if s.lock, err = durable.LockDir(s.dir); err != nil {
			return err
		}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if has, err2 := exists(markPath); has && err2 == nil {
			return &messages.CorruptError{Path: path, Offset: -1, Reason: "the file is missing"}
		}
	}
	if err != nil {
		return err
	}
	s.gen = &generation{file: f}
	sv, _, err := s.survey(path, markPath)
	if err != nil {
		return err
	}
	return s.serve(path, sv)
}
