package messages

import (
	"log/slog"
	"time"
)

// Events are broadcast on the engine's event stream. Each implements
// hollywood's EventLogger, so that the stream also logs it.

// ActorFailed: an actor panicked or its store failed. It is being rebuilt from
// disk unless Unavailable.
type ActorFailed struct {
	Actor string
	Err   error
	// Failures is the number within the window that counts them.
	Failures int
	// Retry is when the actor is tried again.
	Retry time.Duration
	// Unavailable: it failed too often; meanwhile its commands are refused.
	Unavailable bool
}

// Log implements hollywood's EventLogger.
func (e ActorFailed) Log() (slog.Level, string, []any) {
	return slog.LevelError, "ballast: actor failed", []any{"actor", e.Actor, "err", e.Err,
		"failures", e.Failures, "retry", e.Retry, "unavailable", e.Unavailable}
}

// ActorRecovered: an actor serves again, after Down.
type ActorRecovered struct {
	Actor string
	Down  time.Duration
}

// Log implements hollywood's EventLogger.
func (e ActorRecovered) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: actor recovered", []any{"actor", e.Actor, "down", e.Down}
}

// TailRepaired: a write that a crash had cut short was removed from the end of
// a file. Nothing that had been acknowledged was in it.
type TailRepaired struct {
	Path string
	// Offset is where the file was cut, Bytes how much was removed.
	Offset, Bytes int64
	Reason        string
}

// Log implements hollywood's EventLogger.
func (e TailRepaired) Log() (slog.Level, string, []any) {
	return slog.LevelWarn, "ballast: torn write removed", []any{"path", e.Path, "offset", e.Offset,
		"bytes", e.Bytes, "reason", e.Reason}
}

// LogCut: acknowledged records of the log were damaged, and the log was ended
// before them, as its policy says. What is listed is lost on this node.
type LogCut struct {
	// Path and Offset say where the log ends now; Err is the damage.
	Path   string
	Offset int64
	Err    *CorruptError
	// Records, Bytes and Segments are how much went with it: at least so many
	// records, the bytes of the damaged segment's rest and of the segments
	// behind it.
	Records  uint64
	Bytes    int64
	Segments int
	// Lost are the entries that are known to have been there. Hard states and
	// stable values may be older now as well.
	Lost []LostEntries
}

// LostEntries are entries of one group, first to last.
type LostEntries struct{ Group, First, Last uint64 }

// Log implements hollywood's EventLogger.
func (e LogCut) Log() (slog.Level, string, []any) {
	return slog.LevelError, "ballast: log cut at damage", []any{"path", e.Path, "offset", e.Offset, "records", e.Records,
		"bytes", e.Bytes, "segments", e.Segments, "lost", e.Lost, "err", e.Err}
}

// MaintenanceDelayed: the log could not prepare its next segment, move entries
// or remove what it no longer needs, because the process has no descriptors or
// no memory left; or the application data could not be compacted, because the
// disk is full or fails. It is tried again by itself; meanwhile appends and
// changes go on, and the files take more space.
type MaintenanceDelayed struct {
	Actor string
	Err   error
}

// Log implements hollywood's EventLogger.
func (e MaintenanceDelayed) Log() (slog.Level, string, []any) {
	return slog.LevelWarn, "ballast: maintenance delayed", []any{"actor", e.Actor, "err", e.Err}
}

// DiskFull: a change was refused because there is no room for it. Nothing was done.
// It is told once, until there is room again.
type DiskFull struct {
	Actor string
	Err   error
}

// Log implements hollywood's EventLogger.
func (e DiskFull) Log() (slog.Level, string, []any) {
	return slog.LevelError, "ballast: the disk is full", []any{"actor", e.Actor, "err", e.Err}
}

// SpaceReturned: the first change after a DiskFull has succeeded.
type SpaceReturned struct{ Actor string }

// Log implements hollywood's EventLogger.
func (e SpaceReturned) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: the disk has room again", []any{"actor", e.Actor}
}

// Stalled: a call to the disk has not returned for as long as For. It is told again
// until the call returns. What waits for it waits on; reads that need no disk are
// answered; appends and direct writes that come meanwhile are refused with
// ErrUnavailable if it is a sync.
type Stalled struct {
	Actor string
	// Call is what has not returned.
	Call string
	For  time.Duration
}

// Log implements hollywood's EventLogger.
func (e Stalled) Log() (slog.Level, string, []any) {
	return slog.LevelError, "ballast: the disk does not answer", []any{"actor", e.Actor, "call", e.Call, "for", e.For}
}

// StallEnded: the call that a Stalled told of has returned, after For in all. What
// it brings home is dropped if its actor has failed meanwhile.
type StallEnded struct {
	Actor string
	Call  string
	For   time.Duration
}

// Log implements hollywood's EventLogger.
func (e StallEnded) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: the disk answers again", []any{"actor", e.Actor, "call", e.Call, "for", e.For}
}

// DamageFound: bytes that had been durable are gone or changed. The verification
// of what is closed tells of it each time around, as long as it is there.
type DamageFound struct {
	Actor string
	// Group and Index are the damaged log entry, if it is known to be one: a
	// replica can be asked for it again. Index is zero if not.
	Group, Index uint64
	Err          error
}

// Log implements hollywood's EventLogger.
func (e DamageFound) Log() (slog.Level, string, []any) {
	return slog.LevelError, "ballast: damage found", []any{"actor", e.Actor, "err", e.Err}
}

// SnapshotPassedOver: a snapshot that recovery wanted to use holds no application
// data but something else: the state of somebody who uses the log and the
// snapshots, and has a state machine of their own. Recovery leaves it to them. Or
// it contradicts entries of the log that are not known to be committed, as one
// may that a leader has sent (Raft §7), and that was not installed: then Err
// matches ErrConflict.
type SnapshotPassedOver struct {
	Actor string
	Info  SnapshotInfo
	Err   error
}

// Log implements hollywood's EventLogger.
func (e SnapshotPassedOver) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: snapshot passed over", []any{"actor", e.Actor, "id", e.Info.ID, "group", e.Info.Group,
		"index", e.Info.Index, "error", e.Err}
}

// DamageSetAside: a damaged snapshot was renamed, so that it is kept for an
// operator to look at and is not met again: because it was passed over when the
// newest good one was wanted, or on request.
type DamageSetAside struct {
	Actor string
	File  AsideSnapshot
}

// Log implements hollywood's EventLogger.
func (e DamageSetAside) Log() (slog.Level, string, []any) {
	return slog.LevelWarn, "ballast: damaged snapshot set aside", []any{"actor", e.Actor, "id", e.File.ID, "group", e.File.Group,
		"index", e.File.Index, "file", e.File.Name}
}

// GroupWithheld: the application data of a group cannot be brought up to its log,
// and is not served; that of the others is. Err says what is missing, and what
// helps. It is tried again now and then.
type GroupWithheld struct {
	Group uint64
	Err   error
}

// Log implements hollywood's EventLogger.
func (e GroupWithheld) Log() (slog.Level, string, []any) {
	return slog.LevelError, "ballast: group withheld", []any{"group", e.Group, "err", e.Err}
}

// GroupReadmitted: a group that was withheld is served again.
type GroupReadmitted struct{ Group uint64 }

// Log implements hollywood's EventLogger.
func (e GroupReadmitted) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: group readmitted", []any{"group", e.Group}
}

// DataRebuilt: the application data of a group was brought back from a
// snapshot (if Snapshot is not empty) and the log.
type DataRebuilt struct {
	Group    uint64
	Snapshot string
	Replayed uint64
	Reason   string
}

// Log implements hollywood's EventLogger.
func (e DataRebuilt) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: application data rebuilt", []any{"group", e.Group,
		"snapshot", e.Snapshot, "replayed", e.Replayed, "reason", e.Reason}
}

// DataFileReplaced: the file of the application data was compacted.
type DataFileReplaced struct {
	Path string
	// Before and After are its length in bytes.
	Before, After int64
}

// Log implements hollywood's EventLogger.
func (e DataFileReplaced) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: application data compacted", []any{"path", e.Path, "before", e.Before, "after", e.After}
}

// SnapshotTaken: a snapshot was written and verified.
type SnapshotTaken struct {
	Info SnapshotInfo
	Took time.Duration
}

// Log implements hollywood's EventLogger.
func (e SnapshotTaken) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: snapshot taken", []any{"id", e.Info.ID, "group", e.Info.Group,
		"index", e.Info.Index, "raw_bytes", e.Info.RawBytes, "file_bytes", e.Info.FileBytes, "took", e.Took}
}

// LogCompacted: the front of a group's log was removed.
type LogCompacted struct {
	Group, First uint64
}

// Log implements hollywood's EventLogger.
func (e LogCompacted) Log() (slog.Level, string, []any) {
	return slog.LevelInfo, "ballast: log compacted", []any{"group", e.Group, "first", e.First}
}
