package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
)

func entries(first, term uint64, n int) []messages.Entry {
	es := make([]messages.Entry, n)
	for i := range es {
		es[i] = messages.Entry{Index: first + uint64(i), Term: term, Data: fmt.Appendf(nil, "%d/%d", first+uint64(i), term)}
	}
	return es
}

func hard(term, vote, commit uint64) *messages.HardState {
	return &messages.HardState{Term: term, Vote: vote, Commit: commit}
}

func TestAppend(t *testing.T) {
	w := mustOpen(t, memory(t), raftlog.Options{MaxAppendBytes: 1000})
	defer mustClose(t, w)
	// Group 1 has entries 5 to 10 of term 3 behind a reset, and hard state term 3.
	if _, err := w.Reset(1, 4, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(1, entries(5, 3, 6), hard(3, 1, 4)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		entries []messages.Entry
		hard    *messages.HardState
		want    error
	}{
		{"nothing", nil, nil, messages.ErrEmptyAppend},
		{"empty slice", []messages.Entry{}, nil, messages.ErrEmptyAppend},
		{"gap", entries(12, 3, 1), nil, messages.ErrOutOfOrder},
		{"far gap", entries(math.MaxUint64, 3, 1), nil, messages.ErrOutOfOrder},
		{"taken", entries(10, 3, 1), nil, messages.ErrConflict},
		{"taken at the front", entries(5, 3, 10), nil, messages.ErrConflict},
		{"compacted", entries(4, 3, 1), nil, messages.ErrCompacted},
		{"not consecutive", append(entries(11, 3, 2), entries(14, 3, 1)...), nil, messages.ErrOutOfOrder},
		{"repeated", append(entries(11, 3, 2), entries(12, 3, 1)...), nil, messages.ErrOutOfOrder},
		{"stale term", entries(11, 2, 1), nil, messages.ErrStaleTerm},
		{"falling term", append(entries(11, 5, 1), entries(12, 4, 1)...), nil, messages.ErrStaleTerm},
		{"stale hard state", nil, hard(2, 0, 0), messages.ErrStaleTerm},
		{"stale hard state with entries", entries(11, 3, 1), hard(2, 0, 0), messages.ErrStaleTerm},
		{"too large", []messages.Entry{{Index: 11, Term: 3, Data: make([]byte, 1001)}}, nil, messages.ErrTooLarge},
		{"too large with its header", []messages.Entry{{Index: 11, Term: 3, Data: make([]byte, 995)}}, nil, messages.ErrTooLarge},
		{"too large in sum", []messages.Entry{{Index: 11, Term: 3, Data: make([]byte, 600)}, {Index: 12, Term: 3, Data: make([]byte, 600)}}, nil, messages.ErrTooLarge},
	} {
		position, err := w.Append(1, tc.entries, tc.hard)
		wantErr(t, tc.name, err, tc.want)
		if position != 0 {
			t.Errorf("%s: position %d with an error", tc.name, position)
		}
		if err != nil && !strings.Contains(err.Error(), "to group 1: ") {
			t.Errorf("%s: %v does not name the group", tc.name, err)
		}
	}
	if position, bytes := w.Staged(); position != 2 || bytes == 0 {
		t.Errorf("staged up to %d, %d bytes: a refused append left something", position, bytes)
	}
	// Nothing of the refused ones stays, and indexes are assigned.
	auto := []messages.Entry{{Term: 3, Data: []byte("a")}, {Term: 4, Type: 7}, {Term: 4, Data: []byte{}}}
	position, err := w.Append(1, auto, hard(4, 2, 7))
	if err != nil || position != 3 {
		t.Fatalf("position %d, %v", position, err)
	}
	if auto[0].Index != 11 || auto[2].Index != 13 {
		t.Errorf("assigned %v", auto)
	}
	tooLarge := []messages.Entry{{Term: 4, Data: make([]byte, 995)}}
	if _, err := w.Append(1, tooLarge, nil); err == nil || tooLarge[0].Index != 0 {
		t.Errorf("a refused append was assigned index %d, %v", tooLarge[0].Index, err)
	}
	// Nothing is visible before the sync.
	if g := w.Groups(); len(g) != 0 || w.Durable() != 0 {
		t.Errorf("groups %v durable %d before the sync", g, w.Durable())
	}
	_, err = w.Entry(1, 5)
	wantErr(t, "read of what is staged", err, messages.ErrNotFound)
	if n, err := w.Sync(); n != 3 || err != nil {
		t.Fatalf("sync of %d changes, %v", n, err)
	}
	if n, err := w.Sync(); n != 0 || err != nil {
		t.Fatalf("empty sync of %d changes, %v", n, err)
	}
	if w.Durable() != 3 {
		t.Errorf("durable %d", w.Durable())
	}
	want := messages.LogBounds{First: 5, Last: 13, PrevTerm: 2, LastTerm: 4, HardState: *hard(4, 2, 7)}
	if got := w.Bounds(1); got != want {
		t.Errorf("bounds %+v, want %+v", got, want)
	}
	e, err := w.Entry(1, 12)
	if err != nil || e.Type != 7 || e.Term != 4 || e.Index != 12 || len(e.Data) != 0 {
		t.Errorf("entry %+v, %v", e, err)
	}
	// A hard state alone.
	if _, err := w.Append(1, nil, hard(5, 0, 13)); err != nil {
		t.Fatal(err)
	}
	mustSync(t, w)
	if hs := w.Bounds(1).HardState; hs != *hard(5, 0, 13) {
		t.Errorf("hard state %v", hs)
	}
	// Other groups know nothing of it.
	if b := w.Bounds(0); b != (messages.LogBounds{First: 1}) {
		t.Errorf("bounds of an unknown group %+v", b)
	}
	if !reflect.DeepEqual(w.Groups(), []uint64{1}) {
		t.Errorf("groups %v", w.Groups())
	}
}

func TestIndexLimit(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{})
	_, err := w.Reset(0, math.MaxInt64, 1)
	wantErr(t, "reset beyond the limit", err, messages.ErrInvalid)
	if _, err := w.Reset(0, math.MaxInt64-3, 1); err != nil {
		t.Fatal(err)
	}
	put(t, w, 0, 1, "x")
	_, err = w.Append(0, []messages.Entry{{Term: 1}, {Term: 1}, {Term: 1}}, nil)
	wantErr(t, "append beyond the limit", err, messages.ErrInvalid)
	mustSync(t, w)
	mustClose(t, w)
	w = mustOpen(t, dir, raftlog.Options{})
	defer mustClose(t, w)
	if b := w.Bounds(0); b.Last != math.MaxInt64-2 {
		t.Errorf("bounds %+v", b)
	}
}

func TestRead(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 256, MaxOpenFiles: 2})
	defer func() { mustClose(t, w) }()
	if _, err := w.Reset(0, 10, 3); err != nil {
		t.Fatal(err)
	}
	for i := uint64(11); i <= 60; i++ {
		if _, err := w.Append(0, entries(i, 4+i/20, 1), nil); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			mustSync(t, w)
		}
	}
	mustSync(t, w)
	for round := range 2 {
		for _, tc := range []struct {
			index uint64
			want  error
		}{{0, messages.ErrCompacted}, {10, messages.ErrCompacted}, {11, nil}, {60, nil}, {61, messages.ErrNotFound}, {math.MaxUint64, messages.ErrNotFound}} {
			e, err := w.Entry(0, tc.index)
			wantErr(t, fmt.Sprintf("entry %d", tc.index), err, tc.want)
			if err == nil && string(e.Data) != fmt.Sprintf("%d/%d", tc.index, 4+tc.index/20) {
				t.Errorf("entry %d is %q", tc.index, e.Data)
			}
		}
		for _, tc := range []struct {
			index, term uint64
			want        error
		}{{9, 0, messages.ErrCompacted}, {10, 3, nil}, {11, 4, nil}, {39, 5, nil}, {40, 6, nil}, {60, 7, nil}, {61, 0, messages.ErrNotFound}} {
			term, err := w.Term(0, tc.index)
			wantErr(t, fmt.Sprintf("term of %d", tc.index), err, tc.want)
			if term != tc.term {
				t.Errorf("term of %d is %d, want %d", tc.index, term, tc.term)
			}
		}
		for _, tc := range []struct {
			from, to uint64
			max, n   int
			want     error
		}{
			{11, 61, 0, 50, nil}, {11, 61, 1, 1, nil}, {11, 61, 4, 1, nil}, {11, 61, 8, 2, nil}, {11, 61, 11, 2, nil},
			{30, 31, 0, 1, nil}, {30, 30, 0, 0, nil}, {5, 5, 0, 0, nil}, {99, 99, 0, 0, nil}, {60, 61, 0, 1, nil},
			{10, 12, 0, 0, messages.ErrCompacted}, {60, 62, 0, 0, messages.ErrNotFound}, {62, 63, 0, 0, messages.ErrNotFound},
			{12, 11, 0, 0, messages.ErrInvalid}, {11, 12, -1, 0, messages.ErrInvalid},
		} {
			name := fmt.Sprintf("range %d to %d of %d bytes", tc.from, tc.to, tc.max)
			es, err := w.Entries(0, tc.from, tc.to, tc.max)
			wantErr(t, name, err, tc.want)
			if len(es) != tc.n {
				t.Errorf("%s: %d entries, want %d", name, len(es), tc.n)
			}
			for i, e := range es {
				if e.Index != tc.from+uint64(i) || string(e.Data) != fmt.Sprintf("%d/%d", e.Index, 4+e.Index/20) {
					t.Errorf("%s: entry %d is %d %q", name, i, e.Index, e.Data)
				}
			}
		}
		if round == 0 {
			mustClose(t, w)
			w = mustOpen(t, dir, raftlog.Options{SegmentBytes: 256, MaxOpenFiles: 2})
		}
	}
	// The default bound of a range is 1 MiB, and an entry larger than the
	// bound comes alone.
	big := bytes.Repeat([]byte("x"), 700<<10)
	for range 3 {
		put(t, w, 9, 1, string(big))
	}
	mustSync(t, w)
	if es, err := w.Entries(9, 1, 4, 0); err != nil || len(es) != 1 {
		t.Errorf("%d entries, %v", len(es), err)
	}
	if es, err := w.Entries(9, 1, 4, 5); err != nil || len(es) != 1 || !bytes.Equal(es[0].Data, big) {
		t.Errorf("%d entries, %v", len(es), err)
	}
	if es, err := w.Entries(9, 1, 4, 3<<20); err != nil || len(es) != 3 || !bytes.Equal(es[2].Data, big) {
		t.Errorf("%d entries, %v", len(es), err)
	}
}

func TestTruncate(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{})
	defer func() { mustClose(t, w) }()
	for term := uint64(1); term <= 4; term++ {
		if _, err := w.Append(0, entries(term*10-9, term, 10), nil); err != nil {
			t.Fatal(err)
		}
	}
	type step struct {
		name  string
		run   func() (uint64, error)
		nop   bool
		want  error
		after messages.LogBounds
	}
	full := messages.LogBounds{First: 1, Last: 40, LastTerm: 4}
	front := messages.LogBounds{First: 12, Last: 40, PrevTerm: 2, LastTerm: 4}
	cut := messages.LogBounds{First: 12, Last: 29, PrevTerm: 2, LastTerm: 3}
	for _, s := range []step{
		{"from 0", func() (uint64, error) { return w.TruncateFrom(0, 0) }, true, messages.ErrInvalid, full},
		{"from the end", func() (uint64, error) { return w.TruncateFrom(0, 41) }, true, nil, full},
		{"from beyond the end", func() (uint64, error) { return w.TruncateFrom(0, 99) }, true, nil, full},
		{"before 0", func() (uint64, error) { return w.TruncateBefore(0, 0) }, true, nil, full},
		{"before the first", func() (uint64, error) { return w.TruncateBefore(0, 1) }, true, nil, full},
		{"before what is not there", func() (uint64, error) { return w.TruncateBefore(0, 42) }, true, messages.ErrNotFound, full},
		{"before 12", func() (uint64, error) { return w.TruncateBefore(0, 12) }, false, nil, front},
		{"before 12 again", func() (uint64, error) { return w.TruncateBefore(0, 12) }, true, nil, front},
		{"from a compacted one", func() (uint64, error) { return w.TruncateFrom(0, 11) }, true, messages.ErrCompacted, front},
		{"from 30", func() (uint64, error) { return w.TruncateFrom(0, 30) }, false, nil, cut},
		{"append a stale term", func() (uint64, error) { return w.Append(0, entries(30, 2, 1), nil) }, true, messages.ErrStaleTerm, cut},
		{"append", func() (uint64, error) { return w.Append(0, entries(30, 9, 2), nil) }, false, nil,
			messages.LogBounds{First: 12, Last: 31, PrevTerm: 2, LastTerm: 9}},
		{"from the first", func() (uint64, error) { return w.TruncateFrom(0, 12) }, false, nil,
			messages.LogBounds{First: 12, Last: 11, PrevTerm: 2, LastTerm: 2}},
		{"append again", func() (uint64, error) { return w.Append(0, entries(12, 9, 5), nil) }, false, nil,
			messages.LogBounds{First: 12, Last: 16, PrevTerm: 2, LastTerm: 9}},
		{"before all", func() (uint64, error) { return w.TruncateBefore(0, 17) }, false, nil,
			messages.LogBounds{First: 17, Last: 16, PrevTerm: 9, LastTerm: 9}},
		{"append behind it", func() (uint64, error) { return w.Append(0, entries(17, 9, 3), hard(9, 1, 3)) }, false, nil,
			messages.LogBounds{First: 17, Last: 19, PrevTerm: 9, LastTerm: 9, HardState: *hard(9, 1, 3)}},
		{"reset forward", func() (uint64, error) { return w.Reset(0, 100, 11) }, false, nil,
			messages.LogBounds{First: 101, Last: 100, PrevTerm: 11, LastTerm: 11, HardState: *hard(9, 1, 100)}},
		{"append at 101", func() (uint64, error) { return w.Append(0, entries(101, 11, 1), nil) }, false, nil,
			messages.LogBounds{First: 101, Last: 101, PrevTerm: 11, LastTerm: 11, HardState: *hard(9, 1, 100)}},
		{"reset backward", func() (uint64, error) { return w.Reset(0, 50, 11) }, false, nil,
			messages.LogBounds{First: 51, Last: 50, PrevTerm: 11, LastTerm: 11, HardState: *hard(9, 1, 50)}},
		{"reset to nothing", func() (uint64, error) { return w.Reset(0, 0, 0) }, false, nil,
			messages.LogBounds{First: 1, Last: 0, HardState: *hard(9, 1, 0)}},
	} {
		position, err := s.run()
		wantErr(t, s.name, err, s.want)
		if s.nop != (position == 0) {
			t.Errorf("%s: position %d", s.name, position)
		}
		mustSync(t, w)
		if got := w.Bounds(0); got != s.after {
			t.Errorf("%s: bounds %+v, want %+v", s.name, got, s.after)
		}
		before := mustDescribe(t, w)
		mustClose(t, w)
		w = mustOpen(t, dir, raftlog.Options{})
		if after := mustDescribe(t, w); after != before {
			t.Errorf("%s: reopened as\n%swant\n%s", s.name, after, before)
		}
	}
}

// A whole life within one batch: checks see what is staged.
func TestStagedChecks(t *testing.T) {
	w := mustOpen(t, memory(t), raftlog.Options{})
	defer mustClose(t, w)
	if _, err := w.Append(3, entries(1, 1, 10), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.TruncateFrom(3, 6); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(3, entries(6, 2, 3), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.TruncateBefore(3, 4); err != nil {
		t.Fatal(err)
	}
	_, err := w.TruncateFrom(3, 3)
	wantErr(t, "truncate below what is staged", err, messages.ErrCompacted)
	_, err = w.Append(3, entries(9, 1, 1), nil)
	wantErr(t, "stale against what is staged", err, messages.ErrStaleTerm)
	if n, err := w.Sync(); n != 4 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if got, want := mustDescribe(t, w), `group 3: 4 to 8, terms 1 to 2, hard state {0 0 0}
  4/1 type 0 "4/1"
  5/1 type 0 "5/1"
  6/2 type 0 "6/2"
  7/2 type 0 "7/2"
  8/2 type 0 "8/2"
`; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestStable(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{})
	for _, tc := range []struct {
		name  string
		value []byte
		want  error
	}{
		{"", []byte("x"), messages.ErrInvalid},
		{strings.Repeat("n", messages.MaxStableName+1), []byte("x"), messages.ErrTooLarge},
		{"big", make([]byte, messages.MaxStableValue+1), messages.ErrTooLarge},
		{strings.Repeat("n", messages.MaxStableName), make([]byte, messages.MaxStableValue), nil},
		{"empty", []byte{}, nil},
		{"gone", []byte("x"), nil},
		{"gone", nil, nil},
		{"never", nil, nil},
		{"kept", []byte("1"), nil},
		{"kept", []byte("2"), nil},
	} {
		_, err := w.SetStable(4, tc.name, tc.value)
		wantErr(t, fmt.Sprintf("set %.10q", tc.name), err, tc.want)
	}
	mustSync(t, w)
	for range 2 {
		for name, want := range map[string]string{"empty": "", "kept": "2", strings.Repeat("n", 255): string(make([]byte, messages.MaxStableValue))} {
			v, err := w.Stable(4, name)
			if err != nil || string(v) != want {
				t.Errorf("%.10q is %.10q, %v", name, v, err)
			}
		}
		for _, name := range []string{"gone", "never", "big", ""} {
			_, err := w.Stable(4, name)
			wantErr(t, name, err, messages.ErrNotFound)
		}
		_, err := w.Stable(0, "kept")
		wantErr(t, "another group", err, messages.ErrNotFound)
		mustClose(t, w)
		w = mustOpen(t, dir, raftlog.Options{})
	}
	if v, _ := w.Stable(4, "kept"); len(v) == 1 {
		v[0] = 'x'
	}
	if v, err := w.Stable(4, "kept"); err != nil || string(v) != "2" {
		t.Errorf("the caller's change shows: %q, %v", v, err)
	}
	mustClose(t, w)
}

func TestClosed(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{})
	put(t, w, 0, 1, "a")
	mustSync(t, w)
	put(t, w, 0, 1, "dropped")
	_, err := raftlog.Open(dir, raftlog.Options{})
	wantErr(t, "second open", err, messages.ErrLocked)
	mustClose(t, w)
	_, err = w.Append(0, entries(2, 1, 1), nil)
	wantErr(t, "append", err, messages.ErrStopped)
	_, err = w.TruncateFrom(0, 1)
	wantErr(t, "truncate from", err, messages.ErrStopped)
	_, err = w.TruncateBefore(0, 2)
	wantErr(t, "truncate before", err, messages.ErrStopped)
	_, err = w.Reset(0, 2, 2)
	wantErr(t, "reset", err, messages.ErrStopped)
	_, err = w.SetStable(0, "a", nil)
	wantErr(t, "set", err, messages.ErrStopped)
	_, err = w.Sync()
	wantErr(t, "sync", err, messages.ErrStopped)
	_, err = w.Entry(0, 1)
	wantErr(t, "entry", err, messages.ErrStopped)
	_, err = w.Entries(0, 1, 2, 0)
	wantErr(t, "entries", err, messages.ErrStopped)
	_, err = w.Term(0, 1)
	wantErr(t, "term", err, messages.ErrStopped)
	_, err = w.Stable(0, "a")
	wantErr(t, "stable", err, messages.ErrStopped)
	wantErr(t, "close", w.Close(), messages.ErrStopped)
	w = mustOpen(t, dir, raftlog.Options{})
	defer mustClose(t, w)
	if b := w.Bounds(0); b.Last != 1 || w.Durable() != 1 {
		t.Errorf("bounds %+v, durable %d", b, w.Durable())
	}
}

func TestOptions(t *testing.T) {
	if err := (raftlog.Options{}).Validate(); err != nil {
		t.Error(err)
	}
	err := raftlog.Options{SegmentBytes: 1, MaxAppendBytes: -1, ReserveBytes: -1, MaxOpenFiles: -1}.Validate()
	wantErr(t, "validate", err, messages.ErrInvalid)
	for _, field := range []string{"SegmentBytes", "MaxAppendBytes", "ReserveBytes", "MaxOpenFiles"} {
		if !strings.Contains(fmt.Sprint(err), field) {
			t.Errorf("%s is not in %v", field, err)
		}
	}
	if _, err := raftlog.Open(t.TempDir(), raftlog.Options{SegmentBytes: -5}); !errors.Is(err, messages.ErrInvalid) {
		t.Errorf("open: %v", err)
	}
}

// Segments are removed, what they held besides entries is not lost, and the
// segment size may change from one open to the next.
func TestCompaction(t *testing.T) {
	dir := memory(t)
	o := raftlog.Options{SegmentBytes: 1024}
	w := mustOpen(t, dir, o)
	defer func() { mustClose(t, w) }()
	if _, err := w.SetStable(7, "name", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(5, nil, hard(3, 1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Reset(8, 1000, 6); err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for round := range 30 {
		for range 20 {
			if _, err := w.Append(0, entries(last+1, uint64(round)+1, 3), nil); err != nil {
				t.Fatal(err)
			}
			last += 3
			if last%2 == 0 {
				mustSync(t, w)
			}
		}
		if _, err := w.Append(5, nil, hard(4, uint64(round), 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.TruncateBefore(0, last-10); err != nil {
			t.Fatal(err)
		}
		mustSync(t, w)
		before := mustDescribe(t, w)
		report, err := raftlog.Inspect(dir)
		if err != nil || len(report.Damage) > 0 || report.Torn != nil {
			t.Fatalf("%v %v %v", err, report.Damage, report.Torn)
		}
		if n := len(report.Segments); n > 5 {
			t.Errorf("round %d: %d segments for 11 entries", round, n)
		}
		if round > 1 && report.Floor == 1 {
			t.Errorf("round %d: the floor was never raised", round)
		}
		durable := w.Durable()
		mustClose(t, w)
		o.SegmentBytes = 512 + 100*(round%10)
		w = mustOpen(t, dir, o)
		if after := mustDescribe(t, w); after != before {
			t.Fatalf("round %d: reopened as\n%swant\n%s", round, after, before)
		}
		if w.Durable() != durable {
			t.Errorf("durable %d, reopened as %d", durable, w.Durable())
		}
	}
	if v, err := w.Stable(7, "name"); err != nil || string(v) != "value" {
		t.Errorf("%q %v", v, err)
	}
	if b := w.Bounds(8); b != (messages.LogBounds{First: 1001, Last: 1000, PrevTerm: 6, LastTerm: 6, HardState: *hard(0, 0, 1000)}) {
		t.Errorf("%+v", b)
	}
	if b := w.Bounds(5); b.HardState != *hard(4, 29, 0) {
		t.Errorf("%+v", b)
	}
}

// A batch that fills several segments at once.
func TestBatchOverSegments(t *testing.T) {
	dir := memory(t)
	w := mustOpen(t, dir, raftlog.Options{SegmentBytes: 300})
	for range 3 {
		for range 40 {
			put(t, w, 0, 1, "0123456789", strings.Repeat("x", 90))
		}
		mustSync(t, w)
	}
	before := mustDescribe(t, w)
	mustClose(t, w)
	var repaired int
	w = mustOpen(t, dir, raftlog.Options{SegmentBytes: 300, OnRepair: func(messages.TailRepaired) { repaired++ }})
	if after := mustDescribe(t, w); after != before || repaired > 0 {
		t.Errorf("%d repairs, reopened as\n%swant\n%s", repaired, after, before)
	}
	mustClose(t, w)
}
