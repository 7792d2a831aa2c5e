package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/tidwall/gjson"
	"github.com/urfave/cli/v3"
)

const defaultClients = 64

func clientsFlag() cli.Flag {
	return &cli.IntFlag{Name: "clients", Value: defaultClients, Usage: "`N` client actors, each with one proposal under way", Validator: func(n int) error {
		if n < 1 || n > 4096 {
			return errors.New("it must be 1 to 4096")
		}
		return nil
	}}
}

func (a *app) loadCommand() *cli.Command {
	return &cli.Command{
		Name:      "load",
		Usage:     "store files, or JSON lines from standard input",
		UsageText: "ballast load [FLAGS] DIR [PATH | -]...",
		Description: `Each PATH is a file or a directory, which is walked. The key of a file is -prefix
and its slash path below PATH; the value is a JSON document with its path,
package, size, line count and content ("encoding":"base64" says that the content
is not UTF-8). Without a PATH, or with -, JSON lines are read from standard
input: the value is the line; the key is "line/NAME/" and the number of the line
in 12 digits, or, with -key, -prefix and what the line has there. Empty lines are
counted and not stored. DIR is made if it does not exist.

What is there already with the same bytes is left alone; another value is an
update. So load can be run again after any interruption, kill -9 included, and
goes on where it was: once it has ended with exit code 0 the data is what one run
without interruption would have left, with nothing missing and nothing twice,
provided that the input is the same. For numbered lines that means the same lines
in the same order under the same -name. Lines with the same key take effect in
the order of the lines. What load has counted as stored is on disk.`,
		Metadata: examples(
			"ballast load ./data docs/", "every file below docs",
			"ballast load ./data -index size=size -index package=package src/", "with two indexes",
			"ballast load ./data -name access < access.jsonl", "numbered lines",
			"ballast load ./data -key user.id -prefix user/ < users.jsonl", "keys from the lines",
			"ballast load ./data -skip-bad - < dirty.jsonl", "report what is not JSON and go on",
		),
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "prefix", Usage: "begin keys with `TEXT` (default \"file/\" for files, \"line/NAME/\" for numbered lines, nothing with -key)"},
			&cli.StringFlag{Name: "name", Value: "stdin", Usage: "`NAME` of the lines' source, part of the keys of numbered lines"},
			&cli.StringFlag{Name: "key", Usage: "take the key of a line from `PATH` in it, as in user.id"},
			&cli.BoolFlag{Name: "skip-bad", Usage: "report lines that cannot be stored, and go on"},
			&cli.StringSliceFlag{Name: "index", Usage: "first create an index, `NAME=PATH`, over the keys with the prefix; can be repeated"},
			clientsFlag(),
			jsonFlag("print the counts as JSON"),
		},
		Action: a.load,
	}
}

// loading is one run of load.
type loading struct {
	app     *app
	command *cli.Command
	pool    *clientPool
	feed    *feed
	prefix  string
	started time.Time

	mu         sync.Mutex
	skipped    int
	unreadable int   // files that were found and could not be read
	first      error // the first that failed
	problems   int   // that were named
	lines      int   // that were read
}

func (a *app) load(ctx context.Context, c *cli.Command) (err error) {
	dir, paths, err := arguments(c, 0, -1)
	if err != nil {
		return err
	}
	l := &loading{app: a, command: c, prefix: c.String("prefix")}
	lines := len(paths) == 0 || len(paths) == 1 && paths[0] == "-"
	if err := l.checkFlags(paths, lines); err != nil {
		return err
	}
	indexes, err := l.indexes()
	if err != nil {
		return err
	}
	var files []file
	if !lines {
		if files, err = l.list(ctx, paths); err != nil {
			return err
		}
	}
	stop := every(redraw, func() { a.console.progress("opening " + dir) })
	s, err := openService(ctx, supervisor.Config{Dir: dir}, nil)
	stop()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, def := range indexes {
		if err := s.createIndex(ctx, def); err != nil {
			return err
		}
	}
	l.feed = newFeed(c.Int("clients"), lines)
	l.pool = newClientPool(s, l.feed, true)
	l.pool.onSkip = func(j *job, reason string) { l.skip(j.name, reason) }
	l.pool.onFail = l.failed
	return l.run(ctx, len(files), func(ctx context.Context) error {
		if lines {
			return l.readLines(ctx, a.in)
		}
		for _, f := range files {
			if !l.feed.add(ctx, f.job()) {
				return ctx.Err()
			}
		}
		return nil
	})
}

// checkFlags refuses what makes no sense together, and sets the default prefix.
func (l *loading) checkFlags(paths []string, lines bool) error {
	c := l.command
	if !lines {
		for _, name := range []string{"name", "key", "skip-bad"} {
			if c.IsSet(name) {
				return badUsage(c, "-%s is for lines from standard input, not for files", name)
			}
		}
		if !c.IsSet("prefix") {
			l.prefix = "file/"
		}
		return nil
	}
	if len(paths) == 0 && terminalWidth(l.app.in) > 0 {
		return badUsage(c, "load what? Name files or directories, or pipe JSON lines to standard input")
	}
	name := c.String("name")
	switch {
	case c.IsSet("key") && c.IsSet("name"):
		return badUsage(c, "-name is for numbered lines, -key for keys from the lines")
	case name == "" || strings.Contains(name, "/"):
		return badUsage(c, "-name %q must not be empty or contain a slash", name)
	case !c.IsSet("prefix") && !c.IsSet("key"):
		l.prefix = "line/" + name + "/"
	}
	return nil
}

func (l *loading) indexes() (defs []messages.IndexDefinition, err error) {
	for _, text := range l.command.StringSlice("index") {
		name, path, ok := strings.Cut(text, "=")
		def := messages.IndexDefinition{Name: name, Prefix: l.prefix, Fields: messages.Paths(path)}
		if err := messages.CreateIndexOperation(def).Validate(); !ok || err != nil {
			return nil, badUsage(l.command, "-index %q is not NAME=PATH", text)
		}
		defs = append(defs, def)
	}
	return defs, nil
}

// list finds the files, and refuses two that would have the same key.
func (l *loading) list(ctx context.Context, paths []string) (all []file, err error) {
	from := map[string]string{}
	for _, path := range paths {
		if path == "-" {
			return nil, badUsage(l.command, "- stands alone: load lines and files one after the other")
		}
		files, skipped, err := listFiles(ctx, path, l.prefix)
		if err != nil {
			return nil, err
		}
		for _, s := range skipped {
			if s.err == nil {
				l.skip(s.path, s.reason)
				continue
			}
			l.unreadable++
			l.failed(&job{name: s.path}, s.err)
		}
		for _, f := range files {
			if other, ok := from[f.key]; ok {
				return nil, fmt.Errorf("%s and %s would both be stored as %q; nothing was stored: load them one after the other with different -prefix", other, f.path, f.key)
			}
			from[f.key] = f.path
		}
		all = append(all, files...)
	}
	return all, nil
}

// run has add hand in all jobs, and waits until every one is settled.
func (l *loading) run(ctx context.Context, total int, add func(context.Context) error) error {
	l.started = time.Now()
	stop := every(redraw, func() { l.progress(total) })
	defer stop()
	l.pool.start()
	err := add(ctx)
	if ctx.Err() != nil {
		l.feed.stop()
	}
	l.feed.end()
	<-l.pool.done
	l.pool.end()
	stop()
	l.app.console.clear()
	if reportErr := l.report(); err == nil {
		err = reportErr
	}
	switch t := l.pool.read(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case l.first != nil:
		return errors.Join(err, fmt.Errorf("%d could not be stored; the first: %w", t.failed+l.unreadable, l.first))
	}
	return err
}

func (l *loading) readLines(ctx context.Context, in io.Reader) error {
	for r := range readAhead(ctx, in) {
		err := r.err
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return fmt.Errorf("read standard input, line %d: %w", r.number, err)
		}
		l.mu.Lock()
		l.lines = r.number
		l.mu.Unlock()
		var j *job
		if err == nil {
			if len(r.line) == 0 {
				continue
			}
			j, err = l.lineJob(r.number, r.line)
		}
		switch {
		case err != nil && l.command.Bool("skip-bad"):
			l.skip(fmt.Sprintf("line %d", r.number), err.Error())
		case err != nil:
			return fmt.Errorf("line %d: %w; nothing from this line on was stored, what was before it was: mend the line and run the same command again, or go on with -skip-bad", r.number, err)
		case !l.feed.add(ctx, j):
			return ctx.Err()
		}
	}
	return ctx.Err()
}

func (l *loading) lineJob(number int, line []byte) (*job, error) {
	if !json.Valid(line) {
		var v any
		return nil, fmt.Errorf("not JSON: %w", json.Unmarshal(line, &v))
	}
	key := fmt.Sprintf("%s%012d", l.prefix, number)
	if path := l.command.String("key"); path != "" {
		at := gjson.GetBytes(line, path)
		if !at.Exists() || at.Type == gjson.JSON || at.Type == gjson.Null {
			return nil, fmt.Errorf("there is no string, number or boolean at %q for a key", path)
		}
		key = l.prefix + at.String()
	}
	if err := messages.PutOperation([]byte(key), line).Validate(); err != nil {
		return nil, err
	}
	return &job{key: []byte(key), name: fmt.Sprintf("line %d", number), cost: int64(len(key)+len(line)) + 512,
		value: func() ([]byte, error) { return line, nil }}, nil
}

// skip tells of an input that is left out, and counts it.
func (l *loading) skip(name, reason string) {
	l.mu.Lock()
	l.skipped++
	l.mu.Unlock()
	l.problem("%s: skipped: %s", name, reason)
}

// failed tells of an input that should have been stored.
func (l *loading) failed(j *job, err error) {
	if !strings.Contains(err.Error(), j.name) {
		err = fmt.Errorf("%s: %w", j.name, err)
	}
	l.mu.Lock()
	if l.first == nil {
		l.first = err
	}
	l.mu.Unlock()
	l.problem("%v", err)
}

// mostProblems is how many inputs that are not stored are named one by one.
const mostProblems = 20

func (l *loading) problem(format string, args ...any) {
	l.mu.Lock()
	l.problems++
	n := l.problems
	l.mu.Unlock()
	switch {
	case n <= mostProblems:
		l.app.console.note(format, args...)
	case n == mostProblems+1:
		l.app.console.note("… and more, which are only counted")
	}
}
