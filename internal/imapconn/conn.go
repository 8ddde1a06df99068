// Package imapconn is a logged-in IMAP connection.
//
// The library (go-imap's imapclient) holds the conversation: greeting, login,
// capabilities, ID, NAMESPACE, selecting mailboxes. Lists and message octets are
// raw commands over the same connection, with a reader that streams and that
// bears what real servers send. The library sees only responses that are meant
// for it and well-formed.
package imapconn

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/mail"
)

const (
	maxMailboxes = 100_000    // that a server may list
	maxJunk      = 10_000     // responses nobody asked for, in one command
	maxMessages  = 10_000_000 // FETCH responses in one command
	maxBodyDflt  = 4 << 30    // octets of a message
)

// Config says where to connect to and as whom.
type Config struct {
	Server      dial.Server
	Credentials auth.Credentials
	Version     string // of this program, told to servers that offer ID; "" tells none
	MaxMessage  int64  // octets a server may announce for one message; 0 means 4 GiB
}

func (c Config) ref() mail.Ref {
	return mail.Ref{Account: mail.AccountKey("imap", c.Credentials.User, c.Server.Host)}
}

// Conn is a connection that is logged in. One goroutine at a time may use it;
// Close may be called from any.
type Conn struct {
	cfg     Config
	nc      *dial.Conn
	scan    *scanner
	parser  *fetchParser
	client  *imapclient.Client
	prefix  string   // of all tags, random
	greeted string   // text of the greeting
	offered []string // login methods
	method  string   // that was used
	trip    time.Duration

	// What the reader learns. The library's goroutine reads while a command of
	// the library is in flight, the owner else, never both.
	caps     map[string]bool // nil while unknown
	names    Names
	hasNames bool
	sel      Selected
	last     Result // answer to the library's last command
	bye      string
	alert    string
	copied   []string // arguments of COPYUID codes since Move took them
	handler  *Handler
	done     []tagged
	junk     int
	fetched  int

	mu      sync.Mutex
	cond    *sync.Cond
	library map[string]bool // tags of the library's commands in flight
	turn    bool            // the owner waits for the library, which may read
	greet   bool            // the greeting is still to come
	toLib   []byte          // responses for the library
	conts   int             // continuations the library waits for
	sasl    saslState
	readErr error
	closed  bool

	wmu      sync.Mutex
	wline    []byte // a command line of the library that is not complete
	wlit     int64  // octets of a literal of the library still to come
	midCmd   bool   // its command goes on behind a literal
	commands int
	raw      []string // tags of our commands in flight
	later    []func() error

	closeOnce sync.Once
}

type tagged struct {
	tag string
	res Result
}

// Handler takes what raw commands bring. Every function may be nil.
type Handler struct {
	Fetch  FetchHandler
	List   func(ListEntry) error
	Lsub   bool // List takes LSUB responses, too
	Status func(StatusEntry) error
	Quota  func(Quota) error
	Search func(uid uint32) error
}

// Has tells whether the server has a capability, written in upper case.
func (c *Conn) Has(capability string) bool { return c.caps[capability] }

// Caps returns the capabilities, in upper case and sorted.
func (c *Conn) Caps() []string {
	var all []string
	for name := range c.caps {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Logins returns the login methods that the server offered, sorted, and the one
// that was used; "" where there was no login.
func (c *Conn) Logins() (offered []string, used string) { return c.offered, c.method }

// Greeting returns the text of the server's greeting.
func (c *Conn) Greeting() string { return c.greeted }

// Alert returns the last text the server wants a person to see, "" for none.
func (c *Conn) Alert() string { return c.alert }

// Buffered returns how many octets have come and were not read.
func (c *Conn) Buffered() int { return c.scan.br.Buffered() + c.nc.Buffered() }

// Net returns the connection below, for its counters and its certificate.
func (c *Conn) Net() *dial.Conn { return c.nc }

// Bind ends the connection when ctx is done, until release is called.
func (c *Conn) Bind(ctx context.Context) (release func() bool) { return c.nc.Bind(ctx) }

// Usable tells whether nothing has gone wrong on the connection so far and nothing
// is in flight.
func (c *Conn) Usable() bool {
	c.wmu.Lock()
	inFlight := len(c.raw)
	c.wmu.Unlock()
	return inFlight == 0 && c.readError() == nil && !c.nc.Ended()
}

func (c *Conn) readError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed && c.readErr == nil {
		return errClosed
	}
	return c.readErr
}

var errClosed = errors.New("connection is closed")

// Close sends LOGOUT, does not wait for the answer, and closes the connection.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		if c.readError() == nil && c.wmu.TryLock() {
			// RFC 9051 section 6.1.3. The answer brings nothing we need.
			if len(c.raw) == 0 {
				_, _ = c.nc.Write([]byte(c.prefix + "Z LOGOUT\r\n"))
			}
			c.wmu.Unlock()
		}
		_ = c.nc.Close() // nothing depends on how it ends
		c.mu.Lock()
		c.closed = true
		c.cond.Broadcast()
		c.mu.Unlock()
		_ = c.client.Close() // waits for its goroutine, which the lines above have freed
	})
	return nil
}

func (c *Conn) literalPlus() bool { return c.Has("LITERAL+") || c.Has("LITERAL-") }

// Exec sends a raw command and reads up to its answer. Nothing else may be in flight.
func (c *Conn) Exec(ctx context.Context, h *Handler, cmd string) (Result, error) {
	defer c.Bind(ctx)()
	tag, err := c.Send(cmd)
	if err != nil {
		return Result{}, err
	}
	got, res, err := c.Next(h)
	if err == nil && got != tag {
		err = c.broke(broken("answer to another command"))
	}
	return res, err
}

// Send sends a raw command without waiting; its answer is read with Next. The
// command must be one line, or hold only literals that need no continuation.
func (c *Conn) Send(cmd string) (tag string, err error) {
	if err := guard(cmd); err != nil {
		return "", err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.commands++
	tag = c.prefix + strconv.Itoa(c.commands)
	c.raw = append(c.raw, tag)
	c.nc.Owed(true)
	c.nc.TraceLine(true, tag+" "+cmd)
	if _, err := c.nc.Write([]byte(tag + " " + cmd + "\r\n")); err != nil {
		return "", c.broke(err)
	}
	return tag, nil
}

// Next reads until one of the raw commands in flight is answered. h takes what
// comes before. After an error the connection is of no use any more.
func (c *Conn) Next(h *Handler) (tag string, res Result, err error) {
	c.handler, c.junk, c.fetched = h, 0, 0
	defer func() { c.handler = nil }()
	if err := c.settle(); err != nil {
		return "", Result{}, err
	}
	for len(c.done) == 0 {
		if err := c.readError(); err != nil {
			return "", Result{}, c.broke(err)
		}
		if _, err := c.step(); err != nil {
			return "", Result{}, c.broke(err)
		}
	}
	d := c.done[0]
	c.done = c.done[1:]
	return d.tag, d.res, nil
}

// InFlight returns how many raw commands are not answered.
func (c *Conn) InFlight() int {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return len(c.raw) + len(c.done)
}

// broke records why the connection is of no use any more, closes it and returns
// the error for a person.
func (c *Conn) broke(err error) error {
	c.setReadErr(err)
	return c.fail("talk to the server", err)
}

func (c *Conn) setReadErr(err error) {
	c.mu.Lock()
	if c.readErr == nil {
		c.readErr = err
	}
	c.cond.Broadcast()
	c.mu.Unlock()
}

// fail turns an error of the connection or of the library into one for a person.
func (c *Conn) fail(op string, err error) error {
	if cause := c.readError(); cause != nil {
		err = cause // the library knows only that something broke
	}
	if r, ok := errors.AsType[*Refused](err); ok {
		return c.refused(op, r.Result, r.Kind(), "")
	}
	if re, ok := errors.AsType[*imap.Error](err); ok && c.bye == "" {
		res, _ := c.result([]byte(string(re.Type) + " " + re.Text))
		return c.refused(op, res, res.Kind(), "")
	}
	if he, ok := errors.AsType[*handlerError](err); ok {
		return he.err
	}
	if errors.Is(err, errNotIMAP) {
		return &mail.Error{Kind: mail.KindOther, Ref: c.cfg.ref(), Op: op, Err: err, Hint: "check host and port"}
	}
	failed := c.nc.Fail(op, err)
	me, ok := errors.AsType[*mail.Error](failed)
	if !ok {
		return failed
	}
	e := *me
	if e.Ref.Account == "" {
		e.Ref = c.cfg.ref()
	}
	if c.bye != "" && e.Server == "" {
		e.Server = c.cfg.Credentials.Redact(c.bye)
	}
	return &e
}

func (c *Conn) refused(op string, res Result, kind mail.Kind, hint string) error {
	return &mail.Error{
		Kind: kind, Ref: c.cfg.ref(), Op: op, Hint: hint,
		Server: c.cfg.Credentials.Redact(res.Condition + " " + res.Text),
		Err:    &Refused{res},
	}
}

func (c *Conn) withRef(err error) error {
	if me, ok := errors.AsType[*mail.Error](err); ok && me.Ref.Account == "" {
		e := *me
		e.Ref = c.cfg.ref()
		return &e
	}
	return err
}

// handlerError is an error of a Handler: not the connection's fault.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }

func (e *handlerError) Unwrap() error { return e.err }

func handled(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*wireError](err); ok {
		return err
	}
	return &handlerError{err}
}
