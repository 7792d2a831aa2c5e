package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable/faulty"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/ballast-raft/ballast/supervisor/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// rig is a service with its pages.
type rig struct {
	t        *testing.T
	storage  *supervisor.Storage
	log, kv  *faulty.Disk
	registry *prometheus.Registry
	server   *httptest.Server
}

func newRig(t *testing.T, cfg supervisor.Config) *rig {
	r := &rig{t: t, log: &faulty.Disk{}, kv: &faulty.Disk{}, registry: prometheus.NewPedanticRegistry()}
	engine, err := actor.NewEngine(actor.NewEngineConfig())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir = t.TempDir()
	cfg.Log, cfg.KV, cfg.Snapshot = raftlog.Options{Disk: r.log}, kv.Options{Disk: r.kv}, snapshot.Options{}
	if r.storage, err = supervisor.Spawn(engine, cfg); err != nil {
		t.Fatal(err)
	}
	r.registry.MustRegister(metrics.NewCollector(r.storage))
	r.server = httptest.NewServer(metrics.Handler(r.storage, r.registry))
	t.Cleanup(func() {
		r.server.Close()
		if err := r.storage.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) put(key, value string) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	_, err := actors.Ask[messages.EntryApplied](ctx, r.storage.Asker(), r.storage.Supervisor,
		messages.ApplyEntry{Operation: messages.PutOperation([]byte(key), []byte(value))})
	return err
}

func ask[R messages.Reply](r *rig, pid *actor.PID, c messages.Command) R {
	r.t.Helper()
	reply, err := actors.Ask[R](r.t.Context(), r.storage.Asker(), pid, c)
	if err != nil {
		r.t.Fatalf("%T: %v", c, err)
	}
	return reply
}

func (r *rig) get(path string) (code int, body string) {
	r.t.Helper()
	response, err := http.Get(r.server.URL + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	b, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// value reads a metric, given with its labels, from the page.
func (r *rig) value(name string) float64 {
	r.t.Helper()
	_, page := r.get("/metrics")
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return v
		}
	}
	r.t.Fatalf("there is no %s", name)
	return 0
}

// until waits for a state that comes by itself.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not come", what)
		}
	}
}

// Each metric says what was done.
func TestMetricsCount(t *testing.T) {
	r := newRig(t, supervisor.Config{})
	for i := range 10 {
		if err := r.put("key", strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	ask[messages.Got](r, r.storage.KV, messages.Get{Key: []byte("key")})
	view := ask[messages.ViewOpened](r, r.storage.KV, messages.OpenView{})
	if err := r.put("key", "overwritten"); err != nil {
		t.Fatal(err)
	}
	watch := ask[messages.Watching](r, r.storage.KV, messages.Watch{Key: []byte("key"), Now: true})
	ask[messages.SnapshotCreated](r, r.storage.Supervisor, messages.CreateSnapshot{})
	ask[messages.Got](r, r.storage.KV, messages.Get{Key: []byte("key"), View: view.View})
	stream := ask[messages.SnapshotOpened](r, r.storage.Snapshot, messages.OpenSnapshot{})
	ask[messages.ChunkRead](r, r.storage.Snapshot, messages.ReadChunk{Stream: stream.Stream})
	ask[messages.SnapshotClosed](r, r.storage.Snapshot, messages.CloseSnapshot{Stream: stream.Stream})
	for name, want := range map[string]float64{
		"ballast_log_appends_total":                        11,
		"ballast_log_entries_total":                        11,
		"ballast_kv_applied_entries_total":                 11,
		"ballast_kv_keys":                                  1,
		"ballast_kv_views":                                 1,
		"ballast_kv_watches":                               1,
		"ballast_kv_reads_total":                           2,
		"ballast_snapshot_saved_total":                     1,
		"ballast_log_compactions_total":                    1,
		"ballast_healthy":                                  1,
		"ballast_groups_withheld":                          0,
		"ballast_repairs_total":                            0,
		`ballast_events_total{event="SnapshotTaken"}`:      1,
		`ballast_actor_up{actor="log"}`:                    1,
		`ballast_actor_failures_total{actor="log"}`:        0,
		`ballast_actor_queue_commands{actor="supervisor"}`: 0,
		`ballast_log_sync_seconds_bucket{le="+Inf"}`:       r.value("ballast_log_batch_commands_count"),
		`ballast_log_batch_commands_bucket{le="1"}`:        r.value("ballast_log_batch_commands_count"),
		`ballast_actor_requests_total{actor="log"}`:        r.value(`ballast_actor_replies_total{actor="log"}`),
		`ballast_actor_requests_total{actor="supervisor"}`: 12,
	} {
		if got := r.value(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"ballast_log_bytes_total", "ballast_log_sync_seconds_sum", "ballast_kv_view_bytes", "ballast_kv_history_bytes",
		"ballast_kv_file_bytes", "ballast_kv_live_bytes", "ballast_snapshot_written_bytes_total", "ballast_snapshot_write_seconds_total",
		"ballast_snapshot_read_bytes_total", "ballast_snapshot_opened_total"} {
		if r.value(name) <= 0 {
			t.Errorf("%s is %v", name, r.value(name))
		}
	}
	ask[messages.WatchCancelled](r, r.storage.KV, messages.CancelWatch{Watch: watch.Watch})
	ask[messages.ViewClosed](r, r.storage.KV, messages.CloseView{View: view.View})
	if n := r.value("ballast_kv_views") + r.value("ballast_kv_watches"); n != 0 {
		t.Errorf("%v views and watches after they were closed", n)
	}
	if problems, err := testutil.GatherAndLint(r.registry); err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// Metrics, status and log lines tell of a failure, and of its end.
func TestFailuresAreTold(t *testing.T) {
	var lines lockedBuffer
	r := newRig(t, supervisor.Config{Logger: slog.New(slog.NewJSONHandler(&lines, nil))})
	if err := r.storage.Crash("log"); err != nil {
		t.Fatal(err)
	}
	r.until("the log", func() bool {
		return r.value(`ballast_events_total{event="ActorFailed"}`) == 1 && len(r.storage.Health()) == 0
	})
	if n := r.value(`ballast_actor_failures_total{actor="log"}`); n != 1 {
		t.Errorf("%v failures", n)
	}
	for _, want := range []string{`"msg":"ballast: actor failed"`, `"msg":"ballast: actor recovered"`, `"actor":"ballast/log"`, `"service":"ballast"`} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("no line has %s:\n%s", want, &lines)
		}
	}
	st := ask[messages.Status](r, r.storage.Supervisor, messages.ReadStatus{})
	if st.Events["ActorFailed"] != 1 || st.Events["ActorRecovered"] != 1 {
		t.Errorf("%+v", st.Events)
	}
}

// /healthz says what is wrong while it is.
func TestHealth(t *testing.T) {
	r := newRig(t, supervisor.Config{StallAfter: 50 * time.Millisecond, Restart: actors.RestartPolicy{Retry: time.Millisecond}})
	healthy := func() bool {
		code, body := r.get("/healthz")
		return code == http.StatusOK && body == `{"ok":true,"problems":[]}`+"\n"
	}
	sick := func(actor, reason string) func() bool {
		return func() bool {
			code, body := r.get("/healthz")
			var h struct {
				OK       bool
				Problems []supervisor.Problem
			}
			if err := json.Unmarshal([]byte(body), &h); err != nil {
				t.Fatal(err)
			}
			for _, p := range h.Problems {
				if p.Actor == actor && strings.Contains(p.Reason, reason) && code == http.StatusServiceUnavailable && !h.OK {
					return true
				}
			}
			return false
		}
	}
	r.until("health", healthy)

	hit, release := r.log.Hang(faulty.AnySync)
	done := make(chan error, 1)
	go func() { done <- r.put("a", "1") }()
	<-hit
	r.until("the stall", sick("log", "does not answer"))
	if r.value(`ballast_actor_stalled{actor="log"}`) != 1 || r.value("ballast_healthy") != 0 {
		t.Error("the metrics do not tell of the stall")
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.until("the end of the stall", healthy)
	r.log.Set(nil)

	r.log.Fill(true)
	if err := r.put("a", "2"); !errors.Is(err, messages.ErrDiskFull) {
		t.Errorf("%v", err)
	}
	r.until("the full disk", sick("log", "full"))
	r.log.Fill(false)
	if err := r.put("a", "3"); err != nil {
		t.Error(err)
	}
	r.until("room", healthy)
	for _, name := range []string{"DiskFull", "SpaceReturned", "StallEnded"} {
		if n := r.value(`ballast_events_total{event="` + name + `"}`); n < 1 {
			t.Errorf("%v events %s", n, name)
		}
	}

	gone := make(chan struct{})
	r.kv.Set(func(op, _ string) error { // no start succeeds until it is let
		select {
		case <-gone:
			return nil
		default:
		}
		return io.ErrUnexpectedEOF
	})
	if err := r.storage.Crash("kv"); err != nil {
		t.Fatal(err)
	}
	r.until("the failure", sick("kv", "unexpected EOF"))
	close(gone)
	r.until("the recovery", healthy)
	if code, body := r.get("/debug/pprof/goroutine?debug=1"); code != http.StatusOK || !strings.Contains(body, "goroutine profile") {
		t.Errorf("pprof: %d", code)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
