package imap

import (
	"context"
	"io"
	"slices"
	"strconv"
	"sync"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// likeness is what a message in the trash is recognised by.
type likeness struct {
	size   int64
	header mail.Digest
}

// Restore moves messages from the \Trash mailbox back to a mailbox, as many of each
// as are wanted, and returns how many. Info.Size of a receipt is the size the server
// listed. What is not in the trash, or cannot be moved, is no error: it is for the
// caller to append. After an error the same call goes on.
func (s *Source) Restore(ctx context.Context, to mail.Mailbox, wanted []mail.Receipt) (moved int, err error) {
	err = s.retry(ctx, func() error {
		n, err := s.restore(ctx, to, wanted)
		moved += n
		return err
	})
	return moved, s.at(err, to, "move back from the trash")
}

func (s *Source) restore(ctx context.Context, to mail.Mailbox, wanted []mail.Receipt) (int, error) {
	c, err := s.pool.get(ctx, "")
	if err != nil {
		return 0, err
	}
	trash, err := s.trash(ctx, c)
	s.pool.put(c)
	if mail.KindOf(err) == mail.KindLacking || err == nil && trash.Raw == to.Raw {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	uids, err := s.inTrash(ctx, &trash, wanted)
	if err != nil || len(uids) == 0 {
		return 0, err
	}
	if c, err = s.pool.get(ctx, trash.Raw); err != nil {
		return 0, err
	}
	defer s.pool.put(c)
	box, _, err := c.Select(ctx, trash.Raw)
	if err != nil || box.ReadOnly || box.UIDValidity != trash.UIDValidity {
		return 0, err
	}
	moved := 0
	for _, set := range imapconn.Sets(uids) {
		res, err := c.Move(ctx, set, to.Raw)
		if err != nil || !res.OK() {
			return moved, err
		}
		moved += len(set)
	}
	return moved, nil
}

// inTrash finds what is wanted in the trash, by size and header; where several
// different messages have both in common, none.
func (s *Source) inTrash(ctx context.Context, trash *mail.Mailbox, wanted []mail.Receipt) ([]uint32, error) {
	count := make(map[likeness]int)
	digest := make(map[likeness]mail.Digest)
	sizes := make(map[int64]bool)
	for _, rc := range wanted {
		k := likeness{rc.Info.Size, rc.Header}
		if d, seen := digest[k]; seen && d != rc.Digest {
			count[k] = -len(wanted)
			continue
		}
		digest[k] = rc.Digest
		count[k]++
		sizes[rc.Info.Size] = true
	}
	var ask []mail.Want
	for in, err := range s.List(ctx, *trash) {
		if err != nil {
			return nil, err
		}
		trash.UIDValidity = in.Ref.UIDValidity
		if sizes[in.Size] && in.Ref.UID != "" {
			ask = append(ask, mail.Want{UID: in.Ref.UID, Size: in.Size})
		}
	}
	var mu sync.Mutex
	var uids []uint32
	bySize := make(map[string]int64, len(ask))
	for _, w := range ask {
		bySize[w.UID] = w.Size
	}
	err := s.Headers(ctx, *trash, ask, func(in mail.Info, r io.Reader, err error) error {
		if err != nil {
			return nil // not to be had: it is appended
		}
		d, err := mail.HeaderDigest(r)
		if err != nil {
			return nil // the driver asks again
		}
		mu.Lock()
		defer mu.Unlock()
		k := likeness{bySize[in.Ref.UID], d}
		uid, err := strconv.ParseUint(in.Ref.UID, 10, 32)
		if err == nil && count[k] > 0 && !slices.Contains(uids, uint32(uid)) {
			count[k]--
			uids = append(uids, uint32(uid))
		}
		return nil
	})
	slices.Sort(uids)
	return uids, err
}
