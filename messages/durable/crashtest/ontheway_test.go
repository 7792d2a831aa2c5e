package crashtest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
)

// A power cut may leave any step of what was done to a name since it was synced.
func TestNamesOnTheWay(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	write := func(name, contents string) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(contents), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "first")
	rec, _ := record(t, root)
	left := func() map[string]bool {
		t.Helper()
		all := map[string]bool{}
		pool := crashtest.NewPool(t.TempDir())
		rec.Images("now", rand.New(rand.NewPCG(7, 8)), 1, func(m *crashtest.Image) {
			if err := pool.Do(m, 0, func(dir string) error {
				list, err := os.ReadDir(dir)
				var names []string
				for _, e := range list {
					b, failed := os.ReadFile(filepath.Join(dir, e.Name()))
					err = errors.Join(err, failed)
					names = append(names, e.Name()+"="+string(b))
				}
				all[strings.Join(names, " ")] = true
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
		if err := pool.Wait(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	synced := func(name string) {
		t.Helper()
		f, err := os.Open(at(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(rec.Sync(f), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, contents := range []string{"second", "third"} {
		write("b", contents)
		synced("b")
		if err := rec.Rename(at("b"), at("a")); err != nil {
			t.Fatal(err)
		}
	}
	now := left()
	// b was there, and stood for each of the two.
	for _, want := range []string{"a=first", "a=second", "a=third", "a=first b=second", "a=third b=third", "a=third b=second", "a=second b=third"} {
		if !now[want] {
			t.Errorf("never %q: %q", want, slices.Sorted(maps.Keys(now)))
		}
	}
	for got := range now {
		if !strings.Contains(got, "a=") {
			t.Errorf("a was always there, and is not in %q", got)
		}
	}
	if err := errors.Join(rec.SyncDir(root), rec.Remove(at("a"))); err != nil {
		t.Fatal(err)
	}
	write("a", "fourth")
	synced("a")
	if now := left(); len(now) != 3 || !now["a=third"] || !now[""] || !now["a=fourth"] {
		t.Errorf("%q", slices.Sorted(maps.Keys(now)))
	}
	if err := errors.Join(rec.SyncDir(root), rec.Err()); err != nil {
		t.Fatal(err)
	}
	if now := left(); len(now) != 1 || !now["a=fourth"] {
		t.Errorf("synced, and %q", slices.Sorted(maps.Keys(now)))
	}
}

// Two stores that are right in every state before and after each step, and wrong
// in one that they have passed through.
func TestStoresOnTheWay(t *testing.T) {
	type step struct {
		do   func(d durable.Disk, dir string) error
		must string // be read afterwards, or anything if empty
	}
	// A switch that is on while its file is there. Off need not last, so its
	// name is not synced; and it is not synced again for on, as it was before.
	on := func(sync bool) step {
		return step{func(d durable.Disk, dir string) error {
			f, err := os.Create(filepath.Join(dir, "on.new"))
			if err != nil {
				return err
			}
			if err := errors.Join(d.Sync(f), f.Close(), d.Rename(f.Name(), filepath.Join(dir, "on"))); err != nil || !sync {
				return err
			}
			return d.SyncDir(dir)
		}, "on"}
	}
	off := step{func(d durable.Disk, dir string) error { return d.Remove(filepath.Join(dir, "on")) }, ""}
	// A digit that is written anew each time.
	digit := func(n string) step {
		return step{func(d durable.Disk, dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "digit"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
			if err != nil {
				return err
			}
			_, err = f.WriteString(n)
			return errors.Join(err, d.Sync(f), f.Close(), d.SyncDir(dir))
		}, "a digit"}
	}
	switched := func(dir string) (string, error) {
		if _, err := os.Stat(filepath.Join(dir, "on")); errors.Is(err, fs.ErrNotExist) {
			return "off", nil
		}
		return "on", nil
	}
	dialled := func(dir string) (string, error) {
		b, err := os.ReadFile(filepath.Join(dir, "digit"))
		if len(b) != 1 {
			return fmt.Sprintf("%d bytes", len(b)), nil
		}
		return "a digit", err
	}
	for _, c := range []struct {
		name      string
		steps     []step
		read      func(dir string) (string, error)
		rewritten bool
		found     string
	}{
		{"a switch", []step{on(true), off, on(true)}, switched, false, ""},
		{"a switch whose name is not synced again", []step{on(true), off, on(false)}, switched, false, "off, not on"},
		{"a digit, in place", []step{digit("1"), digit("2")}, dialled, false, ""},
		{"a digit, emptied", []step{digit("1"), digit("2")}, dialled, true, "0 bytes, not a digit"},
	} {
		root := t.TempDir()
		rec, _ := record(t, root)
		rec.Rewritten = func(string) bool { return c.rewritten }
		pool := crashtest.NewPool(t.TempDir())
		rng := rand.New(rand.NewPCG(1, 2))
		promised := ""
		rec.Event = func(what string) {
			must := promised
			rec.Images(what, rng, 2, func(m *crashtest.Image) {
				pool.Go(m, uint64(len(must)), func(dir string) error {
					got, err := c.read(dir)
					if err == nil && must != "" && got != must {
						err = fmt.Errorf("%s, not %s", got, must)
					}
					return err
				})
			})
		}
		for _, s := range c.steps {
			if s.must == "" {
				promised = ""
			}
			if err := s.do(rec, root); err != nil {
				t.Fatal(err)
			}
			promised = s.must
			rec.Event("acknowledged")
		}
		rec.Look("end")
		err := errors.Join(pool.Wait(), rec.Err())
		if (err == nil) != (c.found == "") || err != nil && !strings.Contains(err.Error(), c.found) {
			t.Errorf("%s: %d images, found %v, want %q", c.name, pool.Checked(), err, c.found)
		}
	}
}
