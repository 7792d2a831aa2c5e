package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asBallast in the environment makes the test binary the command itself, so that
// a test can kill it.
const asBallast = "BALLAST_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asBallast) != "" {
		main()
	}
	os.Exit(m.Run())
}

// outcome is what one run of the command left.
type outcome struct {
	code     int
	out, err string
}

func ballastWith(t *testing.T, ctx context.Context, in io.Reader, args ...string) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(ctx, append([]string{"ballast"}, args...), in, &out, &errOut)
	t.Logf("ballast %q: %d\n%s%s", args, code, cut(out.String()), errOut.String())
	return outcome{code, out.String(), errOut.String()}
}

func cut(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "…\n"
	}
	return s
}

func ballast(t *testing.T, args ...string) outcome {
	t.Helper()
	return ballastWith(t, context.Background(), strings.NewReader(""), args...)
}

// must runs the command and wants it to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	return mustRead(t, "", args...)
}

func mustRead(t *testing.T, in string, args ...string) string {
	t.Helper()
	o := ballastWith(t, context.Background(), strings.NewReader(in), args...)
	if o.code != exitOK {
		t.Fatalf("ballast %q: exit code %d", args, o.code)
	}
	return o.out
}

// contents reads every file below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			all[path] = "a directory"
			return nil
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

var commandNames = []string{"demo", "load", "get", "scan", "query", "snapshot", "restore", "inspect", "verify",
	"log dump", "log verify", "bench log", "help", "snapshot list", "snapshot show", "snapshot get", "snapshot verify", "snapshot export",
	"snapshot import", "snapshot delete", "snapshot prune", "snapshot discard"}

func TestHelp(t *testing.T) {
	if out := must(t); !strings.Contains(out, "Usage:") || !strings.Contains(out, "ballast demo") {
		t.Errorf("no usage without arguments:\n%s", out)
	}
	for _, name := range commandNames {
		words := strings.Fields(name)
		for _, args := range [][]string{append([]string{"help"}, words...), append(words[:len(words):len(words)], "-h"),
			append(words[:len(words):len(words)], "--help"), append(words[:len(words):len(words)], "-help")} {
			out := must(t, args...)
			for _, want := range []string{"ballast " + name + " - ", "Usage:", "Flags:", "Examples:", "# "} {
				if !strings.Contains(out, want) {
					t.Errorf("%q: no %q", args, want)
				}
			}
			for line := range strings.Lines(out) {
				if len([]rune(line)) > 132 {
					t.Errorf("%q: a line of %d characters: %s", args, len(line), line)
				}
			}
		}
	}
	for _, group := range []string{"log", "bench", "snapshot"} {
		for _, args := range [][]string{{group}, {"help", group}, {group, "-h"}} {
			if group == "snapshot" && len(args) == 1 {
				continue // it takes one, and asks where
			}
			if out := must(t, args...); !strings.Contains(out, "ballast "+group+" - ") || !strings.Contains(out, "Commands:") || strings.Contains(out, "help COMMAND") {
				t.Errorf("%q:\n%s", args, out)
			}
		}
	}
	if out := must(t, "-version"); !strings.HasPrefix(out, "ballast version ") {
		t.Errorf("version: %q", out)
	}
}

func TestBadUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	full := t.TempDir()
	writeFile(t, filepath.Join(full, "something"), "else")
	for _, c := range []struct {
		args string
		want string
	}{
		{"verfy", "did you mean verify?"},
		{"frobnicate", `there is no command "frobnicate"`},
		{"help frobnicate", `there is no command "frobnicate"`},
		{"log dmp x", `log: there is no command "dmp"; did you mean dump?`},
		{"help log dmp", "did you mean dump?"},
		{"log dump", "log dump: which data directory?"},
		{"log dump a b", `unexpected argument "b"`},
		{"log dump -form 3 a", "did you mean -from?"},
		{"log dump -from 3 -to 2 a", "-from 3 lies behind -to 2"},
		{"log dump -group x a", `invalid value "x" for flag -group`},
		{"bench lgo", "did you mean log?"},
		{"bench log x", `unexpected argument "x"; the directory goes with -dir`},
		{"bench log -rounds 0", "it must be 1 to 1000"},
		{"bench log -time 0s", "more than zero"},
		{"bench log -time 1", `invalid value "1" for flag -time`},
		{"bench log -rows (", "-rows: error parsing regexp"},
		{"bench log -rows none", `-rows "none": there is no such row; there are append/1x128, `},
		{"log verify", "log verify: which data directory?"},
		{"demo -fron x", "did you mean -from?"},
		{"demo --fron x", "did you mean -from?"},
		{"-quite demo", "did you mean -quiet?"},
		{"demo -from", "flag needs an argument"},
		{"demo extra", `unexpected argument "extra"`},
		{"demo -clients 0", "it must be 1 to 4096"},
		{"demo -from . -dir " + full, "is not empty"},
		{"load", "which data directory?"},
		{"get", "which data directory?"},
		{"get " + dir, "too few arguments"},
		{"get " + dir + " a b", `unexpected argument "b"`},
		{"scan", "which data directory?"},
		{"scan -limit x " + dir, `invalid value "x" for flag -limit`},
		{"scan -prefix a -from b " + dir, "-prefix excludes"},
		{"query -equal 1 -min 0 " + dir, "-equal excludes"},
		{"snapshot", "which data directory?"},
		{"snapshot -keep 0 " + dir, "at least one"},
		{"restore", "which data directory?"},
		{"restore " + dir + " a b", `unexpected argument "b"`},
		{"inspect", "which data directory?"},
		{"verify", "which data directory?"},
		{"verify " + dir + " " + dir, "unexpected argument"},
		{"load -key id " + dir + " .", "-key is for lines"},
		{"load -skip-bad " + dir + " .", "-skip-bad is for lines"},
		{"load -name a/b " + dir, "a slash"},
		{"load -name a -key id " + dir, "-name is for numbered lines"},
		{"load -index size " + dir + " .", "is not NAME=PATH"},
		{"load " + dir + " . -", "- stands alone"},
	} {
		o := ballast(t, strings.Fields(c.args)...)
		if o.code != exitUsage || !strings.Contains(o.err, c.want) || o.out != "" {
			t.Errorf("ballast %s: exit code %d, want 2 and %q", c.args, o.code, c.want)
		}
		if !strings.Contains(o.err, "Run 'ballast help") {
			t.Errorf("ballast %s: no way to its usage", c.args)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("bad usage has made %s", dir)
	}
}

func TestNothingIsCreatedByReading(t *testing.T) {
	empty := t.TempDir()
	none := filepath.Join(empty, "none")
	notDir := filepath.Join(t.TempDir(), "file")
	writeFile(t, notDir, "")
	for _, c := range []string{"get DIR k", "scan DIR", "query DIR", "snapshot DIR", "restore DIR", "inspect DIR", "verify DIR", "verify -dir DIR",
		"log dump DIR", "log verify DIR"} {
		for dir, want := range map[string]string{none: "no such directory", empty: "no Ballast", notDir: "not a directory"} {
			o := ballast(t, strings.Fields(strings.ReplaceAll(c, "DIR", dir))...)
			if o.code != exitFailed || !strings.Contains(o.err, want) {
				t.Errorf("ballast %s on %s: exit code %d, want 1 and %q", c, dir, o.code, want)
			}
		}
	}
	if got := contents(t, empty); len(got) != 1 {
		t.Errorf("reading has made %v", got)
	}
}
