package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/messages"
)

// group is what the supervisor knows of one Raft group that it proposes to.
type group struct {
	id uint64
	// state says whether last, term and hard are those of the log.
	state groupState
	last  uint64
	term  uint64
	hard  messages.HardState
	// inFlight is the number of appends that have not been answered.
	inFlight int
	// queue waits until the position is known again.
	queue []*proposal
	// proposals are the entries that were appended and not applied, by index.
	proposals map[uint64]*proposal
	// next is the index that is to be applied next.
	next uint64
	// applying is the number of the Apply (or the chain of them) that is under
	// way, or zero. A recovery takes over from it: whatever it brings home
	// afterwards is out of date (simulation seed 114).
	applying, applies uint64
	// pauses counts the flows that rewrite the log or the data: meanwhile nothing
	// is proposed or applied.
	pauses int
	// failed is why the last recovery could not bring the data up to the log.
	// Until another one has, nothing is served of the group.
	failed error
	// stuck is why the last attempt to apply has failed.
	stuck error
	// snapshotting: a snapshot is being taken.
	snapshotting bool
}

type groupState int

const (
	unknown groupState = iota // the log must be asked
	asking                    // it has been
	known                     // proposals can be appended
)

// proposal is one ApplyEntry on its way.
type proposal struct {
	request *actors.Request
	group   uint64
	term    uint64 // asked for; zero for the current one
	entry   messages.Entry
	durable bool
	tries   int
}

func (p *proposal) fail(err error) { p.request.Fail(err) }

func (p *proposal) applied(result messages.Result) {
	c := p.request.Command
	if _, ok := c.(messages.Commit); ok {
		p.committed(result)
		return
	}
	p.request.Reply(messages.EntryApplied{Tag: c.RequestTag(), Group: p.group, Index: p.entry.Index, Term: p.entry.Term, Result: result})
}

// Batches of Apply: large enough that the two writes of a commit do not count,
// small enough that a reply is not held up.
const (
	maxApplyEntries = 256
	maxApplyBytes   = 1 << 20
)

// maxTries bounds how often an entry is proposed again because others were
// appended beside it.
const maxTries = 8

func (s *supervisor) group(id uint64) *group {
	g := s.groups[id]
	if g == nil {
		g = &group{id: id, proposals: make(map[uint64]*proposal)}
		s.groups[id] = g
	}
	return g
}

func (s *supervisor) sortedGroups() []*group {
	return slices.SortedFunc(maps.Values(s.groups), func(a, b *group) int { return cmp.Compare(a.id, b.id) })
}

func (g *group) sortedProposals() []*proposal {
	return slices.SortedFunc(maps.Values(g.proposals), func(a, b *proposal) int { return cmp.Compare(a.entry.Index, b.entry.Index) })
}

// begin claims the right to apply.
func (g *group) begin() (number uint64) {
	g.applies++
	g.applying = g.applies
	return g.applies
}

// end gives it back. It reports whether it had not been taken away.
func (g *group) end(number uint64) bool {
	if g.applying != number {
		return false
	}
	g.applying = 0
	return true
}

func (g *group) forget(p *proposal) { delete(g.proposals, p.entry.Index) }

func (s *supervisor) applyEntry(r *actors.Request, c messages.ApplyEntry) {
	if err := c.Operation.Validate(); err != nil {
		r.Fail(fmt.Errorf("%s: apply entry: %w", s.host.PID().ID, err))
		return
	}
	s.proposeOperation(r, c.Group, c.Term, c.Operation)
}

// proposeOperation has an operation appended and applied, and the request answered
// then.
func (s *supervisor) proposeOperation(r *actors.Request, group, term uint64, op messages.Operation) {
	if s.kvState == messages.StateUnavailable {
		r.Fail(fmt.Errorf("%s: application data: %w: %w", s.host.PID().ID, messages.ErrUnavailable, s.kvErr))
		return
	}
	if g := s.groups[group]; g != nil && g.failed != nil {
		r.Fail(s.withheld(g))
		return
	}
	p := &proposal{request: r, group: group, term: term, entry: messages.Entry{Data: op.Encode(nil)}}
	r.Note = p
	if !s.started {
		if s.draining {
			r.Fail(fmt.Errorf("%s: %w", s.host.PID().ID, messages.ErrStopped))
			return
		}
		s.early = append(s.early, p)
		return
	}
	s.propose(s.group(group), p)
}

// propose appends an entry. Appends are pipelined: the next one leaves before
// this one is durable.
func (s *supervisor) propose(g *group, p *proposal) {
	if g.state != known || g.pauses > 0 || !s.compared {
		g.queue = append(g.queue, p)
		s.ask(g)
		return
	}
	term := p.term
	if term == 0 {
		term = max(g.term, g.hard.Term, 1)
	}
	if term < g.term || term < g.hard.Term {
		p.fail(fmt.Errorf("%s: apply entry: term %d after %d: %w", s.host.PID().ID, term, max(g.term, g.hard.Term), messages.ErrStaleTerm))
		return
	}
	p.entry.Index, p.entry.Term = g.last+1, term
	hard := messages.HardState{Term: term, Commit: p.entry.Index}
	if term == g.hard.Term {
		hard.Vote = g.hard.Vote
	}
	g.last, g.term, g.hard = p.entry.Index, term, hard
	g.proposals[p.entry.Index] = p
	g.inFlight++
	answered := false // exactly once, also if a step panics
	done := func(err error) {
		if !answered {
			answered = true
			s.appended(g, p, err)
		}
	}
	call(s, s.parts.log.PID(), messages.Append{Group: g.id, Entries: []messages.Entry{p.entry}, HardState: &hard}, done,
		func(a messages.Appended) { done(a.Err) })
}

// appended takes the log's answer for one entry.
func (s *supervisor) appended(g *group, p *proposal, err error) {
	g.inFlight--
	if err == nil {
		p.durable = true
		switch {
		case p.entry.Index < g.next && g.proposals[p.entry.Index] == p: // a replay came by
			g.forget(p)
			p.applied(messages.Result{Err: fmt.Errorf("%s: %w", s.host.PID().ID, messages.ErrResultLost)})
		case s.kvState == messages.StateUnavailable, s.kvState == messages.StateStopped:
			s.giveUp(g, s.kvErr)
		case g.failed != nil:
			s.giveUp(g, g.failed)
		case g.stuck != nil:
			s.giveUp(g, g.stuck)
		}
		s.pump(g)
		s.ask(g)
		return
	}
	// The indexes of everything behind it are wrong now: those appends are
	// refused, and proposed again once the log has told where it ends.
	g.state = unknown
	if g.proposals[p.entry.Index] == p {
		g.forget(p)
	}
	displaced := errors.Is(err, messages.ErrOutOfOrder) || errors.Is(err, messages.ErrConflict) ||
		errors.Is(err, messages.ErrCompacted) || errors.Is(err, messages.ErrStaleTerm) && p.term == 0
	if displaced {
		s.again(g, p, err)
	} else {
		p.fail(fmt.Errorf("%s: apply entry: %w", s.host.PID().ID, err))
	}
	s.ask(g)
}

// again queues an entry that has left no trace to be proposed once more, unless
// that was tried too often: err says why it is not in the log.
func (s *supervisor) again(g *group, p *proposal, err error) {
	if p.tries == maxTries {
		p.fail(fmt.Errorf("%s: apply entry: %w", s.host.PID().ID, err))
		return
	}
	p.tries++
	p.durable, p.entry.Index = false, 0
	g.queue = append(g.queue, p)
}

// ask learns a group's position from the log, once nothing is under way.
func (s *supervisor) ask(g *group) {
	if g.state != unknown || g.inFlight > 0 || g.pauses > 0 || !s.compared || len(g.queue) == 0 {
		return
	}
	g.state = asking
	fail := func(err error) {
		g.state = unknown
		s.refuseQueued(g, err)
	}
	s.bounds(g.id, fail, func(b messages.LogBounds) {
		g.state = known
		g.last, g.term, g.hard = b.Last, b.LastTerm, b.HardState
		queue := g.queue
		g.queue = nil
		for _, p := range queue {
			s.propose(g, p)
		}
		s.pump(g)
	})
}

// refuseQueued answers what waits to be proposed and has left no trace.
func (s *supervisor) refuseQueued(g *group, err error) {
	queue := g.queue
	g.queue = nil
	for _, p := range queue {
		p.fail(fmt.Errorf("%s: apply entry: %w", s.host.PID().ID, err))
	}
}

// pump applies the entries that have become durable, in order, one batch at a
// time; what becomes durable meanwhile forms the next batch.
func (s *supervisor) pump(g *group) {
	if !s.applies(g) {
		return
	}
	var batch []*proposal
	bytes := 0
	for i := g.next; len(batch) < maxApplyEntries; i++ {
		p := g.proposals[i]
		if p == nil || !p.durable || len(batch) > 0 && bytes+len(p.entry.Data) > maxApplyBytes {
			break
		}
		batch = append(batch, p)
		bytes += len(p.entry.Data)
	}
	if len(batch) == 0 {
		if s.gap(g) {
			s.catchUp(g)
		}
		return
	}
	entries := make([]messages.Entry, len(batch))
	for i, p := range batch {
		entries[i] = p.entry
	}
	number := g.begin()
	fail := func(err error) {
		if !g.end(number) {
			return
		}
		for _, p := range batch {
			g.forget(p)
			p.fail(err)
		}
	}
	call(s, s.parts.kv.PID(), messages.Apply{Group: g.id, Entries: entries}, fail, func(a messages.Applied) {
		if !g.end(number) {
			return
		}
		switch {
		case a.Err == nil:
			for i, p := range batch {
				g.forget(p)
				p.applied(a.Results[i])
			}
			g.next, g.stuck = entries[len(entries)-1].Index+1, nil
			s.pump(g)
		case s.kvState != messages.StateServing:
			// It has told that it is down. Its recovery applies what the log
			// holds and answers the proposals, or kvLost does.
		case errors.Is(a.Err, messages.ErrOutOfOrder): // somebody else applies as well
			s.catchUp(g)
		default: // a full disk: the log is ahead until there is room
			for _, p := range batch {
				g.forget(p)
				p.fail(fmt.Errorf("%s: index %d is in the log but not applied yet: %w: %w", s.host.PID().ID, p.entry.Index, messages.ErrInDoubt, a.Err))
			}
			g.stuck = a.Err
			s.host.After(retryDelay, func() { s.catchUp(g) })
		}
	})
}

// applies reports whether the next entries of a group can be applied now.
func (s *supervisor) applies(g *group) bool {
	return s.kvState == messages.StateServing && g.applying == 0 && g.pauses == 0 && g.failed == nil
}

// gap reports whether there is an entry to apply that no proposal holds: an
// append whose outcome was in doubt, and which turned out to be in the log.
func (s *supervisor) gap(g *group) bool {
	if g.inFlight > 0 || g.proposals[g.next] != nil {
		return false
	}
	for i, p := range g.proposals {
		if i > g.next && p.durable {
			return true
		}
	}
	return false
}
