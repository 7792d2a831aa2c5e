package actors_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

var (
	streamMiB = flag.Int("actors.stream", 64, "MiB of the state that TestStreamMemory streams")
	streamed  = flag.Bool("actors.streaming", false, "this is the process that TestStreamMemory measures")
)

const (
	streamPiece = 1 << 20
	streamChunk = 256 << 10 // as the bridges send them
	// The bound that the README states, and how much a long stream may take
	// beyond a short one: the index has
	// 48 bytes for each MiB, 480 KiB for 10 GiB, and is doubled as it grows.
	streamBound  = 64 << 20
	streamGrowth = 12 << 20
	// Of file, and of state, a second: a tenth of what two quiet cores give, so
	// that it is what the stream waits for. How much it does is logged, because
	// on a busy machine it also waits for others; that credit is the bound is
	// for TestSlowStreams, without a clock.
	slowDisk   = 8 << 20
	slowReader = 24 << 20
)

// A state of any length goes through a snapshot actor in constant memory, to a
// slow disk and from there to a slow reader, by the kernel's count of the most
// that the process had. -actors.stream=10240 streams 10 GiB, which takes some
// twelve minutes and 2.5 GB of disk.
func TestStreamMemory(t *testing.T) {
	if raceDetector {
		return // it has memory of its own; the plain run measures ours
	}
	if *streamed {
		streamMemory(t, *streamMiB)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStreamMemory$", "-test.v", "-test.timeout=60m", "-actors.streaming", fmt.Sprint("-actors.stream=", *streamMiB))
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestStreamMemory") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func streamMemory(t *testing.T, mib int) {
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	asker := actors.NewAsker(engine)
	defer asker.Close()
	const credit = 4
	disk := &slowSync{Disk: durable.OS, rate: slowDisk}
	path := t.TempDir()
	a, err := actors.SpawnSnapshot(engine, actors.SnapshotConfig{Config: actors.Config{Name: "test", ID: "snapshot"}, Credit: credit,
		Open: func() (snapshot.Store, error) {
			return snapshot.OpenDir(path, snapshot.Options{Concurrency: 2, PartialSyncBytes: 2 << 20, Disk: disk})
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := a.Opened(ctx); err != nil {
		t.Fatal(err)
	}
	state := &generated{piece: jsonLines(streamPiece), size: int64(mib) * streamPiece}
	meter := &memoryMeter{t: t, idle: memory(t, "VmRSS:")}

	state.passed = meter.passing(state.size)
	disk.waits = &waits{of: func() bool { return a.Status().QueuedBytes >= credit*streamChunk }}
	var info messages.SnapshotInfo
	meter.measure("to a slow disk", state.size, func() {
		info, err = actors.SaveSnapshot(ctx, asker, a.PID(), messages.BeginSave{Index: 1, Term: 1}, state)
	})
	if err != nil || info.RawBytes != state.size {
		t.Fatalf("saved %d bytes: %v", info.RawBytes, err)
	}
	t.Logf("the writer had sent all that its credit allows at the end of %s", disk.waits)
	if least := disk.least(info.FileBytes); meter.took < least {
		t.Errorf("the disk was not what it waited for: %v, at its rate %v", meter.took, least)
	}

	sink := &slowSink{waits: waits{of: func() bool { return a.Status().Queued == 0 }}, want: &generated{piece: state.piece, size: state.size}, passed: meter.passing(state.size)}
	meter.measure("to a slow reader", state.size, func() {
		var r *actors.SnapshotReader
		if r, err = actors.NewSnapshotReader(ctx, asker, a.PID(), messages.OpenSnapshot{}); err != nil {
			return
		}
		sink.began = time.Now()
		_, err = io.Copy(sink, r)
		err = errors.Join(err, r.Close())
	})
	if err != nil || sink.n != state.size {
		t.Fatalf("read %d bytes: %v", sink.n, err)
	}
	t.Logf("the actor had nothing to do for it at the end of %s", &sink.waits)
	if least := time.Duration(float64(state.size) / slowReader * 0.95 * float64(time.Second)); meter.took < least {
		t.Errorf("the reader was not what it waited for: %v, at its rate %v", meter.took, least)
	}
	if err := a.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// waits counts at how many of its ends something was so.
type waits struct {
	of      func() bool
	so, all int
}

func (w *waits) end(d time.Duration) {
	if d <= 0 {
		return
	}
	<-time.After(d)
	if w.all++; w.of() {
		w.so++
	}
}

func (w *waits) String() string { return fmt.Sprintf("%d of %d waits", w.so, w.all) }

// memoryMeter measures the most memory that the process had above what it has
// idle.
type memoryMeter struct {
	t     *testing.T
	idle  int
	took  time.Duration
	short int // the peak when an eighth had passed
}

// passing is to be called with how much has passed: an eighth is a short stream.
func (m *memoryMeter) passing(size int64) func(n int64) {
	return func(n int64) {
		if m.short == 0 && n >= size/8 {
			m.short = memory(m.t, "VmHWM:") - m.idle
		}
	}
}

func (m *memoryMeter) measure(what string, size int64, work func()) {
	// 5 sets the peak to what is used now.
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		m.t.Fatal(err)
	}
	m.short = 0
	began := time.Now()
	work()
	m.took = time.Since(began)
	peak := memory(m.t, "VmHWM:") - m.idle
	m.t.Logf("%d MiB %s, %.0f MB/s: at most %.1f MiB above %.1f; %.1f when an eighth had passed", size>>20, what,
		float64(size)/1e6/m.took.Seconds(), float64(peak)/(1<<20), float64(m.idle)/(1<<20), float64(m.short)/(1<<20))
	if peak > streamBound {
		m.t.Errorf("more than %d MiB", streamBound>>20)
	}
	if m.short == 0 || peak > m.short+streamGrowth {
		m.t.Errorf("it grows with the length by more than %d MiB", streamGrowth>>20)
	}
}

// memory returns a field of /proc/self/status, in bytes.
func memory(t *testing.T, field string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field && f[2] == "kB" {
			if n, err := strconv.Atoi(f[1]); err == nil {
				return n << 10
			}
		}
	}
	t.Fatalf("the kernel does not tell %s", field)
	return 0
}

// slowSync is a disk that syncs so many bytes a second.
type slowSync struct {
	durable.Disk
	rate   float64
	synced map[string]int64
	waits  *waits
}

func (d *slowSync) Sync(f *os.File) error { // of one stream at a time
	st, err := f.Stat()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := d.Disk.Sync(f); err != nil {
		return err
	}
	if d.synced == nil {
		d.synced = map[string]int64{}
	}
	takes := time.Duration(float64(st.Size()-d.synced[f.Name()]) / d.rate * float64(time.Second))
	d.synced[f.Name()] = st.Size()
	d.waits.end(takes - time.Since(began))
	return nil
}

// least is how long it takes for a file at least.
func (d *slowSync) least(bytes int64) time.Duration {
	return time.Duration(float64(bytes) / d.rate * 0.95 * float64(time.Second))
}

// generated is a state of any length that nobody has to hold: a piece over and
// over, each time with its number in it.
type generated struct {
	piece        []byte
	size, offset int64
	passed       func(n int64)
}

func (g *generated) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, errors.ErrUnsupported
	}
	g.offset = offset
	return offset, nil
}

func (g *generated) Read(p []byte) (int, error) {
	if g.offset == g.size {
		return 0, io.EOF
	}
	if g.passed != nil {
		g.passed(g.offset)
	}
	number, at := g.offset/streamPiece, g.offset%streamPiece
	if at == 0 {
		for i := 0; i+3 < len(g.piece); i += 4096 {
			g.piece[i], g.piece[i+1], g.piece[i+2] = byte(number), byte(number>>8), byte(number>>16)
		}
	}
	n := copy(p, g.piece[at:])
	g.offset += int64(n)
	return n, nil
}

// slowSink takes so many bytes a second, and compares them with what it wants.
type slowSink struct {
	waits
	want   *generated
	began  time.Time
	n      int64
	buf    []byte
	passed func(n int64)
}

func (s *slowSink) Write(p []byte) (int, error) {
	if cap(s.buf) < len(p) {
		s.buf = make([]byte, len(p))
	}
	if _, err := io.ReadFull(s.want, s.buf[:len(p)]); err != nil || !bytes.Equal(s.buf[:len(p)], p) {
		return 0, fmt.Errorf("other bytes behind %d: %v", s.n, err)
	}
	s.n += int64(len(p))
	s.passed(s.n)
	due := s.began.Add(time.Duration(float64(s.n) / slowReader * float64(time.Second)))
	s.end(time.Until(due))
	return len(p), nil
}
