package crashtest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/messages/durable/crashtest"
)

// leaky is a disk that leaves one kind of step out.
type leaky struct {
	durable.Disk
	leaves string
}

func (d leaky) Sync(f *os.File) error {
	if d.leaves == "sync" {
		return nil
	}
	return d.Disk.Sync(f)
}

func (d leaky) SyncDir(dir string) error {
	if d.leaves == "sync names" {
		return nil
	}
	return d.Disk.SyncDir(dir)
}

// value is 40 bytes that tell whether they are whole.
func value(n uint64) []byte { return bytes.Repeat(binary.BigEndian.AppendUint64(nil, n), 5) }

func readValue(b []byte) (uint64, error) {
	if len(b) != 40 {
		return 0, fmt.Errorf("%d bytes", len(b))
	}
	n := binary.BigEndian.Uint64(b)
	if !bytes.Equal(b, value(n)) {
		return 0, fmt.Errorf("a mixture: %x", b)
	}
	return n, nil
}

// A protocol stores values, and reads the latest from what a crash has left: 0
// if there is none.
type protocol struct {
	store func(d durable.Disk, dir string, n uint64) error
	read  func(dir string) (uint64, error)
}

func optional(path string, read func([]byte) (uint64, error)) (uint64, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return read(b)
}

// replaced writes a new file and renames it.
var replaced = protocol{
	func(d durable.Disk, dir string, n uint64) error {
		return durable.WriteFile(d, filepath.Join(dir, "value"), value(n))
	},
	func(dir string) (uint64, error) { return optional(filepath.Join(dir, "value"), readValue) },
}

// overwritten writes in place.
var overwritten = protocol{
	func(d durable.Disk, dir string, n uint64) error {
		f, err := os.OpenFile(filepath.Join(dir, "value"), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(value(n))
		return errors.Join(err, d.Sync(f), f.Close(), d.SyncDir(dir))
	},
	func(dir string) (uint64, error) {
		return optional(filepath.Join(dir, "value"), func(b []byte) (uint64, error) {
			if len(b) < 40 {
				return 0, nil
			}
			return readValue(b)
		})
	},
}

// appended writes one record after the other, each with or without a checksum.
func appended(checked bool) protocol {
	const size = 44
	return protocol{
		func(d durable.Disk, dir string, n uint64) error {
			f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			if err != nil {
				return err
			}
			v := value(n)
			_, err = f.Write(binary.BigEndian.AppendUint32(v, crc32.ChecksumIEEE(v)))
			return errors.Join(err, d.Sync(f), f.Close(), d.SyncDir(dir))
		},
		func(dir string) (uint64, error) {
			return optional(filepath.Join(dir, "log"), func(b []byte) (last uint64, err error) {
				for ; len(b) >= size; b = b[size:] {
					if checked && crc32.ChecksumIEEE(b[:40]) != binary.BigEndian.Uint32(b[40:]) {
						break
					}
					if last, err = readValue(b[:40]); err != nil {
						return 0, err
					}
				}
				return last, nil
			})
		},
	}
}

// filed gives each value a directory of its own, and removes the one before.
var filed = protocol{
	func(d durable.Disk, dir string, n uint64) error {
		sub := filepath.Join(dir, fmt.Sprint(n))
		if err := durable.MkdirAll(d, sub); err != nil {
			return err
		}
		if err := durable.WriteFile(d, filepath.Join(sub, "value"), value(n)); err != nil || n == 1 {
			return err
		}
		before := filepath.Join(dir, fmt.Sprint(n-1))
		return errors.Join(d.Remove(filepath.Join(before, "value")), d.Remove(before))
	},
	func(dir string) (last uint64, err error) {
		list, err := os.ReadDir(dir)
		for _, e := range list {
			n, e := optional(filepath.Join(dir, e.Name(), "value"), readValue)
			if last = max(last, n); e != nil {
				err = errors.Join(err, e)
			}
		}
		return last, err
	},
}

// search stores five values and returns the first image that breaks the promise:
// no less than what was acknowledged, no more than what was begun.
func search(t *testing.T, p protocol, leaves string) (checked int, err error) {
	t.Helper()
	root := t.TempDir()
	rec, err := crashtest.Record(root)
	if err != nil {
		t.Fatal(err)
	}
	pool := crashtest.NewPool(t.TempDir())
	rng := rand.New(rand.NewPCG(1, 2))
	var acknowledged, begun uint64
	rec.Event = func(what string) {
		low, high := acknowledged, begun
		rec.Images(what, rng, 2, func(m *crashtest.Image) {
			pool.Go(m, low<<32+high, func(dir string) error {
				got, err := p.read(dir)
				if err == nil && (got < low || got > high) {
					err = fmt.Errorf("%d, and %d was acknowledged of %d", got, low, high)
				}
				return err
			})
		})
	}
	for n := uint64(1); n <= 5; n++ {
		begun = n
		if err := p.store(leaky{rec, leaves}, root, n); err != nil {
			t.Fatal(err)
		}
		acknowledged = n
		rec.Event("acknowledged")
	}
	rec.Look("end")
	if err := rec.Err(); err != nil {
		t.Fatal(err)
	}
	err = pool.Wait()
	if (err != nil) != pool.Failed() {
		t.Fatalf("failed %v, and %v", pool.Failed(), err)
	}
	return pool.Checked(), err
}

// A protocol that keeps its promise passes; one that leaves a step out, or
// trusts what may be torn, is found.
func TestProtocols(t *testing.T) {
	for _, c := range []struct {
		name   string
		p      protocol
		leaves string
		found  string
	}{
		{"replaced", replaced, "", ""},
		{"replaced, not synced", replaced, "sync", "bytes|a mixture"},
		{"replaced, its name not synced", replaced, "sync names", "was acknowledged"},
		{"appended", appended(true), "", ""},
		{"appended, not synced", appended(true), "sync", "was acknowledged"},
		{"appended, its name not synced", appended(true), "sync names", "was acknowledged"},
		{"appended without checksum", appended(false), "", "a mixture"},
		{"overwritten", overwritten, "", "a mixture"},
		{"in directories", filed, "", ""},
		{"in directories, names not synced", filed, "sync names", "was acknowledged"},
	} {
		checked, err := search(t, c.p, c.leaves)
		switch {
		case c.found == "" && (err != nil || checked < 20):
			t.Errorf("%s: after %d images: %v", c.name, checked, err)
		case c.found != "" && (err == nil || !regexp.MustCompile(c.found).MatchString(err.Error())):
			t.Errorf("%s: %d images, found %v, want %s", c.name, checked, err, c.found)
		}
	}
}

func record(t *testing.T, root string) (rec *crashtest.Recorder, events *[]string) {
	t.Helper()
	rec, err := crashtest.Record(root)
	if err != nil {
		t.Fatal(err)
	}
	events = &[]string{}
	rec.Event = func(what string) { *events = append(*events, what) }
	return rec, events
}

func TestEvents(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "value")
	rec, events := record(t, root)
	inside := 0
	rec.Inside = func(what, at string) {
		if inside++; inside == 3 { // in the rename
			if at != path+durable.TempSuffix {
				t.Error(what, at)
			}
			if err := os.WriteFile(filepath.Join(root, "other"), []byte("x"), 0o644); err != nil {
				t.Error(err)
			}
			if err := rec.SyncDir(root); err != nil { // a step within a step
				t.Error(err)
			}
		}
	}
	if err := rec.SyncDir(filepath.Dir(root)); err != nil { // not followed
		t.Fatal(err)
	}
	if err := durable.WriteFile(rec, path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("newer"), 0o644); err != nil {
		t.Fatal(err)
	}
	rec.Look("changed")
	rec.Look("unchanged")
	if err := rec.Remove(path); err != nil {
		t.Fatal(err)
	}
	want := []string{"sync names in ..", "write before sync value.tmp", "sync value.tmp",
		"write before sync names in .", "sync names in .", "rename value.tmp", "sync names in .", "changed", "remove value"}
	if !slices.Equal(*events, want) || rec.Err() != nil {
		t.Errorf("%q, %v", *events, rec.Err())
	}
}

// What was there when the recording began is durable; zeros at the end of a
// file are part of it.
func TestWhatWasThere(t *testing.T) {
	root := t.TempDir()
	old := append([]byte("old"), make([]byte, 5000)...)
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "a/b/old")
	if err := os.WriteFile(path, old, 0o644); err != nil {
		t.Fatal(err)
	}
	rec, _ := record(t, root)
	pool := crashtest.NewPool(t.TempDir())
	rng := rand.New(rand.NewPCG(3, 4))
	hashes := map[uint64]bool{}
	images := func(what string, check func(b []byte) error) {
		rec.Images(what, rng, 1, func(m *crashtest.Image) {
			hashes[m.Hash()] = true
			pool.Go(m, 0, func(dir string) error {
				b, err := os.ReadFile(filepath.Join(dir, "a/b/old"))
				if err != nil {
					return err
				}
				return check(b)
			})
		})
	}
	images("begin", func(b []byte) error {
		if !bytes.Equal(b, old) {
			return fmt.Errorf("%d bytes", len(b))
		}
		return nil
	})
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	rec.Look("cut")
	images("cut", func(b []byte) error {
		if len(b) < 100 || !bytes.HasPrefix(b, []byte("old")) {
			return fmt.Errorf("%d bytes", len(b))
		}
		return nil
	})
	if err := pool.Wait(); err != nil || rec.Err() != nil {
		t.Error(err, rec.Err())
	}
	if len(hashes) < 2 || pool.Checked() != len(hashes) {
		t.Errorf("%d images of %d were checked", pool.Checked(), len(hashes))
	}
}

// A power cut may leave a file that ends within a write, and what a file held
// between two writes.
func TestPartsOfWrites(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	if err := os.WriteFile(path, []byte("aaaa"), 0o644); err != nil {
		t.Fatal(err)
	}
	rec, _ := record(t, root)
	rng := rand.New(rand.NewPCG(5, 6))
	left := func(contents string) map[string]bool {
		t.Helper()
		if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
			t.Fatal(err)
		}
		rec.Look(contents)
		all := map[string]bool{}
		pool := crashtest.NewPool(t.TempDir())
		var images []*crashtest.Image
		rec.Images(contents, rng, 1, func(m *crashtest.Image) { images = append(images, m) })
		for _, m := range images {
			if err := pool.Do(m, 0, func(dir string) error {
				b, err := os.ReadFile(filepath.Join(dir, "file"))
				all[string(b)] = true
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := pool.Wait(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	grown := left("aaaabcde")
	for _, want := range []string{"aaaab", "aaaabc", "aaaabcd", "aaaabcde"} {
		if !grown[want] {
			t.Errorf("never %q: %q", want, slices.Sorted(maps.Keys(grown)))
		}
	}
	again := left("xyaabcde")
	for what, want := range map[string]string{"as it was between": "aaaabcde", "without the first write": "xyaa\x00\x00\x00\x00"} {
		if !again[want] {
			t.Errorf("never %s: %q", what, slices.Sorted(maps.Keys(again)))
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rec.Sync(f), f.Close(), rec.Err()); err != nil {
		t.Fatal(err)
	}
	if synced := left("xyaabcd!"); synced["aaaabcde"] {
		t.Error("what was there before a sync")
	}
}

// What the recorder cannot follow is an error, not a gap in what is enumerated.
func TestNotFollowed(t *testing.T) {
	touch := func(t *testing.T, path string) *os.File {
		t.Helper()
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	for name, break_ := range map[string]func(t *testing.T, rec *crashtest.Recorder, root string) error{
		"removed behind": func(t *testing.T, rec *crashtest.Recorder, root string) error {
			touch(t, filepath.Join(root, "a"))
			rec.Look("made")
			err := os.Remove(filepath.Join(root, "a"))
			rec.Look("removed")
			return err
		},
		"has no such name": func(t *testing.T, rec *crashtest.Recorder, root string) error {
			f := touch(t, filepath.Join(root, "a"))
			return errors.Join(rec.Rename(f.Name(), filepath.Join(root, "b")), rec.Sync(f))
		},
		"crosses the border": func(t *testing.T, rec *crashtest.Recorder, root string) error {
			return rec.Rename(touch(t, filepath.Join(root, "a")).Name(), filepath.Join(t.TempDir(), "a"))
		},
		"no such file": func(_ *testing.T, rec *crashtest.Recorder, root string) error {
			err := os.Remove(root)
			rec.Look("gone")
			return err
		},
	} {
		root := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		rec, _ := record(t, root)
		if err := break_(t, rec, root); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := rec.Err(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A step that fails is none.
	root := t.TempDir()
	rec, events := record(t, root)
	for _, err := range []error{rec.Remove(filepath.Join(root, "a")), rec.Rename(filepath.Join(root, "a"), filepath.Join(root, "b")),
		rec.SyncDir(filepath.Join(root, "a"))} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if len(*events) > 0 || rec.Err() != nil {
		t.Error(*events, rec.Err())
	}
	if _, err := crashtest.Record(filepath.Join(root, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// The first failure is told, its files stay, and nothing more is checked.
func TestPoolStops(t *testing.T) {
	root := t.TempDir()
	rec, _ := record(t, root)
	dir := t.TempDir()
	pool := crashtest.NewPool(dir)
	rng := rand.New(rand.NewPCG(5, 6))
	failure := errors.New("failure")
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(root, "f"), fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
		rec.Look("written")
		rec.Images(fmt.Sprint("event ", i), rng, 1, func(m *crashtest.Image) {
			if i == 20 {
				if err := pool.Do(m, 0, func(string) error { return failure }); err != nil && !errors.Is(err, failure) {
					t.Error(err)
				}
			}
			pool.Go(m, 0, func(string) error { return nil })
		})
	}
	if err := pool.Wait(); !errors.Is(err, failure) || !strings.HasPrefix(err.Error(), "event 20: ") || !pool.Failed() {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || !strings.HasPrefix(left[0].Name(), "image-") {
		t.Error(left, err)
	}
	if n := pool.Checked(); n < 20 {
		t.Errorf("%d images were checked", n)
	}
}
