package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

// dumpOptions say which records of a log are listed, and how. Damage always is.
type dumpOptions struct {
	data bool // the entries as well
	json bool
	// group, if it is not nil, selects the records of one group and those that
	// are about all of them.
	group *uint64
	// from and to bound the numbers of the records, both included.
	from, to uint64
}

func (o dumpOptions) wants(r raftlog.RecordReport) bool {
	return r.WALIndex >= o.from && r.WALIndex <= o.to && (o.group == nil || r.Group == *o.group || r.Kind == "checkpoint")
}

// dump lists the log, which was read before: only that tells where the damage
// lies, and how wide the columns are.
func (d *directory) dump(ctx context.Context, a *app, o dumpOptions) error {
	p := newDumper(d, a.out, o)
	_, err := raftlog.InspectRecords(d.log.Dir, func(r raftlog.RecordReport) {
		// What is called for each record cannot end the scan: an interrupted
		// dump only stops printing.
		if p.err == nil && ctx.Err() == nil {
			p.record(r)
		}
	})
	if p.err == nil {
		p.rest(d.log.Torn)
	}
	return cmp.Or(ctx.Err(), p.err, err)
}

// dumper prints the records of a log and the damage between them.
type dumper struct {
	out     io.Writer
	options dumpOptions
	order   map[string]int // the segments, in order
	damage  []placed       // not printed yet, in order
	format  string         // of a line
	err     error
}

// placed is damage, and where it belongs: before what lies at or after the offset
// of that segment.
type placed struct {
	segment int
	offset  int64
	problem problem
}

// number is the width of a column of numbers up to n with a title.
func number(title string, n uint64) int { return max(len(title), len(strconv.FormatUint(n, 10))) }

// The kind with the longest name.
const kindWidth = len("truncateBefore")

func newDumper(d *directory, out io.Writer, o dumpOptions) *dumper {
	p := &dumper{out: out, options: o, order: map[string]int{}}
	name, size, group, index, term := len("file"), int64(0), uint64(0), 0, uint64(0)
	for i, s := range d.log.Segments {
		p.order[s.Path] = i
		name, size = max(name, len(filepath.Base(filepath.Dir(s.Path)))), max(size, s.Size)
	}
	for _, g := range d.log.Groups {
		group, term = max(group, g.Group), max(term, g.Bounds.LastTerm)
		index = max(index, 2*len(strconv.FormatUint(g.Bounds.Last, 10))+len(" to "))
	}
	p.format = fmt.Sprintf("%%%dv  %%-%dv  %%%dv  %%%dv  %%-%dv  %%%dv  %%-%dv  %%%dv  %%s", number("record", d.log.Last), name,
		number("offset", uint64(size)), number("bytes", uint64(size)), kindWidth, number("group", group), max(index, len("index")), number("term", term))
	for _, c := range d.problems {
		if c.Store == logDir {
			p.damage = append(p.damage, placed{p.place(d.log.Segments, c.Path), c.Offset, c})
		}
	}
	slices.SortStableFunc(p.damage, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.offset, b.offset))
	})
	if !o.json {
		p.line("record", "file", "offset", "bytes", "kind", "group", "index", "term", "")
	}
	return p
}

// place is the segment that damage in a file belongs to. A segment that is
// missing belongs before the next one; other files before all of them, because
// their names sort so.
func (p *dumper) place(segments []raftlog.SegmentReport, path string) int {
	if i, ok := p.order[path]; ok {
		return i
	}
	i, _ := slices.BinarySearchFunc(segments, path, func(s raftlog.SegmentReport, path string) int { return strings.Compare(s.Path, path) })
	return i
}

func (p *dumper) line(cells ...any) {
	_, p.err = fmt.Fprintln(p.out, strings.TrimRight(fmt.Sprintf(p.format, cells...), " "))
}

func (p *dumper) record(r raftlog.RecordReport) {
	segment := p.order[r.Path]
	for len(p.damage) > 0 && (p.damage[0].segment < segment || p.damage[0].segment == segment && p.damage[0].offset <= r.Offset) {
		p.problem(p.damage[0].problem)
		p.damage = p.damage[1:]
	}
	switch {
	case p.err != nil || !p.options.wants(r):
	case p.options.json:
		o := recordJSON(r)
		if p.options.data {
			o.Data = entriesJSON(r)
		}
		p.err = json.NewEncoder(p.out).Encode(o)
	default:
		p.line(r.WALIndex, filepath.Base(filepath.Dir(r.Path)), r.Offset, r.Size, r.Kind, groupText(r), indexText(r), r.Term, detailText(r))
		if p.options.data {
			p.entries(r)
		}
	}
}

// dataWidth is how much of an entry's data is printed.
const dataWidth = 64

// entries prints what is in a record, an entry a line.
func (p *dumper) entries(r raftlog.RecordReport) {
	for e := range r.AllEntries() {
		if p.err != nil {
			return
		}
		more := ""
		if len(e.Data) > dataWidth {
			more = "…"
		}
		_, p.err = fmt.Fprintf(p.out, "    %d/%d  type %d  %s  %q%s\n", e.Index, e.Term, e.Type, bytesText(int64(len(e.Data))), e.Data[:min(len(e.Data), dataWidth)], more)
	}
}

// rest prints what lies behind the last record.
func (p *dumper) rest(torn *messages.TailRepaired) {
	for _, c := range p.damage {
		p.problem(c.problem)
	}
	switch {
	case p.err != nil || torn == nil:
	case p.options.json:
		p.err = json.NewEncoder(p.out).Encode(struct {
			Torn tornOutput `json:"torn"`
		}{tornOutput(*torn)})
	default:
		_, p.err = fmt.Fprintf(p.out, "TORN: %s at offset %d: %s: %s; the next start removes it, nothing acknowledged is in it\n",
			torn.Path, torn.Offset, plural(torn.Bytes, "byte"), torn.Reason)
	}
}

func (p *dumper) problem(c problem) {
	switch {
	case p.err != nil:
	case p.options.json:
		p.err = json.NewEncoder(p.out).Encode(struct {
			Problem problem `json:"problem"`
		}{c})
	default:
		_, p.err = fmt.Fprintln(p.out, "DAMAGE: "+c.String())
	}
}

func groupText(r raftlog.RecordReport) any {
	if r.Kind == "checkpoint" {
		return "all"
	}
	return r.Group
}

func indexText(r raftlog.RecordReport) string {
	switch {
	case r.First == 0 && r.Last == 0:
		return "-"
	case r.Last > r.First:
		return fmt.Sprintf("%d to %d", r.First, r.Last)
	}
	return strconv.FormatUint(r.First, 10)
}

func hardStateText(hs messages.HardState) string {
	return fmt.Sprintf("term %d, vote %d, commit %d", hs.Term, hs.Vote, hs.Commit)
}

// detailText is what only some records say.
func detailText(r raftlog.RecordReport) string {
	var parts []string
	if r.Name != "" {
		parts = append(parts, strconv.Quote(r.Name))
	}
	if r.HardState != nil {
		parts = append(parts, "hard state: "+hardStateText(*r.HardState))
	}
	if r.DurableBefore {
		parts = append(parts, "durable before")
	}
	return strings.Join(parts, "; ")
}

// recordOutput is a record of the log in JSON.
type recordOutput struct {
	Record        uint64           `json:"record"`
	Path          string           `json:"path"`
	Offset        int64            `json:"offset"`
	Bytes         int64            `json:"bytes"`
	Kind          string           `json:"kind"`
	Group         uint64           `json:"group"`
	First         uint64           `json:"first"`
	Last          uint64           `json:"last"`
	Term          uint64           `json:"term"`
	Entries       int              `json:"entries"`
	HardState     *hardStateOutput `json:"hard_state,omitempty"`
	Name          string           `json:"name,omitempty"`
	DurableBefore bool             `json:"durable_before"`
	Data          []entryOutput    `json:"data,omitempty"`
}

// entryOutput is an entry; its data is in base64.
type entryOutput struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	Type  uint8  `json:"type"`
	Data  []byte `json:"data"`
}

func entriesJSON(r raftlog.RecordReport) []entryOutput {
	var all []entryOutput
	for e := range r.AllEntries() {
		all = append(all, entryOutput(e))
	}
	return all
}

type hardStateOutput struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

// tornOutput is a messages.TailRepaired that has not been repaired.
type tornOutput struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

func recordJSON(r raftlog.RecordReport) recordOutput {
	o := recordOutput{r.WALIndex, r.Path, r.Offset, r.Size, r.Kind, r.Group, r.First, r.Last, r.Term, r.Entries, nil, r.Name, r.DurableBefore, nil}
	if r.HardState != nil {
		o.HardState = (*hardStateOutput)(r.HardState)
	}
	return o
}
