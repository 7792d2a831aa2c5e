package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// sampleInterval is how often the service is asked for its state.
const sampleInterval = 25 * time.Millisecond

// meter samples the service while the demo writes, and shows where it is.
type meter struct {
	demo *demo

	mu     sync.Mutex
	status messages.Status
	syncs  *hdrhistogram.Histogram // of single syncs, in microseconds; a sample
	queue  int                     // the longest of the supervisor's
	drawn  time.Time
	last   tally // at the time it was drawn
}

func newMeter(d *demo) *meter {
	return &meter{demo: d, syncs: hdrhistogram.New(1, maxLatency, 3), drawn: time.Now()}
}

// sample asks once, and draws the line of progress when it is time.
func (m *meter) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	// While an actor is down the answer has an error beside what is known.
	st, _ := actors.Ask[messages.Status](ctx, m.demo.service.Asker(), m.demo.service.Supervisor, messages.ReadStatus{})
	m.mu.Lock()
	defer m.mu.Unlock()
	if st.Statistics.Syncs > m.status.Statistics.Syncs {
		_ = m.syncs.RecordValue(min(max(st.Statistics.LastSync.Microseconds(), 1), maxLatency)) // it is in range
	}
	for _, a := range st.Actors {
		if a.Name == "supervisor" {
			m.queue = max(m.queue, a.Queued)
		}
	}
	if st.Statistics.Syncs > 0 {
		m.status = st
	}
	if since := time.Since(m.drawn); since >= redraw {
		m.draw(since)
	}
}

func (m *meter) draw(since time.Duration) {
	t := m.demo.pool.read()
	n := len(m.demo.files)
	st := m.status.Statistics
	queued := 0
	for _, a := range m.status.Actors {
		if a.Name == "log" {
			queued = a.Queued
		}
	}
	m.demo.app.console.progress(fmt.Sprintf("%3d%%  %s of %s files  %.0f entries/s  %.1f MB/s  batch %d  sync %s  in flight %d  log queue %d",
		100*t.settled/n, countText(t.settled), countText(n), rate(t.acked()-m.last.acked(), since), rate(t.bytes-m.last.bytes, since)/1e6,
		st.LastBatch, timeText(st.LastSync), t.inFlight, queued))
	m.drawn, m.last = time.Now(), t
}

func (m *meter) result(r *demoResult) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.status.Statistics
	r.Syncs = st.Syncs
	if st.Syncs > 0 {
		r.MeanBatch = float64(st.Appends) / float64(st.Syncs)
		r.SyncMean = duration(st.SyncTime / time.Duration(st.Syncs))
	}
	r.SyncP50, r.SyncP99 = micros(m.syncs.ValueAtQuantile(50)), micros(m.syncs.ValueAtQuantile(99))
	r.SyncSamples, r.QueuePeak = m.syncs.TotalCount(), m.queue
}
