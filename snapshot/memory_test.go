package snapshot_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

var memoryMiB = flag.Int("snapshot.memory", 256, "MiB of the state that goes in and out in TestPeakMemory")

// The kernel's own count of the most memory that a process had while it wrote
// and read a snapshot, above what it had before. The count is that of a process,
// so a second one takes the test. With -snapshot.memory=4096 the state is 4 GiB, and
// s2 is measured beside zstd.
func TestPeakMemory(t *testing.T) {
	if raceDetector {
		return // it has memory of its own; the plain run measures ours
	}
	const child = "BALLAST_SNAPSHOT_MEMORY"
	if mib := os.Getenv(child); mib != "" {
		n, err := strconv.Atoi(mib)
		if err != nil {
			t.Fatal(err)
		}
		eachCodec(t, func(t *testing.T, _ int, codec snapshot.Codec) {
			if codec == snapshot.CodecZstd || codec == snapshot.CodecS2 && n >= 1024 {
				peakMemory(t, codec, n)
			}
		})
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestPeakMemory$", "-test.v", "-test.timeout=10m")
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", child, *memoryMiB))
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestPeakMemory/zstd") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func peakMemory(t *testing.T, codec snapshot.Codec, mib int) {
	const bound = 64 << 20
	d := open(t, t.TempDir(), snapshot.Options{Codec: codec, Concurrency: 2})
	data, got := records(1, 1<<20), make([]byte, 1<<20)
	next := func(i int) []byte { // every piece is another: its number runs through it
		for at := 0; at+1 < len(data); at += 4096 {
			data[at], data[at+1] = byte(i), byte(i>>8)
		}
		return data
	}
	before := status(t, "VmRSS:")
	measure := func(what string, work func()) {
		// 5 sets the peak to what is used now.
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
			t.Fatal(err)
		}
		work()
		peak := status(t, "VmHWM:")
		t.Logf("%s: %s %d MiB took %d MiB above %d", codec, what, mib, (peak-before)>>20, before>>20)
		if peak-before > bound {
			t.Errorf("more than %d MiB", bound>>20)
		}
	}
	var info messages.SnapshotInfo
	measure("writing", func() {
		w, err := d.Create(0, 1, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range mib {
			if _, err := w.Write(next(i)); err != nil {
				t.Fatal(err)
			}
		}
		if info, err = w.Finish(); err != nil {
			t.Fatal(err)
		}
	})
	if info.RawBytes != int64(mib)<<20 {
		t.Fatalf("%d bytes", info.RawBytes)
	}
	measure("reading", func() {
		r, err := d.Open(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		for i := range mib {
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, next(i)) {
				t.Fatalf("piece %d: %v", i, err)
			}
		}
		if n, err := r.Read(got); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %d, %v", n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	measure("verifying", func() {
		if _, err := d.Verify(info.ID); err != nil {
			t.Error(err)
		}
	})
}

// status returns a field of /proc/self/status, in bytes.
func status(t *testing.T, field string) int {
	t.Helper()
	for line := range strings.Lines(string(read(t, "/proc/self/status"))) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field && f[2] == "kB" {
			return check(strconv.Atoi(f[1])) << 10
		}
	}
	t.Fatalf("the kernel does not tell %s", field)
	return 0
}
