package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// What kept a file from being read is not damage, however it is wrapped. A
// sector that cannot be read cannot be had on request, so this is about errors.
func TestProven(t *testing.T) {
	x := &file{path: "p", info: messages.SnapshotInfo{Index: 7}}
	pathError := func(errno syscall.Errno) error { return &fs.PathError{Op: "read", Path: "p", Err: errno} }
	for _, c := range []struct {
		name       string
		err        error
		proven     bool
		unreadable bool
	}{
		{"a wrong checksum", x.failure(&damage{3, "the header fails its checksum", nil}), true, false},
		{"a frame that is none", x.failure(&damage{3, "cannot be decompressed", errors.New("bad frame")}), true, false},
		{"a bad sector in a block", x.failure(&damage{3, "the disk cannot read it", pathError(syscall.EIO)}), false, true},
		{"a bad sector elsewhere", x.failure(pathError(syscall.EIO)), false, true},
		{"no descriptor", x.failure(pathError(syscall.EMFILE)), false, false},
		{"no descriptor in the system", x.failure(pathError(syscall.ENFILE)), false, false},
		{"no permission", x.failure(pathError(syscall.EACCES)), false, false},
		{"no memory", x.failure(pathError(syscall.ENOMEM)), false, false},
		{"a stale handle", x.failure(pathError(syscall.ESTALE)), false, false},
		{"a newer version", x.failure(fmt.Errorf("format version 2: %w", messages.ErrIncompatible)), false, false},
		{"closed", messages.ErrStopped, false, false},
		{"gone", messages.ErrNotFound, false, false},
	} {
		err := fmt.Errorf("snapshot: verify: %w", errors.Join(c.err, nil))
		if got := proven(err) != nil; got != c.proven {
			t.Errorf("%s: proven %v", c.name, got)
		}
		if got := unreadable(err); got != c.unreadable {
			t.Errorf("%s: unreadable %v", c.name, got)
		}
		if got := mayGo(err, 1); (got == nil) != c.proven || c.unreadable && !errors.Is(got, messages.ErrConflict) {
			t.Errorf("%s: may go: %v", c.name, got)
		}
	}
}

// An unfinished file that cannot be opened now is kept. A directory stands for
// it: it has a length, and cannot be opened for writing.
func TestKeptIfItCannotBeOpened(t *testing.T) {
	path := t.TempDir()
	o := output{dir: &Dir{options: Options{Disk: durable.OS}}, path: path, keep: true}
	if _, _, err := o.reopen(&header{}, true); !errors.Is(err, syscall.EISDIR) {
		t.Fatal(err)
	}
	if kept, err := o.suspend(60); !kept || err != nil {
		t.Error(kept, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
