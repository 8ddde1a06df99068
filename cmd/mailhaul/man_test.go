package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Each verb has a page, each of its flags stands in it, and roff finds nothing
// to complain about.
func TestManuals(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(&app{})
	root.InitDefaultHelpFlag()
	if err := writeManuals(root, dir); err != nil {
		t.Fatal(err)
	}
	pages := 1
	var verbs []*cobra.Command
	for _, verb := range root.Commands() {
		verbs = append(append(verbs, verb), verb.Commands()...)
	}
	for _, verb := range verbs {
		if !hasManual(verb) {
			continue
		}
		pages++
		text := page(t, dir, verb)
		for _, line := range strings.Split(verb.Flags().FlagUsages(), "\n") {
			_, rest, is := strings.Cut(line, "--")
			if name, _, _ := strings.Cut(rest, " "); is && !strings.Contains(text, "--"+name) {
				t.Errorf("%s: no --%s in its page", verb.Name(), name)
			}
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*.1")); err != nil || len(files) != pages {
		t.Errorf("%d pages for %d verbs: %v", len(files), pages, err)
	}
	if text := page(t, dir, root); !strings.Contains(text, "of silence (default 1m0s)") {
		t.Error("the page of mailhaul lacks the defaults of flags")
	} else if !strings.Contains(text, exitCodes[1].meaning[:20]) {
		t.Error("the page of mailhaul lacks the exit codes")
	}
}

// page is a manual as troff source without its escapes, checked by groff where
// that is installed.
func page(t *testing.T, dir string, c *cobra.Command) string {
	t.Helper()
	name := filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1")
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("groff"); err == nil {
		cmd := exec.Command("groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z", name)
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		if err := cmd.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("groff: %v %s", err, complaints.Bytes())
		}
	}
	return strings.ReplaceAll(string(source), `\`, "")
}

// README tells the same of the exit codes as the manual.
func TestExitCodesInREADME(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range exitCodes {
		if want := "| " + row.code + " | " + row.meaning + " |"; !strings.Contains(strings.ReplaceAll(string(text), "`", ""), want) {
			t.Errorf("README lacks the row %s", want)
		}
	}
}
