package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mailhaul/internal/place"
	"mailhaul/internal/vault"
)

// archivePlace reads an archive as typed; format is what --format says, "" for
// nothing.
func archivePlace(typed, format string) (place.Archive, error) {
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

// openVault opens an archive with the drivers of this program and the flags of
// every verb.
func (a *app) openVault(ctx context.Context, p place.Archive, o vault.Options) (*vault.Vault, error) {
	o.Format, o.LockWait, o.Formats, o.StateDir = p.Format, a.flags.lockWait, formats, a.stateDir
	return vault.Open(ctx, p.Dir, o)
}

// openToRead opens an existing archive, and changes nothing there.
func (a *app) openToRead(ctx context.Context, typed string) (*vault.Vault, error) {
	p, err := place.ParseArchive(typed)
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
