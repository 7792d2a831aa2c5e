package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/urfave/cli/v3"
)

const writeHelp = `The data of a service is changed through its log: the service is started on DIR,
the change appended and applied, and the service stopped, so that every later
start finds it. A store alone is changed directly. Either way the change is on
disk when the command ends with exit code 0.`

func (a *app) kvPutCommand() *cli.Command {
	return &cli.Command{
		Name:      "put",
		Usage:     "set a key",
		UsageText: "ballast kv put [FLAGS] DIR KEY [VALUE]",
		Description: writeHelp + `

Without a VALUE it is read from standard input, byte for byte, whatever the
encoding of the key.`,
		Metadata: examples(
			"ballast kv put ./data key value", "a short one",
			"ballast kv put ./data photo < photo.jpg", "any bytes",
			"ballast kv put ./data -hex 00ff 6869", "a key that is no text",
		),
		Flags: append([]cli.Flag{dirFlag(), groupFlag(), jsonFlag("print an object with the outcome")}, encodingFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			dir, rest, err := arguments(c, 1, 2)
			if err != nil {
				return err
			}
			e, err := encodingOf(c)
			if err != nil {
				return err
			}
			key, err := e.decode(c, "the key", rest[0])
			var value []byte
			switch {
			case err != nil:
			case len(rest) == 2:
				value, err = e.decode(c, "the value", rest[1])
			default:
				value, err = io.ReadAll(io.LimitReader(a.in, messages.MaxValue+1))
			}
			if err != nil {
				return err
			}
			return a.changeData(ctx, c, dir, messages.PutOperation(key, value))
		},
	}
}

func (a *app) kvDelCommand() *cli.Command {
	return &cli.Command{
		Name:        "del",
		Usage:       "remove a key",
		UsageText:   "ballast kv del [FLAGS] DIR KEY",
		Description: writeHelp + "\n\nA key that does not exist is an error (exit code 1).",
		Metadata:    examples("ballast kv del ./data key", "remove it"),
		Flags:       append([]cli.Flag{dirFlag(), groupFlag(), jsonFlag("print an object with the outcome")}, encodingFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
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
			return a.changeData(ctx, c, dir, messages.DeleteOperation(key))
		},
	}
}

// changeData carries out one operation.
func (a *app) changeData(ctx context.Context, c *cli.Command, dir string, op messages.Operation) error {
	if err := op.Validate(); err != nil {
		return err
	}
	d, err := findData(dir)
	if err != nil {
		return err
	}
	group := c.Uint64("group")
	var index uint64
	var result messages.Result
	switch {
	case d.service == "":
		open := func(path string) (*kv.DB, error) { return kv.Open(path, kv.Options{}) }
		err = openData(dir, open, func(d *dataFiles) error {
			if applied, _ := d.Applied(group); applied > 0 {
				return fmt.Errorf("group %d was applied up to index %d of a log, which is not here: a change beside it would be lost, or keep others out: %w", group, applied, messages.ErrReplicated)
			}
			results, err := d.Write(group, []messages.Operation{op})
			if err == nil {
				result = results[0]
				err = d.Sync()
			}
			return err
		})
	case d.path == dir:
		return fmt.Errorf("the log of %s drives this data: name that directory: %w", d.service, messages.ErrReplicated)
	default:
		err = a.with(ctx, supervisor.Config{Dir: dir}, func(s *service) error {
			r, err := ask[messages.EntryApplied](ctx, s, s.Supervisor, messages.ApplyEntry{Group: group, Operation: op})
			index, result = r.Index, r.Result
			return err
		})
		err = dataHint(err)
	}
	if err == nil && !errors.Is(result.Err, messages.ErrResultLost) {
		err = result.Err
	}
	if err == nil && op.Kind == messages.OpDelete && !result.Existed && result.Err == nil {
		err = fmt.Errorf("there is no key %s", printable(op.Key))
	}
	if err != nil || !c.Bool("json") {
		return err
	}
	return json.NewEncoder(a.out).Encode(struct {
		Index   uint64 `json:"index,omitempty"`
		Version uint64 `json:"version"`
		Existed bool   `json:"existed"`
	}{index, result.Version, result.Existed})
}
