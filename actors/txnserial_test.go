package actors_test

import (
	"errors"
	"testing"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/actors/txntest"
)

// Transactions of many clients at once are serialisable, while the actor is crashed
// again and again: those that were acknowledged are there, those that were refused
// are not, and those in doubt are there whole or not at all.
func TestSerialisableBesideCrashes(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	out := txntest.Run(t, txntest.Config{Asker: r.asker, Data: actors.Data{KV: r.host.PID()}, Clients: 8, Each: 60, CrashEvery: 60,
		Crash: func(int) { r.host.Crash(errors.New("on purpose")) }})
	t.Logf("%d committed, %d conflicts, %d in doubt, %d crashes", out.Committed, out.Conflicts, out.InDoubt, out.Crashes)
	if len(out.Circle) > 0 {
		t.Errorf("they depend on each other: %+v", out.Circle)
	}
	if out.Committed < 300 || out.Conflicts < 20 || out.Crashes < 6 {
		t.Errorf("too little has happened: %+v", out)
	}
}

// The check finds transactions that read what is not their view's.
func TestSerialisableFindsBlindReads(t *testing.T) {
	r := newKV(t, false)
	defer r.close()
	for group := range uint64(20) {
		if out := txntest.Run(t, txntest.Config{Asker: r.asker, Data: actors.Data{KV: r.host.PID(), Group: group}, Clients: 8, Each: 40, Blind: true}); len(out.Circle) > 0 {
			return
		}
	}
	t.Error("the check finds nothing")
}
