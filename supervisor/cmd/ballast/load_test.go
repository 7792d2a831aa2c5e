package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func counts(t *testing.T, out string) (c loadCounts) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	c.Seconds, c.Bytes, c.Retries = 0, 0, 0
	return c
}

func TestLoadFiles(t *testing.T) {
	root, files := oddTree(t)
	dir := filepath.Join(t.TempDir(), "data")
	n := len(files)
	load := func(args ...string) loadCounts {
		return counts(t, must(t, append([]string{"load", "-json", "-index", "size=size", dir}, args...)...))
	}
	if got, want := load(root), (loadCounts{Added: n, Skipped: 1}); got != want {
		t.Errorf("first: %+v, want %+v", got, want)
	}
	if got, want := load(root), (loadCounts{Unchanged: n, Skipped: 1}); got != want {
		t.Errorf("again: %+v, want %+v", got, want)
	}
	writeFile(t, filepath.Join(root, "empty"), "no longer")
	writeFile(t, filepath.Join(root, "new"), "new")
	if got, want := load(root), (loadCounts{Added: 1, Updated: 1, Unchanged: n - 1, Skipped: 1}); got != want {
		t.Errorf("changed: %+v, want %+v", got, want)
	}
	if got := must(t, "get", dir, "file/empty", "-content"); got != "no longer" {
		t.Errorf("the update is lost: %q", got)
	}
	// A single file is stored under its base name.
	one := filepath.Join(root, "a", "main.go")
	must(t, "load", dir, "-prefix", "one/", one)
	if got := must(t, "get", dir, "one/main.go", "-content"); got != files["a/main.go"] {
		t.Errorf("a single file: %q", got)
	}
	if o := ballast(t, "load", dir, "-prefix", "one/", "-index", "size=size", one); o.code != exitFailed || !strings.Contains(o.err, `index "size"`) {
		t.Errorf("the same index over another prefix: exit code %d", o.code)
	}
}

func TestLoadRefusesCollisions(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(a, "x"), "a")
	writeFile(t, filepath.Join(b, "x"), "b")
	dir := filepath.Join(t.TempDir(), "data")
	if o := ballast(t, "load", dir, a, b); o.code != exitFailed || !strings.Contains(o.err, `"file/x"`) {
		t.Errorf("exit code %d", o.code)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("something was stored")
	}
	if o := ballast(t, "load", dir, filepath.Join(a, "none")); o.code != exitFailed {
		t.Errorf("a path that does not exist: exit code %d", o.code)
	}
}

func TestLoadLines(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	in := "{\"n\":1}\n\n  [2]  \r\n\"<&>\"\n4"
	if got, want := counts(t, mustRead(t, in, "load", "-json", dir)), (loadCounts{Added: 4, Lines: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := must(t, "scan", dir, "-json"), `{"key":"line/stdin/000000000001","value":{"n":1}}
{"key":"line/stdin/000000000003","value":[2]}
{"key":"line/stdin/000000000004","value":"\u003c\u0026\u003e"}
{"key":"line/stdin/000000000005","value":4}
`; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := must(t, "get", dir, "line/stdin/000000000004"); got != `"<&>"` {
		t.Errorf("not the bytes of the line: %q", got)
	}
	if got, want := counts(t, mustRead(t, in+"4\n", "load", "-json", dir, "-")), (loadCounts{Updated: 1, Unchanged: 3, Lines: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestLoadBadLines(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	in := "{\"id\":\"a\"}\n{\"id\":\n{\"id\":\"c\"}\n{\"name\":\"d\"}\n{\"id\":\"\"}\n{\"id\":\"" + strings.Repeat("k", 5000) + "\"}\n{\"id\":\"g\"}\n"
	o := ballastWith(t, context.Background(), strings.NewReader(in), "load", dir, "-key", "id")
	if o.code != exitFailed || !strings.Contains(o.err, "line 2: not JSON") || !strings.Contains(o.out, "1 added") {
		t.Errorf("exit code %d", o.code)
	}
	if got := must(t, "scan", dir, "-keys"); got != "a\n" {
		t.Errorf("after a bad line: %q", got)
	}
	o = ballastWith(t, context.Background(), strings.NewReader(in), "load", dir, "-key", "id", "-skip-bad", "-json")
	if got, want := counts(t, o.out), (loadCounts{Added: 2, Unchanged: 1, Skipped: 4, Lines: 7}); o.code != exitOK || got != want {
		t.Errorf("exit code %d, %+v, want %+v", o.code, got, want)
	}
	for _, n := range []int{2, 4, 5, 6} {
		if !strings.Contains(o.err, fmt.Sprintf("line %d: skipped", n)) {
			t.Errorf("line %d is not named", n)
		}
	}
}

// TestLoadKeepsTheOrderOfAKey has many lines fight for a few keys.
func TestLoadKeepsTheOrderOfAKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var in strings.Builder
	last := map[string]int{}
	for i := range 3000 {
		key := fmt.Sprintf("k%d", i*i%7)
		fmt.Fprintf(&in, "{\"key\":%q,\"n\":%d}\n", key, i)
		last[key] = i
	}
	mustRead(t, in.String(), "load", dir, "-key", "key")
	for key, n := range last {
		if got, want := must(t, "get", dir, key), fmt.Sprintf(`{"key":%q,"n":%d}`, key, n); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

func TestLongLines(t *testing.T) {
	long := strings.Repeat("x", 33<<20)
	r := newLineReader(strings.NewReader("a\n" + long + "\nb\n" + long))
	for i, want := range []string{"a", "", "b", ""} {
		line, err := r.next()
		if string(line) != want || errors.Is(err, errLineTooLong) != (want == "") || r.number != i+1 {
			t.Errorf("line %d: %d bytes, %v", i+1, len(line), err)
		}
	}
	if _, err := r.next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestLoadSurvivesKill kills load with SIGKILL at random moments, starts it
// again each time, and then wants every line once.
func TestLoadSurvivesKill(t *testing.T) {
	const (
		lines = 10000
		kills = 6
		seed  = 20
	)
	random := rand.New(rand.NewPCG(seed, seed))
	base := t.TempDir()
	dir, input := filepath.Join(base, "data"), filepath.Join(base, "input")
	value := func(i int) string { return fmt.Sprintf(`{"n":%d,"text":%q}`, i, strings.Repeat("v", i%1000)) }
	var in strings.Builder
	for i := 1; i <= lines; i++ {
		in.WriteString(value(i) + "\n")
	}
	writeFile(t, input, in.String())

	child := func() *exec.Cmd {
		c := exec.Command(os.Args[0], "load", dir, "-name", "kill", "-json")
		c.Env = append(os.Environ(), asBallast+"=1")
		f, err := os.Open(input)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		c.Stdin = f
		return c
	}
	killed := 0
	for range kills {
		c := child()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		after := 15*time.Millisecond + time.Duration(random.Int64N(int64(250*time.Millisecond)))
		timer := time.AfterFunc(after, func() { _ = c.Process.Kill() })
		err := c.Wait()
		timer.Stop()
		if err != nil {
			killed++
		}
		t.Logf("killed after %v: %v", after, err)
	}
	if killed == 0 {
		t.Error("load was never killed: the test proves nothing")
	}
	c := child()
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := counts(t, string(out))
	t.Logf("the last run: %+v", got)
	if got.Added+got.Unchanged != lines || got.Updated+got.Skipped+got.Failed != 0 {
		t.Errorf("the last run: %+v", got)
	}

	n := 0
	scan := bufio.NewScanner(strings.NewReader(must(t, "-quiet", "scan", dir, "-json")))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		n++
		if want := fmt.Sprintf(`{"key":"line/kill/%012d","value":%s}`, n, value(n)); scan.Text() != want {
			t.Fatalf("line %d: %s, want %s", n, cut(scan.Text()), cut(want))
		}
	}
	if scan.Err() != nil || n != lines {
		t.Errorf("%d keys, want %d: %v", n, lines, scan.Err())
	}
	var d directoryOutput
	if err := json.Unmarshal([]byte(must(t, "verify", dir, "-json")), &d); err != nil {
		t.Fatal(err)
	}
	// Only what was under way at a kill can have been proposed twice.
	if last := d.Groups[0].Last; last < lines || last > lines+kills*defaultClients {
		t.Errorf("the log has %d entries for %d lines and %d kills", last, lines, killed)
	}
}

// TestInterrupt ends a load that waits for input.
func TestInterrupt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	in, feed := io.Pipe()
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		for i := range 100 {
			fmt.Fprintf(feed, "%d\n", i)
		}
		cancel(errInterrupted) // the pipe stays open
	}()
	o := ballastWith(t, ctx, in, "load", dir)
	if o.code != exitInterrupted || !strings.Contains(o.err, "interrupted") {
		t.Errorf("exit code %d, want 130", o.code)
	}
	var c int
	if _, err := fmt.Sscanf(o.out, "%d added", &c); err != nil || c == 0 {
		t.Errorf("%d added: %v", c, err)
	}
	if got := strings.Count(must(t, "scan", dir, "-keys"), "\n"); got != c {
		t.Errorf("%d keys, %d were acknowledged", got, c)
	}
	must(t, "verify", dir)
}
