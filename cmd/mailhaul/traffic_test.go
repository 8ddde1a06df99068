package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"mailhaul/internal/place"
	"mailhaul/mail"
)

// accountAt is an account at a host.
func accountAt(protocol, host string) account {
	ac := account{place: place.Server{Protocol: protocol, User: "ada@gmail.com", Host: host, Port: 993}}
	ac.server.Protocol = protocol
	return ac
}

// What is known of a provider is kept to without being asked, with some to spare.
func TestDailyOfProviders(t *testing.T) {
	for _, tt := range []struct {
		protocol, host string
		want           int64
	}{
		{"imap", "imap.gmail.com", 2_375_000_000},
		{"imap", "imap.googlemail.com", 2_375_000_000},
		{"pop3", "pop.gmail.com", 1_187_500_000},
		{"imap", "outlook.office365.com", 0},
		{"imap", "gmail.com.example.org", 0},
		{"imap", "127.0.0.1", 0},
	} {
		ac := accountAt(tt.protocol, tt.host)
		if got := dailyOf(&ac); got != tt.want {
			t.Errorf("%s at %s: %d, want %d", tt.protocol, tt.host, got, tt.want)
		}
	}
}

// What runs of one day read is added up, whether they come one after the other or
// together; that of another day is not.
func TestDailyAcrossRuns(t *testing.T) {
	a := &app{stateDir: t.TempDir()}
	begin := func() (context.Context, account, func(), error) {
		ac := accountAt("imap", "imap.gmail.com")
		ctx, done, err := a.daily(t.Context(), &ac, 1000)
		return ctx, ac, done, err
	}
	one, first, endFirst, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	two, second, endSecond, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	first.server.Count(600)
	second.server.Count(300)
	if one.Err() != nil || two.Err() != nil {
		t.Error("a run was stopped below the limit")
	}
	endFirst()
	endSecond()
	three, third, endThird, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	third.server.Count(99)
	if three.Err() != nil {
		t.Error("the third run was stopped below the limit")
	}
	third.server.Count(1)
	var e *mail.Error
	if cause := context.Cause(three); !errors.As(cause, &e) || e.Kind != mail.KindTemporary || e.Hint == "" {
		t.Errorf("the third run goes on beyond the limit: %v", cause)
	}
	endThird()
	if _, _, _, err := begin(); mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("a fourth run begins: %v", err)
	}

	name := filepath.Join(a.stateDir, "traffic", trafficName(first.key()))
	if err := os.WriteFile(name, []byte(`{"day":"2001-01-01","octets":1000}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, end, err := begin()
	if err != nil {
		t.Fatalf("the next day: %v", err)
	}
	end()
}
