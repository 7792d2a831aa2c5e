package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// stream is a snapshot as export writes it.
func stream(t *testing.T, dir, id string, args ...string) []byte {
	t.Helper()
	var out, errOut bytes.Buffer // not must, which logs what is printed
	if code := run(context.Background(), append([]string{"ballast", "snapshot", "export", dir, id}, args...), nil, &out, &errOut); code != exitOK {
		t.Fatalf("export: exit code %d, %s", code, &errOut)
	}
	return out.Bytes()
}

// imports runs import on a stream.
func imports(t *testing.T, in io.Reader, dir string, args ...string) outcome {
	t.Helper()
	return ballastWith(t, context.Background(), in, append([]string{"snapshot", "import", "-dir", dir}, args...)...)
}

type importedOutput struct {
	ID      string `json:"id"`
	There   bool   `json:"was_there"`
	Resumed int64  `json:"resumed_at"`
}

// arrives imports a stream, which must succeed, and compares the file.
func arrives(t *testing.T, in io.Reader, dir, original string, info messages.SnapshotInfo) (o importedOutput) {
	t.Helper()
	r := imports(t, in, dir, "-json")
	if r.code != exitOK {
		t.Fatalf("exit code %d", r.code)
	}
	if err := json.Unmarshal([]byte(r.out), &o); err != nil {
		t.Fatal(err)
	}
	sameFile(t, dir, original, info)
	return o
}

func sameFile(t *testing.T, dir, original string, info messages.SnapshotInfo) {
	t.Helper()
	want, err := os.ReadFile(fileOf(original, info))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(fileOf(dir, info)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy of %s differs, or there is none: %v", info.ID, err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*.import")); err != nil || len(names) > 0 {
		t.Errorf("%q are left, %v", names, err)
	}
}

func TestSnapshotExportImport(t *testing.T) {
	dir, infos := shelf(t)
	copies := filepath.Join(t.TempDir(), "copies", "below")
	path := filepath.Join(t.TempDir(), "copy")
	if out := must(t, "snapshot", "export", dir, "latest", "-o", path); !strings.Contains(out, infos[2].ID) {
		t.Errorf("%q", out)
	}
	onDisk, err := os.ReadFile(path)
	if piped := stream(t, dir, infos[2].ID); err != nil || !bytes.Equal(onDisk, piped) || int64(len(piped)) != infos[2].FileBytes+snapshot.EnvelopeBytes {
		t.Errorf("%d bytes in the file, %d through the pipe, %v", len(onDisk), len(piped), err)
	}
	if o := ballast(t, "snapshot", "export", dir, "latest", "-o", path); o.code != exitFailed || !strings.Contains(o.err, "there is such a file already") {
		t.Errorf("over a file: exit code %d", o.code)
	}
	if o := ballast(t, "snapshot", "export", dir, "latest", "-o", t.TempDir()); o.code != exitFailed || !strings.Contains(o.err, "a directory") {
		t.Errorf("to a directory: exit code %d", o.code)
	}
	if out := must(t, "snapshot", "import", copies, path); !strings.Contains(out, infos[2].ID) || !strings.Contains(out, "every byte is good") {
		t.Errorf("%q", out)
	}
	sameFile(t, copies, dir, infos[2])
	before := contents(t, copies)
	if o := arrives(t, bytes.NewReader(onDisk), copies, dir, infos[2]); !o.There || o.ID != infos[2].ID {
		t.Errorf("again: %+v", o)
	}
	if !maps.Equal(before, contents(t, copies)) {
		t.Error("importing it again has changed something")
	}
	for _, info := range []messages.SnapshotInfo{infos[0], infos[3]} {
		if o := arrives(t, bytes.NewReader(stream(t, dir, info.ID)), copies, dir, info); o.There || o.Resumed != 0 {
			t.Errorf("%+v", o)
		}
	}
	if out := must(t, "snapshot", "verify", copies); !strings.Contains(out, "3 snapshots") {
		t.Errorf("%q", out)
	}
}

// TestSnapshotImportBroken cuts the stream in many places and goes on, once with
// all of it and once with the rest; and has streams that are good for nothing.
func TestSnapshotImportBroken(t *testing.T) {
	dir, infos := shelf(t)
	info := infos[2]
	whole := stream(t, dir, info.ID)
	offset := regexp.MustCompile(`export -offset (\d+) DIR ` + info.ID + ` \| ballast snapshot import -dir `)
	for _, c := range []struct {
		cut  int
		want string
		kept bool
	}{
		{0, "the input is empty", false},
		{10, "the input ends after 10 bytes", false},
		{snapshot.EnvelopeBytes, "the input ends after 80 bytes", false},
		{snapshot.EnvelopeBytes + 52, "the input has ended after 52 B of", false},
		{snapshot.EnvelopeBytes + 500, "the input has ended after 500 B of", false},
		{len(whole) / 3, "are kept as " + info.ID + ".snap.import", true},
		{len(whole) - 1, "are kept as " + info.ID + ".snap.import", true},
	} {
		for _, rest := range []bool{false, true} {
			copies := t.TempDir()
			o := imports(t, bytes.NewReader(whole[:c.cut]), copies)
			if o.code != exitFailed || !strings.Contains(o.err, c.want) || o.out != "" {
				t.Errorf("cut at %d: exit code %d, want 1 and %q", c.cut, o.code, c.want)
			}
			m := offset.FindStringSubmatch(o.err)
			if (m != nil) != c.kept {
				t.Fatalf("cut at %d: says how to go on: %v, want %v", c.cut, m != nil, c.kept)
			}
			if rows, _ := listed(t, copies); (len(rows) == 1 && rows[0].State == stateUnfinished) != c.kept {
				t.Errorf("cut at %d: %+v", c.cut, rows)
			}
			next := whole
			if rest && c.kept {
				next = stream(t, dir, info.ID, "-offset", m[1])
			}
			var kept *os.File // open, so that its number is not given to another
			if c.kept {
				var err error
				if kept, err = os.Open(filepath.Join(copies, info.ID+".snap.import")); err != nil {
					t.Fatal(err)
				}
			}
			if o := arrives(t, bytes.NewReader(next), copies, dir, info); c.kept && fmt.Sprint(o.Resumed) != m[1] || !c.kept && o.Resumed != 0 {
				t.Errorf("cut at %d: resumed at %d, and it was said %q", c.cut, o.Resumed, m)
			}
			if c.kept {
				before, err := kept.Stat()
				after, errAfter := os.Stat(fileOf(copies, info))
				if err := errors.Join(err, errAfter, kept.Close()); err != nil || !os.SameFile(before, after) {
					t.Errorf("cut at %d: it was begun anew, %v", c.cut, err)
				}
			}
		}
	}

	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   string
	}{
		"garbage":         {func(b []byte) []byte { return bytes.Repeat([]byte("garbage\n"), 1000) }, "no export of a snapshot"},
		"the file itself": {func(b []byte) []byte { return b[snapshot.EnvelopeBytes:] }, "no export of a snapshot"},
		"envelope":        {func(b []byte) []byte { b[30] ^= 1; return b }, "the envelope fails its checksum"},
		"header":          {func(b []byte) []byte { b[snapshot.EnvelopeBytes+20] ^= 1; return b }, "the header fails its checksum"},
		"a block":         {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "it arrived damaged, and was thrown away"},
		"the footer":      {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "it arrived damaged, and was thrown away"},
		"too long":        {func(b []byte) []byte { return append(b, "more"...) }, "nothing is kept"},
	} {
		copies := t.TempDir()
		o := imports(t, bytes.NewReader(c.change(bytes.Clone(whole))), copies)
		if o.code != exitFailed || !strings.Contains(o.err, c.want) || o.out != "" {
			t.Errorf("%s: exit code %d, want 1 and %q", name, o.code, c.want)
		}
		if got := contents(t, copies); len(got) > 2 { // and LOCK
			t.Errorf("%s has left %q", name, slices.Collect(maps.Keys(got)))
		}
	}
}

// TestSnapshotImportGap has the end of a stream, and not what comes before it.
func TestSnapshotImportGap(t *testing.T) {
	dir, infos := shelf(t)
	info := infos[2]
	copies := t.TempDir()
	end := stream(t, dir, info.ID, "-offset", "100000")
	if o := imports(t, bytes.NewReader(end), copies); o.code != exitFailed || !strings.Contains(o.err, "no import that it could go on with; export without -offset") {
		t.Errorf("nothing is there: exit code %d", o.code)
	}
	imports(t, bytes.NewReader(stream(t, dir, info.ID)[:50000]), copies)
	o := imports(t, bytes.NewReader(end), copies)
	if o.code != exitFailed || !strings.Contains(o.err, errGap.Error()) || !strings.Contains(o.err, "are kept as") {
		t.Errorf("too little is there: exit code %d", o.code)
	}
	// What is there before the offset is no harm, the other way round.
	if o := arrives(t, bytes.NewReader(stream(t, dir, info.ID, "-offset", "1000")), copies, dir, info); o.Resumed < 40000 {
		t.Errorf("%+v", o)
	}
}

func TestSnapshotImportConflict(t *testing.T) {
	dir, infos := shelf(t)
	copies := t.TempDir()
	keep(t, copies, 0, 30, infos[2].Created, nil, []byte("something else"))
	before := contents(t, copies)
	if o := imports(t, bytes.NewReader(stream(t, dir, infos[2].ID)), copies); o.code != exitFailed || !strings.Contains(o.err, "something else has this ID here") {
		t.Errorf("exit code %d", o.code)
	}
	if !maps.Equal(before, contents(t, copies)) {
		t.Error("something has changed")
	}
}

// TestSnapshotPipe runs both ends at once, with a pipe between them.
func TestSnapshotPipe(t *testing.T) {
	dir, infos := shelf(t)
	copies := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exported := make(chan int)
	go func() {
		var errOut bytes.Buffer
		code := run(context.Background(), []string{"ballast", "snapshot", "export", dir, "latest"}, nil, w, &errOut)
		if err := w.Close(); err != nil || code != exitOK {
			t.Errorf("export: exit code %d, %s, %v", code, errOut.String(), err)
		}
		exported <- code
	}()
	arrives(t, r, copies, dir, infos[2])
	<-exported
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// command is the command in a process of its own.
func command(t *testing.T, args ...string) (c *exec.Cmd, errOut *bytes.Buffer) {
	t.Helper()
	c = exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asBallast+"=1")
	errOut = new(bytes.Buffer)
	c.Stderr = errOut
	return c, errOut
}

func ended(t *testing.T, c *exec.Cmd, errOut *bytes.Buffer) int {
	t.Helper()
	err := c.Wait()
	t.Logf("ballast %q: %v\n%s", c.Args[1:], err, errOut)
	return c.ProcessState.ExitCode()
}

func TestSnapshotTwoProcesses(t *testing.T) {
	dir, infos := shelf(t)
	copies := filepath.Join(t.TempDir(), "copies")
	from, fromErr := command(t, "snapshot", "export", dir, "latest")
	to, toErr := command(t, "snapshot", "import", "-dir", copies)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from.Stdout, to.Stdin = w, r
	if err := errors.Join(from.Start(), to.Start(), r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if a, b := ended(t, from, fromErr), ended(t, to, toErr); a != exitOK || b != exitOK {
		t.Errorf("exit codes %d and %d", a, b)
	}
	sameFile(t, copies, dir, infos[2])
}

// TestSnapshotImportKilled ends a process in the middle: what has come is kept,
// and the next one goes on.
func TestSnapshotImportKilled(t *testing.T) {
	dir, infos := shelf(t)
	whole := stream(t, dir, infos[2].ID)
	if len(whole) < 250_000 {
		t.Fatalf("a stream of %d bytes is too short for this test", len(whole))
	}
	for _, c := range []struct {
		signal os.Signal
		code   int
		want   string
	}{
		{os.Interrupt, exitInterrupted, "of the import are kept as"},
		{syscall.SIGTERM, exitInterrupted, "of the import are kept as"},
		{os.Kill, -1, ""},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			copies := t.TempDir()
			to, errOut := command(t, "snapshot", "import", "-dir", copies)
			in, err := to.StdinPipe()
			if err == nil {
				err = to.Start()
			}
			// A pipe holds 64 KiB, so most of it has been read when this returns.
			if err == nil {
				_, err = in.Write(whole[:200_000])
			}
			if err == nil {
				err = to.Process.Signal(c.signal)
			}
			if err != nil {
				t.Fatal(err)
			}
			if code := ended(t, to, errOut); code != c.code || !strings.Contains(errOut.String(), c.want) {
				t.Errorf("exit code %d, want %d and %q", code, c.code, c.want)
			}
			if rows, _ := listed(t, copies); len(rows) != 1 || rows[0].State != stateUnfinished {
				t.Errorf("%+v", rows)
			}
			if o := arrives(t, bytes.NewReader(whole), copies, dir, infos[2]); o.Resumed < 60_000 || o.Resumed > 200_000 {
				t.Errorf("%+v", o)
			}
		})
	}
}

// haltingReader yields some bytes, then ends the context and never returns.
type haltingReader struct {
	b      []byte
	cancel func()
	never  chan struct{}
}

func (r *haltingReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		r.cancel()
		<-r.never
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// TestSnapshotInterrupted ends both commands while a pipe blocks.
func TestSnapshotInterrupted(t *testing.T) {
	dir, infos := shelf(t)
	whole := stream(t, dir, infos[2].ID)
	never := make(chan struct{})
	defer close(never)
	for n, want := range map[int]string{0: "nothing has come yet", 1000: "of the import are kept as", len(whole) / 2: "of the import are kept as"} {
		copies := t.TempDir()
		ctx, cancel := context.WithCancelCause(context.Background())
		in := &haltingReader{whole[:n:n], func() { cancel(errInterrupted) }, never}
		if o := ballastWith(t, ctx, in, "snapshot", "import", copies); o.code != exitInterrupted || !strings.Contains(o.err, want) {
			t.Errorf("import of %d bytes: exit code %d, want 130 and %q", n, o.code, want)
		}
		arrives(t, bytes.NewReader(whole), copies, dir, infos[2])
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	var errOut bytes.Buffer
	if code := run(ctx, []string{"ballast", "snapshot", "export", dir, "latest"}, nil, haltingWriter{func() { cancel(errInterrupted) }, never}, &errOut); code != exitInterrupted {
		t.Errorf("export into a pipe that nobody reads: exit code %d, %s", code, &errOut)
	}
	path := filepath.Join(t.TempDir(), "copy")
	if o := ballastWith(t, ctx, nil, "snapshot", "export", dir, "latest", "-o", path); o.code != exitInterrupted || !strings.Contains(o.err, "was not written") {
		t.Errorf("export to a file: exit code %d", o.code)
	}
	if got := contents(t, filepath.Dir(path)); len(got) != 1 {
		t.Errorf("%q are left", slices.Collect(maps.Keys(got)))
	}
}

type haltingWriter struct {
	cancel func()
	never  chan struct{}
}

func (w haltingWriter) Write(p []byte) (int, error) {
	w.cancel()
	<-w.never
	return 0, io.ErrClosedPipe
}

// TestSnapshotExportFails in every way that a target can fail, and if there is
// damage.
func TestSnapshotExportFails(t *testing.T) {
	dir, infos := shelf(t)
	if o := ballast(t, "snapshot", "export", dir, "latest", "-o", "/dev/full"); o.code != exitFailed || !strings.Contains(o.err, "disk full") {
		t.Errorf("a full device: exit code %d", o.code)
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	if code := run(context.Background(), []string{"ballast", "snapshot", "export", dir, "latest"}, nil, terminal, &errOut); code != exitFailed || !strings.Contains(errOut.String(), "standard output is a terminal") {
		t.Errorf("to a terminal: exit code %d, %s", code, &errOut)
	}
	if o := imports(t, terminal, t.TempDir()); o.code != exitUsage || !strings.Contains(o.err, "standard input is a terminal") {
		t.Errorf("import from a terminal: exit code %d", o.code)
	}
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	// The reader of the pipe has gone; the file is longer than a pipe holds.
	from, fromErr := command(t, "snapshot", "export", dir, "latest")
	out, err := from.StdoutPipe()
	if err == nil {
		err = from.Start()
	}
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, 1000))
	}
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	if code := ended(t, from, fromErr); code != exitFailed || !strings.Contains(fromErr.String(), "whoever reads the pipe has closed it") {
		t.Errorf("a broken pipe: exit code %d", code)
	}
	// A file of the same name that another export may be writing.
	path := filepath.Join(t.TempDir(), "copy")
	writeFile(t, path+".tmp", "another")
	if o := ballast(t, "snapshot", "export", dir, "latest", "-o", path); o.code != exitFailed || !strings.Contains(o.err, "another export is writing it") {
		t.Errorf("exit code %d", o.code)
	}
	if got := contents(t, filepath.Dir(path)); got[path+".tmp"] != "another" || len(got) != 2 {
		t.Errorf("%q", got)
	}
	// A file of the same name that has come while the export went on.
	path = filepath.Join(t.TempDir(), "copy")
	to, err := (&app{}).newTarget(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "somebody's")
	if err := to.finish(nil); err == nil || !strings.Contains(err.Error(), "there is such a file now") {
		t.Errorf("a file that has come: %v", err)
	}
	if got := contents(t, filepath.Dir(path)); got[path] != "somebody's" || len(got) != 2 {
		t.Errorf("%q", got)
	}
	if o := ballast(t, "snapshot", "export", dir, "latest", "-offset", "10000000"); o.code != exitFailed || o.out != "" || !strings.Contains(o.err, "there is no offset 10000000") {
		t.Errorf("an offset behind the end: exit code %d", o.code)
	}
	change(t, fileOf(dir, infos[2]), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	path = filepath.Join(t.TempDir(), "copy")
	if o := ballast(t, "snapshot", "export", dir, "latest", "-o", path); o.code != exitFailed || !strings.Contains(o.err, "the copy is not complete") || !strings.Contains(o.err, fileOf(dir, infos[2])) {
		t.Errorf("a damaged one: exit code %d", o.code)
	}
	if got := contents(t, filepath.Dir(path)); len(got) != 1 {
		t.Errorf("%q are left of it", slices.Collect(maps.Keys(got)))
	}
}

// TestSnapshotImportDiskFull meets a real limit, as that of a full disk: that on
// the length of a file. It is one of the process, so another process takes it.
func TestSnapshotImportDiskFull(t *testing.T) {
	const child = "BALLAST_TEST_DISK_FULL"
	if os.Getenv(child) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestSnapshotImportDiskFull$", "-test.v")
		c.Env = append(os.Environ(), child+"=1")
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestSnapshotImportDiskFull") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir, infos := shelf(t)
	whole := stream(t, dir, infos[2].ID)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	for limit, kept := range map[uint64]bool{1000: false, 150_000: true} {
		copies, path := t.TempDir(), filepath.Join(t.TempDir(), "copy")
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
		o := imports(t, bytes.NewReader(whole), copies)
		e := ballast(t, "snapshot", "export", dir, "latest", "-o", path)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
		if o.code != exitFailed || !strings.Contains(o.err, "there is no room for the rest") || strings.Contains(o.err, "are kept as") != kept {
			t.Errorf("limit %d: exit code %d", limit, o.code)
		}
		if e.code != exitFailed || !strings.Contains(e.err, "disk full") || len(contents(t, filepath.Dir(path))) != 1 {
			t.Errorf("export, limit %d: exit code %d", limit, e.code)
		}
		if o := arrives(t, bytes.NewReader(whole), copies, dir, infos[2]); (o.Resumed > 0) != kept {
			t.Errorf("limit %d: %+v", limit, o)
		}
	}
}

// TestSnapshotImportIntoService refuses what a service would prefer to its log.
func TestSnapshotImportIntoService(t *testing.T) {
	from, to := library(t), library(t)
	mustRead(t, "1\n2\n3\n", "load", from, "-name", "more")
	must(t, "snapshot", from)
	must(t, "snapshot", to)
	before := contents(t, filepath.Join(to, snapshotDir))
	whole := stream(t, from, "latest")
	for _, dir := range []string{to, filepath.Join(to, snapshotDir)} {
		if o := imports(t, bytes.NewReader(whole), dir); o.code != exitFailed || !strings.Contains(o.err, errBeyond.Error()) {
			t.Errorf("%s: exit code %d, want 1 and %q", dir, o.code, errBeyond)
		}
	}
	if !maps.Equal(before, contents(t, filepath.Join(to, snapshotDir))) {
		t.Fatal("something was imported")
	}
	if o := imports(t, bytes.NewReader(whole), to, "-force"); o.code != exitOK {
		t.Errorf("-force: exit code %d", o.code)
	}
	// A new node, which has nothing yet, takes it, and says how to go on.
	fresh := t.TempDir()
	if err := os.MkdirAll(filepath.Join(fresh, logDir), 0o755); err != nil {
		t.Fatal(err)
	}
	o := imports(t, bytes.NewReader(whole), fresh)
	m := regexp.MustCompile(`ballast (restore -discard \S+ \S+) goes over to it`).FindStringSubmatch(o.err)
	if o.code != exitOK || m == nil {
		t.Fatalf("a new node: exit code %d", o.code)
	}
	must(t, strings.Fields(m[1])...)
	must(t, "verify", fresh)
	if got, want := must(t, "scan", fresh, "-json"), must(t, "scan", from, "-json"); got != want {
		t.Error("the new node has other data")
	}
}
