package log_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// content is what a file holds: data, then zeros up to size. Segments are
// filled with zeros ahead, so this keeps an image small.
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

// diskNode is a file or a directory as a crash sees it: what is certain to be on
// the disk, and what is there now.
type diskNode struct {
	dir bool

	synced, now content
	// from and to are what the latest write has changed; latest is set if no
	// other operation came after it.
	from, to int
	latest   bool

	syncedNames, names map[string]*diskNode
}

func newDir() *diskNode {
	return &diskNode{dir: true, syncedNames: map[string]*diskNode{}, names: map[string]*diskNode{}}
}

// changedNames lists the names that may or may not have made it to the disk.
func (n *diskNode) changedNames() []string {
	var changed []string
	for name, x := range n.names {
		if n.syncedNames[name] != x {
			changed = append(changed, name)
		}
	}
	for name := range n.syncedNames {
		if n.names[name] == nil {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	return changed
}

// recorder is a Disk that follows every operation on a directory. The steps
// that make something durable, and those that change a name, come through it;
// what was written, created and cut in between it finds by looking. Files are
// told apart by their paths, which is enough because every rename and every
// removal comes through it.
//
// It calls event after every operation: what was seen of writes before a step,
// and the step itself.
type recorder struct {
	durable.Disk
	root  string
	tree  *diskNode
	event func(what string)
	// inside, if set, is called within each step, before it is carried out.
	inside func(what, path string)
	err    error
}

// newRecorder begins with the directory as it is, all of it durable.
func newRecorder(root string) *recorder {
	r := &recorder{Disk: durable.OS, root: root, tree: newDir(), event: func(string) {}}
	r.look()
	var settle func(*diskNode)
	settle = func(n *diskNode) {
		n.synced, n.syncedNames = n.now, maps.Clone(n.names)
		n.from, n.to = 0, 0
		for _, x := range n.names {
			settle(x)
		}
	}
	settle(r.tree)
	return r
}

// look takes in what was done without the Disk, and reports whether anything was.
func (r *recorder) look() bool {
	changed := false
	var walk func(dir string, n *diskNode)
	walk = func(dir string, n *diskNode) {
		n.latest = false
		list, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.err = errors.Join(r.err, err)
		}
		for _, e := range list {
			path := filepath.Join(dir, e.Name())
			x := n.names[e.Name()]
			if x == nil {
				if x = (&diskNode{}); e.IsDir() {
					x = newDir()
				}
				n.names[e.Name()] = x
				changed = true
			}
			if e.IsDir() {
				walk(path, x)
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				r.err = errors.Join(r.err, err)
				continue
			}
			c := newContent(b)
			if x.latest = c.size != x.now.size || !bytes.Equal(c.data, x.now.data); !x.latest {
				continue
			}
			x.from, x.to = 0, max(len(c.data), len(x.now.data))
			for x.from < x.to && c.at(x.from) == x.now.at(x.from) {
				x.from++
			}
			for x.to > x.from && c.at(x.to-1) == x.now.at(x.to-1) {
				x.to--
			}
			x.now = c
			changed = true
		}
		for name := range n.names {
			if !slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == name }) {
				r.err = errors.Join(r.err, fmt.Errorf("%s was removed behind the Disk", filepath.Join(dir, name)))
			}
		}
	}
	walk(r.root, r.tree)
	return changed
}

// seen is an operation that no step tells of.
func (r *recorder) seen(what string) {
	if r.look() {
		r.event(what)
	}
}

// find returns the directory that a path is in, and its last name.
func (r *recorder) find(path string) (*diskNode, string) {
	rel, err := filepath.Rel(r.root, path)
	if err != nil || rel == "." || strings.HasPrefix(rel, "..") {
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

func (r *recorder) step(what, path string, do func() error, then func(dir *diskNode, name string)) error {
	rel, err := filepath.Rel(r.root, path)
	if err != nil {
		return err
	}
	what += " " + rel
	r.seen("write before " + what)
	if r.inside != nil {
		r.inside(what, path)
		r.seen("write in " + what)
	}
	if err := do(); err != nil {
		return err
	}
	if dir, name := r.find(path); dir != nil {
		then(dir, name)
	} else if rel == "." {
		r.tree.syncedNames = maps.Clone(r.tree.names)
	}
	r.event(what)
	return nil
}

func (r *recorder) Sync(f *os.File) error {
	return r.step("sync", f.Name(), func() error { return nil }, func(dir *diskNode, name string) {
		x := dir.names[name]
		x.synced, x.from, x.to = x.now, 0, 0
	})
}

func (r *recorder) SyncDir(path string) error {
	return r.step("sync names in", path, func() error { return nil }, func(dir *diskNode, name string) {
		x := dir.names[name]
		x.syncedNames = maps.Clone(x.names)
	})
}

func (r *recorder) Rename(from, to string) error {
	return r.step("rename", from, func() error { return r.Disk.Rename(from, to) }, func(dir *diskNode, name string) {
		target, n := r.find(to)
		target.names[n] = dir.names[name]
		delete(dir.names, name)
	})
}

func (r *recorder) Remove(path string) error {
	return r.step("remove", path, func() error { return r.Disk.Remove(path) }, func(dir *diskNode, name string) {
		delete(dir.names, name)
	})
}

// image is what a crash has left.
type image struct {
	what  string
	files map[string]content // a path that ends in a slash is a directory
}

func (m *image) hash(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, path := range slices.Sorted(maps.Keys(m.files)) {
		c := m.files[path]
		fmt.Fprintf(&h, "%s\x00%d\x00%d\x00", path, c.size, len(c.data))
		h.Write(c.data)
	}
	return h.Sum64()
}

func (m *image) write(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(m.files)) { // a directory before what is in it
		to := filepath.Join(dir, path)
		if strings.HasSuffix(path, "/") {
			if err := os.Mkdir(to, 0o755); err != nil {
				return err
			}
			continue
		}
		c := m.files[path]
		if err := os.WriteFile(to, c.data, 0o644); err != nil {
			return err
		}
		if c.size > len(c.data) {
			if err := os.Truncate(to, int64(c.size)); err != nil {
				return err
			}
		}
	}
	return nil
}

// image builds one. name decides about a name that may be lost, and file about
// what was written to a file and not synced.
func (r *recorder) image(what string, name func(path string) (survives bool), file func(path string, n *diskNode) content) *image {
	m := &image{what, map[string]content{}}
	var walk func(prefix string, n *diskNode)
	walk = func(prefix string, n *diskNode) {
		for _, k := range slices.Sorted(maps.Keys(union(n.names, n.syncedNames))) {
			path := prefix + k
			x := n.names[k]
			if old := n.syncedNames[k]; old != x && !name(path) {
				x = old
			}
			switch {
			case x == nil:
			case x.dir:
				m.files[path+"/"] = content{}
				walk(path+"/", x)
			case x.synced.size == x.now.size && bytes.Equal(x.synced.data, x.now.data):
				m.files[path] = x.now
			default:
				m.files[path] = file(path, x)
			}
		}
	}
	walk("", r.tree)
	return m
}

func union(a, b map[string]*diskNode) map[string]*diskNode {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

func survives(string) bool                    { return true }
func isLost(string) bool                      { return false }
func written(_ string, n *diskNode) content   { return n.now }
func unwritten(_ string, n *diskNode) content { return n.synced }
func (n *diskNode) pending() bool {
	return n.synced.size != n.now.size || !bytes.Equal(n.synced.data, n.now.data)
}
func (n *diskNode) torn(at int) content { return n.mix(n.now.size, func(i int) bool { return i < at }) }
func (n *diskNode) mixed(r *rand.Rand, b int) content {
	size := n.now.size
	if n.synced.size != size {
		switch r.IntN(4) {
		case 0:
			size = n.synced.size
		case 1:
			lo, hi := min(size, n.synced.size), max(size, n.synced.size)
			size = lo + r.IntN(hi-lo+1)
		}
	}
	survives := make([]bool, max(len(n.now.data), len(n.synced.data))/b+1)
	for i := range survives {
		survives[i] = r.IntN(2) == 0
	}
	return n.mix(size, func(i int) bool { return survives[i/b] })
}

// mix takes each byte from what was written or from what was there before.
func (n *diskNode) mix(size int, isNew func(i int) bool) content {
	b := make([]byte, min(size, max(len(n.now.data), len(n.synced.data))))
	for i := range b {
		if isNew(i) {
			b[i] = n.now.at(i)
		} else {
			b[i] = n.synced.at(i)
		}
	}
	return content{bytes.TrimRight(b, "\x00"), size}
}

// pendingFiles lists the files that were written to and not synced, and the
// names that may be lost.
func (r *recorder) pending() (files, names []string, nodes []*diskNode) {
	var walk func(prefix string, n *diskNode)
	walk = func(prefix string, n *diskNode) {
		for _, k := range n.changedNames() {
			names = append(names, prefix+k)
		}
		for _, k := range slices.Sorted(maps.Keys(n.names)) {
			if x := n.names[k]; x.dir {
				walk(prefix+k+"/", x)
			} else if x.pending() {
				files, nodes = append(files, prefix+k), append(nodes, x)
			}
		}
	}
	walk("", r.tree)
	return files, names, nodes
}

// enumerate calls use with what a power cut at this moment may leave. density
// scales how many.
func (r *recorder) enumerate(what string, rng *rand.Rand, density int, use func(*image)) {
	use(r.image(what+": nothing survives", isLost, unwritten))
	use(r.image(what+": everything survives", survives, written))
	files, names, nodes := r.pending()
	// Contents without names, names without contents.
	if len(files) > 0 && len(names) > 0 {
		use(r.image(what+": contents survive", isLost, written))
		use(r.image(what+": names survive", survives, unwritten))
	}
	// Each file that has just been written by itself, and that write torn.
	for i, path := range files {
		n := nodes[i]
		if !n.latest {
			continue
		}
		only := func(c content, others func(string, *diskNode) content) func(string, *diskNode) content {
			return func(p string, x *diskNode) content {
				if x == n {
					return c
				}
				return others(p, x)
			}
		}
		use(r.image(what+": only "+path+" survives", survives, only(n.now, unwritten)))
		use(r.image(what+": all but "+path+" survives", survives, only(n.synced, written)))
		// At a byte. The phase is random, so that over the runs every byte has
		// its turn.
		stride := (n.to-n.from)/(6*density) + 1
		for at := n.from + rng.IntN(stride); at < n.to; at += stride {
			use(r.image(fmt.Sprintf("%s: %s torn at %d", what, path, at), survives, only(n.torn(at), written)))
		}
		for at := n.from/512*512 + 512; at < n.to; at += 512 {
			use(r.image(fmt.Sprintf("%s: %s torn at sector %d", what, path, at/512), survives, only(n.torn(at), unwritten)))
		}
	}
	// Every subset of the names, or some.
	if len(names) > 0 && len(names) <= 4 {
		for set := 1; set < 1<<len(names)-1; set++ {
			pick := func(p string) bool { return set>>sort.SearchStrings(names, p)&1 != 0 }
			slices.Sort(names)
			use(r.image(fmt.Sprintf("%s: of the names %v subset %b", what, names, set), pick, written))
		}
	}
	// Random parts of everything.
	if len(files)+len(names) > 0 {
		for i := range 2 * density {
			block := []int{8, 512, 32, 128}[i%4]
			use(r.image(fmt.Sprintf("%s: random subset %d of blocks of %d", what, i, block),
				func(string) bool { return rng.IntN(2) == 0 },
				func(p string, n *diskNode) content { return n.mixed(rng, block) }))
		}
	}
}

// fullState is everything that a log can tell, as text.
func fullState(w *raftlog.WAL) (string, error) {
	var b strings.Builder
	for _, id := range w.Groups() {
		bounds := w.Bounds(id)
		fmt.Fprintf(&b, "group %d: %+v\n", id, bounds)
		for _, name := range stableNames {
			v, err := w.Stable(id, name)
			if err == nil {
				fmt.Fprintf(&b, "  %s = %q\n", name, v)
			} else if !errors.Is(err, messages.ErrNotFound) {
				return "", err
			}
		}
		if bounds.Empty() {
			continue
		}
		entries, err := w.Entries(id, bounds.First, bounds.Last+1, 1<<30)
		if err != nil {
			return "", err
		}
		for i, e := range entries {
			one, err := w.Entry(id, bounds.First+uint64(i))
			if err != nil {
				return "", err
			}
			term, err := w.Term(id, one.Index)
			if err != nil {
				return "", err
			}
			if one.Index != e.Index || one.Term != e.Term || one.Type != e.Type || !bytes.Equal(one.Data, e.Data) || term != e.Term {
				return "", fmt.Errorf("entry %+v, in a range %+v, term %d", one, e, term)
			}
			fmt.Fprintf(&b, "  %d/%d %d %q\n", e.Index, e.Term, e.Type, e.Data)
		}
		if len(entries) != int(bounds.Last+1-bounds.First) {
			return "", fmt.Errorf("%d entries in %+v", len(entries), bounds)
		}
	}
	return b.String(), nil
}

// state is what fullState says of a log that the model describes.
func (m *model) state() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[id]
		fmt.Fprintf(&b, "group %d: %+v\n", id, messages.LogBounds{First: g.first(), Last: g.last(), PrevTerm: g.prevTerm, LastTerm: g.lastTerm(), HardState: g.hard})
		for _, name := range stableNames {
			if v, ok := g.stable[name]; ok {
				fmt.Fprintf(&b, "  %s = %q\n", name, v)
			}
		}
		for _, e := range g.entries {
			fmt.Fprintf(&b, "  %d/%d %d %q\n", e.Index, e.Term, e.Type, e.Data)
		}
	}
	return b.String()
}

// promise is what must be true of an image: at least what was acknowledged, at
// most what was staged, and whole changes in order.
type promise struct {
	acknowledged uint64
	positions    []uint64 // of the changes that were staged, ascending
	states       []string // states[k] is the log after k of them
}

// upTo is how many changes are durable with a position.
func (p *promise) upTo(position uint64) int {
	return sort.Search(len(p.positions), func(i int) bool { return p.positions[i] > position })
}

// holds compares a log with the promise, and returns its state.
func (p *promise) holds(w *raftlog.WAL) (state string, err error) {
	at := w.Durable()
	if at < p.acknowledged {
		return "", fmt.Errorf("durable up to %d, and %d was acknowledged", at, p.acknowledged)
	}
	k := p.upTo(at)
	if state, err = fullState(w); err != nil {
		return "", err
	}
	if want := p.states[k]; state != want {
		return "", fmt.Errorf("at position %d, after %d changes:\n%swant\n%s", at, k, state, want)
	}
	return state, nil
}

// crashed is an image and what it must hold.
type crashed struct {
	*image
	promise
	number int
	// twice: cut the power again while this one is being recovered.
	twice bool
}

// check opens an image, holds it against the promise, opens it again, goes on
// writing and opens it once more.
func (c *crashed) check(dir string, o raftlog.Options, rng *rand.Rand, again func(*crashed) error) (repaired bool, err error) {
	if err := c.write(dir); err != nil {
		return false, err
	}
	if c.number%8 == 0 {
		r, err := raftlog.Inspect(dir)
		if len(r.Damage) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) { // not made yet
			return false, fmt.Errorf("inspect: %v, %w", r.Damage, err)
		}
	}
	o.OnRepair = func(messages.TailRepaired) { repaired = true }
	o.VerifyAll = c.number%3 == 0
	var rec *recorder
	if c.twice {
		rec = newRecorder(dir)
		later := *c
		rec.event = func(what string) {
			rec.enumerate(c.what+"; then "+what, rng, 1, func(m *image) {
				n := later
				n.image, n.twice, n.number = m, false, n.number+1
				later.number = n.number
				if e := again(&n); e != nil {
					err = errors.Join(err, e)
				}
			})
		}
		o.Disk = rec
		w, e := raftlog.Open(dir, o)
		if e != nil {
			return repaired, errors.Join(err, e)
		}
		// From here on what recovery has found is promised.
		// What it has not found never was, and its positions go to others.
		later.acknowledged = max(later.acknowledged, w.Durable())
		k := c.upTo(w.Durable())
		later.positions, later.states = later.positions[:k], later.states[:k+1]
		rec.seen("open returned")
		if e := maintain(w); e != nil {
			err = errors.Join(err, fmt.Errorf("maintain: %w", e))
		}
		rec.seen("maintained")
		err = errors.Join(err, w.Close())
		rec.seen("closed")
		if err = errors.Join(err, rec.err); err != nil {
			return repaired, err
		}
		o.Disk, c.promise = nil, later.promise
	}
	w, err := raftlog.Open(dir, o)
	if err != nil {
		return repaired, err
	}
	at := w.Durable()
	state, err := c.holds(w)
	if err != nil {
		return repaired, errors.Join(err, w.Close())
	}
	if c.number%4 == 1 {
		return repaired, w.Close()
	}
	if c.number%4 == 3 { // what was found is found again
		if err := w.Close(); err != nil {
			return repaired, err
		}
		o.VerifyAll = false
		if w, err = raftlog.Open(dir, o); err != nil {
			return repaired, fmt.Errorf("second open: %w", err)
		}
		if got, err := fullState(w); err != nil || got != state || w.Durable() != at {
			return repaired, errors.Join(fmt.Errorf("second open: at %d, %w\n%swant\n%s", w.Durable(), err, got, state), w.Close())
		}
	}
	if c.number%2 == 1 {
		return repaired, w.Close()
	}
	for round := range 2 { // it goes on
		for _, id := range []uint64{0, 1} {
			b := w.Bounds(id)
			es := []messages.Entry{{Term: b.LastTerm + 1, Data: fmt.Appendf(nil, "after the crash, round %d", round)}, {Term: b.LastTerm + 1, Type: 3}}
			if _, err := w.Append(id, es, nil); err != nil {
				return repaired, errors.Join(err, w.Close())
			}
		}
		if _, err := w.Sync(); err != nil {
			return repaired, errors.Join(err, w.Close())
		}
		if err := maintain(w); err != nil {
			return repaired, errors.Join(fmt.Errorf("maintain: %w", err), w.Close())
		}
	}
	if state, err = fullState(w); err != nil {
		return repaired, errors.Join(err, w.Close())
	}
	at = w.Durable()
	if err := w.Close(); err != nil {
		return repaired, err
	}
	if w, err = raftlog.Open(dir, o); err != nil {
		return repaired, fmt.Errorf("open after going on: %w", err)
	}
	if got, e := fullState(w); e != nil || got != state || w.Durable() != at {
		err = fmt.Errorf("after going on: at %d, %w\n%swant\n%s", w.Durable(), e, got, state)
	}
	return repaired, errors.Join(err, w.Close())
}

// crashRun drives a log through everything that it does, while a recorder
// follows.
type crashRun struct {
	t       *testing.T
	rng     *rand.Rand
	dir     string
	rec     *recorder
	options raftlog.Options
	w       *raftlog.WAL
	m       *model
	promise
}

// change carries a change out on the log and on the model.
func (c *crashRun) change(what string, position uint64, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	if position != 0 {
		c.positions = append(c.positions, position)
		c.states = append(c.states, c.m.state())
	}
}

func (c *crashRun) append(id uint64, hs bool, sizes ...int) {
	c.t.Helper()
	g := c.m.get(id)
	es := make([]messages.Entry, len(sizes))
	for i, n := range sizes {
		data := make([]byte, n)
		for k := range data {
			data[k] = byte(c.rng.Uint32()>>8) | 1 // never mistaken for what is not there
		}
		es[i] = messages.Entry{Index: g.last() + 1 + uint64(i), Term: g.lastTerm() + uint64(c.rng.IntN(2)), Data: data}
		if i > 0 {
			es[i].Term = es[0].Term
		}
		if c.rng.IntN(4) == 0 {
			es[i].Type = uint8(c.rng.IntN(3))
		}
	}
	var h *messages.HardState
	if hs {
		h = &messages.HardState{Term: g.hard.Term + uint64(c.rng.IntN(2)), Vote: uint64(c.rng.IntN(3)), Commit: g.last()}
	}
	if err := c.m.append(id, es, h); err != nil {
		c.t.Fatal(err)
	}
	position, err := c.w.Append(id, es, h)
	c.change("append", position, err)
}

func (c *crashRun) truncateFrom(id, index uint64) {
	c.t.Helper()
	if changed, err := c.m.truncateFrom(id, index); err != nil || !changed {
		return
	}
	position, err := c.w.TruncateFrom(id, index)
	c.change("truncateFrom", position, err)
}

func (c *crashRun) truncateBefore(id, index uint64) {
	c.t.Helper()
	if changed, err := c.m.truncateBefore(id, index); err != nil || !changed {
		return
	}
	position, err := c.w.TruncateBefore(id, index)
	c.change("truncateBefore", position, err)
}

func (c *crashRun) reset(id, index, term uint64) {
	c.t.Helper()
	c.m.reset(id, index, term)
	position, err := c.w.Reset(id, index, term)
	c.change("reset", position, err)
}

func (c *crashRun) set(id uint64, name string, value []byte) {
	c.t.Helper()
	c.m.set(id, name, value)
	position, err := c.w.SetStable(id, name, value)
	c.change("set", position, err)
}

func (c *crashRun) sync() {
	c.t.Helper()
	if _, err := c.w.Sync(); err != nil {
		c.t.Fatal(err)
	}
	c.acknowledged = c.w.Durable()
	c.rec.seen("sync returned")
}

// stage stages a few random changes. Group 0 is busy and compacted, group 1
// lags behind with a few entries, group 2 is cut back, reset and written anew.
func (c *crashRun) stage() {
	for range 1 + c.rng.IntN(3) {
		switch k := c.rng.IntN(16); {
		case k < 7:
			sizes := make([]int, 1+c.rng.IntN(3))
			for i := range sizes {
				sizes[i] = c.rng.IntN(60)
			}
			c.append(0, k == 0, sizes...)
		case k < 10:
			g := c.m.get(0)
			c.truncateBefore(0, g.last()+1-uint64(c.rng.IntN(2)))
		case k == 10:
			c.append(1, c.rng.IntN(2) == 0, c.rng.IntN(30))
			if g := c.m.get(1); len(g.entries) > 6 {
				c.truncateBefore(1, g.first()+2)
			}
		case k == 11:
			g := c.m.get(2)
			if c.append(2, false, 20, 0, 30); len(g.entries) > 4 {
				c.truncateFrom(2, g.last()-3)
				c.append(2, false, 10)
			}
		case k == 12:
			g := c.m.get(2)
			switch c.rng.IntN(3) {
			case 0:
				c.reset(2, g.last()+2, g.lastTerm()+1)
			case 1:
				c.reset(2, 1, g.lastTerm()) // backwards
			default:
				c.truncateBefore(2, g.last()+1)
			}
		case k == 13:
			c.append(0, true, 300+c.rng.IntN(500)) // more than a segment
		default:
			id := uint64(c.rng.IntN(3))
			var value []byte
			if c.rng.IntN(3) > 0 {
				value = make([]byte, c.rng.IntN(20))
			}
			c.set(id, stableNames[c.rng.IntN(2)], value)
		}
	}
}

// maintain maintains the log; while it is about it, more is staged, and synced
// in the midst of it.
func (c *crashRun) maintain() {
	c.t.Helper()
	busy := false
	c.rec.inside = func(_, path string) {
		if busy || c.rng.IntN(4) != 0 {
			return
		}
		busy = true
		defer func() { busy = false }()
		c.stage()
		// A Sync that overflows the tail waits for whoever prepares the next
		// segment, which may be this very call.
		if filepath.Base(path) == "MARK" || strings.HasPrefix(filepath.Base(path), "MANIFEST") || filepath.Base(path) == "SUMMARY" {
			c.sync()
		}
	}
	defer func() { c.rec.inside = nil }()
	for c.w.Due() {
		sync, err := c.w.Maintain()
		if err != nil {
			c.t.Fatal(err)
		}
		c.rec.seen("maintain returned")
		// What has been moved may be cut away before it is durable.
		if sync {
			if c.rng.IntN(2) == 0 {
				g := c.m.get(1 + uint64(c.rng.IntN(2)))
				if len(g.entries) > 1 {
					if c.rng.IntN(2) == 0 {
						c.truncateFrom(1, c.m.get(1).last())
					} else {
						c.truncateBefore(2, c.m.get(2).first()+1)
					}
				}
			}
			c.sync()
		}
	}
}

func (c *crashRun) reopen() {
	c.t.Helper()
	c.sync() // what was staged beside the maintenance
	if err := c.w.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.rec.seen("closed")
	c.options.VerifyAll = c.rng.IntN(3) == 0
	c.open()
}

func (c *crashRun) open() {
	c.t.Helper()
	o := c.options
	o.Disk = c.rec
	w, err := raftlog.Open(c.dir, o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.w = w
	c.rec.seen("opened")
}

// TestEveryCrash records runs with everything that a log does, and rebuilds
// what a power cut could leave after each operation on the file system: what
// was not synced is lost, or torn, or there in any subset of its blocks and of
// its names. Each of these images must open and hold what was acknowledged, and
// go on from there; some are cut off once more while they are recovered.
func TestEveryCrash(t *testing.T) {
	root := memory(t)
	var images, twice, torn, events atomic.Int64
	work := make(chan *crashed, 64)
	failures := make(chan error, 64)
	var failed atomic.Bool
	var wg sync.WaitGroup
	seed := maphash.MakeSeed()
	var mu sync.Mutex
	known := map[uint64]bool{}
	// fresh reports whether an image with this promise has not been seen yet.
	fresh := func(c *crashed) bool {
		h := c.hash(seed) ^ c.acknowledged*0x9E3779B97F4A7C15
		mu.Lock()
		defer mu.Unlock()
		if known[h] {
			return false
		}
		known[h] = true
		return true
	}
	for worker := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			n := 0
			rng := rand.New(rand.NewPCG(uint64(worker), 7))
			var do func(c *crashed) error
			do = func(c *crashed) error {
				if failed.Load() || !fresh(c) {
					return nil
				}
				images.Add(1)
				n++
				dir := filepath.Join(root, fmt.Sprintf("image-%d-%d", worker, n))
				o := raftlog.Options{SegmentBytes: 200, NoLock: true, MaxOpenFiles: 4}
				if c.twice {
					twice.Add(1)
				}
				repaired, err := c.check(dir, o, rng, do)
				if repaired {
					torn.Add(1)
				}
				if err != nil {
					return fmt.Errorf("image %d, %s, acknowledged %d: %w", c.number, c.what, c.acknowledged, err)
				}
				return os.RemoveAll(dir)
			}
			for c := range work {
				if err := do(c); err != nil && !failed.Swap(true) {
					failures <- err
				}
			}
		})
	}
	seen := map[string]int{}
	for run := *crashFirst; run < *crashFirst+*crashRuns; run++ {
		c := &crashRun{t: t, rng: rand.New(rand.NewPCG(run, 1)), dir: filepath.Join(root, fmt.Sprint("run-", run)),
			m: &model{groups: map[uint64]*modelGroup{}}, promise: promise{states: []string{""}},
			options: raftlog.Options{SegmentBytes: 120 + 60*int(run%4), NoLock: true, MaxOpenFiles: 4}}
		if err := os.Mkdir(c.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c.rec = newRecorder(c.dir)
		rng := rand.New(rand.NewPCG(run, 2))
		number := 0
		c.rec.event = func(what string) {
			seen[strings.Fields(what)[0]]++
			n := events.Add(1)
			c.rec.enumerate(fmt.Sprintf("run %d, event %d, %s", run, n, what), rng, 1, func(m *image) {
				number++
				work <- &crashed{image: m, promise: c.promise, number: number, twice: number%401 == 0}
			})
		}
		c.open()
		for round := range *crashRounds {
			c.stage()
			if c.rng.IntN(3) == 0 {
				c.maintain() // with changes staged and not synced
				c.stage()
			}
			c.sync()
			if c.rng.IntN(2) == 0 {
				c.maintain()
			}
			if round%9 == 8 {
				c.reopen()
			}
			if failed.Load() {
				break
			}
		}
		c.sync()
		if err := c.w.Close(); err != nil {
			t.Error(err)
		}
		r, err := raftlog.Inspect(c.dir)
		if err != nil || len(r.Damage) > 0 {
			t.Fatal(err, r.Damage)
		}
		for _, s := range r.Segments {
			for kind, n := range s.Kinds {
				seen[kind] += n
			}
		}
		if err := c.rec.err; err != nil {
			t.Error(err)
		}
	}
	close(work)
	wg.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	t.Logf("%d images after %d operations, %d cut off again, %d torn writes repaired; %v", images.Load(), events.Load(), twice.Load(), torn.Load(), seen)
	for _, what := range []string{"sync", "rename", "remove", "relocated", "checkpoint"} {
		if seen[what] == 0 {
			t.Errorf("no %s in any run", what)
		}
	}
	if torn.Load() == 0 {
		t.Error("nothing was torn")
	}
}

// For a longer search: go test ./log -run TestEveryCrash -crash.runs 50 -crash.rounds 60
var (
	crashFirst  = flag.Uint64("crash.first", 0, "seed of the first run that TestEveryCrash records")
	crashRuns   = flag.Uint64("crash.runs", 2, "how many runs TestEveryCrash records")
	crashRounds = flag.Int("crash.rounds", 14, "how many syncs each of them has")
)
