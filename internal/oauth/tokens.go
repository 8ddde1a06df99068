package oauth

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"mailhaul/internal/auth"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// margin is how long before its end a token is replaced.
const margin = 6 * time.Minute

// Client returns how an account logged in last, with its client secret, so that
// logging in again needs no flags; ok is false if it never did or that is unreadable.
func (s Store) Client(ctx context.Context, user, host string) (c Client, inKeyring, ok bool) {
	if !s.Has(user, host) {
		return c, false, false
	}
	err := s.locked(ctx, user, host, func(fsys durable.FS) error {
		r, sec, err := s.read(ctx, fsys, user, host)
		c, inKeyring = r.Client, r.InKeyring
		c.Secret = auth.Secret(sec.Client)
		return err
	})
	return c, inKeyring, err == nil
}

// Tokens hands out the access tokens of an account. name is what a person calls it,
// for hints. Processes that run at the same time refresh one after the other, and
// find what the other got; a new refresh token is durable before its access token is
// used.
func (s Store) Tokens(h *http.Client, user, host, name string) *auth.Tokens {
	return auth.NewTokens(func(ctx context.Context, refused auth.Secret) (t auth.Token, err error) {
		err = s.locked(ctx, user, host, func(fsys durable.FS) error {
			r, sec, err := s.read(ctx, fsys, user, host)
			if err != nil {
				return err
			}
			if sec.Access != "" && auth.Secret(sec.Access) != refused && time.Until(sec.Expires) > margin {
				t = auth.Token{Secret: auth.Secret(sec.Access), Expires: sec.Expires}
				return nil
			}
			if sec, err = r.refresh(ctx, h, sec, name); err != nil {
				return err
			}
			t = auth.Token{Secret: auth.Secret(sec.Access), Expires: sec.Expires}
			return s.write(ctx, fsys, user, host, r, sec)
		})
		return t, err
	})
}

// refresh is RFC 6749 section 6. Where the provider gives no new refresh token the old
// one goes on.
func (r record) refresh(ctx context.Context, h *http.Client, sec secrets, name string) (secrets, error) {
	const op = "get a new token"
	again := "run mailhaul login " + name + " again: the consent was withdrawn, or has ended"
	if sec.Refresh == "" {
		return sec, &mail.Error{Kind: mail.KindAuth, Op: op, Err: errors.New("the provider gave none with which to get another"), Hint: again}
	}
	c := r.Client
	c.Secret = auth.Secret(sec.Client)
	if err := c.Check(); err != nil {
		return sec, err
	}
	web := context.WithValue(ctx, oauth2.HTTPClient, h)
	got, err := c.config().TokenSource(web, &oauth2.Token{RefreshToken: sec.Refresh}).Token()
	if err != nil {
		if ctx.Err() != nil {
			return sec, context.Cause(ctx)
		}
		return sec, fault(op, again, err, c.Secret, auth.Secret(sec.Refresh))
	}
	sec.Access, sec.Expires = got.AccessToken, got.Expiry
	if got.RefreshToken != "" {
		sec.Refresh = got.RefreshToken
	}
	return sec, nil
}
