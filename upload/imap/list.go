package imap

import (
	"context"
	"fmt"
	"io"
	"slices"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
	"mailhaul/upload"
)

// List lists the messages from a UID on.
func (d *Destination) List(ctx context.Context, box upload.Box, from uint32, yield func(mail.Info) error) error {
	return d.with(ctx, func(c *imapconn.Conn) error {
		release := c.Bind(ctx)
		defer release()
		h := &entries{from: max(from, 1), yield: yield}
		sel, tags, err := d.examine(ctx, c, box, fmt.Sprintf("UID FETCH %d:* (UID RFC822.SIZE FLAGS)", h.from))
		if err != nil {
			return err
		}
		for range tags {
			_, res, err := c.Next(&imapconn.Handler{Fetch: h})
			if err != nil {
				return err
			}
			if !res.OK() && sel.Exists != 0 {
				return d.refusal(box.Name, "list messages", res)
			}
		}
		return nil
	})
}

// Read reads messages back.
func (d *Destination) Read(ctx context.Context, box upload.Box, uids []uint32, header bool, take func(uint32, mail.Sums)) error {
	if len(uids) == 0 {
		return nil
	}
	section := "BODY.PEEK[]"
	if header {
		section = "BODY.PEEK[HEADER]"
	}
	var commands []string
	for left := uids; len(left) > 0; {
		var set imapconn.Set
		n := 0
		for n < len(left) && set.Add(left[n]) {
			n++
		}
		left = left[n:]
		commands = append(commands, "UID FETCH "+set.String()+" (UID "+section+")")
	}
	return d.with(ctx, func(c *imapconn.Conn) error {
		release := c.Bind(ctx)
		defer release()
		if _, _, err := d.examine(ctx, c, box); err != nil {
			return err
		}
		r := &reader{wanted: uids, take: take, buf: make([]byte, 32<<10)}
		for _, cmd := range commands {
			res, err := c.Exec(ctx, &imapconn.Handler{Fetch: r}, cmd)
			if err != nil {
				return err
			}
			if !res.OK() {
				return d.refusal(box.Name, "read messages back", res)
			}
		}
		return nil
	})
}

// reader takes messages that are read back.
type reader struct {
	wanted []uint32 // ascending
	take   func(uint32, mail.Sums)
	buf    []byte
	sums   mail.Sums
	has    bool
}

func (r *reader) Body(_ *imapconn.Fetch, b *imapconn.Body) error {
	if b.Nil() || b.Partial {
		return nil
	}
	c := mail.NewCanonical(b, r.buf)
	if _, err := io.Copy(io.Discard, c); err != nil {
		return err
	}
	r.sums, r.has = c.Sums(), true
	return nil
}

func (r *reader) End(f *imapconn.Fetch) error {
	if _, asked := slices.BinarySearch(r.wanted, f.UID); r.has && asked {
		r.take(f.UID, r.sums)
	}
	r.has = false
	return nil
}
