package actors

import (
	"errors"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// handleFiles answers the commands about whole snapshots and the files beside
// them.
func (b *snapshotBehavior) handleFiles(r *Request) {
	switch c := r.Command.(type) {
	case messages.ListSnapshots:
		b.read(r, func() messages.Reply {
			list := func() ([]messages.SnapshotInfo, []*messages.CorruptError, error) { return b.store.List(c.Group) }
			if c.All {
				list = b.store.ListAll
			}
			infos, damaged, err := list()
			return messages.SnapshotsListed{Tag: c.Tag, Group: c.Group, Snapshots: infos, Damaged: damaged, Err: err}
		})
	case messages.ListSnapshotFiles:
		b.read(r, func() messages.Reply { return b.listFiles(c) })
	case messages.DeleteSnapshot:
		b.change(r, groupOf(c.ID, c.Group), func() messages.Reply {
			return messages.SnapshotDeleted{Tag: c.Tag, Group: c.Group, Err: b.store.Delete(c.ID)}
		})
	case messages.CleanupSnapshots:
		if c.Retention.DryRun {
			b.read(r, func() messages.Reply { return b.planCleanup(c) })
			return
		}
		b.change(r, c.Group, func() messages.Reply {
			removed, err := b.store.Cleanup(c.Group, c.Retention)
			return messages.SnapshotsCleanedUp{Tag: c.Tag, Group: c.Group, Removed: removed, Err: err}
		})
	case messages.VerifySnapshot:
		b.read(r, func() messages.Reply { return b.verify(c) })
	case messages.SetAsideSnapshot:
		b.change(r, groupOf(c.ID, c.Group), func() messages.Reply {
			file, err := b.store.SetAside(c.ID)
			if err == nil {
				b.host.Event(messages.DamageSetAside{Actor: b.host.PID().ID, File: file})
			}
			return messages.SnapshotSetAside{Tag: c.Tag, Group: c.Group, File: file, Err: err}
		})
	case messages.DiscardSnapshotFile:
		b.change(r, groupOf(c.Name, c.Group), func() messages.Reply {
			return messages.SnapshotFileDiscarded{Tag: c.Tag, Group: c.Group, Err: b.store.Discard(c.Name)}
		})
	default:
		r.Fail(unknown(b.host, c))
	}
}

func (b *snapshotBehavior) listFiles(c messages.ListSnapshotFiles) messages.SnapshotFilesListed {
	l := messages.SnapshotFilesListed{Tag: c.Tag, Group: c.Group}
	unfinished, err := b.store.Unfinished()
	aside, also := b.store.Aside()
	if l.Err = errors.Join(err, also); l.Err != nil {
		return l
	}
	for _, f := range unfinished {
		if c.All || f.Group == c.Group {
			l.Unfinished = append(l.Unfinished, f)
		}
	}
	for _, f := range aside {
		if c.All || f.Group == c.Group {
			l.Aside = append(l.Aside, f)
		}
	}
	return l
}

func (b *snapshotBehavior) planCleanup(c messages.CleanupSnapshots) messages.SnapshotsCleanedUp {
	m := messages.SnapshotsCleanedUp{Tag: c.Tag, Group: c.Group}
	m.Plan, m.Err = b.store.Plan(c.Group, c.Retention)
	for i := len(m.Plan) - 1; i >= 0; i-- { // the oldest first, as they are removed
		if p := m.Plan[i]; p.Fate.Goes() {
			m.Removed = append(m.Removed, p.ID)
		}
	}
	return m
}

func (b *snapshotBehavior) verify(c messages.VerifySnapshot) messages.SnapshotVerified {
	info, err := b.store.Verify(c.ID)
	v := messages.SnapshotVerified{Tag: c.Tag, Group: c.Group, Info: info, Err: err}
	var report *snapshot.DamageError
	if errors.As(err, &report) {
		v.Info = report.Info
		v.Damage = &report.SnapshotDamage
	}
	return v
}
