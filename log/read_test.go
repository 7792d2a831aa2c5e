package log_test

import (
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// A range is bounded in entries as well: those without data cost no payload.
func TestRangeOfEmptyEntries(t *testing.T) {
	w := mustOpen(t, memory(t), raftlog.Options{})
	defer mustClose(t, w)
	const n = 1 << 18
	if _, err := w.Append(0, make([]messages.Entry, n), nil); err != nil {
		t.Fatal(err)
	}
	mustSync(t, w)
	es, err := w.Entries(0, 1, n+1, 1)
	if err != nil || len(es) == 0 || len(es) > 1<<16 {
		t.Errorf("%d entries, %v", len(es), err)
	}
}
