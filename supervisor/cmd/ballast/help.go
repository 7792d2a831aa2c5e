package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"
)

func init() { cli.HelpPrinter = printHelp }

// examples are pairs of a command line and what it is for.
func examples(pairs ...string) map[string]any { return map[string]any{"examples": pairs} }

// printHelp writes the help of a command. Flags are shown with one dash, as
// they are written everywhere else; two work as well.
func printHelp(w io.Writer, _ string, data any) {
	c := data.(*cli.Command)
	fmt.Fprintf(w, "%s - %s\n\nUsage:\n  %s\n", c.FullName(), c.Usage, c.UsageText)
	if c.Description != "" {
		fmt.Fprintf(w, "\n%s\n", c.Description)
	}
	if commands := c.VisibleCommands(); len(commands) > 0 {
		fmt.Fprint(w, "\nCommands:\n")
		columns(w, func(row func(left, right string)) {
			for _, sub := range commands {
				row(sub.Name, sub.Usage)
			}
			if c == c.Root() {
				row("help COMMAND", "Explain a command, with examples")
			}
		})
	}
	fmt.Fprint(w, "\nFlags:\n")
	columns(w, func(row func(left, right string)) {
		for _, f := range append(c.VisibleFlags(), c.VisiblePersistentFlags()...) {
			row(flagHelp(f))
		}
	})
	if pairs, _ := c.Metadata["examples"].([]string); len(pairs) > 0 {
		fmt.Fprint(w, "\nExamples:\n")
		columns(w, func(row func(left, right string)) {
			for i := 0; i+1 < len(pairs); i += 2 {
				row(pairs[i], "# "+pairs[i+1])
			}
		})
	}
}

func columns(w io.Writer, fill func(row func(left, right string))) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fill(func(left, right string) { fmt.Fprintf(t, "  %s\t%s\n", left, right) })
	_ = t.Flush() // w keeps its first error
}

// flagHelp takes the name of a flag's value from between the back quotes in its
// usage, as package flag does.
func flagHelp(f cli.Flag) (left, right string) {
	left = "-" + strings.Join(f.Names(), ", -")
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return left, ""
	}
	before, rest, _ := strings.Cut(d.GetUsage(), "`")
	name, after, quoted := strings.Cut(rest, "`")
	if quoted {
		left += " " + name
	}
	right = before + name + after
	if v := d.GetValue(); d.TakesValue() && d.IsDefaultVisible() && v != "" && v != `""` && v != "0" && v != "[]" {
		right += " (default " + v + ")"
	}
	return left, right
}
