package mbox

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/corpus"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// from is a From_ line as mutt writes it.
const from = "From ada@example.org Tue Jan  2 03:04:05 2024\n"

func TestForeignFiles(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		want  []string
		flags []mail.Flags
	}{
		"mutt":             {from + "A: b\nStatus: RO\nX-Status: AF\n\nx\n\n", []string{"A: b\nStatus: RO\nX-Status: AF\n\nx\n"}, []mail.Flags{mail.NewFlags(mail.Seen, mail.Answered, mail.Flagged)}},
		"status in body":   {from + "A: b\n\nStatus: RO\n\n", []string{"A: b\n\nStatus: RO\n"}, []mail.Flags{""}},
		"no separator":     {from + "A: b\n\nx", []string{"A: b\n\nx\n"}, nil},
		"unquoted From":    {from + "A: b\n\nx\nFrom here\n\nFrom there on\n\n" + from + "C: d\n\n", []string{"A: b\n\nx\nFrom here\n\nFrom there on\n", "C: d\n"}, nil},
		"content-length":   {from + "Content-Length: 999\n\nx\n\n" + from + "C: d\n\n\n", []string{"Content-Length: 999\n\nx\n", "C: d\n\n"}, nil},
		"CRLF":             {strings.ReplaceAll(from+"A: b\n\nx\n\n"+from+"C: d\n\n\n", "\n", "\r\n"), []string{"A: b\r\n\r\nx\r\n", "C: d\r\n\r\n"}, nil},
		"garbage in front": {"garbage\n\n" + from + "A: b\n\n\n", []string{"A: b\n\n"}, nil},
		"no mbox":          {"From here on\nnothing\n", nil, nil},
		"dates": {"From a Tue Jan  2 03:04 2024\n\n\nFrom - Tue Jan 2 03:04:05 2024\n\n\nFrom a@b Tue Jan  2 04:04:05 +0100 2024\n\n\nFrom a Tue Jan  2 03:04:05 CET 2024 remote from b\n\n\n",
			[]string{"\n", "\n", "\n", "\n"}, nil},
		"only From_": {from, []string{""}, nil},
		"empty":      {"", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, dir, "INBOX.mbox", c.file)
			a, _ := newArchive(t, dir)
			got, receipts := all(t, a, "INBOX")
			if !slices.Equal(got, c.want) {
				t.Fatalf("read %q, want %q", got, c.want)
			}
			for i, f := range c.flags {
				if receipts[i].Info.Flags != f {
					t.Errorf("flags %q, want %q", receipts[i].Info.Flags, f)
				}
			}
			add(t, a, info("INBOX"), "New: 1\r\n\r\n")
			commit(t, a)
			after, again := all(t, a, "INBOX")
			if !slices.Equal(after, append(c.want, "New: 1\n\n")) {
				t.Errorf("after an append: %q", after)
			}
			for i, rc := range receipts {
				if again[i].Place != rc.Place || again[i].Digest != rc.Digest {
					t.Errorf("message %d moved from %s to %s", i, rc.Place, again[i].Place)
				}
			}
		})
	}
}

// committed makes a closed archive with two messages.
func committed(t *testing.T) (dir string, at archive.Anchor) {
	t.Helper()
	dir = t.TempDir()
	a, _ := newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 1\r\n\r\none\r\n")
	add(t, a, info("INBOX"), "A: 2\r\n\r\ntwo\r\n")
	at = commit(t, a).Anchors["INBOX"]
	closeArchive(t, a)
	return dir, at
}

func appendTo(t *testing.T, dir, text string) {
	t.Helper()
	writeFile(t, dir, "INBOX.mbox", readFile(t, dir, "INBOX.mbox")+text)
}

func TestRecover(t *testing.T) {
	ours := string(encoded(t, []byte("A: 3\n\nthree\n"), ""))
	for name, c := range map[string]struct {
		tail string
		open bool
		all  bool
		want int
	}{
		"nothing":                                {"", false, false, 2},
		"killed":                                 {ours + ours[:len(ours)-5], true, false, 2},
		"killed in a From_":                      {ours[:9], true, false, 2},
		"killed, torn to zeros":                  {strings.Repeat("\x00", 100), true, false, 2},
		"mutt saved":                             {from + "M: 3\n\nthree\n\n", false, true, 3},
		"killed, then saved":                     {ours[:len(ours)-1] + "\n" + from + "M: 3\n\nthree\n\n", true, true, 4},
		"killed in a line, then saved behind it": {ours[:len(ours)-4] + from + "M: 3\n\nthree\n\n", true, true, 3},
		"killed in a line, then saved below it":  {ours[:len(ours)-4] + "\n" + from + "M: 3\n\nthree\n\n", true, true, 3},
		"killed in a long line, then saved":      {ours + strings.Repeat("x", 3*readAhead-7) + from + "M: 3\n\nthree\n\n", true, true, 3},
		"killed behind a quoted From_":           {string(encoded(t, []byte("A: 3\n\n"+from+"B: 4\n\n"), "")), true, false, 2},
		"longer without a mark":                  {ours, false, true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir, at := committed(t)
			at.Open = c.open
			if c.tail != "" {
				appendTo(t, dir, c.tail)
			}
			a, m := newArchive(t, dir)
			found, err := a.Recover(t.Context(), "INBOX", at, nil)
			if err != nil || found.All != c.all || found.Anchor.Open {
				t.Fatalf("%+v, %v", found, err)
			}
			if got, _ := all(t, a, "INBOX"); len(got) != c.want || c.all && len(found.Receipts) != c.want {
				t.Errorf("%d messages, %d receipts, want %d", len(got), len(found.Receipts), c.want)
			}
			add(t, a, info("INBOX"), "A: 4\r\n\r\n")
			commit(t, a)
			if got := m.get("INBOX"); got.Length != found.Anchor.Length || !got.Open {
				t.Errorf("marked %+v, found %+v", got, found.Anchor)
			}
			if got, _ := all(t, a, "INBOX"); len(got) != c.want+1 {
				t.Errorf("%d messages after an append, want %d", len(got), c.want+1)
			}
		})
	}
}

// Recover must not cut a file that was rewritten since the run was killed.
func TestRecoverRewritten(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"shorter": func(s string) string { return s[strings.Index(s, "\n\nFrom ")+2:] },
		"longer":  func(s string) string { return strings.Replace(s, "A: 1\n", "A: 1\nLines: 1\n", 1) },
	} {
		dir, at := committed(t)
		writeFile(t, dir, "INBOX.mbox", change(readFile(t, dir, "INBOX.mbox")))
		before := readFile(t, dir, "INBOX.mbox")
		at.Open = true
		a, _ := newArchive(t, dir)
		if found, err := a.Recover(t.Context(), "INBOX", at, nil); err != nil || !found.All {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		if readFile(t, dir, "INBOX.mbox") != before {
			t.Errorf("%s: file was changed", name)
		}
	}
}

func TestOpenFindsMovedMessage(t *testing.T) {
	dir, at := committed(t)
	a, _ := newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 3\r\n\r\nlonger than the others\r\n")
	commit(t, a)
	closeArchive(t, a)
	a, _ = newArchive(t, dir)
	_, receipts := all(t, a, "INBOX")
	s := readFile(t, dir, "INBOX.mbox")
	writeFile(t, dir, "INBOX.mbox", s[strings.Index(s, "\n\nFrom ")+2:])
	if got := open(t, a, receipts[2]); string(got) != "A: 3\n\nlonger than the others\n" {
		t.Errorf("moved message: %q", got)
	}
	writeFile(t, dir, "INBOX.mbox", from+"M: 1\n\nof another length\n\n")
	for _, rc := range receipts {
		if _, err := a.Open(t.Context(), rc); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("expunged message: %v", err)
		}
	}
	found, err := a.Recover(t.Context(), "INBOX", at, nil)
	if err != nil || !found.All || len(found.Receipts) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestBusy(t *testing.T) {
	dir, _ := committed(t)
	writeFile(t, dir, "INBOX.mbox.lock", "")
	a, m := newArchive(t, dir)
	err := a.Append(t.Context(), info("INBOX"), mail.NewCanonical(strings.NewReader("x\r\n"), nil))
	if mail.KindOf(err) != mail.KindTemporary || mail.HintOf(err) == "" || m.get("INBOX").Open {
		t.Errorf("append under the dotlock of another program: %v", err)
	}
	closeArchive(t, a)
	if readFile(t, dir, "INBOX.mbox.lock") != "" {
		t.Error("lock of another program was touched")
	}
	writeFile(t, dir, "INBOX.mbox.lock", lockMark+"1 x\n") // of a killed run
	a, _ = newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 3\r\n\r\n")
	other, _ := newArchive(t, dir)
	err = other.Append(t.Context(), info("INBOX"), mail.NewCanonical(strings.NewReader("x\r\n"), nil))
	if mail.KindOf(err) != mail.KindTemporary || !errors.Is(err, durable.ErrLocked) {
		t.Errorf("append under the fcntl lock: %v", err)
	}
	commit(t, a)
	closeArchive(t, a)
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

// A program that ignores the locks does not lose what it wrote, and we report
// nothing as archived that may not be there.
func TestChangedUnderneath(t *testing.T) {
	dir := t.TempDir()
	a, _ := newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 1\r\n\r\n")
	commit(t, a)
	appendTo(t, dir, from+"M: 1\n\n\n")
	add(t, a, info("INBOX"), "A: 2\r\n\r\n")
	g, err := a.Commit(t.Context())
	if mail.KindOf(err) != mail.KindTemporary || len(g.Receipts) != 0 {
		t.Errorf("%+v, %v", g, err)
	}
	if err := a.Append(t.Context(), info("INBOX"), mail.NewCanonical(strings.NewReader("x\r\n"), nil)); err == nil {
		t.Error("appended to a file that somebody else changed")
	}
	closeArchive(t, a)
	b, _ := newArchive(t, dir)
	if got, _ := all(t, b, "INBOX"); !slices.Equal(got, []string{"A: 1\n\n", "M: 1\n\n"}) {
		t.Errorf("on disk: %q", got)
	}
}

// Nor is it cut when nothing of ours was committed.
func TestChangedBeforeClose(t *testing.T) {
	dir := t.TempDir()
	a, _ := newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 1\r\n\r\n")
	writeFile(t, dir, "INBOX.mbox", from+"M: 1\n\n\n")
	if err := a.Close(); err == nil {
		t.Error("Close does not say that the file was changed")
	}
	if got := readFile(t, dir, "INBOX.mbox"); got != from+"M: 1\n\n\n" {
		t.Errorf("on disk: %q", got)
	}
}

func TestBeyond2GiB(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "INBOX.mbox", "")
	const size = 5 << 30 // sparse
	if err := os.Truncate(filepath.Join(dir, "INBOX.mbox"), size); err != nil {
		t.Fatal(err)
	}
	a, m := newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 1\r\n\r\n")
	add(t, a, info("INBOX"), "A: 2\r\n\r\n")
	g := commit(t, a)
	if m.get("INBOX").Length != size || g.Anchors["INBOX"].Length <= size {
		t.Errorf("marked %+v, committed %+v", m.get("INBOX"), g.Anchors)
	}
	if got := open(t, a, g.Receipts[1]); string(got) != "A: 2\n\n" {
		t.Errorf("%s: %q", g.Receipts[1].Place, got)
	}
}

// A file replaced by another (Python's mailbox does that) holds nothing of ours.
func TestReplacedUnderneath(t *testing.T) {
	dir := t.TempDir()
	a, _ := newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 1\r\n\r\n")
	writeFile(t, dir, "other", from+"M: 1\n\n\n")
	if err := os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "INBOX.mbox")); err != nil {
		t.Fatal(err)
	}
	if g, err := a.Commit(t.Context()); err == nil || len(g.Receipts) != 0 {
		t.Errorf("%+v, %v", g, err)
	}
	closeArchive(t, a)
	if got := readFile(t, dir, "INBOX.mbox"); got != from+"M: 1\n\n\n" {
		t.Errorf("on disk: %q", got)
	}
}

func TestSender(t *testing.T) {
	for head, want := range map[string]string{
		"Return-Path: <ada@example.org>\n":                "ada@example.org",
		"A: b\nreturn-path:ada@example.org \n":            "ada@example.org",
		"Return-Path: <>\n":                               nobody,
		"\nReturn-Path: <ada@example.org>\n":              nobody,
		"Return-Path: <a b@example.org>\n":                nobody,
		"Return-Path: <a\x00@example.org>\n":              nobody,
		"Return-Path: <\xe4@example.org>\n":               nobody,
		"Return-Path: <a@b\rX-Evil: 1>\n":                 nobody,
		"Return-Path: <ada@example.org":                   nobody,
		"":                                                nobody,
		"Return-Path: " + strings.Repeat("a", 300) + "\n": nobody,
	} {
		if got := sender([]byte(head)); got != want {
			t.Errorf("%.40q: %q, want %q", head, got, want)
		}
	}
}

func TestDateRange(t *testing.T) {
	for _, d := range []time.Time{{}, time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)} {
		line := "From x " + fromDate(d).Format(time.ANSIC) + "\n"
		if _, ok := parseFrom([]byte(line)); !ok {
			t.Errorf("%v: %q is no From_ line", d, line)
		}
	}
}

func TestDiskHints(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, durable.ErrNotRegular} {
		err := diskError("INBOX", "write", "INBOX.mbox", cause)
		if mail.KindOf(err) != mail.KindDisk || mail.HintOf(err) == "" || !errors.Is(err, cause) || !strings.Contains(err.Error(), "write INBOX.mbox") {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

// interopArchive holds the corpus, every other message read and flagged.
func interopArchive(t *testing.T) (dir string, messages int) {
	dir = t.TempDir()
	a, _ := newArchive(t, dir)
	for i, h := range corpus.Hazards() {
		in := info("INBOX")
		if i%2 == 0 {
			in = info("INBOX", mail.Seen, mail.Flagged, "work")
		}
		add(t, a, in, string(h.Octets))
		messages++
	}
	commit(t, a)
	closeArchive(t, a)
	return dir, messages
}

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("MAILHAUL_TEST_REQUIRE") == "1" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func TestPythonReads(t *testing.T) {
	python := program(t, "python3")
	dir, want := interopArchive(t)
	out, err := exec.Command(python, "-c", `
import mailbox, sys
box = mailbox.mbox(sys.argv[1], create=False)
flags = [m.get_flags() for m in box]
print(len(flags), flags.count("ROF"), flags.count(""))
`, filepath.Join(dir, "INBOX.mbox")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f := strings.Fields(string(out))
	if len(f) != 3 || f[0] != strconv.Itoa(want) || f[1] != strconv.Itoa((want+1)/2) || f[2] != strconv.Itoa(want/2) {
		t.Errorf("Python reads %s, want %d messages, %d seen and flagged", out, want, (want+1)/2)
	}
}

var muttCount = regexp.MustCompile(`total=(\d+) flagged=(\d+) `)

func TestMuttReads(t *testing.T) {
	program(t, "mutt")
	script := program(t, "script") // mutt wants a terminal
	dir, want := interopArchive(t)
	rc := filepath.Join(dir, "muttrc")
	writeFile(t, dir, "muttrc", "set status_format=\"total=%m flagged=%F \"\nset folder=\""+dir+"\"\nset spoolfile=/dev/null\n"+
		"set quit=yes\nset move=no\nset mark_old=no\npush <exit>\n")
	cmd := exec.Command(script, "-qec", "mutt -n -R -F '"+rc+"' -f '"+filepath.Join(dir, "INBOX.mbox")+"'", os.DevNull)
	cmd.Env = []string{"TERM=vt100", "HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C", "SHELL=/bin/sh"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%q", err, out)
	}
	got := muttCount.FindSubmatch(out)
	if got == nil || string(got[1]) != strconv.Itoa(want) || string(got[2]) != strconv.Itoa((want+1)/2) {
		t.Errorf("mutt has %q, want %d messages, %d flagged", got, want, (want+1)/2)
	}
}

// The script in docs/formats.md gives the digests.
func TestDigestsAsDocumented(t *testing.T) {
	python := program(t, "python3")
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, script, ok := strings.Cut(string(doc), "```python\n")
	script, _, ok2 := strings.Cut(script, "```")
	if !ok || !ok2 {
		t.Fatal("no script in docs/formats.md")
	}
	dir, _ := interopArchive(t)
	out, err := exec.Command(python, "-c", script, filepath.Join(dir, "INBOX.mbox")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a, _ := newArchive(t, dir)
	_, receipts := all(t, a, "INBOX")
	var want []string
	for _, rc := range receipts {
		want = append(want, rc.Digest.String())
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		t.Errorf("the script prints %d digests that differ from the %d of the archive", len(got), len(want))
	}
}
