package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"mailhaul/fetch"
	"mailhaul/mail"
	"mailhaul/upload"
)

// A mailbox of the destination is complete if everything of the states its sources
// had was sent, under one UIDVALIDITY. Then a run in which nothing changed at the
// source need not look at the ledger's messages.

// noteKey is another than it was: "complete" was noted of some that were not.
func noteKey(account, to string) string { return "all sent " + account + " " + to }

// nextKey is the key of the UIDNEXT that such a mailbox had: if it has a lower one,
// it was set back.
func nextKey(account, to string) string { return "uidnext " + account + " " + to }

// completeness is the note about a mailbox, "" if nothing can be concluded.
func (m *mover) completeness(validity uint32, from []string) string {
	if validity == 0 || !m.Selection.All() {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d", validity)
	for _, name := range slices.Sorted(slices.Values(from)) {
		i := slices.IndexFunc(m.mailboxes, func(mb mail.Mailbox) bool { return mb.Name == name })
		if i < 0 || m.mailboxes[i].State == "" {
			return ""
		}
		fmt.Fprintf(&b, " %q %s", name, m.mailboxes[i].State)
	}
	return b.String()
}

// isComplete tells whether there is nothing to do for a mailbox.
func (m *mover) isComplete(to string, validity uint32, from []string) bool {
	want := m.completeness(validity, from)
	if want == "" {
		return false
	}
	for _, name := range from {
		i := slices.IndexFunc(m.mailboxes, func(mb mail.Mailbox) bool { return mb.Name == name })
		state, err := m.Ledger.Cursor(m.ctx, m.Source.Account(), name)
		if err != nil || state != m.mailboxes[i].State {
			return false
		}
	}
	note, err := m.Ledger.Note(m.ctx, noteKey(m.account(), to))
	return err == nil && note == want && !m.setBack(to)
}

// setBack tells whether the destination's mailbox will give UIDs that it gave before.
func (m *mover) setBack(to string) bool {
	i := slices.IndexFunc(m.there, func(mb mail.Mailbox) bool { return mb.Name == to })
	note, err := m.Ledger.Note(m.ctx, nextKey(m.account(), to))
	had, _ := strconv.ParseUint(note, 10, 32) // 0: not noted
	return err != nil || i >= 0 && m.there[i].UIDNext != 0 && uint64(m.there[i].UIDNext) < had
}

// noteComplete notes the mailboxes that are complete now.
func (m *mover) noteComplete(got fetch.Result, sent upload.Result) error {
	read := make(map[string]bool)
	for _, mr := range got.Mailboxes {
		read[mr.Name] = mr.Err == nil && mr.Failed == 0 && !mr.More
	}
	notes := make(map[string]string)
	for _, b := range sent.Mailboxes {
		done := b.Complete && b.Failed == 0
		for _, name := range b.From {
			done = done && read[name]
		}
		if c := m.completeness(b.UIDValidity, b.From); done && c != "" {
			notes[noteKey(m.account(), b.Name)] = c
			notes[nextKey(m.account(), b.Name)] = strconv.FormatUint(uint64(b.UIDNext), 10)
		}
	}
	if len(notes) == 0 {
		return nil
	}
	return m.Ledger.SetNotes(context.WithoutCancel(m.ctx), notes)
}

// makeEmpty makes the mailboxes that are empty at the source, each once: one that is
// removed at the destination stays away.
func (m *mover) makeEmpty() error {
	there := make(map[string]bool)
	for _, mb := range m.there {
		there[mb.Name] = true
	}
	to := m.stream.Targets()
	var lacking []string
	for _, mb := range m.mailboxes {
		if target, part := to[mb.Name]; part && mb.Messages == 0 && !there[target] {
			lacking = append(lacking, target)
		}
	}
	return m.once("made", lacking, func(target string) error { return m.Destination.Create(m.ctx, target) })
}

// subscribe subscribes at the destination to what is subscribed to at the source,
// each mailbox once: who ends a subscription there is not given it again.
func (m *mover) subscribe() error {
	s, ok := m.Destination.(upload.Subscriber)
	if !ok || len(m.subscribed) == 0 {
		return nil
	}
	var wanted []string
	for _, name := range m.subscribed {
		if target, part := m.stream.Targets()[name]; part {
			wanted = append(wanted, target)
		}
	}
	return m.once("subscribed", wanted, func(target string) error { return s.Subscribe(m.ctx, target) })
}

// once does something for mailboxes of the destination for which it was never done.
// What fails is told, and tried again by the next run.
func (m *mover) once(what string, targets []string, do func(target string) error) error {
	var mu sync.Mutex
	notes := make(map[string]string)
	var g errgroup.Group
	g.SetLimit(m.Upload.Parallel)
	slices.Sort(targets)
	for _, target := range slices.Compact(targets) {
		key := what + " " + m.account() + " " + target
		done, err := m.Ledger.Note(m.ctx, key)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		if done != "" {
			continue
		}
		g.Go(func() error {
			err := do(target)
			switch {
			case m.ctx.Err() != nil:
				return context.Cause(m.ctx)
			case err != nil:
				m.warn(err)
				return nil
			}
			mu.Lock()
			notes[key] = "yes"
			mu.Unlock()
			return nil
		})
	}
	err := g.Wait()
	if len(notes) > 0 {
		err = errors.Join(err, m.Ledger.SetNotes(context.WithoutCancel(m.ctx), notes))
	}
	return err
}
