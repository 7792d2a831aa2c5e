package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/ballast-raft/ballast/messages"
	"golang.org/x/sys/unix"
)

// tiny is a run of all rows that takes about a second.
func tiny(t *testing.T) benchOptions {
	t.Helper()
	return benchOptions{dir: t.TempDir(), rounds: 2, time: 2 * time.Millisecond, rows: regexp.MustCompile(""), large: true,
		sizes:  benchSizes{small: 3000, medium: 2000, large: 100, overhead: 64, limitFile: 2 << 20},
		volume: func(string) (volume, error) { return volume{"testfs", true, math.MaxInt64}, nil }}
}

// benched runs the benchmark, and wants nothing to stay.
func benched(t *testing.T, ctx context.Context, o benchOptions) (out, errOut string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{out: newOutput(&stdout), console: newConsole(&stderr)}
	err = errors.Join(a.benchLog(ctx, o), a.out.flush())
	t.Logf("%v\n%s%s", err, stdout.String(), stderr.String())
	if left := contents(t, o.dir); len(left) != 1 {
		t.Errorf("the run has left %d files", len(left)-1)
	}
	return stdout.String(), stderr.String(), err
}

// quotients are the figures that are one figure divided by another.
var quotients = map[string][3]string{
	"append":  {"share", "entries_per_second", "limit_entries_per_second"},
	"clients": {"share", "entries_per_second", "limit_entries_per_second"},
	"actors":  {"share", "entries_per_second", "limit_entries_per_second"},
	"groups":  {"same_appenders_ratio", "entries_per_second", "same_appenders_entries_per_second"},
	"open":    {"share", "mb_per_second", "limit_mb_per_second"},
	"read":    {"appender_ratio", "appender_entries_per_second", "appender_alone_entries_per_second"},
	"scan":    {"share", "mb_per_second", "limit_mb_per_second"},
}

func TestBenchLogJSON(t *testing.T) {
	o := tiny(t)
	o.json, o.rounds = true, 1
	stdout, _, err := benched(t, context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	var out benchOutput
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	if out.Version != 1 || out.Bench != "log" || out.Dir != o.dir || out.Filesystem != "testfs" || out.CPUs < 1 || out.Rounds != 1 ||
		out.RowSeconds != o.time.Seconds() || out.Seconds <= 0 || out.Started.IsZero() || !strings.HasPrefix(out.Go, "go") {
		t.Errorf("%+v", out)
	}
	var names []string
	for _, r := range out.Rows {
		names = append(names, r.Name)
		kind, _, _ := strings.Cut(r.Name, "/")
		for name, s := range r.Figures {
			if s.Min > s.Median || s.Median > s.Max || s.Median <= 0 {
				t.Errorf("%s: %s = %+v", r.Name, name, s)
			}
		}
		// With one round the medians are what was measured.
		if q, ok := quotients[kind]; ok && (kind != "read" || strings.HasSuffix(r.Name, "-busy")) {
			got, want := r.Figures[q[0]].Median, r.Figures[q[1]].Median/r.Figures[q[2]].Median
			if math.Abs(got-want) > 1e-9*want || want == 0 {
				t.Errorf("%s: %s = %v, want %s / %s = %v", r.Name, q[0], got, q[1], q[2], want)
			}
		}
		for _, want := range map[string][]string{
			"append": {"mb_per_second", "p50_us", "p99_us", "limit_p50_us", "limit_p99_us"}, "clients": {"p50_us", "p99_us", "limit_p99_us"}, "actors": {"p50_us", "p99_us", "limit_p99_us"},
			"groups": {"ratio", "one_group_entries_per_second", "p50_us", "p99_us"}, "open": {"ms"}, "read": {"reads_per_second", "p50_us", "p99_us", "p999_us"},
			"size": {"bytes_beyond_payload_per_entry", "share_beyond_payload", "directory_bytes", "payload_bytes"},
		}[kind] {
			if _, ok := r.Figures[want]; !ok {
				t.Errorf("%s: no %s", r.Name, want)
			}
		}
	}
	want := strings.Fields("append/1x128 append/1x1KiB append/1x16KiB append/64x128 append/512x128 append/512x1KiB clients/1 clients/64 " +
		"clients/256 actors/1 actors/64 actors/256 groups/1 groups/16 groups/256 open/1Mx128 open/2Mx1KiB read/store read/ask read/store-busy read/ask-busy scan/128 " +
		"scan/1KiB size/1x64 size/1x128 size/64x64 size/64x128")
	if !slices.Equal(names, want) {
		t.Errorf("rows %q, want %q", names, want)
	}
	help := must(t, "help", "bench", "log")
	for _, name := range want {
		if !strings.Contains(help, name) {
			t.Errorf("the help does not tell of %s", name)
		}
	}
}

func TestBenchLogTable(t *testing.T) {
	o := tiny(t)
	o.rows = regexp.MustCompile("^(append/1x128|clients/1|actors/1|groups/16|read/.*|size/1x64)$")
	out, errOut, err := benched(t, context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		` durable appends +entries/s +MB/s +limit +share +p50 µs +p99 µs +limit p50 +limit p99\n─+\n one by one, 128 B +[\d,]+ +\d+\.\d +[\d,]+ +\d+\.\d\d +`,
		`\n 1 client, 128 B  .*\n 1 client actor, 128 B  `,
		`\n 256 appends of 128 B under way +entries/s +one appender +ratio +in one group +ratio +p50 µs +p99 µs\n─+\n 16 groups, an appender each  `,
		`\n one entry of 128 B at random .* ratio +limit\n─+\n from the store  .*\d\n asking the log actor .*\n.*, beside an appender .* \d+\.\d\d +\d+\.\d\d\n`,
		`\n bytes on disk .*\n─+\n one by one, 64 B +\d+\.\d\d +\d+\.\d % +[\d.]+ kB +4\.1 kB\n`,
		`; medians of 2 rounds of 1ms; go1.*, on testfs; .* in all\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("the output does not match %s", want)
		}
	}
	for _, not := range []string{"open", "64 client", "1 group  ", "warning"} {
		if strings.Contains(out+errOut, not) {
			t.Errorf("%q is in the output", not)
		}
	}
}

// TestBenchLogCommand runs it as a user does, but for the time it takes.
func TestBenchLogCommand(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if out := must(t, "bench", "log", "-rows", "^append/64x128$", "-time", "2ms", "-rounds", "1"); !strings.Contains(out, "batches of 64 × 128 B") {
		t.Error("no table")
	}
	if left := contents(t, os.TempDir()); len(left) != 1 {
		t.Errorf("the run has left %d files", len(left)-1)
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	for dir, want := range map[string]string{file: "not a directory", file + "x": "there is no such directory"} {
		if o := ballast(t, "bench", "log", "-dir", dir); o.code != exitFailed || !strings.Contains(o.err, want) {
			t.Errorf("-dir %s: exit code %d, want 1 and %q", dir, o.code, want)
		}
	}
}

// TestBenchLogVolume looks at the disk before anything is written.
func TestBenchLogVolume(t *testing.T) {
	o := tiny(t)
	o.rows = regexp.MustCompile("append/1x128")
	o.volume = func(string) (volume, error) { return volume{"ext4", true, 100 << 20}, nil }
	_, _, err := benched(t, context.Background(), o)
	if !errors.Is(err, messages.ErrDiskFull) || !strings.Contains(err.Error(), o.dir+" has 104.9 MB free, and ") {
		t.Errorf("%v, want ErrDiskFull with both sizes", err)
	}
	o.volume = func(string) (volume, error) { return volume{"tmpfs", false, math.MaxInt64}, nil }
	if _, errOut, err := benched(t, context.Background(), o); err != nil || !strings.Contains(errOut, "warning: "+o.dir+" is on tmpfs, where fdatasync does nothing") {
		t.Errorf("%v, and no warning of tmpfs", err)
	}
	broken := errors.New("no such disk")
	o.volume = func(string) (volume, error) { return volume{}, broken }
	if _, _, err := benched(t, context.Background(), o); !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
	if v, err := volumeOf(o.dir); err != nil || v.filesystem == "" || v.free <= 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := volumeOf(filepath.Join(o.dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
	for magic, want := range map[uint32]string{unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.BTRFS_SUPER_MAGIC: "btrfs", 0x1234: "0x1234"} {
		if name, lasting := fileSystem(magic); name != want || lasting == (want == "tmpfs" || want == "ramfs") {
			t.Errorf("%x: %s, %v", magic, name, lasting)
		}
	}
}

// TestBenchLogInterrupted ends in the middle of a row, of each kind, and leaves
// nothing behind.
func TestBenchLogInterrupted(t *testing.T) {
	for _, rows := range []string{"append/64x128", "clients/64", "actors/64", "groups/256", "open/1M", "read/ask-busy", "read/store-busy", "scan", "size"} {
		ctx, cancel := context.WithCancel(context.Background())
		o := tiny(t)
		o.rows, o.time = regexp.MustCompile(rows), time.Hour
		o.sizes.overhead = 1 << 30
		timer := time.AfterFunc(20*time.Millisecond, cancel)
		if out, _, err := benched(t, ctx, o); !errors.Is(err, context.Canceled) || out != "" {
			t.Errorf("%s: %v and %q, want nothing but context.Canceled", rows, err, out)
		}
		timer.Stop()
	}
}

// TestBenchFails names the row that has failed.
func TestBenchFails(t *testing.T) {
	broken := errors.New("broken")
	b := newBench(&app{console: newConsole(io.Discard)}, tiny(t))
	row := &benchRow{name: "some/row", measure: func(context.Context, int) (figures, error) { return nil, broken }}
	if err := b.section(context.Background(), &benchSection{rows: []*benchRow{row}}); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "some/row: ") {
		t.Errorf("%v", err)
	}
}

// TestFront measures more clients than there are processors, and a disk that
// fails.
func TestFront(t *testing.T) {
	l, err := newLimit(filepath.Join(t.TempDir(), "limit"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	latencies := make([]*hdrhistogram.Histogram, 50)
	for i := range latencies {
		latencies[i] = newLatency()
	}
	var w window
	for range 3 {
		perSecond, err := newFront(l).measure(context.Background(), &w, 5*time.Millisecond, 100, latencies)
		if n := merged(latencies).TotalCount(); err != nil || perSecond <= 0 || n == 0 {
			t.Errorf("%v a second, %d latencies, %v", perSecond, n, err)
		}
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := newFront(l).measure(context.Background(), &w, time.Hour, 100, latencies); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// TestLimit goes around in its file.
func TestLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limit")
	l, err := newLimit(path, 10000)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{6000, 4000, 1, 9999, 10000} {
		if err := l.write(n); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := l.read(); n != 10000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, payload(10000)) {
		t.Errorf("%d bytes, %v: not what was written", len(b), err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 1}, spread{2.5, 1, 4}},
		{[]float64{9, 2, 4}, spread{4, 2, 9}},
		{[]float64{9, 2, 4, 5}, spread{4.5, 2, 9}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.values, got, c.want)
		}
	}
	// The share is the median of shares, not the share of the medians.
	r := &benchRow{rounds: []figures{{"share": 0.1, "rate": 1}, {"share": 0.5, "rate": 9}, {"share": 0.4, "rate": 2}}}
	if got := r.spreads(); got["share"] != (spread{0.4, 0.1, 0.5}) || got["rate"].Median != 2 {
		t.Errorf("%+v", got)
	}
	if share(1, 0) != 0 {
		t.Error("a share of nothing is not zero")
	}
}

// TestInTurn changes the order from round to round.
func TestInTurn(t *testing.T) {
	var order string
	step := func(s string, err error) func() error { return func() error { order += s; return err } }
	for round := range 3 {
		if err := inTurn(round, step("a", nil), step("b", nil)); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	if err := inTurn(1, step("x", nil), step("y", broken)); err != broken || order != "abbaaby" {
		t.Errorf("%q, %v", order, err)
	}
}
