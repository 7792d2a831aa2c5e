package actors

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is added and removed, at finds what a look at every range finds.
func TestIntervals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct {
			r keyRange
			v int
		}
		var x intervals[int]
		var all []entry
		key := rapid.StringOfN(rapid.SampledFrom([]rune("abc\x00")), 0, 3, -1)
		for v := range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(all) > 0 && rapid.IntRange(0, 2).Draw(t, "step") == 0 {
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				x.remove(all[i].r, all[i].v)
				all = slices.Delete(all, i, i+1)
			} else {
				r := keyRange{key.Draw(t, "from"), bound{key.Draw(t, "to"), rapid.IntRange(0, 4).Draw(t, "endless") == 0}}
				if rapid.IntRange(0, 4).Draw(t, "single") == 0 {
					r = single(r.from)
				}
				if r.to.endless {
					r.to.key = ""
				}
				if r.empty() {
					continue
				}
				x.add(r, v)
				all = append(all, entry{r, v})
			}
			k := key.Draw(t, "key")
			var got, want []int
			x.at(k, func(v int) { got = append(got, v) })
			for _, e := range all {
				if e.r.contains(k) {
					want = append(want, e.v)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%q is in %v, want %v", k, got, want)
			}
		}
		for _, e := range all {
			x.remove(e.r, e.v)
		}
		if x.root != nil || len(x.keys) != 0 {
			t.Fatal("something is left")
		}
	})
}

// One of 10,000 ranges is found without looking at the others, in whatever order
// they have come.
func TestIntervalsLookAtFew(t *testing.T) {
	for name, order := range map[string]func(i int) int{
		"ascending":  func(i int) int { return i },
		"descending": func(i int) int { return 9999 - i },
		"scattered":  func(i int) int { return i * 7919 % 10000 },
	} {
		var x intervals[int]
		for i := range 10000 {
			n := order(i)
			x.add(keyRange{fmt.Sprintf("%05d", n), bound{key: fmt.Sprintf("%05d5", n)}}, n)
		}
		x.add(keyRange{"", bound{endless: true}}, -1)
		for i := range 10000 {
			key := fmt.Sprintf("%05d1", i)
			var got []int
			looked := x.at(key, func(v int) { got = append(got, v) })
			if !slices.Equal(got, []int{-1, i}) {
				t.Fatalf("%s: %q is in %v", name, key, got)
			}
			if looked > 100 { // the tree is 30 or so deep
				t.Fatalf("%s: %d ranges were looked at for %q", name, looked, key)
			}
		}
	}
}
