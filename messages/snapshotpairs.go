package messages

// The methods of Command and Reply for the pairs of snapshots, as in pairs.go.

func (c BeginSave) RequestTag() uint64         { return c.Tag }
func (c BeginSave) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c BeginSave) Refuse(err error) Reply     { return SaveBegun{Tag: c.Tag, Group: c.Group, Err: err} }
func (c BeginSave) Bytes() int                 { return len(c.Meta) }
func (r SaveBegun) ReplyTag() uint64           { return r.Tag }
func (r SaveBegun) Failure() error             { return r.Err }

func (c SaveChunk) RequestTag() uint64         { return c.Tag }
func (c SaveChunk) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c SaveChunk) Refuse(err error) Reply     { return ChunkSaved{Tag: c.Tag, Group: c.Group, Err: err} }
func (c SaveChunk) Bytes() int                 { return len(c.Data) }
func (r ChunkSaved) ReplyTag() uint64          { return r.Tag }
func (r ChunkSaved) Failure() error            { return r.Err }

func (c FinishSave) RequestTag() uint64         { return c.Tag }
func (c FinishSave) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c FinishSave) Refuse(err error) Reply     { return Saved{Tag: c.Tag, Group: c.Group, Err: err} }
func (c FinishSave) Bytes() int                 { return 0 }
func (r Saved) ReplyTag() uint64                { return r.Tag }
func (r Saved) Failure() error                  { return r.Err }

func (c AbortSave) RequestTag() uint64         { return c.Tag }
func (c AbortSave) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c AbortSave) Refuse(err error) Reply     { return SaveAborted{Tag: c.Tag, Group: c.Group, Err: err} }
func (c AbortSave) Bytes() int                 { return 0 }
func (r SaveAborted) ReplyTag() uint64         { return r.Tag }
func (r SaveAborted) Failure() error           { return r.Err }

func (c Save) RequestTag() uint64         { return c.Tag }
func (c Save) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Save) Refuse(err error) Reply     { return Saved{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Save) Bytes() int                 { return len(c.Meta) + len(c.Data) }

func (c OpenSnapshot) RequestTag() uint64         { return c.Tag }
func (c OpenSnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c OpenSnapshot) Refuse(err error) Reply {
	return SnapshotOpened{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c OpenSnapshot) Bytes() int         { return len(c.ID) }
func (r SnapshotOpened) ReplyTag() uint64 { return r.Tag }
func (r SnapshotOpened) Failure() error   { return r.Err }

func (c ReadChunk) RequestTag() uint64         { return c.Tag }
func (c ReadChunk) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ReadChunk) Refuse(err error) Reply     { return ChunkRead{Tag: c.Tag, Group: c.Group, Err: err} }
func (c ReadChunk) Bytes() int                 { return len(c.Buffer) }
func (r ChunkRead) ReplyTag() uint64           { return r.Tag }
func (r ChunkRead) Failure() error             { return r.Err }

func (c CloseSnapshot) RequestTag() uint64         { return c.Tag }
func (c CloseSnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CloseSnapshot) Refuse(err error) Reply {
	return SnapshotClosed{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c CloseSnapshot) Bytes() int        { return 0 }
func (r SnapshotClosed) ReplyTag() uint64 { return r.Tag }
func (r SnapshotClosed) Failure() error   { return r.Err }

func (c ListSnapshots) RequestTag() uint64         { return c.Tag }
func (c ListSnapshots) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ListSnapshots) Refuse(err error) Reply {
	return SnapshotsListed{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ListSnapshots) Bytes() int         { return 0 }
func (r SnapshotsListed) ReplyTag() uint64 { return r.Tag }
func (r SnapshotsListed) Failure() error   { return r.Err }

func (c DeleteSnapshot) RequestTag() uint64         { return c.Tag }
func (c DeleteSnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c DeleteSnapshot) Refuse(err error) Reply {
	return SnapshotDeleted{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c DeleteSnapshot) Bytes() int        { return len(c.ID) }
func (r SnapshotDeleted) ReplyTag() uint64 { return r.Tag }
func (r SnapshotDeleted) Failure() error   { return r.Err }

func (c CleanupSnapshots) RequestTag() uint64         { return c.Tag }
func (c CleanupSnapshots) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c CleanupSnapshots) Refuse(err error) Reply {
	return SnapshotsCleanedUp{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c CleanupSnapshots) Bytes() int         { return 0 }
func (r SnapshotsCleanedUp) ReplyTag() uint64 { return r.Tag }
func (r SnapshotsCleanedUp) Failure() error   { return r.Err }

func (c VerifySnapshot) RequestTag() uint64         { return c.Tag }
func (c VerifySnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c VerifySnapshot) Refuse(err error) Reply {
	return SnapshotVerified{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c VerifySnapshot) Bytes() int         { return len(c.ID) }
func (r SnapshotVerified) ReplyTag() uint64 { return r.Tag }
func (r SnapshotVerified) Failure() error   { return r.Err }

func (c SuspendSave) RequestTag() uint64         { return c.Tag }
func (c SuspendSave) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c SuspendSave) Refuse(err error) Reply {
	return SaveSuspended{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c SuspendSave) Bytes() int         { return 0 }
func (r SaveSuspended) ReplyTag() uint64 { return r.Tag }
func (r SaveSuspended) Failure() error   { return r.Err }

func (c ImportSnapshot) RequestTag() uint64         { return c.Tag }
func (c ImportSnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ImportSnapshot) Refuse(err error) Reply {
	return SaveBegun{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ImportSnapshot) Bytes() int { return len(c.ID) }

func (c ExportSnapshot) RequestTag() uint64         { return c.Tag }
func (c ExportSnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ExportSnapshot) Refuse(err error) Reply {
	return SnapshotOpened{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ExportSnapshot) Bytes() int { return len(c.ID) }

func (c ListSnapshotFiles) RequestTag() uint64         { return c.Tag }
func (c ListSnapshotFiles) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c ListSnapshotFiles) Refuse(err error) Reply {
	return SnapshotFilesListed{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c ListSnapshotFiles) Bytes() int         { return 0 }
func (r SnapshotFilesListed) ReplyTag() uint64 { return r.Tag }
func (r SnapshotFilesListed) Failure() error   { return r.Err }

func (c SetAsideSnapshot) RequestTag() uint64         { return c.Tag }
func (c SetAsideSnapshot) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c SetAsideSnapshot) Refuse(err error) Reply {
	return SnapshotSetAside{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c SetAsideSnapshot) Bytes() int       { return len(c.ID) }
func (r SnapshotSetAside) ReplyTag() uint64 { return r.Tag }
func (r SnapshotSetAside) Failure() error   { return r.Err }

func (c DiscardSnapshotFile) RequestTag() uint64         { return c.Tag }
func (c DiscardSnapshotFile) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c DiscardSnapshotFile) Refuse(err error) Reply {
	return SnapshotFileDiscarded{Tag: c.Tag, Group: c.Group, Err: err}
}

func (c DiscardSnapshotFile) Bytes() int         { return len(c.Name) }
func (r SnapshotFileDiscarded) ReplyTag() uint64 { return r.Tag }
func (r SnapshotFileDiscarded) Failure() error   { return r.Err }
