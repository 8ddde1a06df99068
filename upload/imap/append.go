package imap

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
	"mailhaul/upload"
)

// Append sends messages: one command for all of them where the server has
// MULTIAPPEND, else commands without waiting in between where it can. It stops where
// the last answers, quotaStop of them, were that there is no space.
func (d *Destination) Append(ctx context.Context, box upload.Box, msgs []upload.Message) (answers []upload.Answer, err error) {
	err = d.with(ctx, func(c *imapconn.Conn) error {
		raw, _, err := d.server(c, box.Name)
		if err != nil {
			return err
		}
		for len(msgs) > 0 {
			n, send := 1, d.append
			switch {
			case c.CanGroup():
				n = len(msgs)
			case c.Flows(msgs[0].Wire):
				send = d.appendEach
				for n < len(msgs) && c.Flows(msgs[n].Wire) {
					n++
				}
			}
			got, err := send(ctx, c, box, raw, msgs[:n])
			answers = append(answers, got...)
			if err != nil {
				return err
			}
			msgs = msgs[n:]
			if noSpace(answers) {
				return nil
			}
		}
		return nil
	})
	return answers, err
}

// quotaStop is how many messages in a row are refused for lack of space before no
// more are sent.
const quotaStop = 3

func noSpace(answers []upload.Answer) bool {
	if len(answers) < quotaStop {
		return false
	}
	for _, a := range answers[len(answers)-quotaStop:] {
		if !errors.Is(a.Refused, upload.ErrOverQuota) || a.Group {
			return false
		}
	}
	return true
}

// outgoing turns messages into those of the connection; what cannot be read is
// noted in answers.
func outgoing(part []upload.Message, answers []upload.Answer) []imapconn.Message {
	out := make([]imapconn.Message, len(part))
	for i, m := range part {
		out[i] = imapconn.Message{Flags: m.Flags, Date: m.InternalDate, Size: m.Wire, NUL: m.NUL, WriteTo: func(w io.Writer) error {
			err := writeWire(w, m.Open)
			if err != nil {
				answers[i].Unsent = err
			}
			return err
		}}
	}
	return out
}

// broken is what is known when the connection was lost.
func (d *Destination) broken(box upload.Box, answers []upload.Answer, err error) error {
	if errors.Is(err, imapconn.ErrNotSent) {
		return &mail.Error{Kind: mail.KindTemporary, Ref: d.ref(box.Name), Op: "append", Err: err}
	}
	for i := range answers {
		answers[i].Unsent = nil // it was the connection
	}
	return err
}

// append sends one command.
func (d *Destination) append(ctx context.Context, c *imapconn.Conn, box upload.Box, raw string, part []upload.Message) ([]upload.Answer, error) {
	answers := make([]upload.Answer, len(part))
	res, err := c.Append(ctx, raw, outgoing(part, answers))
	if err != nil {
		return answers, d.broken(box, answers, err)
	}
	return answers, d.settle(box, res, answers)
}

// appendEach sends a command for each message.
func (d *Destination) appendEach(ctx context.Context, c *imapconn.Conn, box upload.Box, raw string, part []upload.Message) ([]upload.Answer, error) {
	answers := make([]upload.Answer, len(part))
	results, err := c.AppendEach(ctx, raw, outgoing(part, answers))
	if err != nil {
		err = d.broken(box, answers, err)
	}
	for i, res := range results {
		if res.Condition == "" {
			continue
		}
		later := d.settle(box, res, answers[i:i+1])
		if _, throttled := errors.AsType[*upload.Throttled](later); err == nil || throttled {
			err = later // a server that wants a pause also ends connections
		}
	}
	return answers, err
}

// settle notes the answer to one command. An error says that it is to be tried
// again.
func (d *Destination) settle(box upload.Box, res imapconn.Appended, answers []upload.Answer) error {
	switch {
	case res.OK():
		for i := range answers {
			answers[i].Stored = true
			if res.UIDValidity == box.UIDValidity {
				answers[i].UID = res.UIDs[i]
			}
		}
		return nil
	case res.Code == "TRYCREATE", res.Busy() && !overQuota(res.Result):
		return d.refusal(box.Name, "append", res.Result)
	}
	refused := d.refusal(box.Name, "append", res.Result)
	for i := range answers {
		answers[i].Refused, answers[i].Group = refused, len(answers) > 1
	}
	return nil
}

// wireBuffers are what writeWire reads into and writes from.
var wireBuffers = sync.Pool{New: func() any { return new(wireBuffer) }}

type wireBuffer struct {
	in  [16 << 10]byte
	out [32 << 10]byte // every octet may be an LF
}

// writeWire writes canonical octets in wire form: LF becomes CRLF.
func writeWire(w io.Writer, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	b := wireBuffers.Get().(*wireBuffer)
	defer wireBuffers.Put(b)
	for {
		n, err := r.Read(b.in[:])
		if _, werr := w.Write(toWire(b.out[:0], b.in[:n])); werr != nil {
			return werr
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// toWire appends the wire form of octets to out.
func toWire(out, octets []byte) []byte {
	for {
		i := bytes.IndexByte(octets, '\n')
		if i < 0 {
			return append(out, octets...)
		}
		out = append(append(out, octets[:i]...), '\r', '\n')
		octets = octets[i+1:]
	}
}
