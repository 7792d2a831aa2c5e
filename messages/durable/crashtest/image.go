package crashtest

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Image is what a power cut could leave. It does not change when the Recorder
// goes on.
type Image struct {
	// What says where it comes from and what has survived.
	What  string
	files map[string]content // a path that ends in a slash is a directory
}

var seed = maphash.MakeSeed()

// Hash is the same for images with the same names and bytes, within a process.
func (m *Image) Hash() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, path := range slices.Sorted(maps.Keys(m.files)) {
		c := m.files[path]
		fmt.Fprintf(&h, "%s\x00%d\x00%d\x00", path, c.size, len(c.data))
		h.Write(c.data)
	}
	return h.Sum64()
}

// Write makes the directory and what it holds. It must not be there yet.
func (m *Image) Write(dir string) error {
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

// image builds one. name decides about a name that was changed and not synced,
// which of so many choices is there: 0 is what was synced, the last what is there
// now. file decides about what was written to a file and not synced.
func (r *Recorder) image(what string, name func(path string, choices int) int, file func(*node) content) *Image {
	m := &Image{what, map[string]content{}}
	var walk func(prefix string, n *node)
	walk = func(prefix string, n *node) {
		for _, k := range n.allNames() {
			path := prefix + k
			choices := n.choices(k)
			x := choices[0]
			if len(choices) > 1 {
				x = choices[name(path, len(choices))]
			}
			switch {
			case x == nil:
			case x.dir:
				m.files[path+"/"] = content{}
				walk(path+"/", x)
			case x.pending():
				m.files[path] = file(x)
			default:
				m.files[path] = x.now
			}
		}
	}
	walk("", r.tree)
	return m
}

func survives(_ string, choices int) int { return choices - 1 }
func isLost(string, int) int             { return 0 }
func written(n *node) content            { return n.now }
func unwritten(n *node) content          { return n.synced }

// name leaves one name at a choice, and treats the others alike.
func name(path string, choice int, others func(string, int) int) func(string, int) int {
	return func(p string, choices int) int {
		if p == path {
			return choice
		}
		return others(p, choices)
	}
}

// only treats one file in its own way, and the others alike.
func only(n *node, c content, others func(*node) content) func(*node) content {
	return func(x *node) content {
		if x == n {
			return c
		}
		return others(x)
	}
}

func (n *node) pending() bool { return !n.synced.equal(n.now) }

func (n *node) torn(at int) content {
	return n.mix(n.synced, n.now.size, func(i int) bool { return i < at })
}

// upTo is the beginning of what a file holds.
func (c content) upTo(size int) content {
	return content{bytes.TrimRight(c.data[:min(size, len(c.data))], "\x00"), size}
}

// mixed keeps a random half of the blocks, and some length.
func (n *node) mixed(rng *rand.Rand, block int) content {
	size := n.now.size
	was := n.synced
	if n.anew && rng.IntN(2) == 0 {
		was = content{}
	}
	if was.size != size {
		switch rng.IntN(4) {
		case 0:
			size = was.size
		case 1:
			lo, hi := min(size, was.size), max(size, was.size)
			size = lo + rng.IntN(hi-lo+1)
		}
	}
	kept := make([]bool, max(len(n.now.data), len(n.synced.data))/block+1)
	for i := range kept {
		kept[i] = rng.IntN(2) == 0
	}
	return n.mix(was, size, func(i int) bool { return kept[i/block] })
}

// mix takes each byte from what was written or from what was there before.
func (n *node) mix(was content, size int, isNew func(i int) bool) content {
	b := make([]byte, min(size, max(len(n.now.data), len(was.data))))
	for i := range b {
		if isNew(i) {
			b[i] = n.now.at(i)
		} else {
			b[i] = was.at(i)
		}
	}
	return content{bytes.TrimRight(b, "\x00"), size}
}

// without is what the latest write has left, but for what an earlier one has
// written: k of between.
func (n *node) without(k int) content {
	before, after := n.synced, n.between[k]
	if k > 0 {
		before = n.between[k-1]
	}
	return n.mix(before, n.now.size, func(i int) bool { return before.at(i) == after.at(i) || after.at(i) != n.now.at(i) })
}

// pending lists the files that were written to and not synced, and the names
// that were changed and not synced, with the number of their choices.
func (r *Recorder) pending() (files, names []string, nodes []*node, choices []int) {
	var walk func(prefix string, n *node)
	walk = func(prefix string, n *node) {
		for _, k := range n.allNames() {
			if c := len(n.choices(k)); c > 1 {
				names, choices = append(names, prefix+k), append(choices, c)
			}
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
	return files, names, nodes, choices
}

// Images calls use with what a power cut at this moment may leave. density, 1
// or more, scales how many. The same image may come more than once (see
// Pool.Go).
func (r *Recorder) Images(what string, rng *rand.Rand, density int, use func(*Image)) {
	use(r.image(what+": nothing survives", isLost, unwritten))
	use(r.image(what+": everything survives", survives, written))
	files, names, nodes, choices := r.pending()
	// Contents without names, names without contents.
	if len(files) > 0 && len(names) > 0 {
		use(r.image(what+": contents survive", isLost, written))
		use(r.image(what+": names survive", survives, unwritten))
	}
	// Each file that has just been written by itself, and that write torn.
	for i, path := range files {
		n := nodes[i]
		for k, c := range n.between { // it was written back early
			use(r.image(fmt.Sprintf("%s: %s as it was %d writes ago", what, path, len(n.between)-k), survives, only(n, c, written)))
			use(r.image(fmt.Sprintf("%s: %s without what was written %d writes ago", what, path, len(n.between)-k), survives, only(n, n.without(k), written)))
		}
		if !n.latest {
			continue
		}
		use(r.image(what+": only "+path+" survives", survives, only(n, n.now, unwritten)))
		use(r.image(what+": all but "+path+" survives", survives, only(n, n.synced, written)))
		// At a byte. The phase is random, so that over the runs every byte has
		// its turn.
		stride := (n.to-n.from)/(6*density) + 1
		for at := n.from + rng.IntN(stride); at < n.to; at += stride {
			use(r.image(fmt.Sprintf("%s: %s torn at %d", what, path, at), survives, only(n, n.torn(at), written)))
			if (at >= n.synced.size || n.anew) && at < n.now.size { // it had not grown further either
				use(r.image(fmt.Sprintf("%s: %s cut short at %d", what, path, at), survives, only(n, n.torn(at).upTo(at), written)))
			}
		}
		for at := n.from/512*512 + 512; at < n.to; at += 512 {
			use(r.image(fmt.Sprintf("%s: %s torn at sector %d", what, path, at/512), survives, only(n, n.torn(at), unwritten)))
		}
	}
	// Every subset of the names, or some.
	if len(names) > 0 && len(names) <= 4 {
		for set := 1; set < 1<<len(names)-1; set++ {
			pick := func(p string, choices int) int {
				i := slices.Index(names, p)
				if i >= 0 && set>>i&1 != 0 {
					return choices - 1
				}
				return 0 // also in a directory that was removed, if that is lost
			}
			use(r.image(fmt.Sprintf("%s: of the names %v subset %b", what, names, set), pick, written))
		}
	}
	// What a name has stood for on the way, if only that far was written.
	for i, path := range names {
		for k := 1; k < choices[i]-1; k++ {
			what := fmt.Sprintf("%s: %s as it was %d changes ago", what, path, choices[i]-1-k)
			use(r.image(what, name(path, k, survives), written))
			use(r.image(what+", other names lost", name(path, k, isLost), written))
		}
	}
	// Random parts of everything.
	if len(files)+len(names) > 0 {
		for i := range 2 * density {
			block := []int{8, 512, 32, 128}[i%4]
			use(r.image(fmt.Sprintf("%s: random subset %d of blocks of %d", what, i, block),
				func(_ string, choices int) int { return rng.IntN(choices) },
				func(n *node) content { return n.mixed(rng, block) }))
		}
	}
}
