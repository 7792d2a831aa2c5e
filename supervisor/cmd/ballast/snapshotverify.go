package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/urfave/cli/v3"
)

func (a *app) snapshotVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check every byte of snapshots",
		UsageText: "ballast snapshot verify [FLAGS] DIR [ID...]",
		Description: `Every block is read, decompressed, and both its checksums are checked. All damage
is printed, not the first alone: which block, where in the file, and which part of
the state is lost with it; the exit code is 1 if there is any. Without an ID it is
all snapshots that are verified. Nothing is changed.

-json prints one object: ok, dir, snapshots (the good ones), problems. A problem
has store, path, offset, index and text, and if it is about blocks
  "damage":{"blocks","of_blocks","state_bytes",
            "list":[{"block","offset","bytes","state_from","state_to","reason"}]}
of which the list ends after 1024.

` + snapshotIDHelp,
		Metadata: examples(
			"ballast snapshot verify ./data", "is all of it good?",
			"ballast snapshot verify ./data latest", "only the newest",
			"ballast snapshot verify ./data -json | jq '.problems[].damage.list'", "the damaged blocks",
		),
		Flags: []cli.Flag{
			dirFlag(),
			latestGroupFlag(),
			&cli.BoolFlag{Name: "all", Usage: "all snapshots, as without an ID"},
			jsonFlag("print the findings as JSON"),
		},
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			dir, rest, err := arguments(c, 0, -1)
			if err != nil {
				return err
			}
			if c.Bool("all") && len(rest) > 0 {
				return badUsage(c, "-all excludes an ID")
			}
			s, err := openSnapshots(dir, reading)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			var ids []string
			for _, name := range rest {
				id, err := s.resolve(a, c, name)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return a.verifySnapshots(ctx, s, dir, ids, c.Bool("json"))
		},
	}
}

// verifiedOutput is what was found, in JSON.
type verifiedOutput struct {
	OK        bool              `json:"ok"`
	Dir       string            `json:"dir"`
	Snapshots []snapshotOutput  `json:"snapshots"`
	Problems  []snapshotProblem `json:"problems"`
}

type snapshotProblem struct {
	problem
	Damage *damageOutput `json:"damage,omitempty"`
}

// damageOutput is a snapshot.DamageError.
type damageOutput struct {
	Blocks     int64         `json:"blocks"`
	OfBlocks   int64         `json:"of_blocks"`
	StateBytes int64         `json:"state_bytes"`
	List       []blockOutput `json:"list"`
}

type blockOutput struct {
	Block  int64  `json:"block"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	From   int64  `json:"state_from"`
	To     int64  `json:"state_to"`
	Reason string `json:"reason"`
}

func (a *app) verifySnapshots(ctx context.Context, s *snapshotFiles, dir string, ids []string, asJSON bool) error {
	began := time.Now()
	o := verifiedOutput{Dir: dir, Snapshots: []snapshotOutput{}, Problems: []snapshotProblem{}}
	infos, damaged, err := s.ListAll()
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		for _, d := range damaged {
			o.found(dir, d)
		}
	} else {
		// Those that have no description are met by verifying them.
		known := infos
		infos = nil
		for _, id := range ids {
			i := slices.IndexFunc(known, func(info messages.SnapshotInfo) bool { return info.ID == id })
			if i >= 0 {
				infos = append(infos, known[i])
			} else {
				infos = append(infos, messages.SnapshotInfo{ID: id})
			}
		}
	}
	total, bytes := int64(0), int64(0)
	for _, info := range infos {
		total += info.FileBytes
	}
	p := a.newBytesProgress("verifying", total)
	for _, info := range infos {
		at := p.at()
		verified, err := s.VerifyProgress(info.ID, func(n int64) error { p.add(n); return ctx.Err() })
		p.set(at + info.FileBytes)
		switch {
		case ctx.Err() != nil:
			a.console.clear()
			return ctx.Err()
		case err == nil:
			o.Snapshots = append(o.Snapshots, snapshotJSON(verified))
			bytes += verified.FileBytes
		case errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrIncompatible):
			o.found(dir, err)
		default:
			a.console.clear()
			return idHint(err)
		}
	}
	a.console.clear()
	o.OK = len(o.Problems) == 0
	if asJSON {
		err = json.NewEncoder(a.out).Encode(o)
	} else {
		o.print(a)
		switch {
		case o.OK && len(o.Snapshots) == 0:
			a.console.say("%s: there are no snapshots", dir)
		case o.OK:
			took := time.Since(began)
			_, err = fmt.Fprintf(a.out, "every byte is good: %s, %s (%s, %.0f MB/s)\n", plural(len(o.Snapshots), "snapshot"), bytesText(bytes), timeText(took), rate(bytes, took)/1e6)
		}
	}
	if err == nil && !o.OK {
		err = fmt.Errorf("snapshot verify %s: %s found", dir, plural(len(o.Problems), "problem"))
	}
	return err
}

func (o *verifiedOutput) found(dir string, err error) {
	p := snapshotProblem{problem: problem{Store: snapshotDir, Path: dir, Offset: -1, Text: err.Error()}}
	var c *messages.CorruptError
	if errors.As(err, &c) {
		p.Path, p.Offset, p.Index = c.Path, c.Offset, c.Index
	}
	var all *snapshot.DamageError
	if errors.As(err, &all) {
		p.Damage = &damageOutput{Blocks: all.Damaged, OfBlocks: all.Total, StateBytes: all.RawBytes}
		for _, b := range all.Blocks {
			reason := b.Reason
			if b.Err != nil {
				reason += ": " + b.Err.Error()
			}
			p.Damage.List = append(p.Damage.List, blockOutput{b.Number, b.Offset, b.Length, b.From, b.To, reason})
		}
	}
	o.Problems = append(o.Problems, p)
}

func (o *verifiedOutput) print(a *app) {
	t := newTable(a.out, "snapshot", "group", "index", "data", "file", "state")
	for _, s := range o.Snapshots {
		t.row(s.ID, s.Group, s.Index, bytesText(s.RawBytes), bytesText(s.FileBytes), "ok")
	}
	t.render()
	for _, p := range o.Problems {
		fmt.Fprintln(a.out, "DAMAGE: "+p.String())
		if p.Damage == nil {
			continue
		}
		for _, b := range p.Damage.List {
			fmt.Fprintf(a.out, "  block %d, %d bytes at offset %d: bytes %d to %d of the state are lost: %s\n", b.Block, b.Bytes, b.Offset, b.From, b.To-1, b.Reason)
		}
		if rest := p.Damage.Blocks - int64(len(p.Damage.List)); rest > 0 {
			fmt.Fprintf(a.out, "  and %s more\n", plural(rest, "block"))
		}
		fmt.Fprintf(a.out, "  lost: %s in %d of %s\n", bytesText(p.Damage.StateBytes), p.Damage.Blocks, plural(p.Damage.OfBlocks, "block"))
	}
}

// bytesProgress draws how many bytes of a known number are done.
type bytesProgress struct {
	console *console
	what    string
	total   int64
	began   time.Time

	mu    sync.Mutex
	done  int64
	drawn time.Time
}

func (a *app) newBytesProgress(what string, total int64) *bytesProgress {
	return &bytesProgress{console: a.console, what: what, total: total, began: time.Now()}
}

func (p *bytesProgress) at() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *bytesProgress) add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.move(p.done + n)
}

func (p *bytesProgress) set(done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.move(done)
}

func (p *bytesProgress) move(done int64) {
	p.done = done
	now := time.Now()
	if now.Sub(p.drawn) < redraw {
		return
	}
	p.drawn = now
	percent := int64(100)
	if p.total > 0 {
		percent = 100 * min(done, p.total) / p.total
	}
	p.console.progress(fmt.Sprintf("%s %3d%%  %s of %s  %.0f MB/s", p.what, percent, bytesText(done), bytesText(p.total), rate(done, now.Sub(p.began))/1e6))
}
