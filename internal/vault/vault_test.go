package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/archive/maildir"
	"mailhaul/archive/mbox"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

const ada = "imap:ada@example.org@mail.example.org"

// files is a driver as simple as can be: MAILBOX/cur/NUMBER.
type files struct {
	fsys    durable.FS
	anchors archive.Anchors

	mu      sync.Mutex
	n       int
	pending []mail.Receipt
	failing error // what Commit returns
}

func newFiles(fsys durable.FS, anchors archive.Anchors) (archive.Archive, error) {
	return &files{fsys: fsys, anchors: anchors}, nil
}

func (f *files) Append(_ context.Context, in mail.Info, r mail.Octets) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := path.Join(in.Ref.Mailbox, "cur")
	if _, err := durable.MkdirAll(f.fsys, dir); err != nil {
		return err
	}
	if err := f.anchors.MarkOpen(in.Ref.Mailbox, mail.Anchor{}); err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.n++
	name := path.Join(dir, fmt.Sprintf("%d.%d:2,S", time.Now().UnixNano(), f.n))
	if err := durable.WriteFileAtomic(f.fsys, name, b); err != nil {
		return err
	}
	f.pending = append(f.pending, mail.Receipt{Info: in, Place: name, Sums: r.Sums()})
	return nil
}

func (f *files) Commit(context.Context) (archive.Group, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := archive.Group{Receipts: f.pending, Anchors: map[string]archive.Anchor{}}
	f.pending = nil
	for _, rc := range g.Receipts {
		g.Anchors[rc.Info.Ref.Mailbox] = archive.Anchor{}
	}
	return g, f.failing
}

func (f *files) Mailboxes(context.Context) (list []string, err error) {
	err = walk(f.fsys, ".", func(name string, isDir bool) error {
		if isDir && path.Base(name) == "cur" {
			list = append(list, path.Dir(name))
		}
		return nil
	})
	return list, err
}

func (f *files) Recover(ctx context.Context, mailbox string, _ archive.Anchor, known func(string) bool) (found archive.Found, err error) {
	for rc, err := range f.Receipts(ctx, mailbox) {
		if err != nil {
			return found, err
		}
		if !known(rc.Place) {
			found.Receipts = append(found.Receipts, rc)
		}
	}
	return found, nil
}

func (f *files) Receipts(_ context.Context, mailbox string) iter.Seq2[mail.Receipt, error] {
	return func(yield func(mail.Receipt, error) bool) {
		entries, err := f.fsys.ReadDir(path.Join(mailbox, "cur"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			yield(mail.Receipt{}, err)
			return
		}
		for _, e := range entries {
			rc := mail.Receipt{Info: mail.Info{Ref: mail.Ref{Mailbox: mailbox}}, Place: path.Join(mailbox, "cur", e.Name())}
			r, err := f.fsys.OpenFile(rc.Place, os.O_RDONLY)
			if err == nil {
				rc.Sums, err = mail.SumCanonical(r)
				err = errors.Join(err, r.Close())
			}
			if !yield(rc, err) {
				return
			}
		}
	}
}

func (f *files) Open(_ context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	return f.fsys.OpenFile(rc.Place, os.O_RDONLY)
}

func (f *files) Close() error { return nil }

func options(t *testing.T) Options {
	t.Helper()
	return Options{Create: true, StateDir: filepath.Join(t.TempDir(), "state"), Formats: map[string]Constructor{
		"maildir": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
			return maildir.New(fsys, a, maildir.Options{})
		},
		"mbox": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
			return mbox.New(fsys, a, mbox.Options{})
		},
	}}
}

func open(t *testing.T, dir string, o Options) *Vault {
	t.Helper()
	v, err := Open(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func put(t *testing.T, v *Vault, account, mailbox string, bodies ...string) {
	t.Helper()
	group := appendTo(t, v, account, mailbox, bodies...)
	c := mail.Change{Anchors: group.Anchors}
	for _, rc := range group.Receipts {
		c.Archived = append(c.Archived, mail.Archived{Receipt: rc})
	}
	if err := v.Ledger.Record(context.Background(), c); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, v *Vault, account, mailbox string, bodies ...string) archive.Group {
	t.Helper()
	for i, body := range bodies {
		in := mail.Info{Ref: mail.Ref{Account: account, Mailbox: mailbox, UIDValidity: 1, UID: fmt.Sprint(i + 1)},
			InternalDate: time.Unix(1700000000, 0).UTC(), DateFrom: mail.DateInternal}
		if err := v.Archive.Append(context.Background(), in, mail.NewCanonical(strings.NewReader(body), nil)); err != nil {
			t.Fatal(err)
		}
	}
	group, err := v.Archive.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return group
}

func held(t *testing.T, v *Vault, mailbox string) (list []mail.Held) {
	t.Helper()
	err := v.Ledger.Messages(context.Background(), mailbox, func(h mail.Held) error { list = append(list, h); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func wantKind(t *testing.T, err error, kind mail.Kind) {
	t.Helper()
	if err == nil || mail.KindOf(err) != kind || mail.HintOf(err) == "" {
		t.Errorf("kind %v, want %v; hint %q: %v", mail.KindOf(err), kind, mail.HintOf(err), err)
	}
}

func openErr(t *testing.T, dir string, o Options) error {
	t.Helper()
	v, err := Open(context.Background(), dir, o)
	if err == nil {
		v.Close()
	}
	return err
}

func eachFormat(t *testing.T, f func(t *testing.T, o Options)) {
	for _, format := range []string{"maildir", "mbox"} {
		t.Run(format, func(t *testing.T) {
			o := options(t)
			o.Format = format
			f(t, o)
		})
	}
}

func TestOpenAgain(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		dir := filepath.Join(t.TempDir(), "a", "b")
		v := open(t, dir, o)
		put(t, v, ada, "INBOX", "A: 1\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n")
		if err := errors.Join(v.Close(), v.Close()); err != nil {
			t.Fatal(err)
		}
		want := o.Format
		o.Format = ""
		v = open(t, dir, o)
		if v.Format() != want || len(held(t, v, "INBOX")) != 2 {
			t.Errorf("format %q, %d messages", v.Format(), len(held(t, v, "INBOX")))
		}
		if a, err := v.Ledger.Anchor(context.Background(), "INBOX"); err != nil || a.Open {
			t.Errorf("anchor %+v %v after a clean end", a, err)
		}
		v.Close()
		o.Format = map[string]string{"maildir": "mbox", "mbox": "maildir"}[want]
		wantKind(t, openErr(t, dir, o), mail.KindUsage)
	})
}

func TestWhatIsNoArchive(t *testing.T) {
	o := options(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantKind(t, openErr(t, dir, o), mail.KindUsage)
	wantKind(t, openErr(t, file, o), mail.KindUsage)
	o.Create = false
	missing := filepath.Join(dir, "missing")
	wantKind(t, openErr(t, missing, o), mail.KindUsage)
	if _, err := os.Lstat(missing); err == nil {
		t.Error("made")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Error("something was left in a directory that is no archive")
	}
}

func TestLock(t *testing.T) {
	o, dir := options(t), t.TempDir()
	v := open(t, dir, o)
	wantKind(t, openErr(t, dir, o), mail.KindTemporary)
	ro := o
	ro.ReadOnly = true
	wantKind(t, openErr(t, dir, ro), mail.KindTemporary)
	v.Close()
	a, b := open(t, dir, ro), open(t, dir, ro)
	wantKind(t, openErr(t, dir, o), mail.KindTemporary)
	a.Close()
	done := make(chan error)
	wait := o
	wait.LockWait = time.Minute
	go func() {
		v, err := Open(context.Background(), dir, wait)
		if err == nil {
			err = v.Close()
		}
		done <- err
	}()
	b.Close()
	if err := <-done; err != nil {
		t.Errorf("waiting for the lock: %v", err)
	}
}

func TestUnmounted(t *testing.T) {
	o, dir := options(t), filepath.Join(t.TempDir(), "archive")
	v := open(t, dir, o)
	put(t, v, ada, "INBOX", "x\r\n")
	v.Close()
	moved := dir + ".moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	wantKind(t, openErr(t, dir, o), mail.KindDisk) // nothing there
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wantKind(t, openErr(t, dir, o), mail.KindDisk) // an empty mount point
	if v := open(t, moved, o); len(held(t, v, "INBOX")) != 1 {
		t.Error("a moved archive does not work")
	}
	o.New = true
	open(t, dir, o).Close()
	o.New, o.StateDir = false, "/dev/null/none" // a state directory is no necessity
	open(t, filepath.Join(t.TempDir(), "other"), o).Close()
}

func TestUnmountedUnderTheRun(t *testing.T) {
	o, dir := options(t), filepath.Join(t.TempDir(), "archive")
	v := open(t, dir, o)
	put(t, v, ada, "INBOX", "x\r\n")
	if err := v.Check(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	_, err := v.Archive.Commit(context.Background())
	wantKind(t, err, mail.KindDisk)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wantKind(t, v.Check(), mail.KindDisk)
}

func TestLedgerLost(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		lose := map[string]func(t *testing.T, own string){
			"ledger missing": func(t *testing.T, own string) { remove(t, filepath.Join(own, "ledger.sqlite")) },
			"ledger damaged": func(t *testing.T, own string) {
				if err := os.WriteFile(filepath.Join(own, "ledger.sqlite"), []byte("?"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			"ledger and mark missing": func(t *testing.T, own string) {
				remove(t, filepath.Join(own, "ledger.sqlite"))
				remove(t, filepath.Join(own, markName))
			},
			"all missing": remove,
		}
		for name, lose := range lose {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				v := open(t, dir, o)
				put(t, v, ada, "INBOX", "A: 1\r\n\r\nx\r\n", "A: 1\r\n\r\nx\r\n", "A: 2\r\n\r\ny\r\n")
				put(t, v, ada, "Sent", "A: 3\r\n\r\nz\r\n")
				before := held(t, v, "INBOX")
				v.Close()
				lose(t, filepath.Join(dir, Dir))
				o := o
				o.Format = ""
				warnings := 0
				o.Notify = func(e mail.Event) {
					if e.Kind == mail.EventWarning && e.Err != nil {
						warnings++
					}
				}
				v = open(t, dir, o)
				after := held(t, v, "INBOX")
				if len(after) != len(before) || len(held(t, v, "Sent")) != 1 || warnings == 0 {
					t.Fatalf("%d messages of %d, %d warnings", len(after), len(before), warnings)
				}
				var digests [2][]string
				for i := range before {
					digests[0] = append(digests[0], before[i].Receipt.Digest.String())
					digests[1] = append(digests[1], after[i].Receipt.Digest.String())
				}
				slices.Sort(digests[0])
				slices.Sort(digests[1])
				if !slices.Equal(digests[0], digests[1]) {
					t.Error("other messages")
				}
				v.Close()
				warnings = 0
				if v = open(t, dir, o); len(held(t, v, "INBOX")) != 3 || warnings != 0 {
					t.Errorf("%d messages, %d warnings when opened again", len(held(t, v, "INBOX")), warnings)
				}
			})
		}
	})
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
}

// A run killed between commit and record costs nothing: the message is known by
// content.
func TestKilledBeforeRecord(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		dir := t.TempDir()
		v := open(t, dir, o)
		put(t, v, ada, "INBOX", "A: 1\r\n\r\nx\r\n")
		appendTo(t, v, ada, "INBOX", "A: 2\r\n\r\ny\r\n")
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		// Committed and never recorded: the mark stays for the next run.
		v = open(t, dir, o)
		n := len(held(t, v, "INBOX"))
		s, err := v.Verify(context.Background(), func(f Finding) { t.Errorf("%+v", f) })
		// An mbox is cut back to its record, a Maildir keeps what is whole.
		if want := map[string]int{"maildir": 2, "mbox": 1}[o.Format]; n != want || err != nil || !s.Whole() || s.Verified != int64(n) {
			t.Errorf("%d messages, %+v %v", n, s, err)
		}
		if a, _ := v.Ledger.Anchor(context.Background(), "INBOX"); a.Open {
			t.Error("still marked open")
		}
	})
}

func TestFailedCommitKeepsTheMark(t *testing.T) {
	o, dir := options(t), t.TempDir()
	o.Formats["maildir"] = newFiles
	v := open(t, dir, o)
	put(t, v, ada, "INBOX", "x\r\n")
	v.raw.(*files).failing = errors.New("disk")
	if _, err := v.Archive.Commit(context.Background()); err == nil {
		t.Fatal("no error")
	}
	v.Close()
	o.ReadOnly = true
	v = open(t, dir, o)
	if a, err := v.Ledger.Anchor(context.Background(), "INBOX"); err != nil || !a.Open {
		t.Errorf("%+v %v", a, err)
	}
}

func TestVerify(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		dir := t.TempDir()
		v := open(t, dir, o)
		var bodies []string
		for i := range 40 {
			bodies = append(bodies, fmt.Sprintf("A: %d\r\n\r\n%s\r\n", i, strings.Repeat("body ", i)))
		}
		put(t, v, ada, "INBOX", bodies...)
		put(t, v, ada, "Archive/2023", bodies[:5]...)
		s, err := v.Verify(context.Background(), func(f Finding) { t.Errorf("%+v", f) })
		if err != nil || !s.Whole() || s.Messages != 45 || s.Verified != 45 || s.Mailboxes != 2 || s.Octets == 0 {
			t.Fatalf("%+v %v", s, err)
		}
		if s, err := v.VerifyWith(context.Background(), VerifyOptions{Report: func(f Finding) { t.Errorf("%+v", f) }}); err != nil || s.Skipped != 45 || s.Verified != 0 {
			t.Errorf("%+v %v", s, err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := v.Verify(ctx, func(Finding) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
		for _, name := range []string{"dovecot-uidlist", "maildirfolder", ".mh_sequences", "INBOX.mbox.lock", "letter.txt"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		damage(t, v, dir)
		var got []string
		s, err = v.Verify(context.Background(), func(f Finding) {
			what := f.Kind.String()
			if f.Kind == Extra {
				what += " " + f.Place
			}
			got = append(got, what)
		})
		slices.Sort(got)
		want := map[string][]string{
			"maildir": {"altered", "extra letter.txt", "missing"},
			"mbox":    {"altered", "extra letter.txt"},
		}[o.Format]
		if err != nil || s.Whole() || !slices.Equal(got, want) {
			t.Errorf("%q, want %q; %+v %v", got, want, s, err)
		}
	})
}

// onDisk finds the file of a Maildir place, whatever its flags.
func onDisk(t *testing.T, dir, place string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, place) + "*")
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q %v", place, found, err)
	}
	return found[0]
}

// damage changes one octet, and removes a message where that is a file.
func damage(t *testing.T, v *Vault, dir string) {
	t.Helper()
	list := held(t, v, "INBOX")
	place, at := list[7].Receipt.Place, 5
	if i := strings.Index(place, ".mbox#"); i >= 0 {
		place = place[:i+len(".mbox")]
		b, err := os.ReadFile(filepath.Join(dir, place))
		if err != nil {
			t.Fatal(err)
		}
		at = strings.Index(string(b), "A: 7\n") + len("A: 7\n\nbo")
	} else {
		remove(t, onDisk(t, dir, list[3].Receipt.Place))
		place = strings.TrimPrefix(onDisk(t, dir, place), dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, place), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("#"), int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnly(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		dir := t.TempDir()
		v := open(t, dir, o)
		put(t, v, ada, "INBOX", "x\r\n")
		v.Close()
		if err := os.Chmod(filepath.Join(dir, Dir), 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(filepath.Join(dir, Dir), 0o700)
		o.ReadOnly = true
		v = open(t, dir, o)
		if _, err := v.Archive.Commit(context.Background()); mail.KindOf(err) != mail.KindDisk {
			t.Errorf("commit: %v", err)
		}
		if s, err := v.Verify(context.Background(), func(f Finding) { t.Errorf("%+v", f) }); err != nil || s.Verified != 1 {
			t.Errorf("%+v %v", s, err)
		}
	})
}

func TestAdmit(t *testing.T) {
	v := open(t, t.TempDir(), options(t))
	if err := v.Admit("imap:bob@x", false); err != nil {
		t.Errorf("into an empty archive: %v", err)
	}
	put(t, v, ada, "INBOX", "x\r\n")
	for account, admitted := range map[string]bool{
		ada:                                     true,
		"pop3:ada@example.org@mail.example.org": true,
		"imap:ada@example.org@other.host":       true,
		"imap:ADA@Example.org@other.host":       true,
		"pop3:ada@mail.example.org":             true, // user "ada"
		"imap:bob@example.org@mail.example.org": false,
		"imap:ada@other.org@mail.example.org":   false,
		"imap:adam@mail.example.org":            false,
	} {
		err := v.Admit(account, false)
		if admitted != (err == nil) {
			t.Errorf("%s: %v", account, err)
		}
		if err != nil {
			wantKind(t, err, mail.KindUsage)
		}
		if err := v.Admit(account, true); err != nil {
			t.Errorf("%s with merge: %v", account, err)
		}
	}
}

func TestNewerVersion(t *testing.T) {
	o, dir := options(t), t.TempDir()
	open(t, dir, o).Close()
	if err := os.WriteFile(filepath.Join(dir, Dir, markName), []byte("mailhaul archive 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantKind(t, openErr(t, dir, o), mail.KindConfig)
}

func TestNothingNewChangesNothing(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		dir := t.TempDir()
		v := open(t, dir, o)
		put(t, v, ada, "INBOX", "x\r\n")
		v.Close()
		state := func() (list []string) {
			err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := os.ReadFile(name)
				st, serr := d.Info()
				list = append(list, fmt.Sprintf("%s %x %v %v", name, b, st.ModTime(), st.Mode()))
				return errors.Join(err, serr)
			})
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		before := state()
		v = open(t, dir, o)
		if _, err := v.Archive.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		v.Close()
		if !slices.Equal(before, state()) {
			t.Error("files changed")
		}
		if runtime.GOOS != "windows" {
			for _, s := range before {
				if !strings.HasSuffix(s, "-rw-------") {
					t.Errorf("mode: %s", s[len(s)-10:])
				}
			}
		}
	})
}

// A checked copy of the ledger is made when the last one is a week old.
func TestKeepCopy(t *testing.T) {
	dir, o := filepath.Join(t.TempDir(), "Mail"), options(t)
	v := open(t, dir, o)
	bak := filepath.Join(dir, Dir, "ledger.bak")
	age := func(name string, d time.Duration) {
		t.Helper()
		when := time.Now().Add(-d)
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	keep := func() (made bool) {
		t.Helper()
		before, _ := os.Stat(bak)
		if err := v.KeepCopy(context.Background(), func(e mail.Event) { t.Error(e.Err) }); err != nil {
			t.Fatal(err)
		}
		after, _ := os.Stat(bak)
		return after != nil && (before == nil || !os.SameFile(before, after))
	}
	if keep() {
		t.Error("a new archive needs no copy yet")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	age(filepath.Join(dir, Dir, markName), 8*24*time.Hour)
	v = open(t, dir, o)
	defer v.Close()
	for i, c := range []struct {
		age  time.Duration
		made bool
	}{{0, true}, {0, false}, {6 * 24 * time.Hour, false}, {8 * 24 * time.Hour, true}, {-time.Hour, true}} {
		if i > 0 {
			age(bak, c.age)
		}
		if made := keep(); made != c.made {
			t.Errorf("%v old: made %v", c.age, made)
		}
	}
	// Without space the run goes on.
	age(bak, 8*24*time.Hour)
	if err := os.Mkdir(filepath.Join(dir, Dir, "ledger.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Dir, "ledger.new", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	told := 0
	if err := v.KeepCopy(context.Background(), func(mail.Event) { told++ }); err != nil || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
}
