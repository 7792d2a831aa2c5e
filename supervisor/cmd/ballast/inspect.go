package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v3"
)

func (a *app) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show what a data directory holds, without starting the service",
		UsageText: "ballast inspect [FLAGS] DIR",
		Description: `Shows the groups, the segments of the log, the snapshots with their IDs, and the
data with its indexes. Log and data are read and checked on the way, of snapshots
only what describes them; verify reads everything. Nothing is changed, and a
directory that a service has open is refused.`,
		Metadata: examples(
			"ballast inspect ./data", "an overview",
			"ballast inspect ./data -records | less", "every record of the log",
			"ballast inspect ./data -json | jq .snapshots", "for a script",
		),
		Flags: []cli.Flag{
			dirFlag(),
			&cli.BoolFlag{Name: "records", Usage: "list every record of the log instead"},
			jsonFlag("print JSON; with -records, one object for each record"),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			return a.inspect(ctx, c, dir)
		},
	}
}

func (a *app) inspect(ctx context.Context, c *cli.Command, dir string) error {
	d, err := readDirectory(ctx, dir, false, func(part string) { a.console.progress("reading " + part) })
	a.console.clear()
	switch {
	case err != nil:
		return err
	case c.Bool("records"):
		err = a.records(c, dir)
	case c.Bool("json"):
		err = json.NewEncoder(a.out).Encode(d.report())
	default:
		err = d.print(a)
	}
	if err == nil && len(d.problems) > 0 {
		err = fmt.Errorf("inspect %s: %s found", dir, plural(len(d.problems), "problem"))
	}
	return err
}

// records lists the log.
func (a *app) records(c *cli.Command, dir string) error {
	var failed error
	print := func(r raftlog.RecordReport) {
		if failed != nil {
			return
		}
		if c.Bool("json") {
			failed = json.NewEncoder(a.out).Encode(recordJSON(r))
			return
		}
		what := fmt.Sprintf("%d", r.First)
		if r.Last > r.First {
			what += fmt.Sprintf(" to %d", r.Last)
		}
		if r.HardState != nil {
			what += fmt.Sprintf(", hard state: term %d, vote %d, commit %d", r.HardState.Term, r.HardState.Vote, r.HardState.Commit)
		}
		_, failed = fmt.Fprintf(a.out, "%d\t%s:%d\t%d bytes\t%s\tgroup %d\tterm %d\tindex %s%s\n", r.WALIndex, filepath.Base(r.Path), r.Offset, r.Size, r.Kind, r.Group, r.Term, what, r.Name)
	}
	_, err := raftlog.InspectRecords(filepath.Join(dir, logDir), print)
	return errors.Join(err, failed)
}

// print shows the tables.
func (d *directory) print(a *app) error {
	t := newTable(a.out, "group", "log", "commit", "term", "applied", "keys", "indexes", "snapshots")
	for _, g := range d.groups() {
		t.row(g.Group, span(g.Log), g.Log.HardState.Commit, g.Log.LastTerm, g.KV.Index, countText(g.KV.Keys), strings.Join(g.KV.Indexes, " "), len(g.Snapshots))
	}
	t.render()

	t = newTable(a.out, "log segment", "records", "entries", "payload", "file", "kinds")
	for _, s := range d.log.Segments {
		t.row(filepath.Base(s.Path), fmt.Sprintf("%d to %d", s.First, s.Last), countText(s.Entries), bytesText(s.PayloadBytes), bytesText(s.Size), kindsText(s.Kinds))
	}
	t.render()

	t = newTable(a.out, "snapshot", "group", "index", "term", "created", "data", "file", "")
	for _, s := range d.snapshots {
		t.row(s.ID, s.Group, s.Index, s.Term, s.Created.UTC().Format(time.RFC3339), bytesText(s.RawBytes), bytesText(s.FileBytes), savedText(s))
	}
	t.render()

	t = newTable(a.out, "data file", "changes", "size", "known to be on disk", "rewritten up to")
	if d.kv.Exists {
		t.row(d.kv.Path, countText(d.kv.Markers), bytesText(d.kv.Good), bytesText(d.kv.Synced), bytesText(d.kv.Sealed))
	}
	t.render()
	for _, path := range d.leftovers() {
		d.note("%s is a leftover, which the next start removes", path)
	}
	for _, path := range d.aside {
		d.note("%s is damaged data that was set aside and rebuilt; it is not needed any more", path)
	}
	return d.printFindings(a, "")
}

func (d *directory) leftovers() []string {
	return slices.Concat(d.log.Leftover, d.unfinished, d.kv.Unfinished)
}

func kindsText(kinds map[string]int) string {
	var parts []string
	for k, n := range kinds {
		parts = append(parts, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// textTable is a table that is not printed when it has no rows.
type textTable struct {
	w     table.Writer
	out   io.Writer
	empty bool
}

func newTable(out io.Writer, columns ...any) *textTable {
	t := &textTable{w: table.NewWriter(), out: out, empty: true}
	style := table.StyleLight
	style.Format.Header = 0
	style.Options.DrawBorder = false
	style.Options.SeparateColumns = false
	t.w.SetStyle(style)
	if len(columns) > 0 {
		t.w.AppendHeader(columns)
	}
	return t
}

func (t *textTable) row(cells ...any) {
	t.empty = false
	t.w.AppendRow(cells)
}

func (t *textTable) render() {
	if t.empty {
		return
	}
	for line := range strings.Lines(t.w.Render() + "\n\n") {
		_, _ = fmt.Fprintln(t.out, strings.TrimRight(line, " \n")) // the output keeps its first error
	}
}
