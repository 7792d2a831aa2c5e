package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/urfave/cli/v3"
)

func (a *app) snapshotGetCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "read a key, or a range of keys, out of a snapshot",
		UsageText: "ballast snapshot get [FLAGS] DIR ID [KEY]",
		Description: `Only the blocks that the answer lies in are read, decompressed and checked, and a
page or two of the index of keys. The value of a KEY is printed as it is, without
a newline after it; a key that does not exist is an error (exit code 1). A range
is printed as 'ballast scan' does. With -v it is told how much was read.

The snapshot must hold application data with an index of its keys, as services
write it. Of other snapshots nothing can be read in this way.

-json prints for a KEY one object with the key, the value and what was read,
  "read":{"state_bytes","blocks","of_blocks"}
and for a range an object for each pair, then one with "pairs" and "read".

` + snapshotIDHelp,
		Metadata: examples(
			"ballast snapshot get ./data latest file/go/ast/ast.go", "one value",
			"ballast snapshot get ./data latest -prefix file/net/ -limit 10", "ten keys",
			"ballast snapshot get ./data latest -hex 00ff", "a key that is no text",
		),
		Flags: []cli.Flag{
			dirFlag(),
			latestGroupFlag(),
			&cli.StringFlag{Name: "prefix", Usage: "keys that begin with `TEXT`; all if it is empty"},
			&cli.StringFlag{Name: "from", Usage: "keys ≥ `KEY`"},
			&cli.StringFlag{Name: "to", Usage: "keys < `KEY`"},
			&cli.IntFlag{Name: "limit", Usage: "stop after `N` pairs; 0 means all"},
			&cli.BoolFlag{Name: "hex", Usage: "keys and bounds are given, and keys and values printed, in hexadecimal"},
			jsonFlag("print JSON"),
		},
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			dir, rest, err := arguments(c, 1, 2)
			if err != nil {
				return err
			}
			want, err := wantedKeys(c, rest[1:])
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
			return a.getFromSnapshot(ctx, c, s, id, want)
		},
	}
}

// wanted is a key, or a range if that is nil.
type wanted struct {
	key      []byte
	from, to []byte
	limit    int
}

func wantedKeys(c *cli.Command, rest []string) (w wanted, err error) {
	ranged := c.IsSet("prefix") || c.IsSet("from") || c.IsSet("to")
	switch {
	case len(rest) == 1 && ranged:
		return w, badUsage(c, "a KEY excludes -prefix, -from and -to")
	case len(rest) == 1 && c.IsSet("limit"):
		return w, badUsage(c, "-limit is for a range")
	case len(rest) == 0 && !ranged:
		return w, badUsage(c, "which KEY? Or a range: -prefix, -from, -to")
	case c.IsSet("prefix") && (c.IsSet("from") || c.IsSet("to")):
		return w, badUsage(c, "-prefix excludes -from and -to")
	case c.Int("limit") < 0:
		return w, badUsage(c, "-limit %d is negative", c.Int("limit"))
	}
	w.limit = c.Int("limit")
	bytes := func(what, s string) []byte {
		if !c.Bool("hex") || err != nil {
			return []byte(s)
		}
		b, bad := hex.DecodeString(s)
		if bad != nil {
			err = badUsage(c, "%s %.80q is not hexadecimal", what, s)
		}
		return b
	}
	if len(rest) == 1 {
		w.key = bytes("the key", rest[0])
		if len(w.key) == 0 && err == nil {
			err = badUsage(c, "the KEY is empty")
		}
		return w, err
	}
	w.from = bytes("-from", c.String("from"))
	if c.IsSet("to") {
		w.to = bytes("-to", c.String("to"))
	}
	if c.IsSet("prefix") {
		w.from = bytes("-prefix", c.String("prefix"))
		w.to = afterPrefix(w.from)
	}
	if w.to != nil && string(w.from) > string(w.to) && err == nil {
		err = badUsage(c, "-from lies behind -to")
	}
	return w, err
}

// afterPrefix is the first key behind all that begin with a prefix, or nil if
// there is none.
func afterPrefix(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := append([]byte{}, prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

func (a *app) getFromSnapshot(ctx context.Context, c *cli.Command, s *snapshotFiles, id string, want wanted) (err error) {
	d, err := s.Describe(id)
	if err != nil {
		return idHint(err)
	}
	r, err := s.OpenAt(id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	counted := &countedReader{ctx: ctx, r: r, block: int64(d.BlockBytes), blocks: map[int64]bool{}}
	state, err := kv.OpenState(counted, d.Info.RawBytes)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, messages.ErrMalformed):
		return fmt.Errorf("snapshot %s does not hold application data of Ballast: %w", id, err)
	case err != nil:
		return err
	}
	if want.key != nil {
		err = a.getKey(c, state, want.key, counted, d.Blocks)
	} else {
		err = a.getRange(c, state, want, counted, d.Blocks)
	}
	if c.Bool("v") {
		read := counted.read(d.Blocks)
		a.console.note("read %s of the state, in %d of %s of %s", bytesText(read.StateBytes), read.Blocks, plural(read.OfBlocks, "block"), bytesText(d.BlockBytes))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// readOutput is how much of a snapshot was read.
type readOutput struct {
	StateBytes int64 `json:"state_bytes"` // asked for, some perhaps twice
	Blocks     int64 `json:"blocks"`      // that they lie in
	OfBlocks   int64 `json:"of_blocks"`
}

// countedReader counts what is read, and ends with the context.
type countedReader struct {
	ctx   context.Context
	r     io.ReaderAt
	block int64

	mu     sync.Mutex
	bytes  int64
	blocks map[int64]bool
}

// ReadAt implements io.ReaderAt.
func (r *countedReader) ReadAt(p []byte, offset int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ctx.Err()
	}
	n, err := r.r.ReadAt(p, offset)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += int64(n)
	for b := offset / r.block; n > 0 && b <= (offset+int64(n)-1)/r.block; b++ {
		r.blocks[b] = true
	}
	return n, err
}

func (r *countedReader) read(of int64) readOutput {
	r.mu.Lock()
	defer r.mu.Unlock()
	return readOutput{r.bytes, int64(len(r.blocks)), of}
}

func (a *app) getKey(c *cli.Command, state *kv.State, key []byte, counted *countedReader, blocks int64) error {
	value, version, err := state.Get(key)
	switch {
	case err != nil:
		return err
	case version == 0:
		return fmt.Errorf("there is no key %s", printable(key))
	case c.Bool("json") && c.Bool("hex"):
		return json.NewEncoder(a.out).Encode(struct {
			hexOutput
			Read readOutput `json:"read"`
		}{hexOutput{hex.EncodeToString(key), hex.EncodeToString(value)}, counted.read(blocks)})
	case c.Bool("json"):
		return json.NewEncoder(a.out).Encode(struct {
			pairOutput
			Read readOutput `json:"read"`
		}{pairJSON(messages.Pair{Key: key, Value: value}, false), counted.read(blocks)})
	case c.Bool("hex"):
		_, err = fmt.Fprintf(a.out, "%x\n", value)
	default:
		_, err = a.out.Write(value)
	}
	return err
}

// hexOutput is a pair in JSON with -hex.
type hexOutput struct {
	Key   string `json:"key_hex"`
	Value string `json:"value_hex"`
}

func (a *app) getRange(c *cli.Command, state *kv.State, want wanted, counted *countedReader, blocks int64) error {
	e := json.NewEncoder(a.out)
	pairs := 0
	for p, err := range state.Range(want.from, want.to) {
		if err != nil {
			return err
		}
		switch {
		case c.Bool("json") && c.Bool("hex"):
			err = e.Encode(hexOutput{hex.EncodeToString(p.Key), hex.EncodeToString(p.Value)})
		case c.Bool("hex"):
			_, err = fmt.Fprintf(a.out, "%x\t%x\n", p.Key, p.Value)
		default:
			err = a.printPair(c, p)
		}
		if err != nil {
			return err
		}
		if pairs++; pairs == want.limit {
			break
		}
	}
	if !c.Bool("json") {
		return nil
	}
	return e.Encode(struct {
		Pairs int        `json:"pairs"`
		Read  readOutput `json:"read"`
	}{pairs, counted.read(blocks)})
}
