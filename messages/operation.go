package messages

import (
	"encoding/binary"
	"fmt"
)

// OperationKind says what an Operation does. The numbers are part of the
// on-disk format: they are in the Data of log entries.
type OperationKind uint8

// The kinds of operation.
const (
	OpPut            OperationKind = 1
	OpDelete         OperationKind = 2
	OpCompareAndSwap OperationKind = 3
	OpCreateIndex    OperationKind = 4
	OpDropIndex      OperationKind = 5
	OpGet            OperationKind = 6
	OpTxn            OperationKind = 7
)

// String returns the kind's name.
func (k OperationKind) String() string {
	switch k {
	case OpPut:
		return "put"
	case OpDelete:
		return "delete"
	case OpCompareAndSwap:
		return "compare-and-swap"
	case OpCreateIndex:
		return "create-index"
	case OpDropIndex:
		return "drop-index"
	case OpGet:
		return "get"
	case OpTxn:
		return "transaction"
	}
	return fmt.Sprintf("operation(%d)", uint8(k))
}

// Limits of application data, in bytes. A value must fit into one log entry
// together with its key.
const (
	MaxKey   = 4 << 10
	MaxValue = 32 << 20
)

// Operation is one change to the application data. Build it with Put, Delete,
// and so on, propose it as the Data of a log entry with Encode, and it is
// carried out when the entry is applied.
type Operation struct {
	Kind OperationKind
	// Key is what is written, or read by OpGet; any bytes, 1 to MaxKey of them.
	Key []byte
	// Value is the new value (OpPut, OpCompareAndSwap), at most MaxValue
	// bytes. An empty value is a value, not an absence.
	Value []byte
	// Expect is the value that OpCompareAndSwap requires; nil means that the
	// key must not exist.
	Expect []byte
	// Index is the definition of OpCreateIndex; OpDropIndex uses its Name.
	Index IndexDefinition
	// Txn is the transaction of OpTxn.
	Txn *Transaction
}

// Put returns the operation that sets key to value.
func PutOperation(key, value []byte) Operation {
	return Operation{Kind: OpPut, Key: key, Value: value}
}

// DeleteOperation returns the operation that removes key.
func DeleteOperation(key []byte) Operation { return Operation{Kind: OpDelete, Key: key} }

// CompareAndSwapOperation returns the operation that sets key to value if its
// current value is expect; a nil expect means that key must not exist.
func CompareAndSwapOperation(key, expect, value []byte) Operation {
	return Operation{Kind: OpCompareAndSwap, Key: key, Expect: expect, Value: value}
}

// CreateIndexOperation returns the operation that creates an index.
func CreateIndexOperation(def IndexDefinition) Operation {
	return Operation{Kind: OpCreateIndex, Index: def}
}

// DropIndexOperation returns the operation that removes an index.
func DropIndexOperation(name string) Operation {
	return Operation{Kind: OpDropIndex, Index: IndexDefinition{Name: name}}
}

// Result is what one operation did. Results are the same on every replica.
type Result struct {
	// Existed: the key (or index) was there before.
	Existed bool
	// Swapped: OpCompareAndSwap found what it expected and wrote.
	Swapped bool
	// Version is the revision that the operation has brought about, which is
	// that of the pair it wrote. Zero if it changed nothing. Of OpGet it is the
	// version of the pair.
	Version uint64
	// Value is what OpGet has read; nil if the key does not exist.
	Value []byte
	// Succeeded: the conditions of OpTxn held, and Results are those of Then;
	// otherwise those of Else.
	Succeeded bool
	Results   []Result
	// Err says why the operation changed nothing: ErrNotJSON, ErrTooLarge,
	// ErrInvalid, ErrMalformed (the entry's Data is not an operation),
	// ErrNotUnique (a *NotUniqueError), ErrConflict (the index exists with
	// another definition), ErrNotFound (no index to drop). ErrResultLost is the exception: the operation was
	// carried out.
	Err error
}

// Validate reports the first limit that the operation breaks, as ErrInvalid or
// ErrTooLarge.
func (o Operation) Validate() error {
	switch o.Kind {
	case OpTxn:
		return o.Txn.Validate()
	case OpPut, OpDelete, OpCompareAndSwap, OpGet:
		switch {
		case len(o.Key) == 0:
			return fmt.Errorf("%v: empty key: %w", o.Kind, ErrInvalid)
		case len(o.Key) > MaxKey:
			return fmt.Errorf("%v: key of %d bytes, at most %d: %w", o.Kind, len(o.Key), MaxKey, ErrTooLarge)
		case len(o.Value) > MaxValue:
			return fmt.Errorf("%v: value of %d bytes, at most %d: %w", o.Kind, len(o.Value), MaxValue, ErrTooLarge)
		case len(o.Expect) > MaxValue:
			return fmt.Errorf("%v: expected value of %d bytes, at most %d: %w", o.Kind, len(o.Expect), MaxValue, ErrTooLarge)
		}
		return nil
	case OpCreateIndex:
		if err := o.Index.Validate(); err != nil {
			return fmt.Errorf("%v: %w", o.Kind, err)
		}
		return nil
	case OpDropIndex:
		if err := validIndexName(o.Index.Name); err != nil {
			return fmt.Errorf("%v: %w", o.Kind, err)
		}
		return nil
	}
	return fmt.Errorf("unknown %v: %w", o.Kind, ErrInvalid)
}

// Bytes is the size of the operation's payload.
func (o Operation) Bytes() int {
	return len(o.Key) + len(o.Value) + len(o.Expect) + o.Index.Bytes() + o.Txn.Bytes()
}

// Encoding of an operation, version 1. Integers are unsigned varints; "bytes"
// is a length followed by that many bytes.
//
//	put               0x01 key:bytes value:rest
//	delete            0x02 key:rest
//	compare-and-swap  0x03 key:bytes expect:(0x00 | 0x01 bytes) value:rest
//	create-index      0x04 name:bytes definition:rest, as IndexDefinition.Encode gives it
//	drop-index        0x05 name:rest
//	get               0x06 key:rest
//	transaction       0x07 n n×condition n n×operation:bytes n n×operation:bytes
//
// The operations of a transaction are those of Then and of Else; its conditions:
//
//	value             0x01 relation key:bytes value:bytes
//	version           0x02 relation key:bytes version
//	range             0x03 0x00 from:bytes to:(0x00 | 0x01 bytes) count revision
//
// A first byte above 0x7f is reserved for later versions. There is no checksum:
// the log's record has one.

// Encode appends the operation's encoding to dst and returns it.
func (o Operation) Encode(dst []byte) []byte {
	dst = append(dst, byte(o.Kind))
	switch o.Kind {
	case OpPut:
		dst = appendBytes(dst, o.Key)
		dst = append(dst, o.Value...)
	case OpDelete, OpGet:
		dst = append(dst, o.Key...)
	case OpCompareAndSwap:
		dst = appendBytes(dst, o.Key)
		if o.Expect == nil {
			dst = append(dst, 0)
		} else {
			dst = append(dst, 1)
			dst = appendBytes(dst, o.Expect)
		}
		dst = append(dst, o.Value...)
	case OpCreateIndex:
		dst = appendBytes(dst, []byte(o.Index.Name))
		dst = o.Index.Encode(dst)
	case OpDropIndex:
		dst = append(dst, o.Index.Name...)
	case OpTxn:
		dst = o.Txn.encode(dst)
	}
	return dst
}

// DecodeOperation decodes what Encode made. The operation's slices alias data.
// The error matches ErrMalformed, ErrInvalid or ErrTooLarge.
func DecodeOperation(data []byte) (Operation, error) {
	if len(data) == 0 {
		return Operation{}, fmt.Errorf("operation: no bytes: %w", ErrMalformed)
	}
	o := Operation{Kind: OperationKind(data[0])}
	d := decoder{rest: data[1:]}
	switch o.Kind {
	case OpPut:
		o.Key = d.bytes()
		o.Value = d.rest
	case OpDelete, OpGet:
		o.Key = d.rest
	case OpCompareAndSwap:
		o.Key = d.bytes()
		if d.flag() {
			o.Expect = d.bytes()
		}
		o.Value = d.rest
	case OpCreateIndex:
		name := string(d.bytes())
		if !d.bad {
			var err error
			if o.Index, err = DecodeIndexDefinition(name, d.rest); err != nil {
				return Operation{}, fmt.Errorf("operation: %w", err)
			}
		}
	case OpDropIndex:
		o.Index.Name = string(d.rest)
	case OpTxn:
		var err error
		if o.Txn, err = d.transaction(); err != nil {
			return Operation{}, err
		}
	default:
		return Operation{}, fmt.Errorf("operation: unknown kind %#x: %w", data[0], ErrMalformed)
	}
	if d.bad {
		return Operation{}, fmt.Errorf("operation: %v is cut short or overlong: %w", o.Kind, ErrMalformed)
	}
	if err := o.Validate(); err != nil {
		return Operation{}, fmt.Errorf("operation: %w", err)
	}
	return o, nil
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

type decoder struct {
	rest []byte
	bad  bool
}

// bytes never returns nil for bytes that are there, so that an empty expected
// value stays apart from an absent one.
func (d *decoder) bytes() []byte {
	n, w := binary.Uvarint(d.rest)
	if w <= 0 || n > uint64(len(d.rest)-w) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[w : w+int(n) : w+int(n)]
	d.rest = d.rest[w+int(n):]
	return b
}

func (d *decoder) flag() bool {
	if len(d.rest) == 0 || d.rest[0] > 1 {
		d.bad, d.rest = true, nil
		return false
	}
	f := d.rest[0] == 1
	d.rest = d.rest[1:]
	return f
}
