package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/urfave/cli/v3"
)

func (a *app) getCommand() *cli.Command {
	return &cli.Command{
		Name:        "get",
		Usage:       "print the value of a key",
		UsageText:   "ballast get [FLAGS] DIR KEY",
		Description: "The value is printed as it is, without a newline after it. A key that does not\nexist is an error (exit code 1). Write -- before a KEY that begins with a dash.",
		Metadata: examples(
			"ballast get ./data line/stdin/000000000001", "the first line that was loaded",
			"ballast get ./data file/go/ast/ast.go -content > ast.go", "a file as it was",
		),
		Flags: []cli.Flag{
			dirFlag(),
			&cli.BoolFlag{Name: "content", Usage: "the value is the document of a file: print the file, byte for byte"},
			jsonFlag("print an object with the key and the value"),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, rest, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			return a.with(ctx, supervisor.Config{Dir: dir}, func(s *service) error { return a.get(ctx, c, s, []byte(rest[0])) })
		},
	}
}

func (a *app) get(ctx context.Context, c *cli.Command, s *service, key []byte) error {
	got, err := ask[messages.Got](ctx, s, s.KV, messages.Get{Key: key})
	switch {
	case err != nil:
		return err
	case !got.Found:
		return fmt.Errorf("there is no key %s", printable(key))
	case c.Bool("content"):
		_, content, err := decodeDocument(got.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", printable(key), err)
		}
		got.Value = content
	}
	if c.Bool("json") {
		return json.NewEncoder(a.out).Encode(pairJSON(messages.Pair{Key: key, Value: got.Value}, false))
	}
	_, err = a.out.Write(got.Value)
	return err
}

func (a *app) scanCommand() *cli.Command {
	return &cli.Command{
		Name:        "scan",
		Usage:       "print keys and values in order",
		UsageText:   "ballast scan [FLAGS] DIR",
		Description: outputHelp,
		Metadata: examples(
			"ballast scan ./data -prefix file/net/ -keys", "the keys below file/net/",
			"ballast scan ./data -from b -to c -limit 10", "b ≤ key < c, at most ten",
			"ballast scan ./data -prefix line/ -reverse -limit 1 -json", "the last line, as JSON",
		),
		Flags: append([]cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "prefix", Usage: "only keys that begin with `TEXT`"},
			&cli.StringFlag{Name: "from", Usage: "only keys ≥ `KEY`"},
			&cli.StringFlag{Name: "to", Usage: "only keys < `KEY`"},
		}, listFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			if c.IsSet("prefix") && (c.IsSet("from") || c.IsSet("to")) {
				return badUsage(c, "-prefix excludes -from and -to")
			}
			return a.with(ctx, supervisor.Config{Dir: dir}, func(s *service) error {
				return a.list(c, func(cursor []byte, limit int) ([]messages.Pair, []byte, error) {
					r, err := ask[messages.Scanned](ctx, s, s.KV, messages.Scan{Prefix: text(c, "prefix"), From: text(c, "from"), To: text(c, "to"),
						Limit: limit, Reverse: c.Bool("reverse"), KeysOnly: c.Bool("keys"), Cursor: cursor})
					return r.Pairs, r.Next, err
				})
			})
		},
	}
}

func (a *app) queryCommand() *cli.Command {
	return &cli.Command{
		Name:      "query",
		Usage:     "print keys and values in the order of an index, or list the indexes",
		UsageText: "ballast query [FLAGS] DIR [INDEX]",
		Description: "Bounds are numbers, true, false, null or strings; what is none of the former is a\nstring, and '\"42\"' is the string 42. The order is null < false < true < numbers <\nstrings. Indexes are created by demo and by load -index.\n\n" +
			outputHelp,
		Metadata: examples(
			"ballast query ./data", "which indexes there are",
			"ballast query ./data package -equal runtime -keys", "the files of a package",
			"ballast query ./data size -min 100000 -reverse -limit 10 -keys", "the ten largest files",
		),
		Flags: append([]cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "equal", Usage: "only entries with this `VALUE`"},
			&cli.StringFlag{Name: "min", Usage: "only entries ≥ `VALUE`"},
			&cli.StringFlag{Name: "max", Usage: "only entries ≤ `VALUE`"},
		}, listFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, rest, err := arguments(c, 0, 1)
			switch {
			case err != nil:
				return err
			case c.IsSet("equal") && (c.IsSet("min") || c.IsSet("max")):
				return badUsage(c, "-equal excludes -min and -max")
			}
			return a.with(ctx, supervisor.Config{Dir: dir}, func(s *service) error {
				if len(rest) == 0 {
					return a.indexes(ctx, c, s)
				}
				return a.list(c, func(cursor []byte, limit int) ([]messages.Pair, []byte, error) {
					r, err := ask[messages.IndexQueried](ctx, s, s.KV, messages.QueryIndex{Name: rest[0], Equal: scalar(c, "equal"),
						Min: scalar(c, "min"), Max: scalar(c, "max"), Limit: limit, Reverse: c.Bool("reverse"), Cursor: cursor})
					if errors.Is(err, messages.ErrNotFound) {
						err = fmt.Errorf("there is no index %q; ballast query %s lists them", rest[0], dir)
					}
					return r.Pairs, r.Next, err
				})
			})
		},
	}
}

const outputHelp = `Each line has the key, the size of the value and its beginning, with tabs between.
A key with unusual characters is quoted. With -json each line is an object: "key"
(or "key_base64" if it is not UTF-8) and "value" (JSON as it is stored), "text"
or "base64".`

func listFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "limit", Usage: "stop after `N` pairs; 0 means all"},
		&cli.BoolFlag{Name: "reverse", Usage: "from the end to the beginning"},
		&cli.BoolFlag{Name: "keys", Usage: "print only the keys"},
		jsonFlag("print a JSON object for each pair"),
	}
}

func text(c *cli.Command, flag string) []byte {
	if v := c.String(flag); v != "" {
		return []byte(v)
	}
	return nil
}

// scalar is a flag as the JSON scalar that the user means.
func scalar(c *cli.Command, flag string) string {
	if !c.IsSet(flag) {
		return ""
	}
	var v any
	if err := json.Unmarshal([]byte(c.String(flag)), &v); err == nil {
		switch v.(type) {
		case map[string]any, []any:
		default:
			return c.String(flag)
		}
	}
	return jsonString(c.String(flag))
}

func jsonString(s string) string {
	b, _ := json.Marshal(s) // a string cannot fail
	return string(b)
}

// list prints pages of pairs until there are no more.
func (a *app) list(c *cli.Command, page func(cursor []byte, limit int) ([]messages.Pair, []byte, error)) error {
	left := c.Int("limit")
	if left < 0 {
		return badUsage(c, "-limit %d is negative", left)
	}
	bounded := left > 0
	var cursor []byte
	for {
		pairs, next, err := page(cursor, left)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			if err := a.printPair(c, p); err != nil {
				return err
			}
		}
		left -= len(pairs)
		if next == nil || bounded && left <= 0 {
			return nil
		}
		if cursor = next; !bounded {
			left = 0
		}
	}
}

func (a *app) printPair(c *cli.Command, p messages.Pair) (err error) {
	switch keys := c.Bool("keys"); {
	case c.Bool("json"):
		return json.NewEncoder(a.out).Encode(pairJSON(p, keys))
	case keys:
		_, err = fmt.Fprintln(a.out, printable(p.Key))
	default:
		_, err = fmt.Fprintf(a.out, "%s\t%d\t%s\n", printable(p.Key), len(p.Value), beginning(p.Value))
	}
	return err
}

// indexOutput is an index in JSON.
type indexOutput struct {
	Name     string                `json:"name"`
	Prefix   string                `json:"prefix"`
	Fields   []messages.IndexField `json:"fields,omitempty"`
	Func     string                `json:"func,omitempty"`
	Unique   bool                  `json:"unique,omitempty"`
	Building bool                  `json:"building,omitempty"`
	Examined int                   `json:"examined,omitempty"`
	Entries  int                   `json:"entries"`
	Skipped  int                   `json:"skipped,omitempty"`
}

func indexJSON(x messages.IndexStatus) indexOutput {
	return indexOutput{x.Name, x.Prefix, x.Fields, x.Func, x.Unique, x.Building, x.Examined, x.Entries, x.Skipped}
}

// describeIndex says what an index is made of, and what is odd about it.
func describeIndex(x messages.IndexStatus) string {
	var parts []string
	for _, f := range x.Fields {
		part := "path " + f.Path
		if f.Type != messages.IndexAny {
			part += " " + string(f.Type)
		}
		if f.Fold {
			part += " fold"
		}
		if f.Descending {
			part += " descending"
		}
		parts = append(parts, part)
	}
	if x.Func != "" {
		parts = append(parts, "func "+x.Func)
	}
	s := strings.Join(parts, ", ")
	if x.Unique {
		s += "\tunique"
	}
	if x.Building {
		s += fmt.Sprintf("\tbeing built, %d of at most %d keys", x.Examined, x.Keys)
	}
	if x.Skipped > 0 {
		s += fmt.Sprintf("\t%d values cannot be in it", x.Skipped)
	}
	return s
}

// printable is a key as it is, or quoted if a terminal or a script would
// stumble over it.
func printable(key []byte) string {
	odd := func(r rune) bool { return r == '"' || !unicode.IsPrint(r) }
	if s := string(key); utf8.ValidString(s) && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return strconv.Quote(string(key))
}

const beginningLength = 72

// beginning is the start of a value, in one line.
func beginning(value []byte) string {
	cut := value[:min(len(value), 4*beginningLength)]
	for n := 0; len(cut) < len(value) && n < utf8.UTFMax && !utf8.Valid(cut); n++ {
		cut = cut[:len(cut)-1] // a rune that the cut has split
	}
	if !utf8.Valid(cut) {
		return "(binary)"
	}
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, string(cut))
	if runes := []rune(clean); len(runes) > beginningLength || len(cut) < len(value) {
		return string(runes[:min(len(runes), beginningLength)]) + "…"
	}
	return clean
}

// pairOutput is a pair in JSON. Exactly one of the fields for the key and, unless
// only keys are asked for, one of those for the value is set.
type pairOutput struct {
	Key       *string         `json:"key,omitempty"`
	KeyBase64 []byte          `json:"key_base64,omitempty"`
	Value     json.RawMessage `json:"value,omitempty"`
	Text      *string         `json:"text,omitempty"`
	Base64    *[]byte         `json:"base64,omitempty"`
}

func pairJSON(p messages.Pair, keysOnly bool) (o pairOutput) {
	if utf8.Valid(p.Key) {
		o.Key = new(string(p.Key))
	} else {
		o.KeyBase64 = p.Key
	}
	switch {
	case keysOnly:
	case len(p.Value) > 0 && json.Valid(p.Value):
		o.Value = p.Value
	case utf8.Valid(p.Value):
		o.Text = new(string(p.Value))
	default:
		o.Base64 = &p.Value
	}
	return o
}

func (a *app) indexes(ctx context.Context, c *cli.Command, s *service) error {
	for _, name := range []string{"equal", "min", "max", "limit", "reverse", "keys"} {
		if c.IsSet(name) {
			return badUsage(c, "-%s needs the name of an INDEX", name)
		}
	}
	r, err := ask[messages.IndexesListed](ctx, s, s.KV, messages.ListIndexes{})
	if err != nil {
		return err
	}
	e := json.NewEncoder(a.out)
	for _, x := range r.Indexes {
		if c.Bool("json") {
			err = e.Encode(indexJSON(x))
		} else {
			_, err = fmt.Fprintf(a.out, "%s\tprefix %q\t%s\n", x.Name, x.Prefix, describeIndex(x))
		}
		if err != nil {
			return err
		}
	}
	if len(r.Indexes) == 0 {
		a.console.say("there are no indexes; create one with ballast load -index NAME=PATH")
	}
	return nil
}
