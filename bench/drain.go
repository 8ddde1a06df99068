package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mailhaul/internal/dovecot"
)

// sink takes one message after the other, in wire form.
type sink interface {
	message(wire []byte) error
	close() error
}

// drainMain is the bare minimum of a mail fetcher, for comparison: no state, no
// digests, no way to go on after a cut.
func drainMain(args []string) error {
	if len(args) != 6 {
		return errors.New("usage: drain SCHEME ADDRESS CAFILE USER discard|one|each|list DIR")
	}
	scheme, address, caFile, user, mode, dir := args[0], args[1], args[2], args[3], args[4], args[5]
	conn, err := dialTLS(address, caFile)
	if err != nil {
		return err
	}
	defer conn.Close()
	var to sink = discard{}
	switch mode {
	case "one":
		if to, err = newOne(filepath.Join(dir, "mail")); err != nil {
			return err
		}
	case "each":
		if to, err = newEach(dir); err != nil {
			return err
		}
	}
	r := bufio.NewReaderSize(conn, 256<<10)
	if scheme == "pop3s" {
		err = drainPOP3(conn, r, user, mode == "list", to)
	} else {
		err = drainIMAP(conn, r, user, mode == "list", to)
	}
	return errors.Join(err, to.close())
}

func dialTLS(address, caFile string) (net.Conn, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
}

func drainPOP3(w io.Writer, r *bufio.Reader, user string, listOnly bool, to sink) error {
	ok := func() error {
		l, err := r.ReadSlice('\n')
		if err == nil && !bytes.HasPrefix(l, []byte("+OK")) {
			err = fmt.Errorf("server said %q", l)
		}
		return err
	}
	command := func(c string) error {
		if _, err := io.WriteString(w, c+"\r\n"); err != nil {
			return err
		}
		return ok()
	}
	if err := errors.Join(ok(), command("USER "+user), command("PASS "+dovecot.Password), command("UIDL")); err != nil {
		return err
	}
	n := 0
	for {
		l, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if string(l) == ".\r\n" {
			break
		}
		n++
	}
	if !listOnly {
		sent := make(chan error, 1)
		go func() { // the whole pipeline at once: no window to wait for
			var all bytes.Buffer
			for i := range n {
				fmt.Fprintf(&all, "RETR %d\r\n", i+1)
			}
			_, err := all.WriteTo(w)
			sent <- err
		}()
		var msg []byte
		for range n {
			if err := ok(); err != nil {
				return err
			}
			msg = msg[:0]
			for {
				l, err := r.ReadSlice('\n')
				if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
					return err
				}
				if string(l) == ".\r\n" {
					break
				}
				if l[0] == '.' {
					l = l[1:]
				}
				msg = append(msg, l...)
			}
			if err := to.message(msg); err != nil {
				return err
			}
		}
		if err := <-sent; err != nil {
			return err
		}
	}
	return command("QUIT")
}

func drainIMAP(w io.Writer, r *bufio.Reader, user string, listOnly bool, to sink) error {
	command := func(tag, c string) error {
		if _, err := io.WriteString(w, tag+" "+c+"\r\n"); err != nil {
			return err
		}
		return untilTag(r, tag, to)
	}
	if _, err := r.ReadSlice('\n'); err != nil {
		return err
	}
	if err := command("a", "LOGIN "+dovecot.Quote(user)+" "+dovecot.Quote(dovecot.Password)); err != nil {
		return err
	}
	if listOnly {
		return errors.Join(command("b", "STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY)"), command("c", "LOGOUT"))
	}
	return errors.Join(command("b", "EXAMINE INBOX"), command("c", "UID FETCH 1:* (UID BODY.PEEK[])"), command("d", "LOGOUT"))
}

func untilTag(r *bufio.Reader, tag string, to sink) error {
	var msg []byte
	for {
		l, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if rest, ok := bytes.CutPrefix(l, []byte(tag+" ")); ok {
			if !bytes.HasPrefix(rest, []byte("OK")) {
				return fmt.Errorf("server said %q", l)
			}
			return nil
		}
		l = bytes.TrimRight(l, "\r\n")
		open := bytes.LastIndexByte(l, '{')
		if open < 0 || l[len(l)-1] != '}' {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(string(l[open+1:]), "}"))
		if err != nil {
			return err
		}
		if cap(msg) < n {
			msg = make([]byte, n)
		}
		if _, err := io.ReadFull(r, msg[:n]); err != nil {
			return err
		}
		if err := to.message(msg[:n]); err != nil {
			return err
		}
	}
}

type discard struct{}

func (discard) message([]byte) error { return nil }
func (discard) close() error         { return nil }

// one writes all messages into one file and syncs it once.
type one struct {
	f *os.File
	w *bufio.Writer
}

func newOne(path string) (*one, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &one{f, bufio.NewWriterSize(f, 256<<10)}, nil
}

func (o *one) message(wire []byte) error {
	if _, err := o.w.WriteString("From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n"); err != nil {
		return err
	}
	for len(wire) > 0 {
		l, rest, found := bytes.Cut(wire, []byte("\r\n"))
		wire = rest
		if _, err := o.w.Write(l); err != nil {
			return err
		}
		if found {
			if err := o.w.WriteByte('\n'); err != nil {
				return err
			}
		}
	}
	return o.w.WriteByte('\n')
}

func (o *one) close() error { return errors.Join(o.w.Flush(), o.f.Sync(), o.f.Close()) }

// each writes a Maildir as most programs do: a file in tmp, an fsync, a rename,
// message by message.
type each struct {
	dir string
	n   int
}

func newEach(dir string) (*each, error) { return &each{dir: dir}, mkMaildir(dir) }

func (e *each) message(wire []byte) error {
	e.n++
	name := fmt.Sprintf("%d.drain", e.n)
	tmp := filepath.Join(e.dir, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.ReplaceAll(wire, []byte("\r\n"), []byte("\n")))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(e.dir, "new", name))
}

func (e *each) close() error {
	d, err := os.Open(filepath.Join(e.dir, "new"))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
