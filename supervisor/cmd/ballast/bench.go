package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"
)

// benchCommand is the group of benchmarks.
func (a *app) benchCommand() *cli.Command {
	return &cli.Command{
		Name:      "bench",
		Usage:     "measure a store against what the disk can do",
		UsageText: "ballast bench COMMAND [FLAGS]",
		Metadata:  examples("ballast bench log -dir /var/tmp", "the log, on the disk of /var/tmp"),
		Commands:  []*cli.Command{a.benchLogCommand()},
		Action:    noCommand,
	}
}

func (a *app) benchLogCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "measure the log against what the disk can do",
		UsageText: "ballast bench log [FLAGS]",
		Description: `Every share is taken against a baseline that is measured beside it: in each round
first the one and then the other, in the next round the other way round, and what
is printed is the median of all rounds. Rates of two runs cannot be compared,
because disks are faster at one time than at another; shares can.

The limit of an append is write and fdatasync of the same payload into a file that
was filled with zeros before. Where many clients append, it is goroutines behind a
group commit over such writes: one takes the queue once it has stopped growing.
The limit of reading in sequence, and of opening, is pread of as many bytes in
pieces of 1 MiB from the page cache. Reads come from the page cache throughout.

Rows, for -rows:
  append/1x128 append/1x1KiB append/1x16KiB
                                     one appender that waits for each append
  append/64x128 append/512x128 append/512x1KiB
                                     the same, with batches
  clients/1 clients/64 clients/256   goroutines that append 128 B by asking the log actor
  actors/1 actors/64 actors/256      the same, by actors
  groups/1 groups/16 groups/256      256 appends under way, of so many groups; against
                                     one appender, and as many appenders of one group
  open/1Mx128 open/2Mx1KiB           every record is verified; the second is -large
  read/store read/ask                one entry of 128 B at random, from the store
                                     and through the log actor
  read/store-busy read/ask-busy      the same, while an appender syncs without pause;
                                     its rate, and the ratio to its rate alone; and
                                     that ratio for the limit of an append
  scan/128 scan/1KiB                 ranges of 1 MiB from front to back
  size/1x64 size/1x128 size/64x64 size/64x128
                                     bytes on disk beyond the payload

-json prints one object:
  {"version":1,"bench":"log","dir","filesystem","go","platform","cpus","rounds",
   "row_seconds","started","seconds","rows":[{"name","figures":{NAME:{"median",
   "min","max"}}}]}
Names of rows and figures stay; more may come. A figure ends with its unit, unless
it is a ratio: entries_per_second, limit_entries_per_second, share, p99_us, ….`,
		Metadata: examples(
			"ballast bench log", "all of it, in a temporary directory",
			"ballast bench log -dir /mnt/nvme -time 5s", "another disk, with less noise",
			"ballast bench log -rows '^(append|clients)'", "some rows",
			"ballast bench log -json | jq '.rows[]|{name,share:.figures.share.median}'", "for a script",
		),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "measure in `DIR`, below which nothing stays (default: a temporary directory)"},
			&cli.IntFlag{Name: "rounds", Value: 5, Usage: "measure every row `N` times"},
			&cli.DurationFlag{Name: "time", Value: time.Second, Usage: "spend `D` on each row and as much on its baseline, over all rounds"},
			&cli.StringFlag{Name: "rows", Usage: "only the rows whose name matches the regular expression `RE`"},
			&cli.BoolFlag{Name: "large", Usage: "open a log of 2 GiB as well"},
			jsonFlag("print the figures as JSON"),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return badUsage(c, "unexpected argument %q; the directory goes with -dir", c.Args().First())
			}
			o := benchOptions{dir: c.String("dir"), json: c.Bool("json"), rounds: c.Int("rounds"), time: c.Duration("time"),
				large: c.Bool("large"), sizes: benchDefaults, volume: volumeOf}
			if o.rounds < 1 || o.rounds > maxBenchRounds {
				return badUsage(c, "-rounds %d: it must be 1 to %d", o.rounds, maxBenchRounds)
			}
			if o.time <= 0 {
				return badUsage(c, "-time %v: it must be more than zero", o.time)
			}
			var err error
			if o.rows, err = regexp.Compile(c.String("rows")); err != nil {
				return badUsage(c, "-rows: %v", err)
			}
			if b := newBench(a, o); len(b.wanted()) == 0 {
				return badUsage(c, "-rows %q: there is no such row; there are %s", o.rows, strings.Join(b.names(), ", "))
			}
			return a.benchLog(ctx, o)
		},
	}
}

const maxBenchRounds = 1000

// benchOptions are those of the command line, and the sizes of what is read.
type benchOptions struct {
	dir         string // empty: a temporary one
	json, large bool
	rounds      int
	time        time.Duration // of a row, over all rounds
	rows        *regexp.Regexp
	sizes       benchSizes
	volume      func(dir string) (volume, error)
}

// benchSizes are numbers of entries, and of bytes for the file of the limit.
type benchSizes struct {
	small, medium, large int // the logs that are read: 128 B, 1 KiB, and 1 KiB for -large
	overhead             int // entries to count the bytes beyond the payload of
	limitFile            int
}

// 64 MiB is what a disk writes in less than a second, and more than its own
// cache can make look like one place.
var benchDefaults = benchSizes{small: 1_000_000, medium: 64 << 10, large: 2 << 20, overhead: 1024, limitFile: 64 << 20}

// slice is the time for one row in one round.
func (o benchOptions) slice() time.Duration {
	return max(o.time/time.Duration(o.rounds), time.Microsecond)
}

// space is about what the whole run has on disk at the same time: the file of
// the limit, the logs that are read, and what the fastest row may append in one
// slice, at 1 GB/s, before it is truncated.
func (o benchOptions) space() int64 {
	n := int64(o.sizes.limitFile) + 2*(128*int64(o.sizes.small)+1024*int64(o.sizes.medium)) + 256<<20
	n += int64(o.slice().Seconds() * 1e9)
	if o.large {
		n += int64(o.sizes.large) * 1024 * 11 / 10
	}
	return n
}

// volume is what holds the directory of a run.
type volume struct {
	filesystem string
	// lasting: what was synced there is there after a power cut.
	lasting bool
	free    int64
}

// volumeOf describes what holds dir.
func volumeOf(dir string) (v volume, err error) {
	if v.free, err = durable.Free(dir); err != nil {
		return v, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return v, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	v.filesystem, v.lasting = fileSystem(uint32(st.Type))
	return v, nil
}

// fileSystem names a file system by its magic number.
func fileSystem(magic uint32) (name string, lasting bool) {
	switch magic {
	case unix.TMPFS_MAGIC:
		return "tmpfs", false
	case unix.RAMFS_MAGIC:
		return "ramfs", false
	case unix.EXT4_SUPER_MAGIC: // that of ext2 and ext3 as well
		return "ext4", true
	case unix.XFS_SUPER_MAGIC:
		return "xfs", true
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", true
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay", true
	case unix.NFS_SUPER_MAGIC:
		return "nfs", true
	}
	return fmt.Sprintf("0x%x", magic), true
}

// bench is one run.
type bench struct {
	app      *app
	options  benchOptions
	dir      string // ours, removed at the end
	sections []*benchSection
	engine   *actor.Engine
	asker    *actors.Asker
	limit    *limit
	logs     int // how many were made
	readable map[string]*measuredLog
	began    time.Time
	doing    atomic.Pointer[string]
}

// benchSection is a table.
type benchSection struct {
	title   string
	columns []benchColumn
	rows    []*benchRow
	// close releases what the rows hold, the last first.
	close []func() error
}

type benchColumn struct {
	title, figure string
	format        func(float64) string
}

// benchRow is a row: measure takes the figures of one round.
type benchRow struct {
	name, title string
	measure     func(ctx context.Context, round int) (figures, error)
	// once: the figures are counted, not measured.
	once   bool
	rounds []figures
}

// figures are one round's, by name.
type figures map[string]float64

func newBench(a *app, o benchOptions) *bench {
	b := &bench{app: a, options: o, began: time.Now(), readable: map[string]*measuredLog{}}
	b.sections = []*benchSection{b.appendSection(), b.groupSection(), b.openSection(), b.readSection(), b.scanSection(), b.sizeSection()}
	return b
}

func (b *bench) names() (all []string) {
	for _, s := range b.sections {
		for _, r := range s.rows {
			all = append(all, r.name)
		}
	}
	return all
}

// wanted are the sections with the rows that the user wants.
func (b *bench) wanted() (sections []*benchSection) {
	for _, s := range b.sections {
		var rows []*benchRow
		for _, r := range s.rows {
			if b.options.rows.MatchString(r.name) {
				rows = append(rows, r)
			}
		}
		if len(rows) > 0 {
			some := *s
			some.rows = rows
			sections = append(sections, &some)
		}
	}
	return sections
}

func (a *app) benchLog(ctx context.Context, o benchOptions) (err error) {
	b := newBench(a, o)
	b.sections = b.wanted()
	parent, err := b.parent()
	if err != nil {
		return err
	}
	v, err := o.volume(parent)
	if err != nil {
		return err
	}
	if !v.lasting {
		a.console.note("warning: %s is on %s, where fdatasync does nothing: these are not the figures of a disk; name a directory on one with -dir", parent, v.filesystem)
	}
	if need := o.space(); v.free < need {
		return fmt.Errorf("bench log: %s has %s free, and %s are needed; name another directory with -dir: %w", parent, bytesText(v.free), bytesText(need), messages.ErrDiskFull)
	}
	if b.dir, err = temporary.make(parent, "ballast-bench-"); err != nil {
		return err
	}
	a.interrupted = "nothing of the run is left"
	defer func() { err = errors.Join(err, temporary.remove(b.dir)) }()
	defer narrate()()

	b.say("preparing")
	stop := every(redraw, b.progress)
	defer func() { stop() }()
	err = b.run(ctx, func(s *benchSection) error {
		if o.json {
			return nil
		}
		stop()
		a.console.clear()
		s.print(a.out)
		stop = every(redraw, b.progress)
		return a.out.flush()
	})
	stop()
	a.console.clear()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("bench log: %w", err)
	}
	return b.finish(parent, v.filesystem)
}

// parent is the directory in which that of the run is made.
func (b *bench) parent() (string, error) {
	dir := b.options.dir
	if dir == "" {
		return os.TempDir(), nil
	}
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s: there is no such directory", dir)
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", fmt.Errorf("%s: not a directory", dir)
	}
	return dir, nil
}

// say sets what the line of progress tells.
func (b *bench) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.doing.Store(&text)
}

func (b *bench) progress() {
	b.app.console.progress(fmt.Sprintf("bench log: %s, %.0f s", *b.doing.Load(), time.Since(b.began).Seconds()))
}

// run measures section after section, and in each of them round after round, so
// that what a section has on disk is gone before the next one begins.
func (b *bench) run(ctx context.Context, done func(*benchSection) error) (err error) {
	if b.engine, err = actor.NewEngine(actor.NewEngineConfig()); err != nil {
		return fmt.Errorf("start the actor engine: %w", err)
	}
	b.asker = actors.NewAsker(b.engine)
	defer b.asker.Close()
	if b.limit, err = newLimit(filepath.Join(b.dir, "limit"), b.options.sizes.limitFile); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.limit.close()) }()
	defer func() {
		for _, l := range b.readable {
			err = errors.Join(err, l.close())
		}
	}()
	for _, s := range b.sections {
		err := b.section(ctx, s)
		for _, f := range slices.Backward(s.close) {
			err = errors.Join(err, f())
		}
		if err == nil {
			err = done(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) section(ctx context.Context, s *benchSection) error {
	for round := range b.options.rounds {
		for _, r := range s.rows {
			if r.once && round > 0 {
				continue
			}
			b.say("%s, round %d of %d", r.name, round+1, b.options.rounds)
			// What the last row has left is no business of this one.
			runtime.GC()
			f, err := r.measure(ctx, round)
			if err = errors.Join(err, ctx.Err()); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			r.rounds = append(r.rounds, f)
		}
	}
	return nil
}

// inTurn calls both, in an order that changes with the round, so that neither is
// always the one that finds the disk as the other has left it.
func inTurn(round int, first, second func() error) error {
	if round%2 == 1 {
		first, second = second, first
	}
	if err := first(); err != nil {
		return err
	}
	return second()
}
