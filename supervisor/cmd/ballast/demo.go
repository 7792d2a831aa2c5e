package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/urfave/cli/v3"
)

func (a *app) demoCommand() *cli.Command {
	return &cli.Command{
		Name:      "demo",
		Usage:     "store a real source tree, crash actors on the way, check every byte",
		UsageText: "ballast demo [FLAGS]",
		Description: `Every file of the Go installation's source tree is proposed as a JSON document by
one of 64 client actors: appended to the log, synced, applied to the data, which
has indexes on size and package. On the way the log actor is crashed, a snapshot
is taken and the log compacted while writes go on, and the data actor is crashed.
At the end the service is stopped and opened again; every file is read back and
compared byte for byte with the disk, scans and indexes are checked against the
tree, and the table says PASS (exit code 0) or FAIL (exit code 1).

It takes less than a minute and 500 MB on the disk. The data is removed at the
end, unless -dir says where to keep it or something differs.`,
		Metadata: examples(
			"ballast demo", "the source tree of Go, in a temporary directory",
			"ballast demo -dir ./data", "keep the data, for get, query, verify, …",
			"ballast demo -from ~/src/linux -clients 256", "another tree, more clients",
			"ballast demo -listen 127.0.0.1:9090", "with /metrics, /healthz and /debug/pprof meanwhile",
			"ballast demo -json | jq .entries_per_second", "the figures, for a script",
		),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "keep the data in `DIR`, which must be empty or not exist"},
			&cli.StringFlag{Name: "from", Usage: "store the files below `DIR` (default: the src of go env GOROOT)"},
			clientsFlag(),
			listenFlag(),
			jsonFlag("print the results as JSON"),
		},
		Action: a.demo,
	}
}

// filePrefix begins the keys of files.
const filePrefix = "file/"

// The indexes that the demo creates.
var demoIndexes = []messages.IndexDefinition{
	{Name: "size", Prefix: filePrefix, Fields: messages.Paths("size")},
	{Name: "package", Prefix: filePrefix, Fields: messages.Paths("package")},
}

// demo is one run of the demo.
type demo struct {
	app     *app
	dir     string
	files   []file
	clients int
	service *service
	pages   *pages // or nil
	pool    *clientPool
	feed    *feed
	meter   *meter
	stages  *stages
	result  demoResult
}

func (a *app) demo(ctx context.Context, c *cli.Command) (err error) {
	if c.Args().Present() {
		return badUsage(c, "unexpected argument %q", c.Args().First())
	}
	from := c.String("from")
	if from == "" {
		if from, err = goSource(ctx); err != nil {
			return err
		}
	}
	d := &demo{app: a, clients: c.Int("clients"), dir: c.String("dir")}
	d.result = demoResult{From: from, Clients: d.clients, began: time.Now()}
	if err := d.list(ctx, from); err != nil {
		return err
	}
	if d.pages, err = a.listen(c); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.pages.close()) }()
	keep := d.dir != ""
	if err := d.directory(c); err != nil {
		return err
	}
	defer narrate()()
	a.console.say("%s files with %s below %s; the data goes to %s", countText(len(d.files)), bytesText(d.result.SourceBytes), from, d.dir)
	if err = d.write(ctx); err == nil {
		err = d.check(ctx)
	}
	a.console.clear()
	if ctx.Err() != nil {
		err = ctx.Err()
	} else {
		err = d.finish(c, err)
	}
	if !keep && (err == nil || ctx.Err() != nil) {
		return errors.Join(err, temporary.remove(d.dir))
	}
	a.console.say("the data is in %s", d.dir)
	return err
}

func (d *demo) list(ctx context.Context, from string) error {
	files, skipped, err := listFiles(ctx, from, filePrefix)
	if err != nil {
		return err
	}
	for _, s := range skipped {
		if s.err != nil {
			return s.err
		}
		d.app.console.note("%s: skipped: %s", s.path, s.reason)
	}
	if len(files) == 0 {
		return fmt.Errorf("%s: there are no files", from)
	}
	for _, f := range files {
		d.result.SourceBytes += f.size
	}
	d.files, d.result.Skipped = files, len(skipped)
	return nil
}

func (d *demo) directory(c *cli.Command) (err error) {
	if d.dir == "" {
		d.dir, err = temporary.make("", "ballast-demo-")
		return err
	}
	entries, err := os.ReadDir(d.dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return badUsage(c, "-dir %s is not empty; the demo begins with an empty directory", d.dir)
	}
	return nil
}

// write is the first half: everything is proposed, and the stages take place.
func (d *demo) write(ctx context.Context) (err error) {
	d.stages = newStages(d)
	if d.service, err = openService(ctx, supervisor.Config{Dir: d.dir}, d.stages.event); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.service.close()) }()
	d.pages.show(d.service)
	for _, def := range demoIndexes {
		if err := d.service.createIndex(ctx, def); err != nil {
			return err
		}
	}
	d.feed = newFeed(d.clients, false)
	d.pool = newClientPool(d.service, d.feed, false)
	d.pool.stopOnFail = true
	d.pool.onSkip = func(j *job, reason string) { d.stages.skipped(j, reason) }
	d.pool.onFail = func(j *job, err error) { d.stages.fail(fmt.Errorf("%s: %w", j.name, err)) }
	d.meter = newMeter(d)
	began := time.Now()
	d.pool.start()
	stopMeter := every(sampleInterval, func() { d.meter.sample(ctx) })
	defer stopMeter()
	staged := make(chan struct{})
	go func() { defer close(staged); d.stages.run(ctx) }()

	for i, f := range d.files {
		if !d.stages.pass(ctx, i) || !d.feed.add(ctx, f.job()) {
			break
		}
	}
	if ctx.Err() != nil {
		d.feed.stop()
	}
	d.feed.end()
	<-d.pool.done
	took := time.Since(began)
	<-staged
	stopMeter()
	d.pool.end()
	d.meter.sample(ctx)
	d.written(took)
	return errors.Join(ctx.Err(), d.stages.err(), d.settled(ctx))
}

// settled checks the service once everything is acknowledged.
func (d *demo) settled(ctx context.Context) error {
	if ctx.Err() != nil || d.stages.err() != nil {
		return nil
	}
	st, err := ask[messages.Status](ctx, d.service, d.service.Supervisor, messages.ReadStatus{})
	if err != nil {
		return err
	}
	r := &d.result
	r.LogFirst, r.LogLast, r.Applied = st.Log.First, st.Log.Last, st.Applied
	r.Snapshots = len(st.Snapshots)
	return d.positions(st)
}

// positions checks where log, snapshots and data are.
func (d *demo) positions(st messages.Status) error {
	var errs []error
	if st.Applied != st.Log.Last {
		errs = append(errs, fmt.Errorf("index %d is applied, the log ends at %d", st.Applied, st.Log.Last))
	}
	if n := uint64(d.result.Acked + len(demoIndexes)); st.Log.Last < n {
		errs = append(errs, fmt.Errorf("%d entries were acknowledged, the log ends at %d", n, st.Log.Last))
	}
	if len(st.Snapshots) == 0 {
		errs = append(errs, errors.New("there is no snapshot"))
	} else if oldest := st.Snapshots[len(st.Snapshots)-1].Index; st.Log.First != oldest+1 {
		errs = append(errs, fmt.Errorf("the log begins at %d, the snapshot ends at %d", st.Log.First, oldest))
	}
	if st.Keys != d.result.Acked {
		errs = append(errs, fmt.Errorf("%d files were acknowledged, there are %d keys", d.result.Acked, st.Keys))
	}
	return errors.Join(errs...)
}

// written takes down the figures of the first half.
func (d *demo) written(took time.Duration) {
	r, t := &d.result, d.pool.read()
	r.Acked, r.Proposals, r.Retries = t.acked(), t.sent, t.retries
	r.Failed, r.Bytes = t.failed, t.bytes
	r.Skipped += t.skipped
	r.WriteSeconds = took.Seconds()
	r.EntriesPerSecond, r.MBPerSecond = rate(t.acked(), took), rate(t.bytes, took)/1e6
	p := d.pool.latency
	r.AckP50, r.AckP99, r.AckMax = micros(p.ValueAtQuantile(50)), micros(p.ValueAtQuantile(99)), micros(p.Max())
	d.meter.result(r)
	d.stages.result(r)
}

func micros(n int64) duration { return duration(time.Duration(n) * time.Microsecond) }

// check is the second half: everything is opened again and compared.
func (d *demo) check(ctx context.Context) (err error) {
	r := &d.result
	for _, part := range []struct {
		name string
		size *int64
	}{{logDir, &r.LogBytes}, {snapshotDir, &r.SnapshotDirBytes}, {kvDir, &r.KVBytes}} {
		if *part.size, err = sizeOf(filepath.Join(d.dir, part.name)); err != nil {
			return err
		}
	}
	began := time.Now()
	stop := every(redraw, func() { d.app.console.progress("opening everything again") })
	d.service, err = openService(ctx, supervisor.Config{Dir: d.dir}, nil)
	stop()
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	defer func() { err = errors.Join(err, d.service.close()) }()
	d.pages.show(d.service)
	r.ReopenSeconds = time.Since(began).Seconds()
	st, err := ask[messages.Status](ctx, d.service, d.service.Supervisor, messages.ReadStatus{})
	if err != nil {
		return err
	}
	began = time.Now()
	err = errors.Join(d.positions(st), d.compare(ctx))
	r.CheckSeconds = time.Since(began).Seconds()
	return err
}

func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// bySize orders files as the index on size does, the largest first.
func bySize(a, b file) int {
	return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(b.key, a.key))
}
