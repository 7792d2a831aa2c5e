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
// Write, Commit, Apply, Changes, OpenView, OpenExport and BeginImport are for one
// goroutine; Sync, Prepare, MaintainIndexes, Maintain, Compact, reads and the
// methods of a View, an Export and an Import may be called from others meanwhile.
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
	// Commit is Write with transactions of the same group among the operations.
	// One that has read what has changed since, also what a change before it in
	// the same call has changed, has ErrConflict in its result; one whose view is
	// gone has ErrExpired. The transactions are not closed.
	Commit(group uint64, changes []Change) ([]messages.Result, error)
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
	// CountKeys returns how many pairs Scan would.
	CountKeys(q messages.Scan) (n int, next []byte, err error)
	Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error)
	// Count returns how many entries of an index a query is about.
	Count(q messages.QueryIndex) (n int, next []byte, err error)

	// Indexes returns a group's indexes and how far they are, sorted by name.
	Indexes(group uint64) []messages.IndexStatus
	// IndexesDue reports whether an index is being built, or one that is gone
	// has left entries. MaintainIndexes does a slice of that, and is to be
	// called until there is nothing more.
	IndexesDue() bool
	MaintainIndexes() error
	// Prepare does a slice of what must be done before an operation can be
	// carried out in a short time, and reports whether that was all. The group
	// must not be changed meanwhile, or it begins anew. Apply and Write do what
	// is left.
	Prepare(group uint64, op messages.Operation) (ready bool, err error)

	// Changes returns what changed in a group after a revision, as far as that
	// is remembered.
	Changes(group, after uint64, limit int) (list []Mutation, upTo uint64, err error)

	// OpenView opens a view of a group: its data as it is now, whatever is
	// written afterwards.
	OpenView(group uint64) (View, error)
	// OpenExport opens a view that is read once, from its beginning to its end.
	OpenExport(group uint64) (Export, error)
	// Begin begins a transaction on a group's data as it is now.
	Begin(group uint64, readOnly bool) (Txn, error)
	// BeginImport starts to replace a group's data.
	BeginImport(group, index, term uint64) (Import, error)

	// Due reports whether Maintain has something to do. It is meant to be asked
	// after every change, and costs next to nothing.
	Due() bool
	// Maintain does a piece of what need not be on the way of a change, and
	// returns how many bytes it has written, so that the caller can keep to a
	// rate. It may run beside everything. After an error that leaves Poisoned
	// false nothing has changed, and a later call tries again. Who never calls
	// it gets no space back.
	Maintain() (wrote int64, err error)
	// Compact compacts the file at once, whatever is in it, and returns its size
	// in bytes before and after.
	Compact() (before, after int64, err error)

	Close() error
}

// View is a group's data at one point in time, to be read in any order and by any
// number of goroutines. It never blocks a writer for longer than one page of a
// scan takes. It ends, and its reads fail with ErrExpired, when it is closed, when
// more than Options.MaxViewBytes have been overwritten since it was opened, and
// when the group's data is replaced by an import.
type View interface {
	Get(key []byte) (value []byte, version uint64, err error)
	MultiGet(keys [][]byte) (values [][]byte, versions []uint64, err error)
	// The Group of a query does not matter: it is that of the view.
	Scan(q messages.Scan) (pairs []messages.Pair, next []byte, err error)
	CountKeys(q messages.Scan) (n int, next []byte, err error)
	// The indexes are those that there were. One that was being built then stays so
	// in the view: a query fails with ErrNotReady.
	Query(q messages.QueryIndex) (pairs []messages.Pair, next []byte, err error)
	Count(q messages.QueryIndex) (n int, next []byte, err error)
	// Index and Term of the last entry that the view includes.
	Index() (index, term uint64)
	// Revision is the version of the latest change that the view includes.
	Revision() uint64
	Close() error
}

// Txn is an interactive transaction: a view, with writes that only it sees until it
// is committed. It is optimistic: nobody waits for it, and its commit fails with
// ErrConflict if something it has read has changed since: a key, or a range, with
// what was not there, as far as it was read. So transactions are serialisable. One
// that has written nothing need not be committed: it took place when it began.
//
// Reads and writes fail with ErrTooLarge when it has become too large
// (Options.MaxTxnBytes, messages.MaxTxnOperations), and as those of a View do.
// What it has written itself has the version math.MaxUint64 until it is committed.
// What is unique may be there twice meanwhile: it is the commit that fails with
// ErrNotUnique if there are two at its end.
// A Txn is for one goroutine; Close may be called beside it.
type Txn interface {
	View
	// Run carries out a put, a delete or a compare-and-swap in the transaction.
	// Result.Existed of the first two is not set: to tell it would be to read.
	Run(op messages.Operation) (messages.Result, error)
	// Writes reports whether there is anything to commit.
	Writes() bool
	// Prepare makes the transaction an operation for a log, which decides when it
	// is applied, the same on every replica, whether the transaction conflicts:
	// Result.Succeeded is false then. Ranges that were read are counted, now and
	// when it is applied, some 10 million pairs a second; if they have more than
	// messages.MaxTxnRange pairs it is ErrTooLarge. A query of an index counts as
	// a read of all pairs that the index is about.
	//
	// Errors: ErrConflict (something has changed already), ErrTooLarge,
	// ErrExpired.
	Prepare() (messages.Operation, error)
}

// Change is an operation, or a transaction if Txn is not nil.
type Change struct {
	Operation messages.Operation
	Txn       Txn
}

// Export is a group's data at one point in time. Read yields it in the export
// format, sorted by key: the same state gives the same bytes. It never blocks
// a writer for longer than one slice of the data takes, and keeps only what is
// overwritten before it is read, up to Options.MaxViewBytes. OpenState reads
// single keys out of what it yields.
type Export interface {
	io.Reader
	// Index and Term of the last entry that the export includes.
	Index() (index, term uint64)
	// Revision is the version of the latest change that it includes.
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
	// number of keys.
	Finish() (keys int, err error)
	// Abort gives the import up. After Finish it does nothing.
	Abort() error
}
