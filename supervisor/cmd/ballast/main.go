// Command ballast runs the storage service of Ballast on a directory: it loads
// data through the log, reads it, takes and restores snapshots, says what a
// directory holds and verifies every byte of it. Its demo does all of that with
// a real source tree, and crashes the actors on the way. The log alone can be
// listed and verified too, and measured against what the disk can do. Snapshots
// can be listed, read, verified, copied and removed while no service has them.
//
// Run it without arguments for its usage. Results go to standard output,
// progress and errors to standard error. The exit code is 0 if all is well, 1
// if something failed, differs or is damaged, 2 if the command line makes no
// sense, and 130 after Ctrl-C, a hangup or SIGTERM. A second one does not wait
// for what is under way, and says which temporary directories it could not remove.
// It is 141 when whoever reads the output of bench or demo has gone away.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/urfave/cli/v3"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		cancel(fmt.Errorf("%v: %w", <-signals, errInterrupted))
		os.Exit(hurry(os.Stderr, <-signals, temporary))
	}()
	// Whoever has read enough, as head does, ends the process with the next write,
	// which is as it should be where there is nothing to remove.
	unread := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGPIPE) {
		temporary.made = func() { signal.Notify(unread, syscall.SIGPIPE) }
	}
	go func() {
		<-unread
		os.Exit(abandoned(os.Stderr, temporary))
	}()
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// patience is how long a second signal waits for temporary directories to go.
const patience = time.Second

// hurry ends the process for a second signal, and returns its exit code.
func hurry(errOut io.Writer, s os.Signal, dirs *scratch) int {
	left := dirs.abandon(patience)
	text := fmt.Sprintf("\nballast: %v again: ended at once", s)
	for _, dir := range left {
		text += "; " + dir + " is left and can be removed"
	}
	_, _ = fmt.Fprintln(errOut, text) // after a hangup there may be nobody to read it
	return exitInterrupted
}

// exitUnread is what a shell makes of the end that SIGPIPE brings.
const exitUnread = 128 + int(syscall.SIGPIPE)

// abandoned ends the process when nobody reads what it writes any more, and
// returns its exit code.
func abandoned(errOut io.Writer, dirs *scratch) int {
	for _, dir := range dirs.abandon(patience) {
		_, _ = fmt.Fprintf(errOut, "ballast: %s is left and can be removed\n", dir)
	}
	return exitUnread
}

// errInterrupted is the cause of a context that ended because the user asked
// for it.
var errInterrupted = errors.New("interrupted")

// app is one run of the command.
type app struct {
	in      io.Reader
	out     *output
	console *console
	// interrupted says what is left when the user ends the command.
	interrupted string
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: newOutput(out), console: newConsole(errOut), interrupted: "what was acknowledged is on disk"}
	root := a.rootCommand()
	root.Writer, root.ErrWriter = a.out, a.console
	err := root.Run(ctx, args)
	err = errors.Join(err, a.out.flush())
	a.console.clear()
	return a.finish(ctx, err)
}

// finish reports the error, if there is one, and translates it.
func (a *app) finish(ctx context.Context, err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		a.console.note("ballast: %v", err)
		a.console.note("Run '%s' for its usage.", usage.help())
		return exitUsage
	case errors.Is(context.Cause(ctx), errInterrupted):
		a.console.note("ballast: interrupted; %s", a.interrupted)
		return exitInterrupted
	case errors.Is(err, messages.ErrLocked):
		a.console.note("ballast: %v (another ballast, or a service, is using the directory)", err)
		return exitFailed
	}
	a.console.note("ballast: %v", err)
	return exitFailed
}

// usageError is a command line that makes no sense.
type usageError struct {
	command string // whose help explains it, or empty
	text    string
}

func (e *usageError) Error() string {
	if e.command == "" {
		return e.text
	}
	return e.command + ": " + e.text
}

func (e *usageError) help() string {
	if e.command == "" {
		return "ballast help"
	}
	return "ballast help " + e.command
}

func badUsage(c *cli.Command, format string, args ...any) error {
	e := &usageError{text: fmt.Sprintf(format, args...)}
	if c != c.Root() {
		e.command = strings.TrimPrefix(c.FullName(), c.Root().Name+" ")
	}
	return e
}
