package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/urfave/cli/v3"
)

func (a *app) kvGetCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "print the value of a key",
		UsageText: "ballast kv get [FLAGS] DIR KEY",
		Description: `The value is printed as it is, without a newline after it. A key that does not
exist is an error (exit code 1).`,
		Metadata: examples(
			"ballast kv get ./data key", "the value, byte for byte",
			"ballast kv get ./data -hex 00ff", "a key that is no text",
		),
		Flags: append([]cli.Flag{dirFlag(), groupFlag(), jsonFlag("print an object with the key, the value and its version")}, encodingFlags()...),
		Action: func(_ context.Context, c *cli.Command) error {
			dir, rest, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			e, err := encodingOf(c)
			if err != nil {
				return err
			}
			key, err := e.decode(c, "the key", rest[0])
			if err != nil {
				return err
			}
			return withData(dir, func(d *dataFiles) error {
				value, version, err := d.Get(c.Uint64("group"), key)
				switch {
				case err != nil:
					return err
				case version == 0:
					return fmt.Errorf("there is no key %s", printable(key))
				case c.Bool("json"):
					return json.NewEncoder(a.out).Encode(e.json(messages.Pair{Key: key, Value: value, Version: version}, false))
				}
				if text, ok := e.encode(value); ok {
					value = []byte(text + "\n")
				}
				_, err = a.out.Write(value)
				return err
			})
		},
	}
}

func (a *app) kvScanCommand() *cli.Command {
	return &cli.Command{
		Name:        "scan",
		Usage:       "print keys and values in order",
		UsageText:   "ballast kv scan [FLAGS] DIR",
		Description: outputHelp,
		Metadata: examples(
			"ballast kv scan ./data -prefix file/net/ -keys", "the keys below file/net/",
			"ballast kv scan ./data -base64 -json", "everything, whatever its bytes",
		),
		Flags: append(append([]cli.Flag{
			dirFlag(), groupFlag(),
			&cli.StringFlag{Name: "prefix", Usage: "only keys that begin with `KEY`"},
			&cli.StringFlag{Name: "from", Usage: "only keys ≥ `KEY`"},
			&cli.StringFlag{Name: "to", Usage: "only keys < `KEY`"},
		}, listFlags()...), encodingFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			if c.IsSet("prefix") && (c.IsSet("from") || c.IsSet("to")) {
				return badUsage(c, "-prefix excludes -from and -to")
			}
			e, err := encodingOf(c)
			if err != nil {
				return err
			}
			q := messages.Scan{Group: c.Uint64("group"), Reverse: c.Bool("reverse"), KeysOnly: c.Bool("keys")}
			for _, f := range []struct {
				name string
				to   *[]byte
			}{{"prefix", &q.Prefix}, {"from", &q.From}, {"to", &q.To}} {
				if c.IsSet(f.name) {
					if *f.to, err = e.decode(c, "-"+f.name, c.String(f.name)); err != nil {
						return err
					}
				}
			}
			return withData(dir, func(d *dataFiles) error {
				return a.listData(ctx, c, e, func(cursor []byte, limit int) ([]messages.Pair, []byte, error) {
					q.Cursor, q.Limit = cursor, limit
					return d.Scan(q)
				})
			})
		},
	}
}

func (a *app) kvQueryCommand() *cli.Command {
	return &cli.Command{
		Name:      "query",
		Usage:     "print keys and values in the order of an index",
		UsageText: "ballast kv query [FLAGS] DIR INDEX",
		Description: "Bounds are numbers, true, false, null or strings; what is none of the former is a\nstring, and '\"42\"' is the string 42.\n\n" +
			outputHelp,
		Metadata: examples("ballast kv query ./data size -min 100000 -reverse -limit 10 -keys", "the ten largest files"),
		Flags: append(append([]cli.Flag{
			dirFlag(), groupFlag(),
			&cli.StringFlag{Name: "equal", Usage: "only entries with this `VALUE`"},
			&cli.StringFlag{Name: "min", Usage: "only entries ≥ `VALUE`"},
			&cli.StringFlag{Name: "max", Usage: "only entries ≤ `VALUE`"},
		}, listFlags()...), encodingFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, rest, err := arguments(c, 1, 1)
			switch {
			case err != nil:
				return err
			case c.IsSet("equal") && (c.IsSet("min") || c.IsSet("max")):
				return badUsage(c, "-equal excludes -min and -max")
			}
			e, err := encodingOf(c)
			if err != nil {
				return err
			}
			return withData(dir, func(d *dataFiles) error {
				return a.listData(ctx, c, e, func(cursor []byte, limit int) ([]messages.Pair, []byte, error) {
					pairs, next, err := d.Query(messages.QueryIndex{Group: c.Uint64("group"), Name: rest[0], Equal: scalar(c, "equal"),
						Min: scalar(c, "min"), Max: scalar(c, "max"), Limit: limit, Reverse: c.Bool("reverse"), Cursor: cursor})
					if errors.Is(err, messages.ErrNotFound) {
						err = fmt.Errorf("there is no index %q; ballast kv index %s lists them", rest[0], dir)
					}
					return pairs, next, err
				})
			})
		},
	}
}

// listData prints pages of pairs until there are no more.
func (a *app) listData(ctx context.Context, c *cli.Command, e encoding, page func(cursor []byte, limit int) ([]messages.Pair, []byte, error)) error {
	left := c.Int("limit")
	if left < 0 {
		return badUsage(c, "-limit %d is negative", left)
	}
	var cursor []byte
	for bounded := left > 0; ; {
		pairs, next, err := page(cursor, left)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		for _, p := range pairs {
			if err := a.printData(c, e, p); err != nil {
				return err
			}
		}
		if cursor = next; next == nil || bounded && left == len(pairs) {
			return nil
		}
		if bounded {
			left -= len(pairs)
		}
	}
}

func (a *app) kvIndexCommand() *cli.Command {
	return &cli.Command{
		Name:        "index",
		Usage:       "list the indexes",
		UsageText:   "ballast kv index [FLAGS] DIR",
		Description: "Each line is the definition of an index, in JSON, and how far it is.",
		Metadata:    examples("ballast kv index ./data", "which indexes there are"),
		Flags:       []cli.Flag{dirFlag(), groupFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			return withData(dir, func(d *dataFiles) error {
				enc := json.NewEncoder(a.out)
				for _, x := range d.Indexes(c.Uint64("group")) {
					if err := enc.Encode(indexJSON(x)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// statsOutput is what is known of the data.
type statsOutput struct {
	Path    string            `json:"path"`
	Bytes   int64             `json:"bytes"`
	Live    int64             `json:"live_bytes"`
	Garbage int64             `json:"garbage_bytes"`
	Groups  []dataGroupOutput `json:"groups"`
}

type dataGroupOutput struct {
	Group    uint64 `json:"group"`
	Keys     int    `json:"keys"`
	Index    uint64 `json:"index"`
	Term     uint64 `json:"term"`
	Revision uint64 `json:"revision"`
	Indexes  int    `json:"indexes"`
}

func (a *app) kvStatsCommand() *cli.Command {
	return &cli.Command{
		Name:        "stats",
		Usage:       "print how much data there is, and how much of the file is garbage",
		UsageText:   "ballast kv stats [FLAGS] DIR",
		Description: "The index is that of the last log entry whose effect the file holds.",
		Metadata:    examples("ballast kv stats ./data -json", "for a script"),
		Flags:       []cli.Flag{dirFlag(), jsonFlag("print one object")},
		Action: func(_ context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			return withData(dir, func(d *dataFiles) error {
				o := statsOutput{Path: d.path, Groups: []dataGroupOutput{}}
				o.Bytes, o.Live = d.Size()
				o.Garbage = o.Bytes - o.Live
				for _, g := range d.Groups() {
					index, term := d.Applied(g)
					o.Groups = append(o.Groups, dataGroupOutput{g, d.Keys(g), index, term, d.Revision(g), len(d.Indexes(g))})
				}
				if c.Bool("json") {
					return json.NewEncoder(a.out).Encode(o)
				}
				_, err := fmt.Fprintf(a.out, "%s: %s, of which %s is garbage\n", o.Path, bytesText(o.Bytes), bytesText(o.Garbage))
				for _, g := range o.Groups {
					if err == nil {
						_, err = fmt.Fprintf(a.out, "group %d: %s, indexes: %d, applied to index %d in term %d, revision %d\n",
							g.Group, plural(g.Keys, "key"), g.Indexes, g.Index, g.Term, g.Revision)
					}
				}
				return err
			})
		},
	}
}

func (a *app) kvVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check every byte of the application data",
		UsageText: "ballast kv verify [FLAGS] DIR",
		Description: `Damage is an error (exit code 1). A torn write at the end, as a crash leaves it,
is told of and is none: the next start removes it, and nothing in it was
acknowledged as durable.`,
		Metadata: examples("ballast kv verify ./data", "is all of it good?"),
		Flags:    []cli.Flag{dirFlag(), jsonFlag("print one object")},
		Action: func(_ context.Context, c *cli.Command) (err error) {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			d, err := findData(dir)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.close()) }()
			if err := d.hold(); err != nil {
				return err
			}
			began := time.Now()
			stop := every(redraw, func() { a.console.progress("verifying " + d.path) })
			r, err := kv.Inspect(d.path)
			stop()
			a.console.clear()
			if err != nil {
				return err
			}
			return a.printDataReport(c, r, time.Since(began))
		},
	}
}

func (a *app) printDataReport(c *cli.Command, r kv.Report, took time.Duration) (err error) {
	if c.Bool("json") {
		o := struct {
			Path    string `json:"path"`
			Bytes   int64  `json:"bytes"`
			Good    int64  `json:"good_bytes"`
			Synced  int64  `json:"synced_bytes"`
			Changes uint64 `json:"changes"`
			Torn    string `json:"torn,omitempty"`
			Damage  string `json:"damage,omitempty"`
		}{Path: r.Path, Bytes: r.Bytes, Good: r.Good, Synced: r.Synced, Changes: r.Markers}
		if r.Damage != nil {
			o.Damage = r.Damage.Error()
		} else {
			o.Torn = r.Reason
		}
		err = json.NewEncoder(a.out).Encode(o)
	} else if r.Damage == nil {
		_, err = fmt.Fprintf(a.out, "%s: %s in %s, all good (%s)\n", r.Path, bytesText(r.Good), plural(r.Markers, "change"), timeText(took))
		if err == nil && r.Good < r.Bytes {
			_, err = fmt.Fprintf(a.out, "a torn write at the end: %s at offset %d, %s\n", bytesText(r.Bytes-r.Good), r.Good, r.Reason)
		}
	}
	return errors.Join(err, dataHint(r.Damage))
}
