package supervisor_test

import (
	"testing"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/actors/txntest"
	"github.com/ballast-raft/ballast/supervisor"
)

// Transactions through the log are serialisable too, while everything is crashed in
// turn: what was in doubt is decided when the log is applied.
func TestSerialisableThroughTheLog(t *testing.T) {
	s, err := tryStart(t, newEngine(t), supervisor.Config{Dir: t.TempDir(), Restart: actors.RestartPolicy{MaxFailures: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"kv", "supervisor", "log"}
	out := txntest.Run(t, txntest.Config{Asker: s.storage.Asker(), Data: s.storage.Data(0), Clients: 6, Each: 40, CrashEvery: 30,
		Settle: func() { s.put("last", "1") }, // behind whatever was in doubt
		Crash: func(n int) {
			if err := s.storage.Crash(names[n%3]); err != nil {
				t.Error(err)
			}
		}})
	t.Logf("%d committed, %d conflicts, %d in doubt, %d crashes", out.Committed, out.Conflicts, out.InDoubt, out.Crashes)
	if len(out.Circle) > 0 {
		t.Errorf("they depend on each other: %+v", out.Circle)
	}
	if out.Committed < 100 || out.Conflicts == 0 || out.Crashes < 6 {
		t.Errorf("too little has happened: %+v", out)
	}
}
