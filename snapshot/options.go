package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Limits of the block size, in bytes of uncompressed state.
const (
	MinBlockBytes     = 512
	MaxBlockBytes     = 16 << 20
	DefaultBlockBytes = 1 << 20
)

// Other limits.
const (
	// DefaultLevel is the zstd level that the zero Options stand for.
	DefaultLevel = 1
	// MaxLevel is the highest zstd level.
	MaxLevel = 22
	// MaxConcurrency bounds Options.Concurrency.
	MaxConcurrency = 256
	// MaxBlocks is the most blocks that a snapshot can have: 16 TiB of state at
	// the default block size.
	MaxBlocks = 1 << 24
	// DefaultKeepPartial and DefaultPartialSyncBytes are what the zero Options
	// stand for.
	DefaultKeepPartial      = 24 * time.Hour
	DefaultPartialSyncBytes = 64 << 20
)

// Options configure a Dir. The zero value is ready to use. All of them may be
// changed from one open to the next: what is needed to read a file is in the
// file.
type Options struct {
	// Codec compresses what is written; empty means CodecZstd. What is read is
	// read by the codec that it was written with.
	Codec Codec
	// Level is how hard the codec tries: zstd 1 to 22 (it has four speeds, which
	// are 1–2, 3–5, 6–9 and 10 and up), s2 1 to 3, gzip and lz4 1 to 9, none has
	// no level. Zero means 1 for each. A higher one makes smaller files for much
	// more processor time, though not of all data; see DESIGN.md for figures.
	Level int
	// BlockBytes is how many bytes of state are compressed and checked
	// together, 512 to 16 Mi; zero means DefaultBlockBytes (1 MiB). Larger
	// blocks compress a little better; memory grows with them, and so does what
	// must be read to get at one byte. Replicas that compare content hashes
	// must use the same value.
	BlockBytes int
	// Concurrency is how many blocks are compressed at the same time, and how
	// many are decompressed or checked, by all that is open in the Dir together:
	// 1 to 256; zero means GOMAXPROCS. Fewer leave processors to others and take
	// less memory: about 4 × BlockBytes for each in a Writer, 2 × in a Reader.
	Concurrency int
	// KeepPartial is how long what a Writer from Resume or an Importer has left
	// is kept after it was last written to; zero means DefaultKeepPartial (24
	// hours). It is looked at by OpenDir and by each new save and import. There
	// is at most one unfinished save and one unfinished import for each group.
	KeepPartial time.Duration
	// PartialSyncBytes is after how many bytes of file such a Writer or Importer
	// syncs, and so how much of its work a power cut can undo, beside what is
	// still in memory; zero means DefaultPartialSyncBytes (64 MiB). Less costs
	// throughput; see DESIGN.md for figures. Others sync only at the end.
	PartialSyncBytes int64
	// Disk takes the file-system steps that make a snapshot durable; nil means
	// durable.OS. Tests and the simulation put a faulty one here.
	Disk durable.Disk
	// Now tells the creation time of snapshots and is what Retention.MaxAge is
	// measured against; nil means time.Now.
	Now func() time.Time
	// NoLock leaves the directory unlocked, for a caller who already makes sure
	// that no other Dir, in this process or another, has it open. Two of them
	// would remove each other's unfinished files.
	NoLock bool
}

// Validate reports every field that is out of bounds. The error matches
// messages.ErrInvalid.
func (o Options) Validate() error {
	var errs []error
	bad := func(field string, value, low, high int) {
		if value != 0 && (value < low || value > high) {
			errs = append(errs, fmt.Errorf("snapshot: option %s is %d, must be %d to %d: %w", field, value, low, high, messages.ErrInvalid))
		}
	}
	if number, ok := o.codec().number(); !ok {
		errs = append(errs, fmt.Errorf("snapshot: option Codec is %.40q, must be one of %s: %w", o.Codec, codecNames(), messages.ErrInvalid))
	} else if highest := codecs[number].maxLevel; o.Level != 0 && highest == 0 {
		errs = append(errs, fmt.Errorf("snapshot: option Level is %d, but codec %s has no levels: %w", o.Level, o.codec(), messages.ErrInvalid))
	} else {
		bad("Level (of "+string(o.codec())+")", o.Level, 1, highest)
	}
	bad("BlockBytes", o.BlockBytes, MinBlockBytes, MaxBlockBytes)
	bad("Concurrency", o.Concurrency, 1, MaxConcurrency)
	if o.KeepPartial < 0 {
		errs = append(errs, fmt.Errorf("snapshot: option KeepPartial is %v, must not be negative: %w", o.KeepPartial, messages.ErrInvalid))
	}
	if o.PartialSyncBytes < 0 {
		errs = append(errs, fmt.Errorf("snapshot: option PartialSyncBytes is %d, must not be negative: %w", o.PartialSyncBytes, messages.ErrInvalid))
	}
	return errors.Join(errs...)
}

func (o Options) codec() Codec { return cmp.Or(o.Codec, CodecZstd) }

// withDefaults returns o with every zero field replaced.
func (o Options) withDefaults() Options {
	o.Codec = o.codec()
	if number, _ := o.Codec.number(); o.Level == 0 {
		o.Level = codecs[number].defaultLevel
	}
	if o.BlockBytes == 0 {
		o.BlockBytes = DefaultBlockBytes
	}
	if o.Concurrency == 0 {
		o.Concurrency = min(runtime.GOMAXPROCS(0), MaxConcurrency)
	}
	if o.KeepPartial == 0 {
		o.KeepPartial = DefaultKeepPartial
	}
	if o.PartialSyncBytes == 0 {
		o.PartialSyncBytes = DefaultPartialSyncBytes
	}
	if o.Disk == nil {
		o.Disk = durable.OS
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}
