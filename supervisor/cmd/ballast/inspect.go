package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
			&cli.BoolFlag{Name: "records", Usage: "list every record of the log instead, as log dump does"},
			jsonFlag("print JSON; with -records, one object a line"),
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
		err = d.dump(ctx, a, dumpOptions{json: c.Bool("json"), to: math.MaxUint64})
	case c.Bool("json"):
		err = json.NewEncoder(a.out).Encode(d.report())
	default:
		err = d.print(a)
	}
	return d.verdict("inspect", err)
}

// print shows the tables.
func (d *directory) print(a *app) error {
	t := newTable(a.out, "group", "log", "commit", "term", "applied", "keys", "indexes", "snapshots")
	for _, g := range d.groups() {
		t.row(g.Group, span(g.Log), g.Log.HardState.Commit, g.Log.LastTerm, g.KV.Index, countText(g.KV.Keys), strings.Join(g.KV.Indexes, " "), len(g.Snapshots))
	}
	t.render()

	d.printSegments(a)

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
	d.noteLeftovers()
	for _, path := range d.aside {
		d.note("%s is damaged data that was set aside and rebuilt; it is not needed any more", path)
	}
	return d.printFindings(a, "")
}

func (d *directory) printSegments(a *app) {
	t := newTable(a.out, "log segment", "records", "entries", "payload", "file", "kinds")
	for _, s := range d.log.Segments {
		t.row(filepath.Base(filepath.Dir(s.Path)), fmt.Sprintf("%d to %d", s.First, s.Last), countText(s.Entries), bytesText(s.PayloadBytes), bytesText(s.Size), kindsText(s.Kinds))
	}
	t.render()
}

func (d *directory) leftovers() []string {
	return slices.Concat(d.log.Leftover, d.unfinished, d.kv.Unfinished)
}

func (d *directory) noteLeftovers() {
	for _, path := range d.leftovers() {
		d.note("%s is a leftover, which the next start removes", path)
	}
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
