// Package metrics shows what a service does: a collector for Prometheus, and
// handlers for its pages. A program that does not import it pays nothing for it, and
// neither does a command on its way: everything is read when somebody asks.
//
//	registry := prometheus.NewRegistry()
//	registry.MustRegister(metrics.NewCollector(storage))
//	http.ListenAndServe("127.0.0.1:9090", metrics.Handler(storage, registry))
//
// Services of one process need registries of their own, or a label each:
// prometheus.WrapRegistererWith(prometheus.Labels{"service": name}, registry).
//
// The names begin with ballast_. Times are in seconds, sizes in bytes. A counter
// counts since the service was spawned, whatever became of its actors since.
package metrics
