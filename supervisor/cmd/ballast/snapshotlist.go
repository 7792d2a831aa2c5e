package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
	"github.com/urfave/cli/v3"
)

func (a *app) snapshotListCommand() *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "list the snapshots, and what is left of others",
		UsageText: "ballast snapshot list [FLAGS] DIR",
		Description: `Of each file only what describes it is read: header, index and footer. So a state
of good means just that, and verify reads the rest. The states:
  good           header, index and footer are good
  damaged        they are not, and it says why; the exit code is 1
  newer version  this version cannot read it
  set aside      it was found damaged and replaced; 'snapshot discard' removes it
  unfinished     a save or an import that can be gone on with, for 24 hours

-json prints one object a line:
  {"id","name","state","group","index","term","created","raw_bytes","file_bytes",
   "saved_percent","codec","content_hash","problem"}
name is the file's; of a file that cannot be read only what its name says is there.`,
		Metadata: examples(
			"ballast snapshot list ./data", "all of them",
			"ballast snapshot list ./data -group 7", "those of one group",
			"ballast snapshot list ./data -json | jq 'select(.state != \"good\")'", "for a script",
		),
		Flags: []cli.Flag{
			dirFlag(),
			&cli.Uint64Flag{Name: "group", Usage: "only those of group `N`"},
			jsonFlag("print one JSON object a line"),
		},
		Action: func(_ context.Context, c *cli.Command) (err error) {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			s, err := openSnapshots(dir, reading)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			rows, notes, err := s.list()
			if err != nil {
				return err
			}
			if c.IsSet("group") {
				rows = slices.DeleteFunc(rows, func(r snapshotRow) bool { return r.Group != c.Uint64("group") })
			}
			return a.printSnapshots(dir, rows, notes, c.Bool("json"))
		},
	}
}

// The states of a snapshot's file.
const (
	stateGood       = "good"
	stateDamaged    = "damaged"
	stateNewer      = "newer version"
	stateAside      = "set aside"
	stateUnfinished = "unfinished"
)

// snapshotRow is a file of the directory.
type snapshotRow struct {
	ID          string    `json:"id,omitempty"`
	Name        string    `json:"name"`
	State       string    `json:"state"`
	Group       uint64    `json:"group"`
	Index       uint64    `json:"index"`
	Term        uint64    `json:"term"`
	Created     time.Time `json:"created,omitzero"`
	RawBytes    int64     `json:"raw_bytes,omitempty"`
	FileBytes   int64     `json:"file_bytes"`
	Saved       *float64  `json:"saved_percent,omitempty"`
	Codec       string    `json:"codec,omitempty"`
	ContentHash string    `json:"content_hash,omitempty"`
	Problem     string    `json:"problem,omitempty"`
}

// list reads what describes each file, groups from low to high, in each the
// newest first.
func (s *snapshotFiles) list() (rows []snapshotRow, notes []string, err error) {
	infos, damaged, err := s.ListAll()
	if err != nil {
		return nil, nil, err
	}
	for _, info := range infos {
		d, err := s.Describe(info.ID)
		if err != nil {
			return nil, nil, err
		}
		rows = append(rows, goodRow(d))
	}
	for _, c := range damaged {
		state := stateDamaged
		if errors.Is(c, messages.ErrIncompatible) {
			state = stateNewer
		}
		rows = append(rows, s.namedRow(filepath.Base(c.Path), state, c.Error()))
	}
	aside, err := s.Aside()
	if err != nil {
		return nil, nil, err
	}
	for _, x := range aside {
		problem := "" // a block of it
		if x.Damage != nil {
			problem = x.Damage.Error()
		}
		rows = append(rows, s.namedRow(x.Name, stateAside, problem))
	}
	unfinished, err := s.Unfinished()
	if err != nil {
		return nil, nil, err
	}
	for _, x := range unfinished {
		what := "a save"
		if x.Import {
			what = "an import"
		}
		rows = append(rows, s.namedRow(x.Name, stateUnfinished, fmt.Sprintf("%s, last written %s", what, x.Changed.Format(time.RFC3339))))
	}
	slices.SortStableFunc(rows, func(a, b snapshotRow) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), strings.Compare(b.ID, a.ID))
	})
	temps, err := filepath.Glob(filepath.Join(globEscape(s.path), "*"+durable.TempSuffix))
	for _, path := range temps {
		notes = append(notes, path+" is a leftover, which the next start removes")
	}
	return rows, notes, err
}

// globEscape keeps brackets and the like in a directory's name from being taken
// for a pattern.
func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func goodRow(d snapshot.Description) snapshotRow {
	i := d.Info
	r := snapshotRow{ID: i.ID, Name: filepath.Base(d.Path), State: stateGood, Group: i.Group, Index: i.Index, Term: i.Term, Created: i.Created.UTC(),
		RawBytes: i.RawBytes, FileBytes: i.FileBytes, Codec: string(d.Codec), ContentHash: hex.EncodeToString(i.ContentHash[:])}
	if i.RawBytes > 0 {
		r.Saved = new(savedPercent(i))
	}
	return r
}

func savedPercent(i messages.SnapshotInfo) float64 {
	return 100 - 100*float64(i.FileBytes)/float64(i.RawBytes)
}

// namedRow is what the name of a file says of it.
func (s *snapshotFiles) namedRow(name, state, problem string) snapshotRow {
	r := snapshotRow{Name: name, State: state, Problem: problem}
	id, _, _ := strings.Cut(name, ".")
	if state == stateUnfinished && len(id) > idLength { // a save has its level behind the id
		id = id[:idLength]
	}
	if info, err := snapshot.ParseID(id); err == nil {
		r.ID, r.Group, r.Index, r.Term, r.Created = info.ID, info.Group, info.Index, info.Term, info.Created
	}
	if st, err := os.Lstat(filepath.Join(s.path, name)); err == nil {
		r.FileBytes = st.Size()
	}
	return r
}

// idLength is that of the id of any snapshot.
const idLength = 63

func (a *app) printSnapshots(dir string, rows []snapshotRow, notes []string, asJSON bool) error {
	damaged := 0
	t := newTable(a.out, "snapshot", "group", "index", "term", "created", "data", "file", "saved", "codec", "state")
	e := json.NewEncoder(a.out)
	for _, r := range rows {
		if r.State == stateDamaged {
			damaged++
		}
		if asJSON {
			if err := e.Encode(r); err != nil {
				return err
			}
			continue
		}
		name, data, saved, created := r.ID, "", "", ""
		if r.State != stateGood && r.State != stateNewer || name == "" {
			name = r.Name
		}
		if r.State == stateGood {
			data = bytesText(r.RawBytes)
		}
		if r.Saved != nil {
			saved = fmt.Sprintf("%.0f%%", *r.Saved)
		}
		if !r.Created.IsZero() {
			created = r.Created.Format(time.RFC3339)
		}
		t.row(name, r.Group, r.Index, r.Term, created, data, bytesText(r.FileBytes), saved, r.Codec, r.State)
	}
	if !asJSON {
		t.render()
		for _, r := range rows {
			switch {
			case r.State == stateDamaged:
				fmt.Fprintln(a.out, "DAMAGE: snapshots: "+r.Problem)
			case r.Problem != "":
				fmt.Fprintf(a.out, "note: %s: %s: %s\n", r.Name, r.State, r.Problem)
			}
		}
		for _, n := range notes {
			fmt.Fprintln(a.out, "note: "+n)
		}
	}
	if len(rows) == 0 {
		a.console.say("%s: there are no snapshots", dir)
	}
	if damaged > 0 {
		return fmt.Errorf("snapshot list %s: %s found", dir, plural(damaged, "damaged snapshot"))
	}
	return nil
}

func (a *app) snapshotShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show all that is known of a snapshot",
		UsageText: "ballast snapshot show [FLAGS] DIR ID",
		Description: `Header, index and footer are read and checked, and of application data also the
end, which says how many keys there are. The metadata is printed as text if it is
some, else in hexadecimal.

` + snapshotIDHelp,
		Metadata: examples(
			"ballast snapshot show ./data latest", "the newest one",
			"ballast snapshot show ./data latest -json | jq -r .content_hash", "two replicas with the same state have the same",
		),
		Flags: []cli.Flag{dirFlag(), latestGroupFlag(), jsonFlag("print it as JSON; metadata that is no text is in \"meta_hex\"")},
		Action: func(_ context.Context, c *cli.Command) (err error) {
			dir, rest, err := arguments(c, 1, 1)
			if err != nil {
				return err
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
			return a.showSnapshot(s, id, c.Bool("json"))
		},
	}
}

type showOutput struct {
	snapshotRow
	Path       string       `json:"path"`
	BlockBytes int          `json:"block_bytes"`
	Blocks     int64        `json:"blocks"`
	Meta       *string      `json:"meta,omitempty"`
	MetaHex    *string      `json:"meta_hex,omitempty"`
	Data       *stateOutput `json:"application_data,omitempty"`
}

// stateOutput is what the end of application data says.
type stateOutput struct {
	Version int   `json:"version"`
	Keys    int64 `json:"keys"`
	// Bytes of keys and values.
	Bytes int64 `json:"bytes"`
}

func (a *app) showSnapshot(s *snapshotFiles, id string, asJSON bool) error {
	d, err := s.Describe(id)
	if err != nil {
		return idHint(err)
	}
	o := showOutput{snapshotRow: goodRow(d), Path: d.Path, BlockBytes: d.BlockBytes, Blocks: d.Blocks}
	if text := string(d.Info.Meta); readable(text) {
		o.Meta = &text
	} else {
		o.MetaHex = new(hex.EncodeToString(d.Info.Meta))
	}
	if o.Data, err = stateOf(s, id); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(a.out).Encode(o)
	}
	holds := "not application data of Ballast"
	if o.Data != nil {
		holds = fmt.Sprintf("application data, version %d, %s, %s of keys and values", o.Data.Version, plural(o.Data.Keys, "key"), bytesText(o.Data.Bytes))
	}
	saved := "empty"
	if o.Saved != nil {
		saved = fmt.Sprintf("%.1f%% saved", *o.Saved)
	}
	meta := "none"
	switch {
	case o.MetaHex != nil:
		meta = fmt.Sprintf("%d bytes, hexadecimal: %s", len(d.Info.Meta), *o.MetaHex)
	case *o.Meta != "":
		meta = fmt.Sprintf("%d bytes: %s", len(d.Info.Meta), *o.Meta)
	}
	t := newTable(a.out)
	for _, line := range [][2]string{
		{"snapshot", o.ID},
		{"file", o.Path},
		{"group", strconv.FormatUint(o.Group, 10)},
		{"index", strconv.FormatUint(o.Index, 10)},
		{"term", strconv.FormatUint(o.Term, 10)},
		{"created", o.Created.Format("2006-01-02T15:04:05.000Z07:00")},
		{"state", fmt.Sprintf("%s bytes, %s blocks of %s", countText(o.RawBytes), countText(o.Blocks), bytesText(o.BlockBytes))},
		{"file size", fmt.Sprintf("%s bytes, %s, codec %s", countText(o.FileBytes), saved, o.Codec)},
		{"content hash", o.ContentHash},
		{"holds", holds},
		{"metadata", meta},
	} {
		t.row(line[0], line[1])
	}
	t.render()
	return nil
}

// stateOf reads the end of the state, or returns nil if that is not application
// data.
func stateOf(s snapshot.Store, id string) (o *stateOutput, err error) {
	r, err := s.OpenAt(id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	state, err := kv.OpenState(r, r.Info().RawBytes)
	switch {
	case errors.Is(err, messages.ErrMalformed):
		return nil, nil
	case err != nil:
		return nil, err
	}
	st := state.Stats()
	return &stateOutput{st.Version, st.Pairs, st.Bytes}, nil
}

// readable reports whether s is text that a terminal can show.
func readable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) < 0
}
