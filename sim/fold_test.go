package sim_test

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// folded is the state machine that the application data must agree with, after an
// entry.
type folded struct {
	data     map[string]string
	versions map[string]uint64
	// succeeded: the conditions of the entry's transaction held.
	succeeded bool
}

// at is the state at an index: the entries folded in order. Each is made once, as
// entries never change. It is nil if nobody has seen one of them applied.
func (h *history) at(index uint64) *folded {
	if h.states == nil {
		h.states = []*folded{{data: map[string]string{}, versions: map[string]uint64{}}}
	}
	for uint64(len(h.states)) <= index {
		e, ok := h.applied[uint64(len(h.states))]
		if !ok {
			return nil
		}
		last := h.states[len(h.states)-1]
		next := &folded{data: maps.Clone(last.data), versions: maps.Clone(last.versions)}
		op, err := messages.DecodeOperation(e.Data)
		if err != nil {
			panic(err)
		}
		next.do(op, e.Index)
		h.states = append(h.states, next)
	}
	return h.states[index]
}

func (s *folded) do(op messages.Operation, index uint64) {
	key := string(op.Key)
	switch op.Kind {
	case messages.OpPut:
		s.data[key], s.versions[key] = string(op.Value), index
	case messages.OpDelete:
		delete(s.data, key)
		delete(s.versions, key)
	case messages.OpCompareAndSwap:
		if old, ok := s.data[key]; ok == (op.Expect != nil) && (!ok || old == string(op.Expect)) {
			s.data[key], s.versions[key] = string(op.Value), index
		}
	case messages.OpTxn:
		s.succeeded = !slices.ContainsFunc(op.Txn.If, func(c messages.Compare) bool { return !s.holds(c) })
		ops := op.Txn.Else
		if s.succeeded {
			ops = op.Txn.Then
		}
		for _, op := range ops {
			s.do(op, index)
		}
	}
}

func (s *folded) holds(c messages.Compare) bool {
	key := string(c.Key)
	if c.Target == messages.CompareRange {
		n := uint64(0)
		for k, version := range s.versions {
			if k >= key && (c.To == nil || k < string(c.To)) {
				if n++; version > c.Version {
					return false
				}
			}
		}
		return n == c.Count
	}
	order := cmp.Compare(s.versions[key], c.Version)
	if c.Target == messages.CompareValue {
		value, found := s.data[key]
		if !found {
			return false
		}
		order = bytes.Compare([]byte(value), c.Value)
	}
	switch c.Relation {
	case messages.Equal:
		return order == 0
	case messages.NotEqual:
		return order != 0
	case messages.Less:
		return order < 0
	}
	return order > 0
}
