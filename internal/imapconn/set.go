package imapconn

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// maxSet is the length in octets at which a set of UIDs is split: Dovecot takes 8 kB
// of arguments and others less than 64 kB of line.
const maxSet = 8000

// Set collects UIDs or sequence numbers into an IMAP set of bounded length.
// Numbers that follow one another become ranges; nothing else is added to what was
// asked for.
type Set struct {
	b        strings.Builder
	from, to uint32
	n        int
}

// Add adds a number; it returns false, and adds nothing, when the set is full.
func (s *Set) Add(n uint32) bool {
	if s.from != 0 && s.to != 1<<32-1 && n == s.to+1 {
		s.to = n
		s.n++
		return true
	}
	if s.b.Len() > maxSet-2*len(",4294967295:4294967295") {
		return false
	}
	s.flush()
	s.from, s.to = n, n
	s.n++
	return true
}

func (s *Set) flush() {
	if s.from == 0 {
		return
	}
	if s.b.Len() > 0 {
		s.b.WriteByte(',')
	}
	s.b.WriteString(strconv.FormatUint(uint64(s.from), 10))
	if s.to != s.from {
		s.b.WriteByte(':')
		s.b.WriteString(strconv.FormatUint(uint64(s.to), 10))
	}
	s.from = 0
}

// Len returns how many numbers are in the set.
func (s *Set) Len() int { return s.n }

// String returns the set as a command takes it.
func (s *Set) String() string {
	s.flush()
	return s.b.String()
}
