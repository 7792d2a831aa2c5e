package metrics

import (
	"maps"
	"slices"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/prometheus/client_golang/prometheus"
)

// Source is what metrics are read from: a *supervisor.Storage.
type Source interface {
	Statistics() supervisor.Statistics
}

// metric is one family without labels, or with that of its actor.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func define(kind prometheus.ValueType, name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("ballast_"+name, help, labels, nil), kind}
}

// service is a metric of the service as a whole.
type service struct {
	metric
	value func(*supervisor.Statistics) float64
}

func counter(name, help string, value func(*supervisor.Statistics) float64) service {
	return service{define(prometheus.CounterValue, name, help), value}
}

func gauge(name, help string, value func(*supervisor.Statistics) float64) service {
	return service{define(prometheus.GaugeValue, name, help), value}
}

type stats = *supervisor.Statistics

var services = []service{
	counter("log_appends_total", "Commands to the log that were made durable.", func(s stats) float64 { return float64(s.Log.Appends) }),
	counter("log_entries_total", "Entries in them.", func(s stats) float64 { return float64(s.Log.Entries) }),
	counter("log_bytes_total", "Their payload.", func(s stats) float64 { return float64(s.Log.Bytes) }),
	counter("log_damage_total", "Damaged entries that were met, again each time around.", func(s stats) float64 { return float64(s.Log.Damage) }),

	counter("kv_applied_entries_total", "Entries applied to the application data.", func(s stats) float64 { return float64(s.KV.Applied) }),
	counter("kv_writes_total", "Direct writes and commits.", func(s stats) float64 { return float64(s.KV.Writes) }),
	counter("kv_reads_total", "Gets, scans and queries.", func(s stats) float64 { return float64(s.KV.Reads) }),
	counter("kv_syncs_total", "How often the application data was made durable.", func(s stats) float64 { return float64(s.KV.Syncs) }),
	gauge("kv_views", "Views and imports that are open.", func(s stats) float64 { return float64(s.KV.Views) }),
	gauge("kv_transactions", "Interactive transactions that are open.", func(s stats) float64 { return float64(s.KV.Transactions) }),
	gauge("kv_watches", "Watches that are open.", func(s stats) float64 { return float64(s.KV.Watches) }),
	gauge("kv_view_bytes", "What views hold of what was overwritten.", func(s stats) float64 { return float64(s.KV.ViewBytes) }),
	gauge("kv_history_bytes", "What is remembered for watches.", func(s stats) float64 { return float64(s.KV.HistoryBytes) }),
	gauge("kv_keys", "Keys of all groups.", func(s stats) float64 { return float64(s.KV.Keys) }),
	gauge("kv_file_bytes", "Length of the data file.", func(s stats) float64 { return float64(s.KV.FileBytes) }),
	gauge("kv_live_bytes", "What of it is no garbage.", func(s stats) float64 { return float64(s.KV.LiveBytes) }),
	counter("kv_compactions_total", "How often the data file was written anew.", event("DataFileReplaced")),

	counter("snapshot_saved_total", "Snapshots that became durable.", func(s stats) float64 { return float64(s.Snapshots.Saved) }),
	counter("snapshot_failed_total", "Snapshots that could not be finished.", func(s stats) float64 { return float64(s.Snapshots.Failed) }),
	counter("snapshot_opened_total", "Streams opened from snapshots.", func(s stats) float64 { return float64(s.Snapshots.Opened) }),
	counter("snapshot_written_bytes_total", "State taken from streams.", func(s stats) float64 { return float64(s.Snapshots.WrittenBytes) }),
	counter("snapshot_read_bytes_total", "State given to streams.", func(s stats) float64 { return float64(s.Snapshots.ReadBytes) }),
	counter("snapshot_write_seconds_total", "Time that taking it took, of all streams together.", func(s stats) float64 { return float64(s.Snapshots.WriteNanos) / 1e9 }),
	counter("snapshot_read_seconds_total", "Time that giving it took, of all streams together.", func(s stats) float64 { return float64(s.Snapshots.ReadNanos) / 1e9 }),
	gauge("snapshot_streams", "Streams that are open.", func(s stats) float64 { return float64(s.Snapshots.Streams) }),

	counter("repairs_total", "Torn writes that were removed when a file was opened.", event("TailRepaired")),
	counter("log_cuts_total", "How often the log was cut at damage.", event("LogCut")),
	counter("rebuilds_total", "How often application data was brought back from snapshot and log.", event("DataRebuilt")),
	counter("log_compactions_total", "How often the front of a log was removed.", event("LogCompacted")),
	gauge("groups_withheld", "Groups whose application data is not served.", func(s stats) float64 { return float64(len(s.Withheld)) }),
	gauge("healthy", "1 if Health has nothing to say, else 0.", func(s stats) float64 { return flag(len(s.Problems()) == 0) }),
}

func event(name string) func(stats) float64 {
	return func(s stats) float64 { return float64(s.Events[name]) }
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// perActor is a metric of each actor.
type perActor struct {
	metric
	value func(messages.ActorStatus) float64
}

func ofActor(kind prometheus.ValueType, name, help string, value func(messages.ActorStatus) float64) perActor {
	return perActor{define(kind, "actor_"+name, help, "actor"), value}
}

var perActors = []perActor{
	ofActor(prometheus.CounterValue, "requests_total", "Commands that were accepted.", func(a messages.ActorStatus) float64 { return float64(a.Requests) }),
	ofActor(prometheus.CounterValue, "replies_total", "Commands that were answered.", func(a messages.ActorStatus) float64 { return float64(a.Replies) }),
	ofActor(prometheus.CounterValue, "refused_total", "Commands that were refused at once.", func(a messages.ActorStatus) float64 { return float64(a.Refused) }),
	ofActor(prometheus.GaugeValue, "queue_commands", "Commands under way.", func(a messages.ActorStatus) float64 { return float64(a.Queued) }),
	ofActor(prometheus.GaugeValue, "queue_bytes", "Their payload.", func(a messages.ActorStatus) float64 { return float64(a.QueuedBytes) }),
	ofActor(prometheus.CounterValue, "failures_total", "Failures, each of which is followed by a restart.", func(a messages.ActorStatus) float64 { return float64(a.Failures) }),
	ofActor(prometheus.CounterValue, "stalls_total", "Calls to the disk that did not come back in time.", func(a messages.ActorStatus) float64 { return float64(a.Stalls) }),
	ofActor(prometheus.GaugeValue, "stalled", "1 while a call to the disk hangs.", func(a messages.ActorStatus) float64 { return flag(a.Stalled != "") }),
	ofActor(prometheus.GaugeValue, "disk_full", "1 while there is no room for changes.", func(a messages.ActorStatus) float64 { return flag(a.DiskFull) }),
	ofActor(prometheus.GaugeValue, "up", "1 while it serves.", func(a messages.ActorStatus) float64 { return flag(a.State == messages.StateServing) }),
	ofActor(prometheus.GaugeValue, "unavailable", "1 while it has failed too often and is tried at long intervals.", func(a messages.ActorStatus) float64 {
		return flag(a.State == messages.StateUnavailable)
	}),
}

var (
	eventsDesc = prometheus.NewDesc("ballast_events_total", "What has happened, by the name of the event; Stalled is told again while a call hangs.", []string{"event"}, nil)
	batchDesc  = prometheus.NewDesc("ballast_log_batch_commands", "Commands that became durable with one sync.", nil, nil)
	syncDesc   = prometheus.NewDesc("ballast_log_sync_seconds", "Time that writing and syncing a batch took.", nil, nil)
)

// Collector implements prometheus.Collector.
type Collector struct{ source Source }

var _ prometheus.Collector = Collector{}

// NewCollector returns the collector of a service.
func NewCollector(source Source) Collector { return Collector{source} }

// Describe implements prometheus.Collector.
func (Collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range services {
		to <- m.desc
	}
	for _, m := range perActors {
		to <- m.desc
	}
	to <- eventsDesc
	to <- batchDesc
	to <- syncDesc
}

// Collect implements prometheus.Collector.
func (c Collector) Collect(to chan<- prometheus.Metric) {
	s := c.source.Statistics()
	for _, m := range services {
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&s))
	}
	for _, a := range s.Actors {
		for _, m := range perActors {
			to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(a), a.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Events)) {
		to <- prometheus.MustNewConstMetric(eventsDesc, prometheus.CounterValue, float64(s.Events[name]), name)
	}
	to <- histogram(batchDesc, &s.Log.BatchSizes, 1)
	to <- histogram(syncDesc, &s.Log.SyncTimes, 1e-6)
}

// histogram turns buckets that count into buckets that count what is below.
func histogram(desc *prometheus.Desc, h *messages.Histogram, unit float64) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Buckets))
	below := uint64(0)
	for i, n := range h.Buckets[:len(h.Buckets)-1] {
		below += n
		buckets[float64(messages.HistogramBound(i))*unit] = below
	}
	return prometheus.MustNewConstHistogram(desc, h.Count, float64(h.Sum)*unit, buckets)
}
