package actors

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
)

func (b *kvBehavior) beginImport(r *Request, c messages.BeginImport) {
	for _, id := range sortedKeys(b.leases.all) {
		a := b.leases.all[id]
		switch {
		case a.imported == nil || a.expired:
		case b.host.FromCoordinator(r):
			// One that an earlier coordinator began and did not live to end
			// (simulation seed 239).
			b.leases.remove(a)
			b.leases.giveUp(a, func(err error) {
				if err != nil {
					r.Fail(err)
					return
				}
				b.Handle(r)
			})
			return
		default:
			r.Fail(fmt.Errorf("%s: another import is under way: %w", b.host.PID().ID, messages.ErrConflict))
			return
		}
	}
	imp, err := b.store.BeginImport(c.Group, c.Index, c.Term)
	if err != nil {
		r.Fail(err)
		return
	}
	a := &access{lease: lease{lane: kvImportLane, end: imp.Abort}, imported: imp, group: c.Group, index: c.Index, term: c.Term}
	b.leases.add(a)
	r.Reply(messages.ImportBegun{Tag: c.Tag, Group: c.Group, Import: a.id})
}

func (b *kvBehavior) importChunk(r *Request, c messages.ImportChunk) {
	a, ok := b.leases.find(r, c.Import, isImport)
	if !ok {
		return
	}
	a.underWay++
	b.host.Do(kvImportLane, Call{Name: "import"}, func() func() {
		_, err := a.imported.Write(c.Data)
		if err == nil && c.EOF {
			err = a.imported.Whole()
		}
		if err != nil {
			err = errors.Join(err, a.imported.Abort())
		}
		return func() {
			b.leases.settle(a, err)
			if b.failed(err) { // the sync of what was staged
				return
			}
			r.Reply(messages.ChunkImported{Tag: c.Tag, Group: c.Group, Err: err})
			if a.underWay == 0 {
				b.release()
			}
		}
	})
}

// finishImport swaps the new state in. Changes wait meanwhile, reads do not.
func (b *kvBehavior) finishImport(r *Request, c messages.FinishImport) {
	a, ok := b.leases.find(r, c.Import, isImport)
	if !ok {
		return
	}
	if b.syncing || b.importing || a.underWay > 0 || len(b.building) > 0 {
		b.hold(r) // until what is under way is done
		return
	}
	b.leases.remove(a)
	b.importing = true
	r.Note = applying{a.group, a.index}
	// The sync lane, so that no sync is under way while the file is replaced.
	b.host.Do(kvSyncLane, Call{"finish import", true}, func() func() {
		keys, err := a.imported.Finish()
		return func() {
			b.importing = false
			if b.failed(err) {
				return
			}
			reply := messages.Imported{Tag: c.Tag, Group: c.Group, Keys: keys, Err: err}
			if err == nil {
				reply.Index, reply.Term = a.index, a.term
				b.kv.reach(a.group, a.index)
				b.watches.replaced(a.group)
			}
			r.Reply(reply)
			b.release()
			b.tend()
		}
	})
}

func (b *kvBehavior) abortImport(r *Request, c messages.AbortImport) {
	a, ok := b.leases.find(r, c.Import, isImport)
	if !ok {
		return
	}
	b.leases.remove(a)
	b.leases.giveUp(a, func(err error) { r.Reply(messages.ImportAborted{Tag: c.Tag, Group: c.Group, Err: err}) })
}
