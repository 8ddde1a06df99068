package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailhaul/fetch"
	fetchimap "mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/test/rig"
	"mailhaul/upload"
	"mailhaul/upload/imap"
)

// order is what a child process is to do, and at which of its steps it is to kill
// itself: a step is a line on the wire, in either direction, or one of the ledger.
type order struct {
	Work work
	Step int
}

// work is one upload: an archive, and where it goes.
type work struct {
	Dir, User string
	Port      int

	trace io.Writer
	hook  func(string)
}

func openVault(dir string, hook func(string)) (*vault.Vault, error) {
	return vault.Open(context.Background(), filepath.Join(dir, "archive"), vault.Options{
		Create: true, Hook: hook, Format: "maildir", StateDir: filepath.Join(dir, "state"),
		Formats: rig.Drivers,
	})
}

func (w work) server() dial.Server {
	s := dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: w.Port, Security: dial.Cleartext, Timeout: 5 * time.Second}
	if w.trace != nil {
		s.Trace = &dial.Trace{W: w.trace}
	}
	return s
}

func (w work) run() (c upload.Counts, err error) {
	v, err := openVault(w.Dir, w.hook)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	d := imap.New(imap.Config{Server: w.server(), Credentials: auth.Credentials{User: w.User, Password: dovecot.Password}, Connections: 1})
	defer func() { err = errors.Join(err, d.Close()) }()
	res, err := upload.Run(context.Background(), upload.Options{
		Destination: d, Messages: upload.FromArchive(v.Ledger, v.Archive), Ledger: v.Ledger, Pause: time.Millisecond,
		Subscribe: true, SendRepaired: true,
	})
	return res.Counts, err
}

// obey does what the order says.
func obey(o order) error {
	s := &rig.Steps{At: o.Step}
	o.Work.trace, o.Work.hook = s, s.Step
	_, err := o.Work.run()
	fmt.Println(s.Count())
	return err
}

// kill runs a child. It tells where it was killed; if it ended before its step,
// killed is false and where is the number of its steps.
func kill(t *testing.T, w work, at int) (where string, killed bool) {
	t.Helper()
	out, killed := rig.Child(t, order{w, at})
	return strings.TrimSpace(out), killed
}

// sample returns which of n steps to try, at most so many.
func sample(n, most int) (list []int) {
	stride := 1
	if !rig.All() {
		stride = max(1, n/most)
	}
	for i := n; i >= 1; i -= stride {
		list = append(list, i)
	}
	return list
}

// source is an account with what is awkward to send once: two equal mails, two with
// one Message-ID, one that is refused and repaired.
func source(t *testing.T, s *dovecot.Server) {
	t.Helper()
	all := letters(6)
	twin := all[4]
	twin.Octets = []byte(strings.Replace(string(twin.Octets), "body", "BODY", 1))
	all = append(all, all[3], twin, dovecot.Message{Date: all[0].Date, Flags: []string{`\Flagged`, "custom"}, Octets: []byte(strings.Repeat("line of a long one\r\n", 3000))})
	must(t, s.Append("source", "INBOX", all...))
	must(t, s.Append("source", "Archive/2022", letters(3)...))
}

// template is an archive of that account; copy it for each run.
func template(t *testing.T, s *dovecot.Server) string {
	t.Helper()
	dir := rig.MemoryDir(t)
	v, err := openVault(dir, nil)
	must(t, err)
	w := work{Port: s.IMAP}
	src := fetchimap.New(fetchimap.Config{Server: w.server(), Credentials: auth.Credentials{User: "source", Password: dovecot.Password}})
	_, err = fetch.Run(t.Context(), fetch.Options{Source: src, Archive: v.Archive, Ledger: v.Ledger})
	must(t, errors.Join(err, src.Close(), v.Close()))
	return dir
}

func fresh(t *testing.T, from string, s *dovecot.Server, user string) work {
	t.Helper()
	dir := rig.MemoryDir(t)
	must(t, os.RemoveAll(dir))
	must(t, os.CopyFS(dir, os.DirFS(from)))
	// Partly filled by hand.
	must(t, s.Append(user, "INBOX", letters(2)...))
	return work{Dir: dir, User: user, Port: s.IMAP}
}

// complete runs on and wants every message once.
func (w work) complete(t *testing.T, s *dovecot.Server, when string) {
	t.Helper()
	var err error
	for range 3 {
		if _, err = w.run(); err == nil {
			break
		}
		if mail.KindOf(err) != mail.KindTemporary {
			t.Fatalf("%s: %v", when, err)
		}
	}
	must(t, err)
	for _, mailbox := range []string{"INBOX", "Archive/2022"} {
		want := copies(t, s, "source", mailbox)
		if got := copies(t, s, w.User, mailbox); !slices.Equal(got, want) {
			t.Fatalf("%s: %s holds %d messages, want %d:\n%s\n%s", when, mailbox, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if c, err := w.run(); err != nil || c.Uploaded+c.Adopted+c.Failed != 0 {
		t.Fatalf("%s: a further run: %+v %v", when, c, err)
	}
	must(t, os.RemoveAll(w.Dir))
}

// servers are destinations of different manners.
var servers = map[string]dovecot.Options{
	"MULTIAPPEND":     {},
	"one by one":      {Extra: "protocol imap {\n  imap_capability = IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE LITERAL+ UIDPLUS NAMESPACE UNSELECT\n}\n"},
	"without UIDPLUS": {Extra: "protocol imap {\n  imap_capability = IMAP4rev1 LITERAL+ NAMESPACE\n}\n"},
	"in lockstep":     {Extra: "protocol imap {\n  imap_capability = IMAP4rev1 UIDPLUS\n}\n"},
}

// The process is killed (SIGKILL) at each line on the wire and each step of the
// ledger.
func TestKilledAtEveryStep(t *testing.T) {
	for name, o := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot.Start(t, o)
			source(t, s)
			from := template(t, s)
			count, _ := kill(t, fresh(t, from, s, "u0"), 0)
			total, err := strconv.Atoi(count)
			must(t, err)
			tried := 0
			for _, n := range sample(total, 5) {
				w := fresh(t, from, s, fmt.Sprint("u", n))
				where, killed := kill(t, w, n)
				if killed {
					tried++
				}
				w.complete(t, s, fmt.Sprintf("killed at step %d (%s)", n, where))
			}
			if tried == 0 {
				t.Error("no run was killed")
			}
			t.Logf("%d kills in %d steps", tried, total)
		})
	}
}

// The connection is cut after so many octets, up and down.
func TestCutAnywhere(t *testing.T) {
	for name, o := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot.Start(t, o)
			source(t, s)
			from := template(t, s)
			measure := func(user string, o relay.Options) (up, down int64) {
				r, err := relay.Start(s.Addr(s.IMAP), o)
				must(t, err)
				defer r.Close()
				w := fresh(t, from, s, user)
				w.Port = r.Port()
				if _, err := w.run(); err != nil && mail.KindOf(err) != mail.KindTemporary {
					t.Errorf("%+v: %v", o, err)
				}
				up, down = r.Octets()
				w.Port = s.IMAP
				w.complete(t, s, fmt.Sprintf("%+v", o))
				return up, down
			}
			up, down := measure("whole", relay.Options{})
			tried := 0
			for _, at := range sample(int(up), 2) {
				tried++
				measure(fmt.Sprint("up", at), relay.Options{CutUp: int64(at), Broken: int64(1 + at%3), Reset: at%2 == 0})
			}
			for _, at := range sample(int(down), 3) {
				tried++
				measure(fmt.Sprint("down", at), relay.Options{CutDown: int64(at), Broken: int64(1 + at%3), Reset: at%2 == 0})
			}
			t.Logf("%d cuts in %d octets up and %d down", tried, up, down)
		})
	}
}
