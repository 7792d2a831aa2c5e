package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/urfave/cli/v3"
)

func (a *app) snapshotExportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "copy a snapshot as it is to a file or into a pipe",
		UsageText: "ballast snapshot export [FLAGS] DIR ID",
		Description: `The file is copied compressed, behind an envelope that says what it is, for
'ballast snapshot import'. Every byte's checksum is checked on the way, so a damaged
snapshot is not exported: the copy ends before the damage, with an error.

Without -o it goes to standard output, which may not be a terminal. A file gets its
name when it is complete and on disk; until then it is FILE.tmp, which is removed if
anything goes wrong. A file that is there is not replaced.

With -offset the envelope is followed by the rest of the file only, for an import
that broke off and has said so.

` + snapshotIDHelp,
		Metadata: examples(
			"ballast snapshot export ./data latest -o copy.snapshot", "into a file",
			"ballast snapshot export ./data latest | ssh host ballast snapshot import -dir ./copies", "to another machine",
		),
		Flags: []cli.Flag{
			dirFlag(),
			latestGroupFlag(),
			&cli.StringFlag{Name: "o", Value: "-", Usage: "write to `FILE`, or - for standard output"},
			&cli.Int64Flag{Name: "offset", Usage: "begin at byte `N` of the file"},
		},
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			dir, rest, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			if c.Int64("offset") < 0 {
				return badUsage(c, "-offset %d is negative", c.Int64("offset"))
			}
			if c.String("o") == "" {
				return badUsage(c, "-o is empty")
			}
			s, err := openSnapshots(dir, reading)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			id, err := s.resolve(a, c, rest[0])
			if err != nil {
				return err
			}
			return a.exportSnapshot(ctx, s, id, c.Int64("offset"), c.String("o"))
		},
	}
}

func (a *app) exportSnapshot(ctx context.Context, s *snapshotFiles, id string, offset int64, path string) (err error) {
	defer withoutSIGPIPE()()
	began := time.Now()
	e, err := s.Export(id, offset)
	if err != nil {
		return idHint(err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	t, err := a.newTarget(ctx, path)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	a.interrupted = "the export is not complete"
	if t.path != "" {
		a.interrupted = path + " was not written"
	}
	total := e.Size() - offset
	p := a.newBytesProgress("exporting", total)
	n, err := copyPieces(ctx, t.w, e, p.add)
	err = t.finish(err)
	a.console.clear()
	switch {
	case err == nil && path != "-":
		_, err = fmt.Fprintf(a.out, "%s\n%s in %s (%s)\n", id, bytesText(n), path, timeText(time.Since(began)))
		return err
	case err == nil:
		a.console.say("exported %s: %s in %s", id, bytesText(n), timeText(time.Since(began)))
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("export of %s: whoever reads the pipe has closed it after %s of %s; export again, the import goes on with what it has kept: %w", id, bytesText(n), bytesText(total), err)
	case errors.Is(err, messages.ErrCorrupt):
		return fmt.Errorf("the copy is not complete: %w", err)
	}
	return fmt.Errorf("export of %s, after %s of %s: %w", id, bytesText(n), bytesText(total), durable.Wrap(err))
}

// copyPieces copies until the end and tells of each piece.
func copyPieces(ctx context.Context, w io.Writer, r io.Reader, did func(int64)) (total int64, err error) {
	buf := make([]byte, pieceBytes)
	for {
		if ctx.Err() != nil {
			return total, ctx.Err()
		}
		n, err := r.Read(buf)
		if n > 0 {
			k, err := w.Write(buf[:n])
			total += int64(k)
			did(int64(k))
			if err != nil {
				return total, err
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
