package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/ballast-raft/ballast/messages/durable"
)

// pieceBytes is how much is read from, or written to, a pipe in one call.
const pieceBytes = 256 << 10

// ioResult is how one call has ended.
type ioResult struct {
	n   int
	err error
}

// abandonable makes calls of Read or Write that the context can end: a pipe may
// block for ever. A call that was given up stays behind with its buffer, and no
// other is made.
type abandonable struct {
	ctx  context.Context
	done chan ioResult
	buf  []byte
}

func newAbandonable(ctx context.Context) abandonable {
	return abandonable{ctx, make(chan ioResult, 1), make([]byte, pieceBytes)}
}

func (x *abandonable) call(f func() (int, error)) (int, error) {
	if x.ctx.Err() != nil {
		return 0, x.ctx.Err()
	}
	go func() {
		n, err := f()
		x.done <- ioResult{n, err}
	}()
	select {
	case r := <-x.done:
		return r.n, r.err
	case <-x.ctx.Done():
		return 0, x.ctx.Err()
	}
}

// pipeReader reads from a pipe as long as the context lasts.
type pipeReader struct {
	abandonable
	r    io.Reader
	rest []byte
	err  error
}

func newPipeReader(ctx context.Context, r io.Reader) *pipeReader {
	return &pipeReader{abandonable: newAbandonable(ctx), r: r}
}

// Read implements io.Reader.
func (p *pipeReader) Read(b []byte) (int, error) {
	if len(p.rest) == 0 && p.err == nil {
		n, err := p.call(func() (int, error) { return p.r.Read(p.buf) })
		p.rest, p.err = p.buf[:n], err
	}
	if len(p.rest) == 0 {
		return 0, p.err
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// pipeWriter writes to a pipe as long as the context lasts.
type pipeWriter struct {
	abandonable
	w io.Writer
}

func newPipeWriter(ctx context.Context, w io.Writer) *pipeWriter {
	return &pipeWriter{newAbandonable(ctx), w}
}

// Write implements io.Writer.
func (p *pipeWriter) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		piece := p.buf[:copy(p.buf, b)]
		n, err := p.call(func() (int, error) { return p.w.Write(piece) })
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// withoutSIGPIPE makes a write to a standard output that nobody reads any more
// an error, which can be explained, and not the end of the process.
func withoutSIGPIPE() (restore func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGPIPE)
	return func() { signal.Stop(c) }
}

// target is where an export goes: a pipe, or a file that has its name only when
// it is complete.
type target struct {
	w    io.Writer
	f    *os.File // nil for standard output
	path string   // that it gets; empty if it is no regular file
}

func (a *app) newTarget(ctx context.Context, path string) (*target, error) {
	if path == "-" {
		if terminalWidth(a.out.raw) > 0 {
			return nil, errors.New("standard output is a terminal, and the snapshot is binary: name a file with -o, or send it into a pipe")
		}
		return &target{w: newPipeWriter(ctx, a.out.raw)}, nil
	}
	st, err := os.Stat(path)
	switch {
	case err == nil && st.IsDir():
		return nil, fmt.Errorf("%s: a directory; -o is for a file", path)
	case err == nil && st.Mode().IsRegular():
		return nil, fmt.Errorf("%s: there is such a file already", path)
	case err == nil: // a named pipe, a device
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		if terminalWidth(f) > 0 {
			return nil, errors.Join(fmt.Errorf("%s: a terminal, and the snapshot is binary", path), f.Close())
		}
		return &target{w: newPipeWriter(ctx, f), f: f}, nil
	}
	f, err := os.OpenFile(path+durable.TempSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%w: another export is writing it, or one was killed: then remove it", err)
	}
	if err != nil {
		return nil, err
	}
	return &target{w: f, f: f, path: path}, nil
}

// free refuses to replace a file.
func (t *target) free() error {
	if _, err := os.Lstat(t.path); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf("%s: there is such a file now, and there was none when the export began", t.path)
}

// finish ends the target: a file is synced and gets its name, or is removed if
// err says that it is not complete.
func (t *target) finish(err error) error {
	switch {
	case t.f == nil:
		return err
	case t.path == "":
		if errors.Is(err, context.Canceled) {
			return err // a call may be left behind in it
		}
		return errors.Join(err, t.f.Close())
	}
	temp := t.f.Name()
	if err == nil {
		err = durable.OS.Sync(t.f)
	}
	err = errors.Join(err, t.f.Close())
	if err == nil {
		err = t.free() // a large export takes its time
	}
	if err == nil {
		err = durable.OS.Rename(temp, t.path)
	}
	if err != nil {
		return errors.Join(err, durable.OS.Remove(temp))
	}
	return durable.OS.SyncDir(filepath.Dir(t.path))
}
