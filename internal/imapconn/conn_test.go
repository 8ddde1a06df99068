package imapconn

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, srv *testserver.IMAP) Config {
	t.Helper()
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return Config{
		Server:      dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: srv.Port(), Security: dial.Cleartext, Timeout: 10 * time.Second},
		Credentials: auth.Credentials{User: "ada", Password: "se\"cr\\et"},
		Version:     "1",
	}
}

func connect(t testing.TB, srv *testserver.IMAP) *Conn {
	t.Helper()
	c, err := Dial(context.Background(), start(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// What a server says before the login ends in the right kind of error, and never
// with a password on the wire.
func TestRefusedBeforeLogin(t *testing.T) {
	for name, tc := range map[string]struct {
		greeting string
		caps     string
		answer   func(c *testserver.IMAPConn, cmd string) bool
		security dial.Security
		kind     mail.Kind
		says     string
	}{
		"garbage":       {greeting: "\x1b]0;x\x07 hello", kind: mail.KindOther, says: "not an IMAP"},
		"HTTP":          {greeting: "HTTP/1.1 400 Bad Request", kind: mail.KindOther, says: "not an IMAP"},
		"BYE":           {greeting: "* BYE [UNAVAILABLE] too busy", kind: mail.KindTemporary, says: "too busy"},
		"NO":            {greeting: "* NO go away", kind: mail.KindOther, says: "not an IMAP"},
		"endless line":  {greeting: "* OK " + strings.Repeat("x", 3<<20), kind: mail.KindTemporary, says: "line of more than"},
		"PREAUTH":       {greeting: "* PREAUTH [CAPABILITY IMAP4rev1] hi", security: dial.StartTLS, kind: mail.KindAuth, says: "PREAUTH"},
		"no STARTTLS":   {security: dial.StartTLS, kind: mail.KindLacking, says: "no STARTTLS"},
		"LOGINDISABLED": {caps: "IMAP4rev1 LOGINDISABLED AUTH=GSSAPI", kind: mail.KindLacking, says: "no way to log in"},
		"STARTTLS refused": {security: dial.StartTLS, caps: "IMAP4rev1 STARTTLS", kind: mail.KindLacking, says: "not today",
			answer: func(c *testserver.IMAPConn, cmd string) bool { c.NO("not today"); return true }},
		"injection": {security: dial.StartTLS, caps: "IMAP4rev1 STARTTLS", kind: mail.KindAuth, says: "clear text",
			answer: func(c *testserver.IMAPConn, cmd string) bool {
				c.Send(c.Tag + " OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n")
				return true
			}},
		"plain text for TLS": {security: dial.StartTLS, caps: "IMAP4rev1 STARTTLS", kind: -1,
			answer: func(c *testserver.IMAPConn, cmd string) bool {
				c.OK("go")
				_, _ = c.R.ReadByte()
				c.Send("* OK no TLS here\r\n")
				c.Close()
				return true
			}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Greeting: tc.greeting, Capabilities: tc.caps, Answer: tc.answer}
			cfg := start(t, srv)
			cfg.Server.Security = tc.security
			if tc.security == dial.TLS {
				cfg.Server.Security = dial.Cleartext
			}
			c, err := Dial(context.Background(), cfg)
			if err == nil {
				c.Close()
				t.Fatal("logged in")
			}
			if !strings.Contains(err.Error(), tc.says) || tc.kind >= 0 && mail.KindOf(err) != tc.kind {
				t.Errorf("kind %d: %v", mail.KindOf(err), err)
			}
			for _, cmd := range srv.Sent() {
				if strings.HasPrefix(cmd, "LOGIN") || strings.HasPrefix(cmd, "AUTH") {
					t.Errorf("sent %q", cmd)
				}
			}
		})
	}
}

func TestStartTLS(t *testing.T) {
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := ca.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	srv := &testserver.IMAP{Capabilities: "IMAP4rev1 STARTTLS LOGINDISABLED"}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		switch cmd {
		case "STARTTLS":
			c.OK("go")
			c.StartTLS(tlsConfig)
		case "CAPABILITY":
			c.Send("* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n")
			c.OK("done")
		default:
			return false
		}
		return true
	}
	cfg := start(t, srv)
	cfg.Server.Security = dial.StartTLS
	if cfg.Server.CAFile, err = ca.WriteFile(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.Net().Secure() {
		t.Error("not secure")
	}
	got := strings.Join(srv.Sent(), "|")
	if !strings.HasPrefix(got, "STARTTLS|CAPABILITY|AUTHENTICATE PLAIN ") {
		t.Errorf("sent %s", got)
	}
}

func TestLogin(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	for name, tc := range map[string]struct {
		caps           string
		user, password string
		sent           string // commands and, behind "+", what followed a continuation
	}{
		"PLAIN at once":   {caps: "IMAP4rev1 AUTH=PLAIN SASL-IR", user: "ada", password: "p", sent: "AUTHENTICATE PLAIN " + b64([]byte("\x00ada\x00p"))},
		"PLAIN":           {caps: "IMAP4rev1 AUTH=PLAIN", user: "ädä", password: "pß", sent: "AUTHENTICATE PLAIN|+" + b64([]byte("\x00ädä\x00pß"))},
		"LOGIN":           {caps: "IMAP4rev1", user: "ada", password: `a"b\c`, sent: `LOGIN "ada" "a\"b\\c"`},
		"LOGIN mechanism": {caps: "IMAP4rev1 LOGINDISABLED AUTH=LOGIN", user: "ada", password: "p", sent: "AUTHENTICATE LOGIN|+" + b64([]byte("ada")) + "|+" + b64([]byte("p"))},
		"8-bit":           {caps: "IMAP4rev1", user: "ädä", password: "pß", sent: "LOGIN {5}|+ädä {3}|+pß"},
		"8-bit LITERAL+":  {caps: "IMAP4rev1 LITERAL+", user: "ädä", password: "p", sent: `LOGIN {5+}|ädä "p"`},
		"IMAP4rev2":       {caps: "IMAP4rev1 IMAP4rev2", user: "ada", password: "pß", sent: `LOGIN "ada" {3}|+pß`},
	} {
		t.Run(name, func(t *testing.T) {
			var sent []string
			srv := &testserver.IMAP{Capabilities: tc.caps}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if !strings.HasPrefix(cmd, "LOGIN") && !strings.HasPrefix(cmd, "AUTH") {
					return false
				}
				sent = append(sent, cmd)
				rounds := map[string]int{"AUTHENTICATE PLAIN": 1, "AUTHENTICATE LOGIN": 2}[cmd]
				for i := 0; i < rounds || strings.HasSuffix(sent[len(sent)-1], "}"); i++ {
					mark := "+"
					if strings.HasSuffix(sent[len(sent)-1], "+}") {
						mark = ""
					} else {
						c.Send("+ \r\n")
					}
					next, err := c.Line()
					if err != nil {
						return true
					}
					sent = append(sent, mark+next)
				}
				c.OK("in")
				return true
			}
			cfg := start(t, srv)
			cfg.Credentials = auth.Credentials{User: tc.user, Password: auth.Secret(tc.password)}
			c, err := Dial(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if got := strings.Join(sent, "|"); got != tc.sent {
				t.Errorf("sent %s, want %s", got, tc.sent)
			}
		})
	}
}

// A refused login is tried once, whatever else the server offers, and the error
// tells a wrong password from a busy server.
func TestLoginRefused(t *testing.T) {
	for answer, kind := range map[string]mail.Kind{
		"NO [AUTHENTICATIONFAILED] bad se\"cr\\et": mail.KindAuth,
		"NO no":                  mail.KindAuth,
		"BAD what":               mail.KindAuth,
		"NO [UNAVAILABLE] later": mail.KindTemporary,
		"NO [ALERT] Too many simultaneous connections. (Failure)": mail.KindTemporary,
		"NO [REFERRAL imap://evil.example/] go there":             mail.KindAuth,
		"NO [PRIVACYREQUIRED] use TLS":                            mail.KindLacking,
	} {
		t.Run(answer, func(t *testing.T) {
			srv := &testserver.IMAP{Capabilities: "IMAP4rev1 AUTH=PLAIN SASL-IR AUTH=LOGIN"}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				c.Send(c.Tag + " " + answer + "\r\n")
				return true
			}
			_, err := Dial(context.Background(), start(t, srv))
			if mail.KindOf(err) != kind || len(srv.Sent()) > 2 {
				t.Errorf("kind %d, want %d: %v; sent %q", mail.KindOf(err), kind, err, srv.Sent())
			}
			if err == nil || strings.Contains(err.Error(), "cr\\et") {
				t.Errorf("password in %v", err)
			}
			if full := strings.Contains(mail.HintOf(err), "more connections"); full != strings.Contains(answer, "Too many") {
				t.Errorf("hint %q", mail.HintOf(err))
			}
		})
	}
}

// A server that asks for ever is not answered for ever.
func TestLoginWithoutEnd(t *testing.T) {
	srv := &testserver.IMAP{Capabilities: "IMAP4rev1 AUTH=PLAIN SASL-IR"}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		for range 100 {
			c.Send("+ eA==\r\n")
			if _, err := c.Line(); err != nil {
				return true
			}
		}
		return true
	}
	if _, err := Dial(context.Background(), start(t, srv)); err == nil {
		t.Error("logged in")
	}
}

func TestMailboxes(t *testing.T) {
	list := func(names ...string) string {
		return "* LIST () \"/\" " + strings.Join(names, "\r\n* LIST () \"/\" ") + "\r\n"
	}
	for name, tc := range map[string]struct {
		caps, namespace, list, status string
		want                          string // name=raw
	}{
		"plain":     {list: list("INBOX", `"a b"`, "x/y"), want: "INBOX=INBOX a b=a b x/y=x/y"},
		"odd":       {list: list("A & B", `"Entw&rfe"`, "\"Entw\xfcrfe\"", `"a&AGE-"`, "{3}\r\na\"b", `"q\"\\"`), want: `A %26 B=A & B Entw%26rfe=Entw&rfe Entw%FCrfe=Entw` + "\xfc" + `rfe a%26AGE-=a&AGE- a"b=a"b q"\=q"\`},
		"INBOX":     {list: list("Inbox", "INBOX", "inbox", "x", "x"), want: "INBOX=Inbox x=x"},
		"dots":      {caps: "NAMESPACE", namespace: `(("INBOX." ".")) NIL (("shared." "." "X" ("y")))`, list: "* LIST (\\HasChildren) \".\" INBOX\r\n* LIST () \".\" \"INBOX.Sent\"\r\n* LIST () \".\" shared.x\r\n", want: "INBOX=INBOX Sent=INBOX.Sent shared/x=shared.x"},
		"NIL":       {list: "* LIST () NIL a/b\r\n* LIST NIL nil c\r\n", want: "a%2Fb=a/b c=c"},
		"noselect":  {list: "* LIST (\\Noselect) \"/\" a\r\n* LIST (\\NOSELECT \\HasChildren) \"/\" b\r\n* LIST (\\NonExistent) \"/\" c\r\n* LIST (\\Sent) \"/\" d\r\n", want: "d=d"},
		"broken":    {list: "* LIST (\\x \"/\" a\r\n* LIST\r\n* LIST ((((\r\n* LIST () \"/\" \"a\r\n* LIST () \"//\" b\r\n* LSUB () \"/\" z\r\n", want: "b=b"},
		"extended":  {caps: "LIST-EXTENDED LIST-STATUS SPECIAL-USE CONDSTORE", list: "* LIST () \"/\" a (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n* STATUS a (MESSAGES 3 UIDNEXT 9 UIDVALIDITY 7 HIGHESTMODSEQ 12 FOO (1 2))\r\n", want: "a=a:7:9:3:12"},
		"status":    {caps: "CONDSTORE", list: list("a"), status: "* STATUS a (MESSAGES 3 UIDNEXT 9 UIDVALIDITY 7 HIGHESTMODSEQ 12)\r\n", want: "a=a:7:9:3:12"},
		"nonsense":  {caps: "CONDSTORE", list: list("a"), status: "* STATUS a (MESSAGES -3 UIDNEXT 99999999999999999999 UIDVALIDITY abc HIGHESTMODSEQ NIL)\r\n", want: "a=a"},
		"no modseq": {list: list("a"), status: "* STATUS a (MESSAGES 3 UIDNEXT 9 UIDVALIDITY 7)\r\n", want: "a=a"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Capabilities: "IMAP4rev1 AUTH=PLAIN SASL-IR ID " + tc.caps}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				switch verb, _, _ := strings.Cut(cmd, " "); verb {
				case "LIST":
					c.Send(tc.list)
				case "NAMESPACE":
					c.Send("* NAMESPACE " + tc.namespace + "\r\n")
				case "STATUS":
					c.Send(tc.status)
				case "ID":
					c.Send("* ID (\"name\" NIL \"x\" {3}\r\na\"b)\r\n")
				default:
					return false
				}
				c.OK("done")
				return true
			}
			all, err := connect(t, srv).Mailboxes(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, mb := range all {
				s := mb.Name + "=" + mb.Raw
				if mb.State != "" {
					s += ":" + mb.State
				}
				got = append(got, s)
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got  %q\nwant %q", s, tc.want)
			}
		})
	}
}

// LIST with options that the server advertises and does not know.
func TestListRefused(t *testing.T) {
	srv := &testserver.IMAP{Capabilities: "IMAP4rev1 AUTH=PLAIN SASL-IR LIST-STATUS SPECIAL-USE"}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		if strings.Contains(cmd, "RETURN") {
			c.Send(c.Tag + " BAD parse error\r\n")
			return true
		}
		return false
	}
	all, err := connect(t, srv).Mailboxes(context.Background())
	if err != nil || len(all) != 1 || all[0].UIDValidity != 1 {
		t.Errorf("%+v %v", all, err)
	}
}

// Names the library cannot spell are selected all the same.
func TestExamineRaw(t *testing.T) {
	srv := &testserver.IMAP{}
	c := connect(t, srv)
	for _, raw := range []string{"A & B", "Entw\xfcrfe", "Entw&APw-rfe", "inbox", `q"\`, "a\r\nb"} {
		if _, _, err := c.Examine(context.Background(), raw); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
	want := []string{`EXAMINE "A & B"`, "EXAMINE \"Entw\xfcrfe\"", `EXAMINE "Entw&APw-rfe"`, "EXAMINE INBOX", `EXAMINE "q\"\\"`, "EXAMINE {4+}"}
	var got []string
	for _, cmd := range srv.Sent() {
		if strings.HasPrefix(cmd, "EXAMINE") {
			got = append(got, cmd)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent %q", got)
	}
}

// A refused mailbox leaves the connection usable, and the library with it.
func TestExamineRefused(t *testing.T) {
	srv := &testserver.IMAP{}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		if strings.HasPrefix(cmd, "EXAMINE \"gone") {
			c.NO("[NONEXISTENT] no such mailbox")
			return true
		}
		return false
	}
	c := connect(t, srv)
	var refused *Refused
	if _, _, err := c.Examine(context.Background(), "gone", "UID FETCH 1:* (UID)"); !errors.As(err, &refused) || refused.Code != "NONEXISTENT" {
		t.Errorf("%v", err)
	}
	if sel, _, err := c.Examine(context.Background(), "INBOX"); err != nil || sel.UIDValidity != 1 || !c.Usable() {
		t.Errorf("%+v %v", sel, err)
	}
}

// What comes without end ends by a limit of ours.
func TestFloods(t *testing.T) {
	for name, line := range map[string]string{
		"unknown":  "* XFOO\r\n",
		"tagged":   "zzz OK x\r\n",
		"plus":     "+ x\r\n",
		"EXISTS":   "* 4294967295 EXISTS\r\n",
		"EXPUNGE":  "* 1 EXPUNGE\r\n",
		"OK":       "* OK [ALERT] x\r\n",
		"empty":    "\r\n",
		"FETCH":    "* 1 FETCH (FLAGS ())\r\n",
		"literals": "* X {3}\r\nabc\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if cmd != "NOOP" {
					return false
				}
				for range 40 {
					c.Send(strings.Repeat(line, 1000))
				}
				return true
			}
			c := connect(t, srv)
			if _, err := c.Exec(context.Background(), nil, "NOOP"); err == nil || !strings.Contains(err.Error(), "nobody asked for") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestGuard(t *testing.T) {
	for _, cmd := range []string{"EXPUNGE", "expunge", "CLOSE", "close", "UID FETCH 1 (BODY[])", "FETCH 1 rfc822", "FETCH 1 (RFC822 UID)", "UID FETCH 1 (UID RFC822.TEXT)", "UID FETCH 1 BINARY[1]"} {
		if guard(cmd) == nil && guard(cmd+" ") == nil {
			t.Errorf("%q is let through", cmd)
		}
	}
	for _, cmd := range []string{"UID EXPUNGE 1:3", "NOOP", "UID FETCH 1 (UID FLAGS RFC822.SIZE BODY.PEEK[])", `EXAMINE "CLOSE"`, "UID FETCH 1 (BODY.PEEK[HEADER])"} {
		if err := guard(cmd); err != nil {
			t.Errorf("%q: %v", cmd, err)
		}
	}
	c := connect(t, &testserver.IMAP{})
	if _, err := c.Send("EXPUNGE"); err == nil {
		t.Error("EXPUNGE was sent")
	}
	if err := c.client.UnselectAndExpunge().Wait(); err == nil {
		t.Error("CLOSE of the library was sent")
	}
}

// The server's last words stand in the error.
func TestBYE(t *testing.T) {
	srv := &testserver.IMAP{}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		if cmd != "NOOP" {
			return false
		}
		c.Send("* BYE Session invalidated - AccessTokenExpired\r\n")
		c.Close()
		return true
	}
	c := connect(t, srv)
	_, err := c.Exec(context.Background(), nil, "NOOP")
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "AccessTokenExpired") || mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("%v", err)
	}
	if c.Usable() {
		t.Error("usable after BYE")
	}
}

// What a context has ended is lent to nobody.
func TestUsableAfterContext(t *testing.T) {
	c := connect(t, &testserver.IMAP{})
	ctx, cancel := context.WithCancel(t.Context())
	release := c.Bind(ctx)
	if release(); !c.Usable() {
		t.Error("of no use, though released in time")
	}
	cancel()
	if c.Bind(ctx)(); c.Usable() {
		t.Error("usable after the end of its context")
	}
}

// A silent server and a cancelled context end every call; Close never waits.
func TestSilent(t *testing.T) {
	for _, verb := range []string{"AUTHENTICATE", "LIST", "EXAMINE", "NOOP"} {
		t.Run(verb, func(t *testing.T) {
			srv := &testserver.IMAP{}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool { return strings.HasPrefix(cmd, verb) }
			cfg := start(t, srv)
			cfg.Server.Timeout = 50 * time.Millisecond
			err := talk(context.Background(), cfg)
			if mail.KindOf(err) != mail.KindTemporary {
				t.Errorf("silence: %v", err)
			}
			cfg.Server.Timeout = time.Hour
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := talk(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
}

func talk(ctx context.Context, cfg Config) error {
	c, err := Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err = c.Mailboxes(ctx); err != nil {
		return err
	}
	if _, _, err = c.Examine(ctx, "INBOX"); err != nil {
		return err
	}
	_, err = c.Exec(ctx, nil, "NOOP")
	return err
}

// A trace tells what was said, without secrets and without mail.
func TestTrace(t *testing.T) {
	m := testserver.IMAPMessage{UID: 1, Octets: "Subject: private\r\n\r\nprivate words\r\n"}
	srv := &testserver.IMAP{Messages: []testserver.IMAPMessage{m}, Capabilities: "IMAP4rev1"}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		if strings.HasPrefix(cmd, "UID FETCH 2") {
			c.Send("* 2 FETCH (UID 2 BODY[] \"private\")\r\n")
			c.OK("done")
			return true
		}
		return false
	}
	cfg := start(t, srv)
	var trace bytes.Buffer
	cfg.Server.Trace = &dial.Trace{W: &trace}
	c, err := Dial(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{Fetch: discard{}}
	for _, cmd := range []string{"EXAMINE INBOX", "UID FETCH 1 (UID BODY.PEEK[])", "UID FETCH 2 (UID BODY.PEEK[])"} {
		if _, err := c.Exec(context.Background(), h, cmd); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	text := trace.String()
	for _, s := range []string{`cr\et`, `cr\\et`, "private"} {
		if strings.Contains(text, s) {
			t.Errorf("%q in the trace:\n%s", s, text)
		}
	}
	for _, s := range []string{"LOGIN ***", "EXAMINE INBOX", "UID FETCH 1", "EXISTS"} {
		if !strings.Contains(text, s) {
			t.Errorf("no %q in the trace:\n%s", s, text)
		}
	}
}

type discard struct{}

func (discard) Body(*Fetch, *Body) error { return nil }
func (discard) End(*Fetch) error         { return nil }
