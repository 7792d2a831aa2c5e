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

// A block that is wrong proves damage, wherever it lies among others that cannot
// be read, and in whatever order they are met.
func TestUnreadableBesideDamage(t *testing.T) {
	bad := &damage{3, "a block fails its checksum", nil}
	gone := &damage{3, "the disk cannot read it", &fs.PathError{Op: "read", Path: "p", Err: syscall.EIO}}
	for _, c := range []struct {
		name   string
		blocks map[int64]*damage
		order  []int64
		about  int64
	}{
		{"unreadable alone", map[int64]*damage{1: gone, 2: gone}, []int64{2, 1}, 1},
		{"wrong alone", map[int64]*damage{1: bad, 2: bad}, []int64{2, 1}, 1},
		{"unreadable before", map[int64]*damage{1: gone, 2: bad}, []int64{1, 2}, 2},
		{"unreadable before, met later", map[int64]*damage{1: gone, 2: bad}, []int64{2, 1}, 2},
		{"unreadable behind", map[int64]*damage{1: bad, 2: gone}, []int64{1, 2}, 1},
		{"unreadable on both sides", map[int64]*damage{0: gone, 1: bad, 2: bad, 3: gone}, []int64{3, 2, 1, 0}, 1},
	} {
		x := &file{path: "p", info: messages.SnapshotInfo{Index: 7}, header: header{blockBytes: 512}}
		for n := range int64(4) {
			x.index.piece = appendEntry(x.index.piece, 100*n, 512, 80, new([32]byte))
		}
		report := &DamageError{}
		for _, n := range c.order {
			report.add(x, n, c.blocks[n])
		}
		err := fmt.Errorf("snapshot: verify: %w", errors.Join(x.failure(report), nil))
		wrong := c.blocks[c.about] == bad
		if (proven(err) != nil) != wrong || unreadable(err) == wrong || (mayGo(err, 1) == nil) != wrong || report.number != c.about {
			t.Errorf("%s: proven %v, unreadable %v, about block %d", c.name, proven(err), unreadable(err), report.number)
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
