package messages

import (
	"errors"
	"fmt"
)

// A bug in the caller. Nothing was done, and doing the same again fails again.
var (
	// ErrOutOfOrder: an entry's index leaves a gap, or entries of one append
	// are not consecutive.
	ErrOutOfOrder = errors.New("out of order")
	// ErrStaleTerm: a term is below the term of the entry before it, or a hard
	// state goes back to an earlier term.
	ErrStaleTerm = errors.New("stale term")
	// ErrEmptyAppend: an append with neither entries nor a hard state.
	ErrEmptyAppend = errors.New("nothing to append")
	// ErrTooLarge: a payload, key, value, name or chunk is over its documented
	// limit.
	ErrTooLarge = errors.New("too large")
	// ErrInvalid: a field of the command has a value that makes no sense; the
	// text says which.
	ErrInvalid = errors.New("invalid argument")
	// ErrMalformed: bytes that should be an encoded Operation or an exported
	// state are not.
	ErrMalformed = errors.New("malformed encoding")
	// ErrReplicated: a direct write to application data that is driven by a
	// log. Propose it through the log instead, or it would be lost at the next
	// rebuild.
	ErrReplicated = errors.New("application data is driven by the log")
	// ErrNotJSON: a value under an index with fields that is not JSON.
	ErrNotJSON = errors.New("value is not JSON")
)

// Normal outcomes: the state of things is not what the caller hoped for.
var (
	// ErrNotFound: there is no such entry, snapshot, view, stream or index.
	ErrNotFound = errors.New("not found")
	// ErrCompacted: the index lies before the first entry of the log; the
	// state up to there is in a snapshot. Or the changes after a revision are no
	// longer known (HistoryError).
	ErrCompacted = errors.New("compacted")
	// ErrConflict: an append would overwrite entries without a TruncateFrom
	// before it, or a name is taken by something different.
	ErrConflict = errors.New("conflict")
	// ErrNotUnique: a unique index has an entry with the same values. The error
	// is a *NotUniqueError.
	ErrNotUnique = errors.New("not unique")
	// ErrNotApplied: the index has not been applied to the application data
	// yet.
	ErrNotApplied = errors.New("not applied yet")
	// ErrExpired: a view or a stream was given up because its lease ran out or
	// it held more memory than it may.
	ErrExpired = errors.New("expired")
	// ErrReplaced: a group's data was replaced by an import or a restore, or is
	// other data than that of a revision that was named. What was known of it
	// has to be read again.
	ErrReplaced = errors.New("the data was replaced")
	// ErrResultLost: the operation was applied, but its result was lost in a
	// crash of the application-data actor. Read the state to learn it.
	ErrResultLost = errors.New("applied, but the result was lost in a crash")
)

// Try again, perhaps later. Unless it says otherwise, nothing was done.
var (
	// ErrOverloaded: the actor's queue is full. Nothing was done.
	ErrOverloaded = errors.New("overloaded")
	// ErrUnavailable: the actor has failed too often and is being tried again
	// only at long intervals, or is not up yet. Nothing was done.
	ErrUnavailable = errors.New("unavailable")
	// ErrNotReady: the index of a query is still being built; the text says how
	// far it is.
	ErrNotReady = errors.New("not ready yet")
	// ErrStopped: the service has been stopped. Nothing was done.
	ErrStopped = errors.New("stopped")
	// ErrCrashed: the actor crashed while the command was under way, and
	// recovery has found that the command left no trace.
	ErrCrashed = errors.New("crashed, nothing was done")
	// ErrInDoubt: the actor crashed or gave up while the command was under
	// way, and it could not be established whether it took effect. It may be
	// found later.
	ErrInDoubt = errors.New("outcome unknown")
)

// An operator is needed.
var (
	// ErrCorrupt: damage on disk. The error is a *CorruptError.
	ErrCorrupt = errors.New("corrupt")
	// ErrDiskFull: no space is left. Nothing was done; reads, truncation and
	// deletion go on.
	ErrDiskFull = errors.New("disk full")
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("locked by another process")
	// ErrIncompatible: the files were written by a newer version of Ballast,
	// or with options that cannot be changed afterwards.
	ErrIncompatible = errors.New("incompatible format")
)

// CorruptError is damage on disk: bytes that fail their checksum, or a file
// that should be there and is not. It matches ErrCorrupt.
type CorruptError struct {
	// Path is the damaged file.
	Path string
	// Offset is where in Path the damage begins, as closely as it can be told:
	// everything before it is good. -1 if it has no position (a missing file).
	Offset int64
	// Index is the Raft index that the damage is at or near, or zero if there
	// is none to name.
	Index uint64
	// Reason says what is wrong, in a few words.
	Reason string
	// Err is the cause, if there is one.
	Err error
}

// Error names the file, the offset and the index.
func (e *CorruptError) Error() string {
	s := "corrupt: " + e.Path
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", e.Offset)
	}
	if e.Index != 0 {
		s += fmt.Sprintf(" near index %d", e.Index)
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// NotUniqueError is a pair that a unique index does not admit, because it has
// an entry with the same values. It matches ErrNotUnique.
type NotUniqueError struct {
	// Index is the name of the index.
	Index string
	// Key is that of the pair, and Other that of the pair which has the entry.
	Key, Other []byte
}

// Error names the index and both keys.
func (e *NotUniqueError) Error() string {
	return fmt.Sprintf("not unique: key %q has the same values as key %q under index %q", e.Key, e.Other, e.Index)
}

// Is reports whether target is ErrNotUnique.
func (e *NotUniqueError) Is(target error) bool { return target == ErrNotUnique }
