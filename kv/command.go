package kv

import (
	"fmt"
	"io"
	"strconv"
)

// The commands of DATA, byte for byte as buntdb reads them.
const (
	setHead = "*3\r\n$3\r\nset\r\n$"
	delHead = "*2\r\n$3\r\ndel\r\n$"
	newline = "\r\n"

	// markerHead begins every marker's command.
	markerHead = setHead + "1" + newline + markerKey + newline + "$"
)

func appendSet(dst []byte, key, value string) []byte {
	dst = append(dst, setHead...)
	dst = strconv.AppendInt(dst, int64(len(key)), 10)
	dst = append(dst, newline...)
	dst = append(dst, key...)
	dst = append(dst, newline...)
	dst = append(dst, '$')
	dst = strconv.AppendInt(dst, int64(len(value)), 10)
	dst = append(dst, newline...)
	dst = append(dst, value...)
	return append(dst, newline...)
}

func appendDel(dst []byte, key string) []byte {
	dst = append(dst, delHead...)
	dst = strconv.AppendInt(dst, int64(len(key)), 10)
	dst = append(dst, newline...)
	dst = append(dst, key...)
	return append(dst, newline...)
}

// command is one command of the file. Its slices are valid until the next one
// is read.
type command struct {
	set        bool
	key, value []byte
	raw        []byte
}

// badCommand says why the bytes at an offset are not a command.
type badCommand struct{ reason string }

func (e badCommand) Error() string { return e.reason }

const cutShort = "the command is cut short"

// window reads a file forwards and keeps the part that is being looked at.
type window struct {
	r    io.ReaderAt
	size int64
	base int64
	buf  []byte
}

const windowBytes = 256 << 10

// at returns n bytes at off, or fewer at the end of the file. Offsets must not
// decrease.
func (w *window) at(off int64, n int) ([]byte, error) {
	if rest := w.size - off; int64(n) > rest {
		n = int(rest)
	}
	if i := off - w.base; off >= w.base && i+int64(n) <= int64(len(w.buf)) {
		return w.buf[i : i+int64(n)], nil
	}
	length := max(n, windowBytes)
	if rest := w.size - off; int64(length) > rest {
		length = int(rest)
	}
	// What is in the window already is moved, not read again.
	have := 0
	if i := off - w.base; off >= w.base && i < int64(len(w.buf)) {
		kept := w.buf[i:]
		if cap(w.buf) < length {
			// At least double, so that a long command is not read in steps.
			w.buf = append(make([]byte, 0, max(length, 2*cap(w.buf))), kept...)
		} else {
			w.buf = w.buf[:copy(w.buf[:cap(w.buf)], kept)]
		}
		have = len(w.buf)
	} else if cap(w.buf) < length {
		w.buf = make([]byte, 0, length)
	} else {
		w.buf = w.buf[:0]
	}
	w.base = off
	w.buf = w.buf[:max(length, have)]
	if have < len(w.buf) {
		if m, err := w.r.ReadAt(w.buf[have:], off+int64(have)); m < len(w.buf)-have {
			w.buf = w.buf[:have+m]
			return nil, fmt.Errorf("read at offset %d: %w", off+int64(have+m), err)
		}
	}
	return w.buf[:n], nil
}

// maxNumber is the longest decimal length that a command may have.
const maxNumber = 9

// number parses a decimal without leading zeros that is followed by a newline,
// and returns it and the bytes it took.
func number(b []byte) (n, width int, err error) {
	for width < len(b) && b[width] >= '0' && b[width] <= '9' {
		if width == maxNumber || width == 1 && b[0] == '0' {
			return 0, 0, badCommand{reason: "the length is not a number"}
		}
		n = n*10 + int(b[width]-'0')
		width++
	}
	switch rest := b[width:]; {
	case len(rest) < 2:
		return 0, 0, badCommand{reason: cutShort}
	case width == 0, rest[0] != '\r', rest[1] != '\n':
		return 0, 0, badCommand{reason: "the length is not a number"}
	}
	return n, width + 2, nil
}

// command reads the command at off. The error is a badCommand if the bytes are
// not one, and io.EOF at the end of the file.
func (w *window) command(off int64) (c command, err error) {
	if off == w.size {
		return c, io.EOF
	}
	b, err := w.at(off, len(setHead)+maxNumber+2)
	if err != nil {
		return c, err
	}
	head := min(len(b), len(setHead))
	switch string(b[:head]) {
	case setHead:
		c.set = true
	case delHead:
	default:
		if string(b[:head]) == setHead[:head] || string(b[:head]) == delHead[:head] {
			return c, badCommand{reason: cutShort}
		}
		return c, badCommand{reason: "not a command"}
	}
	keyLen, width, err := number(b[head:])
	if err != nil {
		return c, err
	}
	keyAt := head + width
	if keyLen == 0 || keyLen > maxStoredKey {
		return c, badCommand{reason: fmt.Sprintf("a key of %d bytes", keyLen)}
	}
	end := keyAt + keyLen + 2
	ask := end
	if c.set {
		ask += 1 + maxNumber + 2
	}
	if int64(end) > w.size-off {
		return c, badCommand{reason: cutShort}
	}
	if b, err = w.at(off, ask); err != nil {
		return c, err
	}
	if string(b[end-2:end]) != newline {
		return c, badCommand{reason: "the key is not terminated"}
	}
	valueAt := end
	if c.set {
		if len(b) == end {
			return c, badCommand{reason: cutShort}
		}
		if b[end] != '$' {
			return c, badCommand{reason: "the value is missing"}
		}
		valueLen, width, err := number(b[end+1:])
		if err != nil {
			return c, err
		}
		if valueLen > maxStoredValue {
			return c, badCommand{reason: fmt.Sprintf("a value of %d bytes", valueLen)}
		}
		valueAt = end + 1 + width
		end = valueAt + valueLen + 2
		if int64(end) > w.size-off {
			return c, badCommand{reason: cutShort}
		}
		if b, err = w.at(off, end); err != nil {
			return c, err
		}
		if string(b[end-2:end]) != newline {
			return c, badCommand{reason: "the value is not terminated"}
		}
		c.value = b[valueAt : end-2]
	}
	c.raw = b[:end]
	c.key = b[keyAt : keyAt+keyLen]
	return c, nil
}
