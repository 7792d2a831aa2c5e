package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// output is standard output. It keeps its first error, so that writers need not
// look at each one.
type output struct {
	w   *bufio.Writer
	raw io.Writer // what is below w, for who writes large amounts
	err error
}

func newOutput(w io.Writer) *output { return &output{w: bufio.NewWriterSize(w, 64<<10), raw: w} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	var n int
	n, o.err = o.w.Write(p)
	return n, o.err
}

func (o *output) flush() error {
	if o.err == nil {
		o.err = o.w.Flush()
	}
	if o.err != nil {
		return fmt.Errorf("write results: %w", o.err)
	}
	return nil
}

// console is standard error: notes, the log, and one line of progress that is
// drawn again and again on a terminal, and written now and then elsewhere.
type console struct {
	quiet bool
	width int // of the terminal, or zero if it is none
	now   func() time.Time

	mu    sync.Mutex
	w     io.Writer
	line  string // what is drawn
	wrote time.Time
}

// plainInterval is how often progress is written where it cannot be redrawn.
const plainInterval = 2 * time.Second

func newConsole(w io.Writer) *console {
	c := &console{w: w, now: time.Now}
	c.width = terminalWidth(w)
	c.wrote = c.now()
	return c
}

// terminalWidth is the number of columns of a terminal, or zero for anything
// else.
func terminalWidth(stream any) int {
	f, ok := stream.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Col == 0: // it does not know
		return 80
	}
	return max(int(size.Col), 20)
}

// live reports whether the line can be redrawn.
func (c *console) live() bool { return c.width > 0 }

const eraseLine = "\r\x1b[K"

// Write writes above the line of progress. Nobody can be told of an error of
// standard error.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line != "" {
		_, _ = io.WriteString(c.w, eraseLine)
	}
	n, err := c.w.Write(p)
	if c.line != "" {
		_, _ = io.WriteString(c.w, c.line)
	}
	return n, err
}

// note writes one line that stays.
func (c *console) note(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

// say is note, unless the user wants it quiet.
func (c *console) say(format string, args ...any) {
	if !c.quiet {
		c.note(format, args...)
	}
}

// progress shows where things are.
func (c *console) progress(text string) {
	if c.quiet {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live() {
		c.line = fit(text, c.width-1)
		_, _ = io.WriteString(c.w, eraseLine+c.line)
		return
	}
	if now := c.now(); now.Sub(c.wrote) >= plainInterval {
		c.wrote = now
		_, _ = io.WriteString(c.w, text+"\n")
	}
}

// clear takes the line of progress away.
func (c *console) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line != "" {
		c.line = ""
		_, _ = io.WriteString(c.w, eraseLine)
	}
}

func fit(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// every calls f at an interval until stop is called; stop waits for the last
// call to end.
func every(d time.Duration, f func()) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-ended })
}

// logHandler writes log records to the console.
type logHandler struct {
	slog.Handler
	// narrated: the command tells of the service's events in its own words.
	narrated *atomic.Bool
}

func newLogHandler(c *console, level slog.Level) logHandler {
	return logHandler{slog.NewTextHandler(c, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}), new(atomic.Bool)}
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.narrated.Load() && strings.HasPrefix(r.Message, "ballast: ") {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// narrate leaves the service's events to the command, unless the user asked for
// the log. It returns a function that takes that back.
func narrate() (restore func()) {
	h, ok := slog.Default().Handler().(logHandler)
	if !ok || h.Enabled(context.Background(), slog.LevelInfo) {
		return func() {}
	}
	h.narrated.Store(true)
	return func() { h.narrated.Store(false) }
}
