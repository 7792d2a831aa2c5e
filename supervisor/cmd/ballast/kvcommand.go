package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/urfave/cli/v3"
)

// kvCommand is the group of commands that look at application data alone.
func (a *app) kvCommand() *cli.Command {
	return &cli.Command{
		Name:      "kv",
		Usage:     "look at the application data alone: read, change, compact, verify",
		UsageText: "ballast kv COMMAND [FLAGS] DIR [ARGUMENTS]",
		Description: `DIR is the data directory of a service, or the directory that a store has to
itself. get, scan, query, index, stats and verify read the file as it is, repair
nothing and do not start the service: what the log has beyond it is not seen (the
commands without 'kv' catch up first). put and del change the data of a service
through its log, as a client would, and that of a store alone directly. Data that
somebody has open is refused.`,
		Metadata: examples(
			"ballast kv stats ./data", "how much there is, and how much of the file is garbage",
			"ballast kv get ./data key", "one value",
			"ballast kv put ./data key value", "a change, through the log",
			"ballast kv compact ./data", "give the garbage back",
		),
		Commands: []*cli.Command{
			a.kvGetCommand(), a.kvPutCommand(), a.kvDelCommand(), a.kvScanCommand(), a.kvQueryCommand(), a.kvIndexCommand(),
			a.kvStatsCommand(), a.kvCompactCommand(), a.kvVerifyCommand(),
		},
		Action: noCommand,
	}
}

// dataFiles is application data, held until close: nobody else has it meanwhile.
type dataFiles struct {
	*kv.DB
	path    string // of the files
	service string // the directory of the service, or empty
	lock    *durable.Lock
}

// findData finds the files: dir is a service's directory, or a store's own.
func findData(dir string) (f *dataFiles, err error) {
	f = &dataFiles{path: dir}
	switch err := existing(dir); {
	case err == nil:
		f.path, f.service = filepath.Join(dir, kvDir), dir
		if missing(f.path) {
			return nil, fmt.Errorf("%s: there is no such directory, and so no application data", f.path)
		}
		return f, nil
	case !errors.Is(err, errNoData):
		return nil, err
	}
	if whole, err := filepath.Abs(dir); err == nil && filepath.Base(whole) == kvDir && existing(filepath.Dir(whole)) == nil && !missing(filepath.Join(filepath.Dir(whole), logDir)) {
		f.service = filepath.Dir(whole)
	}
	if missing(filepath.Join(dir, "DATA")) && missing(filepath.Join(dir, "MARK")) {
		return nil, fmt.Errorf("%s: %w", dir, errNoData)
	}
	return f, nil
}

// hold takes the service's directory, if there is one that was ever taken.
func (f *dataFiles) hold() (err error) {
	if f.service != "" && !missing(filepath.Join(f.service, "LOCK")) {
		f.lock, err = durable.LockDir(f.service)
	}
	return dataHint(err)
}

func (f *dataFiles) close() error {
	var errs []error
	if f.DB != nil {
		errs = append(errs, f.DB.Close())
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Release())
	}
	return errors.Join(errs...)
}

// dataHint says what to do about data that cannot be opened.
func dataHint(err error) error {
	switch {
	case errors.Is(err, messages.ErrLocked):
		return fmt.Errorf("%w: stop the service first, or ask it", err)
	case errors.Is(err, messages.ErrCorrupt):
		return fmt.Errorf("%w; a service rebuilds it from snapshots and log when it starts", err)
	}
	return err
}

// withData opens the data in dir for reading, calls f and closes it.
func withData(dir string, f func(*dataFiles) error) error {
	return openData(dir, kv.OpenReadOnly, f)
}

func openData(dir string, open func(string) (*kv.DB, error), f func(*dataFiles) error) (err error) {
	d, err := findData(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.hold(); err != nil {
		return err
	}
	if d.DB, err = open(d.path); err != nil {
		d.DB = nil
		return dataHint(err)
	}
	return f(d)
}

func groupFlag() cli.Flag {
	return &cli.Uint64Flag{Name: "group", Usage: "the data of group `N`; 0 if not given"}
}

func encodingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "hex", Usage: "keys and values are given and printed in hexadecimal"},
		&cli.BoolFlag{Name: "base64", Usage: "keys and values are given and printed in base64"},
	}
}

// encoding is how keys and values are given and printed.
type encoding struct{ hex, base64 bool }

func encodingOf(c *cli.Command) (e encoding, err error) {
	e = encoding{c.Bool("hex"), c.Bool("base64")}
	if e.hex && e.base64 {
		err = badUsage(c, "-hex excludes -base64")
	}
	return e, err
}

func (e encoding) decode(c *cli.Command, what, s string) (b []byte, err error) {
	switch {
	case e.hex:
		b, err = hex.DecodeString(s)
	case e.base64:
		b, err = base64.StdEncoding.DecodeString(s)
	default:
		return []byte(s), nil
	}
	if err != nil {
		return nil, badUsage(c, "%s %.80q is not in that encoding: %v", what, s, err)
	}
	return b, nil
}

// encode is the text of b, or nothing if it is to be printed as it is.
func (e encoding) encode(b []byte) (text string, ok bool) {
	switch {
	case e.hex:
		return hex.EncodeToString(b), true
	case e.base64:
		return base64.StdEncoding.EncodeToString(b), true
	}
	return "", false
}

// encodedOutput is a pair in JSON with -hex or -base64.
type encodedOutput struct {
	KeyHex      *string `json:"key_hex,omitempty"`
	ValueHex    *string `json:"value_hex,omitempty"`
	KeyBase64   *string `json:"key_base64,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
	Version     uint64  `json:"version,omitempty"`
}

type versionedOutput struct {
	pairOutput
	Version uint64 `json:"version,omitempty"`
}

func (e encoding) json(p messages.Pair, keysOnly bool) any {
	key, ok := e.encode(p.Key)
	if !ok {
		return versionedOutput{pairJSON(p, keysOnly), p.Version}
	}
	value, _ := e.encode(p.Value)
	o := encodedOutput{Version: p.Version}
	k, v := &o.KeyHex, &o.ValueHex
	if e.base64 {
		k, v = &o.KeyBase64, &o.ValueBase64
	}
	if *k = &key; !keysOnly {
		*v = &value
	}
	return o
}

// printData prints a pair of a list.
func (a *app) printData(c *cli.Command, e encoding, p messages.Pair) error {
	key, encoded := e.encode(p.Key)
	switch {
	case c.Bool("json"):
		return json.NewEncoder(a.out).Encode(e.json(p, c.Bool("keys")))
	case !encoded:
		return a.printPair(c, p)
	case c.Bool("keys"):
		_, err := fmt.Fprintln(a.out, key)
		return err
	}
	value, _ := e.encode(p.Value)
	_, err := fmt.Fprintf(a.out, "%s\t%s\n", key, value)
	return err
}

func (a *app) kvCompactCommand() *cli.Command {
	return &cli.Command{
		Name:      "compact",
		Usage:     "write the file anew without what was overwritten and removed",
		UsageText: "ballast kv compact [FLAGS] DIR",
		Description: `A new file is written beside the old one, checked, and renamed over it: the disk
must have room for what is live. Interrupted at any point, one of the two is whole.
A service does the same by itself when half of its file is garbage.`,
		Metadata: examples("ballast kv compact ./data", "give the garbage back"),
		Flags:    []cli.Flag{dirFlag(), jsonFlag(`print {"before","after"} in bytes`)},
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, _, err := arguments(c, 0, 0)
			if err != nil {
				return err
			}
			open := func(path string) (*kv.DB, error) { return kv.Open(path, kv.Options{}) }
			return openData(dir, open, func(d *dataFiles) error { return a.compactData(ctx, c, d) })
		},
	}
}

func (a *app) compactData(ctx context.Context, c *cli.Command, d *dataFiles) error {
	stop := every(redraw, func() {
		text := "compacting " + d.path
		if info, err := os.Stat(filepath.Join(d.path, "DATA.tmp")); err == nil {
			_, live := d.Size()
			text += fmt.Sprintf(": %s of %s", bytesText(info.Size()), bytesText(live))
		}
		a.console.progress(text)
	})
	// Closing the store ends a compaction that is under way, and leaves the old file.
	ended := context.AfterFunc(ctx, func() { _ = d.Close() })
	before, after, err := d.Compact()
	ended()
	stop()
	a.console.clear()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case c.Bool("json"):
		return json.NewEncoder(a.out).Encode(struct {
			Before int64 `json:"before"`
			After  int64 `json:"after"`
		}{before, after})
	}
	_, err = fmt.Fprintf(a.out, "%s, was %s\n", bytesText(after), bytesText(before))
	return err
}
