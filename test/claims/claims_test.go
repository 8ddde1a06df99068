package claims

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tables are the headings of docs/reliability.md that are followed by one, and how
// many rows it has.
var tables = map[string]int{
	"What must never happen, and the test that holds it":                 38,
	"Faults, and the test that holds each":                               62,
	"Attacks, and the test that holds each":                              45,
	"What the IMAP library drops or dies on, and the test that holds it": 14,
}

const root = "../.."

func TestEveryClaimHasItsTest(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	next := make(map[string]int)
	heading := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		n, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if tables[heading] == 0 || !strings.HasPrefix(line, "|") || err != nil {
			continue
		}
		if next[heading]++; n != next[heading] || len(cells) != 3 {
			t.Errorf("%s: row %d stands where %d is due, with %d cells", heading, n, next[heading], len(cells))
		}
		checkClaim(t, heading, n, cells[len(cells)-1])
	}
	for heading, rows := range tables {
		if next[heading] != rows {
			t.Errorf("%s: %d rows, want %d", heading, next[heading], rows)
		}
	}
}

// word is a package in backquotes, or a test and perhaps a case of it.
var word = regexp.MustCompile("`([^`]+)`" + `|\b((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([A-Za-z0-9_]+))?`)

// symbol is something in backquotes that is no package.
var symbol = regexp.MustCompile(`^\w+\.\w+$`)

// checkClaim checks the tests of one row: packages in backquotes, and the tests
// behind them that each of those packages has.
func checkClaim(t *testing.T, heading string, n int, held string) {
	var dirs []string
	found, named := 0, false
	for _, m := range word.FindAllStringSubmatch(held, -1) {
		dir, name, sub := m[1], m[2], m[3]
		switch {
		case name != "":
			named = true
			for _, dir := range dirs {
				if !exists(t, dir, name, sub) {
					t.Errorf("%s, %d: %s has no %s", heading, n, dir, m[0])
				}
			}
			if len(dirs) == 0 {
				t.Errorf("%s, %d: %s is in no package", heading, n, name)
			}
		case !symbol.MatchString(dir):
			if st, err := os.Stat(filepath.Join(root, dir)); err != nil || !st.IsDir() {
				t.Errorf("%s, %d: there is no package %s", heading, n, dir)
			}
			if named {
				dirs, named = nil, false
			}
			dirs = append(dirs, dir)
			found++
		}
		// What ends in ";" without naming a test is a package as a whole.
		if _, rest, _ := strings.Cut(held, m[0]); strings.HasPrefix(rest, ";") {
			dirs = nil
		}
	}
	if found == 0 && !strings.Contains(held, "not tried: ") {
		t.Errorf("%s, %d: no test, and no reason why", heading, n)
	}
}

// tests are the functions of a directory's tests, and the strings in each and in
// those it calls.
type tests map[string][]string

var known = make(map[string]tests)

// exists tells whether a test is there and, if a case is named, whether a string of
// the test is that name or begins with it.
func exists(t *testing.T, dir, name, sub string) bool {
	if known[dir] == nil {
		known[dir] = read(t, dir)
	}
	texts, ok := known[dir][name]
	if !ok || sub == "" {
		return ok
	}
	want := strings.ReplaceAll(sub, "_", " ")
	for _, s := range texts {
		if s == want || strings.HasPrefix(s, want+" ") {
			return true
		}
	}
	return false
}

func read(t *testing.T, dir string) tests {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	own, all := make(tests), make(tests)
	calls := make(map[string][]string)
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			texts := []string{}
			name := fn.Name.Name
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
						texts = append(texts, s)
					}
				case *ast.CallExpr:
					if f, ok := n.Fun.(*ast.Ident); ok {
						calls[name] = append(calls[name], f.Name)
					}
				}
				return true
			})
			own[name] = texts
		}
	}
	for name, texts := range own {
		all[name] = slices.Clone(texts)
		for _, f := range calls[name] {
			all[name] = append(all[name], own[f]...)
		}
	}
	return all
}
