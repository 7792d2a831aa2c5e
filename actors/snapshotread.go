package actors

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// defaultChunk is the size of a chunk when the command does not say.
const defaultChunk = 256 << 10

func (b *snapshotBehavior) openSnapshot(r *Request, c messages.OpenSnapshot) {
	s := &stream{random: c.Random}
	b.openReader(r, s, func() (o messages.SnapshotOpened, events []any, err error) {
		var rd snapshot.Reader
		open := func(id string) (err error) {
			if c.Random || c.ID == "" { // which has just been read whole
				rd, err = b.store.OpenAt(id)
			} else {
				rd, err = b.store.Open(id)
			}
			return err
		}
		find := b.newestGood
		if c.Random {
			find = b.newest
		}
		if events, err = openOf(c.ID, c.Group, find, open); err != nil {
			return o, events, err
		}
		s.reader, s.at = rd, rd
		o.Info = rd.Info()
		if c.Offset < 0 || c.Offset > o.Info.RawBytes || c.Random && c.Offset != 0 {
			err = fmt.Errorf("%s: open %s at offset %d of %d: %w", b.host.PID().ID, o.Info.ID, c.Offset, o.Info.RawBytes, messages.ErrInvalid)
		} else {
			s.offset, err = rd.Seek(c.Offset, io.SeekStart)
		}
		s.size = o.Info.RawBytes
		o.Size = s.size - c.Offset
		if err != nil {
			err = errors.Join(err, rd.Close())
		}
		return o, events, err
	})
}

func (b *snapshotBehavior) exportSnapshot(r *Request, c messages.ExportSnapshot) {
	s := &stream{}
	b.openReader(r, s, func() (o messages.SnapshotOpened, events []any, err error) {
		var e snapshot.Exporter
		open := func(id string) (err error) { e, err = b.store.Export(id, c.Offset); return err }
		if events, err = openOf(c.ID, c.Group, b.newestGood, open); err != nil {
			return o, events, err
		}
		s.reader = e
		o.Info, o.Size = e.Info(), e.Size()-c.Offset
		s.size = o.Size
		return o, events, nil
	})
}

// openReader opens a stream from the disk.
func (b *snapshotBehavior) openReader(r *Request, s *stream, open func() (messages.SnapshotOpened, []any, error)) {
	b.add(s)
	s.end = func() error { return s.reader.Close() }
	group := r.Command.Refuse(nil).(messages.SnapshotOpened).Group
	b.run(s.lane, callOf(r.Command), func() func() {
		o, events, err := open()
		return func() {
			for _, e := range events {
				b.host.Event(e)
			}
			s.opened = err == nil
			if s.opened {
				b.counters.opened.Add(1)
			}
			b.streams.settle(s, err)
			if err != nil {
				r.Fail(err)
				return
			}
			o.Tag, o.Group, o.Stream, o.Credit = r.Command.RequestTag(), group, s.id, b.cfg.Credit
			r.Reply(o)
		}
	})
}

// openOf opens the snapshot called id, or the newest of the group that find
// finds. If that is gone before it is open, a newer one has come: it looks again,
// or the group would be taken for one without snapshots. Not for ever: a store
// may be wrong about what is there.
func openOf(id string, group uint64, find func(uint64) (string, []any, error), open func(string) error) (events []any, err error) {
	if id != "" {
		return nil, open(id)
	}
	for range 16 {
		found, more, err := find(group)
		events = append(events, more...)
		if err != nil {
			return events, err
		}
		if err = open(found); !errors.Is(err, messages.ErrNotFound) {
			return events, err
		}
	}
	return events, fmt.Errorf("group %d: the newest snapshot was replaced again and again: %w", group, messages.ErrOverloaded)
}

// newest finds the newest snapshot of a group whose header, index and footer are
// good.
func (b *snapshotBehavior) newest(group uint64) (id string, events []any, err error) {
	infos, damaged, err := b.store.List(group)
	for _, d := range damaged {
		events = append(events, b.damage(d))
	}
	if err == nil && len(infos) == 0 {
		err = fmt.Errorf("%s: group %d has no snapshot: %w", b.host.PID().ID, group, messages.ErrNotFound)
	}
	if err != nil {
		return "", events, err
	}
	return infos[0].ID, events, nil
}

// newestGood finds the newest snapshot of a group that verifies. Those that were
// passed over are set aside: they would be read again each time, and a retention
// by count would go on passing them over. If there is no good one they stay, so
// that whoever asks next does not take the group for one without snapshots.
func (b *snapshotBehavior) newestGood(group uint64) (id string, events []any, err error) {
	info, damaged, err := b.store.Latest(group)
	for _, d := range damaged {
		if err != nil || b.cfg.KeepDamaged {
			events = append(events, b.damage(d))
			continue
		}
		file, failed := b.setAside(d)
		if failed != nil {
			// It could not be read, which may pass, or somebody has it open.
			events = append(events, b.damage(fmt.Errorf("%w; it was not set aside: %w", d, failed)))
			continue
		}
		events = append(events, b.damage(d), messages.DamageSetAside{Actor: b.host.PID().ID, File: file})
	}
	return info.ID, events, err
}

func (b *snapshotBehavior) damage(err error) messages.DamageFound {
	return messages.DamageFound{Actor: b.host.PID().ID, Err: err}
}

func (b *snapshotBehavior) setAside(d *messages.CorruptError) (messages.AsideSnapshot, error) {
	id, _, _ := strings.Cut(filepath.Base(d.Path), ".")
	if _, err := snapshot.ParseID(id); err != nil {
		return messages.AsideSnapshot{}, err
	}
	return b.store.SetAside(id)
}

func (b *snapshotBehavior) readChunk(r *Request, c messages.ReadChunk) {
	s, ok := b.streams.find(r, c.Stream, isReader)
	if !ok || !b.withinCredit(r, s) {
		return
	}
	if c.Offset < 0 || c.Offset > s.size || c.Offset != 0 && !s.random {
		r.Fail(b.errorf(s, "read at offset %d (opened for random access: %v): %w", c.Offset, s.random, messages.ErrInvalid))
		return
	}
	size := c.MaxBytes
	if size <= 0 {
		size = defaultChunk
	}
	size = min(size, messages.MaxSnapshotChunk)
	s.underWay++
	b.run(s.lane, callOf(r.Command), func() func() {
		read := messages.ChunkRead{Tag: c.Tag, Group: c.Group, Stream: s.id}
		began := b.host.Now()
		over := error(nil)
		if s.random {
			read.Offset = c.Offset
			read.Data, read.Err = s.piece(c.Offset, c.Buffer, size)
			read.EOF = read.Err == nil && c.Offset+int64(len(read.Data)) == s.size
		} else {
			read.Offset = s.offset
			read.Data, read.EOF, read.Err = s.next(c.Buffer, size)
			if over = read.Err; over != nil {
				read.Err = errors.Join(read.Err, s.reader.Close())
			}
		}
		b.counters.read(len(read.Data), b.host.Now().Sub(began))
		return func() {
			b.streams.settle(s, over)
			r.Reply(read)
		}
	})
}

// buffer returns n bytes, in b if there is room.
func buffer(b []byte, n int) []byte {
	if n <= cap(b) {
		return b[:n]
	}
	return make([]byte, n)
}

// piece reads at an offset.
func (s *stream) piece(offset int64, b []byte, size int) ([]byte, error) {
	data := buffer(b, int(min(int64(size), s.size-offset)))
	if _, err := s.at.ReadAt(data, offset); err != nil && err != io.EOF {
		return nil, err
	}
	return data, nil
}

// next reads on.
func (s *stream) next(b []byte, size int) (data []byte, eof bool, err error) {
	data = buffer(b, size)
	n, err := io.ReadFull(s.reader, data)
	s.offset += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return data[:n], true, nil
	}
	if err != nil {
		return nil, false, err
	}
	return data, false, nil
}
