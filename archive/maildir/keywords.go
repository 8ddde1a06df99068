package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

const (
	// keywordsFile is where Dovecot keeps which letter is which keyword: lines
	// "0 $Forwarded", 0 being the letter a.
	keywordsFile = "dovecot-keywords"
	// keywordsLock is Dovecot's lock of it, and becomes the new file.
	keywordsLock  = keywordsFile + ".lock"
	keywordsStale = 2 * time.Minute // a lock of this age is left over, as Dovecot sees it
	keywordsSize  = 1 << 20
	maxKeywords   = 26
)

// keywords is the table of one mailbox; its place in names is the letter.
type keywords struct {
	names []string
	read  bool
}

func (k *keywords) has(keyword string) bool {
	for _, n := range k.names {
		if strings.EqualFold(n, keyword) {
			return true
		}
	}
	return false
}

// add gives a keyword the next free letter, if there is one.
func (k *keywords) add(keyword string) {
	for i, n := range k.names {
		if n == "" {
			k.names[i] = keyword
			return
		}
	}
	if len(k.names) < maxKeywords {
		k.names = append(k.names, keyword)
	}
}

func (k *keywords) full() bool {
	n := 0
	for _, name := range k.names {
		if name != "" {
			n++
		}
	}
	return n == maxKeywords
}

func parseKeywords(data string) []string {
	var names []string
	for line := range strings.Lines(data) {
		number, name, ok := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		i, err := strconv.Atoi(number)
		if !ok || err != nil || i < 0 || i >= maxKeywords || name == "" {
			continue
		}
		for len(names) <= i {
			names = append(names, "")
		}
		names[i] = name
	}
	return names
}

func (k *keywords) String() string {
	var b strings.Builder
	for i, n := range k.names {
		if n != "" {
			fmt.Fprintf(&b, "%d %s\n", i, n)
		}
	}
	return b.String()
}

// loadKeywords reads the table of the mailbox; b.mu is held.
func (a *Archive) loadKeywords(b *box) error {
	name := b.dir + "/" + keywordsFile
	data, err := durable.ReadFile(a.fsys, name, keywordsSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(mail.Ref{Mailbox: b.mailbox}, "read "+name, err)
	}
	b.keywords = keywords{names: parseKeywords(string(data)), read: true}
	return nil
}

// ensureKeywords is loadKeywords unless that was done before; b.mu is held.
func (a *Archive) ensureKeywords(b *box) error {
	if b.keywords.read {
		return nil
	}
	return a.loadKeywords(b)
}

// learnKeywords gives letters to keywords of the messages that have none yet.
func (a *Archive) learnKeywords(b *box, group []*message) error {
	var flags []mail.Flags
	for _, m := range group {
		if len(m.info.Flags.Keywords()) > 0 {
			flags = append(flags, m.info.Flags)
		}
	}
	return a.learn(b, flags)
}

// learn writes the table anew if there are keywords to add; b.mu is held. If a
// mail reader holds the table they stay without letters; the ledger has them.
func (a *Archive) learn(b *box, flags []mail.Flags) error {
	if len(flags) == 0 {
		return nil
	}
	if err := a.ensureKeywords(b); err != nil {
		return err
	}
	missing := func() (list []string) {
		for _, f := range flags {
			for _, kw := range f.Keywords() {
				if !b.keywords.has(kw) {
					list = append(list, kw)
				}
			}
		}
		return list
	}
	if len(missing()) == 0 || b.keywords.full() {
		return nil
	}
	lock := b.dir + "/" + keywordsLock
	fail := func(err error) error { return diskError(mail.Ref{Mailbox: b.mailbox}, "write "+lock, err) }
	f, err := a.lockKeywords(lock)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fail(err)
	}
	if err = a.loadKeywords(b); err == nil { // now that nobody else changes it
		for _, kw := range missing() {
			if !b.keywords.has(kw) {
				b.keywords.add(kw)
			}
		}
		_, err = f.Write([]byte(b.keywords.String()))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = a.fsys.Rename(lock, b.dir+"/"+keywordsFile)
	}
	if err != nil {
		a.remove(lock)
		b.keywords = keywords{}
		return fail(err)
	}
	b.chained = false // the directory has a new entry
	return nil
}

func (a *Archive) lockKeywords(lock string) (durable.File, error) {
	f, err := a.fsys.OpenFile(lock, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if st, serr := a.fsys.Lstat(lock); serr != nil || time.Since(st.ModTime()) < keywordsStale {
		return nil, err
	}
	a.remove(lock)
	return a.fsys.OpenFile(lock, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
}
