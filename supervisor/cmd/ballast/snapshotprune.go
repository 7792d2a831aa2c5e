package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/urfave/cli/v3"
)

const needsHelp = `The newest good snapshot of a group always stays, and so does the last good one that
the log goes on from: the log was compacted up to the oldest that was kept, and
without any of them the data could not be rebuilt. Where there are snapshots of
application data only those count, also where there is no log to ask, and with
-force.`

func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "do not ask the log, for instance because it is damaged; the last good one of data stays"}
}

func (a *app) snapshotDeleteCommand() *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "remove snapshots",
		UsageText: "ballast snapshot delete [FLAGS] DIR ID...",
		Description: needsHelp + `
A damaged one can always be deleted. Each is gone for good, also after power loss,
when its ID has been printed.`,
		Metadata: examples("ballast snapshot delete ./data ID", "remove one"),
		Flags:    []cli.Flag{dirFlag(), forceFlag()},
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			dir, rest, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			for _, id := range rest {
				if _, err := snapshot.ParseID(id); err != nil {
					return badUsage(c, "%.80q is no ID of a snapshot; ballast snapshot list prints them", id)
				}
			}
			s, err := openSnapshots(dir, changing)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			a.interrupted = "what was deleted is printed above"
			for _, id := range rest {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := a.deleteSnapshot(s, id, c.Bool("force")); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) deleteSnapshot(s *snapshotFiles, id string, force bool) error {
	a.console.progress("reading what stays")
	defer a.console.clear()
	info, err := snapshot.ParseID(id)
	if err != nil {
		return err
	}
	staying, _, err := s.List(info.Group)
	if err != nil {
		return err
	}
	staying = slices.DeleteFunc(staying, func(i messages.SnapshotInfo) bool { return i.ID == id })
	if err := s.mayGo(info.Group, []messages.SnapshotInfo{info}, staying, "", force); err != nil {
		return err
	}
	if err := s.Delete(id); err != nil {
		return idHint(err)
	}
	a.console.clear()
	_, err = fmt.Fprintln(a.out, "deleted "+id)
	return err
}

func (a *app) snapshotPruneCommand() *cli.Command {
	return &cli.Command{
		Name:      "prune",
		Usage:     "remove older snapshots by number, age or size",
		UsageText: "ballast snapshot prune [FLAGS] DIR",
		Description: `A snapshot goes if any of the bounds says so; -keep and -max-bytes count the good
ones of its group from the newest on. What is to happen to each, and why, is printed
first, then what was done. Damaged snapshots are not counted and stay: delete them.

` + needsHelp + `
The fewer stay, the fewer there are to fall back on when the newest turns out to be
damaged: with -keep 1 there is none. The log itself is not touched; the service
compacts it with its next snapshot.

-json prints one object: dry_run, groups:[{group, plan:[{id, index, created,
file_bytes, fate, goes, problem}], removed:[ID], error}].`,
		Metadata: examples(
			"ballast snapshot prune ./data -keep 3 -dry-run", "what would go",
			"ballast snapshot prune ./data -keep 3", "three of each group stay",
			"ballast snapshot prune ./data -max-age 168h -max-bytes 20GB", "a week, and 20 GB",
		),
		Flags: []cli.Flag{
			dirFlag(),
			&cli.IntFlag{Name: "keep", Usage: "keep the newest `N` good ones of each group"},
			&cli.DurationFlag{Name: "max-age", Usage: "remove those older than `D`, such as 36h", HideDefault: true},
			&cli.StringFlag{Name: "max-bytes", Usage: "keep as many of each group as have `B` bytes together, such as 500MB or 20GB"},
			&cli.Uint64Flag{Name: "group", Usage: "only group `N`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "remove nothing"},
			forceFlag(),
			jsonFlag("print plan and outcome as JSON"),
		},
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			r, err := retentionOf(c)
			if err != nil {
				return err
			}
			do := changing
			if r.DryRun {
				do = reading
			}
			s, err := openSnapshots(dir, do)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			groups, err := s.groups()
			if err != nil {
				return err
			}
			if c.IsSet("group") {
				groups = []uint64{c.Uint64("group")}
			}
			return a.prune(ctx, s, dir, groups, r, c.Bool("force"), c.Bool("json"))
		},
	}
}

func retentionOf(c *cli.Command) (r messages.Retention, err error) {
	switch {
	case !c.IsSet("keep") && !c.IsSet("max-age") && !c.IsSet("max-bytes"):
		return r, badUsage(c, "by which bound? -keep, -max-age or -max-bytes")
	case c.IsSet("keep") && c.Int("keep") < 1:
		return r, badUsage(c, "-keep %d: at least one snapshot stays", c.Int("keep"))
	case c.IsSet("max-age") && c.Duration("max-age") <= 0:
		return r, badUsage(c, "-max-age %v: it must be more than zero", c.Duration("max-age"))
	}
	r = messages.Retention{Keep: c.Int("keep"), MaxAge: c.Duration("max-age"), DryRun: c.Bool("dry-run")}
	if c.IsSet("max-bytes") {
		if r.MaxBytes, err = parseBytes(c.String("max-bytes")); err != nil {
			return r, badUsage(c, "-max-bytes %q: %v", c.String("max-bytes"), err)
		}
	}
	return r, nil
}

// parseBytes is the inverse of bytesText, and takes binary units as well.
func parseBytes(s string) (int64, error) {
	number := strings.TrimRight(s, "kKMGTiB ")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, errors.New("it is no number of bytes, such as 500MB or 2GiB")
	}
	units := map[string]float64{"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	unit, ok := units[strings.TrimSpace(s[len(number):])]
	if !ok {
		return 0, errors.New("the unit is none of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")
	}
	if n := f * unit; n >= 1 && n < 1<<62 {
		return int64(n), nil
	}
	return 0, errors.New("it must be one byte at least")
}

// groups are those that have snapshots, good or not.
func (s *snapshotFiles) groups() (groups []uint64, err error) {
	infos, damaged, err := s.ListAll()
	for _, info := range infos {
		groups = append(groups, info.Group)
	}
	for _, d := range damaged {
		id, _, _ := strings.Cut(filepath.Base(d.Path), ".")
		if info, err := snapshot.ParseID(id); err == nil {
			groups = append(groups, info.Group)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), err
}

// prunedGroup is what is to happen to the snapshots of a group, and what did.
type prunedGroup struct {
	Group   uint64            `json:"group"`
	Plan    []plannedSnapshot `json:"plan"`
	Removed []string          `json:"removed"`
	Error   string            `json:"error,omitempty"`

	err error
}

type plannedSnapshot struct {
	ID        string    `json:"id"`
	Index     uint64    `json:"index"`
	Created   time.Time `json:"created"`
	FileBytes int64     `json:"file_bytes"`
	Fate      string    `json:"fate"`
	Goes      bool      `json:"goes"`
	Problem   string    `json:"problem,omitempty"`
}

func (a *app) prune(ctx context.Context, s *snapshotFiles, dir string, groups []uint64, r messages.Retention, force, asJSON bool) error {
	all := []prunedGroup{}
	a.interrupted = "groups that were not begun are as they were"
	for _, group := range groups {
		if ctx.Err() != nil {
			break
		}
		a.console.progress(fmt.Sprintf("group %d: reading the newest snapshot", group))
		all = append(all, s.pruneGroup(group, r, force))
	}
	a.console.clear()
	var err error
	if asJSON {
		err = json.NewEncoder(a.out).Encode(struct {
			DryRun bool          `json:"dry_run"`
			Groups []prunedGroup `json:"groups"`
		}{r.DryRun, all})
	} else {
		a.printPruned(all, r.DryRun)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	errs := []error{err}
	for _, g := range all {
		if g.err != nil {
			errs = append(errs, fmt.Errorf("snapshot prune %s: group %d: %w", dir, g.Group, g.err))
		}
	}
	return errors.Join(errs...)
}

func (s *snapshotFiles) pruneGroup(group uint64, r messages.Retention, force bool) prunedGroup {
	g := prunedGroup{Group: group, Plan: []plannedSnapshot{}, Removed: []string{}}
	plan, err := s.Plan(group, r)
	going, staying, damage := g.planned(plan)
	if err == nil && len(going) > 0 {
		err = s.mayGo(group, going, staying, newestGood(plan), force)
	}
	switch {
	case err != nil || r.DryRun || len(going) == 0:
		err = errors.Join(err, damage)
	default:
		var removed []string
		removed, err = s.Cleanup(group, r) // tells of the damage too
		g.Removed = append(g.Removed, removed...)
	}
	if g.err = err; err != nil {
		g.Error = err.Error()
	}
	return g
}

// newestGood is the id of the snapshot that a plan has read whole.
func newestGood(plan []messages.PlannedSnapshot) string {
	for _, p := range plan {
		if p.Fate == messages.StaysNewestGood {
			return p.ID
		}
	}
	return ""
}

// planned notes a plan and divides it.
func (g *prunedGroup) planned(plan []messages.PlannedSnapshot) (going, staying []messages.SnapshotInfo, damage error) {
	for _, p := range plan {
		o := plannedSnapshot{ID: p.ID, Index: p.Index, Created: p.Created.UTC(), FileBytes: p.FileBytes, Fate: p.Fate.String(), Goes: p.Fate.Goes()}
		if p.Err != nil {
			o.Problem = p.Err.Error()
			damage = errors.Join(damage, p.Err)
		}
		g.Plan = append(g.Plan, o)
		info, err := snapshot.ParseID(p.ID)
		if err != nil {
			continue // the store has no other names
		}
		if o.Goes {
			going = append(going, info)
		} else {
			staying = append(staying, info)
		}
	}
	return going, staying, damage
}

func (a *app) printPruned(all []prunedGroup, dry bool) {
	t := newTable(a.out, "snapshot", "group", "index", "created", "file", "plan")
	removed := 0
	bytes := int64(0)
	for _, g := range all {
		removed += len(g.Removed)
		for _, p := range g.Plan {
			t.row(p.ID, g.Group, p.Index, p.Created.Format(time.RFC3339), bytesText(p.FileBytes), p.Fate)
			if dry && p.Goes && g.err == nil || slices.Contains(g.Removed, p.ID) {
				bytes += p.FileBytes
			}
		}
	}
	t.render()
	for _, g := range all {
		for _, id := range g.Removed {
			fmt.Fprintln(a.out, "removed "+id)
		}
	}
	if dry {
		fmt.Fprintf(a.out, "nothing was removed; %s would be freed\n", bytesText(bytes))
		return
	}
	fmt.Fprintf(a.out, "%s removed, %s freed\n", plural(removed, "snapshot"), bytesText(bytes))
}

func (a *app) snapshotDiscardCommand() *cli.Command {
	return &cli.Command{
		Name:      "discard",
		Usage:     "remove what is left of a save or an import, or was set aside",
		UsageText: "ballast snapshot discard [FLAGS] DIR NAME...",
		Description: `NAME is that of a file which list shows as unfinished or set aside. An unfinished one
cannot be gone on with any more. Nothing else is removed by this command.`,
		Metadata: examples(
			"ballast snapshot list ./data", "their names",
			"ballast snapshot discard ./data NAME", "remove one",
		),
		Flags: []cli.Flag{dirFlag()},
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			dir, rest, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			s, err := openSnapshots(dir, changing)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			a.interrupted = "what was discarded is printed above"
			for _, name := range rest {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := s.Discard(name); errors.Is(err, messages.ErrNotFound) {
					return fmt.Errorf("no such file; ballast snapshot list prints their names: %w", err)
				} else if err != nil {
					return err
				}
				if _, err := fmt.Fprintln(a.out, "discarded "+name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
