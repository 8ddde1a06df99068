package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailhaul/internal/ui"
)

// Notice is one thing to be told.
type Notice struct {
	Occasion string
	Run      Run
	State    State // after the run
}

// Message is a report in words.
type Message struct{ Subject, Body string }

// Compose writes one message of several notices. host is the name of this
// machine. Everything in it is escaped already, or made here.
func Compose(notices []Notice, host string) Message {
	var m Message
	var heads []string
	var body strings.Builder
	for _, n := range notices {
		heads = append(heads, n.head())
		fmt.Fprintf(&body, "%s\n\n", n.text(host))
	}
	const most = 3
	if len(heads) > most {
		heads = append(heads[:most:most], fmt.Sprintf("and %d more", len(heads)-most))
	}
	m.Subject = "mailhaul: " + strings.Join(heads, "; ")
	m.Body = body.String() + "-- \nmailhaul on " + host + ". Who is told of what stands below [notify] in the configuration.\n"
	return m
}

func (n Notice) head() string {
	switch n.Occasion {
	case Failure:
		return n.Run.Account + ": " + n.Run.Command + " failed"
	case Trouble:
		return fmt.Sprintf("%s: trouble, %d times in a row", n.Run.Account, n.State.Wrong)
	case Recovered:
		return n.Run.Account + ": all is well again"
	}
	return n.Run.Account + ": the week"
}

const stamp = "2006-01-02 15:04 MST"

func (n Notice) text(host string) string {
	if n.Occasion == Weekly {
		return n.week()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\nmailhaul %s on %s, begun %s, exit code %d.\n", n.head(), n.Run.Command, host, n.Run.Began.Local().Format(stamp), n.Run.Exit)
	for _, line := range n.Run.Told {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	if !n.Run.good() {
		last := "There was no good run yet."
		if good, ok := n.State.Good[n.Run.Command]; ok {
			last = fmt.Sprintf("The last good run began %s; %d went wrong since.", good.Local().Format(stamp), n.State.Wrong)
		}
		fmt.Fprintln(&b, last)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (n Notice) week() string {
	w := n.State.Week
	wrong := "all went well"
	if w.Wrong > 0 {
		wrong = fmt.Sprintf("%d of them went wrong", w.Wrong)
	}
	text := fmt.Sprintf("%s: the week since %s: %s, %s.\n", n.Run.Account, w.Since.Local().Format(time.DateOnly), ui.Plural(int64(w.Runs), "run"), wrong)
	var counts []string
	for _, key := range []string{"archived", "deleted", "failed", "suspicious"} {
		counts = append(counts, key+" "+ui.Count(w.Counts[key]))
	}
	text += strings.Join(counts, ", ") + "; " + ui.Octets(w.Counts["octets"]) + " in all."
	if len(n.State.Good) > 0 {
		var commands []string
		for c := range n.State.Good {
			commands = append(commands, c)
		}
		slices.Sort(commands)
		for _, c := range commands {
			text += fmt.Sprintf("\nThe last good %s began %s.", c, n.State.Good[c].Local().Format(stamp))
		}
	}
	return text
}
