package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestSnapshotGet reads keys and ranges, and little else.
func TestSnapshotGet(t *testing.T) {
	dir, infos := shelf(t)
	for _, c := range []struct{ args, want string }{
		{"get DIR latest -hex ff00", "ff0062696e617279\n"},
		{"get DIR latest -hex -from fe", "ff00\tff0062696e617279\n"},
		{"get DIR latest -hex -prefix ff", "ff00\tff0062696e617279\n"},
		{"get DIR latest -from key/0059999", "\"\\xff\\x00\"\t8\t(binary)\n"},
		{"get DIR latest -prefix none", ""},
		{"get DIR latest -from key/000001 -to key/000001", ""},
	} {
		if got := must(t, append([]string{"snapshot"}, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...)...); got != c.want {
			t.Errorf("%s: %q, want %q", c.args, got, c.want)
		}
	}
	for _, i := range []int{0, 1, 1234, shelfKeys - 1} {
		key := fmt.Sprintf("key/%06d", i)
		if out := must(t, "snapshot", "get", dir, infos[1].ID, key); !strings.HasPrefix(out, fmt.Sprintf(`{"n":%d,"x":"`, i)) || !strings.HasSuffix(out, `"}`) {
			t.Errorf("%s: %q", key, out)
		}
	}
	count := func(args ...string) int {
		return strings.Count(must(t, append([]string{"snapshot", "get", dir, "latest"}, args...)...), "\n")
	}
	if a, b, c := count("-prefix", "key/0010"), count("-from", "key/001000", "-to", "key/001100"), count("-prefix", ""); a != 100 || b != 100 || c != shelfKeys+1 {
		t.Errorf("%d, %d and %d keys, want 100, 100 and all", a, b, c)
	}
	if n := count("-prefix", "key/", "-limit", "7"); n != 7 {
		t.Errorf("%d keys, want 7", n)
	}

	var one struct {
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
		Read  readOutput      `json:"read"`
	}
	if err := json.Unmarshal([]byte(must(t, "snapshot", "get", "-json", dir, "latest", "key/001500")), &one); err != nil {
		t.Fatal(err)
	}
	if r := one.Read; one.Key != "key/001500" || !strings.HasPrefix(string(one.Value), `{"n":1500,`) || r.OfBlocks < 70 || r.Blocks < 2 || r.Blocks > r.OfBlocks/2 || r.StateBytes > infos[2].RawBytes/2 {
		t.Errorf("%+v, of a state of %d bytes", one, infos[2].RawBytes)
	}
	lines := strings.Split(strings.TrimSpace(must(t, "snapshot", "get", "-json", dir, "latest", "-prefix", "key/00150")), "\n")
	var last struct {
		Pairs int        `json:"pairs"`
		Read  readOutput `json:"read"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 11 || last.Pairs != 10 || last.Read.Blocks == 0 || last.Read.Blocks > last.Read.OfBlocks/2 {
		t.Errorf("%d lines, the last %+v", len(lines), last)
	}
	if o := ballast(t, "-v", "snapshot", "get", dir, "latest", "key/000001"); !strings.Contains(o.err, "of the state, in ") {
		t.Error("-v does not tell how much was read")
	}
	if out := must(t, "snapshot", "get", "-json", "-hex", dir, "latest", "ff00"); !strings.HasPrefix(out, `{"key_hex":"ff00","value_hex":"ff0062696e617279","read":{`) {
		t.Errorf("in JSON: %s", out)
	}

	for _, c := range []struct{ args, want string }{
		{"get DIR latest nope", "there is no key nope"},
		{"get DIR latest -group 7 k", "does not hold application data"},
	} {
		if o := ballast(t, append([]string{"snapshot"}, strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))...)...); o.code != exitFailed || !strings.Contains(o.err, c.want) || o.out != "" {
			t.Errorf("%s: exit code %d, want 1 and %q", c.args, o.code, c.want)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errInterrupted)
	if o := ballastWith(t, ctx, nil, "snapshot", "get", dir, "latest", "-prefix", ""); o.code != exitInterrupted || o.out != "" {
		t.Errorf("interrupted: exit code %d", o.code)
	}
}

// TestSnapshotGetDamage meets damage only where the answer lies.
func TestSnapshotGetDamage(t *testing.T) {
	dir, infos := shelf(t)
	change(t, fileOf(dir, infos[2]), func(b []byte) []byte { b[200] ^= 1; return b }) // the first block
	if o := ballast(t, "snapshot", "get", dir, "latest", "key/000000"); o.code != exitFailed || o.out != "" || !strings.Contains(o.err, "corrupt: "+fileOf(dir, infos[2])) {
		t.Errorf("a key in a damaged block: exit code %d", o.code)
	}
	// The head of the state is in the first block: it is always read.
	last := infos[1]
	change(t, fileOf(dir, last), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	if out := must(t, "snapshot", "get", dir, last.ID, "key/000000"); !strings.HasPrefix(out, `{"n":0,`) {
		t.Errorf("a key in a good block: %q", out)
	}
	if o := ballast(t, "snapshot", "get", dir, last.ID, "-prefix", "key/"); o.code != exitFailed || !strings.Contains(o.err, "corrupt") {
		t.Errorf("a range over a damaged block: exit code %d", o.code)
	}
}
