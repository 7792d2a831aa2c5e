package main

import (
	"encoding/hex"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// directoryOutput is what inspect and verify print with -json.
type directoryOutput struct {
	OK        bool             `json:"ok"`
	Dir       string           `json:"dir"`
	Groups    []groupOutput    `json:"groups"`
	Log       logOutput        `json:"log"`
	Snapshots []snapshotOutput `json:"snapshots"`
	KV        kvOutput         `json:"kv"`
	Leftovers []string         `json:"leftovers"`
	Notes     []string         `json:"notes"`
	Problems  []problem        `json:"problems"`
}

type groupOutput struct {
	logGroupOutput
	Applied uint64   `json:"applied"`
	Keys    int      `json:"keys"`
	Indexes []string `json:"indexes"`
}

// logGroupOutput is a group as the log has it.
type logGroupOutput struct {
	Group  uint64 `json:"group"`
	First  uint64 `json:"log_first"`
	Last   uint64 `json:"log_last"`
	Term   uint64 `json:"log_term"`
	Commit uint64 `json:"commit"`
}

func logGroupJSON(group uint64, b messages.LogBounds) logGroupOutput {
	return logGroupOutput{group, b.First, b.Last, b.LastTerm, b.HardState.Commit}
}

type logOutput struct {
	Identity string `json:"identity"`
	Records  uint64 `json:"last_record"`
	// MarkOK: the mark is good. A bad one is no damage: the next start writes it
	// again.
	MarkOK   bool            `json:"mark_ok"`
	Segments []segmentOutput `json:"segments"`
	// Torn is the number of bytes of a write that was cut short.
	Torn int64 `json:"torn_bytes"`
}

type segmentOutput struct {
	Path    string         `json:"path"`
	First   uint64         `json:"first_record"`
	Last    uint64         `json:"last_record"`
	Bytes   int64          `json:"bytes"`
	Entries int64          `json:"entries"`
	Payload int64          `json:"payload_bytes"`
	Kinds   map[string]int `json:"kinds"`
}

type kvOutput struct {
	Path    string `json:"path"`
	Changes uint64 `json:"changes"`
	Bytes   int64  `json:"bytes"`
	Good    int64  `json:"good_bytes"`
	Synced  int64  `json:"synced_bytes"`
}

func logJSON(r raftlog.Report) logOutput {
	o := logOutput{Identity: hex.EncodeToString(r.Identity[:]), Records: r.Last, MarkOK: r.MarkOK, Segments: []segmentOutput{}}
	for _, s := range r.Segments {
		o.Segments = append(o.Segments, segmentOutput{s.Path, s.First, s.Last, s.Size, s.Entries, s.PayloadBytes, s.Kinds})
	}
	if r.Torn != nil {
		o.Torn = r.Torn.Bytes
	}
	return o
}

// logDirectoryOutput is what log verify prints with -json: the same fields as
// directoryOutput, as far as they are about the log.
type logDirectoryOutput struct {
	OK        bool             `json:"ok"`
	Dir       string           `json:"dir"`
	Groups    []logGroupOutput `json:"groups"`
	Log       logOutput        `json:"log"`
	Leftovers []string         `json:"leftovers"`
	Notes     []string         `json:"notes"`
	Problems  []problem        `json:"problems"`
}

func (d *directory) logReport() logDirectoryOutput {
	o := logDirectoryOutput{OK: len(d.problems) == 0, Dir: d.dir, Groups: []logGroupOutput{}, Log: logJSON(d.log),
		Leftovers: append([]string{}, d.leftovers()...), Notes: append([]string{}, d.notes...), Problems: append([]problem{}, d.problems...)}
	for _, g := range d.log.Groups {
		o.Groups = append(o.Groups, logGroupJSON(g.Group, g.Bounds))
	}
	return o
}

func (d *directory) report() directoryOutput {
	o := directoryOutput{OK: len(d.problems) == 0, Dir: d.dir, Groups: []groupOutput{}, Snapshots: []snapshotOutput{},
		Leftovers: append([]string{}, d.leftovers()...), Notes: append([]string{}, d.notes...), Problems: append([]problem{}, d.problems...),
		Log: logJSON(d.log),
		KV:  kvOutput{d.kv.Path, d.kv.Markers, d.kv.Bytes, d.kv.Good, d.kv.Synced}}
	for _, g := range d.groups() {
		o.Groups = append(o.Groups, groupOutput{logGroupJSON(g.Group, g.Log), g.KV.Index, g.KV.Keys, append([]string{}, g.KV.Indexes...)})
	}
	for _, s := range d.snapshots {
		o.Snapshots = append(o.Snapshots, snapshotJSON(s))
	}
	return o
}
