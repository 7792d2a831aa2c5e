package kv_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
)

func TestScan(t *testing.T) {
	db := open(t, t.TempDir(), lazy)
	for _, k := range []string{"a", "b", "b\x00", "ba", "bb", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"} {
		mustWrite(t, db, 0, put(k, strings.ToUpper(k)))
	}
	b := func(s string) []byte { return []byte(s) }
	for _, c := range []struct {
		q    messages.Scan
		want string
	}{
		{messages.Scan{}, "a b b\x00 ba bb b\xff b\xff\xff c \xff \xff\xff"},
		{messages.Scan{Prefix: b("b")}, "b b\x00 ba bb b\xff b\xff\xff"},
		{messages.Scan{Prefix: b("b\xff")}, "b\xff b\xff\xff"},
		{messages.Scan{Prefix: b("\xff")}, "\xff \xff\xff"},
		{messages.Scan{From: b("b")}, "b b\x00 ba bb b\xff b\xff\xff c \xff \xff\xff"},
		{messages.Scan{From: b("b"), To: b("ba")}, "b b\x00"},
		{messages.Scan{From: b("b"), To: b("b")}, ""},
		{messages.Scan{To: b("b")}, "a"},
		{messages.Scan{Prefix: b("zz")}, ""},
		{messages.Scan{Group: 4}, ""},
	} {
		for _, limit := range []int{0, 1, 2, 3, 100} {
			for _, maxBytes := range []int{0, 1, 5} {
				c.q.Limit, c.q.MaxBytes = limit, maxBytes
				c.q.Reverse = false
				if got := keys(scanAll(t, db, c.q)); got != c.want {
					t.Errorf("%+v: %q, want %q", c.q, got, c.want)
				}
				c.q.Reverse = true
				f := strings.Fields(c.want)
				for i, j := 0, len(f)-1; i < j; i, j = i+1, j-1 {
					f[i], f[j] = f[j], f[i]
				}
				if got := keys(scanAll(t, db, c.q)); got != strings.Join(f, " ") {
					t.Errorf("%+v: %q, want the reverse of %q", c.q, got, c.want)
				}
			}
		}
	}
	p, _, err := db.Scan(messages.Scan{KeysOnly: true, Limit: 1})
	if err != nil || len(p) != 1 || p[0].Value != nil {
		t.Errorf("keys only: %q %v", p, err)
	}
}

func TestIndex(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, lazy)
	docs := []struct{ key, value string }{
		{"u/null", `{"v":null}`}, {"u/false", `{"v":false}`}, {"u/true", `{"v":true}`},
		{"u/-inf", `{"v":-1e999}`}, {"u/-2", `{"v":-2}`}, {"u/-1.5", `{"v":-1.5}`}, {"u/0", `{"v":-0.0}`}, {"u/00", `{"v":0}`},
		{"u/1e-300", `{"v":1e-300}`}, {"u/1", `{"v":1}`}, {"u/1b", `{"v":1.0}`}, {"u/10", `{"v":10}`},
		{"u/2^53", `{"v":9007199254740992}`}, {"u/2^53+1", `{"v":9007199254740993}`}, {"u/inf", `{"v":1e400}`},
		{"u/s", `{"v":""}`}, {"u/s0", `{"v":"\u0000"}`}, {"u/s00", `{"v":"\u0000\u0000"}`}, {"u/sa", `{"v":"a"}`}, {"u/sa0", `{"v":"a\u0000"}`},
		{"u/sab", `{"v":"ab"}`}, {"u/sb", `{"v":"b"}`}, {"u/sé", `{"v":"é"}`},
	}
	want := ""
	for i := range docs {
		d := docs[len(docs)-1-i]
		mustWrite(t, db, 1, put(d.key, d.value))
		want += docs[i].key + " "
	}
	want = strings.TrimSpace(want)
	mustWrite(t, db, 1, put("u/none", `{}`), put("u/object", `{"v":{}}`), put("u/array", ` {"v":[1]} `), put("other", "not json"))
	def := messages.IndexDefinition{Name: "by\x00v", Fields: messages.Paths("v"), Prefix: "u/"}
	mustWrite(t, db, 1, messages.CreateIndexOperation(def))
	if r := write(t, db, 1, messages.CreateIndexOperation(def))[0]; r.Err != nil || !r.Existed {
		t.Fatalf("%+v", r)
	}
	q := func(q messages.QueryIndex) string {
		t.Helper()
		q.Group, q.Name = 1, def.Name
		return keys(queryAll(t, db, q))
	}
	for range 2 {
		for _, limit := range []int{0, 1, 3} {
			if got := q(messages.QueryIndex{Limit: limit}); got != want {
				t.Fatalf("%q\nwant\n%q", got, want)
			}
		}
		for _, c := range []struct {
			q    messages.QueryIndex
			want string
		}{
			{messages.QueryIndex{Equal: "1"}, "u/1 u/1b"},
			{messages.QueryIndex{Equal: " 1e0 "}, "u/1 u/1b"},
			{messages.QueryIndex{Equal: "-0"}, "u/0 u/00"},
			{messages.QueryIndex{Equal: "null"}, "u/null"},
			{messages.QueryIndex{Equal: `"a"`}, "u/sa"},
			{messages.QueryIndex{Equal: `"\u0000"`}, "u/s0"},
			{messages.QueryIndex{Equal: `"aa"`}, ""},
			{messages.QueryIndex{Equal: "9007199254740993"}, "u/2^53 u/2^53+1"},
			{messages.QueryIndex{Min: "-1.5", Max: "0"}, "u/-1.5 u/0 u/00"},
			{messages.QueryIndex{Min: "-1.5", Max: "0", Reverse: true, Limit: 1}, "u/00 u/0 u/-1.5"},
			{messages.QueryIndex{Max: "false"}, "u/null u/false"},
			{messages.QueryIndex{Min: `"ab"`}, "u/sab u/sb u/sé"},
			{messages.QueryIndex{Min: "true", Max: "-2"}, "u/true u/-inf u/-2"},
		} {
			if got := q(c.q); got != c.want {
				t.Errorf("%+v: %q, want %q", c.q, got, c.want)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, lazy)
		if got := db.Indexes(1); !sameDefinitions([]messages.IndexDefinition{def}, got) {
			t.Fatalf("indexes %+v", got)
		}
	}

	// Changes follow, within one call as well.
	one := `{"v":1}`
	mustWrite(t, db, 1, del("u/1b"), put("u/sab", `{"v":1}`), put("u/s", `{"v":5}`), cas("u/1", &one, `{"v":null}`), put("u/null", `{}`))
	mustWrite(t, db, 1, put("u/t", `{"v":3}`), put("u/t", `{"v":4}`), del("u/t"), put("u/sb", "1"), put("u/sb", `{"v":"b"}`))
	if got := q(messages.QueryIndex{Min: "null", Max: "5"}); got != "u/1 u/false u/true u/-inf u/-2 u/-1.5 u/0 u/00 u/1e-300 u/sab u/s" {
		t.Errorf("%q", got)
	}
	if got := q(messages.QueryIndex{Equal: `"b"`}); got != "u/sb" {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"", "{", "x", `{"v":1}{}`, strings.Repeat("[", 20000), strings.Repeat("[", 20000) + strings.Repeat("]", 20000)} {
		r := write(t, db, 1, put("u/x", bad), cas("u/y", nil, bad), put("z", bad))
		if !errors.Is(r[0].Err, messages.ErrNotJSON) || !errors.Is(r[1].Err, messages.ErrNotJSON) || r[1].Swapped || r[2].Err != nil {
			t.Errorf("%.10q: %+v", bad, r)
		}
	}
	if _, version, _ := db.Get(1, []byte("u/x")); version > 0 {
		t.Error("a value that is not JSON was stored")
	}

	// Created, used and dropped in the call that writes the data.
	w := messages.IndexDefinition{Name: "w", Fields: messages.Paths("a.1")}
	r := write(t, db, 2, put("p", `{"a":[1,2]}`), messages.CreateIndexOperation(w), put("q", `{"a":[1,1]}`), put("r", "x"),
		messages.DropIndexOperation("w"), put("r", "x"), put("s", "x"), messages.CreateIndexOperation(w), put("r", "y"), del("r"), messages.CreateIndexOperation(w))
	if !errors.Is(r[3].Err, messages.ErrNotJSON) || r[5].Err != nil || r[7].Err != nil || !errors.Is(r[8].Err, messages.ErrNotJSON) || !r[10].Existed {
		t.Fatalf("%+v", r)
	}
	if got := db.Indexes(2); len(got) != 1 || got[0].Skipped != 1 || got[0].Entries != 2 || got[0].Building {
		t.Errorf("%+v", got)
	}
	if got := keys(queryAll(t, db, messages.QueryIndex{Group: 2, Name: "w"})); got != "q p" {
		t.Errorf("%q", got)
	}
	mustWrite(t, db, 2, messages.DropIndexOperation("w"))
	_, _, err := db.Query(messages.QueryIndex{Group: 2, Name: "w"})
	if !errors.Is(err, messages.ErrNotFound) {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	rep, err := kv.Inspect(dir)
	if err != nil || rep.Damage != nil {
		t.Fatal(rep.Damage, err)
	}
	for _, g := range rep.Groups {
		if g.Group == 2 && (g.Entries != 0 || len(g.Indexes) != 0) {
			t.Errorf("entries left of a dropped index: %+v", g)
		}
	}
}

func sameDefinitions(defs []messages.IndexDefinition, indexes []messages.IndexStatus) bool {
	return slices.EqualFunc(defs, indexes, func(d messages.IndexDefinition, x messages.IndexStatus) bool {
		return d.Equal(x.IndexDefinition)
	})
}
