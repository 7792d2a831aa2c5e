package kv

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Options of a DB. The zero value is the safe choice.
type Options struct {
	// Disk carries out syncs and renames. Nil means durable.OS.
	Disk durable.Disk
	// Free returns the bytes that are available on the file system that holds
	// dir; it is asked before every change. Nil means durable.FreeOn of Disk.
	Free func(dir string) (int64, error)
	// OnRepair is told about a torn write that Open has removed, after the
	// repair is on disk. Nil means that nobody is told.
	OnRepair func(messages.TailRepaired)
	// OnCompact is told about a compaction that is done. It must not call the
	// store. Nil means that nobody is told.
	OnCompact func(messages.DataFileReplaced)
	// MaxViewBytes bounds the memory, in bytes, that an export, and that all views
	// and transactions of a group together may hold for what was overwritten since
	// they were opened; beyond it the export, or the oldest view, expires. Zero
	// means 64 MiB. A larger bound lets a slow reader of a busy group finish.
	MaxViewBytes int64
	// MaxTxnBytes bounds, in bytes, what one interactive transaction may hold: the
	// keys and bounds that it has read and what it writes. Zero means 4 MiB.
	MaxTxnBytes int64
	// CommitBytes is the size, in bytes, beyond which an Apply is committed in
	// several steps, at borders of entries. Zero means 4 MiB. Readers wait for
	// a step, so a smaller one serves them better; a larger one costs fewer
	// markers. An import writes 256 KiB at a time, or this if it is less.
	CommitBytes int64
	// Funcs are the functions that indexes may name. Every replica must have the
	// same ones before such an index is created, or they would differ. Open
	// fails with ErrIncompatible if an index has one that is missing here.
	Funcs map[string]IndexFunc
	// IndexSliceKeys is how many pairs a slice of building an index covers, unless
	// 128 KiB of values come first. Zero means 128, with which writers wait
	// about 1 ms for a slice. More build faster, as every slice costs a marker.
	IndexSliceKeys int64
	// ReserveBytes is the disk space, in bytes, that changes leave free: the
	// log and the snapshots on the same disk need some to make room. Zero
	// means 1 MiB.
	ReserveBytes int64
	// MaxGarbagePercent is how much of DATA may be garbage, 1 to 99, before
	// Maintain compacts it. Zero means 50: the file is at most twice as long as
	// what is live, and MinGarbageBytes. A smaller one saves space and writes
	// more often: 50 writes each live byte once for each byte of change, 20 four
	// times.
	MaxGarbagePercent int
	// MinGarbageBytes is how much garbage, in bytes, is worth a compaction. Zero
	// means 8 MiB.
	MinGarbageBytes int64
	// MaintainBytes is about how much one Maintain writes, in bytes. Zero means
	// 4 MiB. It syncs when it has written four times as much, so that others who
	// sync on the same disk do not wait for more.
	MaintainBytes int64
	// HistoryBytes bounds the memory, in bytes, for what has changed lately in
	// all groups together, with the values before and after; Changes tells of
	// it. Zero means 16 MiB. What the latest call has changed comes on top. A
	// larger one lets watchers be behind, or away, for longer.
	HistoryBytes int64
	// HistoryRevisions bounds the same by the number of revisions of a group.
	// Zero means no bound.
	HistoryRevisions int
}

const (
	defaultMaxViewBytes = 64 << 20
	defaultMaxTxnBytes  = 4 << 20
	defaultCommitBytes  = 4 << 20
	defaultIndexSlice   = 128
	defaultReserveBytes = 1 << 20
	defaultMaxGarbage   = 50
	defaultMinGarbage   = 8 << 20
	defaultMaintain     = 4 << 20
	defaultHistoryBytes = 16 << 20
)

// Validate reports every field that makes no sense, as ErrInvalid.
func (o Options) Validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{{"MaxViewBytes", o.MaxViewBytes}, {"MaxTxnBytes", o.MaxTxnBytes}, {"CommitBytes", o.CommitBytes}, {"IndexSliceKeys", o.IndexSliceKeys},
		{"ReserveBytes", o.ReserveBytes}, {"MinGarbageBytes", o.MinGarbageBytes}, {"MaintainBytes", o.MaintainBytes},
		{"HistoryBytes", o.HistoryBytes}, {"HistoryRevisions", int64(o.HistoryRevisions)}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("kv: option %s is %d, but must not be negative: %w", f.name, f.value, messages.ErrInvalid))
		}
	}
	if p := o.MaxGarbagePercent; p < 0 || p > 99 {
		errs = append(errs, fmt.Errorf("kv: option MaxGarbagePercent is %d, but must be 0 to 99: %w", p, messages.ErrInvalid))
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	if o.Disk == nil {
		o.Disk = durable.OS
	}
	if o.Free == nil {
		disk := o.Disk
		o.Free = func(dir string) (int64, error) { return durable.FreeOn(disk, dir) }
	}
	if o.MaxViewBytes == 0 {
		o.MaxViewBytes = defaultMaxViewBytes
	}
	if o.MaxTxnBytes == 0 {
		o.MaxTxnBytes = defaultMaxTxnBytes
	}
	if o.CommitBytes == 0 {
		o.CommitBytes = defaultCommitBytes
	}
	if o.IndexSliceKeys == 0 {
		o.IndexSliceKeys = defaultIndexSlice
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserveBytes
	}
	if o.MaxGarbagePercent == 0 {
		o.MaxGarbagePercent = defaultMaxGarbage
	}
	if o.MinGarbageBytes == 0 {
		o.MinGarbageBytes = defaultMinGarbage
	}
	if o.MaintainBytes == 0 {
		o.MaintainBytes = defaultMaintain
	}
	if o.HistoryBytes == 0 {
		o.HistoryBytes = defaultHistoryBytes
	}
	return o
}
