package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
	"mailhaul/test/rig"
)

// variant is one way to use mailhaul.
type variant struct {
	*world
	scheme, format string
	mode           string
}

// The modes: what is done with mail.
const (
	keep   = "backup"
	clean  = "clean"  // backup, and clean when all is archived
	remove = "delete" // backup --delete
	upload = "upload" // backup, and upload to another account
	// Straight to another account: without an archive where the format is maildir,
	// with one in between where it is mbox.
	migrate = "migrate"
)

var modes = []string{keep, clean, remove, upload, migrate}

func (v variant) name() string { return v.scheme + "-" + v.format + "-" + v.mode }

// frees tells whether the server is emptied.
func (v variant) frees() bool { return v.mode == clean || v.mode == remove }

// moves tells whether another account is filled.
func (v variant) moves() bool { return v.mode == upload || v.mode == migrate }

// archives tells whether there is an archive to look at.
func (v variant) archives() bool { return v.mode != migrate || v.format == "mbox" }

// life is one archive from its beginning over some rounds.
type life struct {
	variant
	user    string
	rig     rig.User
	archive string
	random  *rand.Rand
	ever    rig.Multiset // what the archive must hold, see deliver
	n       int          // messages delivered
	last    []byte       // what the last run that ended well said
	sleeps  int
}

// roundsOfALife is how often mail comes before a new archive is begun.
const roundsOfALife = 4

func (v variant) life(ctx context.Context, n int64) error {
	home := filepath.Join(v.dir, fmt.Sprintf("home-%d", n))
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	l := &life{
		variant: v, user: fmt.Sprintf("soak-%d", n), archive: filepath.Join(home, "archive"),
		rig:    rig.User{Bin: v.bin, Home: home, CAFile: v.server.CAFile, Password: dovecot.Password},
		random: rand.New(rand.NewPCG(v.seed, uint64(n))), ever: rig.Multiset{},
	}
	for range roundsOfALife {
		if v.over(ctx) {
			break
		}
		if err := l.round(ctx); err != nil {
			return fmt.Errorf("%s: %w", home, err)
		}
	}
	return errors.Join(os.RemoveAll(home), os.RemoveAll(v.server.Home(l.user)), os.RemoveAll(v.server.Home(l.dest())))
}

// dest is the account that is filled.
func (l *life) dest() string { return l.user + "-to" }

// mailboxes that mail comes into; POP3 shows the first alone.
func (l *life) mailboxes() []string {
	if l.scheme == "pop3s" {
		return []string{"INBOX"}
	}
	return []string{"INBOX", "Archive/2023", "Entwürfe"}
}

// hazards are those that Dovecot gives back as they came.
var hazards = func() (list []corpus.Hazard) {
	exact := map[string]bool{"dots-at-line-starts": true, "lone-dot-lines": true, "from-lines": true, "quoted-from-lines": true,
		"identical-1": true, "identical-2": true, "doubled-message-id-1": true, "doubled-message-id-2": true, "empty-body": true,
		"trailing-blank-lines": true, "looks-like-pop3": true, "looks-like-imap": true, "line-of-64-KB-around-from": true, "line-of-1-MB": true}
	for _, h := range corpus.Hazards() {
		if exact[h.Name] {
			list = append(list, h)
		}
	}
	return list
}()

// deliver puts mail into the mailboxes. An archive holds as many copies of a
// message as the server ever showed at one time: where it was emptied in between,
// the same message again is not one more.
func (l *life) deliver() error {
	boxes := l.mailboxes()
	shown := rig.Multiset{}
	if !l.frees() {
		shown = l.ever
	}
	for i, box := range boxes {
		var msgs []dovecot.Message
		for k := range l.options.messages / len(boxes) {
			octets := corpus.Generate(corpus.Small, l.n).Octets
			if k%10 == 0 {
				octets = hazards[l.random.IntN(len(hazards))].Octets
			}
			l.n++
			msgs = append(msgs, dovecot.Message{Octets: octets, Date: time.Date(2024, 1, 1, 0, 0, l.n, 0, time.UTC)})
			shown[rig.Message{Mailbox: box, Digest: rig.Digest(rig.Canonical(octets))}]++
		}
		if err := l.server.Append(l.user, box, msgs...); err != nil {
			return fmt.Errorf("deliver to %s: %w", box, err)
		}
		l.tally.messages.Add(int64(len(msgs)))
		if i == 0 && l.scheme == "imaps" && !l.frees() && l.random.IntN(3) == 0 {
			if err := l.server.SetUIDValidity(l.user, box, 1+l.random.Uint32N(1<<30)); err != nil {
				return fmt.Errorf("change UIDVALIDITY: %w", err)
			}
		}
	}
	for m, n := range shown {
		l.ever[m] = max(l.ever[m], n)
	}
	return nil
}

// round delivers mail and works until all of it is archived, and with clean gone
// from the server, with accidents on the way.
func (l *life) round(ctx context.Context) error {
	if err := l.deliver(); err != nil {
		return err
	}
	if l.mode != migrate {
		if err := l.until(ctx, "backup"); err != nil {
			return err
		}
		if err := l.exactlyOnce(ctx); err != nil {
			return err
		}
	}
	if l.moves() {
		if err := l.move(ctx); err != nil {
			return err
		}
	}
	if l.mode == clean {
		if err := l.until(ctx, "clean"); err != nil {
			return err
		}
		if err := l.exactlyOnce(ctx); err != nil {
			return err
		}
	}
	if l.frees() {
		if n, err := l.server.Count(l.user, "INBOX"); err != nil || n > 0 {
			return fmt.Errorf("all is done and %d messages are left (%v): %s", n, err, l.last)
		}
	}
	l.rounds.Add(1)
	if l.mode == migrate {
		return nil // move has done it
	}
	return l.nothingNew(ctx)
}

// move fills the other account with accidents, and twice more without any, which
// changes nothing.
func (l *life) move(ctx context.Context) error {
	if l.random.IntN(4) == 0 {
		if n, err := l.server.Count(l.dest(), "INBOX"); err == nil && n > 0 {
			if err := l.server.SetUIDValidity(l.dest(), "INBOX", 1+l.random.Uint32N(1<<30)); err != nil {
				return fmt.Errorf("change UIDVALIDITY of the destination: %w", err)
			}
		}
	}
	if err := l.until(ctx, l.mode); err != nil {
		return err
	}
	var adopted int64
	there, err := l.arrived()
	if err != nil {
		return err
	}
	if l.archives() {
		if err := l.exactlyOnce(ctx); err != nil {
			return err
		}
	}
	for range 2 { // the first may recognise what arrived; the second knows it
		out, err := l.wellRun(ctx, l.args(l.mode, l.port(), l.server.IMAPS))
		if err != nil {
			return fmt.Errorf("%s once more: %w: %s", l.mode, err, out)
		}
		s, err := parse(out)
		if err != nil || s.Uploaded+s.Failed > 0 {
			return fmt.Errorf("%s once more: %v %s", l.mode, err, out)
		}
		adopted = s.Adopted
	}
	if adopted > 0 {
		return fmt.Errorf("%s recognises the same messages again and again: %d", l.mode, adopted)
	}
	again, err := l.arrived()
	if err == nil && !maps.Equal(there, again) {
		err = fmt.Errorf("%s once more changed the destination", l.mode)
	}
	return err
}

// arrived checks that the other account holds each message exactly once, and
// returns where.
func (l *life) arrived() (map[string]string, error) {
	held, where := rig.Multiset{}, map[string]string{}
	for _, box := range l.mailboxes() {
		at, err := l.server.Messages(l.dest(), box)
		if err != nil {
			return nil, fmt.Errorf("look at the destination: %w", err)
		}
		for _, m := range at {
			digest := rig.Digest(rig.Canonical(m.Octets))
			held[rig.Message{Mailbox: box, Digest: digest}]++
			where[fmt.Sprint(box, " ", m.UID)] = digest
		}
	}
	for m, n := range l.ever {
		if held[m] != n {
			return nil, fmt.Errorf("%s %s arrived %d times instead of %d", m.Mailbox, m.Digest, held[m], n)
		}
	}
	if held.Size() != l.ever.Size() {
		return nil, fmt.Errorf("%d messages arrived, %d delivered", held.Size(), l.ever.Size())
	}
	return where, nil
}

// args are those of a run of verb; dest is the port of the other account.
func (l *life) args(verb string, port, dest int) []string {
	source, to := fmt.Sprintf("%s://%s@127.0.0.1:%d", l.scheme, l.user, port), fmt.Sprintf("imaps://%s@127.0.0.1:%d", l.dest(), dest)
	switch {
	case verb == upload:
		return []string{upload, l.archive, to, "--json"}
	case verb == migrate && l.archives():
		return []string{migrate, source, to, "--json", "--archive", l.format + ":" + l.archive}
	case verb == migrate:
		return []string{migrate, source, to, "--json"}
	}
	a := []string{verb, source, l.archive, "--json"}
	if verb == "clean" {
		return append(a, "--older-than", "0d", "--yes", "--max-delete", "100%")
	}
	if l.mode == remove {
		a = append(a, "--delete")
	}
	return append(a, "--format", l.format)
}

func (l *life) port() int {
	if l.scheme == "pop3s" {
		return l.server.POP3S
	}
	return l.server.IMAPS
}

// until runs a verb, with accidents, until it ends well by itself. Now and then a
// backup comes between two runs of clean.
func (l *life) until(ctx context.Context, verb string) error {
	for try := 0; ; try++ {
		if try > 2000 {
			return fmt.Errorf("%s does not come to its end", verb)
		}
		now := verb
		if verb == "clean" && l.random.IntN(8) == 0 {
			now = "backup"
		}
		done, err := l.accident(ctx, now)
		if err == nil {
			err = l.nothingLost()
		}
		if err != nil {
			return err
		}
		if done && now == verb {
			return nil
		}
	}
}

// accident runs a verb and lets something happen to it, mostly. done says that it
// ended with exit code 0.
func (l *life) accident(ctx context.Context, verb string) (done bool, err error) {
	ports := [2]int{l.port(), l.server.IMAPS} // of the source, of the destination
	l.held(ctx)
	calm := l.over(ctx)
	if !calm && l.random.IntN(6) == 0 {
		side := l.random.IntN(2)
		if !l.moves() {
			side = 0
		}
		r, err := relay.Start(l.server.Addr(ports[side]), relay.Options{
			CutDown: 1 + int64(l.random.ExpFloat64()*150_000), Reset: l.random.IntN(2) == 0, Broken: 1 + l.random.Int64N(4)})
		if err != nil {
			return false, err
		}
		defer r.Close()
		ports[side] = r.Port()
		l.cuts.Add(1)
	}
	// A run that is being killed must end; so must one that is left alone.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.maxTime+10*time.Minute)
	defer cancel()
	cmd := l.rig.Command(bounded, append(l.args(verb, ports[0], ports[1]), "--max-time", l.maxTime.String())...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return false, err
	}
	l.runs.Add(1)
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // the exit code tells
	if !calm && l.random.IntN(10) > 0 {
		l.signal(cmd, ended)
	}
	<-ended
	code := cmd.ProcessState.ExitCode()
	switch {
	case bounded.Err() != nil:
		return false, fmt.Errorf("%s hangs", verb)
	case code == -1:
		l.tally.kills.Add(1)
	case code == 143:
		l.terms.Add(1)
	case code == 0:
		return true, l.count(verb, stdout.Bytes())
	case code != 75 && code != 3:
		return false, fmt.Errorf("%s: exit %d: %s%s", verb, code, stdout.Bytes(), stderr.Bytes())
	case calm && code == 75 && l.asleep(): // the machine slept
	case calm:
		return false, fmt.Errorf("%s, left alone: exit %d: %s%s", verb, code, stdout.Bytes(), stderr.Bytes())
	}
	return false, nil
}

// asleep allows for some runs that nobody disturbed to end with 75: a machine that
// sleeps, or is stopped, lets deadlines pass.
func (l *life) asleep() bool {
	l.sleeps++
	return l.sleeps <= 5
}

// signal ends a run after a while.
func (l *life) signal(cmd *exec.Cmd, ended <-chan struct{}) {
	select {
	case <-time.After(time.Duration(l.random.ExpFloat64() * float64(l.options.pace))):
	case <-ended:
		return
	}
	sig := syscall.SIGKILL
	if l.random.IntN(3) == 0 {
		sig = syscall.SIGTERM
	}
	_ = cmd.Process.Signal(sig) // it may have ended just now
}

type summary struct{ Archived, Uploaded, Adopted, Deleted, Failed, Suspicious int64 }

func parse(stdout []byte) (s summary, err error) {
	lines := bytes.Split(bytes.TrimSpace(stdout), []byte("\n"))
	err = json.Unmarshal(lines[len(lines)-1], &s)
	return s, err
}

func (l *life) count(verb string, stdout []byte) error {
	l.last = stdout
	s, err := parse(stdout)
	if err != nil || s.Failed+s.Suspicious > 0 {
		return fmt.Errorf("%s: exit 0 and %+v (%v)", verb, s, err)
	}
	l.deleted.Add(s.Deleted)
	l.uploaded.Add(s.Uploaded)
	return nil
}

// nothingLost checks, whatever has just been killed, that server and archive
// together hold everything that was ever delivered.
func (l *life) nothingLost() error {
	if !l.frees() {
		return nil // nothing is deleted
	}
	held, _ := rig.Held(l.format, l.archive) // there may be halves of messages
	held = held.Plain()
	if len(l.ever) == len(held) {
		return nil // every kind of message is held: it costs too much to ask the server, too
	}
	for _, box := range l.mailboxes() {
		at, err := l.server.Messages(l.user, box)
		if err != nil {
			return err
		}
		for _, m := range at {
			held[rig.Message{Mailbox: box, Digest: rig.Digest(rig.Canonical(m.Octets))}]++
		}
	}
	for m := range l.ever {
		if held[m] == 0 {
			return fmt.Errorf("LOST: %s %s is neither at the server nor in the archive", m.Mailbox, m.Digest)
		}
	}
	return nil
}

// exactlyOnce checks the archive at rest, by our own reading and by verify.
func (l *life) exactlyOnce(ctx context.Context) error {
	held, err := rig.Held(l.format, l.archive)
	if err != nil {
		return fmt.Errorf("the archive at rest: %w", err)
	}
	held = held.Plain()
	for m, n := range l.ever {
		if held[m] != n {
			return fmt.Errorf("%s %s is held %d times instead of %d", m.Mailbox, m.Digest, held[m], n)
		}
	}
	if held.Size() != l.ever.Size() {
		return fmt.Errorf("%d messages held, %d delivered", held.Size(), l.ever.Size())
	}
	if out, err := l.rig.Command(context.WithoutCancel(ctx), "verify", l.archive).CombinedOutput(); err != nil {
		return fmt.Errorf("verify: %w: %s", err, out)
	}
	return nil
}

// nothingNew runs once more, which may change nothing.
func (l *life) nothingNew(ctx context.Context) error {
	if done, err := l.undisturbed(ctx); err != nil || !done { // cursors may be due
		return fmt.Errorf("once more: %v %w", done, err)
	}
	before, err := rig.Tree(l.archive)
	if err != nil {
		return err
	}
	if done, err := l.undisturbed(ctx); err != nil || !done {
		return fmt.Errorf("once more: %v %w", done, err)
	}
	after, err := rig.Tree(l.archive)
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		return errors.New("a run with nothing new changed the archive")
	}
	return nil
}

func (l *life) undisturbed(ctx context.Context) (bool, error) {
	out, err := l.wellRun(ctx, l.args("backup", l.port(), 0))
	if err != nil {
		return false, fmt.Errorf("%w: %s", err, out)
	}
	s, err := parse(out)
	if err == nil && s.Archived+s.Adopted+s.Failed > 0 {
		err = fmt.Errorf("%+v", s)
	}
	return true, err
}

// wellRun runs mailhaul and lets nothing happen to it.
func (l *life) wellRun(ctx context.Context, args []string) ([]byte, error) {
	for {
		l.held(ctx)
		out, err := l.rig.Command(context.WithoutCancel(ctx), args...).Output()
		l.runs.Add(1)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 75 || !l.asleep() {
			return out, err
		}
	}
}
