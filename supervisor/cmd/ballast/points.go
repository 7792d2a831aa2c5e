package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/urfave/cli/v3"
)

func (a *app) snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:      "snapshot",
		Usage:     "take a snapshot and compact the log, or look after the ones there are",
		UsageText: "ballast snapshot [FLAGS] DIR\n  ballast snapshot COMMAND [FLAGS] DIR [ARGUMENTS]",
		Description: `Without a command one is taken. The data is written as a compressed file, which is
read back and verified. Then older snapshots beyond -keep are removed, and the log
up to the oldest one that stays: so one can fall back on that.

The commands work on the files alone, while no service has them. DIR is the data
directory of a service, or one that snapshots have to themselves; write ./list for
one that is called like a command.`,
		Metadata: examples(
			"ballast snapshot ./data", "take one, keep one more to fall back on",
			"ballast snapshot ./data -keep 5", "keep four older ones",
			"ballast snapshot list ./data", "the snapshots and their IDs",
			"ballast snapshot get ./data latest KEY", "read a key out of one",
			"ballast snapshot export ./data latest -o FILE", "copy one; import takes it in elsewhere",
		),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "the data `DIR`, instead of the first argument", Local: true},
			&cli.IntFlag{Name: "keep", Value: 2, Usage: "keep the newest `N` snapshots", Local: true},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON", Local: true},
		},
		Commands: a.snapshotCommands(),
		Action: func(ctx context.Context, c *cli.Command) error {
			if first := c.Args().First(); c.Args().Len() > 1 && missing(first) {
				return unknownCommand(c, first)
			}
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			if c.Int("keep") < 1 {
				return badUsage(c, "-keep %d: at least one snapshot stays", c.Int("keep"))
			}
			cfg := supervisor.Config{Dir: dir, Retention: messages.Retention{Keep: c.Int("keep")}}
			return a.with(ctx, cfg, func(s *service) error { return a.snapshot(ctx, c, s) })
		},
	}
}

func (a *app) snapshot(ctx context.Context, c *cli.Command, s *service) error {
	began := time.Now()
	stop := every(redraw, func() { a.console.progress(fmt.Sprintf("taking a snapshot, %.1f s", time.Since(began).Seconds())) })
	r, err := ask[messages.SnapshotCreated](ctx, s, s.Supervisor, messages.CreateSnapshot{})
	stop()
	a.console.clear()
	if err != nil {
		if errors.Is(err, messages.ErrNotApplied) {
			return fmt.Errorf("there is nothing to take a snapshot of yet: %w", err)
		}
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(a.out).Encode(struct {
			snapshotOutput
			LogFirst uint64 `json:"log_first"`
		}{snapshotJSON(r.Info), r.LogFirst})
	}
	_, err = fmt.Fprintf(a.out, "%s\nindex %d, term %d; %s in a file of %s (%s); the log begins at %d\n", r.Info.ID, r.Info.Index, r.Info.Term,
		bytesText(r.Info.RawBytes), bytesText(r.Info.FileBytes), savedText(r.Info), r.LogFirst)
	return err
}

func savedText(i messages.SnapshotInfo) string {
	if i.RawBytes == 0 {
		return "empty"
	}
	return fmt.Sprintf("%.0f%% saved", 100-100*float64(i.FileBytes)/float64(i.RawBytes))
}

// snapshotOutput describes a snapshot in JSON.
type snapshotOutput struct {
	ID          string    `json:"id"`
	Group       uint64    `json:"group"`
	Index       uint64    `json:"index"`
	Term        uint64    `json:"term"`
	Created     time.Time `json:"created"`
	RawBytes    int64     `json:"raw_bytes"`
	FileBytes   int64     `json:"file_bytes"`
	ContentHash string    `json:"content_hash"`
}

func snapshotJSON(i messages.SnapshotInfo) snapshotOutput {
	return snapshotOutput{i.ID, i.Group, i.Index, i.Term, i.Created.UTC(), i.RawBytes, i.FileBytes, hex.EncodeToString(i.ContentHash[:])}
}

func (a *app) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "rebuild the data from a snapshot",
		UsageText: "ballast restore [FLAGS] DIR [ID]",
		Description: `The snapshot, the newest good one if no ID is given, is verified and swapped in,
and the log after it is applied again: the data comes out as it was, from other
bytes on disk.

With -discard everything after the snapshot is given up instead: the data is that
of the snapshot, newer snapshots are removed and the log goes on from there.
ballast inspect lists the snapshots and their IDs.`,
		Metadata: examples(
			"ballast restore ./data", "rebuild from the newest snapshot and the log",
			"ballast restore ./data ID -discard", "go back to a snapshot for good",
		),
		Flags: []cli.Flag{
			dirFlag(),
			&cli.BoolFlag{Name: "discard", Usage: "give up what is newer than the snapshot"},
			jsonFlag("print the result as JSON"),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, rest, err := arguments(c, 0, 1)
			if err != nil {
				return err
			}
			r := messages.Restore{Discard: c.Bool("discard")}
			if len(rest) == 1 {
				r.ID = rest[0]
			}
			return a.with(ctx, supervisor.Config{Dir: dir}, func(s *service) error { return a.restore(ctx, c, s, r) })
		},
	}
}

func (a *app) restore(ctx context.Context, c *cli.Command, s *service, command messages.Restore) error {
	stop := every(redraw, func() { a.console.progress("restoring") })
	r, err := ask[messages.Restored](ctx, s, s.Supervisor, command)
	stop()
	a.console.clear()
	if err != nil {
		if errors.Is(err, messages.ErrNotFound) {
			return fmt.Errorf("no such snapshot; ballast inspect lists them: %w", err)
		}
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(a.out).Encode(struct {
			Snapshot snapshotOutput `json:"snapshot"`
			Applied  uint64         `json:"applied"`
			Replayed uint64         `json:"replayed"`
		}{snapshotJSON(r.Info), r.Applied, r.Replayed})
	}
	_, err = fmt.Fprintf(a.out, "restored %s\nthe data is that of index %d; %d entries of the log were applied after the snapshot\n", r.Info.ID, r.Applied, r.Replayed)
	return err
}
