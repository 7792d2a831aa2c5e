package kv_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

func TestStateStreamIsTheSameForTheSameState(t *testing.T) {
	a, b := open(t, t.TempDir(), lazy), open(t, t.TempDir(), lazy)
	x := messages.CreateIndexOperation(messages.IndexDefinition{Name: "x", Path: "v", Prefix: "j\xff"})
	y := messages.CreateIndexOperation(messages.IndexDefinition{Name: "y", Path: "w"})
	for i := range 300 {
		mustWrite(t, a, 0, put(fmt.Sprintf("k%d", i), fmt.Sprintf(`{"w":%d}`, i)))
		mustWrite(t, b, 9, put(fmt.Sprintf("k%d", 299-i), fmt.Sprintf(`{"w":%d}`, 299-i)))
	}
	big := `"` + strings.Repeat("x", 700_000) + `"`
	mustWrite(t, a, 0, put("gone", "1"), x, y, del("gone"), put("big", big))
	mustWrite(t, b, 9, y, put("big", big), x)
	sa, sb := export(t, a, 0), export(t, b, 9)
	if !bytes.Equal(sa, sb) {
		t.Fatalf("%d and %d bytes differ", len(sa), len(sb))
	}
	for _, size := range []int{1, 7, 4096, 1 << 20} {
		v, err := a.OpenView(0)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for p := make([]byte, size); ; {
			n, err := v.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if !bytes.Equal(got, sa) {
			t.Errorf("reads of %d bytes give another stream", size)
		}
		if err := errors.Join(v.Close(), v.Close()); err != nil {
			t.Error(err)
		}
		_, err = v.Read(make([]byte, 1))
		want(t, "read", err, messages.ErrExpired)
	}
	// The other way.
	for _, size := range []int{1, 3, 1000, 1 << 20} {
		dir := t.TempDir()
		c := open(t, dir, lazy)
		mustWrite(t, c, 4, put("old", "1"))
		mustWrite(t, c, 8, put("kept", `"1"`), messages.CreateIndexOperation(messages.IndexDefinition{Name: "k", Path: "v"}))
		if _, err := c.Apply(8, []messages.Entry{entry(1, put("kept2", `{"v":1}`))}); err != nil {
			t.Fatal(err)
		}
		im, err := c.BeginImport(4, 77, 6)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.BeginImport(5, 1, 1)
		want(t, "begin", err, messages.ErrConflict)
		for rest := sa; len(rest) > 0; {
			n := min(size, len(rest))
			if m, err := im.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		mustWrite(t, c, 8, put("kept3", `{"v":2}`))
		if n, err := im.Finish(); n != 301 || err != nil {
			t.Fatal(n, err)
		}
		if err := im.Abort(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if !bytes.Equal(export(t, c, 4), sa) {
				t.Fatal("the imported state differs")
			}
			if i, term := c.Applied(4); i != 77 || term != 6 || c.Keys(4) != 301 {
				t.Fatal(i, term, c.Keys(4))
			}
			if i, _ := c.Applied(8); i != 1 || keys(scanAll(t, c, messages.Scan{Group: 8})) != "kept kept2 kept3" || c.Keys(8) != 3 {
				t.Fatal("the other group has changed")
			}
			if got := keys(queryAll(t, c, messages.QueryIndex{Group: 8, Name: "k"})); got != "kept2 kept3" {
				t.Fatal(got)
			}
			if got := keys(queryAll(t, c, messages.QueryIndex{Group: 4, Name: "y", Min: "297"})); got != "k297 k298 k299" {
				t.Fatal(got)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			c = open(t, dir, lazy)
		}
		mustWrite(t, c, 4, put("new", "1"))
	}
}

func TestMalformedImport(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	mustWrite(t, db, 0, put("a", `{"v":1}`), put("b", `{"v":2}`), messages.CreateIndexOperation(messages.IndexDefinition{Name: "v", Path: "v"}))
	state := export(t, db, 0)
	try := func(b []byte) error {
		im, err := db.BeginImport(0, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := im.Write(b); err != nil {
			_, again := im.Write(nil)
			if again == nil || errors.Is(again, messages.ErrMalformed) != errors.Is(err, messages.ErrMalformed) {
				t.Fatalf("%v, then %v", err, again)
			}
			return err
		}
		_, err = im.Finish()
		return err
	}
	for i := range state {
		if err := try(state[:i]); !errors.Is(err, messages.ErrMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		for bit := range 8 {
			c := bytes.Clone(state)
			c[i] ^= 1 << bit
			if err := try(c); !errors.Is(err, messages.ErrMalformed) && !errors.Is(err, messages.ErrIncompatible) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	head := append([]byte("BLSTKVST"), 1, 0, 0, 0)
	rec := func(kind byte, k, v string) []byte {
		b := binary.AppendUvarint([]byte{kind}, uint64(len(k)))
		b = append(b, k...)
		b = binary.AppendUvarint(b, uint64(len(v)))
		return append(b, v...)
	}
	for name, tail := range map[string][]byte{
		"after the end":     append(bytes.Clone(state[12:]), 0),
		"not in order":      append(rec(2, "b", ""), rec(2, "a", "")...),
		"twice":             append(rec(2, "b", ""), rec(2, "b", "")...),
		"empty key":         rec(2, "", ""),
		"unknown kind":      rec(9, "a", "a"),
		"long key":          append([]byte{2}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"overlong varint":   append([]byte{2}, 0x81, 0x00, 'a', 0),
		"endless varint":    append([]byte{2}, bytes.Repeat([]byte{0x80}, 12)...),
		"long value":        append(rec(2, "a", "")[:3], 0xff, 0xff, 0xff, 0xff, 1),
		"index after pair":  append(rec(2, "a", ""), rec(1, "x", `{"path":"p"}`)...),
		"index: no json":    rec(1, "x", `path`),
		"index: other json": rec(1, "x", `{"path": "p"}`),
		"index: no path":    rec(1, "x", `{"path":""}`),
		"index: bad path":   rec(1, "x", `{"path":"a*"}`),
		"index: null":       rec(1, "x", `null`),
		"not json":          append(rec(1, "x", `{"path":"p"}`), rec(2, "a", "x")...),
	} {
		b := append(bytes.Clone(head), tail...)
		if err := try(b); !errors.Is(err, messages.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !bytes.Equal(export(t, db, 0), state) {
		t.Error("the old state has changed")
	}
	if n, err := filepath.Glob(filepath.Join(dir, "*"+durable.TempSuffix)); len(n) > 0 || err != nil {
		t.Error(n, err)
	}
}
