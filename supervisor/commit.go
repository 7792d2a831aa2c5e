package supervisor

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// commit turns a transaction into an operation and proposes it. Until it has been
// proposed nothing can have been done.
func (s *supervisor) commit(r *actors.Request, c messages.Commit) {
	if s.kvState != messages.StateServing {
		// The transaction has gone with the actor that held it.
		r.Fail(fmt.Errorf("%s: commit: the application data is %s: %w", s.host.PID().ID, s.kvState, messages.ErrExpired))
		return
	}
	fail := func(err error) { r.Fail(fmt.Errorf("%s: commit: %w", s.host.PID().ID, err)) }
	call(s, s.parts.kv.PID(), messages.PrepareCommit{Group: c.Group, Txn: c.Txn}, fail, func(m messages.CommitPrepared) {
		switch {
		case m.Err != nil:
			fail(m.Err)
		case m.Operation.Kind == 0: // nothing was written
			r.Reply(messages.Committed{Tag: c.Tag, Group: c.Group, Version: m.Revision})
		default:
			s.proposeOperation(r, c.Group, 0, m.Operation)
		}
	})
}

// committed answers the commit of a transaction that was applied.
func (p *proposal) committed(result messages.Result) {
	c := messages.Committed{Tag: p.request.Command.RequestTag(), Group: p.group, Version: result.Version, Err: result.Err}
	switch {
	case errors.Is(result.Err, messages.ErrResultLost):
		c.Err = fmt.Errorf("commit: %w: %w", messages.ErrInDoubt, result.Err)
	case result.Err == nil && !result.Succeeded:
		c.Err = fmt.Errorf("commit: something that the transaction has read has changed before index %d: %w", p.entry.Index, messages.ErrConflict)
	}
	p.request.Reply(c)
}
