package kv

import (
	"io"

	"github.com/ballast-raft/ballast/messages"
)

// Store holds application data: the state machines of any number of groups,
// each with its own keys, indexes and applied index.
//
// Changes take effect for reads at once and become durable at the next Sync
// that begins after them. A crash loses a suffix of the changes, never a part
// of one call: Applied then tells from where to replay the log.
//
// Write, Apply, Changes, OpenView and BeginImport are for one goroutine; Sync, reads and
// the methods of a View and an Import may be called from others meanwhile.
// Errors are those that package messages documents at the reply to the command
// of the same name.
type Store interface {
	// Apply carries out the operations in entries, in order, and advances the
	// applied index with them. See messages.Apply.
	Apply(group uint64, entries []messages.Entry) ([]messages.Result, error)
	// Write carries out operations without an index, for data that no log
	// drives. All of them are one atomic change: after a crash all are there
	// or none. An operation that fails by its own Result leaves the others.
	Write(group uint64, ops []messages.Operation) ([]messages.Result, error)
	// Sync makes every change durable that was made before it was called. It
	// may run beside Apply and Write, from another goroutine. After an error
	// the store is poisoned: changes fail, reads go on, and only Close and a
	// new Open help.
	Sync() error
	// Poisoned reports whether an earlier change or Sync failed in a way that
	// only reopening mends.
	Poisoned() bool

	// Applied returns the index and term up to which a group was applied.
	Applied(group uint64) (index, term uint64)
	// Revision returns the version of a group's latest change.
	Revision(group uint64) uint64
	// Groups lists the groups that have data or an applied index, in order.
	Groups() []uint64
	// Keys returns the number of a group's keys.
	Keys(group uint64) int

	// Get and MultiGet return versions of zero for keys that do not exist.
	Get(group uint64, key []byte) (value []byte, version uint64, err error)
	MultiGet(group uint64, keys [][]byte) (values [][]byte, versions []uint64, err error)
	Scan(q messages.Scan) (pairs []messages.Pair, next []byte, err error)
	Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error)
	Indexes(group uint64) []messages.IndexDefinition

	// Changes returns what changed in a group after a revision, as far as that
	// is remembered.
	Changes(group, after uint64, limit int) (list []Change, upTo uint64, err error)

	// OpenView opens a view of a group: its data as it is now, whatever is
	// written afterwards.
	OpenView(group uint64) (View, error)
	// BeginImport starts to replace a group's data.
	BeginImport(group, index, term uint64) (Import, error)

	Close() error
}

// View is a group's data at one point in time. Read yields it in the export
// format, sorted by key: the same state gives the same bytes. It never blocks
// a writer for longer than one slice of the data takes. OpenState reads single
// keys out of what it yields.
type View interface {
	io.Reader
	// Index and Term of the last entry that the view includes.
	Index() (index, term uint64)
	// Revision is the version of the latest change that the view includes.
	Revision() uint64
	Close() error
}

// Import takes an exported state as a stream. Readers of the store see the old
// data until Finish returns.
type Import interface {
	io.Writer
	// Whole fails with ErrMalformed if the stream is not complete yet.
	Whole() error
	// Finish checks that the stream is complete, makes the new data durable
	// and swaps it in, in one step as seen after any crash. It returns the
	// number of keys. No Apply or Write may run meanwhile.
	Finish() (keys int, err error)
	// Abort gives the import up. After Finish it does nothing.
	Abort() error
}
