package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

func FuzzDocument(f *testing.F) {
	for _, s := range []string{"", "text", "\xff", "\xed\xa0\x80", "<>&\u2028\x00", "package x\n"} {
		f.Add("a/b.go", []byte(s))
	}
	f.Fuzz(func(t *testing.T, path string, content []byte) {
		value, err := encodeDocument(path, content)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsRune(value, '\n') {
			t.Errorf("a newline in %q", value)
		}
		d, got, err := decodeDocument(value)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%q came back as %q: %v", content, got, err)
		}
		if d.Path != strings.ToValidUTF8(path, "\ufffd") && len([]rune(path)) == len([]rune(d.Path)) && d.Path != string([]rune(path)) {
			t.Errorf("path %q came back as %q", path, d.Path)
		}
	})
}

func TestDocument(t *testing.T) {
	for _, c := range []struct {
		path, content, pkg string
		lines              int
	}{
		{"x.go", "package a\n", "a", 1},
		{"x.go", "// package b\n/* package c */\n\npackage d; import \"e\"", "d", 4},
		{"x.go", "//go:build x\n\npackage main_test // f\nbroken {", "main_test", 4},
		{"x.go", "func", "", 1},
		{"x.go", "", "", 0},
		{"x.txt", "package a\n", "", 1},
		{"x", "\n\n", "", 2},
	} {
		value, err := encodeDocument(c.path, []byte(c.content))
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := decodeDocument(value)
		if err != nil || d.Package != c.pkg || d.Lines != c.lines || d.Size != len(c.content) {
			t.Errorf("%q: %+v, %v", c.content, d, err)
		}
	}
	for _, bad := range []string{"", "[]", `{"size":3,"content":"ab"}`, `{"size":1,"encoding":"base64","content":"?"}`, `{"encoding":"rot13"}`} {
		if _, _, err := decodeDocument([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// TestFeed has clients that come and go at random take every job once, those of
// a key in order.
func TestFeed(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		const clients, jobs = 7, 5000
		f := newFeed(clients, ordered)
		woken := make([]chan struct{}, clients)
		for i := range woken {
			woken[i] = make(chan struct{}, 1)
		}
		f.wake = func(n int) { woken[n] <- struct{}{} }
		var (
			mu   sync.Mutex
			seen []*job
			wg   sync.WaitGroup
		)
		for i := range clients {
			wg.Go(func() {
				for {
					switch j, v := f.take(i); v {
					case over:
						return
					case later:
						<-woken[i]
					case ready:
						mu.Lock()
						seen = append(seen, j)
						mu.Unlock()
						f.settle(j)
					}
				}
			})
		}
		random := rand.New(rand.NewPCG(1, 1))
		for i := range jobs {
			if !f.add(context.Background(), &job{key: []byte{byte(i % 11)}, name: string(rune(i)), cost: random.Int64N(feedBytes)}) {
				t.Fatal("not added")
			}
		}
		f.end()
		wg.Wait()
		if len(seen) != jobs || f.jobs != 0 || f.cost != 0 {
			t.Errorf("%d jobs of %d; %d with %d bytes left", len(seen), jobs, f.jobs, f.cost)
		}
		last := map[string]rune{}
		for _, j := range seen {
			n := []rune(j.name)[0]
			if before, ok := last[string(j.key)]; ordered && ok && n <= before {
				t.Fatalf("key %x: job %d after %d", j.key, n, before)
			}
			last[string(j.key)] = n
		}
	}
}

// TestFeedIsBounded wants add to wait, and to end with its context or the feed.
func TestFeedIsBounded(t *testing.T) {
	for name, end := range map[string]func(f *feed, cancel func()){
		"context": func(_ *feed, cancel func()) { cancel() },
		"stop":    func(f *feed, _ func()) { f.stop() },
	} {
		f := newFeed(1, false)
		f.wake = func(int) {}
		ctx, cancel := context.WithCancel(context.Background())
		if !f.add(ctx, &job{cost: feedBytes * 2}) { // a single one may be larger
			t.Fatal("not added")
		}
		added := make(chan bool)
		go func() { added <- f.add(ctx, &job{cost: 1}) }()
		end(f, cancel)
		if <-added {
			t.Errorf("%s: there was no room, and it was added", name)
		}
		cancel()
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestBrokenInputAndOutput(t *testing.T) {
	dir := library(t)
	o := ballastWith(t, context.Background(), brokenReader{}, "load", dir)
	if o.code != exitFailed || !strings.Contains(o.err, "line 1: broken pipe") {
		t.Errorf("broken input: exit code %d", o.code)
	}
	var errOut bytes.Buffer
	code := run(context.Background(), []string{"ballast", "scan", dir}, strings.NewReader(""), brokenWriter{}, &errOut)
	if code != exitFailed || !strings.Contains(errOut.String(), "write results: no space") {
		t.Errorf("broken output: exit code %d, %s", code, errOut.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space") }
