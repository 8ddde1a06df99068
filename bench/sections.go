package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// section is one table: programs that do the same work over the same line.
type section struct {
	name, title string
	scheme      string
	delay       time.Duration
	bag         mailbag
	runs        int // at most; 0 for as many as asked for
	entrants    []entrant
	targets     []target
}

// target is a ratio that must be reached: the median of what stands to that of
// against, or to a fixed value.
type target struct {
	what    string
	of      string // entrant
	against string // entrant, "" for absolute
	value   func(measured) float64
	unit    string  // of an absolute one
	atMost  float64 // 0: none
	atLeast float64 // 0: none
}

func seconds(m measured) float64 { return m.seconds }
func peakMiB(m measured) float64 { return m.peak }

// slower wants other to take at least times as long as ours.
func slower(other, ours string, times float64) target {
	return target{what: other + " / " + ours, of: other, against: ours, value: seconds, atLeast: times}
}

// within wants ours to take at most times as long as the floor.
func within(ours, floor string, times float64) target {
	return target{what: ours + " / " + floor, of: ours, against: floor, value: seconds, atMost: times}
}

// peakLimit is the memory a run may take, in MiB.
const peakLimit = 48

func modest(ours string) target {
	return target{what: "peak memory of " + ours, of: ours, value: peakMiB, unit: " MiB", atMost: peakLimit}
}

// sections lists everything there is to measure.
func sections(o options) []section {
	n := func(count int) int { return max(1, int(float64(count)*o.scale)) }
	var all []section
	lines := []struct {
		name  string
		delay time.Duration
	}{{"0", 0}, {"slow", o.delay}}
	for _, mix := range []mailbag{{"small", n(5000)}, {"real", n(2000)}} {
		for _, l := range lines {
			for _, scheme := range []string{"pop3s", "imaps"} {
				all = append(all, copying(scheme+"-"+l.name, scheme, l.delay, mix, o.peers))
			}
		}
	}
	for _, l := range lines {
		for _, scheme := range []string{"pop3s", "imaps"} {
			all = append(all, nothingNew(scheme+"-"+l.name, scheme, l.delay, mailbag{"small", n(20_000)}, o.peers))
		}
	}
	if o.peers {
		for _, l := range lines {
			for _, scheme := range []string{"pop3s", "imaps"} {
				all = append(all, slowPeers(scheme+"-"+l.name, scheme, l.delay, mailbag{"small", n(5000)}))
			}
		}
	}
	for _, scheme := range []string{"pop3s", "imaps"} {
		all = append(all, scaling(scheme, mailbag{"small", n(5000)}, mailbag{"small", n(100_000)}))
	}
	for _, scheme := range []string{"pop3s", "imaps"} {
		all = append(all, big(scheme))
	}
	return append(all, manyMailboxes(n(5000)), start())
}

const (
	drainOnly = "drain only"
	oneFile   = "one file, one fsync"
	fsyncEach = "a file and an fsync per message"
	bareList  = "login and list"
	asMbox    = "mailhaul, mbox"
	asMaildir = "mailhaul, Maildir"
)

// copying is the first run into an empty archive.
func copying(suffix, scheme string, delay time.Duration, bag mailbag, peers bool) section {
	s := section{
		name:   bag.kind + "-" + suffix,
		title:  fmt.Sprintf("%s, %d messages, %d ms round trip", strings.ToUpper(scheme), bag.count, 2*delay.Milliseconds()),
		scheme: scheme, delay: delay, bag: bag,
		entrants: []entrant{
			{name: drainOnly, command: drain("discard"), empty: true},
			{name: oneFile, command: drain("one")},
			{name: fsyncEach, command: drain("each")},
			{name: asMbox, floor: oneFile, command: mailhaul("mbox")},
			{name: asMaildir, floor: fsyncEach, command: mailhaul("maildir")},
		},
	}
	mbox, maildir, mpop, mbsync := 1.4, 0.55, 2.5, 3.0
	if delay > 0 {
		mbox, maildir, mpop, mbsync = 1.3, 0.6, 3.2, 2.5
	}
	s.targets = []target{within(asMbox, oneFile, mbox), within(asMaildir, fsyncEach, maildir), modest(asMbox), modest(asMaildir)}
	if !peers {
		return s
	}
	s.entrants = append(s.entrants, installed(fastPeers(scheme))...)
	if scheme == "pop3s" {
		s.targets = append(s.targets, slower("mpop", asMaildir, mpop))
	} else {
		s.targets = append(s.targets, slower("mbsync", asMaildir, mbsync), slower("mbsync, no fsync", asMaildir, 1))
	}
	return s
}

// nothingNew is a run after one that has fetched everything.
func nothingNew(suffix, scheme string, delay time.Duration, bag mailbag, peers bool) section {
	s := section{
		name:   "new-" + suffix,
		title:  fmt.Sprintf("%s, nothing new, %d messages, %d ms round trip", strings.ToUpper(scheme), bag.count, 2*delay.Milliseconds()),
		scheme: scheme, delay: delay, bag: bag,
		entrants: []entrant{
			{name: bareList, command: drain("list"), empty: true},
			{name: asMaildir, floor: bareList, empty: true, prepare: first(mailhaul("maildir")), command: mailhaul("maildir")},
			{name: asMbox, floor: bareList, empty: true, prepare: first(mailhaul("mbox")), command: mailhaul("mbox")},
		},
	}
	if scheme == "pop3s" {
		most := 1.4
		if delay > 0 {
			most = 1.15
		}
		s.targets = []target{within(asMaildir, bareList, most)}
		return s
	}
	if delay > 0 {
		s.targets = []target{{
			what: "round trips of " + asMaildir, of: asMaildir, atMost: 7,
			value: func(m measured) float64 { return m.seconds / (2 * delay).Seconds() },
		}}
	}
	if peers {
		s.entrants = append(s.entrants, installed([]peer{
			{"mbsync", entrant{name: "mbsync", empty: true, prepare: first(mbsync("yes")), command: mbsync("yes")}},
		})...)
		least := 2.0
		if delay > 0 {
			least = 2.2
		}
		s.targets = append(s.targets, slower("mbsync", asMaildir, least))
	}
	return s
}

// slowPeers are those that wait a round trip or start a process for each message.
func slowPeers(suffix, scheme string, delay time.Duration, bag mailbag) section {
	s := section{
		name:   "slow-" + suffix,
		title:  fmt.Sprintf("%s, %d messages, %d ms round trip", strings.ToUpper(scheme), bag.count, 2*delay.Milliseconds()),
		scheme: scheme, delay: delay, bag: bag, runs: 3,
		entrants: append([]entrant{{name: asMaildir, command: mailhaul("maildir")}}, installed(stepwisePeers(scheme))...),
	}
	least := 10.0
	if delay > 0 {
		least = 100
	}
	for _, e := range s.entrants[1:] {
		if scheme == "pop3s" {
			s.targets = append(s.targets, slower(e.name, asMaildir, least))
		} else {
			s.targets = append(s.targets, slower(e.name, asMaildir, 1))
		}
	}
	return s
}

// scaling compares the time for each message of a small and a large mailbox.
func scaling(scheme string, few, many mailbag) section {
	s := section{
		name:   "scale-" + scheme,
		title:  fmt.Sprintf("%s, time and memory from %d to %d messages", strings.ToUpper(scheme), few.count, many.count),
		scheme: scheme, bag: many, runs: 3,
	}
	for _, format := range []string{"mbox", "maildir"} {
		small, large := fmt.Sprintf("%s, %d", format, few.count), fmt.Sprintf("%s, %d", format, many.count)
		again := large + ", nothing new"
		s.entrants = append(s.entrants,
			entrant{name: small, bag: few, command: mailhaul(format)},
			entrant{name: large, command: mailhaul(format), keep: true, slow: many.count},
			entrant{name: again, empty: true, prepare: adopt(large), command: mailhaul(format)})
		factor := float64(many.count) / float64(few.count)
		per := within(large, small, 1.3)
		per.what = format + ", time for each message, many / few"
		per.value = func(m measured) float64 { return m.seconds / float64(m.count) * factor }
		s.targets = append(s.targets, per, modest(large), modest(again))
	}
	return s
}

// big is one message of 200 MB.
func big(scheme string) section {
	s := section{
		name:   "big-" + scheme,
		title:  fmt.Sprintf("%s, one message of %d MB", strings.ToUpper(scheme), bigMessage>>20),
		scheme: scheme, bag: mailbag{"big", 1}, runs: 3,
		entrants: []entrant{
			{name: oneFile, command: drain("one")},
			{name: asMbox, floor: oneFile, command: mailhaul("mbox")},
			{name: asMaildir, floor: oneFile, command: mailhaul("maildir")},
		},
	}
	s.targets = []target{modest(asMbox), modest(asMaildir)}
	return s
}

// manyMailboxes has one message in each.
func manyMailboxes(n int) section {
	s := section{
		name: "boxes", title: fmt.Sprintf("IMAPS, %d mailboxes", n), scheme: "imaps", bag: mailbag{"boxes", n}, runs: 1,
	}
	for _, format := range []string{"mbox", "maildir"} {
		name := "mailhaul, " + format
		s.entrants = append(s.entrants,
			entrant{name: name, command: mailhaul(format), keep: true},
			entrant{name: name + ", nothing new", empty: true, prepare: adopt(name), command: mailhaul(format)})
		s.targets = append(s.targets, modest(name), modest(name+", nothing new"))
	}
	return s
}

// start is the time a process takes before it can do anything.
func start() section {
	s := section{name: "start", title: "start", scheme: "imaps", bag: mailbag{"small", 1}}
	s.entrants = []entrant{{name: "mailhaul --version", empty: true, command: func(p place) (*exec.Cmd, error) {
		return exec.Command(p.tools.mailhaul, "--version"), nil
	}}}
	s.targets = []target{{
		what: "start", of: "mailhaul --version", unit: " ms", atMost: 15,
		value: func(m measured) float64 { return m.seconds * 1000 },
	}}
	return s
}

// print writes the table and returns the lines about targets.
func (s section) print(results [][]measured, octets map[string]int) []string {
	medians := map[string]float64{}
	for i, e := range s.entrants {
		medians[e.name] = median(results[i], seconds)
	}
	fmt.Printf("\n%s: %s", s.name, s.title)
	if n := octets[fmt.Sprint(s.bag.kind, s.bag.count)]; n > 0 {
		fmt.Printf(", %.1f MB", float64(n)/1e6)
	}
	fmt.Printf("\n  %-34s %9s %17s %8s %8s %9s\n", "", "seconds", "least-most", "x floor", "CPU s", "peak MiB")
	for i, e := range s.entrants {
		runs := results[i]
		mark, ratio := " ", ""
		if e.slow > 0 && e.slow < s.bag.count {
			mark = "*"
		}
		if e.floor != "" {
			ratio = fmt.Sprintf("%.2f", medians[e.name]/medians[e.floor])
		}
		least := slices.MinFunc(runs, func(a, b measured) int { return cmp.Compare(a.seconds, b.seconds) })
		most := slices.MaxFunc(runs, func(a, b measured) int { return cmp.Compare(a.seconds, b.seconds) })
		fmt.Printf("  %-34s %8.3f%s %17s %8s %8.2f %9.1f", e.name, medians[e.name], mark,
			fmt.Sprintf("%.3f-%.3f", least.seconds, most.seconds), ratio,
			median(runs, func(m measured) float64 { return m.cpu }), median(runs, peakMiB))
		for _, m := range runs {
			if m.wrong != "" {
				fmt.Printf("  WRONG: %s", m.wrong)
				break
			}
		}
		fmt.Println()
	}
	return s.judge(results)
}

// judge prints what the targets say.
func (s section) judge(results [][]measured) []string {
	find := func(name string) []measured {
		i := slices.IndexFunc(s.entrants, func(e entrant) bool { return e.name == name })
		if i < 0 {
			return nil
		}
		return results[i]
	}
	var lines []string
	for _, t := range s.targets {
		of, against := find(t.of), find(t.against)
		if of == nil || t.against != "" && against == nil {
			continue // not installed
		}
		value := median(of, t.value)
		if against != nil {
			value /= median(against, t.value)
		}
		relation, wanted, met := "<=", t.atMost, value <= t.atMost
		if t.atLeast > 0 {
			relation, wanted, met = ">=", t.atLeast, value >= t.atLeast
		}
		word := "met"
		for _, m := range slices.Concat(of, against) {
			met = met && m.wrong == ""
		}
		if !met {
			word = "MISSED"
		}
		l := fmt.Sprintf("  %-16s %-58s %8.2f%s %s %g  %s\n", s.name, t.what, value, t.unit, relation, wanted, word)
		lines = append(lines, l)
		fmt.Print(l)
	}
	return lines
}

// installed leaves out the programs that are not there.
func installed(peers []peer) []entrant {
	var all []entrant
	for _, p := range peers {
		if _, err := exec.LookPath(p.program); err != nil {
			fmt.Fprintf(os.Stderr, "%s is not installed\n", p.program)
			continue
		}
		all = append(all, p.entrant)
	}
	return all
}
