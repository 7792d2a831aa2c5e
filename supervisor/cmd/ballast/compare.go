package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// comparers is how many files are compared at the same time.
const comparers = 8

// compare checks everything that was stored against the files.
func (d *demo) compare(ctx context.Context) error {
	stored := slices.Clone(d.files)
	stored = slices.DeleteFunc(stored, func(f file) bool { return d.stages.skips[f.key] })
	packages, err := d.contents(ctx, stored)
	if err != nil {
		return err
	}
	return errors.Join(d.keys(ctx, stored), d.bySize(ctx, stored), d.byPackage(ctx, packages))
}

// contents reads every file back, compares it byte for byte, and returns the
// number of files of each package as the disk has them.
func (d *demo) contents(ctx context.Context, stored []file) (packages map[string]int, err error) {
	var (
		next, done atomic.Int64
		mu         sync.Mutex
		wg         sync.WaitGroup
		errs       []error
	)
	packages = map[string]int{}
	began := time.Now()
	stop := every(redraw, func() {
		d.app.console.progress(fmt.Sprintf("comparing with the files: %3d%%  %s of %s  %.0f/s", 100*done.Load()/int64(len(stored)+1),
			countText(done.Load()), countText(len(stored)), rate(done.Load(), time.Since(began))))
	})
	defer stop()
	for range comparers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(stored)) {
					return
				}
				f := stored[i]
				name, size, err := d.same(ctx, f)
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", f.path, err))
				} else {
					d.result.Verified++
					d.result.VerifiedBytes += int64(size)
					packages[name]++
				}
				mu.Unlock()
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if more := len(errs) - mostProblems; more > 0 {
		errs = append(errs[:mostProblems], fmt.Errorf("and %d more", more))
	}
	return packages, errors.Join(append(errs, ctx.Err())...)
}

// same compares one file with what is stored of it.
func (d *demo) same(ctx context.Context, f file) (packageOf string, size int, err error) {
	want, err := os.ReadFile(f.path)
	if err != nil {
		return "", 0, err
	}
	got, err := ask[messages.Got](ctx, d.service, d.service.KV, messages.Get{Key: []byte(f.key)})
	if err != nil {
		return "", 0, err
	}
	if !got.Found {
		return "", 0, errors.New("it is missing from the store")
	}
	doc, content, err := decodeDocument(got.Value)
	packageOf = packageName(f.path, want)
	switch {
	case err != nil:
		return "", 0, err
	case !bytes.Equal(content, want):
		return "", 0, fmt.Errorf("the content differs: %d bytes on disk, %d stored", len(want), len(content))
	case doc.Package != packageOf || doc.Lines != countLines(want):
		return "", 0, fmt.Errorf("package %q with %d lines on disk, package %q with %d lines stored", packageOf, countLines(want), doc.Package, doc.Lines)
	}
	return packageOf, len(want), nil
}

// keys checks that a scan finds these files and nothing else, in order.
func (d *demo) keys(ctx context.Context, stored []file) error {
	want := make([]string, len(stored))
	for i, f := range stored {
		want[i] = f.key
	}
	slices.Sort(want)
	var got []string
	for cursor := []byte(nil); ; {
		r, err := ask[messages.Scanned](ctx, d.service, d.service.KV, messages.Scan{Prefix: []byte(filePrefix), KeysOnly: true, Cursor: cursor})
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		for _, p := range r.Pairs {
			got = append(got, string(p.Key))
		}
		if cursor = r.Next; cursor == nil {
			break
		}
	}
	d.result.Scanned = len(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("a scan finds %d keys, which are not the %d files", len(got), len(want))
	}
	return nil
}

// query returns the keys that an index has, at most limit of them.
func (d *demo) query(ctx context.Context, q messages.QueryIndex, limit int) (keys []string, err error) {
	for {
		q.Limit = limit - len(keys)
		r, err := ask[messages.IndexQueried](ctx, d.service, d.service.KV, q)
		if err != nil {
			return nil, fmt.Errorf("query %s: %w", q.Name, err)
		}
		for _, p := range r.Pairs {
			keys = append(keys, string(p.Key))
		}
		if q.Cursor = r.Next; q.Cursor == nil || len(keys) >= limit {
			return keys, nil
		}
	}
}

const largest = 10

// bySize checks the index on size: the largest files, and how many files lie in
// a range around the middle.
func (d *demo) bySize(ctx context.Context, stored []file) error {
	files := slices.SortedFunc(slices.Values(stored), bySize)
	keys, err := d.query(ctx, messages.QueryIndex{Name: "size", Reverse: true}, largest)
	if err != nil {
		return err
	}
	var want []string
	for _, f := range files[:min(largest, len(files))] {
		want = append(want, f.key)
	}
	if !slices.Equal(keys, want) {
		return fmt.Errorf("the index on size has %q as the largest files, on disk they are %q", keys, want)
	}
	if len(files) == 0 {
		return nil
	}
	low, high := files[len(files)*11/20].size, files[len(files)*9/20].size
	inRange := 0
	for _, f := range files {
		if low <= f.size && f.size <= high {
			inRange++
		}
	}
	keys, err = d.query(ctx, messages.QueryIndex{Name: "size", Min: strconv.FormatInt(low, 10), Max: strconv.FormatInt(high, 10)}, len(files)+1)
	if err == nil && len(keys) != inRange {
		err = fmt.Errorf("the index on size has %d files of %d to %d bytes, the disk has %d", len(keys), low, high, inRange)
	}
	d.result.Queried += min(largest, len(files)) + len(keys)
	return err
}

// byPackage checks the index on package for the packages with the most files.
func (d *demo) byPackage(ctx context.Context, packages map[string]int) error {
	type count struct {
		name  string
		files int
	}
	var counts []count
	for name, n := range packages {
		if name != "" {
			counts = append(counts, count{name, n})
		}
	}
	slices.SortFunc(counts, func(a, b count) int { return cmp.Or(cmp.Compare(b.files, a.files), cmp.Compare(a.name, b.name)) })
	var errs []error
	for _, c := range counts[:min(largest, len(counts))] {
		keys, err := d.query(ctx, messages.QueryIndex{Name: "package", Equal: jsonString(c.name)}, 1<<30)
		if err == nil && len(keys) != c.files {
			err = fmt.Errorf("the index on package has %d files of %q, the disk has %d", len(keys), c.name, c.files)
		}
		errs = append(errs, err)
		d.result.Queried += len(keys)
		d.result.Packages = append(d.result.Packages, packageCount{c.name, c.files})
	}
	return errors.Join(errs...)
}
