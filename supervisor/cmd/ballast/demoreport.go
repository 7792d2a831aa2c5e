package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
)

// demoResult is what demo prints with -json.
type demoResult struct {
	Pass        bool   `json:"pass"`
	From        string `json:"from"`
	Clients     int    `json:"clients"`
	SourceBytes int64  `json:"source_bytes"`

	Acked     int   `json:"acknowledged"`
	Proposals int   `json:"proposals"`
	Retries   int   `json:"retries"`
	Failed    int   `json:"failed"`
	Skipped   int   `json:"skipped"`
	Bytes     int64 `json:"payload_bytes"`

	WriteSeconds     float64  `json:"write_seconds"`
	EntriesPerSecond float64  `json:"entries_per_second"`
	MBPerSecond      float64  `json:"mb_per_second"`
	AckP50           duration `json:"ack_p50_seconds"`
	AckP99           duration `json:"ack_p99_seconds"`
	AckMax           duration `json:"ack_max_seconds"`
	Syncs            uint64   `json:"syncs"`
	MeanBatch        float64  `json:"mean_batch"`
	SyncMean         duration `json:"sync_mean_seconds"`
	SyncP50          duration `json:"sync_p50_seconds"`
	SyncP99          duration `json:"sync_p99_seconds"`
	SyncSamples      int64    `json:"sync_samples"`
	QueuePeak        int      `json:"queue_peak"`

	Snapshot   snapshotResult `json:"snapshot"`
	Crashes    []crashResult  `json:"crashes"`
	Unexpected []string       `json:"unexpected"`

	LogFirst         uint64 `json:"log_first"`
	LogLast          uint64 `json:"log_last"`
	Applied          uint64 `json:"applied"`
	Snapshots        int    `json:"snapshots"`
	LogBytes         int64  `json:"log_bytes"`
	SnapshotDirBytes int64  `json:"snapshot_bytes"`
	KVBytes          int64  `json:"kv_bytes"`

	ReopenSeconds float64        `json:"reopen_seconds"`
	CheckSeconds  float64        `json:"check_seconds"`
	Verified      int            `json:"verified_files"`
	VerifiedBytes int64          `json:"verified_bytes"`
	Scanned       int            `json:"scanned_keys"`
	Queried       int            `json:"queried_entries"`
	Packages      []packageCount `json:"largest_packages"`
	TotalSeconds  float64        `json:"total_seconds"`
	Problems      []string       `json:"problems"`

	began time.Time
}

type crashResult struct {
	Actor    string   `json:"actor"`
	At       int      `json:"after_files"`
	InFlight int      `json:"in_flight"`
	Down     duration `json:"down_seconds"`
	// Pause is the longest that all clients together went without an answer.
	Pause duration `json:"pause_seconds"`
}

type snapshotResult struct {
	ID        string  `json:"id"`
	Index     uint64  `json:"index"`
	RawBytes  int64   `json:"raw_bytes"`
	FileBytes int64   `json:"file_bytes"`
	Seconds   float64 `json:"seconds"`
	Meanwhile int     `json:"files_meanwhile"`
	LogFirst  uint64  `json:"log_first"`
}

type packageCount struct {
	Package string `json:"package"`
	Files   int    `json:"files"`
}

// duration is in seconds in JSON.
type duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).Seconds()) }

// String is short.
func (d duration) String() string { return timeText(time.Duration(d)) }

// finish prints the results. The error says what differs.
func (d *demo) finish(c *cli.Command, err error) error {
	r := &d.result
	if err == nil && r.Verified+len(d.stages.skips) < len(d.files) {
		err = fmt.Errorf("%d of %d files were verified", r.Verified, len(d.files))
	}
	r.Pass = err == nil
	r.TotalSeconds = time.Since(r.began).Seconds()
	if err != nil {
		r.Problems = strings.Split(err.Error(), "\n")
	}
	if c.Bool("json") {
		return errors.Join(err, json.NewEncoder(d.app.out).Encode(r))
	}
	d.table()
	if err != nil {
		err = fmt.Errorf("demo: FAIL:\n%w", err)
	}
	return err
}

func (d *demo) table() {
	r := &d.result
	t := newTable(d.app.out)
	t.row("files", fmt.Sprintf("%s with %s, as %s of documents", countText(r.Acked), bytesText(r.SourceBytes), bytesText(r.Bytes)))
	t.row("written", fmt.Sprintf("in %.1f s by %s: %.0f entries/s, %.1f MB/s", r.WriteSeconds, plural(r.Clients, "client actor"), r.EntriesPerSecond, r.MBPerSecond))
	t.row("acknowledged after", fmt.Sprintf("p50 %v, p99 %v, longest %v", r.AckP50, r.AckP99, r.AckMax))
	t.row("syncs", fmt.Sprintf("%s, mean batch %.1f entries, write and sync mean %v, p50 %v, p99 %v (%d samples)", countText(r.Syncs), r.MeanBatch, r.SyncMean, r.SyncP50, r.SyncP99, r.SyncSamples))
	t.row("queue", fmt.Sprintf("at most %d commands at the supervisor", r.QueuePeak))
	for _, c := range r.Crashes {
		t.row(c.Actor+" actor crashed", fmt.Sprintf("after %s with %d under way; back after %v; no client answered for %v", plural(c.At, "file"), c.InFlight, c.Down, c.Pause))
	}
	s := r.Snapshot
	if s.ID != "" {
		t.row("snapshot", fmt.Sprintf("at index %d: %s in a file of %s (%.0f%% saved), %.2f s, %s written meanwhile", s.Index, bytesText(s.RawBytes),
			bytesText(s.FileBytes), 100-100*float64(s.FileBytes)/float64(max(s.RawBytes, 1)), s.Seconds, plural(s.Meanwhile, "file")))
	}
	t.row("log", fmt.Sprintf("index %d to %d, applied up to %d; %s on disk", r.LogFirst, r.LogLast, r.Applied, bytesText(r.LogBytes)))
	t.row("data", fmt.Sprintf("%s on disk; snapshots %s", bytesText(r.KVBytes), bytesText(r.SnapshotDirBytes)))
	t.row("proposals", fmt.Sprintf("%s for %s; %s sent again", countText(r.Proposals), plural(r.Acked, "acknowledgement"), countText(r.Retries)))
	for _, text := range r.Unexpected {
		t.row("unexpected", text)
	}
	t.row("opened again", fmt.Sprintf("in %.2f s: every record and change verified", r.ReopenSeconds))
	var largest []string
	for _, p := range r.Packages[:min(3, len(r.Packages))] {
		largest = append(largest, fmt.Sprintf("%s %d", p.Package, p.Files))
	}
	t.row("verified", fmt.Sprintf("%s, %s byte for byte in %.1f s; %s", plural(r.Verified, "file"), bytesText(r.VerifiedBytes), r.CheckSeconds, plural(r.Skipped, "file")+" skipped"))
	t.row("scan and indexes", fmt.Sprintf("%s, %s (%s, …)", plural(r.Scanned, "key"), plural(r.Queried, "index entry"), strings.Join(largest, ", ")))
	t.row("total", fmt.Sprintf("%.1f s", r.TotalSeconds))
	verdict := "FAIL"
	if r.Pass {
		verdict = "PASS"
	}
	t.row("result", verdict)
	t.render()
}
