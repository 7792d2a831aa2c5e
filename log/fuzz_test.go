package log_test

import (
	"errors"
	"path/filepath"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// FuzzOpen opens a log whose last segment is any bytes at all. It must open as
// one of the states that the log has had, or be damage: everything up to the
// mark was acknowledged.
func FuzzOpen(f *testing.F) {
	h := smallHistory(f)
	last := len(h.after) - 1
	good := h.after[last]
	segments := good.segments()
	tail := segments[len(segments)-1]
	data := good[tail]
	f.Add(data)
	f.Add([]byte{})
	f.Add(data[:len(data)-1])
	f.Add(append(append([]byte{}, data...), 0, 0, 0))
	f.Add(append(append([]byte{}, data...), data...))
	f.Add(h.after[last-1][tail])
	f.Add(append(append([]byte{}, h.after[last-1][tail]...), 6, 0, 0, 0, 0, 0x81, 1))
	base := good.clone()
	base["MARK"] = h.after[last-1]["MARK"]
	dir := memory(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := base.clone()
		fs[tail] = data
		fs.write(t, dir)
		report, err := raftlog.Inspect(dir)
		if err != nil && !errors.Is(err, messages.ErrIncompatible) {
			t.Fatal(err)
		}
		// The fuzzer cannot forge a checksum, so a good record is one of ours.
		p, corrupt, repaired := h.verdict(t, dir, fs, "fuzz")
		if (corrupt != nil) != (len(report.Damage) > 0) || len(repaired) > 0 != (report.Torn != nil) {
			t.Fatalf("open: %v %v, inspect: %v %v", corrupt, repaired, report.Damage, report.Torn)
		}
		if corrupt == nil && p < int(h.durable[last-1]) {
			t.Fatalf("position %d", p)
		}
		if corrupt != nil && filepath.Base(corrupt.Path) != filepath.Base(tail) {
			t.Fatalf("blames %v", corrupt)
		}
	})
}
