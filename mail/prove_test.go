package mail_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"mailhaul/mail"
)

// A proof is made of the very octets that were archived, read to their end, and of
// nothing else: it is what stands between an archive and a deletion.
func TestProveWantsTheVeryOctets(t *testing.T) {
	const octets = "Subject: x\n\nbody\n"
	sums, err := mail.SumCanonical(bytes.NewReader([]byte(octets)))
	if err != nil {
		t.Fatal(err)
	}
	rc := mail.Receipt{Place: "INBOX/cur/1", Sums: sums}
	p, err := mail.Prove(rc, bytes.NewReader([]byte(octets)))
	if got, ok := p.Receipt(); err != nil || !ok || got != rc {
		t.Fatalf("%+v, %v, %v", got, ok, err)
	}
	refused := func(name string, rc mail.Receipt, r io.Reader, is error) {
		t.Helper()
		p, err := mail.Prove(rc, r)
		if _, ok := p.Receipt(); ok || err == nil || is != nil && !errors.Is(err, is) {
			t.Errorf("%s: proven %v, %v", name, ok, err)
		}
	}
	for i := range octets {
		other := []byte(octets)
		other[i] ^= 1
		refused("one bit differs", rc, bytes.NewReader(other), mail.ErrAltered)
		refused("cut", rc, bytes.NewReader(other[:i]), mail.ErrAltered)
	}
	refused("longer", rc, bytes.NewReader([]byte(octets+"\n")), mail.ErrAltered)
	broken := errors.New("input/output error")
	refused("the disk fails behind the last octet", rc, io.MultiReader(bytes.NewReader([]byte(octets)), iotest.ErrReader(broken)), broken)
	length := rc
	length.Octets++
	refused("another length on record", length, bytes.NewReader([]byte(octets)), mail.ErrAltered)
	refused("no digest on record", mail.Receipt{Place: rc.Place}, bytes.NewReader(nil), nil)
	var zero mail.Proof
	if _, ok := zero.Receipt(); ok {
		t.Error("the zero Proof proves something")
	}
}
