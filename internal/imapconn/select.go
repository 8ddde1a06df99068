package imapconn

import (
	"bytes"
	"context"
	"strings"

	"github.com/emersion/go-imap/v2"

	"mailhaul/mail"
)

// Selected is the state of the mailbox that is selected.
type Selected struct {
	Raw           string
	Exists        int64 // messages, kept up to date
	UIDValidity   uint32
	UIDNext       uint32
	HighestModSeq uint64
	Expunged      int64 // messages that went since
	NoUIDs        bool  // UIDNOTSTICKY: UIDs do not last (RFC 4315)
}

// Selected returns the state of the selected mailbox.
func (c *Conn) Selected() Selected { return c.sel }

// Examine selects a mailbox, named as the server does, for reading only. Commands
// in then are sent behind it without waiting; they are to be read with Next. If the
// mailbox cannot be selected, their answers are dropped.
func (c *Conn) Examine(ctx context.Context, raw string, then ...string) (Selected, []string, error) {
	defer c.Bind(ctx)()
	if err := c.settle(); err != nil {
		return Selected{}, nil, err
	}
	c.sel, c.last, c.junk = Selected{Raw: raw, Exists: -1}, Result{}, 0
	wait, err := c.examine(raw)
	if err != nil {
		return Selected{}, nil, err
	}
	var tags []string
	for _, cmd := range then {
		tag, err := c.Send(cmd)
		if err != nil {
			return Selected{}, nil, err
		}
		tags = append(tags, tag)
	}
	res, err := wait()
	if err != nil {
		return Selected{}, nil, err
	}
	if res.OK() {
		return c.sel, tags, nil
	}
	c.sel = Selected{}
	for range tags {
		if _, _, err := c.Next(nil); err != nil {
			return Selected{}, nil, err
		}
	}
	return Selected{}, nil, res.Err()
}

// examine sends the command. Names the library cannot spell go raw.
func (c *Conn) examine(raw string) (wait func() (Result, error), err error) {
	// Courier forgets the UIDVALIDITY it makes for an EXAMINE; SELECT changes
	// nothing either, as long as nothing is stored.
	readOnly := !strings.Contains(c.greeted, "Courier")
	name, ok := decodeUTF7(raw)
	if ok && !strings.ContainsAny(name, "\r\n\x00") {
		cmd := c.client.Select(name, &imap.SelectOptions{ReadOnly: readOnly})
		return func() (Result, error) {
			err := c.letLibrary(func() error {
				_, err := cmd.Wait()
				return err
			})
			if err = ignoreRefusal(err); err != nil {
				return Result{}, c.fail("select mailbox", err)
			}
			return c.last, nil
		}, nil
	}
	spelled, ok := commandString(raw, c.literalPlus())
	if !ok {
		return nil, unsendable(raw)
	}
	verb := "EXAMINE "
	if !readOnly {
		verb = "SELECT "
	}
	tag, err := c.Send(verb + spelled)
	if err != nil {
		return nil, err
	}
	return func() (Result, error) {
		got, res, err := c.Next(nil)
		if err == nil && got != tag {
			err = c.broke(broken("answers to pipelined commands out of order"))
		}
		return res, err
	}, nil
}

// Box is a mailbox selected for writing.
type Box struct {
	UIDValidity uint32
	UIDNext     uint32 // 0 where the server does not say
	Exists      int64
	Permanent   mail.Flags // what can be stored for good; without meaning if All
	AnyKeyword  bool       // new keywords can be made (`\*`)
	All         bool       // the server does not say what can be stored: everything (RFC 9051 section 7.1)
	ReadOnly    bool
}

// Select selects a mailbox, named as the server does, for reading and writing.
// Commands in then are sent behind it without waiting, as with Examine. A refusal
// is a *Refused.
func (c *Conn) Select(ctx context.Context, raw string, then ...string) (Box, []string, error) {
	defer c.Bind(ctx)()
	name, ok := commandString(raw, c.literalPlus())
	if !ok {
		return Box{}, nil, unsendable(raw)
	}
	if err := c.settle(); err != nil {
		return Box{}, nil, err
	}
	c.sel = Selected{Raw: raw, Exists: -1}
	box := Box{All: true}
	before := c.scan.consumed
	c.scan.consumed = func() {
		if before != nil {
			before()
		}
		box.flags(c.scan.line)
	}
	defer func() { c.scan.consumed = before }()
	tag, err := c.Send("SELECT " + name)
	if err != nil {
		return Box{}, nil, err
	}
	var tags []string
	for _, cmd := range then {
		t, err := c.Send(cmd)
		if err != nil {
			return Box{}, nil, err
		}
		tags = append(tags, t)
	}
	got, res, err := c.Next(nil)
	if err == nil && got != tag {
		err = c.broke(broken("answers to pipelined commands out of order"))
	}
	if err != nil {
		return Box{}, nil, err
	}
	if !res.OK() {
		c.sel = Selected{}
		for range tags {
			if _, _, err := c.Next(nil); err != nil {
				return Box{}, nil, err
			}
		}
		return Box{}, nil, res.Err()
	}
	box.UIDValidity, box.UIDNext, box.Exists = c.sel.UIDValidity, c.sel.UIDNext, max(c.sel.Exists, 0)
	box.ReadOnly = res.Code == "READ-ONLY"
	return box, tags, nil
}

// flags looks for PERMANENTFLAGS in a line.
func (b *Box) flags(line []byte) {
	rest, ok := bytes.CutPrefix(line, []byte("* "))
	if !ok || !bytes.Contains(rest, []byte("PERMANENTFLAGS")) {
		return
	}
	r, ok := parseResult(rest)
	if !ok || r.Code != "PERMANENTFLAGS" {
		return
	}
	list := strings.Fields(strings.Trim(r.Arg, "() "))
	b.All, b.Permanent, b.AnyKeyword = false, mail.NewFlags(list...), false
	for _, f := range list {
		b.AnyKeyword = b.AnyKeyword || f == `\*`
	}
}
