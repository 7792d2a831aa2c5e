package metrics

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"

	"github.com/ballast-raft/ballast/supervisor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves /metrics from what is registered, /healthz, and /debug/pprof/,
// which is for nobody but the operator: do not serve it to the world.
func Handler(source Source, from prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(from, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", Health(source))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// health is what /healthz answers.
type health struct {
	OK       bool                 `json:"ok"`
	Problems []supervisor.Problem `json:"problems"`
}

// Health answers 200 if all is well and 503 if not, both with a JSON object: ok, and
// problems with actor, reason and, if there is one, group. It asks no actor, so it
// answers also while they hang.
func Health(source Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		st := source.Statistics()
		h := health{Problems: st.Problems()}
		h.OK = len(h.Problems) == 0
		if h.OK {
			h.Problems = []supervisor.Problem{}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !h.OK {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(h) // whoever has asked may be gone
	})
}
