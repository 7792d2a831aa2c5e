package messages_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages"
)

// commands is every command; a new one must be added, or TestCommands fails.
var commands = []messages.Command{
	messages.Append{}, messages.ReadEntry{}, messages.ReadRange{}, messages.TruncateFrom{}, messages.TruncateBefore{},
	messages.ResetLog{}, messages.ReadBounds{}, messages.ListGroups{}, messages.CompactData{}, messages.SetStable{}, messages.GetStable{},
	messages.BeginSave{}, messages.SaveChunk{}, messages.FinishSave{}, messages.AbortSave{}, messages.Save{},
	messages.OpenSnapshot{}, messages.ReadChunk{}, messages.CloseSnapshot{}, messages.ListSnapshots{},
	messages.DeleteSnapshot{}, messages.CleanupSnapshots{}, messages.VerifySnapshot{},
	messages.SuspendSave{}, messages.ImportSnapshot{}, messages.ExportSnapshot{}, messages.ListSnapshotFiles{},
	messages.SetAsideSnapshot{}, messages.DiscardSnapshotFile{},
	messages.Apply{}, messages.Get{}, messages.MultiGet{}, messages.Put{}, messages.Delete{}, messages.CompareAndSwap{}, messages.Txn{},
	messages.Begin{}, messages.Commit{}, messages.Rollback{}, messages.PrepareCommit{},
	messages.Scan{}, messages.CreateIndex{}, messages.DropIndex{}, messages.ListIndexes{}, messages.QueryIndex{},
	messages.ReadApplied{}, messages.OpenView{}, messages.ExportChunk{}, messages.CloseView{}, messages.BeginImport{},
	messages.ImportChunk{}, messages.FinishImport{}, messages.AbortImport{},
	messages.Watch{}, messages.ReadChanges{}, messages.CancelWatch{},
	messages.ApplyEntry{}, messages.CreateSnapshot{}, messages.Restore{}, messages.ReadStatus{},
}

// Every command is refused with a reply that carries its tag, its group and
// the error, whatever the command is.
func TestRefuse(t *testing.T) {
	for _, c := range commands {
		v := reflect.New(reflect.TypeOf(c)).Elem()
		v.FieldByName("Group").SetUint(7)
		r := v.Interface().(messages.Command).WithTag(42).Refuse(fs.ErrClosed)
		if r.ReplyTag() != 42 || !errors.Is(r.Failure(), fs.ErrClosed) || reflect.ValueOf(r).FieldByName("Group").Uint() != 7 {
			t.Errorf("%T is refused with %+v", c, r)
		}
		if c.WithTag(9).RequestTag() != 9 || c.RequestTag() != 0 {
			t.Errorf("%T: WithTag must return a changed copy", c)
		}
	}
}

// Bytes counts every byte that the sender controls, or flow control could be
// walked around.
func TestBytesCountsEverySlice(t *testing.T) {
	for _, c := range commands {
		v := reflect.New(reflect.TypeOf(c)).Elem()
		want := fill(v)
		if got := v.Interface().(messages.Command).Bytes(); got != want {
			t.Errorf("%T.Bytes() = %d, want %d", c, got, want)
		}
	}
}

// fill puts 10 bytes into every string and byte slice, and one element into
// every other slice, and returns the sum.
func fill(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(strings.Repeat("x", 10))
		return 10
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(bytes.Repeat([]byte("x"), 10))
			return 10
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		return fill(v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			n += fill(v.Field(i))
		}
	}
	return n
}

func TestOperationGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		op   messages.Operation
		hex  string
	}{
		{"put", messages.PutOperation([]byte("k"), []byte("value")), "01016b76616c7565"},
		{"put empty", messages.PutOperation([]byte("k"), []byte{}), "01016b"},
		{"delete", messages.DeleteOperation([]byte{0, 255}), "0200ff"},
		{"cas", messages.CompareAndSwapOperation([]byte("k"), []byte("old"), []byte("new")), "03016b01036f6c646e6577"},
		{"cas absent", messages.CompareAndSwapOperation([]byte("k"), nil, []byte("new")), "03016b006e6577"},
		{"cas empty", messages.CompareAndSwapOperation([]byte("k"), []byte{}, []byte("new")), "03016b01006e6577"},
		{"index", messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Prefix: "p", Fields: messages.Paths("a.b")}), "04016e7b22707265666978223a2263413d3d222c226669656c6473223a5b7b2270617468223a22612e62227d5d7d"},
		{"index of all", messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Unique: true, Fields: []messages.IndexField{
			{Path: "a<\u2028\"\n", Type: messages.IndexString, Fold: true}, {Path: "b", Type: messages.IndexTime, Descending: true}}}),
			"04016e" + hex.EncodeToString([]byte(`{"fields":[{"path":"a<`+"\u2028"+`\"\u000a","type":"string","fold":true},{"path":"b","type":"time","descending":true}],"unique":true}`))},
		{"index of a function", messages.CreateIndexOperation(messages.IndexDefinition{Name: "n", Func: "f"}), "04016e" + hex.EncodeToString([]byte(`{"func":"f"}`))},
		{"drop", messages.DropIndexOperation("n"), "056e"},
		{"get", messages.GetOperation([]byte("k")), "066b"},
		{"txn, empty", messages.TxnOperation(messages.Transaction{}), "07000000"},
		{"txn", messages.TxnOperation(messages.Transaction{
			If: []messages.Compare{
				messages.ValueIs([]byte("k"), messages.Less, []byte{}), messages.VersionIs([]byte("k"), messages.NotEqual, 300),
				messages.RangeUnchanged([]byte("a"), []byte("b"), 3, 200), messages.RangeUnchanged([]byte{}, nil, 0, 1),
				messages.Exists([]byte("k")), messages.Missing([]byte("k")),
			},
			Then: []messages.Operation{messages.PutOperation([]byte("k"), []byte("v")), messages.DeleteOperation([]byte("d"))},
			Else: []messages.Operation{messages.GetOperation([]byte("k")), messages.CompareAndSwapOperation([]byte("k"), []byte("o"), []byte("n"))},
		}), "07" + "06" + "0103016b00" + "0202016bac02" + "03000161010162" + "03c801" + "030000000001" + "0204016b00" + "0201016b00" +
			"02" + "0401016b76" + "020264" + "02" + "02066b" + "0703016b01016f6e"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.op.Encode(nil)
			if got := hex.EncodeToString(b); got != c.hex {
				t.Fatalf("encoded as %s, want %s", got, c.hex)
			}
			op, err := messages.DecodeOperation(b)
			if err != nil {
				t.Fatal(err)
			}
			if op.Value == nil && c.op.Value != nil {
				op.Value = []byte{}
			}
			if !reflect.DeepEqual(op, c.op) {
				t.Fatalf("decoded as %+v, want %+v", op, c.op)
			}
		})
	}
}

func txn(conditions []messages.Compare, then ...messages.Operation) messages.Operation {
	return messages.TxnOperation(messages.Transaction{If: conditions, Then: then})
}

func TestOperationLimits(t *testing.T) {
	index := func(def messages.IndexDefinition) messages.Operation {
		def.Name = "n"
		return messages.CreateIndexOperation(def)
	}
	long := bytes.Repeat([]byte("x"), messages.MaxKey+1)
	for _, c := range []struct {
		op   messages.Operation
		want error
	}{
		{messages.Operation{}, messages.ErrInvalid},
		{messages.PutOperation(nil, nil), messages.ErrInvalid},
		{messages.PutOperation(long, nil), messages.ErrTooLarge},
		{messages.PutOperation([]byte("k"), make([]byte, messages.MaxValue+1)), messages.ErrTooLarge},
		{messages.CompareAndSwapOperation([]byte("k"), make([]byte, messages.MaxValue+1), nil), messages.ErrTooLarge},
		{messages.CreateIndexOperation(messages.IndexDefinition{Fields: messages.Paths("a")}), messages.ErrInvalid},
		{messages.CreateIndexOperation(messages.IndexDefinition{Name: "a"}), messages.ErrInvalid},
		{index(messages.IndexDefinition{Func: "f", Fields: messages.Paths("a")}), messages.ErrInvalid},
		{index(messages.IndexDefinition{Func: "\xff"}), messages.ErrInvalid},
		{index(messages.IndexDefinition{Func: string(long)}), messages.ErrTooLarge},
		{index(messages.IndexDefinition{Fields: messages.Paths(strings.Split(strings.Repeat("x ", 17), " ")[:17]...)}), messages.ErrTooLarge},
		{index(messages.IndexDefinition{Fields: messages.Paths(string(long[:600]), string(long[:600]))}), messages.ErrTooLarge},
		{index(messages.IndexDefinition{Fields: messages.Paths("a", "b..c")}), messages.ErrInvalid},
		{index(messages.IndexDefinition{Fields: []messages.IndexField{{Path: "a", Type: "date"}}}), messages.ErrInvalid},
		{index(messages.IndexDefinition{Fields: []messages.IndexField{{Path: "a", Type: messages.IndexNumber, Fold: true}}}), messages.ErrInvalid},
		{messages.CreateIndexOperation(messages.IndexDefinition{Name: string(long), Fields: messages.Paths("a")}), messages.ErrTooLarge},
		{messages.CreateIndexOperation(messages.IndexDefinition{Name: "a", Fields: messages.Paths(string(long))}), messages.ErrTooLarge},
		{messages.CreateIndexOperation(messages.IndexDefinition{Name: "a", Fields: messages.Paths("a"), Prefix: string(long)}), messages.ErrTooLarge},
		{messages.DropIndexOperation(""), messages.ErrInvalid},
		{messages.GetOperation(nil), messages.ErrInvalid},
		{messages.Operation{Kind: messages.OpTxn}, messages.ErrInvalid},
		{txn(nil, messages.PutOperation(nil, nil)), messages.ErrInvalid},
		{txn(nil, messages.TxnOperation(messages.Transaction{})), messages.ErrInvalid},
		{txn(nil, messages.DropIndexOperation("n")), messages.ErrInvalid},
		{txn(nil, make([]messages.Operation, messages.MaxTxnOperations+1)...), messages.ErrTooLarge},
		{txn(make([]messages.Compare, messages.MaxTxnOperations+1)), messages.ErrTooLarge},
		{txn(nil, messages.PutOperation([]byte("k"), make([]byte, messages.MaxValue)), messages.DeleteOperation([]byte("k"))), messages.ErrTooLarge},
		{txn([]messages.Compare{{}}), messages.ErrInvalid},
		{txn([]messages.Compare{messages.ValueIs(nil, messages.Equal, nil)}), messages.ErrInvalid},
		{txn([]messages.Compare{messages.ValueIs([]byte("k"), 0, nil)}), messages.ErrInvalid},
		{txn([]messages.Compare{messages.VersionIs([]byte("k"), 5, 1)}), messages.ErrInvalid},
		{txn([]messages.Compare{messages.VersionIs(long, messages.Equal, 1)}), messages.ErrTooLarge},
		{txn([]messages.Compare{messages.RangeUnchanged(long, nil, 0, 1)}), nil},
		{txn([]messages.Compare{messages.RangeUnchanged(append(long, 'x'), nil, 0, 1)}), messages.ErrTooLarge},
		{txn([]messages.Compare{messages.RangeUnchanged(nil, append(long, 'x'), 0, 1)}), messages.ErrTooLarge},
		{txn([]messages.Compare{messages.RangeUnchanged([]byte("b"), []byte("a"), 0, 1)}), messages.ErrInvalid},
		{txn([]messages.Compare{messages.RangeUnchanged(nil, nil, messages.MaxTxnRange, 1)}), nil},
		{txn([]messages.Compare{messages.RangeUnchanged(nil, nil, messages.MaxTxnRange, 1), messages.RangeUnchanged(nil, nil, 1, 1)}), messages.ErrTooLarge},
		{txn([]messages.Compare{messages.RangeUnchanged(nil, nil, 1<<64-1, 1), messages.RangeUnchanged(nil, nil, 1, 1)}), messages.ErrTooLarge},
		{txn([]messages.Compare{{Target: messages.CompareVersion, Relation: messages.Equal, Key: []byte("k"), Count: 1}}), messages.ErrInvalid},
		{txn([]messages.Compare{{Target: messages.CompareVersion, Relation: messages.Equal, Key: []byte("k"), Value: []byte("v")}}), messages.ErrInvalid},
		{txn([]messages.Compare{{Target: messages.CompareRange, Relation: messages.Equal}}), messages.ErrInvalid},
	} {
		if err := c.op.Validate(); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.op.Kind, err, c.want)
		}
	}
}

// A transaction in a transaction is not even decoded, or 32 MiB of them would be
// deeper than a stack.
func TestNestedTransaction(t *testing.T) {
	if _, err := messages.DecodeOperation([]byte("\x07\x00\x01\x04\x07\x00\x00\x00\x00")); !errors.Is(err, messages.ErrMalformed) {
		t.Error(err)
	}
}

func FuzzDecodeOperation(f *testing.F) {
	for _, b := range []string{"", "\x01\x01kvalue", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x03\x01k\x02", "\x04\x01n" + `{"prefix":"cA==","fields":[{"path":"a.b"},{"path":"\"","type":"time","descending":true}],"unique":true}`,
		"\x04\x01n" + `{"func":"f"}`, "\x04\x01n" + `{"unique":true,"func":"f"}`, "\x04\x01n" + ` {"fields":[{"path":"a","fold":true}]}`, "\x7f", strings.Repeat("\x07\x00\x01\x04", 50), "\x07\xff\x7f", "\x07\x01\x03\x00\x00\x01\x01z\x81\x00\x01\x00\x00",
		"\x07\x02\x01\x03\x01k\x00\x03\x00\x01a\x01\x01b\x03\x05\x01\x04\x01\x01kv\x01\x02\x06k"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		op, err := messages.DecodeOperation(b)
		if err != nil {
			if !errors.Is(err, messages.ErrMalformed) && !errors.Is(err, messages.ErrInvalid) && !errors.Is(err, messages.ErrTooLarge) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again, err := messages.DecodeOperation(op.Encode(nil)); err != nil || !reflect.DeepEqual(again, op) {
			t.Fatalf("%+v came back as %+v, %v", op, again, err)
		}
	})
}

func TestCorruptError(t *testing.T) {
	err := error(&messages.CorruptError{Path: "log/wal/1", Offset: 12, Index: 34, Reason: "checksum", Err: fs.ErrInvalid})
	for _, want := range []string{"log/wal/1", "offset 12", "index 34", "checksum"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if !errors.Is(err, messages.ErrCorrupt) || !errors.Is(err, fs.ErrInvalid) {
		t.Error("it must match ErrCorrupt and its cause")
	}
}
