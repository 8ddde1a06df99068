package mail

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Digest is the SHA-256 of canonical octets.
type Digest [sha256.Size]byte

// String returns the digest in hexadecimal, as sha256sum prints it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero tells whether the digest was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// ParseDigest reads what String wrote.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("not a SHA-256 digest: %q", s)
	}
	copy(d[:], b)
	return d, nil
}

// Receipt says that the octets of a message are durable in an archive: synced,
// in their final place, every directory above synced. Only an archive's Commit
// (or its reading of what an earlier run committed) makes one.
type Receipt struct {
	Info  Info
	Place string // path inside the archive, opaque above the format
	Sums
}

// Proof says that the octets of a receipt were read back to the end, just now,
// with the right length and digest. Its fields are unexported: only Prove makes
// one that is not zero, so nothing can be deleted without reading it back.
type Proof struct {
	receipt Receipt
	ok      bool
}

// ErrAltered says that archived octets differ from what was archived.
var ErrAltered = errors.New("octets differ from what was archived")

// Prove reads r, freshly opened on the archived canonical octets of rc, to the
// end and compares length and digest. It does not close r. A mismatch is
// ErrAltered.
func Prove(rc Receipt, r io.Reader) (Proof, error) {
	if rc.Digest.IsZero() {
		return Proof{}, errors.New("receipt without digest")
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return Proof{}, err
	}
	var got Digest
	h.Sum(got[:0])
	if n != rc.Octets || got != rc.Digest {
		return Proof{}, fmt.Errorf("%w: %s: %d octets with digest %s, expected %d with %s",
			ErrAltered, rc.Place, n, got, rc.Octets, rc.Digest)
	}
	return Proof{receipt: rc, ok: true}, nil
}

// Receipt returns what was proven; ok is false for a zero Proof, which every
// Deleter must refuse.
func (p Proof) Receipt() (rc Receipt, ok bool) { return p.receipt, p.ok }
