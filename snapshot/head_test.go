package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// TestStreamHead reads heads, and makes streams that begin elsewhere from them:
// these must be what Export itself gives for that offset.
func TestStreamHead(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 512})
	info := save(t, d, 3, 7, 2, []byte("metadata"), records(1, 10_000))
	whole := exported(t, d, info.ID, 0)
	h, read, err := snapshot.ReadStreamHead(bytes.NewReader(whole))
	if err != nil || h.ID != info.ID || h.Offset != 0 || h.FileBytes != info.FileBytes || !h.Created.Equal(info.Created) {
		t.Fatalf("%+v, %v; the snapshot is %+v", h, err, info)
	}
	if !bytes.Equal(read, whole[:len(read)]) || len(read) != snapshot.EnvelopeBytes+48+len("metadata")+4 {
		t.Errorf("%d bytes were read, or others", len(read))
	}
	for _, offset := range []int64{1, 52, info.FileBytes - 1, info.FileBytes} {
		rest := exported(t, d, info.ID, offset)
		if made := append(h.From(offset), whole[snapshot.EnvelopeBytes+offset:]...); !bytes.Equal(made, rest) {
			t.Errorf("the stream from offset %d is another", offset)
		}
		h, read, err := snapshot.ReadStreamHead(bytes.NewReader(rest))
		if err != nil || h.ID != "" || h.Offset != offset || h.FileBytes != info.FileBytes || len(read) != snapshot.EnvelopeBytes {
			t.Errorf("from offset %d: %+v, %v", offset, h, err)
		}
	}
	// Every cut, and every flipped bit, of the head.
	for n := range read {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, got, err := snapshot.ReadStreamHead(bytes.NewReader(whole[:n])); !errors.Is(err, want) || !bytes.Equal(got, whole[:n]) {
			t.Errorf("cut at %d: %v, want %v", n, err, want)
		}
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[n] ^= 1 << bit
			_, _, err := snapshot.ReadStreamHead(bytes.NewReader(b))
			if !errors.Is(err, messages.ErrCorrupt) && !errors.Is(err, messages.ErrMalformed) {
				t.Errorf("bit %d of byte %d: %v", bit, n, err)
			}
		}
	}
	if _, _, err := snapshot.ReadStreamHead(bytes.NewReader([]byte("x"))); !errors.Is(err, messages.ErrMalformed) {
		t.Errorf("a short stream of something else: %v", err)
	}
}

func TestDescribeAndProgress(t *testing.T) {
	d := open(t, t.TempDir(), snapshot.Options{BlockBytes: 1024, Codec: snapshot.CodecLZ4})
	info := save(t, d, 0, 1, 1, nil, records(1, 10_000))
	s, err := d.Describe(info.ID)
	if err != nil || !same(s.Info, info) || s.Codec != snapshot.CodecLZ4 || s.BlockBytes != 1024 || s.Blocks != (info.RawBytes+1023)/1024 {
		t.Errorf("%+v, %v", s, err)
	}
	other := "e"
	if info.ID[len(info.ID)-1:] == other {
		other = "f"
	}
	if _, err := d.Describe(info.ID[:len(info.ID)-1] + other); !errors.Is(err, messages.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	calls := make(chan int64, s.Blocks+1)
	got, err := d.VerifyProgress(info.ID, func(n int64) error { calls <- n; return nil })
	if err != nil || !same(got, info) || int64(len(calls)) != s.Blocks {
		t.Errorf("%+v, %v, %d calls for %d blocks", got, err, len(calls), s.Blocks)
	}
	close(calls)
	sum := int64(0)
	for n := range calls {
		sum += n
	}
	// What is left are header, index and footer.
	if rest := 52 + 48*s.Blocks + 4 + 80; sum != info.FileBytes-rest {
		t.Errorf("%d bytes of blocks in a file of %d", sum, info.FileBytes)
	}
	enough := errors.New("enough")
	if _, err := d.VerifyProgress(info.ID, func(int64) error { return enough }); !errors.Is(err, enough) || errors.Is(err, messages.ErrCorrupt) {
		t.Errorf("%v, want the error of the callback", err)
	}
}
