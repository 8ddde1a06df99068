package layout

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "mailhaul"

// layers says what each package of the product may import of the others. A new
// package needs a line here; a line that grows upwards needs a better idea.
var layers = map[string][]string{
	"mail": {},

	// Engines and contracts know values only.
	"fetch": {"mail"}, "upload": {"mail"}, "clean": {"mail"},
	"archive": {"mail", "internal/durable"},

	// Moving is fetching from one contract and uploading to another, and perhaps
	// cleaning up behind.
	"migrate": {"mail", "fetch", "upload", "clean", "internal/durable"},

	// What a person is told of both sides.
	"compare": {"mail", "internal/headline"},
	"size":    {"mail", "internal/headline"},
	"doctor":  {"mail"},

	// Undoing a deletion is uploading what clean has on record.
	"undo": {"mail", "clean", "upload"},

	// One protocol or format each.
	"fetch/*":   {"mail", "fetch", "internal/imapconn", "internal/auth", "internal/dial"},
	"upload/*":  {"mail", "upload", "internal/imapconn", "internal/auth", "internal/dial"},
	"archive/*": {"mail", "archive", "internal/durable"},

	// What several of them stand on.
	"internal/durable":  {"mail"},
	"internal/dial":     {"mail"},
	"internal/auth":     {"mail"},
	"internal/imapconn": {"mail", "internal/auth", "internal/dial"},
	"internal/ledger":   {"mail", "internal/durable"},
	"internal/vault":    {"mail", "archive", "internal/durable", "internal/ledger"},

	// What the command line stands on.
	"internal/config":    {"mail", "internal/auth", "internal/dial", "internal/durable", "internal/place"},
	"internal/headline":  {},
	"internal/schedule":  {"mail", "internal/durable"},
	"internal/place":     {"mail", "internal/dial"},
	"internal/report":    {"internal/ui"},
	"internal/keyring":   {"mail", "internal/auth"},
	"internal/oauth":     {"mail", "internal/auth", "internal/durable", "internal/keyring"},
	"internal/providers": {},
	"internal/discover":  {"mail", "internal/dial", "internal/place", "internal/providers"},
	"internal/ui":        {"mail"},
	"internal/demo":      {"mail"},
	"internal/history":   {"mail", "internal/durable", "internal/ui"},
	"internal/metrics":   {"mail", "internal/history"},
	"internal/notify":    {"mail", "internal/auth", "internal/dial", "internal/place", "internal/history"},
}

// testOnly are packages the product must not contain.
var testOnly = []string{
	"internal/corpus", "internal/dovecot", "internal/faultfs", "internal/layout", "internal/relay", "internal/testserver",
	"fetch/fetchtest", "upload/uploadtest", "archive/archivetest", "bench", "test/*",
}

// homes says where a library's types may be seen: nowhere else, so that another
// version or another library is a change in one place.
var homes = map[string][]string{
	"github.com/knadh/go-pop3":                  {"fetch/pop3"},
	"github.com/emersion/go-imap/v2":            {"internal/imapconn", "fetch/imap", "upload/imap", "internal/demo"},
	"github.com/emersion/go-mbox":               {"archive/mbox"},
	"github.com/schollz/progressbar/v3":         {"internal/ui"},
	"github.com/spf13/cobra":                    {"cmd/mailhaul"},
	"github.com/BurntSushi/toml":                {"internal/config"},
	"github.com/wneessen/go-mail":               {"internal/notify"},
	"modernc.org/sqlite":                        {"internal/ledger"},
	"golang.org/x/oauth2":                       {"internal/oauth"},
	"github.com/zalando/go-keyring":             {"internal/keyring"},
	"github.com/emersion/go-imap/v2/imapserver": {"internal/demo"},
}

// diskless are packages that never touch a file themselves.
var diskless = []string{"mail", "compare", "size", "doctor", "internal/headline", "internal/report", "fetch", "fetch/*", "upload", "upload/*", "clean", "undo", "archive", "internal/imapconn"}

func TestImports(t *testing.T) {
	seen := 0
	for file, imports := range parse(t) {
		pkg := path.Dir(file)
		if matches(testOnly, pkg) {
			continue
		}
		seen++
		for _, name := range imports {
			checkLibrary(t, file, pkg, name)
			if name == "os" && matches(diskless, pkg) {
				t.Errorf("%s imports os: this package does not touch the disk itself", file)
			}
			inner, ok := strings.CutPrefix(name, module+"/")
			if !ok {
				continue
			}
			if matches(testOnly, inner) {
				t.Errorf("%s imports %s, which is for tests", file, inner)
			}
			if strings.HasPrefix(pkg, "cmd/") {
				continue
			}
			allowed, known := layers[pkg]
			if !known {
				allowed, known = layers[path.Dir(pkg)+"/*"]
			}
			if !known {
				t.Errorf("%s: what may package %s import? Say it in this test", file, pkg)
			} else if !slices.Contains(allowed, inner) {
				t.Errorf("%s imports %s; package %s may import %v", file, inner, pkg, allowed)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d files were looked at", seen)
	}
}

func checkLibrary(t *testing.T, file, pkg, name string) {
	for library, where := range homes {
		if (name == library || strings.HasPrefix(name, library+"/")) && !slices.Contains(where, pkg) {
			t.Errorf("%s imports %s, whose place is %v", file, name, where)
		}
	}
	if pkg == "mail" && strings.Contains(name, ".") {
		t.Errorf("%s imports %s; mail imports the standard library only", file, name)
	}
}

func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return p == pkg || p == path.Dir(pkg)+"/*" })
}

// parse returns the imports of every file that is no test.
func parse(t *testing.T) map[string][]string {
	t.Helper()
	root := filepath.Join("..", "..")
	all := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		var imports []string
		for _, s := range f.Imports {
			p, err := strconv.Unquote(s.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, p)
		}
		all[filepath.ToSlash(rel)] = imports
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
