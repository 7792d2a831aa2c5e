package messages

import "fmt"

// Watch subscribes to what changes in a group: under one Key, under the keys
// with Prefix, or under those with From ≤ key < To if both are empty. A nil To
// means to the end.
//
// A watch is read with ReadChanges, as often as it may have commands under way:
// that is the watcher's acknowledgement, and all that is ever sent without one.
// What a watcher has not asked for stays in the store's history, once for all
// watchers, and is given up there when it is too old; no queue grows and no writer
// waits.
type Watch struct {
	Tag, Group uint64
	Key        []byte
	Prefix     []byte
	From, To   []byte
	// Since is the revision that the watcher knows: it is told what came after
	// it. That of a view that was read, for example, or of the last Changes of
	// an earlier watch; zero is the beginning of the group.
	Since uint64
	// Now: of what comes from now on, instead of Since.
	Now bool
	// WithPrevious: events hold what was under the key before.
	WithPrevious bool
	// KeysOnly: events hold no values.
	KeysOnly bool
	// Credit is how many ReadChanges may be under way; zero means 2, more than
	// MaxWatchCredit counts as that. Two keep a watcher busy.
	Credit int
	// MaxBytes bounds the keys and values of one Changes, with WatchEventBytes
	// for each event; zero means 64 KiB, more than MaxWatchBytes counts as that.
	MaxBytes int
}

// Bounds of one watch.
const (
	MaxWatchCredit  = 16
	MaxWatchBytes   = 1 << 20
	WatchEventBytes = 128
)

// Watching answers Watch. The watch is there until CancelWatch, until one of the
// errors of Changes, or until its lease has run out without a ReadChanges.
//
// Errors: ErrCompacted (a HistoryError: what came after Since is no longer
// known), ErrReplaced (Since is a revision that direct writes have not reached),
// ErrInvalid (more than one of Key, Prefix and a range; an empty range; Now
// together with Since; a negative bound), ErrTooLarge (a key beyond MaxKey),
// ErrOverloaded (too many watches).
type Watching struct {
	Tag, Group uint64
	// Watch names it in ReadChanges and CancelWatch.
	Watch uint64
	// Revision of the group now. Below Since in a group that is driven by a log
	// and has not come to Since again after a crash.
	Revision uint64
	// Since is the revision after which the watch begins.
	Since uint64
	// Credit is how many ReadChanges may be under way.
	Credit int
	Err    error
}

// ReadChanges asks for the next changes of a watch. It is answered when there are
// some, or when half to all of the lease has passed. Several are answered in order.
type ReadChanges struct {
	Tag, Group uint64
	Watch      uint64
	// NoWait: answer this one, and those before it, without events if there are
	// none.
	NoWait bool
}

// Changes answers ReadChanges. With a nil Err the watcher knows everything that
// has happened under its keys up to and with Revision, if it knew that up to the
// Revision before. In data with direct writes all of it is on disk, unless the
// SyncPolicy of the actor answers writes before that; in data that a log drives it
// is applied, and durable in the log.
//
// The events of one revision are never divided between two Changes: one that is
// beyond MaxBytes alone is sent alone, and whole.
//
// With an error the watch is gone, except after ErrOverloaded, and each ReadChanges
// that was under way gets the same; if none was, the next one does.
//
//   - ErrCompacted, a HistoryError: the watcher fell behind, and what came after
//     its last Revision is no longer known.
//   - ErrReplaced: the group's data was replaced by an import or a restore.
//   - ErrCrashed: the actor failed. ErrInDoubt, ErrUnavailable: it is not back yet.
//   - ErrExpired: there was no ReadChanges for longer than the lease.
//   - ErrNotFound: no such watch, or one of before a failure of the actor, or
//     CancelWatch has ended it.
//   - ErrStopped.
//   - ErrOverloaded: more than the credit is under way, or the actor's queue is
//     full; the watch is still there.
//
// After ErrCompacted and ErrReplaced the watcher has to read the data again, in a
// view, and watch from the Revision of that view on. After the others it can go
// on with a Watch since its last Revision.
type Changes struct {
	Tag, Group uint64
	Watch      uint64
	// Events in the order in which they happened; none if nothing has happened
	// under the watched keys.
	Events   []WatchEvent
	Revision uint64
	Err      error
}

// WatchEventKind says what happened to a key.
type WatchEventKind uint8

// The kinds of event.
const (
	EventPut    WatchEventKind = 1
	EventDelete WatchEventKind = 2
)

// String returns the kind's name.
func (k WatchEventKind) String() string {
	switch k {
	case EventPut:
		return "put"
	case EventDelete:
		return "delete"
	}
	return fmt.Sprintf("event(%d)", uint8(k))
}

// WatchEvent is what one revision did to one key. A key that a revision has
// changed more than once has one event, with the outcome.
type WatchEvent struct {
	Kind WatchEventKind
	Key  []byte
	// Value that the key has now; nil after EventDelete and with KeysOnly.
	Value []byte
	// Version is the revision: that of the pair, or that at which it went.
	Version uint64
	// PreviousVersion is that of the pair that was there before, zero if there
	// was none, and Previous is its value: nil without WithPrevious, with
	// KeysOnly and if there was none.
	PreviousVersion uint64
	Previous        []byte
}

// String is for people.
func (e WatchEvent) String() string {
	if e.Kind == EventPut {
		return fmt.Sprintf("put %q@%d=%q", e.Key, e.Version, e.Value)
	}
	return fmt.Sprintf("%v %q@%d", e.Kind, e.Key, e.Version)
}

// CancelWatch ends a watch. What of its ReadChanges is under way is answered with
// ErrNotFound.
type CancelWatch struct {
	Tag, Group uint64
	Watch      uint64
}

// WatchCancelled answers CancelWatch.
//
// Errors: ErrNotFound, ErrExpired.
type WatchCancelled struct {
	Tag, Group uint64
	Err        error
}

// HistoryError: the changes that came after a revision are no longer known. It
// matches ErrCompacted.
type HistoryError struct {
	// After is the revision that was asked for.
	After uint64
	// Oldest is the first revision after which all changes are known.
	Oldest uint64
}

// Error names both revisions.
func (e *HistoryError) Error() string {
	return fmt.Sprintf("the changes after revision %d are %v, those after %d are known", e.After, ErrCompacted, e.Oldest)
}

// Is reports whether target is ErrCompacted.
func (e *HistoryError) Is(target error) bool { return target == ErrCompacted }

func (c Watch) RequestTag() uint64         { return c.Tag }
func (c Watch) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Watch) Refuse(err error) Reply     { return Watching{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Watch) Bytes() int                 { return len(c.Key) + len(c.Prefix) + len(c.From) + len(c.To) }
func (r Watching) ReplyTag() uint64        { return r.Tag }
func (r Watching) Failure() error          { return r.Err }

func (c ReadChanges) RequestTag() uint64         { return c.Tag }
func (c ReadChanges) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ReadChanges) Refuse(err error) Reply {
	return Changes{Tag: c.Tag, Group: c.Group, Watch: c.Watch, Err: err}
}
func (c ReadChanges) Bytes() int   { return 0 }
func (r Changes) ReplyTag() uint64 { return r.Tag }
func (r Changes) Failure() error   { return r.Err }

func (c CancelWatch) RequestTag() uint64         { return c.Tag }
func (c CancelWatch) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CancelWatch) Refuse(err error) Reply {
	return WatchCancelled{Tag: c.Tag, Group: c.Group, Err: err}
}
func (c CancelWatch) Bytes() int          { return 0 }
func (r WatchCancelled) ReplyTag() uint64 { return r.Tag }
func (r WatchCancelled) Failure() error   { return r.Err }
