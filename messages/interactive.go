package messages

// Begin begins a transaction on a group's data as it is now. Get, MultiGet, Scan,
// QueryIndex, Put, Delete and CompareAndSwap with its number in Txn then read and
// write in it; reads see its own writes, with the version math.MaxUint64, and
// nobody else does until it is committed. It is optimistic and serialisable: nobody
// waits for it, and Commit fails with ErrConflict if a key that it has read, or a
// range, as far as it was read, has changed since it began.
//
// One that has been idle for too long, or whose view was given up, is over: its
// commands are answered with ErrExpired, later with ErrNotFound. One that is left
// costs nothing beyond that time. Reads and writes beyond the limits of a
// transaction are ErrTooLarge.
type Begin struct {
	Tag, Group uint64
	// ReadOnly: nothing will be written. It then costs less, and is never in
	// conflict.
	ReadOnly bool
}

// Begun answers Begin.
//
// Errors: ErrOverloaded (too many are open).
type Begun struct {
	Tag, Group uint64
	// Txn names the transaction; it is never used again.
	Txn uint64
	// Index, Term and Revision of the state that the transaction sees.
	Index, Term, Revision uint64
	Err                   error
}

// Commit ends a transaction and carries out its writes. Where a log drives the data
// it goes to the supervisor, which proposes it, otherwise to the application-data
// actor.
type Commit struct {
	Tag, Group uint64
	Txn        uint64
}

// Committed answers Commit. With a nil Err the writes are on disk. Whatever Err is,
// the transaction is over.
//
// Errors: ErrConflict (something it has read has changed; begin again),
// ErrExpired, ErrNotFound, ErrReplicated, ErrNotJSON, ErrNotUnique, ErrTooLarge, ErrDiskFull. If
// Err matches ErrInDoubt the writes may have been carried out, all of them, or may
// be later; otherwise nothing was done.
type Committed struct {
	Tag, Group uint64
	// Version that what was written has now. Of a transaction that has written
	// nothing it is the revision that it saw; zero of one that has only removed what
	// was not there.
	Version uint64
	Err     error
}

// Rollback ends a transaction; nothing was done.
type Rollback struct {
	Tag, Group uint64
	Txn        uint64
}

// RolledBack answers Rollback.
//
// Errors: ErrNotFound, ErrExpired.
type RolledBack struct {
	Tag, Group uint64
	Err        error
}

// PrepareCommit ends a transaction and turns it into an operation to be proposed:
// what the supervisor does for Commit, and who has a consensus engine does himself.
type PrepareCommit struct {
	Tag, Group uint64
	Txn        uint64
}

// CommitPrepared answers PrepareCommit. When the operation is applied the writes
// take place if its Result has Succeeded and no Err; without Succeeded it is a
// conflict. That is the same on every replica.
//
// Errors: ErrConflict (already now), ErrTooLarge (it has read ranges of more than
// MaxTxnRange pairs), ErrExpired, ErrNotFound.
type CommitPrepared struct {
	Tag, Group uint64
	// Operation is an OpTxn; its Kind is zero if the transaction has written
	// nothing, and then there is nothing to propose.
	Operation Operation
	// Revision that the transaction saw.
	Revision uint64
	Err      error
}
