package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailhaul/mail"
)

// newMan makes the verb that packages are built with; users do not see it.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages of all verbs into a directory that exists",
		Example: "  mailhaul man /usr/local/share/man/man1",
		Hidden:  true,
		Args:    arguments(1, 1, "DIR, where the pages go"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := writeManuals(cmd.Root(), args[0]); err != nil {
				return &mail.Error{Kind: mail.KindDisk, Op: "write the manual pages", Err: err}
			}
			return nil
		},
	}
}

// writeManuals writes the page of a command, and those of its verbs.
func writeManuals(c *cobra.Command, dir string) error {
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	if err := os.WriteFile(filepath.Join(dir, name), md2man.Render(manual(c)), 0o644); err != nil {
		return err
	}
	for _, verb := range c.Commands() {
		if !hasManual(verb) {
			continue
		}
		if err := writeManuals(verb, dir); err != nil {
			return err
		}
	}
	return nil
}

// hasManual tells whether a verb has a page of its own.
func hasManual(verb *cobra.Command) bool {
	return verb.IsAvailableCommand() && verb.Name() != "completion"
}

// manual is the page of a command in Markdown. It bears no date, so that equal
// sources make equal packages.
func manual(c *cobra.Command) []byte {
	var b strings.Builder
	title := strings.ReplaceAll(c.CommandPath(), " ", "-")
	fmt.Fprintf(&b, "%s 1 \"\" \"mailhaul %s\" \"Mail archives\"\n==\n\n", title, versionText())
	fmt.Fprintf(&b, "# NAME\n\n%s - %s\n\n", title, plain(c.Short))
	synopsis := c.UseLine()
	if !c.HasParent() {
		synopsis = c.Name() + " VERB [flags]"
	}
	fmt.Fprintf(&b, "# SYNOPSIS\n\n**%s**\n\n", plain(synopsis))
	fmt.Fprintf(&b, "# DESCRIPTION\n\n%s\n\n", prose(c.Long, c.Short))
	manualVerbs(&b, c)
	manualFlags(&b, "OPTIONS", c.NonInheritedFlags())
	manualFlags(&b, "GLOBAL OPTIONS", c.InheritedFlags())
	if c.Example != "" {
		fmt.Fprintf(&b, "# EXAMPLES\n\n```\n%s\n```\n\n", c.Example)
	}
	if !c.HasParent() {
		fmt.Fprint(&b, "# EXIT STATUS\n\n")
		for _, row := range exitCodes {
			fmt.Fprintf(&b, "**%s**\n: %s\n\n", row.code, plain(row.meaning))
		}
	} else {
		fmt.Fprint(&b, "# SEE ALSO\n\n**mailhaul**(1), which lists the exit codes, too.\n")
	}
	return []byte(b.String())
}

func manualVerbs(b *strings.Builder, c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	fmt.Fprint(b, "# VERBS\n\n")
	for _, verb := range c.Commands() {
		if hasManual(verb) {
			fmt.Fprintf(b, "**%s**\n: %s. See **mailhaul-%s**(1).\n\n", verb.Name(), plain(verb.Short), verb.Name())
		}
	}
}

func manualFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, "# %s\n\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		short := ""
		if f.Shorthand != "" {
			short = "**-" + f.Shorthand + "**, "
		}
		if value != "" {
			value = " *" + plain(value) + "*"
		}
		switch f.DefValue {
		case "", "0", "0s", "false", "[]":
		default:
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, "%s**--%s**%s\n: %s\n\n", short, f.Name, value, plain(text))
	})
}

// prose is help text as Markdown: indented lines stay as they are.
func prose(text, otherwise string) string {
	if text == "" {
		text = otherwise + "."
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "    " + line
		} else {
			lines[i] = plain(line)
		}
	}
	return strings.Join(lines, "\n")
}

var markup = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", `\<`, ">", `\>`, "[", `\[`, "]", `\]`, "`", "\\`", "~", `\~`)

// plain keeps Markdown from finding markup in a text.
func plain(text string) string { return markup.Replace(text) }
