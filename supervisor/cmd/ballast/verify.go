package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/urfave/cli/v3"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check every byte on disk, and that the three stores agree",
		UsageText: "ballast verify [FLAGS] DIR",
		Description: `Every record of the log, every block of every snapshot and every change of the
data is read and its checksum checked. Then the stores must agree: nothing may be
applied that is not in the log, no snapshot may reach beyond it or have been taken
of entries of another term than the log has, and log, snapshots and data must leave
no gap between them. A snapshot that holds no application data may reach beyond the
log: it is somebody's own.

Nothing is changed. A directory that a service has open is refused. Problems are
printed with file, offset and index, and the exit code is 1.`,
		Metadata: examples(
			"ballast verify ./data", "is all of it good?",
			"ballast verify ./data -json | jq .problems", "the problems, for a script",
		),
		Flags: []cli.Flag{dirFlag(), jsonFlag("print the findings as JSON")},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			return a.verify(ctx, c, dir)
		},
	}
}

func (a *app) verify(ctx context.Context, c *cli.Command, dir string) error {
	began := time.Now()
	d, err := readDirectory(ctx, dir, true, func(part string) { a.console.progress("verifying " + part) })
	a.console.clear()
	if err != nil {
		return err
	}
	d.agree()
	if c.Bool("json") {
		err = json.NewEncoder(a.out).Encode(d.report())
	} else {
		err = d.printVerified(a, time.Since(began))
	}
	return d.verdict("verify", err)
}

// verdict ends a command that has read the directory: problems are its error, if
// there is no other.
func (d *directory) verdict(command string, err error) error {
	if err == nil && len(d.problems) > 0 {
		err = fmt.Errorf("%s %s: %s found", command, d.dir, plural(len(d.problems), "problem"))
	}
	return errors.Join(err, d.close())
}

// agree checks the stores against each other. What is known of a damaged one is
// not the whole truth, and nothing is concluded from it.
func (d *directory) agree() {
	if d.damaged(logDir) {
		d.note("the log is damaged, so whether the stores agree was not checked; 'ballast log repair -dry-run %s' says what would be lost with its end", d.dir)
		return
	}
	for _, g := range d.groups() {
		applied, reaches := g.KV.Index, g.KV.Index
		kvKnown := !d.damaged(kvDir)
		if !kvKnown {
			applied, reaches = 0, 0
		}
		if applied > g.Log.Last {
			d.disagree(g.Group, applied, "index %d is applied to the data, but the log ends at %d: entries are missing from the log", applied, g.Log.Last)
		}
		if kvKnown && applied == g.Log.Last && applied > 0 && g.KV.Term != g.Log.LastTerm {
			d.disagree(g.Group, applied, "index %d has term %d in the data and term %d in the log", applied, g.KV.Term, g.Log.LastTerm)
		}
		// A group without data whose snapshots all hold something else is not for
		// Ballast to bring back.
		own := kvKnown && g.KV.Keys == 0 && !slices.ContainsFunc(g.Snapshots, func(s messages.SnapshotInfo) bool { return !d.strange[s.ID] })
		for _, s := range g.Snapshots {
			if d.strange[s.ID] {
				d.note("group %d: snapshot %s, which ends at %d, holds no application data: it is left to whoever saved it", g.Group, s.ID, s.Index)
				if own {
					reaches = max(reaches, s.Index)
				}
			} else {
				reaches = max(reaches, s.Index)
			}
			at := d.terms[entryID{g.Group, s.Index}]
			switch {
			case s.Index > g.Log.Last && s.Term < g.Log.LastTerm:
				d.disagree(g.Group, s.Index, "snapshot %s includes index %d in term %d, but the log ends at %d in term %d: the two are of different histories, and the snapshot is not used", s.ID, s.Index, s.Term, g.Log.Last, g.Log.LastTerm)
			case s.Index >= g.Log.First && s.Index <= g.Log.Last && at != 0 && at != s.Term:
				d.disagree(g.Group, s.Index, "snapshot %s has term %d at index %d, the log has term %d there: the two are of different histories, and the snapshot is not used", s.ID, s.Term, s.Index, at)
			case d.strange[s.ID]:
			case s.Index > g.Log.Last:
				d.disagree(g.Group, s.Index, "snapshot %s includes index %d, but the log ends at %d: entries are missing from the log", s.ID, s.Index, g.Log.Last)
			case s.Index+1 == g.Log.First && s.Term != g.Log.PrevTerm:
				d.disagree(g.Group, s.Index, "snapshot %s has term %d at index %d, the log has term %d there", s.ID, s.Term, s.Index, g.Log.PrevTerm)
			case s.Index+1 < g.Log.First:
				d.note("group %d: the log begins at %d and no longer reaches back to snapshot %s, which ends at %d: it can only be restored with -discard", g.Group, g.Log.First, s.ID, s.Index)
			}
		}
		switch {
		case g.Log.First > reaches+1 && kvKnown && !d.damaged(snapshotDir):
			d.disagree(g.Group, reaches+1, "the log begins at %d, data and snapshots end at %d: the entries between are gone", g.Log.First, reaches)
		case g.Log.First > reaches+1:
			d.note("group %d: the log begins at %d, and what is good of data and snapshots ends at %d", g.Group, g.Log.First, reaches)
		case g.Log.First > 1 && len(g.Snapshots) == 0:
			d.note("group %d: the log begins at %d and there is no good snapshot: the data could not be rebuilt if it were lost", g.Group, g.Log.First)
		}
	}
}

func (d *directory) printVerified(a *app, took time.Duration) error {
	entries, payload, size := d.logSize()
	state := func(store string) string {
		switch {
		case d.damaged(store):
			return "DAMAGED"
		case store == "agreement" && d.damaged(logDir):
			return "not checked"
		}
		return "ok"
	}
	raw, onDisk := int64(0), int64(0)
	for _, s := range d.snapshots {
		raw, onDisk = raw+s.RawBytes, onDisk+s.FileBytes
	}
	keys := 0
	for _, g := range d.kv.Groups {
		keys += g.Keys
	}
	t := newTable(a.out, "store", "state", "holds")
	t.row("log", state(logDir), fmt.Sprintf("%s with %s in %s (%s)", plural(int(entries), "entry"), bytesText(payload), plural(len(d.log.Segments), "segment"), bytesText(size)))
	t.row("snapshots", state(snapshotDir), fmt.Sprintf("%s of %s in %s", plural(len(d.snapshots), "good one"), bytesText(raw), bytesText(onDisk)))
	t.row("kv", state(kvDir), fmt.Sprintf("%s, %s in %s", plural(keys, "key"), plural(int(d.kv.Markers), "change"), bytesText(d.kv.Good)))
	t.row("agreement", state("agreement"), positions(d.groups()))
	t.render()
	return d.printFindings(a, fmt.Sprintf("every byte is good (%s)", timeText(took)))
}

// positions tells where the first groups are.
func positions(groups []groupState) string {
	if len(groups) == 0 {
		return "nothing yet"
	}
	g := groups[0]
	s := fmt.Sprintf("log %s, applied %d", span(g.Log), g.KV.Index)
	if len(g.Snapshots) > 0 {
		s += fmt.Sprintf(", snapshot at %d", g.Snapshots[0].Index)
	}
	if len(groups) > 1 {
		s = fmt.Sprintf("%d groups; group %d: %s", len(groups), g.Group, s)
	}
	return s
}

func span(b messages.LogBounds) string {
	if b.Empty() {
		return fmt.Sprintf("empty, next %d", b.First)
	}
	return fmt.Sprintf("%d to %d", b.First, b.Last)
}

// printFindings prints the notes and the problems, or that all is well.
func (d *directory) printFindings(a *app, good string) (err error) {
	for _, n := range d.notes {
		_, err = fmt.Fprintln(a.out, "note: "+n)
	}
	for _, p := range d.problems {
		_, err = fmt.Fprintln(a.out, "DAMAGE: "+p.String())
	}
	if len(d.problems) == 0 && good != "" {
		_, err = fmt.Fprintln(a.out, good)
	}
	return err
}
