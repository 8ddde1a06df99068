package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"mailhaul/internal/auth"
	"mailhaul/internal/durable"
	"mailhaul/internal/keyring"
	"mailhaul/mail"
)

// Store keeps the grants of a user's accounts: a file of mode 0600 for each, with
// the secrets in it or in the system's keyring.
type Store struct {
	Dir string // absolute; made when it is needed
}

// record is a file of the store.
type record struct {
	Client
	InKeyring bool      `json:"keyring,omitempty"` // the secrets are there
	Secrets   *secrets  `json:"secrets,omitempty"`
	Granted   time.Time `json:"granted"`
}

// secrets are written in clear, on purpose.
type secrets struct {
	Client  string    `json:"client_secret,omitempty"`
	Refresh string    `json:"refresh_token,omitempty"`
	Access  string    `json:"access_token,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

const (
	maxRecord = 256 << 10
	// lockWait is how long one process waits for another that refreshes.
	lockWait = 2 * requestTime
)

// file is the name of an account's file: readable, without doubles.
func file(user, host string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(user) + "@" + strings.ToLower(host)) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '@', c == '.' && b.Len() > 0, c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String() + ".json"
}

func key(user, host string) string { return "oauth:" + strings.ToLower(user+"@"+host) }

// Has tells whether an account has logged in by OAuth 2.
func (s Store) Has(user, host string) bool {
	if s.Dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(s.Dir, file(user, host)))
	return err == nil
}

// locked works on an account's file while no other process does.
func (s Store) locked(ctx context.Context, user, host string, f func(durable.FS) error) error {
	if s.Dir == "" {
		return &mail.Error{Kind: mail.KindDisk, Op: "keep the login", Err: errors.New("there is no home directory"), Hint: "set XDG_STATE_HOME"}
	}
	fsys, err := durable.MakeRoot(s.Dir)
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "make " + s.Dir, Err: err}
	}
	defer fsys.Close()
	lock, err := durable.LockFile(ctx, filepath.Join(s.Dir, file(user, host)+".lock"), lockWait)
	if err != nil {
		return &mail.Error{Kind: mail.KindTemporary, Op: "lock the login of " + user, Err: err, Hint: "another mailhaul is getting a token; try again"}
	}
	defer lock.Close()
	return f(fsys)
}

// Save keeps a grant, in place of an older one, in the keyring if that is wanted.
func (s Store) Save(ctx context.Context, user, host string, c Client, g Grant, inKeyring bool) error {
	return s.locked(ctx, user, host, func(fsys durable.FS) error {
		r := record{Client: c, InKeyring: inKeyring, Granted: time.Now().UTC().Truncate(time.Second)}
		return s.write(ctx, fsys, user, host, r, secrets{Client: c.Secret.Reveal(), Refresh: g.Refresh.Reveal(), Access: g.Access.Secret.Reveal(), Expires: g.Access.Expires})
	})
}

// Forget removes a grant; it may be missing.
func (s Store) Forget(ctx context.Context, user, host string) error {
	if !s.Has(user, host) {
		return nil
	}
	return s.locked(ctx, user, host, func(fsys durable.FS) error {
		err := keyring.Delete(ctx, key(user, host))
		if rerr := fsys.Remove(file(user, host)); rerr != nil {
			return &mail.Error{Kind: mail.KindDisk, Op: "forget the login of " + user, Err: rerr}
		}
		return err
	})
}

// write makes everything durable. A keyring is written first: its entry alone is
// never missed.
func (s Store) write(ctx context.Context, fsys durable.FS, user, host string, r record, sec secrets) error {
	if r.InKeyring {
		b, err := json.Marshal(sec)
		if err != nil {
			return err
		}
		if err := keyring.Set(ctx, key(user, host), auth.Secret(b)); err != nil {
			return err
		}
		r.Secrets = nil
	} else {
		r.Secrets = &sec
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = durable.WriteFileAtomic(fsys, file(user, host), append(b, '\n'))
	}
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "keep the login of " + user, Err: err}
	}
	return nil
}

// read returns what is kept. A file that others can read is refused.
func (s Store) read(ctx context.Context, fsys durable.FS, user, host string) (r record, sec secrets, err error) {
	fail := func(err error, hint string) (record, secrets, error) {
		return record{}, secrets{}, &mail.Error{Kind: mail.KindAuth, Op: "read the login of " + user, Err: err, Hint: hint}
	}
	const again = "run mailhaul login again"
	name := file(user, host)
	st, err := fsys.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fail(errors.New("there is none"), "run mailhaul login")
	}
	if err != nil {
		return fail(err, "")
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		path := filepath.Join(s.Dir, name)
		return fail(fmt.Errorf("%s can be read by others (mode %04o)", path, st.Mode().Perm()), "run chmod 600 "+path+"; if others may have read it, run mailhaul login again")
	}
	b, err := durable.ReadFile(fsys, name, maxRecord)
	if err != nil {
		return fail(err, "")
	}
	if json.Unmarshal(b, &r) != nil { // its error may quote a secret
		return fail(fmt.Errorf("%s is damaged", filepath.Join(s.Dir, name)), again)
	}
	if !r.InKeyring && r.Secrets != nil {
		return r, *r.Secrets, nil
	}
	text, found, err := keyring.Get(ctx, key(user, host))
	switch {
	case err != nil:
		return fail(err, mail.HintOf(err))
	case !found && !keyring.Available():
		return fail(errors.New("it is in the keyring, and there is none in this session"), "for runs without a desktop use mailhaul login --store file")
	case !found || json.Unmarshal([]byte(text.Reveal()), &sec) != nil:
		return fail(errors.New("the keyring has lost it"), again)
	}
	return r, sec, nil
}
