package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

func (a *app) rootCommand() *cli.Command {
	root := &cli.Command{
		Name:      "ballast",
		Usage:     "Raft storage as actors: a log, snapshots and application data in one directory",
		UsageText: "ballast COMMAND [FLAGS] [DIR] [ARGUMENTS]",
		Description: "Try 'ballast demo' first: it stores the source tree of the Go installation,\n" +
			"crashes two of the actors on the way, and checks every byte at the end.\n\n" +
			"Results go to standard output, progress and errors to standard error.\n" +
			"Exit codes: 0 all is well, 1 something failed, differs or is damaged,\n" +
			"2 the command line makes no sense, 130 interrupted.",
		Metadata: examples(
			"ballast demo", "see it work, and fail, and recover",
			"ballast load ./data docs/", "store a tree of files",
			"ballast get ./data file/readme.md -content", "read one of them back",
			"ballast verify ./data", "check every byte on disk",
			"ballast bench log", "measure the log against what the disk can do",
		),
		Version: version(),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "v", Usage: "log what the actors do, not only what goes wrong"},
			&cli.BoolFlag{Name: "quiet", Usage: "show no progress"},
		},
		Commands: []*cli.Command{
			a.demoCommand(), a.loadCommand(), a.getCommand(), a.scanCommand(), a.queryCommand(),
			a.kvCommand(), a.snapshotCommand(), a.restoreCommand(), a.inspectCommand(), a.verifyCommand(), a.logCommand(), a.benchCommand(),
			helpCommand(),
		},
		Before:         a.before,
		Action:         noCommand,
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		OnUsageError:   onUsageError,
	}
	prepare(root)
	return root
}

// prepare sets what all commands below c have in common.
func prepare(c *cli.Command) {
	for _, sub := range c.Commands {
		sub.OnUsageError = onUsageError
		sub.HideHelpCommand = true // an argument may be called "help"
		sub.DisableSliceFlagSeparator = true
		prepare(sub)
	}
}

// helpCommand replaces the library's, which knows one level of commands.
func helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Usage:     "explain a command, with examples",
		UsageText: "ballast help [COMMAND]",
		Hidden:    true, // printHelp has its own line for it
		Metadata:  examples("ballast help log dump", "explain ballast log dump"),
		Action: func(_ context.Context, c *cli.Command) error {
			about := c.Root()
			for _, name := range c.Args().Slice() {
				sub := about.Command(name)
				if sub == nil {
					return unknownCommand(about, name)
				}
				about = sub
			}
			printHelp(c.Root().Writer, "", about)
			return nil
		},
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// before sets up the log, which the actor engine writes to as well.
func (a *app) before(ctx context.Context, c *cli.Command) (context.Context, error) {
	level := slog.LevelWarn
	if c.Bool("v") {
		level = slog.LevelInfo
	}
	a.console.quiet = c.Bool("quiet")
	slog.SetDefault(slog.New(newLogHandler(a.console, level)))
	return ctx, nil
}

// noCommand is the action of a command that is only a group of others.
func noCommand(_ context.Context, c *cli.Command) error {
	if c.Args().Present() {
		return unknownCommand(c, c.Args().First())
	}
	printHelp(c.Root().Writer, "", c)
	return nil
}

func unknownCommand(group *cli.Command, name string) error {
	var names []string
	for _, sub := range group.VisibleCommands() {
		names = append(names, sub.Name)
	}
	return badUsage(group, "there is no command %q%s", name, suggest("", name, names))
}

// onUsageError turns what the flag parser says into our words.
func onUsageError(_ context.Context, c *cli.Command, err error, _ bool) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		var names []string
		for _, f := range slices.Concat(c.Flags, c.Root().Flags) {
			names = append(names, f.Names()...)
		}
		return badUsage(c, "there is no flag -%s%s", name, suggest("-", name, names))
	}
	if before, after, ok := strings.Cut(text, ": strconv."); ok { // the name of a Go function
		_, why, _ := strings.Cut(after, `": `)
		text = before + ": " + why
	}
	return badUsage(c, "%s", text)
}

// suggest names what the user may have meant, if something is near.
func suggest(dash, name string, names []string) string {
	best, distance := "", max(2, len(name)/2)+1
	for _, n := range names {
		if d := editDistance(strings.ToLower(name), n); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", dash, best)
}

// editDistance is the number of bytes to insert, remove or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// dirFlag is accepted beside the first argument, so that every command can be
// told its directory in the same way.
func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "the data `DIR`, instead of the first argument"}
}

func jsonFlag(usage string) cli.Flag { return &cli.BoolFlag{Name: "json", Usage: usage} }

// arguments returns the data directory and the arguments after it, of which
// there must be from least to most.
func arguments(c *cli.Command, least, most int) (dir string, rest []string, err error) {
	rest = c.Args().Slice()
	if dir = c.String("dir"); dir == "" {
		if len(rest) == 0 || rest[0] == "" {
			return "", nil, badUsage(c, "which data directory? Name it as the first argument, or with -dir")
		}
		dir, rest = rest[0], rest[1:]
	}
	switch {
	case len(rest) < least:
		return "", nil, badUsage(c, "too few arguments; usage: %s", c.UsageText)
	case most >= 0 && len(rest) > most:
		return "", nil, badUsage(c, "unexpected argument %q; usage: %s", rest[most], c.UsageText)
	}
	return dir, rest, nil
}

// existing makes sure that dir holds the files of a service, so that reading
// never creates one.
func existing(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New(dir + ": there is no such directory")
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New(dir + ": not a directory")
	}
	for _, name := range []string{logDir, snapshotDir, kvDir} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", dir, errNoData)
}

// errNoData: nothing in the directory is a service's. It may be a log's own.
var errNoData = errors.New("there is no Ballast data in this directory")

// The parts of a data directory; see supervisor.Config.
const (
	logDir      = "log"
	snapshotDir = "snapshots"
	kvDir       = "kv"
)
