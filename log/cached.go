package log

import (
	"github.com/ballast-raft/ballast/messages"
	"golang.org/x/sys/unix"
)

// CachedEntry is Entry for an entry that the page cache holds: it waits for no
// disk. It reports false if the entry is not there, or is not known to be, and
// whenever anything is wrong with it: Entry then tells what.
func (w *WAL) CachedEntry(group, index uint64) (messages.Entry, bool) {
	f, err := w.find(group, index)
	if err != nil {
		return messages.Entry{}, false
	}
	h := w.readers.lookup(f.segment, nil)
	if h == nil {
		return messages.Entry{}, false
	}
	defer w.readers.release(h)
	data := make([]byte, f.size)
	if f.size > 0 {
		n, err := unix.Preadv2(int(h.f.Fd()), [][]byte{data}, int64(f.offset), unix.RWF_NOWAIT)
		if err != nil || n < len(data) || f.segment.removed.Load() {
			return messages.Entry{}, false
		}
	}
	if f.verify(data) != nil {
		return messages.Entry{}, false
	}
	return messages.Entry{Index: f.index, Term: f.term, Type: f.typ, Data: data}, true
}
