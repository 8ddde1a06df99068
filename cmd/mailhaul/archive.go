package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mailhaul/internal/config"
	"mailhaul/internal/place"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// archivePlace reads an archive as typed, or finds that of an account; format is
// what --format says, "" for nothing.
func (a *app) archivePlace(typed, format string) (place.Archive, error) {
	ac, err := a.named(typed)
	if err != nil {
		return place.Archive{}, err
	}
	if ac != nil {
		return archiveOf(ac, format)
	}
	p, err := place.ParseArchive(typed)
	if err != nil {
		return p, err
	}
	if format == "" {
		return p, nil
	}
	if !slices.Contains(place.Formats, format) {
		return p, usage("write --format "+strings.Join(place.Formats, " or --format "), "there is no archive format %q", format)
	}
	if p.Format != "" && p.Format != format {
		return p, usage("leave one of them out", "%s: says one format and --format %s another", p.Format, format)
	}
	p.Format = format
	return p, nil
}

// archiveOf returns the archive of an account. The account's format is for a new
// archive; what is there keeps its own.
func archiveOf(ac *config.Account, format string) (place.Archive, error) {
	p := ac.Archive
	switch {
	case p.Dir == "":
		return p, &mail.Error{Kind: mail.KindConfig, Err: fmt.Errorf("the account %q has no archive", ac.Name),
			Hint: `add archive = "~/Mail/` + ac.Name + `" below [account.` + ac.Name + "], or name a directory"}
	case format == "":
		return p, nil
	case !slices.Contains(place.Formats, format):
		return p, usage("write --format "+strings.Join(place.Formats, " or --format "), "there is no archive format %q", format)
	}
	p.Format = format
	return p, nil
}

// openVault opens an archive with the drivers of this program and the flags of
// every verb.
func (a *app) openVault(ctx context.Context, p place.Archive, o vault.Options) (*vault.Vault, error) {
	o.Format, o.LockWait, o.Formats, o.StateDir = p.Format, a.flags.lockWait, formats, a.stateDir
	return vault.Open(ctx, p.Dir, o)
}

// lookAt refuses what openVault would, before anybody is asked for a password.
func (a *app) lookAt(p place.Archive, o vault.Options) error {
	o.Format, o.StateDir = p.Format, a.stateDir
	return vault.Look(p.Dir, o)
}

// openToRead opens an existing archive, and changes nothing there.
func (a *app) openToRead(ctx context.Context, typed string) (*vault.Vault, error) {
	p, err := a.archivePlace(typed, "")
	if err != nil {
		return nil, err
	}
	return a.openVault(ctx, p, vault.Options{ReadOnly: true})
}

// vaultExists tells whether there may be an archive; what is wrong with it, Open
// says.
func vaultExists(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, vault.Dir))
	return !os.IsNotExist(err)
}

// absolute is how an archive is called in reports.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
