package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/urfave/cli/v3"
)

// snapshotCommands are those that work on the files of snapshots, without the
// service.
func (a *app) snapshotCommands() []*cli.Command {
	return []*cli.Command{
		a.snapshotListCommand(), a.snapshotShowCommand(), a.snapshotGetCommand(), a.snapshotVerifyCommand(),
		a.snapshotExportCommand(), a.snapshotImportCommand(),
		a.snapshotDeleteCommand(), a.snapshotPruneCommand(), a.snapshotDiscardCommand(),
	}
}

const snapshotIDHelp = `ID is as list prints it, or 'latest', the newest of -group N (0 if not given).`

func latestGroupFlag() cli.Flag {
	return &cli.Uint64Flag{Name: "group", Usage: "`N` is the group that 'latest' is of"}
}

// snapshotFiles are the snapshots of a service, or those that have a directory
// to themselves, held until close: no service has them meanwhile.
type snapshotFiles struct {
	*snapshot.Dir
	path    string // of the files
	service string // the directory of the service, or empty
	locks   []*durable.Lock
}

// access is what a command does with the files.
type access int

const (
	reading  access = iota // changes nothing, not even what a start would tidy up
	changing               // removes files
	filling                // puts files into it, and makes the directory
)

func openSnapshots(dir string, do access) (s *snapshotFiles, err error) {
	s = &snapshotFiles{}
	if s.service, s.path, err = findSnapshots(dir, do); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if s.service != "" {
		if err = s.lock(s.service, do); err != nil {
			return s, err
		}
	}
	o := snapshot.Options{}
	if do == reading {
		if err = s.lock(s.path, do); err != nil {
			return s, err
		}
		o = snapshot.Options{NoLock: true, Disk: untouched{}}
	}
	s.Dir, err = snapshot.OpenDir(s.path, o)
	return s, err
}

// lock takes a directory. A reader does not, where that would make a file.
func (s *snapshotFiles) lock(dir string, do access) error {
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); err != nil && do == reading {
		return nil
	}
	l, err := durable.LockDir(dir)
	if err == nil {
		s.locks = append(s.locks, l)
	}
	return err
}

func (s *snapshotFiles) close() error {
	var errs []error
	if s.Dir != nil {
		errs = append(errs, s.Dir.Close())
	}
	for _, l := range s.locks {
		errs = append(errs, l.Release())
	}
	return errors.Join(errs...)
}

// findSnapshots finds the files: dir is a service's directory, its snapshots, or
// a directory of snapshots alone.
func findSnapshots(dir string, do access) (service, path string, err error) {
	switch err := existing(dir); {
	case err == nil:
		path = filepath.Join(dir, snapshotDir)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && do != filling {
			return "", "", fmt.Errorf("%s: there is no such directory, and so no snapshots", path)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		return dir, path, nil
	case errors.Is(err, errNoData):
	case do == filling && missing(dir):
		return "", dir, nil
	default:
		return "", "", err
	}
	if service := serviceOf(dir); service != "" {
		return service, dir, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", "", err
	}
	ours, others := 0, 0
	for _, e := range entries {
		if e.Name() == "LOCK" || strings.Contains(e.Name(), ".snap") {
			ours++
		} else {
			others++
		}
	}
	// A directory that was emptied still has LOCK.
	if (others == 0 || hasSnapshots(entries)) && (ours > 0 || do == filling) {
		return "", dir, nil
	}
	return "", "", fmt.Errorf("%s: there are no Ballast snapshots in this directory", dir)
}

func missing(dir string) bool {
	_, err := os.Stat(dir)
	return errors.Is(err, fs.ErrNotExist)
}

func hasSnapshots(entries []fs.DirEntry) bool {
	for _, e := range entries {
		if strings.Contains(e.Name(), ".snap") {
			return true
		}
	}
	return false
}

// serviceOf is the directory of the service that a directory of snapshots
// belongs to, or empty.
func serviceOf(dir string) string {
	whole, err := filepath.Abs(dir)
	if err != nil || filepath.Base(whole) != snapshotDir {
		return ""
	}
	parent := filepath.Dir(whole)
	for _, name := range []string{logDir, kvDir} {
		if info, err := os.Stat(filepath.Join(parent, name)); err == nil && info.IsDir() {
			return parent
		}
	}
	return ""
}

const latestID = "latest"

// resolve turns what the user has named into an id.
func (s *snapshotFiles) resolve(a *app, c *cli.Command, name string) (string, error) {
	if name != latestID {
		if c.IsSet("group") {
			return "", badUsage(c, "-group is for 'latest'; the ID has a group of its own")
		}
		if _, err := snapshot.ParseID(name); err != nil {
			return "", badUsage(c, "%.80q is no ID of a snapshot; ballast snapshot list prints them", name)
		}
		return name, nil
	}
	group := c.Uint64("group")
	infos, damaged, err := s.List(group)
	if err != nil {
		return "", err
	}
	if len(infos) == 0 {
		return "", fmt.Errorf("group %d has no snapshot that is good", group)
	}
	for _, d := range damaged {
		a.console.note("note: %v", d)
	}
	return infos[0].ID, nil
}

// idHint says what to do about an id that leads nowhere.
func idHint(err error) error {
	if errors.Is(err, messages.ErrNotFound) {
		return fmt.Errorf("no such snapshot; ballast snapshot list prints their IDs: %w", err)
	}
	return err
}

// errLogNeeds: without the snapshot the log begins behind all that is left.
var errLogNeeds = errors.New("the log needs it")

// errLastData: what is left may be good, but is no application data.
var errLastData = errors.New("it is the last good one of application data")

// place is where a snapshot lies beside the log of its group.
type place int

const (
	useless place = iota // the log no longer reaches back to it, or contradicts it
	within               // the log goes on from it
	ahead                // it lies beyond the end of the log, which begins anew behind it
)

// placeOf compares as recovery does, as far as the bounds of the log tell.
func placeOf(log messages.LogBounds, info messages.SnapshotInfo) place {
	switch {
	case info.Index+1 < log.First,
		info.Index+1 == log.First && info.Term != log.PrevTerm,
		info.Index > log.Last && info.Term < log.LastTerm:
		return useless
	case info.Index > log.Last:
		return ahead
	}
	return within
}

// mayGo refuses to let go the last good snapshot that the log goes on from. The
// store keeps a good one, but does not know the log: after an import the one that
// stays may end before the log begins, or be of another history. Nor does it know
// what a snapshot holds: where there are some of application data, one of
// something else is nothing to fall back on. Without a log to ask, or with force,
// that alone is what counts. verified is the id of one that was just read whole.
func (s *snapshotFiles) mayGo(group uint64, going, staying []messages.SnapshotInfo, verified string, force bool) error {
	if s.service == "" || force {
		return s.dataStays(group, going, staying, verified)
	}
	log, err := s.logOf(group)
	if err != nil {
		return err
	}
	places := []place{within, ahead}
	if log.First <= 1 {
		places = places[1:] // up to its end the log alone is enough
	}
	for _, data := range []bool{true, false} {
		for _, p := range places {
			if id, err := s.reaching(log, staying, p, data); err != nil || id != "" {
				return err
			}
			id, err := s.reaching(log, going, p, data)
			if err != nil {
				return err
			}
			if id != "" {
				where := fmt.Sprintf("begins at %d", log.First)
				if p == ahead {
					where = fmt.Sprintf("ends at %d", log.Last)
				}
				return fmt.Errorf("group %d: the log %s, and it goes on from no other good snapshot than %s: the data could not be rebuilt: %w (-force does not ask)",
					group, where, id, errLogNeeds)
			}
		}
	}
	return nil
}

// dataStays refuses to let go the last good snapshot of application data.
func (s *snapshotFiles) dataStays(group uint64, going, staying []messages.SnapshotInfo, verified string) error {
	if len(staying) == 0 {
		return nil // the store refuses it
	}
	goes, err := s.goodData(going, "")
	if goes == "" || err != nil {
		return err
	}
	stays, err := s.goodData(staying, verified)
	if stays != "" || err != nil {
		return err
	}
	return fmt.Errorf("group %d: %s cannot go: %w, and what would stay is not", group, goes, errLastData)
}

// goodData returns a good snapshot that holds application data, or nothing.
func (s *snapshotFiles) goodData(infos []messages.SnapshotInfo, verified string) (id string, err error) {
	for _, info := range infos {
		good, err := s.isGood(info.ID, true, verified)
		if err != nil {
			return "", err
		}
		if good {
			return info.ID, nil
		}
	}
	return "", nil
}

// logOf is the log of a group of the service.
func (s *snapshotFiles) logOf(group uint64) (messages.LogBounds, error) {
	none := messages.LogBounds{First: 1}
	report, err := raftlog.Inspect(filepath.Join(s.service, logDir))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !errors.Is(err, messages.ErrCorrupt):
		return none, nil
	case err == nil && len(report.Damage) > 0:
		err = report.Damage[0]
	}
	if err != nil {
		return none, fmt.Errorf("what the log holds is not known (-force does not ask): %w", err)
	}
	for _, g := range report.Groups {
		if g.Group == group {
			return g.Bounds, nil
		}
	}
	return none, nil
}

// reaching returns a good snapshot that lies in a place beside the log, and holds
// application data or something else, or nothing.
func (s *snapshotFiles) reaching(log messages.LogBounds, infos []messages.SnapshotInfo, p place, data bool) (id string, err error) {
	for _, info := range infos {
		if placeOf(log, info) != p {
			continue
		}
		good, err := s.isGood(info.ID, data, "")
		if err != nil {
			return "", err
		}
		if good {
			return info.ID, nil
		}
	}
	return "", nil
}

// isGood reports whether a snapshot holds application data, or something else,
// and is good in every byte, for which it is read unless it is the verified one.
func (s *snapshotFiles) isGood(id string, data bool, verified string) (bool, error) {
	is, err := s.holdsData(id)
	if err == nil && is == data {
		if id == verified {
			return true, nil
		}
		if _, err = s.Verify(id); err == nil {
			return true, nil
		}
	}
	if errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrNotFound) || errors.Is(err, messages.ErrIncompatible) {
		err = nil
	}
	return false, err
}

// holdsData reports whether a snapshot holds application data.
func (s *snapshotFiles) holdsData(id string) (is bool, err error) {
	r, err := s.OpenAt(id)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	head := make([]byte, 8)
	n, err := r.ReadAt(head, 0)
	if errors.Is(err, io.EOF) { // shorter
		err = nil
	}
	return kv.IsState(head[:n]), err
}
