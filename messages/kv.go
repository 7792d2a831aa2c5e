package messages

import "fmt"

// Pair is a key and its value.
type Pair struct {
	Key, Value []byte
	// Version at which the pair was last written: the revision of its group
	// that the change brought about.
	Version uint64
}

// String is for people: key, version and value.
func (p Pair) String() string { return fmt.Sprintf("%q@%d=%q", p.Key, p.Version, p.Value) }

// Every group has a revision, which every change raises. That of an entry that
// is applied is its index, or one more than the revision before if that is more;
// that of a direct write is one more than the one before. So where a log alone
// drives the data, the version of a pair is the index of the entry that wrote it,
// and the same on every replica.

// Apply carries out the operations in committed entries, in order. It is
// idempotent by index: entries at or below the applied index are stepped over.
// The first entry after them must be the applied index plus one.
type Apply struct {
	Tag, Group uint64
	// Entries to apply, consecutive. Owned by the receiver.
	Entries []Entry
}

// Applied answers Apply. With a nil Err the state reflects every entry up to
// Index and reads will see it. It is not necessarily on disk: the log is, and
// what the application data has lost in a crash is replayed from there.
//
// Errors: ErrOutOfOrder (a gap after the applied index).
type Applied struct {
	Tag, Group uint64
	// Index and Term of the last entry that has been applied.
	Index, Term uint64
	// Results has one result for each entry of the command. Entries that had
	// been applied before have ErrResultLost.
	Results []Result
	Err     error
}

// Get asks for the value of a key. As all reads it is of the latest state, or of
// the view that View names, or in the transaction that Txn names.
//
// Errors of a read in a view or transaction: ErrNotFound (there is none),
// ErrExpired (it has been idle for too long, too much was overwritten, or the data
// was replaced), ErrInvalid (both are set), ErrTooLarge (the transaction).
type Get struct {
	Tag, Group uint64
	View, Txn  uint64
	Key        []byte
}

// Got answers Get.
type Got struct {
	Tag, Group uint64
	Value      []byte
	Found      bool
	// Version at which it was written; zero if not Found.
	Version uint64
	Err     error
}

// MultiGet asks for several values, read at one point in time.
type MultiGet struct {
	Tag, Group uint64
	View, Txn  uint64 // as in Get
	Keys       [][]byte
}

// MultiGot answers MultiGet, in the order of the keys. The value of a key that
// does not exist is nil, and its version zero; that of an empty value is not.
type MultiGot struct {
	Tag, Group uint64
	Values     [][]byte
	Versions   []uint64
	Err        error
}

// Put sets a key directly, where no log drives the data, or in the transaction that
// Txn names. That answers at once, and nothing is on disk before it is committed:
// PutDone, Deleted and ComparedAndSwapped then have no Version, and only the last
// tells what was there before.
type Put struct {
	Tag, Group uint64
	Txn        uint64
	Key, Value []byte
}

// PutDone answers Put. With a nil Err the value is on disk, unless the actor's
// SyncPolicy is a lazy one: then it survives the end of the process, and the loss
// of power if that comes later than the policy's interval (SyncInterval) or
// whenever the kernel writes it (SyncNever). The same goes for the replies to the
// other direct writes.
//
// Errors: ErrReplicated, ErrInvalid, ErrTooLarge, ErrNotJSON, ErrNotUnique,
// ErrDiskFull.
type PutDone struct {
	Tag, Group uint64
	Existed    bool
	// Version that the pair has now.
	Version uint64
	Err     error
}

// Delete removes a key directly, where no log drives the data, or in a transaction.
type Delete struct {
	Tag, Group uint64
	Txn        uint64 // as in Put
	Key        []byte
}

// Deleted answers Delete. With a nil Err the removal is as durable as PutDone says.
//
// Errors: ErrReplicated, ErrInvalid, ErrTooLarge, ErrDiskFull.
type Deleted struct {
	Tag, Group uint64
	Existed    bool
	// Version is the revision at which the key went, zero if it did not exist.
	Version uint64
	Err     error
}

// CompareAndSwap sets a key directly if its value is Expect; a nil Expect
// means that the key must not exist.
type CompareAndSwap struct {
	Tag, Group    uint64
	Txn           uint64 // as in Put
	Key           []byte
	Expect, Value []byte
}

// ComparedAndSwapped answers CompareAndSwap. With a nil Err and Swapped the new
// value is as durable as PutDone says.
//
// Errors: those of Put.
type ComparedAndSwapped struct {
	Tag, Group uint64
	Swapped    bool
	// Version that the pair has now, zero if not Swapped.
	Version uint64
	Err     error
}

// Txn carries out a transaction directly, where no log drives the data. Where one
// does, TxnOperation makes it the operation of an ApplyEntry.
type Txn struct {
	Tag, Group uint64
	Transaction
}

// TxnDone answers Txn. With a nil Err the changes are on disk.
//
// Errors: ErrReplicated, ErrInvalid, ErrTooLarge, ErrDiskFull, and those of the
// operations. Nothing was done then.
type TxnDone struct {
	Tag, Group uint64
	// Succeeded: the conditions held, and Results are those of Then; otherwise
	// those of Else.
	Succeeded bool
	Results   []Result
	// Version that what was written has now; zero if nothing was.
	Version uint64
	Err     error
}

// Scan asks for keys in order, at one point in time: those with Prefix, or
// those with From ≤ key < To if Prefix is empty. A nil To means to the end.
type Scan struct {
	Tag, Group uint64
	View, Txn  uint64 // as in Get
	Prefix     []byte
	From, To   []byte
	// Limit bounds the number of pairs; zero means 1000, and 65,536 if Count is
	// set.
	Limit int
	// MaxBytes bounds keys and values together; at least one pair is
	// returned. Zero means 1 MiB.
	MaxBytes int
	Reverse  bool
	KeysOnly bool
	// Count asks for the number of pairs alone.
	Count bool
	// Cursor continues where an earlier Scanned left off: its Next.
	Cursor []byte
}

// Scanned answers Scan.
type Scanned struct {
	Tag, Group uint64
	Pairs      []Pair
	// Count is the number of pairs, also if only that was asked for.
	Count int
	// Next is the Cursor for the pairs that follow, nil if there are none. A
	// scan of several calls is not one point in time; open a view for that.
	Next []byte
	Err  error
}

// CreateIndex creates an index directly, where no log drives the data.
type CreateIndex struct {
	Tag, Group uint64
	Definition IndexDefinition
}

// IndexCreated answers CreateIndex. With a nil Err the definition is on disk.
// An index over more than 128 keys is then built in the background,
// and queries are refused with ErrNotReady until that is done; one that is
// unique is complete. Creating one that exists with the same definition is not
// an error.
//
// Errors: ErrReplicated, ErrConflict (another definition has the name),
// ErrNotUnique (the data has duplicates, and there is no index), ErrInvalid (also
// a function that is not registered), ErrTooLarge.
type IndexCreated struct {
	Tag, Group uint64
	Err        error
}

// DropIndex removes an index directly, where no log drives the data. It is gone
// at once; the room that its entries take is given back in the background.
type DropIndex struct {
	Tag, Group uint64
	Name       string
}

// IndexDropped answers DropIndex.
//
// Errors: ErrReplicated, ErrNotFound.
type IndexDropped struct {
	Tag, Group uint64
	Err        error
}

// ListIndexes asks for a group's indexes, and how far they are.
type ListIndexes struct {
	Tag, Group uint64
}

// IndexesListed answers ListIndexes, sorted by name.
type IndexesListed struct {
	Tag, Group uint64
	Indexes    []IndexStatus
	Err        error
}

// QueryIndex asks for pairs in the order of an index, at one point in time.
//
// Of an index with fields, a bound is a JSON scalar, which stands for the first
// field, or an array of them for the first fields ("42", "\"abc\"", "null",
// "[\"abc\",42]"); they have the types of the fields. A bound with fewer
// scalars than the index has fields takes in all entries that begin with them.
// Of an index with a function a bound is the bytes of a key. An empty bound is
// none.
type QueryIndex struct {
	Tag, Group uint64
	View, Txn  uint64 // as in Get
	Name       string
	// Equal asks for the entries that begin with it; it excludes Min and Max.
	Equal string
	// Prefix asks for strings that begin with it, which is text and not JSON,
	// in the field after those in Equal; of an index with a function, for keys.
	// It excludes Min and Max.
	Prefix string
	// Min ≤ entry ≤ Max, or < where it is exclusive, in the order of the index:
	// over a descending field Min is the larger value.
	Min, Max                   string
	MinExclusive, MaxExclusive bool
	// Limit, MaxBytes, Reverse, KeysOnly and Cursor as in Scan.
	Limit    int
	MaxBytes int
	Reverse  bool
	KeysOnly bool
	// Count asks for the number of entries alone.
	Count  bool
	Cursor []byte
}

// IndexQueried answers QueryIndex. A pair comes as often as it has entries,
// which is once unless the index has a function.
//
// Errors: ErrNotFound (no such index), ErrNotReady (it is being built),
// ErrInvalid (a bound does not fit the index, Min is after Max, bounds that
// exclude each other, a cursor that is not one of this query).
type IndexQueried struct {
	Tag, Group uint64
	Pairs      []Pair
	// Count is the number of entries, also if only that was asked for.
	Count int
	Next  []byte
	Err   error
}

// ReadApplied asks how far a group's data has been applied.
type ReadApplied struct {
	Tag, Group uint64
}

// AppliedRead answers ReadApplied.
type AppliedRead struct {
	Tag, Group  uint64
	Index, Term uint64
	// Revision is the version of the latest change.
	Revision uint64
	// Keys is the number of keys, without the reserved ones.
	Keys int
	Err  error
}

// OpenView opens a view: a group's data as it is now, whatever is written
// afterwards. Writers never wait for it; it costs memory for each key that is
// overwritten meanwhile, once for all views, and is given up beyond a limit, or
// when it has been idle for too long.
type OpenView struct {
	Tag, Group uint64
	// Export: the view is for ExportChunk, and for nothing else. It holds only
	// what its reader has not come to.
	Export bool
}

// ViewOpened answers OpenView.
type ViewOpened struct {
	Tag, Group uint64
	// View names it in reads, or in ExportChunk, and in CloseView.
	View uint64
	// Index and Term of the last entry that the view includes.
	Index, Term uint64
	// Revision is the version of the latest change that the view includes.
	Revision uint64
	Err      error
}

// ExportChunk asks for the next piece of a view with Export, in the export format of
// package kv: the same state always gives the same bytes.
type ExportChunk struct {
	Tag, Group uint64
	View       uint64
	// MaxBytes bounds the piece; zero means 256 KiB. A piece is never smaller
	// than one pair of key and value cut at MaxSnapshotChunk.
	MaxBytes int
}

// ChunkExported answers ExportChunk.
//
// Errors: ErrNotFound (no such view), ErrExpired.
type ChunkExported struct {
	Tag, Group uint64
	View       uint64
	Data       []byte
	EOF        bool
	Err        error
}

// CloseView closes a view.
type CloseView struct {
	Tag, Group uint64
	View       uint64
}

// ViewClosed answers CloseView.
//
// Errors: ErrNotFound.
type ViewClosed struct {
	Tag, Group uint64
	Err        error
}

// BeginImport starts to replace a group's data by an exported state, which was
// taken at Index and Term. Readers see the old state until FinishImport is
// answered, then the new one, and nothing between.
type BeginImport struct {
	Tag, Group  uint64
	Index, Term uint64
}

// ImportBegun answers BeginImport.
//
// Errors: ErrConflict (another import is under way), ErrDiskFull.
type ImportBegun struct {
	Tag, Group uint64
	Import     uint64
	Err        error
}

// ImportChunk adds the next piece of the state.
type ImportChunk struct {
	Tag, Group uint64
	Import     uint64
	Data       []byte
	// EOF: this is the last piece, and ErrMalformed if the state is not whole
	// with it. Whoever gives something up for the state waits for that.
	EOF bool
}

// ChunkImported answers ImportChunk.
//
// Errors: ErrNotFound (no such import), ErrMalformed, ErrDiskFull. After any
// of these the import is gone and the old state stays.
type ChunkImported struct {
	Tag, Group uint64
	Err        error
}

// FinishImport swaps the imported state in.
type FinishImport struct {
	Tag, Group uint64
	Import     uint64
}

// Imported answers FinishImport. With a nil Err the new state is on disk and
// served; otherwise the old one is.
type Imported struct {
	Tag, Group  uint64
	Index, Term uint64
	Keys        int
	Err         error
}

// AbortImport gives an import up; the old state stays.
type AbortImport struct {
	Tag, Group uint64
	Import     uint64
}

// ImportAborted answers AbortImport.
//
// Errors: ErrNotFound.
type ImportAborted struct {
	Tag, Group uint64
	Err        error
}

// CompactData has the file of the application data, which is that of all groups,
// written anew without what has been overwritten and removed. It happens by itself
// when enough has come together; this is for an operator who wants the space now.
type CompactData struct {
	Tag, Group uint64
}

// DataCompacted answers CompactData, with the length of the file in bytes before
// and after. With an Err the old file goes on; the data is the same either way.
//
// Errors: ErrDiskFull (there must be room for what is live), ErrCorrupt (the file
// cannot be read back; what is served is good, and trying again writes it anew),
// ErrCrashed (it may have been compacted).
type DataCompacted struct {
	Tag, Group    uint64
	Before, After int64
	Err           error
}
