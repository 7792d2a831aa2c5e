package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// loadCounts is what load prints with -json.
type loadCounts struct {
	Added     int     `json:"added"`
	Updated   int     `json:"updated"`
	Unchanged int     `json:"unchanged"`
	Skipped   int     `json:"skipped"`
	Failed    int     `json:"failed"`
	Retries   int     `json:"retries"`
	Bytes     int64   `json:"bytes"`
	Lines     int     `json:"lines,omitempty"`
	Seconds   float64 `json:"seconds"`
}

func (l *loading) progress(total int) {
	t := l.pool.read()
	took := time.Since(l.started)
	of := ""
	if total > 0 {
		of = fmt.Sprintf("/%s (%d%%)", countText(total), 100*t.settled/total)
	}
	l.app.console.progress(fmt.Sprintf("load: %s%s, %s stored, %s unchanged, %.0f/s, %s/s", countText(t.settled), of,
		countText(t.acked()), countText(t.same), rate(t.settled, took), bytesText(rate(t.bytes, took))))
}

// report prints the counts.
func (l *loading) report() error {
	t := l.pool.read()
	l.mu.Lock()
	counts := loadCounts{Added: t.added, Updated: t.updated, Unchanged: t.same, Failed: t.failed + l.unreadable, Retries: t.retries,
		Skipped: l.skipped, Bytes: t.bytes, Lines: l.lines, Seconds: time.Since(l.started).Seconds()}
	l.mu.Unlock()
	if l.command.Bool("json") {
		return json.NewEncoder(l.app.out).Encode(counts)
	}
	_, err := fmt.Fprintf(l.app.out, "%d added, %d updated, %d unchanged, %d skipped, %d failed; %s in %.1f s\n", counts.Added,
		counts.Updated, counts.Unchanged, counts.Skipped, counts.Failed, bytesText(counts.Bytes), counts.Seconds)
	return err
}
