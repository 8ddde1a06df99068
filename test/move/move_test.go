package move

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/archive/maildir"
	"mailhaul/clean"
	fetchimap "mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/durable"
	"mailhaul/internal/ledger"
	"mailhaul/internal/relay"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/migrate"
	"mailhaul/test/rig"
	"mailhaul/upload"
	destimap "mailhaul/upload/imap"
)

// step is how far the next cut lies behind one at n: octets matter most where the
// commands are.
func step(n int64) int64 {
	if rig.All() {
		return 17 + n/100
	}
	return 400 + 2*n
}

// pass is one run of a migration.
type pass struct {
	User    string
	Source  int // ports
	Dest    int
	Reread  int    // the destination's, for deleting
	Dir     string // of the ledger, or the archive
	Archive bool
	Remove  string // "source", "extra" or ""
	Kill    int64  // at this step of the ledger; 0 for never
}

func TestMain(m *testing.M) {
	rig.Obey(pass.run)
	os.Exit(m.Run())
}

// child runs the pass as a process of its own. killed tells that it was.
func (p pass) child(t *testing.T) (killed bool) {
	t.Helper()
	_, killed = rig.Child(t, p)
	return killed
}

func at(port int) dial.Server {
	return dial.Server{Host: "127.0.0.1", Port: port, Security: dial.Cleartext, Timeout: 10 * time.Second}
}

// kept is what a pass keeps: a ledger, and perhaps an archive.
type kept struct {
	ledger  *ledger.Ledger
	archive migrate.Archive
	close   func() error
}

func (p pass) open() (k kept, err error) {
	var steps atomic.Int64
	hook := func(string) {
		if p.Kill > 0 && steps.Add(1) == p.Kill {
			if self, err := os.FindProcess(os.Getpid()); err == nil {
				_ = self.Kill()
			}
			select {} // until it comes
		}
	}
	if p.Archive {
		v, err := vault.Open(context.Background(), filepath.Join(p.Dir, "archive"), vault.Options{
			Create: true, Hook: hook, StateDir: filepath.Join(p.Dir, "state"),
			Formats: map[string]vault.Constructor{"maildir": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
				return maildir.New(fsys, a, maildir.Options{Host: "host"})
			}},
		})
		if err != nil {
			return k, err
		}
		return kept{v.Ledger, v.Archive, v.Close}, nil
	}
	l, err := ledger.Open(p.Dir, ledger.Options{Format: "maildir", Hook: hook})
	if err != nil {
		return k, err
	}
	return kept{l, nil, l.Close}, l.Rebuilt(context.Background())
}

// run is what the command does.
func (p pass) run() (err error) {
	ctx := context.Background()
	c := auth.Credentials{User: p.User, Password: auth.Secret(dovecot.Password)}
	k, err := p.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	src := fetchimap.New(fetchimap.Config{Server: at(p.Source), Credentials: c, Connections: 2, Pause: time.Millisecond})
	defer src.Close()
	d := destimap.New(destimap.Config{Server: at(p.Dest), Credentials: c, Connections: 2})
	defer d.Close()
	account := migrate.AccountOf(d.Account())
	res, err := migrate.Run(ctx, migrate.Options{
		Source: src, Destination: d, Ledger: k.ledger, Archive: k.archive, Dir: p.Dir, Parallel: 2,
		Upload: upload.Options{Account: account, Parallel: 2, Pause: time.Millisecond},
	})
	if err == nil && res.Failed > 0 {
		err = fmt.Errorf("%d messages failed", res.Failed)
	}
	if err != nil || p.Remove == "" {
		return err
	}
	copies := fetchimap.New(fetchimap.Config{Server: at(p.Reread), Credentials: c, Connections: 2, Pause: time.Millisecond})
	defer copies.Close()
	remove := map[string]func(context.Context, migrate.RemoveOptions) (clean.Result, error){
		"source": migrate.RemoveSource, "extra": migrate.RemoveExtra,
	}[p.Remove]
	_, err = remove(ctx, migrate.RemoveOptions{
		Source: src, Copies: copies, Account: account, Ledger: k.ledger, Dir: p.Dir, Listed: res.Complete, Began: res.Began,
	})
	return err
}

func message(n int, body string, flags ...string) dovecot.Message {
	return dovecot.Message{
		Date: time.Date(2020, 1, 2, 3, 4, n%60, 0, time.UTC), Flags: flags,
		Octets: fmt.Appendf(nil, "From: ada@example.org\r\nMessage-ID: <%d@example.org>\r\nSubject: %d\r\n\r\n%s\r\n", n, n, body),
	}
}

// boxes are the mailboxes of every account here.
var boxes = []string{"INBOX", "Box/inner"}

// scene is two servers and an account that is filled anew for each try.
type scene struct {
	t        *testing.T
	from, to *dovecot.Server
}

func newScene(t *testing.T) *scene {
	return &scene{t, dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})}
}

func (s *scene) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// fill gives a user mail at the source, equal messages and a long one among it.
func (s *scene) fill(user string) {
	s.t.Helper()
	s.do(s.from.Append(user, "INBOX", message(1, "a", `\Seen`), message(2, "twin"), message(2, "twin"), message(3, "b"), message(3, "c"),
		message(4, strings.Repeat("a long message\r\n", 40_000)), message(5, "d", `\Flagged`, "$Forwarded")))
	s.do(s.from.Append(user, "Box/inner", message(11, "a"), message(12, "b"), message(13, "c")))
}

// change is what happens between two passes.
func (s *scene) change(user string, flags bool) {
	s.t.Helper()
	s.do(s.from.Append(user, "INBOX", message(21, "new"), message(22, "new, too")))
	if flags {
		s.do(s.from.Store(user, "INBOX", "2:3", "+FLAGS", `\Answered`))
	}
}

func (s *scene) pass(user, dir string) pass {
	return pass{User: user, Source: s.from.IMAP, Dest: s.to.IMAP, Reread: s.to.IMAP, Dir: dir}
}

// held is what a server has of a user, as a multiset.
func (s *scene) held(at *dovecot.Server, user string) map[string]int {
	s.t.Helper()
	all := make(map[string]int)
	for _, box := range boxes {
		msgs, err := at.Messages(user, box)
		if err != nil && box == "INBOX" {
			s.t.Fatal(err)
		}
		for _, m := range msgs {
			slices.Sort(m.Flags)
			body := m.Octets
			if len(body) > 200 {
				body = append(bytes.Clone(body[:100]), strconv.Itoa(len(body))...)
			}
			all[fmt.Sprintf("%s %v %q %q", box, m.Date.UTC(), m.Flags, body)]++
		}
	}
	return all
}

func compare(t *testing.T, when string, want, got map[string]int) {
	t.Helper()
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%s: %d times, want %d: %s", when, got[k], n, k)
		}
	}
	for k, n := range got {
		if want[k] == 0 {
			t.Errorf("%s: %d times, and should not be there: %s", when, n, k)
		}
	}
}

// Killed at every step of the ledger, the same migration again ends with each message
// at the destination once, whatever it was about to do.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	servers := newScene(t)
	for name, kind := range map[string]struct {
		archive bool
		remove  string
		before  bool // a pass was completed before, and then mail came and flags changed
		lost    bool // and the ledger got lost
	}{
		"first":         {},
		"archive":       {archive: true},
		"delta":         {before: true},
		"ledger-lost":   {before: true, lost: true},
		"delete-source": {remove: "source"},
		"delete-extra":  {before: true, remove: "extra"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scene{t, servers.from, servers.to}
			tried := 0
			for step := 1; ; step += rig.Stride(17) {
				user := fmt.Sprintf("%s-%d", name, step)
				s.fill(user)
				p := s.pass(user, t.TempDir())
				p.Archive = kind.archive
				if kind.before {
					if p.child(t) {
						t.Fatal("killed without being told to")
					}
					s.change(user, !kind.lost)
				}
				if kind.lost { // then whose flags are newer is not known: those there stay
					p.Dir = t.TempDir()
				}
				if kind.remove == "extra" { // lacking in one pass already
					s.do(s.from.Expunge(user, "INBOX", "1,4"))
					if p.child(t) {
						t.Fatal("killed without being told to")
					}
				}
				want := s.held(s.from, user)
				p.Kill, p.Remove = int64(step), kind.remove
				killed := p.child(t)
				if kind.remove == "source" { // what is gone there is at the destination
					left, there := s.held(s.from, user), s.held(s.to, user)
					for k, n := range want {
						if max(left[k], there[k]) < n {
							t.Errorf("step %d: lost: %s", step, k)
						}
					}
				}
				p.Kill = 0
				if p.child(t) {
					t.Fatal("killed without being told to")
				}
				compare(t, fmt.Sprintf("step %d", step), want, s.held(s.to, user))
				if left := s.held(s.from, user); kind.remove == "source" && len(left) > 0 {
					t.Errorf("step %d: left at the source: %v", step, left)
				}
				tried++
				if t.Failed() || !killed {
					break
				}
			}
			t.Logf("%d steps", tried)
		})
	}
}

// Connections are cut on either side, behind so many octets of either direction, once
// or every one; the same migration then ends with each message there once.
func TestCutOnEitherSide(t *testing.T) {
	t.Parallel()
	servers := newScene(t)
	for _, side := range []string{"source-down", "source-up", "dest-up", "dest-down", "reread-down", "delete-up"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			s := &scene{t, servers.from, servers.to}
			where, way, _ := strings.Cut(side, "-")
			remove := ""
			if where == "reread" || where == "delete" {
				remove = "source"
			}
			tried := 0
			for n := int64(40); ; n += step(n) {
				user := fmt.Sprintf("%s-%d", side, n)
				s.fill(user)
				want := s.held(s.from, user)
				p := s.pass(user, t.TempDir())
				if remove != "" { // the first pass goes well
					s.do(p.run())
					p.Remove = remove
				}
				o := relay.Options{Broken: n % 2, Reset: n%4 < 2}
				if way == "up" {
					o.CutUp = n
				} else {
					o.CutDown = n
				}
				port := map[string]*int{"source": &p.Source, "dest": &p.Dest, "reread": &p.Reread, "delete": &p.Source}[where]
				good := *port
				r, err := relay.Start(net.JoinHostPort("127.0.0.1", strconv.Itoa(good)), o)
				s.do(err)
				*port = r.Port()
				err = p.run()
				up, down := r.Octets()
				s.do(r.Close())
				switch mail.KindOf(err) {
				case mail.KindTemporary, mail.KindOther, mail.KindAuth, mail.KindPartial:
				default:
					t.Errorf("%s after %d: %v", side, n, err)
				}
				if got := s.held(s.to, user); err == nil {
					compare(t, fmt.Sprintf("%s after %d, which the run got over", side, n), want, got)
				}
				if remove != "" {
					left, there := s.held(s.from, user), s.held(s.to, user)
					for k, c := range want {
						if max(left[k], there[k]) < c {
							t.Errorf("%s after %d: lost: %s", side, n, k)
						}
					}
				}
				*port = good
				if err := p.run(); err != nil {
					t.Errorf("%s after %d: the next run: %v", side, n, err)
				}
				compare(t, fmt.Sprintf("%s after %d", side, n), want, s.held(s.to, user))
				tried++
				if passed := map[string]int64{"up": up, "down": down}[way]; t.Failed() || passed < n || n > 2_000_000 {
					break
				}
			}
			t.Logf("%d cuts", tried)
		})
	}
}
