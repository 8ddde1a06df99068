package dial_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/time/rate"

	"mailhaul/internal/dial"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	ca     *testserver.CA
	caFile string
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	file, err := ca.WriteFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return fixture{ca, file}
}

// tlsServer serves hello over TLS and returns its certificate, too.
func (f fixture) tlsServer(t *testing.T, l testserver.Leaf, change func(*tls.Config)) (*testserver.Script, *x509.Certificate) {
	t.Helper()
	cfg, err := f.ca.TLS(l)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(cfg)
	}
	cert, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return server(t, testserver.StartTLS(cfg), testserver.Send("hello\r\n"), testserver.Hold()), cert
}

func server(t *testing.T, steps ...testserver.Step) *testserver.Script {
	t.Helper()
	s, err := testserver.NewScript(steps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func place(port int, sec dial.Security) dial.Server {
	return dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: port, Security: sec, Timeout: 5 * time.Second}
}

func TestTrust(t *testing.T) {
	f := newFixture(t)
	day := 24 * time.Hour
	tests := []struct {
		name   string
		leaf   testserver.Leaf
		change func(*tls.Config)
		noCA   bool
		pin    string // "right", "wrong", ""
		bad    string // part of the error; "" if it is to be trusted
		hints  []string
	}{
		{name: "good"},
		{name: "unknown authority", noCA: true, bad: "unknown authority", hints: []string{"--ca-file", "--tls-fingerprint"}},
		{name: "signed by itself", leaf: testserver.Leaf{SelfSigned: true}, bad: "signed by itself", hints: []string{"--ca-file", "--tls-fingerprint"}},
		{name: "expired", leaf: testserver.Leaf{NotBefore: time.Now().Add(-2 * day), NotAfter: time.Now().Add(-day)}, bad: "not valid now", hints: []string{"--tls-fingerprint"}},
		{name: "not yet valid", leaf: testserver.Leaf{NotBefore: time.Now().Add(day), NotAfter: time.Now().Add(2 * day)}, bad: "not valid now", hints: []string{"--tls-fingerprint"}},
		{name: "other host", leaf: testserver.Leaf{Hosts: []string{"mail.example.org"}}, bad: "another host: mail.example.org", hints: []string{"--tls-fingerprint"}},
		{name: "no host", leaf: testserver.Leaf{Hosts: []string{}}, bad: "names no host", hints: []string{"--tls-fingerprint"}},
		{name: "pinned", leaf: testserver.Leaf{SelfSigned: true, Hosts: []string{"x"}}, noCA: true, pin: "right"},
		{name: "pin of another", pin: "wrong", bad: "is not the pinned one", hints: []string{"--tls-fingerprint"}},
		{name: "TLS 1.1", change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, bad: "TLS with", hints: []string{"TLS 1.2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, cert := f.tlsServer(t, tt.leaf, tt.change)
			to := place(s.Port(), dial.TLS)
			if !tt.noCA {
				to.CAFile = f.caFile
			}
			switch tt.pin {
			case "right":
				to.Fingerprint = dial.Fingerprint(cert)
			case "wrong":
				to.Fingerprint = strings.Repeat("00", 32)
			}
			c, err := dial.Dial(t.Context(), to)
			if tt.bad == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\r\n" || err != nil {
					t.Errorf("%q, %v", line, err)
				}
				if !c.Secure() || len(c.PeerCertificates()) == 0 || !c.PeerCertificates()[0].Equal(cert) {
					t.Error("not the server's certificate")
				}
				return
			}
			if err == nil {
				c.Close()
				t.Fatal("it was trusted")
			}
			if mail.KindOf(err) != mail.KindAuth || !strings.Contains(err.Error(), tt.bad) {
				t.Errorf("kind %v: %v", mail.KindOf(err), err)
			}
			for _, h := range tt.hints {
				if !strings.Contains(mail.HintOf(err), h) {
					t.Errorf("hint %q lacks %q", mail.HintOf(err), h)
				}
			}
			if u, ok := errors.AsType[*dial.Untrusted](err); ok && (u.Fingerprint != dial.Fingerprint(cert) || !strings.Contains(mail.HintOf(err), u.Fingerprint)) {
				t.Errorf("fingerprint %s, hint %q", u.Fingerprint, mail.HintOf(err))
			}
		})
	}
}

func TestClientCertificateDemanded(t *testing.T) {
	f := newFixture(t)
	s, _ := f.tlsServer(t, testserver.Leaf{}, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	to := place(s.Port(), dial.TLS)
	to.CAFile = f.caFile
	c, err := dial.Dial(t.Context(), to)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
		err = c.Fail("greeting", err)
	}
	if mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "--client-cert") {
		t.Errorf("kind %v, hint %q: %v", mail.KindOf(err), mail.HintOf(err), err)
	}
}

func TestCAFile(t *testing.T) {
	f := newFixture(t)
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{junk, filepath.Join(t.TempDir(), "missing.pem")} {
		s, _ := f.tlsServer(t, testserver.Leaf{}, nil)
		to := place(s.Port(), dial.TLS)
		to.CAFile = file
		if _, err := dial.Dial(t.Context(), to); mail.KindOf(err) != mail.KindUsage || mail.HintOf(err) == "" {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestConnectErrors(t *testing.T) {
	refusing, err := testserver.NewRefusing()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { refusing.Close() })
	free := refusing.Port()
	plain := server(t, testserver.Send("* OK hello in plain text\r\n"), testserver.Hold())
	silent := server(t, testserver.Hold())
	cut := server(t, testserver.Cut())
	tests := []struct {
		name string
		to   dial.Server
		kind mail.Kind
		hint string
	}{
		{"refused", place(free, dial.TLS), mail.KindTemporary, "nothing listens"},
		{"plain text on a TLS port", place(plain.Port(), dial.TLS), mail.KindAuth, "imap://"},
		{"silent", dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: silent.Port(), Timeout: 200 * time.Millisecond}, mail.KindTemporary, "does not answer"},
		{"cut", place(cut.Port(), dial.TLS), mail.KindTemporary, "again"},
		{"no host", dial.Server{Protocol: "imap"}, mail.KindUsage, ""},
		{"port", dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: 70000}, mail.KindUsage, ""},
		{"pin", dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: free, Fingerprint: "abc"}, mail.KindUsage, "openssl"},
		{"cleartext", dial.Server{Protocol: "pop3", Host: "192.0.2.1", Security: dial.Cleartext}, mail.KindUsage, "--allow-cleartext"},
		{"cleartext by name", dial.Server{Protocol: "pop3", Host: "localhost.example.org", Security: dial.Cleartext}, mail.KindUsage, "pop3s://"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := dial.Dial(t.Context(), tt.to)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if mail.KindOf(err) != tt.kind || !strings.Contains(mail.HintOf(err), tt.hint) {
				t.Errorf("kind %v, hint %q: %v", mail.KindOf(err), mail.HintOf(err), err)
			}
		})
	}
}

func TestAddr(t *testing.T) {
	for _, tt := range []struct {
		s    dial.Server
		want string
	}{
		{dial.Server{Protocol: "imap", Host: "h"}, "h:993"},
		{dial.Server{Protocol: "imap", Host: "h", Security: dial.StartTLS}, "h:143"},
		{dial.Server{Protocol: "pop3", Host: "h"}, "h:995"},
		{dial.Server{Protocol: "pop3", Host: "h", Security: dial.Cleartext}, "h:110"},
		{dial.Server{Protocol: "pop3", Host: "::1", Port: 1}, "[::1]:1"},
		{dial.Server{Protocol: "pop3", Host: "[::1]", Port: 1}, "[::1]:1"},
	} {
		if got := tt.s.Addr(); got != tt.want {
			t.Errorf("%+v: %s", tt.s, got)
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	const hex = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
	want, err := dial.ParseFingerprint(hex)
	if err != nil {
		t.Fatal(err)
	}
	colons := ""
	for i := 0; i < len(hex); i += 2 {
		colons += ":" + hex[i:i+2]
	}
	for _, s := range []string{colons[1:], strings.ToLower(hex), "sha256:" + hex, "sha256 Fingerprint=" + colons[1:] + "\n"} {
		if got, err := dial.ParseFingerprint(s); got != want || err != nil {
			t.Errorf("%q: %x, %v", s, got, err)
		}
	}
	for _, s := range []string{"", hex[2:], hex + "00", "zz" + hex[2:]} {
		if _, err := dial.ParseFingerprint(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestStartTLS(t *testing.T) {
	f := newFixture(t)
	cfg, err := f.ca.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		answer string
		kind   mail.Kind
	}{
		{"good", "OK go\r\n", -1},
		{"injected", "OK go\r\nOK injected\r\n", mail.KindAuth},
		{"half a line injected", "OK go\r\nx", mail.KindAuth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := server(t, testserver.Answer("STARTTLS", tt.answer), testserver.StartTLS(cfg), testserver.Send("secure\r\n"), testserver.Hold())
			to := place(s.Port(), dial.StartTLS)
			to.CAFile = f.caFile
			c, err := dial.Dial(t.Context(), to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "STARTTLS\r\n"); err != nil {
				t.Fatal(err)
			}
			// A library reads with a large buffer, and gets one line all the same.
			p := make([]byte, 4096)
			n, err := c.Read(p)
			if string(p[:n]) != "OK go\r\n" || err != nil {
				t.Fatalf("%q, %v", p[:n], err)
			}
			err = c.StartTLS(t.Context())
			if tt.kind >= 0 {
				if mail.KindOf(err) != tt.kind || !strings.Contains(err.Error(), "injecting") || c.Secure() {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || !c.Secure() {
				t.Fatal(err)
			}
			if n, err := c.Read(p); string(p[:n]) != "secure\r\n" {
				t.Errorf("%q, %v", p[:n], err)
			}
		})
	}
}

func connect(t *testing.T, to dial.Server, steps ...testserver.Step) *dial.Conn {
	t.Helper()
	to.Protocol, to.Host, to.Security = "pop3", "127.0.0.1", dial.Cleartext
	to.Port = server(t, steps...).Port()
	c, err := dial.Dial(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDeadline(t *testing.T) {
	c := connect(t, dial.Server{Timeout: 100 * time.Millisecond}, testserver.Hold())
	// A library's own deadlines change nothing.
	if err := c.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Fatalf("%v is no timeout", err)
	}
	if err := c.Fail("read", err); mail.KindOf(err) != mail.KindTemporary || !strings.Contains(mail.HintOf(err), "--timeout") {
		t.Error(err)
	}
}

func TestOwed(t *testing.T) {
	c := connect(t, dial.Server{Timeout: 100 * time.Millisecond}, testserver.SendAfter(300*time.Millisecond, "late\r\n"), testserver.Hold())
	c.Owed(false)
	p := make([]byte, 100)
	if n, err := c.Read(p); string(p[:n]) != "late\r\n" || err != nil {
		t.Fatalf("nothing was owed, but Read ended: %q, %v", p[:n], err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(p)
		done <- err
	}()
	c.Owed(true) // arms the Read, whether it waits already or not
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestBind(t *testing.T) {
	c := connect(t, dial.Server{}, testserver.Hold())
	why := errors.New("the user has had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	release := c.Bind(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, why) {
		t.Errorf("write: %v", err)
	}
	if release() {
		t.Error("release says that the connection was left alone")
	}
	// A released connection is left alone.
	c = connect(t, dial.Server{}, testserver.Send("x"), testserver.Hold())
	ctx, cancel = context.WithCancelCause(t.Context())
	if release := c.Bind(ctx); !release() {
		t.Error("not released")
	}
	cancel(why)
	if _, err := c.Read(make([]byte, 1)); err != nil || c.Ended() {
		t.Error(err)
	}
}

// lateContext holds up who asks it first once it is armed.
type lateContext struct {
	context.Context
	armed atomic.Bool
	asked chan struct{}
	goOn  chan struct{}
}

func (c *lateContext) Value(key any) any {
	if c.armed.CompareAndSwap(true, false) {
		close(c.asked)
		<-c.goOn
	}
	return c.Context.Value(key)
}

// A connection never ends in the hands of those who get it after release.
func TestBindEndsBeforeRelease(t *testing.T) {
	why := errors.New("the user has had enough")
	ended := func(c *dial.Conn) {
		t.Helper()
		if _, err := c.Write([]byte("x")); !c.Ended() || !errors.Is(err, why) {
			t.Errorf("works on: %v", err)
		}
	}
	c := connect(t, dial.Server{}, testserver.Hold())
	ctx, cancel := context.WithCancelCause(t.Context())
	late := &lateContext{Context: ctx, asked: make(chan struct{}), goOn: make(chan struct{})}
	defer close(late.goOn)
	release := c.Bind(late)
	late.armed.Store(true)
	cancel(why)
	<-late.asked // for the reason to end the connection with, which it does not get yet
	if release() {
		t.Error("release says that the connection was left alone")
	}
	ended(c)

	c = connect(t, dial.Server{}, testserver.Hold())
	if c.Ended() {
		t.Error("ended from the start")
	}
	release = c.Bind(ctx) // which is over
	ended(c)
	if release() {
		t.Error("release says that the connection was left alone")
	}
}

func TestBudgetAndLines(t *testing.T) {
	c := connect(t, dial.Server{}, testserver.Send("one\r\ntwo\r\nthree and no end"), testserver.Hold())
	c.Lines(true)
	c.Budget(8)
	p := make([]byte, 100)
	var got []string
	for {
		n, err := c.Read(p)
		if n > 0 {
			got = append(got, string(p[:n]))
		}
		if err != nil {
			if !errors.Is(err, dial.ErrAnswerTooLong) {
				t.Fatal(err)
			}
			break
		}
	}
	if strings.Join(got, "|") != "one\r\n|two" {
		t.Errorf("%q", got)
	}
	c.Budget(-1)
	c.Lines(false)
	want := "\r\nthree and no end"
	if _, err := io.ReadFull(c, p[:len(want)]); err != nil || string(p[:len(want)]) != want {
		t.Errorf("%q, %v", p[:len(want)], err)
	}
	if c.BytesIn() != int64(len("one\r\ntwo"+want)) {
		t.Errorf("%d octets counted", c.BytesIn())
	}
}

func TestEnd(t *testing.T) {
	c := connect(t, dial.Server{}, testserver.Cut())
	_, err := c.Read(make([]byte, 1))
	if !errors.Is(dial.UnexpectedEOF(err), io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) && err == nil {
		t.Errorf("%v", err)
	}
	e := c.Fail("fetch", io.EOF)
	if mail.KindOf(e) != mail.KindTemporary || !errors.Is(e, io.ErrUnexpectedEOF) || errors.Is(e, io.EOF) {
		t.Errorf("%v", e)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestLimit(t *testing.T) {
	octets := strings.Repeat("x", 5000)
	c := connect(t, dial.Server{Limit: rate.NewLimiter(50_000, 1000)}, testserver.Send(octets), testserver.Hold())
	p := make([]byte, len(octets))
	for read := 0; read < len(p); {
		n, err := c.Read(p[read:])
		if err != nil {
			t.Fatal(err)
		}
		if n > 1000 {
			t.Errorf("%d octets at once, 1000 are allowed", n)
		}
		read += n
	}
	if string(p) != octets {
		t.Error("other octets")
	}
	// A wait ends with the connection.
	slow := connect(t, dial.Server{Limit: rate.NewLimiter(1, 1)}, testserver.Hold())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := slow.Write([]byte(octets)); err == nil {
			t.Error("5000 octets went out at 1 octet per second")
		}
	})
	slow.Close()
	wg.Wait()
}

func TestTrace(t *testing.T) {
	var out bytes.Buffer
	const secret = "correct-horse"
	exchange := []struct{ client, server string }{
		{"A1 CAPABILITY", "A1 OK"},
		{"A2 LOGIN ada " + secret, "A2 NO wrong"},
		{"a3 authenticate PLAIN " + secret, "a3 NO"},
		{"A4 AUTHENTICATE LOGIN", "+ " + secret},
		{secret, "+ x"},
		{secret, "A4 OK done"},
		{"A5 LOGIN {3}", "+ go"},
		{"ada {13}", "+ go"},
		{secret, "A5 OK done"},
		{"PASS " + secret, "-ERR " + secret + " is wrong"},
		{"AUTH PLAIN " + secret, "+OK"},
		{"RETR 7", "+OK \x1b[31mred\x00\u202e"},
	}
	var steps []testserver.Step
	for _, e := range exchange {
		steps = append(steps, testserver.Answer("", e.server+"\r\n"))
	}
	steps = append(steps, testserver.Answer("", "the message\r\n"))
	c := connect(t, dial.Server{Trace: &dial.Trace{W: &out}}, steps...)
	c.Redact(func(s string) string { return strings.ReplaceAll(s, secret, "***") })
	c.Lines(true)
	p := make([]byte, 4096)
	for _, e := range exchange {
		if e.client == "PASS "+secret {
			c.Redact(func(s string) string { return strings.ReplaceAll(s, secret, "***") })
		}
		if _, err := io.WriteString(c, e.client+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(p); err != nil {
			t.Fatal(err)
		}
	}
	c.Quiet(true)
	if _, err := io.WriteString(c, "quiet\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(p); err != nil {
		t.Fatal(err)
	}
	c.Note("one message")
	got := out.String()
	for _, no := range []string{secret, "\x1b", "\u202e", "\x00", "the message", "quiet"} {
		if strings.Contains(got, no) {
			t.Errorf("the trace holds %q", no)
		}
	}
	for _, yes := range []string{"C: A1 CAPABILITY\n", "C: A2 LOGIN ***\n", "C: a3 authenticate PLAIN ***\n", "C: A4 AUTHENTICATE LOGIN\n", "S: + ***\n", "C: ***\n", "S: A4 OK done\n", "C: PASS ***\n", "S: -ERR *** is wrong\n", `\u001b[31mred`, "*: one message\n"} {
		if !strings.Contains(got, yes) {
			t.Errorf("the trace lacks %q", yes)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}
