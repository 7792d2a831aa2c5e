package snapshot

import (
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
	DefaultLevel = 3
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
	// Level is the zstd level, 1 to 22; zero means DefaultLevel. The compressor
	// has four speeds, which the levels select: 1–2, 3–5, 6–9 and 10 and up. A
	// higher one makes smaller files for more processor time; see DESIGN.md for
	// figures.
	Level int
	// BlockBytes is how many bytes of state are compressed and checked
	// together, 512 to 16 Mi; zero means DefaultBlockBytes (1 MiB). Larger
	// blocks compress a little better; memory grows with them, and so does what
	// must be read to get at one byte. Replicas that compare content hashes
	// must use the same value.
	BlockBytes int
	// Concurrency is how many blocks one Writer compresses, or one Open or
	// Verify checks, at the same time: 1 to 256; zero means GOMAXPROCS. It also
	// bounds the compressors of all Writers together. Fewer leave processors to
	// others and take less memory: about 4 × BlockBytes for each.
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
	bad("Level", o.Level, 1, MaxLevel)
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

// withDefaults returns o with every zero field replaced.
func (o Options) withDefaults() Options {
	if o.Level == 0 {
		o.Level = DefaultLevel
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
