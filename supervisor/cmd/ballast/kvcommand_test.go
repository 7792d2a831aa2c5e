package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/supervisor"
)

// dataStore is a store in a directory of its own, closed.
func dataStore(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "alone")
	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 { // garbage
		ops := []messages.Operation{
			messages.PutOperation([]byte("a"), []byte(`{"n":2}`)), messages.PutOperation([]byte("b"), []byte(`{"n":1}`)),
			messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Fields: messages.Paths("n")}),
		}
		if _, err := db.Write(0, ops); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Write(7, []messages.Operation{messages.PutOperation([]byte("\xff\x00"), []byte("\x00bin"))}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestKVReads(t *testing.T) {
	dir := dataStore(t)
	for _, c := range []struct{ args, want string }{
		{"get DIR a", `{"n":2}`},
		{"get DIR -group 7 -hex ff00", "0062696e\n"},
		{"get DIR -group 7 -base64 /wA=", "AGJpbg==\n"},
		{"get DIR -json b", `{"key":"b","value":{"n":1},"version":101}` + "\n"},
		{"get DIR -group 7 -json -hex ff00", `{"key_hex":"ff00","value_hex":"0062696e","version":1}` + "\n"},
		{"scan DIR -keys", "a\nb\n"},
		{"scan DIR -keys -reverse -limit 1", "b\n"},
		{"scan DIR -from b", "b\t7\t{\"n\":1}\n"},
		{"scan DIR -to b -json", `{"key":"a","value":{"n":2},"version":100}` + "\n"},
		{"scan DIR -group 7 -hex -prefix ff", "ff00\t0062696e\n"},
		{"scan DIR -group 7 -base64 -json", `{"key_base64":"/wA=","value_base64":"AGJpbg==","version":1}` + "\n"},
		{"query DIR n -keys", "b\na\n"},
		{"query DIR n -min 2", "a\t7\t{\"n\":2}\n"},
	} {
		if got := must(t, append([]string{"kv"}, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...)...); got != c.want {
			t.Errorf("%s: %q, want %q", c.args, got, c.want)
		}
	}
	if out := must(t, "kv", "index", dir); !strings.Contains(out, `"n"`) {
		t.Errorf("index: %s", out)
	}
	var stats statsOutput
	if err := json.Unmarshal([]byte(must(t, "kv", "stats", "-json", dir)), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Bytes-stats.Live != stats.Garbage || stats.Garbage < 1000 || len(stats.Groups) != 2 || stats.Groups[0].Keys != 2 || stats.Groups[1].Group != 7 {
		t.Errorf("%+v", stats)
	}
	if out := must(t, "kv", "stats", dir); !strings.Contains(out, "is garbage") || !strings.Contains(out, "group 7: 1 key") {
		t.Errorf("stats: %s", out)
	}
	if out := must(t, "kv", "verify", dir); !strings.Contains(out, "all good") {
		t.Errorf("verify: %s", out)
	}

	// A torn write is told of and stays where it is.
	path := filepath.Join(dir, "DATA")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, "*3\r\n$3\r\nse"...), 0o644); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	if out := must(t, "kv", "verify", dir); !strings.Contains(out, "torn write at the end") {
		t.Errorf("verify: %s", out)
	}
	if got := must(t, "kv", "get", dir, "a"); got != `{"n":2}` {
		t.Errorf("get beside a torn write: %s", got)
	}
	if after := contents(t, dir); !maps.Equal(before, after) {
		t.Error("reading has changed something")
	}

	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"get DIR nope", "there is no key nope", exitFailed},
		{"get DIR -hex nope", "is not in that encoding", exitUsage},
		{"get DIR -hex -base64 00", "-hex excludes -base64", exitUsage},
		{"query DIR nope", "there is no index", exitFailed},
		{"scan DIR -limit -1", "is negative", exitUsage},
		{"stats DIR/none", "no such directory", exitFailed},
	} {
		if o := ballast(t, append([]string{"kv"}, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...)...); o.code != c.code || !strings.Contains(o.err, c.want) || o.out != "" {
			t.Errorf("%s: exit code %d, want %d and %q", c.args, o.code, c.code, c.want)
		}
	}

	lock, err := durable.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scan", "stats", "compact"} {
		if o := ballast(t, "kv", name, dir); o.code != exitFailed || !strings.Contains(o.err, "stop the service first") {
			t.Errorf("%s of data that is open: %d", name, o.code)
		}
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}

	data[200] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scan", "stats", "verify", "compact"} {
		if o := ballast(t, "kv", name, dir); o.code != exitFailed || !strings.Contains(o.err, "corrupt: ") {
			t.Errorf("%s of damaged data: %d", name, o.code)
		}
	}
}

func TestKVWrites(t *testing.T) {
	dir := dataStore(t)
	must(t, "kv", "put", dir, "c", "3")
	mustRead(t, "\x00\xffany", "kv", "put", dir, "-group", "7", "-hex", "00ff")
	if got := must(t, "kv", "get", dir, "-group", "7", "-hex", "00ff"); got != "00ff616e79\n" {
		t.Errorf("%q", got)
	}
	must(t, "kv", "del", dir, "c")
	if o := ballast(t, "kv", "del", dir, "c"); o.code != exitFailed || !strings.Contains(o.err, "there is no key c") {
		t.Errorf("removed twice: %d", o.code)
	}
	if o := ballast(t, "kv", "put", dir, "a", "no JSON"); o.code != exitFailed || !strings.Contains(o.err, "JSON") {
		t.Errorf("no JSON under an index: %d", o.code)
	}
	var size struct{ Before, After int64 }
	if err := json.Unmarshal([]byte(must(t, "kv", "compact", "-json", dir)), &size); err != nil || size.After >= size.Before || size.After < 200 {
		t.Errorf("%+v %v", size, err)
	}
	if got := must(t, "kv", "scan", dir, "-keys", "-from", "a"); got != "a\nb\n" {
		t.Errorf("after a compaction: %q", got)
	}
}

// The data of a service is changed through its log, and found again when the
// data is lost.
func TestKVWritesThroughTheLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "service")
	s, err := openService(context.Background(), supervisor.Config{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "kv", "put", "-json", dir, "k", "v"); out != `{"index":1,"version":1,"existed":false}`+"\n" {
		t.Errorf("put: %s", out)
	}
	must(t, "kv", "put", dir, "-group", "3", "k", "other")
	must(t, "kv", "put", dir, "gone", "x")
	must(t, "kv", "del", dir, "gone")
	must(t, "kv", "compact", dir)
	data := filepath.Join(dir, "kv")
	if got := must(t, "kv", "get", data, "k"); got != "v" {
		t.Errorf("%q", got)
	}
	if o := ballast(t, "kv", "put", data, "k", "w"); o.code != exitFailed || !strings.Contains(o.err, "name that directory") {
		t.Errorf("beside the log: %d", o.code)
	}
	// A copy of it has no log, but had one.
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	if o := ballast(t, "kv", "put", copied, "k", "w"); o.code != exitFailed || !strings.Contains(o.err, "of a log, which is not here") {
		t.Errorf("without its log: %d", o.code)
	}
	if err := errors.Join(os.RemoveAll(data), os.Mkdir(data, 0o755)); err != nil {
		t.Fatal(err)
	}
	if got := must(t, "get", dir, "k"); got != "v" {
		t.Errorf("from the log: %q", got)
	}
	if got := must(t, "kv", "scan", dir, "-keys"); got != "k\n" {
		t.Errorf("%q", got)
	}
	if got := must(t, "kv", "get", dir, "-group", "3", "k"); got != "other" {
		t.Errorf("%q", got)
	}
}
