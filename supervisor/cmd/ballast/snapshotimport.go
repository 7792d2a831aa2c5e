package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/urfave/cli/v3"
)

func (a *app) snapshotImportCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "take in a snapshot that was exported, from a file or a pipe",
		UsageText: "ballast snapshot import [FLAGS] DIR [FILE]",
		Description: `FILE is what 'ballast snapshot export' has written; without it, or with -, it is
read from standard input. Every byte is checked, decompressed as well, and only then
the snapshot is there, under the ID that it had, and on disk. If it is there already
nothing changes.

What has come is kept for 24 hours if the import breaks off: by a signal, kill -9, a
pipe that ends too early, a full disk. Import the same snapshot again and it goes on:
what is there is checked and skipped in what comes. The error also says from which
-offset on to export, so that only the rest is sent. A stream that is damaged is
thrown away. There is one unfinished import for each group; one of another snapshot
of the group replaces it.

DIR may be the data directory of a service, or a directory for snapshots alone,
which is made. A service goes over to what was imported by 'ballast restore -discard'
and, if it should lose its data, by itself; so one that reaches beyond the service's
log is refused, because what is in the log would be given up for it.`,
		Metadata: examples(
			"ballast snapshot import ./copies copy.snapshot", "from a file",
			"ssh host ballast snapshot export ./data latest | ballast snapshot import -dir ./copies", "from another machine",
		),
		Flags: []cli.Flag{
			dirFlag(),
			&cli.BoolFlag{Name: "force", Usage: "also a snapshot that reaches beyond the log of the service"},
			jsonFlag("print what was imported as JSON"),
		},
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			dir, rest, err := arguments(c, 0, 1)
			if err != nil {
				return err
			}
			in := a.in
			if len(rest) == 1 && rest[0] != "-" {
				f, err := os.Open(rest[0])
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				in = f
			} else if terminalWidth(a.in) > 0 {
				return badUsage(c, "standard input is a terminal: name a FILE, or send an export into a pipe")
			}
			s, err := openSnapshots(dir, filling)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			return a.importSnapshot(ctx, s, dir, newPipeReader(ctx, in), c.Bool("force"), c.Bool("json"))
		},
	}
}

// importing is one run of the command.
type importing struct {
	app   *app
	files *snapshotFiles
	dir   string // as the user has named it
	head  snapshot.StreamHead
	id    string
	began time.Time
	// start is where in the file this run goes on, and came how much of the
	// file has come in all.
	start, came int64
}

func (a *app) importSnapshot(ctx context.Context, s *snapshotFiles, dir string, in io.Reader, force, asJSON bool) error {
	m := &importing{app: a, files: s, dir: dir, began: time.Now()}
	a.interrupted = "nothing has come yet"
	head, read, err := snapshot.ReadStreamHead(in)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF):
		return errors.New("import: nothing has come: the input is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("import: the input ends after %d bytes, before it has said what it is; nothing was kept: %w", len(read), err)
	case err != nil:
		return fmt.Errorf("import: this is no export of a snapshot: %w", err)
	}
	m.head = head
	if m.id, err = m.identify(); err != nil {
		return err
	}
	there, err := m.there()
	if err != nil {
		return err
	}
	if !there {
		if err := m.fits(force); err != nil {
			return err
		}
	}
	info, err := m.take(ctx, in, read)
	a.console.clear()
	if err != nil {
		return m.explain(ctx, err)
	}
	return m.report(info, there, asJSON)
}

// identify tells which snapshot comes. A stream that goes on has only the time
// of its creation.
func (m *importing) identify() (string, error) {
	if m.head.ID != "" {
		return m.head.ID, nil
	}
	unfinished, err := m.files.Unfinished()
	if err != nil {
		return "", err
	}
	var ids []string
	for _, u := range unfinished {
		if info, err := snapshot.ParseID(u.ID); u.Import && err == nil && info.Created.Equal(m.head.Created) {
			ids = append(ids, u.ID)
		}
	}
	switch len(ids) {
	case 0:
		return "", fmt.Errorf("import: the stream begins at offset %d, and there is no import that it could go on with; export without -offset", m.head.Offset)
	case 1:
		return ids[0], nil
	}
	return "", fmt.Errorf("import: the stream begins at offset %d, and may go on with %s or %s; export without -offset", m.head.Offset, ids[0], ids[1])
}

// there reports whether a file has the id already.
func (m *importing) there() (bool, error) {
	_, err := os.Lstat(filepath.Join(m.files.path, m.id+".snap"))
	if err == nil {
		return true, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return false, err
}

// errBeyond: the service would prefer the snapshot to its log.
var errBeyond = errors.New("it reaches beyond the log of the service")

// fits refuses a snapshot for which a service might give up its log. A service
// that rebuilds its data takes the newest snapshot that there is.
func (m *importing) fits(force bool) error {
	info, err := snapshot.ParseID(m.id)
	if m.files.service == "" || force || err != nil {
		return err
	}
	log, err := m.files.logOf(info.Group)
	if err != nil {
		return fmt.Errorf("import of %s: %w", m.id, err)
	}
	if log.Last > 0 && info.Index > log.Last {
		return fmt.Errorf("import of %s: %w, which ends at %d: what is in the log would be given up for it (-force imports it)", m.id, errBeyond, log.Last)
	}
	if log.Last == 0 || info.Index+1 < log.First {
		m.app.console.say("the log of the service does not go on from this snapshot; ballast restore -discard %s %s goes over to it", m.dir, m.id)
	}
	return nil
}

// errGap: the rest of a file whose beginning is not here.
var errGap = errors.New("the bytes before it are not here")

// take goes on with what is there: that is skipped in the stream.
func (m *importing) take(ctx context.Context, in io.Reader, read []byte) (info messages.SnapshotInfo, err error) {
	m.app.console.progress("checking what is there of " + m.id)
	w, offset, err := m.files.Import(m.id)
	if err != nil {
		return info, err
	}
	m.start, m.came = max(offset, m.head.Offset), max(offset, m.head.Offset)
	if m.head.Offset > offset {
		m.came = offset
		return info, errors.Join(fmt.Errorf("the stream begins at offset %d: %w", m.head.Offset, errGap), w.Suspend())
	}
	if offset > m.head.Offset {
		m.app.console.say("going on with the import of %s at %s of %s", m.id, bytesText(offset), bytesText(m.head.FileBytes))
		skip := offset - m.head.Offset - int64(len(read)-snapshot.EnvelopeBytes)
		p := m.app.newBytesProgress("skipping", skip)
		n, err := copyPieces(ctx, io.Discard, io.LimitReader(in, skip), p.add)
		if err == nil && n < skip {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return info, errors.Join(err, w.Suspend())
		}
		read = m.head.From(offset)
	}
	m.came += int64(len(read)) - snapshot.EnvelopeBytes
	p := m.app.newBytesProgress("importing", m.head.FileBytes)
	p.set(m.came)
	if _, err := w.Write(read); err != nil {
		return info, err // it has ended itself
	}
	_, err = copyPieces(ctx, importWriter{w}, in, func(n int64) { m.came += n; p.add(n) })
	var failed writeError
	switch {
	case errors.As(err, &failed):
		return info, failed.error
	case err != nil:
		return info, errors.Join(err, w.Suspend())
	}
	m.app.console.progress("checking " + m.id)
	return w.Finish()
}

// importWriter tells its errors from those of the input.
type importWriter struct{ w io.Writer }

type writeError struct{ error }

// Write implements io.Writer.
func (w importWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		err = writeError{err}
	}
	return n, err
}

// explain says what is kept, and how to go on.
func (m *importing) explain(ctx context.Context, err error) error {
	total := bytesText(m.head.FileBytes)
	if ctx.Err() != nil {
		// Whoever interrupts it does not want to wait until what is kept was
		// read.
		u, also := m.unfinished()
		m.app.interrupted = "nothing of the import is kept"
		if u.Name != "" {
			m.app.interrupted = fmt.Sprintf("%s of %s of the import are kept as %s; to go on, import it again", bytesText(u.FileBytes), total, u.Name)
		}
		if also != nil {
			m.app.interrupted += "; " + also.Error()
		}
		return ctx.Err()
	}
	kept, name, also := m.kept()
	m.app.console.clear()
	if also != nil {
		err = errors.Join(err, also)
	}
	what := "import of " + m.id
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		what = fmt.Sprintf("%s: the input has ended after %s of %s", what, bytesText(m.came), total)
	case errors.Is(err, messages.ErrDiskFull):
		what = fmt.Sprintf("%s: there is no room for the rest, %s", what, bytesText(m.head.FileBytes-m.came))
	case errors.Is(err, messages.ErrConflict):
		return fmt.Errorf("%s: something else has this ID here; 'ballast snapshot verify' it, and delete it if it is damaged: %w", what, err)
	case errors.Is(err, messages.ErrCorrupt) && kept == 0:
		what += ": it arrived damaged, and was thrown away"
	}
	switch {
	case kept > 0:
		return fmt.Errorf("%s: %w\n%s of %s are kept as %s\nto go on, import it again; to send only the rest:\n  ballast snapshot export -offset %d DIR %s | ballast snapshot import -dir %s",
			what, err, bytesText(kept), total, name, kept, m.id, m.dir)
	case errors.Is(err, errGap):
		return fmt.Errorf("%s: %w: export without -offset", what, err)
	}
	return fmt.Errorf("%s: %w; nothing is kept", what, err)
}

// unfinished is what there is of this import; without a name, nothing.
func (m *importing) unfinished() (messages.UnfinishedSnapshot, error) {
	all, err := m.files.Unfinished()
	i := slices.IndexFunc(all, func(u messages.UnfinishedSnapshot) bool { return u.Import && u.ID == m.id })
	if err != nil || i < 0 {
		return messages.UnfinishedSnapshot{}, err
	}
	return all[i], nil
}

// kept looks how much there is to go on with, as the next import will find it.
func (m *importing) kept() (offset int64, name string, err error) {
	if u, err := m.unfinished(); u.Name == "" || err != nil {
		return 0, "", err
	}
	m.app.console.progress("checking what has come")
	w, offset, err := m.files.Import(m.id)
	if err != nil {
		return 0, "", err
	}
	if err := w.Suspend(); err != nil {
		return 0, "", err
	}
	u, err := m.unfinished()
	if u.Name == "" || err != nil {
		return 0, "", err // not a single block
	}
	return offset, u.Name, nil
}

func (m *importing) report(info messages.SnapshotInfo, there, asJSON bool) error {
	took := time.Since(m.began)
	if asJSON {
		return json.NewEncoder(m.app.out).Encode(struct {
			snapshotOutput
			There   bool  `json:"was_there"`
			Resumed int64 `json:"resumed_at"`
		}{snapshotJSON(info), there, m.start})
	}
	what := fmt.Sprintf("%s imported", bytesText(info.FileBytes-m.start))
	if m.start > 0 {
		what += fmt.Sprintf(" to %s that were there", bytesText(m.start))
	}
	if there {
		what = "it was there already"
	}
	_, err := fmt.Fprintf(m.app.out, "%s\ngroup %d, index %d, term %d; %s in a file of %s; every byte is good; %s (%s)\n", info.ID, info.Group, info.Index, info.Term,
		bytesText(info.RawBytes), bytesText(info.FileBytes), what, timeText(took))
	return err
}
