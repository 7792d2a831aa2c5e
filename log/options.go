package log

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Options of a log on disk. The zero value is the safe choice throughout.
type Options struct {
	// Disk takes the steps that make things durable. Nil means durable.OS.
	Disk durable.Disk
	// SegmentBytes is the size at which a segment is left and the next one
	// begun; it exceeds it by at most one batch, or up to four times if nobody
	// calls Maintain. Bytes, default 16 MiB, 64 to 256 MiB. Larger: fewer files
	// and fewer syncs beside those of the appends, but space comes back in
	// coarser steps, and more is read after a crash. Smaller: the opposite. It
	// may differ from one open to the next.
	SegmentBytes int
	// MaxAppendBytes bounds the encoded size of one Append; more is
	// messages.ErrTooLarge. Bytes, default 64 MiB, 64 to 1 GiB. Larger values
	// cost memory, five times the size while such a change is on its way.
	MaxAppendBytes int
	// MaxBatchBytes bounds what is staged and not being synced yet: an Append
	// that finds that much is refused with messages.ErrOverloaded. Bytes,
	// default 64 MiB, 64 to 1 GiB. A second batch of that size may be on its
	// way to the disk.
	MaxBatchBytes int
	// RecycleBytes is the mean size of the latest batches from which the files of
	// segments that were removed are written again, instead of new ones that are
	// filled with zeros first, which doubles what is written. Up to 8 files are
	// kept for it. Bytes, default 256 KiB. Smaller: the 23 bytes that precede each
	// batch in such a file count for more. Larger: more zeros are written.
	RecycleBytes int
	// ReserveBytes is the free space below which appends are refused with
	// messages.ErrDiskFull, so that truncations, which give space back, can
	// still be written. Bytes, default 8 MiB. Larger: appends stop earlier.
	// Smaller: a checkpoint of many groups may no longer fit.
	ReserveBytes int64
	// MaxOpenFiles bounds the descriptors that reads keep open. Default 128.
	// Larger: fewer opens (10 µs each) when reads range over many segments.
	// Reads under way may exceed it.
	MaxOpenFiles int
	// Damage says what Open does about damage to what had been acknowledged.
	// Default: RefuseDamage.
	Damage DamagePolicy
	// OnCut is called by Open, before it returns, if it has cut the log because
	// of CutAtDamage. Nil: nothing is called.
	OnCut func(messages.LogCut)
	// VerifyAll has Open read and verify every record, at 0.5 to 2 GB/s from the
	// page cache, instead of trusting the summaries of closed segments.
	VerifyAll bool
	// NoLock leaves out the lock on the directory, for a caller that already
	// holds one above it. Two processes that write the same log destroy it.
	NoLock bool
	// OnRepair is called by Open, before it returns, for every write that a
	// crash had cut short and that was removed. Nil: nothing is called.
	OnRepair func(messages.TailRepaired)
}

const (
	minSegmentBytes = 64
	maxSegmentBytes = 256 << 20 // an offset in a segment must fit into 32 bits
	maxAppendLimit  = 1 << 30

	defaultSegmentBytes   = 16 << 20
	defaultMaxAppendBytes = 64 << 20
	defaultMaxBatchBytes  = 64 << 20
	defaultReserveBytes   = 8 << 20
	defaultRecycleBytes   = 256 << 10
	defaultMaxOpenFiles   = 128
	defaultRangeBytes     = 1 << 20
)

// Validate reports every field that is out of range, joined.
func (o Options) Validate() error {
	var errs []error
	bad := func(field string, value any, want string) {
		errs = append(errs, fmt.Errorf("log: option %s = %v, want %s: %w", field, value, want, messages.ErrInvalid))
	}
	if o.SegmentBytes != 0 && (o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes) {
		bad("SegmentBytes", o.SegmentBytes, fmt.Sprintf("%d to %d", minSegmentBytes, maxSegmentBytes))
	}
	if o.MaxAppendBytes != 0 && (o.MaxAppendBytes < 64 || o.MaxAppendBytes > maxAppendLimit) {
		bad("MaxAppendBytes", o.MaxAppendBytes, fmt.Sprintf("64 to %d", maxAppendLimit))
	}
	if o.MaxBatchBytes != 0 && (o.MaxBatchBytes < 64 || o.MaxBatchBytes > maxAppendLimit) {
		bad("MaxBatchBytes", o.MaxBatchBytes, fmt.Sprintf("64 to %d", maxAppendLimit))
	}
	if o.RecycleBytes < 0 {
		bad("RecycleBytes", o.RecycleBytes, "0 or more")
	}
	if o.Damage > CutAtDamage {
		bad("Damage", o.Damage, "RefuseDamage or CutAtDamage")
	}
	if o.ReserveBytes < 0 {
		bad("ReserveBytes", o.ReserveBytes, "0 or more")
	}
	if o.MaxOpenFiles < 0 {
		bad("MaxOpenFiles", o.MaxOpenFiles, "0 or more")
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	if o.Disk == nil {
		o.Disk = durable.OS
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.MaxAppendBytes == 0 {
		o.MaxAppendBytes = defaultMaxAppendBytes
	}
	if o.MaxBatchBytes == 0 {
		o.MaxBatchBytes = defaultMaxBatchBytes
	}
	if o.RecycleBytes == 0 {
		o.RecycleBytes = defaultRecycleBytes
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserveBytes
	}
	if o.MaxOpenFiles == 0 {
		o.MaxOpenFiles = defaultMaxOpenFiles
	}
	if o.OnCut == nil {
		o.OnCut = func(messages.LogCut) {}
	}
	if o.OnRepair == nil {
		o.OnRepair = func(messages.TailRepaired) {}
	}
	return o
}
