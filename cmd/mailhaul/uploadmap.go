package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mailhaul/internal/durable"
	"mailhaul/internal/ledger"
	"mailhaul/internal/ui"
	"mailhaul/mail"
)

// uidlSource is a ledger that knows the UIDLs of what was sent.
type uidlSource interface {
	UIDLs(ctx context.Context, account string, yield func(ledger.UIDL) error) error
}

// dovecotList is appended to the name of a UIDL map for the form Dovecot can use.
const dovecotList = ".dovecot-uidlist"

// checkUIDLMap finds out before anything is sent whether the map can be written.
func checkUIDLMap(file string) error {
	if file == "" {
		return nil
	}
	dir := filepath.Dir(file)
	st, err := os.Stat(dir)
	switch {
	case err == nil && !st.IsDir():
		err = fs.ErrNotExist
	case err == nil:
		if st, err = os.Stat(file); err == nil && !st.Mode().IsRegular() {
			return usage("name a file that is not there yet", "--uidl-map %s is no regular file", file)
		}
		return nil
	}
	return usage("make the directory first", "--uidl-map %s: %v", file, err)
}

// writeUIDLMap writes which UIDL of a POP3 source became which UID at the
// destination account, and the same for Dovecot's INBOX.
func (a *app) writeUIDLMap(ctx context.Context, l uidlSource, account, file string) error {
	var table, list bytes.Buffer
	table.WriteString("# UIDL\tUID\tUIDVALIDITY\tMAILBOX\n")
	n, inbox := 0, 0
	err := l.UIDLs(context.WithoutCancel(ctx), account, func(u ledger.UIDL) error {
		n++
		fmt.Fprintf(&table, "%s\t%s\t%d\t%s\n", mapField.Replace(u.UIDL), u.UID, u.UIDValidity, mapField.Replace(u.Mailbox))
		if u.Mailbox == "INBOX" && isUniqueID(u.UIDL) {
			if inbox == 0 {
				fmt.Fprintf(&list, "3 V%d\n", u.UIDValidity)
			}
			inbox++
			fmt.Fprintf(&list, "%s P%s\n", u.UID, u.UIDL)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n == 0 {
		a.ui.Warn(fmt.Errorf("--uidl-map: none of the messages came from a POP3 source"))
	}
	if err := writeFile(file, table.Bytes()); err != nil {
		return err
	}
	if inbox > 0 {
		if err := writeFile(file+dovecotList, list.Bytes()); err != nil {
			return err
		}
	}
	a.ui.Note("%s with their UIDLs written to %s", ui.Plural(int64(n), "message"), file)
	return nil
}

// isUniqueID tells whether s is one by RFC 1939 section 7, and so fits Dovecot's
// file.
func isUniqueID(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// mapField keeps text within its field.
var mapField = strings.NewReplacer("\t", `\t`, "\n", `\n`, `\`, `\\`)

func writeFile(path string, data []byte) error {
	fsys, err := durable.OpenRoot(filepath.Dir(path))
	if err == nil {
		err = durable.WriteFileAtomic(fsys, filepath.Base(path), data)
		if cerr := fsys.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "write " + path, Err: err}
	}
	return nil
}
