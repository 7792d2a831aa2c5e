package kv

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// A data file whose checksums are good and in which a pair has no version.
func TestPairWithoutVersion(t *testing.T) {
	for value, want := range map[string]error{"\x01": nil, "": messages.ErrCorrupt, "\x00x": messages.ErrCorrupt, "\x80\x00x": messages.ErrCorrupt} {
		dir := t.TempDir()
		w, err := newDraft(durable.OS, filepath.Join(dir, dataName), identity{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.set("d\x00key", value), w.seal([]position{{revision: 1}}), w.f.Close()); err != nil {
			t.Fatal(err)
		}
		db, err := Open(dir, Options{})
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", value, err, want)
		}
		if err == nil {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// The files of another version are refused as such, not as damage.
func TestOtherVersionOfDATA(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, dataName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := b[len(setHead)+len("1\r\nh\r\n$64\r\n"):][:headerSize]
	head[8] = 1
	binary.LittleEndian.PutUint32(head[12:], headerSum(head))
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, messages.ErrIncompatible) || errors.Is(err, messages.ErrCorrupt) {
		t.Error(err)
	}
}

func TestStoredVersion(t *testing.T) {
	for _, version := range []uint64{1, 127, 128, 1 << 35, 1<<63 - 1, 1 << 63, math.MaxUint64} {
		for _, value := range []string{"", "x", "\xff\x00"} {
			stored := joinVersion(version, []byte(value))
			if v, s, ok := splitVersion(stored); v != version || s != value || !ok {
				t.Errorf("%d %q: %d %q %t", version, value, v, s, ok)
			}
			if v, s, ok := splitVersion([]byte(stored)); v != version || string(s) != value || !ok {
				t.Errorf("%d %q: %d %q %t", version, value, v, s, ok)
			}
		}
	}
	for _, bad := range []string{"", "\x00", "\x00x", "\x80", "\x81\x00", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if v, _, ok := splitVersion(bad); ok {
			t.Errorf("%q is taken for version %d", bad, v)
		}
	}
}
