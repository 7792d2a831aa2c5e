package main

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/snapshot"
)

func verifiedSnapshots(t *testing.T, args ...string) (o verifiedOutput, code int) {
	t.Helper()
	r := ballast(t, append([]string{"snapshot", "verify", "-json"}, args...)...)
	if err := json.Unmarshal([]byte(r.out), &o); err != nil {
		t.Fatal(err)
	}
	return o, r.code
}

func TestSnapshotVerify(t *testing.T) {
	bare := t.TempDir() // of which all have gone
	writeFile(t, filepath.Join(bare, "LOCK"), "")
	if o := ballast(t, "snapshot", "verify", bare); o.code != 0 || o.out != "" || !strings.Contains(o.err, "there are no snapshots") {
		t.Errorf("an empty directory: exit code %d", o.code)
	}
	dir, infos := shelf(t)
	for _, args := range [][]string{{}, {"-all"}} {
		if out := must(t, append([]string{"snapshot", "verify", dir}, args...)...); !strings.Contains(out, "every byte is good: 4 snapshots") {
			t.Errorf("%q: %s", args, out)
		}
	}
	if o, code := verifiedSnapshots(t, dir); code != exitOK || !o.OK || len(o.Snapshots) != 4 || len(o.Problems) != 0 || o.Dir != dir {
		t.Errorf("exit code %d, %+v", code, o)
	}

	// Two blocks of one, the footer of another, and a third from the future.
	const header = 48 + 4
	d, err := snapshot.OpenDir(dir, snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	about, err := d.Describe(infos[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	middle := int(infos[0].FileBytes) / 2
	change(t, fileOf(dir, infos[0]), func(b []byte) []byte { b[header+20] ^= 8; b[middle] ^= 8; return b })
	change(t, fileOf(dir, infos[1]), func(b []byte) []byte { b[len(b)-1] ^= 8; return b })
	change(t, fileOf(dir, infos[3]), newerVersion)
	before := contents(t, dir)

	o, code := verifiedSnapshots(t, dir)
	if code != exitFailed || o.OK || len(o.Snapshots) != 1 || o.Snapshots[0].ID != infos[2].ID || len(o.Problems) != 3 {
		t.Fatalf("exit code %d, %+v", code, o)
	}
	found := map[string]snapshotProblem{}
	for _, p := range o.Problems {
		found[p.Path] = p
	}
	p := found[fileOf(dir, infos[0])]
	if p.Damage == nil || p.Damage.Blocks != 2 || p.Damage.OfBlocks != about.Blocks || len(p.Damage.List) != 2 || p.Damage.StateBytes != 2*shelfBlock || p.Index != 10 {
		t.Fatalf("%+v, %+v", p, p.Damage)
	}
	first, second := p.Damage.List[0], p.Damage.List[1]
	if first.Block != 0 || first.Offset != header || first.From != 0 || first.To != shelfBlock || first.Reason == "" {
		t.Errorf("the first block: %+v", first)
	}
	if second.Offset > int64(middle) || second.Offset+second.Bytes <= int64(middle) || second.From != second.Block*shelfBlock || second.To != second.From+shelfBlock {
		t.Errorf("the second block: %+v does not have offset %d", second, middle)
	}
	if p := found[fileOf(dir, infos[1])]; p.Damage != nil || p.Offset != infos[1].FileBytes-80 {
		t.Errorf("the footer: %+v", p)
	}
	if p := found[fileOf(dir, infos[3])]; !strings.Contains(p.Text, "version 9") {
		t.Errorf("a newer version: %+v", p)
	}

	r := ballast(t, "snapshot", "verify", dir, infos[0].ID)
	for _, want := range []string{"DAMAGE: snapshots: ", "  block 0, ", "at offset 52: bytes 0 to 4095 of the state are lost", "lost: 8.2 kB in 2 of "} {
		if r.code != exitFailed || !strings.Contains(r.out, want) {
			t.Errorf("exit code %d, no %q", r.code, want)
		}
	}
	if o, code := verifiedSnapshots(t, dir, infos[2].ID, infos[1].ID); code != exitFailed || len(o.Snapshots) != 1 || len(o.Problems) != 1 {
		t.Errorf("two by their IDs: exit code %d, %+v", code, o)
	}
	if out := must(t, "snapshot", "verify", dir, infos[2].ID); !strings.Contains(out, "every byte is good: 1 snapshot,") {
		t.Error("the good one")
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("verify has changed something")
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errInterrupted)
	if o := ballastWith(t, ctx, nil, "snapshot", "verify", dir); o.code != exitInterrupted || o.out != "" {
		t.Errorf("interrupted: exit code %d", o.code)
	}
}

// TestBytesProgress draws at once and then at intervals, and never backwards.
func TestBytesProgress(t *testing.T) {
	var b strings.Builder
	c := newConsole(&b)
	c.width = 80
	p := (&app{console: c}).newBytesProgress("verifying", 2000)
	p.add(500)
	p.add(500) // too soon
	p.drawn = p.began.Add(-redraw)
	p.set(1500)
	if p.at() != 1500 || !strings.Contains(b.String(), "verifying  25%  500 B of 2.0 kB") || !strings.Contains(b.String(), "verifying  75%  1.5 kB of 2.0 kB") || strings.Count(b.String(), "verifying") != 2 {
		t.Errorf("%q", b.String())
	}
}
