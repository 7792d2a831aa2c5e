package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// overwrite changes a file in place, so that descriptors see it.
func overwrite(t testing.TB, name string, file []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(file, 0)
	if err := errors.Join(err, f.Truncate(int64(len(file))), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Every cut, every flipped bit, a file of zeros from every byte on, bytes
// appended: all are found, by Open and by Verify.
func TestDamageIsFound(t *testing.T) { eachCodec(t, testDamageIsFound) }

func testDamageIsFound(t *testing.T, _ int, codec snapshot.Codec) {
	if raceDetector && codec != snapshot.CodecZstd {
		return // nothing of it is concurrent: the plain run has it
	}
	_, info, file := small(t, snapshot.Options{Codec: codec})
	d, name := place(t, info.ID, file)
	tried := 0
	try := func(what string, at int, bad []byte) {
		if bytes.Equal(bad, file) {
			return // zeros that were zeros before
		}
		tried++
		overwrite(t, name, bad)
		r, err := d.Open(info.ID)
		if err == nil {
			t.Fatalf("%s at %d: opened", what, at)
		}
		if r != nil {
			t.Fatalf("%s at %d: a reader and an error", what, at)
		}
		checkCorrupt(t, err, name, info.Index)
		if at%16 == 0 {
			if _, err := d.Verify(info.ID); !errors.Is(err, messages.ErrCorrupt) {
				t.Fatalf("%s at %d: verified: %v", what, at, err)
			}
		}
		if t.Failed() {
			t.Fatalf("%s at %d", what, at)
		}
	}
	for at := range file {
		try("cut", at, file[:at])
		bad := append(bytes.Clone(file[:at]), make([]byte, len(file)-at)...)
		try("zeros", at, bad)
		bad = bytes.Clone(file)
		for bit := range 8 {
			bad[at] = file[at] ^ 1<<bit
			try("bit", at, bad)
		}
		if at > 0 {
			try("appended", at, append(bytes.Clone(file), file[:at]...))
			try("lost", at, append(bytes.Clone(file[:at-1]), file[at:]...))
		}
	}
	try("appended zero", len(file), append(bytes.Clone(file), 0))
	try("appended zeros", len(file), append(bytes.Clone(file), make([]byte, 8192)...))
	overwrite(t, name, file)
	if _, err := d.Verify(info.ID); err != nil {
		t.Errorf("mended: %v", err)
	}
	t.Logf("%d mutations of %d bytes", tried, len(file))
}

// Blocks that are good in themselves, in a place that is not theirs.
func TestBlocksOutOfPlace(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512, Now: newClock().Now})
	// Blocks of equal stored length, so that nothing else has to change.
	state := noise(1, 4*512)
	info := save(t, d, 0, 1, 1, nil, state)
	later := save(t, d, 0, 2, 1, nil, state)                         // the same state, another index
	twin := save(t, d, 0, 1, 1, nil, bytes.Repeat([]byte("x"), 512)) // the same index, another state
	name := filepath.Join(path, info.ID+".snap")
	good := read(t, name)
	p, other := parse(good), parse(read(t, filepath.Join(path, later.ID+".snap")))
	head := len(p.header) + 4
	block := func(k int) (from, to int) { return head + k*(16+512), head + (k+1)*(16+512) }
	mutations := map[string]func(b []byte){
		"swapped blocks": func(b []byte) {
			from, to := block(1)
			from2, to2 := block(2)
			copy(b[from:to], good[from2:to2])
			copy(b[from2:to2], good[from:to])
		},
		"a block twice": func(b []byte) {
			from, to := block(1)
			from2, to2 := block(2)
			copy(b[from2:to2], good[from:to])
		},
		"a block of another snapshot": func(b []byte) {
			from, to := block(1)
			copy(b[from:to], other.blocks[1])
		},
		"the footer of another snapshot": func(b []byte) { copy(b[len(b)-80:], other.footer) },
		"the header of another snapshot": func(b []byte) { copy(b, other.header) },
	}
	for what, mutate := range mutations {
		b := bytes.Clone(good)
		mutate(b)
		overwrite(t, name, b)
		_, err := readAll(d, info.ID)
		if err == nil {
			t.Errorf("%s: not found", what)
			continue
		}
		checkCorrupt(t, err, name, info.Index)
	}
	// A whole good file under another's name.
	overwrite(t, name, read(t, filepath.Join(path, later.ID+".snap")))
	if _, err := d.Open(info.ID); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("another snapshot's file: %v", err)
	}
	// A snapshot within a snapshot, cut where the inner one ends.
	inner := good
	outer := save(t, d, 0, 1, 1, nil, inner)
	outerName := filepath.Join(path, outer.ID+".snap")
	b := read(t, outerName)
	if at := bytes.LastIndex(b, inner[len(inner)-80:]); at > 0 {
		overwrite(t, outerName, b[:at+80])
	} else {
		overwrite(t, outerName, append(b[:head+16], inner...))
	}
	if _, err := d.Open(outer.ID); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("an embedded snapshot: %v", err)
	}
	// The same header, so only the SHA-256 differs, and the CRCs are right.
	if got, _ := load(t, d, twin.ID); len(got) != 512 {
		t.Error("the twin is damaged too")
	}
}

// What changes under an open reader gives an error and no wrong byte.
func TestDamageUnderReader(t *testing.T) { eachCodec(t, testDamageUnderReader) }

func testDamageUnderReader(t *testing.T, _ int, codec snapshot.Codec) {
	state, info, file := small(t, snapshot.Options{Codec: codec})
	for _, c := range []struct {
		what   string
		change func(b []byte) []byte
	}{
		{"cut to nothing", func(b []byte) []byte { return nil }},
		{"cut in block 2", func(b []byte) []byte { return b[:800] }},
		{"zeros from block 2 on", func(b []byte) []byte { clear(b[700:]); return b }},
		{"a bit in block 3", func(b []byte) []byte { b[1200] ^= 4; return b }},
		{"other state", func(b []byte) []byte { return bytes.Repeat([]byte{1}, len(b)) }},
	} {
		for _, already := range []int{0, 1, 600} {
			d, name := place(t, info.ID, file)
			r, err := d.Open(info.ID)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, already)
			if _, err := io.ReadFull(r, got); err != nil {
				t.Fatal(err)
			}
			overwrite(t, name, c.change(bytes.Clone(file)))
			rest, err := io.ReadAll(r)
			got = append(got, rest...)
			if !bytes.Equal(got, state[:len(got)]) {
				t.Errorf("%s: wrong bytes", c.what)
			}
			if err == nil && already > 0 && len(got) == len(state) {
				// It had been read ahead, and was good then.
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				continue
			}
			checkCorrupt(t, err, name, info.Index)
			if _, again := r.Read(make([]byte, 1)); !errors.Is(again, messages.ErrCorrupt) {
				t.Errorf("%s: read on: %v", c.what, again)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// What is deleted under an open reader stays readable for it.
func TestRemovedUnderReader(t *testing.T) {
	state, info, file := small(t, snapshot.Options{})
	d, name := place(t, info.ID, file)
	r, err := d.Open(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, state) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestLatestFallsBack(t *testing.T) {
	path := t.TempDir()
	d := open(t, path, snapshot.Options{BlockBytes: 512})
	var infos []messages.SnapshotInfo
	for i := range uint64(4) {
		infos = append(infos, save(t, d, 0, i+1, 1, nil, records(i, 2000)))
	}
	name := func(i int) string { return filepath.Join(path, infos[i].ID+".snap") }
	bad := read(t, name(3))
	bad[200] ^= 1 // in a block: only reading all of it tells
	overwrite(t, name(3), bad)
	overwrite(t, name(2), read(t, name(2))[:100])
	latest, damaged, err := d.Latest(0)
	if err != nil || latest.ID != infos[1].ID || len(damaged) != 2 || damaged[0].Path != name(3) || damaged[1].Path != name(2) {
		t.Errorf("latest %v, damaged %v, %v", latest.ID, damaged, err)
	}
	listed, damaged, err := d.List(0)
	if err != nil || len(listed) != 3 || len(damaged) != 1 || damaged[0].Path != name(2) {
		t.Errorf("listed %d, damaged %v, %v", len(listed), damaged, err)
	}
	overwrite(t, name(1), nil)
	overwrite(t, name(0), nil)
	if _, damaged, err := d.Latest(0); !errors.Is(err, messages.ErrNotFound) || len(damaged) != 4 {
		t.Errorf("with none left: %v %v", damaged, err)
	}
}
