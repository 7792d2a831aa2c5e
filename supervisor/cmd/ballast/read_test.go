package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// library is a small store that several tests read.
func library(t *testing.T) (dir string) {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"a.go": "package alpha\n", "b.go": "package beta\n\n", "c.go": "package alpha // longer\n",
		"d/readme.txt": "text", "d/bin": "\xff\x00",
	} {
		writeFile(t, filepath.Join(root, name), content)
	}
	dir = filepath.Join(t.TempDir(), "data")
	must(t, "load", dir, root, "-index", "size=size", "-index", "package=package")
	mustRead(t, "42\n", "load", dir, "-name", "n")
	return dir
}

func TestGetScanQuery(t *testing.T) {
	dir := library(t)
	for _, c := range []struct{ args, want string }{
		{"get DIR file/a.go", `{"path":"a.go","package":"alpha","size":14,"lines":1,"content":"package alpha\n"}`},
		{"get DIR file/d/bin -content", "\xff\x00"},
		{"get -dir DIR file/d/bin", `{"path":"d/bin","package":"","size":2,"lines":1,"encoding":"base64","content":"/wA="}`},
		{"get -json DIR file/d/bin -content", `{"key":"file/d/bin","base64":"/wA="}` + "\n"},
		{"get -json DIR file/d/readme.txt -content", `{"key":"file/d/readme.txt","text":"text"}` + "\n"},
		{"get -json DIR line/n/000000000001", `{"key":"line/n/000000000001","value":42}` + "\n"},
		{"scan DIR -keys", "file/a.go\nfile/b.go\nfile/c.go\nfile/d/bin\nfile/d/readme.txt\nline/n/000000000001\n"},
		{"scan DIR -keys -reverse -limit 2", "line/n/000000000001\nfile/d/readme.txt\n"},
		{"scan DIR -keys -prefix file/d/", "file/d/bin\nfile/d/readme.txt\n"},
		{"scan DIR -keys -from file/b -to file/d", "file/b.go\nfile/c.go\n"},
		{"scan DIR -keys -from file/b -limit 1 -json", `{"key":"file/b.go"}` + "\n"},
		{"scan DIR -prefix line/", "line/n/000000000001\t2\t42\n"},
		{"scan DIR -prefix none", ""},
		{"query DIR", "package\tprefix \"file/\"\tpath package\nsize\tprefix \"file/\"\tpath size\n"},
		{"query DIR -json", `{"name":"package","prefix":"file/","fields":[{"path":"package"}],"entries":5}` + "\n" + `{"name":"size","prefix":"file/","fields":[{"path":"size"}],"entries":5}` + "\n"},
		{"query DIR package -equal alpha -keys", "file/a.go\nfile/c.go\n"},
		{"query DIR package -equal \"alpha\" -keys", "file/a.go\nfile/c.go\n"},
		{"query DIR package -min b -keys", "file/b.go\n"},
		{"query DIR size -max 4 -keys", "file/d/bin\nfile/d/readme.txt\n"},
		{"query DIR size -equal 14 -keys", "file/a.go\nfile/b.go\n"},
		{"query DIR size -reverse -limit 1 -keys", "file/c.go\n"},
	} {
		if got := must(t, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"get DIR none", "there is no key none"},
		{"get DIR line/n/000000000001 -content", "not the document of a file"},
		{"query DIR none", `there is no index "none"`},
		{"restore DIR none", "none"},
		{"restore DIR", "no such snapshot"},
	} {
		if o := ballast(t, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...); o.code != exitFailed || !strings.Contains(o.err, c.want) {
			t.Errorf("%s: exit code %d, want 1 and %q", c.args, o.code, c.want)
		}
	}
}

func TestSnapshotAndRestore(t *testing.T) {
	dir := library(t)
	first := strings.Fields(must(t, "snapshot", dir))[0]
	mustRead(t, "1\n2\n3\n", "load", dir, "-name", "later")
	all := must(t, "scan", dir, "-json")
	if out := must(t, "restore", dir); !strings.Contains(out, "3 entries") {
		t.Error("the log was not replayed")
	}
	if got := must(t, "scan", dir, "-json"); got != all {
		t.Errorf("a restore has changed the data:\n%s", got)
	}
	second := must(t, "snapshot", dir)
	if out := must(t, "inspect", dir); !strings.Contains(out, first) || !strings.Contains(out, strings.Fields(second)[0]) {
		t.Error("inspect does not list the snapshots")
	}
	must(t, "verify", dir)
	must(t, "restore", dir, first, "-discard", "-json")
	if got := must(t, "scan", dir, "-keys", "-prefix", "line/"); got != "line/n/000000000001\n" {
		t.Errorf("after going back: %q", got)
	}
	must(t, "verify", dir)
	mustRead(t, "5\n", "load", dir, "-name", "other history")
	for range 3 {
		must(t, "snapshot", dir, "-keep", "1", "-json")
	}
	if out := must(t, "inspect", dir, "-json"); strings.Count(out, `"content_hash"`) != 1 {
		t.Error("-keep 1 keeps another number")
	}
	if out := must(t, "inspect", dir, "-records"); !strings.Contains(out, "append") {
		t.Error("no records")
	}
	must(t, "verify", dir)
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"file/ä b.go": "file/ä b.go", "tab\there": `"tab\there"`, "\xff": `"\xff"`, `say "x"`: `"say \"x\""`, "": "",
	} {
		if got := printable([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"a\nb": "a·b", "\xff\xfe\xfd\xfc\xfb\xfa": "(binary)", strings.Repeat("é", 500): strings.Repeat("é", beginningLength) + "…",
		"a" + strings.Repeat("é", 500): "a" + strings.Repeat("é", beginningLength-1) + "…", "text\xff": "(binary)",
		strings.Repeat("é", 500) + "\xff": strings.Repeat("é", beginningLength) + "…",
	} {
		if got := beginning([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestConsole(t *testing.T) {
	var b bytes.Buffer
	c := newConsole(&b)
	at := time.Unix(0, 0)
	c.now, c.wrote = func() time.Time { return at }, at
	for range 50 { // 5 s, without a terminal
		at = at.Add(100 * time.Millisecond)
		c.progress("p")
	}
	c.note("note")
	if got := b.String(); got != "p\np\nnote\n" {
		t.Errorf("not a terminal: %q", got)
	}
	b.Reset()
	c.width = 10
	c.progress("0123456789abc")
	c.note("note")
	c.clear()
	if want := eraseLine + "01234567…" + eraseLine + "note\n" + "01234567…" + eraseLine; b.String() != want {
		t.Errorf("a terminal: %q, want %q", b.String(), want)
	}
	b.Reset()
	c.quiet = true
	c.progress("p")
	c.say("said")
	slog.New(newLogHandler(c, slog.LevelWarn)).Info("not shown")
	slog.New(newLogHandler(c, slog.LevelWarn)).Warn("shown")
	if want := "level=WARN msg=shown\n"; b.String() != want {
		t.Errorf("quiet: %q, want %q", b.String(), want)
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{bytesText(999), "999 B"}, {bytesText(1500), "1.5 kB"}, {bytesText(2_500_000), "2.5 MB"}, {bytesText(int64(3e9)), "3.00 GB"},
		{countText(0), "0"}, {countText(999), "999"}, {countText(1000), "1,000"}, {countText(1234567), "1,234,567"},
		{plural(1, "entry"), "1 entry"}, {plural(2, "entry"), "2 entries"}, {plural(2, "key"), "2 keys"}, {plural(0, "file"), "0 files"},
		{timeText(1234567 * time.Nanosecond), "1.23ms"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
}
