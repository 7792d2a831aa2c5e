package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/supervisor"
)

// oddTree makes a tree of files that are easy to get wrong.
func oddTree(t *testing.T) (root string, files map[string]string) {
	t.Helper()
	root = t.TempDir()
	all := ""
	for i := range 256 {
		all += string([]byte{byte(i)})
	}
	files = map[string]string{
		"empty":                     "",
		"binary.bin":                all + all,
		"newline":                   "\n",
		"no-newline.txt":            "a\nb",
		"crlf.txt":                  "a\r\nb\r\n",
		"html.html":                 "<a href=\"x&y\">\u2028\u2029</a>\x00\x7f",
		"replacement.txt":           "\ufffd is a character of its own",
		"almost.txt":                "valid, but for the end \xe2\x82",
		"long-line.json":            `{"a":"` + strings.Repeat("x", 1<<20) + `"}`,
		"ünïcode/日本語/файл 1.txt":    "текст\n",
		"with \"quotes\" and\ttab":  "x",
		"a/main.go":                 "// Comment.\n\npackage main\n\nfunc main() {}\n",
		"a/main_test.go":            "package main_test\n",
		"a/broken.go":               "this is not Go",
		"a/b/c/d/e/f/deep.go":       "package deep // <&>\n",
		"\xff\xfe not unicode name": "name",
	}
	for i := range 150 {
		files[filepath.Join("many", string(rune('a'+i%26)), strings.Repeat("n", i+1)+".go")] = "package many\n" + strings.Repeat("//\n", i*i%997)
	}
	for name, content := range files {
		writeFile(t, filepath.Join(root, filepath.FromSlash(name)), content)
	}
	if err := os.Symlink("empty", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	return root, files
}

func TestDemo(t *testing.T) {
	root, files := oddTree(t)
	dir := filepath.Join(t.TempDir(), "data")
	o := ballast(t, "demo", "-from", root, "-dir", dir)
	if o.code != exitOK || !strings.Contains(o.out, "PASS") {
		t.Fatalf("exit code %d", o.code)
	}
	for _, want := range []string{"log actor crashed", "kv actor crashed", "snapshot", "verified"} {
		if !strings.Contains(o.out, want) {
			t.Errorf("the table does not tell of %q", want)
		}
	}
	for _, want := range []string{"crashed the log actor", "the log actor is back", "taking a snapshot", "crashed the kv actor", "link: skipped", dir} {
		if !strings.Contains(o.err, want) {
			t.Errorf("standard error does not tell of %q", want)
		}
	}
	if strings.Contains(o.err, "goroutine") || strings.Contains(o.err, "level=") {
		t.Error("the crashes on purpose are logged")
	}
	for name, content := range files {
		if strings.HasPrefix(name, "many/") { // the demo has compared them
			continue
		}
		if got := must(t, "get", "-content", dir, filePrefix+name); got != content {
			t.Errorf("%q: %d bytes, want %d", name, len(got), len(content))
		}
	}
	if out := must(t, "verify", dir); !strings.Contains(out, "every byte is good") {
		t.Error("the data that the demo left does not verify")
	}
	if o := ballast(t, "demo", "-from", root, "-dir", dir); o.code != exitUsage {
		t.Error("a second demo in the same directory was not refused")
	}
}

func TestDemoJSON(t *testing.T) {
	root, files := oddTree(t)
	t.Setenv("TMPDIR", t.TempDir())
	var r struct {
		Pass     bool
		Acked    int `json:"acknowledged"`
		Verified int `json:"verified_files"`
		Skipped  int
		LogFirst uint64 `json:"log_first"`
		Snapshot struct {
			LogFirst uint64 `json:"log_first"`
		}
		Crashes []struct {
			Actor string
			Down  float64 `json:"down_seconds"`
		}
	}
	if err := json.Unmarshal([]byte(must(t, "-quiet", "demo", "-from", root, "-clients", "8", "-json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Crashes) != 2 || r.Crashes[0].Actor != "log" || r.Crashes[1].Actor != "kv" || r.Crashes[0].Down <= 0 || r.Crashes[1].Down <= 0 {
		t.Errorf("crashes: %+v", r.Crashes)
	}
	if !r.Pass || r.Acked != len(files) || r.Verified != len(files) || r.Skipped != 1 || r.Snapshot.LogFirst != r.LogFirst {
		t.Errorf("%+v", r)
	}
	if left := contents(t, os.TempDir()); len(left) != 1 {
		t.Errorf("the demo has left %d files", len(left)-1)
	}
}

// TestDemoFindsDifferences changes files after they were stored.
func TestDemoFindsDifferences(t *testing.T) {
	root, _ := oddTree(t)
	dir := filepath.Join(t.TempDir(), "data")
	must(t, "-quiet", "demo", "-from", root, "-dir", dir)
	s, err := openService(context.Background(), supervisor.Config{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	compare := func() error {
		d := &demo{app: &app{console: newConsole(io.Discard)}, service: s, dir: dir}
		d.stages = newStages(d)
		if err := d.list(context.Background(), root); err != nil {
			t.Fatal(err)
		}
		return d.compare(context.Background())
	}
	if err := compare(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, content, want string }{
		{"binary.bin", "other", "the content differs"},
		{"no-newline.txt", "a\nc", "the content differs"},
		{"new.txt", "new", "missing from the store"},
	} {
		path := filepath.Join(root, c.name)
		old, readErr := os.ReadFile(path)
		writeFile(t, path, c.content)
		if err := compare(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if readErr == nil {
			writeFile(t, path, string(old))
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(root, "empty")); err != nil {
		t.Fatal(err)
	}
	if err := compare(); err == nil || !strings.Contains(err.Error(), "a scan finds") {
		t.Errorf("a key too many: %v", err)
	}
}

// TestDemoOfFewFiles runs the stages where some of them have no files at all.
func TestDemoOfFewFiles(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	root := t.TempDir()
	for n := range 9 {
		writeFile(t, filepath.Join(root, string(rune('a'+n))), "content")
		for range 3 {
			must(t, "-quiet", "demo", "-from", root)
		}
	}
}
