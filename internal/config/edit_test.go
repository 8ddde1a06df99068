package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailhaul/mail"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "mailhaul", "config.toml")
	home := []Key{
		{Name: "server", Value: "imaps://ada@example.org"},
		{Table: "clean", Name: "older-than", Value: "1y", Comment: "old mail may go\nafter a year"},
		{Name: "archive", Value: `C:\"Mail"`},
		{Name: "connections", Value: int64(2)},
		{Table: "clean", Name: "mailbox", Value: []string{"INBOX", "Lists"}},
		{Table: "clean", Name: "trash", Value: true},
	}
	if err := Add(path, "home", home, nil); err != nil {
		t.Fatal(err)
	}
	want := `# Accounts of mailhaul. Keep this file to yourself: chmod 600.
# Every key is the flag of the same name; mailhaul account show NAME explains.

[account.home]
server = "imaps://ada@example.org"
archive = "C:\\\"Mail\""
connections = 2

[account.home.clean]
# old mail may go
# after a year
older-than = "1y"
mailbox = ["INBOX", "Lists"]
trash = true
`
	if got := text(t, path); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for name, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	// What a person wrote stays.
	mine := strings.Replace(want, "connections = 2", "connections = 2 # mine", 1) + "# the end"
	if err := os.WriteFile(path, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, "b@c.org", []Key{{Name: "server", Value: "pop3s://b@c.org"}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := text(t, path); got != mine+"\n\n[account.\"b@c.org\"]\nserver = \"pop3s://b@c.org\"\n" {
		t.Error(got)
	}
	for name, keys := range map[string][]Key{
		"home": home,                                        // exists
		"x y":  home,                                        // no name
		"c":    {},                                          // no server
		"d":    {{Name: "server"}},                          // no value
		"e":    append(home, Key{Name: "frob", Value: "x"}), // unknown key
	} {
		before := text(t, path)
		if err := Add(path, name, keys, nil); mail.KindOf(err) != mail.KindConfig {
			t.Errorf("%s: %v", name, err)
		}
		if text(t, path) != before {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

const edited = `# top
accounts-at-once = 2

# about home
[account.home] # mine
server = "imaps://a@h" # the server
archive = """
~/Mail/
home""" # odd

[account.home.backup]
mailbox = [
  "INBOX",
  # two
  "[account.work]", # no header
]

# about work
[account.work]
server = "imaps://b@h"

[notify]
to = "a@h"
`

func TestRemove(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"work", strings.Replace(edited, "# about work\n[account.work]\nserver = \"imaps://b@h\"\n\n", "", 1)},
		{"home", "# top\naccounts-at-once = 2\n\n# about work\n[account.work]\nserver = \"imaps://b@h\"\n\n[notify]\nto = \"a@h\"\n"},
	} {
		path := config(t, 0o600, edited)
		if err := Remove(path, tt.name, nil); err != nil {
			t.Fatal(err)
		}
		if got := text(t, path); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
		if err := Remove(path, tt.name, nil); mail.KindOf(err) != mail.KindConfig {
			t.Errorf("removed twice: %v", err)
		}
	}
	inline := "account.a.server = \"imaps://a@h\"\n[account.b]\nserver = \"imaps://a@h\"\n"
	path := config(t, 0o600, inline)
	if err := Remove(path, "a", nil); err == nil || text(t, path) != inline {
		t.Errorf("%v: %s", err, text(t, path))
	}
}

func TestEditKeepsLinks(t *testing.T) {
	path := config(t, 0o600, edited)
	link := filepath.Join(t.TempDir(), "config.toml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := Remove(link, "work", nil); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 || strings.Contains(text(t, path), "[account.work]\n") {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// Whatever the file looks like: after an edit it says what it said before without
// the account, or it is untouched.
func FuzzRemove(f *testing.F) {
	f.Add(edited, "home")
	f.Add("[account.home]\r\nserver = 'imaps://a@h'\r\n", "home")
	f.Add("account.home = {server = 'imaps://a@h'}", "home")
	f.Fuzz(func(t *testing.T, text, name string) {
		d, err := newDraft("x", text)
		if err != nil || !d.has("account", name) {
			return
		}
		before := copyTree(d.doc.tree)
		accounts, ok := before["account"].(map[string]any)
		if !ok {
			return
		}
		if d.remove(name) != nil {
			if d.text() != strings.TrimSuffix(text, "\n")+"\n" {
				t.Fatalf("changed to %q", d.text())
			}
			return
		}
		after, err := read(d.text())
		if err != nil {
			t.Fatalf("%q became %q: %v", text, d.text(), err)
		}
		delete(accounts, name)
		if left, ok := after.tree["account"].(map[string]any); ok {
			delete(left, name)
			after.tree["account"] = left
		} else {
			after.tree["account"] = map[string]any{}
		}
		if !equal(before, after.tree) {
			t.Fatalf("%q became %q", text, d.text())
		}
	})
}
