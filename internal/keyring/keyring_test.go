package keyring

import (
	"context"
	"errors"
	"testing"

	"mailhaul/mail"
)

func TestKeyring(t *testing.T) {
	Mock(nil)
	ctx := t.Context()
	if s, found, err := Get(ctx, "imap:ada@h"); s != "" || found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	if err := Set(ctx, "imap:ada@h", "pässword"); err != nil {
		t.Fatal(err)
	}
	if s, found, err := Get(ctx, "imap:ada@h"); s != "pässword" || !found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	if _, found, _ := Get(ctx, "imap:grace@h"); found {
		t.Error("one account's password is another's")
	}
	for range 2 { // it may be missing
		if err := Delete(ctx, "imap:ada@h"); err != nil {
			t.Error(err)
		}
	}
	if _, found, _ := Get(ctx, "imap:ada@h"); found {
		t.Error("still there")
	}
}

func TestLocked(t *testing.T) {
	Mock(errors.New("locked"))
	defer Mock(nil)
	_, _, err := Get(t.Context(), "x")
	for _, err := range []error{err, Set(t.Context(), "x", "secret"), Delete(t.Context(), "x")} {
		if mail.KindOf(err) != mail.KindAuth || mail.HintOf(err) == "" {
			t.Error(err)
		}
	}
}

// A keyring that waits for a person does not hold up a run that is told to end.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hold := make(chan bool)
	defer close(hold)
	if err := within(ctx, func() error { <-hold; return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Without a session of a desktop there is none, and that is no error.
func TestNone(t *testing.T) {
	mocked = false
	defer Mock(nil)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	if Available() {
		return // a desktop, whose keyring is left alone
	}
	if _, found, err := Get(t.Context(), "x"); found || err != nil {
		t.Error(found, err)
	}
	if err := Set(t.Context(), "x", "y"); mail.KindOf(err) != mail.KindAuth {
		t.Error(err)
	}
	if err := Delete(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}
