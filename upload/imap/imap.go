// Package imap adds messages to an account over IMAP (RFC 3501 and 9051).
//
// Messages go in groups where the server has MULTIAPPEND (RFC 3502), without
// waiting for it to ask for each literal, or for one answer before the next command,
// where it has LITERAL+ or LITERAL- (RFC 7888), and are known by what APPENDUID says
// where it has UIDPLUS (RFC 4315).
package imap

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
	"mailhaul/upload"
)

// Config says which account is written to, and how.
type Config struct {
	Server      dial.Server
	Credentials auth.Credentials
	Connections int    // the largest number at a time; 0 means 4
	Version     string // of the program, told to servers that offer ID
}

// Destination is an account at an IMAP server. All methods may be called
// concurrently.
type Destination struct {
	account string
	pool    *pool

	mu    sync.Mutex
	names imapconn.Names // valid after Mailboxes
	raw   map[string]string
	limit int64
}

var (
	_ upload.Destination = (*Destination)(nil)
	_ upload.Limiter     = (*Destination)(nil)
	_ upload.Subscriber  = (*Destination)(nil)
	_ upload.Flagger     = (*Destination)(nil)
	_ upload.Quoter      = (*Destination)(nil)
	_ upload.Unmarker    = (*Destination)(nil)
)

// New returns the account without connecting yet.
func New(cfg Config) *Destination {
	cfg.Server.Protocol = "imap"
	if cfg.Connections <= 0 {
		cfg.Connections = 4
	}
	return &Destination{
		account: mail.AccountKey("imap", cfg.Credentials.User, cfg.Server.Host),
		raw:     make(map[string]string),
		pool: &pool{
			limit: cfg.Connections, changed: make(chan struct{}),
			dial: func(ctx context.Context) (*imapconn.Conn, error) {
				return imapconn.Dial(ctx, imapconn.Config{Server: cfg.Server, Credentials: cfg.Credentials, Version: cfg.Version})
			},
		},
	}
}

// Account returns the mail.AccountKey of the account.
func (d *Destination) Account() string { return d.account }

// Close ends the connections.
func (d *Destination) Close() error { return d.pool.close() }

// with lends a connection to f.
func (d *Destination) with(ctx context.Context, f func(*imapconn.Conn) error) error {
	c, err := d.pool.get(ctx)
	if err != nil {
		return err
	}
	defer d.pool.put(c)
	return f(c)
}

// Mailboxes lists the mailboxes that can hold messages.
func (d *Destination) Mailboxes(ctx context.Context) (all []mail.Mailbox, err error) {
	err = d.with(ctx, func(c *imapconn.Conn) error {
		all, err = c.Mailboxes(ctx)
		if err != nil {
			return err
		}
		limit, err := appendLimit(ctx, c)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.names, d.limit = c.Names(), limit
		for _, mb := range all {
			d.raw[mb.Name] = mb.Raw
		}
		return err
	})
	return all, err
}

// appendLimit returns the most octets of a message; a server may say it for each
// mailbox only (RFC 7889 section 3), then INBOX's counts for all.
func appendLimit(ctx context.Context, c *imapconn.Conn) (limit int64, err error) {
	if !c.Has("APPENDLIMIT") {
		return c.AppendLimit(), nil
	}
	_, err = c.Exec(ctx, &imapconn.Handler{Status: func(e imapconn.StatusEntry) error {
		limit = max(e.AppendLimit, 0)
		return nil
	}}, "STATUS INBOX (APPENDLIMIT)")
	return limit, err
}

// Space asks for the tightest limits on INBOX (RFC 9208). A server that does not
// answer is one without limits.
func (d *Destination) Space(ctx context.Context) (s upload.Space, err error) {
	s = upload.Unlimited
	err = d.with(ctx, func(c *imapconn.Conn) error {
		if !c.Has("QUOTA") {
			return nil
		}
		all, err := c.Quotas(ctx, "INBOX")
		if _, refused := errors.AsType[*imapconn.Refused](err); refused {
			return nil
		}
		for _, q := range all {
			left := max(q.Limit-q.Used, 0)
			switch {
			case q.Resource == "STORAGE" && left <= math.MaxInt64>>10: // counted in 1024 octets
				s.Octets = tighter(s.Octets, left<<10)
			case q.Resource == "MESSAGE":
				s.Messages = tighter(s.Messages, left)
			}
		}
		return err
	})
	return s, err
}

func tighter(known, left int64) int64 {
	if known >= 0 {
		return min(known, left)
	}
	return left
}

// MaxMessage returns what the server says of APPENDLIMIT (RFC 7889).
func (d *Destination) MaxMessage() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit
}

// Fit replaces what the server's names cannot hold by "_": the delimiter within a
// level, levels where there are none, text that is no UTF-8.
func (d *Destination) Fit(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	raw, ok := d.names.Raw(name)
	if !ok {
		fitting := strings.ToValidUTF8(name, "_")
		switch delim := d.names.Delim; {
		case delim == 0:
			fitting = strings.ReplaceAll(fitting, "/", "_")
		case delim != '/':
			fitting = strings.ReplaceAll(fitting, string(rune(delim)), "_")
			fitting = strings.ReplaceAll(fitting, fmt.Sprintf("%%%02X", delim), "_")
		default:
			fitting = strings.ReplaceAll(fitting, "%2F", "_")
		}
		if raw, ok = d.names.Raw(fitting); !ok {
			return fitting
		}
	}
	return d.names.Archive(raw)
}

// server returns the server's name of a mailbox, and how to spell it.
func (d *Destination) server(c *imapconn.Conn, name string) (raw, arg string, err error) {
	d.mu.Lock()
	raw, ok := d.raw[name]
	if !ok {
		raw, ok = d.names.Raw(name)
	}
	d.mu.Unlock()
	if ok {
		arg, ok = c.MailboxArgument(raw)
	}
	if !ok {
		return "", "", &mail.Error{Kind: mail.KindPartial, Ref: d.ref(name), Op: "name mailbox",
			Err: errors.New("the server cannot have a mailbox of this name"), Hint: "give it another with --map"}
	}
	return raw, arg, nil
}

func (d *Destination) ref(mailbox string) mail.Ref {
	return mail.Ref{Account: d.account, Mailbox: mailbox}
}

// refusal is an error for a mailbox; what is only for now stays so.
func (d *Destination) refusal(mailbox, op string, res imapconn.Result) error {
	kind := res.Kind()
	if kind == mail.KindOther || kind == mail.KindLacking || overQuota(res) {
		kind = mail.KindPartial
	}
	var cause error = &imapconn.Refused{Result: res}
	switch l, throttled := res.Limit(); {
	case overQuota(res):
		cause = upload.ErrOverQuota
	case throttled:
		kind, cause = mail.KindTemporary, &upload.Throttled{Wait: l.Wait, Err: cause}
	}
	return &mail.Error{Kind: kind, Ref: d.ref(mailbox), Op: op, Server: res.Condition + " " + res.Text, Err: cause}
}

// quotaWords mark refusals for lack of space where no code does: Exchange's are the
// last two.
var quotaWords = []string{"quota", "mailbox is full", "mailbox full", "server unavailable. 15"}

// overQuota tells whether there is no space. Gmail says OVERQUOTA also of too much
// traffic, which is a matter of waiting.
func overQuota(res imapconn.Result) bool {
	text := strings.ToLower(res.Text)
	if strings.Contains(text, "bandwidth limit") {
		return false
	}
	return res.Code == "OVERQUOTA" || slices.ContainsFunc(quotaWords, func(w string) bool { return strings.Contains(text, w) })
}

// Create makes a mailbox.
func (d *Destination) Create(ctx context.Context, name string) error {
	return d.with(ctx, func(c *imapconn.Conn) error {
		_, arg, err := d.server(c, name)
		if err != nil {
			return err
		}
		res, err := c.Exec(ctx, nil, "CREATE "+arg)
		if err != nil || res.OK() || res.Code == "ALREADYEXISTS" || strings.EqualFold(name, "INBOX") {
			return err
		}
		// Servers that do not say why: it may be there all the same.
		if _, _, serr := c.Select(ctx, unquoted(d, name)); serr == nil {
			return nil
		}
		return d.refusal(name, "create mailbox", res)
	})
}

func unquoted(d *Destination, name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	raw, _ := d.names.Raw(name) // server was asked first
	return raw
}

// Subscribe subscribes to a mailbox.
func (d *Destination) Subscribe(ctx context.Context, name string) error {
	return d.with(ctx, func(c *imapconn.Conn) error {
		_, arg, err := d.server(c, name)
		if err != nil {
			return err
		}
		res, err := c.Exec(ctx, nil, "SUBSCRIBE "+arg)
		if err == nil && !res.OK() {
			err = d.refusal(name, "subscribe", res)
		}
		return err
	})
}

// Open selects a mailbox and leaves it again.
func (d *Destination) Open(ctx context.Context, name string) (box upload.Box, err error) {
	err = d.with(ctx, func(c *imapconn.Conn) error {
		raw, _, err := d.server(c, name)
		if err != nil {
			return err
		}
		var then []string
		if c.Has("UNSELECT") { // what is appended to a selected mailbox is told at once, for nothing
			then = []string{"UNSELECT"}
		}
		b, tags, err := c.Select(ctx, raw, then...)
		if err != nil {
			return d.selectError(name, err)
		}
		for range tags {
			if _, _, err := c.Next(nil); err != nil {
				return err
			}
		}
		if b.UIDNext == 0 {
			if b, err = d.askUIDNext(ctx, c, name, raw); err != nil {
				return err
			}
		}
		box = upload.Box{
			Name: name, UIDValidity: b.UIDValidity, UIDNext: b.UIDNext, Messages: b.Exists,
			Permanent: b.Permanent, AnyKeyword: b.AnyKeyword, AllFlags: b.All,
		}
		return nil
	})
	return box, err
}

func (d *Destination) selectError(name string, err error) error {
	if r, ok := errors.AsType[*imapconn.Refused](err); ok {
		return d.refusal(name, "select mailbox", r.Result)
	}
	return err
}

// askUIDNext selects the mailbox of a server that does not say UIDNEXT and finds it
// out.
func (d *Destination) askUIDNext(ctx context.Context, c *imapconn.Conn, name, raw string) (imapconn.Box, error) {
	b, _, err := c.Select(ctx, raw)
	if err != nil {
		return b, d.selectError(name, err)
	}
	if b.UIDNext, err = d.uidNext(ctx, c, b.Exists); err == nil && c.Has("UNSELECT") {
		_, err = c.Exec(ctx, nil, "UNSELECT")
	}
	return b, err
}

// uidNext asks for the last UID of the selected mailbox.
func (d *Destination) uidNext(ctx context.Context, c *imapconn.Conn, exists int64) (uint32, error) {
	var last uint32
	if exists == 0 {
		return 1, nil
	}
	h := &entries{yield: func(in mail.Info) error {
		n, err := strconv.ParseUint(in.Ref.UID, 10, 32)
		last = max(last, uint32(n))
		return err
	}}
	res, err := c.Exec(ctx, &imapconn.Handler{Fetch: h}, "UID FETCH * (UID)")
	if err == nil && !res.OK() {
		err = c.Refusal("list messages", res)
	}
	return last + 1, err
}

// entries takes listings.
type entries struct {
	from  uint32
	yield func(mail.Info) error
}

func (*entries) Body(*imapconn.Fetch, *imapconn.Body) error { return nil }

func (e *entries) End(f *imapconn.Fetch) error {
	if f.Has&imapconn.ItemUID == 0 || f.UID < e.from {
		return nil
	}
	return e.yield(mail.Info{Ref: mail.Ref{UID: strconv.FormatUint(uint64(f.UID), 10)}, Size: f.Size, Flags: f.Flags})
}

// examine selects a mailbox to read, with commands behind it.
func (d *Destination) examine(ctx context.Context, c *imapconn.Conn, box upload.Box, then ...string) (imapconn.Selected, []string, error) {
	raw, _, err := d.server(c, box.Name)
	if err != nil {
		return imapconn.Selected{}, nil, err
	}
	sel, tags, err := c.Examine(ctx, raw, then...)
	if err != nil {
		return sel, nil, d.selectError(box.Name, err)
	}
	if sel.UIDValidity != box.UIDValidity {
		for range tags {
			if _, _, err := c.Next(nil); err != nil {
				return sel, nil, err
			}
		}
		return sel, nil, d.otherMailbox(box.Name)
	}
	return sel, tags, nil
}

func (d *Destination) otherMailbox(name string) error {
	return &mail.Error{Kind: mail.KindTemporary, Ref: d.ref(name), Op: "select mailbox", Err: upload.ErrUIDValidity,
		Hint: "run the same command again"}
}

// SetFlags changes flags, in one command for all messages where the same changes.
func (d *Destination) SetFlags(ctx context.Context, box upload.Box, changes []upload.FlagChange) error {
	type change struct {
		item  string
		flags mail.Flags
	}
	uids := make(map[change][]uint32)
	for _, ch := range changes {
		if ch.Add != "" {
			k := change{"+FLAGS.SILENT", ch.Add}
			uids[k] = append(uids[k], ch.UID)
		}
		if ch.Remove != "" {
			k := change{"-FLAGS.SILENT", ch.Remove}
			uids[k] = append(uids[k], ch.UID)
		}
	}
	return d.with(ctx, func(c *imapconn.Conn) error {
		raw, _, err := d.server(c, box.Name)
		if err != nil {
			return err
		}
		b, _, err := c.Select(ctx, raw)
		if err != nil {
			return d.selectError(box.Name, err)
		}
		if b.UIDValidity != box.UIDValidity {
			return d.otherMailbox(box.Name)
		}
		for k, list := range uids {
			slices.Sort(list)
			for len(list) > 0 {
				var set imapconn.Set
				n := 0
				for n < len(list) && set.Add(list[n]) {
					n++
				}
				list = list[n:]
				res, err := c.Exec(ctx, nil, "UID STORE "+set.String()+" "+k.item+" ("+string(k.flags)+")")
				if err != nil {
					return err
				}
				if !res.OK() {
					return d.refusal(box.Name, "store flags", res)
				}
			}
		}
		return nil
	})
}
