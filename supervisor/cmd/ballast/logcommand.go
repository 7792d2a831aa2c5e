package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v3"
)

// logCommand is the group of commands that look at a log alone.
func (a *app) logCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "look at the log alone: list its records, verify it",
		UsageText: "ballast log COMMAND [FLAGS] DIR",
		Description: `DIR is the data directory of a service, or the directory that a log has to
itself. Nothing is changed, and a log that is open is refused.`,
		Metadata: examples(
			"ballast log dump ./data | less", "every record in order",
			"ballast log verify ./data", "is all of it good?",
		),
		Commands: []*cli.Command{a.logDumpCommand(), a.logVerifyCommand()},
		Action:   noCommand,
	}
}

func (a *app) logDumpCommand() *cli.Command {
	return &cli.Command{
		Name:      "dump",
		Usage:     "list every record of the log in order",
		UsageText: "ballast log dump [FLAGS] DIR",
		Description: `One line for each record: its number, file, offset and size, its kind, group,
index and term, and what else it says. Damage is printed where it lies, a write
that a crash cut short at the end; the exit code is 1 if there is damage. What
follows damage in the same file cannot be read.

The log is read twice, first to find the damage, and never held in memory.

-json prints one object a line:
  {"record","path","offset","bytes","kind","group","first","last","term","entries",
   "hard_state":{"term","vote","commit"},"name","durable_before"}
first and last are Raft indexes, hard_state and name (of a stable value) are left
out where there is none, and durable_before says that everything before the
record was durable when it was written. Damage is
  {"problem":{"store","path","offset","index","text"}}
and a write that was cut short {"torn":{"path","offset","bytes","reason"}}.`,
		Metadata: examples(
			"ballast log dump ./data -group 7", "what one group has written",
			"ballast log dump ./data -from 1000 -to 1010", "records 1000 to 1010",
			"ballast log dump ./data -json | jq 'select(.kind == \"reset\")'", "for a script",
		),
		Flags: []cli.Flag{
			dirFlag(),
			jsonFlag("print one JSON object a line"),
			&cli.Uint64Flag{Name: "group", Usage: "only the records of group `N`, and checkpoints"},
			&cli.Uint64Flag{Name: "from", Usage: "begin at record `N`, as numbered in the first column"},
			&cli.Uint64Flag{Name: "to", Usage: "end with record `N`"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			o := dumpOptions{json: c.Bool("json"), from: c.Uint64("from"), to: math.MaxUint64}
			if c.IsSet("to") {
				o.to = c.Uint64("to")
			}
			if o.from > o.to {
				return badUsage(c, "-from %d lies behind -to %d", o.from, o.to)
			}
			if c.IsSet("group") {
				group := c.Uint64("group")
				o.group = &group
			}
			d, err := a.readLog(ctx, dir, "reading")
			if err != nil {
				return err
			}
			return d.verdict("log dump", d.dump(ctx, a, o))
		},
	}
}

func (a *app) logVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check every byte of the log",
		UsageText: "ballast log verify [FLAGS] DIR",
		Description: `Every record is read, its checksum checked, and whether it fits what came before.
The groups and segments are shown, what a crash cut short, and what is damaged,
with file, offset and index; the exit code is 1 if anything is. Whether snapshots
and data agree with the log is for 'ballast verify'.

-json prints one object with the fields that 'ballast verify -json' has for the
log: ok, dir, groups, log, leftovers, notes, problems.`,
		Metadata: examples(
			"ballast log verify ./data", "the log of a service",
			"ballast log verify ./data/log -json | jq .problems", "the problems, for a script",
		),
		Flags: []cli.Flag{dirFlag(), jsonFlag("print the findings as JSON")},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			began := time.Now()
			d, err := a.readLog(ctx, dir, "verifying")
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = json.NewEncoder(a.out).Encode(d.logReport())
			} else {
				err = d.printLog(a, time.Since(began))
			}
			return d.verdict("log verify", err)
		},
	}
}

// readLog reads and verifies the log in dir, and shows where it is.
func (a *app) readLog(ctx context.Context, dir, doing string) (*directory, error) {
	d, err := readLogDirectory(ctx, dir, func(part string) { a.console.progress(doing + " " + part) })
	a.console.clear()
	return d, err
}

// printLog shows what the log holds, and what is wrong with it.
func (d *directory) printLog(a *app, took time.Duration) error {
	t := newTable(a.out, "group", "log", "term", "hard state", "stable values", "needs files from")
	for _, g := range d.log.Groups {
		oldest := ""
		if g.OldestSegment != "" {
			oldest = filepath.Base(g.OldestSegment)
		}
		t.row(g.Group, span(g.Bounds), g.Bounds.LastTerm, hardStateText(g.Bounds.HardState), len(g.Stable), oldest)
	}
	t.render()
	d.printSegments(a)
	d.noteLeftovers()
	entries, payload, size := d.logSize()
	return d.printFindings(a, fmt.Sprintf("every byte is good: %s with %s in %s, %s (%s)", plural(entries, "entry"), bytesText(payload),
		plural(len(d.log.Segments), "segment"), bytesText(size), timeText(took)))
}

// logSize counts the entries in the log, live or not, their payload, and the
// bytes of the files.
func (d *directory) logSize() (entries, payload, size int64) {
	for _, s := range d.log.Segments {
		entries, payload, size = entries+s.Entries, payload+s.PayloadBytes, size+s.Size
	}
	return entries, payload, size
}
