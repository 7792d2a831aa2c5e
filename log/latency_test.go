package log_test

import (
	"slices"
	"testing"
	"time"
)

var started = time.Now()

func nanotime() int64 { return int64(time.Since(started)) }

// latency keeps the latest million measurements.
type latency struct {
	ns []int64
	at int
}

func newLatency() *latency { return &latency{} }

func (l *latency) add(ns int64) {
	if len(l.ns) < 1<<20 {
		l.ns = append(l.ns, ns)
		return
	}
	l.ns[l.at%len(l.ns)] = ns
	l.at++
}

func (l *latency) report(b *testing.B) {
	slices.Sort(l.ns)
	b.ReportMetric(float64(l.ns[len(l.ns)/2])/1e3, "p50-µs")
	b.ReportMetric(float64(l.ns[len(l.ns)*99/100])/1e3, "p99-µs")
}
