package main

import (
	"encoding/hex"

	raftlog "github.com/ballast-raft/ballast/log"
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
	Group   uint64   `json:"group"`
	First   uint64   `json:"log_first"`
	Last    uint64   `json:"log_last"`
	Term    uint64   `json:"log_term"`
	Commit  uint64   `json:"commit"`
	Applied uint64   `json:"applied"`
	Keys    int      `json:"keys"`
	Indexes []string `json:"indexes"`
}

type logOutput struct {
	Identity string          `json:"identity"`
	Records  uint64          `json:"last_record"`
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

func (d *directory) report() directoryOutput {
	o := directoryOutput{OK: len(d.problems) == 0, Dir: d.dir, Groups: []groupOutput{}, Snapshots: []snapshotOutput{},
		Leftovers: append([]string{}, d.leftovers()...), Notes: append([]string{}, d.notes...), Problems: append([]problem{}, d.problems...),
		Log: logOutput{Identity: hex.EncodeToString(d.log.Identity[:]), Records: d.log.Last, Segments: []segmentOutput{}},
		KV:  kvOutput{d.kv.Path, d.kv.Markers, d.kv.Bytes, d.kv.Good, d.kv.Synced}}
	for _, g := range d.groups() {
		o.Groups = append(o.Groups, groupOutput{g.Group, g.Log.First, g.Log.Last, g.Log.LastTerm, g.Log.HardState.Commit,
			g.KV.Index, g.KV.Keys, append([]string{}, g.KV.Indexes...)})
	}
	for _, s := range d.log.Segments {
		o.Log.Segments = append(o.Log.Segments, segmentOutput{s.Path, s.First, s.Last, s.Size, s.Entries, s.PayloadBytes, s.Kinds})
	}
	if d.log.Torn != nil {
		o.Log.Torn = d.log.Torn.Bytes
	}
	for _, s := range d.snapshots {
		o.Snapshots = append(o.Snapshots, snapshotJSON(s))
	}
	return o
}

// recordOutput is a record of the log in JSON.
type recordOutput struct {
	Record  uint64 `json:"record"`
	Path    string `json:"path"`
	Offset  int64  `json:"offset"`
	Bytes   int64  `json:"bytes"`
	Kind    string `json:"kind"`
	Group   uint64 `json:"group"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Term    uint64 `json:"term"`
	Entries int    `json:"entries"`
	Commit  uint64 `json:"commit,omitempty"`
	Name    string `json:"name,omitempty"`
}

func recordJSON(r raftlog.RecordReport) recordOutput {
	o := recordOutput{r.WALIndex, r.Path, r.Offset, r.Size, r.Kind, r.Group, r.First, r.Last, r.Term, r.Entries, 0, r.Name}
	if r.HardState != nil {
		o.Commit = r.HardState.Commit
	}
	return o
}
