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
	segments := h.used(last)
	tail := segments[len(segments)-1]
	data := good[tail]
	old := good[tail][:h.ends[last-1][tail]]
	f.Add(data)
	f.Add([]byte{})
	f.Add(data[:len(data)-1])
	f.Add(append(append([]byte{}, data...), 0, 0, 0))
	f.Add(append(append([]byte{}, data...), data...))
	f.Add(old)
	f.Add(data[:h.ends[last][tail]])
	f.Add(append(append([]byte{}, old...), 6, 0, 0, 0, 0, 0x81, 1))
	base := good.clone()
	base["MARK"] = h.after[last-1]["MARK"]
	dir := memory(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := base.clone()
		fs[tail] = data
		// The fuzzer cannot forge a checksum, so a good record is one of ours.
		// It can forge what stands for a later version.
		fs.write(t, dir)
		if _, err := raftlog.Inspect(dir); errors.Is(err, messages.ErrIncompatible) {
			return
		}
		v := h.judge(t, dir, fs, "fuzz")
		if v.corrupt == nil && v.position < int(h.durable[last-1]) {
			t.Fatalf("position %d", v.position)
		}
		if v.corrupt != nil && v.corrupt.Path != filepath.Join(dir, tail) {
			t.Fatalf("blames %v", v.corrupt)
		}
	})
}
