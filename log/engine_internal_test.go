package log

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The engine of the version in go.mod can be made to forget, and what it then
// writes is what it would have written.
func TestEngineForgets(t *testing.T) {
	var want []byte
	for _, forget := range []bool{false, true} {
		dir := t.TempDir()
		e, err := openEngine(dir)
		if err != nil {
			t.Fatal(err)
		}
		if e.data == nil {
			t.Fatal("the engine has other fields than this package expects: appends are slower")
		}
		if e.entries == nil {
			t.Fatal("the engine's batches have other fields than this package expects: appends copy once more")
		}
		if !forget {
			e.entries = nil // by way of Batch.Write
		}
		for i := range 200 {
			var records []byte
			var sizes []int
			for k := range 3 {
				records = append(records, bytes.Repeat([]byte{byte(i)}, 100*k+1)...)
				sizes = append(sizes, 100*k+1)
			}
			if err := e.write(uint64(1+3*i), records, sizes); err != nil {
				t.Fatal(err)
			}
			if forget {
				if e.forget(); len(*e.data) != 0 || e.ends.Len() != 0 {
					t.Fatalf("%d bytes and %d positions are left", len(*e.data), e.ends.Len())
				}
			}
		}
		if last, err := e.LastIndex(); err != nil || last != 600 {
			t.Fatalf("last index %d, %v", last, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, logName))
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes that differ from %d", len(got), len(want))
		}
	}
}
