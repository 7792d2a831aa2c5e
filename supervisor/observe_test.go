package supervisor_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
)

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("in the logger") }

// A logger that panics takes nothing down, also not with the event of a failure,
// and is counted.
func TestLoggerPanics(t *testing.T) {
	s := with(t, supervisor.Config{Logger: slog.New(panickingHandler{slog.DiscardHandler})})
	s.put("a", "1")
	if err := s.storage.Crash("kv"); err != nil {
		t.Fatal(err)
	}
	if got := must[messages.Got](s, s.storage.KV, messages.Get{Key: []byte("a")}); string(got.Value) != "1" {
		t.Errorf("%+v", got)
	}
	if n := s.storage.Statistics().Events["LoggerPanicked"]; n == 0 {
		t.Error("the logger was not called")
	}
	s.stop()
}
