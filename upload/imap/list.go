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
	section := "BODY.PEEK[]"
	if header {
		section = "BODY.PEEK[HEADER]"
	}
	return d.read(ctx, box, uids, section, &reader{take: func(uid uint32, stored, _ mail.Sums) { take(uid, stored) }})
}

// ReadUnmarked reads messages back as they are, and as they were before mbsync.
func (d *Destination) ReadUnmarked(ctx context.Context, box upload.Box, uids []uint32, take func(uid uint32, stored, unmarked mail.Sums)) error {
	return d.read(ctx, box, uids, "BODY.PEEK[]", &reader{unmark: true, take: take})
}

func (d *Destination) read(ctx context.Context, box upload.Box, uids []uint32, section string, r *reader) error {
	if len(uids) == 0 {
		return nil
	}
	r.wanted, r.buf = uids, make([]byte, 32<<10)
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
	unmark bool     // compute the second sums, too
	take   func(uid uint32, stored, unmarked mail.Sums)
	buf    []byte
	sums   [2]mail.Sums
	has    bool
}

func (r *reader) Body(_ *imapconn.Fetch, b *imapconn.Body) error {
	if b.Nil() || b.Partial {
		return nil
	}
	c := mail.NewCanonical(b, r.buf)
	var err error
	if r.unmark {
		r.sums[1], err = mail.SumCanonical(upload.Unmark(c))
	} else {
		_, err = io.Copy(io.Discard, c)
	}
	r.sums[0], r.has = c.Sums(), err == nil
	return err
}

func (r *reader) End(f *imapconn.Fetch) error {
	if _, asked := slices.BinarySearch(r.wanted, f.UID); r.has && asked {
		r.take(f.UID, r.sums[0], r.sums[1])
	}
	r.has = false
	return nil
}
