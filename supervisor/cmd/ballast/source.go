package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ballast-raft/ballast/messages"
)

// file is one to be stored.
type file struct {
	path string // where it is
	name string // its slash path below the root
	key  string
	size int64
}

// skippedFile is one that cannot be stored, and why.
type skippedFile struct {
	path, reason string
	err          error // it should have been stored and could not be read
}

// maxFile is the size above which the document of a file is too large whatever
// is in it.
const maxFile = messages.MaxValue

// listFiles finds the regular files at root, which is a directory or a file, in
// lexical order. Symbolic links below root are not followed.
func listFiles(ctx context.Context, root, prefix string) (files []file, skipped []skippedFile, err error) {
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, nil, err
	}
	err = filepath.WalkDir(resolved, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && d == nil:
			return err
		case err != nil:
			skipped = append(skipped, skippedFile{path: path, reason: err.Error(), err: err})
			return nil
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			skipped = append(skipped, skippedFile{path: path, reason: "not a regular file"})
			return nil
		}
		name := filepath.Base(root)
		if path != resolved {
			if name, err = filepath.Rel(resolved, path); err != nil {
				return err
			}
		}
		f := file{path: path, name: filepath.ToSlash(name)}
		f.key = prefix + f.name
		info, err := d.Info()
		switch {
		case err != nil:
			skipped = append(skipped, skippedFile{path: path, reason: err.Error(), err: err})
		case info.Size() > maxFile:
			skipped = append(skipped, skippedFile{path: path, reason: tooLargeText(info.Size())})
		case len(f.key) > messages.MaxKey:
			skipped = append(skipped, skippedFile{path: path, reason: fmt.Sprintf("a key of %d bytes, at most %d", len(f.key), messages.MaxKey)})
		default:
			f.size = info.Size()
			files = append(files, f)
		}
		return nil
	})
	return files, skipped, err
}

func tooLargeText(n int64) string {
	return fmt.Sprintf("a value of %s, at most %s", bytesText(n), bytesText(messages.MaxValue))
}

// value reads a file and returns its document.
func (f file) value() ([]byte, error) {
	content, err := os.ReadFile(f.path)
	if err != nil {
		return nil, err
	}
	return encodeDocument(f.name, content)
}

func (f file) job() *job {
	return &job{key: []byte(f.key), name: f.path, cost: 3*f.size + 1024, value: f.value}
}

// goSource is the source tree of the Go installation.
func goSource(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	root := strings.TrimSpace(string(out))
	if err != nil || root == "" {
		if root = os.Getenv("GOROOT"); root == "" {
			return "", errors.Join(errors.New("no Go installation was found; name another tree with -from"), err)
		}
	}
	return filepath.Join(root, "src"), nil
}

// lineReader yields the lines of a stream with their numbers, the first being
// 1. White space around a line is not part of it.
type lineReader struct {
	r      *bufio.Reader
	number int
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReaderSize(r, 256<<10)} }

var errLineTooLong = errors.New("the line is too long: " + tooLargeText(messages.MaxValue+1))

// next returns the next line, which belongs to the caller. A line that is too
// long is read to its end, and the one after it can be read.
func (l *lineReader) next() (line []byte, err error) {
	l.number++
	long := false
	for {
		part, err := l.r.ReadSlice('\n')
		if long = long || len(line)+len(part) > messages.MaxValue; long {
			line = nil
		} else {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !(errors.Is(err, io.EOF) && (len(line) > 0 || long)):
			return nil, err
		case long:
			return nil, errLineTooLong
		}
		return bytes.TrimSpace(line), nil
	}
}

// readLine is one line, or why there is none.
type readLine struct {
	number int
	line   []byte
	err    error
}

// readAhead yields the lines of a stream, the last of them with an error that is
// not errLineTooLong. It ends with the context, even if a read does not return:
// standard input may be a terminal, or a pipe that nobody writes to.
func readAhead(ctx context.Context, in io.Reader) iter.Seq[readLine] {
	return func(yield func(readLine) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		lines := make(chan readLine)
		go func() {
			r := newLineReader(in)
			for {
				line, err := r.next()
				select {
				case lines <- readLine{r.number, line, err}:
				case <-ctx.Done():
					return
				}
				if err != nil && !errors.Is(err, errLineTooLong) {
					return
				}
			}
		}()
		for {
			select {
			case l := <-lines:
				if !yield(l) || l.err != nil && !errors.Is(l.err, errLineTooLong) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}
