package upload

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"mailhaul/mail"
)

// Mapping says how mailboxes are named at the destination.
type Mapping struct {
	Rules        []Rule
	Prefix       string // above all mailboxes, "" for none
	NoSpecialUse bool   // leave \Sent and its like alone
}

// Rule is one --map OLD=NEW. In OLD, `*` stands for anything but "/" and `**` for
// anything; each stands in NEW for what it matched.
type Rule struct{ Old, New string }

// ParseRule reads OLD=NEW.
func ParseRule(s string) (Rule, error) {
	from, to, ok := strings.Cut(s, "=")
	if !ok || from == "" || to == "" {
		return Rule{}, fmt.Errorf("%q is not OLD=NEW", s)
	}
	if stars(to) > stars(from) {
		return Rule{}, fmt.Errorf("%q has more * in the new name than in the old one", s)
	}
	return Rule{Old: from, New: to}, nil
}

var star = regexp.MustCompile(`\*\*?`)

func stars(s string) int { return len(star.FindAllString(s, -1)) }

func (r Rule) apply(name string) (string, bool) {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	rest := 0
	for _, at := range star.FindAllStringIndex(r.Old, -1) {
		b.WriteString(regexp.QuoteMeta(r.Old[rest:at[0]]))
		if at[1]-at[0] == 2 {
			b.WriteString(`(.*)`)
		} else {
			b.WriteString(`([^/]*)`)
		}
		rest = at[1]
	}
	b.WriteString(regexp.QuoteMeta(r.Old[rest:]) + `\z`)
	re, err := regexp.Compile(b.String())
	if err != nil { // not UTF-8
		return r.New, r.Old == name
	}
	found := re.FindStringSubmatch(name)
	if found == nil {
		return "", false
	}
	i := 0
	return star.ReplaceAllStringFunc(r.New, func(string) string {
		i++
		return found[i]
	}), true
}

// Target is where the messages of a mailbox go, and why there.
type Target struct {
	From    string // mailbox of the archive or source
	To      string // mailbox at the destination
	Why     string // "map", "prefix", a SPECIAL-USE attribute, or "" for the same name
	Altered bool   // the destination cannot have the name that was meant
	Exists  bool   // the mailbox is there

	fallback []string // names to be tried if the destination refuses To
}

// Plan tells where each mailbox goes that messages are sent from, as Run decides it.
// there are the mailboxes of the destination, fit is its Fit, and used tells whether
// messages were sent to a mailbox before.
func (m Mapping) Plan(from, there []mail.Mailbox, fit func(string) string, used func(string) bool) []Target {
	return m.plan(from, there, fit, used)
}

// plan decides where each mailbox goes. Mailboxes that were meant to be different
// stay so, unless a rule or a role of RFC 6154 puts them together. used tells that
// messages were sent to a mailbox before: its role then no longer matters, so that
// every run decides alike.
func (m Mapping) plan(from, there []mail.Mailbox, fit func(string) string, used func(string) bool) []Target {
	r := newRoles(there)
	r.add(from)
	exists := make(map[string]bool)
	for _, mb := range there {
		exists[mb.Name] = true
	}
	meant := make(map[string]string) // destination -> name it was made of
	out := make([]Target, 0, len(from))
	for _, mb := range from {
		t := Target{From: mb.Name}
		var want string
		want, t.Why = m.target(mb, r)
		if own := fit(mb.Name); t.Why != "" && t.Why[0] == '\\' && own != want && exists[own] && used(own) {
			want, t.Why = mb.Name, ""
		}
		if strings.EqualFold(want, "INBOX") {
			want = "INBOX"
		}
		t.To = fit(want)
		for old, taken := meant[t.To]; taken && old != want; old, taken = meant[t.To] {
			t.To += "_"
		}
		meant[t.To] = want
		t.Altered = t.To != want
		t.Exists = exists[t.To]
		out = append(out, t)
	}
	m.fallbacks(out, exists, fit, used)
	return out
}

// fallbacks finds the names for mailboxes that are not there, should the
// destination refuse theirs: it is not known in advance what it takes. One that was
// sent to before is the name that an earlier run came to.
func (m Mapping) fallbacks(all []Target, exists map[string]bool, fit func(string) string, used func(string) bool) {
	taken := make(map[string]bool)
	var lacking []string
	for _, t := range all {
		if !t.Exists && !taken[t.To] {
			lacking = append(lacking, t.To)
		}
		taken[t.To] = true
	}
	slices.Sort(lacking)
	type other struct {
		to       string // "": as meant
		fallback []string
	}
	others := make(map[string]other)
	for _, name := range lacking {
		var o other
		for _, n := range otherNames(name) {
			for n = fit(n); taken[n]; {
				n = fit(n + "_")
			}
			taken[n] = true
			o.fallback = append(o.fallback, n)
			if o.to == "" && exists[n] && used(n) {
				o.to = n
			}
		}
		others[name] = o
	}
	for i := range all {
		t := &all[i]
		o, ok := others[t.To]
		if !ok {
			continue
		}
		t.fallback = o.fallback
		if o.to != "" {
			t.To, t.Altered, t.Exists, t.fallback = o.to, true, true, nil
		}
	}
}

// longLevel is how many characters of a level are kept where a name is too long.
const longLevel = 60

// otherNames returns names that stand for one that a server refuses, from the most
// to the least alike: without what is known to be refused, with letters, digits,
// spaces and hyphens only, with such of ASCII only and short.
func otherNames(name string) []string {
	var all []string
	for _, each := range []func(level string) string{plainLevel, wordLevel, asciiLevel} {
		levels := strings.Split(name, "/")
		for i, l := range levels {
			levels[i] = each(l)
		}
		other := strings.Join(levels, "/")
		if other != name && !strings.EqualFold(other, "INBOX") && !slices.Contains(all, other) {
			all = append(all, other)
		}
	}
	return all
}

// plainLevel replaces what some servers refuse: control characters, wildcards and
// what file systems keep for themselves.
func plainLevel(level string) string {
	level = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || strings.ContainsRune("*%\"\\<>:|?~#&", r) {
			return '_'
		}
		return r
	}, level)
	level = strings.Join(strings.Fields(level), " ")
	switch {
	case level == "":
		return "_"
	case level == "cur", level == "new", level == "tmp", level[0] == '.', level[len(level)-1] == '.':
		return "_" + strings.Trim(level, ".") + "_"
	}
	return level
}

func wordLevel(level string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == ' ' || r == '-' {
			return r
		}
		return '_'
	}, plainLevel(level))
}

func asciiLevel(level string) string {
	short := strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII {
			return '_'
		}
		return r
	}, wordLevel(level))
	if len(short) > longLevel {
		short = fmt.Sprintf("%s_%x", short[:longLevel], sha256.Sum256([]byte(level)))[:longLevel+9]
	}
	return short
}

func (m Mapping) target(mb mail.Mailbox, r *roles) (name, why string) {
	for _, rule := range m.Rules {
		if to, ok := rule.apply(mb.Name); ok {
			return to, "map"
		}
	}
	if m.Prefix != "" {
		return strings.Trim(m.Prefix, "/") + "/" + mb.Name, "prefix"
	}
	if !m.NoSpecialUse {
		if role := roleOf(mb); role != "" && r.by[role] != "" {
			return r.by[role], role
		}
	}
	return mb.Name, ""
}

// wellKnown are names that programs and providers give to the mailboxes of a role,
// in lower case. A mailbox of such a name at the top, or below [Gmail], has the
// role if the server does not say otherwise.
var wellKnown = map[string][]string{
	`\Sent`: {"sent", "sent items", "sent messages", "sent mail", "sent-mail", "gesendet", "gesendete elemente", "gesendete objekte",
		"gesendete nachrichten", "envoyés", "éléments envoyés", "messages envoyés", "enviados", "elementos enviados", "mensajes enviados",
		"inviata", "posta inviata", "verzonden", "verzonden items", "verzonden berichten", "wysłane", "elementy wysłane", "skickat", "sendt",
		"itens enviados", "odeslané", "отправленные", "送信済み", "送信済みメール", "送信済みアイテム", "已发送", "已发送邮件", "寄件備份"},
	`\Drafts`: {"drafts", "draft", "entwürfe", "brouillons", "borradores", "bozze", "concepten", "wersje robocze", "szkice", "utkast",
		"kladder", "rascunhos", "koncepty", "черновики", "下書き", "草稿", "草稿箱"},
	`\Trash`: {"trash", "deleted items", "deleted messages", "deleted", "bin", "papierkorb", "gelöscht", "gelöschte elemente", "gelöschte objekte",
		"corbeille", "éléments supprimés", "papelera", "elementos eliminados", "cestino", "posta eliminata", "prullenbak",
		"verwijderde items", "kosz", "elementy usunięte", "papperskorgen", "papirkurv", "lixeira", "itens excluídos", "koš",
		"удаленные", "корзина", "ゴミ箱", "削除済みアイテム", "已删除", "已删除邮件", "垃圾桶"},
	`\Junk`: {"junk", "spam", "junk e-mail", "junk email", "junk mail", "bulk mail", "spamverdacht", "unerwünscht", "junk-e-mail",
		"courrier indésirable", "indésirables", "pourriel", "correo no deseado", "posta indesiderata", "ongewenste e-mail",
		"wiadomości-śmieci", "skräppost", "lixo eletrônico", "спам", "迷惑メール", "垃圾邮件"},
	`\Archive`: {"archive", "archives", "archiv", "archivio", "archief", "archivo", "archiwum", "arkiv", "arquivo", "アーカイブ", "归档"},
}

// gmailRoots hold Gmail's own mailboxes.
var gmailRoots = []string{"[Gmail]/", "[Google Mail]/"}

func isGmail(name string) bool {
	return slices.ContainsFunc(gmailRoots, func(root string) bool { return strings.HasPrefix(name, root) })
}

// roleOf tells a mailbox's role: what the server says, else its name. \All,
// \Flagged and \Important are views of other mailboxes and never a target.
func roleOf(mb mail.Mailbox) string {
	if _, ok := wellKnown[mb.SpecialUse]; ok {
		return mb.SpecialUse
	}
	if mb.SpecialUse != "" {
		return ""
	}
	name := mb.Name
	for _, root := range gmailRoots {
		name = strings.TrimPrefix(name, root)
	}
	name = strings.ToLower(name)
	for role, names := range wellKnown {
		if slices.Contains(names, name) {
			return role
		}
	}
	return ""
}

// roles knows the mailbox of each role at the destination.
type roles struct{ by map[string]string }

func newRoles(there []mail.Mailbox) *roles {
	r := &roles{by: make(map[string]string)}
	for _, mb := range there {
		if mb.SpecialUse != "" && r.by[mb.SpecialUse] == "" {
			r.by[mb.SpecialUse] = mb.Name
		}
	}
	r.add(there)
	return r
}

// add takes for every role that has none the mailbox with the first well-known
// name.
func (r *roles) add(list []mail.Mailbox) {
	for role, names := range wellKnown {
		if r.by[role] != "" {
			continue
		}
		best := len(names) + 1
		for _, mb := range list {
			if roleOf(mb) != role {
				continue
			}
			i := slices.Index(names, strings.ToLower(mb.Name))
			if i < 0 {
				i = len(names) // below [Gmail], or by attribute alone
			}
			if i < best {
				best = i
				r.by[role] = mb.Name
				if isGmail(mb.Name) { // nobody else has such a level
					r.by[role] = strings.TrimPrefix(role, `\`)
				}
			}
		}
	}
}
