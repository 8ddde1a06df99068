package auth

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"mailhaul/mail"
)

// tokenMargin is how long before its end a token is no longer used: a login takes
// its time, and clocks differ.
const tokenMargin = 5 * time.Minute

// Token is an OAuth 2 access token.
type Token struct {
	Secret  Secret
	Expires time.Time // zero if that is not known
}

// Tokens hands out access tokens to all connections of an account. While one is
// got, the others wait for it: many connections cause one refresh. It may be used
// by several goroutines.
type Tokens struct {
	get func(ctx context.Context, refused Secret) (Token, error)

	turn chan struct{} // holds a token of its own while nobody is in get

	mu   sync.Mutex
	last Token
	seen []Secret // for Redact
}

// NewTokens makes them of get, which returns a token that is not refused ("" if
// none was). Errors of get are *mail.Error; it is never called twice at once.
func NewTokens(get func(ctx context.Context, refused Secret) (Token, error)) *Tokens {
	return &Tokens{get: get, turn: make(chan struct{}, 1)}
}

// Token returns a token that is good for a while. refused is one that a server did
// not take, though it should have been; "" for none.
func (t *Tokens) Token(ctx context.Context, refused Secret) (Secret, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if last := t.current(); last.Secret != "" && last.Secret != refused && (last.Expires.IsZero() || time.Until(last.Expires) > tokenMargin) {
		return last.Secret, nil
	}
	got, err := t.get(ctx, refused)
	if err != nil {
		return "", err
	}
	if got.Secret == "" || strings.ContainsFunc(got.Secret.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &mail.Error{Kind: mail.KindAuth, Op: "get a token", Err: errors.New("what came is no OAuth 2 token"), Hint: "a token is one word of ASCII characters"}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = got
	if t.seen = append(t.seen, got.Secret); len(t.seen) > 8 {
		t.seen = t.seen[1:]
	}
	return got.Secret, nil
}

func (t *Tokens) current() Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// secrets returns the tokens handed out lately.
func (t *Tokens) secrets() []Secret {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Secret(nil), t.seen...)
}

// Fresh returns the credentials with a token that is good now. refused tells them
// that the server did not take theirs; then ok says whether there is another one,
// with which to try once more.
func (c Credentials) Fresh(ctx context.Context, refused bool) (fresh Credentials, ok bool, err error) {
	if c.Tokens == nil {
		return c, !refused, nil
	}
	var old Secret
	if refused {
		old = c.token
	}
	got, err := c.Tokens.Token(ctx, old)
	if err != nil {
		return c, false, err
	}
	ok = got != old
	c.token = got
	return c, ok, nil
}
