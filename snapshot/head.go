package snapshot

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// StreamHead is what the first bytes of the stream of an Exporter say. It is
// for whoever carries such a stream to an Importer and has to know first what it
// is, so that an import that broke off is gone on with.
type StreamHead struct {
	// ID of the snapshot; empty if the stream does not begin at the beginning
	// of the file, because group, index and term are there.
	ID string
	// Created is part of the ID.
	Created time.Time
	// Offset is where in the file the stream begins, FileBytes the length of
	// the whole file.
	Offset, FileBytes int64

	envelope envelope
}

// ReadStreamHead reads the envelope and, if the stream begins at the beginning
// of the file, its header. It returns the bytes that it has read, with an error
// too: an Importer wants to have them.
//
// Errors: messages.ErrMalformed (not an exported snapshot),
// messages.ErrCorrupt, messages.ErrIncompatible, io.EOF (not a single byte),
// io.ErrUnexpectedEOF, and those of r.
func ReadStreamHead(r io.Reader) (h StreamHead, read []byte, err error) {
	b := headBytes{r: r}
	err = h.read(&b)
	var bad *damage
	if errors.As(err, &bad) {
		err = &messages.CorruptError{Path: "exported stream", Offset: bad.offset, Reason: bad.reason, Err: bad.err}
	}
	if err != nil {
		return StreamHead{}, b.b, fmt.Errorf("snapshot: read the head of an exported stream: %w", err)
	}
	return h, b.b, nil
}

// headBytes are the first bytes of a stream, as far as they were read.
type headBytes struct {
	r io.Reader
	b []byte
}

// more reads n more bytes, and no further.
func (b *headBytes) more(n int) error {
	at := len(b.b)
	b.b = slices.Grow(b.b, n)[:at+n]
	k, err := io.ReadFull(b.r, b.b[at:])
	b.b = b.b[:at+k]
	if errors.Is(err, io.EOF) && at > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (h *StreamHead) read(b *headBytes) error {
	err := b.more(len(envelopeMagic))
	if len(b.b) > 0 && string(b.b) != envelopeMagic[:len(b.b)] { // also of what is shorter
		return fmt.Errorf("it does not begin with %q: %w", envelopeMagic, messages.ErrMalformed)
	}
	if err == nil {
		err = b.more(EnvelopeBytes - len(envelopeMagic))
	}
	e := &h.envelope
	if err == nil {
		err = e.decode(b.b)
	}
	if err != nil {
		return err
	}
	h.Created, h.Offset, h.FileBytes = time.UnixMilli(int64(e.created)).UTC(), e.offset, e.fileBytes
	if e.offset > 0 {
		return nil
	}
	if err := b.more(headerFixed); err != nil {
		return err
	}
	meta, err := metaLength(b.b[EnvelopeBytes:], e.fileBytes)
	if err != nil {
		return inStream(err)
	}
	if err := b.more(meta + crcBytes); err != nil {
		return err
	}
	var x header
	if err := x.decode(b.b[EnvelopeBytes:]); err != nil {
		return inStream(err)
	}
	switch {
	case x.crc != e.headerCRC:
		return inStream(&damage{0, "the header is not that of the envelope", nil})
	case x.index == 0:
		return inStream(&damage{24, "the index is zero", nil})
	}
	h.ID = infoOf(&x, e.created).ID
	return nil
}

// From returns the envelope of a stream of the same file that begins at another
// offset.
func (h StreamHead) From(offset int64) []byte {
	e := h.envelope
	e.offset = offset
	return e.encode()
}
