package messages

import (
	"encoding/binary"
	"fmt"
)

// Transaction is a change under conditions, as etcd has it: if all conditions in
// If hold, the operations in Then are carried out, in order, otherwise those in
// Else, and either all of them or none. They see what those before them have
// done. If one fails by its own Result.Err, the whole transaction fails with that
// error and nothing is done; a compare-and-swap that does not match is no failure.
// Whether what is unique is so is asked at the end: two pairs may swap their values.
// It is the first operation that fails whose pair then has what another one has.
type Transaction struct {
	// If holds without conditions.
	If []Compare
	// Then and Else may have OpPut, OpDelete, OpCompareAndSwap and OpGet.
	Then, Else []Operation
}

// Limits of a transaction.
const (
	// MaxTxnOperations bounds the conditions and the operations of each branch.
	MaxTxnOperations = 4096
	// MaxTxnBytes bounds keys and values, and those that its gets return.
	MaxTxnBytes = MaxValue
	// MaxTxnRange bounds the pairs in all ranges of its conditions together:
	// they are counted when it is applied, at some 10 million a second.
	MaxTxnRange = 1 << 16
)

// CompareTarget says what a condition is about. The numbers are part of the
// on-disk format.
type CompareTarget uint8

// The targets of a condition.
const (
	// CompareValue compares the value of Key, byte by byte. It fails for a key
	// that does not exist, whatever the relation.
	CompareValue CompareTarget = 1
	// CompareVersion compares the version of Key, which is zero if there is no
	// such key.
	CompareVersion CompareTarget = 2
	// CompareRange asks whether the range from Key to To is what it was at
	// revision Version, when it had Count pairs: it has as many now, and none
	// of them was written later. Versions are never used again, so there is no
	// other way to have as many.
	CompareRange CompareTarget = 3
)

// Relation of what there is to what a condition names.
type Relation uint8

// The relations.
const (
	Equal    Relation = 1
	NotEqual Relation = 2
	Less     Relation = 3
	Greater  Relation = 4
)

// Compare is one condition of a Transaction.
type Compare struct {
	Target   CompareTarget
	Relation Relation // not of CompareRange
	Key      []byte
	Value    []byte // of CompareValue
	Version  uint64 // of CompareVersion and CompareRange
	// To ends the range of CompareRange; nil is the end of the data. Key begins
	// it, and may be empty.
	To    []byte
	Count uint64
}

// ValueIs compares the value of a key.
func ValueIs(key []byte, r Relation, value []byte) Compare {
	return Compare{Target: CompareValue, Relation: r, Key: key, Value: value}
}

// VersionIs compares the version of a key.
func VersionIs(key []byte, r Relation, version uint64) Compare {
	return Compare{Target: CompareVersion, Relation: r, Key: key, Version: version}
}

// Exists asks for a key to exist, Missing for it not to.
func Exists(key []byte) Compare  { return VersionIs(key, Greater, 0) }
func Missing(key []byte) Compare { return VersionIs(key, Equal, 0) }

// RangeUnchanged asks for a range to be what it was at a revision, when it had
// count pairs. A nil to is the end of the data.
func RangeUnchanged(from, to []byte, count, revision uint64) Compare {
	return Compare{Target: CompareRange, Key: from, To: to, Count: count, Version: revision}
}

// TxnOperation returns the operation that carries out a transaction.
func TxnOperation(t Transaction) Operation { return Operation{Kind: OpTxn, Txn: &t} }

// GetOperation returns the operation that reads a key.
func GetOperation(key []byte) Operation { return Operation{Kind: OpGet, Key: key} }

// Bytes is the size of the transaction's payload.
func (t *Transaction) Bytes() (n int) {
	if t == nil {
		return 0
	}
	for i := range t.If {
		n += len(t.If[i].Key) + len(t.If[i].To) + len(t.If[i].Value)
	}
	for _, ops := range [][]Operation{t.Then, t.Else} {
		for i := range ops {
			n += ops[i].Bytes()
		}
	}
	return n
}

// Validate reports the first limit that the transaction breaks, as ErrInvalid or
// ErrTooLarge.
func (t *Transaction) Validate() error {
	if t == nil {
		return fmt.Errorf("%v: no transaction: %w", OpTxn, ErrInvalid)
	}
	if n := max(len(t.If), len(t.Then), len(t.Else)); n > MaxTxnOperations {
		return fmt.Errorf("%v: %d conditions or operations, at most %d: %w", OpTxn, n, MaxTxnOperations, ErrTooLarge)
	}
	if n := t.Bytes(); n > MaxTxnBytes {
		return fmt.Errorf("%v: %d bytes, at most %d: %w", OpTxn, n, MaxTxnBytes, ErrTooLarge)
	}
	pairs := uint64(0)
	for i := range t.If {
		c := &t.If[i]
		if err := c.validate(); err != nil {
			return fmt.Errorf("%v: condition %d: %w", OpTxn, i, err)
		}
		if pairs += min(c.Count, MaxTxnRange+1); pairs > MaxTxnRange {
			return fmt.Errorf("%v: ranges of more than %d pairs: %w", OpTxn, MaxTxnRange, ErrTooLarge)
		}
	}
	for _, ops := range [][]Operation{t.Then, t.Else} {
		for i := range ops {
			if !inTxn(ops[i].Kind) {
				return fmt.Errorf("%v: operation %d is a %v: %w", OpTxn, i, ops[i].Kind, ErrInvalid)
			}
			if err := ops[i].Validate(); err != nil {
				return fmt.Errorf("%v: operation %d: %w", OpTxn, i, err)
			}
		}
	}
	return nil
}

func inTxn(k OperationKind) bool {
	return k == OpPut || k == OpDelete || k == OpCompareAndSwap || k == OpGet
}

func (c *Compare) validate() error {
	switch {
	case c.Target < CompareValue || c.Target > CompareRange:
		return fmt.Errorf("target %d: %w", c.Target, ErrInvalid)
	case c.Target == CompareRange && (c.Relation != 0 || c.Value != nil):
		return fmt.Errorf("a range with a relation or a value: %w", ErrInvalid)
	case c.Target != CompareRange && (c.Relation < Equal || c.Relation > Greater):
		return fmt.Errorf("relation %d: %w", c.Relation, ErrInvalid)
	case c.Target != CompareRange && (c.To != nil || c.Count != 0):
		return fmt.Errorf("a key with a range: %w", ErrInvalid)
	case c.Target != CompareRange && len(c.Key) == 0:
		return fmt.Errorf("empty key: %w", ErrInvalid)
	case len(c.Key) > MaxKey+1 || len(c.To) > MaxKey+1 || c.Target != CompareRange && len(c.Key) > MaxKey: // a range may begin and end just after a key
		return fmt.Errorf("key of %d bytes, at most %d: %w", max(len(c.Key), len(c.To)), MaxKey, ErrTooLarge)
	case c.To != nil && string(c.Key) > string(c.To):
		return fmt.Errorf("a range from %q to %q: %w", c.Key, c.To, ErrInvalid)
	case c.Target == CompareValue && c.Version != 0 || c.Target == CompareVersion && c.Value != nil:
		return fmt.Errorf("both a value and a version: %w", ErrInvalid)
	}
	return nil
}

// encode appends the transaction; the comment at Operation.Encode has the layout.
func (t *Transaction) encode(dst []byte) []byte {
	if t == nil {
		t = &Transaction{}
	}
	dst = binary.AppendUvarint(dst, uint64(len(t.If)))
	for i := range t.If {
		c := &t.If[i]
		dst = append(dst, byte(c.Target), byte(c.Relation))
		dst = appendBytes(dst, c.Key)
		switch c.Target {
		case CompareValue:
			dst = appendBytes(dst, c.Value)
		case CompareVersion:
			dst = binary.AppendUvarint(dst, c.Version)
		case CompareRange:
			if c.To == nil {
				dst = append(dst, 0)
			} else {
				dst = appendBytes(append(dst, 1), c.To)
			}
			dst = binary.AppendUvarint(dst, c.Count)
			dst = binary.AppendUvarint(dst, c.Version)
		}
	}
	for _, ops := range [][]Operation{t.Then, t.Else} {
		dst = binary.AppendUvarint(dst, uint64(len(ops)))
		for i := range ops {
			size := ops[i].encodedLen()
			dst = binary.AppendUvarint(dst, uint64(size))
			dst = ops[i].Encode(dst)
		}
	}
	return dst
}

// encodedLen is the length of the encoding of an operation that may be in a
// transaction.
func (o *Operation) encodedLen() int {
	uvarintLen := func(n int) int { return len(binary.AppendUvarint(nil, uint64(n))) }
	switch o.Kind {
	case OpPut:
		return 1 + uvarintLen(len(o.Key)) + len(o.Key) + len(o.Value)
	case OpCompareAndSwap:
		n := 1 + uvarintLen(len(o.Key)) + len(o.Key) + 1 + len(o.Value)
		if o.Expect != nil {
			n += uvarintLen(len(o.Expect)) + len(o.Expect)
		}
		return n
	}
	return 1 + len(o.Key)
}

// transaction reads what encode has made. Only operations that a transaction may
// have are decoded, so it does not go deeper than one level.
func (d *decoder) transaction() (*Transaction, error) {
	t := &Transaction{}
	for n := d.count(); n > 0 && !d.bad; n-- {
		c := Compare{Target: CompareTarget(d.byte()), Relation: Relation(d.byte()), Key: d.bytes()}
		switch c.Target {
		case CompareValue:
			c.Value = d.bytes()
		case CompareVersion:
			c.Version = d.uvarint()
		case CompareRange:
			if d.flag() {
				c.To = d.bytes()
			}
			c.Count, c.Version = d.uvarint(), d.uvarint()
		default:
			d.bad = true
		}
		t.If = append(t.If, c)
	}
	for _, ops := range []*[]Operation{&t.Then, &t.Else} {
		for n := d.count(); n > 0 && !d.bad; n-- {
			b := d.bytes()
			if len(b) == 0 || !inTxn(OperationKind(b[0])) {
				d.bad = true
				break
			}
			o, err := DecodeOperation(b)
			if err != nil {
				return nil, err
			}
			*ops = append(*ops, o)
		}
	}
	if len(d.rest) > 0 {
		d.bad = true
	}
	return t, nil
}

func (d *decoder) count() uint64 {
	n := d.uvarint()
	if n > MaxTxnOperations {
		d.bad, d.rest = true, nil
		return 0
	}
	return n
}

func (d *decoder) uvarint() uint64 {
	n, w := binary.Uvarint(d.rest)
	if w <= 0 || w > 1 && d.rest[w-1] == 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[w:]
	return n
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}
