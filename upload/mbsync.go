package upload

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"mailhaul/mail"
)

// mbsync (isync) adds a line to the header of each message that it copies, and leaves
// it there. A destination that it filled has all messages, and none of their digests.

const (
	markName   = "X-TUID: "
	markOctets = len(markName) + 12 // of the line, without its end
	markWire   = int64(markOctets + 2)
)

// Unmark reads canonical octets without the line that mbsync added to the header.
func Unmark(r io.Reader) io.Reader {
	return &unmarking{r: bufio.NewReaderSize(r, 4096)}
}

type unmarking struct {
	r    *bufio.Reader
	line []byte // of what was read, not passed on yet
	err  error
	mid  bool // within a line longer than the buffer
	over bool // the rest is as it is
}

func (u *unmarking) Read(p []byte) (int, error) {
	for len(u.line) == 0 {
		if u.over {
			return u.r.Read(p)
		}
		if u.err != nil {
			return 0, u.err
		}
		u.next()
	}
	n := copy(p, u.line)
	u.line = u.line[n:]
	return n, nil
}

// next reads a line of the header.
func (u *unmarking) next() {
	line, err := u.r.ReadSlice('\n')
	begins := !u.mid
	u.mid = err == bufio.ErrBufferFull
	if !u.mid {
		u.err = err
	}
	switch {
	case begins && len(line) == markOctets+1 && bytes.HasPrefix(line, []byte(markName)):
		u.over = true
		return
	case begins && len(line) == 1 && line[0] == '\n':
		u.over = true
	}
	u.line = append(u.line[:0:0], line...)
}

// Unmarker is a Destination that reads messages back both as they are stored and as
// they were before mbsync added its line.
type Unmarker interface {
	ReadUnmarked(ctx context.Context, box Box, uids []uint32, take func(uid uint32, stored, unmarked mail.Sums)) error
}

// compareMarked finds messages among those that mbsync put there, unless all has
// them already: without its line they have the octets of ours.
func (b *box) compareMarked(ctx context.Context, wanted map[int64][]int64, foreign map[uint32]int64, all []found) (marked []found, err error) {
	u, ok := b.Destination.(Unmarker)
	if !ok {
		return nil, nil
	}
	taken, settled := make(map[uint32]bool), make(map[int64]bool)
	for _, f := range all {
		taken[f.uid], settled[f.message] = true, true
	}
	var look []uint32
	for uid, size := range foreign {
		if !taken[uid] && slices.ContainsFunc(wanted[size-markWire], func(id int64) bool { return !settled[id] }) {
			look = append(look, uid)
		}
	}
	if len(look) == 0 {
		return nil, nil
	}
	type sums struct{ stored, unmarked mail.Sums }
	octets := make(map[uint32]sums, len(look))
	slices.Sort(look)
	err = u.ReadUnmarked(ctx, b.state, look, func(uid uint32, stored, unmarked mail.Sums) { octets[uid] = sums{stored, unmarked} })
	if err != nil {
		return nil, err
	}
	for _, uid := range look {
		s, read := octets[uid]
		if !read || s.stored.Digest == s.unmarked.Digest {
			continue
		}
		for _, id := range wanted[foreign[uid]-markWire] {
			if settled[id] {
				continue
			}
			h, err := b.Messages.Message(ctx, id)
			if err != nil {
				return nil, err
			}
			if h.Receipt.Digest == s.unmarked.Digest {
				f := adoption(h, uid, foreign[uid])
				f.altered = s.stored.Digest
				marked, settled[id] = append(marked, f), true
				break
			}
		}
	}
	if len(marked) > 0 {
		b.warn(&mail.Error{Ref: b.ref(mail.Ref{}), Op: "upload",
			Err: errors.New("messages that mbsync put there, with a line X-TUID in their headers, are not sent again")})
	}
	return marked, nil
}
