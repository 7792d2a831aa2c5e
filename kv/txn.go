package kv

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ballast-raft/ballast/messages"
)

// transact carries out a transaction: all of a branch, or nothing.
func (b *batch) transact(t *messages.Transaction) messages.Result {
	res := messages.Result{Succeeded: true}
	for i := range t.If {
		if !b.holds(&t.If[i]) {
			res.Succeeded = false
			break
		}
	}
	branch, ops := "then", t.Then
	if !res.Succeeded {
		branch, ops = "else", t.Else
	}
	res.Results = make([]messages.Result, 0, len(ops))
	size, touched, indexes := 0, b.touched, b.indexes
	b.touched, b.inTxn = false, true
	defer func() {
		b.touched = b.touched || touched
		b.inTxn, b.undo, b.contests, b.rivals = false, nil, nil, nil
	}()
	fail := func(i int, err error) messages.Result {
		for _, back := range slices.Backward(b.undo) {
			back()
		}
		b.touched, b.sorted, b.indexes = false, nil, indexes
		return messages.Result{Succeeded: res.Succeeded, Err: fmt.Errorf("kv: transaction: operation %d of %s: %w", i, branch, err)}
	}
	for i, op := range ops {
		b.operation = i
		r := b.run(op)
		if size += len(r.Value); r.Err == nil && size > messages.MaxTxnBytes {
			r.Err = fmt.Errorf("kv: values of more than %d bytes: %w", messages.MaxTxnBytes, messages.ErrTooLarge)
		}
		if r.Err != nil {
			return fail(i, r.Err)
		}
		res.Results = append(res.Results, r)
	}
	if i, err := b.settleContests(); err != nil {
		return fail(i, err)
	}
	if b.touched {
		res.Version = b.revision
	}
	return res
}

// touch is called before a change of a key.
func (b *batch) touch(key string) {
	b.touched = true
	if !b.inTxn {
		return
	}
	c, had := b.changes[key]
	before, bytes, told := change{}, b.bytes, len(b.told)
	if had {
		before = *c
	}
	b.undo = append(b.undo, func() {
		if had {
			b.changes[key] = &before
		} else {
			delete(b.changes, key)
		}
		b.bytes, b.told = bytes, b.told[:told]
	})
}

// holds reports whether a condition does.
func (b *batch) holds(c *messages.Compare) bool {
	stored := b.group.data + string(c.Key)
	if c.Target == messages.CompareRange {
		upper := successor(b.group.data)
		if c.To != nil {
			upper = b.group.data + string(c.To)
		}
		n, unchanged := uint64(0), true
		b.walk(stored, upper, false, func(_, set string) bool {
			version, _ := valueOf(set)
			n++
			unchanged = n <= c.Count && version <= c.Version
			return unchanged
		})
		return unchanged && n == c.Count
	}
	set, found := b.lookup(stored)
	version, value := valueOf(set)
	order := 0
	switch {
	case c.Target == messages.CompareVersion && version < c.Version:
		order = -1
	case c.Target == messages.CompareVersion && version > c.Version:
		order = 1
	case c.Target == messages.CompareValue && !found:
		return false
	case c.Target == messages.CompareValue:
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
