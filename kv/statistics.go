package kv

import "github.com/ballast-raft/ballast/messages"

// Statistics measures what the store holds: memory for views and watches, keys, and
// the file. What an actor counts is zero.
func (s *DB) Statistics() messages.KVStatistics {
	var st messages.KVStatistics
	s.mu.RLock()
	for _, g := range s.groups {
		st.Keys += g.keys
		st.ViewBytes += g.history.bytes
		for _, v := range g.exports {
			st.ViewBytes += v.bytes.Load()
		}
	}
	if s.gen != nil {
		st.FileBytes = s.gen.end
		st.LiveBytes = min(s.live+s.overhead(), s.gen.end)
	}
	s.mu.RUnlock()
	s.changes.mu.Lock()
	st.HistoryBytes = s.changes.bytes
	s.changes.mu.Unlock()
	return st
}
