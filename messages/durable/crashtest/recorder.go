package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ballast-raft/ballast/messages/durable"
)

// content is what a file holds: data, then zeros up to size. Stores fill files
// with zeros ahead, so this keeps an image small.
type content struct {
	data []byte // never changed once it is here
	size int
}

func newContent(b []byte) content { return content{bytes.TrimRight(b, "\x00"), len(b)} }

func (c content) at(i int) byte {
	if i < len(c.data) {
		return c.data[i]
	}
	return 0
}

func (c content) equal(d content) bool { return c.size == d.size && bytes.Equal(c.data, d.data) }

// node is a file or a directory as a crash sees it: what is certain to be on
// the disk, and what is there now.
type node struct {
	dir bool

	synced, now content
	// between are what it held after the latest sync and before now, oldest
	// first: what was written back early, and then changed again. The latest few.
	between []content
	// from and to are what the latest write has changed; latest is set if no
	// other operation came after it.
	from, to int
	latest   bool
	// anew: since the latest sync it may have been emptied and written again.
	anew bool

	syncedNames, names map[string]*node
	// betweenNames are what a name has stood for after the latest sync of the
	// directory and before now, oldest first, nil for nothing: each step of the
	// way may be what has made it to the disk. The latest few.
	betweenNames map[string][]*node
}

func newDir() *node {
	return &node{dir: true, syncedNames: map[string]*node{}, names: map[string]*node{}, betweenNames: map[string][]*node{}}
}

// setName makes a name stand for x, or for nothing.
func (n *node) setName(name string, x *node) {
	if was := n.names[name]; was != n.syncedNames[name] || len(n.betweenNames[name]) > 0 {
		between := append(slices.Clone(n.betweenNames[name]), was)
		n.betweenNames[name] = between[max(0, len(between)-4):]
	}
	if x == nil {
		delete(n.names, name)
		return
	}
	n.names[name] = x
}

func (n *node) syncNames() {
	n.syncedNames, n.betweenNames = maps.Clone(n.names), map[string][]*node{}
}

// choices are what a power cut may leave of a name: what was synced first, what
// is there now last.
func (n *node) choices(name string) []*node {
	synced, now := n.syncedNames[name], n.names[name]
	between := n.betweenNames[name]
	if synced == now && len(between) == 0 {
		return []*node{now}
	}
	return slices.Concat([]*node{synced}, between, []*node{now})
}

// allNames lists those that a power cut may leave.
func (n *node) allNames() []string {
	all := map[string]bool{}
	for name := range n.names {
		all[name] = true
	}
	for name := range n.syncedNames {
		all[name] = true
	}
	for name := range n.betweenNames {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// Recorder is a Disk that follows every operation on a directory. Files are
// told apart by their paths, which is enough because every rename and every
// removal comes through it. Calls must not overlap.
type Recorder struct {
	// Event, if set, is called after every operation with what it was: what was
	// seen of writes before a step, the step itself, and what Look has found.
	// The first word is one of sync, rename, remove and write, or of Look's.
	Event func(what string)
	// Inside, if set, is called within each step, before it is carried out,
	// with the step's path. It may use the store, as somebody could who runs
	// beside it.
	Inside func(what, path string)
	// Rewritten, if set, reports of a file whether the store opens it with
	// O_TRUNC and writes it anew. That cannot be seen from outside. Nil: those
	// that end in durable.TempSuffix are taken to be such.
	Rewritten func(path string) bool

	root string
	tree *node
	err  error
}

var _ durable.Disk = (*Recorder)(nil)

// Record begins with a directory as it is, all of it durable.
func Record(root string) (*Recorder, error) {
	r := &Recorder{root: filepath.Clean(root), tree: newDir()}
	if _, err := os.Stat(root); err != nil {
		return nil, err
	}
	r.look()
	var settle func(*node)
	settle = func(n *node) {
		n.synced, n.between, n.anew = n.now, nil, false
		n.syncNames()
		n.from, n.to = 0, 0
		for _, x := range n.names {
			settle(x)
		}
	}
	settle(r.tree)
	return r, r.err
}

// Err is what has kept the Recorder from following: a file that could not be
// read, or one that was removed or synced behind its back.
func (r *Recorder) Err() error { return r.err }

func (r *Recorder) lost(err error) { r.err = errors.Join(r.err, err) }

// Look finds what was done without the Disk since the last operation, and calls
// Event if there was anything. Call it when the store has acknowledged
// something, and when it was closed.
func (r *Recorder) Look(what string) {
	if r.look() && r.Event != nil {
		r.Event(what)
	}
}

func (r *Recorder) look() bool {
	changed := false
	var walk func(dir string, n *node)
	walk = func(dir string, n *node) {
		list, err := os.ReadDir(dir)
		if err != nil {
			r.lost(err)
			return
		}
		present := make(map[string]bool, len(list))
		for _, e := range list {
			present[e.Name()] = true
			path := filepath.Join(dir, e.Name())
			x := n.names[e.Name()]
			if x == nil {
				if x = (&node{}); e.IsDir() {
					x = newDir()
				}
				n.setName(e.Name(), x)
				changed = true
			}
			if e.IsDir() {
				walk(path, x)
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				r.lost(err)
				continue
			}
			anew := strings.HasSuffix(path, durable.TempSuffix)
			if r.Rewritten != nil {
				anew = r.Rewritten(path)
			}
			changed = x.write(newContent(b), anew) || changed
		}
		for name := range n.names {
			if !present[name] {
				r.lost(fmt.Errorf("crashtest: %s was removed behind the Disk", filepath.Join(dir, name)))
				n.setName(name, nil)
			}
		}
	}
	walk(r.root, r.tree)
	return changed
}

// write notes what a file holds now, and reports whether that is new. anew: it
// may have been emptied first.
func (n *node) write(c content, anew bool) bool {
	if n.latest = !c.equal(n.now); !n.latest {
		return false
	}
	n.from, n.to = 0, max(len(c.data), len(n.now.data))
	for n.from < n.to && c.at(n.from) == n.now.at(n.from) {
		n.from++
	}
	for n.to > n.from && c.at(n.to-1) == n.now.at(n.to-1) {
		n.to--
	}
	if n.pending() {
		n.between = append(n.between, n.now)
	}
	if anew && n.now.size > 0 {
		n.anew = true
		n.between = append(n.between, content{})
	}
	n.between = n.between[max(0, len(n.between)-4):]
	n.now = c
	return true
}

// find returns the directory that a path is in, and its last name: nil if it is
// not below the root.
func (r *Recorder) find(path string) (*node, string) {
	rel, err := filepath.Rel(r.root, path)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil, ""
	}
	n := r.tree
	parts := strings.Split(rel, "/")
	for _, name := range parts[:len(parts)-1] {
		if n = n.names[name]; n == nil {
			return nil, ""
		}
	}
	return n, parts[len(parts)-1]
}

// known is the file or directory of a path, or nil.
func (r *Recorder) known(path string) *node {
	if filepath.Clean(path) == r.root {
		return r.tree
	}
	if dir, name := r.find(path); dir != nil {
		return dir.names[name]
	}
	return nil
}

func (r *Recorder) step(what, path string, do func() error) error {
	rel, err := filepath.Rel(r.root, path)
	if err != nil {
		return err
	}
	what += " " + rel
	r.Look("write before " + what)
	if r.Inside != nil {
		r.Inside(what, path)
		r.Look("write in " + what)
	}
	if err := do(); err != nil {
		return err
	}
	if r.Event != nil {
		r.Event(what)
	}
	return nil
}

// Sync implements durable.Disk.
func (r *Recorder) Sync(f *os.File) error {
	return r.step("sync", f.Name(), func() error {
		x := r.known(f.Name())
		if x == nil || x.dir {
			r.lost(fmt.Errorf("crashtest: sync of %s, which has no such name", f.Name()))
			return nil
		}
		x.synced, x.between, x.anew, x.from, x.to = x.now, nil, false, 0, 0
		return nil
	})
}

// SyncDir implements durable.Disk. Directories above the root are not followed.
func (r *Recorder) SyncDir(path string) error {
	return r.step("sync names in", path, func() error {
		if info, err := os.Stat(path); err != nil {
			return err
		} else if x := r.known(path); x != nil && info.IsDir() {
			x.syncNames()
		}
		return nil
	})
}

// Rename implements durable.Disk.
func (r *Recorder) Rename(from, to string) error {
	return r.step("rename", from, func() error {
		if err := durable.OS.Rename(from, to); err != nil {
			return err
		}
		source, a := r.find(from)
		target, b := r.find(to)
		if source == nil || target == nil {
			r.lost(fmt.Errorf("crashtest: rename of %s to %s crosses the border of %s", from, to, r.root))
			return nil
		}
		target.setName(b, source.names[a])
		source.setName(a, nil)
		return nil
	})
}

// Remove implements durable.Disk.
func (r *Recorder) Remove(path string) error {
	return r.step("remove", path, func() error {
		if err := durable.OS.Remove(path); err != nil {
			return err
		}
		if dir, name := r.find(path); dir != nil {
			dir.setName(name, nil)
		}
		return nil
	})
}
