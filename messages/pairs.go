package messages

// The methods of Command and Reply for every pair in the vocabulary, one block
// a pair: Refuse names the reply that belongs to the command. Those of snapshots
// are in snapshotpairs.go, those of watches in watch.go.

func entriesBytes(entries []Entry) int {
	n := 0
	for i := range entries {
		n += len(entries[i].Data)
	}
	return n
}

func keysBytes(keys [][]byte) int {
	n := 0
	for _, k := range keys {
		n += len(k)
	}
	return n
}

func (c Append) RequestTag() uint64         { return c.Tag }
func (c Append) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Append) Refuse(err error) Reply     { return Appended{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Append) Bytes() int                 { return entriesBytes(c.Entries) }
func (r Appended) ReplyTag() uint64         { return r.Tag }
func (r Appended) Failure() error           { return r.Err }

func (c ReadEntry) RequestTag() uint64         { return c.Tag }
func (c ReadEntry) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ReadEntry) Refuse(err error) Reply     { return EntryRead{Tag: c.Tag, Group: c.Group, Err: err} }
func (c ReadEntry) Bytes() int                 { return 0 }
func (r EntryRead) ReplyTag() uint64           { return r.Tag }
func (r EntryRead) Failure() error             { return r.Err }

func (c ReadRange) RequestTag() uint64         { return c.Tag }
func (c ReadRange) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ReadRange) Refuse(err error) Reply     { return RangeRead{Tag: c.Tag, Group: c.Group, Err: err} }
func (c ReadRange) Bytes() int                 { return 0 }
func (r RangeRead) ReplyTag() uint64           { return r.Tag }
func (r RangeRead) Failure() error             { return r.Err }

func (c TruncateFrom) RequestTag() uint64         { return c.Tag }
func (c TruncateFrom) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c TruncateFrom) Refuse(err error) Reply     { return Truncated{Tag: c.Tag, Group: c.Group, Err: err} }
func (c TruncateFrom) Bytes() int                 { return 0 }
func (r Truncated) ReplyTag() uint64              { return r.Tag }
func (r Truncated) Failure() error                { return r.Err }

func (c TruncateBefore) RequestTag() uint64         { return c.Tag }
func (c TruncateBefore) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c TruncateBefore) Refuse(err error) Reply {
	return Compacted{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c TruncateBefore) Bytes() int  { return 0 }
func (r Compacted) ReplyTag() uint64 { return r.Tag }
func (r Compacted) Failure() error   { return r.Err }

func (c ResetLog) RequestTag() uint64         { return c.Tag }
func (c ResetLog) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ResetLog) Refuse(err error) Reply     { return LogReset{Tag: c.Tag, Group: c.Group, Err: err} }
func (c ResetLog) Bytes() int                 { return 0 }
func (r LogReset) ReplyTag() uint64           { return r.Tag }
func (r LogReset) Failure() error             { return r.Err }

func (c ReadBounds) RequestTag() uint64         { return c.Tag }
func (c ReadBounds) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ReadBounds) Refuse(err error) Reply     { return BoundsRead{Tag: c.Tag, Group: c.Group, Err: err} }
func (c ReadBounds) Bytes() int                 { return 0 }
func (r BoundsRead) ReplyTag() uint64           { return r.Tag }
func (r BoundsRead) Failure() error             { return r.Err }

func (c ListGroups) RequestTag() uint64         { return c.Tag }
func (c ListGroups) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ListGroups) Refuse(err error) Reply {
	return GroupsListed{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ListGroups) Bytes() int         { return 0 }
func (r GroupsListed) ReplyTag() uint64 { return r.Tag }
func (r GroupsListed) Failure() error   { return r.Err }

func (c SetStable) RequestTag() uint64         { return c.Tag }
func (c SetStable) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c SetStable) Refuse(err error) Reply     { return StableSet{Tag: c.Tag, Group: c.Group, Err: err} }
func (c SetStable) Bytes() int                 { return len(c.Name) + len(c.Value) }
func (r StableSet) ReplyTag() uint64           { return r.Tag }
func (r StableSet) Failure() error             { return r.Err }

func (c GetStable) RequestTag() uint64         { return c.Tag }
func (c GetStable) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c GetStable) Refuse(err error) Reply     { return StableGot{Tag: c.Tag, Group: c.Group, Err: err} }
func (c GetStable) Bytes() int                 { return len(c.Name) }
func (r StableGot) ReplyTag() uint64           { return r.Tag }
func (r StableGot) Failure() error             { return r.Err }

func (c Apply) RequestTag() uint64         { return c.Tag }
func (c Apply) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Apply) Refuse(err error) Reply     { return Applied{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Apply) Bytes() int                 { return entriesBytes(c.Entries) }
func (r Applied) ReplyTag() uint64         { return r.Tag }
func (r Applied) Failure() error           { return r.Err }

func (c Get) RequestTag() uint64         { return c.Tag }
func (c Get) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Get) Refuse(err error) Reply     { return Got{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Get) Bytes() int                 { return len(c.Key) }
func (r Got) ReplyTag() uint64           { return r.Tag }
func (r Got) Failure() error             { return r.Err }

func (c MultiGet) RequestTag() uint64         { return c.Tag }
func (c MultiGet) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c MultiGet) Refuse(err error) Reply     { return MultiGot{Tag: c.Tag, Group: c.Group, Err: err} }
func (c MultiGet) Bytes() int                 { return keysBytes(c.Keys) }
func (r MultiGot) ReplyTag() uint64           { return r.Tag }
func (r MultiGot) Failure() error             { return r.Err }

func (c Put) RequestTag() uint64         { return c.Tag }
func (c Put) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Put) Refuse(err error) Reply     { return PutDone{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Put) Bytes() int                 { return len(c.Key) + len(c.Value) }
func (r PutDone) ReplyTag() uint64       { return r.Tag }
func (r PutDone) Failure() error         { return r.Err }

func (c Delete) RequestTag() uint64         { return c.Tag }
func (c Delete) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Delete) Refuse(err error) Reply     { return Deleted{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Delete) Bytes() int                 { return len(c.Key) }
func (r Deleted) ReplyTag() uint64          { return r.Tag }
func (r Deleted) Failure() error            { return r.Err }

func (c CompareAndSwap) RequestTag() uint64         { return c.Tag }
func (c CompareAndSwap) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CompareAndSwap) Refuse(err error) Reply {
	return ComparedAndSwapped{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c CompareAndSwap) Bytes() int           { return len(c.Key) + len(c.Expect) + len(c.Value) }
func (r ComparedAndSwapped) ReplyTag() uint64 { return r.Tag }
func (r ComparedAndSwapped) Failure() error   { return r.Err }

func (c Txn) RequestTag() uint64         { return c.Tag }
func (c Txn) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Txn) Refuse(err error) Reply     { return TxnDone{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Txn) Bytes() int                 { return c.Transaction.Bytes() }
func (r TxnDone) ReplyTag() uint64       { return r.Tag }
func (r TxnDone) Failure() error         { return r.Err }

func (c Scan) RequestTag() uint64         { return c.Tag }
func (c Scan) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Scan) Refuse(err error) Reply     { return Scanned{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Scan) Bytes() int                 { return len(c.Prefix) + len(c.From) + len(c.To) + len(c.Cursor) }
func (r Scanned) ReplyTag() uint64        { return r.Tag }
func (r Scanned) Failure() error          { return r.Err }

func (c CreateIndex) RequestTag() uint64         { return c.Tag }
func (c CreateIndex) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CreateIndex) Refuse(err error) Reply {
	return IndexCreated{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c CreateIndex) Bytes() int        { return c.Definition.Bytes() }
func (r IndexCreated) ReplyTag() uint64 { return r.Tag }
func (r IndexCreated) Failure() error   { return r.Err }

func (c DropIndex) RequestTag() uint64         { return c.Tag }
func (c DropIndex) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c DropIndex) Refuse(err error) Reply     { return IndexDropped{Tag: c.Tag, Group: c.Group, Err: err} }
func (c DropIndex) Bytes() int                 { return len(c.Name) }
func (r IndexDropped) ReplyTag() uint64        { return r.Tag }
func (r IndexDropped) Failure() error          { return r.Err }

func (c ListIndexes) RequestTag() uint64         { return c.Tag }
func (c ListIndexes) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ListIndexes) Refuse(err error) Reply {
	return IndexesListed{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ListIndexes) Bytes() int         { return 0 }
func (r IndexesListed) ReplyTag() uint64 { return r.Tag }
func (r IndexesListed) Failure() error   { return r.Err }

func (c QueryIndex) RequestTag() uint64         { return c.Tag }
func (c QueryIndex) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c QueryIndex) Refuse(err error) Reply {
	return IndexQueried{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c QueryIndex) Bytes() int {
	return len(c.Name) + len(c.Equal) + len(c.Prefix) + len(c.Min) + len(c.Max) + len(c.Cursor)
}

func (r IndexQueried) ReplyTag() uint64 { return r.Tag }
func (r IndexQueried) Failure() error   { return r.Err }

func (c ReadApplied) RequestTag() uint64         { return c.Tag }
func (c ReadApplied) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ReadApplied) Refuse(err error) Reply {
	return AppliedRead{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ReadApplied) Bytes() int       { return 0 }
func (r AppliedRead) ReplyTag() uint64 { return r.Tag }
func (r AppliedRead) Failure() error   { return r.Err }

func (c OpenView) RequestTag() uint64         { return c.Tag }
func (c OpenView) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c OpenView) Refuse(err error) Reply     { return ViewOpened{Tag: c.Tag, Group: c.Group, Err: err} }
func (c OpenView) Bytes() int                 { return 0 }
func (r ViewOpened) ReplyTag() uint64         { return r.Tag }
func (r ViewOpened) Failure() error           { return r.Err }

func (c ExportChunk) RequestTag() uint64         { return c.Tag }
func (c ExportChunk) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ExportChunk) Refuse(err error) Reply {
	return ChunkExported{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ExportChunk) Bytes() int         { return 0 }
func (r ChunkExported) ReplyTag() uint64 { return r.Tag }
func (r ChunkExported) Failure() error   { return r.Err }

func (c CloseView) RequestTag() uint64         { return c.Tag }
func (c CloseView) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CloseView) Refuse(err error) Reply     { return ViewClosed{Tag: c.Tag, Group: c.Group, Err: err} }
func (c CloseView) Bytes() int                 { return 0 }
func (r ViewClosed) ReplyTag() uint64          { return r.Tag }
func (r ViewClosed) Failure() error            { return r.Err }

func (c BeginImport) RequestTag() uint64         { return c.Tag }
func (c BeginImport) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c BeginImport) Refuse(err error) Reply {
	return ImportBegun{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c BeginImport) Bytes() int       { return 0 }
func (r ImportBegun) ReplyTag() uint64 { return r.Tag }
func (r ImportBegun) Failure() error   { return r.Err }

func (c ImportChunk) RequestTag() uint64         { return c.Tag }
func (c ImportChunk) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ImportChunk) Refuse(err error) Reply {
	return ChunkImported{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ImportChunk) Bytes() int         { return len(c.Data) }
func (r ChunkImported) ReplyTag() uint64 { return r.Tag }
func (r ChunkImported) Failure() error   { return r.Err }

func (c FinishImport) RequestTag() uint64         { return c.Tag }
func (c FinishImport) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c FinishImport) Refuse(err error) Reply     { return Imported{Tag: c.Tag, Group: c.Group, Err: err} }
func (c FinishImport) Bytes() int                 { return 0 }
func (r Imported) ReplyTag() uint64               { return r.Tag }
func (r Imported) Failure() error                 { return r.Err }

func (c CompactData) RequestTag() uint64         { return c.Tag }
func (c CompactData) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CompactData) Refuse(err error) Reply {
	return DataCompacted{Tag: c.Tag, Group: c.Group, Err: err}
}
func (c CompactData) Bytes() int         { return 0 }
func (r DataCompacted) ReplyTag() uint64 { return r.Tag }
func (r DataCompacted) Failure() error   { return r.Err }

func (c AbortImport) RequestTag() uint64         { return c.Tag }
func (c AbortImport) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c AbortImport) Refuse(err error) Reply {
	return ImportAborted{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c AbortImport) Bytes() int         { return 0 }
func (r ImportAborted) ReplyTag() uint64 { return r.Tag }
func (r ImportAborted) Failure() error   { return r.Err }

func (c ApplyEntry) RequestTag() uint64         { return c.Tag }
func (c ApplyEntry) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ApplyEntry) Refuse(err error) Reply {
	return EntryApplied{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ApplyEntry) Bytes() int         { return c.Operation.Bytes() }
func (r EntryApplied) ReplyTag() uint64 { return r.Tag }
func (r EntryApplied) Failure() error   { return r.Err }

func (c CreateSnapshot) RequestTag() uint64         { return c.Tag }
func (c CreateSnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CreateSnapshot) Refuse(err error) Reply {
	return SnapshotCreated{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c CreateSnapshot) Bytes() int        { return len(c.Meta) }
func (r SnapshotCreated) ReplyTag() uint64 { return r.Tag }
func (r SnapshotCreated) Failure() error   { return r.Err }

func (c Restore) RequestTag() uint64         { return c.Tag }
func (c Restore) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Restore) Refuse(err error) Reply     { return Restored{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Restore) Bytes() int                 { return len(c.ID) }
func (r Restored) ReplyTag() uint64          { return r.Tag }
func (r Restored) Failure() error            { return r.Err }

func (c ReadStatus) RequestTag() uint64         { return c.Tag }
func (c ReadStatus) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ReadStatus) Refuse(err error) Reply     { return Status{Tag: c.Tag, Group: c.Group, Err: err} }
func (c ReadStatus) Bytes() int                 { return 0 }
func (r Status) ReplyTag() uint64               { return r.Tag }
func (r Status) Failure() error                 { return r.Err }
