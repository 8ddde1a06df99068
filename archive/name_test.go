package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"mailhaul/internal/durable"
)

func TestPathExamples(t *testing.T) {
	for mailbox, want := range map[string]string{
		// what is common stays as it is
		"INBOX": "INBOX", "Sent": "Sent", "Archive/2023": "Archive/2023", "2023/01": "2023/01", "Deleted Items": "Deleted Items",
		"Entwürfe": "Entwürfe", "[Gmail]/All Mail": "[Gmail]/All Mail", "Q&A (Old) - 2nd": "Q&A (Old) - 2nd", "収件箱": "収件箱",
		"Отправленные": "Отправленные", "Boîte D'envoi": "Boîte D'envoi", "Übung_A+B=C, 50$": "Übung_A+B=C, 50$", "보낸편지함": "보낸편지함",
		"المرسل": "المرسل", "भेजा": "भेजा", "Étudiants": "Étudiants", "A": "A", "Foo.Bar": "Foo.Bar", "Größe": "Grö%C3%9Fe",
		// case
		"inbox": "inbox%l", "Inbox": "Inbox%s", "InBox": "InBox%ca", "INBOX/INBOX": "INBOX/INBOX",
		"work": "work%l", "TODO": "TODO%u", "eBay": "eBay%c4", "Deleted items": "Deleted items%s", "deleted Items": "deleted Items%c01",
		"a": "a%l", "ÄRGER": "ÄRGER%u", "2nd": "2nd", "2Nd": "2Nd%s", "lists/golang-nuts": "lists%l/golang-nuts%l",
		// characters
		"A:B": "A%3AB", "A\\B": "A%5CB", "100%": "100%25", "A*?\"<>|~": "A%2A%3F%22%3C%3E%7C%7E", "Tab\t": "Tab%09", "\xff": "%FF", "A\x00": "A%00",
		"Entwu\u0308rfe": "Entwu%CC%88rfe", "A\u200dB": "A%E2%80%8DB%u", "A\u202eB": "A%E2%80%AEB%u", "\ufffd": "%EF%BF%BD",
		// what has a meaning of its own
		"cur": "%63ur", "New": "%4Eew", "TMP": "%54MP%u", "new/x": "%6Eew/x%l", ".hidden": "%2Ehidden%l", ".": "%2E", "..": "%2E%2E",
		"X.mbox": "X%2Embox%s", "X.MBOX": "X%2EMBOX%u", "X.lock": "X%2Elock%s", "CON": "%43ON%u", "Con.txt": "%43on.txt%l", "com1": "%63om1",
		"Nul ": "%4Eul%20", "COM10": "COM10%u", "Lpt¹": "%4Cpt¹", "Trail.": "Trail%2E", "Trail ": "Trail%20", " Lead": "%20Lead",
		"dovecot-keywords": "%64ovecot-keywords%l", "Subscriptions": "%53ubscriptions",
		// empty levels
		"": "%_", "/": "%_/%_", "A//B": "A/%_/B", "/A": "%_/A", "A/": "A/%_",
	} {
		got, long := Path(mailbox)
		if got != want || long {
			t.Errorf("%q: %q (%v), want %q", mailbox, got, long, want)
		}
		back, err := Mailbox(got)
		if err != nil || back != mailbox {
			t.Errorf("%q: back as %q, %v", mailbox, back, err)
		}
	}
}

// collisionKey is what the most forgetful file system takes for one name.
func collisionKey(p string) string {
	return norm.NFD.String(cases.Fold().String(norm.NFD.String(p)))
}

// checkPath holds a path against every file system at once.
func checkPath(t interface{ Errorf(string, ...any) }, mailbox string) {
	p, long := Path(mailbox)
	if !fs.ValidPath(p) || !utf8.ValidString(p) || !norm.NFC.IsNormalString(p) || len(p) > maxPath {
		t.Errorf("%q: path %q", mailbox, p)
	}
	for c := range strings.SplitSeq(p, "/") {
		l := strings.ToLower(c)
		if len(c) > maxComponent || strings.ContainsAny(c, "\\:*?\"<>|~\x7f") || strings.ContainsFunc(c, func(r rune) bool { return r < ' ' }) ||
			strings.HasPrefix(c, ".") || strings.HasPrefix(c, " ") || strings.HasSuffix(c, ".") || strings.HasSuffix(c, " ") ||
			strings.HasSuffix(l, ".mbox") || strings.HasSuffix(l, ".lock") || isReserved(l) {
			t.Errorf("%q: component %q", mailbox, c)
		}
	}
	back, err := Mailbox(p)
	switch {
	case long && !errors.Is(err, ErrLongName):
		t.Errorf("%q: long, but %q, %v", mailbox, back, err)
	case !long && (err != nil || back != mailbox):
		t.Errorf("%q: %q comes back as %q, %v", mailbox, p, back, err)
	}
	if !long {
		if back, err := Mailbox(norm.NFD.String(p)); err != nil || back != mailbox {
			t.Errorf("%q: decomposed, it comes back as %q, %v", mailbox, back, err)
		}
	}
}

var hardRunes = []rune("aAbBkKsSſKßẞσςΣiIıİÅÅåµμΜǆǅǄüÜ ./%_:~lusc0129-'’\u0308\u200d\ufe0f\u00adﬁẛṡΐѐЀאָ漢ガ가😀\x00")

func names() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringOfN(rapid.SampledFrom(hardRunes), 0, 12, -1),
		rapid.StringN(0, 40, -1),
		rapid.StringOfN(rapid.SampledFrom([]rune("aB/")), 0, 300, -1),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "octets")) }),
		rapid.SampledFrom([]string{"cur", "CON", "aux.txt", "INBOX", "inbox", ".mbox", "x.mBox", "dovecot", "com¹", "%h", "%_", "%l"}),
	)
}

func TestPathIsReversibleAndSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkPath(t, names().Draw(t, "mailbox")) })
}

// variants are names that a forgetful file system may take for s.
func variants(t *rapid.T, s string) string {
	var b strings.Builder
	for _, r := range s {
		switch rapid.IntRange(0, 5).Draw(t, "how") {
		case 0:
			b.WriteString(strings.ToUpper(string(r)))
		case 1:
			b.WriteString(strings.ToLower(string(r)))
		case 2:
			b.WriteString(norm.NFD.String(string(r)))
		case 3:
			b.WriteString(cases.Fold().String(string(r)))
		case 4:
			b.WriteString(norm.NFC.String(string(r)))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func TestDifferentNamesNeverShareAPath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := names().Draw(t, "a")
		b := variants(t, a)
		if rapid.IntRange(0, 3).Draw(t, "unrelated") == 0 {
			b = names().Draw(t, "b")
		}
		if a == b {
			return
		}
		pa, _ := Path(a)
		pb, _ := Path(b)
		if collisionKey(pa) == collisionKey(pb) {
			t.Errorf("%q and %q: %q and %q", a, b, pa, pb)
		}
	})
}

// Every short word over letters with odd case relations: exhaustive.
func TestShortNamesExhaustively(t *testing.T) {
	letters := []string{"a", "A", "k", "K", "\u212a", "s", "S", "ſ", "ß", "ẞ", "i", "I", "ı", "İ", "ü", "Ü", "u\u0308", "σ", "ς", "Σ", " ", "%", "."}
	seen := map[string]string{}
	for _, a := range letters {
		for _, b := range letters {
			for _, c := range append(letters, "") {
				s := a + b + c
				p, _ := Path(s)
				key := collisionKey(p)
				if other, ok := seen[key]; ok && other != s {
					t.Fatalf("%q and %q share %q", s, other, key)
				}
				seen[key] = s
			}
		}
	}
}

func TestMailboxRefusesWhatPathNeverGives(t *testing.T) {
	for _, p := range []string{"", ".", "..", "a", "A/", "A//B", "%zz", "A%", "A%2", "A%2f", "%41", "Sent%l", "Sent%", "A%lB", "%h00", "cur",
		"eBay%c40", "eBay%c", "Foo%_", "\xff", "A\\B", ".x", "Größe"} {
		if m, err := Mailbox(p); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%q: %q, %v", p, m, err)
		}
	}
}

func TestLongNames(t *testing.T) {
	for _, m := range []string{strings.Repeat("A", 241), strings.Repeat("日", 81), strings.Repeat("a/", 65), strings.Repeat(strings.Repeat("1", 200)+"/", 6)} {
		if p, long := Path(m); !long || len(p) != 42 {
			t.Errorf("%.20q: %q, %v", m, p, long)
		}
		checkPath(t, m)
	}
	if _, long := Path("A" + strings.Repeat("a", 239)); long {
		t.Error("240 octets are not long")
	}
}

func TestNameFile(t *testing.T) {
	r, err := durable.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := strings.Repeat("Very Long/", 100)
	name, _ := Path(long)
	if _, err := FindMailbox(r, name); !errors.Is(err, ErrNotOurs) {
		t.Fatal(err)
	}
	for range 2 {
		if err := KeepName(r, long); err != nil {
			t.Fatal(err)
		}
		if m, err := FindMailbox(r, name); err != nil || m != long {
			t.Fatalf("%q, %v", m, err)
		}
	}
	if err := KeepName(r, "Short"); err != nil {
		t.Fatal(err)
	}
	if m, err := FindMailbox(r, "Short"); err != nil || m != "Short" {
		t.Fatalf("%q, %v", m, err)
	}
	if list, err := r.ReadDir("."); err != nil || len(list) != 1 || list[0].Name() != path.Base(NameFile(name)) {
		t.Fatal(list, err)
	}
	f, err := r.OpenFile(NameFile(name), os.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("Other")); err != nil {
		t.Fatal(err)
	}
	if m, err := FindMailbox(r, name); !errors.Is(err, ErrNotOurs) {
		t.Fatalf("%q, %v", m, err)
	}
}

// The paths of existing archives must not change with the Unicode tables of a new
// Go or x/text: whoever sees this fail must cut rawRanges so that the sum stays.
func TestRawCharactersAreFixed(t *testing.T) {
	h := sha256.New()
	n := 0
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if isRaw(r) {
			n++
			upper, lower := casePair(r)
			fmt.Fprintln(h, r, isCased(r), isCased(r) && r == upper, isCased(r) && r == lower, isWord(r))
		}
	}
	if got, want := hex.EncodeToString(h.Sum(nil))[:16], "2caec80c041f2e74"; got != want {
		t.Errorf("%d characters, sum %s, want %s", n, got, want)
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"INBOX", "a/b", "", "//", "Größe", "cur/New", "CON.x", "\xff\xfe", "x.mbox", "%41", "e\u0301"} {
		f.Add(s, strings.ToUpper(s))
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		checkPath(t, a)
		pa, _ := Path(a)
		pb, _ := Path(b)
		if a != b && collisionKey(pa) == collisionKey(pb) {
			t.Errorf("%q and %q share %q", a, b, pa)
		}
	})
}

func FuzzMailbox(f *testing.F) {
	for _, s := range []string{"INBOX", "work%l", "A%2EB", "%_", "eBay%c4", "%h0123456789012345678901234567890123456789", "%", "%c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		m, err := Mailbox(p)
		if err != nil {
			return
		}
		if again, long := Path(m); long || again != norm.NFC.String(p) {
			t.Errorf("%q is %q, and that is %q", p, m, again)
		}
	})
}
