package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"time"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/urfave/cli/v3"
)

// logCommand is the group of commands that look at a log alone.
func (a *app) logCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "look at the log alone: list its records, verify it, repair it",
		UsageText: "ballast log COMMAND [FLAGS] DIR",
		Description: `DIR is the data directory of a service, or the directory that a log has to
itself. Only repair changes anything. A log that is open is refused.`,
		Metadata: examples(
			"ballast log dump ./data | less", "every record in order",
			"ballast log verify ./data", "is all of it good?",
			"ballast log repair -dry-run ./data", "what would be lost",
		),
		Commands: []*cli.Command{a.logDumpCommand(), a.logVerifyCommand(), a.logRepairCommand()},
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
record was durable when it was written. With -data also
  "data":[{"index","term","type","data"}]. Damage is
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
			&cli.BoolFlag{Name: "data", Usage: "show the entries as well, an entry a line; in JSON whole, in base64"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			o := dumpOptions{json: c.Bool("json"), data: c.Bool("data"), from: c.Uint64("from"), to: math.MaxUint64}
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
with file, offset and index; the exit code is 1 if anything is. A MARK that fails
its checksum is only noted: the next start writes it again. Whether snapshots and
data agree with the log is for 'ballast verify'.

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

func (a *app) logRepairCommand() *cli.Command {
	return &cli.Command{
		Name:      "repair",
		Usage:     "end a damaged log before its first damaged record",
		UsageText: "ballast log repair [FLAGS] DIR",
		Description: `Every record is read. If one is damaged, or missing, the log is ended before it, and
that record and everything behind it is removed: entries, votes and commit indexes
that had been acknowledged are lost on this node, which must not vote or lead
before it has caught up as a new one would. Restore a copy instead, or replace the
node, where you can. What is lost is printed; -dry-run only prints it.

A write that a crash cut short is no damage; it is removed at the next start by
itself. A MARK that is missing or of another log is made anew. Damage to the
MANIFEST, or before the checkpoint that stands for compacted records, cannot be cut
off: no state is known there to end the log in. It is an error that says what is
left to do.

-json prints one object: {"damaged","repaired"} and, if it is damaged, "path",
"offset" (where the log ends then), "reason", "records" (at least so many are
lost), "bytes", "segments" and "lost":[{"group","first","last"}].`,
		Metadata: examples(
			"ballast log repair -dry-run ./data", "what would be lost",
			"ballast log repair ./data", "cut it off",
		),
		Flags: []cli.Flag{dirFlag(), jsonFlag("print the outcome as JSON"), &cli.BoolFlag{Name: "dry-run", Usage: "change nothing"}},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			path, err := logPath(dir)
			if err != nil {
				return err
			}
			d, err := openDirectory(dir)
			if err != nil {
				return err
			}
			dry := c.Bool("dry-run")
			a.console.progress("reading " + path)
			// Whoever has the service's lock has its log as well.
			cut, err := raftlog.Repair(path, dry, raftlog.Options{NoLock: path == dir && d.lock != nil})
			a.console.clear()
			if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, messages.ErrCorrupt) {
				err = fmt.Errorf("%s: there is no Ballast log in this directory", dir)
			}
			if errors.Is(err, messages.ErrCorrupt) {
				err = fmt.Errorf("%w\n%s", err, irreparable(dir, path))
			}
			if err == nil {
				err = a.printRepair(c.Bool("json"), dry, cut)
			}
			return errors.Join(err, d.close())
		},
	}
}

// irreparable says what can be done about a log that cannot be cut.
func irreparable(dir, path string) string {
	s := fmt.Sprintf(`The log cannot be ended before this damage: where its groups begin, their votes
and their stable values are not known there. Nothing was changed. Put back a copy of
%s, or of the file that is named, or replace the node.`, path)
	if path == dir {
		return s
	}
	return s + fmt.Sprintf(`
Without a copy: move %s and
%s away and start the service. It goes on
behind the newest good snapshots; what is behind them in the log is lost on this
node, which must not vote or lead before it has caught up as a new one would.`, path, filepath.Join(dir, kvDir))
}

type repairOutput struct {
	Damaged  bool       `json:"damaged"`
	Repaired bool       `json:"repaired"`
	Path     string     `json:"path,omitempty"`
	Offset   int64      `json:"offset,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Records  uint64     `json:"records,omitempty"`
	Bytes    int64      `json:"bytes,omitempty"`
	Segments int        `json:"segments,omitempty"`
	Lost     []lostText `json:"lost,omitempty"`
}

type lostText struct {
	Group uint64 `json:"group"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

func (a *app) printRepair(asJSON, dry bool, cut *messages.LogCut) error {
	o := repairOutput{}
	if cut != nil {
		o = repairOutput{Damaged: true, Repaired: !dry, Path: cut.Path, Offset: cut.Offset, Reason: cut.Err.Error(),
			Records: cut.Records, Bytes: cut.Bytes, Segments: cut.Segments}
		for _, l := range cut.Lost {
			o.Lost = append(o.Lost, lostText(l))
		}
	}
	if asJSON {
		return json.NewEncoder(a.out).Encode(o)
	}
	if cut == nil {
		_, err := fmt.Fprintln(a.out, "every record is good: there is nothing to repair")
		return err
	}
	if cut.Records == 0 && cut.Bytes == 0 && cut.Segments == 0 {
		verb := "was made anew"
		if dry {
			verb = "would be made anew"
		}
		_, err := fmt.Fprintf(a.out, "damage: %v\nthe mark %s; every record that is there is good\nlost: nothing that can be told, though what was synced last could be missing unseen\n", cut.Err, verb)
		return err
	}
	verb := "was ended"
	if dry {
		verb = "would be ended"
	}
	if _, err := fmt.Fprintf(a.out, "damage: %v\nthe log %s at offset %d of %s\nlost: at least %s, %s, and %s\n", cut.Err, verb, cut.Offset, cut.Path,
		plural(cut.Records, "record"), bytesText(cut.Bytes), plural(cut.Segments, "whole segment")); err != nil {
		return err
	}
	if len(cut.Lost) > 0 {
		t := newTable(a.out, "group", "lost entries")
		for _, l := range cut.Lost {
			t.row(l.Group, fmt.Sprintf("%d to %d", l.First, l.Last))
		}
		t.render()
	}
	_, err := fmt.Fprintln(a.out, "'ballast verify' tells whether snapshots and data reach beyond the log then; what does has to be moved away")
	return err
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
