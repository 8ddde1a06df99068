package demo

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// Servers serve the made-up account over IMAPS and POP3S (its INBOX) on a
// loopback address, with a certificate of their own authority.
type Servers struct {
	IMAPPort, POP3Port int
	CA                 []byte // PEM, to be trusted by the client

	imap     *imapserver.Server
	pop3     net.Listener
	sessions sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool
}

// Host is the address the servers listen at.
const Host = "127.0.0.1"

// Serve starts the servers with some mailboxes. The caller closes them.
func Serve(all []Mailbox) (*Servers, error) {
	ca, cert, err := certificate()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	user, err := fill(all)
	if err != nil {
		return nil, err
	}
	imapListener, err := tls.Listen("tcp", net.JoinHostPort(Host, "0"), config)
	if err != nil {
		return nil, err
	}
	pop3Listener, err := tls.Listen("tcp", net.JoinHostPort(Host, "0"), config)
	if err != nil {
		return nil, errors.Join(err, imapListener.Close())
	}
	mem := imapmemserver.New()
	mem.AddUser(user)
	s := &Servers{CA: ca, pop3: pop3Listener, IMAPPort: port(imapListener), POP3Port: port(pop3Listener), conns: map[net.Conn]bool{}}
	s.imap = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return mem.NewSession(), nil, nil
		},
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapNamespace: {}, imap.CapUIDPlus: {}, imap.CapListExtended: {}, imap.CapListStatus: {}, imap.CapMove: {},
		},
		Logger: log.New(io.Discard, "", 0),
	})
	s.sessions.Go(func() { _ = s.imap.Serve(imapListener) }) // ends when closed
	var inbox []Message
	for _, mb := range all {
		if mb.Name == "INBOX" {
			inbox = mb.Messages
		}
	}
	s.sessions.Go(func() { s.servePOP3(inbox) })
	return s, nil
}

// Close ends the servers and their sessions.
func (s *Servers) Close() error {
	err := errors.Join(s.imap.Close(), s.pop3.Close())
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close() // the client may have closed it
	}
	s.mu.Unlock()
	s.sessions.Wait()
	return err
}

func port(l net.Listener) int {
	a, _ := l.Addr().(*net.TCPAddr)
	return a.Port
}

// fill makes the account in memory.
func fill(all []Mailbox) (*imapmemserver.User, error) {
	user := imapmemserver.NewUser(User, Password)
	for _, mb := range all {
		if err := user.Create(mb.Name, nil); err != nil {
			return nil, fmt.Errorf("make mailbox %s: %w", mb.Name, err)
		}
		for _, m := range mb.Messages {
			o := &imap.AppendOptions{Time: m.InternalDate}
			for _, f := range m.Flags.List() {
				o.Flags = append(o.Flags, imap.Flag(f))
			}
			if _, err := user.Append(mb.Name, literal{bytes.NewReader(m.Octets)}, o); err != nil {
				return nil, fmt.Errorf("fill mailbox %s: %w", mb.Name, err)
			}
		}
	}
	return user, nil
}

type literal struct{ *bytes.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

// certificate makes an authority and a certificate of its for the loopback
// address, good for a day.
func certificate() (ca []byte, cert tls.Certificate, err error) {
	authority := template("mailhaul demo authority")
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, cert, err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, caKey.Public(), caKey)
	if err != nil {
		return nil, cert, err
	}
	leaf := template("mailhaul demo server")
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.IPAddresses, leaf.DNSNames = []net.IP{net.ParseIP(Host)}, []string{"localhost"}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, cert, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), caKey)
	if err != nil {
		return nil, cert, err
	}
	ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return ca, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

// idle is how long a POP3 client may be silent.
const idle = time.Minute

func (s *Servers) servePOP3(inbox []Message) {
	for {
		c, err := s.pop3.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.sessions.Go(func() {
			(&pop3Session{c: c, inbox: inbox}).serve()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}
