package pop3

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxMessages is the largest mailbox believed in.
	maxMessages = 5_000_000
	// maxUIDL in octets; RFC 1939 section 7 says 70. Longer ones are not cut,
	// which could make two equal, but not used.
	maxUIDL = 1000
	// maxUIDLs bounds what all UIDLs of a mailbox may take in memory, in octets:
	// a million of the longest that RFC 1939 allows.
	maxUIDLs = 70_000_000
)

// listing is what STAT, UIDL and LIST say of a mailbox; it holds for one session.
// Messages are numbered from 1. It is compact: all UIDLs in one string.
type listing struct {
	count  int   // by STAT
	octets int64 // by STAT

	uids string   // UIDL after UIDL
	ends []uint32 // where the UIDL of message i+1 ends; an unusable one has no octets
	odd  bool     // UIDL has lines or UIDLs that cannot be used, or not one for each message

	sizes   []int64 // nil before LIST; -1 where LIST has no usable line
	byUID   []uint32
	hasUIDL bool
}

// uid returns the UIDL of a message, "" if it has no usable one.
func (l *listing) uid(seq uint32) string {
	i := int(seq) - 1
	if i < 0 || i >= len(l.ends) {
		return ""
	}
	from := uint32(0)
	if i > 0 {
		from = l.ends[i-1]
	}
	return l.uids[from:l.ends[i]]
}

// size returns the octets of a message by LIST, -1 if it is not known.
func (l *listing) size(seq uint32) int64 {
	i := int(seq) - 1
	if i < 0 || i >= len(l.sizes) {
		return -1
	}
	return l.sizes[i]
}

// find returns the number of the message with this UIDL in this session, 0 if there
// is none. hint is tried first.
func (l *listing) find(uid string, hint uint32) uint32 {
	if uid == "" {
		return 0
	}
	if l.uid(hint) == uid {
		return hint
	}
	l.index()
	i, ok := slices.BinarySearchFunc(l.byUID, uid, func(seq uint32, u string) int { return strings.Compare(l.uid(seq), u) })
	if !ok {
		return 0
	}
	return l.byUID[i]
}

// index sorts the messages that have a UIDL by it.
func (l *listing) index() {
	if l.byUID != nil {
		return
	}
	l.byUID = make([]uint32, 0, len(l.ends))
	for i := range l.ends {
		if seq := uint32(i + 1); l.uid(seq) != "" {
			l.byUID = append(l.byUID, seq)
		}
	}
	slices.SortFunc(l.byUID, func(a, b uint32) int { return strings.Compare(l.uid(a), l.uid(b)) })
}

// state is the digest by which two equal listings are known; "" if a message
// could change places with another unseen.
func (l *listing) state() string {
	if l.odd || !l.hasUIDL {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d %d\n", l.count, l.octets)
	var line []byte
	for i := range l.ends {
		line = append(append(line[:0], l.uid(uint32(i+1))...), '\n')
		h.Write(line)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// numbered splits "number SP rest" strictly: a number of 1 to count.
func numbered(line []byte, count int) (seq int, rest []byte, ok bool) {
	digits, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || len(digits) == 0 || len(digits) > 10 {
		return 0, nil, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, nil, false
		}
		seq = seq*10 + int(c-'0')
	}
	return seq, rest, seq >= 1 && seq <= count
}

// uidlParser takes the lines of UIDL in whatever order and makes the listing.
type uidlParser struct {
	l     *listing
	lines int
	data  []byte
	spans []span // by number
	odd   bool
}

type span struct{ from, to uint32 }

func newUIDLParser(l *listing) *uidlParser { return &uidlParser{l: l} }

// line takes one line. Nothing in it is an error: what cannot be used is left
// out, and the listing then says so.
func (p *uidlParser) line(b []byte) error {
	p.lines++
	if p.lines > p.l.count+maxExtraLines || len(p.data) > maxUIDLs {
		return errListingTooLong
	}
	seq, rest, ok := numbered(b, p.l.count)
	if !ok {
		p.odd = true
		return nil
	}
	for len(p.spans) < seq {
		p.spans = append(p.spans, span{})
	}
	if p.spans[seq-1] != (span{}) { // a second line for the same number
		p.odd = true
		p.spans[seq-1] = span{1, 0}
		return nil
	}
	rest = bytes.Trim(rest, " ")
	if !usableUIDL(rest) || len(p.data)+len(rest) > 1<<31-1 {
		p.odd = true
		p.spans[seq-1] = span{1, 0}
		return nil
	}
	from := uint32(len(p.data))
	p.data = append(p.data, rest...)
	p.spans[seq-1] = span{from, uint32(len(p.data))}
	return nil
}

// usableUIDL is wider than RFC 1939 section 7 (1 to 70 octets of 0x21 to 0x7E),
// as servers are.
func usableUIDL(b []byte) bool {
	if len(b) == 0 || len(b) > maxUIDL || !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

// finish puts the UIDLs in the order of the messages and takes out those that
// stand for more than one.
func (p *uidlParser) finish() {
	l := p.l
	for len(p.spans) < l.count {
		p.spans = append(p.spans, span{})
	}
	text := func(seq uint32) []byte {
		if s := p.spans[seq-1]; s.to > s.from {
			return p.data[s.from:s.to]
		}
		return nil
	}
	order := make([]uint32, l.count)
	for i := range order {
		order[i] = uint32(i + 1)
	}
	cmp := func(a, b uint32) int { return bytes.Compare(text(a), text(b)) }
	sorted := slices.Clone(order)
	if !slices.IsSortedFunc(sorted, cmp) {
		slices.SortFunc(sorted, cmp)
	}
	twins := make(map[uint32]bool)
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		if len(text(a)) > 0 && bytes.Equal(text(a), text(b)) {
			twins[a], twins[b] = true, true
		}
	}
	var out strings.Builder
	out.Grow(len(p.data))
	l.ends = make([]uint32, l.count)
	for i, seq := range order {
		b := text(seq)
		if len(b) == 0 || twins[seq] {
			p.odd = true
		} else {
			out.Write(b)
		}
		l.ends[i] = uint32(out.Len())
	}
	l.uids = out.String()
	l.odd = p.odd || p.lines != l.count
	l.hasUIDL = true
}

const maxExtraLines = 1000

var errListingTooLong = fmt.Errorf("%w: a listing is longer than the mailbox can need", errOutOfStep)

// listParser takes the lines of LIST.
type listParser struct {
	l     *listing
	lines int
}

func newListParser(l *listing) *listParser {
	l.sizes = make([]int64, l.count)
	for i := range l.sizes {
		l.sizes[i] = -1
	}
	return &listParser{l: l}
}

// unsure marks a message that LIST named twice with different sizes.
const unsure = -2

// believable is the largest size, in octets, that is taken for one: what a server
// says beyond it says nothing of how much it sends.
const believable = 1 << 40

func (p *listParser) line(b []byte) error {
	p.lines++
	if p.lines > p.l.count+maxExtraLines {
		return errListingTooLong
	}
	seq, rest, ok := numbered(b, p.l.count)
	if !ok {
		return nil
	}
	field, _, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte{' '}) // RFC 1939 section 5 allows more behind the size
	size, err := strconv.ParseInt(string(field), 10, 64)
	if err != nil || size < 0 || size > believable || field[0] == '+' {
		return nil
	}
	switch p.l.sizes[seq-1] {
	case -1, size:
		p.l.sizes[seq-1] = size
	default:
		p.l.sizes[seq-1] = unsure
	}
	return nil
}

func (p *listParser) finish() {
	for i, s := range p.l.sizes {
		if s == unsure {
			p.l.sizes[i] = -1
		}
	}
}
