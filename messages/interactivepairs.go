package messages

// The methods of Command and Reply for interactive transactions, as in pairs.go.

func (c Begin) RequestTag() uint64         { return c.Tag }
func (c Begin) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Begin) Refuse(err error) Reply     { return Begun{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Begin) Bytes() int                 { return 0 }
func (r Begun) ReplyTag() uint64           { return r.Tag }
func (r Begun) Failure() error             { return r.Err }

func (c Commit) RequestTag() uint64         { return c.Tag }
func (c Commit) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Commit) Refuse(err error) Reply     { return Committed{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Commit) Bytes() int                 { return 0 }
func (r Committed) ReplyTag() uint64        { return r.Tag }
func (r Committed) Failure() error          { return r.Err }

func (c Rollback) RequestTag() uint64         { return c.Tag }
func (c Rollback) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c Rollback) Refuse(err error) Reply     { return RolledBack{Tag: c.Tag, Group: c.Group, Err: err} }
func (c Rollback) Bytes() int                 { return 0 }
func (r RolledBack) ReplyTag() uint64         { return r.Tag }
func (r RolledBack) Failure() error           { return r.Err }

func (c PrepareCommit) RequestTag() uint64         { return c.Tag }
func (c PrepareCommit) WithTag(tag uint64) Command { c.Tag = tag; return c }
func (c PrepareCommit) Refuse(err error) Reply {
	return CommitPrepared{Tag: c.Tag, Group: c.Group, Err: err}
}
func (c PrepareCommit) Bytes() int        { return 0 }
func (r CommitPrepared) ReplyTag() uint64 { return r.Tag }
func (r CommitPrepared) Failure() error   { return r.Err }
