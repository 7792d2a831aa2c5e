package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
	"github.com/ballast-raft/ballast/snapshot"
)

// typed are the errors that an import may end with.
var typed = []error{messages.ErrCorrupt, messages.ErrMalformed, messages.ErrIncompatible, messages.ErrInvalid, io.ErrUnexpectedEOF}

func isTyped(err error) bool {
	for _, want := range typed {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

// exported returns the stream of a snapshot.
func exported(t testing.TB, d snapshot.Store, id string, offset int64) []byte {
	t.Helper()
	x, err := d.Export(id, offset)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(x)
	if err != nil {
		t.Fatal(err)
	}
	if x.Info().ID != id || offset == 0 && x.Size() != int64(len(b)) {
		t.Errorf("%s: %d bytes, said %d", x.Info().ID, len(b), x.Size())
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// imported takes a stream, or returns the first error.
func imported(d snapshot.Store, id string, stream []byte) (messages.SnapshotInfo, error) {
	m, _, err := d.Import(id)
	if err != nil {
		return messages.SnapshotInfo{}, err
	}
	if _, err := m.Write(stream); err != nil {
		return messages.SnapshotInfo{}, err
	}
	return m.Finish()
}

// source is a store with one snapshot of four blocks, and its stream.
func source(t testing.TB) (d *snapshot.Dir, info messages.SnapshotInfo, stream []byte) {
	t.Helper()
	path := t.TempDir()
	d = open(t, path, snapshot.Options{BlockBytes: 512, Now: newClock().Now})
	state := append(append(records(1, 1024), noise(1, 512)...), records(2, 100)...)
	info = save(t, d, 3, 9, 2, []byte("three voters"), state)
	stream = exported(t, d, info.ID, 0)
	if !bytes.Equal(stream[snapshot.EnvelopeBytes:], read(t, filepath.Join(path, info.ID+".snap"))) {
		t.Error("what follows the envelope is not the file")
	}
	return d, info, stream
}

// A copy through a pipe, in pieces of any length, is the same file under the
// same id.
func TestCopy(t *testing.T) {
	from, info, stream := source(t)
	for _, piece := range []int{1, 7, 80, 81, 500, 100_000} {
		for _, id := range []string{"", info.ID} {
			path := t.TempDir()
			to := open(t, path, snapshot.Options{Disk: noSync{durable.OS}})
			x, err := from.Export(info.ID, 0)
			if err != nil {
				t.Fatal(err)
			}
			m, offset, err := to.Import(id)
			if err != nil || offset != 0 {
				t.Fatal(offset, err)
			}
			if _, err := io.CopyBuffer(struct{ io.Writer }{m}, struct{ io.Reader }{x}, make([]byte, piece)); err != nil {
				t.Fatal(err)
			}
			if infos, _, _ := to.ListAll(); len(infos) != 0 {
				t.Error("there before Finish")
			}
			if got := finish(t, m); !same(got, info) {
				t.Errorf("imported %+v, want %+v", got, info)
			}
			if err := errors.Join(x.Close(), x.Close(), m.Abort()); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(read(t, filepath.Join(path, info.ID+".snap")), stream[snapshot.EnvelopeBytes:]) || len(files(t, path)) != 1 {
				t.Errorf("another file, of %v", files(t, path))
			}
			if _, err := to.Verify(info.ID); err != nil {
				t.Error(err)
			}
			if _, err := m.Write([]byte{1}); !errors.Is(err, messages.ErrInvalid) {
				t.Errorf("write after Finish: %v", err)
			}
			if _, err := x.Read(make([]byte, 1)); !errors.Is(err, messages.ErrInvalid) {
				t.Errorf("read after Close: %v", err)
			}
		}
	}
}

// An import that breaks off anywhere goes on after its last good block.
func TestImportResumes(t *testing.T) {
	from, info, stream := source(t)
	file := stream[snapshot.EnvelopeBytes:]
	for cut := 0; cut <= len(stream); cut += 11 {
		for _, how := range []string{"suspend", "finish", "close", "kill"} {
			path := t.TempDir()
			to := open(t, path, snapshot.Options{Disk: noSync{durable.OS}})
			m, _, err := to.Import(info.ID)
			if err != nil {
				t.Fatal(err)
			}
			write(t, m, stream[:cut])
			switch how {
			case "suspend":
				err = m.Suspend()
			case "finish":
				if _, err = m.Finish(); cut < len(stream) && errors.Is(err, io.ErrUnexpectedEOF) {
					err = nil
				}
			case "close":
				err = to.Close()
				to = open(t, path, snapshot.Options{Disk: noSync{durable.OS}})
			case "kill":
				path = killed(t, path)
				to = open(t, path, snapshot.Options{Disk: noSync{durable.OS}})
			}
			if err != nil {
				t.Fatal(err)
			}
			m, offset, err := to.Import(info.ID)
			if err != nil {
				t.Fatal(err)
			}
			got := max(0, cut-snapshot.EnvelopeBytes)
			if how == "finish" && cut == len(stream) {
				got = 0 // it is there
			}
			if offset > int64(got) || got > 700 && offset == 0 {
				t.Errorf("%s after %d bytes of the file: goes on at %d", how, got, offset)
			}
			write(t, m, exported(t, from, info.ID, offset))
			if again := finish(t, m); !same(again, info) || !bytes.Equal(read(t, filepath.Join(path, info.ID+".snap")), file) {
				t.Errorf("%s after %d bytes: %+v", how, cut, again)
			}
			if names := files(t, path); len(names) != 1 {
				t.Errorf("%s after %d bytes: left %v", how, cut, names)
			}
		}
	}
}

// A stream that does not begin where the import is, or is of another snapshot.
func TestImportRefuses(t *testing.T) {
	from, info, stream := source(t)
	other := save(t, from, 3, 10, 2, nil, records(5, 1200))
	path := t.TempDir()
	to := open(t, path, snapshot.Options{})
	part := func() int64 {
		t.Helper()
		m, _, err := to.Import(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		write(t, m, stream[:900])
		if err := m.Suspend(); err != nil {
			t.Fatal(err)
		}
		m, offset, err := to.Import(info.ID)
		if err != nil || offset < 300 {
			t.Fatal(offset, err)
		}
		if err := m.Suspend(); err != nil {
			t.Fatal(err)
		}
		return offset
	}
	offset := part()
	for name, c := range map[string]struct {
		id     string
		stream []byte
	}{
		"another offset":   {info.ID, exported(t, from, info.ID, offset+1)},
		"no beginning":     {"", exported(t, from, info.ID, offset)},
		"another snapshot": {info.ID, exported(t, from, other.ID, 0)},
		"another, later":   {info.ID, exported(t, from, other.ID, offset)},
	} {
		if _, err := imported(to, c.id, c.stream); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, got, err := to.Import(info.ID); err != nil || got != offset {
			t.Errorf("%s: goes on at %d, want %d: %v", name, got, offset, err)
		}
	}
	// From the beginning, though there is something.
	if got, err := imported(to, info.ID, stream); err != nil || !same(got, info) {
		t.Error(got, err)
	}
	if _, _, err := to.Import("x"); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
	for _, at := range []int64{-1, info.FileBytes + 1} {
		if _, err := from.Export(info.ID, at); !errors.Is(err, messages.ErrInvalid) {
			t.Errorf("export from %d: %v", at, err)
		}
	}
	if b := exported(t, from, info.ID, info.FileBytes); len(b) != snapshot.EnvelopeBytes {
		t.Errorf("export from the end: %d bytes", len(b))
	}
	for at := int64(0); at < info.FileBytes; at++ {
		if !bytes.Equal(exported(t, from, info.ID, at)[snapshot.EnvelopeBytes:], stream[snapshot.EnvelopeBytes+at:]) {
			t.Errorf("export from %d: other bytes", at)
		}
	}
}

// An id that is there already.
func TestImportExists(t *testing.T) {
	from, info, stream := source(t)
	if got, err := imported(from, "", stream); err != nil || !same(got, info) {
		t.Errorf("the same: %+v %v", got, err)
	}
	if got, err := imported(from, info.ID, stream); err != nil || !same(got, info) {
		t.Errorf("the same, by id: %+v %v", got, err)
	}
	// Two at a time: the second has it, the first has lost it.
	path := t.TempDir()
	to := open(t, path, snapshot.Options{})
	a, _, errA := to.Import("")
	b, _, errB := to.Import("")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	write(t, a, stream)
	write(t, b, stream)
	if got := finish(t, b); !same(got, info) {
		t.Errorf("%+v", got)
	}
	if _, err := a.Finish(); !errors.Is(err, messages.ErrExpired) {
		t.Errorf("taken over: %v", err)
	}
	// It comes into being while another is on its way to it: the same content.
	to2 := open(t, t.TempDir(), snapshot.Options{Now: newClock().Now, BlockBytes: 512})
	c, _, err := to2.Import("")
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, stream)
	if made := save(t, to2, 3, 9, 2, []byte("three voters"), mustLoad(t, from, info.ID)); made.ID != info.ID {
		t.Fatalf("made %s", made.ID)
	}
	if got := finish(t, c); !same(got, info) || len(unfinished(t, to2)) != 0 {
		t.Errorf("%+v, left %v", got, unfinished(t, to2))
	}
	// Another content: early, and at the end.
	for _, late := range []bool{false, true} {
		path := t.TempDir()
		to := open(t, path, snapshot.Options{Now: newClock().Now, BlockBytes: 512})
		m, _, err := to.Import("")
		if err != nil {
			t.Fatal(err)
		}
		if late {
			write(t, m, stream)
		}
		there := save(t, to, 3, 9, 2, nil, []byte("something else"))
		if there.ID != info.ID {
			t.Fatalf("made %s", there.ID)
		}
		if !late {
			_, err = m.Write(stream[:200])
		} else {
			_, err = m.Finish()
		}
		if !errors.Is(err, messages.ErrConflict) {
			t.Errorf("late %v: %v", late, err)
		}
		if names := files(t, path); len(names) != 1 {
			t.Errorf("late %v: left %v", late, names)
		}
		load(t, to, there.ID)
		// Damaged: it is not replaced before it is set aside.
		b := read(t, filepath.Join(path, there.ID+".snap"))
		b[70] ^= 1
		overwrite(t, filepath.Join(path, there.ID+".snap"), b)
		if _, err := imported(to, "", stream); !errors.Is(err, messages.ErrConflict) {
			t.Errorf("over a damaged one: %v", err)
		}
		if _, err := to.SetAside(there.ID); err != nil {
			t.Fatal(err)
		}
		if got, err := imported(to, "", stream); err != nil || !same(got, info) {
			t.Errorf("after it was set aside: %+v %v", got, err)
		}
	}
}

func mustLoad(t testing.TB, d snapshot.Store, id string) []byte {
	t.Helper()
	b, _ := load(t, d, id)
	return b
}

// A stream with any byte wrong, cut anywhere, or with more at its end gives no
// snapshot, a typed error, and leaves nothing but what can be gone on with.
func TestImportHostile(t *testing.T) {
	_, info, stream := source(t)
	path := t.TempDir()
	to := open(t, path, snapshot.Options{Disk: noSync{durable.OS}})
	check := func(what string, b []byte) {
		t.Helper()
		got, err := imported(to, "", b)
		if !isTyped(err) {
			t.Fatalf("%s: %+v, %v", what, got, err)
		}
		if infos, damaged, err := to.ListAll(); len(infos)+len(damaged) != 0 || err != nil {
			t.Fatalf("%s: %v %v %v", what, infos, damaged, err)
		}
		for _, name := range files(t, path) {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s: %v, left %s", what, err, name)
			}
			if err := to.Discard(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range stream {
		for bit := range 8 {
			if n >= 200 && bit != n%8 {
				continue
			}
			b := bytes.Clone(stream)
			b[n] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d", bit, n), b)
		}
		check(fmt.Sprintf("cut at %d", n), stream[:n])
	}
	check("surplus", append(bytes.Clone(stream), 0))
	check("twice", append(bytes.Clone(stream), stream...))
	check("without envelope", stream[snapshot.EnvelopeBytes:])
	check("noise", noise(1, 10_000))
	// Envelopes that are forged: checksum good, contents wrong.
	for _, c := range []struct {
		at   int
		with []byte
	}{
		{8, []byte{2, 0}}, {10, []byte{1}}, {12, u32(7)}, {16, u64(1 << 48)}, {16, u64(1<<64 - 1)}, {24, u64(0)}, {24, u64(1<<64 - 1)},
		{24, u64(1 << 62)}, {24, u64(uint64(info.FileBytes) - 1)}, {32, []byte{^stream[32]}}, {64, u64(1)}, {64, u64(1 << 63)}, {72, u32(1)},
	} {
		b := bytes.Clone(stream)
		copy(b[c.at:], c.with)
		le.PutUint32(b[76:], crc(b[:76]))
		check(fmt.Sprintf("forged at %d with %x", c.at, c.with), b)
	}
	// The length of the metadata: refused on sight, whatever else is said.
	b := bytes.Clone(stream)
	le.PutUint32(b[80+40:], 1<<20+1)
	m, _, err := to.Import("")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.Write(b[:80+48]); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("%d, %v", n, err)
	}
	if err := m.Abort(); err != nil {
		t.Error(err)
	}
	// None of this has hurt.
	if got, err := imported(to, "", stream); err != nil || !same(got, info) {
		t.Error(got, err)
	}
}

// Whatever a stream says, nothing panics, and what is accepted is good.
func FuzzImport(f *testing.F) {
	_, _, stream := source(f)
	f.Add(stream, true)
	f.Add(stream[:300], false)
	f.Add(noise(1, 500), true)
	path := f.TempDir()
	d := open(f, path, snapshot.Options{Disk: noSync{durable.OS}, Concurrency: 1})
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		b = bytes.Clone(b)
		if seal && len(b) >= 80 {
			// Let it get beyond the checksums.
			if n := 80 + 48; len(b) >= n+4 {
				if m := int(le.Uint32(b[80+40:])); m <= len(b)-n-4 {
					le.PutUint32(b[n+m:], crc(b[80:n+m]))
					le.PutUint32(b[12:], crc(b[80:n+m]))
				}
			}
			le.PutUint64(b[24:], uint64(len(b)-80))
			le.PutUint32(b[76:], crc(b[:76]))
		}
		defer empty(t, path)
		info, err := imported(d, "", b)
		if err != nil {
			if !isTyped(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if got, err := d.Verify(info.ID); err != nil || !same(got, info) {
			t.Fatalf("accepted %+v, then %+v: %v", info, got, err)
		}
	})
}

// empty removes what a run has left.
func empty(t *testing.T, path string) {
	for _, name := range files(t, path) {
		if err := os.Remove(filepath.Join(path, name)); err != nil {
			t.Error(err)
		}
	}
}

// What has rotted is not handed out.
func TestExportDamaged(t *testing.T) {
	from, info, stream := source(t)
	file := stream[snapshot.EnvelopeBytes:]
	for n := range file {
		b := bytes.Clone(file)
		b[n] ^= 4
		d, name := place(t, info.ID, b)
		x, err := d.Export(info.ID, 0)
		if err == nil {
			var got []byte
			if got, err = io.ReadAll(x); !bytes.HasPrefix(stream, got) {
				t.Errorf("byte %d: what was handed out is wrong", n)
			}
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
		if !errors.Is(err, messages.ErrCorrupt) {
			t.Errorf("byte %d: %v", n, err)
		}
		if err := errors.Join(d.Close(), os.Remove(name)); err != nil {
			t.Fatal(err)
		}
	}
	// The end changes between the beginning and the end of an export.
	d, name := place(t, info.ID, file)
	x, err := d.Export(info.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(file)
	b[len(b)-100] ^= 1 // the index
	overwrite(t, name, b)
	if _, err := io.ReadAll(x); !errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("the index has rotted: %v", err)
	}
	if err := d.Delete(info.ID); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("deleted while it is exported: %v", err)
	}
	if _, err := d.SetAside(info.ID); !errors.Is(err, messages.ErrConflict) {
		t.Errorf("set aside while it is exported: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Delete(info.ID); err != nil {
		t.Error(err)
	}
	if _, err := from.Export("x", 0); !errors.Is(err, messages.ErrInvalid) {
		t.Error(err)
	}
}

// The envelope as the package comment describes it.
func TestEnvelope(t *testing.T) {
	from, info, stream := source(t)
	for _, offset := range []int64{0, 700} {
		file := stream[snapshot.EnvelopeBytes:]
		want := bytes.Join([][]byte{[]byte("BLSTSEXP"), {1, 0, 0, 0}, file[60:64], u64(0x0123456789), u64(uint64(len(file))),
			info.ContentHash[:], u64(uint64(offset)), u32(0)}, nil)
		want = append(want, u32(crc(want))...)
		if got := exported(t, from, info.ID, offset)[:snapshot.EnvelopeBytes]; !bytes.Equal(got, want) {
			t.Errorf("envelope\n%x, want\n%x", got, want)
		}
	}
	path := filepath.Join("testdata", "exported")
	if *update {
		if err := os.WriteFile(path, stream, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Whatever the compressor does in later versions: the old stream is taken.
	to := open(t, t.TempDir(), snapshot.Options{})
	if got, err := imported(to, "", read(t, path)); err != nil || got.ContentHash != info.ContentHash || got.ID != info.ID {
		t.Errorf("the golden stream: %+v, %v", got, err)
	}
}
