package main

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

const shelfBlock = 4096

// kvState is exported application data of n keys, of some 120 bytes each that
// hardly compress.
func kvState(t *testing.T, n int) []byte {
	t.Helper()
	db, err := kv.Open(t.TempDir(), kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	random := rand.New(rand.NewPCG(1, 2))
	var ops []messages.Operation
	for i := range n {
		ops = append(ops, messages.PutOperation(fmt.Appendf(nil, "key/%06d", i), fmt.Appendf(nil, `{"n":%d,"x":"%016x%016x%016x%016x%016x"}`, i,
			random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())))
	}
	ops = append(ops, messages.PutOperation([]byte("\xff\x00"), []byte("\xff\x00binary")))
	if _, err := db.Write(0, ops); err != nil {
		t.Fatal(err)
	}
	view, err := db.OpenExport(0)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	state, err := io.ReadAll(view)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// keep writes a snapshot into a directory of snapshots.
func keep(t *testing.T, dir string, group, index uint64, created time.Time, meta, state []byte) messages.SnapshotInfo {
	t.Helper()
	return keepOf(t, dir, group, index, 3, created, meta, state)
}

func keepOf(t *testing.T, dir string, group, index, term uint64, created time.Time, meta, state []byte) messages.SnapshotInfo {
	t.Helper()
	d, err := snapshot.OpenDir(dir, snapshot.Options{BlockBytes: shelfBlock, Now: func() time.Time { return created }})
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.Create(group, index, term, meta)
	if err == nil {
		_, err = w.Write(state)
	}
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return info
}

const shelfKeys = 6000

// shelf is a directory of snapshots alone: of group 0 at 10, 20 and 30, four,
// three and two hours old, and of group 7 at 5.
func shelf(t *testing.T) (dir string, infos []messages.SnapshotInfo) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "copies")
	state := kvState(t, shelfKeys)
	now := time.Now()
	for i := range uint64(3) {
		infos = append(infos, keep(t, dir, 0, 10*(i+1), now.Add(time.Duration(i)*time.Hour-4*time.Hour), nil, state))
	}
	return dir, append(infos, keep(t, dir, 7, 5, now.Add(-time.Hour), []byte("members: a b"), []byte("no application data")))
}

func fileOf(dir string, info messages.SnapshotInfo) string {
	return filepath.Join(dir, info.ID+".snap")
}

func listed(t *testing.T, args ...string) (rows []snapshotRow, code int) {
	t.Helper()
	o := ballast(t, append([]string{"snapshot", "list", "-json"}, args...)...)
	for line := range strings.Lines(o.out) {
		var r snapshotRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows, o.code
}

// TestSnapshotList has a file in every state that there is.
func TestSnapshotList(t *testing.T) {
	dir, infos := shelf(t)
	rows, code := listed(t, dir)
	if code != exitOK || len(rows) != 4 || rows[0].ID != infos[2].ID || rows[2].ID != infos[0].ID || rows[3].Group != 7 {
		t.Fatalf("exit code %d, %+v", code, rows)
	}
	for _, r := range rows {
		if r.State != stateGood || r.Codec != "zstd" || r.RawBytes == 0 || len(r.ContentHash) != 64 || r.Saved == nil || r.Name != r.ID+".snap" {
			t.Errorf("%+v", r)
		}
	}
	if rows, _ := listed(t, dir, "-group", "7"); len(rows) != 1 || rows[0].Index != 5 {
		t.Errorf("group 7: %+v", rows)
	}
	// The first is set aside, the second damaged, the third of a newer version,
	// and one of group 7 is unfinished.
	change(t, fileOf(dir, infos[0]), func(b []byte) []byte { b[20] ^= 1; return b })
	d, err := snapshot.OpenDir(dir, snapshot.Options{BlockBytes: shelfBlock})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.SetAside(infos[0].ID); err != nil {
		t.Fatal(err)
	}
	w, _, err := d.Resume(7, 6, 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 3*shelfBlock)); err != nil {
		t.Fatal(err)
	}
	if err := w.Suspend(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, fileOf(dir, infos[1]), func(b []byte) []byte { return b[:len(b)-1] })
	change(t, fileOf(dir, infos[2]), newerVersion)
	writeFile(t, filepath.Join(dir, "x.snap.tmp"), "left by a crash")
	before := contents(t, dir)
	rows, code = listed(t, dir)
	if code != exitFailed {
		t.Errorf("exit code %d, want 1 because one is damaged", code)
	}
	got := map[uint64]snapshotRow{}
	for _, r := range rows {
		got[r.Index] = r
		if r.FileBytes == 0 || r.Name == "" {
			t.Errorf("%+v", r)
		}
	}
	for index, want := range map[uint64]string{10: stateAside, 20: stateDamaged, 30: stateNewer, 5: stateGood, 6: stateUnfinished} {
		if got[index].State != want || want != stateGood && got[index].Problem == "" {
			t.Errorf("index %d is %+v, want %q", index, got[index], want)
		}
	}
	o := ballast(t, "snapshot", "list", dir)
	for _, want := range []string{"DAMAGE: snapshots: corrupt: " + fileOf(dir, infos[1]), infos[0].ID + ".snap.damaged", "a save", "is a leftover", "set aside", "newer version"} {
		if !strings.Contains(o.out, want) {
			t.Errorf("no %q", want)
		}
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("list has changed something")
	}
	// The names it prints are what discard takes.
	for _, index := range []uint64{10, 6} {
		must(t, "snapshot", "discard", dir, got[index].Name)
		if o := ballast(t, "snapshot", "discard", dir, got[index].Name); o.code != exitFailed || !strings.Contains(o.err, "no such file") {
			t.Errorf("twice: exit code %d", o.code)
		}
	}
	if o := ballast(t, "snapshot", "discard", dir, infos[3].ID+".snap"); o.code != exitFailed || !strings.Contains(o.err, "not the name of an unfinished file") {
		t.Errorf("discard of a good one: exit code %d", o.code)
	}
	rows, _ = listed(t, dir)
	if len(rows) != 3 {
		t.Errorf("after discarding: %+v", rows)
	}
}

// newerVersion makes a snapshot one of format version 9, with a header CRC that
// is right.
func newerVersion(b []byte) []byte {
	b[8] = 9
	meta := int(b[40]) | int(b[41])<<8
	end := 48 + meta
	sum := crc32c(b[:end])
	b[end], b[end+1], b[end+2], b[end+3] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	return b
}

func TestSnapshotShow(t *testing.T) {
	dir, infos := shelf(t)
	out := must(t, "snapshot", "show", dir, "latest")
	for _, want := range []string{infos[2].ID, "index         30", "blocks of 4.1 kB", "codec zstd", "6,001 keys", fmt.Sprintf("%x", infos[2].ContentHash), "metadata      none"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	var o showOutput
	if err := json.Unmarshal([]byte(must(t, "snapshot", "show", "-json", dir, infos[3].ID)), &o); err != nil {
		t.Fatal(err)
	}
	if o.Meta == nil || *o.Meta != "members: a b" || o.Data != nil || o.BlockBytes != shelfBlock || o.Blocks != 1 || o.Path != fileOf(dir, infos[3]) {
		t.Errorf("%+v", o)
	}
	binary := keep(t, dir, 8, 1, time.Now(), []byte{0, 0xff}, nil)
	if out := must(t, "snapshot", "show", dir, "latest", "-group", "8"); !strings.Contains(out, "2 bytes, hexadecimal: 00ff") || !strings.Contains(out, binary.ID) || !strings.Contains(out, "empty") {
		t.Error("binary metadata of an empty snapshot")
	}
	change(t, fileOf(dir, infos[2]), func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	if o := ballast(t, "snapshot", "show", dir, infos[2].ID); o.code != exitFailed || !strings.Contains(o.err, "the footer fails its checksum") {
		t.Errorf("a damaged one: exit code %d", o.code)
	}
	// The newest good one is shown, and it is said that it is not the newest.
	if o := ballast(t, "snapshot", "show", dir, "latest"); o.code != exitOK || !strings.Contains(o.out, infos[1].ID) || !strings.Contains(o.err, "note: ") {
		t.Errorf("the newest is damaged: exit code %d", o.code)
	}
}

// TestSnapshotDirectories finds the same snapshots by every way there is, and
// makes no directory by reading.
func TestSnapshotDirectories(t *testing.T) {
	dir := library(t)
	id := strings.Fields(must(t, "snapshot", dir))[0]
	for _, args := range [][]string{{dir}, {"-dir", dir}, {filepath.Join(dir, snapshotDir)}} {
		if rows, code := listed(t, args...); code != exitOK || len(rows) != 1 || rows[0].ID != id {
			t.Errorf("%q: exit code %d, %+v", args, code, rows)
		}
	}
	copied := t.TempDir()
	writeFile(t, filepath.Join(copied, id+".snap"), contents(t, dir)[filepath.Join(dir, snapshotDir, id+".snap")])
	for _, c := range []string{"list DIR", "show DIR latest", "get DIR latest -prefix x", "verify DIR", "export DIR latest", "prune DIR -keep 1 -dry-run"} {
		if o := ballast(t, append([]string{"snapshot"}, strings.Fields(strings.ReplaceAll(c, "DIR", copied))...)...); o.code != exitOK {
			t.Errorf("%s of a copy: exit code %d", c, o.code)
		}
	}
	if got := contents(t, copied); len(got) != 2 {
		t.Errorf("reading has made %v", slices.Collect(maps.Keys(got)))
	}
	empty, other, bare := t.TempDir(), t.TempDir(), t.TempDir()
	none := filepath.Join(empty, "none")
	writeFile(t, filepath.Join(other, "LOCK"), "")
	writeFile(t, filepath.Join(other, "MANIFEST"), "")
	if err := os.Mkdir(filepath.Join(bare, logDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"list DIR", "show DIR latest", "get DIR latest k", "verify DIR", "export DIR latest", "delete DIR " + id, "prune DIR -keep 1", "discard DIR x"} {
		for dir, want := range map[string]string{none: "no such directory", empty: "there are no Ballast snapshots", other: "there are no Ballast snapshots", bare: "no snapshots"} {
			o := ballast(t, append([]string{"snapshot"}, strings.Fields(strings.ReplaceAll(c, "DIR", dir))...)...)
			if o.code != exitFailed || !strings.Contains(o.err, want) {
				t.Errorf("%s on %s: exit code %d, want 1 and %q", c, dir, o.code, want)
			}
		}
	}
	if got := contents(t, empty); len(got) != 1 {
		t.Errorf("reading has made %v", got)
	}
	writeFile(t, filepath.Join(other, "in"), "")
	if o := ballast(t, "snapshot", "import", other, filepath.Join(other, "in")); o.code != exitFailed || !strings.Contains(o.err, "there are no Ballast snapshots") {
		t.Errorf("import into a directory of something else: exit code %d", o.code)
	}
}

func TestSnapshotBadUsage(t *testing.T) {
	dir, infos := shelf(t)
	before := contents(t, dir)
	for _, c := range []struct{ args, want string }{
		{"lst DIR", `there is no command "lst"; did you mean list?`},
		{"list", "snapshot list: which data directory?"},
		{"list DIR x", `unexpected argument "x"`},
		{"show DIR", "too few arguments"},
		{"show DIR x", "no ID of a snapshot"},
		{"show DIR ID -group 1", "-group is for 'latest'"},
		{"get DIR", "too few arguments"},
		{"get DIR latest", "which KEY?"},
		{"get DIR latest k -prefix p", "a KEY excludes -prefix"},
		{"get DIR latest k -limit 1", "-limit is for a range"},
		{"get DIR latest -prefix p -to x", "-prefix excludes -from and -to"},
		{"get DIR latest -from b -to a", "-from lies behind -to"},
		{"get DIR latest -hex xyz", `the key "xyz" is not hexadecimal`},
		{"get DIR latest -prefix p -limit -1", "is negative"},
		{"verify DIR -all ID", "-all excludes an ID"},
		{"verify DIR x", "no ID of a snapshot"},
		{"export DIR", "too few arguments"},
		{"export DIR latest -offset -1", "is negative"},
		{"import", "which data directory?"},
		{"import DIR a b", `unexpected argument "b"`},
		{"delete DIR", "too few arguments"},
		{"delete DIR latest", "no ID of a snapshot"},
		{"prune DIR", "by which bound?"},
		{"prune DIR -keep 0", "at least one snapshot stays"},
		{"prune DIR -max-age 0s", "more than zero"},
		{"prune DIR -max-bytes lots", "no number of bytes"},
		{"prune DIR -max-bytes 3XB", "no number of bytes"},
		{"prune DIR -max-bytes 0", "one byte at least"},
		{"discard DIR", "too few arguments"},
	} {
		args := strings.Fields(strings.NewReplacer("DIR", dir, "ID", infos[0].ID).Replace(c.args))
		o := ballast(t, append([]string{"snapshot"}, args...)...)
		if o.code != exitUsage || !strings.Contains(o.err, c.want) || o.out != "" {
			t.Errorf("snapshot %s: exit code %d, want 2 and %q", c.args, o.code, c.want)
		}
	}
	for _, c := range []string{"show DIR ID", "get DIR ID k", "verify DIR ID", "export DIR ID", "delete DIR ID"} {
		args := strings.Fields(strings.NewReplacer("DIR", dir, "ID", strings.Repeat("0", 16)+infos[0].ID[16:50]+"-000000000001").Replace(c))
		if o := ballast(t, append([]string{"snapshot"}, args...)...); o.code != exitFailed || !strings.Contains(o.err, "no such snapshot") || o.out != "" {
			t.Errorf("snapshot %s of one that is not there: exit code %d", c, o.code)
		}
	}
	if o := ballast(t, "snapshot", "show", dir, "latest", "-group", "5"); o.code != exitFailed || !strings.Contains(o.err, "group 5 has no snapshot") {
		t.Errorf("latest of an empty group: exit code %d", o.code)
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("bad usage has changed something")
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "500MB": 500e6, "1.5 GB": 15e8, "2GiB": 2 << 30, "7kB": 7000, "3TiB": 3 << 40} {
		if got, err := parseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "GB", "NaN", "1e30", "5 BB", "0.1"} {
		if got, err := parseBytes(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

func crc32c(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
