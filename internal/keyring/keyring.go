// Package keyring keeps secrets in the keyring of the system: the Secret Service of
// a Linux desktop, the Keychain of macOS, the credential store of Windows.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	zalando "github.com/zalando/go-keyring"

	"mailhaul/internal/auth"
	"mailhaul/mail"
)

// service is the name under which all secrets are kept.
const service = "mailhaul"

// patience is how long a keyring may take: a person may have to unlock it.
const patience = time.Minute

// Available tells whether there may be a keyring. Where no session of a desktop
// runs, as under cron, there is none; nothing is started to get one.
func Available() bool {
	if mocked {
		return true
	}
	switch runtime.GOOS {
	case "darwin", "windows":
		return true
	}
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" {
		return true
	}
	_, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid()))
	return err == nil
}

// Get returns a secret; found is false where there is none, or no keyring.
func Get(ctx context.Context, name string) (s auth.Secret, found bool, err error) {
	if !Available() {
		return "", false, nil
	}
	err = within(ctx, func() error {
		text, err := zalando.Get(service, name)
		s = auth.Secret(text)
		return err
	})
	if errors.Is(err, zalando.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fail("read from the keyring", err)
	}
	return s, true, nil
}

// Set keeps a secret.
func Set(ctx context.Context, name string, s auth.Secret) error {
	if !Available() {
		return fail("write to the keyring", errors.New("there is no keyring in this session"))
	}
	return fail("write to the keyring", within(ctx, func() error { return zalando.Set(service, name, s.Reveal()) }))
}

// Delete forgets a secret; it may be missing.
func Delete(ctx context.Context, name string) error {
	if !Available() {
		return nil
	}
	err := within(ctx, func() error { return zalando.Delete(service, name) })
	if errors.Is(err, zalando.ErrNotFound) {
		err = nil
	}
	return fail("remove from the keyring", err)
}

func fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &mail.Error{Kind: mail.KindAuth, Op: op, Err: err, Hint: "unlock it, or keep the secret in a file of mode 0600 (--store file, --password-file)"}
}

// within calls f, which cannot be interrupted, but is not waited for longer than
// patience. What it would still do then is of no consequence.
func within(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the keyring does not answer"))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var mocked bool

// Mock replaces the keyring of the system by one in memory, for tests; err, if it is
// not nil, is what every call then returns.
func Mock(err error) {
	mocked = true
	if err != nil {
		zalando.MockInitWithError(err)
		return
	}
	zalando.MockInit()
}
